"""The rules that `doctor/engine/rules/` writes are those that live engines write: whole, in order, of both families.

A setting is a host: how dockerd is started, and what is run on it. Its save is compared with what is made of doctor's own
evidence of it, so the reading of networks, containers and options is tested with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from doctor.examine import Facts
from doctor.facts.engine_rules import EngineRules
from doctor.registry import load
from tests.cases.make_base import take
from tests.engine.faults.table import flows, populate, published
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
    Setting("two-of-one", runs=("-p 8080:80 -p 9090:80",)),
    Setting("several-ports", runs=("-p 8083:80 -p 8082:81 -p 53:82/udp -p 83",), unordered=OLD),
    Setting("rising-ports", runs=("-p 8080:80 -p 8081:81 -p 8090:90/udp",)),
    Setting("range", runs=("-p 7000-7003:7000-7003",)),
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
    Setting(
        "links",
        runs=("--expose 5432 -p 8080:80", "--link c0:db -p 81:80"),
        args=("--icc=false",),
        unordered=("bookworm", "trixie", "sid"),
    ),
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


# A firewall that lost rules gets them back


FLUSHES = {
    "nft-flush-ruleset": "nft flush ruleset",
    "all-tables": "for p in iptables ip6tables; do for t in filter nat raw; do $p -t $t -F; $p -t $t -X; done; done",
    "rules-only": "iptables -F; iptables -t nat -F; ip6tables -F",
    "filter": "iptables -F; iptables -X",
    "nat": "iptables -t nat -F; iptables -t nat -X",
    "raw": "iptables -t raw -F",
    "one-chain": "iptables -F DOCKER",
}
PIPE = (
    "doctor rules --missing | iptables-restore --noflush; doctor rules --missing --ipv6 | ip6tables-restore --noflush"
)


@pytest.fixture(scope="module")
def shared(suite: str) -> Iterator[EngineHost]:
    """A host with networks of every kind, ports, and IPv6 where the engine has it by itself."""
    with EngineHost.up(suite=suite) as made:
        populate(made)
        made.docker("network", "create", *INNER.split(" "))
        made.docker("run", "-d", "--name", "vault", "--network", "inner", IMAGE, "serve")
        made.docker("network", "create", *DUAL.split(" "), "-o", f"{OPT}enable_icc=false")
        # One port each: before 28 the ports of one container stand as a map has them.
        made.docker("run", "-d", "--name", "six", "--network", "dual", "-p", "127.0.0.1:8082:80", IMAGE, "serve")
        made.docker("run", "-d", "--name", "seven", "--network", "dual", "-p", "8083:81", IMAGE, "serve")
        yield made


@pytest.fixture
def rich(shared: EngineHost) -> EngineHost:
    """That host, with rules of the user before and behind Docker's; each test leaves Docker's as they were."""
    if "wg0" not in shared.sh("iptables -S FORWARD"):
        shared.sh("iptables -I FORWARD -i wg0 -j ACCEPT; iptables -A FORWARD -o wg0 -j DROP")
    if "wg0" not in shared.sh("iptables -t nat -S"):
        shared.sh("iptables -t nat -I POSTROUTING -o wg0 -j MASQUERADE; iptables -t nat -I PREROUTING -i wg0 -j RETURN")
    return shared


def of_docker(chains: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """What is left without the rules of others, which a flush takes away for good."""
    own = {key: [rule for rule in rules if "wg0" not in rule] for key, rules in chains.items()}
    return {key: rules for key, rules in own.items() if rules or key[1].startswith("DOCKER")}


def programs(host: EngineHost) -> dict[str, dict[tuple[str, str], list[str]]]:
    """Both saves."""
    return {program: saved(host, program) for program in ("iptables", "ip6tables")}


@pytest.mark.parametrize("way", FLUSHES)
def test_flushed_rules_come_back(rich: EngineHost, way: str, suite: str) -> None:
    """After the pipe the saves are the ones before, every flow is as before, a port can be published; twice adds nothing."""
    before, met = programs(rich), flows(rich)
    pids = rich.sh("docker ps -q | xargs docker inspect -f '{{.State.Pid}}'")
    rich.sh(FLUSHES[way])
    assert programs(rich) != before or (way == "raw" and suite in OLD), "only 28 and later write rules of table raw"
    rich.sh(PIPE)
    after = programs(rich)
    assert {name: of_docker(chains) for name, chains in after.items()} == {
        name: of_docker(chains) for name, chains in before.items()
    }
    assert published(rich) == (0, met)
    assert rich.sh("docker ps -q | xargs docker inspect -f '{{.State.Pid}}'") == pids
    rich.sh(PIPE)
    assert programs(rich) == after


@pytest.mark.parametrize("rest", [0, 1, 2], ids=["every-third", "every-third-from-1", "every-third-from-2"])
def test_holes_are_filled_in_place(rich: EngineHost, rest: int) -> None:
    """Each rule of Docker's is deleted in one of three runs: it comes back where it was, and rules of others stay."""
    rich.sh("iptables -C DOCKER-USER -i wg0 -j DROP 2>/dev/null || iptables -I DOCKER-USER -i wg0 -j DROP")
    before = programs(rich)
    for program, chains in before.items():
        lines = [
            f"{program} -t {table} -D {chain} {rule}"
            for (table, chain), rules in chains.items()
            for rule in rules
            if "wg0" not in rule and chain != "DOCKER-USER"
        ]
        rich.sh("\n".join(lines[rest::3]))
    assert programs(rich) != before
    assert rich.run("doctor", "rules", "--missing", check=False).returncode == 1
    rich.sh(PIPE)
    assert programs(rich) == before
    assert rich.run("doctor", "rules", "--missing", check=False).returncode == 0


