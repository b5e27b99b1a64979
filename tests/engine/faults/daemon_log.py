"""Faults of what is logged: by dockerd, and by containers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.daemon_options import refused, write
from tests.engine.faults.table import Fault, answers, reloads, starts

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

LIMITED = ("--log-opt", "max-size=10m")


# Probes


def debugs(host: EngineHost) -> object:
    """Whether dockerd debugs; a reload takes a moment."""
    time.sleep(0.5)
    return host.docker("info", "-f", "{{.Debug}}")


def limit(host: EngineHost) -> object:
    """The limit that a new container's log gets."""
    host.docker("create", "--name", "probe", "busybox:lab")
    found = host.docker("inspect", "-f", '{{index .HostConfig.LogConfig.Config "max-size"}}', "probe")
    host.docker("rm", "probe")
    return found


def large(host: EngineHost) -> object:
    """Whether the log of web has more than a gigabyte."""
    return int(host.sh(f"stat -c %s {_log(host)}")) > 1 << 30


def logs(host: EngineHost) -> object:
    """Whether the log of web can be read."""
    return host.run("docker", "logs", "--tail", "1", "web", check=False).returncode


# What breaks


def _log(host: EngineHost) -> str:
    return host.docker("inspect", "-f", "{{.LogPath}}", "web").strip()


def _remove(host: EngineHost) -> None:
    host.docker("exec", "web", "sh", "-c", "echo hello >/proc/1/fd/1")  # of an empty log 28 does not miss the file
    log = _log(host)
    host.sh(f"for i in $(seq 100); do [ -s {log} ] && break; sleep 0.05; done; rm {log}")


def _debug(host: EngineHost) -> None:
    write(host, debug=True)
    reloads(host)


def _odd_size(host: EngineHost) -> None:
    write(host, log_opts={"max-size": "10 megs"})
    host.restart_dockerd()


FAULTS = (
    Fault("DMN006", "debug", _debug, debugs, level="info"),
    Fault(
        "DMN009",
        "flag-taken-out",
        lambda h: h.restart_dockerd("--icc=true"),
        limit,
        level="info",
        daemon_args=LIMITED,
    ),
    Fault(
        "DMN010",
        "of-another-driver",
        lambda h: refused(h, log_opts={"labels": "owner", "syslog-address": "udp://192.0.2.1:514"}),
        answers,
        ("DMN016",),
    ),
    Fault("DMN010", "size", _odd_size, starts),
    Fault("DMN011", "two-gigabytes", lambda h: h.sh(f"truncate -s 2G {_log(h)}"), large, level="warning"),
    Fault("DMN039", "removed", _remove, logs),
)
