"""What is written: bytes that depend on nothing but the snapshot, names that any tar can take, and a private file."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
from errno import ENOSPC, EOPNOTSUPP
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from doctor import __version__
from doctor.bundle import MANIFEST, Written, pack, read, write
from doctor.snapshot import Record, Snapshot
from tests.bundle.samples import META, SMALL, snapshot, unpack

if TYPE_CHECKING:
    from pathlib import Path


def opened(made: Snapshot) -> tarfile.TarFile:
    """Open a bundle with the standard library."""
    return tarfile.open(fileobj=io.BytesIO(pack(made)), mode="r:gz")


def told(made: Snapshot) -> dict[str, Any]:
    """Give the manifest as a person sees it."""
    with opened(made) as tar:
        member = tar.extractfile(MANIFEST)
        assert member
        return msgspec.json.decode(member.read(), type=dict[str, Any])


def left(folder: Path) -> list[str]:
    """Give the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def members(*names: str) -> list[str]:
    """Write records of these names; give the names of their members, once they have been read back."""
    made = snapshot(*(Record(name, "file", "", data=str(place).encode()) for place, name in enumerate(names)))
    assert unpack(pack(made)).records == made.records
    with opened(made) as tar:
        return tar.getnames()[1:]


def test_members() -> None:
    """Manifest first, then what has data, in the order of the records; a time and nothing else of who wrote it."""
    with opened(SMALL) as tar:
        held = tar.getmembers()
    assert [one.name for one in held] == [
        MANIFEST,
        "files/etc/docker/daemon.json",
        "api/info",
        "logs/dockerd",
        "api/version",
    ]
    for one in held:
        assert one.isreg()
        assert (one.mode, one.uid, one.gid, one.uname, one.gname) == (0o600, 0, 0, "", "")
        assert one.mtime == int(META.collected_at)


def test_manifest() -> None:
    """The manifest says all there is to say of a record."""
    whole = told(SMALL)
    assert list(whole) == ["format", "doctor", "digest", "meta", "removed", "records"]
    assert (whole["format"], whole["doctor"]) == (1, __version__)
    assert whole["meta"] == msgspec.to_builtins(META)
    assert whole["removed"] == {"environment": 5, "proxy password": 1, "label": 1}
    assert whole["records"][0] == {
        "name": "files/etc/docker/daemon.json",
        "kind": "file",
        "target": "/etc/docker/daemon.json",
        "member": "files/etc/docker/daemon.json",
        "ms": 0.125,
        "bytes": 16,
        "sha256": sha256(b'{"debug": true}\n').hexdigest(),
        "stored": sha256(b'{"debug": true}\n').hexdigest(),
        "mtime": 1795520000.5,
    }
    absent = whole["records"][1]
    assert (absent["status"], absent["why"], absent["errno"]) == ("absent", "nft is not installed", 2)
    assert "member" not in absent
    assert whole["records"][2]["redactions"] == 1


def test_a_record_a_line() -> None:
    """`grep` in a manifest finds the record as a whole."""
    with opened(SMALL) as tar:
        member = tar.extractfile(MANIFEST)
        assert member
        lines = member.read().decode().splitlines()
    assert sum('"name":"net/nft"' in line and '"status":"absent"' in line for line in lines) == 1


