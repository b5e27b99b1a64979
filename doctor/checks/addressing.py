"""Which addresses Docker hands out: what dockerd is told of docker0 (bip, fixed-cidr), and pools that are used up."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, ip_network

from doctor.checks.bridges import attached
from doctor.facts.config import ConfigFile, Options
from doctor.facts.containers import Containers, Endpoint
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Links, interface
from doctor.facts.networks import Network, Networks, Pool
from doctor.facts.nextstart import NextStart
from doctor.facts.subnets import Subnets
from doctor.model import (
    Command,
    EditKey,
    Effect,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Unknown,
    Yield,
)
from doctor.registry import check


def _interface(text: str) -> IPv4Interface | None:
    """Read `10.9.8.1/24` as Docker does: an address of IPv4 with its prefix length."""
    if "/" not in text or ":" in text or not text.partition("/")[2].isdecimal():
        return None
    found = interface(text)
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


@check("NET001", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def bip_refused(
    options: Options, config: ConfigFile, daemon: Daemon, start: NextStart, links: Links | None
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
    bridge = options.origin("bridge") if options.known("bridge") else None
    if bridge is not None and bridge.value:
        there = bridge.value == "none" or links is None or bridge.value in links.by_name
        key, other = ("bip", origin) if there else ("bridge", bridge)
        yield Finding(
            subject="bip",
            title="bip and bridge are both set",
            message=f"bip is {text} ({origin.where}) and bridge is {bridge.value} ({bridge.where}): dockerd takes one",
            evidence=tuple(dict.fromkeys((origin.cited, bridge.cited, *start.words("mutually exclusive")))),
            remedy=start.cure(config.change(key, other), what=f"take {key} away"),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
        )
        return
    why, meant = _refused(text, daemon.generation)
    if why:
        words = ("failed to allocate gateway", "invalid CIDR address", "no IPv4 address configured", "address pool")
        yield Finding(
            subject="bip",
            title=f"bip {text} {why}",
            message=f"{origin.where}: bip {text} {why}: dockerd refuses to start with it",
            evidence=(origin.cited, *start.words(*words)),
            remedy=start.cure(
                config.change("bip", origin, meant), what=f"set bip to {meant}" if meant else "take bip away"
            ),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
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
    step = config.change("fixed-cidr", origin)
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
    IPv6, and pools of more than 1024 addresses, are not counted.
    ## References
    moby libnetwork/ipams/defaultipam
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    for network in networks.all:
        users = attached(network, containers)
        ends = [end for one in users for end in one.endpoints if end.network_id == network.id]
        full = next((pool for pool in network.pools if users and _used_up(pool, ends)), None)
        if full is not None:
            yield _full(network, full.range or full.subnet, tuple(one.name for one in users))


_SMALL = 1024
"""Larger pools are not counted: nobody has so many containers."""


def _used_up(pool: Pool, ends: list[Endpoint]) -> bool:
    """Whether each address that may be given out is some endpoint's, or set aside."""
    part, whole = pool.room, pool.parsed
    if not isinstance(part, IPv4Network) or not isinstance(whole, IPv4Network) or not part.subnet_of(whole):
        return False
    if part.num_addresses > _SMALL or whole.prefixlen > 30:  # noqa: PLR2004 - nothing is set aside in /31 and /32
        return False
    named = {pool.gateway, *pool.others, *(one for end in ends for one in (end.address, end.gateway))}
    held = {whole.network_address, whole.broadcast_address, *(one.ip for one in map(interface, named) if one)}
    return sum(one in part for one in held) >= part.num_addresses


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


@check(
    "NET006",
    Severity.WARNING,
    says=(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ),
)
def no_subnet_left(
    subnets: Subnets, networks: Networks, containers: Containers, config: ConfigFile, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """No subnet is left that the next network could be made of.

    ## What it is
    A network without a subnet of its own gets the next one of dockerd's pools: 31 there are,
    unless default-address-pools says otherwise. What another network has, or a route of a
    link leads to (a VPN's), is left out.
    ## What you see
    "could not find an available, non-overlapping IPv4 address pool among the defaults", or
    from 27 on "all predefined address pools have been fully subnetted".
    ## By hand
    docker network ls
    ip -4 route show scope link
    ## Cure
    Remove networks that no container belongs to: nothing stops. Where a VPN's route covers the
    pools: pools elsewhere, in default-address-pools, and a restart of dockerd.
    ## Looks like
    NET061 (one network has no address left), NET008 (a route takes a network that is there)
    ## Limits
    Networks of other drivers, and of Swarm, are not counted. Routes by a gateway are no
    obstacle to dockerd, and silent.
    ## References
    moby libnetwork/ipamutils, libnetwork/netutils, dockerd(8)
    """
    if not networks.all or not subnets.pools:
        yield NotApplicable("no bridge network here" if not networks.all else "no pool of IPv4")
        return
    if containers.unsettled or subnets.free:
        return
    standing = subnets.standing()
    routes = tuple(one for one in standing if not one.name)
    used = {end.network_id for one in containers.all for end in one.endpoints}
    idle = [one for one in networks.all if one.id not in used and one.name != "bridge"]
    taking = {one.name for one in standing}
    named = tuple(one.name for one in idle if one.name in taking)
    remedy = _wider(subnets, config, lifecycle) if routes or not named else _fewer(named)
    whole = ", ".join(str(base) for base, _ in subnets.pools)
    held = f"{len(taking - {''})} networks" + (
        f" and {', '.join(str(one.subnet) for one in routes[:3])} by a route" if routes else ""
    )
    pools = (subnets.cited,) if subnets.cited else ()
    yield Finding(
        subject="pools",
        title="no subnet is left for another network",
        message=f"{held} hold all of dockerd's pools ({whole})",
        evidence=(*pools, *(one.cited for one in (*routes[:3], *[each for each in standing if each.name][:3]))),
        remedy=remedy,
        hits=(Effect("the next network is not made: docker compose up of a new project, docker network create"),),
        works=(Effect("the networks that are there, and one with a subnet of its own (--subnet)"),),
    )


def _fewer(names: tuple[str, ...]) -> Remedy:
    """Remove networks that no container belongs to, stopped ones included: docker network prune asks running ones only."""
    return Remedy(
        f"remove {'a network' if len(names) == 1 else f'{len(names)} networks'} of no container",
        (Command(("docker", "network", "rm", *names)),),
        notes=("Compose makes its networks anew at the next up",),
    )


_ELSEWHERE = ("10.201.0.0/16", "10.64.0.0/16", "172.16.0.0/16", "100.80.0.0/16", "198.18.0.0/16")
"""Where pools may go: the first that nothing here overlaps."""


def _wider(subnets: Subnets, config: ConfigFile, lifecycle: Lifecycle) -> Remedy:
    base = next(
        (one for one in _ELSEWHERE if not any(held.subnet.overlaps(ip_network(one)) for held in subnets.held)), None
    )
    if base is None:
        return Remedy("other pools", (Note("give dockerd pools that are free here: default-address-pools"),))
    pools = f'[{{"base": "{base}", "size": 24}}]'
    return lifecycle.remedy(
        f"pools elsewhere ({base}: 256 networks), then restart dockerd",
        EditKey(config.path, "/default-address-pools", pools),
        notes=("until then: docker network create --subnet, or make it while the VPN is down",),
    )
