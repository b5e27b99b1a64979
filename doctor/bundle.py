"""The bundle: a snapshot as a gzip'd tar, written privately and read as hostile input.

`manifest.json` comes first: `format`, doctor's version, a digest of itself, the snapshot's head, what was removed, and
one record a line. A record with data has one member of the archive; the manifest says which, and the digest of it.
Nothing is ever extracted to disk; a bundle that lies about itself is refused, one that is cut short is read as far as
it goes.

The reader walks 512-byte headers itself and not with `tarfile`: it has to bound what it unpacks before it unpacks it,
to go on with what a damaged archive still holds, and to be there in a millisecond (`import tarfile` takes longer than
reading a bundle). Only plain members of ustar are read: this is all that a bundle was ever made of, and pax and GNU
headers could say that a name or a size is another than the one that was checked. Sources: POSIX pax(1), "ustar
Interchange Format"; tar(5); RFC 1952.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from contextlib import suppress
from errno import EOPNOTSUPP
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Struct

from doctor import __version__
from doctor.snapshot import FORMAT, Kind, Meta, Record, Snapshot, Status

MANIFEST = "manifest.json"
TOTAL = 256 << 20
"""Bytes of an unpacked bundle, at most; a file that is larger before it is unpacked is none either."""
MEMBER = 64 << 20
MANIFEST_SIZE = 32 << 20
MEMBERS = 200_000

_BLOCK = 512
_ZERO = bytes(_BLOCK)
_READ = 1 << 14
"""Bytes of the file in one turn. Where gzip is damaged, a turn is repeated byte by byte to get what comes before."""
_UNPACK = 1 << 18
"""Bytes that one turn may unpack: what a bomb gets beyond the limits."""
_LEVEL = 6
_NAME = 100
"""Bytes of a name in a ustar header."""
_SHOWN = 160
_REMOVED = 1 << 16
_YEARS = (-62_135_596_800.0, 253_402_300_800.0)
"""From year 1 to year 9999: the times that every clock and calendar of a reader can show."""
_NO_DIGEST = b"0" * 64


class BundleError(Exception):
    """The file is no bundle, or one that is refused: one line with the path and the reason."""


class Written(Struct, frozen=True):
    """What was written: the path, how many pieces of evidence, how many bytes."""

    path: str
    records: int
    bytes: int


_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_Small = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]


class _Entry(Struct, omit_defaults=True):
    """One record in the manifest. `stored` is the SHA-256 of the member as it stands, `sha256` of what was read."""

    name: str
    kind: Kind
    target: str
    status: Status = "ok"
    member: str = ""
    why: str = ""
    errno: _Small = 0
    ms: float = 0.0
    bytes: _Count = 0
    sha256: str = ""
    stored: str = ""
    mtime: float = 0.0
    redactions: _Count = 0


class _Manifest(Struct):
    """All of it but what `_Version` holds. `removed` is decoded apart, once it is known to be small."""

    meta: Meta
    removed: msgspec.Raw
    records: list[_Entry]


class _Version(Struct):
    """What is read first, and of every format there will ever be.

    `digest` is the SHA-256 of the manifest in which these 64 characters are zeros; one that is not there is not tested.
    """

    format: _Small
    doctor: str = ""
    digest: str = ""


class _Cut(Exception):  # noqa: N818 - the end of what can be read, not an error yet
    """The file ends early, or cannot be unpacked any further: what happened, and where."""


def _printable(text: str) -> str:
    """Make foreign text fit for a message: control, bidi and other invisible characters escaped, and not too long."""
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _reason(error: OSError | ValueError) -> str:
    """Say why a file cannot be had; a path can also be none at all (a NUL in it)."""
    return os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no file can have this name"


# Writing


def write(snapshot: Snapshot, path: str) -> Written:
    """Write a bundle to a path, or to standard output for `-`. Whole or not at all, mode 0600. Raises OSError.

    A link at the path is replaced and not followed; what is there and no file is left alone (EOPNOTSUPP).
    """
    data = pack(snapshot)
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _replace(path, data)
    return Written(path, len(snapshot.records), len(data))


def _replace(path: str, data: bytes) -> None:
    """Put a file at a path by way of a second one beside it, which is gone afterwards whatever happens."""
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        link = stat.S_ISLNK(mode) and not path.startswith(("/dev/", "/proc/"))
        # To rename over /dev/null or /dev/stderr would make a file of it for the whole machine.
        if not (link or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP), path)
    folder, slash, _ = path.rpartition("/")
    temporary = f"{folder}{slash}.doctor-{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)  # noqa: PTH105 - the path is the user's text
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - the same
        raise


def pack(snapshot: Snapshot) -> bytes:
    """Give the bytes of a bundle; equal for equal snapshots."""
    entries = []
    members: list[tuple[str, bytes]] = []
    names: set[str] = set()
    # Files and folders of the archive, so that none is both: `tar -x` would stumble.
    taken: set[str] = {MANIFEST}
    folders: set[str] = set()
    for number, record in enumerate(snapshot.records.values(), 1):
        name = _text(record.name)
        while name in names:
            name += "\ufffd"
        names.add(name)
        member = ""
        if record.data:
            member = _member_name(name, number, taken, folders)
            members.append((member, record.data))
        entries.append(
            _Entry(
                name=name,
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
                mtime=record.mtime if _YEARS[0] <= record.mtime < _YEARS[1] else 0.0,
                redactions=record.redactions,
            )
        )
    when = int(snapshot.meta.collected_at)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)  # 31: gzip, whose header then has no time and no name
    out = [
        packer.compress(_header(name, len(data), when) + data + bytes(-len(data) % _BLOCK))
        for name, data in [(MANIFEST, _print(snapshot, entries)), *members]
    ]
    out += [packer.compress(_ZERO * 2), packer.flush()]
    return b"".join(out)


def _print(snapshot: Snapshot, entries: list[_Entry]) -> bytes:
    """Print the manifest, one record a line, and put its digest into it."""
    text = b'{"format":%d,\n"doctor":%b,\n"digest":"%b",\n"meta":%b,\n"removed":%b,\n"records":[\n%b\n]}\n' % (
        FORMAT,
        msgspec.json.encode(__version__),
        _NO_DIGEST,
        _encode(snapshot.meta),
        msgspec.json.encode(snapshot.removed),
        b",\n".join(map(_encode, entries)),
    )
    return text.replace(_NO_DIGEST, sha256(text).hexdigest().encode(), 1)


def _encode(value: Struct) -> bytes:
    """Print a struct as JSON. A host name or a path may hold bytes that are no text."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        fields = msgspec.to_builtins(value).items()
        return msgspec.json.encode({key: _text(one) if isinstance(one, str) else one for key, one in fields})


