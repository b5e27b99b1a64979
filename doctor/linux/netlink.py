"""Netlink dumps: ask, read until done, give the messages. Source: netlink(7), kernel `include/uapi/linux/netlink.h`."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 0, 4, 12
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _DUMP_INTR = 1, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")
_RECEIVE = 1 << 17
_TRIES = 3


class NetlinkError(OSError):
    """The kernel refused a dump, or its answer does not hold together."""


class Netlink:
    """One socket in the calling thread's network namespace. Use it in a `with` statement."""

    def __init__(self, protocol: int, timeout: float) -> None:
        """Open a socket whose answers are waited for `timeout` seconds. Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(timeout)
        self._serial = 0

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """Ask for a dump: type and payload of each message. One that changed under way is asked for again, three times.

        Raises OSError.
        """
        for _ in range(_TRIES):
            found, whole = self._dump(kind, body)
            if whole:
                return found
        raise NetlinkError(11, "the dump changed while it was read")

    def _dump(self, kind: int, body: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        self._serial += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, self._serial, 0) + body)
        found: list[tuple[int, bytes]] = []
        whole = True
        while True:
            data = self._socket.recv(_RECEIVE)
            for number, flags, serial, payload in messages(data):
                if serial != self._serial:
                    continue
                whole = whole and not flags & _DUMP_INTR
                if number == _DONE:
                    return found, whole
                if number == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0  # noqa: PLR2004 - an int
                    raise NetlinkError(code, os.strerror(code))
                found.append((number, payload))


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Split what one receive gave: type, flags, serial and payload of each message. Raises NetlinkError."""
    at = 0
    while at + 16 <= len(data):
        length, number, flags, serial, _ = _HEADER.unpack_from(data, at)
        if length < 16 or at + length > len(data):  # noqa: PLR2004 - the header's own length
            raise NetlinkError(74, "a message is longer than what came")
        yield number, flags, serial, data[at + 16 : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """Read attributes (type → value) from an offset on; one that does not fit ends the list."""
    found = {}
    end = len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > end:  # noqa: PLR2004 - the attribute's own header
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
