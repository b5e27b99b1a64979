"""Do packets find their way, whole: default routes, routing rules, and how large a packet each link takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.checks.bridges import attached
from doctor.checks.overlaps import ip, lost
from doctor.checks.published_ports import leading
from doctor.checks.veth import unknown
from doctor.facts.config import ConfigFile, Options
from doctor.facts.containers import Container, Containers
from doctor.facts.ends import End, Ends
from doctor.facts.links import Link, Links, Route, Routes
from doctor.facts.networks import Network, Networks
from doctor.facts.routes import Clamps, Routing, Rule, Stray, Strays
from doctor.model import (
    Citation,
    Command,
    EditKey,
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
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES
from doctor.packets.site import HOST
from doctor.packets.walk import follow
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.packets.full_size import Large
    from doctor.packets.promises import Promises, Walked
    from doctor.packets.site import Site


@check("NET014", Severity.ERROR)
def default_route_lost(containers: Containers, ends: Ends, links: Links) -> Iterator[Yield]:
    """A container has no default route, or one to a gateway that is not there.

    ## What it is
    Docker gives a container a default route by the gateway of one of its networks, when it
    starts. A program in it, or a link that went down and up, may have lost it.
    ## What you see
    "Network unreachable" from inside for everything beyond its networks, and published ports
    time out for clients from elsewhere; neighbours and the host still reach it.
    ## By hand
    nsenter -t PID -n ip route
    docker inspect -f '{{json .NetworkSettings.Networks}}' NAME
    ## Cure
    Put the route back in the container's namespace; nothing stops.
    ## Looks like
    NET010 (the gateway is not on the bridge), NET034 (forwarding is off)
    ## Limits
    A route by a link that is not Docker's (a VPN's), or by another container, is taken to be
    on purpose. Containers with an internal network, or one of another driver, are not judged.
    ## References
    ip-route(8), moby libnetwork/sandbox.go
    """
    by_container: dict[str, list[End]] = {}
    for end in ends.all:
        by_container.setdefault(end.container.id, []).append(end)
    for its in by_container.values():
        container = its[0].container
        ways = [end for end in its if _leads_out(end)]
        if not ways or len(ways) != sum(bool(end.address or end.address6) for end in container.endpoints):
            continue  # a macvlan, or an internal network, may have a say
        if ways[0].missing:
            yield unknown(ways[0])
        else:
            yield from _default(container, ways, containers, links)
    if not containers.running:
        yield NotApplicable("no container runs")


def _leads_out(end: End) -> bool:
    """Whether a network may give a container its default route."""
    isolated = end.network.internal or end.network.option("gateway_mode_ipv4") == "isolated"
    return bool(end.endpoint.address and end.endpoint.gateway) and not isolated


def _default(container: Container, ways: list[End], containers: Containers, links: Links) -> Iterator[Finding]:
    space = ways[0].space
    wide = [route for route in space.routes if route.version == 4 and _is_wide(route)]  # noqa: PLR2004 - IPv4
    entered = ("nsenter", "-t", str(container.pid), "-n", "ip", "route")
    seats = [(end.network, end.endpoint, end.link) for end in ways if end.link is not None]
    if len(seats) < len(ways) or not all(link.up and end.address in link.bare for _, end, link in seats):
        return  # NET012 and NET013 say so
    network, end, link = seats[0]
    put = Command((*entered, "replace", "default", "via", end.gateway, "dev", link.name))
    if not wide:
        listed = ", ".join(route.dst for route in space.routes if route.table == "main") or "none"
        yield _routeless(
            container,
            network,
            f"{container.name} has no default route",
            f"{container.name} has no default route; its gateway is {end.gateway} (network {network.name})",
            (
                Citation(f"netns/{space.inode}/routes", 0, f"routes: {listed}", f"routes of {container.name}"),
                container.cited,
            ),
            Remedy(
                "put its default route back",
                (put,),
                undo=(Command((*entered, "del", "default", "via", end.gateway, "dev", link.name)),),
            ),
        )
        return
    first = wide[0]
    if len(wide) > 1 or first.dst != "default" or first.table != "main" or not first.gateway:
        return
    seat = next((one for one in seats if one[2].name == first.dev), None)
    if seat is None or first.gateway in {stop.gateway for _, stop, _ in seats}:
        return
    network, end, _ = seat
    if _held(first.gateway, network, containers, links):
        return
    yield _routeless(
        container,
        network,
        f"{container.name} sends everything to {first.gateway}, which nobody has",
        f"the default route of {container.name} leads to {first.gateway}; the gateway of network {network.name} is"
        f" {end.gateway}, and no container there has {first.gateway}",
        (first.cited, container.cited),
        Remedy(
            "let it lead to the gateway",
            (Command((*entered, "replace", "default", "via", end.gateway, "dev", first.dev)),),
            undo=(Command((*entered, "replace", "default", "via", first.gateway, "dev", first.dev)),),
        ),
    )


def _is_wide(route: Route) -> bool:
    """Whether it stands for all addresses: a VPN has two halves instead of a default route, or a table of its own."""
    return route.dst in {"default", "0.0.0.0/1", "128.0.0.0/1"} and not route.dead and route.type == "unicast"


def _held(address: str, network: Network, containers: Containers, links: Links) -> bool:
    """Whether somebody on the network may have the address: a container, the bridge, a router of its own, a port."""
    if any(address in pool.others for pool in network.pools):
        return True
    bridge = links.by_name.get(network.bridge)
    if bridge is None or address in bridge.bare or containers.unsettled or not containers.complete:
        return True
    if any(link.master == network.bridge and link.kind != "veth" for link in links.all):
        return True  # a card or a tap: more than containers are on this bridge
    return any(address in {end.address, *end.static} for one in containers.all for end in one.endpoints)


def _routeless(
    container: Container,
    network: Network,
    title: str,
    message: str,
    evidence: tuple[Citation, ...],
    remedy: Remedy,
) -> Finding:
    ports = leading([container], 4)
    return Finding(
        subject=container.name,
        scope=network.name,
        title=title,
        message=message,
        evidence=evidence,
        remedy=remedy,
        hits=(
            Effect(f"{container.name} would reach nothing beyond its networks"),
            *((Effect("clients from elsewhere get no answer by published ports:", ports),) if ports else ()),
        ),
        works=(Effect(f"{container.name} and its neighbours, and this host"),),
        excluded=(Excluded("NET012", "its link is up and has its address"),),
    )


@check("NET054", Severity.ERROR)
def policy_route_takes_containers(
    networks: Networks, strays: Strays, routing: Routing, routes: Routes
) -> Iterator[Yield]:
    """A routing rule sends the packets of a container to another table, and out by the wrong device.

    ## What it is
    Rules (`ip rule`) choose the table a packet is routed by. One that a VPN, or a host with
    two uplinks, put before table main, and whose table does not know Docker's networks, takes
    what is meant for containers: requests, or the answers to what they asked for.
    ## What you see
    Since the VPN is up: published ports time out, containers reach nothing, or only clients
    from some networks are served. Rules of the firewall and links are in place.
    ## By hand
    ip rule
    ip route get ADDRESS
    ## Cure
    A rule before that one, which sends what is meant for the network to table main; nothing
    stops.
    ## Looks like
    NET008 (a route of table main), NET034 (forwarding is off)
    ## Limits
    Rules that ask for ports, users or TOS are passed over, and packets are taken to bear no
    mark. Where a rule sends what containers ask for is taken to be on purpose.
    ## References
    ip-rule(8), https://github.com/moby/moby/issues/51544
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    if routing.assumed and routes.all:
        yield Unknown("rules", f"ip rule: {routing.assumed}")
    taken: dict[Citation, tuple[Rule, list[Stray]]] = {}
    for stray in strays.all:
        rule = stray.way.rule
        if rule is not None and not rule.standard:
            taken.setdefault(rule.cited, (rule, []))[1].append(stray)
    for rule, found in taken.values():
        yield _astray(rule, found, routing)


