"""The bundle: a snapshot as a gzip'd tar, written privately and read as hostile input.

`manifest.json` comes first: `format`, doctor's version, the snapshot's head, and per record its name, member, kind,
target, status, errno, sizes and digests. Each record with data is one member, named by the record. Nothing is ever
extracted to disk; a bundle that lies about itself is refused, one that is cut short is read as far as it goes.

The reader walks 512-byte headers itself and not with `tarfile`: it has to bound what it reads before it reads it, and to
go on with what a truncated archive still holds. Source: tar(5), POSIX ustar and pax headers; RFC 1952.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor import __version__
from doctor.snapshot import FORMAT, Kind, Meta, Record, Snapshot, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = "manifest.json"
TOTAL = 256 << 20
"""Bytes of an unpacked bundle, at most."""
MEMBER = 64 << 20
MANIFEST_SIZE = 32 << 20
MEMBERS = 200_000
_BLOCK = 512
_CHUNK = 1 << 16
_LEVEL = 3
_NAME = 100


class BundleError(Exception):
    """The file is no bundle, or one that is refused: one line with the path and the reason."""


class Written(Struct, frozen=True):
    """What was written: the path, how many pieces of evidence, how many bytes."""

    path: str
    records: int
    bytes: int


class _Entry(Struct, omit_defaults=True):
    """One record in the manifest. `stored` is the SHA-256 of the member as it stands, `sha256` of what was read."""

    name: str
    kind: Kind
    target: str
    status: Status = "ok"
    member: str = ""
    why: str = ""
    errno: int = 0
    ms: float = 0.0
    bytes: int = 0
    sha256: str = ""
    stored: str = ""
    mtime: float = 0.0
    redactions: int = 0


class _Manifest(Struct):
    format: int
    doctor: str
    meta: Meta
    removed: dict[str, int]
    records: list[_Entry]


class _Version(Struct):
    """What is read first, and of every format there will ever be."""

    format: int
    doctor: str = ""


# Writing


def write(snapshot: Snapshot, path: str) -> Written:
    """Write a bundle to a path, or to standard output for `-`. Whole or not at all, mode 0600. Raises OSError."""
    data = pack(snapshot)
    if path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return Written(path, len(snapshot.records), len(data))
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{os.getpid()}" if folder or path.startswith("/") else f".{name}.{os.getpid()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)  # noqa: PTH105 - the path is the user's text
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - the same
        raise
    return Written(path, len(snapshot.records), len(data))


def pack(snapshot: Snapshot) -> bytes:
    """Give the bytes of a bundle; equal for equal snapshots."""
    entries = []
    members: list[tuple[str, bytes]] = []
    taken = {MANIFEST}
    for record in snapshot.records.values():
        member = ""
        if record.data:
            member = _member_name(record.name, taken)
            members.append((member, record.data))
        entries.append(
            _Entry(
                name=record.name,
                kind=record.kind,
                target=record.target,
                status=record.status,
                member=member,
                why=record.why,
                errno=record.errno,
                ms=round(record.ms, 3),
                bytes=record.size,
                sha256=record.sha256,
                stored=sha256(record.data).hexdigest() if member else "",
                mtime=record.mtime,
                redactions=record.redactions,
            )
        )
    manifest = _Manifest(FORMAT, __version__, snapshot.meta, snapshot.removed, entries)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    when = int(snapshot.meta.collected_at)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    out = []
    for name, data in [(MANIFEST, text), *members]:
        out.append(packer.compress(_header(name, len(data), when) + data + b"\0" * (-len(data) % _BLOCK)))
    out.append(packer.compress(b"\0" * (2 * _BLOCK)))
    out.append(packer.flush())
    return b"".join(out)


def _member_name(name: str, taken: set[str]) -> str:
    """Make a record's name fit for a tar: relative, printable ASCII, no dots that lead out, at most 100 bytes, unique."""
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}]
    clean = "/".join("".join(char if char.isascii() and char.isprintable() else "_" for char in part) for part in parts)
    if len(clean) > _NAME or not clean or clean in taken:
        digest = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        clean = f"{clean[: _NAME - 17].rstrip('/')}-{digest}"
    taken.add(clean)
    return clean


def _header(name: str, size: int, when: int) -> bytes:
    head = bytearray(_BLOCK)
    head[0 : len(name)] = name.encode()
    head[100:108] = b"0000600\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"%011o\0" % max(when, 0)
    head[148:156] = b" " * 8
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


