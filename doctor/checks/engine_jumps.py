"""Jumps to Docker's own chains: gone, too late, or without effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._own_rules import effects
from doctor.checks.bridges import attached
from doctor.checks.published_ports import leading
from doctor.facts.containers import Containers
from doctor.facts.engine_rules import EngineRules, FamilyRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.networks import Networks
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Remedy,
    Severity,
    Yield,
)
from doctor.packets.promises import PROMISES
from doctor.packets.restored import RESTORED, Healed
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.rules import Chain

JUMPS = ("DOCKER-USER", "DOCKER-FORWARD", "DOCKER-CT", "DOCKER-INTERNAL", "DOCKER-BRIDGE", "DOCKER-ISOLATION-STAGE-1")


@check("NET020", Severity.ERROR, explains=("NET018", "NET022", "NET023", "NET026", "NET027"))
def jump_to_engine_chain_missing(
    rules: EngineRules,
    networks: Networks,
    containers: Containers,
    lifecycle: Lifecycle,
    promises: PROMISES | None,
    restored: RESTORED | None,
) -> Iterator[Yield]:
    """Nothing leads to one of Docker's chains in FORWARD, or DOCKER-USER is asked too late.

    ## What it is
    Docker's rules stand in chains of their own, and a jump in FORWARD leads to them: first
    to DOCKER-USER, then to DOCKER-FORWARD (until 27: DOCKER-ISOLATION-STAGE-1). A chain that
    nothing leads to is not asked.
    ## What you see
    Without DOCKER-FORWARD or a jump in it containers lose the way out or published ports;
    without the isolation networks reach each other; without DOCKER-USER your own rules
    do nothing.
    ## By hand
    iptables -S FORWARD
    iptables -S DOCKER-FORWARD
    ## Cure
    Put the jump back: doctor rules --missing finds its place. Nothing stops.
    ## Looks like
    NET021 (the chains are gone too), NET024 (jumps of table nat)
    ## Limits
    Rules of others that stand before the jumps are not judged here. A jump that no packet
    misses now is a warning, and so is one of a release that was never compared.
    ## References
    moby libnetwork/drivers/bridge, moby docs on DOCKER-USER, iptables(8)
    """
    if rules.off:
        yield NotApplicable(rules.off)
        return
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    for its in rules.families:
        if its.lacks("filter"):
            continue  # a flush: NET021
        walked = restored.of(its.family) if restored and promises and not promises.unread else None
        yield from _jumps(rules, its, networks, containers, lifecycle, walked)
        yield from _late(rules, its)


def _jumps(
    rules: EngineRules,
    its: FamilyRules,
    networks: Networks,
    containers: Containers,
    lifecycle: Lifecycle,
    walked: tuple[Healed, ...] | None,
) -> Iterator[Finding]:
    """Find lost jumps; `walked` are the promises that they may have broken, None where nothing was walked."""
    gone = [
        (chain, name)
        for chain in ("FORWARD", "DOCKER-FORWARD")
        for name in JUMPS
        if f"-j {name}" in its.difference.lacking("filter", chain) and its.tables.chain("filter", name) is not None
    ]
    if not gone:
        return
    names = [name for _, name in gone]
    users = its.tables.chain("filter", "DOCKER-USER")
    own = _own(users)
    broken = [one for one in walked or () if one.by == "missing"]
    mild = not ("DOCKER-USER" in names and own) and (names == ["DOCKER-USER"] or (walked is not None and not broken))
    chain, first = gone[0]
    title = f"{chain} does not lead to {first}" if len(gone) == 1 else f"{len(gone)} jumps to Docker's chains are gone"
    if walked is None:
        hits = _jump_hits(its, names, networks, containers, len(own))
    else:
        hits = (*effects(broken), *_user_hits(names, len(own)))
    there = f"{its.program}: " if its.family == "ip6" else ""
    cited = [
        held.cited if (held := its.tables.chain("filter", name)) is not None else Citation(its.tables.record, 0, "", "")
        for name in dict.fromkeys((chain, first))
    ]
    yield Finding(
        subject="FORWARD" if its.family == "ip" else "FORWARD of ip6tables",
        title=there + title,
        message=there + ", ".join(f"{chain} has no rule -j {name}" for chain, name in gone),
        evidence=tuple(cited),
        remedy=Remedy(
            "put back the jumps" if len(gone) > 1 else "put back the jump", (its.put_back,), notes=lifecycle.also()
        ),
        severity=Severity.WARNING if mild or not rules.live else None,
        hits=hits,
        excluded=(Excluded("NET021", f"the chains stand: {', '.join(names)}"),),
    )


def _own(users: Chain | None) -> tuple[str, ...]:
    """Give the rules that a user has put into DOCKER-USER."""
    return tuple(rule.text for rule in users.rules if rule.text != "-j RETURN") if users is not None else ()


def _jump_hits(
    its: FamilyRules, names: list[str], networks: Networks, containers: Containers, own: int
) -> tuple[Effect, ...]:
    forward = its.tables.chain("filter", "FORWARD")
    drops = forward is not None and forward.policy == "DROP"
    outward = [one.name for network in networks.all if not network.internal for one in attached(network, containers)]
    many = tuple(dict.fromkeys(outward))
    ports = leading(containers.running, outside=True)
    hits = []
    if "DOCKER-FORWARD" in names and drops:
        hits.append(Effect("containers would reach nothing outside (policy DROP of FORWARD):", many))
    if ports and drops and {"DOCKER-FORWARD", "DOCKER-BRIDGE"} & set(names):
        hits.append(Effect("from outside, published ports would time out:", ports))
    if not drops and "DOCKER-FORWARD" in names:
        hits.append(Effect("networks are open to each other, and ports that are not published to whoever routes here"))
    if "DOCKER-CT" in names:
        hits.append(Effect("containers would send, and never get an answer from outside:", many))
    if "DOCKER-ISOLATION-STAGE-1" in names:
        hits.append(Effect("networks are open to each other: no rule keeps them apart"))
    if "DOCKER-INTERNAL" in names:
        hits.append(Effect("internal networks are not kept apart from the rest"))
    hits += _user_hits(names, own)
    return tuple(hit for hit in hits if hit.names or not hit.text.endswith(":"))


def _user_hits(names: list[str], own: int) -> tuple[Effect, ...]:
    if "DOCKER-USER" not in names:
        return ()
    mine = "your rule in DOCKER-USER does" if own == 1 else f"your {own} rules in DOCKER-USER do"
    return (Effect(f"{mine} nothing" if own else "rules put into DOCKER-USER would do nothing"),)


def _late(rules: EngineRules, its: FamilyRules) -> Iterator[Finding]:
    """Find DOCKER-USER behind a rule of Docker's that accepts: what that lets through is never asked for."""
    forward = its.tables.chain("filter", "FORWARD")
    own = _own(its.tables.chain("filter", "DOCKER-USER"))
    if forward is None or not own:
        return
    wanted = {one.text for one in its.expected.chains.get(("filter", "FORWARD"), ())}
    user = next((rule for rule in forward.rules if rule.text == "-j DOCKER-USER"), None)
    first = next(
        (
            rule
            for rule in forward.rules
            if rule.text in wanted and rule.target in {"ACCEPT", "DOCKER", "DOCKER-FORWARD"}
        ),
        None,
    )
    if user is None or first is None or user.number < first.number:
        return
    text = f"*filter\n-D FORWARD {user.text}\n-I FORWARD {first.number} {user.text}\nCOMMIT\n"
    yield Finding(
        subject="DOCKER-USER" if its.family == "ip" else "DOCKER-USER of ip6tables",
        title="DOCKER-USER is asked after Docker's own rules have accepted",
        message=f"in FORWARD, rule {first.number} ({first.text}) comes before rule {user.number} ({user.text})",
        evidence=(first.cited, user.cited),
        remedy=Remedy("move the jump up", (Command((f"{its.program}-restore", "--noflush"), text),)),
        severity=None if rules.live else Severity.WARNING,
        hits=(
            Effect(
                "your rule in DOCKER-USER does nothing to what Docker lets through"
                if len(own) == 1
                else f"your {len(own)} rules in DOCKER-USER do nothing to what Docker lets through"
            ),
        ),
    )


