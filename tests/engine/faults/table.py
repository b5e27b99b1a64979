"""What a fault is, the host it is made on, and the probes that prove it.

Each host runs `web` (bridge, published on 8080), `cron` (bridge), `api` and `db` (network shop; api published on 8081).
A probe gives a value that must differ between the healthy and the broken host and be the healthy one again after the
cure; a probe sends real packets or asks the engine, it never asks doctor.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

OUTSIDE_PORT = 9000


class Fault(NamedTuple):
    """One fault: the code that must be first, a name, what makes it, and the probe that proves it.

    `also` are codes that may fire as consequences. `level` is the severity that the finding must have: with a warning or
    a note the exit code stays 0. `engines` are the suites that it can be made on, empty for all; `daemon_args` what its
    dockerd is started with. `setup` prepares the host, which is still healthy then (and clean but for notes). `heal`
    does what a cure asks of a person, where it has a step that no machine can do; such a cure is not executed. `options` are
    what `doctor check` is given beside. `beside` are codes of what making the fault needs: causes of their own.
    """

    code: str
    name: str
    make: Callable[[EngineHost], object]
    probe: Callable[[EngineHost], object]
    also: tuple[str, ...] = ()
    level: Literal["error", "warning", "info"] = "error"
    daemon_args: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    setup: Callable[[EngineHost], object] | None = None
    heal: Callable[[EngineHost], object] | None = None
    options: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def populate(host: EngineHost) -> None:
    """Start the four containers, and wait until those that serve do."""
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "cron", IMAGE, "idle")
    host.docker("network", "create", "--subnet", "10.7.0.0/24", "shop")
    host.docker("run", "-d", "--name", "api", "--network", "shop", "-p", "8081:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "db", "--network", "shop", IMAGE, "serve")
    for name in ("web", "api", "db"):
        host.await_listening(name, 80)


# Probes


def flows(host: EngineHost) -> object:
    """What packets meet: from outside to both ports, from each network to outside, between neighbours."""
    # Addresses are those of a fresh host: an engine that is down cannot be asked.
    wanted = [
        ("outside", HOST_IP, 8080),
        ("outside", HOST_IP, 8081),
        ("cron", OUTSIDE_IP, OUTSIDE_PORT),
        ("db", OUTSIDE_IP, OUTSIDE_PORT),
        ("cron", "172.17.0.2", 80),
        ("db", "10.7.0.2", 80),
    ]
    with host.listen("outside", OUTSIDE_PORT):
        return {" ".join(map(str, flow)): result for flow, result in host.probe(wanted).items()}


def answers(host: EngineHost) -> object:
    """Whether the daemon answers."""
    return host.answers()


def reloads(host: EngineHost) -> object:
    """Whether a reload (SIGHUP) is taken: dockerd reads the file as it would at a start, and logs why it refuses."""
    before = len(host.log())
    host.sh(f"kill -HUP {host.dockerd_pid()}")
    for _ in range(500):
        said = host.log()[before:]
        if "Reloaded configuration" in said or "level=error" in said:
            return "level=error" not in said
        time.sleep(0.02)
    return None


def starts(host: EngineHost) -> object:
    """Whether a container of the image starts and ends."""
    return host.run("docker", "run", "--rm", IMAGE, "true", check=False).returncode


def sandboxes(host: EngineHost) -> object:
    """The sandbox files, and which of them are mounts."""
    return host.sh("ls /run/docker/netns; grep -c ' /run/docker/netns/' /proc/self/mountinfo || true")


def published(host: EngineHost) -> object:
    """Whether a container with a published port starts, and what packets meet."""
    started = host.run(
        "docker", "run", "-d", "--name", "probe", "-p", "8090:80", IMAGE, "serve", check=False
    ).returncode
    host.run("docker", "rm", "-f", "probe", check=False)
    return started, flows(host)
