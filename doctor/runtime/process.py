"""A process as others see it: its name, its command line; and what a child that was forked must put right."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux import privileges

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterable

_FIRST = 3
"""The number of the first field after the name in /proc/PID/stat (proc_pid_stat(5))."""

_SMALL = 1 << 16

_kept: list[object] = []
"""Memory that the kernel reads a command line from: never freed."""


def set_title(comm: str, argv: Iterable[str]) -> None:
    """Let /proc/self/comm and /proc/self/cmdline of the calling process say something else.

    What was forked and never executed anything has the command line of its parent; whoever looks for a daemon by its
    arguments must find it. The kernel is told that they are elsewhere; where it cannot be told (no
    CONFIG_CHECKPOINT_RESTORE), what is there is overwritten, and cut where it ended.
    """
    import ctypes

    privileges.set_comm(comm)
    text = b"\0".join(os.fsencode(one) for one in argv) + b"\0"
    memory = ctypes.create_string_buffer(text, len(text))
    _kept.append(memory)
    start = ctypes.addressof(memory)
    held = _layout()
    top = _heap().sbrk(0) or held.heap
    places = (*held.code, *held.data, held.heap, top, held.stack, start, start + len(text), *held.environment, 0)
    try:
        privileges.set_memory_map(pack("=12QII", *places, 0, 0xFFFFFFFF))
    except OSError:
        first, end = held.arguments
        room = end - first
        ctypes.memmove(first, text[: room - 1].ljust(room, b"\0"), room)


class _Layout(NamedTuple):
    """Where the parts of the program are, from the first word of each to the last."""

    code: tuple[int, int]
    data: tuple[int, int]
    heap: int
    stack: int
    arguments: tuple[int, int]
    environment: tuple[int, int]


@cache
def _layout() -> _Layout:
    """Read it once: a child that was forked has the same."""
    fields = [0] * _FIRST + [int(one) if one.isdigit() else 0 for one in _stat("self")]
    return _Layout(
        (fields[26], fields[27]),
        (fields[45], fields[46]),
        fields[47],
        fields[28],
        (fields[48], fields[49]),
        (fields[50], fields[51]),
    )


@cache
def _heap() -> ctypes.CDLL:
    import ctypes

    library = ctypes.CDLL(None)
    library.sbrk.restype = ctypes.c_void_p
    return library


def close_others(kept: Iterable[int]) -> None:
    """Close every descriptor from 3 on but these (man 2 close_range)."""
    first = 3
    for handle in sorted(set(kept)):
        if handle >= first:
            os.closerange(first, handle)
            first = handle + 1
    os.closerange(first, 1 << 20)


def default_signals() -> None:
    """Undo what the parent set: handlers, what is ignored (it would stay so over exec), what is blocked."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def small(path: str) -> str:
    """Read a small file of the kernel's in one call. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, _SMALL).decode("utf-8", "replace")
    finally:
        os.close(handle)


def own_streams() -> None:
    """Let sys.stdin, stdout and stderr be descriptors 0, 1 and 2: the parent may have had others in their place."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 - they stay open
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above


def start_time(pid: int | str) -> str:
    """Give when a process started, in ticks since boot: with its pid it names a process for good. Raises OSError."""
    return _stat(pid)[22 - _FIRST]


def _stat(pid: int | str) -> list[str]:
    """Give the fields after the name in /proc/PID/stat. Raises OSError."""
    return small(f"/proc/{pid}/stat").rpartition(")")[2].split()
