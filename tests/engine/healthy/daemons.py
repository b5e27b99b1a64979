"""dockerd as people configure it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.engine.faults.table import populate
from tests.engine.healthy.table import Healthy
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

ADDRESSES: dict[str, Any] = {
    "bip": "10.9.8.1/24",
    "fixed-cidr": "10.9.8.128/25",
    "mtu": 1400,
    "dns": ["198.51.100.1"],
    "dns-search": ["example.org"],
    "default-address-pools": [{"base": "10.50.0.0/16", "size": 24}],
    "log-driver": "json-file",
    "log-opts": {"max-size": "10m", "max-file": "3"},
    "debug": False,
    "labels": ["rack=1"],
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 900, "Soft": 800}},
}
KEPT: dict[str, Any] = {"live-restore": True, "userland-proxy": False, "data-root": "/var/lib/docker/other"}
APART: dict[str, Any] = {
    "icc": False,
    "ip6tables": True,
    "experimental": True,
    "ipv6": True,
    "fixed-cidr-v6": "fd00:9::/64",
}
BARE: dict[str, Any] = {"iptables": False, "ip6tables": False, "bridge": "none"}
HOSTS: dict[str, Any] = {"hosts": ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"]}
MAPPED: dict[str, Any] = {"userns-remap": "nobody:nogroup"}
_RANGES = "nobody:100000:65536\nnogroup:100000:65536\n"
RANGES = {"/etc/subuid": _RANGES, "/etc/subgid": _RANGES}


def _restarted(host: EngineHost) -> None:
    """Containers outlive a restart of dockerd."""
    host.restart_dockerd()


def _killed_and_back(host: EngineHost) -> None:
    host.sh(f"kill -9 {host.dockerd_pid()}")
    host.sh("for i in $(seq 100); do pidof dockerd || exit 0; sleep 0.02; done")
    host.start_dockerd()


def _on_the_host(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "on-the-host", "--network", "host", IMAGE, "serve", "8300")
    host.docker("run", "-d", "--name", "on-none", "--network", "none", IMAGE, "idle")


def _own_bridge(host: EngineHost) -> None:
    """docker0 is another bridge, which somebody made with an address of the LAN's choice."""
    host.sh("ip link add br7 type bridge; ip address add 10.77.0.1/24 dev br7; ip link set br7 up")
    host.write("/etc/docker/daemon.json", '{"bridge": "br7", "fixed-cidr": "10.77.0.128/25"}\n')
    host.restart_dockerd()
    host.docker("run", "-d", "--name", "on-br7", "-p", "8310:80", IMAGE, "serve")


def _swarm(host: EngineHost) -> None:
    """A swarm of one, an overlay network, a service on it with a port in the routing mesh."""
    host.docker("swarm", "init", "--advertise-addr", "198.51.100.2")
    host.docker("network", "create", "-d", "overlay", "--attachable", "mesh")
    host.docker("run", "-d", "--name", "on-mesh", "--network", "mesh", IMAGE, "serve")
    host.docker("service", "create", "-d", "--name", "served", "--network", "mesh", "-p", "8400:80", IMAGE, "serve")
    for _ in range(100):
        if "1/1" in host.docker("service", "ls", "--format", "{{.Replicas}}"):
            return
        time.sleep(0.2)


def _reloaded(host: EngineHost) -> None:
    host.write("/etc/docker/daemon.json", '{"debug": true, "labels": ["rack=2"]}\n')
    host.sh(f"kill -HUP {host.dockerd_pid()}; sleep 0.3")
    host.write("/etc/docker/daemon.json", '{"debug": false, "labels": ["rack=2"]}\n')
    host.sh(f"kill -HUP {host.dockerd_pid()}; sleep 0.3")


HEALTHY = (
    Healthy("addresses-dns-and-logs", populate, daemon_json=ADDRESSES),
    Healthy("live-restore-no-proxy-data-root", populate, daemon_json=KEPT),
    Healthy("live-restore-restarted", _restarted, daemon_json=KEPT),
    Healthy("live-restore-killed-and-back", _killed_and_back, daemon_json=KEPT),
    Healthy("icc-off-with-ipv6", populate, daemon_json=APART),
    Healthy("no-iptables-no-bridge", _on_the_host, daemon_json=BARE),
    Healthy("tcp-on-loopback", populate, daemon_json=HOSTS, warns=("SEC001",)),
    Healthy("users-remapped", populate, daemon_json=MAPPED, files=RANGES),
    Healthy(
        "flags",
        populate,
        daemon_args=("--log-level=warn", "--max-concurrent-downloads=5", "--default-ulimit=nofile=9000"),
    ),
    Healthy(
        "reloaded",
        _reloaded,
        daemon_args=("--log-level=warn", "--max-concurrent-downloads=5", "--default-ulimit=nofile=9000"),
    ),
    Healthy("swarm-of-one", _swarm, daemon_json=HOSTS),
    Healthy("own-bridge", _own_bridge, daemon_args=("--ip-forward=true",)),
)
