"""HTTP/1.1 on a socket, as far as clients of the engine speak it (RFC 9112; moby `api/server/httputils`).

Requests come with a length or in chunks; answers go whole, in chunks, or as bytes once a connection is upgraded. No client
can hold the daemon up: sockets do not block, a request has a bound, and what is not read is not sent.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from doctor.runtime.daemon.loop import READ, WRITE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doctor.runtime.daemon.loop import Loop

HEAD = 64 << 10
BODY = 8 << 20
BACKLOG = 32 << 20
"""Bytes that wait for a client that does not read, at most; then it is cut off."""
_REASONS = {
    101: "UPGRADED",
    200: "OK",
    201: "Created",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class Request:
    """A request: `path` without its version and query, `query` by name, the `body` as it came."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Take the parts of a request."""
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        parts = urlsplit(target)
        self.path = unquote(parts.path)
        self.query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}

    def on(self, name: str) -> bool:
        """Whether a switch of the query is on, read as the engine does (httputils.BoolValue)."""
        return self.query.get(name, "").strip().lower() not in {"", "0", "no", "false", "none"}

    def json(self) -> dict[str, object]:
        """Read the body as an object. Raises ValueError for what is none."""
        held = json.loads(self.body) if self.body.strip() else {}
        if not isinstance(held, dict):
            raise ValueError("json: cannot unmarshal into an object")  # noqa: TRY004 - what a client sent
        return held


class Connection:
    """One client."""

    def __init__(self, loop: Loop, sock: socket.socket, server: Server) -> None:
        """Serve an accepted socket."""
        sock.setblocking(False)  # noqa: FBT003 - a method of the library
        self.loop = loop
        self.socket = sock
        self.server = server
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.busy = False
        """Whether a request is being answered."""
        self.closing = False
        self.raw: Callable[[bytes], None] | None = None
        """Where bytes of the client go once it is no more HTTP; empty bytes are its end."""
        self.chunked = False
        self.closed = False
        self.gone: list[Callable[[], None]] = []
        """Called when the client is gone."""
        self._watch()

    # From the client

    def _watch(self) -> None:
        if not self.closed:
            self.loop.watch(self.socket.fileno(), READ | (WRITE if self.outgoing else 0), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            part = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self.raw is not None:
            self.raw(part)
            if not part:
                self.loop.unwatch(self.socket.fileno())
                if self.outgoing:
                    self.loop.watch(self.socket.fileno(), WRITE, self._ready)
            return
        if not part:
            self.close()
            return
        self.incoming += part
        self._requests()

    def _requests(self) -> None:
        while not self.busy and not self.closed and self.raw is None:
            try:
                request = self._parse()
            except ValueError as error:
                self.busy = True
                self.closing = True
                self.fault(400, str(error))
                return
            if request is None:
                return
            self.busy = True
            self.server.handle(request, self)

    def _parse(self) -> Request | None:
        """Take one request off what has come, None while it is not whole. Raises ValueError for what is none."""
        end = self.incoming.find(b"\r\n\r\n")
        if end < 0:
            if len(self.incoming) > HEAD:
                raise ValueError("the head of the request is too large")
            return None
        lines = self.incoming[:end].decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
            raise ValueError("malformed HTTP request")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        start = end + 4
        if headers.get("transfer-encoding", "").lower() == "chunked":
            found = self._chunks(start)
            if found is None:
                return None
            body, start = found
        else:
            length = int(headers.get("content-length") or 0)
            if not 0 <= length <= BODY:
                raise ValueError("the body of the request is too large")
            if len(self.incoming) < start + length:
                return None
            body = bytes(self.incoming[start : start + length])
            start += length
        del self.incoming[:start]
        self.closing = headers.get("connection", "").lower() == "close"
        return Request(words[0], words[1], headers, body)

    def _chunks(self, start: int) -> tuple[bytes, int] | None:
        parts: list[bytes] = []
        while True:
            end = self.incoming.find(b"\r\n", start)
            if end < 0:
                return None
            size = int(self.incoming[start:end].partition(b";")[0], 16)
            if size < 0 or sum(map(len, parts)) + size > BODY:
                raise ValueError("the body of the request is too large")
            start = end + 2
            if len(self.incoming) < start + size + 2:
                return None
            if not size:
                return b"".join(parts), start + 2
            parts.append(bytes(self.incoming[start : start + size]))
            start += size + 2

    # To the client

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.closed:
            return
        self.outgoing += data
        if len(self.outgoing) > BACKLOG:
            self.close()
            return
        self._flush()

    def _flush(self) -> None:
        try:
            while self.outgoing:
                sent = self.socket.send(self.outgoing)
                del self.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self.outgoing and self.closing and not self.busy:
            self.close()
            return
        self._watch()

    def answer(
        self, status: int, body: bytes = b"", kind: str = "application/json", head: dict[str, str] | None = None
    ) -> None:
        """Answer a request whole, and go on to the next."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'OK')}"]
        fields = {**self.server.headers, **(head or {})}
        if status not in {204, 304}:
            fields["Content-Length"] = str(len(body))
        if body or kind != "application/json":
            fields["Content-Type"] = kind
        fields["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        lines += [f"{name}: {value}" for name, value in sorted(fields.items())]
        self.busy = False
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self._requests()

    def json(self, held: object, status: int = 200) -> None:
        """Answer with JSON, as the engine writes it: with a line feed at its end."""
        text = json.dumps(held, separators=(",", ":"), ensure_ascii=False)
        self.answer(status, text.encode("utf-8", "surrogateescape") + b"\n")

    def fault(self, status: int, message: str) -> None:
        """Answer with an error."""
        self.json({"message": message}, status)

    def stream(self, kind: str = "application/json") -> None:
        """Begin an answer in chunks; `chunk` sends one, `end` ends it."""
        fields = {**self.server.headers, "Content-Type": kind, "Transfer-Encoding": "chunked"}
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in sorted(fields.items()))]
        self.chunked = True
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        """Send one chunk of an answer."""
        if data:
            self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        """End an answer in chunks, and go on to the next request."""
        self.busy = False
        self.chunked = False
        self.send(b"0\r\n\r\n")
        self._requests()

    def upgrade(self, request: Request, kind: str, raw: Callable[[bytes], None]) -> None:
        """Leave HTTP: bytes of the client go to `raw` from now on, `send` sends bytes to it."""
        if "upgrade" in request.headers.get("connection", "").lower():
            lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {kind}", "Connection: Upgrade", "Upgrade: tcp"]
        else:
            lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}"]
        self.raw = raw
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        if self.incoming:
            held = bytes(self.incoming)
            self.incoming.clear()
            raw(held)

    def finish(self) -> None:
        """Close once everything is sent."""
        self.busy = False
        self.closing = True
        if not self.closed:
            self._flush()

    def close(self) -> None:
        """Close at once, and tell whoever wants to know."""
        if self.closed:
            return
        self.closed = True
        self.loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.server.connections.discard(self)
        for call in self.gone:
            call()


class Server:
    """Accepts clients, and gives each request to `handle`."""

    def __init__(self, loop: Loop, handle: Callable[[Request, Connection], None], headers: dict[str, str]) -> None:
        """Answer with these headers at each answer."""
        self.loop = loop
        self.handle = handle
        self.headers = headers
        self.connections: set[Connection] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept from a listening socket."""
        listener.setblocking(False)  # noqa: FBT003 - a method of the library
        self.loop.watch(listener.fileno(), READ, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        self.connections.add(Connection(self.loop, sock, self))
