"""Who reaches many goals, for all who may send to them at once: a walk is made once, and all others are led along it.

What a packet meets between two containers on its host is the same for all pairs that lie alike: one link each, a port of
a bridge each, the way by their gateway or across one bridge. Only rules tell them apart. So the base chains that one walk
met are run for all flows of a kind together (`masks`); who is dropped is judged, who passes goes on to the next, and when
the walk was dropped before that, another one is made from there. A published port that NAT leads where it should, and a
masqueraded way out, are such walks as well, that branch off where NAT is. What is not so plain (other NAT, marks, rejects,
two networks, what nobody knows) is left to a walk of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from doctor.packets.alike import listening
from doctor.packets.evaluate import Hit
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, Flow, Step, code_of
from doctor.packets.flows import Ends, Flows, Side, What, add, bits
from doctor.packets.goal import End, Goal
from doctor.packets.legs import outside
from doctor.packets.masks import ALL, Crowd, Masks
from doctor.packets.packet import Packet, Tuple, Version
from doctor.packets.program import Base
from doctor.packets.site import HOST
from doctor.packets.walk import CLIENT_PORT, follow

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from doctor.packets.legs import Leg, Legs
    from doctor.packets.masks import Outcome
    from doctor.packets.site import Site
    from doctor.packets.walk import Walk

_DEVICES = ("iif", "oif", "physin", "physout")


class Call(Struct, frozen=True):
    """A base chain that a walk met, the packet as it came there, and whose its fields are."""

    base: Base
    packet: Packet
    roles: dict[str, tuple[Side, What]]


Turn = Literal["", "in", "out"]
"""What NAT does in a chain: nothing, lead to what is behind a published port, masquerade."""


class Line(Struct):
    """The calls of a walk, in order, and what NAT did in each.

    `end` is how it ended where nothing dropped it: empty for yes; None: not known yet. `broken` says that those who came
    as far as this have to be walked for themselves.
    """

    calls: list[Call] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    end: str | None = None
    broken: bool = False


class Wanted(Struct, frozen=True):
    """Goals that senders may ask about, who is outside only if he is `outer`, and `ports` that he alone may ask about."""

    goals: tuple[Goal, ...]
    ports: tuple[Goal, ...] = ()
    outer: bool = True


class Judged(Struct):
    """By whom one goal is reached: `dropped` by which rule, and `ended` as lines end; who is in neither is to be walked."""

    dropped: list[tuple[int, Hit]] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)


class Columns:
    """Judges goals for senders, all of one version of IP at once; `walks` counts what was walked for it."""

    def __init__(
        self,
        site: Site,
        legs: Legs,
        senders: Sequence[str],
        wanted: Wanted,
        clients: Mapping[Version, int] | None = None,
    ) -> None:
        """Take the namespaces that may send, and what they may send to; `clients` are addresses of who is outside."""
        self.site = site
        self.legs = legs
        self.keys = senders
        self.clients = clients or {}
        self.walks = 0
        self.codes: dict[int, tuple[str, str]] = {}
        self.judged: dict[Goal, Judged] = {}
        host = site.host
        below = any(base.chain.family in {"bridge", "netdev"} for base in host.program.bases)
        # The host is one whose packets between containers are told apart by rules of IP alone.
        usable = not (host.missing or below or host.routing.special)
        versions: tuple[Version, ...] = (4, 6)
        for version in versions if usable else ():
            parts = [
                [(goal, leg) for goal in held if goal.version == version and (leg := self.leg(goal)) is not None]
                for held in (wanted.goals, wanted.ports)
            ]
            if any(parts):
                for goal, judged in _Table(self, version, parts[0] + parts[1]).judge(len(parts[0]), outer=wanted.outer):
                    held = self.judged.setdefault(goal, judged)
                    if held is not judged:  # those who ask are others
                        held.dropped += judged.dropped
                        held.ended += judged.ended

    def leg(self, goal: Goal) -> Leg | None:
        """Describe where a goal is; None for what is not plain."""
        if goal.where == OUTSIDE:
            return outside(self.site, goal.dst, goal.version)
        leg = self.legs.of(goal.where, goal.version)
        if leg is None or leg.address != (goal.behind or goal.flow)[0]:
            return None
        if goal.behind is not None and not self.site.host.holds(goal.dst, goal.version):
            return None
        return leg

    def sender(self, key: str, version: Version) -> Leg | None:
        """Describe who sends."""
        if key != OUTSIDE:
            return self.legs.of(key, version)
        return outside(self.site, self.clients[version], version) if version in self.clients else None

    def told(self, hit: Hit, goal: Goal) -> tuple[str, str]:
        """Give the code of a drop, and its words."""
        found = self.codes.get(id(hit.cited))  # that of one rule, and of nothing else
        if found is None:
            text = hit.cited.excerpt or hit.chain.name
            step = Step(HOST, hit.chain.table, text)
            found = self.codes[id(hit.cited)] = code_of(hit, self.site.host, Flow("", goal.dst, goal.dport), step), text
        return found


class _Table:
    """All flows of one version between plain ends."""

    def __init__(self, columns: Columns, version: Version, goals: list[tuple[Goal, Leg]]) -> None:
        """Number the ends."""
        self.columns = columns
        self.site = columns.site
        self.goals = goals
        self.judged = [Judged() for _ in goals]
        self.senders = [columns.sender(key, version) for key in columns.keys]
        self.sending, self.meant = Ends(), Ends()
        self.networks: dict[int, dict[int, int]] = {}
        self.nearby: dict[int, int] = {}
        self.walks: dict[tuple[int, int], tuple[Walk, list[tuple[Base, Packet]]]] = {}
        numbers = {key: at for at, key in enumerate(columns.keys)}
        self.own = [1 << numbers[goal.where] if goal.where in numbers else 0 for goal, _ in goals]
        for at, leg in enumerate(self.senders):
            if leg is not None:
                self.sending.put(at, address=leg.address, bridge=leg.bridge, port=leg.port)
                size = leg.last - leg.first + 1
                held = self.networks.setdefault(size, {})
                held[leg.first // size] = held.get(leg.first // size, 0) | 1 << at
        for at, (goal, leg) in enumerate(goals):
            inner = goal.behind[1] if goal.behind is not None else goal.dport
            outer = {"outer": goal.dst, "published": goal.dport} if goal.behind is not None else {}
            self.meant.put(at, address=leg.address, bridge=leg.bridge, port=leg.port, number=inner, **outer)
        mine: dict[int, int] = {}
        for at, bit in enumerate(self.own):
            mine[bit] = mine.get(bit, 0) | 1 << at
        self.masks = Masks(self.site.host.program, self.sending, self.meant, mine)

    def judge(self, inner: int, *, outer: bool) -> Iterator[tuple[Goal, Judged]]:
        """Judge all of them, one kind of flow after the other, and give what is known of each goal.

        Those from number `inner` on are for who is outside alone, the others for him too if he is `outer`.
        """
        stranger = next((1 << at for at, key in enumerate(self.columns.keys) if key == OUTSIDE), 0)
        several = ALL if outer else ~stranger
        alike: dict[Hashable, int] = {}
        for at, leg in enumerate(self.senders):
            if leg is not None:
                alike[leg.alike] = alike.get(leg.alike, 0) | 1 << at
        # A leg has as many goals as it has ports, and what it is alike in is long.
        numbers: dict[Hashable, int] = {}
        known: dict[int, tuple[int, tuple[str, int, int, int]]] = {}
        kinds: dict[tuple[bool, Hashable], dict[tuple[str, int, int, int], int]] = {}
        for at, (goal, leg) in enumerate(self.goals):
            if goal.protocol in {TCP, UDP, ICMP, ICMP6} and not (goal.behind and self.near(goal.dst)):
                called = goal.dst if goal.behind is not None else None
                clients = goal.dport == CLIENT_PORT, goal.behind is not None and goal.behind[1] == CLIENT_PORT
                placed = known.get(id(leg))
                if placed is None:
                    where = leg.bridge, leg.first, leg.last, self.near(leg.address)
                    placed = known[id(leg)] = numbers.setdefault(leg.alike, len(numbers)), where
                number, where = placed
                kind = (number, goal.protocol, not goal.dport, *clients, listening(self.site, goal), called)
                held = kinds.setdefault((at >= inner, kind), {})
                held[where] = held.get(where, 0) | 1 << at
        for mask in alike.values():
            for (alone, _), held in kinds.items():
                bridged: Flows = {}
                routed: Flows = {}
                for (bridge, first, last, near), goals in held.items():
                    same = self.sending.by["bridge"].get(bridge, 0)
                    into = self.sending.within("address", ((first, last),))
                    for flows, whose in ((bridged, same & into & near), (routed, ~same & ~into & ~near)):
                        mine = whose & mask & (stranger if alone else several)
                        if mine:
                            add(flows, mine, goals)
                self.along(Line(), 0, bridged)
                self.along(Line(), 0, routed)
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

    def along(self, line: Line, at: int, rest: Flows) -> None:
        """Lead flows along a line from its call `at` on, and make it longer where it ends before they do."""
        while rest:
            if at < len(line.calls):
                outcome = self.run(line.calls[at], rest)
                for senders, goals, hit in outcome.dropped:
                    for one in bits(goals):
                        self.judged[one].dropped.append((senders, hit))
                for turn, flows in self.turned(outcome).items():
                    if flows:
                        self.along(Line(line.calls[: at + 1], [*line.turns[:at], turn]), at + 1, flows)
                rest = outcome.passed
                at += 1
            elif line.end is not None and not line.broken:
                for senders, goals in rest.items():
                    for one in bits(goals):
                        self.judged[one].ended.append((senders, line.end))
                return
            elif line.broken or not self.longer(line, rest):
                return

    def run(self, call: Call, flows: Flows) -> Outcome:
        """Run a base chain for flows."""
        return self.masks.base(call.base, Crowd(call.packet, call.roles, self.site.host), flows)

    def turned(self, outcome: Outcome) -> dict[Turn, Flows]:
        """Give those whom NAT leads where it does all of their kind; who else meets NAT is walked alone."""
        found: dict[Turn, Flows] = {"in": {}, "out": {}}
        for senders, goals, action in outcome.changed:
            if action.kind == "dnat" and action.ports is not None and action.ports[0] == action.ports[1]:
                mine = sum(
                    1 << at for at in bits(goals) if self.goals[at][0].behind == (action.address, action.ports[0])
                )
                if mine:
                    add(found["in"], senders, mine)
            elif action.kind == "masquerade" and action.ports is None:
                # Who masquerades by the uplink has one address for all; by a bridge it is that of the bridge.
                away = sum(1 << at for at in bits(goals) if self.goals[at][0].where == OUTSIDE)
                if away:
                    add(found["out"], senders, away)
        return found

    def longer(self, line: Line, rest: Flows) -> bool:
        """Walk for one of those who came to the end of a line; says whether that led on."""
        found = self.one(rest)
        if found is None:
            return False
        at, of = found
        (goal, leg), sender = self.goals[of], self.senders[at]
        if sender is None:
            return False
        walk, met = self.walked(at, of)
        calls: list[Call] = []
        turns: list[Turn] = []
        passed = True
        for base, packet in met:
            call = _call(base, packet, sender, leg, goal)
            if call is None:  # it is another packet now
                break
            calls.append(call)
            outcome = self.run(call, {1 << at: 1 << of})
            turns += [turn for turn, flows in self.turned(outcome).items() if flows] or [""]
            passed = bool(outcome.passed) or turns[-1] != ""
            if not passed:
                break
        known = len(line.calls)
        if len(calls) < known or turns[:known] != line.turns or not all(map(_same, line.calls, calls)):
            return False
        # Behind the next turn it is another line, for those who turn there.
        whole = next((number for number in range(known, len(turns)) if turns[number]), None)
        line.calls += calls[known:] if whole is None else calls[known : whole + 1]
        line.turns += turns[known:] if whole is None else [*turns[known:whole], ""]
        if whole is not None or not passed:
            return len(line.calls) > known
        if len(calls) < len(met) or walk.asked or walk.proxied is not None or not self.there(walk, goal):
            line.broken = True
        elif walk.works:
            line.end = ""
        elif walk.end.outcome == "refused" and walk.sees == "refused" and goal.protocol == TCP:
            line.end = walk.end.code
        else:
            line.broken = True
        return True

    def walked(self, at: int, of: int) -> tuple[Walk, list[tuple[Base, Packet]]]:
        """Walk from a sender to a goal; gives what base chains it met, too."""
        held = self.walks.get((at, of))
        if held is None:
            self.columns.walks += 1
            key, sender, goal = self.columns.keys[at], self.senders[at], self.goals[of][0]
            src = sender.address if key == OUTSIDE and sender is not None else None
            met: list[tuple[Base, Packet]] = []
            held = self.walks[at, of] = follow(self.site, Flow(key, *goal.flow, src), met).walk, met
        return held

    def there(self, walk: Walk, goal: Goal) -> bool:
        """Whether a walk came to where its goal is."""
        return walk.landed is not None and walk.landed[0] == goal.where

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
    client = CLIENT_PORT if goal.dport else 0
    roles = _ends(packet, (sender.address, client), leg, goal)
    if roles is None:
        return None
    whose: dict[str, tuple[Side, What]] = {
        sender.port: ("sender", "port"),
        sender.bridge: ("sender", "bridge"),
        leg.port: ("goal", "port"),
        leg.bridge: ("goal", "bridge"),
    }
    for name in _DEVICES:
        value = getattr(packet, name)
        if value in whose:
            roles[name] = whose[value]
        elif value:
            return None
    if packet.original is not None:
        if packet.original != Tuple(sender.address, client, goal.dst, goal.dport):
            return None
        published = goal.behind is not None
        roles["original.src"] = ("sender", "address")
        roles["original.dst"] = ("goal", "outer" if published else "address")
        roles["original.dport"] = ("goal", "published" if published else "number")
    return Call(base, packet, roles)


def _ends(packet: Packet, client: End, leg: Leg, goal: Goal) -> dict[str, tuple[Side, What]] | None:
    """Say whose the addresses and ports of a packet are; what is masqueraded is the same for all, and nobody's."""
    inner = leg.address, goal.behind[1] if goal.behind is not None else goal.dport
    roles: dict[str, tuple[Side, What]] = {}
    for name, port in (("src", "sport"), ("dst", "dport")):
        held = getattr(packet, name), getattr(packet, port)
        if held == client:
            roles[name] = ("sender", "address")
        elif held == inner:
            roles[name], roles[port] = ("goal", "address"), ("goal", "number")
        elif held == goal.flow[:2]:
            roles[name], roles[port] = ("goal", "outer"), ("goal", "published")
        elif goal.where != OUTSIDE or held[1] != client[1] or held[0] in {client[0], leg.address}:
            return None
    sides = [roles[name][0] for name in ("src", "dst") if name in roles]
    return None if len(sides) == 2 and sides[0] == sides[1] else roles  # noqa: PLR2004 - both
