"""A client of the Engine API that can only GET: one kept-alive connection, raw bodies, a bound on time and size.

Own code and not `http.client`, whose import (email, ssl) costs 22 ms of a start and whose time-outs hold for one
system call, not for an answer. It speaks what the engine speaks: HTTP/1.1 with a length or in chunks (RFC 9112, 6 and 7).
Source of the paths: moby `api/swagger.yaml`. They are used without a version prefix: the daemon then answers with its own
newest version, which every generation since 1.6 does.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.lines import Status

LIMIT = 32 << 20
"""Bytes of one answer, at most: /images/json of 10,000 images is about 8 MB."""

_HEAD = 64 << 10

_BAD_REQUEST = 400
_PLAIN = b"HTTP request to an HTTPS server"
"""What Go answers to HTTP where it listens for TLS (net/http server.go)."""


class ApiError(Exception):
    """The daemon could not be asked: `status` is denied, absent, timeout or failed; `why` has the errno in words."""

    def __init__(self, status: Status, why: str, errno: int = 0) -> None:
        """Keep status, reason and errno."""
        super().__init__(why)
        self.status = status
        self.why = why
        self.errno = errno


class _ProtocolError(Exception):
    """The answer is no HTTP, or too large."""


class DockerApi:
    """GET requests to one daemon. Not thread-safe: one thread, one client."""

    def __init__(self, address: str, seconds: float = 2.0, certificates: str = "") -> None:
        """Take an address as `-H` spells it, `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`; connects lazily.

        A daemon that wants TLS is spoken to in TLS, with ca.pem, cert.pem and key.pem of the directory `certificates`,
        where they are (docs.docker.com/engine/security/protect-access).
        """
        self.address = address
        self._seconds = seconds
        self._certificates = certificates
        self._tls = False
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._until = 0.0

    @property
    def where(self) -> str:
        """The socket's path, or the address as it was given."""
        return self.address.removeprefix("unix://")

    def get(self, path: str, seconds: float | None = None) -> tuple[int, bytes]:
        """GET a path: HTTP status and raw body. Raises ApiError; after one the connection is made anew."""
        seconds = self._seconds if seconds is None else seconds
        self._until = time.monotonic() + seconds
        try:
            status, body = self._ask(path)
            if status == _BAD_REQUEST and _PLAIN in body and not self._tls:
                self._tls = True
                self.close()
                return self._ask(path)
        except TimeoutError as error:
            raise ApiError("timeout", f"GET {path} unanswered after {seconds:.1f} s") from error
        except PermissionError as error:
            raise ApiError("denied", _words(error, self.where), error.errno or 0) from error
        except FileNotFoundError as error:
            raise ApiError("absent", _words(error, self.where), error.errno or 0) from error
        except (OSError, _ProtocolError) as error:
            reason = str(getattr(error, "reason", "")) if self._tls else ""
            if "CERTIFICATE" in reason:  # the alert of a daemon with tlsverify
                held = f", and {self._certificates} has none that it takes" if self._certificates else ""
                raise ApiError("denied", f"{self.where}: it asks for a client's certificate{held}") from error
            number = error.errno or 0 if isinstance(error, OSError) else 0
            raise ApiError("failed", _words(error, self.where), number) from error
        return status, body

    def close(self) -> None:
        """Close the connection; the next `get` opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer.clear()

    def _ask(self, path: str) -> tuple[int, bytes]:
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._socket.settimeout(self._left())
            self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\nUser-Agent: doctor\r\n\r\n".encode())
            status, headers = self._head()
            if headers.get("transfer-encoding", "").lower() == "chunked":
                body = self._chunks()
            elif "content-length" in headers:
                body = self._take(_length(headers["content-length"], 10))
            else:
                body = self._rest()
        except BaseException:
            self.close()
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, body

    def _connect(self) -> socket.socket:
        if self.address.startswith("unix://"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(self._left())
            try:
                made.connect(self.where)
            except BaseException:
                made.close()
                raise
            return made
        host, _, port = self.address.removeprefix("tcp://").rstrip("/").rpartition(":")
        if not port.isdigit():
            raise _ProtocolError(f"{self.address}: no unix:// or tcp:// address with a port")
        plain = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), self._left())
        return self._secured(plain) if self._tls else plain

    def _secured(self, plain: socket.socket) -> socket.socket:
        """Begin TLS. The name is not compared: the address is this host's own, and certificates name public ones."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        ca, cert, key = (f"{self._certificates}/{name}.pem" for name in ("ca", "cert", "key"))
        try:
            if self._certificates and os.path.exists(ca):  # noqa: PTH110 - no import for one name
                context.load_verify_locations(ca)
            else:
                context.verify_mode = ssl.CERT_NONE
            if self._certificates and os.path.exists(cert):  # noqa: PTH110 - as above
                context.load_cert_chain(cert, key, password=_refuse)
            return context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _more(self) -> bool:
        """Read what there is; False at the end of the stream."""
        if self._socket is None:
            return False
        self._socket.settimeout(self._left())
        part = self._socket.recv(1 << 16)
        self._buffer += part
        return bool(part)

    def _line(self) -> str:
        start = 0
        while (end := self._buffer.find(b"\r\n", start)) < 0:
            start = max(0, len(self._buffer) - 1)
            if len(self._buffer) > _HEAD or not self._more():
                raise _ProtocolError("the answer is no HTTP, or ends early")
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 2]
        return line

    def _head(self) -> tuple[int, dict[str, str]]:
        words = self._line().split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():  # noqa: PLR2004 - version, status
            raise _ProtocolError("the answer is no HTTP")
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._more():
                raise _ProtocolError("the answer ends early")
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        while size := _length(self._line().partition(";")[0], 16):
            total += size
            if total > LIMIT:
                raise _ProtocolError(f"answer larger than {LIMIT >> 20} MiB")
            parts.append(self._take(size))
            self._line()
        while self._line():
            pass  # trailers
        return b"".join(parts)

    def _rest(self) -> bytes:
        while self._more():
            if len(self._buffer) > LIMIT:
                raise _ProtocolError(f"answer larger than {LIMIT >> 20} MiB")
        body = bytes(self._buffer)
        self.close()
        return body


def _refuse() -> str:
    """Give no password: a key that needs one is of no use without somebody to ask."""
    raise _ProtocolError("the client's key wants a password")


def _length(text: str, base: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError:
        raise _ProtocolError(f"{text[:40]!r} is no length") from None
    if not 0 <= size <= LIMIT:
        raise _ProtocolError(f"answer larger than {LIMIT >> 20} MiB")
    return size


def _words(error: Exception, where: str) -> str:
    reason = getattr(error, "reason", None)  # of ssl.SSLError, whose errno is none of the system's
    if isinstance(reason, str):
        return f"{where}: TLS: {reason.lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno:
        return f"{where}: {os.strerror(error.errno).lower()}"
    return f"{where}: {error or type(error).__name__}"
