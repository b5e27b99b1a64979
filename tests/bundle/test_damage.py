"""What is left of a bundle that was cut or altered on its way: whole pieces, and a line that says what is missing."""

from __future__ import annotations

import random

import pytest

from doctor.bundle import MANIFEST, BundleError, pack
from doctor.snapshot import Record, Snapshot
from tests.bundle.samples import SMALL, archive, bundle, entry, gunzip, manifest, pack_gzip, snapshot, unpack

CHANCE = random.Random(7)  # noqa: S311 - the same in every run
MANY = snapshot(
    *(
        Record(f"files/{number}", "file", f"/{number}", data=CHANCE.randbytes(500))
        if number % 4
        else Record(f"files/{number}", "file", f"/{number}", status="absent", why="no such file or directory")
        for number in range(214)
    )
)
PACKED = pack(MANY)


def told(made: Snapshot) -> str:
    """Give the damage without the path."""
    path, _, text = made.damage.partition(": ")
    assert path.startswith("/proc/self/fd/")
    return text


def agree(made: Snapshot, whole: Snapshot) -> int:
    """Compare what is left with what was; give how many pieces are whole. None may be altered and called whole."""
    assert made.meta == whole.meta
    assert made.removed == whole.removed
    assert list(made.records) == list(whole.records)
    left = 0
    for name, record in made.records.items():
        if record == whole.records[name]:
            left += 1
            continue
        assert record.data == b""
        assert (record.status, record.why) in {
            ("not-run", "the bundle ends before it"),
            ("not-run", "the bundle does not hold it"),
            ("failed", "damaged in the bundle: digest differs"),
        }
        assert made.damage
    return left


def test_truncated() -> None:
    """The line of `sessions.md`, with the size that `ls -l` shows."""
    at = 61_440
    assert at < len(PACKED)
    back = unpack(PACKED[:at])
    left = agree(back, MANY)
    assert 100 < left < 200
    assert told(back) == (
        f"truncated after 61,440 bytes (gzip ends early): {left} of 214 pieces could be read; went on with those"
    )
    last = back.records["files/213"]
    assert (last.status, last.why, last.data) == ("not-run", "the bundle ends before it", b"")
    assert back.records["files/212"].status == "absent"


def test_truncated_in_the_manifest() -> None:
    """Without the manifest there is nothing to go on with."""
    with pytest.raises(
        BundleError, match=r"truncated after 400 bytes \(gzip ends early\): nothing of it could be read"
    ):
        unpack(PACKED[:400])
    with pytest.raises(BundleError, match=r"truncated after 900 bytes \(the archive ends early\): nothing of it"):
        unpack(gunzip(PACKED)[:900])


def test_only_the_end_is_missing() -> None:
    """All pieces are there, and that the end is not is said all the same."""
    plain = gunzip(PACKED)
    for data, why in (
        (PACKED[:-8], "gzip"),
        (PACKED[:-1], "gzip"),
        (plain[:-1], "the archive"),
        (plain[:-1024], "the archive"),
    ):
        back = unpack(data)
        assert agree(back, MANY) == 214
        assert told(back) == (
            f"truncated after {len(data):,} bytes ({why} ends early): 214 of 214 pieces could be read; went on with those"
        )


def test_cut_between_two_members() -> None:
    """A tar that lost its tail at a border of members looks whole and is not."""
    data = bundle(("a", b"1"), ("b", b"2"))
    data = data[: data.index(b"b" + bytes(99))]
    back = unpack(pack_gzip(data))
    assert told(back) == (
        f"truncated after {len(pack_gzip(data))} bytes (the archive ends early):"
        " 1 of 2 pieces could be read; went on with those"
    )


def test_gzip_is_damaged_at_its_end() -> None:
    """A wrong checksum alone: every piece has its own."""
    for place in (-8, -1):
        data = bytearray(PACKED)
        data[place] ^= 1
        back = unpack(bytes(data))
        assert agree(back, MANY) == 214
        assert told(back).endswith("(gzip cannot be unpacked): 214 of 214 pieces could be read; went on with those")


def test_gzip_is_damaged_in_the_middle() -> None:
    """What comes before the damage is kept, to the last piece."""
    whole = unpack(PACKED[:60_000])
    data = bytearray(PACKED)
    data[60_000:60_100] = bytes(100)
    back = unpack(bytes(data))
    assert agree(back, MANY) >= agree(whole, MANY) - 1
    assert told(back).startswith("damaged at byte 60,")


