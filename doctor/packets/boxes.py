"""The containers of a matrix: where they can be reached, and what Docker promises them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.facts.routes import Packet as Asked
from doctor.facts.sockets import Sockets
from doctor.packets.flow import ICMP, ICMP6, TCP, UDP
from doctor.packets.goal import Goal
from doctor.packets.packet import Version, number, spell
from doctor.packets.site import Site
from doctor.packets.walk import STRANGERS

if TYPE_CHECKING:
    from doctor.facts.networks import Network

PORTS = 16
"""Ports of one container that are judged: those it publishes, then those it listens on, the lowest first."""

OTHERS: dict[Version, str] = {4: "93.184.215.14", 6: "2606:2800:21f:cb07::14"}
"""Strangers of ordinary ranges: many firewalls ban those for documentation (RFC 5737)."""

VERSIONS: tuple[Version, ...] = (4, 6)

INTERNAL = "the network is internal, by design"


class Known(Struct, frozen=True):
    """What a matrix is made of; None for what could not be read."""

    site: Site
    containers: Containers
    processes: Processes
    networks: Networks | None
    sockets: Sockets | None
    rules: EngineRules | None


class Place(Struct, frozen=True):
    """A container's address in a network, and the goals there."""

    end: Endpoint
    address: str
    version: Version
    goals: tuple[Goal, ...]
    strange: str
    """Why packets to it are not modelled; empty when they are."""


class Box(Struct, frozen=True):
    """A container with a namespace of its own; `space` is its id, empty where it is not known."""

    one: Container
    space: str
    places: tuple[Place, ...]
    unread: str


