"""What a bridge lets through between its ports: spanning tree, their states, isolation."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from doctor.checks.bridges import attached
from doctor.facts.containers import Container, Containers
from doctor.facts.ends import Ends
from doctor.facts.links import Link, Links
from doctor.facts.networks import Network, Networks
from doctor.model import Command, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Yield
from doctor.registry import check


@check("NET055", Severity.WARNING)
def bridge_holds_ports_back(
    networks: Networks, links: Links, containers: Containers, ends: Ends | None
) -> Iterator[Yield]:
    """A bridge keeps a port from forwarding: STP is on, a port is blocked, or ports are isolated.

    ## What it is
    With STP a bridge lets a new port listen and learn before it forwards: 30 seconds by
    default. Docker leaves STP off; bridges made by hand or by netplan may have it on. Each
    port also has a state of its own, which anyone can set, and a flag by which isolated ports
    reach the bridge and others, and not each other.
    ## What you see
    Containers have no network for their first half minute: DHCP, health checks and start
    scripts fail, later all is well. A port that stays blocked has none at all. Isolated ones
    reach the gateway and the internet, and time out among themselves.
    ## By hand
    ip -d link show BRIDGE
    bridge -d link
    ## Cure
    Turn STP off where nothing but containers is on the bridge; set the port to forwarding;
    take the isolation off (bridge link set dev PORT isolated off).
    ## Looks like
    NET009 (the bridge is down), NET012 (the container is off the bridge)
    ## Limits
    With other ports on the bridge STP may be needed against loops: that is a note then. Isolated
    ports of a network with icc off do what it asks for.
    ## References
    ip-link(8), bridge(8), kernel net/bridge/br_stp.c
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    for network in networks.all:
        link = links.by_name.get(network.bridge)
        users = attached(network, containers)
        if link is None or link.kind != "bridge" or not link.up:
            continue
        ports = [one for one in links.all if one.master == network.bridge]
        if link.learns and users:
            yield _spanning(network, link, users, alone=all(one.kind == "veth" for one in ports))
            continue
        held = [one for one in ports if one.kind == "veth" and one.state == "UP" and one.port_state in _HELD_BACK]
        if held and users and not link.learns:
            yield _blocked(network, held)
        apart = [one for one in ports if one.kind == "veth" and one.up and one.isolated]
        if len(apart) > 1 and users and network.on("enable_icc"):
            yield _isolated(network, apart, ends)


_HELD_BACK = frozenset({"disabled", "listening", "learning", "blocking"})


def _spanning(network: Network, link: Link, users: list[Container], *, alone: bool) -> Finding:
    names = tuple(one.name for one in users)
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"STP is on for {link.name}: a new container waits {link.learns:.0f} s for its network",
        message=f"{link.name}, the bridge of network {network.name}, has STP on: a port forwards after {link.learns:.0f} s",
        evidence=(replace(link.cited, excerpt=f"{link.name} stp_state 1, {link.learns:.0f} s"), network.cited),
        remedy=Remedy(
            "turn STP off",
            (Command(("ip", "link", "set", link.name, "type", "bridge", "stp_state", "0")),),
            lasts="until-boot",
            undo=(Command(("ip", "link", "set", link.name, "type", "bridge", "stp_state", "1")),),
            notes=() if alone else ("other links are on this bridge: STP may keep them from a loop",),
        ),
        severity=Severity.WARNING if alone else Severity.INFO,
        hits=(Effect(f"containers that start on network {network.name} have no network at first"),),
        works=(Effect("those that have run for a while:", names),),
    )


def _blocked(network: Network, held: list[Link]) -> Finding:
    states = ", ".join(f"{one.name} {one.port_state}" for one in held)
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"{network.bridge} does not forward: {states}",
        message=f"ports of {network.bridge} (network {network.name}) are kept from forwarding: {states}; STP is off",
        evidence=tuple(replace(one.cited, excerpt=f"{one.name} state {one.port_state}") for one in held[:5]),
        remedy=Remedy(
            "let them forward",
            tuple(Command(("bridge", "link", "set", "dev", one.name, "state", "3")) for one in held),
            lasts="until-boot",
        ),
        severity=Severity.ERROR,
        hits=(Effect(f"{len(held)} of the containers of network {network.name} would reach nothing, and nobody them"),),
        works=(Effect(f"the other containers of network {network.name}"),),
    )


def _isolated(network: Network, apart: list[Link], ends: Ends | None) -> Finding:
    indexes = {one.index for one in apart}
    held = ends.all if ends is not None else ()
    names = tuple(
        dict.fromkeys(one.container.name for one in held if one.link is not None and one.link.peer in indexes)
    )
    return Finding(
        subject=f"{network.name}:isolated",
        scope=network.name,
        title=f"{len(apart)} ports of {network.bridge} are isolated: containers of {network.name} do not reach each other",
        message=f"{', '.join(one.name for one in apart)} on {network.bridge} (network {network.name}) are isolated: the"
        " bridge passes no frame from one to another of them",
        evidence=(*(replace(one.cited, excerpt=f"{one.name} isolated") for one in apart[:5]), network.cited),
        remedy=Remedy(
            "let them reach each other",
            tuple(Command(("bridge", "link", "set", "dev", one.name, "isolated", "off")) for one in apart),
            lasts="until-boot",
            undo=tuple(Command(("bridge", "link", "set", "dev", one.name, "isolated", "on")) for one in apart),
        ),
        severity=Severity.ERROR,
        hits=(Effect(f"would not reach each other in network {network.name}", names),),
        works=(Effect("their gateway, the outside, their published ports"),),
        excluded=(Excluded("NET018", "icc is on"),),
    )
