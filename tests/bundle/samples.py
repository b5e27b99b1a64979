"""Snapshots to write, archives to refuse, and how a test gets bytes into the reader without a file."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from hashlib import sha256
from typing import Literal

import msgspec

from doctor.bundle import MANIFEST, read
from doctor.snapshot import Meta, Record, Snapshot

META = Meta("1.0.0", "us1", "6.18.44", "x86_64", 1795520335.25, 3600, 0, "root", 0.5)
BLOCK = 512


def snapshot(*records: Record) -> Snapshot:
    """Make a snapshot of records."""
    return Snapshot(META, {one.name: one for one in records}, {"environment": 5, "proxy password": 1, "label": 1})


SMALL = snapshot(
    Record(
        "files/etc/docker/daemon.json",
        "file",
        "/etc/docker/daemon.json",
        data=b'{"debug": true}\n',
        ms=0.125,
        size=16,
        sha256=sha256(b'{"debug": true}\n').hexdigest(),
        mtime=1795520000.5,
    ),
    Record("net/nft", "command", "nft -j -t list ruleset", status="absent", why="nft is not installed", errno=2),
    Record(
        "api/info",
        "api",
        "/info",
        data=b'{"HttpProxy":"\xc2\xabsecret 1, 9\xe2\x80\x9316 chars\xc2\xbb"}',
        redactions=1,
    ),
    Record(
        "logs/dockerd", "command", "journalctl -u docker", "truncated", b"cut\xff\x00\n", "after 1 MiB", size=1 << 21
    ),
    Record("api/version", "api", "/version", data=b"x" * 700, size=700),
)


def unpack(data: bytes) -> Snapshot:
    """Read a bundle from its bytes, by way of a file in memory."""
    handle = os.memfd_create("bundle")
    try:
        os.write(handle, data)
        return read(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def gunzip(data: bytes) -> bytes:
    """Unpack gzip."""
    return zlib.decompress(data, 31)


def pack_gzip(data: bytes) -> bytes:
    """Pack with gzip, quickly."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def zeros(mebibytes: int, before: bytes = b"") -> bytes:
    """Give gzip of so many MiB of zeros without the time that packing them takes; its end is missing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + one * mebibytes


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """Make the head of a member."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, form: Literal[0, 1, 2] = tarfile.USTAR_FORMAT) -> bytes:
    """Make a plain tar with the standard library, which is nobody's idea of how we read."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):  # its head alone: `addfile` asks for what the head promises
                head = member.tobuf(form)
                out.write(head)
                tar.offset += len(head)
            else:
                tar.addfile(info(member[0], size=len(member[1])), io.BytesIO(member[1]))
    return out.getvalue()


def manifest(*records: dict[str, object], **changes: object) -> bytes:
    """Print a manifest without a digest of its own; `changes` replace parts of it, None takes one out."""
    whole: dict[str, object] = {
        "format": 1,
        "doctor": "1.0.0",
        "meta": msgspec.to_builtins(META),
        "removed": {},
        "records": list(records),
    }
    whole.update(changes)
    return msgspec.json.encode({key: value for key, value in whole.items() if value is not None})


def entry(name: str, data: bytes | None = None, **changes: object) -> dict[str, object]:
    """Give one record of a manifest; with data it has a member of its name."""
    made: dict[str, object] = {"name": name, "kind": "file", "target": f"/{name}"}
    if data is not None:
        made |= {"member": name, "stored": sha256(data).hexdigest()}
    return made | changes


def bundle(*members: tuple[str, bytes]) -> bytes:
    """Make a plain tar that is a right bundle of these members."""
    head = manifest(*(entry(name, data) for name, data in members))
    return archive((MANIFEST, head), *members)
