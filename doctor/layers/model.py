r"""The values of layer verification: what is to be verified, what differs, and the lines of the record that keeps it.

Nothing here does I/O. All of them are msgspec structs, one JSON object a line (`dump`, `load`), tagged by their name in
lower case. Paths are text as `shown` makes it: bytes that are no UTF-8 stand as `\xff`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal[
    "content",  # the bytes of a file, or of a blob, are not those of its digest
    "size",  # the same, and there are more or fewer of them
    "mode",
    "owner",
    "xattr",
    "capability",  # the extended attribute security.capability
    "link target",  # of a symbolic link; of a hard link: it is another file
    "type",  # a file where a directory should be, ...
    "device",  # numbers of a device node
    "missing",
    "added",
    "whiteout lost",  # what the layer deletes of those below it is back
    "opaque lost",  # a directory shows again what the layers below have in it
    "record",  # the record itself cannot be used: tar-split, a manifest, a database; `path` is its file
    "digest",  # the layer as a whole: everything in it is as recorded, and its digest is another one all the same
    "recorded size",  # the size that the store has noted of the layer is not that of its files
]
"""How something differs."""

Cause = Literal[
    "",
    "bit",  # one flipped bit
    "bits",  # a few bytes close together
    "zeros",  # blocks of zeros where there was content
    "cut",  # the file ends early
    "emptied",  # it is empty
    "edited",  # written in place: another size, or another time
    "copied",  # restored without what the copy cannot hold: xattrs, devices, owners
    "rights",  # chmod or chown
    "shifted",  # all owners lie in another range of ids: a store of a daemon that remaps users, or for one
    "planted",  # an executable where programs are looked for, or one with setuid
]
"""The likely cause, by its pattern; empty where none fits."""

State = Literal["whole", "damaged", "unknown", "skipped"]
"""Of a layer: as recorded; something differs; something could not be read or was changed meanwhile; not looked at."""

Owners = tuple[tuple[int, int, int], ...]
"""A map of ids: id in the image, id on disk, how many; empty for no map. As in user_namespaces(7)."""


class Work(Struct, frozen=True, omit_defaults=True):
    """One layer to verify, as it is given to a process that knows no snapshot.

    `store` names the module that does it (`verifiers`), `id` is what the store calls the layer (a chain id, the key of a
    containerd snapshot, a layer of podman's, a blob's digest), `digest` what its content should come to, `bytes` how much
    there is to read, as far as is known (it orders the work, and the estimate). `root` is the directory or file that
    holds it, `record` the file that says what should be there, `lowers` the directories of the layers below, nearest
    first. `extra` is the store's own.
    """

    store: str
    id: str
    digest: str = ""
    bytes: int = 0
    root: str = ""
    record: str = ""
    lowers: tuple[str, ...] = ()
    uids: Owners = ()
    gids: Owners = ()
    extra: dict[str, str] = {}


class Damage(Struct, frozen=True, omit_defaults=True, tag="damage"):
    """One thing of one file, or of the layer, that is not as recorded.

    `path` is absolute in the image (`/usr/bin/python3.11`), or of the host for a `record`; `raw` is the base64 of its bytes
    where these are no UTF-8. `expected` and `found` are words for a person. `detail` says where, when that can be told
    (`fits one flipped bit: byte 3,099,152, 0x90 where 0x80 belongs`), `offset` the first byte of it, -1 for unknown.
    `mode` is the recorded one with its type, `changed` when the file was changed last (ctime),
    seconds since the epoch. `hidden_by` are ids of layers that show something else in its place to whom has them above it.
    """

    layer: str
    path: str
    kind: Kind
    expected: str = ""
    found: str = ""
    detail: str = ""
    cause: Cause = ""
    offset: int = -1
    mode: int = 0
    changed: float = 0.0
    raw: str = ""
    grave: bool = False
    """Whether it may be somebody's doing: a program changed or planted, or a right that makes root."""
    hidden_by: tuple[str, ...] = ()
    capability: str = ""
    """Of a wrong owner: security.capability as it was recorded, in hex. chown(2) takes it away."""
    member: str = ""
    """What the file is called in the layer's blob, where the store has one."""
    shift: tuple[int, ...] = ()
    """Of owners that are all shifted: where uids and gids begin on disk, and where they should."""


