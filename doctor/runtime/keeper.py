"""The process that a shim is: it makes the container, copies its output, and answers who asks (`shim` has the questions)."""

from __future__ import annotations

import fcntl
import gc
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

from doctor.runtime import control, oci
from doctor.runtime.container import Container, ContainerError, Program, Stdio
from doctor.runtime.jsonlog import JsonLog, timestamp
from doctor.runtime.process import close_others, default_signals, set_title

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.mounts import Overlay

DAEMON = "/run/containerd/containerd.sock"
_NAMESPACE = "moby"

_CHUNK = 1 << 16
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_FRAME = struct.Struct(">BxxxI")
_SLOW = 1 << 20
"""Bytes that one who is attached may be behind before he is let go."""


def serve(name: str, listener: socket.socket, make: Callable[[], Keeper]) -> NoReturn:
    """Be the shim of a container, in a child that was forked for it."""
    code = 1
    try:
        gc.disable()
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


class Keeper:
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
        self._ended: dict[str, Any] | None = None
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
        gc.freeze()
        gc.enable()
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
        self._ended = {"exit": code, "at": timestamp(time.time_ns()), "oom": container.out_of_memory}
        with suppress(OSError):
            if self._log is not None:
                self._log.close()
        self._log = None
        with suppress(OSError), open(self._exit_file, "w", encoding="utf-8") as file:  # noqa: PTH123 - strings
            json.dump({"code": code, "at": self._ended["at"]}, file)
        for sock in list(self._attached):
            self._detach(sock)
        for client in self._waiting:
            self._tell(client, self._ended)

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
                self._tell(client, self._ended)
            else:
                self._waiting.append(client)
            return
        if verb == "delete":
            self._delete(client)
        container = self._container
        if container is None:
            raise self._error or ContainerError("no container")
        if verb == "created":
            pid = container.created()
            self._tell(client, {"pid": pid}, (container.network,) if container.network >= 0 else ())
        elif verb == "start":
            container.start()
            self._tell(client, {"started": True})
        elif verb == "state":
            ended = {"code": self._ended["exit"], "at": self._ended["at"]} if self._ended else None
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
            self._container.delete(force=True)
        with suppress(OSError):  # before it is told: who hears it may listen there again at once
            os.unlink(self._listener.getsockname())  # noqa: PTH108 - strings
        self._tell(client, {"done": True})
        os._exit(0)
