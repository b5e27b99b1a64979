"""Which rules of a chain a packet can match at all: those that ask for one exact address, port or device are looked up.

Docker writes a rule for each container and each port: a chain of thousands, of which a packet can match three. What a
rule asks first, before it does anything, is what it is found by; the rest keeps its place among those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.packets.conditions import Address, Device, Number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import TypeIs

    from doctor.packets.packet import Packet
    from doctor.packets.program import Action, Chain, Rule, Step

FEW = 8
"""Rules that are gone through faster than they are looked up."""

_ENDS = ("dst", "dport", "oif", "src", "iif", "sport", "physin", "physout")
"""What rules are found by, what tells most of them apart first."""


class Choice:
    """The rules of one chain by what they ask; `of` gives those that a packet may match, in their order."""

    def __init__(self, chain: Chain) -> None:
        """Sort the rules."""
        self.chain = chain
        self.always: list[tuple[int, Rule]] = []
        self.by: dict[str, dict[int | str, list[tuple[int, Rule]]]] = {}
        self.known: dict[tuple[int | str | None, ...], tuple[Rule, ...]] = {}
        for at, rule in enumerate(chain.rules):
            key = _key(rule) if len(chain.rules) > FEW else None
            if key is None:
                self.always.append((at, rule))
            else:
                self.by.setdefault(key[0], {}).setdefault(key[1], []).append((at, rule))
        self.fields = tuple(self.by.items())

    def of(self, packet: Packet) -> tuple[Rule, ...]:
        """Give the rules that a packet may match."""
        found: list[int | str | None] = []
        for field, held in self.fields:
            value = getattr(packet, field)
            found.append(value if value in held else None)
        key = tuple(found)
        rules = self.known.get(key)
        if rules is None:
            rules = self.known[key] = self.joined(key)
        return rules

    def joined(self, key: tuple[int | str | None, ...]) -> tuple[Rule, ...]:
        """Put what is found by each value among the others."""
        rows = list(self.always)
        for value, (_, held) in zip(key, self.fields, strict=True):
            rows += held[value] if value is not None else []
        rows.sort(key=lambda row: row[0])
        return tuple(rule for _, rule in rows)


def choice(chain: Chain, held: dict[tuple[str, str, str, str], Choice]) -> Choice:
    """Give the choice of a chain, made once for as long as the chain is the same."""
    found = held.get(chain.key)
    if found is None or found.chain is not chain:
        found = held[chain.key] = Choice(chain)
    return found


def _key(rule: Rule) -> tuple[str, int | str] | None:
    """Give what a rule can be found by; None where it asks for nothing exact."""
    asked = dict(_exact(rule))
    return next(((end, asked[end]) for end in _ENDS if end in asked), None)


def _exact(rule: Rule) -> Iterator[tuple[str, int | str]]:
    """Give the exact values that a rule asks for before it does anything."""
    for step in rule.steps:
        if not isinstance(step, Address | Device | Number):
            if acts(step):
                return
            continue
        if step.negated:
            continue
        if isinstance(step, Device):
            if len(step.names) == 1 and not step.names[0].endswith("*"):
                yield step.end, step.names[0]
        elif len(step.ranges) == 1 and step.ranges[0][0] == step.ranges[0][1]:
            if isinstance(step, Address):
                yield step.end, step.ranges[0][0]
            elif step.mask == -1 and step.field in {"sport", "dport"}:
                yield step.field, step.ranges[0][0]


def acts(step: Step) -> TypeIs[Action]:
    """Whether a step does something, and asks nothing."""
    return not hasattr(step, "holds")
