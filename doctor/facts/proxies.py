"""The docker-proxy processes of the host, by their command lines.

One runs for each published port and address (`userland-proxy`, on by default), as a child of dockerd, in all generations::

    docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80
"""

from __future__ import annotations

from itertools import pairwise

from msgspec import Struct

from doctor.facts.processes import Process, Processes
from doctor.model import Citation
from doctor.registry import fact


class Proxy(Struct, frozen=True):
    """One process: what it listens on, where it connects to, and its parent's pid (1: its dockerd is gone).

    `started` is in seconds since the epoch, 0 when the clock of the host is not known.
    """

    pid: int
    parent: int
    protocol: str
    host_ip: str
    host: int
    container_ip: str
    container: int
    started: float
    cited: Citation


class Proxies(Struct, frozen=True):
    """All of them that are no part of a container, by pid; `unread` counts those whose command line says nothing.

    `by_port` are the same by the port of the host that they hold: protocol, number.
    """

    all: tuple[Proxy, ...]
    unread: int
    by_port: dict[tuple[str, int], tuple[Proxy, ...]]

    def on(self, protocol: str, number: int) -> tuple[Proxy, ...]:
        """Give those that hold a port of the host, on whichever address."""
        return self.by_port.get((protocol, number), ())


@fact
def proxies(processes: Processes) -> Proxies:
    """Read the command lines."""
    # dockerd reaps one only when its container stops: until then a dead one is a zombie, which listens on nothing.
    # One that was gone at the end of the collection belonged to a container that came and went meanwhile.
    live = [one for one in processes.named("docker-proxy") if one.state not in {"Z", "X"}]
    found = [_proxy(one) for one in live if one.pid not in processes.restarted]
    known = sorted((one for one in found if one is not None), key=lambda one: one.pid)
    by_port: dict[tuple[str, int], tuple[Proxy, ...]] = {}
    for one in known:
        by_port[one.protocol, one.host] = (*by_port.get((one.protocol, one.host), ()), one)
    return Proxies(tuple(known), len(found) - len(known), by_port)


def _proxy(process: Process) -> Proxy | None:
    words = process.argv[1:]
    given = {name.lstrip("-"): value for name, value in pairwise(words) if name.startswith("-")}
    host, container = given.get("host-port", ""), given.get("container-port", "")
    if not host.isdecimal() or not container.isdecimal():
        return None
    cited = process.cite(" ".join(process.argv), "cmdline")
    return Proxy(
        pid=process.pid,
        parent=process.parent,
        protocol=given.get("proto", "tcp"),
        host_ip=given.get("host-ip", ""),
        host=int(host),
        container_ip=given.get("container-ip", ""),
        container=int(container),
        started=process.started,
        cited=cited,
    )
