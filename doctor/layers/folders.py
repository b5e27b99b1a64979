"""Files below one directory, reached step by step from an open one: no symbolic link is ever followed, in no part of a path.

What opens is directories and regular files only. A FIFO or a device is looked at and never opened.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PIECE = 1 << 18


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
