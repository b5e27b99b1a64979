"""Read a bundle as hostile input: nothing is extracted to disk, and what lies about itself is refused."""

from __future__ import annotations

import os
import stat
from hashlib import sha256

from doctor.bundle.archive import BLOCK, ZERO, Cut, Stream, checked, parse, plain, reason
from doctor.bundle.manifest import MANIFEST, BundleError, decode, printable
from doctor.snapshot import Record, Snapshot

MEMBER = 64 << 20
MANIFEST_SIZE = 32 << 20


def read(path: str) -> Snapshot:
    """Read a bundle from a path, or from standard input for `-`. Raises BundleError.

    One that was cut short or damaged gives what is whole of it; `damage` of the snapshot then says so.
    """
    shown = "standard input" if path == "-" else printable(path)
    try:
        handle = _open(path)
        try:
            return _read(Stream(handle), shown)
        finally:
            os.close(handle)
    except BundleError as error:
        raise BundleError(f"{shown}: {error}") from None
    except MemoryError:
        raise BundleError(f"{shown}: refused: it does not fit into memory") from None


_NO_FILE = {
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a FIFO; `-` reads standard input",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def _open(path: str) -> int:
    try:
        if path == "-":
            return os.dup(0)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read: {reason(error)}") from None
    what = _NO_FILE.get(stat.S_IFMT(os.fstat(handle).st_mode))
    if what:
        os.close(handle)
        raise BundleError(f"cannot read: {what}")
    return handle


_PACKED = {
    b"PK\3\4": "it is a zip",
    b"BZh": "it is packed by bzip2, not by gzip: unpack it first",
    b"\xfd7zXZ": "it is packed by xz, not by gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "it is packed by zstd, not by gzip: unpack it first",
}


def _first(stream: Stream) -> bytes:
    """Give the text of the manifest, which is the first member. Raises BundleError for what is no bundle."""
    if not stream.start:
        raise BundleError("not a bundle of doctor: it is empty")
    for start, what in _PACKED.items():
        if stream.start.startswith(start):
            raise BundleError(f"not a bundle of doctor: {what}")
    gzipped = stream.unpacker is not None
    no_tar = BundleError(f"not a bundle of doctor: {'what is in the gzip' if gzipped else 'it'} is no tar")
    try:
        header = stream.take(BLOCK)
        if header == ZERO:
            name, kind, size = "", b"", 0
        elif checked(header):
            name, kind, size = parse(header)
        else:
            raise no_tar
        if name != MANIFEST:
            raise BundleError(f"not a bundle of doctor: it has no {MANIFEST}. `doctor collect` makes one")
        plain(name, kind, size, MANIFEST_SIZE)
        text = stream.take(size)
        stream.take(-size % BLOCK)
    except Cut as cut:
        if not gzipped and stream.given < BLOCK:
            raise no_tar from None
        raise BundleError(f"{cut}: nothing of it could be read") from None
    return text


def _read(stream: Stream, shown: str) -> Snapshot:
    manifest, removed = decode(_first(stream))
    total = len(manifest.records)
    found: dict[str, bytes] = {}
    end = ""
    try:
        _fill(stream, {entry.member for entry in manifest.records if entry.member}, found)
    except Cut as cut:
        end = str(cut)
    records = {}
    lost = []
    for entry in manifest.records:
        status, why = entry.status, entry.why
        data = found.pop(entry.member, None) if entry.member else b""
        if data is None:
            status, why = "not-run", "the bundle ends before it" if end else "the bundle does not hold it"
        elif entry.member and sha256(data).hexdigest() != entry.stored:
            status, why, data = "failed", "damaged in the bundle: digest differs", None
        if data is None:
            lost.append(printable(entry.name))
        records[entry.name] = Record(
            entry.name,
            entry.kind,
            entry.target,
            status,
            data or b"",
            why,
            entry.errno,
            entry.ms,
            entry.bytes,
            entry.sha256,
            entry.mtime,
            entry.redactions,
        )
    damage = ""
    if end:
        damage = f"{shown}: {end}: {total - len(lost):,} of {total:,} pieces could be read; went on with those"
    elif lost:
        more = f" and {len(lost) - 3:,} more" if lost[3:] else ""
        names = ", ".join(lost[:3]) + more
        damage = (
            f"{shown}: damaged: {len(lost):,} of {total:,} pieces are not what was written"
            f" ({names}); went on with the rest"
        )
    return Snapshot(manifest.meta, records, removed, bundle=True, damage=damage)


def _fill(stream: Stream, wanted: set[str], found: dict[str, bytes]) -> None:
    """Read every member behind the manifest, each once and named by it. Raises BundleError, and Cut."""
    while (header := stream.take(BLOCK)) != ZERO:
        if not checked(header):
            raise Cut(f"damaged at byte {stream.given - len(stream.chunk) + stream.place - BLOCK:,} of the archive")
        name, kind, size = parse(header)
        shown = printable(name)
        if name in found or name == MANIFEST:
            raise BundleError(f"refused: member {shown} is there twice")
        plain(shown, kind, size, MEMBER)
        if name not in wanted:
            raise BundleError(f"refused: member {shown} is not in its manifest")
        found[name] = stream.take(size)
        stream.take(-size % BLOCK)
    if stream.take(BLOCK) != ZERO:
        raise BundleError("refused: data follows the end of the archive")
    stream.end()
