"""What rules ask about the ends of a packet, on the way there and on the way back, and their form with the ends left out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.packets.conditions import Address, Any, Number, Ranges
from doctor.packets.program import Map, Nat, Rule
from doctor.packets.walk import CLIENT_PORT

if TYPE_CHECKING:
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action

Party = Literal["source", "goal", "client"]
FORWARD: dict[str, Party] = {
    "src": "source",
    "sport": "client",
    "dst": "goal",
    "dport": "goal",
    "original.src": "source",
    "original.sport": "client",
    "original.dst": "goal",
    "original.dport": "goal",
}
_BACK: dict[str, Party] = FORWARD | {"src": "goal", "sport": "goal", "dst": "source", "dport": "client"}
WAYS = (FORWARD, _BACK)
"""Whose a field of a packet is, on the way there and on the way back."""

CLIENT = (CLIENT_PORT, 0)
"""Ports of a client: 0 in an error about its packet."""


class Asks(Struct, frozen=True):
    """What a condition asks of an end."""

    field: str
    ranges: Ranges
    negated: bool
    mask: int
    version: int

    @property
    def single(self) -> int | None:
        """The one value that it asks for, None for all else."""
        first, last = self.ranges[0] if len(self.ranges) == 1 else (0, 1)
        return first if first == last and not self.negated and self.mask == -1 else None

    def holds(self, value: int) -> bool:
        """Whether a value satisfies it."""
        found = any(first <= value & self.mask <= last for first, last in self.ranges)
        return found != self.negated


class Row(Struct, frozen=True):
    """A rule that asks about an end: which chain, in which run of rules that ask of the same ends, and its number there.

    `own` says that it may be exchanged for one of the same form about another address.
    """

    chain: Hashable
    run: int
    at: int
    rule: Rule
    asks: tuple[Asks, ...]
    several: tuple[tuple[Asks, ...], ...]
    own: bool
    order: int = 0
    """Its place among all rules that were read."""

    @property
    def one_end(self) -> bool:
        """Whether it asks for an address and a port of one end, and for nothing else of any end."""
        return tuple(sorted(one.field for one in self.asks)) in {("dport", "dst"), ("sport", "src")}

    @property
    def every(self) -> tuple[Asks, ...]:
        """All that it asks, what elements of its sets ask too."""
        return self.asks + tuple(one for held in self.several for one in held)


class Values(Struct, frozen=True):
    """What the fields of a packet are when they are one end's."""

    party: Party
    fields: dict[str, int]


def matches(row: Row, values: Values) -> tuple[object, ...]:
    """Say for both ways whether a rule is about an end: it asks of it, and what it asks holds."""
    return tuple(_about(row, values, way) for way in WAYS)


def _about(row: Row, values: Values, way: dict[str, Party]) -> object:
    asked = False
    for one in row.asks:
        answer = _answer(one, values, way)
        if answer is False:
            return False
        asked = asked or answer is True
    several = tuple(
        at
        for at, conditions in enumerate(row.several)
        if True in (answers := [_answer(one, values, way) for one in conditions]) and False not in answers
    )
    return several or asked


def _answer(one: Asks, values: Values, way: dict[str, Party]) -> bool | None:
    party = way[one.field]
    if party == values.party:
        return one.holds(values.fields[one.field])
    if party == "client" and not any(one.holds(port) for port in CLIENT):
        return False
    return None


def row_of(chain: Hashable, at: int, rule: Rule) -> Row:
    """Read what a rule asks of ends."""
    asks: list[Asks] = []
    several: list[tuple[Asks, ...]] = []
    for step in rule.steps:
        found = asked_by(step)
        if found is not None:
            asks.append(found)
        else:
            several += _several(step)
    own = not several and not any(len({way[one.field] for one in asks} - {"client"}) > 1 for way in WAYS)
    return Row(chain, 0, at, rule, tuple(asks), tuple(several), own)


def asked_by(step: Condition | Action) -> Asks | None:
    """Give what a condition asks of an end; None where that is nothing, or more than one thing."""
    if isinstance(step, Address):
        return Asks(step.end, step.ranges, step.negated, -1, step.version)
    if isinstance(step, Number) and step.field in FORWARD:
        return Asks(step.field, step.ranges, step.negated, step.mask, 0)
    return None


def _several(step: Condition | Action) -> list[tuple[Asks, ...]]:
    """Give what the elements of a set or map ask of ends; those that ask nothing stand as what they are: empty."""
    if isinstance(step, Any):
        inner = step.several
    elif isinstance(step, Map):
        inner = tuple(conditions for conditions, _ in step.elements)
    else:
        return []
    found = []
    for conditions in inner:
        asks: list[Asks] = []
        for one in conditions:
            simple = asked_by(one)
            asks += [simple] if simple else _flat(one)
        found.append(tuple(asks))
    return found if any(found) else []


def _flat(step: Condition) -> list[Asks]:
    """Give all that a set within an element asks; together they say too little, but never of another end."""
    return [one for held in _several(step) for one in held]


def kind_of(row: Row) -> Hashable:
    """Say whose ends a rule asks about on each way; rules of one kind that follow each other are a run."""
    if not row.asks and not row.several:
        return ()
    if not row.own:
        return ("mixed", row.at)
    return tuple(frozenset(way[one.field] for one in row.asks) for way in WAYS)


def about_itself(row: Row) -> bool:
    """Whether a rule is only for what somebody sends to himself: `-s X -d X`."""
    ends = {one.field: one.single for one in row.asks}
    return ends.get("src") is not None and ends.get("src") == ends.get("dst")


def form_of(row: Row, names: Mapping[int, Hashable], ports: Mapping[int, Hashable]) -> Hashable:
    """Give a rule with the end's own addresses and ports left out."""
    found: list[Hashable] = []
    for step in row.rule.steps:
        asks = asked_by(step)
        if asks is not None and asks.single is not None:
            held = ports if asks.field.endswith("port") else names
            found.append((asks.field, asks.version, held.get(asks.single, asks.single)))
        elif isinstance(step, Nat):
            port = step.ports
            inner = ports.get(port[0], port) if port is not None and port[0] == port[1] else port
            address = names.get(step.address, step.address) if step.address is not None else None
            found.append((step.kind, address, inner))
        else:
            found.append(step)
    return tuple(found)
