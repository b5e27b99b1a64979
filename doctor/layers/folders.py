"""Files below one directory, reached step by step from an open one: no symbolic link is ever followed, in no part of a path.

What opens is directories and regular files only. A FIFO or a device is looked at and never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PIECE = 1 << 18
_NO_XATTRS = {errno.ENOTSUP, errno.EPERM, errno.ENOSYS}


def open_file(name: str, parent: int) -> int:
    """Open a regular file below an open directory, without a new access time where that is allowed. Raises OSError."""
    try:
        return os.open(name, FILE | os.O_NOATIME, dir_fd=parent)
    except PermissionError:
        return os.open(name, FILE, dir_fd=parent)


class Folders:
    """The directories below a root; the ones that lead to the present one are kept open."""

    def __init__(self, root: str) -> None:
        """Open the root; what leads to it may be links, itself may not. Raises OSError."""
        self._names: list[str] = []
        self._open = [os.open(root, FOLDER)]

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.pop())

    @property
    def root(self) -> int:
        """The open root."""
        return self._open[0]

    def enter(self, path: str) -> int:
        """Give the open directory of a relative path (`usr/bin`, empty for the root). Raises OSError."""
        wanted = path.split("/") if path else []
        names = self._names
        same = 0
        for have, want in zip(names, wanted, strict=False):
            if have != want:
                break
            same += 1
        while len(names) > same:
            names.pop()
            os.close(self._open.pop())
        for name in wanted[same:]:
            self._open.append(os.open(name, FOLDER, dir_fd=self._open[-1]))
            names.append(name)
        return self._open[-1]

    def look(self, path: str) -> os.stat_result:
        """Look at what is there, links themselves. Raises OSError."""
        folder, _, name = path.rpartition("/")
        return os.lstat(name or ".", dir_fd=self.enter(folder))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Give the extended attributes of what is there, links themselves; nothing where there are none. Raises OSError."""
        folder, _, name = path.rpartition("/")
        return xattrs_of(f"/proc/self/fd/{self.enter(folder)}/{name}")

    def held_xattrs(self, path: str) -> dict[str, bytes]:
        """Give them; none as well where the file system knows of none. Raises OSError."""
        try:
            return self.xattrs(path)
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return {}
            raise

    def open(self, path: str) -> int:
        """Open a regular file to read it. Raises OSError, also for what is no regular file."""
        folder, _, name = path.rpartition("/")
        opened = open_file(name, self.enter(folder))
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise OSError(errno.EINVAL, "no regular file")
        return opened

    def target(self, path: str) -> str:
        """Give where a symbolic link leads, as it is written. Raises OSError."""
        folder, _, name = path.rpartition("/")
        return os.readlink(name, dir_fd=self.enter(folder))

    def walk(self) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
        """Give every path below the root with its entry, or with what kept a directory from being listed."""
        todo = [""]
        while todo:
            folder = todo.pop()
            try:
                with os.scandir(self.enter(folder)) as entries:
                    listed = list(entries)
            except OSError as error:
                yield folder, error
                continue
            for entry in listed:
                path = f"{folder}/{entry.name}" if folder else entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)


def xattrs_of(where: str | int) -> dict[str, bytes]:
    """Give the extended attributes of a path, not following a link at its end, or of an open file. Raises OSError."""
    follow = isinstance(where, int)
    return {
        name: os.getxattr(where, name, follow_symlinks=follow) for name in os.listxattr(where, follow_symlinks=follow)
    }


def pieces(handle: int, size: int) -> Iterator[bytes]:
    """Read an open file from its beginning, `size` bytes at most, in pieces of whole blocks. Raises OSError."""
    at = 0
    while at < size and (piece := os.pread(handle, min(PIECE, size - at), at)):
        yield piece
        at += len(piece)
