"""Deleted files that are still open: found with their room, and nothing else is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from doctor.linux.deleted import SMALL, deleted_files

if TYPE_CHECKING:
    from pathlib import Path


def _ours(root: Path) -> list[str]:
    text, whole = deleted_files(str(root), "", time.monotonic() + 20)
    assert whole
    return [line for line in text.split("\n") if line.startswith(f"{os.getpid()}/fd/")]


def test_room_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    """A large file counts from the moment that it is deleted to the one when it is closed; a blank in its name is kept."""
    before = _ours(tmp_path)
    path = tmp_path / "a log"
    with path.open("wb") as file, (tmp_path / "small").open("wb") as small:
        file.write(b"x" * (2 * SMALL))
        file.flush()
        small.write(b"x" * 100)
        small.flush()
        assert _ours(tmp_path) == before
        path.unlink()
        (tmp_path / "small").unlink()
        (line,) = set(_ours(tmp_path)) - set(before)
        about = os.fstat(file.fileno())
        expected = f"{about.st_blocks * 512} {about.st_dev}:{about.st_ino} {path}"
        assert line.split("\t") == [f"{os.getpid()}/fd/{file.fileno()}", "f", "0.000", expected]
        assert about.st_blocks * 512 >= 2 * SMALL
    assert _ours(tmp_path) == before


def test_overlays_of_the_root_count_as_well(tmp_path: Path) -> None:
    """A file on the device of an overlay whose layers are below the root counts; of others it does not."""
    with (tmp_path / "large").open("wb") as file:
        file.write(b"x" * (2 * SMALL))
        file.flush()
        (tmp_path / "large").unlink()
        device = os.fstat(file.fileno()).st_dev
        numbers = f"{os.major(device)}:{os.minor(device)}"
        line = f"9 1 {numbers} / /m rw - overlay overlay rw,upperdir=/proc/docker/1/diff\n"
        for mounts, seen in ((line, True), (line.replace("/proc/docker", "/srv"), False)):
            text, _ = deleted_files("/proc", mounts, time.monotonic() + 20)
            assert (f"{os.getpid()}/fd/{file.fileno()}\t" in text) is seen


def test_it_ends_in_time(tmp_path: Path) -> None:
    """When its time is up it says that it did not see everything."""
    assert deleted_files(str(tmp_path), "", time.monotonic() - 1) == ("", False)
