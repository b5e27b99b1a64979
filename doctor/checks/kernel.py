"""The kernel's own switches that containers need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from doctor.checks._ways import names_of, ports_of
from doctor.checks.bridges import attached
from doctor.checks.published_ports import leading
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Links, Routes
from doctor.facts.networks import Networks
from doctor.facts.rules import Firewall
from doctor.facts.sysctls import Sysctls
from doctor.model import (
    Citation,
    Command,
    Edit,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Remedy,
    Severity,
    Since,
    Step,
    Yield,
)
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES
from doctor.packets.site import HOST
from doctor.packets.walk import follow
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.packets.promises import Promises, Walked
    from doctor.packets.site import Site

_WRITTEN = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding")


@check(
    "NET034",
    Severity.ERROR,
    says=(
        "IPv4 forwarding is disabled. Networking will not work",
        "IPv4 forwarding is disabled: check your host's firewalling",
        "set sysctl net.ipv4.ip_forward=1",
    ),
)
def forwarding_off(
    sysctls: Sysctls,
    networks: Networks,
    containers: Containers,
    links: Links,
    routes: Routes,
    options: Options,
    daemon: Daemon,
    firewall: Firewall | None,
    lifecycle: Lifecycle,
    promises: PROMISES | None,
    site: SITE | None,
) -> Iterator[Yield]:
    """Forwarding is off, for the host or for an interface that containers need.

    ## What it is
    The kernel forwards no packet that comes in by an interface whose forwarding is 0.
    dockerd sets ip_forward to 1 once, when it starts; whoever sets it to 0 later wins.
    ## What you see
    From outside, published ports time out; containers reach each other and the host, and
    nothing beyond. No error anywhere.
    ## By hand
    sysctl net.ipv4.ip_forward net.ipv4.conf.docker0.forwarding
    grep -rs ip_forward /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d
    ## Cure
    sysctl -w net.ipv4.ip_forward=1, then the file that set it. The host then routes for its
    neighbours too: with policy ACCEPT of FORWARD, before Docker 28, unpublished ports are open.
    ## Looks like
    policy DROP of FORWARD, no MASQUERADE (NET021), a foreign nft chain
    ## Limits
    IPv6 is judged only where a network has it. Interfaces that no default route and no
    network uses are not judged.
    ## References
    kernel Documentation/networking/ip-sysctl.rst, sysctl.d(5), dockerd(8) --ip-forward
    """
    outward = [network for network in networks.all if not network.internal]
    if not outward:
        yield NotApplicable("no network here that leads outside")
        return
    used = {network.id: attached(network, containers) for network in outward}
    users = list({one.id: one for several in used.values() for one in several}.values())
    if sysctls.value("ipv4/ip_forward") == "0":
        yield _host_wide(sysctls, options, daemon, firewall, lifecycle, _lost(users, promises, site, ""))
    else:
        bridges = [network.bridge for network in outward if used[network.id]]
        uplinks = [name for name in routes.uplinks if name in links.by_name and name not in bridges]
        for name in [*bridges, *uplinks]:
            held = sysctls.values.get(f"ipv4/conf/{name}/forwarding")
            if held is not None and held.value == "0":
                lost = _lost(users, promises, site, name)
                yield _one_interface(name, held.cited, sysctls, lost, uplink=name in uplinks)
    with_v6 = [network for network in outward if network.ipv6 and used[network.id]]
    held6 = sysctls.values.get("ipv6/conf/all/forwarding")
    if with_v6 and held6 is not None and held6.value == "0":
        yield Finding(
            subject="ipv6",
            title="IPv6 forwarding is off",
            message=f"net.ipv6.conf.all.forwarding is 0, and network {with_v6[0].name} has IPv6",
            evidence=(held6.cited, with_v6[0].cited),
            remedy=Remedy(
                "turn it on",
                (Command(("sysctl", "-w", "net.ipv6.conf.all.forwarding=1")),),
                lasts="until-boot",
                undo=(Command(("sysctl", "-w", "net.ipv6.conf.all.forwarding=0")),),
                notes=("the host then ignores router advertisements where accept_ra is 1; 2 keeps them",),
            ),
            hits=(Effect(f"containers of {', '.join(network.name for network in with_v6)} reach nothing over IPv6"),),
        )


class _Lost(NamedTuple):
    """Who uses networks that lead outside, what of it would not work, and what still would."""

    users: list[Container]
    hits: tuple[Effect, ...]
    works: tuple[Effect, ...]


def _lost(users: list[Container], promises: Promises | None, site: Site | None, name: str) -> _Lost:
    """Say what ends where forwarding is off, on one interface or (empty) all, as it was walked; without walks, who may."""
    published, named = leading(users, 4, outside=True), tuple(one.name for one in users)
    if promises is None or site is None or not promises.all or promises.unwalked:
        return _Lost(users, _hits(named, published), ())
    code = "FORWARDING_OFF_IFACE" if name else "FORWARDING_OFF_GLOBAL"
    ended = [one for one in promises.broken("egress", "published") if one.version == 4 and one.code == code]  # noqa: PLR2004 - IPv4
    if name:
        ended = [one for one in ended if one.decided is not None and f"/{name}/" in one.decided.place]
    works = []
    ports = [one for one in ended if one.kind == "published"]
    if ports and all(_from_here(site, one) for one in ports):
        works.append(Effect("these ports from this host"))
    beside = [one for one in promises.of("neighbours") if one.version == 4]  # noqa: PLR2004 - IPv4
    if beside and all(one.kept for one in beside):
        works.append(Effect("containers of one network among themselves"))
    out = set(names_of(one for one in ended if one.kind == "egress"))
    # In the order in which the engine lists them.
    held = sorted(ports_of(ports), key=lambda port: named.index(port.rpartition(" -> ")[2]))
    hits = _hits(tuple(name for name in named if name in out), tuple(held))
    return _Lost(users, hits if ended or not users else (), tuple(works))


def _from_here(site: Site, one: Walked) -> bool:
    """Whether this host itself reaches a published port."""
    return bool(follow(site, replace(one.flow, source=HOST, src=None)).works)


def _hits(names: tuple[str, ...], ports: tuple[str, ...]) -> tuple[Effect, ...]:
    hits = []
    if ports:
        many = f"{len(ports)} published ports" if len(ports) > 1 else "1 published port"
        hits.append(Effect(f"from outside, {many} would time out:", ports))
    if len(names) > 1:
        hits.append(Effect(f"{len(names)} containers would reach nothing outside", names))
    elif names:
        hits.append(Effect(f"{names[0]} would reach nothing outside"))
    elif not ports:
        hits.append(Effect("a container started now would reach nothing outside"))
    return tuple(hits)


def _host_wide(
    sysctls: Sysctls,
    options: Options,
    daemon: Daemon,
    firewall: Firewall | None,
    lifecycle: Lifecycle,
    lost: _Lost,
) -> Finding:
    evidence = [sysctls.values["ipv4/ip_forward"].cited]
    setting = sysctls.setting(*_WRITTEN)
    for_good: tuple[Step, ...] = ()
    since = None
    started = Moment(daemon.started, "dockerd turned it on") if daemon.started and options.on("ip-forward") else None
    if setting is not None and setting.value == "0":
        evidence.append(setting.cited)
        new = setting.text.replace("0", "1") if setting.text.count("0") == 1 else f"{setting.key} = 1"
        for_good = (Edit(setting.path, setting.line, setting.text, new),)
        name = setting.path.rpartition("/")[2]
        if setting.mtime > daemon.started > 0:
            since = Since(earliest=started, latest=Moment(setting.mtime, f"{name} written", setting.cited), exact=True)
    elif started is not None:
        since = Since(earliest=started)
    off = options.origin("ip-forward") if not options.on("ip-forward") else None
    notes = lifecycle.also() if off is None else (f"{off.where} tells Docker not to turn it on: {off.text}",)
    if off is not None:
        evidence.append(off.cited)
    return Finding(
        subject="ipv4",
        title="IPv4 forwarding is off",
        message="net.ipv4.ip_forward is 0: the host forwards no IPv4 packet between interfaces",
        evidence=tuple(evidence),
        remedy=Remedy(
            "turn it on",
            (Command(("sysctl", "-w", "net.ipv4.ip_forward=1")),),
            lasts="until-boot",
            for_good=for_good,
            undo=(Command(("sysctl", "-w", "net.ipv4.ip_forward=0")),),
            notes=notes,
        ),
        severity=Severity.ERROR if lost.users else Severity.WARNING,
        hits=lost.hits,
        works=lost.works,
        excluded=_excluded(lost.users, firewall),
        since=since,
    )


def _excluded(users: list[Container], firewall: Firewall | None) -> tuple[Excluded, ...]:
    if firewall is None:
        return ()
    found = []
    forwards = firewall.chains("ip", "filter", "FORWARD")
    for chain in forwards:
        if chain.policy == "DROP" and chain.packets == 0:
            found.append(Excluded("NET035", "policy DROP of FORWARD has met 0 packets"))
            break
    else:
        if forwards and all(chain.policy == "ACCEPT" for chain in forwards):
            found.append(Excluded("NET035", "policy of FORWARD is ACCEPT"))
    targets = {
        word
        for chain in firewall.chains("ip", "nat", "DOCKER")
        for rule in chain.rules
        if rule.target == "DNAT"
        for word in rule.text.split(" ")
        if ":" in word
    }
    ports = {(port.host, port.protocol) for one in users for port in one.ports if ":" not in port.host_ip}

    def served(one: Container) -> bool:
        return all(any(f"{end.address}:{port.container}" in targets for end in one.endpoints) for port in one.ports)

    if ports and all(served(one) for one in users):
        many = f"each of the {len(ports)} published ports has its rule"
        found.append(Excluded("NET026", many if len(ports) > 1 else "the published port has its rule"))
    return tuple(found)


def _one_interface(name: str, cited: Citation, sysctls: Sysctls, lost: _Lost, *, uplink: bool) -> Finding:
    key = f"net.ipv4.conf.{name}.forwarding"
    setting = sysctls.setting(key, f"net.ipv4.conf.{name.replace('.', '/')}.forwarding")
    for_good: tuple[Step, ...] = ()
    evidence = [cited]
    if setting is not None and setting.value == "0":
        evidence.append(setting.cited)
        for_good = (Edit(setting.path, setting.line, setting.text, f"{setting.key} = 1"),)
    what = "comes in from outside" if uplink else "comes from its containers"
    return Finding(
        subject=f"ipv4:{name}",
        title=f"IPv4 forwarding is off on {name}",
        message=f"{key} is 0: the host forwards nothing that {what} by {name}",
        evidence=tuple(evidence),
        remedy=Remedy(
            "turn it on",
            (Command(("sysctl", "-w", f"{key}=1")),),
            lasts="until-boot",
            for_good=for_good,
            undo=(Command(("sysctl", "-w", f"{key}=0")),),
        ),
        severity=Severity.ERROR if lost.hits and lost.users else Severity.WARNING,
        hits=lost.hits,
        works=lost.works,
        excluded=(Excluded("NET035", "net.ipv4.ip_forward is 1"),),
    )
