r"""Ask nameservers one question each from inside network namespaces, by UDP and by TCP, all at the same time.

Run as a program (`spawn.own`) it takes how many seconds it may wait and one argument a question::

    INODE TAB PATH TAB SERVER TAB NAME          PATH is that of a namespace file, or `host`

It prints one line for each question and protocol, fields joined by single spaces::

    4026532250 198.51.100.1 udp answered NXDOMAIN 0.8      answered: and how (RFC 1035 RCODE), in milliseconds
    4026532250 198.51.100.1 tcp silent - 2000.2            silent, refused, no-route, blocked, closed, failed, denied, gone

A socket stays in the namespace of the thread that made it: one thread goes from one to the next, and waits for all of
them together. One datagram and one connection a question, never a second one: a name of this machine's own (see
`doctor.asking`), type PTR, class IN, recursion desired.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable

PORT = 53
_PTR, _IN = 12, 1
_RECURSE, _ANSWER = 0x0100, 0x8000
_HEADER = 12
_RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "closed",
    errno.EPIPE: "closed",
    errno.ETIMEDOUT: "silent",
    errno.ENETUNREACH: "no-route",
    errno.EHOSTUNREACH: "no-route",
    errno.EADDRNOTAVAIL: "no-route",
    errno.EINVAL: "no-route",  # a blackhole route
    errno.EACCES: "blocked",  # a prohibit route
    errno.EPERM: "blocked",  # a rule of OUTPUT
}
"""What became of a question that the kernel, or an ICMP message, answered."""


class Question(NamedTuple):
    """One question: the namespace by inode and by path (`host`: the one we are in), the server, the name."""

    inode: str
    path: str
    server: str
    name: str


def query(name: str, number: int) -> bytes:
    """Give the message that asks for the PTR of a name (RFC 1035, 4.1).

    >>> query("1.in-addr.arpa", 7).hex(" ", 4)
    '00070100 00010000 00000000 01310769 6e2d6164 64720461 72706100 000c0001'
    """
    labels = b"".join(bytes((len(one),)) + one for one in name.encode("ascii").split(b"."))
    return struct.pack("!6H", number, _RECURSE, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, _PTR, _IN)


def rcode(answer: bytes, number: int) -> str:
    """Give the word for how a message answers our question; empty when it is no answer to it."""
    if len(answer) < _HEADER:
        return ""
    ident, flags = struct.unpack_from("!HH", answer)
    if ident != number or not flags & _ANSWER:
        return ""
    code = flags & 15
    return _RCODES[code] if code < len(_RCODES) else f"RCODE{code}"


class _Try:
    """One question by one protocol."""

    def __init__(self, asked: Question, protocol: str, barred: str) -> None:
        """Send it, from the namespace in which this thread is; `barred` says why it is not where it should be."""
        self.asked, self.protocol, self.number = asked, protocol, int.from_bytes(os.urandom(2), "big")
        self.outcome, self.detail, self.ms = barred, "-", 0.0
        self.begun = time.monotonic()
        self.sock: socket.socket | None = None
        self._message = query(asked.name, self.number)
        self._held = b""
        if barred:
            return
        try:
            self._begin()
        except OSError as error:
            self.failed(error.errno or 0)

    def _begin(self) -> None:
        address, _, zone = self.asked.server.partition("%")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_DGRAM if self.protocol == "udp" else socket.SOCK_STREAM
        self.sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        place = (address, PORT, 0, socket.if_nametoindex(zone) if zone else 0) if ":" in address else (address, PORT)
        if kind == socket.SOCK_STREAM:
            code = self.sock.connect_ex(place)
            if code not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))
        else:
            self.sock.connect(place)
            self.sock.send(self._message)

    @property
    def waits_for(self) -> int:
        """The event it waits for: to be connected, or to be answered."""
        return select.POLLOUT if self.protocol == "tcp" and self._message else select.POLLIN

    def ready(self) -> None:
        """Take what has come."""
        assert self.sock is not None  # noqa: S101 - it is polled
        try:
            if self.waits_for == select.POLLOUT:
                code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self.failed(code)
                    return
                self.sock.send(struct.pack("!H", len(self._message)) + self._message)
                self._message = b""
                return
            data = self.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error.errno or 0)
            return
        if self.protocol == "tcp":
            self._held += data
            if not data:
                self.end("closed")
            data = self._held[2:]
            if len(data) < _HEADER:
                return
        word = rcode(data, self.number)
        if word:
            self.end("answered", word)
        elif self.protocol == "tcp":
            self.end("failed", "no-dns")

    def failed(self, code: int) -> None:
        """Note what the kernel said."""
        word = _WORDS.get(code)
        self.end(word or "failed", "-" if word else errno.errorcode.get(code, "-"))

    def end(self, outcome: str, detail: str = "-") -> None:
        """Note what became of it; the first word holds."""
        if not self.outcome:
            self.outcome, self.detail = outcome, detail
            self.ms = (time.monotonic() - self.begun) * 1000
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @property
    def line(self) -> str:
        """The line that says what became of it."""
        one = self.asked
        return f"{one.inode} {one.server} {self.protocol} {self.outcome} {self.detail} {self.ms:.1f}\n"


def ask(questions: Iterable[Question], seconds: float) -> str:
    """Ask all of them at the same time, and wait at most this long. Raises nothing: a line says what stood in the way."""
    tries: list[_Try] = []
    until = time.monotonic() + seconds
    where = ""
    barred = ""
    for asked in sorted(questions, key=lambda one: (one.path != "host", one.inode)):
        if asked.inode != where and asked.path != "host":
            barred = _go(asked)
        where = asked.inode
        tries += (_Try(asked, protocol, barred) for protocol in ("udp", "tcp"))
    poll = select.poll()
    while (open_ := {one.sock.fileno(): one for one in tries if one.sock is not None}) and (
        left := until - time.monotonic()
    ) > 0:
        for handle, one in open_.items():
            poll.register(handle, one.waits_for)
        for handle, _ in poll.poll(left * 1000):
            open_[handle].ready()
        for handle in open_:
            poll.unregister(handle)
    for one in tries:
        if one.sock is not None:
            one.end("silent")
    return "".join(one.line for one in tries)


def _go(asked: Question) -> str:
    """Go to where a question is asked; the word for what stood in the way, empty when nothing did."""
    try:
        namespaces.enter(asked.path, expected=int(asked.inode))
    except OSError as error:
        return "denied" if error.errno in {errno.EPERM, errno.EACCES} else "gone"
    return ""


def main() -> None:
    """Ask what the arguments say, and print what became of it."""
    seconds, *rest = sys.argv[1:]
    fields = (one.split("\t") for one in rest)
    questions = [Question(*one) for one in fields if len(one) == len(Question._fields)]
    os.write(1, ask(questions, float(seconds)).encode("utf-8", "surrogateescape"))