def _astray(rule: Rule, found: list[Stray], routing: Routing) -> Finding:
    """Say what one rule takes away: of one network, or of several."""
    stray = found[0]
    names = tuple(dict.fromkeys(one.container.name for one in found))
    networks = list({one.network.id: one.network for one in found}.values())
    subnets = [
        pool.subnet for network in networks for pool in network.pools if (":" in pool.subnet) == (":" in stray.address)
    ]
    before = max(min(one.priority for one in routing.special if one.version == rule.version) - 1, 1)
    words = ("lookup", "main", "priority", str(before))
    steps = [Command(ip(one, "rule", "add", "to", one, *words)) for one in subnets]
    undo = [Command(ip(one, "rule", "del", "to", one, *words)) for one in subnets]
    where = f"by {stray.way.dev}" if stray.way.dev else "nowhere"
    who = "the host's own packets" if stray.packet.iif == "lo" else f"packets from {rule.src or 'outside'}"
    which = f"network {networks[0].name}" if len(networks) == 1 else f"{len(networks)} networks"
    return Finding(
        subject=f"rule {rule.priority}" + (" (IPv6)" if ":" in stray.address else ""),
        scope=networks[0].name if len(networks) == 1 else "",
        title=f"a routing rule takes {which} away: {rule.by_hand}",
        message=f"rule {rule.by_hand} sends {who} to {stray.address} {where};"
        f" they belong on {stray.network.bridge} (network {stray.network.name})",
        evidence=(
            rule.cited,
            *((stray.way.route.cited,) if stray.way.route else ()),
            *(network.cited for network in networks[:3]),
        ),
        remedy=Remedy(
            "send what is meant for the networks to table main" if len(networks) > 1 else "send it to table main",
            tuple(steps),
            lasts="until-boot",
            for_good=(Note("let what writes the rule write this one too"),),
            undo=tuple(undo),
        ),
        hits=lost(names),
        works=(Effect("containers of one network among themselves"),) if len(names) > 1 else (),
        excluded=(Excluded("NET008", f"table main leads to {stray.network.bridge}"),),
    )


