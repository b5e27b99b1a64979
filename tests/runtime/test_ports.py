"""What `-p` says, and which ports are taken; the words are docker's (20.10.24, 26.1.5, 28.5.2)."""

from __future__ import annotations

import re
import socket

import pytest

from doctor.runtime.model import Publish
from doctor.runtime.ports import PortAllocator, PortError, ordered, parse

ANY = "0.0.0.0"  # noqa: S104 - as docker says it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", (Publish(80),)),
        ("8080:80", (Publish(80, "tcp", 8080),)),
        ("127.0.0.1:8080:80/udp", (Publish(80, "udp", 8080, "127.0.0.1"),)),
        ("127.0.0.1::80", (Publish(80, "tcp", 0, "127.0.0.1"),)),
        ("[::1]:8080:80/TCP", (Publish(80, "tcp", 8080, "::1"),)),
        ("8080-8081:80-81", (Publish(80, "tcp", 8080), Publish(81, "tcp", 8081))),
        ("8000-8003:80", (Publish(80, "tcp", 8000, "", 8003),)),
        ("80-81", (Publish(80), Publish(81))),
        ("9000:9000/sctp", (Publish(9000, "sctp", 9000),)),
    ],
)
def test_a_port_is_read(text: str, expected: tuple[Publish, ...]) -> None:
    """All forms that docker takes."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99999:80", "Invalid hostPort: 99999"),
        ("abc", "Invalid containerPort: abc"),
        ("80:80:80:80", "Invalid ip address 80:80: address 80:80:: too many colons in address"),
        ("::1:80:80", "Invalid ip address ::1: address ::1:: too many colons in address"),
        ("8000-8002:80-81", "Invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
        ("8099:80/xyz", "Invalid proto: xyz"),
        ("300.0.0.1:80:80", "Invalid ip address: 300.0.0.1"),
        ("10000-9999:80", "Invalid hostPort: 10000-9999"),
        ("8080:", "No port specified: 8080:<empty>"),
        ("²:80", "Invalid hostPort: ²"),
    ],
)
def test_a_wrong_one_is_told_in_dockers_words(text: str, words: str) -> None:
    """What the client says before it asks the daemon."""
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        parse(text)


def take(allocator: PortAllocator, wanted: Publish, *addresses: str) -> list[tuple[str, int]]:
    """Take a port; gives address and number."""
    return [(one.address, one.number) for one in allocator.publish(wanted, addresses, "172.17.0.2")]


def busy() -> socket.socket:
    """A port that somebody else listens on."""
    made = socket.socket()
    made.bind((ANY, 0))
    made.listen()
    return made


def test_a_port_is_taken_once() -> None:
    """Until 27 each address has its own ports, so the kernel is who minds; from 28 on any address minds all."""
    classic, new = PortAllocator(classic=True), PortAllocator(classic=False)
    for allocator, words in (
        (classic, "Error starting userland proxy: listen tcp4 127.0.0.1:{}: bind: address already in use"),
        (new, "Bind for 0.0.0.0:{} failed: port is already allocated"),
    ):
        held = allocator.publish(Publish(80), (ANY,), "172.17.0.2")
        number = held[0].number
        with pytest.raises(PortError) as caught:
            take(allocator, Publish(81, "tcp", number), ANY)
        assert str(caught.value) == f"Bind for 0.0.0.0:{number} failed: port is already allocated"
        with pytest.raises(PortError) as caught:
            take(allocator, Publish(81, "tcp", number), "127.0.0.1")
        assert str(caught.value) == words.format(number)
        assert take(allocator, Publish(80, "udp", number), ANY) == [(ANY, number)]
        allocator.release(held)
        assert take(allocator, Publish(81, "tcp", number), ANY) == [(ANY, number)]


def test_what_somebody_else_holds_is_told() -> None:
    """In the words of each generation; a port that the daemon chooses is chosen anew."""
    with busy() as other:
        number = other.getsockname()[1]
        with pytest.raises(PortError) as caught:
            take(PortAllocator(classic=True), Publish(80, "tcp", number), ANY)
        assert str(caught.value) == (
            f"Error starting userland proxy: listen tcp4 0.0.0.0:{number}: bind: address already in use"
        )
        allocator = PortAllocator(classic=False)
        with pytest.raises(PortError) as caught:
            take(allocator, Publish(80, "tcp", number), ANY, "::")
        assert str(caught.value) == (
            f"failed to bind host port for 0.0.0.0:{number}:172.17.0.2:80/tcp: address already in use"
        )
        found = take(allocator, Publish(80, "tcp", number, "", number + 5), ANY)
        assert number < found[0][1] <= number + 5
    with pytest.raises(PortError, match="cannot assign requested address"):
        take(allocator, Publish(80, "tcp", 8099), "192.0.2.7")


def test_one_number_for_both_families() -> None:
    """From 28 on; the next one is another."""
    allocator = PortAllocator(classic=False)
    first = take(allocator, Publish(80), ANY, "::")
    second = take(allocator, Publish(81), ANY, "::")
    assert first[0][1] == first[1][1] != second[0][1] == second[1][1]


def test_the_order_is_the_engines() -> None:
    """Before 28 the highest port of the container first; from 28 on what has a port of its own."""
    asked = (Publish(80), Publish(81, "tcp", 8081), Publish(82, "tcp", 7000, "", 7005), Publish(81, "udp", 9))
    assert [(one.port, one.protocol) for one in ordered(asked, classic=True)] == [
        (82, "tcp"),
        (81, "tcp"),
        (81, "udp"),
        (80, "tcp"),
    ]
    assert [(one.port, one.protocol) for one in ordered(asked, classic=False)] == [
        (81, "tcp"),
        (81, "udp"),
        (80, "tcp"),
        (82, "tcp"),
    ]
