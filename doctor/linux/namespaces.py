"""Enter a network namespace from a thread, and tell namespaces apart: setns(2), namespaces(7)."""

from __future__ import annotations

import os

CLONE_NEWNET = 0x40000000


def namespace_id(path: str) -> int:
    """Give the inode of a namespace by a link or mount that leads to it. Raises OSError."""
    return os.stat(path).st_ino  # noqa: PTH116 - a path of /proc, 200 times a second


def enter(path: str, expected: int) -> None:
    """Move the calling thread into the network namespace at `path`, for good.

    Raises OSError; ProcessLookupError when the namespace there is no longer the expected one (its process has gone and
    another has its pid).
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_ino != expected:
            raise ProcessLookupError(3, "another namespace is there now", path)
        _setns(handle, path)
    finally:
        os.close(handle)


def _setns(handle: int, path: str) -> None:
    if hasattr(os, "setns"):  # from Python 3.12 on
        os.setns(handle, CLONE_NEWNET)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
