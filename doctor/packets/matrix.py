"""Who reaches whom on a host, which published port is reached from where, and what of it Docker promises."""

from __future__ import annotations

import string
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.facts.routes import Packet as Asked
from doctor.facts.sockets import ANY, Sockets
from doctor.model import Citation, Reach, ReachEnd, ReachFlow, ReachPort, ReachReason
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, spelled
from doctor.packets.flows import bits
from doctor.packets.goal import Goal
from doctor.packets.packet import Version, number, spell
from doctor.packets.pairs import Judgement, Pairs
from doctor.packets.site import HOST, Site
from doctor.packets.walk import STRANGERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.facts.containers import Port
    from doctor.facts.networks import Network

SCHEMA = "1"
"""Version of the JSON."""

PORTS = 16
"""Ports of one container that are judged: those it publishes, then those it listens on, the lowest first."""

WAY_OUT = 443
"""The port outside that stands for all of them."""

OTHERS: dict[Version, str] = {4: "93.184.215.14", 6: "2606:2800:21f:cb07::14"}
"""Strangers of ordinary ranges: many firewalls ban those for documentation (RFC 5737)."""

_VERSIONS: tuple[Version, ...] = (4, 6)

MEANT = {"RAW_DIRECT_ACCESS", "RAW_REMOTE_LOOPBACK", "ISOLATION", "INTERNAL_NET", "UNPUBLISHED_PORT", "ICC_DISABLED"}
"""Codes of rules that an engine writes to keep packets out."""

_DESIGN = {
    "RAW_DIRECT_ACCESS": "another network, by design",
    "ISOLATION": "another network, by design",
    "UNPUBLISHED_PORT": "another network, by design",
    "RAW_REMOTE_LOOPBACK": "for this host alone, by design",
    "INTERNAL_NET": "the network is internal, by design",
    "SRC_NO_ROUTE": "the network is internal, by design",
    "ICC_DISABLED": "icc of the network is off, by design",
}
_WHY = {
    "RAW_DIRECT_ACCESS": "a rule drops what comes by another way than its bridge",
    "RAW_REMOTE_LOOPBACK": "the port is for this host alone",
    "ISOLATION": "networks are isolated from each other",
    "INTERNAL_NET": "the network is internal",
    "UNPUBLISHED_PORT": "what is not published is dropped",
    "ICC_DISABLED": "a rule drops what containers of one network send each other",
    "DOCKER_USER_DROP": "a rule of DOCKER-USER stops it",
    "FORWARD_POLICY": "no rule takes it, and the policy is drop",
    "FORWARD_RULE": "a rule stops it",
    "OTHER_BASE_CHAIN": "a table beside Docker's stops it",
    "BRIDGE_FAMILY_DROP": "nftables stops it on the bridge",
    "NETDEV_DROP": "nftables stops it at a device",
    "LOCAL_FIREWALL": "the host's own firewall stops it",
    "SRC_FIREWALL": "a rule inside the container that it comes from stops it",
    "DST_FIREWALL": "a rule inside the container that it goes to stops it",
    "FORWARDING_OFF_GLOBAL": "the host does not forward packets",
    "FORWARDING_OFF_IFACE": "the host does not forward what comes in by that link",
    "RP_FILTER": "the kernel takes no packet whose sender it would answer by another link",
    "MARTIAN_SOURCE": "the kernel does not believe its source",
    "MARTIAN_LOCALNET": "the kernel takes no loopback address from a network",
    "DST_NO_LISTENER": "nobody listens there",
    "DST_LISTEN_ADDR": "what listens there does so on another address",
    "NEIGH_FAILED": "nobody has that address",
    "NEIGH_WRONG_MAC": "the neighbour table has somebody else for it",
    "REPLY_BYPASSES_HOST": "the answer goes past the host, whose NAT it needs",
    "REPLY_ASTRAY": "the answer leads elsewhere",
    "MASQ_MISSING": "its address is not masqueraded, and nobody outside knows a way back",
    "BR_NO_HAIRPIN": "a bridge sends nothing back by the port that it came from",
    "BR_PORT_ISOLATED": "both ports of the bridge are isolated",
    "BR_PORT_STATE": "a port of the bridge does not forward",
    "SRC_LINK_DOWN": "its link is down",
    "VETH_DOWN": "a link on the way is down",
    "BRIDGE_DOWN": "the bridge is down",
    "SRC_NO_ROUTE": "its namespace has no route there",
    "NO_SOURCE": "its link has no address",
    "NO_UPLINK": "the host has no route to the outside",
    "ROUTE_NONE": "the host has no route there",
    "ROUTE_BLACKHOLE": "a route of the host leads into a black hole",
    "ROUTE_UNREACHABLE": "a route of the host says that it is unreachable",
    "ROUTE_PROHIBIT": "a route of the host forbids it",
}
"""Why by code (`docs/packet-path.md`), for what Docker did not mean."""

