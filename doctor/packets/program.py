"""Netfilter as data: chains of rules, and which of them a hook calls, in order. Both back ends compile into this.

A rule is a list of steps, carried out from left to right until a condition does not hold, as nft(8) has it; a rule of
iptables is its conditions and then its target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from doctor.model import Citation
from doctor.packets.choice import Choice, choice
from doctor.packets.conditions import Condition

if TYPE_CHECKING:
    from doctor.packets.packet import Packet

Hook = Literal["ingress", "prerouting", "input", "forward", "output", "postrouting"]

RAW, CONNTRACK, MANGLE, NAT_DST, FILTER, SECURITY, NAT_SRC = -300, -200, -150, -100, 0, 50, 100
"""Priorities: linux/netfilter_ipv4.h enum nf_ip_hook_priorities."""


class Verdict(Struct, frozen=True):
    """`accept` ends this base chain, `drop` the packet, `return` this chain; `continue` goes on."""

    word: Literal["accept", "drop", "return", "continue"]


class Clamp(Verdict, frozen=True):
    """Go on, and let a SYN announce no larger segments than `size`; 0: than both its ways take (TCPMSS, maxseg)."""

    size: int = 0


class Reject(Struct, frozen=True):
    """The packet ends, and its sender is told: `reset`, `port`, `host`, `net`, `admin`, `proto`."""

    kind: str


class Jump(Struct, frozen=True):
    """Go on in another chain and come back, or (`leave`) not come back."""

    chain: str
    leave: bool = False


class Nat(Struct, frozen=True):
    """Give the connection another end: None keeps what is there. `masquerade` takes the address of the way out.

    `redirect` leads to this host. A range of addresses stands for its first: which one is taken is the kernel's choice.
    """

    kind: Literal["dnat", "snat", "masquerade", "redirect"]
    address: int | None = None
    ports: tuple[int, int] | None = None


class SetNumber(Struct, frozen=True):
    """Set a mark, or the TTL: `(old & keep) ^ value`; with `source`, that mark's bits under `mask` are XORed in instead."""

    field: Literal["mark", "connmark", "ttl"]
    keep: int
    value: int
    source: Literal["", "mark", "connmark"] = ""
    mask: int = 0xFFFFFFFF


class Notrack(Struct, frozen=True):
    """Leave the packet out of conntrack: no NAT, state untracked."""


class Zone(Struct, frozen=True):
    """Look its connection up in another zone."""

    number: int


class Map(Struct, frozen=True):
    """A verdict map: the first element whose conditions hold says what follows."""

    elements: tuple[tuple[tuple[Condition, ...], Action], ...]


class Unmodelled(Struct, frozen=True):
    """A target that may do anything: hand the packet to a program, copy it, translate whole networks."""

    text: str


Action = Verdict | Reject | Jump | Nat | SetNumber | Notrack | Zone | Map | Unmodelled
Step = Condition | Action


class Rule(Struct, frozen=True):
    """One rule: what it does, and where it stands."""

    steps: tuple[Step, ...]
    cited: Citation


class Chain(Struct, frozen=True):
    """One chain. `ruleset` and `table` say whose jumps lead to it."""

    backend: str
    family: str
    table: str
    name: str
    rules: tuple[Rule, ...]
    cited: Citation

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What no other chain has."""
        return (self.backend, self.family, self.table, self.name)


class Base(Struct, frozen=True):
    """A chain that the kernel itself calls. `policy` is `accept` or `drop`; `kind` is `filter`, `nat` or `route`.

    `devices` are those of a chain of the family netdev.
    """

    chain: Chain
    hook: Hook
    priority: int
    kind: Literal["filter", "nat", "route"]
    policy: Literal["accept", "drop"] = "accept"
    devices: tuple[str, ...] = ()


class Program(Struct, frozen=True):
    """All chains of a namespace. `unread` says why a part of its rules is not known; empty: all of them are.

    `partial` counts the rules with a part that is not modelled. `choices` are what `choice` keeps of its chains.
    """

    chains: dict[tuple[str, str, str, str], Chain] = field(default_factory=dict)
    bases: tuple[Base, ...] = ()
    unread: str = ""
    choices: dict[tuple[str, str, str, str], Choice] = field(default_factory=dict)

    def candidates(self, chain: Chain, packet: Packet) -> tuple[Rule, ...]:
        """Give the rules of a chain that a packet may match, in their order."""
        return choice(chain, self.choices).of(packet)

    def at(self, hook: Hook, family: str) -> tuple[Base, ...]:
        """Give what a hook calls for packets of a family (`ip`, `ip6`, `bridge`, `netdev`), in the kernel's order."""
        families = {family, "inet"} if family in {"ip", "ip6"} else {family}
        return tuple(base for base in self.bases if base.hook == hook and base.chain.family in families)

    @property
    def rules(self) -> int:
        """How many rules there are."""
        return sum(len(chain.rules) for chain in self.chains.values())

    @property
    def partial(self) -> int:
        """How many rules hold something that is not modelled."""
        from doctor.packets.conditions import Opaque

        return sum(
            any(isinstance(step, Opaque | Unmodelled) for step in rule.steps)
            for chain in self.chains.values()
            for rule in chain.rules
        )


def joined(programs: list[Program]) -> Program:
    """Join what several back ends hold. Bases of one priority keep the order in which they are given."""
    chains = {key: chain for one in programs for key, chain in one.chains.items()}
    bases = sorted((base for one in programs for base in one.bases), key=lambda base: base.priority)
    return Program(chains, tuple(bases), "; ".join(one.unread for one in programs if one.unread))
