"""A host of the runtime and a live engine, told the same, look the same: rules, links, routes, files, ports, fates, names.

Every setting of `test_rules.py` can be tried (`--all-settings`, some 50 on each engine); CI takes a few that differ most.
"""

from __future__ import annotations

import json
import select
import socket
from typing import TYPE_CHECKING, Any

import pytest

from doctor.runtime import dnswire
from tests.engine import runtimes
from tests.engine.test_rules import SETTINGS, Setting, own, prepare
from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP, EngineHost
from tests.runtime.nets import Host, apart, sh
from tests.runtime.test_network import ask, asked, listen, parsed, probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLE = frozenset(
    {
        "rising-ports",
        "random-port",
        "two-networks",
        "internal",
        "no-icc-no-masquerade",
        "gateway-elsewhere",
        "started-again",
        "network-gone",
        "dual-stack",
        "routed-ipv6",
        "no-proxy",
        "links",
    }
)

DIFFERENCES: dict[str, str] = {}
"""Settings in which ours differ on purpose, and why."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take the sample, or all settings with `--all-settings`."""
    if "fault" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all-settings")
        chosen = [one for one in SETTINGS if whole or one.name in SAMPLE]
        metafunc.parametrize("fault", chosen, ids=[one.name for one in chosen])


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


def plain(portrait: dict[str, Any], *, unordered: bool) -> Any:
    """A portrait as JSON has it; rules without their order where the engine takes something as a map has it."""
    found = json.loads(json.dumps(portrait))
    for family in ("iptables", "ip6tables") if unordered else ():
        found["host"][family] = {chain: sorted(rules) for chain, rules in found["host"][family].items()}
    return found


def test_networks_look_alike(host: EngineHost, fault: Setting, suite: str) -> None:
    """Rules of both families, in order; links, addresses, routes, sysctls, sockets, proxies, files, published ports."""
    # What earlier settings left on a shared host is no part of this one; a dockerd of its own began with nothing.
    forwarding = not own(fault) and runtimes.forwards(host)
    prepare(host, fault)
    unordered = suite in fault.unordered
    live = plain(runtimes.live(host), unordered=unordered)
    made = plain(runtimes.ours(fault, host, forwarding=forwarding), unordered=unordered)
    assert made == live


def test_there_are_enough() -> None:
    """Thirty settings at least on each engine, and those of the sample exist."""
    names = {one.name for one in SETTINGS}
    assert names >= SAMPLE
    for suite in runtimes.DIALECTS:
        assert sum(not one.engines or suite in one.engines for one in SETTINGS) >= 30


# Fates

NETWORKS = ("--subnet 10.7.0.0/24 shop", "--internal --subnet 10.8.0.0/24 inner", "--subnet 10.9.0.0/24 other")
CONTAINERS = {
    "web": "-p 8080:80 -p 127.0.0.1:8081:80 -p 8082:81",
    "peer": "",
    "api": "--network shop -p 9090:80 --network-alias back",
    "db": "--network shop --network-alias back",
    "vault": "--network inner",
    "safe": "--network inner",
    "far": "--network other",
}
DAEMONS = {
    "usual": (),
    "closed": ("--icc=false", "--userland-proxy=false"),
    "without-rules": ("--iptables=false",),
}


def flows(addresses: dict[str, str]) -> list[tuple[str, str, int]]:
    """From each container and the host to each container, and to each published port."""
    sources = ["host", *addresses]
    found = [(source, address, 80) for source in sources for name, address in addresses.items() if name != source]
    ports = ((HOST_IP, 8080), (HOST_IP, 8081), (HOST_IP, 8082), (HOST_IP, 9090), (HOST_IP, 7777))
    found += [(source, address, port) for source in sources for address, port in ports]
    return found + [("host", "127.0.0.1", port) for port in (8080, 8081, 8082, 9090)]


