"""Decoders on what no kernel says: random bytes, and real messages cut short or with bits turned over."""

from __future__ import annotations

import json
from contextlib import suppress
from errno import EBADMSG, EFBIG, EINTR, EMSGSIZE, ENOBUFS, EPERM, ETIMEDOUT
from struct import pack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.linux import netlink, rtnetlink
from doctor.linux.addresses import read_address
from doctor.linux.links import read_link, show_link
from doctor.linux.netlink import MalformedError
from doctor.linux.nfnetlink import read_table
from doctor.linux.routes import read_neighbour, read_route, read_rule, show_hop, show_route
from doctor.linux.sock_diag import read_socket

if TYPE_CHECKING:
    from collections.abc import Callable


def attribute(kind: int, value: bytes) -> bytes:
    """Make one attribute, padded."""
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(payload: bytes) -> str:
    """Decode a link as far as its line."""
    found = read_link(payload)
    return show_link(found, [], {found.ifindex: found})


def route(payload: bytes) -> str:
    """Decode a route as far as its line."""
    found = read_route(payload)
    return show_route(found, {}) if found else "{}"


def neighbour(payload: bytes) -> str:
    """Decode a neighbour as far as its line."""
    found = read_neighbour(payload)
    return f"{{{show_hop(found, {})}}}" if found else "{}"


READERS: dict[str, Callable[[bytes], str]] = {
    "link": link,
    "address": lambda payload: read_address(payload)[1],
    "route": route,
    "rule": lambda payload: read_rule(payload) or "{}",
    "neighbour": neighbour,
    "socket": lambda payload: json.dumps(read_socket(payload, "tcp LISTEN")),
    "table": lambda payload: json.dumps(read_table(payload)),
}

HEADS = {
    "link": pack("=BxHiII", 0, 1, 2, 0x11043, 0),
    "address": pack("=BBBBI", 2, 24, 0x80, 0, 2),
    "route": pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, 1, 0),
    "rule": pack("=BBBBBxxBI", 2, 0, 0, 0, 254, 1, 0),
    "neighbour": pack("=BxxxiHBB", 2, 3, 0x80, 0, 1),
    "socket": pack("=BBBB48x", 2, 10, 0, 0) + bytes(20),
    "table": pack("=BxH", 2, 0),
}
KINDS = st.one_of(st.integers(0, 70), st.integers(0, 0xFFFF))
VALUES = st.one_of(st.binary(max_size=40), st.sampled_from([b"eth0\0", b"bridge\0", bytes(4), b"\xff" * 4, bytes(16)]))
ATTRIBUTES = st.recursive(
    st.lists(st.tuples(KINDS, VALUES), max_size=8).map(lambda found: b"".join(attribute(*one) for one in found)),
    lambda inner: st.lists(st.tuples(KINDS, inner), max_size=4).map(
        lambda found: b"".join(attribute(kind, value[:60000]) for kind, value in found)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("what", READERS)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_malformed_or_text(what: str, data: bytes) -> None:
    """Whatever comes, there is text of JSON, or MalformedError."""
    with suppress(MalformedError):
        json.loads(READERS[what](data))


@pytest.mark.parametrize("what", READERS)
@given(found=ATTRIBUTES, cut=st.integers(0, 400), flip=st.tuples(st.integers(0, 400), st.integers(0, 255)))
def test_random_attributes_are_malformed_or_text(what: str, found: bytes, cut: int, flip: tuple[int, int]) -> None:
    """A right head with any attributes, whole, cut short, or changed in a byte: the same."""
    whole = HEADS[what] + found
    changed = bytearray(whole)
    if flip[0] < len(changed):
        changed[flip[0]] ^= flip[1]
    for data in (whole, whole[:cut], bytes(changed)):
        with suppress(MalformedError):
            json.loads(READERS[what](data))


@given(found=st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=50)), max_size=20), tail=st.integers(0, 3))
def test_attributes_come_back(found: list[tuple[int, bytes]], tail: int) -> None:
    """Splitting attributes gives what was put together, the flags of nesting aside, with or without last padding."""
    data = b"".join(attribute(kind | 0x8000, value) for kind, value in found)
    last = -len(found[-1][1]) % 4 if found else 0
    data = data[: len(data) - min(last, tail)]
    assert [(kind, data[start:end]) for kind, start, end in netlink.attributes(data)] == found


@pytest.mark.parametrize("what", [one for one in READERS if one not in {"socket", "table"}])
@given(kind=st.integers(100, 0x3FFF), value=st.binary(max_size=40))
def test_an_unknown_attribute_is_kept(what: str, kind: int, value: bytes) -> None:
    """An attribute of a kernel younger than we are is not lost."""
    found = json.loads(READERS[what](HEADS[what] + attribute(kind, value)))
    assert found["nla"] == {str(kind): value.hex()}


@given(data=st.binary(max_size=100), sequence=st.integers(0, 3))
def test_random_datagrams_raise_nothing_else(data: bytes, sequence: int) -> None:
    """Splitting messages gives payloads, or an OSError."""
    with suppress(OSError):
        netlink.messages(data, sequence, [])


@pytest.mark.parametrize(
    ("flags", "family", "word"),
    [
        (0x48, 10, ["dadfailed", "tentative", "dynamic"]),
        (0x80, 2, []),
        (0x81, 2, ["secondary"]),
        (0x181, 10, ["temporary", "mngtmpaddr"]),
        (0x880, 10, ["stable-privacy"]),
    ],
)
def test_flags_of_addresses(flags: int, family: int, word: list[str]) -> None:
    """Flags that no test brings about have the names of ip."""
    payload = pack("=BBBBI", family, 64, flags & 0xFF, 0, 1) + attribute(8, pack("=I", flags))
    _, text = read_address(payload)
    assert [key for key, value in json.loads(text).items() if value is True] == word


