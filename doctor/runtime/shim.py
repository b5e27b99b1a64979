"""What stands between a daemon and a container, and outlives the daemon: parent of its processes, keeper of its output.

As containerd's shim does, it is found by its command line, writes down how the container ended, and answers on a socket
(`SOCK_SEQPACKET`, messages as in `control`):

    {"do": "created"} -> {"pid": 7}, with its network namespace where that is new
    {"do": "start"}   -> {"started": true}
    {"do": "state"}   -> {"shim": 6, "pid": 7, "state": "running", "exit": null}
    {"do": "wait"}    -> {"exit": 0, "at": "2026-11-30T09:26:25.1Z", "oom": false}   when it has ended
    {"do": "exec", "process": {...}} with 0, 1, 2  -> {"pid": 9}, with a terminal's master; later {"exit": 0}
    {"do": "attach"}  -> {"attached": true} with a stream socket: frames of output come, input goes
    {"do": "kill", "signal": 15}   {"do": "resize", "height": 24, "width": 80}   {"do": "delete"}
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from doctor.linux import syscalls
from doctor.linux.syscalls import CLONE_PARENT
from doctor.runtime import control, oci
from doctor.runtime.container import ContainerError, Stdio
from doctor.runtime.keeper import Keeper, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.mounts import Overlay

SOCKETS = "/run/containerd/s"


class Exec:
    """A process that was started in a container, as its shim tells of it."""

    def __init__(self, sock: socket.socket, pid: int, console: int) -> None:
        """Follow it on a connection of its own."""
        self._sock, self.pid, self.console = sock, pid, console
        self._code: int | None = None

    def fileno(self) -> int:
        """Give a descriptor that is readable when it has ended."""
        return self._sock.fileno()

    def wait(self) -> int:
        """Wait for its end; gives the exit code. Raises ContainerError when the shim has gone."""
        if self._code is None:
            self._code = int(_expect(self._sock, "exit")["exit"])
        return self._code

    def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, if it has one."""
        if self.console >= 0:
            fcntl.ioctl(self.console, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self) -> None:
        """Let go of it; it runs on."""
        self._sock.close()
        if self.console >= 0:
            os.close(self.console)
            self.console = -1