def test_one_piece_is_altered() -> None:
    """It is dropped, by name; the others stand."""
    data = bytearray(gunzip(PACKED))
    data[data.index(MANY.records["files/5"].data) + 100] ^= 0x10
    back = unpack(pack_gzip(bytes(data)))
    assert agree(back, MANY) == 213
    assert back.records["files/5"] == Record(
        "files/5", "file", "/5", "failed", b"", "damaged in the bundle: digest differs"
    )
    assert told(back) == "damaged: 1 of 214 pieces are not what was written (files/5); went on with the rest"


def test_many_pieces_are_altered() -> None:
    """Three are named; names cannot paint."""
    names = ("\x1b[31m", "b", "c", "d", "e")
    head = manifest(*(entry(name, b"1", member=f"m{name[-1]}") for name in names))
    back = unpack(archive((MANIFEST, head), *((f"m{name[-1]}", b"2") for name in names)))
    assert told(back) == (
        r"damaged: 5 of 5 pieces are not what was written (\x1b[31m, b, c and 2 more); went on with the rest"
    )


def test_a_piece_is_not_there() -> None:
    """An archive that is whole without a member that its manifest names."""
    back = unpack(archive((MANIFEST, manifest(entry("a", b"1"), entry("b", b"2"))), ("b", b"2")))
    assert (back.get("a").status, back.get("a").why) == ("not-run", "the bundle does not hold it")
    assert back.get("b").data == b"2"
    assert told(back) == "damaged: 1 of 2 pieces are not what was written (a); went on with the rest"


def test_no_digest_is_a_wrong_digest() -> None:
    """What cannot be compared is not taken."""
    back = unpack(archive((MANIFEST, manifest(entry("a", b"1", stored=""))), ("a", b"1")))
    assert (back.get("a").status, back.get("a").data) == ("failed", b"")


def test_a_header_is_damaged() -> None:
    """Behind a header that cannot be trusted nothing is read."""
    data = bytearray(bundle(("a", b"1"), ("b", b"2"), ("c", b"3")))
    at = data.index(b"b" + bytes(99))
    data[at + 130] ^= 1
    back = unpack(bytes(data))
    assert [one.status for one in back.records.values()] == ["ok", "not-run", "not-run"]
    assert told(back) == (f"damaged at byte {at:,} of the archive: 1 of 3 pieces could be read; went on with those")


def test_the_manifest_is_altered() -> None:
    """It has a digest of its own: no status, name or reason changes unseen, not even in a plain tar."""
    data = gunzip(pack(SMALL)).replace(b'"why":"nft is not', b'"why":"nft is now', 1)
    with pytest.raises(BundleError, match=r"manifest\.json: it is not what was written: digest differs"):
        unpack(data)


def test_every_cut() -> None:
    """At every single byte (of a plain tar, every 7th): refused, or what is left is whole and the damage is told."""
    for data, step in ((pack(SMALL), 1), (gunzip(pack(SMALL)), 7)):
        lefts: list[int] = []
        for at in range(0, len(data), step):
            try:
                back = unpack(data[:at])
            except BundleError as error:
                assert str(error).isprintable()  # noqa: PT017 - most of the cuts raise nothing
                assert not lefts
                continue
            assert back.damage.isprintable()
            assert "truncated after" in back.damage
            lefts.append(agree(back, SMALL))
        assert lefts == sorted(lefts)
        assert lefts[-1] == len(SMALL.records)


@pytest.mark.parametrize("mask", [0x01, *(pytest.param(mask, marks=pytest.mark.slow) for mask in (0x80, 0xFF))])
def test_every_flip(mask: int) -> None:
    """At every single byte (of a plain tar, every 5th): refused, or what differs is dropped and the damage is told."""
    tiny = snapshot(*list(SMALL.records.values())[:3])
    for data, step in ((pack(tiny), 1), (gunzip(pack(tiny)), 5)):
        for at in range(mask % step, len(data), step):
            flipped = bytearray(data)
            flipped[at] ^= mask
            try:
                back = unpack(bytes(flipped))
            except BundleError as error:
                assert str(error).isprintable()  # noqa: PT017 - some flips raise nothing
                continue
            agree(back, tiny)
