"""The nftables rules of one network namespace, put as they are into others.

What iptables-nft and nft write is tables, chains and rules, and the kernel gives them back in the form in which it takes
them. So a program has to write the rules of a container's resolver once, and not in fifty namespaces that are to have the
same: a process costs three milliseconds, a copy a tenth of one.

Source: linux/netfilter/nf_tables.h, nfnetlink.h (NFNL_MSG_BATCH_BEGIN), net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

import os
import socket
from struct import Struct, pack
from typing import TYPE_CHECKING

from doctor.linux import netlink
from doctor.linux.netlink import attributes
from doctor.linux.nfnetlink import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterable

_SUBSYSTEM = 10
_TABLE, _CHAIN, _RULE = 0, 3, 6
"""NFT_MSG_NEWTABLE, _NEWCHAIN and _NEWRULE; one more is the question for them."""
_GETSET = 10
_KEPT = {_TABLE: {1, 2, 6}, _CHAIN: {1, 3, 4, 5, 7, 10, 12}, _RULE: {1, 2, 4, 7}}
"""Attributes that make an object what it is: the kernel gives handles, positions, counts of use and counters beside them."""

_BEGIN, _END = 0x10, 0x11
_REQUEST, _ACKNOWLEDGED, _APPENDED = 0x1, 0x4, 0xC00
"""NLM_F_REQUEST, NLM_F_ACK, and NLM_F_CREATE with NLM_F_APPEND."""
_ERROR = 2
_MESSAGE = Struct("=IHHII")
_CODE = Struct("=i")


class ForeignError(Exception):
    """There is something that cannot be copied: a set, or nothing at all."""


def read(timeout: float) -> bytes:
    """Give all tables, chains and rules of the calling thread's namespace as one transaction. Raises ForeignError, OSError."""
    with netlink.Socket(netlink.NETFILTER, timeout) as filters:
        if filters.dump(_SUBSYSTEM << 8 | _GETSET, bytes(HEAD.size), "NFT_MSG_GETSET"):
            raise ForeignError("a set")
        held = [
            (kind, one)
            for kind in (_TABLE, _CHAIN, _RULE)
            for one in filters.dump(_SUBSYSTEM << 8 | kind + 1, bytes(HEAD.size), f"nf_tables {kind + 1}")
        ]
    return transaction(held)


def transaction(held: Iterable[tuple[int, bytes]]) -> bytes:
    """Make one transaction of objects as they were given: their kind and payload. Raises ForeignError where there is none."""
    bodies = [(_SUBSYSTEM << 8 | kind, payload[:1] + bytes(3) + _kept(kind, payload)) for kind, payload in held]
    if not bodies:
        raise ForeignError("no tables")
    parts = [_message(_BEGIN, _REQUEST, 0, pack("!BBH", 0, 0, _SUBSYSTEM))]
    for number, (kind, body) in enumerate(bodies, 1):
        last = _ACKNOWLEDGED if number == len(bodies) else 0
        parts.append(_message(kind, _REQUEST | _APPENDED | last, number, body))
    return b"".join([*parts, _message(_END, _REQUEST, len(bodies) + 1, pack("!BBH", 0, 0, _SUBSYSTEM))])


def _kept(kind: int, payload: bytes) -> bytes:
    """Give those attributes of an object that make it."""
    at, parts = HEAD.size, []
    for name, _, end in attributes(payload, HEAD.size):
        if name in _KEPT[kind]:
            parts.append(payload[at:end].ljust(((end - at) + 3) & ~3, b"\0"))
        at = (end + 3) & ~3
    return b"".join(parts)


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, number, 0) + body


def write(whole: bytes, timeout: float) -> None:
    """Carry out a transaction in the calling thread's namespace: all of it, or nothing. Raises OSError, TimeoutError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETFILTER) as filters:
        filters.settimeout(timeout)
        filters.sendall(whole)
        while True:
            data = filters.recv(1 << 16)
            at = 0
            while at + _MESSAGE.size <= len(data):
                length, kind, *_ = _MESSAGE.unpack_from(data, at)
                if kind == _ERROR:  # of whatever failed, else of the last one, which was to be acknowledged
                    code = -_CODE.unpack_from(data, at + _MESSAGE.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code).lower(), "nftables")
                    return
                at += max(_MESSAGE.size, (length + 3) & ~3)
