"""Bombs stop at the limits, in memory and in time, and a bundle of a common size is read and written in no time.

Memory is what Python allocates beside the archive itself. Times are of this thread's processor, so that a busy machine
does not matter; they are ratios to what zlib and SHA-256 alone need for the same bytes.
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from doctor.bundle import MANIFEST, BundleError, pack, read
from doctor.bundle import archive as archive_module
from doctor.snapshot import Record, Snapshot
from tests.bundle.samples import archive, entry, gunzip, info, manifest, pack_gzip, snapshot, unpack, zeros

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


def peak(path: Path, words: str) -> int:
    """Read what is refused; give how much memory it took."""
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as raised:
            read(str(path))
        assert str(raised.value) == f"{path}: {words}"
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def head(name: str, size: int) -> bytes:
    """Give the header of a member."""
    return archive(info(name, size=size))[:512]


def test_a_member_that_says_too_much(tmp_path: Path) -> None:
    """It is refused by its header."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(zeros(1024, head(MANIFEST, 1 << 30)))
    assert path.stat().st_size < 2 * MIB
    assert peak(path, "refused: member manifest.json is larger than 32 MiB") < MIB
    first = archive((MANIFEST, manifest(entry("a", b"1"))))[:1024]
    path.write_bytes(zeros(1024, first + head("a", 1 << 30)))
    assert peak(path, "refused: member a is larger than 64 MiB") < MIB


@pytest.mark.slow
def test_many_members_that_are_too_much(tmp_path: Path) -> None:
    """Each is allowed, all of them are not."""
    names = ["a", "b", "c", "d", "e"]
    text = manifest(*(entry(name, b"", stored="0" * 64) for name in names))
    bomb = zeros(0, archive((MANIFEST, text))[: 512 + len(text) + -len(text) % 512])
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    for name in names:
        bomb += packer.compress(head(name, 64 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH) + one * 64
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(bomb)
    began = time.thread_time()
    assert peak(path, "refused: it unpacks to more than 256 MiB") < (256 + 130) * MIB
    assert time.thread_time() - began < 10


def test_behind_the_end(tmp_path: Path) -> None:
    """A bomb behind a right bundle is not kept, only counted."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(zeros(300, gunzip(pack(snapshot()))))
    assert peak(path, "refused: it unpacks to more than 256 MiB") < 2 * MIB


@pytest.mark.parametrize(
    "start",
    [
        b"\x1f\x8b\x08\x08" + bytes(6) + b"name",  # a name without an end
        b"\x1f\x8b\x08\x00" + bytes(6),  # blocks that hold nothing
    ],
    ids=["name", "blocks"],
)
def test_gzip_that_unpacks_to_nothing(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless standard input has an end."""
    monkeypatch.setattr(archive_module, "TOTAL", MIB)
    with pytest.raises(BundleError, match="refused: it is larger than 1 MiB"):
        unpack(start + (b"n" if b"name" in start else b"\0\0\0\xff\xff") * 2 * MIB)


def test_endless_zeros(tmp_path: Path) -> None:
    """A sparse file of a terabyte is no bundle at its first block, and no larger than one behind its end."""
    path = tmp_path / "x.tar"
    path.touch()
    os.truncate(path, 1 << 40)
    assert peak(path, "not a bundle of doctor: it has no manifest.json. `doctor collect` makes one") < MIB
    path.write_bytes(gunzip(pack(snapshot())))
    os.truncate(path, 1 << 40)
    assert peak(path, "refused: it is larger than 256 MiB") < 2 * MIB


@pytest.mark.slow
def test_manifests_that_swell(tmp_path: Path) -> None:
    """JSON that would be much larger as objects."""
    path = tmp_path / "bomb.tar.gz"
    mass = 30 * MIB
    text = manifest()
    for place, piece, words in (
        (b'"records":[', b"{}", "refused: manifest.json names more than 200,000 records"),
        (b'"removed":{', b'"a":1', "manifest.json: too many kinds of secrets"),
        (
            b'"records":[',
            b'"' + b"\xf0\x9f\x90\xb3" * 1000 + b'"',
            "manifest.json: expected `object`, got `str` - at `$.records[0]`",
        ),
    ):
        swollen = text.replace(place, place + (piece + b",") * (mass // (len(piece) + 1)) + piece, 1)
        path.write_bytes(pack_gzip(archive((MANIFEST, swollen))))
        assert peak(path, words) < 256 * MIB


def test_damage_does_not_swell(tmp_path: Path) -> None:
    """What is unpacked byte by byte before the damage is bounded too."""
    bomb = zeros(63, archive((MANIFEST, manifest(entry("a", b"1"))))[:1024] + head("a", 64 * MIB))
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(bomb + b"\xff" * 100)
    tracemalloc.start()
    try:
        damage = read(str(path)).damage
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "damaged at byte" in damage
    assert most < 100 * MIB


def large(total: int, count: int) -> Snapshot:
    """Make a snapshot of text like a host's: words and numbers that come again, at other places."""
    chance = random.Random(3)  # noqa: S311 - the same in every run
    words = [f"{chance.getrandbits(48):x}" for _ in range(4000)] + [
        "-A",
        "FORWARD",
        "-j",
        "ACCEPT",
        '"Id":',
        "\n",
        "{",
        "}",
    ] * 300
    made = []
    for number in range(count):
        text = " ".join(chance.choices(words, k=total // count // 8)).encode()
        made.append(
            Record(f"netns/{chance.getrandbits(32)}/{number}", "netns", "links", data=text, ms=1.25, size=len(text))
        )
    return snapshot(*made)


def ratio(run: Callable[[], object], to: Callable[[], object]) -> float:
    """Give how many times longer one takes than the other: the shortest of a few runs each, by this thread's processor time.

    They take turns, so that neither has the quieter moments.
    """
    times: list[list[float]] = [[], []]
    for _ in range(9):
        for spent, work in zip(times, (run, to), strict=True):
            began = time.thread_time()
            work()
            spent.append(time.thread_time() - began)
    return min(times[0]) / min(times[1])


@pytest.mark.slow
def test_reading_is_quick(tmp_path: Path) -> None:
    """400 records and 1.5 MB: a few times what zlib and SHA-256 need for the same bytes."""
    made = large(1_500_000, 400)
    packed = pack(made)
    path = tmp_path / "us1.tar.gz"
    path.write_bytes(packed)

    def least() -> None:
        zlib.decompress(packed, 31)
        for record in made.records.values():
            sha256(record.data).digest()

    assert ratio(lambda: read(str(path)), least) < 4


@pytest.mark.slow
def test_writing_is_quick() -> None:
    """500 records and 3 MB: little more than zlib needs at the fastest of the usual levels."""
    made = large(3_000_000, 500)
    whole = gunzip(pack(made))
    assert ratio(lambda: pack(made), lambda: zlib.compress(whole, 6)) < 1.5
