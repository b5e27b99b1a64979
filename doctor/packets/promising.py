"""Asks the model for what networks promise: ways out, published ports, neighbours, what is apart, direct access.

Every pair is judged that can be judged together with others (`columns`). Those of one network that fare alike, by one rule,
are one promise, and one of them is walked to say how. What cannot be judged together (rules of a bridge's own, containers
of two networks) is one promise a network: to walk all of them would take longer than a check may.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.engine_rules import ANY
from doctor.facts.name_files import is_loopback
from doctor.packets.flow import OUTSIDE, TCP, UDP, Flow
from doctor.packets.flows import bits
from doctor.packets.goal import Goal
from doctor.packets.lacking import Lacking
from doctor.packets.legs import version_of
from doctor.packets.packet import spell
from doctor.packets.pairs import Judgement, Pairs
from doctor.packets.seats import Seat, Seats, is_address, stranger
from doctor.packets.site import HOST
from doctor.packets.walked import Ending, Walked

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from doctor.facts.containers import Container, Port
    from doctor.facts.engine_rules import EngineRules
    from doctor.packets.packet import Version
    from doctor.packets.site import Site
    from doctor.packets.walked import Kind

SOMEWHERE = 443
"""The port outside that containers are walked to."""

MOST = 120
"""Walks in all: 0.2 s where every container is named by a rule of somebody."""

_TRIES = 3
"""Containers that are called by their own address where a rule against that is missing."""

_OWN = ("SRC_", "VETH_", "BR_PORT_", "NEIGH_", "DST_")
"""Codes of what concerns one container alone, and is judged with it."""

_DIRECT = re.compile(r"-d (\S+)/(?:32|128) ! -i \S+ (?:-p .*)?-j DROP")
_UNPUBLISHED = re.compile(r"! -i (\S+) -o \1 -j DROP")
"""How the engine's rules look that keep strangers from a container's own address."""

_Called = tuple[Seat, Goal]
"""Who is called, and where: an address and port of one container in one network."""


class _Group(Struct):
    """Pairs of one network that fare alike: the first sender and whom it calls, and all whose they are (a bit for each)."""

    first: tuple[int, int]
    members: int = 0


class Asker:
    """Asks for all promises; `found` is how they fare, `unwalked` counts what was not walked for want of time."""

    def __init__(self, site: Site, seats: Seats, rules: EngineRules | None, written: frozenset[str]) -> None:
        """Take who sits where, and the texts of the engine's own rules."""
        self.site = site
        self.seats = seats
        self.rules = rules
        self.written = written
        self.lacking = Lacking(rules)
        self.found: list[Walked] = []
        self.unwalked = 0
        self.versions = seats.versions()
        self.clients: dict[Version, int] = {}
        spaces = dict.fromkeys([*(space for _, space in seats.all), OUTSIDE])
        self.bits = {space: 1 << at for at, space in enumerate(spaces)}
        known: dict[Version, tuple[int, ...]] = {version: (self.client(version),) for version in self.versions}
        self.pairs = Pairs(site, clients=known, most=MOST)

    def ask(self) -> None:
        """Ask for everything: all goals are named first, since they are judged together."""
        called: dict[Version, dict[str, list[_Called]]] = {
            version: {
                network: [(seat, self.called(seat, version)) for seat in held]
                for network, held in self.seats.in_networks(version).items()
            }
            for version in self.ruled()
        }
        ports = list(self.ports())
        goals = [self.abroad(version) for version in self.versions]
        goals += [goal for held in called.values() for several in held.values() for _, goal in several]
        self.pairs.expect((space for _, space in self.seats.all), goals, (goal for _, _, goal in ports))
        self.egress()
        self.published(ports)
        self.local()
        for version, by_network in called.items():
            for held in by_network.values():
                self.neighbours(held, version)
        for version, by_network in called.items():
            self.apart(by_network, version)
        self.direct()
        self.unwalked += self.pairs.unwalked

    def client(self, version: Version) -> int:
        """Give an address outside."""
        if version not in self.clients:
            self.clients[version] = stranger(self.site.host.program, self.written, version)
        return self.clients[version]

    def abroad(self, version: Version) -> Goal:
        """Give a stranger outside as a goal."""
        return Goal(OUTSIDE, self.client(version), SOMEWHERE, version)

    def fate(self, goal: Goal, bit: int) -> Judgement | None:
        """Say how a sender fares, where that is known without a walk of its own."""
        held, _ = self.pairs.known(goal)
        return next((judged for mask, judged in held if mask & bit), None)

    # To and from outside

    def egress(self) -> None:
        """Judge the way out of each container, and walk one of those that fare alike."""
        for version in self.versions:
            goal = self.abroad(version)
            groups: dict[Hashable, list[Seat]] = {}
            held, _ = self.pairs.known(goal)
            for one, space in self.seats.all:
                seat = self.seats.way_out(one, space, version)
                if seat is not None and not seat.network.internal:
                    bit = self.bits[space]
                    fate = next((judged for mask, judged in held if mask & bit), None)
                    how = (fate.arrives, fate.code, fate.cited) if fate else self.pairs.classes.source(space).key
                    key = (seat.network.id, how, self.lacking.of(seat.address))
                    groups.setdefault(key, []).append(seat)
            for several in groups.values():
                first = several[0]
                fate = self.fate(goal, self.bits[first.space])
                nat = first.network.option(f"gateway_mode_ipv{version}") in {"", "nat", "nat-unprotected"}
                masked = first.network.on("enable_ip_masquerade") and nat
                flow = Flow(first.space, *goal.flow)
                self.walk(
                    "egress", first, version, flow, [seat.one for seat in several], masked=masked, arrives=_known(fate)
                )

    def ports(self) -> Iterator[tuple[Seat, Port, Goal]]:
        """Give the published ports that this host is called at from outside."""
        for one, space in self.seats.all:
            for port in one.ports:
                version: Version = 6 if ":" in port.host_ip else 4
                seat = self.seats.way_out(one, space, version) if version in self.versions else None
                goal = self.at_host(port, seat, version) if seat is not None else None
                if seat is not None and goal is not None and not self.site.host.loops(goal.dst, version):
                    yield seat, port, goal

    def published(self, ports: list[tuple[Seat, Port, Goal]]) -> None:
        """Judge each published port for a stranger, and walk one of those that fare alike."""
        groups: dict[Hashable, list[tuple[Seat, Port, Goal]]] = {}
        for seat, port, goal in ports:
            fate = self.fate(goal, self.bits[OUTSIDE])
            how = (fate.arrives, fate.code, fate.cited) if fate else self.pairs.classes.goal(goal).key
            where = (seat.network.id, port.host_ip not in ANY and goal.dst, goal.version, goal.protocol)
            key = (where, how, self.lacking.of(seat.address, port.host, port.container))
            groups.setdefault(key, []).append((seat, port, goal))
        for several in groups.values():
            first, port, goal = several[0]
            flow = Flow(OUTSIDE, *goal.flow, self.client(goal.version))
            members = [seat.one for seat, _, _ in several]
            its = tuple(port for _, port, _ in several)
            fate = self.fate(goal, self.bits[OUTSIDE])
            self.walk("published", first, goal.version, flow, members, port=port, ports=its, arrives=_known(fate))

    def local(self) -> None:
        """Walk from this host to the ports that are published for it alone, one of each class."""
        groups: dict[Hashable, list[tuple[Seat, Port, Goal]]] = {}
        for one, space in self.seats.all:
            for port in one.ports:
                version: Version = 6 if ":" in port.host_ip else 4
                if not is_loopback(port.host_ip):
                    continue
                # A port of ::1 may lead to a container that has IPv4 alone: docker-proxy connects by that.
                seat = self.seats.way_out(one, space, version) or self.seats.way_out(one, space, 4)
                goal = self.at_host(port, seat, version) if seat is not None else None
                if seat is not None and goal is not None and self.site.host.holds(goal.dst, version):
                    alike = version_of(seat.address) == version
                    how = self.pairs.classes.goal(goal).key if alike else (one.id, port.host)
                    key = (seat.network.id, version, how, self.lacking.of(seat.address, port.host, port.container))
                    groups.setdefault(key, []).append((seat, port, goal))
        for several in groups.values():
            first, port, goal = several[0]
            members = [seat.one for seat, _, _ in several]
            ports = tuple(its for _, its, _ in several)
            self.walk("local", first, goal.version, Flow(HOST, *goal.flow), members, port=port, ports=ports)

    def at_host(self, port: Port, seat: Seat, version: Version) -> Goal | None:
        """Give a published port as a goal; None where this host has no such address, or by a protocol not modelled."""
        protocol = {"tcp": TCP, "udp": UDP}.get(port.protocol)
        if port.host <= 0 or protocol is None or (port.host_ip and not is_address(port.host_ip, version)):
            return None
        address = self.seats.host_address(port, version)
        if address is None:
            return None
        return Goal(seat.space, address, port.host, version, protocol, (seat.address, port.container))

    # Between containers

    def ruled(self) -> tuple[Version, ...]:
        """Give the versions of IP that the engine writes rules of: without them nothing is kept apart."""
        six = self.rules is not None and self.rules.of("ip6") is not None
        return (4, 6) if six else (4,)

    def called(self, seat: Seat, version: Version) -> Goal:
        """Give where a container is called by others."""
        return Goal(seat.space, seat.address, self.seats.listening(seat.one, seat.space), version)

    def neighbours(self, held: list[_Called], version: Version) -> None:
        """Judge all pairs of a network: those that fare alike by one rule are one promise."""
        network = held[0][0].network
        off = not network.on("enable_icc")
        linked = {alias for seat, _ in held for alias, _ in seat.one.asked.links} if off else set()
        ends = {self.bits[seat.space]: (seat, goal) for seat, goal in held if seat.one.engine_name not in linked}
        everybody = sum(ends)
        groups: dict[Hashable, _Group] = {}
        for own, target in ends.items():
            held_of, alone = self.pairs.known(target[1])
            for mask, judged in (*held_of, (alone, None)):
                senders = mask & everybody & ~own
                if senders:
                    key = _how(judged)
                    group = groups.setdefault(key, _Group((senders & -senders, own)))
                    group.first = min(group.first, (senders & -senders, own))
                    group.members |= senders | own
        for group in groups.values():
            members = [ends[1 << at][0].one for at in bits(group.members)]
            whole = group.members == everybody and len(groups) == 1
            self.pair(
                "inside" if off else "neighbours",
                (ends[group.first[0]][0], ends[group.first[1]]),
                version,
                members,
                whole=whole,
            )

    def apart(self, by_network: dict[str, list[_Called]], version: Version) -> None:
        """Judge all pairs of containers without a network in common: Docker keeps them apart."""
        routed = {
            key
            for key, held in by_network.items()
            if held[0][0].network.option(f"gateway_mode_ipv{version}") == "routed"
        }
        seats = {key: [seat for seat, _ in held] for key, held in by_network.items() if key not in routed}
        inside = {key: sum({self.bits[seat.space] for seat in held}) for key, held in seats.items()}
        together = {key: inside.get(key, 0) for key in by_network}
        every = 0
        for mask in inside.values():
            every |= mask
        open_: dict[tuple[str, str], tuple[Seat, _Called]] = {}
        shut: dict[tuple[str, str], tuple[Seat, _Called]] = {}
        for its in seats:
            for target in by_network[its]:
                near = self.bits[target[0].space]
                for end in target[0].one.endpoints:
                    near |= together.get(end.network_id, 0)
                judged, alone = self.pairs.known(target[1])
                reached = sum(mask for mask, its_ in judged if its_.arrives) & every & ~near
                kept = (alone | sum(mask for mask, its_ in judged if its_.state == "no")) & every & ~near
                for found, who in ((open_, reached), (shut, kept)):
                    for mine, mask in inside.items() if who else ():
                        if mine != its and mask & who and (mine, its) not in found:
                            bit = mask & who & -(mask & who)
                            source = next(seat for seat in seats[mine] if self.bits[seat.space] == bit)
                            found[mine, its] = source, target
        seen: set[str] = set()
        for held in (open_, shut):
            for pair in _each_once(held, seen):
                self.pair("apart", pair, version, [pair[0].one])

    # Calls by a container's own address

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
            for held in self.seats.in_networks(version).values() if raw or closed else ():
                called = [(seat, _port(seat.one) if spell(seat.address, version) in raw else None) for seat in held]
                open_ = [(seat, port) for seat, port in called if seat.network.bridge in closed or port is not None]
                for seat, port in open_[:_TRIES]:
                    number = port.container if port else self.seats.listening(seat.one, seat.space, published=False)
                    flow = Flow(OUTSIDE, seat.address, number, version, TCP, self.client(version))
                    self.walk("direct", seat, version, flow, [seat.one], port=port)

    # Walks

    def pair(
        self,
        kind: Kind,
        pair: tuple[Seat, _Called],
        version: Version,
        members: list[Container],
        *,
        whole: bool = False,
    ) -> None:
        """Note one pair of containers; the two come first among those whom it stands for."""
        source, (target, goal) = pair
        flow = Flow(source.space, goal.dst, goal.dport, version, TCP)
        rest = [one for one in members if one.id not in {source.one.id, target.one.id}]
        ends = [source.one, target.one] if kind != "apart" else [source.one]
        fate = self.fate(goal, self.bits[source.space])
        self.walk(kind, source, version, flow, [*ends, *rest], other=target.one, whole=whole, arrives=_known(fate))

    def walk(
        self,
        kind: Kind,
        seat: Seat,
        version: Version,
        flow: Flow,
        members: Iterable[Container],
        *,
        port: Port | None = None,
        other: Container | None = None,
        masked: bool = True,
        whole: bool = False,
        ports: tuple[Port, ...] = (),
        arrives: bool | None = None,
    ) -> None:
        """Note one for all members; what is wrong with one container alone is judged with it, and told there.

        `arrives` is what is known of it already: it is walked when somebody asks how it ends.
        """
        made = Walked(
            *(kind, seat.network, seat.one, tuple(members), version, flow, Ending(self.site, flow, arrives=arrives)),
            *(port, other, masked, ports, whole),
        )
        if arrives is None or not made.kept:
            if self.pairs.walks >= MOST:
                self.unwalked += 1
                return
            self.pairs.walks += 1
        if made.kept or not made.code.startswith(_OWN) or made.result.walk.decider.space == HOST:
            self.found.append(made)


