"""Many senders in one chain at once: a set of them is an integer, a bit for each, and a rule takes its part of it.

All send to one end (or are answered by it), so their packets differ in little: whose address they are from, the bridge
that they come by. A condition about that is a mask, any other one holds for all or for none. This is `evaluate` for
packets that nothing changes; what would change one, or what nobody knows, is handed back to be walked for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct, field

from doctor.packets.choice import acts, choice
from doctor.packets.conditions import Address, Any, Device, Number, Where
from doctor.packets.evaluate import DEPTH, Hit
from doctor.packets.packet import Packet
from doctor.packets.program import Base, Jump, Map, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.packets.choice import Choice
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action, Chain, Program, Rule

Role = Literal["address", "bridge", "port"]


class Sender(NamedTuple):
    """What packets of one sender differ in: its address, and the bridge and port of the host that it is behind."""

    address: int
    bridge: str
    port: str


class Senders:
    """Senders by bit, and sets of them by what rules ask of one."""

    def __init__(self, all_: Iterable[Sender]) -> None:
        """Number them."""
        self.all = tuple(all_)
        self.every = (1 << len(self.all)) - 1
        self.by: tuple[dict[int | str, int], ...] = ({}, {}, {})
        for at, sender in enumerate(self.all):
            values: tuple[int | str, ...] = sender
            for held, value in zip(self.by, values, strict=True):
                held[value] = held.get(value, 0) | 1 << at
        self.ranged: dict[tuple[tuple[int, int], ...], int] = {}
        self.named: dict[tuple[int, tuple[str, ...]], int] = {}

    def within(self, ranges: tuple[tuple[int, int], ...]) -> int:
        """Give those whose address is in one of some ranges."""
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return self.by[0].get(ranges[0][0], 0)
        found = self.ranged.get(ranges)
        if found is None:
            found = 0
            for at, sender in enumerate(self.all):
                if any(first <= sender.address <= last for first, last in ranges):
                    found |= 1 << at
            self.ranged[ranges] = found
        return found

    def behind(self, role: int, names: tuple[str, ...]) -> int:
        """Give those whose bridge (1) or port (2) has one of some names; `*` at the end stands for any rest."""
        if len(names) == 1 and not names[0].endswith("*"):
            return self.by[role].get(names[0], 0)
        found = self.named.get((role, names))
        if found is None:
            found = 0
            for value, mask in self.by[role].items():
                if any(value == name or (name[-1:] == "*" and str(value).startswith(name[:-1])) for name in names):
                    found |= mask
            self.named[role, names] = found
        return found


class Crowd(Struct):
    """Packets that are alike but for their senders: `packet` has what all share, `roles` which fields are the sender's."""

    packet: Packet
    roles: dict[str, int]
    senders: Senders
    where: Where


class Outcome(Struct):
    """What a chain makes of a crowd: who goes on, who is dropped by which rule, and who has to be walked alone."""

    passed: int = 0
    dropped: list[tuple[int, Hit]] = field(default_factory=list)
    alone: int = 0


class Masks:
    """Runs crowds through the chains of one program."""

    def __init__(self, program: Program) -> None:
        """Take the program."""
        self.program = program
        self.found: dict[tuple[object, ...], tuple[Rule, ...]] = {}

    def base(self, base: Base, crowd: Crowd, mask: int) -> Outcome:
        """Run a base chain, its policy included."""
        run = _Run(self, base, crowd)
        rest, _ = run.chain(base.chain, mask, 0)
        if rest and base.policy == "drop":
            run.outcome.dropped.append((rest, Hit(base, base.chain, base.chain.cited, "drop")))
        elif rest:
            run.outcome.passed |= rest
        return run.outcome

    def candidates(self, choice: Choice, crowd: Crowd, mask: int) -> tuple[Rule, ...]:
        """Give the rules of a chain that somebody of a crowd may match, in their order."""
        if not choice.fields:
            return choice.chain.rules
        key: list[int | str | tuple[int] | None] = []
        varying = False
        for name, held in choice.fields:
            role = crowd.roles.get(name)
            if role is None:
                value = getattr(crowd.packet, name)
                key.append(value if value in held else None)
            else:
                varying = True
                key.append((role,))
        packed = (choice.chain.key, mask if varying else 0, *key)
        rules = self.found.get(packed)
        if rules is None:
            rows = list(choice.always)
            for value, (_, held) in zip(key, choice.fields, strict=True):
                if isinstance(value, tuple):
                    by = crowd.senders.by[value[0]]
                    few, many = (by, held) if len(by) < len(held) else (held, by)
                    for one in few:
                        if one in many and by[one] & mask:
                            rows += held[one]
                elif value is not None:
                    rows += held[value]
            rows.sort(key=lambda row: row[0])
            rules = self.found[packed] = tuple(rule for _, rule in rows)
        return rules


