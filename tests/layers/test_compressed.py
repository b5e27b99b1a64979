"""Streams that are compressed: unpacked in pieces, hashed on both sides, and damaged ones are told."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.layers.bytewise import Bytewise
from doctor.layers.compressed import CannotUnpack, NoDecompressor, Unpacked, kind_of


def unpacked(data: bytes, pieces: int = 1 << 18) -> tuple[bytes, Unpacked]:
    """All that comes out."""
    source = io.BytesIO(data)
    stream = Unpacked(lambda count: source.read(min(count, pieces)))
    return b"".join(iter(lambda: stream.read(777), b"")), stream


@given(data=st.binary(max_size=3000), parts=st.integers(1, 4), pieces=st.integers(1, 900), packed=st.booleans())
def test_what_went_in_comes_out(data: bytes, parts: int, pieces: int, *, packed: bool) -> None:
    """Members of gzip, however the bytes come."""
    step = max(1, len(data) // parts)
    whole = (
        b"".join(gzip.compress(data[at : at + step]) for at in range(0, max(len(data), 1), step)) if packed else data
    )
    if kind_of(whole) and not packed:
        return
    found, stream = unpacked(whole, pieces)
    assert found == data
    assert stream.packed.digest() == sha256(whole).digest()
    assert stream.digest.digest() == sha256(data).digest()
    assert (stream.taken, stream.given) == (len(whole), len(data))


def test_zstd_where_python_has_it() -> None:
    """From 3.14 on, or with the package that brings it to older ones; else the reader is told how to get it."""
    magic = b"\x28\xb5\x2f\xfd"
    assert kind_of(magic) == "zstd"
    try:
        from backports import zstd
    except ImportError:
        try:
            from compression import zstd  # type: ignore[no-redef]
        except ImportError:
            with pytest.raises(NoDecompressor, match="pip install"):
                unpacked(magic)
            return
    data = bytes(5_000_000) + b"end"
    found, stream = unpacked(zstd.compress(data[:1000]) + zstd.compress(data[1000:]))
    assert found == data
    assert stream.kind == "zstd"
    with pytest.raises(CannotUnpack):
        unpacked(zstd.compress(data)[:-5])


def test_damaged_data_is_told_and_hashed_to_its_end() -> None:
    """The digest of a blob is of all its bytes, wherever it breaks."""
    data = bytearray(gzip.compress(bytes(range(256)) * 400))
    data[200] ^= 0xFF
    source = io.BytesIO(bytes(data))
    stream = Unpacked(source.read)
    with pytest.raises(CannotUnpack, match="damaged"):
        stream.finish()
    stream.finish_input()
    assert stream.packed.digest() == sha256(data).digest()


@pytest.mark.parametrize("cut", [3, 30, -1])
def test_data_that_ends_early_is_told(cut: int) -> None:
    """In the head, in the middle, in the checksum at the end."""
    with pytest.raises(CannotUnpack, match="ends early"):
        unpacked(gzip.compress(bytes(range(256)))[:cut])


def test_other_compressions_are_named() -> None:
    """bzip2 was allowed once."""
    with pytest.raises(NoDecompressor, match="bzip2"):
        unpacked(bz2.compress(b"x"))


def test_zlib_without_a_head_is_no_compression() -> None:
    """Only what begins as gzip is gzip."""
    data = zlib.compress(b"x")
    assert unpacked(data)[0] == data


@given(
    data=st.binary(min_size=1, max_size=2000),
    changes=st.lists(st.tuples(st.integers(0, 1999), st.integers(1, 255)), max_size=4),
    piece=st.integers(1, 700),
    length=st.integers(-50, 50),
)
def test_bytes_that_differ_are_counted(data: bytes, changes: list[tuple[int, int]], piece: int, length: int) -> None:
    """First, last and how many, however the pieces are cut."""
    other = bytearray(data)
    for at, mask in changes:
        other[at % len(data)] ^= mask
    found = bytes(other[: len(data) + min(length, 0)]) + bytes(max(length, 0))
    compared = Bytewise()
    for at in range(0, max(len(data), len(found)), piece):
        compared.feed(data[at : at + piece], found[at : at + piece])
    wrong = [at for at, (one, two) in enumerate(zip(data, found, strict=False)) if one != two]
    assert compared.count == len(wrong)
    assert (compared.first, compared.last) == ((wrong[0], wrong[-1]) if wrong else (-1, -1))
    assert bool(compared) == (data != found)
    if data != found:
        assert compared.offset == (wrong[0] if wrong else min(len(data), len(found)))


def patterns(expected: bytes, found: bytes) -> tuple[str, str]:
    """What is said of two."""
    compared = Bytewise()
    compared.feed(expected, found)
    return compared.pattern()


def test_patterns() -> None:
    """One flipped bit, zeros, a file that ends early, one that is empty, one that was edited."""
    data = bytes(range(1, 201)) * 100
    flipped = data[:3000] + bytes([data[3000] ^ 0x10]) + data[3001:]
    assert patterns(data, flipped) == ("one flipped bit: byte 3,000, 0x11 where 0x01 belongs", "bit")
    assert patterns(data, data[:4096] + bytes(4096) + data[8192:]) == ("zeros from byte 4,096 to 8,191", "zeros")
    assert patterns(data, data[:512]) == ("it ends at byte 512", "cut")
    assert patterns(data, b"") == ("it is empty", "emptied")
    assert patterns(data, data + b"1")[1] == "edited"
    assert patterns(data, data[:100] + b"\xff\xfe" + data[102:])[1] == "bits"
    assert patterns(data, data[:100] + bytes(reversed(data[100:900])) + data[900:])[1] == "edited"
