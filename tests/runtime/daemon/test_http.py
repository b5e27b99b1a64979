"""The daemon's HTTP: what clients send in pieces, together, or wrongly."""

from __future__ import annotations

import socket

import pytest

from doctor.runtime.daemon.http import Connection, Request, Server
from doctor.runtime.daemon.log import Log, quoted
from doctor.runtime.daemon.loop import Loop


def _raise(error: Exception) -> None:
    raise error


class Talk:
    """A client, and a server that echoes."""

    def __init__(self) -> None:
        """Connect both."""
        self.loop = Loop(_raise)
        self.seen: list[Request] = []
        self.server = Server(self.loop, self._answer, {"Server": "test"})
        self.client, other = socket.socketpair()
        self.client.settimeout(1)
        self.connection = Connection(self.loop, other, self.server)
        self.server.connections.add(self.connection)

    def _answer(self, request: Request, to: Connection) -> None:
        self.seen.append(request)
        if request.path == "/stream":
            to.stream()
            to.chunk(b"one")
            to.chunk(b"two")
            to.end()
        else:
            to.json({"path": request.path, "body": request.body.decode()})

    def say(self, data: bytes) -> bytes:
        """Send, let the server work, and give what came."""
        self.client.sendall(data)
        for _ in range(8):
            self.loop.once(0.01)
        self.client.setblocking(False)  # noqa: FBT003 - a method of the library
        found = b""
        try:
            while part := self.client.recv(1 << 16):
                found += part
        except BlockingIOError:
            pass
        return found


def test_requests_on_one_connection() -> None:
    """Two at once, one in pieces, one in chunks: each is answered, in order."""
    talk = Talk()
    got = talk.say(b"GET /a HTTP/1.1\r\n\r\nGET /v1.41/b?x=1 HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nContent-Le")
    assert got.count(b"HTTP/1.1 200 OK") == 2
    got = talk.say(b"ngth: 2\r\n\r\nhiPOST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert b'"body":"hi"' in got
    assert b'"body":"abc"' in got
    assert [one.path for one in talk.seen] == ["/a", "/v1.41/b", "/c", "/d"]
    assert talk.seen[1].query == {"x": "1"}


def test_answers_in_chunks() -> None:
    """As a stream ends with a chunk of nothing, and the connection goes on."""
    talk = Talk()
    got = talk.say(b"GET /stream HTTP/1.1\r\n\r\n")
    assert got.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert b"200" in talk.say(b"GET /again HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * (70 << 10),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    """With an answer, and the connection is closed."""
    talk = Talk()
    assert talk.say(data).startswith(b"HTTP/1.1 400 Bad Request")
    assert talk.connection.closed
    assert not talk.server.connections


def test_levels_filter(capfd: pytest.CaptureFixture[str]) -> None:
    """Each level lets through what is as grave or graver, debug everything; values are quoted as logrus does."""
    for level, expected in (("debug", 5), ("info", 4), ("warn", 3), ("error", 2), ("fatal", 1)):
        log = Log(2, level)
        for write in (log.debug, log.info, log.warning, log.error, log.fatal):
            write("what happened", of="a b")
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == expected, level
        assert lines[-1].endswith(' level=fatal msg="what happened" of="a b"')
    Log(2, "error", debug=True).debug("x")
    assert "level=debug msg=x" in capfd.readouterr().err
    Log(2, "info", "json").info("x", graph_driver="y")
    assert '"graph-driver":"y","level":"info","msg":"x"' in capfd.readouterr().err
    assert quoted('a"b') == '"a\\"b"'
