"""Rules left over from networks that are gone: do they meet the containers that have their addresses now?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._cuts import program_of
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.stale_rules import StaleRules
from doctor.model import (
    Citation,
    Command,
    Edit,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Unknown,
    Yield,
)
from doctor.packets.leftovers import LEFTOVERS, Leftover
from doctor.packets.promises import PROMISES
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.stale_rules import StaleRule


@check("NET052", Severity.ERROR)
def stale_rule_of_another_network(
    leftovers: LEFTOVERS, stale: StaleRules, promises: PROMISES, networks: Networks, rules: EngineRules | None
) -> Iterator[Yield]:
    """A rule that was left over from a network that is gone drops what is meant for a container.

    ## What it is
    Docker writes rules for each container's address. Saved at shutdown and loaded at boot they
    outlive their network, and the address is given out anew. What must not come by a bridge
    that is gone (`! -i br-8b52009aaf0d -j DROP`) is then everything that the container is
    sent.
    ## What you see
    One container cannot be reached by its neighbours: time-outs. Its published ports answer.
    ## By hand
    iptables-save | grep DROP
    ip link
    grep br- /etc/iptables/rules.v4
    ## Cure
    Delete the rule, and its line in the file that it is loaded from. Nothing stops.
    ## Looks like
    NET026 (an old rule leads a published port elsewhere), NET028 (somebody's own rule), NET030
    ## Limits
    Rules that drop or reject, and name one address. An error where a packet that was walked
    ends there, a note where none does. Of files those of netfilter-persistent and
    iptables-services: a warning where it would stop packets after the next boot.
    ## References
    iptables-save(8), netfilter-persistent(8)
    """
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    if promises.unread:
        yield Unknown("iptables", promises.unread)
        return
    for one in leftovers.live:
        yield _in_force(one, stale, rules)
    by_path: dict[str, list[Leftover]] = {}
    for one in leftovers.saved:
        for path in dict.fromkeys(rule.path for rule in one.rules):
            by_path.setdefault(path, []).append(one)
    for path, several in by_path.items():
        yield _saved(path, several)


def _in_force(one: Leftover, stale: StaleRules, rules: EngineRules | None) -> Finding:
    first = one.rules[0]
    name = one.container.name
    keys = {rule.key for rule in one.rules}
    saved = [rule for rule in stale.saved if rule.key in keys]
    steps = tuple(
        Command((program_of(rule.cited, rules), "-t", rule.table, "-D", rule.chain, *shlex.split(rule.text)))
        for rule in one.rules
    )
    back = tuple(
        Command(
            (
                program_of(rule.cited, rules),
                *("-t", rule.table, "-I", rule.chain, rule.cited.place.split(" ")[-1]),
                *shlex.split(rule.text),
            )
        )
        for rule in one.rules
    )
    many = f"{len(one.rules)} rules were left over" if len(one.rules) > 1 else "a rule was left over"
    verb = "drop" if len(one.rules) > 1 else "drops"
    rest = "" if one.lost else "; no packet that was walked meets it"
    return Finding(
        subject=name,
        scope=one.scope,
        title=f"{many} from {first.device}, which is gone, and {verb} what is meant for {name}"
        if one.lost
        else f"{many} from {first.device}, which is gone",
        message=f"rule {first.cited.place} ({first.text}) names {first.device}, which does not exist: it is for"
        f" everything that {name} ({first.address}) is sent{rest}",
        evidence=(*(rule.cited for rule in one.rules[:3]), *(rule.cited for rule in saved[:1]), one.container.cited),
        remedy=Remedy(
            "delete what was left over",
            steps,
            lasts="until-boot",
            for_good=_edits(saved)
            or (Note("find what loads it at boot (rules that were saved while Docker ran), and take it out there"),),
            undo=back,
        ),
        severity=None if one.lost else Severity.INFO,
        hits=_hits(one),
        works=_works(one),
        excluded=(Excluded("NET026", "its published ports have their rules"),) if one.container.ports else (),
    )


def _hits(one: Leftover) -> tuple[Effect, ...]:
    name = one.container.name
    found = []
    peers = tuple(lost.peer for lost in one.lost if lost.kind == "neighbour")
    if peers:
        found.append(Effect(f"{name} would not be reached by its neighbours:", peers))
    ports = tuple(f"{lost.peer} -> {name}" for lost in one.lost if lost.kind == "published")
    if ports:
        found.append(Effect("from outside, published ports would not work:", ports))
    if any(lost.kind == "egress" for lost in one.lost):
        found.append(Effect(f"{name} would reach nothing outside"))
    if any(lost.kind == "host" for lost in one.lost):
        found.append(Effect(f"this host would not reach {name}"))
    return tuple(found)


def _works(one: Leftover) -> tuple[Effect, ...]:
    lost = {held.kind for held in one.lost}
    found = []
    if one.container.ports and "published" not in lost:
        found.append(Effect("its published ports, from outside"))
    if "egress" not in lost:
        found.append(Effect("what it asks outside"))
    return tuple(found)


def _edits(rules: list[StaleRule]) -> tuple[Edit, ...]:
    """Take lines out of the files that they stand in, the last first, so that the others keep their numbers."""
    ordered = sorted(rules, key=lambda rule: (rule.path, -rule.cited.line))
    return tuple(Edit(rule.path, rule.cited.line, rule.line, None) for rule in ordered)


def _saved(path: str, several: list[Leftover]) -> Finding:
    rules = [rule for one in several for rule in one.rules if rule.path == path]
    names = [one.container.name for one in several]
    who = names[0] if len(names) == 1 else f"{len(names)} containers"
    first = rules[0]
    many = f"{len(rules)} rules" if len(rules) > 1 else "a rule"
    return Finding(
        subject=path,
        scope=several[0].scope if len({one.scope for one in several}) == 1 else "",
        title=f"{path} would bring back {many} of a network that is gone, against {who}",
        message=f"{first.cited.place} ({first.text}) names {first.device}, which does not exist: loaded at the next boot it"
        f" is for everything that {first.container} ({first.address}) is sent",
        evidence=tuple(_at(rule) for rule in rules[:3]),
        remedy=Remedy("take them out of the file", _edits(rules)),
        severity=Severity.WARNING,
        hits=tuple(
            Effect(f"after a boot, with {one.container.name} at this address: {effect.text}", effect.names)
            for one in several
            for effect in _hits(one)
        ),
    )


def _at(rule: StaleRule) -> Citation:
    return Citation(rule.cited.record, rule.cited.line, rule.line.strip(), f"{rule.path}:{rule.cited.line}")
