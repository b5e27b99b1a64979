"""What a rule asks of a packet: each kind is one struct, and answers yes, no, or that it cannot be known (None).

Unknown is never taken for yes or no: `evaluate` follows both. See iptables-extensions(8), nft(8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from doctor.packets.packet import Packet

Answer = bool | None
Ranges = tuple[tuple[int, int], ...]
"""Numbers from first to last, both included."""

NumberField = Literal[
    "sport", "dport", "protocol", "mark", "connmark", "ttl", "zone", "icmp", "version", "flags",
    "original.src", "original.dst", "original.sport", "original.dport",
]  # fmt: skip


class Where(Protocol):
    """What a condition may ask of the namespace that the packet is in."""

    def kind(self, address: int, packet: Packet, device: str = "") -> str:
        """Give the type of an address: `local`, `unicast`, `broadcast`, `multicast`; `device` limits `local` to it."""


class Address(Struct, frozen=True):
    """The source or destination lies in one of these ranges; a packet of another IP version never does."""

    end: Literal["src", "dst"]
    version: int
    ranges: Ranges
    negated: bool = False

    def holds(self, packet: Packet, _: Where) -> Answer:
        """Answer for a packet."""
        if packet.version != self.version:
            return False
        value = packet.src if self.end == "src" else packet.dst
        return _within(value, self.ranges) != self.negated


class Device(Struct, frozen=True):
    """It came in or goes out by one of these devices; a name that ends in `*` stands for all that begin so."""

    end: Literal["iif", "oif", "physin", "physout"]
    names: tuple[str, ...]
    negated: bool = False

    def holds(self, packet: Packet, _: Where) -> Answer:
        """Answer for a packet."""
        value: str = getattr(packet, self.end)
        found = any(value.startswith(name[:-1]) if name.endswith("*") else value == name for name in self.names)
        return found != self.negated


class Number(Struct, frozen=True):
    """A number of the packet, after a mask, lies in one of these ranges."""

    field: NumberField
    ranges: Ranges
    negated: bool = False
    mask: int = -1

    def holds(self, packet: Packet, _: Where) -> Answer:
        """Answer for a packet."""
        if self.field.startswith("original."):
            if packet.original is None:
                return False
            value = getattr(packet.original, self.field[9:])
        elif self.field == "connmark" and packet.original is None:
            return False  # connmark_mt() and nft_ct_get_eval(): without a connection there is no mark to compare
        else:
            value = getattr(packet, self.field)
        return _within(value & self.mask, self.ranges) != self.negated


class Ct(Struct, frozen=True):
    """The state of its connection, or what was done to it, is one of these: `new`, `established`, `dnat`, ..."""

    words: frozenset[str]
    negated: bool = False

    def holds(self, packet: Packet, _: Where) -> Answer:
        """Answer for a packet."""
        return (packet.state in self.words or bool(packet.status & self.words)) != self.negated


class Direction(Struct, frozen=True):
    """It goes with (`original`) or against (`reply`) its connection's first packet."""

    reply: bool
    negated: bool = False

    def holds(self, packet: Packet, _: Where) -> Answer:
        """Answer for a packet."""
        return packet.original is not None and (packet.reply == self.reply) != self.negated


class Kind(Struct, frozen=True):
    """An address of it is of one of these types to the routing of its namespace; `limit` to the device of that side."""

    end: Literal["src", "dst"]
    kinds: frozenset[str]
    negated: bool = False
    limit: Literal["", "iif", "oif"] = ""

    def holds(self, packet: Packet, where: Where) -> Answer:
        """Answer for a packet."""
        device = getattr(packet, self.limit) if self.limit else ""
        kind = where.kind(packet.src if self.end == "src" else packet.dst, packet, device)
        return (kind in self.kinds) != self.negated


class Never(Struct, frozen=True):
    """What a packet of this kind is not: a frame of another protocol, a fragment."""

    def holds(self, _: Packet, __: Where) -> Answer:
        """Answer no."""
        return False


class Opaque(Struct, frozen=True):
    """What is not modelled, or depends on what is not in the packet (a rate, a clock, a set): nobody knows."""

    text: str

    def holds(self, _: Packet, __: Where) -> Answer:
        """Answer that it is not known."""
        return None


class Any(Struct, frozen=True):
    """One of these tuples of conditions holds whole: elements of a set of concatenations, of prefixes of both versions."""

    several: tuple[tuple[Condition, ...], ...]
    negated: bool = False

    def holds(self, packet: Packet, where: Where) -> Answer:
        """Answer for a packet."""
        unknown = False
        for conditions in self.several:
            answers = [one.holds(packet, where) for one in conditions]
            if all(answers):
                return not self.negated
            unknown = unknown or (None in answers and False not in answers)
        return None if unknown else self.negated


Condition = Address | Device | Number | Ct | Direction | Kind | Never | Opaque | Any


def _within(value: int, ranges: Ranges) -> bool:
    for first, last in ranges:  # noqa: SIM110 - half as fast as any(), measured at 10,000 rules
        if first <= value <= last:
            return True
    return False
