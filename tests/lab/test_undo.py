"""Each kind of fault is felt, and what it gives back undoes it: the host is as it was, rule for rule and link for link."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.labs import lab
from doctor.labs.faults import KINDS, Place, take_back
from doctor.labs.loading import parse
from doctor.labs.replay import Failed
from tests.lab.test_files import WHOLE

if TYPE_CHECKING:
    from doctor.labs.faults import Fault
    from doctor.labs.replay import Stage

SCENARIO = parse(WHOLE.replace("web = {", 'cron = { state = "exited", command = ["true"] }\nweb = {'), "undo.toml")
SEEN = r"""
iptables-save | sed 's/\[[0-9]*:[0-9]*\]//; /^#/d'
nft list tables | sort; ip -o link | sed 's/ link-netns.*//; s/^[0-9]*: //'
ip -o -4 addr | sed 's/^[0-9]*: //'; ip route; ip rule
nsenter -t {pid:web} -n sh -c 'ip -o link show eth0 | sed "s/ link-netns.*//"; ip -o -4 addr; ip route'
sysctl net.ipv4.ip_forward; cat /etc/docker/daemon.json /srv/file 2>&1; stat -c '%a %n' /srv/file /run/docker.sock
find {layer:cron} {record:cron} {mount:cron} -type f | sort | xargs md5sum
ls -l /var/lib/docker/overlay2/l | sed 's/.*:[0-9][0-9] //'; ls /run/docker/netns | grep left
sed -n 's/^State:.//p' /proc/{dockerd}/status | tr RDS sss; docker info -f '{{.LiveRestoreEnabled}}'
docker ps -a --format '{{.Names}} {{.State}}'
"""
"""What a fault may change."""
MADE: dict[str, dict[str, object]] = {
    "rule.insert": {"chain": "FORWARD", "rule": "-i docker0 -j DROP", "at": 2},
    "rule.append": {"chain": "INPUT", "rule": "-i docker0 -j DROP"},
    "rule.delete": {"match": "DOCKER.* -d {ip:web}/32 .*--dport 80|! -o docker0 -j MASQUERADE", "table": "nat"},
    "rules.flush": {"tables": ["filter", "nat"], "policy": "ACCEPT"},
    "rules.policy": {"policy": "ACCEPT"},
    "nft.table": {"table": "inet mine", "text": "chain c { type filter hook input priority 0; }"},
    "sysctl": {"key": "net.ipv4.ip_forward", "value": "0"},
    "link.state": {"link": "{veth:web}", "state": "down"},
    "link.master": {"link": "{veth:web}"},
    "link.mtu": {"inside": "web", "link": "eth0", "mtu": 1400},
    "link.rename": {"link": "docker0", "name": "mine0"},
    "link.add": {"name": "mine0", "address": "10.99.0.1/24"},
    "link.delete": {"link": "spare0"},
    "address.add": {"link": "docker0", "address": "10.99.0.1/24"},
    "address.delete": {"link": "spare0", "address": "10.98.0.1/24"},
    "route.add": {"route": "10.99.0.0/24 dev docker0"},
    "route.delete": {"inside": "web", "route": "default"},
    "policy.add": {"rule": "from 10.99.0.0/24 lookup main priority 100"},
    "file.write": {"path": "/srv/file", "text": "another\n"},
    "file.replace": {"path": "/srv/file", "old": "one", "new": "two"},
    "file.remove": {"path": "/srv/file"},
    "file.mode": {"path": "/srv/file", "mode": "666"},
    "daemon": {"set": {"live-restore": True}, "then": "reload"},
    "process.signal": {"process": "dockerd", "signal": "STOP"},
    "netns.leak": {"name": "left"},
    "layer": {"of": "cron", "which": "own", "part": "link", "damage": "empty"},
    "run": {"run": "echo x >>/srv/file", "undo": "sed -i '$d' /srv/file"},
}
LASTS = {"unmount": "it is not mounted again", "wait": "it changes nothing"}
"""Kinds that have no undo, and why."""


def test_every_kind_is_tried() -> None:
    """A new kind of fault has a row here, or a reason."""
    assert {*MADE} | {*LASTS} == {*KINDS}


def _undone(stage: Stage) -> None:
    at = Place(ground=stage.ground, names=stage.names)
    at.sh("printf 'one\\n' >/srv/file; mkdir -p /etc/docker; echo '{}' >/etc/docker/daemon.json")
    at.sh("ip link add spare0 type bridge; ip address add 10.98.0.1/24 dev spare0; ip link set spare0 up")
    at.sh(
        "ip link add one0 type veth peer name two0; ip link set one0 master spare0; ip link set one0 up; ip link set two0 up"
    )
    at.sh("sleep 1")  # until the bridge has found out that it has a carrier
    wrong = []
    before = ""
    for kind, keys in MADE.items():
        stage.learn()
        before = _portrait(stage, kind, "") if kind == "process.signal" or not before else before
        fault: Fault = msgspec.convert(keys, KINDS[kind])
        undo = fault.make(at)
        if _portrait(stage, kind, "") == before:
            wrong.append((kind, "is not felt"))
        take_back(undo)
        after = _portrait(stage, kind, before)
        if after != before:
            gone, come = before.splitlines(), after.splitlines()
            wrong.append(
                (kind, f"gone {[x for x in gone if x not in come]}, come {[x for x in come if x not in gone]}")
            )
        before = "" if kind == "process.signal" else after
    if wrong:
        raise Failed("what faults give back does not undo them", *wrong)


def _in_order(lines: list[str]) -> list[str]:
    """Sort tables, and chains of a table, which have no order; rules of a chain have one."""
    table, rules, rest = "", [], []
    for line in lines:
        table = line if line.startswith("*") else table
        if line.startswith((":", "-A ")):
            rules.append((table, line.lstrip(":").removeprefix("-A ").split()[0], line))
        else:
            rest.append(line)
    return [" ".join(one) for one in sorted(rules, key=lambda one: one[:2])] + sorted(rest)


def _portrait(stage: Stage, kind: str, wanted: str) -> str:
    """Look at the host, without asking a daemon that does not answer; a link that comes up is given some time for it."""
    script = stage.names.fill(SEEN.rpartition("; docker info" if kind == "process.signal" else "\n")[0])
    for _ in range(20):
        lines = stage.ground.run(("sh", "-c", script)).out.splitlines()
        found = "\n".join(_in_order(lines))
        if not wanted or found == wanted:
            break
        time.sleep(0.1)
    return found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_undone_is_as_it_was() -> None:
    """In one lab, one after the other."""
    made = lab.up(SCENARIO, "28", f"undo{os.getpid()}")
    try:
        lab.played(made, SCENARIO, _undone)
    finally:
        made.down()
