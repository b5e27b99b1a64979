"""The embedded DNS at 127.0.0.11: sockets in the containers' network namespaces, served by the daemon's loop.

What it knows it answers, everything else goes on to the container's nameservers, one after the other, four seconds each.
Source: moby `libnetwork/resolver.go` (29: below `daemon/`). The daemon puts `fileno()` into its selector, and calls
`work()` when that is readable or `timeout()` seconds have passed.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.runtime import dnswire, lookup
from doctor.runtime.bridge import visiting
from doctor.runtime.dnswire import MessageError, Question
from doctor.runtime.names import EMBEDDED, Upstream

if TYPE_CHECKING:
    from doctor.runtime.model import World

PATIENCE = 4.0
"""Seconds that an upstream has (resolver.go, extIOTimeout)."""

MOST_UPSTREAMS = 3
MOST_QUERIES = 1024
_PORT = 53
_STREAM_MOST = 65535
_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE

Answer = Callable[[bytes], None]
"""Sends an answer back to who asked; empty: there is none."""


class Server(Struct):
    """One container's: its namespace (a descriptor of our own), its two sockets, whom it asks."""

    container: str
    namespace: int
    datagrams: socket.socket
    streams: socket.socket
    upstreams: tuple[Upstream, ...]
    ndots: bool
    forwards: bool
    clients: set[socket.socket]

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of TCP and UDP that the container's rules lead to."""
        return self.streams.getsockname()[1], self.datagrams.getsockname()[1]


