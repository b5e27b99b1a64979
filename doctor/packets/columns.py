"""Who reaches one goal, for all who may send to it at once: a walk is made once, and the others are led along it by masks.

What a packet meets between two containers on its host is the same for all pairs that lie alike: one link each, a port of
a bridge each, the way by their gateway or across one bridge. Only rules tell them apart. So the base chains that one walk
met are run for all senders together (`masks`); who is dropped is judged, who passes goes on to the next, and when the
walk was dropped before that, another one is made from there. What is not so plain (NAT, marks, rejects, two networks,
what nobody knows) is left to a walk of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field, structs

from doctor.facts.routes import Packet as Asked
from doctor.packets.evaluate import Hit
from doctor.packets.masks import Crowd, Masks, Sender, Senders
from doctor.packets.packet import Packet, Tuple, Version, number, spell
from doctor.packets.program import Base
from doctor.packets.site import HOST, addresses
from doctor.packets.stack import ICMP, ICMP6, TCP, Flow, Step, code_of
from doctor.packets.walk import CLIENT_PORT, follow

if TYPE_CHECKING:
    from doctor.facts.links import Link
    from doctor.packets.alike import Classes
    from doctor.packets.pairs import Goal
    from doctor.packets.site import Site, Space

_BITS: dict[Version, int] = {4: 32, 6: 128}

Relation = Literal["bridged", "routed"]


class Leg(Struct, frozen=True):
    """The one link of a namespace: its address, the bridge and port on its other end, and its network, first to last.

    `alike` is all that a walk asks of it beside rules; names and addresses of its own are left out.
    """

    address: int
    bridge: str
    port: str
    first: int
    last: int
    alike: Hashable

    def near(self, address: int) -> bool:
        """Whether an address lies in its own network."""
        return self.first <= address <= self.last


class Call(Struct, frozen=True):
    """A base chain that a walk met, and the packet as it came there; `roles` are the fields that are the sender's own."""

    base: Base
    packet: Packet
    back: bool
    roles: dict[str, int]
    goals: dict[str, int]


class Line(Struct):
    """The calls of a walk, in order. `code` is how it ended where nothing dropped it: empty for yes; None: not known yet.

    `broken` says that those who came as far as this have to be walked for themselves.
    """

    calls: list[Call] = field(default_factory=list)
    end: str | None = None
    broken: bool = False


class Judged(Struct):
    """Whom one goal is reached by: `dropped` by which rule, `ended` as lines end; `alone` are to be walked."""

    dropped: list[tuple[int, Hit]] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)
    alone: int = 0


_Side = tuple[Senders, dict["Hashable", int], dict[tuple[int, int], int]]
"""Senders of one version: their bits, sets of those that lie alike, and of those in one network."""