# Reading


def read(path: str) -> Snapshot:
    """Read a bundle from a path, or from standard input for `-`. Raises BundleError.

    One that was cut short gives what is whole of it; `damage` of the snapshot then says so.
    """
    shown = "standard input" if path == "-" else _printable(path)
    try:
        return _read(shown, _unpacked(path, shown))
    except RecursionError:
        raise BundleError(f"{shown}: {MANIFEST}: nested too deeply") from None


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def _open(path: str, shown: str) -> int:
    if path == "-":
        return os.dup(0)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        raise BundleError(f"{shown}: cannot read: {reason}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BundleError(f"{shown}: cannot read: it is no regular file")
    return handle


class _Cut(Exception):  # noqa: N818 - the end of what can be read, not an error yet
    """The stream ends, or cannot be unpacked any further: why, and after how many unpacked bytes."""


class _Stream:
    """Unpacked bytes of a file, never more than asked for."""

    def __init__(self, handle: int, shown: str) -> None:
        self.handle = handle
        self.shown = shown
        self.buffer = bytearray()
        self.given = 0
        first = self._raw()
        self.packed = first[:2] == b"\x1f\x8b"
        self.unpacker = zlib.decompressobj(31) if self.packed else None
        self.pending = first
        self.ended = False

    def _raw(self) -> bytes:
        try:
            return os.read(self.handle, _CHUNK)
        except OSError as error:
            raise BundleError(f"{self.shown}: cannot read: {os.strerror(error.errno or 0).lower()}") from error

    def _more(self) -> None:
        """Unpack a little more. Raises _Cut at an end that comes too early."""
        if self.unpacker is None:
            if not self.pending:
                raise _Cut("the archive ends early")
            self.buffer += self.pending
            self.pending = self._raw()
            return
        if self.unpacker.eof:
            raise _Cut("the archive ends early")
        if not self.pending:
            self.pending = self._raw()
            if not self.pending:
                raise _Cut("gzip ends early")
        try:
            self.buffer += self.unpacker.decompress(self.pending, _CHUNK * 4)
        except zlib.error:
            raise _Cut("gzip is damaged") from None
        self.pending = self.unpacker.unconsumed_tail

    def take(self, count: int) -> bytes:
        """Give exactly so many bytes. Raises _Cut, and BundleError for more than a bundle may hold."""
        if self.given + count > TOTAL:
            raise BundleError(f"{self.shown}: refused: unpacks to more than {TOTAL >> 20} MiB")
        while len(self.buffer) < count:
            self._more()
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        self.given += count
        return taken


def _unpacked(path: str, shown: str) -> Iterator[tuple[str, bytes]]:
    """Give name and content of each member. Raises BundleError, and _Cut where the archive ends too early."""
    handle = _open(path, shown)
    try:
        stream = _Stream(handle, shown)
        count = 0
        while True:
            header = stream.take(_BLOCK)
            if not any(header):
                return
            count += 1
            if count > MEMBERS:
                raise BundleError(f"{shown}: refused: more than {MEMBERS:,} members")
            name, size = _parse(header, shown, first=count == 1)
            data = stream.take(size)
            stream.take(-size % _BLOCK)
            yield name, data
    except _Cut as cut:
        raise _Cut(f"{stream.given:,} bytes ({cut})") from None
    finally:
        os.close(handle)


def _parse(header: bytes, shown: str, *, first: bool) -> tuple[str, int]:
    """Read one header: name and size of a plain file. Raises BundleError for anything else."""
    total = sum(header) - sum(header[148:156]) + 8 * 32
    try:
        held = int(header[148:156].rstrip(b"\0 ") or b"-1", 8)
    except ValueError:
        held = -1
    if held != total:
        what = "not a bundle of doctor: it is no tar" if first else "refused: a header's checksum is wrong"
        raise BundleError(f"{shown}: {what}")
    name = header[:100].split(b"\0")[0].decode("utf-8", "backslashreplace")
    prefix = header[345:500].split(b"\0")[0].decode("utf-8", "backslashreplace") if header[257:262] == b"ustar" else ""
    name = _printable(f"{prefix}/{name}" if prefix else name)
    kind = header[156:157]
    if name.startswith("/") or ".." in name.split("/"):
        raise BundleError(f"{shown}: refused: member {name} leads out of the bundle. Nothing was written")
    if kind not in {b"0", b"\0"}:
        named = {
            b"1": "a hard link",
            b"2": "a link",
            b"3": "a device",
            b"4": "a device",
            b"5": "a folder",
            b"6": "a FIFO",
        }
        raise BundleError(f"{shown}: refused: member {name} is {named.get(kind, 'no plain file')}")
    try:
        size = int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise BundleError(f"{shown}: refused: the size of member {name} is no number") from None
    if not 0 <= size <= (MANIFEST_SIZE if first else MEMBER):
        raise BundleError(f"{shown}: refused: member {name} is larger than {MEMBER >> 20} MiB")
    return name, size


def _read(shown: str, members: Iterator[tuple[str, bytes]]) -> Snapshot:
    damage = ""
    try:
        name, text = next(members)
    except StopIteration:
        name, text = "", b""
    except _Cut as cut:
        raise BundleError(f"{shown}: not a bundle of doctor: it ends after {cut}") from None
    if name != MANIFEST:
        raise BundleError(f"{shown}: not a bundle of doctor: it has no {MANIFEST}. `doctor collect` makes one")
    manifest = _manifest(text, shown)
    wanted = {entry.member: entry for entry in manifest.records if entry.member}
    found: dict[str, bytes] = {}
    try:
        for name, data in members:
            if name not in wanted or name in found:
                raise BundleError(
                    f"{shown}: refused: member {name} is {'there twice' if name in found else 'not in its manifest'}"
                )
            found[name] = data
    except _Cut as cut:
        whole = sum(not entry.member or entry.member in found for entry in manifest.records)
        damage = f"{shown}: truncated after {cut}: {whole} of {len(manifest.records)} pieces could be read; went on with those"
    records = {}
    altered = 0
    for entry in manifest.records:
        record, good = _record(entry, found)
        records[entry.name] = record
        altered += not good
    if altered and not damage:
        damage = (
            f"{shown}: damaged: {altered} of {len(manifest.records)} pieces are not what was written; went on without"
        )
    return Snapshot(manifest.meta, records, manifest.removed, bundle=True, damage=damage)


def _manifest(text: bytes, shown: str) -> _Manifest:
    try:
        version = msgspec.json.decode(text, type=_Version)
        if version.format > FORMAT:
            made = _printable(version.doctor)
            raise BundleError(
                f"{shown}: made by doctor {made} (format {version.format}),"
                f" this is {__version__} (format {FORMAT}): upgrade doctor to read it"
            )
        manifest = msgspec.json.decode(text, type=_Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{shown}: {MANIFEST}: {_printable(str(error))}") from None
    except UnicodeDecodeError as error:
        raise BundleError(f"{shown}: {MANIFEST}: no UTF-8 at byte {error.start}") from None
    names = [entry.name for entry in manifest.records]
    members = [entry.member for entry in manifest.records if entry.member]
    if len(set(names)) != len(names) or len(set(members)) != len(members):
        raise BundleError(f"{shown}: refused: {MANIFEST} names a record twice")
    finite = (manifest.meta.collected_at, manifest.meta.seconds, *(entry.mtime for entry in manifest.records))
    if not all(0 <= value < 1 << 40 for value in finite) or abs(manifest.meta.utc_offset) > 86400:  # noqa: PLR2004 - a day
        raise BundleError(f"{shown}: {MANIFEST}: a time is out of range")
    return manifest


def _record(entry: _Entry, found: dict[str, bytes]) -> tuple[Record, bool]:
    """Give the record, and whether its data is what was written."""
    data = found.get(entry.member, b"")
    status, why, good = entry.status, entry.why, True
    if entry.member and entry.member not in found:
        status, why = "not-run", "the bundle ends before it"
    elif entry.member and sha256(data).hexdigest() != entry.stored:
        data, status, why, good = b"", "failed", "damaged in the bundle: its digest differs", False
    record = Record(
        name=entry.name,
        kind=entry.kind,
        target=entry.target,
        status=status,
        data=data,
        why=why,
        errno=entry.errno,
        ms=entry.ms,
        size=entry.bytes,
        sha256=entry.sha256,
        mtime=entry.mtime,
        redactions=entry.redactions,
    )
    return record, good