def test_what_is_too_much_goes(rich: EngineHost) -> None:
    """Rules of networks and containers that are gone, doubled ones and foreign ones in Docker's chains are taken out."""
    before = programs(rich)
    rich.sh(
        "iptables -I FORWARD -o br-0123456789ab -j DOCKER; iptables -A DOCKER -i eth7 -j ACCEPT;"
        " iptables -t nat -A POSTROUTING -s 172.17.0.99/32 -d 172.17.0.99/32 -p tcp --dport 80 -j MASQUERADE;"
        " iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER;"
        " iptables -N DOCKER-ISOLATION; iptables -A DOCKER-ISOLATION -j RETURN; iptables -I FORWARD -j DOCKER-ISOLATION"
    )
    assert rich.run("doctor", "rules", "--extra", check=False).returncode == 1
    rich.sh("doctor rules --extra | iptables-restore --noflush")
    after = programs(rich)
    doubled = after["iptables"]["nat", "PREROUTING"]
    assert sorted(doubled) == sorted(before["iptables"]["nat", "PREROUTING"])
    del after["iptables"]["nat", "PREROUTING"], before["iptables"]["nat", "PREROUTING"]
    assert after == before
    assert rich.run("doctor", "rules", "--extra", check=False).returncode == 0


def test_expected_rules_load_into_nothing(rich: EngineHost) -> None:
    """What `--expected` prints is input of iptables-restore: with an empty firewall it makes what the engine had made."""
    before = {name: of_docker(chains) for name, chains in programs(rich).items()}
    rich.sh("doctor rules --expected >/tmp/4; doctor rules --expected --ipv6 >/tmp/6; nft flush ruleset")
    rich.sh("iptables-restore --noflush </tmp/4; ip6tables-restore --noflush </tmp/6")
    assert {name: of_docker(chains) for name, chains in programs(rich).items()} == before


def test_the_legacy_back_end_is_written_alike(suite: str) -> None:
    """With iptables-legacy the rules are spelled the same, and what is flushed goes back there, not to nft."""
    with EngineHost.up(suite=suite, dockerd=False) as host:
        for program in ("iptables", "ip6tables"):
            host.sh(f"update-alternatives --set {program} /usr/sbin/{program}-legacy >/dev/null")
        host.start_dockerd()
        host.import_image()
        populate(host)
        snapshot = take(host)
        before = programs(host)
        assert {name: written(snapshot, name) for name in before} == before
        host.sh("iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; iptables -t raw -F")
        cause = json.loads(host.doctor("check", "--only", "NET021", "--format", "json").stdout)["diagnoses"][0]
        host.run(*cause["remedy"]["steps"][0]["argv"])
        assert programs(host) == before
        assert not host.run("iptables-nft-save").stdout