class Columns:
    """Judges one goal after the other for a number of senders; `walks` counts what was walked for it."""

    def __init__(self, site: Site, classes: Classes, senders: list[str]) -> None:
        """Take the namespaces that may send; those that are not plain are never judged here."""
        self.site = site
        self.classes = classes
        self.keys = senders
        self.walks = 0
        self.masks = Masks(site.host.program)
        self.lines: dict[Hashable, Line] = {}
        self.legs: dict[tuple[str, Version], Leg | None] = {}
        self.bridges: dict[str, Hashable] = {}
        self.settings = self.sorted_settings()
        self.usable = self.is_usable()
        self.sides: dict[Version, _Side] = {}

    def is_usable(self) -> bool:
        """Whether the host is one whose packets between containers are told apart by rules of IP alone."""
        host = self.site.host
        below = any(base.chain.family in {"bridge", "netdev"} for base in host.program.bases)
        return not (host.missing or below or host.routing.special)

    def sorted_settings(self) -> dict[str, list[tuple[str, str]]]:
        """Give the settings of each device of the host."""
        found: dict[str, list[tuple[str, str]]] = {}
        for path, value in self.site.host.sysctls.items():
            family, _, rest = path.partition("/conf/")
            device, _, name = rest.rpartition("/")
            if device:
                found.setdefault(device, []).append((f"{family} {name}", value.value))
        return {device: sorted(held) for device, held in found.items()}

    # How ends lie

    def leg(self, key: str, version: Version) -> Leg | None:
        """Describe a namespace with one link; None for what is not so plain."""
        if (key, version) not in self.legs:
            self.legs[key, version] = self.described(key, version)
        return self.legs[key, version]

    def described(self, key: str, version: Version) -> Leg | None:
        """Describe a namespace with one link."""
        space = self.site.spaces.get(key)
        if space is None or key == HOST or space.routing.special or self.classes.shape(key) == key:
            return None
        links = [link for link in space.links.values() if link.name != "lo"]
        held = addresses(links[0], version) if len(links) == 1 else []
        peer = self.site.peers.get((key, links[0].name)) if len(held) == 1 else None
        if peer is None or peer[0] != HOST:
            return None
        address = held[0]
        port = self.site.host.links[peer[1]]
        bridge = self.site.host.links.get(port.master)
        network = _network(links[0], version)
        if bridge is None or network is None or not self.owned(address, version, port.master):
            return None
        routes = self.routes(space, links[0].name, version, (address, *network), bridge)
        if routes is None:
            return None
        alike = (
            (links[0].up, links[0].kind, port.up, port.port_state, port.hairpin, port.isolated, len(space.links)),
            (routes, self.bridge(bridge), version),
        )
        return Leg(address, bridge.name, port.name, *network, alike)

    def owned(self, address: int, version: Version, bridge: str) -> bool:
        """Whether an address is one namespace's alone, and the host's way to it is by its bridge."""
        host = self.site.host
        alone = len(self.classes.owners.get((version, address), ())) == 1 and address not in self.classes.fixed
        if not alone or host.holds(address, version):
            return False
        route = host.routing.find(Asked(spell(address, version))).route
        return route is not None and (route.type, route.dev, route.gateway) == ("unicast", bridge, "")

    def bridge(self, bridge: Link) -> Hashable:
        """Describe a bridge with its name and addresses left out."""
        held = self.bridges.get(bridge.name)
        if held is None:
            settings = tuple(self.settings.get(bridge.name, ()))
            held = self.bridges[bridge.name] = (bridge.up, bridge.kind, bridge.filters, settings)
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
                        gate = self.gateway(route.gateway, version, bridge) if route.gateway else ""
                        if gate is None or route.dev != link or (whole and not gate) or (gate and not whole):
                            return None
                        source = number(route.source) == address if route.source else None
                        found.append((name, whole, route.type, gate, source, route.metric, route.dead))
        return tuple(found)

    def gateway(self, text: str, version: Version, bridge: Link) -> str | None:
        """Say that a gateway is an address of the host's on a bridge; None where it is not that alone."""
        try:
            value = number(text)
        except ValueError:
            return None
        own = value in addresses(bridge, version) and self.classes.owners.get((version, value)) == [HOST]
        return "its bridge" if own and self.site.host.holds(value, version) else None

    def senders(self, version: Version) -> _Side:
        """Number the senders of a version of IP, and give who lies alike, and who is in a network; only of plain ones."""
        held = self.sides.get(version)
        if held is None:
            legs = [self.leg(key, version) for key in self.keys]
            all_ = [Sender(leg.address, leg.bridge, leg.port) if leg else Sender(-1, "", "") for leg in legs]
            groups: dict[Hashable, int] = {}
            networks: dict[tuple[int, int], int] = {}
            for at, leg in enumerate(legs):
                if leg is not None:
                    groups[leg.alike] = groups.get(leg.alike, 0) | 1 << at
                    net = leg.first, leg.last
                    networks[net] = networks.get(net, 0) | 1 << at
            held = self.sides[version] = Senders(all_), groups, networks
        return held

    # Judging

    def judge(self, goal: Goal, wanted: int, listens: Hashable) -> Judged:
        """Judge a goal in a container for the senders that are wanted."""
        leg = self.leg(goal.where, goal.version) if self.usable and goal.behind is None else None
        if leg is None or goal.dst != leg.address or goal.protocol not in {TCP, ICMP, ICMP6}:
            return Judged(alone=wanted)
        senders, groups, networks = self.senders(goal.version)
        judged = Judged(alone=wanted)
        same = senders.by[1].get(leg.bridge, 0)
        into = senders.within(((leg.first, leg.last),))
        near = 0
        for (first, last), mask in networks.items():
            near |= mask if first <= leg.address <= last else 0
        what = (leg.alike, goal.protocol, not goal.dport, goal.dport == CLIENT_PORT, listens)
        for alike, group in groups.items():
            sides: tuple[tuple[Relation, int], ...] = (
                ("bridged", same & into & near),
                ("routed", ~same & ~into & ~near),
            )
            for relation, mask in sides:
                here = group & mask & wanted
                if here:
                    judged.alone &= ~here
                    line = self.lines.setdefault((relation, alike, what), Line())
                    self.along(line, goal, leg, (senders, here), judged)
        return judged

    def along(self, line: Line, goal: Goal, leg: Leg, crowd: tuple[Senders, int], judged: Judged) -> None:
        """Lead senders along a line, and make it longer where it ends before they do."""
        senders, rest = crowd
        at = 0
        while rest:
            if at < len(line.calls):
                call = line.calls[at]
                first = senders.all[(rest & -rest).bit_length() - 1]
                outcome = self.masks.base(call.base, self.crowd(call, goal, leg, senders, first), rest)
                judged.dropped += outcome.dropped
                judged.alone |= outcome.alone
                rest = outcome.passed
                at += 1
            elif line.end is not None and not line.broken:
                judged.ended.append((rest, line.end))
                return
            elif line.broken or not self.longer(line, goal, leg, senders, rest):
                line.broken = True
                judged.alone |= rest
                return

    def crowd(self, call: Call, goal: Goal, leg: Leg, senders: Senders, first: Sender) -> Crowd:
        """Give the packets of a call as they are for another goal; `first` stands for all senders."""
        packet = structs.replace(call.packet)
        if call.back:
            packet.src, packet.sport, packet.dst = leg.address, goal.dport, first.address
        else:
            packet.dst, packet.dport, packet.src = leg.address, goal.dport, first.address
        for name, role in call.goals.items():
            setattr(packet, name, leg.bridge if role == 1 else leg.port)
        for name, role in call.roles.items():
            if role and name in {"iif", "oif", "physin", "physout"}:
                setattr(packet, name, first[role])
        if packet.original is not None:
            packet.original = Tuple(first.address, packet.original.sport, leg.address, goal.dport)
        return Crowd(packet, call.roles, senders, self.site.host)

    def longer(self, line: Line, goal: Goal, leg: Leg, senders: Senders, rest: int) -> bool:
        """Walk for one of those who came to the end of a line; says whether that led on."""
        bit = rest & -rest
        at = bit.bit_length() - 1
        sender = senders.all[at]
        met: list[tuple[Base, Packet]] = []
        self.walks += 1
        walk = follow(self.site, Flow(self.keys[at], goal.dst, goal.dport, goal.version, goal.protocol), met).walk
        calls: list[Call] = []
        passed = True
        for base, packet in met:
            call = _call(base, packet, sender, leg, goal)
            if call is None:  # it is another packet now
                break
            calls.append(call)
            crowd = self.crowd(call, goal, leg, senders, sender)
            passed = bool(self.masks.base(base, crowd, bit).passed)
            if not passed:
                break
        if len(calls) < len(line.calls) or not all(map(_same, line.calls, calls)):
            return False
        longer = len(calls) > len(line.calls)
        line.calls = calls
        if not passed:
            return longer
        if len(calls) < len(met) or walk.asked or walk.proxied is not None:
            line.broken = True
        elif walk.works:
            line.end = ""
        elif walk.end.outcome == "refused" and walk.sees == "refused" and goal.protocol == TCP:
            line.end = walk.end.code
        else:
            line.broken = True
        return True

    def told(self, hit: Hit, goal: Goal) -> tuple[str, str]:
        """Give the code of a drop, and its words."""
        text = hit.cited.excerpt or hit.chain.name
        return code_of(hit, self.site.host, Flow("", goal.dst, goal.dport), Step(HOST, hit.chain.table, text)), text


