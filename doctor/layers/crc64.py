"""CRC-64/ISO, the checksum that tar-split keeps of each file, and where one flipped bit is by the difference of two.

Polynomial x^64 + x^4 + x^3 + x + 1, bits reflected, all ones before and after (Go `hash/crc64`, `crc64.ISO`). `fastcrc`
(the extra `layers`) computes it with the processor's carry-less multiplication; without it, our own way is
a few shifts of large integers: since x^64 = x^4 + x^3 + x + 1, and squaring is linear, x^(64 s) = x^(4 s) + x^(3 s) +
x^s + 1 for each power of two s, so that half of all bits are folded onto the rest in one step.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_fast: Any = None
with suppress(ImportError):
    from fastcrc import crc64 as _fast

POLYNOMIAL = 0xD800000000000000
_ONES = (1 << 64) - 1
_ONE = 1 << 63
"""x^0: the highest bit stands for the lowest power."""
_CHUNK = 1 << 16
_STRIDE = 1 << 16
"""Baby steps that are kept at most: 8 MB of them; beyond 512 MiB of file the giant steps grow."""


def own(data: bytes | memoryview, crc: int = 0) -> int:
    """Compute it of data, or go on from the checksum of what came before.

    >>> hex(own(b"123456789"))
    '0xb90956c775a41001'
    """
    for at in range(0, len(data), _CHUNK):
        crc = _of_chunk(data[at : at + _CHUNK], crc)
    return crc


def _of_chunk(data: bytes | memoryview, crc: int) -> int:
    held = int.from_bytes(data, "little") ^ crc ^ _ONES
    bits = 8 * len(data) + 64  # 64 zeros behind the data make room for the rest
    step = 1
    while 256 * step <= bits:
        step *= 2
    while step:
        while bits >= 128 * step:
            low = held & ((1 << (64 * step)) - 1)
            held >>= 64 * step
            held = (held ^ low) << (4 * step) ^ low ^ low << step ^ low << (3 * step)
            bits -= 60 * step
        step //= 2
    for _ in range(bits - 64):
        held = held >> 1 ^ POLYNOMIAL if held & 1 else held >> 1
    return held ^ _ONES


crc64: Callable[..., int] = own if _fast is None else _fast.go_iso
"""`crc64(data, crc=0)`: the fastest there is here."""
FAST = _fast is not None


def _times_x(value: int) -> int:
    return value >> 1 ^ POLYNOMIAL if value & 1 else value >> 1


def _over_x(value: int) -> int:
    return ((value ^ POLYNOMIAL) << 1 | 1) if value & _ONE else value << 1


def _multiplier(by: int) -> Callable[[int], int]:
    """Give the function that multiplies by a constant: eight look-ups, since multiplication is linear."""
    powers = [by]  # by times x^i
    for _ in range(63):
        powers.append(_times_x(powers[-1]))
    tables = []
    for byte in range(8):
        table = [0] * 256
        for bit in range(8):
            power = powers[63 - (8 * byte + bit)]
            for low in range(1 << bit):
                table[(1 << bit) | low] = table[low] ^ power
        tables.append(table)
    first, second, third, fourth, fifth, sixth, seventh, eighth = tables

    def multiply(value: int) -> int:
        return (
            first[value & 255]
            ^ second[value >> 8 & 255]
            ^ third[value >> 16 & 255]
            ^ fourth[value >> 24 & 255]
            ^ fifth[value >> 32 & 255]
            ^ sixth[value >> 40 & 255]
            ^ seventh[value >> 48 & 255]
            ^ eighth[value >> 56]
        )

    return multiply


def flipped_bit(expected: int, found: int, size: int) -> tuple[int, int] | None:
    """Give the byte, and the bit in it as a mask, whose flip alone takes one checksum to the other; None where none does.

    The flip of one bit of a file of `size` bytes changes its checksum by x^k, where k counts the bits behind it, whatever
    else is in the file. k is found among n = 8 size by baby steps and giant steps, in the order of the root of n. The
    polynomial is primitive, so there is one k at most; that a damage of another kind has one by chance is n in 2^64.
    """
    wanted = expected ^ found
    bits = 8 * size
    if not wanted or not bits:
        return None
    for _ in range(64):
        wanted = _over_x(wanted)
    stride = 1
    while stride * stride < bits and stride < _STRIDE:
        stride *= 2
    steps = {}
    value = _ONE
    for number in range(stride):
        steps[value] = number
        value = _times_x(value)
    back = _ONE
    for _ in range(stride):
        back = _over_x(back)
    multiply = _multiplier(back)
    for turn in range(-(-bits // stride)):
        number = steps.get(wanted, -1)
        if number >= 0:
            place = bits - 1 - (turn * stride + number)
            return (place // 8, 1 << place % 8) if place >= 0 else None
        wanted = multiply(wanted)
    return None
