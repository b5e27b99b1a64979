"""Netlink: one question to the kernel, the messages it answers with, and their attributes. See netlink(7).

A dump is `u32 length, u16 type, u16 flags, u32 sequence, u32 port` and a payload, message after message, until DONE;
a payload is a fixed head and attributes of `u16 length, u16 type`, each padded to four bytes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from errno import EBADMSG, EFBIG, EINTR, EMSGSIZE, ETIMEDOUT
from struct import Struct, pack
from sys import byteorder
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

ROUTE: Final = 0
SOCK_DIAG: Final = 4
NETFILTER: Final = 12

NATIVE: Final = byteorder

_HEAD = Struct("=IHHI")
ATTRIBUTE = Struct("=HH")
ATTRIBUTE_BYTES = 4
_HEAD_BYTES = 16
KIND = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""

_LAST = frozenset({2, 3})
"""NLMSG_ERROR and NLMSG_DONE; each begins with an errno, negated, or 0."""

_MAX_ERRNO = 4095
_REQUEST_DUMP = 0x301
_DUMP_INTERRUPTED = 0x10

_BUFFER = 1 << 16
"""The kernel fills at most 32 KiB at a time, however large the buffer (af_netlink.c, netlink_recvmsg)."""

LIMIT = 32 << 20
"""Bytes of one answer; a full BGP table would be more, and no Docker host's."""

TRIES = 3


_own = threading.local()


def _buffer() -> bytearray:
    """Give the calling thread's buffer: to clear 64 KiB for each namespace would cost more than to decode what it says."""
    try:
        found: bytearray = _own.buffer
    except AttributeError:
        found = _own.buffer = bytearray(_BUFFER)
    return found


class MalformedError(OSError):
    """An answer that is no netlink message, or is cut short."""

    def __init__(self, what: str) -> None:
        """Say what is wrong with it."""
        super().__init__(EBADMSG, what)


class Socket:
    """One netlink socket of the namespace in which it was opened; it stays there when the thread moves on."""

    def __init__(self, protocol: int, timeout: float) -> None:
        """Open it; `timeout` bounds each answer as a whole, in seconds.

        It cannot bound a kernel that holds its routing lock: a dump is made within sendto(2), without interruption.
        """
        self._timeout = timeout
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            seconds, rest = divmod(max(timeout, 0.001), 1)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, pack("@ll", int(seconds), int(rest * 1_000_000))
            )
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._socket.close()

    def dump(self, kind: int, body: bytes, what: str, most: int = 0) -> list[bytes]:
        """Ask for all objects of a kind; gives the payload of every message. `most` bounds their bytes (0: LIMIT).

        An answer that the kernel calls inconsistent (something changed between two parts of it) is asked for anew.
        Raises OSError with the kernel's errno and `what`; EINTR when every answer was inconsistent, ETIMEDOUT
        (TimeoutError), ENOBUFS, EMSGSIZE, EFBIG, or MalformedError.
        """
        until = time.monotonic() + self._timeout
        try:
            for _ in range(TRIES):
                self._sequence += 1
                question = _HEAD.pack(_HEAD_BYTES + len(body), kind, _REQUEST_DUMP, self._sequence) + bytes(4) + body
                self._socket.send(question)
                payloads, whole = self._answer(until, most or LIMIT)
                if whole:
                    return payloads
        except OSError as error:
            error.filename = what
            raise
        raise OSError(EINTR, "changed while it was read, each time", what)

    def _answer(self, until: float, most: int) -> tuple[list[bytes], bool]:
        """Receive up to DONE; gives the payloads and whether they are of one state."""
        payloads: list[bytes] = []
        whole = True
        size = 0
        buffer = _buffer()
        while True:
            data = self._receive(buffer)
            size += len(data)
            if size > most:
                raise OSError(EFBIG, f"more than {most:,} bytes")
            flags, done = messages(data, self._sequence, payloads)
            whole = whole and not flags & _DUMP_INTERRUPTED
            if done:
                return payloads, whole
            if time.monotonic() > until:
                raise TimeoutError(ETIMEDOUT, os.strerror(ETIMEDOUT).lower())

    def _receive(self, buffer: bytearray) -> bytes:
        """Receive one datagram of the kernel's; what anybody else sends (its port is not 0) is none."""
        try:
            size, sender = self._socket.recvfrom_into(buffer, 0, socket.MSG_TRUNC)
        except BlockingIOError as error:
            raise TimeoutError(ETIMEDOUT, os.strerror(ETIMEDOUT).lower()) from error
        if size > _BUFFER:
            raise OSError(EMSGSIZE, f"a message of {size:,} bytes")
        return bytes(memoryview(buffer)[:size]) if sender[0] == 0 else b""


def messages(data: bytes, sequence: int, payloads: list[bytes]) -> tuple[int, bool]:
    """Split one datagram: appends the payloads that answer `sequence`; gives their flags, ored, and whether it is the last.

    Raises OSError for an error that the kernel reports, MalformedError.
    """
    flags = 0
    at = 0
    end = len(data)
    while at < end:
        if end - at < _HEAD_BYTES:
            raise MalformedError("cut short in a message's head")
        length, kind, flag, number = _HEAD.unpack_from(data, at)
        after = at + length
        if length < _HEAD_BYTES or after > end:
            raise MalformedError(f"a message of {length} bytes where {end - at} are left")
        if number == sequence:  # else the rest of an answer that was given up
            flags |= flag
            if kind in _LAST:
                _raise(int.from_bytes(data[at + _HEAD_BYTES : at + _HEAD_BYTES + 4], NATIVE, signed=True))
                return flags, True
            payloads.append(data[at + _HEAD_BYTES : after])
        at = (after + 3) & ~3
    return flags, False


def _raise(code: int) -> None:
    if code < 0:
        code = min(-code, _MAX_ERRNO)
        raise OSError(code, os.strerror(code).lower())


def attributes(data: bytes, at: int = 0) -> list[tuple[int, int, int]]:
    """Split the attributes that stand in `data` from `at` on: type, and where the value begins and ends.

    Raises MalformedError.
    """
    found = []
    size = len(data)
    while at < size:
        if size - at < ATTRIBUTE_BYTES:
            raise MalformedError("cut short in an attribute's head")
        length, kind = ATTRIBUTE.unpack_from(data, at)
        end = at + length
        if length < ATTRIBUTE_BYTES or end > size:
            raise MalformedError(f"an attribute of {length} bytes where {size - at} are left")
        found.append((kind & KIND, at + ATTRIBUTE_BYTES, end))
        at = (end + 3) & ~3
    return found


def values(data: bytes, at: int = 0) -> dict[int, bytes]:
    """Give the values of the attributes that stand in `data` from `at` on, by type. Raises MalformedError."""
    return {kind: data[start:end] for kind, start, end in attributes(data, at)}


def head(layout: Struct, data: bytes) -> tuple[Any, ...]:
    """Unpack the fixed head of a payload. Raises MalformedError."""
    if len(data) < layout.size:
        raise MalformedError(f"a payload of {len(data)} bytes where its head takes {layout.size}")
    return layout.unpack_from(data)
