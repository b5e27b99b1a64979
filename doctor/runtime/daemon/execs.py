"""Commands in containers that run: `docker exec`, and probes of health checks."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doctor.runtime.container import ContainerError
from doctor.runtime.daemon import bundle
from doctor.runtime.daemon.fault import Fault, bad, broken, conflict, not_found
from doctor.runtime.daemon.logs import frame
from doctor.runtime.daemon.loop import READ, WRITE
from doctor.runtime.daemon.streams import kind

if TYPE_CHECKING:
    from doctor.runtime import oci, shim
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Connection, Request
    from doctor.runtime.model import Container

_CHUNK = 1 << 16
_KEPT = 256


class Exec:
    """One command: what it is, and how it went."""

    def __init__(self, container: str, body: dict[str, Any]) -> None:
        """Take the request that made it."""
        self.id = secrets.token_hex(32)
        self.container = container
        self.argv = tuple(str(one) for one in body.get("Cmd") or ())
        self.tty = bool(body.get("Tty"))
        self.stdin = bool(body.get("AttachStdin"))
        self.env = tuple(body.get("Env") or ())
        self.user = body.get("User") or None
        self.workdir = body.get("WorkingDir") or ""
        self.privileged = bool(body.get("Privileged"))
        self.running = False
        self.code: int | None = None
        self.pid = 0
        self.handle: shim.Exec | None = None


class Execs:
    """All commands, by id."""

    def __init__(self, engine: Engine) -> None:
        """Run in one engine's containers."""
        self.engine = engine
        self.held: dict[str, Exec] = {}

    def create(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/exec."""
        one = self.engine.container(name)
        if one.id not in self.engine.running.shims:
            word = "Container" if self.engine.release < (25, 0) else "container"
            raise conflict(f"{word} {one.id} is not running")
        made = Exec(one.id, request.json())
        if not made.argv:
            raise bad("No exec command specified")
        while len(self.held) >= _KEPT:
            self.held.pop(next(iter(self.held)))
        self.held[made.id] = made
        self.engine.events.container(one.id, f"exec_create: {' '.join(made.argv)}", execID=made.id)
        to.json({"Id": made.id}, 201)

    def _find(self, identity: str) -> Exec:
        found = self.held.get(identity)
        if found is None:
            raise not_found(f"No such exec instance: {identity}")
        return found

    def inspect(self, _: Request, to: Connection, identity: str) -> None:
        """GET /exec/ID/json."""
        one = self._find(identity)
        to.json(
            {
                "ID": one.id,
                "Running": one.running,
                "ExitCode": one.code,
                "ProcessConfig": {
                    "tty": one.tty,
                    "entrypoint": one.argv[0],
                    "arguments": list(one.argv[1:]),
                    "privileged": one.privileged,
                },
                "OpenStdin": one.stdin,
                "OpenStderr": True,
                "OpenStdout": True,
                "CanRemove": not one.running and one.code is not None,
                "ContainerID": one.container,
                "DetachKeys": "",
                "Pid": one.pid,
            }
        )

    def start(self, request: Request, to: Connection, identity: str) -> None:
        """POST /exec/ID/start."""
        one = self._find(identity)
        container = self.engine.container(one.container)
        if one.running or one.code is not None:
            raise conflict(f"exec {one.id} has already run")
        if request.json().get("Detach"):
            self._begin(container, one, None)
            to.answer(200)
            return
        ends = _Ends(self.engine, one, to)
        to.upgrade(request, kind(self.engine, tty=one.tty), ends.take)
        try:
            self._begin(container, one, ends)
        except Fault as fault:  # the connection is no HTTP any more: the words are output (moby postContainerExecStart)
            ends.close()
            said = f"{fault.message}\r\n".encode()
            to.send(said if one.tty else frame(1, said))
            to.finish()
            return
        ends.begin()

    def _begin(self, container: Container, one: Exec, ends: _Ends | None) -> None:
        held = self.engine.running.shims.get(container.id)
        if held is None:
            raise conflict(f"container {container.id} is not running")
        try:
            process = exec_process(self.engine, container, one)
            one.handle = held.exec(process, ends.theirs if ends and not one.tty else None, tty=one.tty)
        except ContainerError as error:
            one.code = error.code
            tail = ": unknown" if self.engine.release < (28, 0) else ""
            said = f"OCI runtime exec failed: exec failed: unable to start container process: {error}{tail}"
            raise bad(said) from error
        except ValueError as error:
            one.code = 126
            raise bad(str(error)) from error
        except OSError as error:
            one.code = 126
            raise broken(f"OCI runtime exec failed: {error.strerror or error}") from error
        handle = one.handle
        one.running, one.pid = True, handle.pid
        self.engine.events.container(container.id, f"exec_start: {' '.join(one.argv)}", execID=one.id)
        self.engine.loop.watch(handle.fileno(), READ, lambda _: self._over(container.id, one, handle, ends))

    def _over(self, container: str, one: Exec, handle: shim.Exec, ends: _Ends | None) -> None:
        self.engine.loop.unwatch(handle.fileno())
        try:
            one.code = handle.wait()
        except ContainerError:
            one.code = 137
        one.running = False
        if container in self.engine.world.containers:
            self.engine.events.container(container, "exec_die", execID=one.id, exitCode=str(one.code))
        if ends is not None:
            ends.over()
        one.handle = None
        handle.close()

    def resize(self, request: Request, to: Connection, identity: str) -> None:
        """POST /exec/ID/resize."""
        one = self._find(identity)
        if one.handle is not None and one.running and one.handle.console >= 0:
            one.handle.resize(int(request.query.get("h") or 0), int(request.query.get("w") or 0))
        to.answer(200)


def exec_process(engine: Engine, container: Container, one: Exec) -> oci.Process:
    """Make the process of a command. Raises ValueError for a user that is unknown."""
    spec = container.spec
    names = {text.partition("=")[0] for text in one.env}
    env = (*(text for text in spec.env if text.partition("=")[0] not in names), *one.env)
    spec = replace(spec, env=env, workdir=one.workdir or spec.workdir, privileged=spec.privileged or one.privileged)
    root = engine.store.mounted(container.mount_id).merged
    return bundle.process(spec, one.argv, root, container.id, tty=one.tty, user=one.user)


class _Ends:
    """The ends of a command's streams: pipes, or the master of its terminal."""

    def __init__(self, engine: Engine, one: Exec, to: Connection) -> None:
        self.engine = engine
        self.one = one
        self.to = to
        self.pending = bytearray()
        self.closing = False
        self.theirs: tuple[int, int, int] | None = None
        self.input = -1
        self.outputs: dict[int, int] = {}
        """Descriptors that are read, and the stream of each (0: a terminal)."""
        if not one.tty:
            stdin = os.pipe2(os.O_CLOEXEC) if one.stdin else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
            out, error = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            self.theirs = (stdin[0], out[1], error[1])
            self.input = stdin[1]
            self.outputs = {out[0]: 1, error[0]: 2}
        to.gone.append(self.close)

    def begin(self) -> None:
        """Read what the command prints."""
        for descriptor in self.theirs or ():
            os.close(descriptor)
        self.theirs = None
        if self.one.tty and self.one.handle is not None:
            self.input = os.dup(self.one.handle.console)
            self.outputs = {self.input: 0}
        for descriptor in (*self.outputs, *([self.input] if self.input >= 0 else [])):
            os.set_blocking(descriptor, False)
        for descriptor in self.outputs:
            self._watch(descriptor)
        self._write()

    def _watch(self, descriptor: int) -> None:
        both = READ | (WRITE if self.pending and self.one.tty else 0)
        self.engine.loop.watch(descriptor, both, lambda events: self._ready(descriptor, events))

    def _ready(self, descriptor: int, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & READ and descriptor in self.outputs:
            self._read(descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # of a terminal whose last process has gone (EIO)
        if data:
            stream = self.outputs[descriptor]
            self.to.send(frame(stream, data) if stream else data)
            return
        self._done(descriptor)  # the connection ends with the command: its exit code is known then

    def _done(self, descriptor: int) -> None:
        self.outputs.pop(descriptor, None)
        self.engine.loop.unwatch(descriptor)
        if descriptor == self.input:
            self.input = -1
        os.close(descriptor)

    def take(self, data: bytes) -> None:
        """Hand what the client sends to the command; empty bytes are the end of its input."""
        self.pending += data
        self.closing = self.closing or not data
        self._write()

    def _write(self) -> None:
        if self.input < 0:
            self.pending.clear()
            return
        try:
            while self.pending:
                sent = os.write(self.input, self.pending[:_CHUNK])
                del self.pending[:sent]
        except BlockingIOError:
            if not self.one.tty:
                self.engine.loop.watch(self.input, WRITE, lambda _: self._write())
            return
        except OSError:
            self.pending.clear()
        if self.one.tty:
            self._watch(self.input)
            return
        self.engine.loop.unwatch(self.input)
        if self.closing:
            os.close(self.input)
            self.input = -1

    def over(self) -> None:
        """The command has ended: what it printed is sent, what it left in the background is not waited for."""
        for descriptor in list(self.outputs):
            while descriptor in self.outputs:
                before = len(self.to.outgoing)
                try:
                    data = os.read(descriptor, _CHUNK)
                except OSError:
                    data = b""
                if not data or before > _CHUNK * 64:
                    self._done(descriptor)
                    break
                stream = self.outputs[descriptor]
                self.to.send(frame(stream, data) if stream else data)
        self.close()
        self.to.finish()

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in self.theirs or ():
            os.close(descriptor)
        self.theirs = None
        for descriptor in list(self.outputs):
            self._done(descriptor)
        if self.input >= 0:
            self.engine.loop.unwatch(self.input)
            os.close(self.input)
            self.input = -1
