"""The link between each container and the bridge of each of its networks, and the addresses that it has there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.checks.published_ports import leading
from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.ends import End, Ends
from doctor.facts.links import Link, Links, interface
from doctor.facts.repairs import restart
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface

    from doctor.facts.networks import Network


@check("NET012", Severity.ERROR)
def veth_off_the_bridge(containers: Containers, ends: Ends, links: Links) -> Iterator[Yield]:
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
    Networks of other drivers than bridge are not judged; containers that share another's
    namespace are judged with that one. Who took the link off the bridge is not recorded.
    ## References
    veth(4), ip-link(8), moby libnetwork/drivers/bridge/bridge_linux.go CreateEndpoint
    """
    for end in ends.all:
        found = unknown(end) if end.missing else _judge(end, links)
        if found is not None:
            yield found
    if not containers.running:
        yield NotApplicable("no container runs")


def unknown(end: End) -> Unknown:
    """Say that a container's namespace is not known."""
    return Unknown(end.container.name, f"network namespaces: {end.missing}")


def _judge(its: End, links: Links) -> Finding | None:
    container, end, network, space, inside = its.container, its.endpoint, its.network, its.space, its.link
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
            restart(container, "Docker makes the link anew"),
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
            restart(container, "Docker makes the link anew"),
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
    ports = leading([container], 4)
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


@check("NET013", Severity.ERROR)
def address_not_in_container(containers: Containers, ends: Ends) -> Iterator[Yield]:
    """A container does not hold the address that the engine gave it.

    ## What it is
    The engine sets the address once, at the start, and goes on sending published ports and
    names there. Here the container's link is in place and has another address, or none.
    ## What you see
    Published ports time out, other containers do not reach it by name; `docker inspect`
    shows the address as if it were there.
    ## By hand
    docker inspect -f '{{json .NetworkSettings.Networks}}' NAME
    nsenter -t PID -n ip addr
    ## Cure
    Put the address back in the container's namespace, and its default route, which goes with
    the last address. A restart of the container does the same, and stops it.
    ## Looks like
    NET012 (the link itself), NET056 (two containers have one address), NET014 (only the route)
    ## Limits
    An address that was moved to another link of the same container (virtual machines do so)
    is in place. IPv6 is not judged: containers may switch it off.
    ## References
    ip-address(8), moby libnetwork/osl/interface_linux.go
    """
    for end in ends.all:
        address, inside = end.endpoint.address, end.link
        if not address:
            continue
        if end.missing:
            yield unknown(end)
        if inside is None or inside.kind != "veth" or not inside.up or inside.master:
            continue  # NET012's question, or a bridge of the container's own has the address
        if not end.endpoint.prefix or any(address in link.bare for link in end.space.links):
            continue
        wanted = interface(f"{address}/{end.endpoint.prefix}")
        if wanted is not None:
            yield _moved(end, wanted, inside)
    if not containers.running:
        yield NotApplicable("no container runs")


def _moved(its: End, wanted: IPv4Interface | IPv6Interface, inside: Link) -> Finding:
    container, end, network, space = its.container, its.endpoint, its.network, its.space
    others = [held for held in inside.addresses if (one := interface(held)) is not None and one.ip in wanted.network]
    enter = ("nsenter", "-t", str(container.pid), "-n", "ip")
    # Without promote_secondaries the first address takes the others along: it goes before ours comes.
    steps = [Command((*enter, "address", "del", held, "dev", inside.name)) for held in others]
    steps.append(Command((*enter, "address", "add", str(wanted), "dev", inside.name)))
    elsewhere = any(
        route.dst == "default" and ":" not in route.gateway and route.dev != inside.name for route in space.routes
    )
    if end.gateway and not elsewhere:
        steps.append(Command((*enter, "route", "replace", "default", "via", end.gateway, "dev", inside.name)))
    has = ", ".join(held for held in inside.addresses if not held.startswith("fe80:")) or "no address"
    ports = leading([container], 4)
    return Finding(
        subject=f"{container.name}:{network.name}",
        scope=network.name,
        title=f"{container.name} does not have its address {end.address}",
        message=f"the engine gave {container.name} {wanted} (network {network.name}); {inside.name} has {has}",
        evidence=(replace(inside.cited, place=f"{inside.name} of {container.name}"), container.cited),
        remedy=Remedy(
            "put the address back",
            tuple(steps),
            undo=(Command((*enter, "address", "del", str(wanted), "dev", inside.name)),),
            notes=(f"docker restart {container.engine_name} heals too, and stops it",),
        ),
        hits=(
            Effect(f"nobody would reach {container.name} by name or by {end.address}"),
            *((Effect("published ports do not reach it:", ports),) if ports else ()),
        ),
        works=(Effect(f"the other containers of network {network.name}"),),
        excluded=(Excluded("NET012", f"{inside.name} is up, and a port of {network.bridge}"),),
    )


