"""Are the addresses of Docker's networks its own? The settings of docker0, overlaps with other links and routes, full pools."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from doctor.checks.bridges import attached
from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Link, Links, Route
from doctor.facts.networks import Network, Networks
from doctor.facts.resolvers import Nameserver, Nameservers
from doctor.facts.routes import Packet, Routing, Stray, Strays
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
from doctor.registry import check

Subnet = IPv4Network | IPv6Network


def subnets(network: Network) -> list[Subnet]:
    """Give the subnets of a network that can be parsed."""
    found: list[Subnet] = []
    for pool in network.pools:
        try:
            found.append(ip_network(pool.subnet, strict=False))
        except ValueError:
            continue
    return found


# What dockerd is told of docker0


def _interface(text: str) -> IPv4Interface | None:
    """Read `10.9.8.1/24` as Docker does: an address of IPv4 with its prefix length."""
    if "/" not in text or ":" in text or not text.partition("/")[2].isdecimal():
        return None
    try:
        found = ip_interface(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv4Interface) else None


def _text(key: str, options: Options, config: ConfigFile) -> str:
    """Give the value of an option that is a string; empty where it is none, or something else (DMN001 says so)."""
    if key not in options.flags and not isinstance((config.data or {}).get(key, ""), str):
        return ""
    return options.value(key).strip()


def _refused(text: str, generation: tuple[int, int]) -> tuple[str, str]:
    """Say why Docker refuses a value of bip, and what it was probably meant to be; empty for one that it takes."""
    found = _interface(text)
    if found is None:
        meant = _interface(f"{text}/24")
        if meant is not None:
            return "has no prefix length", str(meant)
        return ("is an address of IPv6" if ":" in text else "is no address with a prefix length"), ""
    network = found.network
    tiny = network.prefixlen > 30  # noqa: PLR2004 - no room for a network and a broadcast address
    if tiny:
        # Measured: 20.10.24 refuses /31 and /32, 26.1.5 and 28.5.2 take them.
        old = (0, 0) < generation < (23, 0)
        return ("leaves no address for containers", f"{found.ip}/24") if old else ("", "")
    first = f"{network[1]}/{network.prefixlen}"
    if found.ip == network.network_address:
        return f"is the address of the network {network} itself", first
    if found.ip == network.broadcast_address:
        return f"is the broadcast address of {network}", first
    return "", ""


def _mending(origin: Origin, config: ConfigFile, key: str, value: str | None, daemon: Daemon) -> Step:
    """Give the step that sets or removes a key; an option of the command line is for a person to change."""
    if origin.cited.record == "engine/daemon.json":
        return EditKey(config.path, f"/{key}", None if value is None else f'"{value}"')
    told = f"set it to {value}" if value is not None else "take it away"
    return Note(f"{told} where dockerd is given {origin.text}: {origin.where if daemon.pid else origin.cited.place}")


def _started(daemon: Daemon, lifecycle: Lifecycle, step: Step, summary: str) -> Remedy:
    """Mend; start dockerd where it is down."""
    if daemon.pid:
        return Remedy(summary, (step,), notes=("do not restart Docker before that",))
    return lifecycle.starting(f"{summary}, then start dockerd", (step, *lifecycle.start))


def _down_or_later(daemon: Daemon) -> tuple[Severity, tuple[Effect, ...], tuple[Effect, ...]]:
    if daemon.pid:
        return (
            Severity.WARNING,
            (Effect("the next start of dockerd fails: at the latest after the next boot or upgrade"),),
            (Effect("dockerd runs on with what it read when it started"),),
        )
    return Severity.ERROR, (Effect("dockerd does not start: no docker command works"),), ()


def _last_words(log: DaemonLog, *words: str) -> tuple[Citation, ...]:
    fatal = log.fatal
    return (fatal.cited,) if fatal and any(word in fatal.text for word in words) else ()


@check("NET001", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def bip_refused(
    options: Options,
    config: ConfigFile,
    daemon: Daemon,
    log: DaemonLog,
    lifecycle: Lifecycle,
    links: Links | None,
) -> Iterator[Yield]:
    """The address for docker0 (bip) is one that dockerd refuses.

    ## What it is
    `bip` is the address that docker0 shall have: a host's address with its prefix length,
    10.9.8.1/24. Without a prefix, with the address of the network or of its broadcast, or
    together with `bridge`, dockerd ends at its start.
    ## What you see
    dockerd running: nothing, until its next start. Down: "failed to allocate gateway",
    "invalid CIDR address" or "mutually exclusive options" in its log.
    ## By hand
    grep -n bip /etc/docker/daemon.json
    ## Cure
    Set it to the first address of the network, or take `bip` or `bridge` away; then start
    dockerd if it is down.
    ## Looks like
    DMN001 (the file is no JSON), DMN003 (the option stands in two places)
    ## Limits
    Public, loopback and multicast addresses are taken by dockerd and are not judged.
    ## References
    dockerd(8) --bip, moby daemon/daemon_unix.go initBridgeDriver
    """
    if not options.known("bip"):
        yield Unknown("bip", options.unread)
        return
    origin = options.origin("bip")
    text = _text("bip", options, config)
    if origin is None or not text:
        return
    severity, hits, works = _down_or_later(daemon)
    bridge = options.origin("bridge") if options.known("bridge") else None
    if bridge is not None and bridge.value:
        there = bridge.value == "none" or links is None or bridge.value in links.by_name
        key, other = ("bip", origin) if there else ("bridge", bridge)
        yield Finding(
            subject="bip",
            title="bip and bridge are both set",
            message=f"bip is {text} ({origin.where}) and bridge is {bridge.value} ({bridge.where}): dockerd takes one",
            evidence=tuple(dict.fromkeys((origin.cited, bridge.cited, *_last_words(log, "mutually exclusive")))),
            remedy=_started(daemon, lifecycle, _mending(other, config, key, None, daemon), f"take {key} away"),
            severity=severity,
            hits=hits,
            works=works,
        )
        return
    why, meant = _refused(text, daemon.generation)
    if why:
        words = ("failed to allocate gateway", "invalid CIDR address", "no IPv4 address configured", "address pool")
        step = _mending(origin, config, "bip", meant or None, daemon)
        yield Finding(
            subject="bip",
            title=f"bip {text} {why}",
            message=f"{origin.where}: bip {text} {why}: dockerd refuses to start with it",
            evidence=(origin.cited, *_last_words(log, *words)),
            remedy=_started(daemon, lifecycle, step, f"set bip to {meant}" if meant else "take bip away"),
            severity=severity,
            hits=hits,
            works=works,
        )


def _default(networks: Networks) -> Network | None:
    return next((one for one in networks.all if one.name == "bridge"), None)


@check("NET002", Severity.WARNING)
def bip_not_in_force(
    options: Options,
    config: ConfigFile,
    networks: Networks,
    containers: Containers,
    daemon: Daemon,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """The address that is configured for docker0 is not the one it has.

    ## What it is
    dockerd reads `bip` when it starts, a reload (SIGHUP) does not; with live-restore not even
    a restart changes it while containers run on docker0. Until then docker0 keeps its old
    address, and after some later restart every container there has another one.
    ## What you see
    `ip addr show docker0` is not what daemon.json says; the overlap that the new address was
    meant to avoid is still there.
    ## By hand
    docker network inspect bridge -f '{{json .IPAM.Config}}'
    grep -n bip /etc/docker/daemon.json
    ## Cure
    Restart dockerd at a time of your choice; with live-restore, stop the containers of the
    default network first. Or set `bip` back to what is in force.
    ## Looks like
    NET010 (the engine's gateway is not on the bridge), NET001 (an address that is refused)
    ## Limits
    Only the default network has this setting.
    ## References
    dockerd(8) --bip, moby daemon/daemon_unix.go initBridgeDriver
    """
    if not options.known("bip"):
        yield Unknown("bip", options.unread)
        return
    origin = options.origin("bip")
    network = _default(networks)
    if origin is None or network is None or not network.pools:
        return
    wanted = _interface(_text("bip", options, config))
    if wanted is None or _refused(str(wanted), daemon.generation)[0] or options.value("bridge"):
        return  # NET001's question
    held = next((pool for pool in network.pools if ":" not in pool.subnet), None)
    if held is None or (held.subnet == str(wanted.network) and held.gateway in {"", str(wanted.ip)}):
        return
    users = attached(network, containers)
    now = f"{held.gateway}/{held.prefix}" if held.gateway else held.subnet
    yield Finding(
        subject="bip",
        scope=network.name,
        title=f"bip {wanted} is not in force: docker0 has {now}",
        message=f"{origin.where} sets bip to {wanted}, and the default network has {now} since dockerd started",
        evidence=(origin.cited, network.cited),
        remedy=_apply(users and lifecycle.survives, lifecycle, tuple(one.engine_name for one in users), containers),
        hits=(Effect("a restart of dockerd gives every container of the default network another address"),),
        works=(Effect(f"the default network, with {now}"),),
    )


def _apply(kept: object, lifecycle: Lifecycle, users: tuple[str, ...], containers: Containers) -> Remedy:
    """Restart dockerd; with live-restore, stop who uses the bridge before."""
    summary = "restart dockerd when it suits"
    if not kept:
        return lifecycle.remedy(summary)
    names = tuple(one.name for one in containers.running if one.engine_name in users)
    return Remedy(
        summary,
        (Command(("docker", "stop", *users)), *lifecycle.restart, Command(("docker", "start", *users))),
        risk="disruptive",
        stops=names,
        restarts="dockerd",
    )


@check("NET003", Severity.WARNING)
def fixed_cidr_outside(
    options: Options, config: ConfigFile, networks: Networks, daemon: Daemon, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """The range for containers (fixed-cidr) is not inside the subnet of docker0.

    ## What it is
    `fixed-cidr` says which part of docker0's subnet containers get addresses from. From
    another subnet, or larger than it, Docker up to 27 ignores it without a word; from 28 on
    no container gets an address from a range outside.
    ## What you see
    Containers have addresses that the range should have kept free; or, from 28 on, "range
    ... is not in subnet ..." whenever one is started on the default network.
    ## By hand
    docker network inspect bridge -f '{{json .IPAM.Config}}'
    grep -n -e bip -e fixed-cidr /etc/docker/daemon.json
    ## Cure
    Take a range inside the subnet of `bip`, or no range; it counts from the next start on.
    ## Looks like
    NET001 (bip itself is refused), NET061 (a range that is used up)
    ## Limits
    IPv6 is not judged. Without `bip`, from 23 on the range is the subnet, and all is well.
    ## References
    dockerd(8) --fixed-cidr, moby daemon/daemon_unix.go
    """
    if not options.known("fixed-cidr"):
        yield Unknown("fixed-cidr", options.unread)
        return
    origin = options.origin("fixed-cidr")
    text = _text("fixed-cidr", options, config)
    if origin is None or not text:
        return
    network = _default(networks)
    pool = next((one for one in network.pools if ":" not in one.subnet), None) if network else None
    bip = _interface(_text("bip", options, config)) if options.known("bip") else None
    if bip is not None:
        subnet, source = str(bip.network), options.origin("bip")
    elif pool is not None and ((0, 0) < daemon.generation < (23, 0) or options.value("bridge")):
        subnet, source = pool.subnet, None
    else:
        return
    try:
        whole, part = ip_network(subnet, strict=False), ip_network(text, strict=False)
    except ValueError:
        return
    if not isinstance(whole, IPv4Network) or not isinstance(part, IPv4Network) or part.subnet_of(whole):
        return
    apart = not part.overlaps(whole)
    in_force = pool is not None and pool.range == str(part) and pool.subnet == str(whole)
    refuses = apart and in_force and daemon.generation >= (28, 0)
    how = "lies outside of" if apart else "is larger than"
    hits = (
        Effect("no container of the default network starts any more: they would get no address")
        if refuses
        else Effect("containers of the default network get addresses from all of its subnet, as if nothing were set")
    )
    evidence = [origin.cited, *([source.cited] if source else [])]
    if network is not None:
        evidence.append(network.cited)
    step = _mending(origin, config, "fixed-cidr", None, daemon)
    yield Finding(
        subject="fixed-cidr",
        scope="bridge",
        title=f"fixed-cidr {text} {how} {whole}",
        message=f"{origin.where}: fixed-cidr {text} {how} {whole}, the subnet of the default network",
        evidence=tuple(dict.fromkeys(evidence)),
        remedy=lifecycle.remedy("take the range away, or choose one inside; then restart dockerd", step)
        if refuses
        else Remedy("take the range away, or choose one inside", (step,), notes=("it counts from the next start on",)),
        severity=Severity.ERROR if refuses else Severity.WARNING,
        hits=(hits,),
        works=(Effect("containers that run keep their address"),),
    )


# Who else claims an address


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


def back_to_bridge(found: list[Stray]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Give steps that send the packets to these addresses to the bridge, by routes that are more specific, and the undo."""
    steps: list[Step] = []
    undo: list[Step] = []
    for one in {(stray.address, stray.network.bridge): stray for stray in found}.values():
        v6 = ":" in one.address
        argv = (*(("ip", "-6") if v6 else ("ip",)), "route")
        target = (f"{one.address}/{128 if v6 else 32}", "dev", one.network.bridge)
        steps.append(Command((*argv, "add", *target)))
        undo.append(Command((*argv, "del", *target)))
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
    steps, undo = back_to_bridge(found)
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
    network, route = stray.network, stray.way.route
    address = ip_address(stray.address)
    subnet = next((one for one in subnets(network) if address in one), None)
    ends = [end for end in stray.container.endpoints if end.network_id == network.id]
    gateway = next((end.gateway for end in ends if end.address == stray.address), "")
    v6 = address.version == 6  # noqa: PLR2004 - IPv6
    target = (str(subnet or f"{address}/{address.max_prefixlen}"), "dev", network.bridge)
    argv = (*(("ip", "-6") if v6 else ("ip",)), "route")
    source = ("proto", "kernel", "scope", "link", "src", gateway) if gateway and not v6 else ()
    where = f"they leave by {route.dev}, as everything else" if route and route.dev else "they go nowhere"
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"the route to network {network.name} is gone",
        message=f"no route leads to {target[0]} on {network.bridge}, which is up and has its address: {where}",
        evidence=(*((route.cited,) if route else ()), network.cited),
        remedy=Remedy(
            "put the route back",
            (Command((*argv, "add", *target, *source)),),
            lasts="until-boot",
            undo=(Command((*argv, "del", *target)),),
        ),
        hits=lost(_names(found)),
        works=(Effect("the containers of this network among themselves"),) if len(_names(found)) > 1 else (),
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
            held = ip_interface(address)
            whole = held.network.prefixlen >= held.max_prefixlen - 1
            if not whole and not held.is_link_local:
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
    taken: dict[str, list[Stray]] = {}
    for stray in strays.all:
        if _claims(stray, links) == "bridge":
            taken.setdefault(stray.network.name, []).append(stray)
    for found in taken.values():
        yield _by_route(found)
    for network, link in strays.seats:
        if network.name in taken:
            continue
        for other, held in _others(links, networks, bridges=True):
            mine = next((one for one in subnets(network) if _overlap(one, held)), None)
            if mine is not None and not _settled(mine, network, routing):
                yield _both(network, link, other, mine, held)
                break


def _settled(mine: Subnet, network: Network, routing: Routing) -> bool:
    """Whether somebody has made narrower routes to the bridge: they know of the overlap, and have chosen."""
    return any(route.dev == network.bridge and part != mine for route, part in _inside(mine, routing))


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
    nameservers: Nameservers | None,
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
    A wider route beside a Docker network is how hosts are, and is silent.
    ## References
    ip-route(8), https://github.com/moby/moby/issues/46615
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    taken: dict[str, list[Stray]] = {}
    for stray in strays.all:
        if _claims(stray, links) == "route":
            taken.setdefault(stray.network.name, []).append(stray)
    for found in taken.values():
        yield _by_route(found)
    for network, link in strays.seats:
        yield from _asked(network, link, nameservers, routing, networks, containers)
        if network.name not in taken:
            yield from _neighbours(network, link, links, networks, routing)


def _asked(
    network: Network,
    link: Link,
    nameservers: Nameservers | None,
    routing: Routing,
    networks: Networks,
    containers: Containers,
) -> Iterator[Finding]:
    """Look for nameservers that the host now looks for among the containers, where none of them has the address."""
    held = {end.address for one in containers.all for end in one.endpoints} | {
        address for one in containers.all for end in one.endpoints for address in (*end.static, end.address6)
    }
    own = {address.partition("/")[0] for address in link.addresses}
    known = held | own | {other for pool in network.pools for other in (pool.gateway, *pool.others)}
    for server in nameservers.all if nameservers else ():
        if server.address in known or containers.unsettled or not containers.complete:
            continue
        if not any(ip_address(server.address) in one for one in subnets(network)):
            continue
        if routing.find(Packet(server.address)).dev == network.bridge:
            yield _nameserver(network, server, _beside(server.address, routing, networks))


def _beside(address: str, routing: Routing, networks: Networks) -> Route | None:
    """Give the narrowest route to the address in table main that leads to no bridge of Docker's."""
    target = ip_address(address)
    own = {network.bridge for network in networks.all}
    table = routing.tables.get(target.version, {}).get("main", {})
    for length in sorted(table, reverse=True):
        shift = target.max_prefixlen - length
        for route in table[length].get(int(target) >> shift << shift, ()):
            if route.dev and route.dev not in own and route.type == "unicast" and not route.dead:
                return route
    return None


def _nameserver(network: Network, server: Nameserver, route: Route | None) -> Finding:
    v6 = ":" in server.address
    argv = (*(("ip", "-6") if v6 else ("ip",)), "route")
    steps: tuple[Step, ...] = (Note(f"find out how {server.address} is reached, and add a route to it"),)
    undo: tuple[Step, ...] = ()
    if route is not None:
        via = ("via", route.gateway) if route.gateway else ()
        target = (f"{server.address}/{128 if v6 else 32}", *via, "dev", route.dev)
        steps, undo = (Command((*argv, "add", *target)),), (Command((*argv, "del", *target)),)
    return Finding(
        subject=f"{network.name}:{server.address}",
        scope=network.name,
        title=f"nameserver {server.address} is looked for inside network {network.name}",
        message=f"nameserver {server.address} is an address of network {network.name} ({network.bridge}), and no"
        " container has it",
        evidence=(server.cited, network.cited),
        remedy=Remedy(
            "a route of its own for the nameserver",
            steps,
            lasts="until-boot",
            for_good=(Note(f"make network {network.name} anew with another subnet"),),
            undo=undo,
        ),
        hits=(Effect(f"this host and its containers would ask {server.address} in vain: names are not resolved"),),
        works=(Effect("what is reached by address"),),
    )


def _neighbours(network: Network, link: Link, links: Links, networks: Networks, routing: Routing) -> Iterator[Finding]:
    """Look for links and routes of others that share addresses with the network, and take no container of it now."""
    bridges = {network.bridge for network in networks.all} | {one.name for one in links.all if one.kind == "bridge"}
    for mine in subnets(network):
        if _settled(mine, network, routing):
            continue
        rivals = [(other.name, held, other.cited) for other, held in _others(links, networks, bridges=False)]
        rivals += [
            (route.dev, held, route.cited)
            for route, held in _inside(mine, routing)
            # A route to one address is somebody's choice, and takes no container until one has it.
            if held.prefixlen < held.max_prefixlen and route.dev not in {"", *bridges}
        ]
        rival = next((one for one in rivals if _overlap(mine, one[1])), None)
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


def _inside(mine: Subnet, routing: Routing) -> Iterator[tuple[Route, Subnet]]:
    """Give the routes of table main to a part of the subnet, or to all of it, that lead to a device."""
    for length, held in routing.tables.get(mine.version, {}).get("main", {}).items():
        for number, routes in held.items() if length >= mine.prefixlen else ():
            part = IPv4Network((number, length)) if mine.version == 4 else IPv6Network((number, length))  # noqa: PLR2004 - IPv4
            if _overlap(mine, part):
                yield from ((route, part) for route in routes if route.type == "unicast" and not route.dead)


@check("NET061", Severity.WARNING)
def pool_exhausted(networks: Networks, containers: Containers) -> Iterator[Yield]:
    """A network has no address left for another container.

    ## What it is
    Each container of a network holds an address of its subnet, or of its range. The first and
    the last, the gateway and auxiliary addresses are not given out: a /29 has room for five.
    ## What you see
    The next one fails to start: "no available IPv4 addresses on this network's address
    pools". So does one that is restarted, if another takes its place meanwhile.
    ## By hand
    docker network inspect NAME
    ## Cure
    Disconnect containers that need no place there, or make the network anew with a wider
    subnet.
    ## Looks like
    NET003 (a range outside of the subnet)
    ## Limits
    Addresses that the engine holds for nobody are not seen; a restart of it frees them.
    ## References
    moby libnetwork/ipams/defaultipam
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    for network in networks.all:
        users = attached(network, containers)
        for pool in network.pools:
            free = _free(pool.range or pool.subnet, pool.subnet)
            if free is None:
                continue
            ends = [end for one in users for end in one.endpoints if end.network_id == network.id]
            taken = {one for end in ends for one in (end.address, end.gateway)} | {pool.gateway, *pool.others}
            left = free - sum(_counts(one, pool.range or pool.subnet, pool.subnet) for one in taken if one)
            if left <= 0 and users:
                yield _full(network, pool.range or pool.subnet, tuple(one.name for one in users))
                break


_SMALL = 1024
"""Larger pools are not counted: nobody has so many containers."""


def _free(part: str, whole: str) -> int | None:
    """Count the addresses of a range that may be given out, before anyone has one; None for what is not judged."""
    try:
        inner, outer = ip_network(part, strict=False), ip_network(whole, strict=False)
    except ValueError:
        return None
    if not isinstance(inner, IPv4Network) or not isinstance(outer, IPv4Network) or not inner.subnet_of(outer):
        return None
    if inner.num_addresses > _SMALL or outer.prefixlen > 30:  # noqa: PLR2004 - nothing is set aside in /31 and /32
        return None
    return inner.num_addresses - sum(one in inner for one in (outer.network_address, outer.broadcast_address))


def _counts(address: str, part: str, whole: str) -> bool:
    inner, outer = ip_network(part, strict=False), ip_network(whole, strict=False)
    held = ip_address(address)
    return (
        held.version == inner.version and held in inner and held not in {outer.network_address, outer.broadcast_address}
    )


def _full(network: Network, part: str, names: tuple[str, ...]) -> Finding:
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"network {network.name} has no address left in {part}",
        message=f"network {network.name}: {len(names)} containers hold all addresses of {part}",
        evidence=(network.cited,),
        remedy=Remedy(
            "make room",
            (
                Note(
                    f"docker network disconnect {network.name} CONTAINER for one that needs no place there,"
                    " or make the network anew with a wider subnet"
                ),
            ),
        ),
        hits=(Effect(f"the next container of network {network.name} fails to start: no available IPv4 addresses"),),
        works=(Effect("those that run:", names),),
    )
