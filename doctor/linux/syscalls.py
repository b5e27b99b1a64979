"""The system calls that Python 3.11 lacks, through ctypes; each names its man page and raises OSError.

ctypes costs 2 ms of a start, so it is loaded with the first call.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NSFS_MAGIC = 0x6E736673
"""The file system of namespaces, as statfs(2) tells it (linux/magic.h)."""

_READ_ALL = 3
_SIZE_BUFFER = 10
_STATFS_BYTES = 512
"""More than struct statfs has on any architecture (120 on x86-64)."""


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _failed(path: str | None = None) -> OSError:
    import ctypes

    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)


def setns(handle: int, kind: int) -> None:
    """Move the calling thread into the namespace that `handle` is open on; `kind` is its CLONE_NEW* (man 2 setns)."""
    if _libc().setns(handle, kind) != 0:
        raise _failed()


def unshare(kinds: int) -> None:
    """Give the calling thread new namespaces of its own, CLONE_NEW* ored (man 2 unshare)."""
    if _libc().unshare(kinds) != 0:
        raise _failed()


def statfs_type(path: str) -> int:
    """Tell the magic number of the file system that `path` is on. f_type of statfs(2).

    It is the first word of the structure, a long everywhere but on s390. A network file system may block.
    """
    import ctypes

    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc().statfs(os.fsencode(path), answer) != 0:
        raise _failed(path)
    return int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def klogctl_read() -> bytes:
    """Read the kernel's log and leave it as it is. See syslog(2), SYSLOG_ACTION_READ_ALL and _SIZE_BUFFER.

    Needs CAP_SYSLOG where kernel.dmesg_restrict is set. What is older than the ring holds is gone.
    """
    import ctypes

    size = _libc().klogctl(_SIZE_BUFFER, None, 0)
    if size < 0:
        raise _failed()
    text = ctypes.create_string_buffer(size)
    read = _libc().klogctl(_READ_ALL, text, size)
    if read < 0:
        raise _failed()
    return text.raw[:read]
