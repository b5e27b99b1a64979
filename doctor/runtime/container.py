"""A container as an OCI runtime has it: create, start, exec, kill, wait, delete; creating, created, running, stopped.

    container = Container.create(oci.default(("true",), rootfs="/srv/rootfs"), id="one")
    ...                                    # /proc/PID/ns/net is there: links can be put into it
    container.start()
    code = container.wait()                # 128+n for a signal, as a shell and docker say it
    container.delete()

The caller is root in its user namespace and the parent of the container's first process. It may have threads, but then a
process is forked in between.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NoReturn, Self

from doctor.linux import privileges, syscalls
from doctor.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    CLONE_PARENT,
)
from doctor.runtime import cgroups, control, launch
from doctor.runtime.process import close_others, default_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.runtime.mounts import Overlay
    from doctor.runtime.oci import Config, Process

State = Literal["creating", "created", "running", "stopped"]
Stdio = tuple[int, int, int]

KINDS = {
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "mount": CLONE_NEWNS,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
_JOINED = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP


class ContainerError(Exception):
    """What could not be done with a container: the words of runc where it has some, and docker's exit code for it."""

    def __init__(self, text: str, code: int = launch.ENGINE) -> None:
        """Keep both."""
        super().__init__(text)
        self.code = code


class Program:
    """A process of a container that is ours to wait for; `console` is the master of its terminal, or -1."""

    def __init__(self, pid: int, console: int = -1) -> None:
        """Watch a child."""
        self.pid, self.console = pid, console
        self.pidfd = os.pidfd_open(pid)
        self._code: int | None = None

    def fileno(self) -> int:
        """Give a descriptor that is readable when it has ended."""
        return self.pidfd

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code, 128+n for a signal. Raises TimeoutError."""
        if self._code is None:
            if timeout is not None and not select.select([self.pidfd], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} still runs")
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._code = code if code >= 0 else 128 - code
        return self._code

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._code is not None or bool(select.select([self.pidfd], [], [], 0)[0])

    def kill(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal; nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Let go of its descriptors."""
        for handle in (self.pidfd, self.console):
            if handle >= 0:
                os.close(handle)
        self.pidfd = self.console = -1


