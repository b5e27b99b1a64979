"""A disk that fails: reads of one file end in EIO, from the block device up, and that file is all that is not known.

The disk is a loop device whose backing file ends early: what lies behind its end cannot be read (loop(4)).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.layers import archives, containerd, containerd_store, tally, unpacked
from tests.layers.archives import layers_of, new_save
from tests.layers.chance import chance_of
from tests.layers.containerd import build, varied
from tests.layers.stores import Node, Store, directory
from tests.layers.told import Told
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE, FILLED = 96 << 20, 48 << 20
EIO = "input/output error"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not (shutil.which("mkfs.ext4") and shutil.which("losetup")), reason="no mkfs.ext4 or losetup"),
]


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was changed a moment ago for old."""
    monkeypatch.setattr(unpacked, "SETTLED", 0.0)
    monkeypatch.setattr(tally, "_TICK", -3600.0)


NUMBER = 231
"""Of the loop device: what fails stands in the kernel's log by this name, and one that others get would look failing too."""
_ADD, _REMOVE = 0x4C80, 0x4C81


def _device(image: Path) -> Path:
    """Make a loop device of that number. Raises OSError, CalledProcessError."""
    node = Path(f"/dev/loop{NUMBER}")
    with open("/dev/loop-control", "rb") as control, contextlib.suppress(FileExistsError):  # noqa: PTH123
        fcntl.ioctl(control, _ADD, NUMBER)
    if not node.exists():
        os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, NUMBER))
    subprocess.run(["losetup", node, image], check=True, capture_output=True)
    return node


Disk = tuple[Path, "Callable[[Path], None]"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system, and what makes one of its files unreadable: it is written anew behind a large one, and cut off there."""
    image, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    try:
        node = _device(image)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device: {error}")
    subprocess.run(["mount", node, place], check=True)

    def fail(victim: Path) -> None:
        data, about = victim.read_bytes(), victim.stat()
        filler = place / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, FILLED)
        fresh = place / "fresh"
        fresh.write_bytes(data)
        fresh.chmod(about.st_mode & 0o7777)
        os.utime(fresh, ns=(about.st_atime_ns, about.st_mtime_ns))
        fresh.rename(victim)
        filler.unlink()
        os.sync()
        listed = subprocess.run(["filefrag", "-v", "-b4096", victim], check=True, capture_output=True, text=True)
        first = min(
            int(line.split(":")[2].split(".")[0]) for line in listed.stdout.split("\n") if line[:4].strip().isdigit()
        )
        os.truncate(image, first * 4096)
        with victim.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with pytest.raises(OSError, match="Input/output error"):
                os.read(file.fileno(), 100)

    yield place, fail
    subprocess.run(["umount", place], check=True)
    subprocess.run(["losetup", "-d", node], check=True)
    with open("/dev/loop-control", "rb") as control:  # noqa: PTH123 - as it is called in loop(4)
        fcntl.ioctl(control, _REMOVE, NUMBER)
    node.unlink(missing_ok=True)


def test_a_file_of_overlay2(disk: Disk) -> None:
    """It is named, the damage of another one as well."""
    place, fail = disk
    store = Store(place / "docker")
    data = os.urandom(700_000)
    layer = store.layer([directory("d"), *(Node(f"d/{name}", data=data + name.encode()) for name in "abc")])
    assert verify(store.work(layer)).checked.state == "whole"
    os.truncate(store.diff(layer) / "d/a", 5)
    fail(store.diff(layer) / "d/b")
    result = verify(store.work(layer))
    assert result.open == [("/d/b", EIO)]
    assert result.found == {("size", "/d/a")}


def test_a_file_of_a_snapshot(disk: Disk) -> None:
    """Of containerd's store: the layer is unknown, and not damaged."""
    place, fail = disk
    chance = chance_of(1)
    made = build(place / "root", [varied(chance, at) for at in range(2)])
    fail(made.fs(1) / "usr/bin/tool1")
    told = Told()
    states = {}
    for work in containerd.plan(containerd_store.read_store(str(made.root))):
        states[work.id] = containerd.verify(work, told).state
    assert (told.damages, told.unreadable) == ([], [("/usr/bin/tool1", EIO)])
    assert states.pop(made.chains[1]) == "unknown"
    assert set(states.values()) == {"whole"}


def test_an_archive(disk: Disk) -> None:
    """Whatever reads it says why it ends: it is no archive that was cut."""
    place, fail = disk
    file = place / "image.tar"
    file.write_bytes(new_save(layers_of(chance_of(2))).packed())
    fail(file)
    told = Told()
    (work,) = archives.plan(str(file))
    with pytest.raises(OSError, match="Input/output error"):
        archives.verify(work, told)
    assert told.damages == []
