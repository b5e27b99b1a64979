"""The way out of the host itself: without one, no container has any."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.containers import Containers, Endpoint
from doctor.facts.daemon import Daemon
from doctor.facts.links import Link, Links
from doctor.facts.name_files import NameFiles
from doctor.facts.networks import Network, Networks
from doctor.facts.routes import Packet, Routing, Way
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

STRANGERS = ("93.184.215.14", "193.0.14.129")
"""Addresses of two halves of IPv4: a VPN may bring 0.0.0.0/1 and 128.0.0.0/1 in place of a default route."""


@check("NET068", Severity.WARNING, explains=("NET064",))
def host_has_no_way_out(
    routing: Routing,
    networks: Networks,
    containers: Containers,
    links: Links,
    names: NameFiles | None,
    daemon: Daemon,
) -> Iterator[Yield]:
    """The host has no route to the world, or a rule leads what a network sends out nowhere.

    ## What it is
    What a container sends out leaves by the routes of the host. Without a default route there
    (a link went down, a lease ended, a VPN took it along), or with a rule (`ip rule`) that leads
    a network into a black hole, it ends there.
    ## What you see
    "Network is unreachable" on the host, "No route to host" or "Destination Net Unreachable" in
    containers; docker pull fails with "connect: network is unreachable". Whoever comes from
    another network gets no answer either; neighbours of the host do.
    ## By hand
    ip route get 93.184.215.14
    ip -br link
    ## Cure
    Bring the uplink up, put the default route back, or a rule before that one; no restart.
    ## Looks like
    NET014 (one container lost its route), NET034 (forwarding is off), NET054 (a rule leads
    containers elsewhere)
    ## Limits
    IPv4 only. A host that is cut off on purpose is told of as well, as a warning: accept it with
    --ignore. An error only where the host's own resolv.conf names a server it has no way to.
    ## References
    ip-route(8), ip-rule(8)
    """
    if daemon.rootless:
        yield NotApplicable("dockerd runs rootless: its networks leave by a program, not by a route")
        return
    by_id = {one.id: one for one in networks.all if not one.internal and one.ipv4}
    seated = [
        (by_id[end.network_id], end) for one in containers.running for end in one.endpoints if end.network_id in by_id
    ]
    ends = [(network, end) for network, end in seated if end.address and end.gateway]
    if not ends:
        yield NotApplicable("no running container has a network that leads out")
        return
    ways = {where: [routing.find(Packet(stranger, *where)) for stranger in STRANGERS] for where in _where(ends)}
    out = any(routing.find(Packet(stranger, "", "lo")).dev for stranger in STRANGERS)
    if out or any(way.dev for held in ways.values() for way in held):
        if not any(rule.unasked or rule.mark is not None for rule in routing.special):
            yield from _kept_in(routing, ends, ways, containers)
        return
    if any(rule.unasked or rule.mark is not None for rule in routing.special):
        yield Unknown("IPv4", "a routing rule asks for a mark, or for what is not known of a packet")
        return
    yield _cut_off(
        routing, [one.name for one in containers.running], links, {one.bridge for one in networks.all}, names
    )


def _kept_in(
    routing: Routing,
    ends: list[tuple[Network, Endpoint]],
    ways: dict[tuple[str, str], list[Way]],
    containers: Containers,
) -> Iterator[Finding]:
    """Tell of each rule that leads what a network sends out nowhere, where others have a way."""
    held: dict[Citation, tuple[Way, list[Network]]] = {}
    for (_, bridge), found in ways.items():
        way = found[0]
        if any(one.dev for one in found) or way.rule is None or way.rule.standard or way.route is None:
            continue
        mine = [network for network, _ in ends if network.bridge == bridge]
        held.setdefault(way.rule.cited, (way, []))[1].append(mine[0])
    for way, several in held.values():
        yield _nowhere(routing, way, several, containers)


def _nowhere(routing: Routing, way: Way, networks: list[Network], containers: Containers) -> Finding:
    rule, route = way.rule, way.route
    assert rule is not None  # noqa: S101 - see _kept_in
    assert route is not None  # noqa: S101
    ids = {one.id for one in networks}
    users = [one for one in containers.running if any(end.network_id in ids for end in one.endpoints)]
    ours = ((port, one) for one in users for port in one.ports if port.host > 0 and ":" not in port.host_ip)
    ports = tuple(dict.fromkeys(f"{port.host} -> {one.name}" for port, one in ours))
    which = f"network {networks[0].name}" if len(networks) == 1 else f"{len(networks)} networks"
    before = str(max(min(one.priority for one in routing.special if one.version == rule.version) - 1, 1))
    subnets = [pool.subnet for one in networks for pool in one.pools if ":" not in pool.subnet]
    return Finding(
        subject=f"rule {rule.priority}",
        scope=networks[0].name if len(networks) == 1 else "",
        title=f"{which} has no way out: rule {rule.by_hand} leads to {route.type} {route.dst}",
        message=f"what containers of {which} send out is led by rule {rule.by_hand} to {route.type} {route.dst}, and ends"
        " there; this host has a way",
        evidence=(rule.cited, route.cited, *(one.cited for one in networks[:3])),
        remedy=Remedy(
            "let table main lead it out",
            tuple(Command(("ip", "rule", "add", "from", one, "lookup", "main", "priority", before)) for one in subnets),
            lasts="until-boot",
            for_good=(Note("change it where that rule is written"),),
            undo=tuple(
                Command(("ip", "rule", "del", "from", one, "lookup", "main", "priority", before)) for one in subnets
            ),
            notes=(
                "ask who wrote that rule first: the kill switch of a VPN looks so, and means that its tunnel is down",
            ),
        ),
        severity=Severity.ERROR if ports else None,
        hits=(
            Effect("would reach nothing outside:", tuple(one.name for one in users)),
            *((Effect("from outside, published ports would time out: no answer gets out", ports),) if ports else ()),
        ),
        works=(Effect("containers of one network among themselves"),),
        excluded=(Excluded("NET014", "their own routes lead to the gateway"),),
    )


def _where(ends: list[tuple[Network, Endpoint]]) -> Iterator[tuple[str, str]]:
    """Give address and bridge of one container of each network."""
    yield from {network.bridge: (end.address, network.bridge) for network, end in ends}.values()


def _cut_off(routing: Routing, running: list[str], links: Links, bridges: set[str], names: NameFiles | None) -> Finding:
    way = routing.find(Packet(STRANGERS[0]))
    main = routing.tables.get(4, {}).get("main", {})
    there = [route for held in main.values() for several in held.values() for route in several]
    listed = ", ".join(route.dst for route in there) or "none"
    refuses = way.route is not None
    servers = names.source.beyond if names else ()
    mute = [one for one in servers if ":" not in one and not _reached(routing, one)]
    evidence = [
        way.route.cited
        if way.route
        else Citation("netns/host/routes", 0, f"no default; there are: {listed}", "ip route")
    ]
    if mute and names:
        evidence.append(names.source.cited)
    down = [one for one in links.by_name.values() if _is_down(one, bridges)]
    evidence += [one.cited for one in down[:2]]
    what = f"a route refuses it: {way.route.type} {way.route.dst}" if way.route else "no default route"
    return Finding(
        subject="IPv4",
        title=f"this host has no way out: {what}",
        message=f"the host's routes lead to no address beyond its own networks ({what}); what containers send out ends here",
        evidence=tuple(evidence),
        remedy=_back(down, refuses=refuses),
        severity=Severity.ERROR if mute else None,
        hits=(
            Effect(f"{len(running)} containers would reach nothing beyond the host's own networks:", tuple(running)),
            *((Effect(f"names: the host has no way to its nameserver {mute[0]}"),) if mute else ()),
            Effect("docker pull, and clients from other networks: their answers do not get back"),
        ),
        works=(Effect("containers among themselves, and whoever is on a network of this host"),),
        excluded=(Excluded("NET034", "forwarding has no say: the host itself has no way either"),),
    )


def _reached(routing: Routing, address: str) -> bool:
    return bool(routing.find(Packet(address.partition("%")[0])).dev)


def _is_down(link: Link, bridges: set[str]) -> bool:
    """Whether it is a link of the host's own (no bridge of Docker's, no port of a bridge, no tunnel), and is down."""
    if link.name in {"lo", *bridges} or link.master or link.kind in {"tun", "wireguard", "dummy", "ipip", "sit", "gre"}:
        return False
    return not link.up or link.state in {"DOWN", "LOWERLAYERDOWN"}


def _back(down: list[Link], *, refuses: bool) -> Remedy:
    steps: list[Step] = []
    if refuses:
        steps.append(Note("whoever put that route there wanted it (a VPN's kill switch?): ask them first"))
    elif down:
        steps.append(Command(("ip", "link", "set", down[0].name, "up")))
        steps.append(
            Note("then let this host's network service bring its addresses and routes back (ifup, netplan, nmcli)")
        )
    else:
        steps.append(Note("ip route add default via GATEWAY: the router of this host's network, which only you know"))
    return Remedy("give the host its way out again", tuple(steps))
