"""How fast all pairs are judged, and by how many walks. Run as `python -m bench.pairs [CONTAINERS NETWORKS]`; needs no root.

The host has a raw and a filter rule and NAT for each container, every second one publishes a port, all listen on two
ports. What is printed is a ratio too, to parsing and compiling the rules alone, as the seconds are the machine's.
"""

from __future__ import annotations

import sys
import time

from doctor.facts.rules import Tables, parse_save
from doctor.packets import iptables
from doctor.packets.pairs import Pairs
from doctor.packets.site import HOST
from doctor.packets.stack import OUTSIDE
from tests.packets.hosts import Box, Host, made


def main(containers: int = 100, networks: int = 10) -> None:
    """Judge every pair, and say what it took."""
    boxes = tuple(Box((at % networks,), (80, 5432), ((20000 + at, 80),) if at % 2 else ()) for at in range(containers))
    host = made(Host(boxes, networks))
    began = time.perf_counter()
    chains, _ = parse_save(host.text, "net/iptables-nft", "")
    rules = iptables.compile_tables([Tables("ip", "nft", "net/iptables-nft", chains, "")]).rules
    parsed = time.perf_counter() - began
    began = time.perf_counter()
    pairs = Pairs(host.site)
    count = 0
    for source in (*host.spaces, HOST, OUTSIDE):
        for goal in host.goals:
            if (source, goal.where) != (OUTSIDE, OUTSIDE):
                pairs.judge(source, goal)
                count += 1
    took = time.perf_counter() - began
    print(
        f"{containers} containers on {networks} networks, {rules} rules: {count} pairs by {pairs.walks} walks, "
        f"{took:.2f} s, {took / parsed:.0f} times a parse of the rules ({parsed * 1000:.0f} ms)"
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
