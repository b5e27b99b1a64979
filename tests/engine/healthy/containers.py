"""Containers as people run them: stopped, paused, sharing, limited, named oddly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import populate
from tests.engine.healthy.table import Healthy
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost


def runs(name: str, *options: str, command: tuple[str, ...] = ("idle",)) -> Callable[[EngineHost], object]:
    """Give what runs a container of that name with these options."""
    return lambda host: host.docker("run", "-d", "--name", name, *options, IMAGE, *command)


def _stopped(host: EngineHost) -> None:
    host.docker("create", "--name", "created", "-p", "8100:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "stopped", "-p", "8101:80", IMAGE, "serve")
    host.docker("stop", "stopped")
    host.run("docker", "run", "--name", "failed", IMAGE, "false", check=False)
    host.run("docker", "run", "--name", "no-command", IMAGE, "/no/such", check=False)


def _restart_loop_that_ended(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "gave-up", "--restart", "on-failure:2", IMAGE, "false")
    for _ in range(100):
        if host.docker("inspect", "-f", "{{.State.Status}}", "gave-up").strip() == "exited":
            return
        time.sleep(0.1)


def _shared(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "sidecar", "--network", "container:web", "--pid", "container:web", IMAGE, "idle")
    host.docker("run", "-d", "--name", "peer", "--ipc", "shareable", IMAGE, "idle")
    host.docker("run", "-d", "--name", "of-the-host", "--pid", "host", "--uts", "host", "--ipc", "host", IMAGE, "idle")


def _compose(host: EngineHost) -> None:
    labels = ["--label", "com.docker.compose.project=demo", "--label", "com.docker.compose.version=2.40.0"]
    host.docker("network", "create", *labels, "--label", "com.docker.compose.network=default", "demo_default")
    for service in ("front", "back"):
        for number in ("1", "2"):
            host.docker(
                *("run", "-d", "--name", f"demo-{service}-{number}", "--network", "demo_default"),
                *("--network-alias", service, "--restart", "unless-stopped", *labels),
                *("--label", f"com.docker.compose.service={service}"),
                *("--label", f"com.docker.compose.container-number={number}", IMAGE, "idle"),
            )


def _replaced(host: EngineHost) -> None:
    """Removed and made again, renamed, and gone by itself."""
    host.docker("run", "-d", "--name", "old", "-p", "8110:80", IMAGE, "serve")
    host.docker("rm", "-f", "old")
    host.docker("run", "-d", "--name", "new", "-p", "8110:80", IMAGE, "serve")
    host.docker("rename", "new", "newer")
    host.docker("run", "--rm", "--name", "brief", IMAGE, "true")
    host.docker("network", "create", "brief")
    host.docker("network", "rm", "brief")


def _images(host: EngineHost) -> None:
    """An image of several layers with two names, one without a name, and one that was removed."""
    for name in ("one", "two"):
        host.docker("run", "--name", f"built-{name}", IMAGE, "sh", "-c", f"echo {name} >/{name}")
        host.docker("commit", f"built-{name}", "built:latest")
        host.docker("rm", f"built-{name}")
    host.docker("tag", "built:latest", "registry.example/built:1")
    host.docker("tag", IMAGE, "gone:1")
    host.docker("rmi", "gone:1")


def _volumes(host: EngineHost) -> None:
    host.sh("mkdir -p /srv/files")
    host.docker("volume", "create", "data")
    host.docker("volume", "create", "spare")
    mounts = ("-v", "data:/data", "-v", "/srv/files:/srv:ro", "-v", "/anonymous", "--tmpfs", "/scratch")
    host.docker("run", "-d", "--name", "store", "--read-only", *mounts, IMAGE, "idle")


def _execs(host: EngineHost) -> None:
    host.docker("exec", "-d", "web", "sleep", "3600")
    host.docker("exec", "web", "true")


def _logs(host: EngineHost) -> None:
    """A megabyte of log, and logs of other drivers."""
    host.docker("run", "-d", "--name", "talker", IMAGE, "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exec idle")
    host.docker("run", "-d", "--name", "mute", "--log-driver", "none", IMAGE, "idle")
    host.docker("run", "-d", "--name", "local", "--log-driver", "local", IMAGE, "idle")


HEALTHY = (
    Healthy("populated", populate),
    Healthy("stopped-and-never-started", _stopped, warns=("CTR005",)),
    Healthy("restart-loop-that-ended", _restart_loop_that_ended, fails=("CTR001",)),
    Healthy("namespaces-shared", _shared),
    Healthy("compose", _compose),
    Healthy("replaced", _replaced),
    Healthy("images", _images),
    Healthy("volumes", _volumes),
    Healthy("execs", _execs),
    Healthy("logs", _logs),
    Healthy(
        "paused",
        lambda h: (runs("paused", "-p", "8120:80", command=("serve",))(h), h.docker("pause", "paused")),
        notes=("NSP015",),
    ),
    Healthy("health-check", runs("checked", "--health-cmd", "true", "--health-interval", "1s")),
    Healthy(
        "limits", runs("limited", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "100", "--ulimit", "nofile=512")
    ),
    Healthy("init-and-sysctl", runs("tini", "--init", "--sysctl", "net.ipv4.ip_unprivileged_port_start=80")),
    Healthy("restart-policies", runs("always", "--restart", "always"), notes=("NSP014",)),
    Healthy("removes-itself", runs("temporary", "--rm")),
    Healthy("odd-names", runs("a.b_c-1", "--hostname", "ü", "--label", "text=<b>\nline</b>", "--env", "EMPTY=")),
    Healthy(
        "user-and-caps", runs("weak", "--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    ),
)
