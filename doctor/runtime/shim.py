"""What stands between a daemon and a container, and outlives the daemon: parent of its processes, keeper of its output.

As containerd's shim does, it is found by its command line, writes down how the container ended, and answers on a socket
(`SOCK_SEQPACKET`, messages as in `control`):

    {"do": "created"} -> {"pid": 7}                {"do": "start"} -> {"started": true}
    {"do": "state"}   -> {"shim": 6, "pid": 7, "state": "running", "exit": null}
    {"do": "wait"}    -> {"exit": 0, "at": "2026-11-30T09:26:25.1Z"}   when it has ended
    {"do": "exec", "process": {...}} with 0, 1, 2  -> {"pid": 9}, with a terminal's master; later {"exit": 0}
    {"do": "attach"}  -> {"attached": true} with a stream socket: frames of output come, input goes
    {"do": "kill", "signal": 15}   {"do": "resize", "height": 24, "width": 80}   {"do": "delete"}
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import termios
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from doctor.linux import syscalls
from doctor.linux.syscalls import CLONE_PARENT
from doctor.runtime import control, oci
from doctor.runtime.container import Container, ContainerError, Program, Stdio
from doctor.runtime.jsonlog import JsonLog, timestamp
from doctor.runtime.process import close_others, default_signals, set_title

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.mounts import Overlay

SOCKETS = "/run/containerd/s"
DAEMON = "/run/containerd/containerd.sock"
_NAMESPACE = "moby"

_CHUNK = 1 << 16
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_FRAME = struct.Struct(">BxxxI")
_SLOW = 1 << 20
"""Bytes that one who is attached may be behind before he is let go."""


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
        self._created = 0

    def fileno(self) -> int:
        """Give a descriptor that is readable when the container has ended, or the shim has."""
        return self._waiting.fileno()

    def exit(self) -> tuple[int, str]:
        """Wait for the end of the container; gives exit code and time. Raises ContainerError when the shim has gone first."""
        if self._exit is None:
            answer = _expect(self._waiting, "exit")
            self._exit = int(answer["exit"]), str(answer["at"])
        return self._exit

    def created(self) -> int:
        """Wait until the container stands before its program; gives its pid. Raises ContainerError: 125, 126, 127."""
        if not self._created:
            self._created = int(self._ask({"do": "created"}, "pid")["pid"])
        return self._created

    def start(self) -> None:
        """Let it execute its program. Raises ContainerError."""
        self._ask({"do": "start"}, "started")

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

    def _ask(self, question: dict[str, Any], key: str) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            control.send(self._asking, question)
        return _expect(self._asking, key)


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


def create(
    config: oci.Config,
    *,
    id: str,  # noqa: A002 - the specification's word
    directory: str,
    log: str | None = None,
    open_stdin: bool = False,
    overlay: Overlay | None = None,
    init: bool = False,
) -> Shim:
    """Start a shim that makes a container; returns at once: `created` waits.

    `directory` is the bundle: the root path is relative to it, and its file `exit` says how the container ended. `log` is the
    path of a json-file log. Where the caller's parent is a first process, the shim is a child of that, as containerd's is.
    The caller has one thread. Raises ContainerError.
    """
    address = _address(directory)
    try:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - strings
        os.makedirs(os.path.dirname(address), exist_ok=True)  # noqa: PTH103, PTH120 - strings
        with suppress(FileNotFoundError):
            os.unlink(address)  # noqa: PTH108 - as above
        listener = control.listen(address)
        # Orphans are adopted by the first process of the namespace, and so is this one, without a process in between.
        pid = syscalls.clone(CLONE_PARENT if os.getppid() == 1 else 0)
    except OSError as error:
        raise ContainerError(f"shim: {error}") from None
    if pid == 0:
        keeper = partial(_Keeper, config, id, directory, listener, log, overlay, open_stdin=open_stdin, init=init)
        _serve(id, listener, keeper)
    listener.close()
    return Shim(address, pid)


def _address(directory: str) -> str:
    """Give the path of the socket: short, since an address has room for 107 bytes (unix(7))."""
    return f"{SOCKETS}/{os.path.basename(directory)}"  # noqa: PTH119 - a string


def reconnect(directory: str) -> Shim:
    """Find the shim of a bundle again, after the daemon was started anew. Raises ContainerError when it has gone."""
    shim = Shim(_address(directory))
    shim.state()
    return shim


def _serve(name: str, listener: socket.socket, make: Callable[[], _Keeper]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        default_signals()
        os.setsid()
        close_others((listener.fileno(),))
        argv = ("/usr/bin/containerd-shim-runc-v2", "-namespace", _NAMESPACE, "-id", name, "-address", DAEMON)
        set_title("containerd-shim", argv)
        make().run()
    except BaseException as error:  # noqa: BLE001 - a forked child leaves here, whatever happened
        with suppress(OSError):
            os.write(2, f"shim {name}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)


class _Keeper:
    """The loop of a shim."""

    def __init__(
        self,
        config: oci.Config,
        name: str,
        directory: str,
        listener: socket.socket,
        log: str | None,
        overlay: Overlay | None,
        *,
        open_stdin: bool,
        init: bool,
    ) -> None:
        """Make the container; a mistake is told to who asks for it."""
        self._listener, self._exit_file = listener, f"{directory}/exit"
        self._log = JsonLog(log) if log else None
        self._selector = selectors.DefaultSelector()
        self._attached: list[socket.socket] = []
        self._waiting: list[socket.socket] = []
        self._outputs: dict[int, str] = {}
        self._terminal = config.process.terminal
        self._stdin = -1
        self._error: ContainerError | None = None
        self._ended: tuple[int, str] | None = None
        self._container: Container | None = None
        stdio = self._pipes(open_stdin=open_stdin and not self._terminal)
        try:
            self._container = Container.create(
                config, id=name, stdio=stdio, bundle=directory, overlay=overlay, init=init
            )
        except ContainerError as error:
            self._error = error
        for handle in stdio:
            os.close(handle)
        listener.setblocking(False)  # noqa: FBT003 - the name says it
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        if self._container is not None:
            self._selector.register(self._container.pidfd, selectors.EVENT_READ, self._end)
            if self._terminal:
                self._stdin = self._container.console
                self._outputs[self._container.console] = "stdout"
        for handle in self._outputs:
            os.set_blocking(handle, False)
            self._selector.register(handle, selectors.EVENT_READ, partial(self._copy, handle))

    def _pipes(self, *, open_stdin: bool) -> Stdio:
        """Make the descriptors of the container, and keep the other ends; with a terminal they are not used."""
        if self._terminal:
            empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            return empty, os.dup(empty), os.dup(empty)
        source = -1
        if open_stdin:
            source, self._stdin = os.pipe2(os.O_CLOEXEC)
        else:
            source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        writing = []
        for stream in ("stdout", "stderr"):
            reading, other = os.pipe2(os.O_CLOEXEC)
            self._outputs[reading] = stream
            writing.append(other)
        return source, writing[0], writing[1]

    def run(self) -> NoReturn:
        """Answer, copy, and go on until let go."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj in self._selector.get_map():
                    key.data()

    # Output

    def _copy(self, handle: int) -> bool:
        """Copy what is there from one descriptor; False when there is nothing more for now, or ever."""
        try:
            data = os.read(handle, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal whose last user has gone
        stream = self._outputs[handle]
        if not data:
            self._selector.unregister(handle)
            del self._outputs[handle]
            if handle != self._stdin:
                os.close(handle)
            return False
        if self._log is not None:
            with suppress(OSError):  # a full disk stops the log, not the container
                self._log.write(stream, data)
        frame = _FRAME.pack(_STREAMS[stream], len(data)) + data
        for sock in list(self._attached):
            try:
                sock.sendall(frame, socket.MSG_NOSIGNAL)
            except OSError:  # gone, or so slow that the container would wait for him
                self._detach(sock)
        return True

    def _attach(self, client: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SLOW)
        ours.setblocking(False)  # noqa: FBT003 - the name says it
        self._attached.append(ours)
        self._selector.register(ours, selectors.EVENT_READ, partial(self._typed, ours))
        control.send(client, {"attached": True}, [theirs.fileno()])
        theirs.close()
        if self._ended is not None:
            self._detach(ours)

    def _typed(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_CHUNK)
        except OSError:
            self._detach(sock)
            return
        if self._stdin < 0:
            if not data:
                self._selector.unregister(sock)
            return
        if data:
            with suppress(OSError):  # the container does not read any more
                os.write(self._stdin, data)
            return
        self._selector.unregister(sock)
        if not self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    def _detach(self, sock: socket.socket) -> None:
        self._attached.remove(sock)
        with suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()

    def _end(self) -> None:
        """Note how the container ended: its last output first, then the file, then who waits."""
        container = self._container
        assert container is not None  # noqa: S101 - its pidfd is watched
        self._selector.unregister(container.pidfd)
        code = container.wait()
        for handle in list(self._outputs):
            while self._copy(handle):
                pass
        self._ended = code, timestamp(time.time_ns())
        with suppress(OSError):
            if self._log is not None:
                self._log.close()
        self._log = None
        with suppress(OSError), open(self._exit_file, "w", encoding="utf-8") as file:  # noqa: PTH123 - strings
            json.dump({"code": code, "at": self._ended[1]}, file)
        for sock in list(self._attached):
            self._detach(sock)
        for client in self._waiting:
            self._tell(client, {"exit": code, "at": self._ended[1]})

    # Who asks

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if not control.is_owner(client):
            client.close()
            return
        self._selector.register(client, selectors.EVENT_READ, partial(self._asked, client))

    def _tell(self, client: socket.socket, answer: dict[str, Any], handles: tuple[int, ...] = ()) -> None:
        with suppress(OSError):  # who has gone is found out when his end is read
            control.send(client, answer, handles)

    def _asked(self, client: socket.socket) -> None:
        handles: list[int] = []
        try:
            message, handles = control.receive(client)
            if not message:
                self._selector.unregister(client)
                if client in self._waiting:
                    self._waiting.remove(client)
                client.close()
                return
            self._answer(client, message, handles)
        except ContainerError as error:
            self._tell(client, {"error": str(error), "code": error.code})
        except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            self._tell(client, {"error": str(error), "code": 125})
        finally:
            for handle in handles:
                os.close(handle)

    def _answer(self, client: socket.socket, message: dict[str, Any], handles: list[int]) -> None:  # noqa: PLR0912 - one a verb
        verb = message["do"]
        if verb == "wait":
            if self._ended is not None:
                self._tell(client, {"exit": self._ended[0], "at": self._ended[1]})
            else:
                self._waiting.append(client)
            return
        if verb == "delete":
            self._delete(client)
        container = self._container
        if container is None:
            raise self._error or ContainerError("no container")
        if verb == "created":
            self._tell(client, {"pid": container.created()})
        elif verb == "start":
            container.start()
            self._tell(client, {"started": True})
        elif verb == "state":
            ended = {"code": self._ended[0], "at": self._ended[1]} if self._ended else None
            about = {"shim": os.getpid(), "pid": container.pid, "state": container.state, "exit": ended}
            self._tell(client, about)
        elif verb == "kill":
            container.kill(int(message["signal"]))
            self._tell(client, {"done": True})
        elif verb == "resize":
            self._resize(int(message["height"]), int(message["width"]))
            self._tell(client, {"done": True})
        elif verb == "attach":
            self._attach(client)
        elif verb == "exec":
            self._exec(client, container, message, handles)
        else:
            raise ValueError(f"unknown question {verb}")

    def _resize(self, height: int, width: int) -> None:
        if self._terminal and self._stdin >= 0:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _exec(self, client: socket.socket, container: Container, message: dict[str, Any], handles: list[int]) -> None:
        process = msgspec.convert(message["process"], oci.Process)
        program = container.exec(process, (handles[0], handles[1], handles[2]))
        given = (program.console,) if program.console >= 0 else ()
        self._tell(client, {"pid": program.pid}, given)
        self._selector.register(program.pidfd, selectors.EVENT_READ, partial(self._exec_ended, client, program))

    def _exec_ended(self, client: socket.socket, program: Program) -> None:
        self._selector.unregister(program.pidfd)
        self._tell(client, {"exit": program.wait()})
        program.close()

    def _delete(self, client: socket.socket) -> NoReturn:
        if self._container is not None:
            self._container.kill(signal.SIGKILL)
            self._container.wait()
        self._tell(client, {"done": True})
        with suppress(OSError):
            os.unlink(self._listener.getsockname())  # noqa: PTH108 - strings
        os._exit(0)
