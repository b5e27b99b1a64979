"""tar-split: what docker keeps of the tar archive that a layer was made from, beside the files themselves.

`tar-split.json.gz` has one JSON object a line: a segment (type 2) is bytes of the archive that are no file's content:
headers, padding and the end; an entry (type 1) is a file: its name, how many bytes of content follow, and their CRC-64.
The files put between the segments give the archive again, byte for byte, and its SHA-256 is the layer's diffID. Source:
tar-split `tar/storage` (entry.go, packer.go) and `tar/asm`; moby `layer/filestore.go`.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY, SEGMENT = 1, 2
_READ = 1 << 15
_UNPACK = 1 << 20
_LINE = 8 << 20
"""Characters of a line at most: headers and padding of one file are some KiB, PAX records a MiB at most."""


class RecordDamaged(Exception):  # noqa: N818 - what the file is, not an error of ours
    """The file is no whole tar-split; the text says why."""


class Part(Struct, gc=False):
    """One line. `payload` is a segment's bytes, or the checksum of a file, big endian; None or empty for an empty file."""

    type: int
    name: str = ""
    name_raw: bytes = b""
    size: int = 0
    payload: bytes | None = None
    position: int = 0


_decoder = msgspec.json.Decoder(Part)


def parts(handle: int) -> Iterator[Part]:
    """Read an open tar-split. Raises RecordDamaged, OSError."""
    rest = b""
    for text in _unpacked(handle):
        held = rest + text
        cut = held.rfind(b"\n") + 1
        rest = held[cut:]
        if cut:
            yield from _decoded(held[:cut])
        elif len(rest) > _LINE:
            raise RecordDamaged("a line without an end")
    if rest.strip():
        yield from _decoded(rest)


def _decoded(lines: bytes) -> list[Part]:
    try:
        return _decoder.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordDamaged(f"not what tar-split writes: {error}") from None


def _unpacked(handle: int) -> Iterator[bytes]:
    """Unpack gzip, member after member, and hold it to its own checksum."""
    inflate = zlib.decompressobj(31)
    begun = False
    while data := os.read(handle, _READ):
        while data:
            if inflate.eof:
                if not data.strip(b"\0"):
                    break
                inflate = zlib.decompressobj(31)
            begun = True
            try:
                yield inflate.decompress(data, _UNPACK)
            except zlib.error as error:
                raise RecordDamaged(f"gzip is damaged: {str(error).rpartition(': ')[2]}") from None
            data = inflate.unconsumed_tail or inflate.unused_data
    if not begun:
        raise RecordDamaged("empty")
    if not inflate.eof:
        raise RecordDamaged("gzip ends early")
