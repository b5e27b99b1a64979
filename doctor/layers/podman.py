"""Layers in podman's containers-storage, which keeps them as overlay2 does: a directory, and tar-split beside it.

    ROOT/overlay-layers/layers.json, ROOT/overlay-layers/ID.tar-split.gz    layers, their parents and digests
    ROOT/overlay/ID/{diff,link,lower}                                       what is in them, and how they stand
    ROOT/overlay-images/images.json, ROOT/overlay-images/ID/NAME            images, their manifests and configurations

Source: containers/storage `layers.go`, `images.go`, `drivers/overlay/overlay.go`. JSON files are replaced as a whole, so
each reads as it once was.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.layers import overlay2
from doctor.layers.folders import open_file
from doctor.layers.manifests import Unusable, is_digest
from doctor.layers.model import Checked, Damage, State, Work

if TYPE_CHECKING:
    from doctor.layers.model import Owners, Teller

_LARGEST = 64 << 20
_SMALL = 1 << 16
_NOTHING = f"sha256:{sha256().hexdigest()}"
_ID = re.compile(r"[0-9a-f]{64}")
_LINK = re.compile(r"[A-Z2-7]{26}")
_PLAIN = re.compile(r"[-_.A-Za-z0-9]+")


class Mapped(Struct, rename={"inside": "container_id", "outside": "host_id"}):
    """One range of ids of a layer that was made for a user namespace."""

    inside: int = 0
    outside: int = 0
    size: int = 0


class Layer(Struct, rename="kebab"):
    """One entry of layers.json."""

    id: str
    parent: str = ""
    names: list[str] = []
    diff_digest: str = ""
    diff_size: int = 0
    uidmap: list[Mapped] = []
    gidmap: list[Mapped] = []


class Image(Struct, rename="kebab"):
    """One entry of images.json."""

    id: str
    names: list[str] | None = None
    layer: str = ""
    big_data_digests: dict[str, str] = {}


class Container(Struct):
    """One entry of containers.json: the names of a container, its image and the layer that it writes to."""

    id: str
    names: list[str] | None = None
    image: str = ""
    layer: str = ""


class Store(Struct):
    """What the three lists say."""

    root: str
    layers: dict[str, Layer]
    images: list[Image]
    containers: list[Container]

    def chain(self, layer: str) -> list[str]:
        """Give a layer and those below it, nearest first; one that stands below itself ends it."""
        found: list[str] = []
        while layer in self.layers and layer not in found:
            found.append(layer)
            layer = self.layers[layer].parent
        return found

    def owners(self, layer: str) -> list[str]:
        """Give who stands on a layer: `image NAME`, `container NAME`, by a short id without a name."""
        every = [("image", one.names, one.id, one.layer) for one in self.images]
        every += [("container", one.names, one.id, one.layer) for one in self.containers]
        return [
            f"{word} {(names or [identity[:12]])[0]}"
            for word, names, identity, top in every
            if layer in self.chain(top)
        ]


def _list(path: str, kind: type) -> list[object]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the store names it
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return []
    if len(data) > _LARGEST:
        raise Unusable(f"{path}: larger than {_LARGEST:,} bytes")
    try:
        found: list[object] = msgspec.json.decode(data or b"[]", type=list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"{path}: {error}") from None
    return found


def read_store(root: str) -> Store:
    """Read the lists. Raises OSError, and Unusable for one that cannot be read (its path comes first)."""
    layers = {one.id: one for one in _list(f"{root}/overlay-layers/layers.json", Layer) if isinstance(one, Layer)}
    images = [one for one in _list(f"{root}/overlay-images/images.json", Image) if isinstance(one, Image)]
    containers = _list(f"{root}/overlay-containers/containers.json", Container)
    return Store(root, layers, images, [one for one in containers if isinstance(one, Container)])


def _map(ranges: list[Mapped]) -> Owners:
    return tuple((one.inside, one.outside, one.size) for one in ranges)


def plan(store: Store) -> list[Work]:
    """Give a piece of work for each layer that an image or a container stands on, and one for each image's documents."""
    written = {one.layer for one in store.containers}
    work = []
    for layer in store.layers.values():
        if layer.id in written or not layer.diff_digest or not _ID.fullmatch(layer.id):
            continue
        work.append(
            Work(
                "podman",
                layer.id,
                layer.diff_digest,
                layer.diff_size,
                f"{store.root}/overlay/{layer.id}/diff",
                f"{store.root}/overlay-layers/{layer.id}.tar-split.gz",
                tuple(f"{store.root}/overlay/{below}/diff" for below in store.chain(layer.parent)),
                uids=_map(layer.uidmap),
                gids=_map(layer.gidmap),
                extra={"store": store.root, "owners": "\n".join(store.owners(layer.id))},
            )
        )
    for image in store.images:
        if _ID.fullmatch(image.id):
            folder = f"{store.root}/overlay-images/{image.id}"
            work.append(Work("podman", image.id, root=folder, extra={"image": "1", **image.big_data_digests}))
    return work


