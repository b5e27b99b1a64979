"""Faults of the daemon: its file, its command line, its socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, answers, reloads

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


# What breaks


def _refused(host: EngineHost, text: str, *args: str) -> None:
    """Stop dockerd, write the file, try to start it."""
    host.stop_dockerd()
    host.write("/etc/docker/daemon.json", text)
    host.start_dockerd(*args, expect_failure=True)


def _kill_daemon(host: EngineHost) -> None:
    host.sh(f"kill -9 {host.dockerd_pid()}")
    for _ in range(1000):
        if not host.dockerd_pid():
            return
        time.sleep(0.01)


def _broken_then_killed(host: EngineHost) -> None:
    """Containers outlive a dockerd that is killed, and end when the next one starts."""
    host.write("/etc/docker/daemon.json", '{\n  "experimental": true,\n}\n')
    _kill_daemon(host)


def _hangs_on(host: EngineHost) -> object:
    """Whether docker info hangs; one that goes on takes a moment."""
    return host.run("timeout", "3", "docker", "info", check=False).returncode


def _few_files(host: EngineHost) -> None:
    """Let dockerd open no more: what it has open stays so, and a connection is one more."""
    host.sh(f"prlimit --pid {host.dockerd_pid()} --nofile=10:")


FAULTS = (
    Fault("DMN001", "trailing-comma", lambda h: _refused(h, '{\n  "experimental": true,\n}\n'), answers, ("DMN016",)),
    Fault("DMN001", "wrong-type", lambda h: _refused(h, '{\n  "experimental": "true"\n}\n'), answers, ("DMN016",)),
    Fault("DMN001", "bracket-open", lambda h: _refused(h, '{\n  "dns": ["192.0.2.1"]\n'), answers, ("DMN016",)),
    Fault(
        "DMN001",
        "running",
        lambda h: h.write("/etc/docker/daemon.json", '{\n  "debug": false\n  "mtu": 1500\n}\n'),
        reloads,
        level="warning",
    ),
    Fault("DMN001", "killed", _broken_then_killed, answers, ("DMN016",)),
    Fault(
        "DMN003",
        "hosts",
        lambda h: _refused(h, '{"hosts": ["unix:///run/docker.sock"]}\n', "-H", "unix:///var/run/docker.sock"),
        answers,
        ("DMN016",),
    ),
    Fault(
        "DMN003",
        "log-level",
        lambda h: _refused(h, '{\n  "icc": true,\n  "log-level": "info"\n}\n', "--log-level=info"),
        answers,
        ("DMN016",),
    ),
    Fault(
        "DMN003",
        "running",
        lambda h: h.write("/etc/docker/daemon.json", '{\n  "log-level": "warn"\n}\n'),
        reloads,
        level="warning",
        daemon_args=("--log-level=info",),
    ),
    Fault("DMN016", "stopped-by-signal", lambda h: h.sh(f"kill -STOP {h.dockerd_pid()}"), answers),
    Fault("DMN016", "containerd-stopped", lambda h: h.sh("kill -STOP $(pidof containerd)"), _hangs_on),
    Fault("DMN016", "open-files", _few_files, answers),
    Fault("DMN016", "killed", _kill_daemon, answers),
    Fault("DMN016", "socket-removed", lambda h: h.sh("rm /run/docker.sock"), answers),
    Fault("DMN016", "stopped", lambda h: h.stop_dockerd(), answers),
)
