"""Many small files below one directory as lines of text: `path TAB type TAB mtime TAB content`.

What `doctor.snapshot.TreeEntry` reads. Run as a program (`spawn.own`) it prints them for a directory: LIMIT ROOT MEMBER...
3,000 layers are 25,000 system calls, and a process of its own reads them on another core while this one parses
(measured: a third of a whole run).
"""

from __future__ import annotations

import os
import stat
import sys
from errno import ELOOP, ENXIO

from doctor.lines import tree_line

CUT = 3
"""Exit code of a tree that was cut at its limit; 1 is what a traceback leaves."""

SMALL = 1 << 16
"""Bytes of one file, at most."""

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


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
        text = os.read(handle, SMALL).decode("utf-8", "replace")
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


def main() -> None:
    """Print the lines of one directory; `l`, the short links of overlay2, is no layer. Exit 3 when it was cut."""
    limit, root, *members = sys.argv[1:]
    names = sorted(name for name in os.listdir(root) if name != "l" or members[0].startswith("@"))  # noqa: PTH208 - names
    text, cut = read_tree(root, names, tuple(members), int(limit))
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
    os._exit(CUT if cut else 0)
