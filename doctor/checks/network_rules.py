"""The engine's own rules of networks: is one missing, and what packets meet because of it."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._own_rules import (
    OwnRule,
    cases,
    ends_of,
    evidence_of,
    jumps_stand,
    nat_jumps_stand,
    of_cases,
    unjudged,
)
from doctor.facts.engine_rules import EngineRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.networks import Network, Networks
from doctor.model import (
    Severity,
    Yield,
)
from doctor.packets.promises import PROMISES
from doctor.packets.restored import RESTORED, Healed
from doctor.registry import check

_FOR = {
    "answers": "the rule that lets answers in",
    "ports": "the jump to its published ports",
    "egress": "the rule that lets its containers out",
    "closed": "the rule that shuts ports that are not published",
}
_HEALS = {
    "answers": frozenset({"egress", "published", "neighbours"}),
    "egress": frozenset({"egress", "published", "neighbours"}),
    "ports": frozenset({"published"}),
    "closed": frozenset({"direct"}),
}
"""The promises that rest on a rule of a network."""


@check("NET022", Severity.ERROR, explains=("NET018", "NET023", "NET025", "NET027", "NET028", "NET033", "NET066"))
def network_rule_missing(
    rules: EngineRules,
    networks: Networks,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """One of the rules that Docker wrote for a network is missing from the filter.

    ## What it is
    For each network dockerd writes a few rules: answers come in, containers go out, packets
    for published ports are looked up, and (28 on) ports that are not published are shut.
    ## What you see
    Containers of this network alone reach nothing outside, or send and get no answer, or
    its published ports time out, while other networks are well.
    ## By hand
    iptables -S FORWARD
    iptables -S DOCKER-FORWARD
    iptables -S DOCKER-CT
    iptables -S DOCKER-BRIDGE
    ## Cure
    Put the rule back: doctor rules --missing finds its place. Nothing stops.
    ## Looks like
    NET020 (a jump for all networks is gone), NET021 (all is gone), NET025 (nat), NET026
    ## Limits
    What packets meet is walked in a model, one container of each kind. A rule that no
    packet misses (policy ACCEPT, say) is a note.
    ## References
    moby libnetwork/drivers/bridge, iptables(8)
    """
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        for held in cases(one, networks, tuple(_FOR), _rests_on):
            missing = [rule for case in held for rule in case.missing]
            many = f": {len(missing)} of {'its' if len(held) == 1 else 'their'} rules are missing"
            yield of_cases(
                one,
                held,
                (many if len(missing) > 1 else f": {_FOR[missing[0].what]} is missing", many),
                lifecycle,
                jumps_stand(one.its),
            )


def _rests_on(its: Healed, network: Network, missing: list[OwnRule]) -> bool:
    """Whether a promise rests on one of these rules of a network."""
    kinds = frozenset[str]().union(*(_HEALS[rule.what] for rule in missing))
    return its.walked.network.id == network.id and its.walked.kind in kinds and its.flaw in {"broken", "open"}


@check("NET023", Severity.ERROR)
def isolation_rule_missing(
    rules: EngineRules,
    networks: Networks,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """A rule that keeps a network apart is missing: others reach it, though it may be internal.

    ## What it is
    Docker keeps networks apart: until 28 by a rule a network in each of two chains (STAGE-1,
    STAGE-2), for internal networks by a pair of rules that drop what is of another subnet.
    ## What you see
    A container reaches containers of a network that it is no member of, by their address;
    an internal network is reached from others.
    ## By hand
    iptables -S DOCKER-ISOLATION-STAGE-1
    iptables -S DOCKER-ISOLATION-STAGE-2
    ## Cure
    Put the rule back: doctor rules --missing finds its place. Nothing stops.
    ## Looks like
    NET020 (nothing leads to the isolation), NET021 (all is gone), NET018 (within a network)
    ## Limits
    From 28 on other rules shut most of the same: then it is a note. One container of each
    network is walked in a model.
    ## References
    moby libnetwork/drivers/bridge, docker network create --internal
    """
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        for held in cases(one, networks, ("apart", "internal"), _between_networks):
            titles = " is not kept apart from the others", " are not kept apart from each other"
            if not any(case.healed for case in held):
                titles = ": a rule that keeps it apart is missing", ": rules that keep them apart are missing"
            yield of_cases(one, held, titles, lifecycle, jumps_stand(one.its), works=False)


def _between_networks(its: Healed, network: Network, _: list[OwnRule]) -> bool:
    return its.walked.kind == "apart" and network.id in ends_of(its.walked)


@check("NET025", Severity.ERROR)
def masquerade_missing(
    rules: EngineRules,
    networks: Networks,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """Packets of a network leave with the containers' own addresses: its masquerade rule is missing.

    ## What it is
    Nobody outside knows a way back to a container's address. So dockerd writes one rule a
    network in POSTROUTING of table nat, which gives what leaves an address of this host.
    ## What you see
    Containers of this network reach each other and nothing outside: names do not resolve
    and connections time out. Published ports work, and so do other networks.
    ## By hand
    iptables -t nat -S POSTROUTING
    docker network inspect NAME -f '{{json .Options}}'
    ## Cure
    Put the rule back: doctor rules --missing finds its place. Nothing stops.
    ## Looks like
    NET022 (a rule of the filter is missing), NET034 (forwarding is off), NET021
    ## Limits
    A network created with enable_ip_masquerade=false is meant to be like that. Where the
    network outside has been given a way back, containers do get answers.
    ## References
    moby libnetwork/drivers/bridge, iptables-extensions(8) on MASQUERADE
    """
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        for held in cases(one, networks, ("masquerade",), _goes_out):
            titles = ": what its containers send is not masqueraded", ": what their containers send is not masqueraded"
            yield of_cases(one, held, titles, lifecycle, nat_jumps_stand(one.its))


def _goes_out(its: Healed, network: Network, _: list[OwnRule]) -> bool:
    return its.walked.network.id == network.id and its.walked.kind == "egress"
