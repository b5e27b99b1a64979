"""Where the kernel sends a packet: the routing rules of the host, and the longest prefix of each table.

Parses text in the shape of `ip -j -d rule`, one object a line (`netns/host/rules`); routes come from `links`. A host
whose rules could not be read is taken to have the three that every host starts with, and `assumed` says so.
See ip-rule(8), ip-route(8); kernel net/core/fib_rules.c and net/ipv4/fib_trie.c.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Container, Containers
from doctor.facts.links import Link, Links, Route, Routes
from doctor.facts.networks import Network, Networks
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from doctor.facts.networks import Subnet

_BITS = {4: 32, 6: 128}
_DEFAULTS = ((0, "local"), (32766, "main"), (32767, "default"))
_UNASKED = (
    *("uid_start", "ipproto", "sport", "sport_start", "dport", "dport_start", "tos", "tun_id", "l3mdev"),
    *("suppress_ifgroup", "dsfield"),
)
"""Words of a rule that ask for what a `Packet` does not say; such a rule is passed over."""


class Packet(Struct, frozen=True):
    """What is known of a packet that is to be routed: `iif` is the device that it came in by, `lo` for the host's own.

    `src` is empty for a packet of the host that has no address yet; `mark` is what the firewall has put on it.
    """

    dst: str
    src: str = ""
    iif: str = "lo"
    mark: int = 0


class Rule(Struct, frozen=True):
    """One routing rule; empty strings and None ask for nothing. `prefix` is that of `suppress_prefixlength`, -1: none.

    `action` is `lookup` (of `table`), `goto` (the rule of priority `target`), `nop`, `blackhole`, `unreachable` or
    `prohibit`; `unasked` says that it asks for what a `Packet` does not say.
    """

    version: int
    priority: int
    src: str
    dst: str
    iif: str
    mark: int | None
    mask: int
    inverted: bool
    action: str
    table: str
    target: int
    prefix: int
    unasked: bool
    cited: Citation

    @property
    def standard(self) -> bool:
        """Whether it is one of the three that every host starts with."""
        return self.action == "lookup" and self.table in {"local", "main", "default"} and not self._asks

    @property
    def _asks(self) -> bool:
        return bool(self.src or self.dst or self.iif or self.mark is not None or self.unasked or self.prefix >= 0)

    @property
    def by_hand(self) -> str:
        """The rule in the words of `ip rule`."""
        parts = [f"{self.priority}:", "not" if self.inverted else "", f"from {self.src or 'all'}"]
        parts += [f"to {self.dst}"] if self.dst else []
        parts += [f"iif {self.iif}"] if self.iif else []
        parts += [f"fwmark {self.mark:#x}"] if self.mark is not None else []
        parts += [f"lookup {self.table}" if self.action == "lookup" else self.action]
        return " ".join(part for part in parts if part)

    def matches(self, packet: Packet) -> bool:
        """Whether the rule is for the packet."""
        if self.unasked:
            return False
        found = (
            _within(packet.src, self.src)
            and _within(packet.dst, self.dst)
            and (not self.iif or self.iif == packet.iif)
            and (self.mark is None or packet.mark & self.mask == self.mark & self.mask)
        )
        return found != self.inverted


class Way(Struct, frozen=True):
    """Where a packet goes: the rule and the route that decide; both None where no route leads there."""

    rule: Rule | None = None
    route: Route | None = None

    @property
    def dev(self) -> str:
        """The device it leaves by; empty where it goes nowhere."""
        return self.route.dev if self.route and self.route.type in {"unicast", "local"} else ""


Table = dict[int, dict[int, tuple[Route, ...]]]


class Routing(Struct, frozen=True):
    """Rules by family, and by family and name tables: prefix length → network as a number → routes, best first.

    The longest prefixes of a table come first.
    """

    rules: dict[int, tuple[Rule, ...]]
    tables: dict[int, dict[str, Table]]
    assumed: str

    def find(self, packet: Packet) -> Way:
        """Give the way of a packet, as the kernel finds it: rule by rule, the longest prefix of each table."""
        number, version = _target(packet.dst)
        jump = -1
        for rule in self.rules.get(version, ()):
            if rule.priority < jump or not rule.matches(packet):
                continue
            jump = -1
            if rule.action == "goto":
                jump = rule.target
            elif rule.action == "lookup":
                route = self._longest(number, version, rule)
                if route is not None:
                    return Way(rule, route)
            elif rule.action != "nop":
                return Way(rule)
        return Way()

    def plain(self, number: int, version: int) -> Route | None:
        """Give the route to an address by the rules that every host has; for where there are no `special` ones."""
        # Asked of every address of a host: what `_longest` says, without the generators.
        tables, bits = self.tables.get(version, {}), _BITS[version]
        for rule in self.rules.get(version, ()):
            for length, held in tables.get(rule.table, {}).items():
                shift = bits - length
                routes = held.get(number >> shift << shift)
                route = next((one for one in routes if not one.dead), None) if routes else None
                if route is not None:
                    if route.type == "throw" or length <= rule.prefix:
                        break
                    return route
        return None

    def _longest(self, number: int, version: int, rule: Rule) -> Route | None:
        for length, route in self._leading(number, version, rule.table):
            # throw ends the search in this table, suppress_prefixlength forgets what it found.
            return None if route.type == "throw" or length <= rule.prefix else route
        return None

    def _leading(self, number: int, version: int, table: str) -> Iterator[tuple[int, Route]]:
        """Give the routes of a table that an address falls under, with their prefix lengths, in the kernel's order."""
        for length, held in self.tables.get(version, {}).get(table, {}).items():
            shift = _BITS[version] - length
            yield from ((length, route) for route in held.get(number >> shift << shift, ()) if not route.dead)

    def beside(self, address: IPv4Address | IPv6Address, bridges: set[str]) -> Route | None:
        """Give the narrowest route to an address in table main that leads to another device than these."""
        for _, route in self._leading(int(address), address.version, "main"):
            if route.type == "unicast" and route.dev and route.dev not in bridges:
                return route
        return None

    def within(self, subnet: Subnet) -> Iterator[tuple[Route, Subnet]]:
        """Give the routes of table main to a part of a subnet, or to all of it, that lead to a device."""
        bits = _BITS[subnet.version]
        shift = bits - subnet.prefixlen
        first = int(subnet.network_address) >> shift
        for length, held in self.tables.get(subnet.version, {}).get("main", {}).items():
            for number, routes in held.items() if length >= subnet.prefixlen else ():
                if number >> shift == first:
                    part = IPv4Network((number, length)) if bits == _BITS[4] else IPv6Network((number, length))
                    yield from ((route, part) for route in routes if route.type == "unicast" and not route.dead)

    @property
    def special(self) -> tuple[Rule, ...]:
        """The rules that not every host has."""
        return tuple(rule for held in self.rules.values() for rule in held if not rule.standard)


