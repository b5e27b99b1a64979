"""How containers lie on their host: the one link of a namespace, and the bridge and port on its other end.

Namespaces that are plain (one address of their own, the way out by their bridge, no rules inside) differ for a packet only
in names and addresses. All that a walk asks of one beside those is its `alike`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.routes import Packet as Asked
from doctor.packets.conditions import Address
from doctor.packets.packet import Version, number_of, spell
from doctor.packets.site import HOST, addresses

if TYPE_CHECKING:
    from doctor.facts.links import Link
    from doctor.packets.program import Program, Rule
    from doctor.packets.site import Site, Space

_BITS: dict[Version, int] = {4: 32, 6: 128}
_LOOPS = {4: (127 << 24, (128 << 24) - 1), 6: (1, 1)}

Own = tuple[str, int]
"""Stands for an address of a namespace's own: `own`, and its number."""


class Leg(Struct, frozen=True):
    """The one link of a namespace: its address, the bridge and port on its other end, and its network, first to last."""

    address: int
    bridge: str
    port: str
    first: int
    last: int
    alike: Hashable


def outside(site: Site, address: int, version: Version) -> Leg | None:
    """Describe somebody outside by an address: the uplink stands for bridge and port. None where no route leads there."""
    way = site.host.routing.find(Asked(spell(address, version), iif="lo"))
    if way.route is None or way.route.type != "unicast" or not way.route.dev:
        return None
    link = site.host.links.get(way.route.dev)
    if link is None or link.kind == "bridge" or link.master or link.doubt or link.doubt_in:
        return None
    return Leg(address, link.name, link.name, address, address, ("outside", version))


class Owners:
    """Whose each address is, the link-local ones too; `fixed` are those that some neighbour table has for ever."""

    def __init__(self, site: Site) -> None:
        """Read a site."""
        self.site = site
        self.by: dict[tuple[int, int], list[str]] = {}
        self.own: dict[str, dict[int, Own]] = {}
        self.links_of: dict[str, bool] = {}
        self.specials: dict[str, bool] = {}
        self.telling: dict[str, bool] = {}
        for key, links in site.links.items():
            own: dict[int, Own] = {}
            for link in links.values():
                for held in link.addresses if link.name != "lo" else ():
                    one = number_of(held.partition("/")[0])
                    if one is not None:
                        self.by.setdefault((6 if ":" in held else 4, one), []).append(key)
                        own[one] = "own", len(own)
            self.own[key] = own
        self.fixed = {
            value
            for key in {site.spaces.twin(key) for key in site.spaces}
            for one in site.spaces[key].neighbours
            if one.state in {"PERMANENT", "NOARP"} and (value := number_of(one.address)) is not None
        }

    def only(self, address: int, version: Version) -> bool:
        """Whether an address is that of one namespace, and no neighbour table says more of it."""
        return len(self.by.get((version, address), ())) == 1 and address not in self.fixed

    def special(self, key: str) -> bool:
        """Whether a namespace has to be walked for itself: what it has is exchanged for nobody else's."""
        held = self.links_of.get(key)
        if held is None:
            links = self.site.links[key].values()
            held = self.links_of[key] = any(not self.plugged(key, link) for link in links if link.name != "lo")
        return held or self.inside(self.site.spaces.twin(key))

    def inside(self, key: str) -> bool:
        """Whether a namespace, and all that are like it, have something inside that others have not."""
        held = self.specials.get(key)
        if held is None:
            space = self.site.spaces[key]
            lo = space.links.get("lo")
            held = self.specials[key] = (
                bool(space.missing)
                or self.tells(key)
                or any(one.state in {"PERMANENT", "NOARP"} and one.mac for one in space.neighbours)
                or (lo is not None and any(one.partition("/")[0] not in {"127.0.0.1", "::1"} for one in lo.addresses))
                # Where nobody is known to have an address of the way out, the neighbour that is remembered decides.
                or (bool(space.neighbours) and any(self.strange(hop) for hop in _hops(space)))
            )
        return held

    def tells(self, key: str) -> bool:
        """Whether the rules of a namespace, and of all that are like it, decide about more than its embedded DNS."""
        first = self.site.spaces.twin(key)
        held = self.telling.get(first)
        if held is None:
            held = self.telling[first] = tells(self.site.spaces[first].program)
        return held

    def plugged(self, key: str, link: Link) -> bool:
        """Whether a link ends at a port of a bridge of the host, or is not in use."""
        peer = self.site.peers.get((key, link.name))
        if peer is None:
            return not (link.up or any(addresses(link, version) for version in _BITS))
        end = self.site.links[peer[0]][peer[1]]
        # The kernel gives every port a link-local address, which nobody calls it by.
        return bool(end.master) and peer[0] == HOST and all(one.startswith("fe80") for one in end.addresses)

    def strange(self, hop: str) -> bool:
        """Whether no namespace is known to have the address of a next hop."""
        value = number_of(hop)
        return value is None or self.site.owner(value, version_of(value)) is None


