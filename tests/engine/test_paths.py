"""The walk of a packet against the kernel: every flow of a host with six networks, healthy and under faults.

The referee is a real connect from each source. What the model says *depends* is counted, and allowed where the reason is
known: whether the network outside has a way back to a container that is not masqueraded.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from doctor.bundle import read
from doctor.examine import Facts
from doctor.facts.containers import Containers
from doctor.packets.asked import asked
from doctor.packets.build import SITE
from doctor.packets.flow import Flow
from doctor.packets.walk import Result, follow
from doctor.registry import load
from tests.engine.cells import Cells
from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doctor.packets.site import Site

OUTSIDE_PORT, HOST_PORT, PROXIED = 9000, 7000, 8084
NETWORKS: dict[str, tuple[str, ...]] = {
    "shop": ("--subnet", "10.7.0.0/24"),
    "inner": ("--subnet", "10.8.0.0/24", "--internal"),
    "noicc": ("--subnet", "10.9.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false"),
    "nomasq": ("--subnet", "10.10.0.0/24", "-o", "com.docker.network.bridge.enable_ip_masquerade=false"),
    "six": ("--subnet", "10.11.0.0/24", "--ipv6", "--subnet", "fd00:11::/64"),
}
CONTAINERS: dict[str, tuple[str, ...]] = {
    "web": ("-p", "8080:80"),
    "cron": (),
    "api": ("--network", "shop", "-p", "8081:80"),
    "db": ("--network", "shop", "-p", "127.0.0.1:8082:80"),
    "in1": ("--network", "inner"),
    "in2": ("--network", "inner"),
    "ni1": ("--network", "noicc", "-p", "8083:80"),
    "ni2": ("--network", "noicc"),
    "nm": ("--network", "nomasq", "-p", f"{PROXIED}:80"),
    "six1": ("--network", "six", "-p", "8085:80"),
    "six2": ("--network", "six"),
}
PUBLISHED = (8080, 8081, 8082, 8083, PROXIED, 8085, 9999)


class Case(NamedTuple):
    """A way to break the host: a name, the commands, what undoes them."""

    name: str
    make: str
    undo: str = ""


# A table that was empty is not in the file, and restoring it would leave what a case put there.
_RULES = "iptables -t raw -F; iptables -t mangle -F; iptables-restore </tmp/rules; ip6tables-restore </tmp/rules6"
_WEB, _API = "$(docker inspect -f '{{.State.Pid}}' web)", "$(docker inspect -f '{{.State.Pid}}' api)"
_VETH = "ip -o link | sed -n 's/.*\\(veth[0-9a-f]*\\)@if.* master '{}'.*/\\1/p'"
_SHOP = "br-$(docker network inspect -f '{{.Id}}' shop | cut -c1-12)"

CASES = (
    Case("user-drop", "iptables -I DOCKER-USER -i eth0 -j DROP", _RULES),
    Case("user-reject", "iptables -I DOCKER-USER -i eth0 -j REJECT", _RULES),
    Case("user-reset", "iptables -I DOCKER-USER -i eth0 -p tcp -j REJECT --reject-with tcp-reset", _RULES),
    Case("user-container-port", "iptables -I DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP", _RULES),
    Case(
        "user-published-port",
        "iptables -I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP",
        _RULES,
    ),
    Case("no-established", "iptables -I FORWARD -m conntrack --ctstate ESTABLISHED -j DROP", _RULES),
    Case("only-new", "iptables -I FORWARD -m conntrack --ctstate NEW -j ACCEPT", _RULES),
    Case("policy-accept", "iptables -P FORWARD ACCEPT", _RULES),
    Case("forward-flushed", "iptables -F FORWARD", _RULES),
    Case("nat-gone", "iptables -t nat -F DOCKER", _RULES),
    Case("masquerade-gone", "iptables -t nat -F POSTROUTING", _RULES),
    Case("raw-gone", "iptables -t raw -F", _RULES),
    Case("notrack", "iptables -t raw -I PREROUTING -p tcp --dport 8080 -j NOTRACK", _RULES),
    Case("redirected", "iptables -t nat -I PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 8081", _RULES),
    Case("input-drop", "iptables -I INPUT -p tcp -m multiport --dports 8081,7000 -j DROP", _RULES),
    Case("output-reject", "iptables -I OUTPUT -d 10.7.0.0/24 -j REJECT --reject-with icmp-host-prohibited", _RULES),
    Case("multiport", "iptables -I FORWARD -p tcp -m multiport --dports 79:80,443 -j REJECT", _RULES),
    Case("stale-dnat", "iptables -t nat -I DOCKER -p tcp --dport 8080 -j DNAT --to 172.17.0.99:80", _RULES),
    Case("snat-astray", "iptables -t nat -I POSTROUTING -s 10.7.0.0/24 -o eth0 -j SNAT --to 203.0.113.5", _RULES),
    Case("goto", "iptables -N SIDE; iptables -A SIDE -p udp -j DROP; iptables -I FORWARD -i docker0 -g SIDE", _RULES),
    Case(
        "marked",
        "iptables -t mangle -A PREROUTING -i docker0 -j MARK --set-mark 7; ip rule add fwmark 7 prohibit pref 50",
        f"ip rule del pref 50; {_RULES}",
    ),
    Case("forwarding-off", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
    Case(
        "forwarding-off-docker0",
        "sysctl -qw net.ipv4.conf.docker0.forwarding=0",
        "sysctl -qw net.ipv4.conf.docker0.forwarding=1",
    ),
    Case(
        "not-bridged",
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1",
    ),
    Case("blackhole", "ip route add blackhole 10.7.0.2/32", "ip route del blackhole 10.7.0.2/32"),
    Case("unreachable", "ip route add unreachable 10.7.0.2/32", "ip route del unreachable 10.7.0.2/32"),
    Case("prohibited", "ip rule add from 172.17.0.0/16 prohibit pref 60", "ip rule del pref 60"),
    Case("elsewhere", "ip route add 10.7.0.2/32 dev docker0", "ip route del 10.7.0.2/32 dev docker0"),
    Case(
        "strict-path",
        f"ip route add 172.17.0.2/32 dev {_SHOP}; sysctl -qw net.ipv4.conf.docker0.rp_filter=1",
        f"ip route del 172.17.0.2/32 dev {_SHOP}; sysctl -qw net.ipv4.conf.docker0.rp_filter=0",
    ),
    Case(
        "nft-policy",
        "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 10; policy drop; }'",
        "nft delete table inet other",
    ),
    Case(
        "nft-firewalld",
        "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 10; }'; "
        "nft add rule inet other f ct state established,related accept; nft add rule inet other f ct status dnat accept; "
        "nft add rule inet other f iifname eth0 reject with icmpx type admin-prohibited",
        "nft delete table inet other",
    ),
    Case(
        "nft-bridge",
        "nft add table bridge other; nft 'add chain bridge other f { type filter hook forward priority 0; }'; "
        "nft add rule bridge other f ip daddr 172.17.0.0/16 tcp dport 80 drop",
        "nft delete table bridge other",
    ),
    Case(
        "nft-sets",
        "nft add table ip other; nft 'add set ip other s { type ipv4_addr . inet_service; }'; "
        "nft 'add element ip other s { 172.17.0.2 . 80, 10.9.0.2 . 80 }'; "
        "nft 'add chain ip other p { type filter hook prerouting priority -50; }'; "
        "nft add rule ip other p 'ip daddr . tcp dport @s drop'",
        "nft delete table ip other",
    ),
    Case(
        "nft-vmap",
        "nft add table ip other; nft 'add chain ip other f { type filter hook forward priority -1; }'; "
        "nft 'add chain ip other no'; nft add rule ip other no reject with tcp reset; "
        "nft add rule ip other f 'iifname vmap { \"eth0\" : jump no, \"docker0\" : drop }'",
        "nft delete table ip other",
    ),
    Case("isolated", f"for one in $({_VETH.format('docker0')}); do bridge link set dev $one isolated on; done",
         f"for one in $({_VETH.format('docker0')}); do bridge link set dev $one isolated off; done"),
    Case("end-down", f"nsenter -t {_WEB} -n ip link set eth0 down",
         f"nsenter -t {_WEB} -n sh -c 'ip link set eth0 up; ip route add default via 172.17.0.1'"),
    Case("inside", f"nsenter -t {_API} -n iptables -I INPUT -p tcp --dport 80 -j DROP",
         f"nsenter -t {_API} -n iptables -D INPUT -p tcp --dport 80 -j DROP"),
    Case("inside-nft", f"nsenter -t {_API} -n sh -c 'nft add table inet own; "
         "nft \"add chain inet own i { type filter hook input priority 0; policy drop; }\"'",
         f"nsenter -t {_API} -n nft delete table inet own"),
    Case("inside-six", "nsenter -t $(docker inspect -f '{{.State.Pid}}' six2) -n ip6tables -I INPUT -p tcp -j DROP",
         "nsenter -t $(docker inspect -f '{{.State.Pid}}' six2) -n ip6tables -F INPUT"),
    Case("bridge-down", f"ip link set {_SHOP} down", f"ip link set {_SHOP} up"),
)  # fmt: skip


@pytest.fixture(scope="module")
def host(suite: str) -> Iterator[EngineHost]:
    """A host with six networks, eleven containers that serve, a service of its own and one outside."""
    with EngineHost.up(suite=suite) as made:
        # Errors of ICMP are limited to one a second; here many flows are told at once.
        made.sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000", check=False)
        made.sh("modprobe br_netfilter; sysctl -qw net.bridge.bridge-nf-call-iptables=1", check=False)
        for name, options in NETWORKS.items():
            made.docker("network", "create", *options, name)
        for name, options in CONTAINERS.items():
            made.docker("run", "-d", "--name", name, *options, IMAGE, "serve")
        for name in CONTAINERS:
            made.await_listening(name, 80)
        made.outside("ip", "route", "add", "10.0.0.0/8", "via", HOST_IP)
        made.outside("ip", "route", "add", "172.16.0.0/12", "via", HOST_IP)
        made.sh("iptables-save >/tmp/rules; ip6tables-save >/tmp/rules6")
        with made.listen("outside", OUTSIDE_PORT), made.listen("host", HOST_PORT):
            yield made


def wanted(host: EngineHost) -> list[tuple[str, str, int]]:
    """Every flow: source, address, port."""
    inside = {one["Name"].lstrip("/"): one["NetworkSettings"]["Networks"] for one in host.containers()}
    places = [next(iter(inside[name].values())) for name in CONTAINERS]
    targets = [(place["IPAddress"], port) for place in places for port in (80, 81)]
    targets += [(HOST_IP, port) for port in (*PUBLISHED, HOST_PORT)]
    targets += [(gateway, 8080) for gateway in {place["Gateway"] for place in places} - {""}]
    targets.append((OUTSIDE_IP, OUTSIDE_PORT))
    found = [(source, *target) for source in (*CONTAINERS, "host", "outside") for target in targets]
    found += [("host", "127.0.0.1", port) for port in PUBLISHED]
    found += [(source, "fd00:11::3", 80) for source in ("six1", "six2", "host", "web")]
    return [
        (source, ip, port) for source, ip, port in found if source != "outside" or ip not in {OUTSIDE_IP, "192.0.2.9"}
    ]


class Model(NamedTuple):
    """The site of a host as it is now, and the namespace of each source."""

    site: Site
    spaces: dict[str, str]

    @classmethod
    def of(cls, host: EngineHost, path: Path) -> Model:
        """Collect as a user would, and read the bundle elsewhere."""
        host.doctor("collect", "-o", "/tmp/host.tar.gz")
        path.write_bytes(base64.b64decode(host.sh("base64 /tmp/host.tar.gz")))
        facts = Facts(load(plugins=False), read(str(path)))
        site: Site = facts.get(SITE)
        from doctor.facts.processes import Processes

        containers, processes = facts.get(Containers), facts.get(Processes)
        spaces = {
            name: asked(name, "192.0.2.9:80", site, containers, processes).flow.source
            for name in (*CONTAINERS, "host", "outside")
        }
        return cls(site, spaces)

    def follow(self, source: str, ip: str, port: int) -> Result:
        """Walk one flow; from outside it comes from the neighbour."""
        from doctor.packets.packet import number

        src = number(OUTSIDE_IP) if source == "outside" else None
        return follow(self.site, Flow(self.spaces[source], number(ip), port, 6 if ":" in ip else 4, src=src))


SLOW = {"NEIGH_FAILED", "VETH_DOWN", "BR_PORT_ISOLATED", "BR_PORT_STATE", "BRIDGE_DOWN"}
SLOW |= {"ROUTE_PROHIBIT", "ROUTE_UNREACHABLE", "ROUTE_NONE"}
"""Ends that the kernel tells of late (it asks for a neighbour for three seconds), or but a few times."""


def disagree(model: Model, flow: tuple[str, str, int], kernel: str) -> str:
    """Say how model and kernel disagree about a flow; empty when they do not."""
    result = model.follow(*flow)
    if result.works is None:
        assert result.question is not None
        known = "a way back" in result.question.text
        return "" if known else f"{flow}: kernel {kernel}, depends on {result.question.text}"
    said = "connected" if result.sees == "reset" else str(result.sees)
    if result.walk.decider.code in SLOW and {said, kernel} == {"unreachable", "timeout"}:
        return ""  # or of early, where it has just asked in vain for somebody else
    if result.walk.end.outcome == "leaves" and flow[1] != OUTSIDE_IP:
        return ""  # where it goes from there is not the model's affair
    if said == ("connected" if kernel == "reset" else kernel):
        return ""
    return f"{flow}: kernel {kernel}, model {said} ({result.walk.decider.code})"


def compare(host: EngineHost, path: Path) -> list[str]:
    """Give every flow that the model and the kernel do not agree about, also when it is tried once more and for longer.

    Cells of the matrix of `doctor reach` are such flows, too.
    """
    model = Model.of(host, path)
    cells = Cells.of(path, OUTSIDE_PORT)
    real = host.probe(wanted(host), timeout=0.7)
    assert len(real) > 400
    assert sum(model.follow(*flow).works is None for flow in real) < len(real) / 20
    assert sum(flow in cells.answers for flow in real) > 130
    doubtful = [flow for flow, kernel in real.items() if apart(model, cells, flow, kernel)]
    if not doubtful:
        return list(cells.crowds(real, tuple(CONTAINERS)))
    again, model = host.probe(doubtful, timeout=2.0), Model.of(host, path)
    cells = Cells.of(path, OUTSIDE_PORT)
    return [said for flow, kernel in again.items() if (said := apart(model, cells, flow, kernel))]


def apart(model: Model, cells: Cells, flow: tuple[str, str, int], kernel: str) -> str:
    """Say how the walk of a flow, or its cell in the matrix, and the kernel disagree; empty when they do not."""
    return disagree(model, flow, kernel) or cells.apart(flow, kernel, model.follow(*flow))


def test_healthy(host: EngineHost, tmp_path: Path) -> None:
    """On a healthy host every flow is as the kernel has it."""
    wrong = compare(host, tmp_path / "host.tar.gz")
    assert not wrong, "\n".join(wrong)


@pytest.mark.sampled("case")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken(host: EngineHost, case: Case, tmp_path: Path) -> None:
    """Under each fault every flow is as the kernel has it."""
    host.sh(case.make)
    try:
        wrong = compare(host, tmp_path / "host.tar.gz")
        assert not wrong, "\n".join(wrong)
    finally:
        host.sh(case.undo, check=False)
        host.sh("conntrack -F 2>/dev/null || true; ip neigh flush all", check=False)


def traced(host: EngineHost, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run `doctor trace` as a user would: exit code, the JSON, the text."""
    done = host.doctor("trace", *words, "--format", "json")
    return done.returncode, json.loads(done.stdout or "{}"), host.doctor("trace", *words).stdout