@lru_cache(maxsize=1 << 14)
def _target(address: str) -> tuple[int, int]:
    """Give an address as a number, and its version; raises ValueError for what is none."""
    found = ip_address(address)
    return int(found), found.version


def _within(address: str, prefix: str) -> bool:
    if not prefix:
        return True
    try:
        return bool(address) and ip_address(address) in ip_network(prefix, strict=False)
    except ValueError:
        return False


def _end(one: dict[str, Any], key: str) -> str:
    """Give an end of a rule as a prefix, empty for all."""
    value = str(one.get(key, "all"))
    if value in {"all", "default"}:
        return ""
    length = one.get(f"{key}len")
    return f"{value}/{length}" if length is not None else value


def _number(value: Any, otherwise: int) -> int:
    try:
        return int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        return otherwise


def _rule(one: dict[str, Any], record: Record, line: int) -> Rule:
    action = "goto" if "goto" in one else "nop" if "nop" in one else str(one.get("action", "lookup"))
    mark = one.get("fwmark")
    found = Rule(
        version=6 if one.get("family") == "inet6" else 4,
        priority=_number(one.get("priority"), 0),
        src=_end(one, "src"),
        dst=_end(one, "dst"),
        iif=str(one.get("iif", "")),
        mark=None if mark is None else _number(mark, 0),
        mask=_number(one.get("fwmask"), 0xFFFFFFFF),
        inverted="not" in one,
        action="lookup" if action == "to_tbl" else action,
        table=str(one.get("table", "")),
        target=_number(one.get("goto"), 0),
        prefix=_number(one.get("suppress_prefixlen"), -1),
        unasked=any(word in one for word in _UNASKED) or "oif" in one,
        cited=Citation(record.name, line, "", ""),
    )
    return msgspec.structs.replace(found, cited=Citation(record.name, line, found.by_hand, f"ip rule {found.priority}"))


