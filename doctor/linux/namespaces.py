"""Network namespaces by path: which one a path leads to, and taking a thread there.

A thread that entered a namespace stays in it, and so do its netlink sockets and the children it spawns (posix_spawn
inherits from the calling thread). A few threads that go from one namespace to the next read 200 of them in 1 ms of
setns(2); whoever wants a thread back where it was enters that namespace again.
"""

from __future__ import annotations

import os
from errno import ESRCH
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from doctor.linux.syscalls import CLONE_NEWNET, NSFS_MAGIC, setns, statfs_type

if TYPE_CHECKING:
    from collections.abc import Callable

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a FIFO in the place of a namespace file must not hold the thread; setns(2) refuses it with EINVAL."""

_Result = TypeVar("_Result")


def namespace_id(path: str) -> int:
    """Give the inode of the namespace that `path` (`/proc/1/ns/net`, a bind mount of one) leads to. Raises OSError."""
    return os.stat(path).st_ino  # noqa: PTH116 - called for every process


def is_nsfs(path: str) -> bool:
    """Whether `path` leads to a namespace and is no plain file left over. Raises OSError."""
    return statfs_type(path) == NSFS_MAGIC


def enter(place: str | int, expected: int | None = None) -> None:
    """Take the calling thread into the network namespace at a path, or open on a file descriptor, for good.

    `expected` is its inode: when the path leads to another by now (a process ended and its pid was given away), the
    thread stays where it is and ProcessLookupError is raised. Raises OSError. Needs CAP_SYS_ADMIN.
    """
    if isinstance(place, int):
        setns(place, CLONE_NEWNET)
        return
    handle = os.open(place, _OPEN)
    try:
        same = expected is None or os.fstat(handle).st_ino == expected
        if same:
            setns(handle, CLONE_NEWNET)
    except OSError as error:
        error.filename = place
        raise
    finally:
        os.close(handle)
    if not same:
        raise ProcessLookupError(ESRCH, "another namespace by now", place)


def inside(place: str | int, function: Callable[[], _Result]) -> _Result:
    """Call `function` in the network namespace `place`, on a thread of its own, and give what it returns or raises.

    The calling thread stays where it is and waits. For one question; who has many keeps a thread and uses `enter`.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            enter(place)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that asked
            errors.append(error)

    thread = Thread(target=work, name="inside", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
