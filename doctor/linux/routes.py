"""Routes, rules and neighbours in the words of `ip -j -d route show table all`, `ip -j -d rule`, `ip -j -d neigh`.

See rtnetlink(7), linux/fib_rules.h, linux/neighbour.h. Two things that ip knows from its arguments are said in the
text, since both families stand in one array: `"family":"inet6"` on the routes and rules of IPv6. Names are those that
iproute2 has built in; what /etc/iproute2 calls otherwise on this host is shown as its number.
Given one payload these functions are pure, and cached where every namespace of a host holds the same.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux.addresses import FAMILIES, SCOPES
from doctor.linux.attributes import (
    RAW,
    Reader,
    address,
    boolean,
    colons,
    hexadecimal,
    ip,
    network,
    number,
    quoted,
    string,
    unsigned,
    word,
)
from doctor.linux.links import device
from doctor.linux.netlink import MalformedError, head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.linux.attributes import Shower, Table
    from doctor.linux.links import Link

INET = 2
INET6 = 10

# family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ROUTE_HEAD = Struct("=BBBBBBBBI")
_HOP_HEAD = Struct("=HBBi")  # length, flags, hops, index
_RULE_HEAD = Struct("=BBBBBxxBI")  # family, dst_len, src_len, tos, table, action, flags
_NEIGHBOUR_HEAD = Struct("=BxxxiHBB")  # family, index, state, flags, type

_BITS = {INET: 32, INET6: 128}
_TABLES = {0: "unspec", 253: "default", 254: "main", 255: "local"}
_PROTOCOLS = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    8: "gated",
    9: "ra",
    10: "mrt",
    11: "zebra",
    12: "bird",
    13: "dnrouted",
    14: "xorp",
    15: "ntk",
    16: "dhcp",
    18: "keepalived",
    42: "babel",
    99: "openr",
    186: "bgp",
    187: "isis",
    188: "ospf",
    189: "rip",
    192: "eigrp",
}
_TYPES = (
    "none",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
    "xresolve",
)
_ROUTE_FLAGS = (
    (0x1, "dead"),
    (0x4, "onlink"),
    (0x2, "pervasive"),
    (0x8, "offload"),
    (0x40, "trap"),
    (0x100, "notify"),
    (0x10, "linkdown"),
    (0x20, "unresolved"),
    (0x4000, "rt_offload"),
    (0x8000, "rt_trap"),
    (0x20000000, "rt_offload_failed"),
)
_CLONED = 0x200
"""A cached exception (a path MTU that was learnt), no route of a table."""

_PREFERENCES = {0: "medium", 1: "high", 3: "low"}


def _name(value: int, names: dict[int, str]) -> str:
    return names.get(value) or str(value)


def _type(value: int) -> str:
    return _TYPES[value] if value < len(_TYPES) else str(value)


def _flags(flags: int) -> str:
    return '"flags":[' + ",".join(f'"{name}"' for bit, name in _ROUTE_FLAGS if flags & bit) + "]"


def _prefix(value: bytes | None, bits: int, family: int) -> str:
    """Spell a destination: `default`, an address alone when all of it counts, else with its length."""
    if value is None:
        return f"0/{bits}" if bits else "default"
    return address(value) if bits == _BITS[family] else f"{address(value)}/{bits}"


def _via(value: bytes) -> str:
    """Show a gateway of another family than the route's: struct rtvia."""
    family = unsigned(value[:2])
    return f'"via":{{"family":"{_name(family, FAMILIES)}","host":"{address(value[2:])}"}}'


_METRICS = Reader(
    {
        2: number("mtu"),
        3: number("window"),
        6: number("ssthresh"),
        7: number("cwnd"),
        8: number("advmss"),
        9: number("reordering"),
        10: number("hoplimit"),
        11: number("initcwnd"),
        14: number("initrwnd"),
        15: number("quickack"),
        17: number("fastopen_no_cookie"),
    }
)

_TO = 1
_FROM = 2
_DEVICE = 4
_GATEWAY = 5
_WAYS = 9
_TABLE = 15

_WAY: Table = {_GATEWAY: ip("gateway"), 18: _via}
_ROUTES = Reader(
    {
        **_WAY,
        _TO: RAW,
        _FROM: RAW,
        _DEVICE: RAW,
        _GATEWAY: RAW,
        _WAYS: RAW,
        _TABLE: RAW,
        6: number("metric"),
        7: ip("prefsrc"),
        8: lambda value: f'"metrics":[{_METRICS.within(value)}]',
        12: None,  # cacheinfo: how long ago, how often, how long yet
        20: word("pref", _PREFERENCES),
        26: boolean("ttl-propogate"),
        30: number("nhid"),
    }
)
_HOPS = Reader(_WAY)