def _rules(record: Record) -> Iterator[Rule]:
    for number, raw in enumerate(record.data.split(b"\n"), 1):
        line = raw.strip().rstrip(b",")
        try:
            if line.startswith(b"{"):
                yield _rule(msgspec.json.decode(line, type=dict[str, Any]), record, number)
            elif line.startswith(b"[{"):
                for one in msgspec.json.decode(line, type=list[dict[str, Any]]):
                    yield _rule(one, record, number)
        except UNDECODABLE:
            continue


def _tables(routes: Routes) -> dict[int, dict[str, Table]]:
    """Index the routes. Of several to one prefix, that of the least metric wins, then the one that came first."""
    found: dict[int, dict[str, dict[int, dict[int, list[Route]]]]] = {}
    for route in routes.all:
        if route.type in {"broadcast", "multicast", "anycast"}:
            continue
        bits = _BITS[route.version]
        try:
            if route.dst == "default":
                network, length = 0, 0
            else:
                address, _, written = route.dst.partition("/")
                network, length = _target(address)[0], int(written) if written else bits
            for end in (route.gateway, route.source):
                if end:
                    _target(end)
        except ValueError:
            continue
        if not 0 <= length <= bits:
            continue
        held = found.setdefault(route.version, {}).setdefault(route.table, {}).setdefault(length, {})
        held.setdefault(network, []).append(route)
    return {
        version: {
            name: {
                length: {
                    network: tuple(sorted(several, key=lambda one: one.metric))
                    for network, several in table[length].items()
                }
                for length in sorted(table, reverse=True)
            }
            for name, table in tables.items()
        }
        for version, tables in found.items()
    }


@fact
def routing(snapshot: Snapshot, routes: Routes) -> Routing:
    """Join rules and routes of the host."""
    return routing_of(snapshot.get("netns/host/rules"), routes)


def routing_of(record: Record, routes: Routes) -> Routing:
    """Join the rules of a namespace and its routes."""
    held = sorted(_rules(record), key=lambda rule: rule.priority) if record.readable else []
    assumed = ""
    if not held:
        assumed = record.why or record.status
        nowhere = Citation(record.name, 0, "the rules that every host has", "ip rule")
        held = [
            Rule(version, priority, "", "", "", None, 0, False, "lookup", table, 0, -1, False, nowhere)  # noqa: FBT003
            for version in _BITS
            for priority, table in _DEFAULTS
        ]
    rules = {version: tuple(rule for rule in held if rule.version == version) for version in _BITS}
    return Routing(rules, _tables(routes), assumed)


class Stray(Struct, frozen=True):
    """A running container's address that packets are not routed to the bridge for: the packet, and where it goes."""

    container: Container
    network: Network
    address: str
    packet: Packet
    way: Way


class Strays(Struct, frozen=True):
    """All of them. `seats` are the networks that were looked at, with their bridge: it is up and in its subnet."""

    all: tuple[Stray, ...]
    seats: tuple[tuple[Network, Link], ...]


_ELSEWHERE = {4: "203.0.113.77", 6: "2001:db8:77::77"}
"""Addresses for documentation (RFC 5737, RFC 3849): a client that no rule knows by its address."""
_MOST = 6