# How large a packet may be


@check("NET015", Severity.WARNING)
def packets_too_large(
    networks: Networks,
    links: Links,
    routes: Routes,
    containers: Containers,
    ends: Ends,
    options: Options,
    config: ConfigFile,
    clamps: Clamps | None,
    promises: PROMISES | None,
    site: SITE | None,
) -> Iterator[Yield]:
    """Containers send larger packets than a link on their way takes.

    ## What it is
    Every link has a largest packet (MTU). Docker gives its networks 1500, whatever the uplink
    has; in clouds and VPNs that is 1450 or less. Between a container's two link ends, a
    larger packet vanishes without a word. On the way out the host tells its sender, by ICMP.
    ## What you see
    Small answers come, large ones hang: TLS handshakes, apt, git, docker push. The host
    itself is well, so is curl of a small page.
    ## By hand
    ip link show UPLINK
    ping -M do -s 1450 -c 1 ADDRESS
    ## Cure
    Let the firewall lower what TCP announces (TCPMSS): nothing stops. For good: `mtu` in
    daemon.json for docker0, com.docker.network.driver.mtu for a network that is made anew.
    ## Looks like
    NET034 (nothing gets through at all), a slow server
    ## Limits
    An error where the ICMP of this host does not get back to a container, as it was walked, and
    where the two ends of a link differ; else a warning, which no clamp of a firewall leaves.
    What lies beyond this host is not measured. The clamp helps TCP, not QUIC or other UDP.
    ## References
    ip-link(8), RFC 2923, https://github.com/moby/moby/issues/22028
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    yield from _narrow_ends(ends, links)
    uplinks = [(name, _mtu(name, routes, links)) for name in routes.uplinks if name in links.by_name]
    own = {network.bridge for network in networks.all}
    smallest = min(((mtu, name) for name, mtu in uplinks if name not in own and mtu), default=None)
    if smallest is None:
        return
    mtu, uplink = smallest
    wide = [
        (network, link)
        for network in networks.all
        if not network.internal
        and attached(network, containers)
        and (link := links.by_name.get(network.bridge)) is not None
        and link.mtu > mtu
    ]
    holes = _black_holes(promises, site, {network.id for network, _ in wide}, links.by_name[uplink])
    if wide and (holes or clamps is None or not clamps.all):
        found = _too_wide(wide, links.by_name[uplink], mtu, containers, options, config)
        yield _black_hole(found, holes) if holes else found


def _black_holes(
    promises: Promises | None, site: Site | None, networks: set[str], uplink: Link
) -> list[tuple[Walked, Large]]:
    """Walk packets of full size to the outside: give those that do not fit into the uplink, and whose sender is not told."""
    found = []
    for one in promises.of("egress") if promises is not None and site is not None and networks else ():
        if site is None or one.network.id not in networks or not one.arrives:
            continue
        hole = next((held for held in follow(site, one.flow, large=True).walk.large if not held.told), None)
        step = hole.end.step if hole is not None and hole.end.space == HOST else None
        if hole is not None and step is not None and step.cited == uplink.cited:
            found.append((one, hole))
    return found


_CLAMP = ("FORWARD", "-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu")


def _black_hole(found: Finding, holes: list[tuple[Walked, Large]]) -> Finding:
    """Say that the host's own error does not get back."""
    stopped = next((one.stopped for _, one in holes if one.stopped is not None), None)
    step = stopped.step if stopped is not None else None
    cited = step.cited if step is not None else None
    where = f": {cited.place} ({cited.excerpt}) stops it" if cited is not None else ""
    names = tuple(dict.fromkeys(member.name for one, _ in holes for member in one.members))
    return replace(
        found,
        title=f"{found.title}, and are not told",
        message=f"{found.message}; the ICMP that tells them to send less does not get back{where}",
        evidence=(*found.evidence, *((cited,) if cited is not None else ())),
        # What comes back by the uplink announces too much as well: the rule is for both ways.
        remedy=replace(
            found.remedy,
            summary="let both ends announce no more than the way takes",
            steps=(Command(("iptables", "-t", "mangle", "-A", *_CLAMP)),),
            undo=(Command(("iptables", "-t", "mangle", "-D", *_CLAMP)),),
            notes=(*found.remedy.notes, *((f"or let ICMP pass, at {cited.place}",) if cited is not None else ())),
        ),
        severity=Severity.ERROR,
        hits=(Effect("what is large would hang on its way outside, and nothing says why:", names),),
    )


