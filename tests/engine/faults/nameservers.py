"""Faults of nameservers: silent, away, by UDP only, dropped on the way, refusing; `doctor check --probe` asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.engine.nameserver import How, Nameserver
from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

_serving: dict[str, tuple[Nameserver, ...]] = {}
"""The nameservers of each host by its name."""


# What prepares


def _outside(host: EngineHost) -> None:
    """What the host's resolv.conf names is there."""
    _serving[host.name] = (Nameserver(host, "outside", OUTSIDE_IP),)


def _on_host(host: EngineHost) -> None:
    """One more on the host itself, which a container is told to ask, and the host asks second."""
    _serving[host.name] = (Nameserver(host, "outside", OUTSIDE_IP), Nameserver(host, "host", HOST_IP))
    host.docker("run", "-d", "--name", "asker", "--dns", HOST_IP, IMAGE, "idle")
    host.write("/etc/resolv.conf", f"nameserver {OUTSIDE_IP}\nnameserver {HOST_IP}\n")


# What breaks


def _now(how: How, which: int = 0) -> Callable[[EngineHost], None]:
    return lambda host: _serving[host.name][which].now(how)


def _drop(host: EngineHost) -> None:
    for protocol in ("udp", "tcp"):
        host.sh(f"iptables -A INPUT -s 172.17.0.0/16 -p {protocol} --dport 53 -j DROP")


def _inside(verb: str) -> Callable[[EngineHost], None]:
    """Whoever keeps a firewall in a container, and forgot its DNS: the rules that lead there are left."""
    rules = " && ".join(f"iptables {verb} INPUT -i lo -p {protocol} -j DROP" for protocol in ("udp", "tcp"))
    return lambda host: host.sh(f'nsenter -t {host.container_pid("api")} -n sh -c "{rules}"') and None


# What proves


def outside(host: EngineHost) -> object:
    """Whether web is answered by the nameserver that it has from the host."""
    return _is_answered(host, "web", OUTSIDE_IP)


def on_host(host: EngineHost) -> object:
    """Whether asker is answered by the nameserver on the host."""
    return _is_answered(host, "asker", HOST_IP)


def _is_answered(host: EngineHost, container: str, server: str) -> bool:
    said = host.run("docker", "exec", container, "timeout", "3", "nslookup", "x.test", server, check=False)
    return "NXDOMAIN" in said.stdout + said.stderr


def by_tcp(host: EngineHost) -> object:
    """What a connection to port 53 meets."""
    return host.connect("web", OUTSIDE_IP, 53)


def neighbours(host: EngineHost) -> object:
    """Whether api resolves the name of its neighbour."""
    return host.run("docker", "exec", "api", "timeout", "3", "nslookup", "db", check=False).returncode == 0


PROBE = ("--probe",)
FAULTS = (
    Fault("NET064", "silent", _now("silent"), outside, setup=_outside, heal=_now("answers"), options=PROBE),
    Fault("NET064", "away", _now("away"), outside, setup=_outside, heal=_now("answers"), options=PROBE),
    Fault(
        "NET064",
        "udp-only",
        _now("udp-only"),
        by_tcp,
        level="info",
        setup=_outside,
        heal=_now("answers"),
        options=PROBE,
    ),
    Fault("NET064", "dropped-by-input", _drop, on_host, setup=_on_host, options=PROBE),
    Fault("NET064", "denies", _now("denies", 1), on_host, setup=_on_host, heal=_now("answers", 1), options=PROBE),
    Fault("NET064", "inside", _inside("-I"), neighbours, setup=_outside, heal=_inside("-D"), options=PROBE),
)
