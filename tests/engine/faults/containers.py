"""Faults of single containers: they die, do not start, are unhealthy, or are stuck."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

FLAG = "/srv/flag"
"""A folder of the host that is mounted as /f: what lies in it decides how the container behaves."""


def _await(host: EngineHost, name: str, template: str, wanted: Callable[[str], bool], seconds: float = 20) -> str:
    """Wait until what `docker inspect` says of a container is wanted."""
    said = ""
    for _ in range(int(seconds * 20)):
        said = host.docker("inspect", "-f", template, name).strip()
        if wanted(said):
            return said
        time.sleep(0.05)
    raise AssertionError(f"{name}: {template} stayed {said}")


def _run(host: EngineHost, name: str, script: str, *options: str) -> None:
    """Start a container that runs a script and sees the flags."""
    host.sh(f"mkdir -p {FLAG}")
    host.docker("run", "-d", "--name", name, "-v", f"{FLAG}:/f", *options, IMAGE, "sh", "-c", script)


def _running(name: str) -> Callable[[EngineHost], object]:
    """Whether the container runs, as the engine says."""
    return lambda host: host.docker("inspect", "-f", "{{.State.Running}} {{.State.Restarting}}", name)


# What breaks


def _may_end(host: EngineHost) -> None:
    host.sh(f"mkdir -p {FLAG}; touch {FLAG}/ok")
    _run(host, "worker", "[ -e /f/ok ] && exec idle; exit 3", "--restart", "always")


def _loop(host: EngineHost) -> None:
    host.sh(f"rm {FLAG}/ok")
    host.docker("restart", "worker")
    # From the sixth on it waits for three seconds and more: long enough to be looked at.
    _await(host, "worker", "{{.RestartCount}} {{.State.Restarting}}", lambda said: said[0] >= "6" and "true" in said)


def _end_loop(host: EngineHost) -> None:
    host.sh(f"touch {FLAG}/ok")
    host.docker("restart", "worker")


def _limited_tries(host: EngineHost) -> None:
    host.sh(f"mkdir -p {FLAG}; touch {FLAG}/ok")
    _run(host, "worker", "[ -e /f/ok ] && exec idle; exit 3", "--restart", "on-failure:1")


def _give_up(host: EngineHost) -> None:
    host.sh(f"rm {FLAG}/ok")
    host.docker("restart", "worker")
    _await(host, "worker", "{{.State.Status}} {{.RestartCount}}", lambda said: said == "exited 1")
    host.sh(f"touch {FLAG}/ok")


def _small(host: EngineHost) -> None:
    host.sh(f"mkdir -p {FLAG}; echo 1 >{FLAG}/n")
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=$(cat /f/n) && exec idle"
    _run(host, "hog", fill, "--memory", "16m")


def _kill_for_memory(host: EngineHost) -> None:
    host.sh(f"echo 22 >{FLAG}/n")
    for _ in range(3):  # the engine may hear of the end before it hears of the kill, and then does not say OOMKilled
        host.docker("restart", "hog")
        _await(host, "hog", "{{.State.Status}}", lambda said: said == "exited")
        if host.docker("inspect", "-f", "{{.State.OOMKilled}}", "hog") == "true":
            return


def _kill_child(host: EngineHost) -> None:
    host.docker("exec", "hog", "sh", "-c", "dd if=/dev/zero of=/dev/shm/y bs=1M count=40; rm /dev/shm/y", check=False)


def _killed(host: EngineHost) -> object:
    """How many of its processes the kernel killed."""
    path = f"/sys/fs/cgroup/memory/docker/{host.docker('inspect', '-f', '{{.Id}}', 'hog').strip()}/memory.oom_control"
    return host.read(path).split("oom_kill ")[1].split()[0]


def _can_crash(host: EngineHost) -> None:
    _run(host, "crasher", "[ -e /f/bad ] && { rm /f/bad; sh -c 'kill -SEGV $$'; exit $?; }; exec idle")


def _crash(host: EngineHost) -> None:
    host.sh(f"touch {FLAG}/bad")
    host.docker("restart", "crasher")
    _await(host, "crasher", "{{.State.Status}}", lambda said: said == "exited")


def _with_file(host: EngineHost) -> None:
    host.sh("mkdir -p /srv; echo 1 >/srv/page")
    host.docker("run", "-d", "--name", "pages", "-v", "/srv/page:/www/page", IMAGE, "idle")


def _file_is_folder(host: EngineHost) -> None:
    host.docker("stop", "pages")
    host.sh("rm /srv/page; mkdir /srv/page")
    host.docker("start", "pages", check=False)
    host.sh("rmdir /srv/page; echo 1 >/srv/page")


def _with_health(host: EngineHost) -> None:
    host.sh(
        f"mkdir -p {FLAG}; printf '#!/bin/sh\\n[ -e /f/ok ]\\n' >{FLAG}/probe; chmod +x {FLAG}/probe; touch {FLAG}/ok"
    )
    _run(host, "tested", "exec idle", "--health-cmd", "/f/probe", "--health-interval", "0.3s", "--health-retries", "1")
    _await(host, "tested", "{{.State.Health.Status}}", lambda said: said == "healthy")


def _health(host: EngineHost) -> object:
    """What the engine says of its health."""
    return host.docker("inspect", "-f", "{{.State.Health.Status}}", "tested")


def _sicken(host: EngineHost) -> None:
    host.sh(f"rm {FLAG}/ok")
    _await(host, "tested", "{{.State.Health.Status}}", lambda said: said == "unhealthy")


def _recover(host: EngineHost) -> None:
    host.sh(f"touch {FLAG}/ok")
    _await(host, "tested", "{{.State.Health.Status}}", lambda said: said == "healthy")


def _lose_probe(host: EngineHost) -> None:
    host.sh(f"mv {FLAG}/probe {FLAG}/away")
    template = "{{range .State.Health.Log}}{{.ExitCode}} {{end}}"
    _await(host, "tested", template, lambda said: set(said.split()) == {"127"})


def _find_probe(host: EngineHost) -> None:
    host.sh(f"mv {FLAG}/away {FLAG}/probe")
    _await(host, "tested", "{{.State.Health.Status}}", lambda said: said == "healthy")


def _folder(host: EngineHost, name: str) -> str:
    return f"/var/lib/docker/containers/{host.docker('inspect', '-f', '{{.Id}}', name).strip()}"


def _cut_config(host: EngineHost) -> None:
    file = f"{_folder(host, 'db')}/config.v2.json"
    host.stop_dockerd()
    host.sh(f"cp {file} /srv/config.v2.json; truncate -s 200 {file}; echo {file} >/srv/whose")
    host.start_dockerd()
    for name in ("web", "cron", "api"):
        host.docker("start", name)


def _put_back(host: EngineHost) -> None:
    host.sh("cp /srv/config.v2.json $(cat /srv/whose)")
    host.restart_dockerd()
    for name in ("web", "cron", "api", "db"):
        host.docker("start", name)


def _half_removed(host: EngineHost) -> None:
    host.docker("create", "--name", "stuck", IMAGE, "idle")
    upper = host.docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "stuck").strip()
    host.sh(f"touch {upper}/pinned; chattr +i {upper}/pinned")
    host.docker("rm", "-f", "stuck", check=False)
    host.sh(f"chattr -i {upper}/pinned")


def _names(host: EngineHost) -> object:
    """Which containers there are."""
    return sorted(host.docker("ps", "-a", "--format", "{{.Names}}").split())


def _with_program(host: EngineHost) -> None:
    host.sh(f"mkdir -p {FLAG}; printf '#!/bin/sh\\nexec idle\\n' >{FLAG}/prog; chmod +x {FLAG}/prog")
    host.docker("run", "-d", "--name", "tool", "-v", f"{FLAG}:/f", IMAGE, "/f/prog")


def _lose_program(host: EngineHost) -> None:
    host.sh(f"mv {FLAG}/prog {FLAG}/away")
    host.docker("restart", "tool", check=False)


def _find_program(host: EngineHost) -> None:
    host.sh(f"mv {FLAG}/away {FLAG}/prog")
    host.docker("start", "tool")


def _not_executable(host: EngineHost) -> None:
    host.sh(f"chmod -x {FLAG}/prog")
    host.docker("restart", "tool", check=False)


def _executable(host: EngineHost) -> None:
    host.sh(f"chmod +x {FLAG}/prog")
    host.docker("start", "tool")


def _guest(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "vpn", IMAGE, "idle")
    host.docker("run", "-d", "--name", "guest", "--network", "container:vpn", IMAGE, "idle")


def _update_vpn(host: EngineHost) -> None:
    """Make a container anew whose network another one shares, as an update does, and restart that one."""
    host.docker("rm", "-f", "vpn")
    host.docker("run", "-d", "--name", "vpn", IMAGE, "idle")
    host.run("docker", "restart", "-t", "1", "guest", check=False)


def _guest_anew(host: EngineHost) -> None:
    host.docker("rm", "-f", "guest")
    host.docker("run", "-d", "--name", "guest", "--network", "container:vpn", IMAGE, "idle")


def _in_project(host: EngineHost) -> None:
    host.docker("network", "create", "proj_default")
    host.docker("run", "-d", "--name", "proj-db-1", "--network", "proj_default", IMAGE, "idle")


def _network_anew(host: EngineHost) -> None:
    """Make a network anew while its container is down: that holds the id of the first."""
    host.docker("stop", "proj-db-1")
    host.docker("network", "rm", "proj_default")
    host.docker("network", "create", "proj_default")
    host.docker("start", "proj-db-1", check=False)


FAULTS = (
    Fault("CTR001", "network-made-anew", _network_anew, _running("proj-db-1"), setup=_in_project),
    Fault("CTR001", "network-of-a-removed-one", _update_vpn, _running("guest"), setup=_guest, heal=_guest_anew),
    Fault("CTR001", "loop", _loop, _running("worker"), setup=_may_end, heal=_end_loop),
    Fault("CTR001", "gave-up", _give_up, _running("worker"), setup=_limited_tries),
    Fault("CTR001", "killed-for-memory", _kill_for_memory, _running("hog"), setup=_small),
    Fault("CTR001", "child-killed", _kill_child, _killed, level="warning", setup=_small),
    Fault("CTR001", "crashed", _crash, _running("crasher"), level="warning", setup=_can_crash),
    Fault("CTR001", "not-started", _file_is_folder, _running("pages"), setup=_with_file),
    Fault("CTR002", "fails", _sicken, _health, setup=_with_health, heal=_recover),
    Fault("CTR002", "cannot-run", _lose_probe, _health, level="warning", setup=_with_health, heal=_find_probe),
    Fault("CTR003", "not-loaded", _cut_config, _names, heal=_put_back),
    Fault("CTR004", "dead", _half_removed, _names, level="warning"),
    Fault("CTR005", "not-found", _lose_program, _running("tool"), setup=_with_program, heal=_find_program),
    Fault("CTR005", "not-executable", _not_executable, _running("tool"), setup=_with_program, heal=_executable),
)
