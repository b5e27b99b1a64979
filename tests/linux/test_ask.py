"""Nameservers are asked once by each protocol; what comes back is told in a word; nothing waits longer than its bound."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.linux import ask as asking
from doctor.linux.ask import Question, ask, query, rcode

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "1.0.0.127.in-addr.arpa"
QUESTION = Question("0", "host", "127.0.0.1", NAME)
REFUSED = 5


class Server:
    """Answers on both protocols with what `answer` makes of a question, and keeps what it was sent."""

    def __init__(self) -> None:
        """Take a free port for both."""
        self.asked: list[tuple[str, bytes]] = []
        self.code: int | None = 3
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for serve in (self._datagrams, self._connections):
            threading.Thread(target=serve, daemon=True).start()

    def _answer(self, data: bytes) -> bytes:
        return data[:2] + (0x8180 | (self.code or 0)).to_bytes(2, "big") + data[4:6] + bytes(6) + data[12:]

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self.udp.recvfrom(512)
                self.asked.append(("udp", data))
                if self.code is not None:
                    self.udp.sendto(self._answer(data), peer)

    def _connections(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.tcp.accept()
                data = client.recv(512)
                self.asked.append(("tcp", data[2:]))
                if self.code is None:
                    threading.Timer(2, client.close).start()
                    continue
                answer = self._answer(data[2:])
                client.sendall(len(answer).to_bytes(2, "big") + answer[:5])
                client.sendall(answer[5:])
                client.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on a port of its own."""
    made = Server()
    monkeypatch.setattr(asking, "PORT", made.port)
    yield made
    made.udp.close()
    made.tcp.close()


def words(lines: str) -> list[list[str]]:
    """The fields but for the time."""
    return [line.split(" ")[2:5] for line in lines.splitlines()]


def test_each_is_asked_once(server: Server) -> None:
    """One datagram and one connection, with the question that was given."""
    assert words(ask([QUESTION], 1.0)) == [["udp", "answered", "NXDOMAIN"], ["tcp", "answered", "NXDOMAIN"]]
    assert sorted(protocol for protocol, _ in server.asked) == ["tcp", "udp"]
    assert all(data[2:] == query(NAME, 0)[2:] for _, data in server.asked)


def test_refusal_is_an_answer(server: Server) -> None:
    """REFUSED in the answer is told as such."""
    server.code = REFUSED
    assert [one[1:] for one in words(ask([QUESTION], 1.0))] == [["answered", "REFUSED"]] * 2


def test_silence_ends_with_the_bound(server: Server) -> None:
    """All are waited for together: one after the other would take six times as long."""
    server.code = None
    start = time.monotonic()
    assert [one[1] for one in words(ask([QUESTION] * 3, 1.0))] == ["silent"] * 6
    assert time.monotonic() - start < 5.0


def test_closed_port(server: Server) -> None:
    """Nobody listens: refused, at once, by both."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server.port = port
    asking.PORT, kept = port, asking.PORT
    try:
        assert [one[1] for one in words(ask([QUESTION], 1.0))] == ["refused", "refused"]
    finally:
        asking.PORT = kept


def test_namespace_that_is_gone() -> None:
    """A namespace that is not there is told, and the others are asked."""
    found = words(ask([Question("1", "/proc/1/ns/nothing", "127.0.0.1", NAME)], 0.2))
    assert [one[1] for one in found] in (["gone"] * 2, ["denied"] * 2)


@given(st.binary(max_size=64), st.integers(0, 65535))
def test_any_message_has_a_word_or_none(data: bytes, number: int) -> None:
    """What is no answer to our question is none, whatever it is."""
    word = rcode(data, number)
    assert not word or (len(data) >= 12 and int.from_bytes(data[:2], "big") == number)
