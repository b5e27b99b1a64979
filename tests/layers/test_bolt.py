"""bbolt databases: what was written is read, what is damaged or written meanwhile is told, nothing hangs."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.layers import bolt
from tests.layers.boltfile import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.layers.boltfile import Held

HELD = st.recursive(
    st.dictionaries(st.binary(min_size=1, max_size=12), st.binary(max_size=60), max_size=9),
    lambda inner: st.dictionaries(st.binary(min_size=1, max_size=12), st.binary(max_size=60) | inner, max_size=9),
    max_leaves=12,
)


def everything(bucket: bolt.Bucket) -> Held:
    """All of a bucket, as it was written."""
    return {key: everything(value) if isinstance(value, bolt.Bucket) else value for key, value in bucket.items()}


def kept(folder: Path, data: bytes) -> str:
    """A file with these bytes."""
    file = folder / "some.db"
    file.write_bytes(data)
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a test."""
    return tmp_path_factory.mktemp("bolt")


@given(
    held=HELD,
    size=st.sampled_from([1024, 4096, 16384]),
    inline=st.sampled_from([0, 200, 1024]),
    order=st.sampled_from("<>"),
    fill=st.integers(2, 5),
)
def test_what_was_written_is_read(folder: Path, held: Held, size: int, inline: int, order: str, fill: int) -> None:
    """Inline buckets, branches, page sizes and both byte orders."""
    data = Writer(size, inline, order, fill=fill).file(held)
    assert bolt.read(kept(folder, data), everything) == held


@settings(max_examples=min(60, settings.default.max_examples))
@given(held=HELD, data=st.data())
def test_a_damaged_file_is_damaged_or_reads_on(folder: Path, held: Held, data: st.DataObject) -> None:
    """Bytes changed, pages swapped, ends cut: an answer or `Damaged`, and no other exception, and soon."""
    whole = bytearray(Writer(1024, 200).file(held))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for file in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(bolt.Damaged):
            bolt.read(kept(folder, file), everything)


def test_a_large_value_runs_over(tmp_path: Path) -> None:
    """A value larger than a page stands in several."""
    held: Held = {b"big": b"x" * 50_000, b"small": b"1"}
    assert bolt.read(kept(tmp_path, Writer().file(held)), everything) == held


def test_the_newer_meta_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    """As bbolt does after a crash in the middle of a commit."""
    writer = Writer()
    old = struct.unpack("<QQ", writer.bucket({b"a": b"old"}, root=True))[0]
    new = struct.unpack("<QQ", writer.bucket({b"a": b"new"}, root=True))[0]
    writer.pages[0], writer.pages[1] = writer.meta(0, old, 4), writer.meta(1, new, 5)
    data = b"".join(writer.pages)
    assert bolt.read(kept(tmp_path, data), everything) == {b"a": b"new"}
    torn = bytearray(data)
    torn[4096 + 16 + 40] ^= 1
    assert bolt.read(kept(tmp_path, bytes(torn)), everything) == {b"a": b"old"}
    torn[16 + 40] ^= 1
    with pytest.raises(bolt.Damaged, match="neither meta page"):
        bolt.read(kept(tmp_path, bytes(torn)), everything)


def test_the_first_meta_may_be_gone_whole(tmp_path: Path) -> None:
    """Then nothing says how large pages are: every size is tried."""
    for size in (1024, 4096, 16384, 65536):
        data = Writer(size).file({b"a": b"1"}, transaction=9)
        assert bolt.read(kept(tmp_path, bytes(size) + data[size:]), everything) == {b"a": b"1"}


def test_cycles_end(tmp_path: Path) -> None:
    """A branch that names itself."""
    writer = Writer(1024)
    own = len(writer.pages)
    writer._append(1, 1, writer.branch([(b"a", own)]))
    writer.pages[0], writer.pages[1] = writer.meta(0, own, 4), writer.meta(1, own, 5)
    with pytest.raises(bolt.Damaged, match="below itself"):
        bolt.read(kept(tmp_path, b"".join(writer.pages)), everything)


def test_a_bucket_that_holds_itself_ends(tmp_path: Path) -> None:
    """The same with buckets."""
    writer = Writer(1024)
    own = len(writer.pages)
    writer._append(2, 1, writer.leaf([(b"a", 1, struct.pack("<QQ", own, 0))]))
    writer.pages[0], writer.pages[1] = writer.meta(0, own, 4), writer.meta(1, own, 5)
    with pytest.raises(bolt.Damaged, match="without an end"):
        bolt.read(kept(tmp_path, b"".join(writer.pages)), everything)


def test_pages_that_are_shared_do_not_multiply(tmp_path: Path) -> None:
    """Twelve levels of buckets, each a hundred times the one below: a thousand pages would be read 10^24 times."""
    writer = Writer(4096)
    value = struct.pack("<QQ", writer._append(2, 1, writer.leaf([(b"a", 0, b"1")])), 0)
    for _ in range(12):
        body = writer.leaf([(b"%03d" % at, 1, value) for at in range(100)])
        own = writer._append(2, 100, body)
        value = struct.pack("<QQ", own, 0)
    writer.pages[0], writer.pages[1] = writer.meta(0, own, 4), writer.meta(1, own, 5)
    with pytest.raises(bolt.Damaged, match="again and again"):
        bolt.read(kept(tmp_path, b"".join(writer.pages)), everything)


def test_what_is_written_meanwhile_is_read_again(tmp_path: Path) -> None:
    """The writer comes between: pages of the transaction that was read may be others by now."""
    path = kept(tmp_path, Writer().file({b"a": b"1"}, transaction=9))
    seen = []

    def look(root: bolt.Bucket) -> Held:
        held = everything(root)
        seen.append(held)
        if len(seen) < 3:
            kept(tmp_path, Writer().file({b"a": b"%d" % (len(seen) + 1)}, transaction=9 + len(seen)))
        return held

    assert bolt.read(path, look) == {b"a": b"3"}
    assert len(seen) == 3


def test_written_again_and_again_is_in_use(tmp_path: Path) -> None:
    """Whoever writes without a pause cannot be read."""
    path = kept(tmp_path, Writer().file({b"a": b"1"}, transaction=9))
    number = iter(range(10, 1000))

    def look(_: bolt.Bucket) -> None:
        kept(tmp_path, Writer().file({b"a": b"1"}, transaction=next(number)))

    with pytest.raises(bolt.InUse):
        bolt.read(path, look)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO would wait for its writer, a link may lead anywhere."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(bolt.Damaged, match="no regular file"):
        bolt.read(str(tmp_path / "fifo"), everything)
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic"):
        bolt.read(str(tmp_path / "link"), everything)


def test_numbers_of_go() -> None:
    """As encoding/binary prints them."""
    assert [bolt.varint(data) for data in (b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02")] == [0, 127, 128, 300]
    assert [bolt.signed_varint(data) for data in (b"\x00", b"\x01", b"\xc8\x0b")] == [0, -1, 740]
    for data in (b"", b"\x80", b"\xff" * 11):
        with pytest.raises(bolt.Damaged):
            bolt.varint(data)
