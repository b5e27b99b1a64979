"""How fast all pairs of containers are judged, and by how many walks. Run as `python -m bench.pairs [CONTAINERS NETWORKS]`.

Needs no root. Hosts of growing size: containers with four ports each, all published, under the rules of Docker 28 (a raw
rule a container; a filter rule, DNAT and masquerade a port), with and without rules of a user for single containers. What
is judged is every container to every port of every other one and one port where nobody listens, from facts that are
parsed. Seconds are processor time, and the ratios are to parsing and compiling the same rules.
"""

from __future__ import annotations

import gc
import random
import sys
import time

from doctor.facts.rules import Tables, parse_save
from doctor.packets import iptables
from doctor.packets.flow import ICMP, OUTSIDE, Flow
from doctor.packets.goal import Goal
from doctor.packets.pairs import Pairs
from doctor.packets.site import HOST
from doctor.packets.walk import follow
from tests.packets.hosts import Box, Host, Made, address, made

PORTS = (80, 443, 5432, 9000)

SIZES = ((125, 12), (250, 25), (500, 50), (1000, 50), (2000, 80), (5000, 100))


def host_of(containers: int, networks: int, rules: int = 0) -> Made:
    """Build a host; `rules` are those of a user, each for one container."""
    boxes = tuple(
        Box((at % networks,), PORTS, tuple((10000 + at * 4 + of, port) for of, port in enumerate(PORTS)))
        for at in range(containers)
    )
    chance = random.Random(1)  # noqa: S311 - no secret
    user = []
    for _ in range(rules):
        net, place = chance.randrange(networks), 2 + chance.randrange(containers // networks)
        other = address(chance.randrange(networks), 0)
        end = chance.choice(
            (f"-s {address(net, place)}/32 -d {other}/24", f"-d {address(net, place)}/32 -s {other}/24")
        )
        port = chance.choice((*PORTS, 22))
        user.append(f"filter -A DOCKER-USER {end} -p tcp -m tcp --dport {port} -j {chance.choice(('DROP', 'RETURN'))}")
    host = made(Host(boxes, networks, rules=tuple(user), proxies=False))
    for key in host.site.spaces:
        _ = host.site.spaces[key].links
    return host


def goals_of(host: Made) -> list[Goal]:
    """Give the goals in containers: the ports that they listen on, and one more."""
    return [
        goal if goal.protocol != ICMP else Goal(goal.where, goal.dst, 8, goal.version)
        for goal in host.goals
        if goal.where not in {HOST, OUTSIDE} and goal.behind is None
    ]


def measured(containers: int, networks: int, rules: int = 0) -> None:
    """Judge every pair, and say what it took."""
    host = host_of(containers, networks, rules)
    began = time.process_time()
    chains, _ = parse_save(host.text, "net/iptables-nft", "")
    count = iptables.compile_tables([Tables("ip", "nft", "net/iptables-nft", chains, "")]).rules
    parsed = time.process_time() - began
    goals = goals_of(host)
    began = time.process_time()
    pairs = Pairs(host.site)
    pairs.expect(host.spaces, goals)
    reached = sum(
        (mask & ~(1 << int(goal.where) - int(host.spaces[0]))).bit_count()
        for goal in goals
        for mask, judged in pairs.column(goal)
        if judged.arrives
    )
    took = time.process_time() - began
    began = time.process_time()
    follow(host.site, Flow(host.spaces[0], goals[-1].dst, 80))
    trace = time.process_time() - began
    print(
        f"{containers} containers on {networks} networks, {count} rules ({rules} of a user): "
        f"{containers * len(goals) / 1e6:.2f} M triples, {reached} reach, {pairs.walks} walks: {took:.2f} s, "
        f"{took / parsed:.1f} times a parse of the rules ({parsed:.2f} s); one trace {trace * 1000:.1f} ms"
    )


def main(*asked: int) -> None:
    """Measure what is asked, or all sizes and then some with rules of a user."""
    gc.disable()  # as doctor does
    if asked:
        measured(*asked)
        return
    for containers, networks in SIZES:
        measured(containers, networks)
    for rules in (100, 1000, 3000):
        measured(1000, 50, rules)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4]))
