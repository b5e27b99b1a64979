"""Two streams of bytes against each other: where they differ first, by how much, and by which pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.layers.model import Cause

_CLOSE = 16
"""Bytes within which a few that differ are one event."""
_BLOCK = 512


class Bytewise:
    """What differs, as pairs of pieces come in; nothing is kept of them."""

    def __init__(self) -> None:
        """Nothing differs yet."""
        self.first = self.last = -1
        self.count = 0
        self.expected = self.found = 0
        self.size = 0
        self.size_found = 0
        self._zeros = True

    def feed(self, expected: bytes, found: bytes) -> None:
        """Take the next pieces, which begin at the same offset; the shorter one says that its stream ends there."""
        start = self.size
        self.size += len(expected)
        self.size_found += len(found)
        if expected == found:
            return
        shared = min(len(expected), len(found))
        mixed = int.from_bytes(expected[:shared], "big") ^ int.from_bytes(found[:shared], "big")
        if not mixed:
            return
        bits = mixed.to_bytes(shared, "big")
        head = shared - len(bits.lstrip(b"\0"))
        tail = len(bits.rstrip(b"\0")) - 1
        if self.first < 0:
            self.first, self.expected, self.found = start + head, expected[head], found[head]
        elif self._zeros and any(found[:head]):
            self._zeros = False
        self.last = start + tail
        self.count += shared - bits.count(0)
        self._zeros = self._zeros and not any(found[head : tail + 1])

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return self.count > 0 or self.size != self.size_found

    @property
    def only_length(self) -> bool:
        """Whether one is the beginning of the other."""
        return self.count == 0

    @property
    def offset(self) -> int:
        """Where they differ first."""
        return self.first if self.first >= 0 else min(self.size, self.size_found)

    def pattern(self) -> tuple[str, Cause]:
        """Say where they differ, and the likely cause."""
        if self.only_length:
            if not self.size_found:
                return "it is empty", "emptied"
            if self.size_found < self.size:
                return f"it ends at byte {self.size_found:,}", "cut"
            return f"{self.size_found - self.size:,} bytes are added at its end", "edited"
        same = self.size == self.size_found
        flipped = self.expected ^ self.found
        if same and self.count == 1 and not flipped & (flipped - 1):
            return f"one flipped bit: byte {self.first:,}, {self.found:#04x} where {self.expected:#04x} belongs", "bit"
        span = self.last - self.first + 1
        if self._zeros and span >= _BLOCK // 2:
            return f"zeros from byte {self.first:,} to {self.last:,}", "zeros"
        if same and span <= _CLOSE:
            if self.count == 1:
                return f"byte {self.first:,} is {self.found:#04x} where {self.expected:#04x} belongs", "bits"
            return f"{self.count} bytes differ from byte {self.first:,} on", "bits"
        return f"{self.count:,} bytes differ, the first is {self.first:,}, the last {self.last:,}", "edited"
