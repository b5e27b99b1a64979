"""Faults of what stands between dockerd and a container: pid, shim, first process, sandbox."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import HOST_IP, IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

UNKNOWN = "0123456789abcdef" * 4
"""The id of a container that only containerd knows."""


# What breaks


def _stop_containerd(host: EngineHost) -> None:
    host.sh("kill -STOP $(pgrep -x containerd)")


def _process_gone(host: EngineHost) -> None:
    """Let containerd sleep through the end of web."""
    pid = host.container_pid("web")
    _stop_containerd(host)
    host.sh(f"kill -9 {pid}; while [ -e /proc/{pid} ]; do sleep 0.01; done")


def _pid_reused(host: EngineHost) -> None:
    """Do so, and give its pid to a process of the host."""
    pid = host.container_pid("web")
    _process_gone(host)
    time.sleep(2)  # clocks of processes are not exact: one that is as old as the container is not told apart
    take = f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid; setsid sleep 600 >/dev/null 2>&1 &"
    host.sh(
        f'for i in 1 2 3 4 5; do {take}\n [ "$(cat /proc/{pid}/comm 2>/dev/null)" = sleep ] && exit 0; done; exit 1'
    )


def _lives(host: EngineHost) -> object:
    """Whether the pid that the engine has for web is a process that serves."""
    return host.run("grep", "-qa", "serve", f"/proc/{host.container_pid('web')}/cmdline", check=False).returncode


def _kill_shim(host: EngineHost) -> None:
    """Kill the shim of cron while containerd does not look."""
    shim = host.sh(f"awk '{{print $4}}' /proc/{host.container_pid('cron')}/stat").strip()
    _stop_containerd(host)
    host.sh(f"kill -9 {shim}; while [ -e /proc/{shim} ]; do sleep 0.01; done")


def _execs(host: EngineHost) -> object:
    """Whether a command can be run in cron."""
    return host.run("timeout", "3", "docker", "exec", "cron", "true", check=False).returncode


def _behind_dockers_back(host: EngineHost) -> None:
    """Run a container in dockerd's namespace of containerd that dockerd never heard of."""
    host.sh("mkdir -p /srv/root/bin && cp /bin/busybox /srv/root/bin/ && ln -s busybox /srv/root/bin/sleep")
    ctr = "ctr --address /run/docker/containerd/containerd.sock --namespace moby"
    host.sh(f"{ctr} run --detach --rootfs /srv/root {UNKNOWN} /bin/sleep 600")


def _shims(host: EngineHost) -> object:
    """How many shims run."""
    return host.sh("pgrep -c containerd-shim")


def _not_reaping(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "parent", "--stop-timeout", "1", IMAGE, "sleep", "86400")
    time.sleep(2)  # younger, nobody says that it takes no SIGTERM


def _orphans(host: EngineHost) -> None:
    host.docker("exec", "parent", "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.1 & done")
    time.sleep(0.3)


def _zombies(host: EngineHost) -> object:
    """How many processes of the host are zombies; two seconds later doctor judges also what has just been restarted."""
    time.sleep(2)
    return host.sh("ps -eo stat= | grep -c Z || true")


def _stops_well(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "tool", IMAGE, "idle")


def _without_handler(host: EngineHost) -> None:
    host.docker("rm", "-f", "tool")
    host.docker("run", "-d", "--name", "tool", IMAGE, "sleep", "86400")
    time.sleep(2)


def _with_handler(host: EngineHost) -> None:
    host.docker("rm", "-f", "tool")
    _stops_well(host)


def _stops(host: EngineHost) -> object:
    """With which exit code it ends when docker stop gives it a second."""
    host.docker("stop", "-t", "1", "tool")
    code = host.docker("inspect", "-f", "{{.State.ExitCode}}", "tool")
    host.docker("start", "tool")
    time.sleep(2)
    return code


def _sandbox(host: EngineHost) -> str:
    return host.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "api").strip()


def _other_namespace(host: EngineHost) -> None:
    key = _sandbox(host)
    host.sh(f"ip netns add other; umount {key}; mount --bind /run/netns/other {key}; ip netns del other")


def _same_namespace(host: EngineHost) -> object:
    """Whether the sandbox is the namespace of the process."""
    spaces = host.sh(f"stat -L -c %i {_sandbox(host)} /proc/{host.container_pid('api')}/ns/net").split()
    return spaces[0] == spaces[1]


def _stop(pattern: str) -> Callable[[EngineHost], None]:
    """Stop what pgrep(1) finds, but for the shell that asks."""
    return lambda host: host.sh(f"kill -STOP $(pgrep -f '{pattern}')") and None


def _stop_shim(host: EngineHost) -> None:
    """Stop the shim of cron, and let somebody wait for it, who holds the lock of cron."""
    host.sh(f"kill -STOP $(awk '{{print $4}}' /proc/{host.container_pid('cron')}/stat)")
    host.sh("timeout 20 docker exec cron true >/dev/null 2>&1 & sleep 0.5")


def _first_stopped(host: EngineHost) -> None:
    host.sh(f"kill -STOP {host.container_pid('web')} $(pgrep -P {host.container_pid('web')})")


def _heard(host: EngineHost) -> object:
    """What a client on the host hears from web, whom only docker-proxy leads there."""
    return host.run("curl", "-s", "-m", "1", "-o", "/dev/null", "http://127.0.0.1:8080/", check=False).returncode


def _answered(host: EngineHost) -> object:
    """Whether web answers who comes by the rules."""
    return host.http_get("outside", HOST_IP, 8080, timeout=1.0).outcome


_STOPPED = ("DMN016",)
"""Where containerd was stopped, so that it does not clean up what is broken: that is a cause of its own, and rightly told."""

FAULTS = (
    Fault("NSP001", "gone", _process_gone, _lives, beside=_STOPPED),
    Fault("NSP003", "other-namespace", _other_namespace, _same_namespace, level="warning"),
    Fault("NSP007", "unknown-to-docker", _behind_dockers_back, _shims, level="warning"),
    Fault("NSP007", "without-shim", _kill_shim, _execs, beside=_STOPPED),
    Fault("NSP008", "six", _orphans, _zombies, level="warning", setup=_not_reaping),
    Fault("NSP015", "docker-proxy", _stop("docker-prox[y].*-host-port 8080"), _heard),
    Fault("NSP015", "shim", _stop_shim, _execs, ("DMN016",)),
    Fault("NSP015", "first-process", _first_stopped, _answered),
    Fault("NSP013", "reused", _pid_reused, _lives, beside=_STOPPED),
    Fault("NSP014", "no-handler", _without_handler, _stops, level="info", setup=_stops_well, heal=_with_handler),
)
