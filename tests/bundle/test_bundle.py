"""A bundle is what its host was, and hostile input: cut, flipped, lying, or no bundle at all."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor import bundle
from doctor.bundle import BundleError, pack, read, write
from doctor.snapshot import Meta, Record, Snapshot

META = Meta("1.0", "us1", "6.1.0", "x86_64", 1795520335.25, 3600, 0, "root", 0.5)
DATA = Path(__file__).parent / "data"

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=120)
records = st.builds(
    Record,
    name=names,
    kind=st.sampled_from(("file", "tree", "command", "api", "netns", "kernel")),
    target=names,
    status=st.sampled_from(("ok", "absent", "denied", "timeout", "truncated", "failed", "not-run")),
    data=st.binary(max_size=2000),
    why=st.text(st.characters(exclude_categories=("Cs",)), max_size=50),
    errno=st.integers(0, 133),
    ms=st.integers(0, 10**6).map(lambda number: number / 1000),
    size=st.integers(0, 2**40),
    mtime=st.integers(0, 2**33).map(float),
    redactions=st.integers(0, 100),
)


def snapshot(held: list[Record]) -> Snapshot:
    """Make a snapshot of records."""
    return Snapshot(META, {one.name: one for one in held}, {"environment": 3})


def unpack(data: bytes, folder: Path) -> Snapshot:
    """Read a bundle from its bytes."""
    path = folder / "b.tar.gz"
    path.write_bytes(data)
    return read(str(path))


SMALL = snapshot(
    [
        Record("files/etc/docker/daemon.json", "file", "/etc/docker/daemon.json", data=b'{"debug": true}\n', size=16),
        Record("api/version", "api", "/version", data=os.urandom(3000), size=3000),
        Record("net/nft", "command", "nft", status="absent", why="nft is not installed"),
        Record("api/info", "api", "/info", data=b"x" * 5000, size=5000),
    ]
)


@given(st.lists(records, max_size=8))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, held: list[Record]) -> None:
    """What is written is what is read, in every field, and the digest of the evidence is the same."""
    made = snapshot(held)
    back = unpack(pack(made), tmp_path_factory.mktemp("b"))
    assert back.bundle
    assert not back.damage
    assert back.meta == made.meta
    assert back.removed == made.removed
    assert back.records == made.records
    assert back.digest() == made.digest()
    assert pack(made) == pack(made)


@given(st.integers(0, len(pack(SMALL)) - 1))
@settings(max_examples=150, deadline=None)
def test_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    """Cut at any byte: refused, or read as far as it goes with the damage told."""
    try:
        back = unpack(pack(SMALL)[:at], tmp_path_factory.mktemp("b"))
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may also not raise
        return
    assert "pieces could be read" in back.damage or back.records == SMALL.records
    for name, record in back.records.items():
        assert record == SMALL.records[name] or record.status == "not-run"


@given(st.integers(0, len(pack(SMALL)) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_flipped_anywhere(tmp_path_factory: pytest.TempPathFactory, at: int, bits: int) -> None:
    """A byte that differs never raises anything else, and never gives altered data as whole."""
    data = bytearray(pack(SMALL))
    data[at] ^= bits
    try:
        back = unpack(bytes(data), tmp_path_factory.mktemp("b"))
    except BundleError:
        return
    for name, record in back.records.items():
        known = SMALL.records.get(name)
        if record.status == "ok" and record.data:
            assert known is not None
            assert record.data == known.data


@given(st.binary(max_size=3000))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Bytes that are no bundle are refused in one line, packed and plain."""
    for form in (data, gzip.compress(data)):
        with pytest.raises(BundleError):
            unpack(form, tmp_path_factory.mktemp("b"))


