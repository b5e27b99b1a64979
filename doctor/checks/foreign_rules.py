"""Rules that are not Docker's: do packets of containers meet one that stops them?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._cuts import (
    Cut,
    family_of,
    idle,
    let_in,
    let_itself,
    native_engine,
    program_of,
    told_by,
    without,
)
from doctor.checks._flushed import not_flushed
from doctor.checks._ways import Ways, names_of, ports_of
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.stale_rules import StaleRules
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES, Promises, Walked
from doctor.packets.restored import flaw
from doctor.packets.site import HOST
from doctor.registry import check


@check("NET028", Severity.ERROR)
def other_rule_stops_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """A rule of iptables that is not Docker's stops packets of containers.

    ## What it is
    A rule of a firewall, a VPN or a script drops or rejects what containers send, or answers to
    it: before Docker's in FORWARD, in one of Docker's chains, in mangle or raw; in INPUT or OUTPUT
    (or their policy) what this host sends to a port published for it alone. Or it accepts in nat
    before Docker's rules: addresses are not masked then, ports not led to their containers.
    ## What you see
    Containers reach nothing outside or not each other. Docker's own rules are all there.
    ## By hand
    iptables-save
    iptables -L FORWARD -n -v --line-numbers
    ## Cure
    Take the rule away, or let what owns it know Docker's bridges. Nothing stops.
    ## Looks like
    NET029 (the rule is in DOCKER-USER), NET035 (a policy), NET031 (the rule is iptables-legacy's)
    ## Limits
    What is kept from coming in is taken to be meant, unless the same rule stops ways out. A
    warning where some networks are spared, or where an answer to an address that is not masked
    may come back. Rules that depend on a rate, a clock or an ipset are not judged.
    ## References
    iptables(8), https://github.com/moby/moby/issues/49528
    """
    if said := idle(promises, networks):
        yield said
        return
    if promises.unwalked:
        yield Unknown(
            "promises", f"{promises.unwalked} kinds of containers and ports, told apart by rules, were not walked"
        )
    for cut in told_by("NET028", promises, site, rules, stale):
        owner = cut.owner.name if cut.owner is not None else ""
        place = " ".join(cut.words)
        program = program_of(cut.cited, rules)
        what = "the policy" if cut.policy else f"a rule of {owner or 'somebody else'}"
        rule = (
            f"rule {place} ({cut.cited.excerpt})"
            if not cut.policy
            else f"the policy of {cut.chain} ({cut.cited.excerpt})"
        )
        yield Finding(
            subject=place,
            scope=cut.scope,
            title=f"{what} {'of' if cut.policy else 'in'} {cut.chain} {cut.what}",
            message=f"{rule} is not Docker's, and stops {cut.stops}",
            evidence=(cut.cited,),
            remedy=let_itself(cut, program) if cut.policy else without(cut, program),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=not_flushed(rules),
        )
    for cited, walks in _skipped(promises).items():
        yield _skips(Cut(cited, tuple(walks), promises, Ways(site, cited, tuple(walks))), rules)
    for (cited, where), walks in _led_away(promises).items():
        yield _leads_away(Cut(cited, tuple(walks), promises, Ways(site, cited, tuple(walks))), where, rules)


def _skipped(promises: Promises) -> dict[Citation, list[Walked]]:
    """Give the rules of others that accept in table nat what Docker's own rules, which stand behind, would have replaced."""
    found: dict[Citation, list[Walked]] = {}
    for one in promises.of("egress", "published"):
        if one.settled:
            continue
        chain = {"unmasked": "nat POSTROUTING ", "proxied": "nat PREROUTING "}.get(flaw(one), "")
        for step in one.walk.steps if chain else ():
            cited = step.cited
            if (
                cited
                and step.space == HOST
                and step.effect == "accept"
                and chain in cited.place
                and not promises.own(cited)
            ):
                found.setdefault(cited, []).append(one)
                break
    return found


def _led_away(promises: Promises) -> dict[tuple[Citation, str], list[Walked]]:
    """Give the rules of others that lead a published port elsewhere before Docker's own are asked, to where nobody answers.

    Where somebody does, it was somebody's wish: a proxy that stands before the container.
    """
    found: dict[tuple[Citation, str], list[Walked]] = {}
    for one in promises.of("published"):
        if one.settled or one.result.works is not False:
            continue
        for step in one.result.walk.steps:
            cited = step.cited
            if cited and step.space == HOST and step.effect.startswith("to ") and step.stage == "nat":
                # An old rule in Docker's own chain is NET026's.
                docker = cited.place.split(" ")[-2] == "DOCKER"
                if (
                    not docker
                    and not promises.own(cited)
                    and not any(end.address in step.effect for end in one.container.endpoints)
                ):
                    found.setdefault((cited, step.effect.removeprefix("to ")), []).append(one)
                break
    return found


def _leads_away(cut: Cut, where: str, rules: EngineRules | None) -> Finding:
    """Say of a published port that a rule of somebody else takes it before Docker's does."""
    place, ports = " ".join(cut.words), ports_of(cut.walks)
    names = ", ".join(ports)
    return Finding(
        subject=place,
        scope=cut.scope,
        title=f"a rule of somebody else leads {names} elsewhere: {where}, where nobody answers",
        message=f"rule {place} ({cut.cited.excerpt}) is not Docker's, stands before Docker's, and leads to {where}",
        evidence=(cut.cited,),
        remedy=without(cut, program_of(cut.cited, rules)),
        hits=(Effect("from outside, published ports never get to their containers:", ports),),
        works=(Effect("these ports by 127.0.0.1 on this host, through docker-proxy"),) if rules and rules.proxy else (),
        excluded=(Excluded("NET026", "the rules of the port are there"),),
    )


def _skips(cut: Cut, rules: EngineRules | None) -> Finding:
    """Say what it means that a rule of table nat comes before Docker's."""
    place, names, ports = " ".join(cut.words), names_of(cut.walks), ports_of(cut.walks)
    hits: tuple[Effect, ...] = (
        Effect("published ports answer through docker-proxy only: every client seems to be the bridge:", ports),
    )
    skipped = "DNAT"
    if any(one.kind == "egress" for one in cut.walks):
        skipped = "masquerade"
        nowhere = "would get no answer from outside, where nobody knows a way back"
        who = f"{len(names)} containers" if len(names) > 1 else names[0]
        hits = (Effect(f"{who} {nowhere}", names if len(names) > 1 else ()),)
    return Finding(
        subject=place,
        scope=cut.scope,
        title=f"rule {place} skips Docker's {skipped}",
        message=f"rule {place} ({cut.cited.excerpt}) is not Docker's, and accepts before Docker's rules of table nat are asked",
        evidence=(cut.cited,),
        remedy=without(cut, program_of(cut.cited, rules)),
        # From 28 on Docker drops an answer to a container's own address, else a network outside may know a way back.
        severity=Severity.WARNING if all(one.kept for one in cut.walks) else None,
        hits=hits,
    )


@check("NET051", Severity.ERROR)
def other_table_stops_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """A table of nftables beside Docker's stops packets of containers.

    ## What it is
    Every base chain on a hook is asked, whatever table it is in: a drop is final, and an accept
    in Docker's chains does not overrule it. A firewall with policy drop on hook forward, as
    /etc/nftables.conf often has it, knows nothing of containers.
    ## What you see
    Containers reach nothing outside, published ports time out, and iptables looks as it should.
    ## By hand
    nft list ruleset
    nft list chains
    ## Cure
    Let that chain accept what comes from and goes to Docker's bridges; Docker's own chains
    still judge it. Nothing stops.
    ## Looks like
    NET035 (policy of iptables' own FORWARD), NET028 (a rule in iptables), NET021 (a flush)
    ## Limits
    What is kept from coming in is taken to be meant, unless the same rule stops ways out. A
    warning where some networks are spared. Rules of the family netdev have no such cure.
    ## References
    nft(8), nftables wiki on base chains and priorities
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET051", promises, site, rules, stale):
        family, table, chain = cut.words[:3]
        owner = cut.owner.name if cut.owner is not None else ""
        whose = f"table {family} {table}" + (f" ({owner})" if owner else "")
        rule = "its policy is drop" if cut.policy else f"rule {cut.words[-1]}: {cut.cited.excerpt}"
        yield Finding(
            subject=f"{family} {table} {chain}",
            scope=cut.scope,
            title=f"{whose} {cut.what}",
            message=f"chain {chain} of {whose} ({rule}) stops {cut.stops}; an accept of Docker's does not overrule it",
            evidence=(cut.cited,),
            remedy=let_in(cut),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=not_flushed(rules),
        )


@check(
    "NET031",
    Severity.ERROR,
    says=("# Warning: iptables-legacy tables present, use iptables-legacy-save to see them",),
)
def other_backend_stops_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """Rules of the other iptables (legacy beside nft) stop packets of containers.

    ## What it is
    iptables-legacy and iptables-nft keep separate rules, and every packet meets both. Docker
    writes to one of them; a rule or a policy in the other, from before an upgrade of the
    distribution or by a program that brought its own iptables, stays in force unseen.
    ## What you see
    iptables -S shows nothing wrong, and containers reach nothing outside.
    ## By hand
    iptables-legacy-save
    iptables-nft-save
    ## Cure
    Take away what is in the other back end. Nothing stops.
    ## Looks like
    NET028 (the same back end), NET051 (a table of nftables itself)
    ## Limits
    Only where it stops packets: rules in both that stop nothing are no finding.
    ## References
    iptables-nft(8), Debian wiki on alternatives of iptables
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET031", promises, site, rules, stale):
        program = program_of(cut.cited, None)
        backend = "iptables-legacy" if cut.cited.record.endswith("-legacy") else "iptables-nft"
        remedy = (
            Remedy(
                "let its policy accept: Docker's rules in the other back end still judge",
                (Command((program, "-P", cut.chain, "ACCEPT")),),
                undo=(Command((program, "-P", cut.chain, "DROP")),),
                lasts="until-boot",
                for_good=(Note(f"find what sets it: rules saved for boot, or a program that calls {backend}"),),
            )
            if cut.policy
            else without(cut, program)
        )
        where = f"the policy of {cut.chain}" if cut.policy else "rule " + " ".join(cut.words[-3:])
        yield Finding(
            subject=" ".join((backend, *(word for word in cut.words if word != "legacy"))),
            scope=cut.scope,
            title=f"{backend} {cut.what}, beside the rules that Docker writes",
            message=f"{where} of {backend} ({cut.cited.excerpt}) stops {cut.stops}; Docker writes to the other back end",
            evidence=(cut.cited,),
            remedy=remedy,
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
        )


@check("NET035", Severity.ERROR)
def policy_stops_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules, stale: StaleRules | None
) -> Iterator[Yield]:
    """The policy of FORWARD is DROP, and no rule takes what containers send.

    ## What it is
    With iptables switched off, or rules of networks gone, nothing accepts packets of
    containers, and the policy of FORWARD, which Docker itself or a firewall set to DROP, ends
    them.
    ## What you see
    Containers reach nothing outside, published ports time out (through docker-proxy some still
    answer).
    ## By hand
    iptables -L FORWARD -n -v
    ## Cure
    Let iptables accept what comes from Docker's bridges and answers to it, or switch iptables
    on again in daemon.json. Nothing stops.
    ## Looks like
    NET021 (Docker's rules were flushed), NET020 (a jump is gone), NET034 (forwarding is off)
    ## Limits
    Where rules of Docker's own are missing, that is told instead.
    ## References
    iptables(8), https://github.com/moby/moby/issues/28241
    """
    if said := idle(promises, networks) or native_engine(rules):
        yield said
        return
    for cut in told_by("NET035", promises, site, rules, stale):
        its = family_of(cut, rules)
        if its is not None and any(one.table == "filter" for one in its.difference.missing):
            continue
        program = program_of(cut.cited, rules)
        steps: list[Step] = []
        undo: list[Step] = []
        back = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
        for bridge in cut.bridges:
            for rule in (("-i", bridge, "-j", "ACCEPT"), ("-o", bridge, *back)):
                steps.append(Command((program, "-A", cut.chain, *rule)))
                undo.append(Command((program, "-D", cut.chain, *rule)))
        off = f" ({rules.off})" if rules.off else ""
        yield Finding(
            subject=" ".join(cut.words),
            scope=cut.scope,
            title="the policy of FORWARD is DROP, and no rule takes what containers send",
            message=f"the policy of {cut.chain} ({cut.cited.excerpt}) stops {cut.stops}: Docker has no rule there that"
            f" accepts it{off}",
            evidence=(cut.cited,),
            remedy=Remedy(
                "accept what comes from Docker's bridges, and answers to it",
                tuple(steps),
                lasts="until-boot",
                for_good=(
                    Note("put these rules where this host's firewall is written, or set iptables to true again"),
                ),
                undo=tuple(undo),
            ),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=(Excluded("NET034", "the host forwards"),),
        )
