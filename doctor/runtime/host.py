"""A host of our own: brought up in new namespaces, entered, and gone with the process that holds it.

    with Lab.up() as lab:
        lab.run(("ip", "route"))             # on the host
        lab.outside.run(("ping", "-c1", "198.51.100.2"))   # on the machine beside it

The caller forks, and nothing is executed: the holder is a copy of this process, in which everything is imported already.
A lab ends with `down`, and with its caller, whatever ends that; `detach=True` lets it live on, until it is taken down by name.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from doctor.linux import seccomp, syscalls
from doctor.linux.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    CLONE_PARENT,
)
from doctor.runtime import birth, cgroups, control, holder, hostroot, userns
from doctor.runtime.holder import Service
from doctor.runtime.place import Completed, LabError, Place, Spawned, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["Completed", "Lab", "LabError", "Place", "Service", "Spawned"]

_SECONDS = 30.0
_CHUNK = 1 << 16
_NAME_LONGEST = 60


class Lab(Place):
    """A lab's host, by the process that holds it: `pid` as the caller sees it."""

    def __init__(self, name: str, pid: int, lifeline: socket.socket | None, outside: int) -> None:
        """Know a lab that runs; `up` and `attach` give one. `outside` is the holder's descriptor of the network beside it."""
        super().__init__(name, "host")
        self.name, self.pid = name, pid
        self.outside = Place(name, "outside")
        self._lifeline, self._outside = lifeline, outside
        self._pidfd = os.pidfd_open(pid)
        self._groups = cgroups.of(pid)

    @classmethod
    def up(
        cls,
        name: str = "",
        *,
        services: Sequence[Service] = (),
        builtins: Mapping[str, Callable[[list[str]], int]] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        links: Mapping[str, str] | None = None,
        hostname: str = "",
        detach: bool = False,
        size: int = 0,
        groups: bool = False,
    ) -> Self:
        """Bring a host up, and wait until its services serve.

        Files and links are put into its root first. `size` bounds what it may write, in bytes (0: half of memory). `groups`
        lets containers have limits: it needs root. Raises LabError with what failed and what to do; nothing is left then.
        """
        name = name or _free_name()
        _check_name(name)
        programs = dict(builtins or {})
        plan = hostroot.Plan(hostname or name, files or {}, links or {}, tuple(programs), size, groups)
        if groups:
            cgroups.sweep()
        try:
            listener = control.listen(control.address(name, os.geteuid()))
        except OSError as error:
            raise LabError(f"{name}: is up already, or its name is taken: {(error.strerror or '').lower()}") from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        syscalls.libc()
        ids = userns.available() if os.geteuid() else None

        def hold(outside: int) -> holder.Holder:
            return holder.Holder(name, listener, theirs, services, programs, outside)

        try:
            with listener, theirs:
                middle = os.fork()
                if middle == 0:
                    birth.between(theirs, listener, ids, plan, hold)
            return cls._raised(name, ours, middle, ids, detach=detach, groups=groups)
        except BaseException:
            ours.close()
            raise

    @classmethod
    def _raised(
        cls, name: str, sock: socket.socket, middle: int, ids: userns.Ids | None, *, detach: bool, groups: bool
    ) -> Self:
        """Follow what the children say until the lab is up. On an error whatever was made has ended when this raises."""
        pid, failure, made = 0, "", list[str]()
        try:
            while True:
                message, _ = control.receive(sock)
                if message.get("wants") == "maps" and ids is not None:
                    error = _map(middle, ids)
                    control.send(sock, {"error": error} if error else {"mapped": True})
                elif "holder" in message:
                    pid = int(message["holder"])
                    made = _grouped(pid) if groups else []
                    with suppress(OSError):  # it has ended: what it said is read next
                        control.send(sock, {"pid": pid})
                elif message.get("ok"):
                    lab = cls(name, pid, sock, int(message["outside"]))
                    break
                elif "error" in message and not pid and not failure:
                    failure = str(
                        message["error"]
                    )  # it may be quicker than who tells its pid, which is to be waited for
                    continue
                else:
                    said = message.get("error", "the lab ended while it was brought up")
                    raise LabError(failure or str(said))  # noqa: TRY301 - as above
                if failure and pid:
                    raise LabError(failure)  # noqa: TRY301 - as above
        except BaseException:
            sock.close()
            for one in (pid, middle):
                _end(one)
            cgroups.remove(made)
            raise
        os.waitpid(middle, 0)
        if detach:
            control.send(sock, {"do": "detach"})
            sock.close()
            lab._lifeline = None
        return lab

    @classmethod
    def attach(cls, name: str) -> Self:
        """Give a lab that was brought up by another process of this user. Raises LabError."""
        with connect(name) as sock:
            control.send(sock, {"do": "about"})
            about, _ = control.receive(sock)
        if "outside" not in about:
            raise LabError(f"{name}: {about.get('error', 'the lab has gone')}")
        lab = cls(name, int(about["pid"]), None, int(about["outside"]))
        lab.ask({"do": "about"})  # it lives still: the descriptor that was opened by pid is its own
        return lab

    @staticmethod
    def names() -> list[str]:
        """List the labs of this user that are up."""
        return control.names(os.geteuid())

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it down."""
        self.down()

    @property
    def root(self) -> str:
        """The path of its root directory, for who may follow it: /proc/PID/root."""
        return f"/proc/{self.pid}/root"

    def ask(self, question: dict[str, object]) -> dict[str, object]:
        """Ask its holder one question (`control`), and give the answer. Raises LabError."""
        with connect(self.name) as sock:
            control.send(sock, question)
            answer, handles = control.receive(sock)
        for handle in handles:
            os.close(handle)
        if "error" in answer:
            raise LabError(str(answer["error"]))
        return answer

    def service(self, name: str, action: str) -> int:
        """Start, stop, restart or reload a service, and wait until it is done; gives its pid in the lab. Raises LabError."""
        pid = self.ask({"do": "service", "name": name, "action": action}).get("pid", 0)
        return pid if isinstance(pid, int) else 0

    def services(self) -> dict[str, int]:
        """Give the pids of the services, in the lab; 0 for one that has ended."""
        found = self.ask({"do": "about"}).get("services")
        return dict(found) if isinstance(found, dict) else {}

    def enter_namespaces(self, *, outside: bool = False) -> None:
        """Take the calling process into all namespaces of the host; its children will be in the pid namespace.

        For a child that was forked: it must have one thread, and never comes back. Raises OSError.
        """
        kinds = birth.NAMESPACES
        own = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116 - no import for one name
        if os.stat(f"/proc/{self.pid}/ns/user").st_ino != own:  # noqa: PTH116 - as above
            kinds |= CLONE_NEWUSER
        cgroups.enter(self._groups)
        syscalls.setns(self._pidfd, kinds)
        os.chdir("/")
        seccomp.empty_kernel_log()
        if outside:
            handle = os.open(f"/proc/1/fd/{self._outside}", os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(handle, CLONE_NEWNET)
            os.close(handle)

    def fork(self, function: Callable[[], object], *, outside: bool = False) -> int:
        """Call a function in a child of the caller's that is in the lab; gives its pid, for os.waitpid.

        It exits with what the function returns, if that is a number, else 0; 70 when it raised, which is printed.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        middle = os.fork()
        if middle == 0:
            code = holder.FAULT
            try:
                os.close(reading)
                self.enter_namespaces(outside=outside)
                pid = syscalls.clone(CLONE_PARENT)
                if pid:
                    os.write(writing, str(pid).encode())
                    os._exit(0)
                os.close(writing)
                left = function()
                code = left if isinstance(left, int) else 0
            except BaseException:  # noqa: BLE001 - a forked child leaves here, whatever happened
                import traceback

                os.write(2, traceback.format_exc().encode(errors="replace"))
            finally:
                os._exit(code)
        os.close(writing)
        try:
            text = os.read(reading, _CHUNK)
        finally:
            os.close(reading)
            os.waitpid(middle, 0)
        if not text:
            raise LabError(f"{self.name}: cannot be entered")
        return int(text)

    def down(self) -> None:
        """Take it down: when this returns, its processes have ended, and its namespaces with them."""
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        select.select([self._pidfd], [], [], _SECONDS)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        cgroups.remove(self._groups)


def _grouped(pid: int) -> list[str]:
    try:
        return cgroups.make(pid)
    except OSError as error:
        raise LabError(f"no control groups for a lab: {syscalls.words(error)}") from None


def _free_name() -> str:
    taken = set(control.names(os.geteuid()))
    return next(name for number in range(1, 10_000) if (name := f"lab{number}") not in taken)


def _check_name(name: str) -> None:
    if len(name) > _NAME_LONGEST or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise LabError(f"{name!r}: is no name of a lab: letters, digits, `-`, `_` and `.`, at most {_NAME_LONGEST}")


def _map(middle: int, ids: userns.Ids) -> str:
    try:
        userns.write_range_maps(middle, ids)
    except OSError as error:
        return str(error.strerror)
    return ""


def _end(pid: int) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
