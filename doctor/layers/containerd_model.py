"""The values of containerd's store, and the lines of the record that keeps them. Nothing here does I/O."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from doctor.layers.model import values

META = "io.containerd.metadata.v1.bolt/meta.db"
CONTENT = "io.containerd.content.v1.content/blobs/sha256"
SNAPSHOTTER = "io.containerd.snapshotter.v1.overlayfs"
COMMITTED = 3
"""Kind of a snapshot that is a layer; 2 is one that is written to, 1 a view (snapshots.Kind)."""


class Blob(Struct, frozen=True, omit_defaults=True, tag="blob"):
    """One blob that the database lists. `there` is the size of its file, -1 when it is not there, -2 for no file."""

    digest: str
    size: int
    there: int = -1
    refs: tuple[str, ...] = ()
    unpacked: str = ""
    """Of a configuration: the key of the snapshot that its layers were unpacked to; kept by the label of that name."""


class Snapshot(Struct, frozen=True, omit_defaults=True, tag="snapshot"):
    """One snapshot: its key, its parent's key, its name in the snapshotter and what that says of it.

    `id` is the name of its directory, -1 when the snapshotter does not know it; `above` the parent that the snapshotter
    has, by its name there. `fs` says whether the directory of its files is there.
    """

    space: str
    key: str
    name: str
    parent: str = ""
    id: int = -1
    kind: int = 0
    above: str = ""
    fs: bool = True
    size: int = 0
    """What its files take, as was measured when it was made."""


class Image(Struct, frozen=True, omit_defaults=True, tag="image"):
    """One name, the blob that it leads to, and the layers of the manifest that is unpacked here, from the base up."""

    space: str
    name: str
    target: str
    config: str = ""
    blobs: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()
    why: str = ""
    """Why nothing is known of its layers."""


class Lost(Struct, frozen=True, omit_defaults=True, tag="lost"):
    """One directory of a snapshot that no snapshot has, and when it was made (ctime, seconds since the epoch)."""

    id: str
    made: float


class Store(Struct, frozen=True, omit_defaults=True):
    """The whole of it. `fault` says why a database cannot be read (`file` is which), `busy` that it was written all along."""

    root: str
    blobs: tuple[Blob, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    images: tuple[Image, ...] = ()
    lost: tuple[Lost, ...] = ()
    fault: str = ""
    file: str = ""
    busy: str = ""

    def folder(self, one: Snapshot) -> str:
        """Give the directory of a snapshot's files."""
        return f"{self.root}/{SNAPSHOTTER}/snapshots/{one.id}/fs"

    def blob(self, digest: str) -> str:
        """Give the file of a blob."""
        return f"{self.root}/{CONTENT}/{digest.removeprefix('sha256:')}"


class _Head(Struct, frozen=True, omit_defaults=True, tag="store"):
    """The first line of the record."""

    root: str
    fault: str = ""
    file: str = ""
    busy: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Head | Blob | Snapshot | Image | Lost)


def dump(store: Store) -> bytes:
    """Print a store, a thing a line."""
    head = _Head(store.root, store.fault, store.file, store.busy)
    return _encoder.encode_lines((head, *store.blobs, *store.snapshots, *store.images, *store.lost))


def load(data: bytes) -> tuple[Store, dict[str, int]]:
    """Read what `dump` printed, and the line of each digest, snapshot key and image name; a line that is none is left out."""
    head = _Head("")
    blobs, snapshots, images, lost = [], [], [], []
    lines: dict[str, int] = {}
    for number, one in values(data, _decoder):
        if isinstance(one, _Head):
            head = one
        elif isinstance(one, Blob):
            blobs.append(one)
            lines[one.digest] = number
        elif isinstance(one, Snapshot):
            snapshots.append(one)
            lines[one.key] = number
        elif isinstance(one, Image):
            images.append(one)
            lines[one.name] = number
        else:
            lost.append(one)
            lines[one.id] = number
    store = Store(
        head.root, tuple(blobs), tuple(snapshots), tuple(images), tuple(lost), head.fault, head.file, head.busy
    )
    return store, lines
