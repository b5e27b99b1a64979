"""Damages of an unpacked layer, made at random: what a disk, a copy, a person or an attacker does to files.

Each takes the directory of the layer and a source of chance, does it, and gives the path (as it is called in the image)
and the kinds that are right for it; or None where the layer has nothing to do it to.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

Expected: TypeAlias = tuple[str, set[str]] | None
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service in version 2, effective."""


def paths(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a directory, in a fixed order."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            yield path, path.lstat()


def chosen(root: Path, chance: random.Random, wanted: Callable[[os.stat_result], bool]) -> Path | None:
    """One of those that fit."""
    found = [path for path, about in paths(root) if wanted(about)]
    return chance.choice(found) if found else None


def regular(about: os.stat_result) -> bool:
    """A file with content and without other names."""
    return stat.S_ISREG(about.st_mode) and about.st_size > 0 and about.st_nlink == 1


def folder(about: os.stat_result) -> bool:
    """A directory."""
    return stat.S_ISDIR(about.st_mode)


def called(root: Path, path: Path) -> str:
    """As it is called in the image."""
    return f"/{path.relative_to(root)}"


def _changed(
    root: Path, chance: random.Random, how: Callable[[bytes], bytes], kinds: set[str], least: int = 1
) -> Expected:
    path = chosen(root, chance, lambda about: regular(about) and about.st_size >= least)
    if path is None:
        return None
    data = path.read_bytes()
    new = how(data)
    if new == data:
        return None
    with path.open("r+b") as file:
        file.write(new)
        file.truncate(len(new))
    return called(root, path), kinds


def flipped_bit(root: Path, chance: random.Random) -> Expected:
    """Memory or disk."""

    def flip(data: bytes) -> bytes:
        at = chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]

    return _changed(root, chance, flip, {"content"})


def zeroed_block(root: Path, chance: random.Random) -> Expected:
    """A block that was never written."""

    def zero(data: bytes) -> bytes:
        at = chance.randrange(0, len(data), 4096)
        return data[:at] + bytes(min(4096, len(data) - at)) + data[at + 4096 :]

    return _changed(root, chance, zero, {"content"})


def cut(root: Path, chance: random.Random) -> Expected:
    """A copy that broke off."""
    return _changed(root, chance, lambda data: data[: chance.randrange(1, len(data))], {"size"}, 2)


def emptied(root: Path, chance: random.Random) -> Expected:
    """Power loss before the data was written."""
    return _changed(root, chance, lambda _: b"", {"size"})


def longer(root: Path, chance: random.Random) -> Expected:
    """Something was appended."""
    return _changed(root, chance, lambda data: data + b"PATH=/tmp\n", {"size"})


def edited(root: Path, chance: random.Random) -> Expected:
    """Somebody wrote into it."""
    return _changed(root, chance, lambda data: bytes(reversed(data)), {"content"}, 30)


def other_mode(root: Path, chance: random.Random) -> Expected:
    """A chmod -R."""
    path = chosen(root, chance, lambda about: stat.S_ISREG(about.st_mode) or folder(about))
    if path is None:
        return None
    path.chmod(stat.S_IMODE(path.lstat().st_mode) ^ 0o020)
    return called(root, path), {"mode"}


def setuid(root: Path, chance: random.Random) -> Expected:
    """A program that makes root."""
    path = chosen(root, chance, regular)
    if path is None:
        return None
    path.chmod(stat.S_IMODE(path.lstat().st_mode) ^ stat.S_ISUID)
    return called(root, path), {"mode"}


def other_owner(root: Path, chance: random.Random) -> Expected:
    """A chown -R."""
    path = chosen(root, chance, lambda about: not stat.S_ISCHR(about.st_mode))
    if path is None or os.geteuid():
        return None
    os.chown(path, 1000, 1000, follow_symlinks=False)
    return called(root, path), {"owner", "mode", "capability"}


def capability_added(root: Path, chance: random.Random) -> Expected:
    """A right beside the mode."""
    path = chosen(root, chance, regular)
    if path is None or os.geteuid():
        return None
    os.setxattr(path, "security.capability", CAPABILITY)
    return called(root, path), {"capability"}


def xattrs_lost(root: Path, chance: random.Random) -> Expected:
    """A copy without -X."""
    found = []
    for path, about in paths(root):
        if stat.S_ISREG(about.st_mode):
            found += [(path, name) for name in os.listxattr(path) if name.startswith(("user.", "security.cap"))]
    if not found:
        return None
    path, name = chance.choice(found)
    os.removexattr(path, name)
    return called(root, path), {"xattr", "capability"}


