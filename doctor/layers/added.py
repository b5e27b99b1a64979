"""What is there and was not recorded: found by counting the names of each directory, and compared only where that is off."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from doctor.layers.union import is_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.layers.folders import Folders
    from doctor.layers.tally import Tally

_LARGE = 4 << 20
"""Bytes of a directory from which on its names are counted one by one, not all held."""
_INSIDE = 10_000
"""Files of an added directory that are looked at, at most."""
_DEPTH = 64
_PREFIX, _OPAQUE = ".wh.", ".wh..wh..opq"


def _count(folder: int) -> int:
    if os.fstat(folder).st_size < _LARGE:
        return len(os.listdir(folder))
    with os.scandir(folder) as entries:
        return sum(1 for _ in entries)


def compare(
    counts: dict[str, int],
    uncertain: set[str],
    folders: Folders,
    tally: Tally,
    names: Callable[[], Iterator[str]],
) -> None:
    """Tell what is in these directories beyond `counts`; `uncertain` are those to be compared in any case.

    `names` gives every recorded name; it is asked only where something is off.
    """
    for path in sorted(counts):
        try:
            if _count(folders.enter(path)) != counts[path]:
                uncertain.add(path)
        except FileNotFoundError:
            continue  # it is told as missing, or what should be in it is
        except OSError as error:
            if path not in uncertain:
                tally.unread(path, error)
    if not uncertain:
        return
    wanted: dict[str, set[str]] = {path: set() for path in uncertain}
    for name in names():
        _note(name, wanted)
    for path in sorted(wanted):
        try:
            found = sorted(set(os.listdir(folders.enter(path))) - wanted[path])  # noqa: PTH208 - from an open directory
        except OSError:
            continue  # told above
        for name in found:
            _tell(f"{path}/{name}" if path else name, folders, tally)


def _note(name: str, wanted: dict[str, set[str]]) -> None:
    """Note a recorded name, and the directories that lead to it, in those that are to be compared."""
    while name:
        parent, _, base = name.rpartition("/")
        held = wanted.get(parent)
        if held is not None and base != _OPAQUE:
            held.add(base[4:] if base.startswith(_PREFIX) else base)
        name = parent


def _tell(path: str, folders: Folders, tally: Tally) -> None:
    try:
        about = folders.look(path)
        if is_whiteout(folders, path, about):
            tally.added(path, about, "whiteout: hides what is below it")
        elif stat.S_ISDIR(about.st_mode):
            inside = list(_inside(path, folders))
            tally.added(path, about, f"directory, {len(inside)} in it")
            for below, of in inside:
                tally.added(below, of, grave_only=True)
        else:
            tally.added(path, about)
    except FileNotFoundError:
        tally.in_use(path)
    except OSError as error:
        tally.unread(path, error)


def _inside(path: str, folders: Folders) -> Iterator[tuple[str, os.stat_result]]:
    """Give what is in an added directory, as far as bounds allow."""
    todo = [path]
    given = 0
    while todo:
        folder = todo.pop()
        for name in sorted(os.listdir(folders.enter(folder))):  # noqa: PTH208 - from an open directory
            below = f"{folder}/{name}"
            about = folders.look(below)
            yield below, about
            given += 1
            if given >= _INSIDE:
                return
            if stat.S_ISDIR(about.st_mode) and below.count("/") < _DEPTH:
                todo.append(below)