_INTERNAL = "the network is internal, by design"
_UNMASKED = "not masqueraded, and answers are dropped, by design"
_PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}


class Known(Struct, frozen=True):
    """What a matrix is made of; None for what could not be read."""

    site: Site
    containers: Containers
    processes: Processes
    networks: Networks | None
    sockets: Sockets | None
    rules: EngineRules | None


class Wanted(Struct, frozen=True):
    """Which part of the matrix: names of containers, `host` or `outside`; empty for all."""

    source: str = ""
    target: str = ""


class _Place(Struct, frozen=True):
    """A container's address in a network, and the goals there."""

    end: Endpoint
    address: str
    version: Version
    goals: tuple[Goal, ...]
    strange: str
    """Why packets to it are not modelled; empty when they are."""


class _Box(Struct, frozen=True):
    """A container with a namespace of its own; `space` is its id, empty where it is not known."""

    one: Container
    space: str
    places: tuple[_Place, ...]
    unread: str


def matrix(known: Known, host: str, version: str, wanted: Wanted = Wanted()) -> Reach:  # noqa: B008 - it is frozen
    """Judge every pair that is wanted."""
    return _Matrix(known).made(host, version, wanted)


class _Matrix:
    """Judges, and collects the reasons."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.site = known.site
        unread = known.sockets.missing if known.sockets is not None else "not read"
        self.uplinks = _uplinks(known.site)
        self.pairs = Pairs(known.site, unread, {version: self.clients(version) for version in _VERSIONS})
        self.networks: dict[str, Network] = {one.id: one for one in known.networks.all} if known.networks else {}
        self.reasons = _Reasons()
        self.texts = _texts(known.rules)
        self.notes: list[str] = []
        self.boxes = self.read()
        self.senders = list({box.space: box for box in self.boxes if not box.unread}.values())
        self.inner = {box.one.name for box in self.boxes if self.internal(box.one)}
        self.outward: dict[int, bool] = {}

    # What there is

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

    def read(self) -> list[_Box]:
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
        return sorted(found, key=lambda box: (_listed(box.one), box.one.name))

    def box(self, one: Container) -> _Box:
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
            if _valid(address)
        )
        return _Box(one, space, places, unread)

    def place(self, one: Container, space: str, end: Endpoint, address: str) -> _Place:
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
        return _Place(end, address, version, tuple(found) or (ping,), strange)

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
        return _INTERNAL if source in self.inner else ""

    def internal(self, one: Container) -> bool:
        """Whether all its networks are internal."""
        held = [self.networks.get(end.network_id) for end in one.endpoints]
        return bool(held) and all(network is not None and network.internal for network in held)

    def leaves(self, version: Version) -> bool:
        """Whether the host itself has a way out."""
        if version not in self.outward:
            self.outward[version] = self.abroad(HOST, version)[0].state != "no"
        return self.outward[version]

    def abroad(self, space: str, version: Version) -> tuple[Judgement, Goal]:
        """Judge the way to somebody outside: a stranger of a range for documentation, or an ordinary one."""
        goals = [Goal(OUTSIDE, number(held[version]), WAY_OUT, version) for held in (STRANGERS, OTHERS)]
        found = [(self.pairs.judge(space, goals[0]), goals[0])]
        if found[0][0].state == "no":
            found.append((self.pairs.judge(space, goals[1]), goals[1]))
        return next((one for one in found if one[0].arrives), found[0])

    # Judging

    def answer(
        self,
        found: Judgement,
        promised: bool,  # noqa: FBT001
        source: str,
        target: str,
        design: str = "",
        count: int = 1,
    ) -> str:
        """Give the answer, and note its reason, and for how many flows."""
        if found.arrives:
            return found.state
        kind = "depends" if found.state == "depends" else "broken" if promised else "denied"
        why = _WHY.get(found.code, found.text or found.code) if kind != "depends" else ""
        if kind == "denied" and (design or self.meant(found)):
            kind, why = "design", design or _DESIGN.get(found.code, "by design")
        return self.reasons.letter(kind, found, why, source, target, count)

    def meant(self, found: Judgement) -> bool:
        """Whether the rule that denies is one that Docker writes to keep packets out."""
        if found.code not in MEANT or found.cited is None:
            return False
        return self.texts is None or found.cited.excerpt in self.texts

    def unknown(self, question: str, source: str, target: str) -> str:
        """Give the answer to what cannot be judged."""
        return self.reasons.letter("depends", Judgement("depends", question=question), "", source, target)

    def flows(self, wanted: Wanted) -> Iterator[ReachFlow]:
        """Judge every container from every other one, from the host and from outside; and the way out of each."""
        sources: list[_Box | None] = [*self.boxes, None]
        for box in sources:
            name = box.one.name if box is not None else HOST
            if wanted.source not in {"", name}:
                continue
            for target in self.boxes:
                if target is not box and wanted.target in {"", target.one.name}:
                    yield from self.toward(box, target)
            if wanted.target in {"", OUTSIDE}:
                yield from self.outside(box)
        if wanted.source == OUTSIDE:
            for target in self.boxes:
                if wanted.target in {"", target.one.name}:
                    yield from self.toward(None, target, OUTSIDE)

    def toward(self, box: _Box | None, target: _Box, space: str = HOST) -> Iterator[ReachFlow]:
        """Judge one container from another one: on the networks that they share, else on any of them."""
        source = box.one.name if box is not None else space
        place = box.space if box is not None else space
        name = target.one.name
        unread = (box.unread if box is not None else "") or target.unread
        if unread or not target.places:
            answer = self.unknown(unread or f"{name} has no address", source, name)
            yield ReachFlow(source, name, "", "", 0, "icmp", False, answer)  # noqa: FBT003
            return
        shared = _shared(box, target) if box is not None else []
        if shared:
            for end in shared:
                yield from self.at(source, place, target, end, promised=self.together(end.end))
            return
        mine = {place.version for place in box.places} if box is not None else set(_VERSIONS)
        ends = [end for end in target.places if end.version in mine] or list(target.places)
        strange = self.strange(box)
        if len(ends) > 1 and not strange:  # on one of several addresses is enough
            ends.sort(key=lambda end: -sum(self.pairs.judge(place, goal).arrives for goal in end.goals))
        yield from self.at(source, place, target, ends[0], promised=False, strange=strange)

    def strange(self, box: _Box | None) -> str:
        """Say why the way out of a container is not modelled: it may be by a network of another kind."""
        return next((place.strange for place in box.places if place.strange), "") if box is not None else ""

    def at(
        self, source: str, space: str, target: _Box, place: _Place, *, promised: bool, strange: str = ""
    ) -> Iterator[ReachFlow]:
        """Judge each port at an address of a container."""
        name = target.one.name
        design = self.kept_in(source)
        for goal in place.goals:
            example = f"{name}:{goal.dport}" if goal.dport else name
            if goal.protocol == UDP:
                example += "/udp"
            if place.strange or strange:
                answer = self.unknown(place.strange or strange, source, example)
            else:
                found = self.pairs.judge(space, goal)
                answer = self.answer(found, promised, source, example, design if found.code == "SRC_NO_ROUTE" else "")
            protocol = _PROTOCOLS[goal.protocol]
            yield ReachFlow(source, name, place.end.network, place.address, goal.dport, protocol, promised, answer)

    def outside(self, box: _Box | None) -> Iterator[ReachFlow]:
        """Judge the way out of a container, or of the host, by each version of IP that it has."""
        source = box.one.name if box is not None else HOST
        if box is not None and (box.unread or self.strange(box)):
            answer = self.unknown(box.unread or self.strange(box), source, OUTSIDE)
            yield ReachFlow(source, OUTSIDE, "", "", WAY_OUT, "tcp", False, answer)  # noqa: FBT003
            return
        held = {place.version for place in box.places} if box is not None else {4}
        versions: tuple[Version, ...] = (4,) if 4 in held else (6,)  # noqa: PLR2004 - IPv4
        for version in versions if held else ():
            promised = box is not None and self.out(box.one, version) and self.leaves(version)
            found, goal = self.abroad(box.space if box is not None else HOST, version)
            design = _INTERNAL if box is not None and self.internal(box.one) else ""
            if found.code == "RAW_DIRECT_ACCESS" and self.meant(found):
                design = _UNMASKED
            answer = self.answer(found, promised, source, spelled(goal.dst, WAY_OUT, version), design)
            yield ReachFlow(source, OUTSIDE, "", spell(goal.dst, version), WAY_OUT, "tcp", promised, answer)

    def ports_of(self, wanted: Wanted) -> Iterator[ReachPort]:
        """Judge every published port from outside, from the host, and from the containers."""
        if wanted.source not in {"", OUTSIDE}:
            return
        for box in self.boxes:
            if wanted.target not in {"", box.one.name}:
                continue
            for port in box.one.ports:
                found = self.port(box, port)
                if found is not None:
                    yield found

    def port(self, box: _Box, port: Port) -> ReachPort | None:
        """Judge one published port; None where this host has no address that it could be reached at."""
        version: Version = 6 if ":" in port.host_ip else 4
        own = _valid(port.host_ip) and port.host_ip not in ANY
        alone = own and self.site.host.loops(number(port.host_ip), version)
        address = port.host_ip if own else self.uplinks.get(version, "")
        if not address or (version == 6 and not own and not any(end.address6 for end in box.one.endpoints)):  # noqa: PLR2004 - IPv6
            return None
        name = box.one.name
        behind = self.behind(box, port, version)
        protocol = UDP if port.protocol == "udp" else TCP
        if box.unread or behind is None or port.protocol not in {"tcp", "udp"}:
            why = box.unread or f"where {port.host}/{port.protocol} of {name} leads to"
            answer = self.unknown(why, OUTSIDE, f"host:{port.host}")
            what = (name, port.host_ip, port.host, port.protocol, port.container)
            return ReachPort(*what, promised=False, outside=answer, host=answer, itself=answer, containers={})
        goal = Goal(box.space, number(address), port.host, version, protocol, behind)
        near = goal if own or version == 6 else structs.replace(goal, dst=number("127.0.0.1"))  # noqa: PLR2004 - IPv6
        target = self.spelled(goal)
        promised = not alone and self.published(box.one, version)
        outside = "-" if alone else self.answer(self.pairs.judge(OUTSIDE, goal), promised, OUTSIDE, target)
        host = self.answer(self.pairs.judge(HOST, near), False, HOST, self.spelled(near))  # noqa: FBT003
        inner: Counter[str] = Counter()
        itself = "-"
        for mask, judged in self.senders_of(goal, box) if not alone else ():
            first = self.senders[next(bits(mask))]
            design = self.kept_in(first.one.name) if judged.code == "SRC_NO_ROUTE" else ""
            answer = self.answer(judged, False, first.one.name, target, design, mask.bit_count())  # noqa: FBT003
            if first.space == box.space:
                itself = answer
            else:
                inner[answer] += mask.bit_count()
        return ReachPort(
            *(name, port.host_ip, port.host, port.protocol, port.container, promised),
            *(outside, host, itself, dict(sorted(inner.items()))),
        )

    def senders_of(self, goal: Goal, box: _Box) -> list[tuple[int, Judgement]]:
        """Judge a published port from all containers: sets of those that have one answer, in the order of their first."""
        kept = sum(1 << at for at, other in enumerate(self.senders) if other.one.name in self.inner)
        found = []
        for mask, judged in self.pairs.column(goal):
            # Who has no way out is kept in by design or not: that is not the same to all of them.
            parts = (mask & kept, mask & ~kept) if judged.code == "SRC_NO_ROUTE" else (mask,)
            found += [(part, judged) for part in parts if part]
        own = next((1 << at for at, other in enumerate(self.senders) if other.space == box.space), 0)
        found.append((own, self.pairs.judge(box.space, goal)))
        return sorted(found, key=lambda held: held[0] & -held[0])

    def spelled(self, goal: Goal) -> str:
        """Spell a port of the host as `doctor trace` takes it."""
        usual = goal.dst == number("127.0.0.1") or goal.dst == number(self.uplinks.get(4, "0.0.0.0"))  # noqa: S104 - no address
        text = f"{HOST}:{goal.dport}" if usual else spelled(goal.dst, goal.dport, goal.version)
        return text + ("/udp" if goal.protocol == UDP else "")

    def behind(self, box: _Box, port: Port, version: Version) -> tuple[int, int] | None:
        """Give where a published port leads to: the container's address in the network that it leaves by."""
        held = [end for end in box.one.endpoints if _valid(end.address6 if version == 6 else end.address)]  # noqa: PLR2004 - IPv6
        held.sort(key=lambda end: (not self.natted(end, version), -end.priority, end.network))
        for rule in self.site.proxies.get((port.protocol, port.host), ()):
            if _valid(rule.container_ip) and (":" in rule.container_ip) == (version == 6):  # noqa: PLR2004 - IPv6
                return number(rule.container_ip), port.container
        if not held:
            return None
        return number(held[0].address6 if version == 6 else held[0].address), port.container  # noqa: PLR2004 - IPv6

    def published(self, one: Container, version: Version) -> bool:
        """Whether Docker promises that a published port is reached from outside."""
        return any(self.natted_in(end, version) for end in one.endpoints)

    def natted_in(self, end: Endpoint, version: int) -> bool:
        """Whether ports are published into a network by NAT."""
        network = self.networks.get(end.network_id)
        if network is None or network.internal:
            return False
        return network.option(f"gateway_mode_ipv{version}") in {"", "nat", "nat-unprotected"}

    # The result

    def made(self, host: str, version: str, wanted: Wanted) -> Reach:
        """Judge what is wanted."""
        if wanted.source in {"", OUTSIDE}:
            goals = (goal for box in self.boxes for place in box.places for goal in place.goals)
            self.pairs.expect((box.space for box in self.senders), goals)
        flows = tuple(self.flows(wanted))
        ports = tuple(self.ports_of(wanted))
        unread = []
        if self.known.networks is None:
            unread.append("the networks: what Docker promises is not judged")
        if self.site.host.missing:
            unread.append(self.site.host.missing)
        reasons = self.reasons.all()
        kinds = {one.letter: one.kind for one in reasons}
        answers = [one.answer for one in flows] + [one.outside for one in ports] + [one.host for one in ports]
        told = Counter(kinds.get(one, "") for one in answers)
        program = self.site.host.program
        coverage = ""
        if program.partial:
            coverage = f"{program.rules - program.partial} of {program.rules} rules of this host are modelled whole"
        return Reach(
            schema=SCHEMA,
            doctor=version,
            host=host,
            asked=(wanted.source, wanted.target),
            ends=tuple(self.ends()),
            flows=flows,
            ports=ports,
            reasons=reasons,
            notes=tuple(self.notes),
            unread=tuple(unread),
            broken=told["broken"],
            depends=told["depends"],
            coverage=coverage,
        )

    def ends(self) -> Iterator[ReachEnd]:
        """List the containers, with those that live in the namespace of another one."""
        guests: dict[str, list[str]] = {}
        for one in self.known.containers.running:
            mode, _, whose = one.network_mode.partition(":")
            if mode == "container":
                guests.setdefault(whose, []).append(one.name)
        for box in self.boxes:
            one = box.one
            yield ReachEnd(
                one.name,
                tuple(sorted((end.network for end in one.endpoints), key=lambda name: (name != _listed(one), name))),
                tuple(place.address for place in box.places),
                tuple(name for key in (one.id, one.engine_name) for name in guests.get(key, ())),
            )


