"""Who takes connections and does not answer: the kernel opens them in the name of a program that stands still.

A TCP connection is open when the kernel of its listener has answered; that the program takes it (accept(2)) comes later,
or never. So a walk of packets says `connected` of a container that is paused (its control group is frozen,
cgroup.freeze in the kernel's admin-guide/cgroup-v2) or whose processes a signal has stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.model import Citation, Command, Remedy
from doctor.packets.flow import TCP, UDP
from doctor.packets.packet import spell
from doctor.packets.site import HOST

if TYPE_CHECKING:
    from doctor.facts.containers import Container, Containers
    from doctor.facts.processes import Process, Processes
    from doctor.facts.proxies import Proxies
    from doctor.packets.flow import Flow
    from doctor.packets.packet import Tuple
    from doctor.packets.walk import Result

DST_FROZEN = "DST_FROZEN"
"""What a walk that ends at a program which stands still is called."""

_EMBEDDED = 0x7F00000B
"""127.0.0.11: who listens there is in the namespace of the container, and a part of dockerd."""


class Silent(Struct, frozen=True):
    """Why nobody answers, the evidence, and what wakes who should."""

    why: str
    cited: Citation
    remedy: Remedy


def silent(result: Result, flow: Flow, containers: Containers, processes: Processes, proxies: Proxies) -> Silent | None:
    """Say why a flow that arrives is not answered; None where nothing says so, or somebody else may listen there."""
    if not result.works or flow.protocol not in {TCP, UDP} or result.walk.landed is None:
        return None
    space, ends = result.walk.landed
    if result.walk.proxied is not None:
        stopped = _proxy(ends, flow, processes, proxies)
        if stopped is not None:
            return stopped
        if result.walk.proxied.landed is None:
            return None
        space, ends = result.walk.proxied.landed
    if space == HOST or ends.dst == _EMBEDDED:
        return None
    here = [
        one
        for one in containers.running
        if (process := processes.by_pid.get(one.pid)) is not None and process.net == space
    ]
    found = [held for one in here if (held := _container(one, processes)) is not None]
    return found[0] if found and len(found) == len(here) else None


def _container(one: Container, processes: Processes) -> Silent | None:
    """Say why nothing of a container goes on; None where something does."""
    if one.status == "paused":
        remedy = Remedy("let it go on", (Command(("docker", "unpause", one.engine_name)),))
        return Silent(f"{one.name} is paused", one.cite("Status: paused"), remedy)
    held = processes.inside(one.id)
    if one.asked.own_kernel or not held or not all(processes.stopped(process) for process in held):
        return None
    first = next((process for process in held if process.pid == one.pid), held[0])
    return Silent(f"a signal has stopped every process of {one.name}", _cited(first), _wake(held))


def _proxy(ends: Tuple, flow: Flow, processes: Processes, proxies: Proxies) -> Silent | None:
    """Say of the docker-proxy at a port whether a signal has stopped it."""
    target = spell(ends.dst, flow.version)
    held = [
        process
        for one in proxies.on("tcp" if flow.protocol == TCP else "udp", ends.dport)
        if one.host_ip in {"", "0.0.0.0", "::", target}  # noqa: S104 - any
        and (process := processes.by_pid.get(one.pid)) is not None
    ]
    if not held or not all(processes.stopped(process) for process in held):
        return None
    return Silent("a signal has stopped its docker-proxy", _cited(held[0]), _wake(held))


def _cited(process: Process) -> Citation:
    return process.cite(f"{process.pid} ({process.name}) {process.state}, parent {process.parent}")


def _wake(held: list[Process]) -> Remedy:
    return Remedy("let it go on", (Command(("kill", "-CONT", *(str(one.pid) for one in held))),))
