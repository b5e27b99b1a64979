"""With nobody to mask them, containers send their own addresses outside."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._cuts import (
    idle,
    native_engine,
)
from doctor.facts.engine_rules import SWITCHED_OFF, EngineRules
from doctor.facts.networks import Networks
from doctor.model import (
    Command,
    Effect,
    Finding,
    Note,
    Remedy,
    Severity,
    Yield,
)
from doctor.packets.promises import PROMISES, Promises, Walked
from doctor.registry import check


@check("NET062", Severity.WARNING)
def nobody_masks(promises: PROMISES, networks: Networks, rules: EngineRules) -> Iterator[Yield]:
    """With iptables switched off, nobody replaces the addresses of containers by the host's.

    ## What it is
    What a container sends outside bears its own private address. Docker replaces it by the
    host's (masquerade); with iptables=false or ip-masq=false it does not, and somebody else
    has to, or the network outside needs a route back to the container.
    ## What you see
    Containers reach nothing outside: their requests leave, and no answer finds its way back.
    ## By hand
    iptables -t nat -S POSTROUTING
    nft list ruleset
    ## Cure
    A rule that masks them, or iptables switched on again. Nothing stops.
    ## Looks like
    NET021 (the rules were flushed), NET035 (they are not forwarded at all)
    ## Limits
    Whether the network outside knows a way back cannot be seen from here: this is a warning
    with iptables off, and a note where masquerading alone was switched off.
    ## References
    dockerd(8) --ip-masq, https://docs.docker.com/engine/network/packet-filtering-firewalls/
    """
    if said := idle(promises, networks) or native_engine(rules):
        yield said
        return
    bare: dict[tuple[int, str], list[Walked]] = {}
    for one in promises.of("egress"):
        if one.settled:
            continue
        if one.result.walk.end.outcome == "leaves" and _unanswered(one, promises) and (why := _why_bare(one, rules)):
            bare.setdefault((one.version, why), []).append(one)
    for (version, why), walks in bare.items():
        yield _bare(version, why, tuple(walks))


def _unanswered(one: Walked, promises: Promises) -> bool:
    """Whether an answer to a container's own address would have to find its way, or is dropped by Docker itself (28+)."""
    asked = one.result.question
    return (
        one.code == "MASQ_MISSING"
        or (asked is not None and "way back to" in asked.text)
        or (one.code == "RAW_DIRECT_ACCESS" and not one.going and promises.own(one.decided))
    )


_OPTION = "masquerading is switched off for it"


def _why_bare(one: Walked, rules: EngineRules) -> str:
    """Say why the engine writes no rule that masks a network; empty where it would: that is another question."""
    its = rules.of("ip6" if one.version == 6 else "ip")  # noqa: PLR2004 - IPv6
    if its is None:
        return SWITCHED_OFF
    post = its.expected.chains.get(("nat", "POSTROUTING"), ())
    masks = any(one.network.bridge in rule.text.split(" ") and "MASQUERADE" in rule.text for rule in post)
    return "" if masks else _OPTION


def _bare(version: int, why: str, walks: tuple[Walked, ...]) -> Finding:
    """Say which networks nobody masks, for one reason."""
    program = "iptables" if version == 4 else "ip6tables"  # noqa: PLR2004 - IPv4
    networks = list({one.network.id: one.network for one in walks}.values())
    names = tuple(dict.fromkeys(one.name for walked in walks for one in walked.members))
    rules = [
        ("-s", str(subnet), "!", "-o", network.bridge, "-j", "MASQUERADE")
        for network in networks
        for subnet in network.subnets
        if subnet.version == version
    ]
    which = f"network {networks[0].name}" if len(networks) == 1 else f"{len(networks)} networks"
    return Finding(
        subject=(networks[0].name if why == _OPTION else program),
        scope=networks[0].name if len(networks) == 1 else "",
        title=f"nobody masks the addresses of {which}" + (" (IPv6)" if version == 6 else ""),  # noqa: PLR2004 - IPv6
        message=f"what {_some(names)} would send outside bears an address of {networks[0].name}: {why}, and no rule"
        " replaces it; answers come only where the network outside has a route back",
        evidence=tuple(network.cited for network in networks[:3]),
        remedy=Remedy(
            "mask them",
            tuple(Command((program, "-t", "nat", "-A", "POSTROUTING", *rule)) for rule in rules),
            lasts="until-boot",
            for_good=(Note("put this where this host's firewall is written, or let Docker do it again"),),
            undo=tuple(Command((program, "-t", "nat", "-D", "POSTROUTING", *rule)) for rule in rules),
        ),
        severity=Severity.INFO if why == _OPTION else None,
        hits=(
            Effect(
                f"{_some(names)} would get no answer from outside, unless it has a route back",
                names if len(names) > 1 else (),
            ),
        ),
        works=(Effect("containers of one network among themselves, and this host"),),
    )


def _some(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} containers"
