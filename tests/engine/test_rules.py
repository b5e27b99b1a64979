"""The rules that `doctor/engine/rules/` writes are those that live engines write: whole, in order, of both families.

A setting is a host: how dockerd is started, and what is run on it. Its save is compared with what is made of doctor's own
evidence of it, so the reading of networks, containers and options is tested with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from doctor.examine import Facts
from doctor.facts.engine_rules import EngineRules
from doctor.registry import load
from tests.cases.make_base import take
from tests.enginehost import IMAGE, SUITES, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.snapshot import Snapshot

REGISTRY = load(plugins=False)
OPT = "com.docker.network.bridge."
NEW = ("sid",)
OLD = ("bookworm", "trixie")


class Setting(NamedTuple):
    """One host: `args` of dockerd, `networks` and `runs` as docker's arguments, then what is run in the host.

    `unordered`: this engine takes something in the order of a map, so each chain is compared as a set.
    `engines` are the suites it is possible on, empty for all.
    """

    name: str
    networks: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    then: str = ""
    unordered: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


V6 = ("--ipv6", "--fixed-cidr-v6=fd00:1::/64", "--experimental", "--ip6tables")
SHOP = "--subnet 10.7.0.0/24 shop"
INNER = "--internal --subnet 10.8.0.0/24 inner"
DUAL = "--ipv6 --subnet 10.9.0.0/24 --subnet fd00:9::/64 dual"

SETTINGS = (
    Setting("fresh"),
    Setting("one-port", runs=("-p 8080:80",)),
    Setting("no-port", runs=("",)),
    Setting("udp", runs=("-p 5353:53/udp",)),
    Setting("loopback", runs=("-p 127.0.0.1:8080:80",)),
    Setting("other-loopback", runs=("-p 127.0.0.2:8080:80",)),
    Setting("host-address", runs=("-p 198.51.100.2:8080:80",)),
    Setting("ipv6-only-port", runs=("-p [::1]:8080:80",)),
    Setting("random-port", runs=("-p 80",)),
    Setting("two-of-one", runs=("-p 8080:80 -p 9090:80",), unordered=OLD),
    Setting("several-ports", runs=("-p 8083:80 -p 8082:81 -p 53:82/udp -p 83",), unordered=OLD),
    Setting("range", runs=("-p 7000-7003:7000-7003",), unordered=OLD),
    Setting("random-among-asked", runs=("-p 80 -p 8081:81 -p 7000-7005:82 -p 8080:90/udp",), unordered=OLD),
    Setting("all-exposed", runs=("--expose 80 --expose 81/udp -P",), unordered=("bookworm", "trixie")),
    Setting("network", networks=(SHOP,)),
    Setting("network-and-port", networks=(SHOP,), runs=("--network shop -p 8080:80",)),
    Setting("two-networks", networks=(SHOP, "--subnet 10.6.0.0/24 aaa"), runs=("--network shop -p 1:1", "-p 2:2")),
    Setting("internal", networks=(INNER,), runs=("--network inner -p 8080:80",)),
    Setting(
        "internal-between",
        networks=(SHOP, INNER, "--subnet 10.6.0.0/24 aaa"),
        runs=("--network aaa", "--network inner"),
    ),
    Setting("internal-no-icc", networks=(f"-o {OPT}enable_icc=false {INNER}",)),
    Setting("no-icc", networks=(f"-o {OPT}enable_icc=false {SHOP}",), runs=("--network shop -p 8080:80",)),
    Setting("no-masquerade", networks=(f"-o {OPT}enable_ip_masquerade=false {SHOP}",), runs=("--network shop -p 1:1",)),
    Setting("no-icc-no-masquerade", networks=(f"-o {OPT}enable_icc=0 -o {OPT}enable_ip_masquerade=F {SHOP}",)),
    Setting("bridge-name", networks=(f"-o {OPT}name=front0 {SHOP}",), runs=("--network shop -p 8080:80",)),
    Setting(
        "host-binding", networks=(f"-o {OPT}host_binding_ipv4=127.0.0.1 {SHOP}",), runs=("--network shop -p 81:80",)
    ),
    Setting(
        "snat", networks=(f"-o com.docker.network.host_ipv4=198.51.100.2 {SHOP}",), runs=("--network shop -p 1:1",)
    ),
    Setting("three-containers", networks=(SHOP,), runs=("--network shop -p 1:80", "-p 2:80", "--network shop -p 3:80")),
    Setting("host-network", runs=("--network host", "--network none", "-p 1:1")),
    Setting("connected-later", networks=(SHOP,), runs=("-p 8080:80",), then="docker network connect shop c0"),
    Setting(
        "gateway-elsewhere",
        networks=(SHOP, "--subnet 10.6.0.0/24 aaa"),
        runs=("--network shop -p 8080:80",),
        then="docker network connect aaa c0",
    ),
    Setting("stopped", runs=("-p 8080:80", "-p 8081:80"), then="docker stop c0"),
    Setting("started-again", runs=("-p 8080:80", "-p 8081:80"), then="docker restart c0"),
    Setting("paused", runs=("-p 8080:80",), then="docker pause c0"),
    Setting("network-gone", networks=(SHOP, INNER), then="docker network rm shop"),
    Setting("static-address", networks=(SHOP,), runs=("--network shop --ip 10.7.0.77 -p 8080:80",)),
    Setting("ipv6-network-unwritten", networks=(DUAL,), runs=("--network dual -p 8080:80",), engines=OLD),
    Setting("dual-stack", networks=(DUAL,), runs=("--network dual -p 8080:80 -p [fd00:9::1]:70:70",), engines=NEW),
    Setting("ipv6-internal", networks=(f"--internal {DUAL}",), runs=("--network dual -p 8080:80",), engines=NEW),
    Setting("only-ipv6", networks=("--ipv4=false --ipv6 --subnet fd00:9::/64 six",), engines=NEW),
    Setting(
        "routed",
        networks=(f"-o {OPT}gateway_mode_ipv4=routed {SHOP}",),
        runs=("--network shop -p 1:1 -p 2",),
        engines=NEW,
    ),
    Setting(
        "unprotected",
        networks=(f"-o {OPT}gateway_mode_ipv4=nat-unprotected {SHOP}",),
        runs=("--network shop -p 1:1",),
        engines=NEW,
    ),
    Setting(
        "isolated", networks=(f"-o {OPT}gateway_mode_ipv4=isolated {INNER}",), runs=("--network inner",), engines=NEW
    ),
    Setting(
        "routed-ipv6",
        networks=(f"-o {OPT}gateway_mode_ipv6=routed {DUAL}",),
        runs=("--network dual -p 8080:80",),
        engines=NEW,
    ),
    Setting(
        "trusted",
        networks=(f"-o {OPT}trusted_host_interfaces=eth0:lo {SHOP}",),
        runs=("--network shop -p 1:1",),
        engines=NEW,
    ),
    Setting(
        "gateway-priority",
        networks=(SHOP, "--subnet 10.6.0.0/24 aaa"),
        runs=("--network name=shop,gw-priority=1 -p 8080:80",),
        then="docker network connect aaa c0",
        engines=NEW,
    ),
    Setting("ipv6", networks=(DUAL, SHOP), runs=("-p 8080:80", "--network dual -p 8081:80"), args=V6),
    Setting("ipv6-internal-everywhere", networks=(f"--internal {DUAL}",), args=V6),
    Setting("ipv6-no-icc", networks=(f"-o {OPT}enable_icc=false {DUAL}",), runs=("--network dual -p 1:1",), args=V6),
    Setting(
        "ipv6-no-proxy",
        networks=(DUAL,),
        runs=("-p 8080:80", "--network dual -p 1:1"),
        args=(*V6, "--userland-proxy=false"),
    ),
    Setting("no-ip6tables", networks=(DUAL,), runs=("--network dual -p 8080:80",), args=("--ip6tables=false",)),
    Setting(
        "no-proxy",
        networks=(SHOP, INNER),
        runs=("-p 8080:80", "--network shop -p 1:1"),
        args=("--userland-proxy=false",),
    ),
    Setting("no-icc-daemon", networks=(SHOP,), runs=("-p 8080:80", ""), args=("--icc=false",)),
    Setting("links", runs=("--expose 5432 -p 8080:80", "--link c0:db -p 81:80"), args=("--icc=false",), unordered=OLD),
    Setting("no-masquerade-daemon", networks=(SHOP,), runs=("-p 8080:80",), args=("--ip-masq=false",)),
    Setting("bip", runs=("-p 8080:80",), args=("--bip=10.99.0.1/24", "--fixed-cidr=10.99.0.128/25")),
    Setting("binding-daemon", runs=("-p 8080:80",), args=("--ip=127.0.0.1",)),
    Setting("direct-routing", runs=("-p 8080:80",), args=("--allow-direct-routing",), engines=NEW),
    Setting(
        "restarted",
        networks=(SHOP, "--subnet 10.6.0.0/24 aaa", INNER),
        runs=("-p 8080:80 --restart always",),
        then="restart",
        unordered=("bookworm", "trixie", "sid"),
    ),
    Setting(
        "live-restore",
        networks=(SHOP, "--subnet 10.6.0.0/24 aaa", INNER),
        runs=("-p 8080:80", "--network shop -p 8081:80"),
        args=("--live-restore",),
        then="restart",
        unordered=("bookworm", "trixie", "sid"),
    ),
)


def own(setting: Setting) -> bool:
    """Whether a setting needs a dockerd of its own."""
    return bool(setting.args) or setting.then == "restart"


@pytest.fixture
def host(request: pytest.FixtureRequest, suite: str) -> Iterator[EngineHost]:
    """A host for one setting: the shared one, or one that is started as the setting asks."""
    setting: Setting = request.node.callspec.params["fault"]
    if own(setting):
        with EngineHost.up(suite=suite, daemon_args=setting.args) as made:
            yield made
        return
    shared: EngineHost = request.getfixturevalue("engine")
    yield shared
    shared.sh("docker rm -f $(docker ps -aq) >/dev/null 2>&1 || true; docker network prune -f >/dev/null")


def prepare(host: EngineHost, setting: Setting) -> None:
    """Make what the setting says."""
    for network in setting.networks:
        host.docker("network", "create", *network.split(" "))
    for index, run in enumerate(setting.runs):
        host.docker("run", "-d", "--name", f"c{index}", *(run.split(" ") if run else ()), IMAGE, "idle")
    if setting.then == "restart":
        host.restart_dockerd()
    elif setting.then:
        host.sh(setting.then)


def saved(host: EngineHost, program: str) -> dict[tuple[str, str], list[str]]:
    """What a saver prints: (table, chain) → rules. Chains of the kernel that hold none are left out."""
    chains: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in host.run(f"{program}-save").stdout.split("\n"):
        if line[:1] == "*":
            table = line[1:]
        elif line[:1] == ":" and line.split(" ")[1] == "-":
            chains[table, line[1:].split(" ")[0]] = []
        elif line[:3] == "-A ":
            _, chain, rule = line.split(" ", 2)
            chains.setdefault((table, chain), []).append(rule)
    return chains


def written(snapshot: Snapshot, program: str) -> dict[tuple[str, str], list[str]]:
    """What doctor says that the engine writes, in the same form."""
    found: EngineRules = Facts(REGISTRY, snapshot).get(EngineRules)
    its = found.of("ip6" if program == "ip6tables" else "ip")
    if its is None:
        return {}
    chains = {key: [one.text for one in rules] for key, rules in its.expected.chains.items()}
    return {key: rules for key, rules in chains.items() if rules or key in its.expected.own}


@pytest.mark.parametrize("fault", SETTINGS, ids=lambda setting: setting.name)
def test_rules_are_those_of_the_engine(host: EngineHost, fault: Setting, suite: str) -> None:
    """Each chain holds the very rules in the very order, and there is no other chain; nothing is missing or too much."""
    prepare(host, fault)
    snapshot = take(host)
    for program in ("iptables", "ip6tables"):
        made, there = written(snapshot, program), saved(host, program)
        if suite in fault.unordered:
            made = {key: sorted(rules) for key, rules in made.items()}
            there = {key: sorted(rules) for key, rules in there.items()}
        assert made == there
    found: EngineRules = Facts(REGISTRY, snapshot).get(EngineRules)
    assert found.live
    assert not any(one.difference.missing or one.difference.extra or one.difference.chains for one in found.families)


def test_there_are_enough() -> None:
    """Thirty settings at least on each engine."""
    for suite in SUITES:
        assert sum(not one.engines or suite in one.engines for one in SETTINGS) >= 30