def test_equal_bytes() -> None:
    """Equal snapshots make equal bundles: gzip holds no time and no name."""
    data = pack(SMALL)
    assert data == pack(unpack(data))
    assert data[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


def test_names_are_made_safe() -> None:
    """No name of a record is a way out of the folder that somebody unpacks a bundle in."""
    names = [
        "files/etc/hosts",
        "../../etc/passwd",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "..",
        "",
        "/",
        "a\nb",
        "\x1b[31m\u202e",
        "back\\slash",
        "caf\xe9",
        "x" * 300,
        "x" * 299 + "/",
        "y/" * 120,
        MANIFEST,
        "manifest.json/x",
        "a/b/",
    ]
    made = members(*names)
    assert made[0] == "files/etc/hosts"
    assert made[1] == "etc/passwd-2"
    assert len(set(made)) == len(names)
    for name in made:
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert name.isascii()
        assert name.isprintable()
        assert "\\" not in name
        assert len(name) <= 100


def test_no_member_is_the_folder_of_another(tmp_path: Path) -> None:
    """`tar -x` can make all of them: none is a file here and a folder there."""
    made = members("a", "a/b", "a/b/c", "d/e/f", "d/e", "d", "a_b-2", "a-5")
    assert made[0] == "a"
    assert made[3] == "d/e/f"
    for name in made:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_many_names_that_must_change_are_quick() -> None:
    """Names that differ only behind the hundredth byte do not make it slow."""
    assert len(set(members(*("x" * 200 + str(number) for number in range(3000))))) == 3000


def test_text_that_is_none() -> None:
    """Bytes of a host name or a path that are no UTF-8 become U+FFFD, in names too; the bundle can be read."""
    made = snapshot(
        Record("a\udcff", "file", "/\udcfe", data=b"1", why="\ud800"),
        Record("a\udcfe", "file", "/", data=b"2"),
    )
    back = unpack(pack(replace(made, meta=replace(META, hostname="us\udcff"))))
    assert back.meta.hostname == "us\ufffd"
    assert [one.data for one in back.records.values()] == [b"1", b"2"]
    assert list(back.records) == ["a\ufffd", "a\ufffd\ufffd"]
    assert back.get("a\ufffd").target == "/\ufffd"
    assert back.get("a\ufffd").why == "\ufffd"


@pytest.mark.parametrize("when", [2.0**62, -(2.0**62), float("nan"), float("inf")])
def test_times_of_no_calendar(when: float) -> None:
    """A file system can hold times that no calendar has: such a file has none."""
    assert unpack(pack(snapshot(Record("a", "file", "/a", mtime=when)))).get("a").mtime == 0.0


def test_a_file_is_private(tmp_path: Path) -> None:
    """Mode 0600 even where the umask would allow more, and where a file of other rights is replaced."""
    path = tmp_path / "us1.tar.gz"
    path.touch(0o644)
    old = os.umask(0)
    try:
        written = write(SMALL, str(path))
    finally:
        os.umask(old)
    assert written == Written(str(path), len(SMALL.records), path.stat().st_size)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(str(path)).records == SMALL.records
    assert left(tmp_path) == ["us1.tar.gz"]


def test_it_is_private_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no moment at which somebody else could open it."""
    modes: list[int] = []
    real = os.replace

    def look(source: str, target: str) -> None:
        modes.append(stat.S_IMODE(os.lstat(source).st_mode))
        real(source, target)

    monkeypatch.setattr(os, "replace", look)
    write(SMALL, str(tmp_path / "us1.tar.gz"))
    assert modes == [0o600]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What somebody left in /tmp does not choose what root overwrites."""
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    path = tmp_path / "us1.tar.gz"
    path.symlink_to(victim)
    write(SMALL, str(path))
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not path.is_symlink()


@pytest.mark.parametrize("path", ["no/us1.tar.gz", "folder", "us1.tar.gz/x", "folder/", ""])
def test_a_path_that_cannot_be(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "us1.tar.gz").touch()
    with pytest.raises(OSError, match="Errno"):
        write(SMALL, path)
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == ["folder", "us1.tar.gz"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays, and what was begun goes."""
    path = tmp_path / "us1.tar.gz"
    path.write_bytes(b"old")

    def full(_source: str, _target: str) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        write(SMALL, str(path))
    assert path.read_bytes() == b"old"
    assert left(tmp_path) == ["us1.tar.gz"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as well."""

    def interrupt(_source: str, _target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(SMALL, str(tmp_path / "us1.tar.gz"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/dev/fd/1", "fifo"])
def test_what_is_no_file_stays(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is not made a file of: as root this would be the end of /dev/null."""

    def never(*_: object) -> None:
        raise AssertionError

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", never)
    monkeypatch.setattr(os, "replace", never)
    with pytest.raises(OSError, match="not supported") as raised:
        write(SMALL, path)
    assert raised.value.errno == EOPNOTSUPP


def test_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard output."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    written = write(SMALL, "-")
    assert out.getvalue() == pack(SMALL)
    assert written.bytes == len(pack(SMALL))