class Unread(Struct, frozen=True, omit_defaults=True, tag="unread"):
    """One file that nothing can be said of, and why: `permission denied`, `input/output error`, `in use`."""

    layer: str
    path: str
    why: str


class Checked(Struct, frozen=True, omit_defaults=True, tag="checked"):
    """What became of one layer. `found` is the digest that its files come to, empty where that could not be computed.

    `damages` and `unread` count what there is, also beyond what was told one by one (`MOST` of a kind a layer). `why`
    says why the layer is unknown or skipped.
    """

    store: str
    layer: str
    state: State
    digest: str = ""
    found: str = ""
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    damages: int = 0
    unread: int = 0
    why: str = ""
    root: str = ""
    owners: tuple[str, ...] = ()
    """Who stands on it, in words (`image shop/base:12`), where no other evidence tells: podman's."""


class Run(Struct, frozen=True, omit_defaults=True, tag="run"):
    """The first line of a record: what was asked for and how much of it was done.

    `layers` and `bytes` are the whole of the store as far as was asked (`asked`: names of images and containers, empty for
    all); `seed` chose the sample where there was a `budget` (seconds, 0: none).
    """

    store: str
    layers: int
    bytes: int
    seconds: float = 0.0
    jobs: int = 1
    budget: float = 0.0
    seed: str = ""
    asked: tuple[str, ...] = ()
    crc: str = ""
    """What computed CRC-64, `fastcrc` or `own`."""


Line = Run | Checked | Damage | Unread

MOST = 200
"""Damages of one kind, and unread files, that are told one by one of one layer; as many that may be somebody's doing."""

Value = TypeVar("Value")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


def dump(lines: Iterable[Line]) -> bytes:
    """Print values, one a line."""
    return _encoder.encode_lines(lines)


def load(data: bytes) -> Iterator[tuple[int, Line]]:
    """Read what `dump` printed, each with its line number from 1; a line that is none is left out (hostile bundles)."""
    return values(data, _decoder)


def values(data: bytes, decoder: msgspec.json.Decoder[Value]) -> Iterator[tuple[int, Value]]:
    """Read a value a line, each with its line number from 1; a line that is none is left out."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        try:
            yield number, decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue


def shown(name: bytes) -> str:
    r"""Give the bytes of a name as text: what is no UTF-8 stands as `\xff`.

    >>> shown(b"caf\xe9"), shown("café".encode())
    ('caf\\xe9', 'café')
    """
    return name.decode("utf-8", "backslashreplace")


class Teller(Protocol):
    """What a verifier tells while it goes through one layer. Each may raise `Stopped`, which is passed on."""

    def damage(self, one: Damage) -> None:
        """Something is not as recorded."""

    def unread(self, path: str, why: str) -> None:
        """Nothing can be said of this file."""

    def read(self, count: int) -> None:
        """So many bytes more were read: for the progress, for rests, and for who wants it to stop."""


class Stopped(Exception):  # noqa: N818 - it is no error: there is no time left
    """The budget is used up, or whoever asked is gone: the layer is not finished."""


class Verifier(Protocol):
    """`verify(work, teller)` of a store's module: verify one layer, tell what differs, give what became of it.

    Raises OSError for what cannot be opened at all; whoever calls makes `unknown` of that.
    """

    def __call__(self, work: Work, teller: Teller) -> Checked:
        """Verify one layer."""


VERIFIERS = {
    "overlay2": "doctor.layers.overlay2",
    "containerd": "doctor.layers.containerd",
    "podman": "doctor.layers.podman",
    "archive": "doctor.layers.archives",
}
"""The module whose `verify` does the work of a store."""
