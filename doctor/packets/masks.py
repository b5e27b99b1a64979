"""Many flows in one chain at once: sets of senders and of goals are integers, a bit for each, and a rule takes its part.

Packets of one kind differ in their ends alone: whose address they are from and to, which port, the bridges on the way.
What a rule asks about that is a set of senders and a set of goals, and so it takes a rectangle of the flows; all else that
it asks holds for all of them or for none. This is `evaluate` for packets that nothing changes; what would change one, or
what nobody knows, is handed back to be walked for itself.

A rule costs a look at each group of flows, and a host has ten thousand about one container each. Those that decide at once
and stand together are found by the goal (or sender) that they are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from doctor.packets.choice import acts
from doctor.packets.conditions import Address, Any, Device, Direction, Kind, Number, Where
from doctor.packets.conditions import Ct as Tracked
from doctor.packets.evaluate import DEPTH, Hit
from doctor.packets.flows import Ends, Flows, Side, What, add, bits, cut, merge
from doctor.packets.packet import Packet
from doctor.packets.program import Base, Jump, Map, Nat, Verdict

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from doctor.model import Citation
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action, Chain, Program, Rule

ALL = -1
"""A mask of everybody."""

NARROW = 8
"""Goals that a rule may be about and still be found by each of them: one about a whole network is quicker as it stands."""

_FEW = 4
"""Rules that are gone through faster than they are looked up."""


class Crowd(Struct, frozen=True):
    """Packets that are alike but for their ends: `packet` is one of them, `roles` which of its fields is whose."""

    packet: Packet
    roles: dict[str, tuple[Side, What]]
    where: Where


class Outcome(Struct):
    """What a base chain makes of flows: which go on, which are dropped by which rule, and which have to be walked alone.

    `changed` are those that get another end, by which target.
    """

    passed: Flows = field(default_factory=dict)
    dropped: list[tuple[int, int, Hit]] = field(default_factory=list)
    alone: Flows = field(default_factory=dict)
    changed: list[tuple[int, int, Nat]] = field(default_factory=list)


class _Box(NamedTuple):
    """What a condition takes: senders and goals."""

    senders: int
    goals: int


class _Several(NamedTuple):
    """What a set takes: `doubtful` are those of which it is not known."""

    boxes: tuple[_Box, ...]
    doubtful: tuple[_Box, ...]
    negated: bool


class _Ruled(NamedTuple):
    """A rule as it is for a crowd. Not known is whether it takes those that it is `doubtful` about."""

    senders: int
    goals: int
    several: tuple[_Several, ...]
    doubtful: bool
    action: Action
    cited: Citation


class _Run(NamedTuple):
    """Rules that stand together and decide at once, by the number of each goal (or sender) that they are about."""

    side: Side
    mask: int
    by: dict[int, list[_Ruled]]


_Part = _Ruled | _Run


class Masks:
    """Runs crowds through the chains of one program. What a chain is for a crowd is made once for all crowds like it.

    `own` are the goals of a sender (a bit) itself: nobody asks for those flows, and rules for them alone are left out.
    """

    def __init__(self, program: Program, senders: Ends, goals: Ends, own: dict[int, int]) -> None:
        """Take the program, and the ends."""
        self.program = program
        self.own = own
        self.ends: dict[Side, Ends] = {"sender": senders, "goal": goals}
        self.made: dict[Hashable, tuple[_Part, ...]] = {}
        self.asked: dict[Hashable, tuple[str, ...]] = {}

    def base(self, base: Base, crowd: Crowd, flows: Flows) -> Outcome:
        """Run a base chain, its policy included."""
        run = _Walk(self, base, crowd)
        rest = run.chain(base.chain, flows, 0)
        if base.policy == "drop":
            hit = Hit(base, base.chain, base.chain.cited, "drop")
            run.outcome.dropped += [(senders, goals, hit) for senders, goals in rest.items()]
        else:
            merge(run.outcome.passed, rest)
        return run.outcome

    def chain(self, chain: Chain, crowd: Crowd) -> tuple[_Part, ...]:
        """Give a chain as it is for a crowd."""
        asked = self.asked.get(chain.key)
        if asked is None:
            asked = self.asked[chain.key] = _fields(chain)
        key = (chain.key, crowd.packet.version, tuple(_held(crowd, name) for name in asked))
        made = self.made.get(key)
        if made is None:
            sight = _Sight(self, crowd)
            rules = [held for rule in chain.rules if (held := sight.rule(rule)) is not None]
            made = self.made[key] = tuple(_joined(rules))
        return made


_AT_ENDS = (Address, Device)
_PLAIN = (Verdict, Nat)
"""Targets that ask for nothing. Tuples, for isinstance is slow with unions, and there are ten thousand rules."""
_FIELDS = {Tracked: ("state", "status"), Direction: ("original", "reply")}


def _fields(chain: Chain) -> tuple[str, ...]:
    """Name the fields of a packet that the rules of a chain ask for."""
    found: set[str] = set()
    for rule in chain.rules:
        for step in rule.steps:
            if isinstance(step, _AT_ENDS):
                found.add(step.end)
            elif isinstance(step, Number) and step.field != "connmark":
                found.add(step.field)
            elif not isinstance(step, _PLAIN):
                found.update(_asked(step))
    return tuple(sorted(found))


def _asked(step: Condition | Action) -> Iterable[str]:
    """Name the fields of a packet that a step asks for."""
    if isinstance(step, Address | Device):
        return (step.end,)
    if isinstance(step, Number):
        return (step.field, "original") if step.field == "connmark" else (step.field,)
    if isinstance(step, Kind):
        return (step.end, step.limit) if step.limit else (step.end,)
    if isinstance(step, Any):
        return [name for held in step.several for one in held for name in _asked(one)]
    if isinstance(step, Map):
        return [name for held, then in step.elements for one in (*held, then) for name in _asked(one)]
    return _FIELDS.get(type(step), ())


def _held(crowd: Crowd, name: str) -> Hashable:
    """Give what a crowd has in a field: whose it is, or the value that all of them have."""
    role = crowd.roles.get(name)
    if role is not None:
        return role
    if name == "original":
        return crowd.packet.original is None
    if name.startswith("original."):
        return getattr(crowd.packet.original, name[9:], None)
    held: Hashable = getattr(crowd.packet, name)
    return held


def _joined(rules: list[_Ruled]) -> Iterator[_Part]:
    """Put rules together that can be found by a goal or sender."""
    held: list[_Ruled] = []
    side: Side | None = None
    for rule in (*rules, None):
        now = _narrow(rule) if rule is not None else None
        if held and now != side:
            yield from _run(side, held) if side is not None and len(held) > _FEW else held
            held = []
        side = now
        if rule is not None:
            held.append(rule)
    yield from held


def _narrow(rule: _Ruled) -> Side | None:
    """Say which end a rule can be found by."""
    if isinstance(rule.action, Jump | Map) or rule.several or rule.doubtful:
        return None
    if rule.goals >= 0 and rule.goals.bit_count() <= NARROW:
        return "goal"
    return "sender" if rule.senders >= 0 and rule.senders.bit_count() <= NARROW else None


def _run(side: Side, rules: list[_Ruled]) -> Iterator[_Run]:
    mask = 0
    by: dict[int, list[_Ruled]] = {}
    for rule in rules:
        mine = rule.goals if side == "goal" else rule.senders
        mask |= mine
        for at in bits(mine):
            by.setdefault(at, []).append(rule)
    yield _Run(side, mask, by)


class _Sight(Struct, frozen=True):
    """Rules as a crowd meets them."""

    masks: Masks
    crowd: Crowd

    def rule(self, rule: Rule) -> _Ruled | None:
        """Read a rule; None where it takes nobody, or does nothing to whom it takes."""
        senders = goals = ALL
        several: list[_Several] = []
        doubtful = False
        for step in rule.steps:
            if isinstance(step, _AT_ENDS):  # most rules ask for an address and a device
                role = self.crowd.roles.get(step.end)
                part = self.part(step) if role is None else self.end(step, role)
            elif acts(step):
                if isinstance(step, Verdict) and step.word == "continue":
                    continue
                own = self.masks.own.get(senders)
                if own is not None and goals >= 0 and not goals & ~own:
                    return None
                return _Ruled(senders, goals, tuple(several), doubtful, step, rule.cited)
            elif isinstance(step, Any):
                several.append(self.several(step))
                continue
            else:
                part = self.part(step)
            if part is None:
                doubtful = True
                continue
            side, mask = part
            if side == "goal":
                goals &= mask
            else:
                senders &= mask
            if not senders or not goals:
                return None
        # Whoever it takes goes on, as does everybody else; that it is not known whom it takes changes nothing.
        return None

    def part(self, condition: Condition) -> tuple[Side, int] | None:
        """Say whom a condition holds for, senders or goals; None where that is not known."""
        role = None
        if isinstance(condition, _AT_ENDS):
            role = self.crowd.roles.get(condition.end)
        elif isinstance(condition, Number):
            role = self.crowd.roles.get(condition.field)
            if role is not None and condition.mask != -1:
                return None
        if role is None or not isinstance(condition, (Address, Device, Number)):
            answer = condition.holds(self.crowd.packet, self.crowd.where)
            return None if answer is None else ("sender", ALL if answer else 0)
        return self.end(condition, role)

    def end(self, condition: Address | Device | Number, role: tuple[Side, What]) -> tuple[Side, int]:
        """Say whom a condition about one end holds for."""
        side, what = role
        ends = self.masks.ends[side]
        if isinstance(condition, Device):
            names = condition.names
            single = len(names) == 1 and names[0][-1:] != "*"
            held = ends.by[what].get(names[0], 0) if single else ends.named(what, names)
        elif isinstance(condition, Address) and condition.version != self.crowd.packet.version:
            return side, 0
        else:
            held = ends.within(what, condition.ranges)
        return side, ~held if condition.negated else held

    def box(self, condition: Condition) -> _Box | None:
        """Say whom a condition holds for, as a rectangle; None where that is not known."""
        part = self.part(condition)
        if part is None:
            return None
        side, mask = part
        return _Box(mask, ALL) if side == "sender" else _Box(ALL, mask)

    def several(self, condition: Any) -> _Several:
        """Say whom one of several holds for whole."""
        sure: list[_Box] = []
        doubtful: list[_Box] = []
        for held in condition.several:
            for box, known in self.whole(held):
                (sure if known else doubtful).append(box)
        return _Several(tuple(sure), tuple(doubtful), condition.negated)

    def whole(self, conditions: Iterable[Condition]) -> list[tuple[_Box, bool]]:
        """Say whom all of some conditions hold for, in boxes, each with whether that is known."""
        found = [(_Box(ALL, ALL), True)]
        for one in conditions:
            if isinstance(one, Any):
                inner = self.several(one)
                # What a set within an element leaves out is no box: it is not known then.
                more = [(_Box(ALL, ALL), False)] if inner.negated else [(box, True) for box in inner.boxes]
                more += [(box, False) for box in inner.doubtful] if not inner.negated else []
            else:
                box = self.box(one)
                more = [(_Box(ALL, ALL), False) if box is None else (box, True)]
            found = [
                (_Box(old.senders & new.senders, old.goals & new.goals), known and sure)
                for old, known in found
                for new, sure in more
                if old.senders & new.senders and old.goals & new.goals
            ]
        return found


class _Walk(Struct):
    """Flows in one base chain."""

    masks: Masks
    at: Base
    crowd: Crowd
    outcome: Outcome = field(default_factory=Outcome)

    def chain(self, chain: Chain, flows: Flows, depth: int) -> Flows:
        """Run a chain: who leaves it by its end or by a return."""
        returned: Flows = {}
        for part in self.masks.chain(chain, self.crowd):
            if not flows:
                break
            if isinstance(part, _Run):
                flows = self.run(part, chain, flows, returned)
            else:
                flows = self.rule(part, chain, flows, returned, depth)
        return merge(returned, flows) if returned else flows

    def run(self, part: _Run, chain: Chain, flows: Flows, returned: Flows) -> Flows:
        """Carry out rules that are found by an end: each one of theirs is followed through those about it."""
        across = part.side == "sender"
        met = [held for held in flows.items() if held[not across] & part.mask]
        if not met:
            return flows
        rest = dict(flows)
        for senders, _ in met:
            del rest[senders]
        for senders, goals in met:
            mine, others = (senders, goals) if across else (goals, senders)
            same = mine & ~part.mask
            split: dict[int, int] = {}
            for at in bits(mine & part.mask):
                bit, left = 1 << at, others
                for held in part.by[at]:
                    taken = left & (held.goals if across else held.senders)
                    if taken:
                        self.decided(held, chain, (bit, taken) if across else (taken, bit), returned)
                        left ^= taken
                        if not left:
                            break
                if left == others:
                    same |= bit
                elif left:
                    split[left] = split.get(left, 0) | bit
            if same:
                split[others] = split.get(others, 0) | same
            for left, whose in split.items():
                add(rest, *((whose, left) if across else (left, whose)))
        return rest

    def decided(self, held: _Ruled, chain: Chain, box: tuple[int, int], returned: Flows) -> None:
        """Note what a target makes of those whom it takes, that leads to no other chain."""
        action = held.action
        if isinstance(action, Verdict):
            if action.word == "accept":
                add(self.outcome.passed, *box)
            elif action.word == "return":
                add(returned, *box)
            else:
                self.outcome.dropped.append((*box, Hit(self.at, chain, held.cited, "drop")))
        elif isinstance(action, Nat):
            self.outcome.changed.append((*box, action))
        else:
            add(self.outcome.alone, *box)

    def rule(self, held: _Ruled, chain: Chain, flows: Flows, returned: Flows, depth: int) -> Flows:
        """Carry out a rule: who goes on behind it."""
        taken, rest = cut(flows, held.senders, held.goals)
        if not taken:
            return flows
        for several in held.several:
            taken, others = self.among(several, taken)
            merge(rest, others)
        if held.doubtful:
            merge(self.outcome.alone, taken)
            return rest
        return self.act(held, chain, taken, rest, returned, depth) if taken else rest

    def among(self, several: _Several, flows: Flows) -> tuple[Flows, Flows]:
        """Give who is in a set, and who is not; of whom that is not known, they are walked alone."""
        found: Flows = {}
        for box in several.boxes:
            inside, flows = cut(flows, *box)
            merge(found, inside)
        for box in several.doubtful:
            unknown, flows = cut(flows, *box)
            merge(self.outcome.alone, unknown)
        return (flows, found) if several.negated else (found, flows)

    def act(self, held: _Ruled, chain: Chain, taken: Flows, rest: Flows, returned: Flows, depth: int) -> Flows:
        """Carry out a target for those whom the rule takes; gives who goes on behind the rule."""
        action = held.action
        if isinstance(action, Verdict) and action.word == "continue":
            return merge(rest, taken)
        if not isinstance(action, Jump | Map):
            for box in taken.items():
                self.decided(held, chain, box, returned)
            return rest
        if isinstance(action, Map):
            return self.map(action, held, chain, taken, rest, returned, depth)
        target = self.masks.program.chains.get((*chain.key[:3], action.chain))
        if target is None or depth >= DEPTH:
            merge(self.outcome.alone, taken)
            return rest
        after = self.chain(target, taken, depth + 1)
        if action.leave:
            merge(returned, after)
            return rest
        return merge(rest, after)

    def map(
        self, step: Map, held: _Ruled, chain: Chain, left: Flows, rest: Flows, returned: Flows, depth: int
    ) -> Flows:
        """Carry out what the first element that holds says."""
        sight = _Sight(self.masks, self.crowd)
        for conditions, then in step.elements:
            if not left:
                break
            for box, known in sight.whole(conditions):
                inside, left = cut(left, *box)
                if not known:
                    merge(self.outcome.alone, inside)
                elif inside:
                    rest = self.act(held._replace(action=then), chain, inside, rest, returned, depth)
        return merge(rest, left)