def met_by_ours(
    suite: str, version: str, args: tuple[str, ...]
) -> tuple[dict[str, str], dict[tuple[str, str, int], str]]:
    """What the flows meet on a host of ours; nobody but the kernel listens, on port 80 of each container."""
    from doctor.runtime.daemon.config import settings

    host = Host(runtimes.DIALECTS[suite], settings(args, None, runtimes.DIALECTS[suite]).values, version)
    host.start()
    for network in NETWORKS:
        host.network(network)
    with host.controller.batch():
        for name, words in CONTAINERS.items():
            host.run(name, words)
    held = [host.inside(name, listen) for name in CONTAINERS]
    addresses = {name: host.named(name).endpoints[0].address for name in CONTAINERS}
    found = probe(host, flows(addresses))
    for one in held:
        one.close()
    host.close()
    return addresses, found


@pytest.mark.parametrize("daemon", ["usual", "closed"])
def test_connections_meet_the_same(suite: str, daemon: str) -> None:
    """Between all pairs, and to every published port: connected, refused, in vain or unreachable alike."""
    with EngineHost.up(suite=suite, daemon_args=DAEMONS[daemon]) as engine:
        for network in NETWORKS:
            engine.docker("network", "create", *network.split(" "))
        for name, words in CONTAINERS.items():
            engine.docker("run", "-d", "--name", name, *(words.split(" ") if words else ()), IMAGE, "serve")
        addresses = {name: engine.container_ip(name) for name in CONTAINERS}
        for name in CONTAINERS:
            engine.await_listening(name, 80)
        live = engine.probe(flows(addresses), timeout=1.0)
        ours_at, ours = apart(lambda: met_by_ours(suite, engine.version, DAEMONS[daemon]))
    assert ours_at == addresses
    assert {flow: what for flow, what in ours.items() if what != live[flow]} == {}
    assert len(set(live.values())) > 1


# Names


def questions() -> list[tuple[str, str, int]]:
    """From whom, what is asked."""
    names = ("db", "DB", "back", "api", "db.shop")
    found = [("api", name, kind) for name in names for kind in (dnswire.A, dnswire.AAAA)]
    found.append(("api", "db.other", dnswire.A))
    found += [("api", "3.0.7.10.in-addr.arpa", dnswire.PTR), ("api", "db", dnswire.MX), ("api", "{id}", dnswire.A)]
    return [*found, ("safe", "vault", dnswire.A), ("far", "far", dnswire.A)]


SILENCE = 5.0
"""Seconds after which nobody answers any more; a nameserver that cannot be reached is known at once."""


def ask_live(engine: EngineHost, source: str, question: str, kind: int) -> tuple[int, list[str]]:
    """Ask the embedded DNS of a live engine, from a container."""
    with engine.open_socket(source, socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect(("127.0.0.11", 53))
        made.send(asked(question, kind))
        return parsed(made.recv(4096)) if select.select([made], [], [], SILENCE)[0] else (-1, [])


def test_names_are_answered_alike(engine: EngineHost, suite: str, tmp_path: Path) -> None:
    """Codes and addresses of each question."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(engine.read("/etc/resolv.conf"), encoding="utf-8")
    try:
        for network in NETWORKS:
            engine.docker("network", "create", *network.split(" "))
        for name, words in CONTAINERS.items():
            engine.docker("run", "-d", "--name", name, *(words.split(" ") if words else ()), IMAGE, "idle")
        names = runtimes.identities(engine)
        wanted = [(source, text.format(id=names["db"][:12]), kind) for source, text, kind in questions()]
        live = {one: ask_live(engine, *one) for one in wanted}
    finally:
        engine.sh("docker rm -f $(docker ps -aq) >/dev/null 2>&1; docker network prune -f >/dev/null")

    def work() -> dict[tuple[str, str, int], tuple[int, list[str]]]:
        sh("ip", "addr", "add", f"{OUTSIDE_IP}/32", "dev", "lo")  # where no nameserver is either
        host = Host(runtimes.DIALECTS[suite], {}, engine.version, str(resolv))
        host.start()
        for network in NETWORKS:
            host.network(network)
        with host.controller.batch():
            for name, words in CONTAINERS.items():
                host.run(name, words, names[name])
        found = {one: ask(host, *one, seconds=SILENCE) for one in wanted}
        host.close()
        return found

    assert apart(work) == live
