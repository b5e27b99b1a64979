"""Ways of packets: `facts/routes.py` against the kernel's own answers (`ip route get`), on routes and rules made by chance."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.examine import Facts
from doctor.facts.routes import Packet, Routing
from doctor.registry import load
from doctor.snapshot import Meta, Record, Snapshot

ROOT = Path(__file__).parent.parent.parent
DEVICES = 4
META = Meta("0", "harbor", "", "", 0.0, 0, 0, "root")

_IN_A_NAMESPACE = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from doctor.linux.rtnetlink import Route
subprocess.run(["ip", "-force", "-batch", "-"], input=sys.argv[2], text=True, capture_output=True)
with Route(timeout=5) as route:
    held = {what: getattr(route, what)().decode() for what in ("links", "routes", "rules")}
answers = {}
for line in sys.argv[3].splitlines():
    done = subprocess.run(["ip", "route", "get", *line.split()], text=True, capture_output=True)
    answers[line] = done.stdout or done.stderr
print(json.dumps([held, answers]))
"""


def _address(chance: random.Random) -> str:
    return f"10.{chance.randrange(2)}.{chance.randrange(4)}.{chance.randrange(1, 255)}"


def _setup(chance: random.Random) -> str:
    """Make devices, routes of every type in three tables, and rules of every action."""
    lines = []
    for number in range(DEVICES):
        lines += [f"link add d{number} type bridge", f"address add 192.0.{number}.1/24 dev d{number}"]
        lines.append(f"link set d{number} up")
    for _ in range(40):
        length = chance.choice((0, 8, 14, 16, 22, 23, 24, 25, 30, 32))
        number = chance.randrange(DEVICES)
        kind = chance.choice(("", "", "", "", "blackhole", "unreachable", "throw"))
        way = "" if kind else f"via 192.0.{number}.2 dev d{number}" if chance.random() < 0.5 else f"dev d{number}"
        table = chance.choice(("main", "main", "100", "200"))
        metric = chance.choice(("", "metric 5", "metric 50"))
        network = _network(_address(chance), length)
        lines.append(f"route add {kind} {network}/{length} {way} table {table} {metric}")
    for priority in range(100, 110):
        match = chance.choice(
            ("from all", f"to 10.{chance.randrange(2)}.0.0/16", "fwmark 0x1/0xff", "iif lo", "iif d1")
        )
        inverted = chance.choice(("", "", "", "not "))
        does = chance.choice(
            ("table 100", "table 200", "table main suppress_prefixlength 16", "goto 108", "nop", "table 300")
        )
        if does != "goto 108" or priority < 108:
            lines.append(f"rule add {inverted}{match} priority {priority} {does}")
    return "\n".join(lines) + "\n"


def _network(address: str, length: int) -> str:
    number = int.from_bytes(bytes(map(int, address.split("."))), "big") >> (32 - length) << (32 - length)
    return ".".join(str(byte) for byte in number.to_bytes(4, "big"))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_agrees(seed: int) -> None:
    """Device, or none: as the kernel says."""
    chance = random.Random(seed)  # noqa: S311 - a seed, to have the same again
    asked = [(_address(chance), chance.choice((0, 0, 1, 2))) for _ in range(40)]
    lines = [f"{address} mark {mark}" if mark else address for address, mark in asked]
    argv = ["unshare", "-n", sys.executable, "-c", _IN_A_NAMESPACE, str(ROOT), _setup(chance), "\n".join(lines)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    held, answers = json.loads(done.stdout)
    records = {
        f"netns/host/{what}": Record(name=f"netns/host/{what}", kind="netns", target="host", data=text.encode())
        for what, text in held.items()
    }
    routing: Routing = Facts(load(plugins=False), Snapshot(META, records)).get(Routing)
    differ = []
    for line, (address, mark) in zip(lines, asked, strict=True):
        found = re.search(r" dev (\S+)", answers[line])
        kernel = found[1] if found and "RTNETLINK" not in answers[line] else ""
        ours = routing.find(Packet(address, mark=mark))
        if ours.dev != kernel:
            differ.append((line, answers[line].strip(), ours.dev, ours.rule and ours.rule.by_hand, ours.route))
    assert not differ
