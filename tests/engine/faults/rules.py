"""Faults of the engine's own firewall rules: flushes, lost jumps, chains of another generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, flows, published
from tests.enginehost import HOST_IP

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

NEW = ("sid",)
OLD = ("bookworm", "trixie")


# What breaks


def _flush_by_iptables(host: EngineHost) -> None:
    for table in ("filter", "nat", "raw"):
        host.sh(f"iptables -t {table} -F; iptables -t {table} -X")
    host.sh("iptables -P FORWARD ACCEPT")


def _user_chain_last(host: EngineHost) -> None:
    """A rule of the user drops what comes from outside, and a tool has put its jump at the end."""
    host.sh("iptables -D FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-USER")


def _left_over(host: EngineHost) -> None:
    """A rule that an engine 29 wrote for a network that was internal once."""
    bridge = "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", "shop")[:12]
    host.sh(
        "iptables -N DOCKER-INTERNAL; iptables -I FORWARD -j DOCKER-INTERNAL;"
        f" iptables -A DOCKER-INTERNAL ! -d 10.7.0.0/24 -i {bridge} -j DROP"
    )


def _drop_from_outside(host: EngineHost) -> None:
    host.sh("iptables -I DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP")


# What proves it


def clients(host: EngineHost) -> object:
    """Whom a published port takes its client for, from outside and from this host."""
    outside = host.http_get("outside", HOST_IP, 8080)
    return str(outside), host.sh(f"curl -s --max-time 2 http://{HOST_IP}:8080/cgi-bin/peer || true")


FAULTS = (
    Fault("NET020", "no-forward", lambda h: h.sh("iptables -D FORWARD -j DOCKER-FORWARD"), flows, engines=NEW),
    Fault("NET020", "no-ct", lambda h: h.sh("iptables -D DOCKER-FORWARD -j DOCKER-CT"), flows, engines=NEW),
    Fault("NET020", "no-bridge", lambda h: h.sh("iptables -D DOCKER-FORWARD -j DOCKER-BRIDGE"), flows, engines=NEW),
    Fault(
        "NET020",
        "no-user",
        lambda h: h.sh("iptables -D FORWARD -j DOCKER-USER"),
        flows,
        setup=_drop_from_outside,
    ),
    Fault("NET020", "user-last", _user_chain_last, flows, setup=_drop_from_outside),
    Fault("NET021", "nft-flush", lambda h: h.sh("nft flush ruleset"), published),
    Fault("NET021", "iptables-flush", _flush_by_iptables, published),
    Fault("NET021", "nat-only", lambda h: h.sh("iptables -t nat -F; iptables -t nat -X"), published),
    Fault(
        "NET024",
        "prerouting",
        lambda h: h.sh("iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"),
        clients,
        level="warning",
    ),
    Fault(
        "NET024",
        "no-proxy",
        lambda h: h.sh("iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"),
        clients,
        daemon_args=("--userland-proxy=false",),
    ),
    Fault("NET030", "with-a-jump", _left_over, flows, ("NET028",), level="warning", engines=NEW),
)
