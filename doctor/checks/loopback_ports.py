"""Ports that are published for this host alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._cuts import idle
from doctor.checks._ways import ports_of
from doctor.facts.config import Options
from doctor.facts.links import Link, Links
from doctor.facts.networks import Networks
from doctor.facts.sysctls import Sysctls
from doctor.model import Command, Edit, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Step, Unknown, Yield
from doctor.packets.promises import PROMISES, Walked
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.sysctls import Value


@check("NET036", Severity.ERROR)
def loopback_port_refused(
    promises: PROMISES, networks: Networks, sysctls: Sysctls, options: Options | None, links: Links | None
) -> Iterator[Yield]:
    """This host cannot reach what it publishes on 127.0.0.1: lo is down, or the bridge drops it.

    ## What it is
    Without docker-proxy (userland-proxy off) a port on 127.0.0.1 is led to its container by
    rules alone. The answer then comes in by the bridge for a loopback address, which the kernel
    drops unless route_localnet of that bridge is 1: dockerd sets it when it makes the bridge, a
    hardening script sets it back. And with lo down nothing here reaches 127.0.0.1 at all.
    ## What you see
    curl 127.0.0.1:PORT on the host hangs. Ports on other addresses work, from outside as well.
    ## By hand
    sysctl net.ipv4.conf.BRIDGE.route_localnet
    curl http://127.0.0.1:PORT/
    ## Cure
    ip link set lo up. Or set the sysctl to 1 for that bridge, or use docker-proxy
    (userland-proxy). Docker's own rules keep others from the loopback addresses. Nothing stops.
    ## Looks like
    NET038 (docker-proxy is on and does not run), NET028 (a rule of INPUT or OUTPUT stops it)
    ## Limits
    Only IPv4 has it. One port of each kind is walked.
    ## References
    ip-sysctl(7) route_localnet, moby libnetwork/drivers/bridge/setup_ip_tables.go
    """
    lo = links.by_name.get("lo") if links is not None else None
    if lo is not None and not lo.up:
        yield _lo(lo, promises.of("local"))
        return
    if said := idle(promises, networks):
        yield said
        return
    held = promises.of("local")
    if not held:
        yield NotApplicable("no port is published on a loopback address")
        return
    bridges: dict[str, list[Walked]] = {}
    for one in promises.broken("local"):
        if one.code == "MARTIAN_LOCALNET":
            bridges.setdefault(one.result.walk.decider.iif or one.network.bridge, []).append(one)
    for bridge, walks in bridges.items():
        value = sysctls.values.get(f"ipv4/conf/{bridge}/route_localnet")
        if value is None:
            yield Unknown(bridge, f"route_localnet of {bridge} was not read")
        else:
            yield _refused(bridge, walks, value, sysctls, options, promises.of("published"))


def _refused(
    bridge: str, walks: list[Walked], value: Value, sysctls: Sysctls, options: Options | None, others: list[Walked]
) -> Finding:
    ports = ports_of(walks, "local")
    key = f"net.ipv4.conf.{bridge}.route_localnet"
    setting = sysctls.setting(key)
    for_good: tuple[Step, ...] = ()
    if setting is not None and setting.value == "0":
        for_good = (Edit(setting.path, setting.line, setting.text, f"{key} = 1"),)
    origin = options.origin("userland-proxy") if options is not None else None
    return Finding(
        subject=bridge,
        title=f"this host cannot reach {ports[0].partition(' -> ')[0]}: route_localnet of {bridge} is 0",
        message=f"route_localnet of {bridge} is 0 and no docker-proxy serves {', '.join(ports[:3])}: answers to 127.0.0.1"
        " are dropped when they come in by the bridge",
        evidence=(
            value.cited,
            *((setting.cited,) if for_good and setting is not None else ()),
            *((origin.cited,) if origin else ()),
        ),
        remedy=Remedy(
            "let the bridge take loopback addresses",
            (Command(("sysctl", "-w", f"{key}=1")),),
            lasts="until-boot",
            for_good=for_good,
            undo=(Command(("sysctl", "-w", f"{key}=0")),),
            notes=("dockerd sets it itself when it starts with userland-proxy off",),
        ),
        hits=(Effect("this host itself would not reach what is published for it alone:", ports),),
        works=(Effect("published ports, from outside"),) if others and all(one.kept for one in others) else (),
        excluded=(Excluded("NET038", "no docker-proxy is meant to run"),),
    )


def _lo(lo: Link, walks: list[Walked]) -> Finding:
    return Finding(
        subject="lo",
        title="lo of this host is down: nothing here reaches 127.0.0.1",
        message="the link lo of this host is down: packets to 127.0.0.1, and from this host to its own addresses, are lost",
        evidence=(lo.cited,),
        remedy=Remedy(
            "set it up",
            (Command(("ip", "link", "set", "lo", "up")),),
            lasts="until-boot",
            undo=(Command(("ip", "link", "set", "lo", "down")),),
        ),
        hits=(
            Effect("this host itself would not reach its ports:", ports_of(walks, "local"))
            if walks
            else Effect("this host itself reaches no port that it publishes"),
            Effect("what asks a nameserver, a proxy or a registry on 127.0.0.1"),
        ),
        works=(Effect("published ports, from outside"), Effect("docker, by its socket")),
        excluded=(Excluded("NET038", "docker-proxy listens"),),
    )
