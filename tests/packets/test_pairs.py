"""Pairs by class against a walk of each pair, on hosts and under rules made at random."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from doctor.packets.flow import OUTSIDE, Flow
from doctor.packets.packet import number
from doctor.packets.pairs import Judgement, Pairs, judgement
from doctor.packets.site import HOST
from doctor.packets.walk import STRANGERS, follow
from tests.packets.hosts import UPLINK, Box, Host, Made, address, bridge, made

if TYPE_CHECKING:
    from doctor.packets.goal import Goal


def walked(host: Made, source: str, goal: Goal) -> Judgement:
    """Judge one pair by a walk of its own."""
    dst, dport, version, protocol = goal.flow
    return judgement(follow(host.site, Flow(source, dst, dport, version, protocol)), source, goal, host.site)


def told(one: Judgement) -> tuple[object, ...]:
    """Give what has to be the same: the state, why, and the rule."""
    place = one.cited.place if one.cited is not None and one.cited.record.startswith("net/") else ""
    return one.state, one.code, place


def compare(host: Made, every: int = 1) -> Pairs:
    """Judge every pair, and compare every so many of them with a walk of its own."""
    pairs = Pairs(host.site, clients={4: (number(STRANGERS[4]),)})
    pairs.expect((*host.spaces, OUTSIDE), host.goals)
    for goal in host.goals:
        pairs.column(goal)  # what is judged for sets of senders is then what single pairs are told
    at = 0
    for source in (*host.spaces, HOST, OUTSIDE):
        for goal in host.goals:
            if source == OUTSIDE == goal.where:
                continue
            found = pairs.judge(source, goal)
            at += 1
            if at % every:
                continue
            real = walked(host, source, goal)
            assert told(found) == told(real), (source, goal, found, real, host.text)
    return pairs


def test_a_hundred_containers_cost_a_few_hundred_walks() -> None:
    """Ten networks of ten, every second container publishes a port: thousands of pairs, a few hundred walks."""
    boxes = tuple(
        Box(
            (at % 10,),
            (80, 5432) if at % 3 else (8000 + at,),
            ((20000 + at, 80 if at % 3 else 8000 + at),) if at % 2 else (),
        )
        for at in range(100)
    )
    host = made(Host(boxes, 10))
    pairs = compare(host, 37)
    assert pairs.walks < 1000


def somewhere(chance: random.Random, nets: int) -> str:
    """Give an address or prefix that some container may have."""
    own = address(chance.randrange(nets), chance.choice((1, 2, 3, 4, 5)))
    return chance.choice((f"{own}/32", own, f"{own}/30", f"{address(chance.randrange(nets), 0)}/24", "10.0.0.0/15"))


def ruled(chance: random.Random, nets: int) -> str:
    """Give a rule of a user: anything that may tell containers apart."""
    table, chain = chance.choice(
        (("filter", "DOCKER-USER"), ("filter", "FORWARD"), ("raw", "PREROUTING"), ("filter", "OUTPUT"))
    )
    parts = [
        f"{chance.choice(('', '', '! '))}{flag} {somewhere(chance, nets)}"
        for flag in ("-s", "-d")
        if chance.random() < 0.45
    ]
    if chance.random() < 0.3:
        parts.append(f"-i {bridge(chance.randrange(nets))}" if chain != "OUTPUT" else "")
    if chance.random() < 0.2 and chain not in {"PREROUTING", "OUTPUT"}:
        parts.append(f"! -o {bridge(chance.randrange(nets))}")
    ports = chance.choice(
        (
            "",
            "",
            "--dport 80",
            "--sport 80",
            "--dport 8001",
            "--dport 1:1023",
            "! --dport 80",
            "-m multiport --dports 80,8001",
        )
    )
    parts.append(chance.choice(("", "-p tcp")) if not ports else f"-p tcp -m tcp {ports}")
    if chain != "PREROUTING":
        parts.append(
            chance.choice(
                ("",) * 6
                + (
                    "-m conntrack --ctstate NEW",
                    "-m conntrack --ctstate ESTABLISHED",
                    "-m conntrack --ctorigdstport 20001",
                )
                + (f"-m conntrack --ctorigdst {UPLINK}", f"-m conntrack --ctorigsrc {somewhere(chance, nets)}")
                + ("-m limit --limit 5/sec", "-m physdev --physdev-in veth3e9")
            )
        )
    targets = ["DROP", "DROP", "ACCEPT", "RETURN"]
    if table == "filter":
        targets.append("REJECT")
    parts.append(f"-j {chance.choice(targets)}")
    return " ".join(part for part in (table, f"-A {chain}", *parts) if part)


def translated(chance: random.Random, nets: int) -> str:
    """Give a rule of NAT that leads somewhere else."""
    own = address(chance.randrange(nets), chance.choice((2, 3)))
    return chance.choice(
        (
            f"nat -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination {own}:80",
            "nat -A PREROUTING -p tcp -m tcp --dport 20000 -j REDIRECT --to-ports 20001",
            f"nat -A POSTROUTING -s {own}/32 -j SNAT --to-source 203.0.113.9",
            f"nat -A DOCKER -p tcp -m tcp --dport 20002 -j DNAT --to-destination {own}:80",
            f"nat -A POSTROUTING -d {own}/32 -j MASQUERADE",
        )
    )


INNER = (
    "*filter\n:INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 80 -j DROP\nCOMMIT\n",
    "*filter\n:INPUT DROP\nCOMMIT\n",
    "*filter\n:OUTPUT ACCEPT\n-A OUTPUT -d 10.0.0.3/32 -j REJECT\nCOMMIT\n",
    "*nat\n:OUTPUT ACCEPT\n-A OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:4\nCOMMIT\n",
)


def any_host(chance: random.Random) -> Made:
    """Make a host of a few containers in which much is unusual."""
    nets = chance.randint(1, 3)
    boxes = []
    for at in range(chance.randint(4, 14)):
        mine = tuple(chance.sample(range(nets), min(nets, chance.choice((1, 1, 1, 2)))))
        listens = chance.choice(((80,), (80,), (80, 5432), (), (8001,)))
        publishes = ((20000 + at, chance.choice((80, 8001))),) if chance.random() < 0.5 else ()
        strange = chance.random()
        boxes.append(
            Box(
                mine,
                listens,
                publishes,
                down=strange < 0.07,
                isolated=0.07 < strange < 0.15,
                inner=chance.choice(INNER) if strange > 0.8 else "",
            )
        )
    rules = [ruled(chance, nets) for _ in range(chance.choice((0, 1, 2, 4, 8)))]
    rules += [translated(chance, nets)] if chance.random() < 0.3 else []
    routes = []
    if chance.random() < 0.2:
        kind = chance.choice(("blackhole", "prohibit", "unicast"))
        routes.append((address(chance.randrange(nets), 3), bridge(0) if kind == "unicast" else "", kind))
    some = range(nets)
    return made(
        Host(
            tuple(boxes),
            nets,
            frozenset(net for net in some if chance.random() < 0.2),
            frozenset(net for net in some if chance.random() < 0.2),
            tuple(rules),
            raw=chance.random() < 0.6,
            proxies=chance.random() < 0.6,
            bridged=chance.random() < 0.8,
            forwarding=chance.random() < 0.95,
            routes=tuple(routes),
        )
    )


_FIRST, _, _LAST = os.environ.get("DOCTOR_PAIRS", "0:60").partition(":")
SEEDS = range(int(_FIRST), int(_LAST))
"""A host takes up to three seconds; `DOCTOR_PAIRS=FIRST:LAST` makes others than the usual ones."""


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 4 else []) for seed in SEEDS])
def test_each_pair_is_as_its_own_walk_says(seed: int) -> None:
    """Whatever tells containers apart: what one walk says of all pairs of two classes, each pair's own walk says too."""
    compare(any_host(random.Random(seed)))  # noqa: S311 - no secret


