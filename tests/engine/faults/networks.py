"""Faults of bridges, links, rules and sysctls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, flows

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


# What breaks


def _veth(host: EngineHost, name: str) -> str:
    inside = host.sh(f"nsenter -t {host.container_pid(name)} -n ip -o link show eth0")
    index = inside.partition("@if")[2].partition(":")[0]
    return host.sh(f"ip -o link | sed -n 's/^{index}: \\([^@]*\\)@.*/\\1/p'").strip()


def _bridge(host: EngineHost) -> str:
    return "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", "shop")[:12]


def _rename_bridge(host: EngineHost) -> None:
    bridge = _bridge(host)
    host.sh(f"ip link set {bridge} down; ip link set {bridge} name other0; ip link set other0 up")


def _wrong_gateway(host: EngineHost) -> None:
    bridge = _bridge(host)
    host.sh(f"ip addr del 10.7.0.1/24 dev {bridge}; ip addr add 10.7.0.9/24 dev {bridge}")
    # A neighbour entry outlives the address for some seconds, and everything seems to work.
    for name in ("api", "db"):
        host.sh(f"nsenter -t {host.container_pid(name)} -n ip neigh flush all")


FAULTS = (
    Fault("NET009", "down", lambda h: h.sh("ip link set docker0 down"), flows),
    Fault("NET009", "deleted", lambda h: h.sh(f"ip link del {_bridge(h)}"), flows, ("NET010", "NET012")),
    Fault("NET009", "renamed", _rename_bridge, flows, ("NET012",)),
    Fault("NET010", "address-gone", lambda h: h.sh("ip addr del 172.17.0.1/16 dev docker0"), flows),
    Fault("NET010", "other-address", _wrong_gateway, flows),
    Fault("NET012", "off-the-bridge", lambda h: h.sh(f"ip link set {_veth(h, 'web')} nomaster"), flows),
    Fault("NET012", "other-bridge", lambda h: h.sh(f"ip link set {_veth(h, 'web')} master {_bridge(h)}"), flows),
    Fault("NET012", "host-end-down", lambda h: h.sh(f"ip link set {_veth(h, 'api')} down"), flows),
    Fault("NET012", "gone", lambda h: h.sh(f"ip link del {_veth(h, 'web')}"), flows),
    Fault(
        "NET012",
        "inner-end-down",
        lambda h: h.sh(f"nsenter -t {h.container_pid('api')} -n ip link set eth0 down"),
        flows,
    ),
    Fault("NET034", "host", lambda h: h.sh("sysctl -qw net.ipv4.ip_forward=0"), flows),
    Fault("NET034", "bridge", lambda h: h.sh("sysctl -qw net.ipv4.conf.docker0.forwarding=0"), flows),
    Fault("NET034", "uplink", lambda h: h.sh("sysctl -qw net.ipv4.conf.eth0.forwarding=0"), flows),
)
