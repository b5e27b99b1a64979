"""Many flows at once: sets of senders and of goals are integers, a bit for each.

Flows are kept as rectangles, a set of senders and the goals that all of them send to. What a rule asks of the ends of a
packet is a rectangle as well, and so taking some of the flows out of the others is a few operations on integers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

_DENSE = 8
"""Bits that are taken from a mask one by one faster than its digits are written."""

Side = Literal["sender", "goal"]
What = Literal["address", "number", "bridge", "port", "outer", "published"]
"""What an end has: an address, a port's number, the bridge that it is behind, and the port of that.

A published port has two of each: `outer` and `published` are the host's address and port, by which it is called.
"""

Flows = dict[int, int]
"""Sets of senders, each with the goals that they send to: rectangles, none of which overlap."""


def add(flows: Flows, senders: int, goals: int) -> None:
    """Add a rectangle."""
    flows[senders] = flows.get(senders, 0) | goals


def cut(flows: Flows, senders: int, goals: int) -> tuple[Flows, Flows]:
    """Give what lies in a rectangle, and the rest.

    >>> cut({0b11: 0b11}, 0b01, 0b10)
    ({1: 2}, {2: 2, 3: 1})
    """
    met = [(sent, meant) for sent, meant in flows.items() if sent & senders and meant & goals]
    if not met:
        return {}, flows
    inside: Flows = {}
    outside = dict(flows)
    for sent, _ in met:
        del outside[sent]
    for sent, meant in met:
        inner, mine = meant & goals, sent & senders
        add(inside, mine, inner)
        if sent != mine:
            add(outside, sent ^ mine, inner)
        if meant != inner:
            add(outside, sent, meant ^ inner)
    return inside, outside


def merge(into: Flows, more: Flows) -> Flows:
    """Add flows to others; gives these."""
    for senders, goals in more.items():
        add(into, senders, goals)
    return into


def bits(mask: int) -> Iterator[int]:
    """Give the numbers of the bits that are set.

    >>> list(bits(0b1010))
    [1, 3]
    """
    few = mask.bit_count()
    if few == 1:
        yield mask.bit_length() - 1
    elif few <= _DENSE:
        while mask:
            bit = mask & -mask
            mask ^= bit
            yield bit.bit_length() - 1
    else:
        # An integer is copied whole for each bit that is taken from it; its digits are written once.
        digits = f"{mask:b}"[::-1]
        at = digits.find("1")
        while at >= 0:
            yield at
            at = digits.find("1", at + 1)


class Ends:
    """Ends by bit, and sets of them by what rules ask of one."""

    def __init__(self) -> None:
        """Start with nobody."""
        self.every = 0
        kinds: tuple[What, ...] = ("address", "number", "bridge", "port", "outer", "published")
        self.by: dict[What, dict[int | str, int]] = {what: {} for what in kinds}
        self._sorted: dict[What, list[int]] = {}
        self._found: dict[tuple[What, Hashable], int] = {}

    def put(self, at: int, **held: int | str) -> None:
        """Add one by its number."""
        bit = 1 << at
        self.every |= bit
        for what, by in self.by.items():
            value = held.get(what)
            if value is not None:
                by[value] = by.get(value, 0) | bit

    def within(self, what: What, ranges: tuple[tuple[int, int], ...]) -> int:
        """Give those whose number is in one of some ranges."""
        by = self.by[what]
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return by.get(ranges[0][0], 0)
        found = self._found.get((what, ranges))
        if found is None:
            values = self._sorted.get(what)
            if values is None:
                values = self._sorted[what] = sorted(value for value in by if isinstance(value, int))
            found = 0
            for first, last in ranges:
                for value in values[bisect_left(values, first) : bisect_right(values, last)]:
                    found |= by[value]
            self._found[what, ranges] = found
        return found

    def named(self, what: What, names: tuple[str, ...]) -> int:
        """Give those that are behind a device of one of some names; `*` at the end stands for any rest."""
        by = self.by[what]
        if len(names) == 1 and not names[0].endswith("*"):
            return by.get(names[0], 0)
        found = self._found.get((what, names))
        if found is None:
            found = 0
            for value, mask in by.items():
                if any(value == name or (name[-1:] == "*" and str(value).startswith(name[:-1])) for name in names):
                    found |= mask
            self._found[what, names] = found
        return found
