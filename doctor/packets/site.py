"""The host as a packet finds it: namespaces with their links, addresses, routes, rules and listeners, and what joins them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from doctor.facts.links import Link
from doctor.facts.proxies import Proxy
from doctor.facts.routes import Packet as Asked
from doctor.facts.routes import Routing
from doctor.facts.sockets import Listener
from doctor.facts.sysctls import Value
from doctor.packets.packet import Version, number, number_of, spell
from doctor.packets.program import Program

if TYPE_CHECKING:
    from doctor.facts.links import Route
    from doctor.facts.routes import Way
    from doctor.packets.packet import Packet

HOST = "host"
Port = tuple[str, str]
"""A link: its namespace's id and its name."""

_VERSIONS: tuple[Version, ...] = (4, 6)

_LOOPBACK = {4: (127 << 24, (128 << 24) - 1), 6: (1, 1)}
_MULTICAST = {4: (224 << 24, (240 << 24) - 1), 6: (0xFF << 120, (1 << 128) - 1)}


class Neighbour(Struct, frozen=True):
    """An entry of the neighbour table: which MAC an address has on a device, and whether that can change."""

    dev: str
    address: str
    mac: str
    state: str


class Space(Struct, frozen=True):
    """One network namespace. `id` is `host` or the inode, `name` what a person calls it.

    `missing` says what of it is not known. `sysctls` are values by path below /proc/sys/net; what is not there has the
    kernel's default. `locals` are the rows of table local: first and last address, type, device.
    """

    id: str
    name: str
    links: dict[str, Link]
    routing: Routing
    locals: dict[Version, tuple[tuple[int, int, str, str], ...]]
    program: Program = field(default_factory=Program)
    listeners: tuple[Listener, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: dict[str, Value] = field(default_factory=dict)
    missing: str = ""

    def sysctl(self, path: str, default: int = 0) -> int:
        """Give a value, the default where it is not known."""
        held = self.sysctls.get(path)
        return int(held.value) if held is not None and held.value.lstrip("-").isdecimal() else default

    def conf(self, version: Version, device: str, name: str, default: int = 0) -> int:
        """Give a setting of an interface."""
        family = "ipv4" if version == 4 else "ipv6"  # noqa: PLR2004 - IPv4
        return self.sysctl(f"{family}/conf/{device}/{name}", default)

    def kind(self, address: int, packet: Packet, device: str = "") -> str:
        """Give the type of an address: inet_addr_type() asks table local alone, everything else is unicast."""
        version = packet.version
        if _MULTICAST[version][0] <= address <= _MULTICAST[version][1]:
            return "multicast"
        if version == 4 and (address == 0xFFFFFFFF or address >> 24 == 0):  # noqa: PLR2004 - IPv4
            return "broadcast"
        for first, last, kind, dev in self.locals.get(version, ()):
            if first <= address <= last:
                return kind if not device or device == dev else "unicast"
        return "unicast"

    def find(self, packet: Packet, iif: str = "lo", *, src: int | None = None, dst: int | None = None) -> Way:
        """Look up the way of a packet."""
        source = packet.src if src is None else src
        target = packet.dst if dst is None else dst
        return self.routing.find(
            Asked(
                spell(target, packet.version),
                spell(source, packet.version) if source else "",
                iif,
                packet.mark,
            )
        )

    def addresses(self, device: str, version: Version) -> list[int]:
        """Give the addresses of a link that are not link-local, in the kernel's order."""
        link = self.links.get(device)
        return addresses(link, version) if link is not None else []

    def source(self, packet: Packet, route: Route) -> int | None:
        """Give the address that the kernel takes for a packet that leaves by a route; None where there is none."""
        if route.source:
            return number(route.source)
        wanted = number(route.gateway) if route.gateway else packet.dst
        return self.nearest(route.dev, wanted, packet.version)

    def nearest(self, device: str, wanted: int, version: Version) -> int | None:
        """Give a link's address in the subnet of another one, else its first, else any of the namespace's."""
        link = self.links.get(device)
        for held in link.addresses if link else ():
            address, _, length = held.partition("/")
            if (":" in address) != (version == 6):  # noqa: PLR2004 - IPv6
                continue
            with contextlib.suppress(ValueError):  # what a namespace says may be anything
                shift = (32 if version == 4 else 128) - int(length or 0)  # noqa: PLR2004 - IPv4
                if number(address) >> shift == wanted >> shift:
                    return number(address)
        first = self.addresses(device, version)
        if first:
            return first[0]
        others = [one for name in self.links if name != "lo" for one in self.addresses(name, version)]
        return others[0] if others else None

    def outward(self, packet: Packet) -> int | None:
        """Give the address that masquerading takes: that of the way out, toward the next hop."""
        route = self.find(packet, src=0).route
        wanted = number(route.gateway) if route and route.gateway and route.dev == packet.oif else packet.dst
        if not self.addresses(packet.oif, packet.version):
            return None
        return self.nearest(packet.oif, wanted, packet.version)

    def inward(self, packet: Packet) -> int | None:
        """Give the address that a redirect leads to: the loopback for what is sent here, else the device's first."""
        if not packet.iif:
            return number("127.0.0.1" if packet.version == 4 else "::1")  # noqa: PLR2004 - IPv4
        held = self.addresses(packet.iif, packet.version)
        return held[0] if held else None

    def takes(self, packet: Packet, *, back: bool = False) -> int:
        """Give the largest packet that the way of a packet takes, or the way `back` to its source: a route's, or a link's."""
        target = packet.src if back else packet.dst
        route = self.find(packet, src=0, dst=target).route
        link = self.links.get(route.dev) if route is not None else None
        return (route.mtu if route is not None else 0) or (link.mtu if link is not None else 0)

    def segment(self, packet: Packet) -> int:
        """Give the largest segment for which both ways of a connection have room: tcpmss_mangle_packet()."""
        ways = [one for one in (self.takes(packet), self.takes(packet, back=True)) if one]
        return max(0, min(ways, default=0) - headers(packet.version))

    def loops(self, address: int, version: Version) -> bool:
        """Whether an address is a loopback address."""
        first, last = _LOOPBACK[version]
        return first <= address <= last

    def holds(self, address: int, version: Version) -> bool:
        """Whether an address is one of its own."""
        return any(
            kind == "local" and first <= address <= last for first, last, kind, _ in self.locals.get(version, ())
        )

    def listener(self, protocol: str, address: str, port: int) -> Listener | None:
        """Give the socket that a packet to an address and port arrives at."""
        return taker(self.listeners, protocol, address, port)


def taker(listeners: Iterable[Listener], protocol: str, address: str, port: int) -> Listener | None:
    """Give the socket of some that a packet to an address and port arrives at."""
    taking = [one for one in listeners if one.protocol == protocol and one.port == port and one.takes(address)]
    nearest = [one for one in taking if one.address == address] or taking
    # Of several that share a port (SO_REUSEPORT) chance decides: one that has room is taken.
    return next((one for one in nearest if not one.full), nearest[0] if nearest else None)


def addresses(link: Link, version: Version) -> list[int]:
    """Give the addresses of a link that are not link-local, in the kernel's order; what is none is left out."""
    six = version == 6  # noqa: PLR2004 - IPv6
    held = [one for one in link.addresses if (":" in one) == six and not one.startswith("fe80")]
    return [value for one in held if (value := number_of(one.partition("/")[0])) is not None]


def headers(version: Version) -> int:
    """Give the length of an IP and a TCP header without options."""
    return 40 if version == 4 else 60  # noqa: PLR2004 - IPv4


class Spaces(Mapping[str, Space]):
    """Namespaces by id, each made when it is first asked for: a packet meets three of hundreds.

    `heard` are listeners that are known without the rest.
    """

    def __init__(
        self,
        makers: dict[str, Callable[[], Space]],
        heard: Mapping[str, tuple[Listener, ...]] | None = None,
        twins: Callable[[], dict[str, str]] = dict,
    ) -> None:
        """Take what makes each, and what tells which are twins (`packets/twins.py`)."""
        self._makers = makers
        self._made: dict[str, Space] = {}
        self._heard = heard or {}
        self._twins = twins
        self._alike: dict[str, str] | None = None

    def twin(self, key: str) -> str:
        """Name the namespace that is the same as this one but for addresses; itself where there is none."""
        if self._alike is None:
            self._alike = self._twins()
        return self._alike.get(key, key)

    def listeners(self, key: str) -> tuple[Listener, ...]:
        """Give the listeners of one."""
        held = self._heard.get(key)
        return self[key].listeners if held is None else held

    def __getitem__(self, key: str) -> Space:
        """Give one."""
        held = self._made.get(key)
        if held is None:
            held = self._made[key] = self._makers[key]()
        return held

    def __contains__(self, key: object) -> bool:
        """Whether there is one: a Mapping would make it to see."""
        return key in self._makers

    def __iter__(self) -> Iterator[str]:
        """Give the ids."""
        return iter(self._makers)

    def __len__(self) -> int:
        """Count them."""
        return len(self._makers)


class Wiring:
    """Links by what they are searched for, sorted out when that is first asked: a host may have thousands."""

    def __init__(self) -> None:
        """Start with nothing sorted out."""
        self._holders: dict[tuple[int, int], str] | None = None
        self._ports: dict[str, dict[str, list[Link]]] = {}
        self._behind: dict[Port, dict[tuple[int, int], list[tuple[Port, Link]]]] = {}

    def holder(self, site: Site, address: int, version: Version) -> str | None:
        """Give the first namespace beside the host that has an address on a link."""
        if self._holders is None:
            self._holders = {}
            for key, links in site.links.items():
                for link in links.values() if key != HOST else ():
                    for one in _VERSIONS:
                        for held in addresses(link, one):
                            self._holders.setdefault((one, held), key)
        return self._holders.get((version, address))

    def ports(self, space: Space, bridge: str) -> list[Link]:
        """Give the ports of a bridge."""
        held = self._ports.get(space.id)
        if held is None:
            held = self._ports[space.id] = {}
            for link in space.links.values():
                if link.master:
                    held.setdefault(link.master, []).append(link)
        return held.get(bridge, [])

    def behind(self, site: Site, space: Space, bridge: str, address: int, version: Version) -> list[tuple[Port, Link]]:
        """Give the links with an address that are on the other side of a bridge's ports, each with its port."""
        held = self._behind.get((space.id, bridge))
        if held is None:
            held = self._behind[space.id, bridge] = {}
            for link in self.ports(space, bridge):
                peer = site.peers.get((space.id, link.name))
                if peer is None:
                    continue
                for one in _VERSIONS:
                    for found in addresses(site.links[peer[0]][peer[1]], one):
                        held.setdefault((one, found), []).append((peer, link))
        return held.get((version, address), [])


class Site(Struct, frozen=True):
    """All namespaces by id, their links by name, and the other ends of the veths.

    `proxies` are the docker-proxies of the host, by protocol and port; `wiring` is how links are found.
    """

    spaces: Spaces
    links: dict[str, dict[str, Link]]
    peers: dict[Port, Port]
    proxies: dict[tuple[str, int], tuple[Proxy, ...]] = field(default_factory=dict)
    wiring: Wiring = field(default_factory=Wiring)

    @property
    def host(self) -> Space:
        """The host's own namespace."""
        return self.spaces[HOST]

    def filters_bridged(self, bridge: Link, version: Version) -> bool:
        """Whether what a bridge of the host forwards meets the rules of iptables (br_netfilter)."""
        name = "bridge-nf-call-iptables" if version == 4 else "bridge-nf-call-ip6tables"  # noqa: PLR2004 - IPv4
        return bool(self.host.sysctl(f"bridge/{name}")) or version in bridge.filters

    def owner(self, address: int, version: Version) -> Space | None:
        """Give the namespace that holds an address on a link; the host's own first."""
        if self.host.holds(address, version):
            return self.host
        found = self.wiring.holder(self, address, version)
        return self.spaces[found] if found is not None else None