class Boxes:
    """Reads who is there; `notes` say who is in no box."""

    def __init__(self, known: Known) -> None:
        """Read them."""
        self.known = known
        self.site = known.site
        self.uplinks = uplinks(known.site)
        self.networks: dict[str, Network] = {one.id: one for one in known.networks.all} if known.networks else {}
        self.notes: list[str] = []
        self.all = self.read()
        self.inner = {box.one.name for box in self.all if self.internal(box.one)}

    def clients(self, version: Version) -> tuple[int, ...]:
        """Give addresses outside: two strangers; on a host without a default route, one of the uplink's own network."""
        strangers = tuple(number(held[version]) for held in (STRANGERS, OTHERS))
        own = self.uplinks.get(version, "")
        way = self.site.host.routing.find(Asked(spell(strangers[0], version), iif="lo"))
        if not own or (way.route is not None and way.route.type == "unicast"):
            return strangers
        near = [number(own) ^ flip for flip in (1, 2, 3)]
        free = [one for one in near if not self.site.host.holds(one, version) and one & 0xFF not in {0, 0xFF}]
        return tuple(free[:1]) or strangers

    def read(self) -> list[Box]:
        """Give the containers that have a namespace of their own, by their first network and name."""
        found = []
        hosted, without = [], []
        for one in self.known.containers.running:
            if one.network_mode == "host":
                hosted.append(one.name)
            elif one.network_mode == "none" or (one.own_network and not one.endpoints):
                without.append(one.name)
            elif one.own_network:
                found.append(self.box(one))
        if hosted:
            self.notes.append(f"in the network of the host, so as the host: {', '.join(hosted)}")
        if without:
            self.notes.append(f"without a network, so they reach nobody: {', '.join(without)}")
        if self.known.containers.unsettled:
            self.notes.append(f"came, went or changed meanwhile: {', '.join(self.known.containers.unsettled)}")
        if not self.known.containers.complete:
            self.notes.append("a container that is there could not be read")
        return sorted(found, key=lambda box: (listed(box.one), box.one.name))

    def box(self, one: Container) -> Box:
        """Find a container's namespace, and where it can be reached."""
        process = self.known.processes.by_pid.get(one.pid)
        space = process.net if process is not None else ""
        unread = ""
        if space not in self.site.spaces:
            space, unread = "", f"the network namespace of {one.name} could not be read"
        elif not self.site.links.get(space):
            unread = f"the network namespace of {one.name}: {self.site.spaces[space].missing or 'it has no links'}"
        places = tuple(
            self.place(one, space if not unread else "", end, address)
            for end in sorted(one.endpoints, key=lambda end: end.network)
            for address in (end.address, end.address6)
            if valid(address)
        )
        return Box(one, space, places, unread)

    def place(self, one: Container, space: str, end: Endpoint, address: str) -> Place:
        """Give the goals at an address: ports where somebody listens, else a ping."""
        version: Version = 6 if ":" in address else 4
        strange = ""
        if self.known.networks is not None and end.network_id not in self.networks:
            strange = f"network {end.network} is of a kind that is not modelled"
        found = [
            Goal(space, number(address), port, version, protocol)
            for protocol, port in (self.ports(one, space, address) if space else ())
        ]
        ping = Goal(space, number(address), 0, version, ICMP if version == 4 else ICMP6)  # noqa: PLR2004 - IPv4
        return Place(end, address, version, tuple(found) or (ping,), strange)

    def ports(self, one: Container, space: str, address: str) -> list[tuple[int, int]]:
        """Give protocol and number of the ports that somebody listens on at an address."""
        published = {(port.protocol, port.container) for port in one.ports}
        numbers = {"tcp": TCP, "udp": UDP}
        listening = {(held.protocol, held.port) for held in self.site.spaces.listeners(space) if held.takes(address)}
        wanted = [held for held in listening if held in published or held[0] == "tcp"]
        wanted.sort(key=lambda held: (held not in published, held[1]))
        return [(numbers[name], port) for name, port in wanted[:PORTS]]

    # Promises

    def together(self, end: Endpoint) -> bool:
        """Whether Docker promises that the containers of a network reach each other."""
        network = self.networks.get(end.network_id)
        return network is not None and network.option("enable_icc") != "false"

    def out(self, one: Container, version: int) -> bool:
        """Whether Docker promises a way out: a network that is not internal, whose addresses are masqueraded."""
        return any(self.natted(end, version) for end in one.endpoints)

    def natted(self, end: Endpoint, version: int) -> bool:
        """Whether a network leads out by NAT."""
        network = self.networks.get(end.network_id)
        if network is None or network.internal or not (end.address if version == 4 else end.address6):  # noqa: PLR2004 - IPv4
            return False
        mode = network.option(f"gateway_mode_ipv{version}")
        return network.option("enable_ip_masquerade") != "false" and mode in {"", "nat", "nat-unprotected"}

    def kept_in(self, source: str) -> str:
        """Say why a container has no way to other networks; empty where it should have one."""
        return INTERNAL if source in self.inner else ""

    def internal(self, one: Container) -> bool:
        """Whether all its networks are internal."""
        held = [self.networks.get(end.network_id) for end in one.endpoints]
        return bool(held) and all(network is not None and network.internal for network in held)

    def published(self, one: Container, version: Version) -> bool:
        """Whether Docker promises that a published port is reached from outside."""
        return any(self.natted_in(end, version) for end in one.endpoints)

    def natted_in(self, end: Endpoint, version: int) -> bool:
        """Whether ports are published into a network by NAT."""
        network = self.networks.get(end.network_id)
        if network is None or network.internal:
            return False
        return network.option(f"gateway_mode_ipv{version}") in {"", "nat", "nat-unprotected"}


def listed(one: Container) -> str:
    """Name the network that a container is listed under: the default one, or the first by name."""
    return min((end.network for end in one.endpoints), key=lambda name: (name != "bridge", name), default="")


def shared(box: Box, target: Box) -> list[Place]:
    """Give the places of a container in networks that another one is in, too."""
    mine = {(place.end.network_id, place.version) for place in box.places}
    return [place for place in target.places if (place.end.network_id, place.version) in mine]


def valid(address: str) -> bool:
    """Whether a text is an address."""
    try:
        number(address)
    except ValueError:
        return False
    return True


def uplinks(site: Site) -> dict[int, str]:
    """Give an address of the host of each version that others know it by: one of a link that is no bridge."""
    found: dict[int, str] = {}
    for link in site.host.links.values():
        if link.kind == "bridge" or link.name == "lo" or link.master:
            continue
        for held in link.addresses:
            address = held.partition("/")[0]
            if not address.startswith("fe80"):
                found.setdefault(6 if ":" in address else 4, address)
    return found
