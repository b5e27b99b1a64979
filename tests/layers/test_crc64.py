"""CRC-64/ISO: our own way, the fast one and the definition agree; one flipped bit is found from two checksums alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.layers.crc64 import POLYNOMIAL, crc64, flipped_bit, own

_ONES = (1 << 64) - 1


def defined(data: bytes) -> int:
    """Compute it bit by bit, as the definition has it."""
    crc = _ONES
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ POLYNOMIAL if crc & 1 else crc >> 1
    return crc ^ _ONES


def test_the_check_value_is_that_of_the_catalogue() -> None:
    """CRC-64/GO-ISO of 123456789."""
    assert own(b"123456789") == crc64(b"123456789") == 0xB90956C775A41001


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_all_ways_agree_and_go_on(first: bytes, second: bytes) -> None:
    """In one piece or in two."""
    assert defined(first + second) == own(first + second) == own(second, own(first)) == crc64(second, crc64(first))


@given(st.binary(min_size=1, max_size=70_000), st.data())
def test_a_flipped_bit_is_found_without_the_file(data: bytes, draw: st.DataObject) -> None:
    """From both checksums and the size."""
    at = draw.draw(st.integers(0, len(data) - 1))
    mask = 1 << draw.draw(st.integers(0, 7))
    other = bytearray(data)
    other[at] ^= mask
    assert flipped_bit(crc64(data), crc64(bytes(other)), len(data)) == (at, mask)


@given(st.integers(0, _ONES), st.integers(0, _ONES), st.integers(0, 10_000))
def test_no_bit_is_named_for_another_damage(first: int, second: int, size: int) -> None:
    """By chance it would be one in 10^14."""
    assert flipped_bit(first, second, size) is None


@pytest.mark.slow
def test_the_place_is_found_in_a_file_of_gigabytes() -> None:
    """The first bit of 8 GiB of zeros: x^k is computed by squaring, nobody reads so much."""
    size = 1 << 33
    power, base, left = 1 << 63, 1 << 62, 8 * size - 1 + 64
    while left:
        if left & 1:
            power = _times(power, base)
        base = _times(base, base)
        left >>= 1
    assert flipped_bit(0, power, size) == (0, 1)


def _times(one: int, other: int) -> int:
    total = 0
    for bit in range(63, -1, -1):
        if other >> bit & 1:
            total ^= one
        one = one >> 1 ^ POLYNOMIAL if one & 1 else one >> 1
    return total