def test_a_name_that_is_no_text() -> None:
    """A name may be any bytes: it is spelt so that the text is JSON, and two names stay two."""
    one, other = (json.loads(link(HEADS["link"] + attribute(3, name))) for name in (b'a"\xff\0', b'a"\xfe\0'))
    assert (one["ifname"], other["ifname"]) == ('a"\\xff', 'a"\\xfe')


def test_an_xdp_program_is_seen() -> None:
    """A program that sees packets before the firewall does is named; that there is none is not said."""
    attached = attribute(43, attribute(2, b"\x01") + attribute(4, pack("=I", 17)))
    assert json.loads(link(HEADS["link"] + attached))["xdp"] == {"mode": 1, "prog": {"id": 17}}
    assert "xdp" not in json.loads(link(HEADS["link"] + attribute(43, attribute(2, b"\0"))))


# The socket


class Kernel:
    """In the place of a socket: answers with datagrams, and with errors."""

    def __init__(self, *answers: bytes | OSError, port: int = 0) -> None:
        """Queue the answers."""
        self.answers = list(answers)
        self.port = port
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Keep what is asked."""
        self.sent.append(data)

    def recvfrom_into(self, buffer: bytearray, _: int, __: int) -> tuple[int, tuple[int, int]]:
        """Give the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        buffer[: len(answer)] = answer[: len(buffer)]
        return len(answer), (self.port, 0)

    def close(self) -> None:
        """Nothing to do."""


def message(payload: bytes, sequence: int = 1, kind: int = 16, flags: int = 2) -> bytes:
    """Make one message."""
    return pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def done(sequence: int = 1, flags: int = 2, code: int = 0) -> bytes:
    """Make the last message."""
    return message(pack("=i", code), sequence, 3, flags)


def dump(*answers: bytes | OSError, timeout: float = 5.0, port: int = 0) -> list[bytes]:
    """Ask a kernel that answers so."""
    with netlink.Socket(netlink.ROUTE, timeout) as asked:
        asked._socket.close()
        asked._socket = Kernel(*answers, port=port)  # type: ignore[assignment]
        return asked.dump(18, bytes(16), "RTM_GETLINK")


def test_payloads_of_several_datagrams() -> None:
    """An answer in parts is one."""
    assert dump(message(b"one"), message(b"four") + message(b""), done()) == [b"one", b"four", b""]


def test_what_was_left_of_another_answer_is_skipped() -> None:
    """Messages of another sequence belong to a question that was given up."""
    assert dump(message(b"old", 9) + done(9), message(b"new"), done()) == [b"new"]


def test_an_interrupted_dump_is_asked_for_anew() -> None:
    """NLM_F_DUMP_INTR in any message, DONE included: what came is of two states."""
    assert dump(message(b"bad", flags=0x12), done(), message(b"good", 2), done(2)) == [b"good"]
    assert dump(message(b"bad"), done(flags=0x12), message(b"good", 2), done(2)) == [b"good"]


def test_a_dump_that_is_always_interrupted_is_an_error() -> None:
    """Three times is enough."""
    with pytest.raises(InterruptedError) as caught:
        dump(*(done(number, flags=0x12) for number in (1, 2, 3)))
    assert (caught.value.errno, caught.value.filename) == (EINTR, "RTM_GETLINK")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (message(pack("=i", -EPERM) + bytes(16), kind=2), EPERM),
        (done(code=-ENOBUFS), ENOBUFS),
        (OSError(ENOBUFS, "no buffer space available"), ENOBUFS),
        (BlockingIOError(11, "again"), ETIMEDOUT),
        (b"\0" * 7, EBADMSG),
        (pack("=IHHII", 90, 16, 2, 1, 0), EBADMSG),
        (bytes(70000), EMSGSIZE),
    ],
)
def test_errors_have_errno_and_question(answer: bytes | OSError, code: int) -> None:
    """What the kernel refuses, and what is no answer, is an OSError that says which question failed."""
    with pytest.raises(OSError, match="RTM_GETLINK") as caught:
        dump(answer)
    assert caught.value.errno == code


def test_an_answer_without_end_is_given_up() -> None:
    """The bound holds for an answer as a whole, however often something comes."""
    with pytest.raises(TimeoutError):
        dump(*[message(b"more")] * 5, timeout=-1.0)


def test_an_answer_of_enormous_size_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded too."""
    monkeypatch.setattr(netlink, "LIMIT", 100)
    with pytest.raises(OSError, match="more than 100 bytes") as caught:
        dump(message(bytes(90)), message(bytes(90)), done())
    assert caught.value.errno == EFBIG


def test_only_the_kernel_is_believed() -> None:
    """A process in the same namespace may send to our port; what it sends is no answer."""
    with pytest.raises(TimeoutError):
        dump(message(b"forged"), done(), BlockingIOError(11, "again"), port=4711)


def test_any_user_may_ask() -> None:
    """Reading one's own namespace needs no right."""
    with rtnetlink.Route(timeout=5) as asked:
        links: list[dict[str, Any]] = json.loads(asked.links())
        assert json.loads(asked.rules())[0]["table"] == "local"
    assert links[0]["ifname"] == "lo"