class Legs:
    """Describes namespaces, each once."""

    def __init__(self, site: Site, owners: Owners) -> None:
        """Take a site; nothing is described yet."""
        self.site = site
        self.owners = owners
        self.held: dict[tuple[str, Version], Leg | None] = {}
        self.bridges: dict[str, Hashable] = {}
        self.gates: dict[tuple[str, str], bool] = {}
        self.found: dict[Hashable, Hashable | None] = {}
        self.numbers: dict[Hashable, int] = {}
        self.settings = _settings(site)
        self.ruled = bool(site.host.routing.special)

    def of(self, key: str, version: Version) -> Leg | None:
        """Describe a namespace with one link; None for what is not so plain."""
        if (key, version) not in self.held:
            self.held[key, version] = self.described(key, version)
        return self.held[key, version]

    def described(self, key: str, version: Version) -> Leg | None:
        """Describe a namespace with one link."""
        mine = self.site.links.get(key)
        if mine is None or key == HOST:
            return None
        links = [link for link in mine.values() if link.name != "lo"]
        held = addresses(links[0], version) if len(links) == 1 else []
        peer = self.site.peers.get((key, links[0].name)) if len(held) == 1 else None
        if peer is None or peer[0] != HOST or self.owners.special(key):
            return None
        address = held[0]
        port = self.site.host.links[peer[1]]
        bridge = self.site.host.links.get(port.master)
        network = network_of(links[0], version)
        if bridge is None or network is None or not self.owned(address, version, port.master):
            return None
        routes = self.ways(key, links[0].name, version, (address, *network), bridge)
        if routes is None:
            return None
        link = links[0]
        alike = (
            (link.up, link.kind, port.up, port.port_state, port.hairpin, port.isolated, len(mine)),
            (link.doubt != "", link.doubt_in != "", port.doubt != "", port.doubt_in != ""),
            (routes, self.bridge(bridge), version),
        )
        return Leg(address, bridge.name, port.name, *network, self.numbers.setdefault(alike, len(self.numbers)))

    def ways(self, key: str, link: str, version: Version, own: tuple[int, int, int], bridge: Link) -> Hashable | None:
        """Describe the routes of a namespace; those of twins on one bridge are the same."""
        first = self.site.spaces.twin(key)
        where = (first, version, bridge.name, own[1:])
        if where not in self.found:
            space = self.site.spaces[key]
            self.found[where] = None if space.routing.special else self.routes(space, link, version, own, bridge)
        return self.found[where]

    def owned(self, address: int, version: Version, bridge: str) -> bool:
        """Whether an address is one namespace's alone, and the host's way to it is by its bridge."""
        if not self.owners.only(address, version):
            return False
        routing = self.site.host.routing
        route = routing.find(Asked(spell(address, version))).route if self.ruled else routing.plain(address, version)
        return route is not None and (route.type, route.dev, route.gateway) == ("unicast", bridge, "")

    def bridge(self, bridge: Link) -> Hashable:
        """Describe a bridge with its name and addresses left out."""
        held = self.bridges.get(bridge.name)
        if held is None:
            settings = tuple(self.settings.get(bridge.name, ()))
            held = self.bridges[bridge.name] = (
                *(bridge.up, bridge.kind, bridge.filters),
                *(bridge.doubt, bridge.doubt_in, settings),
            )
        return held

    def routes(
        self, space: Space, link: str, version: Version, own: tuple[int, int, int], bridge: Link
    ) -> Hashable | None:
        """Describe the routes of a namespace: to its network, and by a gateway that is the bridge; None for any others."""
        address, first, last = own
        found: list[Hashable] = []
        for name, table in space.routing.tables.get(version, {}).items():
            for length, networks in table.items() if name != "local" else ():
                for start, held in networks.items():
                    whole = length == 0
                    if not whole and (start, start + (1 << _BITS[version] - length) - 1) != (first, last):
                        return None
                    for route in held:
                        gate = bool(route.gateway) and self.gateway(route.gateway, version, bridge)
                        if route.dev != link or gate != whole or bool(route.gateway) != gate:
                            return None
                        source = number_of(route.source) == address if route.source else None
                        found.append((name, whole, route.type, source, route.metric, route.dead))
        return tuple(found)

    def gateway(self, text: str, version: Version, bridge: Link) -> bool:
        """Whether a gateway is an address of the host's on a bridge, and that alone."""
        held = self.gates.get((text, bridge.name))
        if held is None:
            value = number_of(text)
            held = (
                value is not None
                and value in addresses(bridge, version)
                and self.owners.by.get((version, value)) == [HOST]
                and self.site.host.holds(value, version)
            )
            self.gates[text, bridge.name] = held
        return held