def _text(text: str) -> str:
    """Replace lone surrogates (bytes of a file name that are no UTF-8, as Python holds them) by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _member_name(name: str, number: int, taken: set[str], folders: set[str]) -> str:
    """Make a record's name fit for a tar: relative, printable ASCII, nothing that leads out, at most 100 bytes, unique.

    Where it must change, the record's number makes it unique.
    """
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}]
    clean = "".join(char if " " <= char <= "~" and char != "\\" else "_" for char in "/".join(parts))
    if clean != name or not clean or len(clean) > _NAME or not _free(clean, taken, folders):
        stem = clean[: _NAME - 16].rstrip("/") or "record"
        clean = f"{stem}-{number}"
        while not _free(clean, taken, folders):
            stem = stem.replace("/", "_")
            number += 1
            clean = f"{stem}-{number}"
    taken.add(clean)
    folders.update(_above(clean))
    return clean


def _free(name: str, taken: set[str], folders: set[str]) -> bool:
    """Whether a member can have this name: no file has it, no folder has it, no file is where its folders would be."""
    return name not in taken and name not in folders and taken.isdisjoint(_above(name))


def _above(name: str) -> list[str]:
    """Give the folders that a name lies in."""
    return [name[:place] for place, char in enumerate(name) if char == "/"]


def _header(name: str, size: int, when: int) -> bytes:
    """Print the ustar header of a plain file: mode 0600, owner 0, no names of owners."""
    head = bytearray(_BLOCK)
    head[0 : len(name)] = name.encode()
    head[100:108] = b"0000600\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"%011o\0" % min(max(when, 0), (1 << 33) - 1)
    head[148:156] = b" " * 8
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


# Reading


def read(path: str) -> Snapshot:
    """Read a bundle from a path, or from standard input for `-`. Raises BundleError.

    One that was cut short or damaged gives what is whole of it; `damage` of the snapshot then says so.
    """
    shown = "standard input" if path == "-" else _printable(path)
    try:
        handle = _open(path)
        try:
            return _read(_Stream(handle), shown)
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
        raise BundleError(f"cannot read: {_reason(error)}") from None
    what = _NO_FILE.get(stat.S_IFMT(os.fstat(handle).st_mode))
    if what:
        os.close(handle)
        raise BundleError(f"cannot read: {what}")
    return handle


class _Stream:
    """The unpacked bytes of a file, never more of them than asked for plus one turn."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = 0
        """Bytes read from the file."""
        self.start = b""
        while len(self.start) < 8 and (more := self._file()):  # noqa: PLR2004 - a pipe may give a byte at a time
            self.start += more
        self.unpacker = zlib.decompressobj(31) if self.start.startswith(b"\x1f\x8b") else None
        self.packed = self.start
        self.damage = ""
        self.chunk = b""
        self.place = 0
        self.given = 0
        """Bytes unpacked."""

    def _file(self) -> bytes:
        """Read some of the file, nothing at its end."""
        while True:
            try:
                data = os.read(self.handle, _READ)
            except BlockingIOError:  # a standard input that somebody made so
                import select

                select.select([self.handle], [], [])
                continue
            except OSError as error:
                raise BundleError(f"cannot read: {_reason(error)}") from None
            self.size += len(data)
            if self.size > TOTAL:
                raise BundleError(f"refused: it is larger than {TOTAL >> 20} MiB")
            return data

    def _more(self) -> bytes:
        """Unpack some more, nothing at the end. Raises _Cut where gzip ends early or is damaged."""
        if self.unpacker is None:
            data, self.packed = self.packed or self._file(), b""
        else:
            data = self._inflate(self.unpacker)
        self.given += len(data)
        if self.given > TOTAL:
            raise BundleError(f"refused: it unpacks to more than {TOTAL >> 20} MiB")
        return data

    def _inflate(self, unpacker: zlib._Decompress) -> bytes:
        if self.damage:
            raise _Cut(self.damage)
        while not unpacker.eof:
            self.packed = self.packed or self._file()
            if not self.packed:
                raise _Cut(f"truncated after {self.size:,} bytes (gzip ends early)")
            before = unpacker.copy()
            try:
                data = unpacker.decompress(self.packed, _UNPACK)
            except zlib.error:
                return self._salvage(before)
            self.packed = unpacker.unconsumed_tail
            if data:
                return data
        rest = unpacker.unused_data or self._file()
        while rest:
            if rest.count(0) != len(rest):
                raise BundleError("refused: data follows the end of gzip")
            rest = self._file()
        return b""

    def _salvage(self, unpacker: zlib._Decompress) -> bytes:
        """Unpack what comes before the damage, byte by byte; the next turn says where it is."""
        out = []
        begin = self.size - len(self.packed)
        for place in range(len(self.packed)):
            try:
                out.append(unpacker.decompress(self.packed[place : place + 1]))
            except zlib.error:
                begin += place
                break
        self.damage = f"damaged at byte {begin:,} (gzip cannot be unpacked)"
        data = b"".join(out)
        if not data:
            raise _Cut(self.damage)
        return data

    def take(self, count: int) -> bytes:
        """Give exactly so many bytes. Raises _Cut, and BundleError for more than a bundle may hold."""
        end = self.place + count
        if end <= len(self.chunk):
            data = self.chunk[self.place : end]
            self.place = end
            return data
        parts = [self.chunk[self.place :]]
        missing = count - len(parts[0])
        self.chunk, self.place = b"", 0
        while missing:
            self.chunk = self._more()
            if not self.chunk:
                raise _Cut(f"truncated after {self.size:,} bytes (the archive ends early)")
            parts.append(self.chunk[:missing])
            self.place = len(parts[-1])
            missing -= self.place
        return b"".join(parts)

    def end(self) -> None:
        """Read to the end, where gzip's own checksum is: behind the archive there are zeros and nothing else."""
        rest = self.chunk[self.place :]
        while True:
            if rest.count(0) != len(rest):
                raise BundleError("refused: data follows the end of the archive")
            rest = self._more()
            if not rest:
                return


