"""Faults by which no container starts, or all of a kind do not: groups, logs, volumes, iptables, the address of ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.daemon_options import refused, write
from tests.engine.faults.table import Fault, answers, starts
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

NAMES = ("web", "cron", "api", "db")


# Probes


def publishes_on_any(host: EngineHost) -> object:
    """Whether a container of the default network starts that publishes a port on whatever address that has."""
    return host.run("docker", "run", "--rm", "-p", "80", IMAGE, "true", check=False).returncode


def _running(name: str) -> Callable[[EngineHost], object]:
    """Whether the container runs, as the engine says."""
    return lambda host: host.docker("inspect", "-f", "{{.State.Running}}", name)


# What breaks


def _try(host: EngineHost, *names: str) -> None:
    for name in names:
        host.run("docker", "start", name, check=False)


def _by_systemd(host: EngineHost) -> None:
    """What guides for Kubernetes set, on a host whose first process is another."""
    write(host, exec_opts=["native.cgroupdriver=systemd"])
    host.restart_dockerd()
    _try(host, "web")
    host.run("docker", "start", "cron", "api", "db", check=False)


def _no_driver(host: EngineHost) -> None:
    refused(host, exec_opts=["native.cgroupdriver=system"])


def _to_fluentd(host: EngineHost) -> None:
    """Send every log to a fluentd that is not there; containers that were made before keep their driver."""
    write(host, log_driver="fluentd")
    host.restart_dockerd()
    _try(host, *NAMES)
    host.run("docker", "run", "-d", "--name", "logged", IMAGE, "idle", check=False)


def _receiver(host: EngineHost) -> None:
    """Start what takes the log, then what it kept down."""
    host.sh("setsid busybox nc -ll -p 24224 -e cat >/dev/null 2>&1 </dev/null &")
    host.await_listening("host", 24224)
    host.docker("start", *NAMES, "logged")


def _collector(host: EngineHost) -> None:
    """A collector that is a container, and one that logs to it."""
    host.docker("run", "-d", "--name", "collector", "-p", "24224:24224", IMAGE, "serve", "24224")
    host.await_listening("collector", 24224)
    host.docker("run", "-d", "--name", "logged", "--log-driver", "fluentd", IMAGE, "idle")


def _collector_gone(host: EngineHost) -> None:
    host.docker("stop", "logged", "collector")
    _try(host, "logged")


def _volume(host: EngineHost) -> None:
    host.docker("volume", "create", "data")
    host.docker("run", "-d", "--name", "keeper", "-v", "data:/data", IMAGE, "idle")


def _volume_gone(host: EngineHost) -> None:
    host.docker("stop", "keeper")
    host.sh("rm -r /var/lib/docker/volumes/data")
    _try(host, "keeper")


def _bound_volume(host: EngineHost) -> None:
    host.sh("mkdir -p /srv/db")
    host.docker("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/srv/db", "pgdata")
    host.docker("run", "-d", "--name", "keeper", "-v", "pgdata:/data", IMAGE, "idle")


def _device_gone(host: EngineHost) -> None:
    host.docker("stop", "keeper")
    host.sh("rmdir /srv/db")
    _try(host, "keeper")


def _device_back(host: EngineHost) -> None:
    host.sh("mkdir /srv/db")
    host.docker("start", "keeper")


def _another_address(host: EngineHost) -> None:
    """Have ports published on the address that this host had before it moved."""
    write(host, ip="192.0.2.11")
    host.restart_dockerd()
    _try(host, "cron", "api", "db")
    host.run("docker", "start", "web", check=False)


def _address_here(host: EngineHost) -> None:
    host.sh("ip address add 192.0.2.11/32 dev eth0")
    host.docker("start", "web")


def _late(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "late", "-p", "8095:80", IMAGE, "serve")


def _iptables_aside(host: EngineHost) -> None:
    """What an upgrade that broke off leaves: a container that starts then fails."""
    host.sh("for p in iptables ip6tables; do f=$(command -v $p); echo $f >/root/$p.at; mv $f /root/$p.aside; done")
    host.run("docker", "restart", "-t", "0", "late", check=False)


def _iptables_back(host: EngineHost) -> None:
    host.sh("for p in iptables ip6tables; do mv /root/$p.aside $(cat /root/$p.at); done")
    host.docker("start", "late")


FAULTS = (
    Fault("DMN024", "no-systemd", _by_systemd, starts),
    Fault("DMN024", "no-driver", _no_driver, answers, ("DMN016", "DMN032")),
    Fault("DMN040", "of-every-container", _to_fluentd, starts, heal=_receiver),
    Fault("DMN040", "collector-down", _collector_gone, _running("logged"), setup=_collector),
    Fault("VOL001", "gone", _volume_gone, _running("keeper"), setup=_volume),
    Fault("VOL002", "device-gone", _device_gone, _running("keeper"), setup=_bound_volume, heal=_device_back),
    Fault("NET059", "of-the-network", _another_address, publishes_on_any, heal=_address_here),
    Fault("CTR001", "no-iptables", _iptables_aside, _running("late"), setup=_late, heal=_iptables_back),
)
