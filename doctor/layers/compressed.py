"""A stream that may be compressed: what is in it by its first bytes, hashed on both sides, in pieces of bounded size.

gzip in one or several members as RFC 1952 allows (pigz and stargz write them), zstd in frames. Python has zstd from 3.14
on (`compression.zstd`); before that the package `backports.zstd` is its twin: `pip install 'doctor[zstd]'`.
"""

from __future__ import annotations

import importlib
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_PIECE = 1 << 18
_MAGIC = 6
_MEASURE, _FREE = 20_000, 16 << 30
"""Times that something may grow when it is unpacked, once it is larger than the second: gzip reaches 1,032."""


class CannotUnpack(Exception):  # noqa: N818 - what the stream is, not an error of ours
    """Compressed data that is damaged, or grows without measure; the text says which."""


class NoDecompressor(Exception):  # noqa: N818 - the same
    """A compression that this Python cannot undo; the text says what helps."""


class _Plain:
    """No compression at all."""

    eof = False
    unused_data = b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:  # noqa: ARG002 - as the others have it
        """Give it back."""
        return data


class _Gzip:
    """zlib's object with the interface of the newer ones: `needs_input`, and what is left over inside."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NoDecompressor("compressed by zstd, which needs Python 3.14, or: pip install 'doctor[zstd]'")


def kind_of(start: bytes) -> str:
    """Say how a stream is compressed by its first bytes: `gzip`, `zstd`, `bzip2`, `xz`, or `` for not at all."""
    if start.startswith(_GZIP):
        return "gzip"
    if start.startswith(_ZSTD) or (start[1:4] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F):  # noqa: PLR2004 - RFC 8878
        return "zstd"
    return next((name for magic, name in _OTHERS.items() if start.startswith(magic)), "")


class Unpacked:
    """What a stream holds once it is unpacked, read in pieces.

    `packed` and `digest` are SHA-256 of what went in and what came out; `taken` and `given` count both. Raises
    NoDecompressor at once, CannotUnpack while reading.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Look at the first bytes."""
        self._read = read
        self.packed, self.digest = sha256(), sha256()
        self.taken = self.given = 0
        self._ahead = self._more()
        while len(self._ahead) < _MAGIC and (more := self._more()):
            self._ahead += more
        self.kind = kind_of(self._ahead)
        if self.kind in _OTHERS.values():
            raise NoDecompressor(f"compressed by {self.kind}, which no registry takes")
        self._zstd = _zstd() if self.kind == "zstd" else None
        self._undo = self._fresh()
        if not self.kind:
            self.digest = self.packed  # both are of the same bytes
        self._out = b""

    def _fresh(self) -> Any:
        if self._zstd is not None:
            return self._zstd.ZstdDecompressor()
        return _Gzip() if self.kind else _Plain()

    def _more(self) -> bytes:
        data = self._read(_PIECE)
        self.packed.update(data)
        self.taken += len(data)
        return data

    def _next(self) -> bytes:
        """Give the next piece that comes out; empty at the end."""
        if not self.kind:
            data, self._ahead = self._ahead, b""
            return data or self._more()
        while True:
            if self._undo.eof:
                self._ahead = self._undo.unused_data or self._more()
                if not self._ahead.strip(b"\0"):  # tape blocks are filled up with zeros
                    self.finish_input()
                    return b""
                self._undo = self._fresh()
            wants = self._undo.needs_input
            if wants and not self._ahead:
                self._ahead = self._more()
                if not self._ahead:
                    raise CannotUnpack(f"the {self.kind} data ends early, after {self.taken:,} bytes")
            data, self._ahead = (self._ahead, b"") if wants else (b"", self._ahead)
            try:
                out: bytes = self._undo.decompress(data, _PIECE)
            except Exception as error:  # zlib.error or ZstdError, which has no common base
                if not isinstance(error, zlib.error) and type(error).__name__ != "ZstdError":
                    raise
                raise CannotUnpack(f"the {self.kind} data is damaged before byte {self.taken:,} ({error})") from None
            if out:
                return out

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; none at the end."""
        if not self._out:
            self._out = self._next()
            if self.kind:
                self.digest.update(self._out)
            self.given += len(self._out)
            if self.given > _FREE and self.given > _MEASURE * self.taken:
                raise CannotUnpack(f"{self.taken:,} bytes grow to more than {self.given:,}")
        data, self._out = self._out[:size], self._out[size:]
        return data

    def finish(self) -> None:
        """Read to the end, so that both digests are of the whole. Raises CannotUnpack."""
        while self.read(_PIECE):
            pass

    def finish_input(self) -> None:
        """Read what is left to go in, for `packed` alone: what follows a damage is part of the blob as well."""
        while self._more():
            pass
