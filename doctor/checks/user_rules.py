"""Rules in DOCKER-USER: do they stop what containers send, or what they are answered, or nothing at all?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._cuts import (
    idle,
    program_of,
    told_by,
    without,
)
from doctor.facts.containers import Containers
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.rules import Chain, Firewall, Rule
from doctor.facts.stale_rules import StaleRules
from doctor.model import (
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Yield,
)
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.containers import Container, Port


@check("NET067", Severity.ERROR)
def user_rules_cut_answers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """A rule in DOCKER-USER drops the answers that containers get from outside.

    ## What it is
    DOCKER-USER sees every packet that the host forwards, answers too. A rule for what comes in
    from outside (-i eth0 -j DROP, or a list of who may) that does not first let established
    connections pass drops the answers to what containers asked for themselves.
    ## What you see
    Containers resolve no name and reach nothing outside: time-outs. Their requests leave, and
    are answered. Published ports work for those on the list.
    ## By hand
    iptables -L DOCKER-USER -n -v --line-numbers
    ## Cure
    A first rule that lets answers pass; the restriction stays as it is. Nothing stops.
    ## Looks like
    NET029 (the request itself is dropped), NET062 (nobody masks the address)
    ## Limits
    Walked with one address outside that no rule names; a rule that depends on a rate, a clock
    or an ipset is not judged.
    ## References
    iptables-extensions(8) conntrack, Docker's page on packet filtering and firewalls
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET067", promises, site, rules, stale):
        program = program_of(cut.cited, rules)
        rule = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN")
        yield Finding(
            subject=cut.cited.place,
            scope=cut.scope,
            title="DOCKER-USER drops the answers that containers get from outside",
            message=f"rule {cut.words[-1]} of DOCKER-USER ({cut.cited.excerpt}) stops {cut.stops}; no rule before it"
            " lets established connections pass",
            evidence=(cut.cited,),
            remedy=Remedy(
                "let answers pass first; the restriction stays",
                (Command((program, "-I", "DOCKER-USER", *rule)),),
                undo=(Command((program, "-D", "DOCKER-USER", *rule)),),
                lasts="until-boot",
                for_good=(Note("put the same rule first where your own rules for DOCKER-USER are written"),),
            ),
            # Strangers that it keeps out are its purpose, and the cure leaves them out.
            hits=cut.ways.effects_of(one for one in cut.walks if one.kind != "published" or not one.going),
            works=cut.works,
            excluded=(Excluded("NET062", "requests leave, with the host's address"),),
        )


@check("NET029", Severity.WARNING)
def user_rules_stop_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """A rule in DOCKER-USER stops what containers send: to the outside, or to each other.

    ## What it is
    Packets of containers meet DOCKER-USER before any rule of Docker's. A DROP or REJECT there
    that is wider than it was meant, such as one without an interface, takes requests of
    containers as well as those of strangers.
    ## What you see
    Containers reach nothing outside, or not their neighbours; on the host itself everything
    works.
    ## By hand
    iptables -L DOCKER-USER -n -v --line-numbers
    ## Cure
    Take the rule away, or narrow it to the interface that strangers come from. Nothing stops.
    ## Looks like
    NET067 (answers alone are dropped), NET035 (no rule takes it, and the policy is DROP)
    ## Limits
    What is kept from coming in is taken to be meant. An error where neighbours are kept apart,
    or where every way out and every published port is shut; a note where it stops some
    containers only. Rules that depend on a rate, a clock or an ipset are not judged.
    ## References
    Docker's page on packet filtering and firewalls, iptables(8)
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET029", promises, site, rules, stale):
        ports = promises.of("published")
        shut = cut.whole and ports and all(one in cut.walks for one in ports)
        apart = any(one.kind == "neighbours" for one in cut.walks)
        yield Finding(
            subject=cut.cited.place,
            scope=cut.scope,
            title=f"a rule in DOCKER-USER {cut.what}",
            message=f"rule {cut.words[-1]} of DOCKER-USER ({cut.cited.excerpt}) stops {cut.stops}",
            evidence=(cut.cited,),
            remedy=without(cut, program_of(cut.cited, rules)),
            severity=Severity.ERROR if shut or apart else None if cut.whole else Severity.INFO,
            hits=cut.hits,
            works=cut.works,
        )


_VERDICTS = {"DROP", "REJECT", "ACCEPT", "RETURN"}
_PORTS = re.compile(r"--dports? ([0-9:,]+)")


@check("NET053", Severity.WARNING)
def user_rule_without_effect(
    firewall: Firewall, containers: Containers, networks: Networks, rules: EngineRules | None
) -> Iterator[Yield]:
    """A rule in DOCKER-USER never takes effect.

    ## What it is
    DOCKER-USER sees packets after the port of the host was replaced by that of the container:
    a rule with --dport 8080 for -p 8080:80 never matches. And a rule behind one that returns
    or decides for every packet is never asked: until 28 Docker ends the chain with RETURN,
    and what iptables -A appends stands behind it.
    ## What you see
    A port that was to be closed is open.
    ## By hand
    iptables -L DOCKER-USER -n -v --line-numbers
    ## Cure
    The same rule for the original port (conntrack --ctorigdstport), or before the RETURN.
    Nothing stops; clients that it was written against are then kept out.
    ## Looks like
    NET020 (nothing leads to DOCKER-USER)
    ## Limits
    Only rules with a verdict are judged. A port of the host that some container listens on as
    its own is taken to be meant.
    ## References
    Docker's page on packet filtering and firewalls, iptables-extensions(8) conntrack
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    for family in ("ip", "ip6"):
        for chain in firewall.chains(family, "filter", "DOCKER-USER"):
            program = program_of(chain.cited, rules)
            yield from _behind(chain, program)
            yield from _host_ports(chain, containers, program)


