"""Run a command within bounds of time and bytes, and leave nothing of it behind.

The child is made with posix_spawn(3), never fork(2): threads run beside it, and a child spawned by a thread that did
setns(2) lives in that thread's namespaces. It is the leader of a process group, and the group is killed: at the
deadline, at the limit, and when the leader has ended, so that what it left in the background cannot hold the pipe.
A child that sits in the kernel (state D) outlives its SIGKILL: it is abandoned, and reaped by a later call.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import time
from collections import deque
from errno import EACCES, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Status = Literal["ok", "timeout", "truncated", "absent", "denied"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""Where commands are looked up: the last is where NixOS has them all."""
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}

_CHUNK = 1 << 16
_SLICE = 0.01
"""Seconds between two looks at a child where the kernel has no pidfd_open(2) (before 5.3, or seccomp forbids it)."""

_LAST = 0.25
"""Seconds that a killed child has to go before it is abandoned."""

_STDERR = 2

_running: set[int] = set()
_abandoned: deque[int] = deque()


class Completed(NamedTuple):
    """How a command ended.

    `returncode` is negative for a signal, 127 for `absent`, 126 for `denied` (there, and could not be started; `stderr`
    says why). What was printed until a `timeout` or up to the limit (`truncated`) is kept.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    status: Status
    seconds: float


def run(
    argv: Sequence[str],
    *,
    deadline_seconds: float,
    limit_bytes: int,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    own_group: bool = True,
    held: Callable[[], None] | None = None,
) -> Completed:
    """Run a command and wait for its end, at most `deadline_seconds`; keep at most `limit_bytes` of both outputs.

    `argv[0]` is looked up in PATH as this module has it. The child's environment is ENVIRONMENT and what `env` adds. It
    reads `stdin` from a file in memory, /dev/null when empty. Without a group of its own it stays in the caller's, and
    only itself is killed: for a caller that is killed by group. With `held` its stdin is a pipe that ends when `held`
    returns: an interpreter can start meanwhile. Raises nothing for what the command is or does.
    """
    begun = time.monotonic()
    _reap_abandoned()
    path, code = _find(argv[0])
    if path:
        try:
            source, gate = os.pipe() if held is not None else (_input(stdin), -1)
            try:
                child = _Child(path, argv, source, {**ENVIRONMENT, **(env or {})}, limit_bytes, own_group=own_group)
                if held is not None:
                    held()
            finally:
                if gate >= 0:
                    os.close(gate)
        except OSError as error:
            code = error.errno or EACCES
        else:
            status = child.follow(begun + deadline_seconds)
            returncode = child.end()
            out, err = (b"".join(parts) for parts in child.kept)
            return Completed(returncode, out, err, status, time.monotonic() - begun)
    why = os.strerror(code).lower().encode()
    if code in {ENOENT, ENOTDIR}:
        return Completed(127, b"", why, "absent", time.monotonic() - begun)
    return Completed(126, b"", why, "denied", time.monotonic() - begun)


def own(module: str, *arguments: str) -> tuple[str, ...]:
    """Give the command that runs `main` of a module of doctor's in a process of its own.

    Such a module needs the standard library alone: the interpreter is started without site-packages, without what the
    environment says, and writes no byte code.
    """
    start = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; main()"
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - no import for one name
    return (sys.executable, "-I", "-S", "-B", "-c", start, package, *arguments)


def kill_all() -> None:
    """Kill every command that still runs: whoever waits for it, on another thread, has been given up."""
    for leader in list(_running):
        _kill(leader)


def _find(name: str) -> tuple[str, int]:
    """Look a command up as execvp(3) does; gives its path, or an empty one and the errno that says why not.

    Python holds its global lock over posix_spawn(3), until the exec: a file system that hangs is met here, without it.
    """
    code = ENOENT
    for folder in [""] if "/" in name else PATH.split(":"):
        path = f"{folder}/{name}" if folder else name
        try:
            about = os.stat(path)  # noqa: PTH116 - six looks a command
        except OSError as error:
            if error.errno not in {ENOENT, ENOTDIR}:
                code = error.errno or code
            continue
        if stat.S_ISREG(about.st_mode) and os.access(path, os.X_OK):
            return path, 0
        code = EACCES
    return "", code


class _Child:
    """A running command and the pipes it writes to."""

    def __init__(
        self, path: str, argv: Sequence[str], source: int, env: Mapping[str, str], limit: int, *, own_group: bool
    ) -> None:
        """Start it; its stdin is `source`, which is closed here. Raises OSError when it cannot, with nothing left open."""
        self._kill = _kill if own_group else _kill_one
        self.kept: tuple[list[bytes], list[bytes]] = ([], [])
        self._left = limit
        self._open: dict[int, list[bytes]] = {}
        self._poll = select.poll()
        ours: list[int] = []
        try:
            source = _above(source)
            ours.append(source)
            actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, source, 0)]
            for number, parts in enumerate(self.kept, 1):
                reading, writing = os.pipe()
                self._open[reading] = parts
                writing = _above(writing)
                ours.append(writing)
                actions.append((os.POSIX_SPAWN_DUP2, writing, number))
            self.pid = os.posix_spawn(
                path,
                list(argv),
                dict(env),
                file_actions=actions,
                setpgroup=0 if own_group else os.getpgrp(),
                setsigmask=(),
                # Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over exec.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except BaseException:
            for handle in self._open:
                os.close(handle)
            raise
        finally:
            for handle in ours:
                os.close(handle)
        if own_group:
            _running.add(self.pid)
        for handle in self._open:
            self._poll.register(handle, select.POLLIN)
        try:
            self._pidfd = os.pidfd_open(self.pid)
            self._poll.register(self._pidfd, select.POLLIN)
        except OSError:
            self._pidfd = -1

    def follow(self, until: float) -> Status:
        """Read until the leader has ended, or a bound is met. A command that closed its outputs may still be at work."""
        while (left := until - time.monotonic()) > 0:
            if self._pidfd < 0:
                left = min(left, _SLICE)
            ready = {handle for handle, _ in self._poll.poll(left * 1000)}
            ended = self._pidfd in ready if self._pidfd >= 0 else self._ended()
            if not self._read(ready):
                return "truncated"
            if ended:
                # The group goes first: nobody writes any more, and what is in the pipes is all there is.
                self._kill(self.pid)
                return "ok" if self._drain() else "truncated"
        return "timeout"

    def _read(self, ready: set[int]) -> bool:
        """Take what the pipes hold, one chunk each; False when that was more than the limit."""
        for handle in ready & self._open.keys():
            chunk = os.read(handle, _CHUNK)
            if not chunk:
                self._poll.unregister(handle)
                del self._open[handle]
                os.close(handle)
                continue
            self._open[handle].append(chunk[: self._left])
            if len(chunk) > self._left:
                self._left = 0
                return False
            self._left -= len(chunk)
        return True

    def _drain(self) -> bool:
        """Take what is left in the pipes without waiting: a process that left the group may hold them for ever."""
        while ready := {handle for handle, _ in self._poll.poll(0)} & self._open.keys():
            if not self._read(ready):
                return False
        return True

    def _ended(self) -> bool:
        """Whether the leader has ended; it is left a zombie, so that its pid and group stay ours to kill."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def end(self) -> int:
        """Kill what runs, close everything, reap; gives the exit status as `Completed` has it."""
        self._kill(self.pid)
        for handle in self._open:
            self._poll.unregister(handle)
            os.close(handle)
        until = time.monotonic() + _LAST
        while not self._ended():
            left = until - time.monotonic()
            if left <= 0:
                break
            # The pipes are closed and off the list: only the pidfd, if there is one, can be ready.
            self._poll.poll((left if self._pidfd >= 0 else min(left, _SLICE)) * 1000)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        _running.discard(self.pid)  # first: what is reaped may be given to another process
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0  # SIGCHLD is ignored, by whoever started us: the kernel reaped it, and its status is lost
        if pid == 0:
            _abandoned.append(self.pid)
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status)


def _kill(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left, or all that are changed their user


def _kill_one(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # as above; it is not reaped yet, so the pid is still its own


def _input(data: bytes) -> int:
    if not data:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    handle = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.lseek(handle, 0, os.SEEK_SET)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _above(handle: int) -> int:
    """Move a descriptor away from 0, 1 and 2, where it is when ours were closed: there the child's would overwrite it."""
    if handle > _STDERR:
        return handle
    import fcntl

    try:
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(handle)


def _reap_abandoned() -> None:
    """Reap what has gone by now; a pid is taken off first, so that no other thread waits for one that is given anew."""
    for _ in range(len(_abandoned)):
        try:
            pid = _abandoned.popleft()
        except IndexError:
            return
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                _abandoned.append(pid)
        except ChildProcessError:
            continue
