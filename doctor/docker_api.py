"""A client of the Engine API that can only GET: one kept-alive connection, raw bodies, a bound on time and size.

Source: moby `api/swagger.yaml`. The path is used without a version prefix: the daemon then answers with its own
newest version, which every generation since 1.6 does.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from urllib.parse import urlsplit

LIMIT = 32 << 20
"""Bytes of one answer, at most: /images/json of 10,000 images is about 8 MB."""


class ApiError(Exception):
    """The daemon could not be asked: `status` is denied, absent, timeout or failed; `why` has the errno in words."""

    def __init__(self, status: str, why: str, errno: int = 0) -> None:
        """Keep status, reason and errno."""
        super().__init__(why)
        self.status = status
        self.why = why
        self.errno = errno


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerApi:
    """GET requests to one daemon. Not thread-safe: one thread, one client."""

    def __init__(self, address: str, seconds: float = 2.0) -> None:
        """Take an address as `-H` spells it, `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`; connects lazily."""
        parts = urlsplit(address)
        self.address = address
        self.path = parts.path if parts.scheme == "unix" else ""
        self._where = (parts.hostname or "127.0.0.1", parts.port or 2375)
        self._seconds = seconds
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, seconds: float | None = None) -> tuple[int, bytes]:
        """GET a path: HTTP status and raw body. Raises ApiError; after one the connection is made anew."""
        seconds = self._seconds if seconds is None else seconds
        until = time.monotonic() + seconds
        if self._connection is None:
            self._connection = (
                _UnixConnection(self.path, seconds)
                if self.path
                else http.client.HTTPConnection(*self._where, timeout=seconds)
            )
        connection = self._connection
        try:
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            connection.request("GET", path, headers={"Host": "docker"})
            answer = connection.getresponse()
            body = _body(answer, connection.sock, until)
        except TimeoutError as error:
            self.close()
            raise ApiError("timeout", f"GET {path} unanswered after {seconds:.1f} s") from error
        except PermissionError as error:
            self.close()
            raise ApiError("denied", _words(error, self.path), error.errno or 0) from error
        except FileNotFoundError as error:
            self.close()
            raise ApiError("absent", _words(error, self.path), error.errno or 0) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            number = error.errno or 0 if isinstance(error, OSError) else 0
            raise ApiError("failed", _words(error, self.path or self.address), number) from error
        return answer.status, body

    def close(self) -> None:
        """Close the connection; the next `get` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _words(error: Exception, where: str) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{where}: {os.strerror(error.errno).lower()}"
    return f"{where}: {error or type(error).__name__}"


def _body(answer: http.client.HTTPResponse, sock: socket.socket | None, until: float) -> bytes:
    """Read a body in pieces: an answer that trickles for ever ends at the deadline like one that never comes."""
    parts: list[bytes] = []
    size = 0
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if sock is not None and sock.fileno() >= 0:
            sock.settimeout(left)
        part = answer.read1(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > LIMIT:
            raise http.client.HTTPException(f"answer larger than {LIMIT >> 20} MiB")
