"""What overlayfs would show at a path, asked of one directory of it at a time: whiteouts, opaque directories, covers.

A whiteout is a character device 0/0, or an empty file with the attribute overlay.whiteout; a directory with
overlay.opaque shows nothing of those below it. Source: kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

from doctor.layers.folders import Folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Meets = Literal["nothing", "here", "whiteout", "opaque", "covered"]
"""What a layer has at a path: nothing; the thing itself; a whiteout; an opaque directory above it; no directory above it."""

_PREFIXES = ("trusted.overlay.", "user.overlay.")


def _attribute(folders: Folders, path: str, name: str) -> bool:
    folder, _, base = path.rpartition("/")
    where = f"/proc/self/fd/{folders.enter(folder)}/{base}"
    try:
        held = os.listxattr(where, follow_symlinks=False)
    except OSError:
        return False
    return any(prefix + name in held for prefix in _PREFIXES)


def is_opaque(folders: Folders, path: str) -> bool:
    """Whether a directory hides what is below it."""
    return _attribute(folders, path, "opaque")


def is_whiteout(folders: Folders, path: str, about: os.stat_result) -> bool:
    """Whether what is there deletes what is below it."""
    if stat.S_ISCHR(about.st_mode):
        return about.st_rdev == 0
    return stat.S_ISREG(about.st_mode) and about.st_size == 0 and _attribute(folders, path, "whiteout")


def meets(folders: Folders, path: str) -> Meets:
    """Say what one layer has at a path. Raises OSError for what cannot be looked at."""
    opaque = False
    at = ""
    names = path.split("/")
    for number, name in enumerate(names, 1):
        at = f"{at}/{name}" if at else name
        try:
            about = folders.look(at)
        except (FileNotFoundError, NotADirectoryError):
            return "opaque" if opaque else "nothing"
        if is_whiteout(folders, at, about):
            return "whiteout"
        if number < len(names):
            if not stat.S_ISDIR(about.st_mode):
                return "covered"
            opaque = opaque or is_opaque(folders, at)
    return "here"


def shows(roots: Iterable[str], path: str) -> bool:
    """Whether a stack of layers, the upper one first, shows anything at a path. Raises OSError."""
    for root in roots:
        with Folders(root) as folders:
            met = meets(folders, path)
        if met != "nothing":
            return met == "here"
    return False


def below(roots: Iterable[str], path: str) -> Iterator[str]:
    """Give the names that a stack of layers, the upper one first, shows in a directory, perhaps twice. Raises OSError."""
    gone: set[str] = set()
    for root in roots:
        with Folders(root) as folders:
            met = meets(folders, path) if path else "here"
            if met == "nothing":
                continue
            if met != "here" or not stat.S_ISDIR(folders.look(path or ".").st_mode):
                return
            for name in os.listdir(folders.enter(path)):  # noqa: PTH208 - from an open directory
                inner = f"{path}/{name}" if path else name
                if is_whiteout(folders, inner, folders.look(inner)):
                    gone.add(name)
                elif name not in gone:
                    yield name
            if path and is_opaque(folders, path):
                return


def shines_through(roots: Iterable[str], path: str, own: Folders) -> str:
    """Give a name that a directory which should be opaque shows of those below it; empty where there is none."""
    for name in below(roots, path):
        if meets(own, f"{path}/{name}" if path else name) == "nothing":
            return name
    return ""
