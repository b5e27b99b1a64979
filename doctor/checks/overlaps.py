"""Who else claims the addresses of Docker's networks: another bridge, a link, a route, a nameserver inside of one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from doctor.facts.containers import Containers
from doctor.facts.links import Link, Links, Route, interface
from doctor.facts.name_files import NameFiles
from doctor.facts.networks import Network, Networks, Subnet
from doctor.facts.routes import Packet, Routing, Stray, Strays
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
    Yield,
)
from doctor.registry import check


def _names(found: list[Stray]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.container.name for one in found))


def lost(names: tuple[str, ...]) -> tuple[Effect, ...]:
    """Say what it means that the host sends the packets to these containers elsewhere."""
    who = f"{len(names)} containers" if len(names) > 1 else names[0]
    held = names if len(names) > 1 else ()
    return (
        Effect(
            f"nobody beyond their network would reach {who}" if held else f"nobody beyond its network reaches {who}",
            held,
        ),
        Effect("what they ask for outside is never answered: the answers take the same way")
        if held
        else Effect("what it asks for outside is never answered: the answers take the same way"),
    )


def ip(address: str, *words: str) -> tuple[str, ...]:
    """Give the arguments of `ip`, for the family of an address."""
    return ("ip", *(("-6",) if ":" in address else ()), *words)


def _alone(address: str) -> str:
    """Give an address with the prefix length of a single host."""
    return f"{address}/{128 if ':' in address else 32}"


def _back_to_bridge(found: list[Stray]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Give steps that send the packets to these addresses to the bridge, by routes that are more specific, and the undo."""
    steps: list[Step] = []
    undo: list[Step] = []
    for one in {(stray.address, stray.network.bridge): stray for stray in found}.values():
        target = (_alone(one.address), "dev", one.network.bridge)
        steps.append(Command(ip(one.address, "route", "add", *target)))
        undo.append(Command(ip(one.address, "route", "del", *target)))
    return tuple(steps), tuple(undo)


def _by_route(found: list[Stray]) -> Finding:
    """One network whose containers a route takes away."""
    network = found[0].network
    names = _names(found)
    held = [stray.way.route for stray in found if stray.way.route is not None]
    routes = list({route.cited: route for route in held if route.dst != "default"}.values())
    if not routes:
        return _no_route(found)
    route = routes[0]
    local = route.type == "local"
    what = (
        f"{route.dst} is an address of {route.dev} of this host" if local else f"the route {route.by_hand} takes them"
    )
    steps, undo = _back_to_bridge(found)
    if local:
        steps, undo = (Note(f"take {route.dst} off {route.dev}: container {names[0]} has it"),), ()
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"packets to network {network.name} leave by {route.dev or 'no device'}: {_short(route)}",
        message=f"packets to {', '.join(stray.address for stray in found[:3])} belong on {network.bridge}; {what}",
        evidence=(*(one.cited for one in routes[:3]), network.cited),
        remedy=Remedy(
            "routes of their own for the containers, which win over every wider one",
            steps,
            lasts="until-boot",
            for_good=(
                Note(
                    f"let network {network.name} and {route.dst} not overlap: make one of them anew with other addresses"
                ),
            ),
            undo=undo,
            notes=(f"or, where nobody needs it: ip route del {route.by_hand}",) if not local else (),
        ),
        hits=lost(names),
        works=(Effect("the containers of this network among themselves"),) if len(names) > 1 else (),
        excluded=(Excluded("NET010", f"{network.bridge} is up and has its address"),),
    )


def _short(route: Route) -> str:
    return f"route {route.dst}" if route.type != "local" else f"it has {route.dst}"


def _no_route(found: list[Stray]) -> Finding:
    """The bridge has its address, and its route is gone: packets follow the default route, or none."""
    stray = found[0]
    names = _names(found)
    network, route = stray.network, stray.way.route
    address = ip_address(stray.address)
    subnet = next((one for one in network.subnets if address in one), None)
    ends = [end for end in stray.container.endpoints if end.network_id == network.id]
    gateway = next((end.gateway for end in ends if end.address == stray.address), "")
    target = (str(subnet or _alone(stray.address)), "dev", network.bridge)
    source = ("proto", "kernel", "scope", "link", "src", gateway) if gateway and ":" not in gateway else ()
    where = f"they leave by {route.dev}, as everything else" if route and route.dev else "they go nowhere"
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"the route to network {network.name} is gone",
        message=f"no route leads to {target[0]} on {network.bridge}, which is up and has its address: {where}",
        evidence=(*((route.cited,) if route else ()), network.cited),
        remedy=Remedy(
            "put the route back",
            (Command(ip(stray.address, "route", "add", *target, *source)),),
            lasts="until-boot",
            undo=(Command(ip(stray.address, "route", "del", *target)),),
        ),
        hits=lost(names),
        works=(Effect("the containers of this network among themselves"),) if len(names) > 1 else (),
        excluded=(Excluded("NET010", f"{network.bridge} is up and has its address"),),
    )


