"""The daemon as a service of a lab's host: what `Lab.up` is given, and the files that a reader expects beside it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.images import made
from doctor.runtime.daemon.serve import Start, serve
from doctor.runtime.holder import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

ARGV = ("/usr/sbin/dockerd", "-p", "/var/run/docker.pid")
"""The command line that Debian's init script gives it."""
LOG = "/var/log/docker.log"
PIDFILE = "/run/docker-ssd.pid"
"""What start-stop-daemon(8) writes for it."""
_BACKEND = "--firewall-backend=nftables"
_STANDS_FOR = "#!/bin/sh\n# Stands for {name} on a host of doctor's runtime, where its work is done without it.\n"


def service(start: Start) -> Service:
    """Give the service; a start after the first makes nothing new, but reads what is there."""
    with suppress(OSError):  # the daemon says it where it cannot be made
        made()
    native = start.dialect.endswith("-nftables")
    if native and _BACKEND not in start.argv:
        start = replace(start, argv=(*start.argv, _BACKEND))
    again = replace(start, networks=(), containers=())
    first = partial(_forwarding, start) if native else partial(serve, start)
    return Service("docker", start.argv, first, partial(serve, again), LOG, PIDFILE)


def _forwarding(start: Start, ready: int) -> NoReturn:
    """Let the host forward first, as its administrator has to: with nftables dockerd does not turn it on, but refuses."""
    with suppress(OSError):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    serve(start, ready)


def programs(dialect: str, version: str = "") -> Mapping[str, str]:
    """Give the programs of an engine, by path: present for who looks for them; dockerd says its version."""
    kind = generation(dialect, version)
    said = f'echo "Docker version {kind.version}, build {kind.commit}"\n'
    names = ("containerd", "containerd-shim-runc-v2", "runc", "docker-init", "docker-proxy")
    files = {f"/usr/bin/{name}": _STANDS_FOR.format(name=name) + "exit 1\n" for name in names}
    dockerd = _STANDS_FOR.format(name="dockerd") + f'[ "$1" = --version ] && {{ {said}exit 0; }}\n'
    if dialect.endswith("-nftables"):
        files["/etc/sysctl.d/99-forward.conf"] = "net.ipv4.ip_forward = 1\n"
    files["/usr/sbin/dockerd"] = dockerd + 'echo "dockerd: service docker start" >&2\nexit 1\n'
    return files


def doctor(arguments: list[str]) -> int:
    """Be the command `doctor` in a host of ours: this very installation, which is bound there."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    argv = (sys.executable, "-m", "doctor", *arguments)
    os.execve(sys.executable, argv, env)  # noqa: S606 - a new interpreter, as on any host
