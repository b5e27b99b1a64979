"""The elements of nftables' named sets and maps, in the shape of `nft -j list sets` (libnftables-json(5)).

`nft -t` leaves them out, because a set of 100,000 elements would cost a third of a second and 66 MB to list; here a set
is left out by itself when it is too large for anybody to read. Elements are printed as nft prints them, numbers where nft
has names. What a set of some kind holds that is not known here is left out as a whole.

Source: linux/netfilter/nf_tables.h; the numbers of types are nftables' own (include/datatype.h). Asking loads the module
nf_tables where it is not there yet: whoever calls looks first.
"""

from __future__ import annotations

import json
from struct import pack
from typing import TYPE_CHECKING, Any, NamedTuple

from doctor.linux import netlink
from doctor.linux.attributes import address, string
from doctor.linux.netlink import NATIVE, attributes, head, values
from doctor.linux.nfnetlink import FAMILIES, HEAD

if TYPE_CHECKING:
    from collections.abc import Iterable

_GETSET, _GETELEM = (10 << 8) | 10, (10 << 8) | 13
_ANONYMOUS, _INTERVAL, _MAP = 1, 4, 8
_END, _CATCHALL = 1, 2
_TABLE, _NAME, _FLAGS, _KEY, _KEY_BYTES, _DATA = 1, 2, 3, 4, 5, 6
_VERDICT = 0xFFFFFF00
_BITS = 6
_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}

SETS = 64
"""Sets that are read at most."""
BYTES = 256 << 10
"""Bytes of one set's elements: some thousands of them."""


class Kind(NamedTuple):
    """A type of a key: how many bytes, and whether they are in this machine's order."""

    size: int
    native: bool = False


_KINDS = {7: Kind(4), 8: Kind(16), 12: Kind(1), 13: Kind(2), 19: Kind(4, native=True), 41: Kind(16, native=True)}
"""ipv4_addr, ipv6_addr, inet_proto, inet_service, mark, ifname."""
_IPV4, _IPV6, _IFNAME = 7, 8, 41


class _UnknownError(Exception):
    """A type or a verdict that is not among the few."""


class _Set(NamedTuple):
    family: int
    table: str
    name: str
    flags: int
    key: tuple[int, ...]


def sets(timeout: float) -> bytes:
    """Give all named sets and maps of the calling thread's namespace that can be read. Raises OSError."""
    with netlink.Socket(netlink.NETFILTER, timeout) as filters:
        listed = [read_set(one) for one in filters.dump(_GETSET, bytes(4), "NFT_MSG_GETSET")]
    found = []
    for one in [one for one in listed if one is not None][:SETS]:
        body = pack("=BxH", one.family, 0) + _text(1, one.table) + _text(2, one.name)
        try:
            with netlink.Socket(netlink.NETFILTER, timeout) as filters:
                held = filters.dump(_GETELEM, body, "NFT_MSG_GETSETELEM", most=BYTES)
            shown = show(one, held)
        except (OSError, _UnknownError, LookupError, ValueError):
            continue
        found.append(json.dumps({"map" if one.flags & _MAP else "set": shown}))
    return ('{"nftables": [\n' + ",\n".join(found) + "\n]}\n").encode()


def _text(kind: int, text: str) -> bytes:
    data = text.encode() + b"\0"
    return pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def read_set(payload: bytes) -> _Set | None:
    """Decode one NFT_MSG_NEWSET; None for one that has no name of its own. Raises MalformedError."""
    family, _ = head(HEAD, payload)
    about = values(payload, HEAD.size)
    flags = _number(about.get(_FLAGS, b"\0"))
    if flags & _ANONYMOUS:
        return None
    packed = _number(about.get(_KEY, b"\0"))
    key = []
    while packed:
        key.append(packed & (1 << _BITS) - 1)
        packed >>= _BITS
    return _Set(family, string(about.get(_TABLE, b"")), string(about.get(_NAME, b"")), flags, tuple(reversed(key)))


def show(one: _Set, payloads: Iterable[bytes]) -> dict[str, Any]:
    """Give a set with its elements, as nft -j does. Raises _UnknownError, MalformedError."""
    raw: list[tuple[bytes, bytes, int, Any]] = []
    for payload in payloads:
        listed = values(payload, HEAD.size).get(3, b"")
        for _, start, end in attributes(listed):
            element = values(listed[start:end])
            flags = _number(element.get(3, b"\0"))
            if flags & _CATCHALL:
                raise _UnknownError
            first = values(element[1])[1]
            last = values(element[10])[1] if 10 in element else b""  # noqa: PLR2004 - NFTA_SET_ELEM_KEY_END
            raw.append((first, last, flags, _data(element.get(2, b"")) if one.flags & _MAP else None))
    if len(one.key) > 1:
        keys = [(_concat(one.key, first, last or first), data) for first, last, _, data in raw]
    elif one.flags & _INTERVAL:
        keys = _intervals(one.key[0], raw)
    else:
        keys = [(_value(one.key[0], first), data) for first, _, _, data in raw]
    elements = [[key, data] for key, data in keys] if one.flags & _MAP else [key for key, _ in keys]
    return {"family": FAMILIES.get(one.family, ""), "table": one.table, "name": one.name, "elem": elements}


def _intervals(kind: int, raw: list[tuple[bytes, bytes, int, Any]]) -> list[tuple[Any, Any]]:
    """Pair the elements of an interval set: each begins one, or ends the one before it."""
    found: list[tuple[Any, Any]] = []
    size = _size(kind)
    if _KINDS[kind].native:
        raise _UnknownError
    begun: tuple[int, Any] | None = None
    for first, _, flags, data in sorted(raw, key=lambda row: (row[0][:size], not row[2] & _END)):
        at = int.from_bytes(first[:size], "big")
        if flags & _END:
            if begun is not None:
                found.append((_range(kind, begun[0], at - 1), begun[1]))
            begun = None
        else:
            begun = (at, data)
    if begun is not None:
        found.append((_range(kind, begun[0], (1 << 8 * size) - 1), begun[1]))
    return found


def _range(kind: int, first: int, last: int) -> Any:
    size = _size(kind)
    ends = [_value(kind, one.to_bytes(size, "big")) for one in (first, last)]
    return ends[0] if first == last else {"range": ends}


def _concat(kinds: tuple[int, ...], first: bytes, last: bytes) -> Any:
    """Split a key of several fields, each padded to four bytes; ranges have another key for their ends."""
    found = []
    at = 0
    for kind in kinds:
        size = _size(kind)
        low, high = first[at : at + size], last[at : at + size]
        found.append(_value(kind, low) if low == high else {"range": [_value(kind, low), _value(kind, high)]})
        at += (size + 3) & ~3
    return {"concat": found}


def _size(kind: int) -> int:
    if kind not in _KINDS:
        raise _UnknownError
    return _KINDS[kind].size


def _value(kind: int, data: bytes) -> Any:
    """Print one key."""
    data = data[: _size(kind)]
    if kind in {_IPV4, _IPV6}:
        return address(data)
    if kind == _IFNAME:
        return string(data)
    return int.from_bytes(data, NATIVE if _KINDS[kind].native else "big")


def _data(data: bytes) -> Any:
    """Print what a map leads to: a verdict; anything else is not known here."""
    verdict = values(data).get(2)
    if verdict is None:
        raise _UnknownError
    about = values(verdict)
    word = _VERDICTS[_number(about[1], signed=True)]
    return {word: {"target": string(about[2])}} if word in {"jump", "goto"} else {word: None}


def _number(data: bytes, *, signed: bool = False) -> int:
    return int.from_bytes(data, "big", signed=signed)