def seated(network: Network, link: Link | None, version: int) -> bool:
    """Whether the bridge is up and holds an address with the network's prefix: the kernel then makes a route to all of it.

    With a longer prefix (an address of its own, say) there is none: that is the address's fault, and NET010's.
    """
    if link is None or link.kind != "bridge" or not link.up:
        return False
    subnets = [pool.subnet for pool in network.pools if (":" in pool.subnet) == (version == 6)]  # noqa: PLR2004 - IPv6
    return any(_covers(one, subnet) for one in link.addresses for subnet in subnets)


def _covers(held: str, subnet: str) -> bool:
    try:
        inner, outer = ip_network(subnet, strict=False), ip_interface(held).network
    except ValueError:
        return False
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _packets(routing: Routing, bridges: set[str], version: int) -> Iterator[tuple[str, str]]:
    """Give source and device of packets to try: the host's own, then those from outside that a special rule may know."""
    yield "", "lo"
    special = [rule for rule in routing.special if rule.version == version]
    tries = [(_ELSEWHERE[version], rule.iif) for rule in special]
    tries += [(rule.src.partition("/")[0], rule.iif) for rule in special if rule.src]
    found = []
    for src, wanted in dict.fromkeys(tries):
        way = _find(routing, Packet(src))
        # What the host sends from an address of its own is its affair, what containers ask for is another question.
        if way is None or way.dev in {"", "lo", *bridges} or (way.route is not None and way.route.type == "local"):
            continue
        iif = wanted or way.dev
        if iif not in bridges and iif != "lo":
            found.append((src, iif))
    yield from found[:_MOST]


@fact
def strays(routing: Routing, networks: Networks, links: Links, containers: Containers) -> Strays:
    """Look up the way to each running container: from the host, and from outside where rules may tell them apart."""
    by_id = {network.id: network for network in networks.all}
    bridges = {network.bridge for network in networks.all}
    found = []
    seats = {
        (network.id, version): seated(network, links.by_name.get(network.bridge), version)
        for network in networks.all
        for version in _BITS
    }
    tries: dict[int, list[tuple[str, str]]] = {}
    for container in containers.running:
        for end in container.endpoints:
            network = by_id.get(end.network_id)
            for address, version in ((end.address, 4), (end.address6, 6)):
                if network is None or not address or not seats[network.id, version]:
                    continue
                if version not in tries:
                    tries[version] = list(_packets(routing, bridges, version))
                for src, iif in tries[version]:
                    packet = Packet(address, src, iif)
                    way = _find(routing, packet)
                    if way is not None and way.dev != network.bridge:
                        found.append(Stray(container, network, address, packet, way))
                        break
    judged = [network for network in networks.all if seats[network.id, 4] or seats[network.id, 6]]
    return Strays(tuple(found), tuple((network, links.by_name[network.bridge]) for network in judged))


def _find(routing: Routing, packet: Packet) -> Way | None:
    try:
        return routing.find(packet)
    except ValueError:
        return None


class Clamps(Struct, frozen=True):
    """Where the firewall lowers the segment size that TCP announces: rules of iptables (TCPMSS) and of nft (maxseg)."""

    all: tuple[Citation, ...]


@fact
def clamps(snapshot: Snapshot) -> Clamps:
    """Look for such rules in the text of each back end; the tables themselves are another fact's."""
    found = []
    names = ("net/iptables-nft", "net/iptables-legacy", "net/nft")
    records = [snapshot.get(name) for name in names]
    if not any(record.readable for record in records):
        raise EvidenceMissing("firewall", records[0].why or records[0].status)
    for record in records:
        word = b"maxseg" if record.name.endswith("/nft") else b"TCPMSS"
        at = record.data.find(word) if record.readable else -1
        if at >= 0:
            line = record.data.count(b"\n", 0, at) + 1
            found.append(Citation(record.name, line, word.decode(), f"{record.target}:{line}"))
    return Clamps(tuple(found))
