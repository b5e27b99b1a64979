"""The bridge of each network: there, up, a bridge, holding its gateway, forwarding at once; and bridges of no network."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.checks.published_ports import leading
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.ends import Ends
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Link, Links, interface
from doctor.facts.networks import Network, Networks
from doctor.facts.processes import Processes
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


def attached(network: Network, containers: Containers) -> list[Container]:
    """Give the running containers with an endpoint in the network."""
    return [
        one
        for one in containers.running
        if any(end.network_id == network.id and (end.address or end.address6) for end in one.endpoints)
    ]


def gateways(network: Network, users: list[Container]) -> tuple[str, ...]:
    """Give the network's gateways with prefix length, `10.7.0.1/24`; what IPAM does not say, its endpoints do."""
    found = {f"{pool.gateway}/{pool.prefix}" for pool in network.pools if pool.gateway and pool.subnet}
    if not found:
        # A gateway that is not Docker's (daemon.json: default-gateway, --aux-address DefaultGatewayIPv4) is a router.
        others = {address.partition("/")[0] for pool in network.pools for address in pool.others}
        for one in users:
            for end in one.endpoints:
                if end.network_id == network.id and end.gateway and end.prefix and end.gateway not in others:
                    found.add(f"{end.gateway}/{end.prefix}")
    return tuple(sorted(found))


def _lost(users: list[Container]) -> tuple[Effect, ...]:
    names = tuple(one.name for one in users)
    if not names:
        return (Effect("a container started on this network reaches nothing"),)
    if len(names) == 1:
        return (Effect(f"{names[0]} would reach nothing, and nobody would reach it"),)
    return (Effect(f"{len(names)} containers would reach nothing, and nobody would reach them", names),)