def _settings(site: Site) -> dict[str, list[tuple[str, str]]]:
    """Give the settings of each device of the host."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path, value in site.host.sysctls.items():
        family, _, rest = path.partition("/conf/")
        device, _, name = rest.rpartition("/")
        if device:
            found.setdefault(device, []).append((f"{family} {name}", value.value))
    return {device: sorted(held) for device, held in found.items()}


def network_of(link: Link, version: Version) -> tuple[int, int] | None:
    """Give the first and last address of a link's network."""
    for held in link.addresses:
        address, _, length = held.partition("/")
        if (":" in address) == (version == 6) and not address.startswith("fe80"):  # noqa: PLR2004 - IPv6
            value = number_of(address)
            if value is None or not length.isdecimal() or int(length) > _BITS[version]:
                return None
            spare = _BITS[version] - int(length)
            first = value >> spare << spare
            return first, first + (1 << spare) - 1
    return None


def tells(program: Program) -> bool:
    """Whether the rules of a namespace decide about anything but its own loopback addresses (the embedded DNS)."""
    if any(base.policy == "drop" for base in program.bases):
        return True
    return any(not _loops(rule) for chain in program.chains.values() for rule in chain.rules)


def _loops(rule: Rule) -> bool:
    return any(
        isinstance(step, Address)
        and not step.negated
        and all(_LOOPS[step.version][0] <= first and last <= _LOOPS[step.version][1] for first, last in step.ranges)
        for step in rule.steps
    )


def _hops(space: Space) -> set[str]:
    """Give the gateways of a namespace."""
    return {
        route.gateway
        for tables in space.routing.tables.values()
        for table in tables.values()
        for networks in table.values()
        for routes in networks.values()
        for route in routes
        if route.gateway
    }


def version_of(value: int) -> Version:
    """Tell the version by the number: link-local addresses and all others of IPv6 are greater than any of IPv4."""
    return 4 if value >> 32 == 0 else 6