class _Reason(Struct):
    kind: str
    code: str
    why: str
    cited: Citation | None
    question: str
    source: str
    target: str
    places: dict[str, None]
    flows: int = 0


class _Reasons:
    """The reasons so far, each with its letter."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, ...], _Reason] = {}
        self.letters: dict[tuple[str, ...], str] = {}

    def letter(self, kind: str, found: Judgement, why: str, source: str, target: str, count: int = 1) -> str:
        """Give the letter of a reason; one that is new gets the next."""
        place = found.cited.place if found.cited is not None else ""
        rule = found.cited is not None and found.cited.record.startswith(("net/ip", "net/nft"))
        chain = place.rpartition(" ")[0] if rule and place.rpartition(" ")[2].isdecimal() else ""
        key = (kind, why, *(("", "") if kind == "design" else (found.code, chain)), found.question)
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = _Reason(kind, found.code, why, found.cited, found.question, source, target, {})
            depends = sum(one.kind == "depends" for one in self.held.values())
            if kind == "depends":
                self.letters[key] = "?" if depends == 1 else f"?{depends}"
            else:
                self.letters[key] = _letter(len(self.held) - depends - 1)
        held.flows += count
        if rule:
            held.places[place] = None
        return self.letters[key]

    def all(self) -> tuple[ReachReason, ...]:
        """Give all of them."""
        return tuple(
            ReachReason(
                *(self.letters[key], one.kind, one.code, one.why, tuple(one.places), one.cited, one.question),
                *(one.source, one.target, one.flows),
            )
            for key, one in self.held.items()
        )


def _letter(at: int) -> str:
    """Give A to Z, then A2 and so on.

    >>> _letter(0), _letter(25), _letter(26)
    ('A', 'Z', 'A2')
    """
    more, at = divmod(at, 26)
    return string.ascii_uppercase[at] + (str(more + 1) if more else "")


def _listed(one: Container) -> str:
    """Name the network that a container is listed under: the default one, or the first by name."""
    return min((end.network for end in one.endpoints), key=lambda name: (name != "bridge", name), default="")


def _shared(box: _Box, target: _Box) -> list[_Place]:
    mine = {(place.end.network_id, place.version) for place in box.places}
    return [place for place in target.places if (place.end.network_id, place.version) in mine]


def _valid(address: str) -> bool:
    try:
        number(address)
    except ValueError:
        return False
    return True


def _uplinks(site: Site) -> dict[int, str]:
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


def _texts(rules: EngineRules | None) -> frozenset[str] | None:
    if rules is None or not rules.families:
        return None
    return frozenset(rule.text for one in rules.families for held in one.expected.chains.values() for rule in held)