class Shim:
    """A shim as a daemon sees it: one connection for questions, one that tells of the end."""

    def __init__(self, address: str, pid: int = 0) -> None:
        """Connect to the shim at a path. Raises ContainerError when none is there."""
        self.address, self.pid = address, pid
        self._asking = _connect(address)
        self._waiting = _connect(address)
        control.send(self._waiting, {"do": "wait"})
        self._exit: tuple[int, str] | None = None
        self.out_of_memory = False
        """Whether the kernel killed a process of it for want of memory, once it has ended."""
        self._created = 0
        self.network = -1
        """Once it is created, a descriptor of its network namespace; -1 where it has no new one."""

    def fileno(self) -> int:
        """Give a descriptor that is readable when the container has ended, or the shim has."""
        return self._waiting.fileno()

    def exit(self) -> tuple[int, str]:
        """Wait for the end of the container; gives exit code and time. Raises ContainerError when the shim has gone first."""
        if self._exit is None:
            answer = _expect(self._waiting, "exit")
            self._exit = int(answer["exit"]), str(answer["at"])
            self.out_of_memory = bool(answer.get("oom"))
        return self._exit

    def created(self) -> int:
        """Wait until the container stands before its program; gives its pid. Raises ContainerError: 125, 126, 127."""
        if not self._created:
            self._send({"do": "created"})
            answer, handles = control.receive(self._asking)
            if "pid" not in answer:
                raise _error(answer)
            self._created = int(answer["pid"])
            self.network = handles[0] if handles else -1
        return self._created

    def start(self) -> None:
        """Let it execute its program. Raises ContainerError."""
        self.begin()
        self.started()

    def begin(self) -> None:
        """Say that its program may be executed; `started` waits, so that many are started side by side."""
        self._send({"do": "start"})

    def started(self) -> None:
        """Wait until its program is executed. Raises ContainerError."""
        _expect(self._asking, "started")

    def state(self) -> dict[str, Any]:
        """Give state, pid, the shim's pid, and how it ended."""
        answer = self._ask({"do": "state"}, "state")
        self.pid = int(answer["shim"])
        return answer

    def kill(self, number: int) -> None:
        """Send the first process a signal."""
        self._ask({"do": "kill", "signal": int(number)}, "done")

    def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, if it has one."""
        self._ask({"do": "resize", "height": height, "width": width}, "done")

    def exec(self, process: oci.Process, stdio: Stdio | None = None, *, tty: bool = False) -> Exec:
        """Start another process in it; without descriptors or a terminal, on /dev/null. Raises ContainerError."""
        if tty:
            process = msgspec.structs.replace(process, terminal=True)
        sock = _connect(self.address)
        empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            question = {"do": "exec", "process": msgspec.to_builtins(process)}
            control.send(sock, question, stdio or (empty, empty, empty))
            answer, handles = control.receive(sock)
            if "pid" not in answer:
                raise _error(answer)  # noqa: TRY301 - the socket is closed below
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(empty)
        return Exec(sock, int(answer["pid"]), handles[0] if handles else -1)

    def attach(self) -> socket.socket:
        """Give a stream on which its output is copied from here on, in the engine's frames (those of a terminal are stdout's).

        What is written to it is the container's input; shutting it down for writing ends that.
        """
        control.send(self._asking, {"do": "attach"})
        answer, handles = control.receive(self._asking)
        if not handles:
            raise _error(answer)
        return socket.socket(fileno=handles[0])

    def delete(self) -> None:
        """Let it go: the shim ends, and a container that still runs is killed."""
        with suppress(OSError, ContainerError):
            self._ask({"do": "delete"}, "done")
        self.close()

    def close(self) -> None:
        """Let go of the connections; shim and container go on."""
        self._asking.close()
        self._waiting.close()
        if self.network >= 0:
            os.close(self.network)
            self.network = -1

    def _ask(self, question: dict[str, Any], key: str) -> dict[str, Any]:
        self._send(question)
        return _expect(self._asking, key)

    def _send(self, question: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the answer, or that there is none, says it
            control.send(self._asking, question)


def _expect(sock: socket.socket, key: str) -> dict[str, Any]:
    answer, handles = control.receive(sock)
    for handle in handles:
        os.close(handle)
    if key not in answer:
        raise _error(answer)
    return answer


def _error(answer: dict[str, Any]) -> ContainerError:
    return ContainerError(str(answer.get("error", "the shim has gone")), int(answer.get("code", 125)))


def _connect(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(address)
    except OSError as error:
        sock.close()
        raise ContainerError(f"{address}: {(error.strerror or '').lower()}") from None
    return sock


class Prepared(NamedTuple):
    """A shim of which everything is there but the process: many are forked one right after the other (`fork`)."""

    name: str
    address: str
    listener: socket.socket
    keeper: Callable[[], Keeper]

    def fork(self) -> int:
        """Start it; gives its pid. Raises ContainerError."""
        try:
            # Orphans are adopted by the first process of the namespace, and so is this one, without a process in between.
            pid = syscalls.clone(CLONE_PARENT if os.getppid() == 1 else 0)
        except OSError as error:
            self.listener.close()
            raise ContainerError(f"shim: {error}") from None
        if pid == 0:
            serve(self.name, self.listener, self.keeper)
        return pid

    def connect(self, pid: int) -> Shim:
        """Give what was started, once its socket is its own alone. Raises ContainerError."""
        self.listener.close()
        return Shim(self.address, pid)


def prepare(
    config: oci.Config,
    *,
    id: str,  # noqa: A002 - the specification's word
    directory: str,
    log: str | None = None,
    open_stdin: bool = False,
    overlay: Overlay | None = None,
    init: bool = False,
) -> Prepared:
    """Make what a shim needs that makes a container.

    `directory` is the bundle: the root path is relative to it, and its file `exit` says how the container ended. `log` is the
    path of a json-file log. Where the caller's parent is a first process, the shim will be a child of that, as containerd's
    is. The caller has one thread. Raises ContainerError.
    """
    address = _address(directory)
    try:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - strings
        os.makedirs(os.path.dirname(address), exist_ok=True)  # noqa: PTH103, PTH120 - strings
        with suppress(FileNotFoundError):
            os.unlink(address)  # noqa: PTH108 - as above
        listener = control.listen(address)
    except OSError as error:
        raise ContainerError(f"shim: {error}") from None
    keeper = partial(Keeper, config, id, directory, listener, log, overlay, open_stdin=open_stdin, init=init)
    return Prepared(id, address, listener, keeper)


def _address(directory: str) -> str:
    """Give the path of the socket: short, since an address has room for 107 bytes (unix(7))."""
    return f"{SOCKETS}/{os.path.basename(directory)}"  # noqa: PTH119 - a string


def reconnect(directory: str) -> Shim:
    """Find the shim of a bundle again, after the daemon was started anew. Raises ContainerError when it has gone."""
    shim = Shim(_address(directory))
    shim.state()
    return shim