class Container(Program):
    """A container by its first process."""

    def __init__(self, name: str, config: Config, pid: int, sync: socket.socket, groups: list[str]) -> None:
        """Follow a process that is about to be a container, in its control groups; `create` makes one."""
        super().__init__(pid)
        self.id, self.config, self._groups = name, config, groups
        self.network = -1
        """Once it is created, a descriptor of its network namespace, which it handed over itself; -1 where it has no new one.

        Before its program runs, /proc/PID/ns of a process that may not be looked into is closed to all without rights over
        the whole machine (ptrace(2)), its own maker in a user namespace among them.
        """
        self._sync: socket.socket | None = sync
        self._started = False
        self._is_created = False

    @classmethod
    def create(
        cls,
        config: Config,
        *,
        id: str,  # noqa: A002 - the specification's word
        stdio: Stdio | None = None,
        bundle: str = ".",
        overlay: Overlay | None = None,
        init: bool = False,
        wait: bool = True,
    ) -> Self:
        """Make a container whose process stands before its program, in its namespaces, with its root.

        Descriptors of `stdio` are the caller's own 0, 1 and 2 by default; a terminal takes their place. `overlay` is mounted
        on the root path, inside. `init` puts a first process before the program, that reaps. Without `wait` this returns
        at once: many are made side by side, and `created` waits for each. Raises ContainerError.
        """
        root = os.path.join(os.path.abspath(bundle), config.root.path)  # noqa: PTH100, PTH118 - a path may be any text
        kinds = 0
        joined: list[tuple[int, int]] = []
        groups: list[str] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if config.linux.cgroups_path:
                groups = cgroups.limit(config.linux.cgroups_path, config.linux.resources)
            for one in config.linux.namespaces:
                if one.path:
                    joined.append((os.open(one.path, os.O_RDONLY | os.O_CLOEXEC), KINDS[one.type]))
                else:
                    kinds |= KINDS[one.type]
            late = kinds & CLONE_NEWCGROUP if groups else 0

            def first() -> None:
                if groups:
                    cgroups.enter(groups)
                if late:
                    syscalls.unshare(late)
                for handle, kind in joined:
                    if kind not in {CLONE_NEWPID, CLONE_NEWUSER}:
                        syscalls.setns(handle, kind)
                network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC) if kinds & CLONE_NEWNET else -1
                launch.be_first(config, root, overlay, theirs, stdio or (0, 1, 2), network, init=init)

            early = [(handle, kind) for handle, kind in joined if kind in {CLONE_NEWPID, CLONE_NEWUSER}]
            kept = [theirs.fileno(), *(handle for handle, _ in joined), *(stdio or ())]
            # Alone in its pid namespace nobody sees it, and its own /proc/PID/ns must be open to who gives it a network.
            hidden = not kinds & CLONE_NEWPID and os.access("/proc/self/exe", os.W_OK)
            pid = _born(kinds & ~late, early, kept, first, hidden=hidden)
        except OSError as error:
            ours.close()
            cgroups.remove(groups)
            raise ContainerError(syscalls.words(error)) from None
        finally:
            theirs.close()
            for handle, _ in joined:
                os.close(handle)
        container = cls(id, config, pid, ours, groups)
        if wait:
            container.created()
        return container

    @property
    def state(self) -> State:
        """Say as the specification does what it is doing."""
        if self.ended():
            return "stopped"
        if self._started:
            return "running"
        return "created" if self._is_created else "creating"

    def created(self) -> int:
        """Wait until it stands before its program; gives its pid. Raises ContainerError: 126 and 127 for the program."""
        if self._is_created or self._sync is None:
            return self.pid
        message, handles = control.receive(self._sync, launch.SHORT)
        if not message.get("created"):
            self._fail(message)
        self._is_created = True
        if message.get("network"):
            self.network = handles.pop(0)
        if handles:
            self.console = handles[0]
        return self.pid

    def start(self) -> None:
        """Let it execute its program, and wait until it has. What stops it then is said on its own stderr: exit code 255."""
        if self._sync is None:
            raise ContainerError(f"cannot start a container in the {self.state} state")
        self.created()
        with suppress(OSError):
            control.send(self._sync, {"do": "start"})
        self._started = True
        message, _ = control.receive(self._sync, launch.SHORT)
        self._sync.close()
        self._sync = None
        if message.get("code", launch.BROKEN) != launch.BROKEN:
            self._fail(message)

    def _fail(self, message: dict[str, object]) -> NoReturn:
        self.kill(signal.SIGKILL)
        self.wait()
        if self._sync is not None:
            self._sync.close()
            self._sync = None
        cgroups.remove(self._groups)
        code = message.get("code")
        text = str(message.get("error", "the process ended while the container was made"))
        raise ContainerError(text, code if isinstance(code, int) else launch.ENGINE)

    def exec(self, process: Process, stdio: Stdio | None = None) -> Program:
        """Start another process in a container that runs. Raises ContainerError: 126 and 127 for the program."""
        if self.state != "running":
            raise ContainerError(f"cannot exec in a {self.state} container")
        return join(self.pidfd, process, stdio, self._groups)

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of it for want of memory; only with a limit."""
        return cgroups.killed_for_memory(self._groups)

    def delete(self, *, force: bool = False) -> None:
        """Forget a container that has stopped; `force` kills one that has not. Raises ContainerError."""
        if not self.ended():
            if not force:
                raise ContainerError(f"cannot delete container {self.id} that is not stopped: {self.state}")
            self.kill(signal.SIGKILL)
        self.wait()
        if self._sync is not None:
            self._sync.close()
            self._sync = None
        cgroups.remove(self._groups)
        self.close()

    def close(self) -> None:
        """Let go of its descriptors."""
        super().close()
        if self.network >= 0:
            os.close(self.network)
            self.network = -1


def join(pidfd: int, process: Process, stdio: Stdio | None = None, groups: Iterable[str] = ()) -> Program:
    """Start a process in the namespaces and groups of another; it is a child of the caller. Raises ContainerError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = [theirs.fileno(), pidfd, *(stdio or ())]

    def joined() -> None:
        launch.join(process, theirs, stdio or (0, 1, 2))

    try:
        pid = _born(0, [(pidfd, _JOINED)], kept, joined, groups, hidden=True)
    except OSError as error:
        ours.close()
        raise ContainerError(f"cannot enter the container: {syscalls.words(error)}") from None
    finally:
        theirs.close()
    program = Program(pid)
    console = -1
    with ours:
        while True:
            message, handles = control.receive(ours, launch.SHORT)
            if not message:
                break
            if handles:
                console = handles[0]
            if "error" in message and message.get("code") != launch.BROKEN:
                program.wait()
                program.close()
                raise ContainerError(str(message["error"]), int(message.get("code", launch.ENGINE)))
    program.console = console
    return program


def _born(
    kinds: int,
    early: list[tuple[int, int]],
    kept: Iterable[int],
    function: Callable[[], None],
    groups: Iterable[str] = (),
    *,
    hidden: bool,
) -> int:
    """Make a child of the caller's in new namespaces and, of `early`, in those that only a child's child can be in.

    One that is `hidden` cannot be looked into by who is in its pid namespace already; in a user namespace, not by us either.
    """
    if not early and len(os.listdir("/proc/self/task")) == 1:  # noqa: PTH208 - names
        pid = syscalls.clone(kinds)
        if pid == 0:
            _run(function, kept, hidden=hidden)
        return pid
    reading, writing = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            privileges.dumpable(on=not hidden)
            cgroups.enter(groups)
            for handle, kind in early:
                syscalls.setns(handle, kind)
            pid = syscalls.clone(kinds | CLONE_PARENT)
            if pid == 0:
                _run(function, kept, hidden=hidden)
            os.write(writing, str(pid).encode())
        except OSError as error:
            os.write(writing, f"-{error.errno}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        answer = int(os.read(reading, 64) or b"-5")
    finally:
        os.close(reading)
        os.waitpid(middle, 0)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer).lower())
    return answer


def _run(function: Callable[[], None], kept: Iterable[int], *, hidden: bool) -> NoReturn:
    code = launch.BROKEN
    try:
        gc.disable()  # it would look at, and so copy, all that the parent has
        privileges.dumpable(on=not hidden)
        signal.set_wakeup_fd(-1)
        default_signals()
        close_others(kept)
        function()
    except BaseException as error:  # noqa: BLE001 - a forked child leaves here, whatever happened
        with suppress(OSError):
            os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        os._exit(code)
