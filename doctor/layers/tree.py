"""One directory tree of a layer, looked at without ever leaving it: no link is followed, no FIFO or device is opened.

Every step of a path is opened by itself with O_NOFOLLOW from the directory above, so a link that somebody put in the
place of a directory leads nowhere. Source: openat(2), xattr(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDERS = 48
_DEEP = 4096
_NO_XATTRS = {errno.ENOTSUP, errno.EPERM, errno.ENOSYS}


def open_file(name: str, parent: int) -> int:
    """Open a regular file below an open directory, without a new access time where that is allowed. Raises OSError."""
    try:
        return os.open(name, _FILE | os.O_NOATIME, dir_fd=parent)
    except PermissionError:
        return os.open(name, _FILE, dir_fd=parent)


class Tree:
    """An open directory and what is below it. Paths have no leading slash and no `..`."""

    def __init__(self, root: str) -> None:
        """Open it. Raises OSError."""
        self.root = os.open(root, _FOLDER)
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all that is open."""
        for descriptor in (*self._open.values(), self.root):
            os.close(descriptor)
        self._open.clear()

    def folder(self, path: str) -> int:
        """Give a descriptor of a directory, valid until others are asked for. Raises OSError."""
        if not path:
            return self.root
        held = self._open.get(path)
        if held is not None:
            self._open.move_to_end(path)
            return held
        above, _, name = path.rpartition("/")
        opened = os.open(name, _FOLDER, dir_fd=self.folder(above) if above.count("/") < _DEEP else -1)
        self._open[path] = opened
        if len(self._open) > _OPEN_FOLDERS:
            os.close(self._open.popitem(last=False)[1])
        return opened

    def look(self, path: str) -> os.stat_result:
        """Give what lstat(2) says of a path. Raises OSError; ENOTDIR and ELOOP where a directory above is none."""
        above, _, name = path.rpartition("/")
        if not name:
            return os.fstat(self.root)
        return os.stat(name, dir_fd=self.folder(above), follow_symlinks=False)

    def open(self, path: str) -> int:
        """Open a regular file to read it. Raises OSError, also for what is no regular file."""
        above, _, name = path.rpartition("/")
        opened = open_file(name, self.folder(above))
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise OSError(errno.EINVAL, "no regular file")
        return opened

    def target(self, path: str) -> str:
        """Give where a symbolic link leads, as it is written. Raises OSError."""
        above, _, name = path.rpartition("/")
        return os.readlink(name, dir_fd=self.folder(above))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Give the extended attributes of a path itself; none where the file system has none. Raises OSError."""
        above, _, name = path.rpartition("/")
        place = f"/proc/self/fd/{self.folder(above)}/{name}"
        try:
            names = os.listxattr(place, follow_symlinks=False)
            return {one: os.getxattr(place, one, follow_symlinks=False) for one in names}
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return {}
            raise

    def walk(self) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
        """Give every path below the root with its entry, or with what kept a directory from being listed."""
        todo = [""]
        while todo:
            folder = todo.pop()
            try:
                with os.scandir(self.folder(folder)) as entries:
                    listed = list(entries)
            except OSError as error:
                yield folder, error
                continue
            for entry in listed:
                path = f"{folder}/{entry.name}" if folder else entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
