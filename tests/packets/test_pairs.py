"""Pairs by class against a walk of each pair, on hosts and under rules made at random."""

from __future__ import annotations

import random

import pytest

from doctor.packets.pairs import Goal, Judgement, Pairs, judgement
from doctor.packets.site import HOST
from doctor.packets.stack import OUTSIDE, Flow
from doctor.packets.walk import follow
from tests.packets.hosts import UPLINK, Box, Host, Made, address, bridge, made


def walked(host: Made, source: str, goal: Goal) -> Judgement:
    """Judge one pair by a walk of its own."""
    dst, dport, version, protocol = goal.flow
    return judgement(follow(host.site, Flow(source, dst, dport, version, protocol)), goal)


def told(one: Judgement) -> tuple[object, ...]:
    """Give what has to be the same: the state, why, and the rule."""
    place = one.cited.place if one.cited is not None and one.cited.record.startswith("net/") else ""
    return one.state, one.code, place


def compare(host: Made) -> Pairs:
    """Compare every pair."""
    pairs = Pairs(host.site)
    for source in (*host.spaces, HOST, OUTSIDE):
        for goal in host.goals:
            if source == OUTSIDE == goal.where:
                continue
            found, real = pairs.judge(source, goal), walked(host, source, goal)
            assert told(found) == told(real), (source, goal, found, real, host.text)
    return pairs


def test_a_hundred_containers_cost_a_few_hundred_walks() -> None:
    """Ten networks of ten, every second container publishes a port: thousands of pairs, a few hundred walks."""
    boxes = tuple(
        Box((at % 10,), (80, 5432) if at % 3 else (8000 + at,), ((20000 + at, 80 if at % 3 else 8000 + at),) if at % 2 else ())
        for at in range(100)
    )
    host = made(Host(boxes, 10))
    pairs = compare(host)
    assert pairs.walks < 1000


def somewhere(chance: random.Random, nets: int) -> str:
    """Give an address or prefix that some container may have."""
    own = address(chance.randrange(nets), chance.choice((1, 2, 3, 4, 5)))
    return chance.choice((f"{own}/32", own, f"{own}/30", f"{address(chance.randrange(nets), 0)}/24", "10.0.0.0/15"))


def ruled(chance: random.Random, nets: int) -> str:
    """Give a rule of a user: anything that may tell containers apart."""
    table, chain = chance.choice((("filter", "DOCKER-USER"), ("filter", "FORWARD"), ("raw", "PREROUTING"), ("filter", "OUTPUT")))
    parts = []
    for flag in ("-s", "-d"):
        if chance.random() < 0.45:
            parts.append(f"{chance.choice(('', '', '! '))}{flag} {somewhere(chance, nets)}")
    if chance.random() < 0.3:
        parts.append(f"-i {bridge(chance.randrange(nets))}" if chain != "OUTPUT" else "")
    if chance.random() < 0.2 and chain not in {"PREROUTING", "OUTPUT"}:
        parts.append(f"! -o {bridge(chance.randrange(nets))}")
    ports = chance.choice(("", "", "--dport 80", "--sport 80", "--dport 8001", "--dport 1:1023", "! --dport 80", "-m multiport --dports 80,8001"))
    parts.append(chance.choice(("", "-p tcp")) if not ports else f"-p tcp -m tcp {ports}")
    if chain != "PREROUTING":
        parts.append(
            chance.choice(
                ("",) * 6
                + ("-m conntrack --ctstate NEW", "-m conntrack --ctstate ESTABLISHED", "-m conntrack --ctorigdstport 20001")
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
    "*nat\n:OUTPUT ACCEPT\n-A OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:4711\nCOMMIT\n",
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


@pytest.mark.parametrize("seed", range(60))
def test_each_pair_is_as_its_own_walk_says(seed: int) -> None:
    """Whatever tells containers apart: what one walk says of all pairs of two classes, each pair's own walk says too."""
    compare(any_host(random.Random(seed)))  # noqa: S311 - no secret
