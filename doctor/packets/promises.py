"""What a network promises its containers, and what packets of theirs would really meet.

A promise is walked once for a class of containers: those that no rule but the engine's own tells apart. The engine's
own rules name every container and port, and treat them alike as long as they stand as it wrote them; what is missing of
them, and every other rule, splits a class by each address and port that it names.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.facts.containers import Container, Containers, Port
from doctor.facts.engine_rules import ANY, EngineRules, FamilyRules
from doctor.facts.links import Namespaces
from doctor.facts.networks import Network, Networks
from doctor.facts.processes import Processes
from doctor.packets.build import SITE
from doctor.packets.conditions import Address, Condition, Number
from doctor.packets.conditions import Any as AnyOf
from doctor.packets.flow import OUTSIDE, TCP, UDP, Flow
from doctor.packets.packet import Version, number
from doctor.packets.program import Map, Program, Rule
from doctor.packets.site import HOST, Site
from doctor.packets.walk import CLIENT_PORT, Result, follow
from doctor.registry import fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doctor.facts.containers import Endpoint
    from doctor.model import Citation

Kind = Literal["egress", "published", "neighbours", "apart", "inside", "direct"]

CLIENTS: dict[Version, tuple[str, ...]] = {
    4: ("203.0.113.77", "198.51.100.77", "192.0.2.77", "198.18.7.77", "1.2.3.4", "9.8.7.6", "93.7.7.7", "185.7.7.7"),
    6: ("2001:db8:77::77", "2001:db8:1::77", "2a00:7:7::7", "2600:7:7::7"),
}
"""Addresses outside (most for documentation, RFC 5737, 2544, 3849): the first one that no rule names is walked with."""

SOMEWHERE = 443
"""The port outside that containers are walked to."""

MOST = 120
"""Walks in all: 0.2 s where every container is named by a rule of somebody."""

_TRIES = 3
"""Members of a class that are tried, where the first one fails for a reason of its own."""

_WHOLE = {4: 8, 6: 16}
"""Prefixes up to this length stand for all addresses or for half of them: no client is outside of them."""

_OWN = ("SRC_", "VETH_", "BR_PORT_", "NEIGH_", "DST_")
"""Codes of what concerns one container alone, and is judged with it."""

_DIRECT = re.compile(r"-d (\S+)/(?:32|128) ! -i \S+ (?:-p .*)?-j DROP")
_UNPUBLISHED = re.compile(r"! -i (\S+) -o \1 -j DROP")
"""How the engine's rules look that keep strangers from a container's own address."""

_WRITTEN = re.compile(
    r"-[sd] (?P<prefix>[0-9a-f:.]+(?:/\d+)?)|--to-destination \[?(?P<end>\d+\.[0-9.]+|[0-9a-f:]+(?=\]))|--dport (?P<port>\d+)"
)
"""Addresses and ports of a rule, as the savers print it."""


class Walked(Struct, frozen=True):
    """One promise, walked: the way out of a network, a published port, neighbours, what is to be kept apart.

    `container` is who was walked with, and stands for `members`. `egress`: to a stranger outside, and `masked` says that
    the network's addresses are to be replaced; `published`: a stranger to `port` of the host; `neighbours`: `container` to
    `other` of the same network; `apart` and `inside`: the same, and the packet is to be kept out (networks, or icc off);
    `direct`: a stranger to `container` by its own address, which is walked only where a rule against that is missing.
    """

    kind: Kind
    network: Network
    container: Container
    members: tuple[Container, ...]
    version: Version
    flow: Flow
    result: Result
    port: Port | None = None
    other: Container | None = None
    masked: bool = True
    ports: tuple[Port, ...] = ()
    """Of a published port: those of all members, in their order."""

    @property
    def arrives(self) -> bool:
        """Whether its packets arrive, and answers come back, even one that nobody listens."""
        walk = self.result.walk
        if self.result.works:
            return True
        return walk.sees == "refused" and walk.end.outcome == "refused" and self.result.works is not None

    @property
    def kept(self) -> bool:
        """Whether the promise is kept; what depends on something is taken to be."""
        if self.result.works is None:
            return True
        return self.arrives != (self.kind in {"apart", "inside", "direct"})

    @property
    def code(self) -> str:
        """Name why it ends as it does."""
        return self.result.walk.decider.code

    @property
    def decided(self) -> Citation | None:
        """The rule or fact that decides; None where it is not known."""
        step = self.result.walk.decider.step
        return step.cited if step is not None else None

    @property
    def astray(self) -> bool:
        """Whether a rule that stopped it saw other devices than those it belongs on: it went another way before."""
        end = self.result.walk.decider
        seen, bridge = {end.iif, end.oif} - {""}, self.network.bridge
        return bridge not in seen if self.kind != "neighbours" else seen != {bridge}

    @property
    def going(self) -> bool:
        """Whether it is the first packet that is stopped, and not an answer or what follows."""
        walk = self.result.walk
        decider = walk.decider
        return decider is walk.end or (walk.proxied is not None and decider is walk.proxied.end)


class Promises(Struct, frozen=True):
    """All of them; `unwalked` counts the classes beyond the limit. `written` are the texts of the engine's own rules.

    `unread` says why nothing was walked, empty where it was.
    """

    all: tuple[Walked, ...]
    unwalked: int
    written: frozenset[str]
    unread: str = ""

    def broken(self, *kinds: Kind) -> list[Walked]:
        """Give those of these kinds that are not kept."""
        return [one for one in self.all if one.kind in kinds and not one.kept]

    def of(self, *kinds: Kind) -> list[Walked]:
        """Give those of these kinds."""
        return [one for one in self.all if one.kind in kinds]

    def own(self, cited: Citation | None) -> bool:
        """Whether a rule is one of the engine's own."""
        return cited is not None and cited.excerpt in self.written


