"""The end that each running container has in each of its bridge networks, in its own network namespace."""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.links import Link, Namespace, Namespaces
from doctor.facts.networks import Network, Networks
from doctor.facts.processes import Processes
from doctor.registry import fact


class End(Struct, frozen=True):
    """One end: `link` is the container's own, None where there is none; `missing` says why its namespace is not known."""

    container: Container
    endpoint: Endpoint
    network: Network
    space: Namespace
    link: Link | None
    missing: str


class Ends(Struct, frozen=True):
    """All of them, by container; those that share another's namespace, or whose process is gone, have none."""

    all: tuple[End, ...]


@fact
def ends(containers: Containers, networks: Networks, namespaces: Namespaces, processes: Processes) -> Ends:
    """Look for the link of each endpoint that has an address."""
    by_id = {network.id: network for network in networks.all}
    found = []
    for container in containers.running:
        process = processes.by_pid.get(container.pid)
        if process is None or not container.own_network:
            continue
        space = namespaces.by_inode.get(process.net) or Namespace("", (), (), "its process cannot be looked into")
        for end in container.endpoints:
            network = by_id.get(end.network_id)
            if network is not None and (end.address or end.address6):
                found.append(End(container, end, network, space, _own(end, space), space.missing))
    return Ends(tuple(found))


def _own(end: Endpoint, space: Namespace) -> Link | None:
    """Give the container's own end: a veth with its address or its MAC, else any link with the address.

    A container may move its address to a bridge of its own (virtual machines do); the veth keeps the MAC.
    """
    addressed = [link for link in space.links if end.address and end.address in link.bare]
    same_mac = [link for link in space.links if end.mac and link.mac == end.mac and link.name != "lo"]
    every = [*addressed, *same_mac]
    return next((link for link in every if link.kind == "veth"), every[0] if every else None)