def _how(judged: Judgement | None) -> Hashable:
    """Say how pairs fare, so that those of one network that fare alike are one promise; None: a walk has to tell."""
    if judged is None:
        return None
    return judged.arrives or judged.state == "depends" or (judged.code, judged.cited)


def _known(fate: Judgement | None) -> bool | None:
    """Say whether it arrives, where that is known."""
    return None if fate is None or fate.state == "depends" else fate.arrives


def _port(one: Container) -> Port | None:
    """Give a published port of TCP."""
    return next((port for port in one.ports if port.protocol == "tcp"), None)


def _each_once(held: dict[tuple[str, str], tuple[Seat, _Called]], seen: set[str]) -> Iterator[tuple[Seat, _Called]]:
    """Choose pairs so that each network is once a source, and each once a target, but for those that were seen.

    Internal networks are apart for a reason of their own, so others are paired with each other first.
    """
    ordered = sorted(held, key=lambda key: (held[key][0].network.internal, held[key][1][0].network.internal))
    sources, targets = set(seen), set(seen)
    for fresh in (True, False):
        for mine, its in ordered:
            if (mine not in sources and its not in targets) if fresh else (mine not in sources or its not in targets):
                sources.add(mine)
                targets.add(its)
                yield held[mine, its]
    seen |= sources | targets