class _Split:
    """Tells addresses and ports apart by what the rules of others, and those that are missing, name.

    Those of which the same kinds of rules are missing are alike: a flush of two hundred rules makes one class, not as many.
    """

    def __init__(self, program: Program, rules: EngineRules | None, written: frozenset[str]) -> None:
        edges: dict[Version, set[int]] = {4: set(), 6: set()}
        ports: set[int] = set()
        self.named: dict[Version, list[tuple[int, int]]] = {4: [], 6: []}
        self._lacking: dict[tuple[Version, int], set[str]] = {}
        self._lacking_ports: dict[int, set[str]] = {}
        version: Version
        for rule in _foreign(program, written):
            for one in _conditions(rule):
                if isinstance(one, Address):
                    version = 6 if one.version == 6 else 4  # noqa: PLR2004 - IPv6
                    for first, last in one.ranges:
                        edges[version] |= {first, last + 1}
                        self.named[version].append((first, last))
                elif isinstance(one, Number) and one.field.endswith("port"):
                    ports |= {edge for first, last in one.ranges for edge in (first, last + 1)}
        for its in rules.families if rules is not None else ():
            self._lacks(its, edges)
            for extra in its.difference.extra:
                held, targets = _named(extra.text)
                for version, first, last in held:
                    edges[version] |= {first, last + 1}
                ports |= {edge for port in targets for edge in (port, port + 1)}
        self._edges: dict[Version, list[int]] = {version: sorted(held) for version, held in edges.items()}
        self._ports = sorted(ports)

    def _lacks(self, its: FamilyRules, edges: dict[Version, set[int]]) -> None:
        """Note of which addresses and ports a rule is missing, by its words but for those."""
        for missing in its.difference.missing:
            shape = f"{missing.chain} {_WRITTEN.sub('*', missing.text)}"
            held, targets = _named(missing.text)
            for version, first, last in held:
                if first == last:
                    self._lacking.setdefault((version, first), set()).add(shape)
                else:
                    edges[version] |= {first, last + 1}
            for port in targets:
                self._lacking_ports.setdefault(port, set()).add(shape)

    def address(self, address: str, version: Version) -> tuple[int, frozenset[str]]:
        """Give the class of an address."""
        held = number(address)
        return bisect_right(self._edges[version], held), frozenset(self._lacking.get((version, held), ()))

    def port(self, port: int) -> tuple[int, frozenset[str]]:
        """Give the class of a port."""
        return bisect_right(self._ports, port), frozenset(self._lacking_ports.get(port, ()))

    def client(self, version: Version) -> int:
        """Give an address outside that no rule names but with half of the world."""
        bits = 32 if version == 4 else 128  # noqa: PLR2004 - IPv4
        size = 1 << (bits - _WHOLE[version])
        narrow = [(first, last) for first, last in self.named[version] if last - first < size]
        tried = [number(one) for one in CLIENTS[version]]
        return next((one for one in tried if not any(first <= one <= last for first, last in narrow)), tried[0])