class Hop(NamedTuple):
    """JSON with a device in it: what stands before, its index (-1: none), what stands after."""

    before: str
    ifindex: int
    after: str


class Route(NamedTuple):
    """One route: a way, and more of them when it has several."""

    way: Hop
    ways: tuple[Hop, ...]


@lru_cache(4096)
def read_route(payload: bytes) -> Route | None:
    """Decode one RTM_NEWROUTE; None for what ip does not list either. Raises MalformedError."""
    family, bits, from_bits, tos, table, protocol, scope, kind, flags = head(_ROUTE_HEAD, payload)
    if family not in _BITS or flags & _CLONED:
        return None
    parts, raw = _ROUTES.read(payload, _ROUTE_HEAD.size)
    before = f'"type":"{_type(kind)}","dst":"{_prefix(raw.get(_TO), bits, family)}"'
    if _FROM in raw or from_bits:
        before += f',"from":"{_prefix(raw.get(_FROM), from_bits, family)}"'
    if _GATEWAY in raw:
        before += f',"gateway":"{address(raw[_GATEWAY])}"'
    if _TABLE in raw:
        table = unsigned(raw[_TABLE])  # wider than the head's byte
    parts.append(_route_words(family, tos, table, protocol, scope, flags))
    way = Hop(before, unsigned(raw[_DEVICE]) if _DEVICE in raw else -1, ",".join(parts))
    return Route(way, tuple(_hops(raw[_WAYS])) if _WAYS in raw else ())


def show_route(route: Route, links: dict[int, Link]) -> str:
    """Show a route as an object; `links` are all of its namespace, by index."""
    way = show_hop(route.way, links)
    if not route.ways:
        return f"{{{way}}}"
    return f'{{{way},"nexthops":[{",".join(f"{{{show_hop(one, links)}}}" for one in route.ways)}]}}'


def show_hop(hop: Hop, links: dict[int, Link]) -> str:
    """Put the name of the device into what was made ready."""
    if hop.ifindex < 0:
        return f"{hop.before},{hop.after}"
    where = f'"dev":{device(hop.ifindex, links)}'
    return f"{hop.before},{where},{hop.after}" if hop.before else f"{where},{hop.after}"


@lru_cache(256)
def _route_words(family: int, tos: int, table: int, protocol: int, scope: int, flags: int) -> str:
    parts = [
        f'"table":"{_name(table, _TABLES)}","protocol":"{_name(protocol, _PROTOCOLS)}"',
        f'"scope":"{_name(scope, SCOPES)}"',
        _flags(flags),
    ]
    if tos:
        parts.append(f'"tos":"0x{tos:02x}"')
    if family == INET6:
        parts.append('"family":"inet6"')
    return ",".join(parts)


def _hops(value: bytes) -> Iterator[Hop]:
    """Split RTA_MULTIPATH: struct rtnexthop, its attributes, and the next."""
    at = 0
    while at < len(value):
        length, flags, weight, index = head(_HOP_HEAD, value[at:])
        if length < _HOP_HEAD.size or at + length > len(value):
            raise MalformedError(f"a next hop of {length} bytes where {len(value) - at} are left")
        parts, _ = _HOPS.read(value[at : at + length], _HOP_HEAD.size)
        yield Hop(",".join(parts), index, f'"weight":{weight + 1},{_flags(flags)}')
        at += (length + 3) & ~3


# Rules

_INVERT = 0x2
_UNRESOLVED = 0x4
_LOOK_UP = 1
_GOTO = 2
_NOP = 3

_TARGET = 4
_PRIORITY = 6
_MARK = 10
_MASK = 16
_L3MDEV = 19
_INTERFACES = ((3, "iif", 0x8), (17, "oif", 0x10))  # type, key, flag that says: there is no such link

_UNSET = b"\xff\xff\xff\xff"


def _range(key: str, ends: tuple[str, str]) -> Shower:
    """Show two numbers, or a single one where both are the same and there is a key for that."""

    def show(value: bytes) -> str:
        half = len(value) // 2
        first, last = unsigned(value[:half]), unsigned(value[half:])
        return f'"{key}":{first}' if key and first == last else f'"{ends[0]}":{first},"{ends[1]}":{last}'

    return show


def _unless(unset: bytes, shower: Shower) -> Shower:
    """Show nothing for the value that stands for none."""
    return lambda value: "" if value == unset else shower(value)