def _behind(chain: Chain, program: str) -> Iterator[Finding]:
    """Find rules behind one that decides for every packet."""
    last = next((rule for rule in chain.rules if rule.text in {f"-j {word}" for word in _VERDICTS}), None)
    dead = [rule for rule in chain.rules if last is not None and rule.number > last.number]
    dead = [rule for rule in dead if rule.target in _VERDICTS and rule.text != "-j RETURN"]
    if last is None or not dead:
        return
    steps: list[Step] = []
    undo: list[Step] = []
    for at, rule in enumerate(dead):
        words = shlex.split(rule.text)
        steps += [
            Command((program, "-D", "DOCKER-USER", *words)),
            Command((program, "-I", "DOCKER-USER", str(last.number + at), *words)),
        ]
        undo += [
            Command((program, "-D", "DOCKER-USER", *words)),
            Command((program, "-A", "DOCKER-USER", *words)),
        ]
    many = f"{len(dead)} rules stand" if len(dead) > 1 else "a rule stands"
    yield Finding(
        subject=f"{program} DOCKER-USER behind {last.number}",
        title=f"in DOCKER-USER {many} behind one that decides for every packet",
        message=f"rule {last.number} ({last.text}) is for every packet: rule {dead[0].number} ({dead[0].text})"
        + (f" and {len(dead) - 1} more are never asked" if len(dead) > 1 else " is never asked"),
        evidence=(dead[0].cited, last.cited),
        remedy=Remedy(
            "put them before it, if they are meant",
            tuple(steps),
            undo=tuple(undo),
            lasts="until-boot",
            for_good=(Note("write them with iptables -I instead of -A"),),
        ),
        hits=(Effect("what these rules were to keep out comes in"),)
        if last.target in {"ACCEPT", "RETURN"} and any(rule.target in {"DROP", "REJECT"} for rule in dead)
        else (),
    )


def _host_ports(chain: Chain, containers: Containers, program: str) -> Iterator[Finding]:
    """Find rules that name a port of the host, which packets have no more."""
    own = {(port.container, port.protocol) for one in containers.running for port in one.ports}
    own |= {(number, protocol) for one in containers.running for number, protocol in one.exposed}
    for rule in chain.rules:
        match = _PORTS.search(rule.text)
        if match is None or rule.target not in _VERDICTS or "--ctorigdstport" in rule.text:
            continue
        protocol = "udp" if "-p udp" in rule.text else "tcp"
        named = [part.partition(":") for part in match[1].split(",")]
        spans = [(int(first or 0), int(last or (first if not mark else 65535))) for first, mark, last in named]
        if any(first <= number <= last and its == protocol for first, last in spans for number, its in own):
            continue
        held = [
            (one, port)
            for one in containers.running
            for port in one.ports
            if port.protocol == protocol and any(first <= port.host <= last for first, last in spans)
        ]
        if held and len(spans) == 1 and "! --dport" not in rule.text:
            yield _renamed(rule, held[0], match[0], program)


def _renamed(rule: Rule, held: tuple[Container, Port], words: str, program: str) -> Finding:
    one, port = held
    number = words.split(" ")[1]
    stripped = re.sub(r" ?-m (?:tcp|udp|multiport)(?= )", "", rule.text)
    meant = stripped.replace(words, f"-m conntrack --ctorigdstport {number} --ctdir ORIGINAL")
    old, new = shlex.split(rule.text), shlex.split(meant)
    return Finding(
        subject=f"{program} DOCKER-USER {rule.number}",
        scope=one.scope,
        title=f"a rule in DOCKER-USER names port {number} of the host, which packets no longer have there",
        message=f"rule {rule.number} ({rule.text}) never matches: {port.host} is published for port {port.container}"
        f" of {one.name}, and DOCKER-USER sees {port.container}",
        evidence=(rule.cited, one.cited),
        remedy=Remedy(
            "the same rule, for the port that the client asked for",
            (
                Command((program, "-I", "DOCKER-USER", str(rule.number), *new)),
                Command((program, "-D", "DOCKER-USER", *old)),
            ),
            undo=(
                Command((program, "-I", "DOCKER-USER", str(rule.number), *old)),
                Command((program, "-D", "DOCKER-USER", *new)),
            ),
            lasts="until-boot",
            for_good=(Note("write it so where your own rules for DOCKER-USER are written"),),
        ),
        hits=(Effect(f"{port.host} -> {one.name} is open to whom this rule was to keep out"),)
        if rule.target in {"DROP", "REJECT"}
        else (),
    )