def _named(text: str) -> tuple[list[tuple[Version, int, int]], list[int]]:
    """Give the addresses (version, first, last) and the ports that a rule of the savers names."""
    held: list[tuple[Version, int, int]] = []
    ports = []
    for match in _WRITTEN.finditer(text):
        if match["port"]:
            ports.append(int(match["port"]))
            continue
        with contextlib.suppress(ValueError):
            net = ip_network(match["prefix"] or match["end"], strict=False)
            version: Version = 6 if net.version == 6 else 4  # noqa: PLR2004 - IPv6
            held.append((version, int(net.network_address), int(net.broadcast_address)))
    return held, ports


def _is_address(text: str, version: Version) -> bool:
    """Whether a text is an address of a version: what an engine says may be anything."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


NATIVE = "docker-bridges"
"""The table of an engine with firewall-backend nftables; what is missing of it is not known, and splits no class."""


def _foreign(program: Program, written: frozenset[str]) -> Iterator[Rule]:
    for chain in program.chains.values():
        if chain.table == NATIVE:
            continue
        for rule in chain.rules:
            if rule.cited.excerpt not in written:
                yield rule


def _conditions(rule: Rule) -> Iterator[Condition]:
    """Give the conditions of a rule, those within maps and sets of tuples too."""
    waiting: list[object] = list(rule.steps)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Map):
            waiting += [condition for conditions, _ in one.elements for condition in conditions]
        elif isinstance(one, AnyOf):
            waiting += [condition for conditions in one.several for condition in conditions]
        elif isinstance(one, Address | Number):
            yield one


@fact
def promises(
    site: SITE,
    networks: Networks,
    containers: Containers,
    processes: Processes,
    namespaces: Namespaces,
    rules: EngineRules | None,
) -> Promises:
    """Walk what is promised, one of each class; none of it where the rules of the host could not be read."""
    written = frozenset(
        rule.text
        for its in (rules.families if rules is not None else ())
        for held in its.expected.chains.values()
        for rule in held
    )
    if site.host.missing:
        return Promises((), 0, written, site.host.missing)
    split = _Split(site.host.program, rules, written)
    walker = _Walks(site, networks, containers, processes, namespaces, split, rules)
    walker.egress()
    walker.published()
    walker.neighbours()
    walker.apart()
    walker.direct()
    return Promises(tuple(walker.found), walker.unwalked, written)


_Seat = tuple[Network, Container, str]


def _strangers(seats: list[_Seat], mode: str) -> Iterator[tuple[_Seat, _Seat]]:
    """Pair containers of networks that are to be apart: each network once as a source, and each once as a target.

    Internal ones are apart for a reason of their own, so others are paired with each other first.
    """
    sources = [seat for seat in seats if not seat[0].internal]
    inner = [seat for seat in seats if seat[0].internal]
    reached = set()
    for at, seat in enumerate([*sources, *inner]):
        around = [*sources[at + 1 :], *sources[:at], *inner]
        other = next((one for one in around if _strange(seat, one, mode)), None)
        if other is not None:
            reached.add(other[0].id)
            yield seat, other
    for seat in seats:
        other = next((one for one in sources if _strange(one, seat, mode)), None) if seat[0].id not in reached else None
        if other is not None:
            yield other, seat


def _port(one: Container) -> Port | None:
    """Give a published port of TCP."""
    return next((port for port in one.ports if port.protocol == "tcp"), None)


def _strange(one: _Seat, other: _Seat, mode: str) -> bool:
    shared = {end.network_id for end in one[1].endpoints} & {end.network_id for end in other[1].endpoints}
    return one[0].id != other[0].id and not shared and "routed" not in {one[0].option(mode), other[0].option(mode)}


class _Walks:
    """Makes the walks, and counts them."""

    def __init__(
        self,
        site: Site,
        networks: Networks,
        containers: Containers,
        processes: Processes,
        namespaces: Namespaces,
        split: _Split,
        rules: EngineRules | None,
    ) -> None:
        self.site = site
        self.split = split
        self.rules = rules
        self.namespaces = namespaces.by_inode
        self.by_id = {one.id: one for one in networks.all}
        self.found: list[Walked] = []
        self.unwalked = 0
        self.walks = 0
        self.seats = [
            (one, process.net)
            for one in containers.running
            if one.own_network
            and (process := processes.by_pid.get(one.pid)) is not None
            and (held := self.namespaces.get(process.net)) is not None
            and not held.missing
        ]
        self.spaces = {one.id: space for one, space in self.seats}

    def ends(self, one: Container, version: Version) -> Iterator[tuple[Endpoint, Network, str]]:
        """Give a container's places in bridge networks where it has an address of a version."""
        for end in one.endpoints:
            network = self.by_id.get(end.network_id)
            address = end.address if version == 4 else end.address6  # noqa: PLR2004 - IPv4
            if network is not None and _is_address(address, version):
                yield end, network, address

    def egress(self) -> None:
        """Walk from each class of containers to a stranger outside."""
        for version in self.versions():
            groups: dict[tuple[object, ...], list[tuple[Network, Container]]] = {}
            for one, space in self.seats:
                network = self.way_out(one, space, version)
                if network is None or network.internal:
                    continue
                classes = [self.split.address(address, version) for _, _, address in self.ends(one, version)]
                groups.setdefault((network.id, *classes), []).append((network, one))
            client = self.split.client(version)
            for several in groups.values():
                network = several[0][0]
                masked = network.on("enable_ip_masquerade")
                masked = masked and network.option(f"gateway_mode_ipv{version}") in {"", "nat", "nat-unprotected"}
                members = [one for _, one in several]
                self.walk("egress", network, members, version, self.outward(members, client, version), masked=masked)

    def outward(self, members: list[Container], client: int, version: Version) -> list[tuple[Container, Flow]]:
        """Give the flows to a stranger."""
        return [(one, Flow(self.spaces[one.id], client, SOMEWHERE, version, TCP)) for one in members[:_TRIES]]

    def versions(self) -> tuple[Version, ...]:
        """Give the versions of IP that this host reaches the outside by."""
        tried: tuple[Version, ...] = (4, 6)
        found = []
        for version in tried:
            tables = self.site.host.routing.tables.get(version, {})
            held = [route for table in tables.values() for routes in table.get(0, {}).values() for route in routes]
            if any(route.type == "unicast" for route in held):
                found.append(version)
        return tuple(found)

    def way_out(self, one: Container, space: str, version: Version) -> Network | None:
        """Give the network that a container's default route leads to; None where it has none of Docker's."""
        # The space itself is not asked for: it costs a third of a millisecond to make, and most are never walked from.
        held = self.namespaces[space].routes
        gateways = {one.gateway for one in held if one.dst == "default" and one.version == version}
        for end, network, _ in self.ends(one, version):
            if (end.gateway if version == 4 else end.gateway6) in gateways:  # noqa: PLR2004 - IPv4
                return network
        return None

    def published(self) -> None:
        """Walk from a stranger to a published port of each class."""
        groups: dict[tuple[object, ...], list[tuple[Network, Container, Port, Version]]] = {}
        versions = self.versions()
        for one, space in self.seats:
            for port in one.ports:
                version: Version = 6 if ":" in port.host_ip else 4
                if port.host_ip and not _is_address(port.host_ip, version):
                    continue
                network = self.way_out(one, space, version)
                held = [address for _, its, address in self.ends(one, version) if its is network]
                if version not in versions or network is None or not held or not self.outer(port):
                    continue
                where = (port.host_ip if port.host_ip not in ANY else "", port.protocol)
                classes = (self.split.port(port.host), self.split.port(port.container))
                key = (network.id, version, *where, *classes, self.split.address(held[0], version))
                groups.setdefault(key, []).append((network, one, port, version))
        for several in groups.values():
            network, _, port, version = several[0]
            flows = []
            for _, one, its, _ in several[:_TRIES]:
                target = self.host_address(its, version)
                if target is not None:
                    protocol = TCP if its.protocol == "tcp" else UDP
                    flows.append((one, Flow(OUTSIDE, target, its.host, version, protocol, self.split.client(version))))
            members = [one for _, one, _, _ in several]
            ports = tuple(its for _, _, its, _ in several)
            self.walk("published", network, members, version, flows, port=port, ports=ports)

    def outer(self, port: Port) -> bool:
        """Whether a port is published to the outside, by a protocol that is modelled."""
        return port.host > 0 and port.protocol in {"tcp", "udp"} and not port.host_ip.startswith(("127.", "::1"))

    def host_address(self, port: Port, version: Version) -> int | None:
        """Give the address of the host that a stranger would call."""
        if port.host_ip not in ANY:
            held = number(port.host_ip)
            return held if self.site.host.holds(held, version) else None
        way = self.site.host.routing.tables.get(version, {}).get("main", {}).get(0, {})
        for routes in way.values():
            for route in routes:
                mine = self.site.host.addresses(route.dev, version)
                if mine:
                    return mine[0]
        return None

    def pairs(self, version: Version) -> Iterator[tuple[Network, list[tuple[Container, str]]]]:
        """Give each network with its containers and their addresses, one of each class first."""
        held: dict[str, dict[object, list[tuple[Container, str]]]] = {}
        for one, _ in self.seats:
            for _, network, address in self.ends(one, version):
                its = held.setdefault(network.id, {})
                its.setdefault(self.split.address(address, version), []).append((one, address))
        for key, classes in held.items():
            several = list(classes.values())
            firsts = [first for first, *_ in several]
            yield self.by_id[key], firsts + [one for _, *rest in several for one in rest]

    def ruled(self) -> tuple[Version, ...]:
        """Give the versions of IP that the engine writes rules of: without them nothing is kept apart."""
        six = self.rules is not None and self.rules.of("ip6") is not None
        return (4, 6) if six else (4,)

    def neighbours(self) -> None:
        """Walk between two containers of each network: they talk to each other, or (icc off) do not."""
        for version in self.ruled():
            for network, held in self.pairs(version):
                off = not network.on("enable_icc")
                linked = {alias for one, _ in held for alias, _ in one.asked.links}
                ends = [(one, address) for one, address in held if one.engine_name not in linked] if off else held
                if len(ends) < 2:  # noqa: PLR2004 - a pair
                    continue
                (first, _), (second, address) = ends[0], ends[1]
                if first.id == second.id:
                    continue
                flow = Flow(self.spaces[first.id], number(address), self.listening(second), version, TCP)
                kind: Kind = "inside" if off else "neighbours"
                self.walk(kind, network, [one for one, _ in ends], version, [(first, flow)], other=second)

    def listening(self, one: Container) -> int:
        """Give a port that a container listens on, else one that it does not."""
        ports = [port.container for port in one.ports if port.protocol == "tcp"]
        held = self.site.spaces[self.spaces[one.id]].listeners
        ports += [listener.port for listener in held if listener.protocol.startswith("tcp")]
        return next(iter(ports), CLIENT_PORT)

    def apart(self) -> None:
        """Walk from a container of each network to one of another, and to each: Docker keeps them apart."""
        for version in self.ruled():
            seats = [(network, *ends[0]) for network, ends in self.pairs(version) if ends]
            for (network, one, _), (_, target, address) in _strangers(seats, f"gateway_mode_ipv{version}"):
                flow = Flow(self.spaces[one.id], number(address), self.listening(target), version, TCP)
                self.walk("apart", network, [one], version, [(one, flow)], other=target)

    def direct(self) -> None:
        """Walk from a stranger to containers by their own address, where a rule that keeps it out is missing."""
        for its in self.rules.families if self.rules is not None else ():
            version: Version = 4 if its.family == "ip" else 6
            raw = {
                found[1]
                for text in its.difference.lacking("raw", "PREROUTING")
                if (found := _DIRECT.match(text)) is not None
            }
            closed = {
                found[1]
                for text in its.difference.lacking("filter", "DOCKER")
                if (found := _UNPUBLISHED.fullmatch(text)) is not None
            }
            if not raw and not closed:
                continue
            for network, ends in self.pairs(version):
                open_ = [end for end in ends if network.bridge in closed or (end[1] in raw and _port(end[0]))]
                for one, address in open_[:_TRIES]:
                    port = _port(one) if address in raw else None
                    number_ = port.container if port is not None else self.unpublished(one)
                    flow = Flow(OUTSIDE, number(address), number_, version, TCP, self.split.client(version))
                    self.walk("direct", network, [one], version, [(one, flow)], port=port)

    def unpublished(self, one: Container) -> int:
        """Give a port that a container listens on and does not publish, else one that it does not."""
        ports = {port.container for port in one.ports}
        held = self.site.spaces[self.spaces[one.id]].listeners
        mine = [listener.port for listener in held if listener.protocol.startswith("tcp")]
        return next((port for port in mine if port not in ports), CLIENT_PORT)

    def walk(
        self,
        kind: Kind,
        network: Network,
        members: Iterable[Container],
        version: Version,
        flows: list[tuple[Container, Flow]],
        *,
        port: Port | None = None,
        other: Container | None = None,
        masked: bool = True,
        ports: tuple[Port, ...] = (),
    ) -> None:
        """Walk with the first member whose own affairs do not decide."""
        last: Walked | None = None
        for one, flow in flows:
            if self.walks >= MOST:
                self.unwalked += 1
                return
            self.walks += 1
            result = follow(self.site, flow)
            last = Walked(kind, network, one, tuple(members), version, flow, result, port, other, masked, ports)
            if last.kept or not last.code.startswith(_OWN) or last.result.walk.decider.space == HOST:
                break
        if last is not None:
            self.found.append(last)


PROMISES = Promises
"""The type that the fact above gives: who asks for it has imported this module, and the fact is known."""
