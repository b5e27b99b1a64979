"""docker-proxy of ours: serves one published port of the host where no rule of the firewall leads to the container.

A forked child of the daemon with one loop, so it costs the pages that it touches; the command line is the engine's
(moby `cmd/docker-proxy/main_linux.go`). Like that one it ends when the daemon does.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from doctor.linux.privileges import die_with_parent
from doctor.runtime.process import close_others, default_signals, set_title

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 16
_IDLE = 90.0
"""Seconds that an exchange over UDP is remembered (moby `cmd/docker-proxy/udp_proxy_linux.go`, UDPConnTrackTimeout)."""

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


Peer = tuple[str, int] | tuple[str, int, int, int]


class Proxied(Struct, frozen=True):
    """What a proxy serves: `address`:`number` of the host, which leads to `target`:`port` of a container.

    `listening` is the descriptor of the socket that is bound there.
    """

    protocol: str
    address: str
    number: int
    target: str
    port: int
    listening: int


def command_line(one: Proxied, path: str, *, classic: bool) -> tuple[str, ...]:
    """Give the arguments as the engine starts its proxy; from 28 on that one is handed the socket."""
    words: tuple[str, ...] = (path, "-proto", one.protocol, "-host-ip", one.address, "-host-port", str(one.number))
    words = (*words, "-container-ip", one.target, "-container-port", str(one.port))
    return words if classic else (*words, "-use-listen-fd")


def start(one: Proxied, argv: tuple[str, ...]) -> int:
    """Fork the proxy; gives its pid. Raises OSError. The caller may close its socket then, and reaps the child."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        gc.disable()
        default_signals()
        die_with_parent(signal.SIGTERM)
        if os.getppid() == parent:
            close_others([one.listening])
            set_title("docker-proxy", argv)
            serve(one)
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def serve(one: Proxied) -> NoReturn:
    """Serve for ever."""
    listener = socket.socket(fileno=one.listening)
    listener.setblocking(False)  # noqa: FBT003 - its name
    family = socket.AF_INET6 if ":" in one.target else socket.AF_INET
    with selectors.DefaultSelector() as loop:
        server = (
            _Datagrams(loop, listener, family, (one.target, one.port))
            if one.protocol == "udp"
            else _Streams(loop, listener, family, (one.target, one.port))
        )
        while True:
            for key, events in loop.select(server.timeout()):
                action: Callable[[int], None] = key.data
                action(events)
            server.tidy()


class _Streams:
    """Connections of TCP and SCTP."""

    def __init__(
        self, loop: selectors.BaseSelector, listener: socket.socket, family: int, target: tuple[str, int]
    ) -> None:
        self._loop, self._listener, self._family, self._target = loop, listener, family, target
        loop.register(listener, _READ, self._accept)

    def timeout(self) -> float | None:
        return None

    def tidy(self) -> None:
        """Nothing is kept beyond a connection."""

    def _accept(self, _: int) -> None:
        with suppress(OSError):
            client, _peer = self._listener.accept()
            client.setblocking(False)  # noqa: FBT003 - its name
            _Connection(self._loop, client, self._dial(client))

    def _dial(self, client: socket.socket) -> socket.socket:
        behind = socket.socket(self._family, socket.SOCK_STREAM, client.proto)
        behind.setblocking(False)  # noqa: FBT003 - its name
        with suppress(BlockingIOError):
            behind.connect(self._target)
        return behind


class _Connection:
    """A client and what is behind: bytes of each go to the other, and so does the end of either's."""

    def __init__(self, loop: selectors.BaseSelector, client: socket.socket, behind: socket.socket) -> None:
        self._loop = loop
        self._ends = (client, behind)
        self._waiting: list[bytes] = [b"", b""]
        self._done = [False, False]
        self._closed = False
        loop.register(behind, _WRITE, self._arrived)

    def _arrived(self, _: int) -> None:
        """The container took the connection, or refused it."""
        self._loop.unregister(self._ends[1])
        if self._ends[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close(registered=False)
            return
        for index, end in enumerate(self._ends):
            self._loop.register(end, _READ, lambda events, index=index: self._work(index, events))

    def _work(self, index: int, events: int) -> None:
        if self._closed:  # the other end was reset in the same round
            return
        try:
            if events & _WRITE:
                self._send(index)
            if events & _READ and not self._done[index] and not self._waiting[1 - index]:
                data = self._ends[index].recv(_CHUNK)
                if data:
                    self._waiting[1 - index] = data
                    self._send(1 - index)
                else:
                    self._done[index] = True
                    self._ends[1 - index].shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._close(registered=True)
            return
        if all(self._done) and not any(self._waiting):
            self._close(registered=True)
            return
        for one, end in enumerate(self._ends):
            wanted = _READ if not self._done[one] and not self._waiting[1 - one] else 0
            wanted |= _WRITE if self._waiting[one] else 0
            self._want(end, one, wanted)

    def _want(self, end: socket.socket, index: int, wanted: int) -> None:
        known = end.fileno() in self._loop.get_map()
        if wanted and known:
            self._loop.modify(end, wanted, lambda events: self._work(index, events))
        elif wanted:
            self._loop.register(end, wanted, lambda events: self._work(index, events))
        elif known:
            self._loop.unregister(end)

    def _send(self, index: int) -> None:
        data = self._waiting[index]
        with suppress(BlockingIOError):
            self._waiting[index] = data[self._ends[index].send(data) :]

    def _close(self, *, registered: bool) -> None:
        self._closed = True
        for end in self._ends:
            if registered:
                with suppress(KeyError):
                    self._loop.unregister(end)
            end.close()


class _Datagrams:
    """Exchanges over UDP: each client gets a socket of its own towards the container."""

    def __init__(
        self, loop: selectors.BaseSelector, listener: socket.socket, family: int, target: tuple[str, int]
    ) -> None:
        self._loop, self._listener, self._family, self._target = loop, listener, family, target
        self._known: dict[Peer, tuple[socket.socket, float]] = {}
        loop.register(listener, _READ, self._asked)

    def timeout(self) -> float | None:
        return _IDLE if self._known else None

    def tidy(self) -> None:
        now = time.monotonic()
        for client in [client for client, (_, last) in self._known.items() if now - last > _IDLE]:
            behind, _ = self._known.pop(client)
            self._loop.unregister(behind)
            behind.close()

    def _asked(self, _: int) -> None:
        with suppress(OSError):
            data, client = self._listener.recvfrom(_CHUNK)
            behind = self._known[client][0] if client in self._known else self._dial(client)
            self._known[client] = (behind, time.monotonic())
            behind.send(data)

    def _dial(self, client: Peer) -> socket.socket:
        behind = socket.socket(self._family, socket.SOCK_DGRAM)
        behind.setblocking(False)  # noqa: FBT003 - its name
        behind.connect(self._target)
        self._loop.register(behind, _READ, lambda _: self._answered(client, behind))
        return behind

    def _answered(self, client: Peer, behind: socket.socket) -> None:
        with suppress(OSError):
            data = behind.recv(_CHUNK)
            self._known[client] = (behind, time.monotonic())
            self._listener.sendto(data, client)