def _mtu(name: str, routes: Routes, links: Links) -> int:
    """Give the largest packet of a default route: the route's own bound, else the link's."""
    bound = next((route.mtu for route in routes.all if route.dst == "default" and name in route.devs and route.mtu), 0)
    held = links.by_name[name].mtu
    return min(bound, held) if bound else held


def _too_wide(
    wide: list[tuple[Network, Link]],
    uplink: Link,
    mtu: int,
    containers: Containers,
    options: Options,
    config: ConfigFile,
) -> Finding:
    names = tuple(dict.fromkeys(one.name for network, _ in wide for one in attached(network, containers)))
    listed = ", ".join(f"{network.name} {link.mtu}" for network, link in wide)
    told = options.value("mtu") if options.known("mtu") else ""
    notes = ["it lowers what new TCP connections announce; UDP is not helped"]
    if told.isdecimal() and int(told) <= mtu:
        notes.append(f"mtu {told} of {config.path} counts for the default network only")
    rule = ("FORWARD", "-o", uplink.name, "-p", "tcp", "--tcp-flags", "SYN,RST", "SYN")
    clamp = ("-j", "TCPMSS", "--clamp-mss-to-pmtu")
    for_good: list[Step] = []
    if any(network.name == "bridge" for network, _ in wide) and config.data is not None and "mtu" not in config.data:
        for_good.append(EditKey(config.path, "/mtu", str(mtu)))
    for_good += [
        Note(f"make network {network.name} anew with --opt com.docker.network.driver.mtu={mtu}")
        for network, _ in wide
        if network.name != "bridge"
    ]
    return Finding(
        subject=uplink.name,
        title=f"{uplink.name} takes packets of {mtu} bytes, containers send more: {listed}",
        message=f"the uplink {uplink.name} has an MTU of {mtu}, and networks have more: {listed}",
        evidence=(
            replace(uplink.cited, excerpt=f"{uplink.name} mtu {uplink.mtu}"),
            *(replace(link.cited, excerpt=f"{link.name} mtu {link.mtu}") for _, link in wide[:3]),
        ),
        remedy=Remedy(
            "announce no larger packets than the uplink takes",
            (Command(("iptables", "-t", "mangle", "-A", *rule, *clamp)),),
            lasts="until-boot",
            for_good=tuple(for_good),
            undo=(Command(("iptables", "-t", "mangle", "-D", *rule, *clamp)),),
            notes=tuple(notes),
        ),
        hits=(Effect("large answers from outside hang, where ICMP is filtered on the way:", names),),
        works=(Effect("small packets"), Effect("what containers send to each other")),
    )


def _narrow_ends(ends: Ends, links: Links) -> Iterator[Finding]:
    """Compare the two ends of each link: what is larger than the host's end takes is dropped there, and nobody is told."""
    for end in ends.all:
        container, network, inside = end.container, end.network, end.link
        outside = links.by_index.get(inside.peer) if inside is not None and inside.kind == "veth" else None
        if inside is None or outside is None or outside.master != network.bridge:
            continue
        if inside.mtu <= outside.mtu:
            continue
        set_mtu = ("ip", "link", "set", outside.name, "mtu")
        yield Finding(
            subject=f"{container.name}:{network.name}",
            scope=network.name,
            title=f"{container.name} sends packets of {inside.mtu} bytes, {outside.name} takes {outside.mtu}",
            message=f"{inside.name} of {container.name} has an MTU of {inside.mtu}, {outside.name}, its end on"
            f" {network.bridge}, one of {outside.mtu}: larger packets vanish between them",
            evidence=(
                replace(
                    inside.cited, excerpt=f"{inside.name} mtu {inside.mtu}", place=f"{inside.name} of {container.name}"
                ),
                replace(outside.cited, excerpt=f"{outside.name} mtu {outside.mtu}"),
            ),
            remedy=Remedy(
                "give both ends one MTU",
                (Command((*set_mtu, str(inside.mtu))),),
                lasts="until-boot",
                undo=(Command((*set_mtu, str(outside.mtu))),),
            ),
            severity=Severity.ERROR,
            hits=(Effect(f"packets of more than {outside.mtu} bytes from and to {container.name} are lost"),),
            works=(Effect("small packets"),),
        )