def test_what_is_tried(host: EngineHost) -> None:
    """`--probe` connects for real, and says whether that is as predicted."""
    code, found, text = traced(host, "cron", "web:80", "--probe")
    assert (code, found["tried"]["sees"], found["tried"]["agrees"]) == (0, "connected", True)
    assert re.search(r"connected after 0\.\d s, as predicted", text), text
    code, found, _ = traced(host, "host", "web:81", "--probe")
    assert (code, found["tried"]["sees"], found["tried"]["agrees"]) == (1, "refused", True)
    code, found, text = traced(host, "web", "api:80", "--probe")
    assert (code, found["tried"]["sees"], found["tried"]["agrees"]) == (1, "timeout", True)
    assert re.search(r"no answer after 2\.\d s, as predicted", text), text
    refused = host.doctor("trace", "outside", "host:8080", "--probe")
    assert refused.returncode == 2
    assert "cannot be tried from this host" in refused.stderr


def matrix(host: EngineHost, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run `doctor reach` as a user would: exit code, the JSON, the text."""
    done = host.doctor("reach", *words, "--format", "json")
    return done.returncode, json.loads(done.stdout or "{}"), host.doctor("reach", *words).stdout


def test_the_matrix_of_a_healthy_host(host: EngineHost) -> None:
    """Who reaches whom, and that no promise is broken."""
    code, found, text = matrix(host)
    kinds = {one["letter"]: one["kind"] for one in found["reasons"]}
    assert set(kinds.values()) <= {"design", "depends"}
    assert found["broken"] == 0
    assert code == (3 if found["depends"] else 0)
    answers = {(one["source"], one["target"]): kinds.get(one["answer"], one["answer"]) for one in found["flows"]}
    assert answers["web", "cron"] == answers["api", "db"] == answers["in1", "in2"] == answers["six1", "six2"] == "yes"
    assert answers["ni1", "ni2"] == answers["web", "api"] == answers["in1", "outside"] == "design"
    assert {one["outside"] for one in found["ports"] if one["promised"]} == {"yes"}
    assert all(len(line) <= 80 or line.lstrip().startswith("(doctor") for line in text.splitlines()), text


def test_a_promise_that_is_broken(host: EngineHost) -> None:
    """A rule that keeps published ports from outside: exit 1, and the legend names it with a trace that agrees."""
    rule = "DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP"
    host.sh(f"iptables -I {rule}")
    try:
        code, found, text = matrix(host)
        (reason,) = [one for one in found["reasons"] if one["kind"] == "broken"]
        traced_ = host.doctor("trace", reason["source"], reason["target"])
    finally:
        host.sh(f"iptables -D {rule}")
    assert (code, reason["places"]) == (1, ["filter DOCKER-USER 1"])
    assert {one["outside"] for one in found["ports"] if one["promised"]} == {reason["letter"]}
    assert "BROKEN: a rule of DOCKER-USER stops it: filter DOCKER-USER 1" in text
    assert traced_.returncode == 1
    assert "DOCKER-USER 1" in traced_.stdout


def test_who_stands_still(host: EngineHost) -> None:
    """The kernel opens connections for who is paused or stopped: the trace says so, and that nobody answers."""
    curl = "curl -sm 2 -o /dev/null -w '%{time_connect} %{size_download}' http://127.0.0.1:8080/cgi-bin/peer || true"
    flows = (("host", "host:8080", "--probe"), ("cron", "web:80"))
    for stop, wake, silent in (
        ("docker pause web", "docker unpause web", 2),
        ("kill -STOP $(docker top web -eo pid | tail -n +2)", "kill -CONT $(docker top web -eo pid | tail -n +2)", 2),
        ("pkill -STOP -f 'host-por[t] 8080 '", "pkill -CONT -f 'host-por[t] 8080 '", 1),
    ):
        host.sh(stop)
        try:
            opened, size = host.sh(curl).split()
            found = [json.loads(host.doctor("trace", *flow, "--format", "json").stdout) for flow in flows]
        finally:
            host.sh(wake)
        assert (float(opened) > 0, size) == (True, "0"), stop
        assert [one["code"] for one in found] == ["DST_FROZEN"] * silent + [""] * (2 - silent), stop
        assert {one["client_sees"] for one in found} == {"connected"}
        assert found[0]["tried"]["agrees"]
        assert host.sh(curl).split()[1] != "0"