class _Run(Struct):
    """One crowd in one base chain."""

    masks: Masks
    at: Base
    crowd: Crowd
    outcome: Outcome = field(default_factory=Outcome)

    def chain(self, chain: Chain, mask: int, depth: int) -> tuple[int, int]:
        """Run a chain: who reaches its end, and who returns from it before."""
        returned = 0
        for rule in self.masks.candidates(choice(chain, self.masks.program.choices), self.crowd, mask):
            mask, back = self.rule(rule, chain, mask, depth)
            returned |= back
            if not mask:
                break
        return mask | returned, 0

    def rule(self, rule: Rule, chain: Chain, mask: int, depth: int) -> tuple[int, int]:
        """Carry out a rule: who goes on behind it, and who returns."""
        taken = mask
        for step in rule.steps:
            if acts(step):
                if isinstance(step, Verdict) and step.word == "continue":
                    continue
                return self.act(step, rule, chain, (mask, taken), depth)
            holds, unknown = self.holds(step, taken)
            unknown &= taken
            if unknown:
                self.outcome.alone |= unknown
                mask &= ~unknown
            taken &= holds & ~unknown
            if not taken:
                break
        return mask, 0

    def act(self, step: Action, rule: Rule, chain: Chain, masks: tuple[int, int], depth: int) -> tuple[int, int]:
        """Carry out a target for those whom the rule takes."""
        mask, taken = masks
        rest = mask & ~taken
        if isinstance(step, Verdict):
            if step.word == "accept":
                self.outcome.passed |= taken
            elif step.word == "drop":
                self.outcome.dropped.append((taken, Hit(self.at, chain, rule.cited, "drop")))
            else:
                return rest, taken
            return rest, 0
        if isinstance(step, Map):
            return self.map(step, rule, chain, (rest, taken), depth)
        target = self.masks.program.chains.get((*chain.key[:3], step.chain)) if isinstance(step, Jump) else None
        if target is None or depth >= DEPTH:
            self.outcome.alone |= taken
            return rest, 0
        after, _ = self.chain(target, taken, depth + 1)
        return (rest, after) if isinstance(step, Jump) and step.leave else (rest | after, 0)

    def map(self, step: Map, rule: Rule, chain: Chain, masks: tuple[int, int], depth: int) -> tuple[int, int]:
        """Carry out what the first element that holds says."""
        rest, left = masks
        returned = 0
        for conditions, then in step.elements:
            whole = left
            for one in conditions:
                holds, unknown = self.holds(one, whole)
                self.outcome.alone |= unknown & whole
                left &= ~unknown
                whole &= holds & ~unknown
                if not whole:
                    break
            if whole:
                left &= ~whole
                on, back = self.act(then, rule, chain, (whole, whole), depth)
                rest, returned = rest | on, returned | back
            if not left:
                break
        return rest | left, returned

    def holds(self, condition: Condition, mask: int) -> tuple[int, int]:
        """Give for whom a condition holds, and for whom that is not known."""
        crowd = self.crowd
        if isinstance(condition, Address) and condition.end in crowd.roles:
            if condition.version != crowd.packet.version:
                return 0, 0
            found = crowd.senders.within(condition.ranges)
            return (mask & ~found if condition.negated else found), 0
        if isinstance(condition, Device) and condition.end in crowd.roles:
            found = crowd.senders.behind(crowd.roles[condition.end], condition.names)
            return (mask & ~found if condition.negated else found), 0
        if isinstance(condition, Number) and condition.field in crowd.roles:
            found = crowd.senders.within(condition.ranges)
            if condition.mask != -1:
                return 0, mask
            return (mask & ~found if condition.negated else found), 0
        if isinstance(condition, Any):
            return self.any(condition, mask)
        answer = condition.holds(crowd.packet, crowd.where)
        return (mask, 0) if answer else (0, mask if answer is None else 0)

    def any(self, condition: Any, mask: int) -> tuple[int, int]:
        """Give for whom one of several holds whole."""
        found = unknown = 0
        for conditions in condition.several:
            whole, doubt = mask & ~found, 0
            for one in conditions:
                holds, asked = self.holds(one, whole)
                doubt = (doubt & (holds | asked)) | (asked & whole)
                whole &= holds | asked
                if not whole:
                    break
            found |= whole & ~doubt
            unknown |= whole & doubt
        unknown &= ~found
        return (mask & ~found & ~unknown if condition.negated else found), unknown
