"""Flows through a chain all at once against each packet by itself, on programs made at random: sets, maps, jumps, gotos."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from doctor.model import Citation
from doctor.packets.conditions import Address, Any, Condition, Device, Number, Opaque
from doctor.packets.evaluate import Machine, Unknowns
from doctor.packets.flows import Ends, cut
from doctor.packets.masks import Crowd, Masks
from doctor.packets.packet import Packet
from doctor.packets.program import Action, Base, Chain, Jump, Map, Notrack, Program, Rule, Verdict
from tests.packets.hosts import Box, Host, made

SENDERS = tuple((10 + at, f"br{at % 3}") for at in range(9))
GOALS = tuple((10 + at % 5 * 2, port, f"br{at % 3}") for at, port in enumerate((80, 80, 443, 22, 80, 443, 80)))
WORDS = ("accept", "drop", "drop", "return", "continue")


def ranges(chance: random.Random, most: int) -> tuple[tuple[int, int], ...]:
    """Give one to three ranges."""
    firsts = [chance.randrange(9, most) for _ in range(chance.choice((1, 1, 2, 3)))]
    return tuple((first, first + chance.choice((0, 0, 0, 3))) for first in firsts)


def condition(chance: random.Random, depth: int = 0) -> Condition:
    """Make a condition."""
    negated = chance.random() < 0.3
    kind = chance.randrange(9 if depth < 2 else 6)
    if kind < 2:
        return Address(chance.choice(("src", "dst")), chance.choice((4, 4, 4, 6)), ranges(chance, 20), negated)
    if kind == 2:
        return Device(chance.choice(("iif", "oif")), chance.choice((("br0",), ("br1", "br2"), ("b*",))), negated)
    if kind < 5:
        return Number("dport", chance.choice((((80, 80),), ((1, 100),), ((22, 22), (443, 443)))), negated)
    if kind == 5:
        return Opaque("a rate") if chance.random() < 0.2 else Number("protocol", ((6, 6),), negated)
    several = [tuple(condition(chance, depth + 1) for _ in range(chance.choice((1, 2)))) for _ in range(3)]
    return Any(tuple(several), negated and not depth)  # an inner one that is negated is handed back


def action(chance: random.Random, below: list[str], depth: int = 0) -> Action:
    """Make a target."""
    kind = chance.random()
    if kind < 0.25 and below:
        return Jump(chance.choice(below), leave=chance.random() < 0.3)
    if kind < 0.4 and depth < 2:
        held = [(tuple(condition(chance, 1) for _ in range(chance.choice((1, 2)))), 0) for _ in range(4)]
        return Map(tuple((conditions, action(chance, below, depth + 1)) for conditions, _ in held))
    if kind < 0.43:
        return Notrack()
    word = chance.choice(WORDS if depth else WORDS[:4])
    return Verdict(word)  # type: ignore[arg-type]  # one of WORDS, which are all of them


def program(chance: random.Random) -> Program:
    """Make a base chain and chains below it; some chains are long rows of rules that decide, each about one end."""
    chains: dict[tuple[str, str, str, str], Chain] = {}
    names = [f"c{at}" for at in range(4)]
    for at in reversed(range(4)):
        rules = []
        for number in range(chance.choice((3, 8, 20))):
            steps: list[Condition | Action] = [condition(chance) for _ in range(chance.choice((0, 1, 2)))]
            if chance.random() < 0.6:
                steps.append(Address(chance.choice(("src", "dst")), 4, ((chance.randrange(10, 19),) * 2,)))
            if not steps and number < 2:
                continue
            steps.append(action(chance, names[at + 1 :]))
            rules.append(Rule(tuple(steps), Citation("net/rules", number, f"{names[at]} {number}", names[at])))
        cited = Citation("net/rules", 99, names[at], names[at])
        chain = Chain("nft", "ip", "filter", names[at], tuple(rules), cited)
        chains[chain.key] = chain
    base = Base(chains["nft", "ip", "filter", "c0"], "forward", 0, "filter", chance.choice(("accept", "drop")))
    return Program(chains, (base,))


@pytest.mark.parametrize("seed", range(150))
def test_each_flow_is_as_its_own_packet_is(seed: int) -> None:
    """Who passes, who is dropped and by which rule; those handed back are ones that a rule changes or that are not known."""
    where = made(Host((Box((0,)),))).site.host
    held = program(random.Random(seed))  # noqa: S311 - no secret
    base = held.bases[0]
    senders, goals = Ends(), Ends()
    for at, (address, bridge) in enumerate(SENDERS):
        senders.put(at, address=address, bridge=bridge)
    for at, (address, port, bridge) in enumerate(GOALS):
        goals.put(at, address=address, number=port, bridge=bridge)
    packet = Packet(4, 6, 10, 40000, 10, 80, "br0", "br0")
    roles = {
        "src": ("sender", "address"),
        "iif": ("sender", "bridge"),
        "dst": ("goal", "address"),
        "dport": ("goal", "number"),
        "oif": ("goal", "bridge"),
    }
    crowd = Crowd(packet, roles, where)  # type: ignore[arg-type]  # names of fields, written out
    outcome = Masks(held, senders, goals, {}).base(base, crowd, {senders.every: goals.every})
    for at, (src, iif) in enumerate(SENDERS):
        for of, (dst, dport, oif) in enumerate(GOALS):
            bit = 1 << at, 1 << of
            passed = bool(cut(outcome.passed, *bit)[0])
            alone = bool(cut(outcome.alone, *bit)[0])
            dropped = [hit.cited for one, other, hit in outcome.dropped if one & bit[0] and other & bit[1]]
            assert passed + alone + len(dropped) == 1
            machine = Machine(held, where, Unknowns())
            mine = structs.replace(packet, src=src, iif=iif, dst=dst, dport=dport, oif=oif)
            ended = machine.base(base, mine)
            if alone:
                assert machine.unknowns.asked or mine.state == "untracked"
            else:
                assert (dropped[0] if dropped else None) == (ended.hit.cited if ended else None)
