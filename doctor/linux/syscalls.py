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

CLONE_PARENT = 0x00008000
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

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
RESOLVE_NO_MAGICLINKS = 0x02

_EXECVEAT = {"x86_64": 322}
_CLONE = {"x86_64": 56}
_PIVOT_ROOT = {"x86_64": 155}
"""Numbers differ for what is older than 2017; other architectures than these have those of asm-generic/unistd.h."""

_GENERIC_EXECVEAT, _GENERIC_CLONE, _GENERIC_PIVOT_ROOT = 281, 220, 41
_OPENAT2 = 437
_READ_ALL = 3
_SIZE_BUFFER = 10
_STATFS_BYTES = 512
"""More than struct statfs has on any architecture (120 on x86-64)."""


@cache
def libc() -> ctypes.CDLL:
    """Give the C library; its functions leave their error in ctypes.get_errno()."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


@cache
def _holding() -> ctypes.PyDLL:
    """Give libc, called without letting go of the interpreter's lock: for a call that returns twice."""
    import ctypes

    return ctypes.PyDLL(None, use_errno=True)


def failed(path: str | None = None) -> OSError:
    """Give the error that the last call left in errno."""
    import ctypes

    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)


def words(error: OSError) -> str:
    """Say what failed, and where: path and cause, in lower case."""
    said = (error.strerror or str(error)).lower()
    return f"{error.filename}: {said}" if error.filename else said


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None, path: str | None = None) -> int:
    """Make a system call that the C library has no function for, by its number (man 2 syscall). Raises OSError.

    Numbers are passed as int, and have 31 bits.
    """
    result: int = libc().syscall(number, *arguments)
    if result < 0:
        raise failed(path)
    return result


def setns(handle: int, kind: int) -> None:
    """Move the calling thread into the namespace that `handle` is open on; `kind` is its CLONE_NEW* (man 2 setns)."""
    if libc().setns(handle, kind) != 0:
        raise failed()


def unshare(kinds: int) -> None:
    """Give the calling thread new namespaces of its own, CLONE_NEW* ored (man 2 unshare)."""
    if libc().unshare(kinds) != 0:
        raise failed()


def clone(kinds: int) -> int:
    """Make a child, as fork(2) does, that lives in new namespaces (CLONE_NEW* ored); gives its pid, and 0 in it (man 2 clone).

    With CLONE_PARENT it is a child of the caller's parent. The C library and Python are not told: the caller must have one
    thread only, and the child leaves by exec or os._exit. Raises OSError.
    """
    import ctypes
    import signal

    number = ctypes.c_long(_CLONE.get(os.uname().machine, _GENERIC_CLONE))
    nothing = ctypes.c_long(0)
    flags = ctypes.c_long(kinds | signal.SIGCHLD)
    pid: int = _holding().syscall(number, flags, nothing, nothing, nothing, nothing)
    if pid < 0:
        raise failed("clone")
    return pid


def sethostname(name: str) -> None:
    """Set the host name of the calling thread's UTS namespace, at most 64 bytes (man 2 sethostname). Raises OSError."""
    raw = os.fsencode(name)
    if libc().sethostname(raw, len(raw)) != 0:
        raise failed(f"hostname {name}")


def setdomainname(name: str) -> None:
    """Set the NIS domain name, which `docker run --domainname` sets (man 2 setdomainname). Raises OSError."""
    raw = os.fsencode(name)
    if libc().setdomainname(raw, len(raw)) != 0:
        raise failed(f"domainname {name}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of the mount namespace and put the old one on `old`; both may be `.` (man 2 pivot_root)."""
    number = _PIVOT_ROOT.get(os.uname().machine, _GENERIC_PIVOT_ROOT)
    call(number, os.fsencode(new), os.fsencode(old), path=f"pivot_root {new}")


def open_plainly(path: str) -> int:
    """Open a file for execution, never through a link of /proc/PID (exe, fd, root, cwd); gives an O_PATH descriptor.

    man 2 openat2, RESOLVE_NO_MAGICLINKS. Raises OSError: ELOOP for such a link.
    """
    from struct import pack

    how = pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS)
    return call(_OPENAT2, AT_FDCWD, os.fsencode(path), how, len(how), path=path)


def execveat(handle: int, argv: list[str], env: dict[str, str], name: str) -> None:
    """Execute the file that a descriptor is open on (man 2 execveat, AT_EMPTY_PATH). Returns never; raises OSError.

    With a descriptor that is closed on exec the kernel starts a program, and refuses a script with ENOENT.
    """
    import ctypes

    def array(texts: list[str]) -> ctypes.Array[ctypes.c_char_p]:
        return (ctypes.c_char_p * (len(texts) + 1))(*(os.fsencode(one) for one in texts), None)

    words = array(argv)
    variables = array([f"{key}={value}" for key, value in env.items()])
    number = ctypes.c_long(_EXECVEAT.get(os.uname().machine, _GENERIC_EXECVEAT))
    libc().syscall(number, ctypes.c_long(handle), b"", words, variables, ctypes.c_long(AT_EMPTY_PATH))
    raise failed(name)


def statfs_type(path: str) -> int:
    """Tell the magic number of the file system that `path` is on. f_type of statfs(2).

    It is the first word of the structure, a long everywhere but on s390. A network file system may block.
    """
    import ctypes

    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc().statfs(os.fsencode(path), answer) != 0:
        raise failed(path)
    return int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def klogctl_read() -> bytes:
    """Read the kernel's log and leave it as it is. See syslog(2), SYSLOG_ACTION_READ_ALL and _SIZE_BUFFER.

    Needs CAP_SYSLOG where kernel.dmesg_restrict is set. What is older than the ring holds is gone.
    """
    import ctypes

    size = libc().klogctl(_SIZE_BUFFER, None, 0)
    if size < 0:
        raise failed()
    text = ctypes.create_string_buffer(size)
    read = libc().klogctl(_READ_ALL, text, size)
    if read < 0:
        raise failed()
    return text.raw[:read]


_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_IDLE = 3 << 13
"""Class IDLE, and no level: the disk is ours when nobody else wants it (linux/ioprio.h)."""


def be_idle() -> None:
    """Let everybody else's reads and writes come first (man 2 ioprio_set); where that is not to be had, nothing is done."""
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        libc().syscall(number, 1, 0, _IDLE)
