"""Faults of the engine's own rules of networks and ports: one of them is gone, or an old one stands before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, flows
from tests.enginehost import HOST_IP, IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

NEW = ("sid",)
OLD = ("bookworm", "trixie")


# What breaks


def _bridge(host: EngineHost, network: str) -> str:
    return "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", network)[:12]


def without(table: str, pattern: str, network: str = "shop") -> Callable[[EngineHost], object]:
    """Give what deletes the rules that match a pattern (grep -E); BR stands for the bridge of a network."""

    def make(host: EngineHost) -> None:
        wanted = pattern.replace("BR", _bridge(host, network)) if "BR" in pattern else pattern
        gone = host.sh(f"iptables -t {table} -S | grep -E -- '{wanted}' | sed 's/^-A/-D/'").splitlines()
        assert gone, wanted
        for rule in gone:
            host.sh(f"iptables -t {table} {rule}")

    return make


def _network(name: str, subnet: str, *options: str) -> Callable[[EngineHost], object]:
    """Give what makes a network with two containers, `NAME1` and `NAME2`."""

    def make(host: EngineHost) -> None:
        host.docker("network", "create", "--subnet", subnet, *options, name)
        for number in (1, 2):
            host.docker("run", "-d", "--name", f"{name}{number}", "--network", name, IMAGE, "serve")
            host.await_listening(f"{name}{number}", 80)

    return make


_noicc = _network("noicc", "10.9.0.0/24", "-o", "com.docker.network.bridge.enable_icc=false")
_inner = _network("inner", "10.8.0.0/24", "--internal")


def _noicc_and_accept(host: EngineHost) -> None:
    """Policy ACCEPT, as on a host that forwarded before Docker came."""
    _noicc(host)
    host.sh("iptables -P FORWARD ACCEPT")


def _libvirt(host: EngineHost) -> None:
    """A bridge of virtual machines beside the network."""
    _noicc(host)
    host.sh("ip link add virbr0 type bridge; ip link set virbr0 up")


def _routed_here(host: EngineHost) -> None:
    """A neighbour of the host has a route to containers."""
    for subnet in ("172.17.0.0/16", "10.7.0.0/24"):
        host.outside("ip", "route", "add", subnet, "via", HOST_IP)


def _routed_here_and_accept(host: EngineHost) -> None:
    _routed_here(host)
    host.sh("iptables -P FORWARD ACCEPT")


def _old_dnat(aim: str) -> Callable[[EngineHost], object]:
    """Give what puts a rule before all others that leads port 8080 elsewhere."""
    rule = f"! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {aim}"
    return lambda host: host.sh(f"iptables -t nat -I DOCKER {rule}")


def _stale_address(host: EngineHost) -> None:
    """The rule of a port leads to the address that the container had once."""
    without("nat", "-A DOCKER .*--dport 8080 ")(host)
    _old_dnat("172.17.0.9:80")(host)


def _saved_and_made_anew(host: EngineHost) -> None:
    """Rules are saved for boot; then the containers are made anew, and get other addresses."""
    host.sh("iptables-save >/root/rules.v4")
    host.docker("rm", "-f", "web", "cron", "api", "db")
    host.docker("run", "-d", "--name", "cron", IMAGE, "idle")
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "db", "--network", "shop", IMAGE, "serve")
    host.docker("run", "-d", "--name", "api", "--network", "shop", "-p", "8081:80", IMAGE, "serve")
    for name in ("web", "db", "api"):
        host.await_listening(name, 80)


# What proves it


def inside(frm: str, target: str) -> Callable[[EngineHost], object]:
    """Whether one container reaches another one by its address."""
    return lambda host: host.probe([(frm, host.container_ip(target), 80)])


def direct(host: EngineHost) -> object:
    """Whether the network outside reaches containers by their own address: a port that is published, one that is not."""
    return list(host.probe([("outside", "172.17.0.2", 80), ("outside", "10.7.0.3", 80)]).values())


def one_way(host: EngineHost) -> object:
    """Whether a packet of a container of one network arrives in the other, whatever becomes of the answer."""
    counted = f"nsenter -t {host.container_pid('web')} -n awk '/^Tcp: [0-9]/ {{print $11}}' /proc/net/snmp"
    before = int(host.sh(counted))
    host.connect("api", "172.17.0.2", 80, timeout=0.5)
    return int(host.sh(counted)) > before


def clients(host: EngineHost) -> object:
    """Who answers at a published port, and whom it takes its client for."""
    return str(host.http_get("outside", HOST_IP, 8080)), flows(host)


def answering(host: EngineHost) -> object:
    """Who answers at the published ports."""
    return [str(host.http_get("outside", HOST_IP, port)) for port in (8080, 8081)]


FAULTS = (
    Fault(
        "NET018",
        "icc-on",
        without("filter", "-A FORWARD -i docker0 -o docker0 -j ACCEPT"),
        flows,
        engines=OLD,
    ),
    Fault(
        "NET018",
        "icc-off",
        without("filter", "FORWARD -i BR -o BR -j DROP", "noicc"),
        inside("noicc1", "noicc2"),
        setup=_noicc_and_accept,
    ),
    Fault(
        "NET018",
        "internal",
        without("filter", "-i BR -o BR -j ACCEPT", "inner"),
        inside("inner1", "inner2"),
        setup=_inner,
        engines=NEW,
    ),
    Fault(
        "NET018",
        "stale-drop",
        lambda h: h.sh(f"iptables -I DOCKER-FORWARD -i {_bridge(h, 'shop')} -o {_bridge(h, 'shop')} -j DROP"),
        flows,
        ("NET028",),
        engines=NEW,
    ),
    Fault(
        "NET019",
        "sysctl",
        lambda h: h.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0"),
        inside("noicc1", "noicc2"),
        setup=_noicc,
    ),
    Fault(
        "NET019",
        "beside-other-bridges",
        lambda h: h.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0"),
        inside("noicc1", "noicc2"),
        setup=_libvirt,
        engines=NEW,
    ),
    Fault("NET022", "answers", without("filter", "-o BR -m conntrack"), flows),
    Fault("NET022", "egress", without("filter", "-i BR (! -o BR )?-j ACCEPT"), flows),
    Fault("NET022", "ports", without("filter", "-o BR -j DOCKER$"), flows),
    Fault(
        "NET022",
        "closed",
        without("filter", "-A DOCKER ! -i BR -o BR -j DROP"),
        direct,
        setup=_routed_here_and_accept,
        daemon_args=("--allow-direct-routing",),
        engines=NEW,
    ),
    Fault(
        "NET023", "second-stage", without("filter", "-A DOCKER-ISOLATION-STAGE-2 -o"), inside("db", "web"), engines=OLD
    ),
    Fault(
        "NET023",
        "one-way",
        without("filter", "-A DOCKER-ISOLATION-STAGE-2 -o docker0"),
        one_way,
        level="warning",
        engines=OLD,
    ),
    Fault(
        "NET023",
        "internal",
        without("filter", "! -s 10.8.0.0/24"),
        inside("cron", "inner1"),
        setup=_inner,
        engines=NEW,
    ),
    Fault("NET025", "shop", without("nat", "-s 10.7.0.0/24 ! -o BR -j MASQUERADE"), flows),
    Fault("NET025", "all", lambda h: h.sh("iptables -t nat -F POSTROUTING"), flows),
    Fault("NET026", "accept", without("filter", "-A DOCKER -d 10.7.0.2/32 .*--dport 80 "), flows),
    Fault("NET026", "dnat", without("nat", "-A DOCKER .*--dport 8080 "), clients, level="warning"),
    Fault(
        "NET026",
        "dnat-without-proxy",
        without("nat", "-A DOCKER .*--dport 8080 "),
        clients,
        daemon_args=("--userland-proxy=false",),
    ),
    Fault("NET026", "another-container", _old_dnat("10.7.0.2:80"), clients),
    Fault("NET026", "old-address", _stale_address, clients),
    Fault(
        "NET026",
        "saved-rules",
        lambda h: h.sh("iptables-restore </root/rules.v4"),
        answering,
        setup=_saved_and_made_anew,
    ),
    Fault(
        "NET027",
        "flushed",
        lambda h: h.sh("iptables -t raw -F PREROUTING"),
        direct,
        level="warning",
        setup=_routed_here,
        engines=NEW,
    ),
)
