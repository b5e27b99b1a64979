"""A packet through the chains of a hook, as net/netfilter runs them: in order of priority, drop final, accept not.

A condition that cannot be known is a question: `Unknowns` answers it one way in one run and the other way in another, so
that a walk is always concrete, and what depends on the question is seen by comparing the runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field, structs

from doctor.model import Citation
from doctor.packets import conditions
from doctor.packets.conditions import (
    Address,
    Any,
    Ct,
    Device,
    Direction,
    Kind,
    Never,
    Number,
    Opaque,
)
from doctor.packets.packet import Packet, Tuple
from doctor.packets.program import (
    Base,
    Chain,
    Clamp,
    Hook,
    Jump,
    Map,
    Nat,
    Notrack,
    Program,
    Reject,
    Rule,
    SetNumber,
    Unmodelled,
    Verdict,
    Zone,
)

if TYPE_CHECKING:
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action

DEPTH = 16
"""Jumps within jumps that the kernel allows (NFT_JUMP_STACK_SIZE); a program of loops ends here."""

_CONDITIONS = (Address, Device, Number, Ct, Direction, Kind, Never, Opaque, Any)


class Connection(Struct):
    """What conntrack of one namespace remembers: the first packet's ends as they were, and what NAT makes of them.

    `src` and `dst` are None until NAT has decided about that end, also that it stays. `replied`: an answer was seen.
    """

    original: Tuple
    zone: int = 0
    src: tuple[int, int] | None = None
    dst: tuple[int, int] | None = None
    mark: int = 0
    status: frozenset[str] = frozenset()
    replied: bool = False

    @property
    def answer(self) -> Tuple:
        """The ends of an answer, as it comes from where the first packet went."""
        src = self.src or (self.original.src, self.original.sport)
        dst = self.dst or (self.original.dst, self.original.dport)
        return Tuple(*dst, *src)


class Unknowns:
    """Answers to what cannot be known, in the order in which it is asked: those given, and then yes, or `rest`."""

    def __init__(self, answers: tuple[bool, ...] = (), *, rest: bool = True) -> None:
        """Take the answers to the first questions."""
        self.given = answers
        self.rest = rest
        self.asked: list[tuple[bool, Question]] = []

    def ask(self, question: Question) -> bool:
        """Answer, and note the question."""
        at = len(self.asked)
        answer = self.given[at] if at < len(self.given) else self.rest
        self.asked.append((answer, question))
        return answer


class Question(Struct, frozen=True):
    """What is not known: in the words of the rule, and where it stands."""

    text: str
    cited: Citation


class Hit(Struct, frozen=True):
    """A rule that matched, or the policy that was met: where, and what it did."""

    base: Base
    chain: Chain
    cited: Citation
    effect: str


class Ended(Struct, frozen=True):
    """The packet ends here: `reject` is how its sender is told, empty when it is not."""

    hit: Hit
    reject: str = ""


class Where(conditions.Where, Protocol):
    """The namespace that a packet is in, as its rules see it."""

    def outward(self, packet: Packet) -> int | None:
        """Give the address that masquerading takes; None where the way out has none."""

    def inward(self, packet: Packet) -> int | None:
        """Give the address that a redirect leads to."""

    def segment(self, packet: Packet) -> int:
        """Give the largest segment for which both ways of a connection have room."""


class Machine:
    """Runs one packet after the other through a namespace's chains; `hits` are the rules that matched, in order."""

    def __init__(
        self, program: Program, where: Where, unknowns: Unknowns, calls: list[tuple[Base, Packet]] | None = None
    ) -> None:
        """Start without hits; `calls` takes each base chain that is run, and the packet as it was."""
        self.calls = calls
        self.program = program
        self.where = where
        self.unknowns = unknowns
        self.hits: list[Hit] = []

    def run(self, hook: Hook, family: str, packet: Packet, *, first: int, last: int, nat: bool = False) -> Ended | None:
        """Run the base chains of a hook with a priority from `first` to `last`; those of nat, or all the others."""
        for base in self.program.at(hook, family):
            if first <= base.priority <= last and (base.kind == "nat") == nat:
                ended = self.base(base, packet)
                if ended is not None:
                    return ended
        return None

    def base(self, base: Base, packet: Packet, connection: Connection | None = None) -> Ended | None:
        """Run one base chain, its policy included; NAT is done to the connection given."""
        if self.calls is not None:
            self.calls.append((base, structs.replace(packet)))
        hook = _Hook(self, base, packet, connection)
        done = hook.chain(base.chain, 0)
        if isinstance(done, Ended):
            return done
        if done is None and base.policy == "drop":
            hit = Hit(base, base.chain, base.chain.cited, "drop")
            self.hits.append(hit)
            return Ended(hit)
        return None


