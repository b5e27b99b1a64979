"""Addresses: RTM_NEWADDR in the words of `ip -j -d addr`. See rtnetlink(7), linux/if_addr.h."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from doctor.linux.attributes import (
    RAW,
    Reader,
    address,
    ip,
    number,
    text,
    unsigned,
    word,
)
from doctor.linux.netlink import head

_ADDRESS_HEAD = Struct("=BBBBI")  # family, prefixlen, flags, scope, index
FAMILIES = {2: "inet", 10: "inet6"}

SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


_INET6 = 10

_PERMANENT_ADDRESS = 0x80

_ADDRESS_FLAGS = (
    (0x2, "nodad"),
    (0x4, "optimistic"),
    (0x8, "dadfailed"),
    (0x10, "home"),
    (0x20, "deprecated"),
    (0x40, "tentative"),
    (0x100, "mngtmpaddr"),
    (0x200, "noprefixroute"),
    (0x400, "autojoin"),
    (0x800, "stable-privacy"),
)

_PROTOCOLS = {1: "kernel_lo", 2: "kernel_ra", 3: "kernel_ll"}


def _lifetimes(value: bytes) -> str:
    return f'"valid_life_time":{unsigned(value[4:8])},"preferred_life_time":{unsigned(value[:4])}'


_PEER = 1

_LOCAL = 2

_ALL_FLAGS = 8

_ADDRESSES = Reader(
    {
        _PEER: RAW,
        _LOCAL: RAW,
        _ALL_FLAGS: RAW,
        3: text("label"),
        4: ip("broadcast"),
        5: ip("anycast"),
        6: _lifetimes,
        9: number("metric"),
        11: word("protocol", _PROTOCOLS),
    }
)


def read_address(payload: bytes) -> tuple[int, str]:
    """Decode one RTM_NEWADDR: the index of its link, and an object of its `addr_info`. Raises MalformedError."""
    family, prefix, flags, scope, index = head(_ADDRESS_HEAD, payload)
    parts, raw = _ADDRESSES.read(payload, _ADDRESS_HEAD.size)
    if _ALL_FLAGS in raw:
        flags = unsigned(raw[_ALL_FLAGS])  # wider than the head's byte
    peer = raw.get(_PEER)
    local = raw.get(_LOCAL, peer)
    front = [f'"family":"{FAMILIES.get(family) or family}"']
    if local is not None:
        front.append(f'"local":"{address(local)}"')
        if peer is not None and peer != local:
            front.append(f'"address":"{address(peer)}"')
    front.append(_address_words(family, prefix, scope, flags))
    return index, "{" + ",".join(front + parts) + "}"


@lru_cache(256)
def _address_words(family: int, prefix: int, scope: int, flags: int) -> str:
    parts = [f'"prefixlen":{prefix}', f'"scope":"{SCOPES.get(scope) or scope}"']
    if flags & 1:
        parts.append('"temporary":true' if family == _INET6 else '"secondary":true')
    parts += [f'"{name}":true' for bit, name in _ADDRESS_FLAGS if flags & bit]
    if not flags & _PERMANENT_ADDRESS:
        parts.append('"dynamic":true')
    return ",".join(parts)
