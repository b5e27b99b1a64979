"""What a damage looks like: one flipped bit, blocks of zeros, a file that ends early; and what did it, most likely.

A checksum over a whole file does not say where it differs. What can be said all the same: where one flipped bit is (two
checksums tell), and where blocks of zeros lie that a file system or a disk leaves behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.layers.crc64 import flipped_bit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.layers.model import Cause, Kind

BLOCK = 4096
"""Bytes: the page, and the block of nearly every file system."""
_ZERO = bytes(BLOCK)
_RUNS = 3
_ANY_EXECUTE = 0o111
_SET_ID = 0o6000
_FILE = 0o100000
_FORMAT = 0o170000
PROGRAMS = ("bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/local/bin/", "usr/local/sbin/")
"""The directories of the PATH that Docker gives a container by default, as names in a layer begin."""


def zeros(pieces: Iterator[bytes]) -> list[tuple[int, int]]:
    """Give the runs of aligned blocks that hold nothing but zeros, as first byte and length; pieces are whole blocks."""
    runs: list[tuple[int, int]] = []
    at = 0
    for piece in pieces:
        for start in range(0, len(piece), BLOCK):
            block = piece[start : start + BLOCK]
            if block == _ZERO or (len(block) < BLOCK and block == _ZERO[: len(block)]):
                place = at + start
                if runs and sum(runs[-1]) == place:
                    runs[-1] = (runs[-1][0], runs[-1][1] + len(block))
                else:
                    runs.append((place, len(block)))
        at += len(piece)
    return runs


def content(expected: int, found: int, size: int, pieces: Iterator[bytes], *, touched: bool) -> tuple[str, Cause, int]:
    """Say of a file of the right size with the wrong CRC-64 where it is wrong: detail, cause, first byte (-1: unknown).

    `pieces` is the file as it is, in pieces of whole blocks; `touched` whether its time is another one than recorded.
    """
    bit = flipped_bit(expected, found, size)
    if bit is not None:
        at, mask = bit
        byte = _byte(pieces, at)
        return f"fits one flipped bit: byte {at:,}, 0x{byte:02x} where 0x{byte ^ mask:02x} belongs", "bit", at
    runs = zeros(pieces)
    if not runs:
        return "", "edited" if touched else "bits", -1
    if runs[0] == (0, size):
        return "every byte is zero", "zeros", 0
    said = ", ".join(f"{at:,} to {at + count - 1:,}" for at, count in runs[:_RUNS])
    more = f" and {len(runs) - _RUNS} more" if len(runs) > _RUNS else ""
    return f"blocks of zeros: bytes {said}{more}", "edited" if touched else "zeros", runs[0][0]


def _byte(pieces: Iterator[bytes], wanted: int) -> int:
    at = 0
    for piece in pieces:
        if wanted < at + len(piece):
            return piece[wanted - at]
        at += len(piece)
    return 0


def size(expected: int, found: int, *, fits: bool) -> tuple[str, Cause, int]:
    """Say of a file of another size what became of it; `fits` says that what is there is where the recorded one began.

    Whether it is can be known only by whoever has the right one (`--from`); the shorter one is taken for cut.
    """
    if not found:
        return f"empty: all {expected:,} bytes are lost", "emptied", 0
    if found < expected:
        if found % 512 == 0 or fits:
            return f"ends {expected - found:,} bytes early, at byte {found:,}", "cut", found
        return f"{expected - found:,} bytes fewer", "edited", -1
    return f"{found - expected:,} bytes more", "edited", -1


def rights(kind: Kind, found: str, mode: int, found_mode: int) -> Cause:
    """Give the cause of what is no content: `mode` the recorded one, `found_mode` the one on disk, `found` in words."""
    lost = kind in {"xattr", "capability"} and found == "none"
    if lost or kind in {"whiteout lost", "opaque lost", "owner", "device"}:
        return "copied"
    if kind == "mode":
        return "planted" if found_mode & _SET_ID & ~mode else "rights"
    return "planted" if kind == "capability" else ""


def grave(kind: Kind, path: str, mode: int, found_mode: int = 0) -> bool:
    """Whether it may be somebody's doing to what runs: a program changed or planted, or a right that makes root.

    `path` is relative to the layer; `mode` the recorded one with its type, `found_mode` the one on disk, 0 for unknown.
    """
    if found_mode & _SET_ID & ~mode:
        return True
    if kind in {"content", "size"}:
        return mode & _FORMAT in {0, _FILE} and bool(mode & _ANY_EXECUTE)
    if kind == "added":
        runs = found_mode & _FORMAT in {0, _FILE, 0o120000} and bool(found_mode & _ANY_EXECUTE)
        return runs and path.lstrip("/").startswith(PROGRAMS)
    return False
