"""Write a bundle: a manifest and a member for each record that holds data, whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
import zlib
from contextlib import suppress
from errno import EOPNOTSUPP
from hashlib import sha256

import msgspec
from msgspec import Struct

from doctor import __version__
from doctor.bundle.archive import BLOCK, ZERO, header_of
from doctor.bundle.manifest import MANIFEST, NO_DIGEST, YEARS, Entry
from doctor.snapshot import FORMAT, Snapshot

_LEVEL = 6
_NAME = 100
"""Bytes of a name in a ustar header."""


class Written(Struct, frozen=True):
    """What was written: the path, how many pieces of evidence, how many bytes."""

    path: str
    records: int
    bytes: int


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
            Entry(
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
                mtime=record.mtime if YEARS[0] <= record.mtime < YEARS[1] else 0.0,
                redactions=record.redactions,
            )
        )
    when = int(snapshot.meta.collected_at)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)  # 31: gzip, whose header then has no time and no name
    out = [
        packer.compress(header_of(name, len(data), when) + data + bytes(-len(data) % BLOCK))
        for name, data in [(MANIFEST, _print(snapshot, entries)), *members]
    ]
    out += [packer.compress(ZERO * 2), packer.flush()]
    return b"".join(out)


def _print(snapshot: Snapshot, entries: list[Entry]) -> bytes:
    """Print the manifest, one record a line, and put its digest into it."""
    text = b'{"format":%d,\n"doctor":%b,\n"digest":"%b",\n"meta":%b,\n"removed":%b,\n"records":[\n%b\n]}\n' % (
        FORMAT,
        msgspec.json.encode(__version__),
        NO_DIGEST,
        _encode(snapshot.meta),
        msgspec.json.encode(snapshot.removed),
        b",\n".join(map(_encode, entries)),
    )
    return text.replace(NO_DIGEST, sha256(text).hexdigest().encode(), 1)


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