@check(
    "NET009",
    Severity.ERROR,
    explains=("NET010", "NET012"),
    says=("adding interface ... to bridge ... failed: could not find bridge",),
)
def bridge_missing_or_down(
    networks: Networks,
    links: Links,
    containers: Containers,
    ends: Ends,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """A network's bridge is missing, down, or not a bridge.

    ## What it is
    Each bridge network has a link of kind bridge on the host (docker0, br-ID, or the name
    given at creation). It has to be there, and up while containers are attached.
    ## What you see
    The network's containers reach nobody and nobody reaches them; published ports time
    out or are reset. The engine goes on listing network and containers as healthy.
    ## By hand
    docker network inspect NAME -f '{{.Id}}'
    ip -d link show BRIDGE
    ## Cure
    Down: set it up, nothing stops. Gone: make it again under its name, give it the gateway
    address and its ports; containers keep running. Something else of that name: see what.
    ## Looks like
    NET012 (one container's veth is off the bridge), NET010 (only the address is gone)
    ## Limits
    A bridge without running containers has no carrier by design; that is no finding.
    ## References
    ip-link(8), moby libnetwork/drivers/bridge/setup_device_linux.go
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
    for network in networks.all:
        link = links.by_name.get(network.bridge)
        users = attached(network, containers)
        if link is None:
            if network.name == "bridge" and not network.pools:
                continue  # bridge "none": the daemon was told to have no default bridge
            peers = [end.link.peer for end in ends.all if end.network.id == network.id and end.link is not None]
            yield _gone(network, users, links, [links.by_index[one].name for one in peers if one in links.by_index])
        elif link.kind != "bridge":
            yield _impostor(network, users, link, lifecycle)
        elif users and not link.up:
            command = Command(("ip", "link", "set", network.bridge, "up"))
            yield Finding(
                subject=network.name,
                scope=network.name,
                title=f"bridge {network.bridge} of network {network.name} is down",
                message=f"bridge {network.bridge} of network {network.name} is down with"
                f" {len(users)} running container{'s' if len(users) > 1 else ''} attached",
                evidence=(link.cited, network.cited),
                remedy=Remedy(
                    "set it up again",
                    (command, *_v6(network)),
                    lasts="until-boot",
                    undo=(Command(("ip", "link", "set", network.bridge, "down")),),
                ),
                hits=_lost(users),
                excluded=(Excluded("NET012", "the containers' links are still ports of it"),)
                if any(one.master == network.bridge for one in links.all)
                else (),
            )


def _v6(network: Network) -> tuple[Step, ...]:
    """Give the steps that put IPv6 gateways back: the kernel drops these addresses when a link goes down."""
    return tuple(
        Command(("ip", "address", "replace", f"{pool.gateway}/{pool.prefix}", "dev", network.bridge))
        for pool in network.pools
        if ":" in pool.gateway
    )


def _gone(network: Network, users: list[Container], links: Links, ends: list[str]) -> Finding:
    bridge = network.bridge
    wanted = set(gateways(network, users))
    renamed = next((one for one in links.all if one.kind == "bridge" and wanted & set(one.addresses)), None)
    if renamed is not None:
        return _renamed(network, users, renamed)
    steps: list[Step] = [Command(("ip", "link", "add", bridge, "type", "bridge"))]
    steps += [Command(("ip", "address", "add", address, "dev", bridge)) for address in gateways(network, users)]
    steps.append(Command(("ip", "link", "set", bridge, "up")))
    for end in ends:
        steps.append(Command(("ip", "link", "set", end, "master", bridge)))
        steps.append(Command(("ip", "link", "set", end, "up")))
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"bridge {bridge} of network {network.name} does not exist",
        message=f"bridge {bridge} of network {network.name} does not exist; {len(users)} running containers use it",
        evidence=(network.cited, Citation(links.cited.record, 0, f"no link {bridge} among {len(links.all)}", "links")),
        remedy=Remedy(
            "make it again, with the same name, address and ports",
            tuple(steps),
            lasts="until-boot",
            undo=(Command(("ip", "link", "del", bridge)),),
        ),
        severity=Severity.ERROR if users else Severity.WARNING,
        hits=_lost(users),
    )


def _renamed(network: Network, users: list[Container], link: Link) -> Finding:
    """The bridge is there, with its address and its ports, under a name that no rule and no engine knows."""
    steps = _rename(link.name, network.bridge)
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"bridge {network.bridge} of network {network.name} was renamed to {link.name}",
        message=f"{link.name} holds the gateway of network {network.name}; {network.bridge}, its bridge, does not exist",
        evidence=(link.cited, network.cited),
        remedy=Remedy(
            "give it its name back",
            (*steps, *_v6(network)),
            lasts="until-boot",
            undo=_rename(network.bridge, link.name),
        ),
        severity=Severity.ERROR if users else Severity.WARNING,
        hits=_lost(users),
    )


def _rename(old: str, new: str) -> tuple[Step, ...]:
    """Give the steps that rename a link: before Linux 6.0 it has to be down for that."""
    return (
        Command(("ip", "link", "set", old, "down")),
        Command(("ip", "link", "set", old, "name", new)),
        Command(("ip", "link", "set", new, "up")),
    )


def _impostor(network: Network, users: list[Container], link: Link, lifecycle: Lifecycle) -> Finding:
    kind = link.kind or "plain"
    return Finding(
        subject=network.name,
        scope=network.name,
        title=f"{network.bridge} is no bridge but a {kind} link",
        message=f"{network.bridge}, which network {network.name} calls its bridge, is a {kind} link",
        evidence=(link.cited, network.cited),
        remedy=lifecycle.remedy(
            "remove what has taken the name, then let Docker make the bridge again",
            Note(f"find out who made {network.bridge} before it is deleted"),
            Command(("ip", "link", "del", network.bridge)),
        ),
        severity=Severity.ERROR if users else Severity.WARNING,
        hits=_lost(users),
    )


@check("NET010", Severity.ERROR)
def gateway_not_on_bridge(networks: Networks, links: Links, containers: Containers) -> Iterator[Yield]:
    """A bridge does not hold the gateway address of its network.

    ## What it is
    Containers send everything beyond their subnet to the gateway, which is an address of
    the bridge. Without it nobody answers their ARP, and the host has no route to them.
    ## What you see
    Containers of the network reach each other and nothing else; published ports time out
    or are reset. `docker network inspect` shows the gateway as if it were there.
    ## By hand
    ip addr show BRIDGE
    docker network inspect NAME -f '{{json .IPAM.Config}}'
    ## Cure
    Put the address back; nothing stops. If it goes again, systemd-networkd or NetworkManager
    manages the bridge.
    ## Looks like
    NET009 (the bridge is gone or down), NET034 (forwarding off: the gateway answers)
    ## Limits
    Networks made with inhibit_ipv4 or gateway mode isolated have no such address.
    ## References
    ip-address(8), moby libnetwork/drivers/bridge/setup_ipv4_linux.go
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
    for network in networks.all:
        link = links.by_name.get(network.bridge)
        if link is None or link.kind != "bridge":
            continue  # NET009 says so
        users = attached(network, containers)
        held = {one for one in map(interface, link.addresses) if one is not None}
        for gateway in gateways(network, users):
            wanted = interface(gateway)
            if wanted is None or wanted in held or not _has_gateway(network, wanted.version):
                continue
            same = [one for one in held if one.ip == wanted.ip]
            has = ", ".join(sorted(str(one) for one in held if not one.is_link_local)) or "no address"
            steps = [Command(("ip", "address", "add", gateway, "dev", network.bridge))]
            steps += [Command(("ip", "address", "del", str(one), "dev", network.bridge)) for one in same]
            undo = [Command(("ip", "address", "del", gateway, "dev", network.bridge))]
            undo += [Command(("ip", "address", "add", str(one), "dev", network.bridge)) for one in same]
            where = (
                f"has /{same[0].network.prefixlen}, not /{wanted.network.prefixlen}"
                if same
                else f"is not on {network.bridge}"
            )
            yield Finding(
                subject=f"{network.name}:{wanted.ip}",
                scope=network.name,
                title=f"gateway {wanted.ip} of network {network.name} {where}",
                message=f"gateway {gateway} of network {network.name} is not on {network.bridge}, which holds {has}",
                evidence=(link.cited, network.cited),
                remedy=Remedy(
                    "put the address back",
                    tuple(steps),
                    lasts="until-boot",
                    undo=tuple(undo),
                ),
                severity=Severity.ERROR if users else Severity.WARNING,
                hits=_beyond(users),
                works=(Effect("the containers of this network among themselves"),) if len(users) > 1 else (),
                excluded=(Excluded("NET009", f"{network.bridge} is there, and up"),) if link.up else (),
            )


def _has_gateway(network: Network, version: int) -> bool:
    """Whether Docker gives the bridge an address of this family."""
    if version == 6:  # noqa: PLR2004 - IPv6
        return network.ipv6 and network.option("gateway_mode_ipv6") != "isolated"
    inhibited = network.option("inhibit_ipv4").lower() in {"true", "1", "t"}
    return not inhibited and network.option("gateway_mode_ipv4") != "isolated"


def _beyond(users: list[Container]) -> tuple[Effect, ...]:
    names = tuple(one.name for one in users)
    if not names:
        return (Effect("a container started on this network reaches nothing beyond it"),)
    ports = leading(users, 4)
    many = f"{len(names)} containers would reach nothing beyond their network" if len(names) > 1 else ""
    first = Effect(many, names) if many else Effect(f"{names[0]} would reach nothing beyond its network")
    return (first, Effect("published ports do not reach their container:", ports)) if ports else (first,)


_OURS = re.compile(r"br-[0-9a-f]{12}")


@check("NET011", Severity.WARNING)
def bridge_without_network(networks: Networks, links: Links, processes: Processes, daemon: Daemon) -> Iterator[Yield]:
    """A bridge of Docker's is there, and no network that it belongs to.

    ## What it is
    Docker names the bridge of a network br- and the first twelve digits of its id. This one is
    left over: its daemon crashed, or its state was deleted while the bridge stayed.
    ## What you see
    Nothing, until a network is made with the same subnet, from a Compose file for example:
    the kernel then sends its packets to the bridge that was there first.
    ## By hand
    docker network ls --no-trunc
    ip -br addr show type bridge
    ## Cure
    Delete the bridge; nothing uses it.
    ## Looks like
    NET007 (it already has the addresses of a network), NET009 (a network without its bridge)
    ## Limits
    With a second dockerd on the host, or with links on the bridge, this is a note: somebody
    else may need it.
    ## References
    ip-link(8), moby libnetwork/drivers/bridge/bridge_linux.go
    """
    if not daemon.answers:
        yield Unknown("networks", daemon.why or "the daemon does not answer")
        return
    known = {network.bridge for network in networks.all}
    for link in links.all:
        if link.kind != "bridge" or link.name in known or not _OURS.fullmatch(link.name):
            continue
        ports = [one.name for one in links.all if one.master == link.name]
        foreign = len(processes.named("dockerd")) > 1 or bool(ports)
        has = ", ".join(held for held in link.addresses if not held.startswith("fe80:")) or "no address"
        steps: tuple[Step, ...] = (Command(("ip", "link", "del", link.name)),)
        if foreign:
            steps = (Note(f"find out who uses {link.name}; if nobody does: ip link del {link.name}"),)
        undo = (
            Command(("ip", "link", "add", link.name, "type", "bridge")),
            *(
                Command(("ip", "address", "add", held, "dev", link.name))
                for held in link.addresses
                if held[:4] != "fe80"
            ),
            Command(("ip", "link", "set", link.name, "up")),
        )
        used = f"{len(ports)} links are on it" if ports else "no link is on it"
        yield Finding(
            subject=link.name,
            title=f"bridge {link.name} belongs to no network",
            message=f"{link.name} ({has}) is no network's that the engine knows; {used}",
            evidence=(link.cited,),
            remedy=Remedy("delete what is left over", steps, undo=() if foreign else undo),
            severity=Severity.INFO if foreign else Severity.WARNING,
            hits=(Effect(f"a network made with the subnet of {has} would get none of its packets"),),
            works=(Effect("every network that there is"),),
        )
