"""containerd's store as it lies on disk: blobs, snapshots and images, read without containerd and without its lock.

    ROOT/io.containerd.metadata.v1.bolt/meta.db                   namespaces: images, blobs, snapshots by key
    ROOT/io.containerd.content.v1.content/blobs/sha256/HEX        what was pulled: manifests, configurations, layers
    ROOT/io.containerd.snapshotter.v1.overlayfs/metadata.db       snapshots by their name in the snapshotter: id, parent
    ROOT/io.containerd.snapshotter.v1.overlayfs/snapshots/ID/fs   a layer unpacked

Source: containerd `core/metadata/buckets.go`, `core/snapshots/storage/bolt.go`, `plugins/content/local`,
`plugins/snapshots/overlay`. containerd changes all of it while this is read, and not in one step: what looks wrong is
looked at once more, and only what is wrong both times is told.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.layers import bolt, manifests
from doctor.layers.containerd_model import CONTENT, META, SNAPSHOTTER, Blob, Image, Lost, Snapshot, Store
from doctor.layers.folders import open_file
from doctor.layers.manifests import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

_REF = "containerd.io/gc.ref.content"
_UNPACKED = "containerd.io/gc.ref.snapshot.overlayfs"


class _Listed(Struct):
    """What meta.db says."""

    blobs: dict[str, Blob]
    snapshots: list[Snapshot]
    images: list[Image]


class _Backend(Struct):
    id: int
    kind: int
    parent: str
    size: int


def _string(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _listed(root: bolt.Bucket) -> _Listed:
    found = _Listed({}, [], [])
    version = root.at("v1")
    for space, bucket in version.buckets() if version else ():
        for kind, objects in bucket.buckets():
            if kind == "images":
                for name, held in objects.buckets():
                    target = held.at("target")
                    found.images.append(Image(space, name, _string(target.values().get("digest")) if target else ""))
            elif kind == "content":
                blobs = objects.at("blob")
                for digest, held in blobs.buckets() if blobs else ():
                    _add_blob(found.blobs, digest, held)
            elif kind == "snapshots":
                snapshots = objects.at("overlayfs")
                for key, held in snapshots.buckets() if snapshots else ():
                    values = held.values()
                    found.snapshots.append(
                        Snapshot(space, key, _string(values.get("name")), _string(values.get("parent")))
                    )
    return found


def _add_blob(blobs: dict[str, Blob], digest: str, held: bolt.Bucket) -> None:
    """Take one blob; several namespaces may list it, each with labels of its own."""
    labels: dict[str, bytes] = {}
    size = 0
    for key, value in held.items():
        if key == b"labels" and isinstance(value, bolt.Bucket):
            labels = value.values()
        elif key == b"size" and isinstance(value, bytes):
            size = bolt.signed_varint(value)
    refs = tuple(_string(value) for key, value in sorted(labels.items()) if key.startswith(_REF))
    before = blobs.get(digest)
    unpacked = _string(labels.get(_UNPACKED)) or (before.unpacked if before else "")
    blobs[digest] = Blob(digest, size, refs=refs or (before.refs if before else ()), unpacked=unpacked)


def _backends(root: bolt.Bucket) -> dict[str, _Backend]:
    snapshots = root.at("v1", "snapshots")
    found = {}
    for name, held in snapshots.buckets() if snapshots else ():
        values = held.values()
        kind = values.get("kind", b"\0")
        found[name] = _Backend(
            bolt.varint(values["id"]) if "id" in values else -1,
            kind[0] if kind else 0,
            _string(values.get("parent")),
            bolt.signed_varint(values["size"]) if "size" in values else 0,
        )
    return found


def _size(folder: int, name: str) -> int:
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return -1
    return about.st_size if stat.S_ISREG(about.st_mode) else -2


def small(root: str, digest: str) -> bytes:
    """Read a blob that is a document. Raises Unusable, OSError."""
    if not manifests.is_digest(digest):
        raise Unusable(f"no digest: {digest[:80]!r}")
    folder = os.open(f"{root}/{CONTENT}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        opened = open_file(digest[7:], folder)
    finally:
        os.close(folder)
    with os.fdopen(opened, "rb") as file:
        data = file.read(manifests.LARGEST + 1)
    if len(data) > manifests.LARGEST:
        raise Unusable(f"larger than {manifests.LARGEST:,} bytes")
    if f"sha256:{sha256(data).hexdigest()}" != digest:
        raise Unusable("its content is not that of its digest")
    return data


def _with_layers(root: str, image: Image, blobs: dict[str, Blob]) -> Iterator[Image]:
    """Give an image once for each of its manifests that is unpacked here; as it is, and why, when there is none."""
    todo, why, told = [image.target], "it is not unpacked here", False
    seen: set[str] = set()
    while todo:
        digest = todo.pop(0)
        if digest in seen or len(seen) > manifests.MANY:
            continue
        seen.add(digest)
        at = digest
        try:
            found = manifests.document(small(root, digest))
            if found.config is None:
                # Of other platforms only the index may be here.
                todo += [one.digest for one in found.manifests if one.digest in blobs]
                continue
            held = blobs.get(found.config.digest)
            if held is None or not held.unpacked:
                continue
            at = found.config.digest
            diffs = manifests.config(small(root, at)).diff_ids
        except (Unusable, OSError) as error:
            why = f"{at[7:19]}: {error.strerror if isinstance(error, OSError) else error}"
            continue
        layers = [one.digest for one in found.layers]
        if len(layers) != len(diffs):
            why = f"{digest[7:19]} has {len(layers)} layers, and its configuration {len(diffs)}"
            continue
        told = True
        yield Image(
            image.space,
            image.name,
            image.target,
            found.config.digest,
            tuple(layers),
            tuple(diffs),
            tuple(manifests.chain_ids(diffs)),
        )
    if not told:
        yield Image(image.space, image.name, image.target, why=why)


def _once(root: str) -> Store:
    file = f"{root}/{META}"
    try:
        listed = bolt.read(file, _listed)
        file = f"{root}/{SNAPSHOTTER}/metadata.db"
        try:
            backends = bolt.read(file, _backends)
        except FileNotFoundError:
            if listed.snapshots:
                raise
            backends = {}
    except bolt.InUse as error:
        return Store(root, busy=str(error), file=file)
    except bolt.Damaged as error:
        return Store(root, fault=str(error), file=file)
    snapshots, lost = _snapshots(f"{root}/{SNAPSHOTTER}/snapshots", listed.snapshots, backends)
    blobs = dict(listed.blobs)
    try:
        folder = os.open(f"{root}/{CONTENT}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    else:
        try:
            for digest, one in listed.blobs.items():
                name = digest.removeprefix("sha256:")
                there = _size(folder, name) if manifests.is_digest(digest) else -1
                blobs[digest] = Blob(digest, one.size, there, one.refs, one.unpacked)
        finally:
            os.close(folder)
    images = [one for image in listed.images for one in _with_layers(root, image, blobs)]
    return Store(root, tuple(blobs.values()), tuple(snapshots), tuple(images), tuple(lost))


def _snapshots(folder: str, listed: list[Snapshot], backends: dict[str, _Backend]) -> tuple[list[Snapshot], list[Lost]]:
    """Join what both databases say, and look which directories are there."""
    try:
        with os.scandir(folder) as entries:
            there = {one.name: one for one in entries}
    except FileNotFoundError:
        there = {}
    known = set()
    found = []
    for one in listed:
        backend = backends.get(one.name)
        if backend is None:
            found.append(Snapshot(one.space, one.key, one.name, one.parent, fs=False))
            continue
        known.add(str(backend.id))
        fs = str(backend.id) in there and _is_folder(f"{folder}/{backend.id}/fs")
        found.append(
            Snapshot(
                one.space, one.key, one.name, one.parent, backend.id, backend.kind, backend.parent, fs, backend.size
            )
        )
    known |= {str(one.id) for one in backends.values()}
    lost = []
    for name, entry in there.items():
        if name not in known and name.isdecimal():
            try:
                lost.append(Lost(name, entry.stat(follow_symlinks=False).st_ctime))
            except OSError:
                continue
    return found, lost


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def odd(store: Store) -> set[tuple[str, ...]]:
    """Give what looks wrong, each as a key."""
    keys = {(one.space, one.key) for one in store.snapshots}
    digests = {one.digest for one in store.blobs}
    found: set[tuple[str, ...]] = {("blob", one.digest) for one in store.blobs if one.there != one.size}
    found |= {("lost", one.id) for one in store.lost}
    for one in store.snapshots:
        if not one.fs or (one.parent and (one.space, one.parent) not in keys):
            found.add(("snapshot", one.space, one.key))
    for image in store.images:
        if image.target not in digests or image.why or any(blob not in digests for blob in image.blobs):
            found.add(("image", image.space, image.name))
    return found


def read_store(root: str) -> Store:
    """Read the store; twice when something looks wrong, to leave out what containerd was just changing. Raises OSError."""
    first = _once(root)
    wrong = odd(first)
    if not wrong or first.fault:
        return first
    second = _once(root)
    if second.fault or second.busy:
        return second
    passing = odd(second) - wrong
    return Store(
        root,
        tuple(one for one in second.blobs if ("blob", one.digest) not in passing),
        tuple(one for one in second.snapshots if ("snapshot", one.space, one.key) not in passing),
        tuple(one for one in second.images if ("image", one.space, one.name) not in passing),
        tuple(one for one in second.lost if ("lost", one.id) not in passing),
    )
