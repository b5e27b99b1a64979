"""Which namespaces and goals nothing on the host tells apart.

Two namespaces are of one class when their links, routes and ports of a bridge are alike and when no rule tells their
addresses apart but rules of one form, each about its own address, that stand between the same others: the walk of one is
then that of the other with the addresses exchanged. What cannot be exchanged so (a namespace with rules of its own, an
address that two have) is a class of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from doctor.model import Citation
from doctor.packets.conditions import Any, Device
from doctor.packets.ends import (
    CLIENT,
    Row,
    Values,
    about_itself,
    form_of,
    kind_of,
    matches,
    row_of,
)
from doctor.packets.flow import OUTSIDE, TCP, UDP
from doctor.packets.legs import version_of
from doctor.packets.packet import number_of, spell
from doctor.packets.program import Map, Nat
from doctor.packets.site import HOST, addresses, taker
from doctor.packets.walk import CLIENT_PORT

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from doctor.facts.links import Link, Route
    from doctor.facts.routes import Rule as Rule_
    from doctor.facts.sockets import Listener
    from doctor.packets.conditions import Condition
    from doctor.packets.ends import Party
    from doctor.packets.goal import End, Goal
    from doctor.packets.legs import Own, Owners
    from doctor.packets.packet import Version
    from doctor.packets.program import Action, Program
    from doctor.packets.site import Site, Space

_VERSIONS: tuple[Version, ...] = (4, 6)


class Class(Struct, frozen=True, eq=False):
    """What a namespace or goal is alike in (`key`), and the rules about it alone, in the order of the key."""

    key: int
    cited: tuple[Citation, ...] = ()


class Classes:
    """Puts namespaces and goals into classes."""

    def __init__(self, site: Site, owners: Owners) -> None:
        """Read a site."""
        self.site = site
        self.owners = owners
        self.own = owners.own
        self.by_address: dict[int, list[Row]] = {}
        self.by_goal: dict[int | End, list[Row]] = {}
        self.by_port: dict[int, list[Row]] = {}
        self.masked: list[Row] = []
        self.forms: dict[tuple[int, Party, tuple[bool, ...]], tuple[int, Citation] | None] = {}
        self.cuts: tuple[list[int], list[int]] = ([], [])
        self.rows = 0
        self.names: set[str] = set()
        self.wild: list[str] = []
        self.shapes: dict[str, Hashable] = {}
        self.insides: dict[str, int] = {}
        self.numbers: dict[Hashable, int] = {}
        self.bounds: dict[int, list[int]] = {4: [], 6: []}
        self.read()

    # What is read of the site

    def read(self) -> None:
        """Read what tells ends apart: rules, routes, routing rules, neighbours that are known for ever."""
        cuts: tuple[set[int], set[int]] = (set(), set())
        self.rules(HOST, self.site.host.program, cuts)
        bounds: dict[int, set[int]] = {4: set(), 6: set()}
        spaces = self.site.spaces
        for key in spaces:
            first = spaces.twin(key)
            if key != HOST and self.owners.tells(key):
                self.rules(key, spaces[key].program, cuts)
            if key == first:
                self.routes(key, spaces[key], bounds)
        self.bounds = {version: sorted(held) for version, held in bounds.items()}
        self.cuts = sorted(cuts[0]), sorted(cuts[1])
        self.wild = [name for name in self.names if name.endswith("*")]

    def routes(self, key: str, space: Space, bounds: dict[int, set[int]]) -> None:
        """Note where prefixes of routes and routing rules begin and end; a namespace's own addresses are its own affair."""
        own = self.own.get(key, {}) if key != HOST else {}
        for version, tables in space.routing.tables.items():
            bits = 32 if version == 4 else 128  # noqa: PLR2004 - IPv4
            for table in tables.values():
                for length, networks in table.items():
                    size = 1 << bits - length
                    bounds[version] |= {end for first in networks if first not in own for end in (first, first + size)}
        for version, rows in space.locals.items():
            bounds[version] |= {end for low, high, _, _ in rows if low not in own for end in (low, high + 1)}
        for version, rules in space.routing.rules.items():
            for rule in rules:
                for prefix in (rule.src, rule.dst):
                    if prefix:
                        bounds[version] |= _ends(prefix)
        for link in self.site.links.get(key, {}).values() if key == HOST else ():
            for held in link.addresses:
                bounds[6 if ":" in held else 4] |= _ends(held)

    def rules(self, key: str, program: Program, cuts: tuple[set[int], set[int]]) -> None:
        """Note the rules that ask about an end."""
        for chain in program.chains.values():
            rows = [row_of((key, chain.key), at, rule) for at, rule in enumerate(chain.rules)]
            kept = [row for row in rows if not about_itself(row)]
            for run, (kind, members) in enumerate(groupby(kept, key=kind_of)):
                for row in members if kind else ():
                    self.rows += 1
                    self.index(structs.replace(row, run=run, order=self.rows), cuts)
            for rule in chain.rules:
                self.names |= _devices(rule.steps)
        self.names |= {name for base in program.bases for name in base.devices}

    def index(self, row: Row, cuts: tuple[set[int], set[int]]) -> None:
        """Put a rule where those that it can be about find it, or note between which values it tells apart."""
        singles = [one.single for one in row.asks if one.field.endswith(("src", "dst")) and one.single is not None]
        ports = [one.single for one in row.asks if one.field.endswith("port") and one.single is not None]
        if row.own and singles:
            self.by_address.setdefault(singles[0], []).append(row)
            end: int | End = (singles[0], ports[0]) if ports and row.one_end else singles[0]
            self.by_goal.setdefault(end, []).append(row)
        elif row.own and ports and not set(ports) & set(CLIENT):
            self.by_port.setdefault(ports[0], []).append(row)
        elif any(one.mask != -1 for one in row.every):
            self.masked.append(row)
        else:
            for one in row.every:
                ends = cuts[one.field.endswith("port")]
                ends.update(end for first, last in one.ranges for end in (first, last + 1))

    def cut(self, values: Iterable[int], ports: Iterable[int]) -> Hashable:
        """Say between which values rules tell apart that are found by no single one."""
        return (
            tuple(bisect_right(self.cuts[0], one) for one in values),
            tuple(bisect_right(self.cuts[1], one) for one in ports),
        )

    # Classes

    def source(self, key: str) -> Class:
        """Put a namespace that sends into its class."""
        if key in {HOST, OUTSIDE} or self.shape(key) == key:
            return self.numbered(key, ())
        held = list(self.own[key])
        values = [Values("source", {"src": one, "dst": one, "original.src": one}) for one in held]
        if len(held) == 1 and not self.masked:
            about, cited = self.formed(values[0], self.by_address.get(held[0], ()), self.own[key], {})
        else:
            about, cited = self.about(values, dict(self.own[key]))
        return self.numbered((self.shape(key), about, self.cut(held, ())), cited)

    def numbered(self, key: Hashable, cited: tuple[Citation, ...]) -> Class:
        """Number the classes: what they are alike in is long."""
        return Class(self.numbers.setdefault(key, len(self.numbers)), cited)

    def goal(self, goal: Goal) -> Class:
        """Put a goal into its class."""
        own = goal.where in {HOST, OUTSIDE} or goal.where not in self.site.spaces
        listens = listening(self.site, goal)
        first: End = (goal.dst, goal.dport)
        last = goal.behind or first
        values = [
            Values(
                "goal",
                {
                    "src": now[0],
                    "sport": now[1],
                    "dst": now[0],
                    "dport": now[1],
                    "original.dst": then[0],
                    "original.dport": then[1],
                },
            )
            for now in dict.fromkeys((first, last))
            for then in dict.fromkeys((first, last))
        ]
        names: dict[int, Hashable] = {} if own else {last[0]: "it"}
        ports: dict[int, Hashable] = {first[1]: "port", last[1]: "inner port"}
        if len(values) == 1 and not self.masked and not own:
            rows = [*self.by_goal.get(first[0], ()), *self.by_goal.get(first, ()), *self.by_port.get(first[1], ())]
            rows.sort(key=lambda row: row.order)
            about, cited = self.formed(values[0], rows, names, ports)
        else:
            about, cited = self.about(values, names, ports)
        host = self.proxied(goal) if goal.behind else ()
        shape = goal.where if own else self.shape(goal.where)
        what = (self.address(last[0], goal.version), first[0] if goal.behind or own else 0, goal.version, goal.protocol)
        ports_alike = (first[1] == last[1], not first[1], first[1] == CLIENT_PORT, last[1] == CLIENT_PORT)
        at = self.own.get(goal.where, {}).get(last[0])
        cut = self.cut((first[0], last[0]), (first[1], last[1]))
        return self.numbered((shape, what, at, ports_alike, listens, host, about, cut, goal.dport if own else 0), cited)

    def proxied(self, goal: Goal) -> Hashable:
        """Say whether a docker-proxy holds the port of the host, and whether it leads where it should."""
        name = "tcp" if goal.protocol == TCP else "udp"
        proxies = tuple(
            (
                one.host_ip,
                (number_of(one.container_ip), one.container) == goal.behind or (one.container_ip, one.container),
            )
            for one in self.site.proxies.get((name, goal.dport), ())
        )
        return listens(self.site.host.listeners, (goal.dst, goal.dport), goal), proxies

    def address(self, value: int, version: Version) -> Hashable:
        """Say what routes and neighbours make of an address; one that is not one container's alone is like no other."""
        link_local = version == 6 and value >> 118 == 0xFE80 >> 6  # noqa: PLR2004 - fe80::/10
        if (not self.owners.only(value, version) and not link_local) or value in self.owners.fixed:
            return ("only", value)
        return bisect_right(self.bounds[version], value)

    def formed(
        self, values: Values, rows: Iterable[Row], names: Mapping[int, Hashable], ports: Mapping[int, Hashable]
    ) -> tuple[Hashable, tuple[Citation, ...]]:
        """Give what `about` does for one address and port: by numbers that stand for forms, each found once."""
        fields = values.fields
        found = []
        for row in rows:
            key = (row.order, values.party, tuple(one.holds(fields.get(one.field, 0)) for one in row.asks))
            held = self.forms.get(key, ())
            if held == ():
                answers = matches(row, values)
                held = None
                if any(answers):
                    form = (row.chain, row.run, form_of(row, names, ports), answers)
                    held = self.numbers.setdefault(form, len(self.numbers)), row.rule.cited
                if not any(isinstance(step, Nat) for step in row.rule.steps):  # it may lead to the end itself
                    self.forms[key] = held
            if held:
                found.append(held)
        return tuple(number for number, _ in found), tuple(cited for _, cited in found)

    def about(
        self, values: list[Values], names: Mapping[int, Hashable], ports: Mapping[int, Hashable] | None = None
    ) -> tuple[Hashable, tuple[Citation, ...]]:
        """Give the form of each rule that is about an end, in order, and where they stand."""
        found: dict[int, tuple[Row, tuple[object, ...]]] = {}
        asked = {one for held in values for one in held.fields.values()}
        rows = [row for one in asked for row in self.by_address.get(one, ())]
        rows += [row for one in ports or () for row in self.by_port.get(one, ())]
        for row in (*rows, *self.masked):
            answers = tuple(matches(row, held) for held in values)
            if any(any(one) for one in answers):
                found[row.order] = (row, answers)
        ordered = [found[at] for at in sorted(found)]
        key = tuple(
            (row.chain, row.run, form_of(row, names, ports or {}) if row.own else row.at, answers)
            for row, answers in ordered
        )
        return key, tuple(row.rule.cited for row, _ in ordered)

    def shape(self, key: str) -> Hashable:
        """Give what a namespace is alike in; its id where nothing else is like it."""
        held = self.shapes.get(key)
        if held is None:
            held = self.shapes[key] = self.shaped(key)
        return held

    def shaped(self, key: str) -> Hashable:
        """Describe a namespace with its own addresses left out."""
        if self.owners.special(key):
            return key
        lo = self.site.links[key].get("lo")
        links = [self.link(key, link) for link in self.site.links[key].values() if link.name != "lo"]
        return (
            tuple(links),
            lo is not None and lo.up,
            tuple(self.address(one, version_of(one)) for one in self.own[key]),
            self.inside(self.site.spaces.twin(key)),
        )

    def inside(self, key: str) -> int:
        """Number what is inside of a namespace, with its own addresses left out; that of twins is the same."""
        held = self.insides.get(key)
        if held is None:
            held = self.insides[key] = self.numbers.setdefault(self.ways(key), len(self.numbers))
        return held

    def ways(self, key: str) -> Hashable:
        """Describe routes and rules of a namespace."""
        space = self.site.spaces[key]
        own = self.own[key]
        return (
            tuple((*where, own.get(network, network), _route(route, own)) for *where, network, route in _routes(space)),
            tuple(_rule(rule) for rules in space.routing.rules.values() for rule in rules),
            tuple(
                sorted(
                    (version, str(own.get(low, low)), str(own.get(high, high)), kind, dev)
                    for version, held in space.locals.items()
                    for low, high, kind, dev in held
                )
            ),
        )

    def link(self, key: str, link: Link) -> Hashable:
        """Describe a link: what the port of the bridge on its other end is like."""
        peer = self.site.peers.get((key, link.name))
        if peer is None:
            return (link.kind,)
        held = tuple(self.own[key].get(one) for version in _VERSIONS for one in addresses(link, version))
        end = self.site.links[peer[0]][peer[1]]
        names = tuple(sorted(name for name in self.wild if _named(end.name, name)))
        names += (end.name,) if end.name in self.names else ()
        return (
            (
                link.name,
                link.kind,
                link.up,
                link.doubt != "",
                link.doubt_in != "",
                held,
                tuple(one.partition("/")[2] for one in link.addresses),
            ),
            (end.master, end.up, end.port_state, end.hairpin, end.isolated, end.doubt, end.doubt_in, names),
        )