_PACKED = {
    b"PK\3\4": "it is a zip",
    b"BZh": "it is packed by bzip2, not by gzip: unpack it first",
    b"\xfd7zXZ": "it is packed by xz, not by gzip: unpack it first",
    b"\x28\xb5\x2f\xfd": "it is packed by zstd, not by gzip: unpack it first",
}


def _first(stream: _Stream) -> bytes:
    """Give the text of the manifest, which is the first member. Raises BundleError for what is no bundle."""
    if not stream.start:
        raise BundleError("not a bundle of doctor: it is empty")
    for start, what in _PACKED.items():
        if stream.start.startswith(start):
            raise BundleError(f"not a bundle of doctor: {what}")
    gzipped = stream.unpacker is not None
    no_tar = BundleError(f"not a bundle of doctor: {'what is in the gzip' if gzipped else 'it'} is no tar")
    try:
        header = stream.take(_BLOCK)
        if header == _ZERO:
            name, kind, size = "", b"", 0
        elif _checked(header):
            name, kind, size = _parse(header)
        else:
            raise no_tar
        if name != MANIFEST:
            raise BundleError(f"not a bundle of doctor: it has no {MANIFEST}. `doctor collect` makes one")
        _plain(name, kind, size, MANIFEST_SIZE)
        text = stream.take(size)
        stream.take(-size % _BLOCK)
    except _Cut as cut:
        if not gzipped and stream.given < _BLOCK:
            raise no_tar from None
        raise BundleError(f"{cut}: nothing of it could be read") from None
    return text


