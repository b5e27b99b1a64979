"""Firewall rules by the real programs: iptables-restore, ip6tables-restore and nft, several side by side.

A program is started in the network namespace that the calling thread is in, so the rules of fifty containers are loaded
by as many processes at once, one a namespace. It reads from a memory file and writes what it has to say into another.
"""

from __future__ import annotations

import os
import signal
import time

from msgspec import Struct

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
LOCK = "/run/xtables.lock"
SECONDS = 30.0


class RestoreError(Exception):
    """A program that refused its rules; `program` and what it said."""

    def __init__(self, program: str, said: str) -> None:
        """Keep both."""
        super().__init__(f"{program}: {said}" if said else f"{program} failed")
        self.program = program
        self.said = said


class Running(Struct, frozen=True):
    """A program at work: its pid, and the descriptors of what it says."""

    program: str
    pid: int
    output: int
    errors: int


def find(name: str) -> str:
    """Give the path of a program, empty when there is none."""
    return next((path for path in (f"{folder}/{name}" for folder in FOLDERS) if os.access(path, os.X_OK)), "")


def start(argv: tuple[str, ...], text: str = "") -> Running:
    """Start a program of iptables or nft with `text` as its input. Raises RestoreError when there is none, OSError."""
    path = find(argv[0])
    if not path:
        raise RestoreError(argv[0], "no such program")
    handles = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("rules", "output", "errors")]
    try:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(handles[0], data) :]
        os.lseek(handles[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, handle, number) for number, handle in enumerate(handles)]
        pid = os.posix_spawn(
            path,
            argv,
            _environment(),
            file_actions=actions,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        )
    except BaseException:
        for handle in handles[1:]:
            os.close(handle)
        raise
    finally:
        os.close(handles[0])
    return Running(argv[0], pid, handles[1], handles[2])


def _environment() -> dict[str, str]:
    """Give what the programs need: a lock that can be had where /run is not ours (iptables(8), XTABLES_LOCKFILE)."""
    environment = {"PATH": ":".join(FOLDERS), "LC_ALL": "C"}
    if not os.access(LOCK if os.path.exists(LOCK) else "/run", os.W_OK):  # noqa: PTH110 - no import for one name
        environment["XTABLES_LOCKFILE"] = f"/tmp/xtables-{os.getuid()}.lock"  # noqa: S108 - the programs open it, O_NOFOLLOW
    return environment


def finish(running: Running) -> str:
    """Wait for a program and give what it printed. Raises RestoreError when it failed, or took too long."""
    try:
        code = _wait(running.pid)
        said = _text(running.errors)
        if code:
            raise RestoreError(running.program, said)
        return _text(running.output)
    finally:
        os.close(running.output)
        os.close(running.errors)


def finish_all(all_running: list[Running]) -> None:
    """Wait for several programs. Raises the first RestoreError, when all have ended."""
    first: RestoreError | None = None
    for one in all_running:
        try:
            finish(one)
        except RestoreError as error:
            first = first or error
    if first is not None:
        raise first


def _wait(pid: int) -> int:
    """Wait for a child; gives its exit code, 0 when somebody else has reaped it."""
    until = time.monotonic() + SECONDS
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        import select

        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 0
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(status)


def _text(handle: int) -> str:
    size = os.fstat(handle).st_size
    return os.pread(handle, size, 0).decode("utf-8", "replace").strip()