def listening(site: Site, goal: Goal) -> Hashable:
    """Say whether somebody listens at a goal."""
    if goal.where not in site.links or goal.protocol not in {TCP, UDP}:
        return ()
    return listens(site.spaces.listeners(goal.where), goal.behind or (goal.dst, goal.dport), goal)


def listens(listeners: Iterable[Listener], end: End, goal: Goal) -> Hashable:
    """Say whether somebody listens at an address and port, and whether somebody does at another address."""
    name = "tcp" if goal.protocol == TCP else "udp"
    taking = [one for one in listeners if one.port == end[1] and one.protocol == name]
    if not taking:
        return False, False
    if len(taking) == 1 and taking[0].address == "*":  # as most listen
        return True, True, taking[0].full
    held = taker(taking, name, spell(end[0], goal.version), end[1])
    return held is not None, True, held is not None and held.full


def _routes(space: Space) -> Iterator[tuple[int, str, int, int, Route]]:
    """Give version, table, prefix length, network and route, in an order that does not ask for the network itself."""
    for version, tables in space.routing.tables.items():
        for name, table in sorted(tables.items()):
            for length, networks in table.items():
                for network, held in sorted(networks.items()):
                    yield from ((version, name, length, network, route) for route in held)


def _route(route: Route, own: dict[int, Own]) -> Hashable:
    source = number_of(route.source)
    return (
        own.get(source, route.source) if source is not None else "",
        *(route.dev, route.gateway, route.type, route.metric, route.devs, route.dead),
    )


def _rule(rule: Rule_) -> Hashable:
    return (
        *(rule.version, rule.priority, rule.src, rule.dst, rule.iif, rule.mark, rule.mask, rule.inverted, rule.action),
        *(rule.table, rule.target, rule.prefix, rule.unasked),
    )


def _named(device: str, name: str) -> bool:
    return device.startswith(name[:-1]) if name.endswith("*") else device == name


def _devices(steps: Iterable[Condition | Action]) -> set[str]:
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Device):
            found |= {name for name in step.names if name}
        elif isinstance(step, Any):
            found |= {name for held in step.several for name in _devices(held)}
        elif isinstance(step, Map):
            found |= {name for held, _ in step.elements for name in _devices(held)}
    return found


@lru_cache(4096)
def _ends(prefix: str) -> frozenset[int]:
    """Give where a prefix begins, and what follows it."""
    from ipaddress import ip_network

    try:
        net = ip_network(prefix, strict=False)
    except ValueError:
        return frozenset()
    return frozenset((int(net.network_address), int(net.broadcast_address) + 1))
