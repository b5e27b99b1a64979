"""What manifests, indexes and image configurations say of an image: blobs, sizes, diff ids, chain ids.

Source: OCI image-spec (descriptor.md, manifest.md, image-index.md, config.md); Docker's schema 2 has the same fields.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 4 << 20
"""Bytes of a manifest, an index or a configuration at most; registries refuse larger ones."""
MANY = 4096
"""Layers of an image, and manifests of an index, that are looked at."""

DIGEST_LENGTH = 71


class Unusable(Exception):  # noqa: N818 - what the text is, not an error of ours
    """A text that is no manifest, index or configuration; why."""


class Platform(Struct, frozen=True):
    """What an index says of one of its manifests."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(Struct, frozen=True, rename={"media": "mediaType"}):
    """One blob as another names it: digest, size in bytes, type."""

    digest: str
    size: int = -1
    media: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Document(Struct, frozen=True, rename={"media": "mediaType", "schema": "schemaVersion"}):
    """A manifest (with `config` and `layers`) or an index (with `manifests`)."""

    schema: int = 0
    media: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] = []
    manifests: list[Descriptor] = []


class _RootFS(Struct):
    diff_ids: list[str] = []


class Config(Struct, frozen=True):
    """An image's configuration, as far as layers are concerned."""

    architecture: str = ""
    os: str = ""
    rootfs: _RootFS = msgspec.field(default_factory=_RootFS)

    @property
    def diff_ids(self) -> list[str]:
        """Diff ids from the base up."""
        return self.rootfs.diff_ids


_document = msgspec.json.Decoder(Document)
_config = msgspec.json.Decoder(Config)


def document(data: bytes) -> Document:
    """Read a manifest or an index. Raises Unusable."""
    try:
        found = _document.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"no manifest: {error}") from None
    if found.config is None and not found.manifests and found.schema != 2:  # noqa: PLR2004 - the only version there is
        raise Unusable("neither a manifest nor an index")
    if len(found.layers) > MANY or len(found.manifests) > MANY:
        raise Unusable(f"more than {MANY} entries")
    return found


def config(data: bytes) -> Config:
    """Read a configuration. Raises Unusable."""
    try:
        found = _config.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"no image configuration: {error}") from None
    if len(found.diff_ids) > MANY:
        raise Unusable(f"more than {MANY} layers")
    return found


def is_digest(text: str) -> bool:
    """Say whether a text is the digest that stores use, `sha256:` and 64 hexadecimal digits.

    >>> is_digest("sha256:" + 64 * "a"), is_digest("sha256:../../etc")
    (True, False)
    """
    return (
        len(text) == DIGEST_LENGTH and text.startswith("sha256:") and all(one in "0123456789abcdef" for one in text[7:])
    )


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Give the chain id of each layer, from the base up: the first is its diff id, then sha256(parent + " " + diff id)."""
    chains: list[str] = []
    for diff in diff_ids:
        chains.append(f"sha256:{sha256(f'{chains[-1]} {diff}'.encode()).hexdigest()}" if chains else diff)
    return chains