def test_what_stands_between_others_is_not_exchanged() -> None:
    """Two addresses have a rule of one form each, and a rule about a third stands between: it tells them apart."""
    rules = (
        "filter -A DOCKER-USER -d 10.0.0.3/32 -m conntrack --ctstate NEW -j DROP",
        "filter -A DOCKER-USER -s 10.0.0.2/32 -j ACCEPT",
        "filter -A DOCKER-USER -d 10.0.0.4/32 -m conntrack --ctstate NEW -j DROP",
    )
    host = made(Host((Box((0,)), Box((0,)), Box((0,))), 1, rules=rules))
    pairs = compare(host)
    third, fourth = (next(goal for goal in host.goals if goal.where == host.spaces[at]) for at in (1, 2))
    assert pairs.judge(host.spaces[0], third).state == "no"
    assert pairs.judge(host.spaces[0], fourth).state == "yes"


def test_nat_to_somebody_else_is_walked_for_each() -> None:
    """What is led to a third container works for all but that one, whose packet comes back by its own port."""
    rules = ("nat -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:80",)
    host = made(Host(tuple(Box((0,)) for _ in range(5)), 1, rules=rules))
    compare(host)


def test_nat_to_one_of_a_class_tells_that_one_apart() -> None:
    """What is led to one goal arrives there when that one is meant, and elsewhere when its neighbour is."""
    rules = ("nat -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.3:80",)
    compare(made(Host((Box((1,)), *(Box((0,)) for _ in range(4))), 2, rules=rules, raw=False)))