@check("NET056", Severity.ERROR, explains=("NET013",))
def same_address_twice(containers: Containers, ends: Ends) -> Iterator[Yield]:
    """Two containers of one network have the same address, or the same MAC.

    ## What it is
    On one bridge an address and a MAC have one owner. Two containers with one MAC (given with
    --mac-address, or copied), or one that took another's address, get each other's packets.
    ## What you see
    Answers come now and then, connections are reset, or the wrong container answers; it
    changes with who spoke last.
    ## By hand
    nsenter -t PID -n ip addr
    bridge fdb show br BRIDGE
    ## Cure
    Take the address from the one that the engine did not give it to, or give it its own MAC
    back; the container runs on.
    ## Looks like
    NET013 (an address is gone), NET012 (a link is off the bridge)
    ## Limits
    Addresses that containers share by a protocol of their own (VRRP) are not the engine's,
    and are not judged. Hosts beyond a card on the bridge are not seen.
    ## References
    ip-address(8), https://github.com/moby/moby/issues/27404
    """
    seen: dict[tuple[str, str], tuple[Container, Endpoint, Link]] = {}
    judged = []
    for one in ends.all:
        if one.endpoint.address and one.missing:
            yield unknown(one)
        elif one.endpoint.address and one.link is not None and one.link.kind == "veth" and not one.link.master:
            judged.append((one.container, one.endpoint, one.network, one.link))
    owner = {(network.id, end.address): container for container, end, network, _ in judged}
    for container, end, network, inside in judged:
        for held in sorted(inside.bare):
            other = owner.get((network.id, held))
            if other is not None and other.pid != container.pid:
                yield _taken(container, other, network, inside, held)
        first = seen.setdefault((network.id, inside.mac), (container, end, inside))
        if first[0] is not container:
            yield _same_mac(first, (container, end, inside), network)
    if not containers.running:
        yield NotApplicable("no container runs")


def _taken(container: Container, owner: Container, network: Network, inside: Link, held: str) -> Finding:
    whole = next(one for one in inside.addresses if one.partition("/")[0] == held)
    enter = ("nsenter", "-t", str(container.pid), "-n", "ip", "address")
    return Finding(
        subject=f"{network.name}:{held}",
        scope=network.name,
        title=f"{container.name} has taken {held}, which is {owner.name}'s",
        message=f"{inside.name} of {container.name} has {whole}, the address that the engine gave {owner.name}"
        f" (network {network.name})",
        evidence=(replace(inside.cited, place=f"{inside.name} of {container.name}"), owner.cited),
        remedy=Remedy(
            "take the address away again",
            (Command((*enter, "del", whole, "dev", inside.name)),),
            undo=(Command((*enter, "add", whole, "dev", inside.name)),),
        ),
        hits=(Effect(f"packets to {owner.name} reach {container.name} instead, or now the one and now the other"),),
        works=(Effect(f"the other containers of network {network.name}"),),
    )


def _same_mac(
    first: tuple[Container, Endpoint, Link], second: tuple[Container, Endpoint, Link], network: Network
) -> Finding:
    one, other = first[0].name, second[0].name
    mac = second[2].mac
    strangers = [held for held in (first, second) if held[1].mac and held[1].mac.lower() != mac]
    steps: tuple[Step, ...]
    undo: tuple[Step, ...] = ()
    if strangers:
        container, end, link = strangers[0]
        enter = ("nsenter", "-t", str(container.pid), "-n", "ip", "link", "set", link.name, "address")
        steps, undo = (Command((*enter, end.mac)),), (Command((*enter, mac)),)
    else:
        steps = (Note(f"make {other} anew without --mac-address {mac}"),)
    return Finding(
        subject=f"{network.name}:{mac}",
        scope=network.name,
        title=f"{one} and {other} have the same MAC {mac}",
        message=f"{one} and {other}, both on {network.bridge} (network {network.name}), have the MAC {mac}",
        evidence=tuple(
            replace(link.cited, excerpt=f"{link.name} address {link.mac}", place=f"{link.name} of {held.name}")
            for held, _, link in (first, second)
        ),
        remedy=Remedy("one MAC each", steps, undo=undo),
        hits=(Effect(f"packets to {one} or {other} reach only the one that spoke last"),),
        works=(Effect(f"the other containers of network {network.name}"),),
    )
