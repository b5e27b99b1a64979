"""The engine's own rules of published ports: is one missing, or stale, and what packets meet because of it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from doctor.checks._own_rules import (
    BY_ADDRESS,
    MANY,
    Evidence,
    OwnRule,
    cited,
    deciding,
    effects,
    evidence_of,
    finding_of,
    lacks,
    missing_of,
    names_of,
    nat_jumps_stand,
    put_back,
    shape_of,
    unjudged,
)
from doctor.checks.published_ports import overlap, spelled
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.engine_rules import ANY, EngineRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.networks import Networks
from doctor.facts.rules import Rule
from doctor.model import (
    Command,
    Effect,
    Finding,
    Severity,
    Yield,
)
from doctor.packets.promises import PROMISES, Walked
from doctor.packets.restored import RESTORED, Healed
from doctor.registry import check


class _Way(Struct):
    """A published port with what is wrong on the way to it: rules missing, and stale ones before them."""

    container: Container
    port: Port
    missing: list[OwnRule]
    stale: list[Rule]

    def is_of(self, walked: Walked) -> bool:
        """Whether a promise was walked for it."""
        pairs = zip(walked.members, walked.ports, strict=True) if walked.kind == "published" else ()
        return any(one.id == self.container.id and port == self.port for one, port in pairs)

    def is_misled(self, healed: list[Healed]) -> bool:
        """Whether packets meet the stale rules: they stand before its own, or in its place."""
        mine = [one for one in healed if self.is_of(one.walked)]
        before = any(one.by == "extra" or one.flaw == "astray" for one in mine)
        return before or any(rule.what == "dnat" for rule in self.missing)


@check("NET026", Severity.ERROR)
def port_rule_missing_or_stale(
    rules: EngineRules,
    networks: Networks,
    containers: Containers,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """A published port lacks one of its two rules, or an old rule leads it elsewhere.

    ## What it is
    A published port has a rule in table nat that leads it to the container (DNAT), and one
    in the filter that lets its packets through (ACCEPT). A rule that was left over from
    another container, and stands before them, takes the port away.
    ## What you see
    One port times out from outside, or answers as another container, or sees every client
    as the bridge's address; other ports of this host are well.
    ## By hand
    iptables -t nat -S DOCKER
    iptables -S DOCKER
    docker port NAME
    ## Cure
    Take away what is stale, and put back what is missing: doctor rules --missing finds its
    place. Nothing stops.
    ## Looks like
    NET024 (no port is led anywhere), NET037 (the port is taken), NET058 (nobody listens)
    ## Limits
    With docker-proxy a port without DNAT still answers: a warning. Ports of the loopback
    address are not walked.
    ## References
    moby libnetwork/drivers/bridge/port_mapping_linux.go, iptables-extensions(8) on DNAT
    """
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        ways = _ways(one, containers)
        if ways:
            names = list(dict.fromkeys(way.container.name for way in ways))
            yield from _ports(one, ways, names[0] if len(names) == 1 else "published ports", lifecycle)


def _ways(evidence: Evidence, containers: Containers) -> list[_Way]:
    """Give the published ports whose rules are not as they should be."""
    its = evidence.its
    missing = missing_of(its, "dnat", "accept")
    chain = its.tables.chain("nat", "DOCKER")
    extra = [
        (rule, told)
        for rule in (chain.rules if chain is not None else ())
        if any((one.table, one.chain, one.text) == ("nat", "DOCKER", rule.text) for one in its.difference.extra)
        and (told := shape_of("nat", "DOCKER", rule.text)) is not None
    ]
    if not missing and not extra:
        return []
    found = []
    for container in containers.running:
        held = {text for end in container.endpoints for text in (end.address, end.address6) if text}
        for port in container.ports:
            if (":" in port.host_ip) != (its.family == "ip6"):
                continue
            lacks = [rule for rule in missing if _is_for(rule, port, held)]
            stale = [
                rule
                for rule, told in extra
                if (told.port, told.protocol) == (port.host, port.protocol)
                and overlap(told.address, port.host_ip)
                and not _is_for(told, port, held)
            ]
            if lacks or stale:
                found.append(_Way(container, port, lacks, stale))
    return found


def _is_for(rule: OwnRule, port: Port, held: set[str]) -> bool:
    """Whether a rule is one of a port's: by the host's side and where it leads, or by the container's."""
    if rule.what == "accept":
        return rule.address in held and (rule.port, rule.protocol) == (port.container, port.protocol)
    on = "" if port.host_ip in ANY else port.host_ip
    aims = {f"[{one}]:{port.container}" if ":" in one else f"{one}:{port.container}" for one in held}
    return (rule.port, rule.protocol, rule.address) == (port.host, port.protocol, on) and rule.aim in aims