def _others(links: Links, networks: Networks, *, bridges: bool) -> list[tuple[Link, Subnet]]:
    """Give links that are no network's bridge, with each subnet that they are in; of kind bridge, or all others."""
    own = {network.bridge for network in networks.all}
    found = []
    for link in links.all:
        if link.name in own or link.name == "lo" or not link.up or (link.kind == "bridge") != bridges:
            continue
        for address in link.addresses:
            if address.startswith("fe80:"):
                continue  # every veth has one: not worth reading
            held = interface(address)
            if held is not None and held.network.prefixlen < held.max_prefixlen - 1 and not held.is_link_local:
                found.append((link, held.network))
    return found


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


@check(
    "NET007",
    Severity.ERROR,
    says=(
        "Pool overlaps with other one on this address space",
        "networks have overlapping IPv4",
    ),
)
def subnet_of_another_bridge(networks: Networks, links: Links, strays: Strays, routing: Routing) -> Iterator[Yield]:
    """Another bridge of this host has the same addresses as a Docker network.

    ## What it is
    Two bridges claim one subnet: another engine's, libvirt's, or a br-... left behind by a
    daemon that crashed. The kernel sends all packets to one of them: to the narrower route,
    or to the one that came first.
    ## What you see
    Containers of one network are unreachable and get no answers, although link, address
    and rules are in place; it may begin with a restart, which changes the order.
    ## By hand
    ip -br addr show type bridge
    ip route get ADDRESS
    ## Cure
    Routes of their own for the containers help at once and stop nothing. For good: delete the
    bridge that nobody needs, or give one of the two another subnet.
    ## Looks like
    NET008 (a route or another link claims the addresses), NET011 (a bridge of no network)
    ## Limits
    A bridge that is down has no routes, and is not judged.
    ## References
    ip-route(8), moby libnetwork/drivers/bridge/bridge_linux.go
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    taken = _taken(strays, links, "bridge")
    for found in taken.values():
        yield _by_route(found)
    others = _others(links, networks, bridges=True)
    for network, link in strays.seats:
        if network.name in taken:
            continue
        for other, held in others:
            mine = next((one for one in network.subnets if _overlap(one, held)), None)
            if mine is not None and not _settled(mine, network, routing):
                yield _both(network, link, other, mine, held)
                break


def _settled(mine: Subnet, network: Network, routing: Routing) -> bool:
    """Whether somebody has made narrower routes to the bridge: they know of the overlap, and have chosen."""
    return any(route.dev == network.bridge and part != mine for route, part in routing.within(mine))


def _both(network: Network, link: Link, other: Link, mine: Subnet, held: Subnet) -> Finding:
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"{other.name} overlaps network {network.name}: {held}",
        message=f"{other.name} is in {held}, network {network.name} ({network.bridge}) in {mine}",
        evidence=(other.cited, link.cited, network.cited),
        remedy=Remedy(
            "let them not overlap",
            (Note(f"delete {other.name} if nobody needs it, or give network {network.name} another subnet"),),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"addresses of {held} are reached on one of the two only"),),
        works=(Effect(f"the containers of network {network.name} that run now"),),
    )


def _taken(strays: Strays, links: Links, what: str) -> dict[str, list[Stray]]:
    """Give the strays that one kind of claim has taken, by network."""
    taken: dict[str, list[Stray]] = {}
    for stray in strays.all:
        if _claims(stray, links) == what:
            taken.setdefault(stray.network.name, []).append(stray)
    return taken


def _claims(stray: Stray, links: Links) -> str:
    """Say what takes the packets: a `rule` that not every host has, another `bridge`, or a `route`."""
    if stray.way.rule is not None and not stray.way.rule.standard:
        return "rule"
    link = links.by_name.get(stray.way.dev)
    narrow = stray.way.route is not None and stray.way.route.dst != "default"
    return "bridge" if link is not None and link.kind == "bridge" and narrow else "route"


@check("NET008", Severity.ERROR)
def subnet_of_another_route(
    networks: Networks,
    links: Links,
    strays: Strays,
    routing: Routing,
    containers: Containers,
    files: NameFiles | None,
) -> Iterator[Yield]:
    """A Docker network and a route, a link or a nameserver of this host claim the same addresses.

    ## What it is
    The kernel takes the narrowest route. A VPN's or a LAN's inside a Docker subnet takes
    containers away; a Docker subnet inside the LAN, or over a nameserver, takes those.
    Docker looks for overlaps when it makes a network; routes that come later it never sees.
    ## What you see
    Since a VPN came up, containers are unreachable and get no answers; or since a network was
    made, part of the LAN or all names are gone.
    ## By hand
    ip route get ADDRESS
    docker network inspect NAME -f '{{json .IPAM.Config}}'
    ## Cure
    A narrower route for what is lost, which stops nothing. For good: other addresses for the
    network (default-address-pools, bip, --subnet), which means to make it anew.
    ## Looks like
    NET007 (another bridge), NET054 (a rule chooses another table), NET010 (no route at all)
    ## Limits
    A wider route beside a Docker network is how hosts are, and is silent; a wider link is not.
    ## References
    ip-route(8), https://github.com/moby/moby/issues/46615
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    taken = _taken(strays, links, "route")
    for found in taken.values():
        yield _by_route(found)
    servers = _homeless(files, containers)
    others = [(link.name, held, link.cited) for link, held in _others(links, networks, bridges=False)]
    bridges = {network.bridge for network in networks.all}
    foreign = bridges | {one.name for one in links.all if one.kind == "bridge"}
    for network, link in strays.seats:
        own = link.bare | {address for pool in network.pools for address in (pool.gateway, *pool.others)}
        for address, cited in servers.items():
            if address not in own and routing.find(Packet(address)).dev == network.bridge and _covers(network, address):
                yield _nameserver(network, address, cited, routing.beside(ip_address(address), bridges))
        if network.name not in taken:
            yield from _neighbours(network, link, others, foreign, routing)


