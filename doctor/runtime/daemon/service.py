"""The daemon as a service of a lab's host: what `Lab.up` is given, and the files that a reader expects beside it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.serve import Start, serve
from doctor.runtime.holder import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

ARGV = ("/usr/sbin/dockerd", "-p", "/var/run/docker.pid")
"""The command line that Debian's init script gives it."""
LOG = "/var/log/docker.log"
PIDFILE = "/run/docker-ssd.pid"
"""What start-stop-daemon(8) writes for it."""
_STANDS_FOR = "#!/bin/sh\n# Stands for {name} on a host of doctor's runtime, where its work is done without it.\n"


def service(start: Start) -> Service:
    """Give the service; a start after the first makes nothing new, but reads what is there."""
    again = replace(start, networks=(), containers=())
    return Service("docker", start.argv, partial(serve, start), partial(serve, again), LOG, PIDFILE)


def programs(dialect: str, version: str = "") -> Mapping[str, str]:
    """Give the programs of an engine, by path: present for who looks for them; dockerd says its version."""
    made = generation(dialect, version)
    said = f'echo "Docker version {made.version}, build {made.commit}"\n'
    names = ("containerd", "containerd-shim-runc-v2", "runc", "docker-init", "docker-proxy")
    files = {f"/usr/bin/{name}": _STANDS_FOR.format(name=name) + "exit 1\n" for name in names}
    dockerd = _STANDS_FOR.format(name="dockerd") + f'[ "$1" = --version ] && {{ {said}exit 0; }}\n'
    files["/usr/sbin/dockerd"] = dockerd + 'echo "dockerd: service docker start" >&2\nexit 1\n'
    return files
