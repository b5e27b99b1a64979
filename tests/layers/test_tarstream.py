"""Tar archives as streams: what tarfile and tar write is read, and what somebody made up ends with a reason."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.layers.tarstream import Entry, TarDamaged, TarStream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0/"), min_size=1, max_size=60)
PATH = st.lists(NAME, min_size=1, max_size=6).map("/".join)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read_all(data: bytes, pieces: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    """Every member with its content."""
    source = io.BytesIO(data)
    stream = TarStream(lambda count: source.read(min(count, pieces)))
    found = []
    while (entry := stream.next()) is not None:
        found.append((entry, b"".join(iter(stream.chunk, b""))))
    return found


def made(members: Sequence[tuple[tarfile.TarInfo, bytes]], kind: int) -> bytes:
    """An archive of these."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@given(
    path=PATH,
    content=st.binary(max_size=3000),
    mode=st.integers(0, 0o7777),
    owner=st.integers(0, 1 << 31),
    kind=st.sampled_from(["gnu", "pax"]),
    xattr=st.binary(max_size=40),
    pieces=st.integers(1, 2000),
)
def test_a_file_is_read_as_written(
    path: str, content: bytes, mode: int, owner: int, kind: str, xattr: bytes, pieces: int
) -> None:
    """Whatever its name, owner and mode, and however the stream comes in pieces."""
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.uid, info.gid, info.mtime = len(content), mode, owner, owner // 3, 1_700_000_000
    text = xattr.decode("latin-1")
    if kind == "pax":
        info.pax_headers = {"SCHILY.xattr.user.x": text}
    ((entry, found),) = read_all(made([(info, content)], FORMATS[kind]), pieces)
    assert (entry.name, entry.kind, entry.mode, entry.uid, entry.gid) == (path, "f", mode, owner, owner // 3)
    assert (found, entry.size, entry.real, entry.mtime) == (content, len(content), len(content), 1_700_000_000)
    assert entry.xattrs == ({"user.x": text.encode()} if kind == "pax" else {})


@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_kind_of_member(kind: str) -> None:
    """Directories, links, devices and FIFOs."""
    infos = []
    for name, letter, link in (
        ("folder", tarfile.DIRTYPE, ""),
        ("link", tarfile.SYMTYPE, "../x" * 20),
        ("hard", tarfile.LNKTYPE, "folder/file"),
        ("fifo", tarfile.FIFOTYPE, ""),
        ("char", tarfile.CHRTYPE, ""),
        ("block", tarfile.BLKTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.devmajor, info.devminor = letter, link, 8, 3
        infos.append((info, b""))
    found = [entry for entry, _ in read_all(made(infos, FORMATS[kind]))]
    assert [entry.kind for entry in found] == ["d", "l", "h", "p", "c", "b"]
    assert found[1].link == "../x" * 20
    assert found[2].link == "folder/file"
    assert found[4].device == found[5].device == (8, 3)


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar")
@pytest.mark.parametrize("kind", ["gnu", "posix", "oldgnu", "v7", "ustar"])
def test_what_tar_writes(tmp_path: Path, kind: str) -> None:
    """GNU tar beside Python's: long names, a sparse file, bytes that are no UTF-8."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"content")
    if kind not in {"v7", "ustar"}:
        (root / ("long" * 50)).write_bytes(b"1")
        (root / b"caf\xe9".decode("utf-8", "surrogateescape")).write_bytes(b"2")
        with (root / "sparse").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
    sparse = ["--sparse"] if kind in {"gnu", "posix"} else []
    data = subprocess.run(
        ["tar", f"--format={kind}", *sparse, "-C", root, "-c", "."], capture_output=True, check=True
    ).stdout
    found = {entry.name.removeprefix("./").rstrip("/"): (entry, content) for entry, content in read_all(data)}
    assert found["a"][0].kind == "d"
    assert found["a/file"][1] == b"content"
    if kind not in {"v7", "ustar"}:
        assert found["long" * 50][1] == b"1"
        assert found["caf\udce9"][1] == b"2"
        assert found["sparse"][0].real == (1 << 20) + 3
        assert found["sparse"][0].sparse == bool(sparse)


def test_what_claims_much_takes_little() -> None:
    """PAX records of gigabytes, a name of megabytes: refused before a byte of them is read."""
    for letter in (b"x", b"g", b"L", b"K"):
        info = tarfile.TarInfo("x")
        info.type, info.size = letter, 3 << 30
        with pytest.raises(TarDamaged, match="bytes"):
            read_all(info.tobuf(tarfile.GNU_FORMAT))


def test_headers_without_a_member_end() -> None:
    """PAX records after PAX records."""
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 11
    block = info.tobuf(tarfile.GNU_FORMAT) + b"11 path=ab\n".ljust(512, b"\0")
    with pytest.raises(TarDamaged, match="without a member"):
        read_all(block * 20)


def test_a_cut_archive_says_where() -> None:
    """The offset is where the bytes end."""
    info = tarfile.TarInfo("file")
    info.size = 2000
    data = made([(info, b"x" * 2000)], tarfile.PAX_FORMAT)
    with pytest.raises(TarDamaged, match="ends within a file at byte 1,5") as caught:
        read_all(data[:1512])
    assert caught.value.offset == 1512


@settings(max_examples=min(80, settings.default.max_examples))
@given(data=st.data())
def test_whatever_is_in_it_it_ends_with_a_reason(data: st.DataObject) -> None:
    """Bytes changed and ends cut: members or `TarDamaged`, and no other exception."""
    info = tarfile.TarInfo("some/file")
    info.size, info.pax_headers = 700, {"SCHILY.xattr.user.x": "y", "path": "n" * 200}
    whole = bytearray(made([(info, b"x" * 700)] * 2, tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TarDamaged):
        read_all(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