def _homeless(files: NameFiles | None, containers: Containers) -> dict[str, Citation]:
    """Give the nameservers of this host that are no container's, which may hold its address while it is stopped."""
    if files is None or containers.unsettled or not containers.complete:
        return {}
    held = {
        address
        for one in containers.all
        for end in one.endpoints
        for address in (end.address, end.address6, *end.static)
    }
    return {address: cited for address, cited in files.asked.items() if address not in held}


def _covers(network: Network, address: str) -> bool:
    return any(ip_address(address) in subnet for subnet in network.subnets)


def _nameserver(network: Network, address: str, cited: Citation, route: Route | None) -> Finding:
    steps: tuple[Step, ...] = (Note(f"find out how {address} is reached, and add a route to it"),)
    undo: tuple[Step, ...] = ()
    if route is not None:
        via = ("via", route.gateway) if route.gateway else ()
        target = (_alone(address), *via, "dev", route.dev)
        steps, undo = (Command(ip(address, "route", "add", *target)),), (Command(ip(address, "route", "del", *target)),)
    return Finding(
        subject=f"{network.name}:{address}",
        scope=network.name,
        title=f"nameserver {address} is looked for inside network {network.name}",
        message=f"nameserver {address} is an address of network {network.name} ({network.bridge}), and no"
        " container has it",
        evidence=(cited, network.cited),
        remedy=Remedy(
            "a route of its own for the nameserver",
            steps,
            lasts="until-boot",
            for_good=(Note(f"make network {network.name} anew with another subnet"),),
            undo=undo,
        ),
        hits=(Effect(f"this host and its containers would ask {address} in vain: names are not resolved"),),
        works=(Effect("what is reached by address"),),
    )


def _neighbours(
    network: Network, link: Link, others: list[tuple[str, Subnet, Citation]], bridges: set[str], routing: Routing
) -> Iterator[Finding]:
    """Look for links and routes of others that share addresses with the network, and take no container of it now."""
    for mine in network.subnets:
        if _settled(mine, network, routing):
            continue
        rivals = [one for one in others if _overlap(mine, one[1])]
        rivals += [
            (route.dev, held, route.cited)
            for route, held in routing.within(mine)
            # A route to one address is somebody's choice, and takes no container until one has it.
            if held.prefixlen < held.max_prefixlen and route.dev not in {"", *bridges}
        ]
        rival = next(iter(rivals), None)
        if rival is None:
            continue
        name, held, cited = rival
        part = held if held.prefixlen >= mine.prefixlen else mine
        yield Finding(
            subject=network.name,
            scope=network.name,
            title=f"network {network.name} overlaps {held} of {name}",
            message=f"network {network.name} is {mine} on {network.bridge}, and {held} is reached by {name}",
            evidence=(cited, link.cited, network.cited),
            remedy=Remedy(
                "let them not overlap",
                (Note(f"make network {network.name} anew with a subnet outside of {held}"),),
            ),
            severity=Severity.WARNING,
            hits=(
                Effect(f"what has an address of {part} is reached on one side only: by {name}, or on {network.bridge}"),
            ),
            works=(Effect(f"the containers of network {network.name} that run now"),),
        )
        return