def other_target(root: Path, chance: random.Random) -> Expected:
    """A link that leads elsewhere."""
    path = chosen(root, chance, lambda about: stat.S_ISLNK(about.st_mode))
    if path is None:
        return None
    owner = path.lstat()
    path.unlink()
    path.symlink_to("/tmp/elsewhere")
    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return called(root, path), {"link target"}


def deleted(root: Path, chance: random.Random) -> Expected:
    """A file that is gone."""
    path = chosen(
        root, chance, lambda about: not folder(about) and not stat.S_ISCHR(about.st_mode) and about.st_nlink == 1
    )
    if path is None:
        return None
    path.unlink()
    return called(root, path), {"missing"}


def added(root: Path, chance: random.Random) -> Expected:
    """A file that nobody recorded."""
    above = chosen(root, chance, folder) or root
    path = above / f"new{chance.randrange(99)}"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(chance.choice([0o644, 0o755]))
    return called(root, path), {"added"}


def added_folder(root: Path, chance: random.Random) -> Expected:
    """An empty directory that nobody recorded."""
    path = (chosen(root, chance, folder) or root) / "new-folder"
    path.mkdir()
    return called(root, path), {"added"}


def file_for_folder(root: Path, chance: random.Random) -> Expected:
    """A directory, with what was in it, became a file."""
    path = chosen(root, chance, folder)
    if path is None:
        return None
    shutil.rmtree(path)
    path.write_bytes(b"")
    return called(root, path), {"type", "missing", "whiteout lost"}


def folder_for_file(root: Path, chance: random.Random) -> Expected:
    """A file became a directory."""
    path = chosen(root, chance, regular)
    if path is None:
        return None
    path.unlink()
    path.mkdir()
    return called(root, path), {"type"}


def link_for_folder(root: Path, chance: random.Random) -> Expected:
    """A directory became a link that leads out of the store."""
    path = chosen(root, chance, folder)
    if path is None:
        return None
    shutil.rmtree(path)
    path.symlink_to("/etc")
    return called(root, path), {"type", "missing", "whiteout lost"}


def fifo_for_file(root: Path, chance: random.Random) -> Expected:
    """A file became a FIFO: whoever opens it waits for ever."""
    path = chosen(root, chance, regular)
    if path is None:
        return None
    path.unlink()
    os.mkfifo(path)
    return called(root, path), {"type"}


def whiteout_lost(root: Path, chance: random.Random) -> Expected:
    """A copy that cannot make devices."""
    path = chosen(root, chance, lambda about: stat.S_ISCHR(about.st_mode) and about.st_rdev == 0)
    if path is None:
        return None
    path.unlink()
    if chance.random() < 0.5:
        path.write_bytes(b"")
    return called(root, path), {"whiteout lost"}


def opaque_lost(root: Path, chance: random.Random) -> Expected:
    """A copy without trusted attributes."""
    found = []
    for path, about in paths(root):
        if folder(about):
            found += [(path, name) for name in os.listxattr(path) if name.endswith("overlay.opaque")]
    if not found:
        return None
    path, name = chance.choice(found)
    os.removexattr(path, name)
    return called(root, path), {"opaque lost"}


def hard_link_broken(root: Path, chance: random.Random) -> Expected:
    """A copy without -H, and then one of the two is another file: both names are right to tell."""
    path = chosen(root, chance, lambda about: stat.S_ISREG(about.st_mode) and about.st_nlink > 1)
    if path is None:
        return None
    about, data = path.lstat(), path.read_bytes()
    names = {called(root, one) for one, other in paths(root) if other.st_ino == about.st_ino}
    path.unlink()
    path.write_bytes(data + b"x")
    path.chmod(stat.S_IMODE(about.st_mode))
    os.chown(path, about.st_uid, about.st_gid)
    return "|".join(sorted(names)), {"link target", "size", "content", "missing"}


FILE_DAMAGES = (
    flipped_bit,
    zeroed_block,
    cut,
    emptied,
    longer,
    edited,
    other_mode,
    setuid,
    other_owner,
    capability_added,
    xattrs_lost,
    other_target,
    deleted,
    added,
    added_folder,
    file_for_folder,
    folder_for_file,
    link_for_folder,
    fifo_for_file,
    whiteout_lost,
    opaque_lost,
    hard_link_broken,
)
