"""Where commands of a lab run: its host, or the machine beside it; and a command that runs there."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from doctor.runtime import control

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECONDS = 30.0
_CHUNK = 1 << 16


class LabError(Exception):
    """A lab that could not be brought up, or asked: what failed, and what to do."""


class Completed(NamedTuple):
    """How a command ended: 128+n for a signal, 127 where there is none of that name."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Spawned:
    """A command that runs in a lab; `pid` is as the lab sees it, `master` its terminal or -1."""

    def __init__(self, sock: socket.socket, pid: int, master: int) -> None:
        """Take over the connection: when it is closed, the command ends."""
        self._sock, self.pid, self.master = sock, pid, master
        self._code: int | None = None

    def fileno(self) -> int:
        """Give a descriptor that is readable when the command has ended."""
        return self._sock.fileno()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and give the exit code: 128+n for a signal. Raises TimeoutError, LabError."""
        if self._code is None:
            self._sock.settimeout(timeout)
            message, _ = control.receive(self._sock)
            if "exit" not in message:
                raise LabError(str(message.get("error", "the lab has gone")))
            self._code = int(message["exit"])
        return self._code

    def kill(self, number: int = signal.SIGTERM) -> None:
        """Send it, and its process group, a signal."""
        control.send(self._sock, {"do": "kill", "signal": int(number)})

    def close(self) -> None:
        """Let it go: what still runs is killed."""
        self._sock.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


class Place:
    """Where commands run: the host, or the machine beside it."""

    def __init__(self, name: str, where: str) -> None:
        """Be a place of the lab of this name."""
        self._name, self._where = name, where

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        tty: bool = False,
        builtin: bool = False,
    ) -> Spawned:
        """Start a command; a descriptor None is /dev/null, `builtin` a function that the holder has. Raises LabError."""
        question = {
            "do": "builtin" if builtin else "spawn",
            "argv": list(argv),
            "env": dict(env) if env is not None else {},
            "cwd": cwd,
            "where": self._where,
            "tty": tty,
        }
        empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        sock = connect(self._name)
        try:
            handles = [empty if one is None else one for one in (stdin, stdout, stderr)]
            control.send(sock, question, [] if tty else handles)
            answer, given = control.receive(sock)
            if "pid" not in answer:
                raise LabError(str(answer.get("error", "the lab has gone")))  # noqa: TRY301 - the socket is closed below
            return Spawned(sock, int(answer["pid"]), given[0] if given else -1)
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(empty)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        timeout: float = _SECONDS,
        builtin: bool = False,
    ) -> Completed:
        """Run a command to its end, at most `timeout` seconds. Raises LabError, TimeoutError (it was killed)."""
        source = os.memfd_create("stdin", os.MFD_CLOEXEC)
        pipes = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
        reading = [pair[0] for pair in pipes]
        try:
            try:
                os.pwrite(source, stdin, 0)
                running = self.spawn(
                    argv, stdin=source, stdout=pipes[0][1], stderr=pipes[1][1], env=env, cwd=cwd, builtin=builtin
                )
            finally:
                for _, writing in pipes:
                    os.close(writing)
            try:
                return _follow(running, reading, time.monotonic() + timeout, argv[0])
            finally:
                running.close()
        finally:
            for handle in (source, *reading):
                os.close(handle)


def _follow(running: Spawned, reading: list[int], until: float, name: str) -> Completed:
    """Collect what a command prints until it has ended; what it left in the background does not hold us."""
    kept: dict[int, list[bytes]] = {handle: [] for handle in reading}
    open_ = set(reading)
    code: int | None = None
    while code is None or open_:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{name}: did not end in time")
        asked = [*open_, *([running.fileno()] if code is None else [])]
        ready = select.select(asked, [], [], left if code is None else 0)[0]
        if not ready and code is not None:
            break
        for one in ready:
            if one not in kept:
                code = running.wait()
            elif chunk := os.read(one, _CHUNK):
                kept[one].append(chunk)
            else:
                open_.discard(one)
    return Completed(code, *(b"".join(kept[handle]) for handle in reading))


def connect(name: str) -> socket.socket:
    """Connect to the holder of a lab of this user. Raises LabError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(control.address(name, os.geteuid()))
    except OSError:
        sock.close()
        raise LabError(f"{name}: is not up") from None
    if control.peer(sock) != os.geteuid():
        sock.close()
        raise LabError(f"{name}: its name is taken by another user")
    return sock
