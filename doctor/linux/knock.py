"""Try one connection from inside a network namespace: one SYN, or one datagram, and what came of it.

Run as a program (`spawn.own`) it takes the namespace's path (`host`: the one we are in) and inode, address, port, `tcp` or
`udp`, and how many seconds it may wait. It prints a word and the seconds it took::

    timeout 2.000          connected, timeout, refused, no-route, unreachable, reset; answered (udp); denied, gone, failed

The kernel may repeat a SYN after a second. Nothing is sent over a connection that stands; it is closed at once.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time

from doctor.linux import namespaces

_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.EACCES: "unreachable",
    errno.EPERM: "timeout",
    errno.EINVAL: "no-route",
    errno.EADDRNOTAVAIL: "no-route",
}


def knock(address: str, port: int, protocol: str, seconds: float) -> str:
    """Try it from the namespace of this thread; gives the word. Raises OSError for what is no answer of a network."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = protocol == "tcp"
    with socket.socket(family, (socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK) as made:
        code = made.connect_ex((address, port))
        if not stream and not code:
            made.send(b"")
        elif code not in {0, errno.EINPROGRESS}:
            word = _word(code)
            return "no-route" if word == "unreachable" else word  # the sender's own kernel says so, at once
        poll = select.poll()
        poll.register(made, select.POLLOUT if stream else select.POLLIN)
        if not poll.poll(seconds * 1000):
            return "timeout"
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return _word(code)
        return "connected" if stream else "answered"


def _word(code: int) -> str:
    word = _WORDS.get(code)
    if word is None:
        raise OSError(code, os.strerror(code))
    return word


def main() -> None:
    """Try what the arguments say, and print what became of it."""
    path, inode, address, port, protocol, seconds = sys.argv[1:]
    begun = time.monotonic()
    try:
        if path != "host":
            namespaces.enter(path, expected=int(inode))
        word = knock(address, int(port), protocol, float(seconds))
    except PermissionError:
        word = "denied"
    except OSError as error:
        word = "gone" if error.errno in {errno.ENOENT, errno.ESTALE} else f"failed: {error.strerror}"
    os.write(1, f"{word} {time.monotonic() - begun:.3f}\n".encode())