_RULES = Reader(
    {
        **dict.fromkeys((_TO, _FROM, _TARGET, _PRIORITY, _MARK, _MASK, _TABLE, _L3MDEV, 3, 17), RAW),
        12: network("tun_id"),
        13: _unless(_UNSET, lambda value: f'"suppress_ifgroup":"{unsigned(value) or "default"}"'),
        14: _unless(_UNSET, number("suppress_prefixlen")),
        18: None,  # padding
        20: _range("", ("uid_start", "uid_end")),
        21: word("protocol", _PROTOCOLS),
        22: word("ipproto", {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}),
        23: _range("sport", ("sport_start", "sport_end")),
        24: _range("dport", ("dport_start", "dport_end")),
        28: _unless(b"\xff\xff", hexadecimal("sport_mask")),  # since Linux 6.15, whole ports too
        29: _unless(b"\xff\xff", hexadecimal("dport_mask")),
    }
)


@lru_cache(1024)
def read_rule(payload: bytes) -> str | None:
    """Decode one RTM_NEWRULE as an object; None for rules of multicast routing. Raises MalformedError."""
    family, bits, from_bits, tos, table, action, flags = head(_RULE_HEAD, payload)
    if family not in _BITS:
        return None
    parts, raw = _RULES.read(payload, _RULE_HEAD.size)
    front = [f'"priority":{unsigned(raw.get(_PRIORITY, b""))}']
    if flags & _INVERT:
        front.append('"not":null')
    front += _end("src", raw.get(_FROM), from_bits, family) or ['"src":"all"']
    front += _end("dst", raw.get(_TO), bits, family)
    if tos:
        front.append(f'"tos":"0x{tos:02x}"')
    mask = raw.get(_MASK, _UNSET)
    if _MARK in raw or _MASK in raw:
        front.append(f'"fwmark":"0x{unsigned(raw.get(_MARK, b"")):x}"')
    if mask != _UNSET:
        front.append(f'"fwmask":"0x{unsigned(mask):x}"')
    for kind, key, detached in _INTERFACES:
        if kind in raw:
            front.append(f'"{key}":{quoted(string(raw[kind]))}')
            if flags & detached:
                front.append(f'"{key}_detached":null')
    front += _deed(action, flags, unsigned(raw[_TABLE]) if _TABLE in raw else table, raw)
    front += parts
    if family == INET6:
        front.append('"family":"inet6"')
    return "{" + ",".join(front) + "}"


def _end(key: str, value: bytes | None, bits: int, family: int) -> list[str]:
    """Show one end of the packets that a rule is for; nothing where it is for all."""
    if value is None and not bits:
        return []
    parts = [f'"{key}":"{address(value) if value is not None else 0}"']
    if bits != _BITS[family]:
        parts.append(f'"{key}len":{bits}')
    return parts


def _deed(action: int, flags: int, table: int, raw: dict[int, bytes]) -> list[str]:
    """Show what a rule does: look into a table, go on elsewhere, or end there."""
    if unsigned(raw.get(_L3MDEV, b"")):
        return ['"l3mdev":null']
    if action == _LOOK_UP:
        return [f'"table":"{_name(table, _TABLES)}"'] if table else []
    if action == _GOTO:
        return [f'"goto":{unsigned(raw.get(_TARGET, b""))}', *(['"unresolved":null'] if flags & _UNRESOLVED else [])]
    return ['"nop":null'] if action == _NOP else [f'"action":"{_type(action)}"']


# Neighbours

_NOARP = 0x40
_PROXY = 0x8
_STATES = (
    (0x1, "INCOMPLETE"),
    (0x2, "REACHABLE"),
    (0x4, "STALE"),
    (0x8, "DELAY"),
    (0x10, "PROBE"),
    (0x20, "FAILED"),
    (_NOARP, "NOARP"),
    (0x80, "PERMANENT"),
)
_NEIGHBOUR_FLAGS = ((0x80, "router"), (_PROXY, "proxy"), (0x10, "extern_learn"), (0x20, "offload"))

_LLADDR = 2
_NEIGHBOURS = Reader(
    {
        _TO: RAW,
        _LLADDR: RAW,
        3: None,  # cacheinfo: ages
        4: None,  # probes, a counter
        12: word("protocol", _PROTOCOLS),
        13: number("nhid"),
    }
)


def read_neighbour(payload: bytes) -> Hop | None:
    """Decode one RTM_NEWNEIGH; None for what ip does not list either. Raises MalformedError."""
    family, ifindex, state, flags, _ = head(_NEIGHBOUR_HEAD, payload)
    if family not in _BITS or not (state & ~_NOARP or flags & _PROXY):
        return None
    parts, raw = _NEIGHBOURS.read(payload, _NEIGHBOUR_HEAD.size)
    if _LLADDR in raw:
        parts.append(f'"lladdr":"{colons(raw[_LLADDR])}"')
    parts += [f'"{name}":null' for bit, name in _NEIGHBOUR_FLAGS if flags & bit]
    parts.append('"state":[' + ",".join(f'"{name}"' for bit, name in _STATES if state & bit) + "]")
    return Hop(f'"dst":"{address(raw.get(_TO, b""))}"', ifindex, ",".join(parts))
