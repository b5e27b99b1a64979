"""Many small files below one directory as lines of text: `path TAB type TAB mtime TAB content`.

What `doctor.snapshot.TreeEntry` reads. Run as a program (`spawn.own`) it prints them for one directory after the other,
each of which is an argument (`Wanted.argument`), as records (`doctor.linux.frames`). 3,000 layers are 90,000 system calls,
and a process of its own makes them on another core while this one parses (measured: a third of a whole run).
"""

from __future__ import annotations

import os
import stat
import sys
import time
from errno import ELOOP, ENXIO
from typing import NamedTuple

from doctor.lines import escape, tree_line, unescape
from doctor.linux.frames import Frame, status_of, why_of

SMALL = 1 << 16
"""Bytes of one file, at most."""

_FIRST = 4096
"""Bytes that are asked for at first: most files have fewer, and a buffer of SMALL for each costs more than it reads."""

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Wanted(NamedTuple):
    """A tree that somebody wants: its directory, what of each entry (see `read_tree`), and its limit in characters."""

    root: str
    members: tuple[str, ...]
    limit: int

    def argument(self) -> str:
        """Spell it as one argument of the program."""
        return "\t".join(escape(field) for field in (str(self.limit), self.root, *self.members))


def read_tree(root: str, names: list[str], members: tuple[str, ...], limit: int) -> tuple[str, bool]:
    """Give the lines for `names` below a directory, and whether they were cut at `limit` characters.

    Of each name, each member: `x` is read, `x/` and `x?` are only looked at; `@` and `@?` stand for the names
    themselves. Paths are looked up from the open directory. Raises OSError for `root`.
    """
    lines: list[str] = []
    size = 0
    looks = [(member.rstrip("/?@"), member[-1:] in {"/", "?"}) for member in members]
    folder = os.open(root, _OPEN | os.O_DIRECTORY)
    try:
        for name in names:
            for member, look_only in looks:
                path = f"{name}/{member}" if member else name
                line = _look(folder, path) if look_only else _content(folder, path)
                lines.append(line)
                size += len(line)
            if size > limit:
                return "".join(lines), True
    finally:
        os.close(folder)
    return "".join(lines), False


def _content(folder: int, path: str) -> str:
    """Give the line of one small file or link; nothing for one that is not there."""
    try:
        handle = os.open(path, _OPEN | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return _look(folder, path) if error.errno in {ELOOP, ENXIO} else _error_line(path, error)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return _look(folder, path)
        data = os.read(handle, _FIRST)
        if len(data) == _FIRST:
            data += os.read(handle, SMALL - _FIRST)
        text = data.decode("utf-8", "replace")
    except OSError as error:
        return _error_line(path, error)
    finally:
        os.close(handle)
    return tree_line(path, "f", about.st_mtime, text)


def _look(folder: int, path: str) -> str:
    """Give the line of what is only looked at: a file's size, a link's target, or that it is not there."""
    try:
        about = os.lstat(path, dir_fd=folder)
        if stat.S_ISDIR(about.st_mode):
            return tree_line(path, "d", about.st_mtime)
        if stat.S_ISLNK(about.st_mode):
            return tree_line(path, "l", about.st_mtime, os.readlink(path, dir_fd=folder))
        if stat.S_ISREG(about.st_mode):
            return tree_line(path, "f", about.st_mtime, str(about.st_size))
        return tree_line(path, "o", about.st_mtime, f"{about.st_mode:o}")
    except FileNotFoundError:
        return tree_line(path, "-", 0.0)
    except OSError as error:
        return _error_line(path, error)


def _error_line(path: str, error: OSError) -> str:
    return tree_line(path, "!", 0.0, os.strerror(error.errno or 0).lower())


def sandboxes(folder: str) -> str:
    """List the files of network sandboxes: which are mounts of a namespace (nsfs), and of which. Raises OSError."""
    names = sorted(os.listdir(folder))  # noqa: PTH208 - names
    nsfs = os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116 - as above
    lines = []
    for name in names:
        try:
            about = os.stat(f"{folder}/{name}")  # noqa: PTH116 - as above
        except OSError:
            continue
        if about.st_dev == nsfs:
            lines.append(tree_line(name, "n", 0.0, f"net:[{about.st_ino}]"))
        else:
            kind = "d" if stat.S_ISDIR(about.st_mode) else "f" if stat.S_ISREG(about.st_mode) else "o"
            lines.append(tree_line(name, kind, about.st_mtime, str(about.st_size)))
    return "".join(lines)


def _frame(wanted: Wanted) -> Frame:
    """Read one tree; `l`, the short links of overlay2, is no layer."""
    start = time.perf_counter()
    try:
        names = sorted(name for name in os.listdir(wanted.root) if name != "l" or wanted.members[0].startswith("@"))  # noqa: PTH208 - names
        text, cut = read_tree(wanted.root, names, wanted.members, wanted.limit)
    except OSError as error:
        return Frame("", "tree", wanted.root, status_of(error), error.errno or 0, _since(start), why_of(error), b"")
    data = text.encode("utf-8", "surrogateescape")
    return Frame("", "tree", wanted.root, "truncated" if cut else "ok", 0, _since(start), "", data)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Print a record for each tree that is wanted, in that order."""
    for argument in sys.argv[1:]:
        limit, root, *members = map(unescape, argument.split("\t"))
        sys.stdout.buffer.write(_frame(Wanted(root, tuple(members), int(limit))).bytes())
        sys.stdout.buffer.flush()
    os._exit(0)
