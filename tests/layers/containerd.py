"""A store of containerd's written by hand: blobs, snapshots unpacked from them, both databases.

Needs no root: files belong to who runs the test, whiteouts may be made by anybody (mknod(2) of 0/0, Linux 5.8), opaque
directories have user.overlay.opaque. Stores of a live engine are in `test_live_stores.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doctor.layers.containerd_model import CONTENT, META, SNAPSHOTTER
from doctor.layers.manifests import chain_ids
from tests.layers.archives import config_of, digest
from tests.layers.boltfile import Writer

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.layers.boltfile import Held

SPACE = b"moby"


def member(tar: tarfile.TarFile, name: str, data: bytes = b"", letter: bytes = tarfile.REGTYPE, **more: object) -> None:
    """Add one member, of who runs the test."""
    info = tarfile.TarInfo(name)
    info.type, info.size = letter, len(data)
    info.mode = 0o755 if letter == tarfile.DIRTYPE else 0o777 if letter == tarfile.SYMTYPE else 0o644
    info.uid, info.gid, info.mtime = os.geteuid(), os.getegid(), 1_700_000_000
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def varied(chance: random.Random, number: int) -> bytes:
    """A layer that has something of everything."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("etc", "usr", "usr/bin", f"srv{number}", f"srv{number}/deep", f"srv{number}/deep/er"):
            member(tar, name, letter=tarfile.DIRTYPE)
        member(tar, "tmp", letter=tarfile.DIRTYPE, mode=0o1777)
        member(tar, f"usr/bin/tool{number}", chance.randbytes(chance.randint(5000, 30_000)), mode=0o755)
        member(tar, f"usr/bin/su{number}", chance.randbytes(3000), mode=0o4755)
        member(tar, f"etc/conf{number}", chance.randbytes(chance.randint(40, 600)))
        member(tar, f"etc/secret{number}", chance.randbytes(300), mode=0o600)
        member(tar, f"etc/empty{number}")
        member(
            tar, f"srv{number}/deep/er/caf\u00e9", chance.randbytes(100), pax_headers={"SCHILY.xattr.user.a": "value"}
        )
        member(tar, f"srv{number}/" + "long" * 40, chance.randbytes(100))
        member(tar, f"etc/link{number}", letter=tarfile.SYMTYPE, linkname="../usr/bin")
        member(tar, f"srv{number}/one", chance.randbytes(900))
        member(tar, f"srv{number}/two", letter=tarfile.LNKTYPE, linkname=f"srv{number}/one")
        member(tar, f"srv{number}/fifo", letter=tarfile.FIFOTYPE)
        if number:
            member(tar, f"etc/.wh.conf{number - 1}")
            member(tar, f"srv{number - 1}", letter=tarfile.DIRTYPE)
            member(tar, f"srv{number - 1}/.wh..wh..opq")
            member(tar, f"srv{number - 1}/fresh", b"instead")
    return out.getvalue()


