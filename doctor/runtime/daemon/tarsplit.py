"""A layer as the engine keeps it beside its files: the tar that it was, taken apart so that it can be put together again.

A line of JSON per piece: type 2 holds bytes of the tar (headers, padding), type 1 names a file whose content stands in the
layer's folder, with its CRC-64 (ISO polynomial, as Go's hash/crc64). Source: vbatts/tar-split `tar/asm`, `tar/storage`.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import tarfile
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ALL = (1 << 64) - 1
_WORD = 64
_BLOCK = 512
MTIME = 1_700_000_000
"""Of every file that we make, in seconds since the epoch: the same content gives the same digest anywhere."""


class Entry(Struct, frozen=True):
    """A file of a layer: `path` without a slash at its front; a directory has neither `data` nor `link`."""

    path: str
    mode: int
    data: bytes | None = None
    link: str = ""


@lru_cache(maxsize=64)
def crc64(data: bytes) -> int:
    """Give the CRC-64 of bytes by the ISO polynomial x^64 + x^4 + x^3 + x + 1, reflected, as Go's crc64.ISO.

    A whole text is one polynomial: what stands above x^(64s), for s a power of two, is folded down by three shifts, since
    x^(64s) = x^4s + x^3s + x^s + 1 modulo the polynomial. In an integer of n bits, bit i is the coefficient of x^(n-1-i).

    >>> hex(crc64(b"123456789"))
    '0xb90956c775a41001'
    """
    left = int.from_bytes(data, "little") ^ _ALL
    bits = 8 * len(data) + _WORD
    power = 1
    while _WORD * power * 2 < bits:
        power *= 2
    while bits > _WORD:
        while _WORD * power >= bits:
            power //= 2
        kept = _WORD * power
        high = bits - kept
        above, below = left & ((1 << high) - 1), left >> high
        bits = max(kept, high + 4 * power)
        room = bits - high
        left = below << (bits - kept)
        for degree in (4 * power, 3 * power, power, 0):
            left ^= above << (room - degree)
    return left ^ _ALL


def archive(tree: Iterable[Entry]) -> bytes:
    """Make the tar of a layer, in the order given, owned by root, with GNU headers as the engine writes them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in tree:
            about = tarfile.TarInfo(entry.path)
            about.mode, about.mtime = entry.mode, MTIME
            if entry.data is not None:
                about.size = len(entry.data)
                tar.addfile(about, io.BytesIO(entry.data))
                continue
            about.type, about.linkname = (tarfile.SYMTYPE, entry.link) if entry.link else (tarfile.DIRTYPE, "")
            tar.addfile(about)
    return out.getvalue()


def split(tar: bytes) -> bytes:
    """Take a tar apart into the text of `tar-split.json.gz`."""
    lines = (json.dumps({**piece, "position": at}, separators=(",", ":")) for at, piece in enumerate(_pieces(tar)))
    return gzip.compress(("\n".join(lines) + "\n").encode(), 6, mtime=0)


def _pieces(tar: bytes) -> Iterator[dict[str, object]]:
    at = 0
    for member in tarfile.open(fileobj=io.BytesIO(tar)):  # noqa: SIM115 - a file in memory
        yield {"type": 2, "payload": base64.b64encode(tar[at : member.offset_data]).decode()}
        at = member.offset_data
        name = member.name + "/" if member.isdir() else member.name
        if not member.isreg() or not member.size:
            yield {"type": 1, "name": name, "payload": None}
            continue
        at += member.size
        check = struct.pack(">Q", crc64(tar[member.offset_data : at]))
        yield {"type": 1, "name": name, "size": member.size, "payload": base64.b64encode(check).decode()}
    yield {"type": 2, "payload": base64.b64encode(tar[at:]).decode()}