def _read(stream: _Stream, shown: str) -> Snapshot:
    manifest, removed = _manifest(_first(stream))
    total = len(manifest.records)
    found: dict[str, bytes] = {}
    end = ""
    try:
        _fill(stream, {entry.member for entry in manifest.records if entry.member}, found)
    except _Cut as cut:
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
            lost.append(_printable(entry.name))
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


def _fill(stream: _Stream, wanted: set[str], found: dict[str, bytes]) -> None:
    """Read every member behind the manifest, each once and named by it. Raises BundleError, and _Cut."""
    while (header := stream.take(_BLOCK)) != _ZERO:
        if not _checked(header):
            raise _Cut(f"damaged at byte {stream.given - len(stream.chunk) + stream.place - _BLOCK:,} of the archive")
        name, kind, size = _parse(header)
        shown = _printable(name)
        if name in found or name == MANIFEST:
            raise BundleError(f"refused: member {shown} is there twice")
        _plain(shown, kind, size, MEMBER)
        if name not in wanted:
            raise BundleError(f"refused: member {shown} is not in its manifest")
        found[name] = stream.take(size)
        stream.take(-size % _BLOCK)
    if stream.take(_BLOCK) != _ZERO:
        raise BundleError("refused: data follows the end of the archive")
    stream.end()


def _octal(field: bytes) -> int:
    """Read a number of a header, -1 for what is none (GNU's binary numbers are none, nor is what Python takes)."""
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1


