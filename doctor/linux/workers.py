"""Processes of our own that work side by side: each is given one line at a time, and answers in lines, then an empty one.

For work that takes minutes on all cores, beside `spawn.run` for what ends within a bound. A worker that dies costs the
line it was at. Its standard input ends with us, and then it ends: nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from doctor.linux.spawn import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CHUNK = 1 << 16
_GRACE = 5.0
"""Seconds that a worker has beyond the time that it was told, before it is killed."""


def command(module: str) -> tuple[str, ...]:
    """Give the command that runs `main` of a module in a process of its own, with the packages that we have.

    The interpreter takes nothing from the environment or the present directory.
    """
    start = f"import sys; sys.path[:] = sys.argv.pop(1).split(':'); from {module} import main; main()"
    paths = [path for path in sys.path if path.startswith("/")]
    return (sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", start, ":".join(paths))


class _Worker:
    """One process, the line that it is at, and what it has said of it."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        """Start it. Raises OSError."""
        theirs, self.give = os.pipe()
        self.take, answers = os.pipe()
        try:
            self.pid = os.posix_spawn(
                argv[0],
                list(argv),
                dict(ENVIRONMENT),
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0), (os.POSIX_SPAWN_DUP2, answers, 1)],
                setsigmask=(),
                setsigdef=(signal.SIGPIPE,),
            )
        finally:
            os.close(theirs)
            os.close(answers)
        self.number = -1
        self.rest = b""

    def hand(self, number: int, line: bytes) -> bool:
        """Give it a line; False when it is gone."""
        self.number = number
        try:
            rest = memoryview(line + b"\n")
            while rest:
                rest = rest[os.write(self.give, rest) :]
        except BrokenPipeError:
            return False
        return True

    def lines(self) -> list[bytes] | None:
        """Take what it said, as whole lines; None when it is gone."""
        data = os.read(self.take, _CHUNK)
        if not data:
            return None
        *whole, self.rest = (self.rest + data).split(b"\n")
        return whole

    def end(self) -> None:
        """Close its pipes, kill and reap it."""
        os.close(self.give)
        os.close(self.take)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def run(
    argv: tuple[str, ...],
    lines: Iterable[bytes],
    jobs: int,
    said: Callable[[int, bytes], None],
    lost: Callable[[int], None],
    until: float = 0.0,
) -> None:
    """Have `jobs` processes work through lines, in their order; each takes the next when it is done with one.

    `said` is given the number of a line and one line of its answer, `lost` the number of one whose worker died or was
    killed because it went on for long after `until` (time.monotonic; 0: never). Raises OSError when none can be started.
    """
    pool = _Pool(argv, lines, said, lost)
    try:
        while len(pool.workers) < jobs and pool.hire():
            pass
        while pool.workers:
            left = until + _GRACE - time.monotonic() if until else 1.0
            if left <= 0:
                for one in list(pool.workers.values()):
                    pool.leave(one)
                    lost(one.number)
                for number, _ in pool.todo:
                    lost(number)
                return
            pool.listen(min(left, 1.0))
    finally:
        for one in list(pool.workers.values()):
            pool.leave(one)


class _Pool:
    def __init__(
        self,
        argv: tuple[str, ...],
        lines: Iterable[bytes],
        said: Callable[[int, bytes], None],
        lost: Callable[[int], None],
    ) -> None:
        self.argv = argv
        self.todo = iter(enumerate(lines))
        self.said = said
        self.lost = lost
        self.poll = select.poll()
        self.workers: dict[int, _Worker] = {}

    def hire(self) -> bool:
        """Start a worker and give it the next line; False when there is none."""
        following = next(self.todo, None)
        if following is None:
            return False
        one = _Worker(self.argv)
        self.workers[one.take] = one
        self.poll.register(one.take, select.POLLIN)
        if not one.hand(*following):
            self._lose(one)
        return True

    def leave(self, one: _Worker) -> None:
        """Let a worker go."""
        self.poll.unregister(one.take)
        del self.workers[one.take]
        one.end()

    def _lose(self, one: _Worker) -> None:
        self.leave(one)
        self.lost(one.number)
        self.hire()

    def listen(self, seconds: float) -> None:
        """Wait for answers, and take them."""
        for handle, _ in self.poll.poll(seconds * 1000):
            one = self.workers.get(handle)
            if one is None:
                continue
            whole = one.lines()
            if whole is None:
                self._lose(one)
                continue
            for line in whole:
                if line:
                    self.said(one.number, line)
                else:
                    self._next(one)

    def _next(self, one: _Worker) -> None:
        following = next(self.todo, None)
        if following is None:
            self.leave(one)
        elif not one.hand(*following):
            self._lose(one)
