"""Where containers sit: their namespaces, their places in networks, and the addresses that others would call them by."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container
from doctor.facts.engine_rules import ANY
from doctor.facts.networks import Network
from doctor.packets.conditions import Address
from doctor.packets.conditions import Any as AnyOf
from doctor.packets.packet import Version, number
from doctor.packets.program import Map
from doctor.packets.walk import CLIENT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from doctor.facts.containers import Containers, Endpoint, Port
    from doctor.facts.links import Namespace
    from doctor.facts.networks import Networks
    from doctor.facts.processes import Processes
    from doctor.packets.program import Program, Rule
    from doctor.packets.site import Site

VERSIONS: tuple[Version, ...] = (4, 6)

CLIENTS: dict[Version, tuple[str, ...]] = {
    4: ("203.0.113.77", "198.51.100.77", "192.0.2.77", "198.18.7.77", "1.2.3.4", "9.8.7.6", "93.7.7.7", "185.7.7.7"),
    6: ("2001:db8:77::77", "2001:db8:1::77", "2a00:7:7::7", "2600:7:7::7"),
}
"""Addresses outside (most for documentation, RFC 5737, 2544, 3849): the first one that no rule names is walked with."""

_WHOLE = {4: 8, 6: 16}
"""Prefixes up to this length stand for all addresses or for half of them: no client is outside of them."""


class Seat(Struct, frozen=True):
    """A container in one network: `space` is its namespace, `address` the one that it has there."""

    one: Container
    space: str
    network: Network
    address: int


class Seats:
    """The running containers that have a namespace of their own which was read, and where they sit."""

    def __init__(
        self,
        site: Site,
        networks: Networks,
        containers: Containers,
        processes: Processes,
        namespaces: Mapping[str, Namespace],
    ) -> None:
        """Find them."""
        self.site = site
        self.namespaces = namespaces
        self.by_id = {one.id: one for one in networks.all}
        self._ways: dict[tuple[str, Version], Seat | None] = {}
        self.all = [
            (one, process.net)
            for one in containers.running
            if one.own_network
            and (process := processes.by_pid.get(one.pid)) is not None
            and (held := namespaces.get(process.net)) is not None
            and not held.missing
        ]

    def ends(self, one: Container, version: Version) -> Iterator[tuple[Endpoint, Network, str]]:
        """Give a container's places in bridge networks where it has an address of a version."""
        for end in one.endpoints:
            network = self.by_id.get(end.network_id)
            address = end.address if version == 4 else end.address6  # noqa: PLR2004 - IPv4
            if network is not None and is_address(address, version):
                yield end, network, address

    def in_networks(self, version: Version) -> dict[str, list[Seat]]:
        """Give who sits in each network, by its id."""
        found: dict[str, list[Seat]] = {}
        for one, space in self.all:
            for _, network, address in self.ends(one, version):
                found.setdefault(network.id, []).append(Seat(one, space, network, number(address)))
        return found

    def versions(self) -> tuple[Version, ...]:
        """Give the versions of IP that this host reaches the outside by."""
        found: list[Version] = []
        for version in VERSIONS:
            tables = self.site.host.routing.tables.get(version, {})
            held = [route for table in tables.values() for routes in table.get(0, {}).values() for route in routes]
            if any(route.type == "unicast" for route in held):
                found.append(version)
        return tuple(found)

    def way_out(self, one: Container, space: str, version: Version) -> Seat | None:
        """Give a container's place in the network that its default route leads to; None where it is none of Docker's."""
        if (space, version) not in self._ways:
            self._ways[space, version] = self._way_out(one, space, version)
        return self._ways[space, version]

    def _way_out(self, one: Container, space: str, version: Version) -> Seat | None:
        held = self.namespaces[space].routes
        gateways = {one.gateway for one in held if one.dst == "default" and one.version == version}
        for end, network, address in self.ends(one, version):
            if (end.gateway if version == 4 else end.gateway6) in gateways:  # noqa: PLR2004 - IPv4
                return Seat(one, space, network, number(address))
        return None

    def host_address(self, port: Port, version: Version) -> int | None:
        """Give the address of the host that a published port is called at; None where it has none."""
        if port.host_ip not in ANY:
            held = number(port.host_ip)
            near = self.site.host.loops(held, version) or self.site.host.holds(held, version)
            return held if near else None
        way = self.site.host.routing.tables.get(version, {}).get("main", {}).get(0, {})
        for routes in way.values():
            for route in routes:
                mine = self.site.host.addresses(route.dev, version)
                if mine:
                    return mine[0]
        return None

    def listening(self, one: Container, space: str, *, published: bool = True) -> int:
        """Give a port of TCP that neighbours can call, else one that nobody listens on.

        One that it publishes first; without `published` one that it listens on and does not publish.
        """
        mine = [port.container for port in one.ports if port.protocol == "tcp"]
        if published and mine:
            return mine[0]
        # The embedded DNS listens in the container, for the container alone, as programs of it may.
        heard = (
            held.port
            for held in self.site.spaces.listeners(space)
            if held.protocol == "tcp" and not held.address.startswith("127.") and held.address != "::1"
        )
        return next((port for port in heard if port not in mine), CLIENT_PORT)


@lru_cache(maxsize=1 << 12)
def is_address(text: str, version: Version) -> bool:
    """Whether a text is an address of a version: what an engine says may be anything."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def stranger(program: Program, written: frozenset[str], version: Version) -> int:
    """Give an address outside that no rule names but with half of the world; those `written` by the engine name none."""
    size = 1 << ((32 if version == 4 else 128) - _WHOLE[version])  # noqa: PLR2004 - IPv4
    narrow = [
        (first, last)
        for chain in program.chains.values()
        for rule in chain.rules
        if rule.cited.excerpt not in written
        for one in _addresses(rule)
        if one.version == version
        for first, last in one.ranges
        if last - first < size
    ]
    tried = [number(one) for one in CLIENTS[version]]
    return next((one for one in tried if not any(first <= one <= last for first, last in narrow)), tried[0])


def _addresses(rule: Rule) -> Iterable[Address]:
    """Give the addresses that a rule asks for, within maps and sets of tuples too."""
    waiting: list[object] = list(rule.steps)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Map):
            waiting += [condition for conditions, _ in one.elements for condition in conditions]
        elif isinstance(one, AnyOf):
            waiting += [condition for conditions in one.several for condition in conditions]
        elif isinstance(one, Address):
            yield one