class _Hook(Struct):
    """One packet in one base chain."""

    machine: Machine
    base: Base
    packet: Packet
    connection: Connection | None
    jumps: int = field(default=0)

    def chain(self, chain: Chain, depth: int) -> Ended | str | None:
        """Run a chain: `accept`, an end, or None at its end."""
        for rule in self.machine.program.candidates(chain, self.packet):
            done = self.rule(rule, chain, depth)
            if done == "return":
                return None
            if done is not None:
                return done
        return None

    def holds(self, condition: Condition, rule: Rule) -> bool:
        """Answer a condition; what nobody knows is asked of the run."""
        answer = condition.holds(self.packet, self.machine.where)
        if answer is None:
            text = condition.text if isinstance(condition, Opaque) else rule.cited.excerpt
            return self.machine.unknowns.ask(Question(text, rule.cited))
        return answer

    def rule(self, rule: Rule, chain: Chain, depth: int) -> Ended | str | None:
        """Carry out a rule."""
        for step in rule.steps:
            if isinstance(step, _CONDITIONS):
                if not self.holds(step, rule):
                    return None
            else:
                done = self.act(step, rule, chain, depth)
                if done is not None:
                    return done
        return None

    def note(self, rule: Rule, chain: Chain, effect: str) -> Hit:
        """Note that a rule matched."""
        hit = Hit(self.base, chain, rule.cited, effect)
        self.machine.hits.append(hit)
        return hit

    def act(self, action: Action, rule: Rule, chain: Chain, depth: int) -> Ended | str | None:
        """Carry out a target: None goes on with what follows."""
        match action:
            case Clamp(_, size):
                packet = self.packet
                most = size or self.machine.where.segment(packet)
                packet.mss = min(packet.mss or most, most)
                self.note(rule, chain, f"segments of {packet.mss} at most")
                return None
            case Verdict(word):
                if word == "continue":
                    return None
                hit = self.note(rule, chain, word)
                return Ended(hit) if word == "drop" else word
            case Reject(kind):
                return Ended(self.note(rule, chain, "reject"), kind)
            case Jump(name, leave):
                return self.jump(name, rule, chain, depth, leave=leave)
            case Nat():
                return self.nat(action, rule, chain)
            case Map(elements):
                for conditions, then in elements:
                    if all(self.holds(one, rule) for one in conditions):
                        return self.act(then, rule, chain, depth)
                return None
            case Unmodelled(text):
                if self.machine.unknowns.ask(Question(text, rule.cited)):
                    return None
                return Ended(self.note(rule, chain, "drop"))
            case _:
                self.change(action, rule, chain)
                return None

    def jump(self, name: str, rule: Rule, chain: Chain, depth: int, *, leave: bool) -> Ended | str | None:
        """Go on in another chain."""
        target = self.machine.program.chains.get((*chain.key[:3], name))
        if target is None or depth >= DEPTH or self.jumps >= 10_000:  # noqa: PLR2004 - loops within loops
            text = f"no chain {name}" if target is None else "jumps without an end"
            return "return" if self.machine.unknowns.ask(Question(text, rule.cited)) else None
        self.jumps += 1
        self.note(rule, chain, f"jump {name}")
        done = self.chain(target, depth + 1)
        return ("return" if leave else None) if done is None else done

    def change(self, action: Action, rule: Rule, chain: Chain) -> None:
        """Do what is done to a packet and does not decide about it."""
        packet = self.packet
        match action:
            case SetNumber(name, keep, value, source, mask):
                change = getattr(packet, source) & mask if source else value
                setattr(packet, name, (getattr(packet, name) & keep) ^ change)
                self.note(rule, chain, f"{name} {getattr(packet, name):#x}")
            case Notrack() | Zone() if packet.original is not None:
                pass  # it came by the loopback, and its connection with it: nft_notrack_eval() and others leave it alone
            case Notrack():
                packet.state = "untracked"
                self.note(rule, chain, "not tracked")
            case Zone(zone):
                packet.zone = zone
                self.note(rule, chain, f"zone {zone}")
            case _:
                pass

    def nat(self, action: Nat, rule: Rule, chain: Chain) -> Ended | str | None:
        """Give the connection another end."""
        packet, connection = self.packet, self.connection
        if connection is None:
            return "accept"
        if action.kind in {"masquerade", "snat"}:
            address = action.address
            if action.kind == "masquerade":
                address = self.machine.where.outward(packet)
                if address is None:
                    return Ended(self.note(rule, chain, "no address to masquerade with"))
            was = packet.src, packet.sport
            packet.src = packet.src if address is None else address
            packet.sport = _fit(packet.sport, action.ports)
            connection.src = packet.src, packet.sport
            connection.status |= {"snat"} if connection.src != was else frozenset()  # nf_nat_setup_info()
            effect = f"from {_end(packet, packet.src, packet.sport)}"
        else:
            address = action.address
            if action.kind == "redirect":
                address = self.machine.where.inward(packet)
                if address is None:
                    return Ended(self.note(rule, chain, "no address to redirect to"))
            was = packet.dst, packet.dport
            packet.dst = packet.dst if address is None else address
            packet.dport = _fit(packet.dport, action.ports)
            connection.dst = packet.dst, packet.dport
            connection.status |= {"dnat"} if connection.dst != was else frozenset()
            effect = f"to {_end(packet, packet.dst, packet.dport)}"
        packet.status = connection.status
        self.note(rule, chain, effect)
        return "accept"


def _fit(port: int, ports: tuple[int, int] | None) -> int:
    """Give the port that NAT takes: the present one where it may stay."""
    if ports is None or ports[0] <= port <= ports[1]:
        return port
    return ports[0]


def _end(packet: Packet, address: int, port: int) -> str:
    text = packet.spell(address)
    if not port:
        return text
    return f"[{text}]:{port}" if packet.version == 6 else f"{text}:{port}"  # noqa: PLR2004 - IPv6
