"""Input and output of containers for clients that attach: bytes of the shim go to them, theirs to it.

The shim hands over a copy of the container's output in frames (one byte stream, three of nothing, four of length), which is
what clients of a container without a terminal expect; of one with a terminal they get the bytes alone.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from doctor.runtime.daemon.fault import conflict
from doctor.runtime.daemon.loop import READ

if TYPE_CHECKING:
    from doctor.runtime import shim
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Connection, Request

_HEAD = 8
_CHUNK = 1 << 16


class Unframed:
    """Takes frames apart as they come."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Give the content of all frames that are whole now."""
        self._held += data
        out = bytearray()
        while len(self._held) >= _HEAD:
            size = int.from_bytes(self._held[4:_HEAD], "big")
            if len(self._held) < _HEAD + size:
                break
            out += self._held[_HEAD : _HEAD + size]
            del self._held[: _HEAD + size]
        return bytes(out)


class Pump:
    """Carries bytes between a client and a socket of the shim, until the shim's side ends."""

    def __init__(self, engine: Engine, to: Connection, *, plain: bool) -> None:
        """Prepare; `plain` takes frames apart."""
        self.engine = engine
        self.to = to
        self.frames = Unframed() if plain else None
        self.source: socket.socket | None = None
        self.early = bytearray()
        self.ended = False
        to.gone.append(self.stop)

    def take(self, data: bytes) -> None:
        """Hand what the client sends to the container; empty bytes are the end of its input."""
        if not data:
            self.ended = True
        if self.source is None:
            self.early += data
            return
        self._give(data)

    def _give(self, data: bytes) -> None:
        if self.source is None:
            return
        try:
            if data:
                self.source.setblocking(True)  # noqa: FBT003 - a method of the library
                self.source.sendall(data)
                self.source.setblocking(False)  # noqa: FBT003 - a method of the library
            if self.ended:
                self.source.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def begin(self, source: socket.socket) -> None:
        """Read from the shim's side."""
        self.source = source
        source.setblocking(False)  # noqa: FBT003 - a method of the library
        self.engine.loop.watch(source.fileno(), READ, lambda _: self._read())
        if self.early or self.ended:
            self._give(bytes(self.early))
            self.early.clear()

    def _read(self) -> None:
        if self.source is None:
            return
        try:
            data = self.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stop()
            self.to.finish()
            return
        self.to.send(self.frames.feed(data) if self.frames else data)

    def stop(self) -> None:
        """Let go of the shim's side."""
        if self.source is not None:
            self.engine.loop.unwatch(self.source.fileno())
            self.source.close()
            self.source = None


def kind(engine: Engine, *, tty: bool) -> str:
    """Give the media type of a stream; before 1.42 all were called raw."""
    framed = not tty and engine.release >= (23, 0)
    return f"application/vnd.docker.{'multiplexed' if framed else 'raw'}-stream"


class Attachments:
    """Requests that attach to containers."""

    def __init__(self, engine: Engine) -> None:
        """Attach to one engine's containers."""
        self.engine = engine

    def attach(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/attach: now, or, of a container that does not run yet, from its start on."""
        one = self.engine.container(name)
        running = self.engine.running
        if one.state not in {"created", "exited", "running"}:
            raise conflict(f"You cannot attach to a {one.state} container, unpause or wait for it first")
        pump = Pump(self.engine, to, plain=one.spec.tty)
        to.upgrade(request, kind(self.engine, tty=one.spec.tty), pump.take)
        if not request.on("stdin"):
            pump.ended = False

        def begin(held: shim.Shim) -> None:
            pump.begin(held.attach())

        self.engine.events.container(one.id, "attach")
        if one.id in running.shims:
            begin(running.shims[one.id])
        elif request.on("stream"):
            running.attaching.setdefault(one.id, []).append(begin)
            running.ended.setdefault(one.id, []).append(lambda _: self._nothing(pump))
        else:
            to.finish()

    @staticmethod
    def _nothing(pump: Pump) -> None:
        """Let a client go whose container never began."""
        if pump.source is None:
            pump.to.finish()

    def resize(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/resize."""
        one = self.engine.container(name)
        held = self.engine.running.shims.get(one.id)
        if held is None:
            raise conflict(f"container {one.id} is not running")
        held.resize(int(request.query.get("h") or 0), int(request.query.get("w") or 0))
        to.answer(200)