def archive(*members: tarfile.TarInfo | tuple[str, bytes], manifest: bytes | None = None) -> bytes:
    """Make a gzip'd tar with a small valid manifest in front, by the standard library."""
    inner = unpacked_manifest() if manifest is None else manifest
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for member in [("manifest.json", inner), *members]:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def unpacked_manifest() -> bytes:
    """Give the manifest of the small bundle."""
    with tarfile.open(fileobj=io.BytesIO(pack(SMALL))) as tar:
        held = tar.extractfile("manifest.json")
        assert held is not None
        return held.read()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """Make a member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


HOSTILE = {
    "leads out": archive(("../../etc/passwd", b"x")),
    "leads out of": archive(("/etc/passwd", b"x")),
    "is a link": archive(special("api/version", tarfile.SYMTYPE, "/etc/shadow")),
    "is a hard link": archive(special("api/version", tarfile.LNKTYPE, "manifest.json")),
    "is a device": archive(special("api/version", tarfile.CHRTYPE)),
    "is a FIFO": archive(special("api/version", tarfile.FIFOTYPE)),
    "is there twice": archive(("api/version", b"x"), ("api/version", b"y")),
    "not in its manifest": archive(("api/other", b"x")),
    "manifest.json: ": archive(manifest=b'{"format": 1, '),
    "upgrade doctor": archive(manifest=b'{"format": 3, "doctor": "2.1"}'),
    "manifest.json": archive(manifest=b'{"format": 1, "doctor": 5}'),
    "nested": archive(manifest=b'{"format": 1, "x": ' + b"[" * 100_000),
    "it has no manifest.json": archive(("x", b"y"), manifest=b"")[:0] or gzip.compress(b"\0" * 1024),
}


@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: words.replace(" ", "-"))
def test_hostile(words: str, tmp_path: Path) -> None:
    """Each lie is refused in one line that names the file and the lie; nothing is written."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError) as raised:
        unpack(HOSTILE[words], tmp_path)
    assert words.removesuffix(" of") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*map(str, before), "b.tar.gz"]


def test_names_are_made_printable(tmp_path: Path) -> None:
    """A member's name cannot paint the terminal."""
    with pytest.raises(BundleError) as raised:
        unpack(archive(("\x1b[31m\u202eevil", b"x")), tmp_path)
    assert "\x1b" not in str(raised.value)
    assert "\u202e" not in str(raised.value)


def test_bomb(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte is refused before it is unpacked."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    header = bundle._header("manifest.json", 1 << 30, 0)
    data = packer.compress(header) + b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(1024)) + packer.flush()
    assert len(data) < 2 << 20
    tracemalloc.start()
    with pytest.raises(BundleError, match="larger than"):
        unpack(data, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_paths(tmp_path: Path) -> None:
    """A folder, a FIFO, nothing at all, an empty file: one line each, and no wait."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    for name in ("", "fifo", "empty", "missing"):
        with pytest.raises(BundleError):
            read(str(tmp_path / name))


def test_write_is_private_and_whole(tmp_path: Path) -> None:
    """Mode 0600 from the first byte, an old file is replaced, a link is not followed, a failure leaves nothing."""
    target = tmp_path / "b.tar.gz"
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    target.symlink_to(victim)
    write(SMALL, str(target))
    assert victim.read_text(encoding="utf-8") == "precious"
    assert target.stat().st_mode & 0o777 == 0o600
    assert not target.is_symlink()
    with pytest.raises(OSError, match="No such file"):
        write(SMALL, str(tmp_path / "no" / "b.tar.gz"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "victim"]


def test_a_tar_can_read_it(tmp_path: Path) -> None:
    """Any tar lists and unpacks it: manifest first, members named as the records are."""
    write(SMALL, str(tmp_path / "b.tar.gz"))
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        assert tar.getnames()[:2] == ["manifest.json", "files/etc/docker/daemon.json"]
        assert all(member.isreg() and member.mode == 0o600 for member in tar.getmembers())


def test_every_format_for_ever() -> None:
    """The committed bundle of each format is read as it was when it was made."""
    back = read(str(DATA / "format-1.tar.gz"))
    assert not back.damage
    assert back.digest() == "5b32d05b14ea366ed55edb14e3ad7328dfa6e5a27633f134e82a3254896da452"
    assert back.meta.hostname == "us1"
    assert back.get("net/nft").status == "absent"
    assert back.get("files/etc/docker/daemon.json").text == '{"debug": true}\n'
