"""Who listens: the lines of ss."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from doctor.linux import sock_diag

if TYPE_CHECKING:
    from tests.linux.spaces import Space

ANY = "0.0.0.0"  # noqa: S104 - in a namespace that nothing leads to

pytestmark = pytest.mark.root


def words(lines: str) -> set[str]:
    """Take the lines of ss for comparison: without what we leave out, the cgroup and the state of shutdown."""
    return {
        " ".join(word for word in line.split() if word != "<->" and not word.startswith("cgroup:"))
        for line in lines.splitlines()
    }


def test_listeners_are_those_of_ss(crowded: Space) -> None:
    """TCP in LISTEN and UDP without a peer, both families, bound to any, one address or one device."""
    plain: list[tuple[int, int, Any, dict[tuple[int, int], int | bytes]]] = [
        (socket.AF_INET, socket.SOCK_STREAM, (ANY, 80), {}),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::", 81), {(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): 0}),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::", 82), {(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): 1}),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 83), {}),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", 84), {}),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::", 86), {(socket.SOL_SOCKET, socket.SO_BINDTODEVICE): b"br0\0"}),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53), {}),
        (socket.AF_INET, socket.SOCK_DGRAM, (ANY, 68), {(socket.SOL_SOCKET, socket.SO_BINDTODEVICE): b"br0\0"}),
        (socket.AF_INET6, socket.SOCK_DGRAM, ("::", 5353), {(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): 0}),
    ]

    with ExitStack() as stack:

        def work() -> bytes:
            for family, kind, place, options in plain:
                made = stack.enter_context(socket.socket(family, kind))
                for (level, option), value in options.items():
                    made.setsockopt(level, option, value)
                made.bind(place)
                if kind == socket.SOCK_STREAM:
                    made.listen(7)
            waiting = stack.enter_context(socket.socket())
            waiting.connect(("127.0.0.1", 80))
            sending = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sending.connect(("127.0.0.1", 53))
            sending.send(b"a question that waits")
            return sock_diag.listeners(timeout=5)

        ours = crowded.call(work).decode().splitlines()
        theirs = words(crowded.run("ss", "-Htulne"))
    assert set(ours) == theirs
    assert len(ours) == len(plain)
    assert ours == sorted(ours, key=lambda line: (line.split()[0], int(line.split()[4].rpartition(":")[2])))
    assert any(line.startswith("udp UNCONN ") and not line.startswith("udp UNCONN 0") for line in ours)


def test_the_owner_is_told(bare: Space) -> None:
    """A user but root is named by number, as ss does."""
    kept: list[socket.socket] = []

    def work() -> bytes:
        made = socket.socket()
        kept.append(made)
        os.fchown(made.fileno(), 4711, 4711)
        made.bind(("127.0.0.1", 8000))
        made.listen()
        return sock_diag.listeners(timeout=5)

    (line,) = bare.call(work).decode().splitlines()
    assert " uid:4711 " in line
    assert {line} == words(bare.run("ss", "-Htulne"))
    kept[0].close()


def test_nobody_listens(bare: Space) -> None:
    """A namespace without sockets gives nothing."""
    assert bare.call(lambda: sock_diag.listeners(timeout=5)) == b""
