"""Faults that leave everything in its place and running, as docker says: frozen, isolated, without lo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, flows
from tests.enginehost import HOST_IP

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

# Probes


def to_itself(host: EngineHost) -> object:
    """Whether the host and a container reach what they have on 127.0.0.1."""
    return host.probe([("host", "127.0.0.1", 8080), ("db", "127.0.0.1", 80)])


def neighbours(host: EngineHost) -> object:
    """Whether two containers of a network reach each other, and outside reaches one."""
    return host.probe([("db", "10.7.0.2", 80), ("outside", HOST_IP, 8081)])


def answers_http(host: EngineHost) -> object:
    """Whether web answers: the kernel lets connections in while its processes stand still."""
    try:
        return host.http_get("outside", HOST_IP, 8080).status
    except OSError as error:
        return type(error).__name__


# What breaks


def _freeze(host: EngineHost) -> None:
    """What a script does that knows the kernel and not docker pause."""
    group = f"docker/{host.docker('inspect', '-f', '{{.Id}}', 'web').strip()}"
    one = f"/sys/fs/cgroup/freezer/{group}/freezer.state"
    two = f"/sys/fs/cgroup/{group}/cgroup.freeze"
    host.sh(f"if [ -e {one} ]; then echo FROZEN >{one}; else echo 1 >{two}; fi")


def _isolate(host: EngineHost) -> None:
    bridge = "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", "shop")[:12]
    host.sh(f"for p in /sys/class/net/{bridge}/brif/*; do echo 1 >$p/isolated; done")


def _no_lo_inside(host: EngineHost) -> None:
    host.sh(f"nsenter -t {host.container_pid('db')} -n ip link set lo down")


FAULTS = (
    Fault("NSP015", "cgroup-frozen", _freeze, answers_http),
    Fault("NET055", "isolated", _isolate, neighbours),
    Fault("NET045", "lo-of-a-container", _no_lo_inside, to_itself),
    Fault("NET036", "lo-of-the-host", lambda h: h.sh("ip link set lo down"), lambda h: (to_itself(h), flows(h))),
)
