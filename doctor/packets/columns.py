"""Who reaches many goals, for all who may send to them at once: a walk is made once, and all others are led along it.

What a packet meets between two containers on its host is the same for all pairs that lie alike: one link each, a port of
a bridge each, the way by their gateway or across one bridge. Only rules tell them apart. So the base chains that one walk
met are run for all flows of a kind together (`masks`); who is dropped is judged, who passes goes on to the next, and when
the walk was dropped before that, another one is made from there. What is not so plain (NAT, marks, rejects, two networks,
what nobody knows) is left to a walk of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from doctor.packets.alike import listening
from doctor.packets.evaluate import Hit
from doctor.packets.flow import ICMP, ICMP6, TCP, Flow, Step, code_of
from doctor.packets.flows import Ends, Flows, Side, What, add, bits
from doctor.packets.masks import Crowd, Masks
from doctor.packets.packet import Packet, Tuple, Version
from doctor.packets.program import Base
from doctor.packets.site import HOST
from doctor.packets.walk import CLIENT_PORT, follow

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from doctor.packets.legs import Leg, Legs
    from doctor.packets.pairs import Goal
    from doctor.packets.site import Site

_DEVICES = ("iif", "oif", "physin", "physout")


class Call(Struct, frozen=True):
    """A base chain that a walk met, the packet as it came there, and whose its fields are."""

    base: Base
    packet: Packet
    roles: dict[str, tuple[Side, What]]


class Line(Struct):
    """The calls of a walk, in order. `end` is how it ended where nothing dropped it: empty for yes; None: not known yet.

    `broken` says that those who came as far as this have to be walked for themselves.
    """

    calls: list[Call] = field(default_factory=list)
    end: str | None = None
    broken: bool = False


class Judged(Struct):
    """By whom one goal is reached: `dropped` by which rule, and `ended` as lines end; who is in neither is to be walked."""

    dropped: list[tuple[int, Hit]] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)


class Columns:
    """Judges goals for senders, all of one version of IP at once; `walks` counts what was walked for it."""

    def __init__(self, site: Site, legs: Legs, senders: Sequence[str], goals: Sequence[Goal]) -> None:
        """Take the namespaces that may send, and what they may send to."""
        self.site = site
        self.legs = legs
        self.keys = senders
        self.walks = 0
        self.codes: dict[Hashable, tuple[str, str]] = {}
        self.judged: dict[Goal, Judged] = {}
        host = site.host
        below = any(base.chain.family in {"bridge", "netdev"} for base in host.program.bases)
        # The host is one whose packets between containers are told apart by rules of IP alone.
        usable = not (host.missing or below or host.routing.special)
        versions: tuple[Version, ...] = (4, 6)
        for version in versions if usable else ():
            mine = [goal for goal in goals if goal.version == version and goal.behind is None]
            plain = [(goal, leg) for goal in mine if (leg := legs.of(goal.where, version)) and leg.address == goal.dst]
            if plain:
                self.judged.update(_Table(self, version, plain).judge())

    def told(self, hit: Hit, goal: Goal) -> tuple[str, str]:
        """Give the code of a drop, and its words."""
        key = hit.chain.key, hit.cited
        found = self.codes.get(key)
        if found is None:
            text = hit.cited.excerpt or hit.chain.name
            step = Step(HOST, hit.chain.table, text)
            found = self.codes[key] = code_of(hit, self.site.host, Flow("", goal.dst, goal.dport), step), text
        return found


class _Table:
    """All flows of one version between plain ends."""

    def __init__(self, columns: Columns, version: Version, goals: list[tuple[Goal, Leg]]) -> None:
        """Number the ends."""
        self.columns = columns
        self.site = columns.site
        self.goals = goals
        self.judged = [Judged() for _ in goals]
        self.senders = [columns.legs.of(key, version) for key in columns.keys]
        self.sending, self.meant = Ends(), Ends()
        self.networks: dict[int, dict[int, int]] = {}
        self.nearby: dict[int, int] = {}
        numbers = {key: at for at, key in enumerate(columns.keys)}
        self.own = [1 << numbers[goal.where] if goal.where in numbers else 0 for goal, _ in goals]
        for at, leg in enumerate(self.senders):
            if leg is not None:
                self.sending.put(at, address=leg.address, bridge=leg.bridge, port=leg.port)
                size = leg.last - leg.first + 1
                held = self.networks.setdefault(size, {})
                held[leg.first // size] = held.get(leg.first // size, 0) | 1 << at
        for at, (goal, leg) in enumerate(goals):
            self.meant.put(at, address=leg.address, bridge=leg.bridge, port=leg.port, number=goal.dport)
        mine: dict[int, int] = {}
        for at, bit in enumerate(self.own):
            mine[bit] = mine.get(bit, 0) | 1 << at
        self.masks = Masks(self.site.host.program, self.sending, self.meant, mine)

    def judge(self) -> Iterator[tuple[Goal, Judged]]:
        """Judge all of them, one kind of flow after the other, and give what is known of each goal."""
        alike: dict[Hashable, int] = {}
        for at, leg in enumerate(self.senders):
            if leg is not None:
                alike[leg.alike] = alike.get(leg.alike, 0) | 1 << at
        kinds: dict[Hashable, dict[tuple[str, int, int, int], int]] = {}
        for at, (goal, leg) in enumerate(self.goals):
            if goal.protocol in {TCP, ICMP, ICMP6}:
                kind = (leg.alike, goal.protocol, not goal.dport, goal.dport == CLIENT_PORT, listening(self.site, goal))
                where = leg.bridge, leg.first, leg.last, self.near(leg.address)
                held = kinds.setdefault(kind, {})
                held[where] = held.get(where, 0) | 1 << at
        for mask in alike.values():
            for held in kinds.values():
                bridged: Flows = {}
                routed: Flows = {}
                for (bridge, first, last, near), goals in held.items():
                    same = self.sending.by["bridge"].get(bridge, 0)
                    into = self.sending.within("address", ((first, last),))
                    for flows, whose in ((bridged, same & into & near), (routed, ~same & ~into & ~near)):
                        if whose & mask:
                            add(flows, whose & mask, goals)
                self.along(bridged)
                self.along(routed)
        return ((goal, judged) for (goal, _), judged in zip(self.goals, self.judged, strict=True))

    def near(self, address: int) -> int:
        """Give the senders in whose network an address lies."""
        found = self.nearby.get(address)
        if found is None:
            found = 0
            for size, held in self.networks.items():
                found |= held.get(address // size, 0)
            self.nearby[address] = found
        return found

    def along(self, rest: Flows) -> None:
        """Lead flows along a line, and make it longer where it ends before they do."""
        line = Line()
        at = 0
        while rest:
            if at < len(line.calls):
                call = line.calls[at]
                outcome = self.masks.base(call.base, Crowd(call.packet, call.roles, self.site.host), rest)
                for senders, goals, hit in outcome.dropped:
                    for one in bits(goals):
                        self.judged[one].dropped.append((senders, hit))
                rest = outcome.passed
                at += 1
            elif line.end is not None and not line.broken:
                for senders, goals in rest.items():
                    for one in bits(goals):
                        self.judged[one].ended.append((senders, line.end))
                return
            elif line.broken or not self.longer(line, rest):
                return

    def longer(self, line: Line, rest: Flows) -> bool:
        """Walk for one of those who came to the end of a line; says whether that led on."""
        found = self.one(rest)
        if found is None:
            return False
        at, of = found
        (goal, leg), sender = self.goals[of], self.senders[at]
        if sender is None:
            return False
        met: list[tuple[Base, Packet]] = []
        self.columns.walks += 1
        flow = Flow(self.columns.keys[at], goal.dst, goal.dport, goal.version, goal.protocol)
        walk = follow(self.site, flow, met).walk
        calls: list[Call] = []
        passed = True
        for base, packet in met:
            call = _call(base, packet, sender, leg, goal)
            if call is None:  # it is another packet now
                break
            calls.append(call)
            passed = bool(self.masks.base(base, Crowd(packet, call.roles, self.site.host), {1 << at: 1 << of}).passed)
            if not passed:
                break
        if len(calls) < len(line.calls) or not all(map(_same, line.calls, calls)):
            return False
        longer = len(calls) > len(line.calls)
        line.calls += calls[len(line.calls) :]
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

    def one(self, rest: Flows) -> tuple[int, int] | None:
        """Give sender and goal of one flow; None where all are those of somebody to himself."""
        for senders, goals in rest.items():
            for of in bits(goals):
                others = senders & ~self.own[of]
                if others:
                    return next(bits(others)), of
        return None


def _same(old: Call, new: Call) -> bool:
    """Whether two walks met one chain in one way."""
    return (old.base is new.base, old.roles) == (True, new.roles)


def _call(base: Base, packet: Packet, sender: Leg, leg: Leg, goal: Goal) -> Call | None:
    """Say which fields of a packet are whose; None where it has what is neither's."""
    ends = (sender.address, leg.address)
    back = (packet.dst, packet.src) == ends
    if not back and (packet.src, packet.dst) != ends:
        return None
    near, far = (packet.sport, packet.dport) if not back else (packet.dport, packet.sport)
    client = CLIENT_PORT if goal.dport else 0
    if (near, far) != (client, goal.dport):
        return None
    roles: dict[str, tuple[Side, What]] = {
        "dst" if back else "src": ("sender", "address"),
        "src" if back else "dst": ("goal", "address"),
        "sport" if back else "dport": ("goal", "number"),
    }
    for name in _DEVICES:
        value = getattr(packet, name)
        if value == leg.bridge:
            roles[name] = ("goal", "bridge")
        elif value == leg.port:
            roles[name] = ("goal", "port")
        elif value == sender.bridge:
            roles[name] = ("sender", "bridge")
        elif value == sender.port:
            roles[name] = ("sender", "port")
        elif value:
            return None
    if packet.original is not None:
        if packet.original != Tuple(sender.address, client, leg.address, goal.dport):
            return None
        roles["original.src"] = ("sender", "address")
        roles["original.dst"] = ("goal", "address")
        roles["original.dport"] = ("goal", "number")
    return Call(base, packet, roles)
