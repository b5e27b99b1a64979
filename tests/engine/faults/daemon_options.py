"""Faults of what daemon.json says: keys that are none, values that dockerd refuses, and a file that is not in force."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, answers, reloads, starts
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

FILE = "/etc/docker/daemon.json"


# Probes


def labels(host: EngineHost) -> object:
    """The labels of the engine; a reload takes a moment."""
    time.sleep(0.5)
    return host.docker("info", "-f", "{{.Labels}}")


def in_force(host: EngineHost) -> object:
    """Whether live-restore and the MTU of the default bridge are as the file says; a reload takes a moment."""
    time.sleep(0.5)
    file = json.loads(host.read(FILE)) if host.exists(FILE) else {}
    restore = host.docker("info", "-f", "{{.LiveRestoreEnabled}}").strip()
    mtu = host.docker(
        "network", "inspect", "-f", '{{index .Options "com.docker.network.driver.mtu"}}', "bridge"
    ).strip()
    return restore == str(file.get("live-restore", False)).lower(), mtu == str(file.get("mtu", 1500))


def valid(host: EngineHost) -> object:
    """Whether dockerd takes its file."""
    return host.run("dockerd", "--validate", check=False).returncode


def publishes(host: EngineHost) -> object:
    """Whether a container with a published port starts."""
    return host.run("docker", "run", "--rm", "-p", "8090:80", IMAGE, "true", check=False).returncode


def publishes_any(host: EngineHost) -> object:
    """Whether a container with a port of the engine's choice starts: 20.10 keeps the port of one that did not."""
    return host.run("docker", "run", "--rm", "-p", "80", IMAGE, "true", check=False).returncode


def starts_soon(host: EngineHost) -> object:
    """Whether a container starts; a reload takes a moment."""
    time.sleep(0.5)
    return starts(host)


# What breaks


def write(host: EngineHost, **options: object) -> None:
    """Write daemon.json; dockerd is not told."""
    host.write(FILE, json.dumps({key.replace("_", "-"): value for key, value in options.items()}, indent=2) + "\n")


def refused(host: EngineHost, *args: str, **options: object) -> None:
    """Stop dockerd, write daemon.json, try to start it."""
    host.stop_dockerd()
    write(host, **options)
    host.start_dockerd(*args, expect_failure=True)


def _labelled(host: EngineHost) -> None:
    write(host, labels=["owner=lab"])
    reloads(host)


def _label_for_labels(host: EngineHost) -> None:
    write(host, label=["owner=lab"])
    host.restart_dockerd()


def _proxy(host: EngineHost) -> None:
    write(host, userland_proxy_path="/opt/docker-proxy")
    host.restart_dockerd()


def _runtime(host: EngineHost) -> None:
    write(host, default_runtime="fast", runtimes={"fast": {"path": "/opt/fast"}})
    reloads(host)


def _aside(host: EngineHost, program: str) -> None:
    """Take a program out of every folder of PATH, as an upgrade that broke off does."""
    host.sh(f"P=$(readlink -f $(command -v {program})); echo $P >/root/{program}.was; mv $P /root/{program}.aside")


def _back(host: EngineHost, program: str) -> None:
    """Do what installing its package again does."""
    host.sh(f"mv /root/{program}.aside $(cat /root/{program}.was)")


def _no_right(host: EngineHost, program: str) -> None:
    host.sh(f"chmod 0644 $(readlink -f $(command -v {program}))")


FAULTS = (
    Fault("DMN002", "misspelt", lambda h: refused(h, registry_mirors=["https://mirror.example"]), answers, ("DMN016",)),
    Fault("DMN002", "log-option-at-the-top", lambda h: refused(h, max_file="3"), answers, ("DMN016",)),
    Fault("DMN002", "running", lambda h: write(h, nameserver=["192.0.2.53"]), reloads, level="warning"),
    Fault("DMN002", "flag-name", _label_for_labels, labels, level="warning", setup=_labelled),
    Fault("DMN005", "verbose", lambda h: refused(h, log_level="verbose"), answers, ("DMN016",)),
    Fault(
        "DMN005",
        "running",
        lambda h: write(h, log_level="warning"),
        valid,
        level="warning",
        engines=("trixie", "sid"),
    ),
    Fault(
        "DMN007",
        "upper-case",
        lambda h: refused(h, log_format="JSON"),
        answers,
        ("DMN016",),
        engines=("trixie", "sid"),
    ),
    Fault("DMN013", "reload", lambda h: write(h, live_restore=True), in_force, level="warning"),
    Fault("DMN013", "restart", lambda h: write(h, mtu=1400), in_force, level="warning"),
    Fault("DMN021", "no-such-default", lambda h: refused(h, default_runtime="fast"), answers, ("DMN016",)),
    Fault("DMN021", "not-installed", _runtime, starts_soon),
    Fault("DMN021", "runc-gone", lambda h: _aside(h, "runc"), starts, heal=lambda h: _back(h, "runc")),
    Fault("DMN021", "shim-not-executable", lambda h: _no_right(h, "containerd-shim-runc-v2"), starts),
    Fault(
        "DMN022",
        "relative",
        lambda h: refused(h, userland_proxy_path="docker-proxy"),
        answers,
        ("DMN016",),
        engines=("trixie", "sid"),
    ),
    Fault("DMN022", "not-there", _proxy, publishes, engines=("bookworm",)),
    Fault(
        "DMN022", "gone", lambda h: _aside(h, "docker-proxy"), publishes_any, heal=lambda h: _back(h, "docker-proxy")
    ),
)
