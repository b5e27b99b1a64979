"""Run a command with a bound on its time and on what it prints; nothing of it is left afterwards.

posix_spawn(3) and not fork(2): threads run beside it, and a thread that has entered a namespace hands it to the child.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from dataclasses import dataclass
from typing import Literal

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_running: set[int] = set()

REAP_SECONDS = 0.2
"""How long a killed child is waited for: one in uninterruptible sleep is left to init."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What became of a command. `returncode` is -N for signal N; `seconds` is wall time.

    `status`: `ok` (it ended by itself), `timeout` and `truncated` (it was killed; what it had printed is kept), `absent`
    (no such program) or `denied`.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    status: Literal["ok", "timeout", "truncated", "absent", "denied"]
    seconds: float


def find(program: str) -> str:
    """Give the path of a program, as the fixed PATH has it; empty when there is none."""
    if "/" in program:
        return program if os.access(program, os.F_OK) else ""
    for folder in PATH.split(":"):
        path = f"{folder}/{program}"
        if os.access(path, os.F_OK):
            return path
    return ""


def run(argv: tuple[str, ...], *, deadline_seconds: float, limit_bytes: int) -> Completed:
    """Run a command without standard input, in a process group of its own and a fixed environment.

    The group is killed at the deadline, and when it has printed more than `limit_bytes`. Never raises for what the
    command is or does.
    """
    start = time.monotonic()
    path = find(argv[0])
    if not path:
        return Completed(127, b"", b"", "absent", 0.0)
    pipes = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, pipes[0][1], 1),
        (os.POSIX_SPAWN_DUP2, pipes[1][1], 2),
    ]
    try:
        child = os.posix_spawn(path, argv, {"PATH": PATH, "LC_ALL": "C"}, file_actions=actions, setpgroup=0)
    except OSError:
        for pipe in pipes:
            os.close(pipe[0])
        return Completed(126, b"", b"", "denied", time.monotonic() - start)
    finally:
        for pipe in pipes:
            os.close(pipe[1])
    _running.add(child)
    try:
        printed, status = _read([pipe[0] for pipe in pipes], start + deadline_seconds, limit_bytes)
    finally:
        for pipe in pipes:
            os.close(pipe[0])
    code, ended = _reap(child, start + deadline_seconds if status == "ok" else 0.0)
    _running.discard(child)
    if not ended:
        status = "timeout" if status == "ok" else status
    return Completed(code, printed[0], printed[1], status, time.monotonic() - start)


def kill_all() -> None:
    """Kill every command that still runs: whoever waits for it on another thread has been given up."""
    for child in list(_running):
        _kill(child)


def _read(handles: list[int], until: float, limit: int) -> tuple[list[bytes], Literal["ok", "timeout", "truncated"]]:
    """Read both streams until they end, the time is up, or too much has come."""
    parts: list[list[bytes]] = [[] for _ in handles]
    size = 0
    with selectors.PollSelector() as poller:
        for number, handle in enumerate(handles):
            poller.register(handle, selectors.EVENT_READ, number)
        while poller.get_map():
            left = until - time.monotonic()
            if left <= 0:
                return [b"".join(part) for part in parts], "timeout"
            for key, _ in poller.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    poller.unregister(key.fd)
                    continue
                parts[key.data].append(data)
                size += len(data)
            if size > limit:
                return [b"".join(part)[:limit] for part in parts], "truncated"
    return [b"".join(part) for part in parts], "ok"


def _reap(child: int, until: float) -> tuple[int, bool]:
    """Wait for the child until a time, then kill its group. Gives its code, and whether it ended by itself."""
    ended = True
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            # Grandchildren that it left behind go too: nothing of a command outlives it.
            _kill(child)
            return os.waitstatus_to_exitcode(status), ended
        now = time.monotonic()
        if now >= until and ended:
            ended = False
            _kill(child)
            until = now + REAP_SECONDS
        elif now >= until:
            return -signal.SIGKILL, False
        time.sleep(0.0005)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