class EmbeddedDns:
    """The servers of all containers of one daemon."""

    def __init__(self, world: World, home: int, *, silent: bool = False) -> None:
        """Start with none; `home` is a descriptor of the host's network namespace.

        `silent`: where no upstream answers, nothing is said, as releases before 25 do; later ones say that it failed.
        """
        self._world, self._home, self._silent = world, home, silent
        self._loop = selectors.EpollSelector()
        self._servers: dict[str, Server] = {}
        self._queries: set[_Query] = set()
        self._random = random.Random()  # noqa: S311 - the order of addresses

    def fileno(self) -> int:
        """Give the descriptor that is readable when there is work."""
        return self._loop.fileno()

    def open(
        self,
        container: str,
        namespace: int,
        upstreams: Sequence[Upstream],
        *,
        ndots: bool = False,
        forwards: bool = True,
        ports: tuple[int, int] = (0, 0),
    ) -> tuple[int, int]:
        """Serve a container whose namespace the calling thread is in, open on `namespace`; gives the ports of TCP and UDP.

        `ndots`: it was told a number of dots, so a name without any is not asked of others. `forwards` false: nobody else
        is asked. `ports` of TCP and UDP are taken where they are free. Raises OSError.
        """
        import os

        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            for one, port in ((streams, ports[0]), (datagrams, ports[1])):
                one.setblocking(False)  # noqa: FBT003 - its name
                try:
                    one.bind((EMBEDDED, port))
                except OSError:  # somebody in the container has it
                    one.bind((EMBEDDED, 0))
            streams.listen(4096)
            kept = os.dup(namespace)
        except OSError:
            datagrams.close()
            streams.close()
            raise
        server = Server(container, kept, datagrams, streams, tuple(upstreams), ndots, forwards, set())
        self._servers[container] = server
        self._loop.register(datagrams, _READ, lambda _: self._datagram(server))
        self._loop.register(streams, _READ, lambda _: self._accept(server))
        return server.ports

    def has(self, container: str) -> bool:
        """Whether a container is served."""
        return container in self._servers

    def change(self, container: str, upstreams: Sequence[Upstream], *, forwards: bool) -> None:
        """Tell whom a container's server asks from now on."""
        server = self._servers.get(container)
        if server is not None:
            server.upstreams, server.forwards = tuple(upstreams), forwards

    def close(self, container: str) -> None:
        """Stop serving a container."""
        import os

        server = self._servers.pop(container, None)
        if server is None:
            return
        for query in [one for one in self._queries if one.server is server]:
            self._forget(query)
        for one in (server.datagrams, server.streams, *server.clients):
            with suppress(KeyError):
                self._loop.unregister(one)
            one.close()
        os.close(server.namespace)

    def close_all(self) -> None:
        """Stop serving."""
        for container in list(self._servers):
            self.close(container)
        self._loop.close()

    def timeout(self) -> float | None:
        """Give the seconds until an upstream has taken too long; None when nobody waits."""
        if not self._queries:
            return None
        return max(0.0, min(query.until for query in self._queries) - time.monotonic())

    def work(self) -> None:
        """Do what there is to do, without waiting."""
        for key, events in self._loop.select(0):
            action: Callable[[int], None] = key.data
            if key.fileobj in self._loop.get_map():  # an earlier one of this round may have closed it
                action(events)
        now = time.monotonic()
        for query in [one for one in self._queries if one.until <= now]:
            self._next(query)

    # Who asks

    def _datagram(self, server: Server) -> None:
        for _ in range(64):
            try:
                data, client = server.datagrams.recvfrom(_STREAM_MOST)
            except OSError:
                return

            def answer(text: bytes, client: tuple[str, int] = client) -> None:
                with suppress(OSError):
                    server.datagrams.sendto(text, client)

            self._ask(server, data, answer, stream=False)

    def _accept(self, server: Server) -> None:
        with suppress(OSError):
            client, _ = server.streams.accept()
            client.setblocking(False)  # noqa: FBT003 - its name
            server.clients.add(client)
            buffer = bytearray()
            self._loop.register(client, _READ, lambda _: self._stream(server, client, buffer))

    def _stream(self, server: Server, client: socket.socket, buffer: bytearray) -> None:
        """Read from a connection; each message has its length before it."""
        try:
            data = client.recv(_STREAM_MOST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(server, client)
            return
        buffer += data

        def answer(text: bytes) -> None:
            try:
                client.sendall(len(text).to_bytes(2, "big") + text)
            except OSError:
                self._hang_up(server, client)

        while len(buffer) >= 2 and len(buffer) >= 2 + (size := int.from_bytes(buffer[:2], "big")):  # noqa: PLR2004
            message = bytes(buffer[2 : 2 + size])
            del buffer[: 2 + size]
            self._ask(server, message, answer, stream=True)

    def _hang_up(self, server: Server, client: socket.socket) -> None:
        server.clients.discard(client)
        with suppress(KeyError, ValueError):
            self._loop.unregister(client)
        client.close()

    def _ask(self, server: Server, data: bytes, answer: Answer, *, stream: bool) -> None:
        try:
            question = dnswire.read_question(data)
            found = self._own(server, question, _STREAM_MOST - 1 if stream else question.size)
        except MessageError:
            return
        if found:
            answer(found)
        elif not server.forwards:
            answer(dnswire.failure(question, dnswire.SERVFAIL))
        elif server.ndots and question.kind in {dnswire.A, dnswire.AAAA} and "." not in question.name.rstrip("."):
            answer(dnswire.address_answer(question, (), dnswire.TTL))
        elif len(self._queries) < MOST_QUERIES:
            self._next(_Query(server, question, data, answer, stream=stream))

    def _own(self, server: Server, question: Question, size: int) -> bytes:
        """Answer what is known here; empty when it is not."""
        if question.kind == dnswire.PTR:
            name = lookup.reverse(self._world, server.container, question.name)
            return dnswire.name_answer(question, name, size) if name else b""
        if question.kind not in {dnswire.A, dnswire.AAAA, dnswire.MX}:
            return b""
        version = 6 if question.kind == dnswire.AAAA else 4
        found = lookup.resolve(self._world, server.container, question.name, version)
        if found is None:
            return b""
        if question.kind == dnswire.MX:
            found = []
        self._random.shuffle(found)
        return dnswire.address_answer(question, found, size)

    # Who is asked

    def _next(self, query: _Query) -> None:
        """Go on to the next upstream; after the last one the best that was heard is the answer."""
        self._forget(query)
        while query.left:
            upstream = query.left.pop(0)
            try:
                if upstream.host:
                    query.dial(upstream)
                else:
                    with visiting(query.server.namespace, self._home):
                        query.dial(upstream)
            except OSError:
                query.hang_up()
                continue
            self._queries.add(query)
            wanted = _WRITE if query.stream else _READ
            self._loop.register(query.upstream, wanted, lambda events: self._heard(query, events))
            return
        if query.heard or not self._silent:
            query.answer(query.heard or dnswire.failure(query.question, dnswire.SERVFAIL))

    def _forget(self, query: _Query) -> None:
        self._queries.discard(query)
        if query.dialled:
            with suppress(KeyError):
                self._loop.unregister(query.upstream)
            query.hang_up()

    def _heard(self, query: _Query, events: int) -> None:
        """An upstream took the question, or answered."""
        try:
            if events & _WRITE:
                query.send()
                self._loop.modify(query.upstream, _READ, lambda seen: self._heard(query, seen))
                return
            data = query.receive()
            if data is None:
                return
            reply = dnswire.read_reply(data)
        except BlockingIOError:
            return
        except (OSError, MessageError):
            self._next(query)
            return
        if reply.number != query.question.number:
            return
        query.heard = data
        if reply.code == dnswire.NOERROR or (reply.code == dnswire.NXDOMAIN and reply.authoritative):
            query.left.clear()
        self._next(query)


class _Query:
    """A question on its way to upstreams."""

    def __init__(self, server: Server, question: Question, data: bytes, answer: Answer, *, stream: bool) -> None:
        self.server, self.question, self.data, self.answer, self.stream = server, question, data, answer, stream
        self.left = list(server.upstreams[:MOST_UPSTREAMS])
        self.heard = b""
        self.until = 0.0
        self.dialled = False
        self.upstream: socket.socket
        self._buffer = bytearray()

    def dial(self, upstream: Upstream) -> None:
        """Open a socket in the namespace that the thread is in, and ask; over TCP the question follows. Raises OSError."""
        family = socket.AF_INET6 if ":" in upstream.address else socket.AF_INET
        self.upstream = socket.socket(family, socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM)
        self.dialled = True
        self.until = time.monotonic() + PATIENCE
        self._buffer.clear()
        self.upstream.setblocking(False)  # noqa: FBT003 - its name
        with suppress(BlockingIOError):
            self.upstream.connect((upstream.address, _PORT))
        if not self.stream:
            self.upstream.send(self.data)

    def send(self) -> None:
        """Send the question over a connection that stands. Raises OSError when it does not."""
        code = self.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")
        self.upstream.sendall(len(self.data).to_bytes(2, "big") + self.data)

    def receive(self) -> bytes | None:
        """Give an answer, None when it is not whole yet. Raises OSError."""
        data = self.upstream.recv(_STREAM_MOST)
        if not self.stream:
            return data
        if not data:
            raise ConnectionResetError
        self._buffer += data
        size = int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) < 2 or len(self._buffer) < 2 + size:  # noqa: PLR2004 - the length
            return None
        return bytes(self._buffer[2 : 2 + size])

    def hang_up(self) -> None:
        """Close what was dialled."""
        if self.dialled:
            self.upstream.close()
            self.dialled = False
