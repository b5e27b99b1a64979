"""A client of the daemon that may also change things: one request, one connection, and streams that are kept open."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from doctor.runtime.daemon.places import SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHUNK = 1 << 16
_BODYLESS = frozenset({204, 304})


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """The daemon's answer is an error; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        """Keep status and words."""
        super().__init__(message)
        self.status = status
        self.message = message


class Unreachable(Exception):  # noqa: N818 - a state of the host
    """There is no daemon to talk to."""


class Answer:
    """An answer as it comes: status, headers, and a body that is read as it is needed."""

    def __init__(self, sock: socket.socket) -> None:
        """Read the head. Raises Unreachable for what is no HTTP."""
        self.socket = sock
        self._held = bytearray()
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        words = head[0].split(" ", 2)
        if len(words) < 2 or not words[1].isdecimal():  # noqa: PLR2004 - version, status
            raise Unreachable("error during connect: the answer is no HTTP")
        self.status = int(words[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in head[1:])}

    @property
    def buffered(self) -> bool:
        """Whether something has come that was not read yet."""
        return bool(self._held)

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            part = self.socket.recv(_CHUNK)
            if not part:
                raise Unreachable("error during connect: the daemon has gone")
            self._held += part
        found, _, rest = bytes(self._held).partition(end)
        self._held = bytearray(rest)
        return found

    def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            part = self.socket.recv(_CHUNK)
            if not part:
                break
            self._held += part
        found = bytes(self._held[:count])
        del self._held[:count]
        return found

    def chunk(self) -> bytes:
        """Give the next piece of the body, empty at its end."""
        if self.status in _BODYLESS:
            return b""
        if self.headers.get("transfer-encoding") == "chunked":
            size = int(self._until(b"\r\n") or b"0", 16)
            data = self._take(size)
            self._until(b"\r\n")
            return data
        if "content-length" in self.headers:
            data = self._take(int(self.headers["content-length"]))
            self.headers["content-length"] = "0"
            return data
        return self.raw()

    def raw(self) -> bytes:
        """Give what comes on a connection that is no HTTP any more, empty at its end."""
        if self._held:
            found = bytes(self._held)
            self._held.clear()
            return found
        try:
            return self.socket.recv(_CHUNK)
        except ConnectionResetError:
            return b""

    def body(self) -> bytes:
        """Read the whole body."""
        parts = []
        while part := self.chunk():
            parts.append(part)
        return b"".join(parts)

    def json(self) -> Any:
        """Read the body as JSON; None where there is none. Raises Refused for an error."""
        data = self.body()
        held = json.loads(data) if data.strip() else None
        if self.status >= 400:  # noqa: PLR2004 - HTTP
            raise Refused(self.status, (held or {}).get("message", "") if isinstance(held, dict) else "")
        return held


class Client:
    """Talks to one daemon by its socket."""

    def __init__(self, path: str = SOCKET) -> None:
        """Take the path of the socket; nothing is connected yet."""
        self.path = path

    def open(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        *,
        upgrade: bool = False,
    ) -> Answer:
        """Ask, and give the answer as it comes. Raises Unreachable."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise Unreachable(
                f"Cannot connect to the Docker daemon at unix://{self.path}. Is the docker daemon running?"
            ) from error
        data = b"" if body is None else json.dumps(body).encode()
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", f"Content-Length: {len(data)}"]
        lines += ["Content-Type: application/json"] if data else []
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else []
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return Answer(sock)

    def ask(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Ask, and give the answer's JSON. Raises Refused, Unreachable."""
        answer = self.open(method, path, body, query)
        try:
            return answer.json()
        finally:
            answer.socket.close()


def each(client: Client, names: list[str], act: Callable[[Client, str], object]) -> int:
    """Do the same to several, say the name of each that went well, and go on past those that did not."""
    code = 0
    for name in names:
        try:
            act(client, name)
            sys.stdout.write(f"{name}\n")
        except Refused as error:
            sys.stderr.write(f"Error response from daemon: {error.message}\n")
            code = 1
    return code
