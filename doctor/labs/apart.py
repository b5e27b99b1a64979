"""Functions run by forks of this process elsewhere: each enters other namespaces, and hands its answer back in a pipe.

No interpreter is started: what is imported here is imported there. Whoever forks has no second thread that holds a lock.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Job = tuple[Callable[[], object], Callable[[], bytes]]


class ApartError(Exception):
    """A function did not come back: it raised, was killed, or took too long."""


def gather(jobs: Sequence[Job], seconds: float) -> list[bytes]:
    """Run each function after its `enter`, all side by side; give what they gave, in order. Raises ApartError."""
    started = [_start(*job) for job in jobs]
    pipes = {reader: number for number, (_, reader) in enumerate(started)}
    parts: list[list[bytes]] = [[] for _ in started]
    end = time.monotonic() + seconds
    try:
        waiting = set(pipes)
        while waiting:
            ready = select.select(list(waiting), [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                raise ApartError(f"did not come back in {seconds:.1f} s")
            for reader in ready:
                data = os.read(reader, 1 << 20)
                if data:
                    parts[pipes[reader]].append(data)
                else:
                    waiting.discard(reader)
    finally:
        ends = [_end(pid, reader) for pid, reader in started]
    for number, code in enumerate(ends):
        if code:
            raise ApartError(b"".join(parts[number]).decode("utf-8", "replace") or f"ended with {code}")
    return [b"".join(one) for one in parts]


def stream(functions: Sequence[Callable[[], bytes]], width: int) -> Iterator[tuple[int, bytes | ApartError]]:
    """Run functions in forks, `width` at a time; give the number and the answer of each as it comes back."""
    waiting = list(enumerate(functions))
    running: dict[int, tuple[int, int, list[bytes]]] = {}
    while waiting or running:
        while waiting and len(running) < width:
            number, function = waiting.pop(0)
            pid, reader = _start(_nowhere, function)
            running[reader] = number, pid, []
        for reader in select.select(list(running), [], [])[0]:
            number, pid, parts = running[reader]
            data = os.read(reader, 1 << 20)
            if data:
                parts.append(data)
                continue
            del running[reader]
            code = _end(pid, reader)
            said = b"".join(parts)
            yield number, ApartError(said.decode("utf-8", "replace") or f"ended with {code}") if code else said


def _nowhere() -> None:
    """Enter nothing."""


def _start(enter: Callable[[], object], function: Callable[[], bytes]) -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _work(enter, function, writer)
    os.close(writer)
    return pid, reader


def _work(enter: Callable[[], object], function: Callable[[], bytes], writer: int) -> NoReturn:
    code = 1
    try:
        enter()
        data = function()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent tells of it
        data = f"{type(error).__name__}: {error}".encode()
    try:
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(code)


def _end(pid: int, reader: int) -> int:
    """Wait for a child that is done; kill one that is not."""
    os.close(reader)
    for _ in range(200):
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