def test_a_column_says_for_all_senders_at_once_what_each_pair_says() -> None:
    """Sets of senders, bit by bit: together they are all but the goal's own, and each has the answer of its pair."""
    boxes = tuple(Box((at % 5,), (80, 5432), ((20000 + at, 80),) if at % 2 else ()) for at in range(40))
    rules = (
        "filter -A DOCKER-USER -s 10.0.1.2/32 -d 10.0.1.0/24 -j DROP",
        "filter -A DOCKER-USER -s 10.0.0.0/29 -p tcp -m tcp --dport 5432 -j DROP",
        "filter -A DOCKER-USER -d 10.0.2.4/32 -m limit --limit 5/sec -j DROP",
    )
    for raw in (True, False):
        host = made(Host(boxes, 5, icc_off=frozenset({3}), rules=rules, raw=raw))
        pairs, plain = Pairs(host.site), Pairs(host.site)
        pairs.expect(host.spaces, host.goals)
        for goal in host.goals:
            found = dict[str, Judgement]()
            for mask, judged in pairs.column(goal):
                senders = [host.spaces[at] for at in range(len(host.spaces)) if mask >> at & 1]
                assert not found.keys() & set(senders)
                found |= dict.fromkeys(senders, judged)
            found.pop(goal.where, None)
            assert found.keys() == set(host.spaces) - {goal.where}
            for sender, judged in found.items():
                other = plain.judge(sender, goal)
                assert (judged.state, judged.code) == (other.state, other.code), (sender, goal)
        assert pairs.walks < plain.walks


def test_many_containers_cost_no_more_walks_than_few() -> None:
    """What one walk met is met by all: ten times the containers and networks, and as many walks between containers."""
    walks = []
    for size in (4, 40):
        boxes = tuple(Box((at % size,), (80, 5432)) for at in range(5 * size))
        host = made(Host(boxes, size))
        pairs = Pairs(host.site)
        pairs.expect(host.spaces, host.goals)
        for goal in host.goals[:-1]:
            pairs.column(goal)
        walks.append(pairs.walks)
    assert walks[0] == walks[1] < 10


def test_one_rule_of_many_is_named() -> None:
    """The rule that is cited is that about the container itself, not that about the one that was walked."""
    host = made(Host(tuple(Box((at % 2,)) for at in range(8)), 2))
    pairs = compare(host)
    cited = {
        found.cited.place
        for source in host.spaces
        for goal in host.goals
        if (found := pairs.judge(source, goal)).cited is not None
    }
    assert cited == {f"raw PREROUTING {at}" for at in range(1, 9)}
    assert pairs.walks < len(host.spaces) * len(host.goals) / 2