def verify(work: Work, teller: Teller) -> Checked:
    """Verify one layer as overlay2's are, and how it stands on others; or the documents of one image. Raises OSError."""
    if "image" in work.extra:
        return _documents(work, teller)
    owners = tuple(one for one in work.extra.get("owners", "").split("\n") if one)
    damages = _standing(work, teller)
    try:
        checked = overlay2.verify(work, teller)
    except FileNotFoundError as error:
        if not damages:
            raise
        return Checked(
            "podman", work.id, "damaged", work.digest, damages=damages, why=str(error), root=work.root, owners=owners
        )
    if damages:
        checked = msgspec.structs.replace(checked, state="damaged", damages=checked.damages + damages)
    return msgspec.structs.replace(checked, owners=owners)


def _text(path: str) -> str | None:
    folder, _, name = path.rpartition("/")
    try:
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        descriptor = open_file(name, above)
    except FileNotFoundError:
        return None
    finally:
        os.close(above)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_SMALL).decode("utf-8", "backslashreplace")


def _standing(work: Work, teller: Teller) -> int:
    """Compare the directory, its short link and the list of those below with what the parent says."""
    store = work.extra["store"]
    own = f"{store}/overlay/{work.id}"
    found: list[tuple[str, str, str]] = []
    if not os.path.isdir(work.root):  # noqa: PTH112
        found.append((work.root, "a directory", "is not there"))
    link = _text(f"{own}/link") or ""
    target = f"../{work.id}/diff"
    if not _LINK.fullmatch(link):
        found.append((f"{own}/link", "26 letters and digits", repr(link) if link else "empty, or not there"))
    else:
        try:
            held = os.readlink(f"{store}/overlay/l/{link}")  # noqa: PTH115 - text as it stands
        except OSError as error:
            held = "is not there" if error.errno == errno.ENOENT else str(error.strerror)
        if held != target:
            found.append((f"{store}/overlay/l/{link}", target, held))
    # From the links of all below, not from the list of the next one, which may be what is damaged.
    links = [_text(f"{below.removesuffix('/diff')}/link") or "" for below in work.lowers]
    lower = _text(f"{own}/lower") or ""
    wanted = ":".join(f"l/{one}" for one in links) if all(map(_LINK.fullmatch, links)) else ""
    if links and (lower != wanted if wanted else not lower):
        found.append((f"{own}/lower", wanted or "the layers below", lower or "empty, or not there"))
    for path, expected, state in found:
        teller.damage(Damage(work.id, path, "record", expected, state))
    return len(found)


def _documents(work: Work, teller: Teller) -> Checked:
    """Compare manifest and configuration of an image with their digests."""
    start, damages, size = time.perf_counter(), 0, 0
    for name, digest in work.extra.items():
        if name == "image" or not is_digest(digest):
            continue
        file = name if _PLAIN.fullmatch(name) else "=" + base64.b64encode(name.encode()).decode()
        path = f"{work.root}/{file}"
        try:
            with open(path, "rb") as opened:  # noqa: PTH123
                data = opened.read(_LARGEST)
        except FileNotFoundError:
            if digest == _NOTHING:
                continue  # no signature is written as no file
            found = "is not there"
        else:
            size += len(data)
            teller.read(len(data))
            found = f"sha256:{sha256(data).hexdigest()}"
        if found != digest:
            damages += 1
            teller.damage(Damage(work.id, path, "record", digest, found))
    state: State = "damaged" if damages else "whole"
    return Checked(
        "podman",
        work.id,
        state,
        files=len(work.extra) - 1,
        bytes=size,
        seconds=time.perf_counter() - start,
        damages=damages,
        root=work.root,
    )
