"""A lab's host as `doctor check` reads it: what any host is, but for what belongs to the whole machine.

And one thing costs less: what reads every network namespace is a fork of this process, where `doctor check` on a machine
starts an interpreter for it. A replay looks three times, and each start was more work than all checks together.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from doctor.host import LocalHost
from doctor.linux import spawn, survey
from doctor.linux.frames import MODULES

if TYPE_CHECKING:
    from collections.abc import Callable


_CHUNK = 1 << 20


class LabHost(LocalHost):
    """The host that this process is in. Its namespaces hold all but the kernel's log, which is the machine's."""

    def __init__(self) -> None:
        """Fork who is to read the network namespaces, for the caller has one thread now. Raises OSError."""
        super().__init__()
        self._surveyor = _Surveyor()

    def kernel_log(self) -> bytes:
        """Give an empty log: what the machine's kernel says is of no host in here, and tells of the machine."""
        return b""

    def survey(self, sandboxes: str, seconds: float, held: Callable[[], None]) -> spawn.Completed:
        """See `Host.survey`."""
        # What it may take itself is a little less: then it says what did not come back.
        modules = ",".join(module for module in MODULES if self.has_module(module))
        words = (sandboxes, modules, f"{seconds - min(0.2, seconds / 5):.3f}")
        return self._surveyor.ask(words, seconds, held)


class _Surveyor:
    """A fork that waits for its arguments, makes one survey (`doctor.linux.survey`), and ends."""

    def __init__(self) -> None:
        theirs, self._give = os.pipe2(os.O_CLOEXEC)
        self._take, answers = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._give)
            os.close(self._take)
            _survey(theirs, answers)
        os.close(theirs)
        os.close(answers)

    def ask(self, words: tuple[str, str, str], seconds: float, held: Callable[[], None]) -> spawn.Completed:
        """Have the survey made: `held` waits until it may begin. What was printed until a time-out is kept."""
        begun = time.monotonic()
        status: spawn.Status = "timeout"
        parts = []
        try:
            os.write(self._give, "\0".join(words).encode("utf-8", "surrogateescape") + b"\n")
            held()
            os.write(self._give, b"\n")
            while (left := begun + seconds - time.monotonic()) > 0:
                if not select.select([self._take], [], [], left)[0]:
                    break
                data = os.read(self._take, _CHUNK)
                if not data:
                    status = "ok"
                    break
                parts.append(data)
        except BrokenPipeError:
            status = "ok"  # its exit code says why
        finally:
            code = self._end(kill=status != "ok")
        return spawn.Completed(code, b"".join(parts), b"", status, time.monotonic() - begun)

    def _end(self, *, kill: bool) -> int:
        os.close(self._give)
        os.close(self._take)
        with suppress(ProcessLookupError):
            if kill:
                os.kill(self._pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _survey(source: int, answers: int) -> NoReturn:
    """Be the fork: take arguments and descriptors as the program has them. A caller that ends, ends it too."""
    code = 1
    try:
        os.dup2(source, 0)
        os.dup2(answers, 1)
        os.closerange(3, 1 << 16)
        words = bytearray()
        while (one := os.read(0, 1)) != b"\n":
            if not one:
                os._exit(0)
            words += one
        sys.argv[1:] = words.decode("utf-8", "surrogateescape").split("\0")
        survey.main()
        code = 0
    finally:
        os._exit(code)
