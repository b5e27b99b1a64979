"""Faults of control groups: a controller that is missing, a process outside, a group left behind, limits that are met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

LEFT = "fedcba9876543210" * 4
"""The id of a container that is gone."""


# What breaks


def _controller_gone(host: EngineHost) -> None:
    host.sh("umount /sys/fs/cgroup/pids")
    host.restart_dockerd()
    for name in ("web", "cron", "api", "db"):
        host.docker("start", name)


def _can_limit(host: EngineHost) -> object:
    """Whether the engine says that it can limit processes."""
    return host.docker("info", "-f", "{{.PidsLimit}}")


def _group(host: EngineHost, controller: str, name: str) -> str:
    return f"/sys/fs/cgroup/{controller}/docker/{host.docker('inspect', '-f', '{{.Id}}', name).strip()}"


def _leave_group(host: EngineHost) -> None:
    host.sh(f"for i in memory pids; do mkdir /sys/fs/cgroup/$i/docker/{LEFT}; done")


def _groups(host: EngineHost) -> object:
    """The groups of containers."""
    return host.sh("ls -d /sys/fs/cgroup/*/docker/*/")


def _move_out(host: EngineHost) -> None:
    group = _group(host, "pids", "web")
    host.sh(f"for i in $(cat {group}/cgroup.procs); do echo $i >/sys/fs/cgroup/pids/cgroup.procs; done")


def _inside(host: EngineHost) -> object:
    """How many processes the group of web limits."""
    return len(host.read(_group(host, "pids", "web") + "/cgroup.procs").split())


def _few(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "few", "--pids-limit", "30", IMAGE, "idle")


def _fill(host: EngineHost) -> None:
    # idle is two processes, the shell is the third.
    script = "for i in $(seq 27); do sleep 86400 & done; exec sleep 86400"
    host.docker("exec", "-d", "few", "sh", "-c", script)
    host.sh(
        f"for i in $(seq 100); do grep -qx 30 {_group(host, 'pids', 'few')}/pids.current && exit; sleep 0.05; done; exit 1"
    )


def _forks(host: EngineHost) -> object:
    """Whether a process in it can fork; the first of an exec is moved in, which no limit forbids."""
    return host.run("docker", "exec", "few", "sh", "-c", "sleep 0.01 & wait $!", check=False).returncode


def _limited(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "full", "--memory", "32m", IMAGE, "idle")


def _use(host: EngineHost) -> None:
    host.docker("exec", "full", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=30")


def _near(host: EngineHost) -> object:
    """Whether nine tenths of the limit are used."""
    group = _group(host, "memory", "full")
    used, limit = (int(host.read(f"{group}/memory.{what}_in_bytes")) for what in ("usage", "limit"))
    return used > 0.9 * limit


def _forking(host: EngineHost) -> None:
    """What forks more than it may, and goes on when it cannot: a worker pool, a shell that is in a loop."""
    script = 'BEGIN { while (1) { system("for i in $(seq 40); do sleep 0.2 & done; wait"); system("sleep 0.1") } }'
    host.docker("exec", "-d", "few", "awk", script)


def _refused(host: EngineHost) -> object:
    """Whether forks are refused within a second."""
    events = _group(host, "pids", "few") + "/pids.events"
    before = host.read(events)
    host.sh("sleep 1")
    return host.read(events) != before


FAULTS = (
    Fault("CGR002", "not-mounted", _controller_gone, _can_limit, level="warning"),
    Fault("CGR005", "left-behind", _leave_group, _groups, level="warning"),
    Fault("CGR005", "outside", _move_out, _inside, level="warning"),
    Fault("CGR006", "pids", _fill, _forks, setup=_few),
    Fault("CGR006", "pids-refused-now", _forking, _refused, setup=_few, options=("--sample", "2s")),
    Fault("CGR006", "memory", _use, _near, level="warning", setup=_limited),
)
