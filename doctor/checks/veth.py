"""The link between each container and the bridge of each of its networks."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.links import Link, Links, Namespace, Namespaces
from doctor.facts.networks import Network, Networks
from doctor.facts.processes import Processes
from doctor.model import Citation, Command, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Unknown, Yield
from doctor.registry import check


@check("NET012", Severity.ERROR)
def veth_off_the_bridge(
    containers: Containers, networks: Networks, links: Links, namespaces: Namespaces, processes: Processes
) -> Iterator[Yield]:
    """A container's link does not lead to the bridge of its network.

    ## What it is
    Each endpoint is a veth pair: one end in the container, the other a port of the
    network's bridge. Here an end is gone, down, or a port of nothing or of another bridge.
    ## What you see
    This one container reaches nobody and nobody reaches it; others of its network are
    well. The engine goes on listing it as healthy.
    ## By hand
    docker exec NAME cat /sys/class/net/eth0/iflink
    ip -d link show master BRIDGE
    ## Cure
    Put the link back: `ip link set VETH master BRIDGE`, or set the end up; nothing stops.
    An end that is gone comes back only with a restart of the container.
    ## Looks like
    NET009 (the whole bridge), NET010 (its address)
    ## Limits
    Networks of other drivers than bridge, and containers that share another's namespace,
    are judged where the namespace is. Who took the link off the bridge is not recorded.
    ## References
    veth(4), ip-link(8), moby libnetwork/drivers/bridge/bridge_linux.go CreateEndpoint
    """
    seen = False
    for container in containers.running:
        if container.network_mode in {"host", "none"} or container.network_mode.startswith("container:"):
            continue
        process = processes.by_pid.get(container.pid)
        if process is None:
            continue  # NSP001's question
        inode = process.namespaces.get("net", "").removeprefix("net:[").rstrip("]")
        space = namespaces.by_inode.get(inode)
        for end in container.endpoints:
            network = networks.by_id(end.network_id)
            if network is None or not (end.address or end.address6):
                continue
            seen = True
            if not process.namespaces.get("net") or space is None or space.missing:
                why = space.missing if space else "its process cannot be looked into"
                yield Unknown(container.name, f"network namespaces: {why}")
                break
            found = _judge(container, end, network, space, links)
            if found is not None:
                yield found
    if not seen and not containers.running:
        yield NotApplicable("no container runs")


def _inside(end: Endpoint, space: Namespace) -> Link | None:
    """Give the container's own end: a veth with its address or its MAC, else any link with the address.

    A container may move its address to a bridge of its own (virtual machines do); the veth keeps the MAC.
    """
    addressed = [link for link in space.links if end.address and end.address in _bare(link)]
    same_mac = [link for link in space.links if end.mac and link.mac == end.mac and link.name != "lo"]
    every = [*addressed, *same_mac]
    return next((link for link in every if link.kind == "veth"), every[0] if every else None)


def _bare(link: Link) -> set[str]:
    return {held.partition("/")[0] for held in link.addresses}


def _judge(container: Container, end: Endpoint, network: Network, space: Namespace, links: Links) -> Finding | None:
    inside = _inside(end, space)
    bridge = links.by_name.get(network.bridge)
    if inside is None:
        links_there = ", ".join(link.name for link in space.links) or "none"
        return _finding(
            container,
            network,
            f"{container.name} has no link into network {network.name}",
            f"{container.name} has no link with {end.address or end.address6} (network {network.name});"
            f" in its namespace are: {links_there}",
            (
                Citation(f"netns/{space.inode}/links", 0, f"links: {links_there}", f"links of {container.name}"),
                container.cited,
            ),
            _restart(container),
        )
    outside = links.by_index.get(inside.peer)
    if inside.kind != "veth" or outside is None or outside.kind != "veth":
        if bridge is None:
            return None
        return _finding(
            container,
            network,
            f"the host's end of {container.name}'s link is gone",
            f"{inside.name} of {container.name} leads to link {inside.peer} of the host, which is not there",
            (inside.cited, container.cited),
            _restart(container),
        )
    if bridge is None or outside.master != network.bridge:
        now = f"is a port of {outside.master}" if outside.master else "is a port of no bridge"
        undo = ("ip", "link", "set", outside.name, *(("master", outside.master) if outside.master else ("nomaster",)))
        return _finding(
            container,
            network,
            f"{container.name} is off its bridge: {outside.name} {now}",
            f"{outside.name}, the host's end of {inside.name} of {container.name}, {now}, not of {network.bridge}",
            (outside.cited, inside.cited),
            Remedy(
                "put the link back on its bridge",
                (Command(("ip", "link", "set", outside.name, "master", network.bridge)),),
                lasts="until-boot",
                undo=(Command(undo),),
            ),
            bridge,
        )
    if not outside.up:
        return _finding(
            container,
            network,
            f"the host's end of {container.name}'s link is down: {outside.name}",
            f"{outside.name}, the host's end of {inside.name} of {container.name}, is down",
            (outside.cited, inside.cited),
            Remedy(
                "set it up",
                (Command(("ip", "link", "set", outside.name, "up")),),
                lasts="until-boot",
                undo=(Command(("ip", "link", "set", outside.name, "down")),),
            ),
            bridge,
        )
    if not inside.up:
        enter = ("nsenter", "-t", str(container.pid), "-n")
        steps = [Command((*enter, "ip", "link", "set", inside.name, "up"))]
        if end.gateway and not any(route.dst == "default" for route in space.routes):
            # The kernel forgets the routes over a link that goes down.
            steps.append(Command((*enter, "ip", "route", "replace", "default", "via", end.gateway, "dev", inside.name)))
        return _finding(
            container,
            network,
            f"{inside.name} of {container.name} is down",
            f"{inside.name}, the link of {container.name} into network {network.name}, is down",
            (inside.cited, container.cited),
            Remedy("set it up, and put its default route back", tuple(steps)),
            bridge,
        )
    return None


def _cite_space(space: Namespace, container: Container, there: str) -> Citation:
    return Citation(f"netns/{space.inode}/links", 0, f"links: {there}", f"links of {container.name}")


def _restart(container: Container) -> Remedy:
    return Remedy(
        "restart the container: Docker makes the link anew",
        (Command(("docker", "restart", container.engine_name)),),
        risk="disruptive",
        stops=(container.name,),
    )


def _finding(
    container: Container,
    network: Network,
    title: str,
    message: str,
    evidence: tuple[Citation, ...],
    remedy: Remedy,
    bridge: Link | None = None,
) -> Finding:
    well = bridge is not None and bridge.up
    ports = tuple(f"{port.host} -> {container.name}" for port in container.ports if ":" not in port.host_ip)
    return Finding(
        subject=f"{container.name}:{network.name}",
        scope=network.name,
        title=title,
        message=message,
        evidence=evidence,
        remedy=remedy,
        hits=(
            Effect(f"{container.name} would reach nothing over network {network.name}, and nobody would reach it"),
            *((Effect("published ports do not reach it:", ports),) if ports else ()),
        ),
        works=(Effect(f"the other containers of network {network.name}"),) if well else (),
        excluded=(Excluded("NET009", f"{network.bridge} is there, and up"),) if well else (),
    )