def unpack(data: bytes, root: Path) -> None:
    """As containerd does."""
    root.mkdir(parents=True)
    folders = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            path = root / os.path.normpath(info.name.lstrip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            base = path.name
            if base == ".wh..wh..opq":
                os.setxattr(path.parent, "user.overlay.opaque", b"y")
                continue
            if base.startswith(".wh."):
                os.mknod(path.parent / base[4:], stat.S_IFCHR, 0)
                continue
            if path.is_symlink() or (path.exists() and not (path.is_dir() and info.isdir())):
                path.unlink()
            if info.isdir():
                path.mkdir(exist_ok=True)
                folders.append((path, info.mode))
            elif info.issym():
                path.symlink_to(info.linkname)
            elif info.islnk():
                os.link(root / info.linkname, path)
            elif info.isfifo():
                os.mkfifo(path)
                path.chmod(info.mode)
            else:
                content = tar.extractfile(info)
                path.write_bytes(content.read() if content else b"")
                path.chmod(info.mode)
            for key, value in info.pax_headers.items():
                if key.startswith("SCHILY.xattr."):
                    os.setxattr(path, key[13:], value.encode())
    for path, mode in reversed(folders):
        path.chmod(mode)


def uvarint(number: int) -> bytes:
    """As Go's binary.PutUvarint."""
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def svarint(number: int) -> bytes:
    """As Go's binary.PutVarint."""
    return uvarint(number * 2)


@dataclass
class Built:
    """The store, and what was put into it."""

    root: Path
    layers: list[bytes] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    config: str = ""
    manifest: str = ""
    packed: list[str] = field(default_factory=list)

    def blob(self, name: str) -> Path:
        """The file of a blob."""
        return self.root / CONTENT / name[7:]

    def fs(self, number: int) -> Path:
        """The files of the layer of that number."""
        return self.root / SNAPSHOTTER / "snapshots" / str(number + 1) / "fs"


def build(
    root: Path, layers: list[bytes], squeeze: Callable[[bytes], bytes] = gzip.compress, name: str = "shop/base:12"
) -> Built:
    """Write a store of one image of these layers, and of one container on it."""
    made = Built(root, layers, chain_ids([digest(one) for one in layers]))

    def blob(data: bytes) -> str:
        path = made.blob(digest(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made.blobs[digest(data)] = data
        return digest(data)

    packed = [squeeze(one) for one in layers]
    made.packed = [blob(one) for one in packed]
    config = config_of(layers)
    made.config = blob(config)
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": made.config, "size": len(config)},
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest(one), "size": len(one)} for one in packed
            ],
        }
    ).encode()
    made.manifest = blob(manifest)
    for number, layer in enumerate(layers):
        if not made.fs(number).exists():
            unpack(layer, made.fs(number))
    (root / SNAPSHOTTER / "snapshots" / str(len(layers) + 1) / "fs").mkdir(parents=True)
    write_databases(made, name)
    return made


def write_databases(made: Built, name: str = "shop/base:12") -> None:
    """Both of them."""
    labels: dict[str, Held] = {
        made.config: {b"containerd.io/gc.ref.snapshot.overlayfs": made.chains[-1].encode()},
        made.manifest: {
            b"containerd.io/gc.ref.content.config": made.config.encode(),
            **{b"containerd.io/gc.ref.content.l.%d" % at: one.encode() for at, one in enumerate(made.packed)},
        },
    }
    blobs: Held = {
        one.encode(): {b"size": svarint(len(data)), b"labels": labels.get(one, {})} for one, data in made.blobs.items()
    }
    keys: Held = {}
    backend: Held = {}
    parents: Held = {}
    names = [*made.chains, "c" * 64]
    called = [f"moby/{at + 2}/{one}".encode() for at, one in enumerate(names)]
    for at, one in enumerate(names):
        if one.encode() in keys:
            continue
        held: Held = {b"name": called[at]}
        there: Held = {
            b"id": uvarint(at + 1),
            b"kind": b"\x03" if at < len(made.chains) else b"\x02",
            b"size": svarint(4096),
            b"inodes": svarint(3),
        }
        if at:
            held[b"parent"] = names[at - 1].encode()
            there[b"parent"] = called[at - 1]
            parents[uvarint(at) + b"\0" + uvarint(at + 1)] = called[at]
        keys[one.encode()] = held
        backend[called[at]] = there
    target: Held = {
        b"digest": made.manifest.encode(),
        b"mediatype": b"application/vnd.oci.image.manifest.v1+json",
        b"size": svarint(len(made.blobs[made.manifest])),
    }
    meta = made.root / META
    meta.parent.mkdir(parents=True, exist_ok=True)
    space: Held = {
        b"images": {f"docker.io/{name}".encode(): {b"target": target}},
        b"content": {b"blob": blobs, b"ingests": {}},
        b"snapshots": {b"overlayfs": keys},
    }
    meta.write_bytes(Writer(fill=30).file({b"v1": {SPACE: space, b"version": b"\x08"}}))
    path = made.root / SNAPSHOTTER / "metadata.db"
    path.write_bytes(Writer(fill=30).file({b"v1": {b"snapshots": backend, b"parents": parents}}))


def copied(healthy: Built, folder: Path) -> Built:
    """The store once more."""
    root = folder / "root"
    os.system(f"cp -a {healthy.root} {root}")  # noqa: S605 - shutil loses FIFOs and hard links
    return Built(root, healthy.layers, healthy.chains, healthy.blobs, healthy.config, healthy.manifest, healthy.packed)
