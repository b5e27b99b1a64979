"""Which rules of a chain a packet can match at all: those that ask for one exact address, port or device are looked up.

Docker writes a rule for each container and each port: a chain of thousands, of which a packet can match three. What a
rule asks first, before it does anything, is what it is found by; the rest keeps its place among those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.packets.conditions import Address, Any, Ct, Device, Direction, Kind, Never, Number, Opaque

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from doctor.packets.packet import Packet
    from doctor.packets.program import Action, Chain, Rule, Step

_ASKING = frozenset({Address, Any, Ct, Device, Direction, Kind, Never, Number, Opaque})

FEW = 8
"""Rules that are gone through faster than they are looked up."""

_ENDS = ("dst", "dport", "oif", "src", "iif", "sport", "physin", "physout")
"""What rules are found by, what tells most of them apart first."""
_RANKS = {end: rank for rank, end in enumerate(_ENDS)}
_PORTS = frozenset({"sport", "dport"})


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
    """Give what a rule can be found by: what it asks for exactly before it does anything; None where that is nothing."""
    best: tuple[str, int | str] | None = None
    rank = len(_ENDS)
    for step in rule.steps:
        found = _exact(step)
        if found is not None:
            if _RANKS[found[0]] < rank:
                best, rank = found, _RANKS[found[0]]
        elif acts(step):
            break
    return best


def _exact(step: Step) -> tuple[str, int | str] | None:
    """Give the exact value that a condition asks for; None where it asks for none."""
    if isinstance(step, Address):
        if not step.negated and len(step.ranges) == 1 and step.ranges[0][0] == step.ranges[0][1] and step.end in _RANKS:
            return step.end, step.ranges[0][0]
    elif isinstance(step, Device):
        if not step.negated and len(step.names) == 1 and not step.names[0].endswith("*") and step.end in _RANKS:
            return step.end, step.names[0]
    elif isinstance(step, Number) and step.field in _PORTS and step.mask == -1 and not step.negated:
        first, last = step.ranges[0]
        if len(step.ranges) == 1 and first == last:
            return step.field, first
    return None


def acts(step: Step) -> TypeIs[Action]:
    """Whether a step does something, and asks nothing."""
    return type(step) not in _ASKING