def _lost(stale: list[Rule], missing: list[OwnRule], *, many: bool) -> str:
    """Say what is wrong with the rules of one port, or of many."""
    its, kinds = "their" if many else "its", {one.what for one in missing}
    if stale:
        return f"{'old rules lead' if many else 'an old rule leads'} elsewhere" + (
            f", {its} own is missing" if kinds else ""
        )
    if len(kinds) > 1:
        return f"{its} rules of table nat and of the filter are missing" if many else "both its rules are missing"
    place = "table nat" if "dnat" in kinds else "the filter"
    return f"{its} rules of {place} are missing" if many else f"its rule of {place} is missing"


def _ports(evidence: Evidence, ways: list[_Way], subject: str, lifecycle: Lifecycle) -> Iterator[Finding]:
    its = evidence.its

    def mine(healed: Healed) -> bool:
        return any(way.is_of(healed.walked) for way in ways)

    healed = [one for one in evidence.healed if mine(one)]
    misled = [way for way in ways if way.stale and way.is_misled(healed)]
    # An old rule behind the right one: no packet gets there.
    ways = [way for way in ways if way.missing or way in misled]
    if not ways:
        return
    missing = list({one.text: one for way in ways for one in way.missing}.values())
    stale = list({rule.text: rule for way in misled for rule in way.stale}.values())
    severity = evidence.weigh(healed, mine)
    local = any(way.port.host_ip.startswith("127.") or way.port.host_ip == "::1" for way in ways)
    if severity is Severity.INFO and local and not evidence.rules.proxy:
        severity = Severity.WARNING  # what this host sends to itself is not walked
    steps = tuple(Command((its.program, "-t", "nat", "-D", "DOCKER", *rule.text.split(" "))) for rule in stale)
    names = ", ".join(dict.fromkeys(spelled(way.port) for way in ways[:MANY]))
    names += f" and {len(ways) - MANY} more" if len(ways) > MANY else ""
    whose = f" of {ways[0].container.name}" if len({way.container.id for way in ways}) == 1 else ""
    word = "ports" if len(ways) > 1 else "port"
    title = f"{word} {names}{whose}: {_lost(stale, missing, many=len(ways) > 1)}"
    old = "; ".join(f"{rule.cited.place} ({rule.text})" for rule in stale[:2])
    parts = [f"{old} stands in the way" if old else "", lacks(its, missing, severity) if missing else ""]
    yield Finding(
        subject=evidence.subject(subject),
        title=evidence.there + title,
        message="; ".join(part for part in parts if part),
        evidence=(
            *(rule.cited for rule in stale[:2]),
            *cited(its, missing),
            *deciding(healed),
            ways[0].container.cited,
        ),
        remedy=put_back(its, len(missing), lifecycle, *steps),
        severity=severity,
        hits=effects(healed),
        excluded=nat_jumps_stand(its),
    )


@check("NET027", Severity.WARNING)
def direct_access_open(
    rules: EngineRules,
    networks: Networks,
    containers: Containers,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """Containers are reached from outside by their own address: the drop in table raw is missing.

    ## What it is
    From 28 on dockerd drops, before anything else, what addresses a container directly and
    does not come by its bridge. Published ports are reached by the host's address only.
    ## What you see
    A neighbour of this host that sets a route reaches published ports by the container's
    address, even those that are published on another address of the host only.
    ## By hand
    iptables -t raw -S PREROUTING
    ## Cure
    Put the rules back: doctor rules --missing finds their place. Nothing stops.
    ## Looks like
    A daemon with allow-direct-routing, or DOCKER_INSECURE_NO_IPTABLES_RAW: it writes none
    ## Limits
    Until 27 there was no such rule. Where nothing else lets these packets through, it is a
    note. Ports that are not published are shut by the filter as well.
    ## References
    moby libnetwork/drivers/bridge, docker docs on packet filtering and firewalls
    """
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        missing = missing_of(one.its, "direct")
        if not missing:
            continue
        named = {rule.address for rule in missing}
        healed = [
            its
            for its in one.healed
            if its.by == "missing"
            and its.walked.kind == "direct"
            and any({end.address, end.address6} & named for end in its.walked.container.endpoints)
        ]
        opened = [
            (container, port)
            for container in containers.running
            if any({end.address, end.address6} & named for end in container.endpoints)
            for port in container.ports
            if port.protocol == "tcp" and (":" in port.host_ip) == (one.its.family == "ip6")
        ]
        names = names_of(container for container, _ in opened)
        several = f"{len(names)} containers are" if len(names) > 1 else f"{next(iter(names), '')} is"
        found = finding_of(
            one,
            "raw PREROUTING",
            f"{several} open to whoever routes to {'their' if len(names) > 1 else 'its'} own address"
            if healed
            else f"{len(missing)} of Docker's rules in table raw {'are' if len(missing) > 1 else 'is'} missing",
            missing,
            healed,
            Severity.WARNING if healed else Severity.INFO,
            lifecycle,
        )
        ends = tuple(dict.fromkeys(f"{container.name}:{port.container}" for container, port in opened))
        yield replace(found, hits=(Effect(BY_ADDRESS, ends),)) if healed else found
