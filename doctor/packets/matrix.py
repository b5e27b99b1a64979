"""Who reaches whom on a host, which published port is reached from where, and what of it Docker promises."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from doctor.facts.sockets import ANY
from doctor.model import Reach, ReachEnd, ReachFlow, ReachPort
from doctor.packets.boxes import INTERNAL, OTHERS, VERSIONS, Box, Boxes, Known, Place, listed, shared, valid
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, spelled
from doctor.packets.flows import bits
from doctor.packets.goal import Goal
from doctor.packets.packet import Version, number, spell
from doctor.packets.pairs import Judgement, Pairs
from doctor.packets.reasons import DESIGN, MEANT, WHY, Reasons
from doctor.packets.site import HOST
from doctor.packets.walk import STRANGERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.facts.containers import Port
    from doctor.facts.engine_rules import EngineRules

SCHEMA = "1"
"""Version of the JSON."""

WAY_OUT = 443
"""The port outside that stands for all of them."""

_UNMASKED = "not masqueraded, and answers are dropped, by design"
_PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}


class Wanted(Struct, frozen=True):
    """Which part of the matrix: names of containers, `host` or `outside`; empty for all."""

    source: str = ""
    target: str = ""


def matrix(known: Known, host: str, version: str, wanted: Wanted = Wanted()) -> Reach:  # noqa: B008 - it is frozen
    """Judge every pair that is wanted."""
    return _Matrix(known).made(host, version, wanted)


class _Matrix:
    """Judges, and collects the reasons."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.site = known.site
        self.there = Boxes(known)
        self.boxes = self.there.all
        unread = known.sockets.missing if known.sockets is not None else "not read"
        self.pairs = Pairs(known.site, unread, {version: self.there.clients(version) for version in VERSIONS})
        self.reasons = Reasons()
        self.texts = _texts(known.rules)
        self.senders = list({box.space: box for box in self.boxes if not box.unread}.values())
        self.outward: dict[int, bool] = {}

    # Judging

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
        why = WHY.get(found.code, found.text or found.code) if kind != "depends" else ""
        if kind == "denied" and (design or self.meant(found)):
            kind, why = "design", design or DESIGN.get(found.code, "by design")
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
        sources: list[Box | None] = [*self.boxes, None]
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

    def toward(self, box: Box | None, target: Box, space: str = HOST) -> Iterator[ReachFlow]:
        """Judge one container from another one: on the networks that they share, else on any of them."""
        source = box.one.name if box is not None else space
        place = box.space if box is not None else space
        name = target.one.name
        unread = (box.unread if box is not None else "") or target.unread
        if unread or not target.places:
            answer = self.unknown(unread or f"{name} has no address", source, name)
            yield ReachFlow(source, name, "", "", 0, "icmp", False, answer)  # noqa: FBT003
            return
        common = shared(box, target) if box is not None else []
        if common:
            for end in common:
                yield from self.at(source, place, target, end, promised=self.there.together(end.end))
            return
        mine = {place.version for place in box.places} if box is not None else set(VERSIONS)
        ends = [end for end in target.places if end.version in mine] or list(target.places)
        strange = self.strange(box)
        if len(ends) > 1 and not strange:  # on one of several addresses is enough
            ends.sort(key=lambda end: -sum(self.pairs.judge(place, goal).arrives for goal in end.goals))
        yield from self.at(source, place, target, ends[0], promised=False, strange=strange)

    def strange(self, box: Box | None) -> str:
        """Say why the way out of a container is not modelled: it may be by a network of another kind."""
        return next((place.strange for place in box.places if place.strange), "") if box is not None else ""

    def at(
        self, source: str, space: str, target: Box, place: Place, *, promised: bool, strange: str = ""
    ) -> Iterator[ReachFlow]:
        """Judge each port at an address of a container."""
        name = target.one.name
        design = self.there.kept_in(source)
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

    def outside(self, box: Box | None) -> Iterator[ReachFlow]:
        """Judge the way out of a container, or of the host, by each version of IP that it has."""
        source = box.one.name if box is not None else HOST
        if box is not None and (box.unread or self.strange(box)):
            answer = self.unknown(box.unread or self.strange(box), source, OUTSIDE)
            yield ReachFlow(source, OUTSIDE, "", "", WAY_OUT, "tcp", False, answer)  # noqa: FBT003
            return
        held = {place.version for place in box.places} if box is not None else {4}
        versions: tuple[Version, ...] = (4,) if 4 in held else (6,)  # noqa: PLR2004 - IPv4
        for version in versions if held else ():
            promised = box is not None and self.there.out(box.one, version) and self.leaves(version)
            found, goal = self.abroad(box.space if box is not None else HOST, version)
            design = INTERNAL if box is not None and self.there.internal(box.one) else ""
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

    def goal(self, box: Box, port: Port) -> Goal | None:
        """Give a published port as a goal; None where it cannot be judged."""
        version, address = self.called(port)
        behind = self.behind(box, port, version)
        if not address or box.unread or behind is None or port.protocol not in {"tcp", "udp"}:
            return None
        return Goal(box.space, number(address), port.host, version, UDP if port.protocol == "udp" else TCP, behind)

    def called(self, port: Port) -> tuple[Version, str]:
        """Give the address of this host that a port is called at, empty where there is none."""
        version: Version = 6 if ":" in port.host_ip else 4
        own = valid(port.host_ip) and port.host_ip not in ANY
        return version, port.host_ip if own else self.there.uplinks.get(version, "")

    def port(self, box: Box, port: Port) -> ReachPort | None:
        """Judge one published port; None where this host has no address that it could be reached at."""
        version, address = self.called(port)
        own = port.host_ip not in ANY and valid(port.host_ip)
        alone = own and self.site.host.loops(number(port.host_ip), version)
        if not address or (version == 6 and not own and not any(end.address6 for end in box.one.endpoints)):  # noqa: PLR2004 - IPv6
            return None
        name = box.one.name
        goal = self.goal(box, port)
        if goal is None:
            why = box.unread or f"where {port.host}/{port.protocol} of {name} leads to"
            answer = self.unknown(why, OUTSIDE, f"host:{port.host}")
            what = (name, port.host_ip, port.host, port.protocol, port.container)
            return ReachPort(*what, promised=False, outside=answer, host=answer, itself=answer, containers={})
        near = goal if own or version == 6 else structs.replace(goal, dst=number("127.0.0.1"))  # noqa: PLR2004 - IPv6
        target = self.spelled(goal)
        promised = not alone and self.there.published(box.one, version)
        outside = "-" if alone else self.answer(self.pairs.judge(OUTSIDE, goal), promised, OUTSIDE, target)
        host = self.answer(self.pairs.judge(HOST, near), False, HOST, self.spelled(near))  # noqa: FBT003
        inner: Counter[str] = Counter()
        itself = "-"
        for mask, judged in self.senders_of(goal, box) if not alone else ():
            first = self.senders[next(bits(mask))]
            design = self.there.kept_in(first.one.name) if judged.code == "SRC_NO_ROUTE" else ""
            answer = self.answer(judged, False, first.one.name, target, design, mask.bit_count())  # noqa: FBT003
            if first.space == box.space:
                itself = answer
            else:
                inner[answer] += mask.bit_count()
        return ReachPort(
            *(name, port.host_ip, port.host, port.protocol, port.container, promised),
            *(outside, host, itself, dict(sorted(inner.items()))),
        )

    def senders_of(self, goal: Goal, box: Box) -> list[tuple[int, Judgement]]:
        """Judge a published port from all containers: sets of those that have one answer, in the order of their first."""
        kept = sum(1 << at for at, other in enumerate(self.senders) if other.one.name in self.there.inner)
        found = []
        everyone = (1 << len(self.senders)) - 1  # who is outside is asked for apart
        for both, judged in self.pairs.column(goal):
            mask = both & everyone
            # Who has no way out is kept in by design or not: that is not the same to all of them.
            parts = (mask & kept, mask & ~kept) if judged.code == "SRC_NO_ROUTE" else (mask,)
            found += [(part, judged) for part in parts if part]
        own = next((1 << at for at, other in enumerate(self.senders) if other.space == box.space), 0)
        found.append((own, self.pairs.judge(box.space, goal)))
        return sorted(found, key=lambda held: held[0] & -held[0])

    def spelled(self, goal: Goal) -> str:
        """Spell a port of the host as `doctor trace` takes it."""
        usual = goal.dst == number("127.0.0.1") or goal.dst == number(self.there.uplinks.get(4, "0.0.0.0"))  # noqa: S104 - no address
        text = f"{HOST}:{goal.dport}" if usual else spelled(goal.dst, goal.dport, goal.version)
        return text + ("/udp" if goal.protocol == UDP else "")

    def behind(self, box: Box, port: Port, version: Version) -> tuple[int, int] | None:
        """Give where a published port leads to: the container's address in the network that it leaves by."""
        held = [end for end in box.one.endpoints if valid(end.address6 if version == 6 else end.address)]  # noqa: PLR2004 - IPv6
        held.sort(key=lambda end: (not self.there.natted(end, version), -end.priority, end.network))
        for rule in self.site.proxies.get((port.protocol, port.host), ()):
            if valid(rule.container_ip) and (":" in rule.container_ip) == (version == 6):  # noqa: PLR2004 - IPv6
                return number(rule.container_ip), port.container
        if not held:
            return None
        return number(held[0].address6 if version == 6 else held[0].address), port.container  # noqa: PLR2004 - IPv6

    # The result

    def made(self, host: str, version: str, wanted: Wanted) -> Reach:
        """Judge what is wanted."""
        if wanted.source in {"", OUTSIDE}:
            goals = [goal for box in self.boxes for place in box.places for goal in place.goals]
            goals += [
                Goal(OUTSIDE, number(held[version]), WAY_OUT, version)
                for version in VERSIONS
                for held in (STRANGERS, OTHERS)
            ]
            published = [
                goal for box in self.boxes for port in box.one.ports if (goal := self.goal(box, port)) is not None
            ]
            called = [goal for goal in published if not self.site.host.loops(goal.dst, goal.version)]
            self.pairs.expect((box.space for box in self.senders), goals + called, called)
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
            notes=tuple(self.there.notes),
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
                tuple(sorted((end.network for end in one.endpoints), key=lambda name: (name != listed(one), name))),
                tuple(place.address for place in box.places),
                tuple(name for key in (one.id, one.engine_name) for name in guests.get(key, ())),
            )


def _texts(rules: EngineRules | None) -> frozenset[str] | None:
    if rules is None or not rules.families:
        return None
    return frozenset(rule.text for one in rules.families for held in one.expected.chains.values() for rule in held)