def _same(old: Call, new: Call) -> bool:
    """Whether two walks met one chain in one way."""
    return (old.base is new.base, old.back, old.roles, old.goals) == (True, new.back, new.roles, new.goals)


def _call(base: Base, packet: Packet, sender: Sender, leg: Leg, goal: Goal) -> Call | None:
    """Say which fields of a packet are whose; None where it has what is neither's."""
    ends = (sender.address, leg.address)
    back = (packet.dst, packet.src) == ends
    if not back and (packet.src, packet.dst) != ends:
        return None
    near, far = (packet.sport, packet.dport) if not back else (packet.dport, packet.sport)
    client = CLIENT_PORT if goal.dport else 0
    if (near, far) != (client, goal.dport):
        return None
    roles: dict[str, int] = {"dst" if back else "src": 0}
    goals: dict[str, int] = {}
    for name in ("iif", "oif", "physin", "physout"):
        value = getattr(packet, name)
        mine = (sender.bridge, sender.port).index(value) + 1 if value in {sender.bridge, sender.port} else 0
        its = (leg.bridge, leg.port).index(value) + 1 if value in {leg.bridge, leg.port} else 0
        if its:
            goals[name] = its
        elif mine:
            roles[name] = mine
        elif value:
            return None
    if packet.original is not None:
        if packet.original != Tuple(sender.address, client, leg.address, goal.dport):
            return None
        roles["original.src"] = 0
    return Call(base, packet, back, roles, goals)


def _network(link: Link, version: Version) -> tuple[int, int] | None:
    """Give the first and last address of a link's network."""
    for held in link.addresses:
        address, _, length = held.partition("/")
        if (":" in address) == (version == 6) and not address.startswith("fe80"):  # noqa: PLR2004 - IPv6
            try:
                value, spare = number(address), _BITS[version] - int(length)
            except ValueError:
                return None
            first = value >> spare << spare
            return first, first + (1 << spare) - 1
    return None