def _checked(header: bytes) -> bool:
    return _octal(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _parse(header: bytes) -> tuple[str, bytes, int]:
    """Give name, type and size of a header. Raises BundleError for a name that leads out."""
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    text = name.decode("utf-8", "backslashreplace")
    if _leads_out(text):
        raise BundleError(f"refused: member {_printable(text)} leads out of the bundle. Nothing was written")
    return text, header[156:157], _octal(header[124:136])


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


_TYPES = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


def _plain(shown: str, kind: bytes, size: int, most: int) -> None:
    """Raise BundleError for a member that is no plain file of a size that can be."""
    if kind not in {b"0", b"\0"}:
        what = _TYPES.get(kind, f"of type {_printable(kind.decode('latin-1'))}")
        raise BundleError(f"refused: member {shown} is {what}, not a plain file. Nothing was written")
    if size < 0:
        raise BundleError(f"refused: the size of member {shown} is no number")
    if size > most:
        raise BundleError(f"refused: member {shown} is larger than {most >> 20} MiB")


def _manifest(text: bytes) -> tuple[_Manifest, dict[str, int]]:
    """Decode the manifest and judge it. Raises BundleError."""
    try:
        text.decode()  # msgspec does not look into keys that it skips
        version = msgspec.json.decode(text, type=_Version)
        if version.format > FORMAT:
            raise BundleError(
                f"made by doctor {_printable(version.doctor)} (format {version.format}),"
                f" this is {__version__} (format {FORMAT}): upgrade doctor to read it"
            )
        if version.format < 1:
            raise BundleError(f"{MANIFEST}: there is no format {version.format}")
        if version.digest and not _whole(text, version.digest):
            raise BundleError(f"{MANIFEST}: it is not what was written: digest differs")
        if text.count(b"{") > 2 * MEMBERS:
            raise BundleError(f"refused: {MANIFEST} names more than {MEMBERS:,} records")
        manifest = msgspec.json.decode(text, type=_Manifest)
        if len(manifest.removed) > _REMOVED:
            raise BundleError(f"{MANIFEST}: too many kinds of secrets")
        removed = msgspec.json.decode(manifest.removed, type=dict[str, _Count])
    except UnicodeDecodeError as error:
        raise BundleError(f"{MANIFEST}: no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BundleError(f"{MANIFEST}: nested too deeply") from None
    except msgspec.ValidationError as error:
        what = str(error)
        raise BundleError(f"{MANIFEST}: {_printable(what[:1].lower() + what[1:])}") from None
    except msgspec.MsgspecError as error:
        raise BundleError(f"{MANIFEST}: {_malformed(str(error), len(text))}") from None
    _judge(manifest)
    return manifest, removed


def _whole(text: bytes, digest: str) -> bool:
    """Whether the manifest has its digest; this finds damage, it does not keep anybody from changing both."""
    return sha256(text.replace(digest.encode(), _NO_DIGEST, 1)).hexdigest() == digest


def _malformed(what: str, size: int) -> str:
    """Turn msgspec's `JSON is malformed: invalid character (byte 5)` into our words."""
    reason, found, place = what.removeprefix("JSON is malformed: ").partition(" (byte ")
    return f"{reason} at byte {place.rstrip(')')}" if found else f"JSON ends early at byte {size}"


def _judge(manifest: _Manifest) -> None:
    """Raise BundleError for names that cannot be and numbers that no host has."""
    names: set[str] = set()
    members = {MANIFEST}
    if len(manifest.records) > MEMBERS:
        raise BundleError(f"refused: {MANIFEST} names more than {MEMBERS:,} records")
    for entry in manifest.records:
        if entry.name in names:
            raise BundleError(f"refused: {MANIFEST} names record {_printable(entry.name)} twice")
        names.add(entry.name)
        if not (_YEARS[0] <= entry.mtime < _YEARS[1] and abs(entry.ms) < _YEARS[1]):
            raise BundleError(f"{MANIFEST}: a time of record {_printable(entry.name)} is out of range")
        if not entry.member:
            continue
        if entry.member in members:
            raise BundleError(f"refused: {MANIFEST} names member {_printable(entry.member)} twice")
        if _leads_out(entry.member):
            raise BundleError(
                f"refused: member {_printable(entry.member)} leads out of the bundle. Nothing was written"
            )
        members.add(entry.member)
    meta = manifest.meta
    day = 86_400
    if not (
        0 <= meta.collected_at < _YEARS[1]
        and abs(meta.utc_offset) < day
        and abs(meta.seconds) < _YEARS[1]
        and abs(meta.uid) < 1 << 32
        and 0 < meta.format <= FORMAT
    ):
        raise BundleError(f"{MANIFEST}: a number of `meta` is out of range")