@check("NET024", Severity.ERROR, explains=("NET025", "NET026"))
def nat_jump_missing(rules: EngineRules, containers: Containers, lifecycle: Lifecycle) -> Iterator[Yield]:
    """Packets for published ports are not led to Docker's rules: a jump of table nat is gone.

    ## What it is
    Two jumps lead to the chain DOCKER of table nat, where published ports are: one in
    PREROUTING for what comes in, one in OUTPUT for what this host sends itself.
    ## What you see
    With docker-proxy published ports answer, but every client seems to be the bridge.
    Without it they take a connection and never answer, from outside (PREROUTING) or from
    this host (OUTPUT): dockerd only holds the port.
    ## By hand
    iptables -t nat -S PREROUTING
    iptables -t nat -S OUTPUT
    ## Cure
    Put the jump back: doctor rules --missing finds its place. Nothing stops.
    ## Looks like
    NET021 (the whole table is gone), NET020 (jumps of table filter)
    ## Limits
    UDP ports and old kernels: docker-proxy answers there too. While it runs, or where no
    port is published, this is a warning.
    ## References
    moby libnetwork/drivers/bridge, iptables-extensions(8) on addrtype
    """
    if rules.off:
        yield NotApplicable(rules.off)
        return
    for its in rules.families:
        gone = [
            chain
            for chain in ("PREROUTING", "OUTPUT")
            for text in its.difference.lacking("nat", chain)
            if text.endswith("-j DOCKER")
        ]
        chain = its.tables.chain("nat", "DOCKER")
        if not gone or chain is None or its.lacks("nat"):
            continue
        ports = leading(containers.running, 6 if its.family == "ip6" else 4)
        proxy = rules.proxy
        where = " and ".join(gone)
        yield Finding(
            subject=where if its.family == "ip" else f"{where} of ip6tables",
            title=f"{where} of table nat {'do' if len(gone) > 1 else 'does'} not lead to Docker's published ports",
            message=f"{its.program}-save: table nat has chain DOCKER with {len(chain.rules)} rules,"
            f" and no jump to it in {where}",
            evidence=(chain.cited,),
            remedy=Remedy(
                "put back the jumps" if len(gone) > 1 else "put back the jump", (its.put_back,), notes=lifecycle.also()
            ),
            severity=None if ports and not proxy and rules.live else Severity.WARNING,
            hits=_nat_hits(gone, ports, proxy=proxy),
            excluded=(Excluded("NET021", f"chain DOCKER of table nat stands, with {len(chain.rules)} rules"),),
        )


def _nat_hits(gone: list[str], ports: tuple[str, ...], *, proxy: bool) -> tuple[Effect, ...]:
    if not ports:
        return (Effect("a port published from now on would not be reached"),)
    if proxy:
        return (
            Effect("published ports answer through docker-proxy only: every client seems to be the bridge:", ports),
        )
    place = {"PREROUTING": "from outside", "OUTPUT": "from this host"}
    where = " and ".join(place[one] for one in gone)
    return (Effect(f"{where}, published ports take a connection and never answer (dockerd only holds them):", ports),)
