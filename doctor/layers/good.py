"""An archive that is said to be good (`--from`): which layers it holds, proved by their digests, and where in it they are."""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE = 1 << 20
_SMALLEST = 1024
_GZIP = b"\x1f\x8b"


class Place(NamedTuple):
    """Where a layer is: the member of the archive, and tar's option for its compression (empty, `z`)."""

    member: str
    how: str


def find(path: str, digests: Iterable[str]) -> dict[str, Place]:
    """Give the layers of these diffIDs that an archive holds. Raises OSError, and ValueError for what is no archive."""
    wanted = set(digests)
    found: dict[str, Place] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isreg() and member.size >= _SMALLEST and wanted - set(found):
                    _take(archive, member, wanted, found)
    except tarfile.TarError as error:
        raise ValueError(f"no tar archive: {error}") from error
    return found


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: set[str], found: dict[str, Place]) -> None:
    held = archive.extractfile(member)
    if held is None:
        return
    packed = held.read(2) == _GZIP
    held.seek(0)
    total = sha256()
    try:
        for piece in _unpacked(held) if packed else _plain(held):
            total.update(piece)
    except zlib.error:
        return
    digest = f"sha256:{total.hexdigest()}"
    if digest in wanted:
        found.setdefault(digest, Place(member.name, "z" if packed else ""))


def _plain(held: IO[bytes]) -> Iterator[bytes]:
    while piece := held.read(_PIECE):
        yield piece


def _unpacked(held: IO[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    while data := held.read(_PIECE):
        while data and not inflate.eof:
            yield inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail


def names(path: str, place: Place, wanted: Iterable[str]) -> tuple[str, ...]:
    """Give the names that files of the layer have in its own archive (`./usr/bin/x`), as far as they are in it.

    Hard links to them are files of their own once the one file is put back, so they come along.
    """
    asked = {_inside(name) for name in wanted}
    found = []
    with tarfile.open(path, "r:") as archive:
        held = archive.extractfile(place.member)
        if held is None:
            return ()
        mode: Literal["r|gz", "r|"] = "r|gz" if place.how else "r|"
        with tarfile.open(fileobj=held, mode=mode, errors="surrogateescape") as layer:
            found = [
                one.name
                for one in layer
                if _inside(one.name) in asked or (one.islnk() and _inside(one.linkname) in asked)
            ]
    return tuple(found)


def _inside(name: str) -> str:
    return posixpath.normpath("/" + name.lstrip("/"))
