"""What a rule of the engine's is for, and what packets meet because one is missing: what the checks of such rules share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.checks.published_ports import spelled
from doctor.facts.engine_rules import EngineRules, FamilyRules
from doctor.facts.networks import Network, Networks
from doctor.model import (
    Citation,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.packets.packet import number
from doctor.packets.promises import Promises, Walked
from doctor.packets.restored import Healed, Restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doctor.facts.containers import Container
    from doctor.facts.lifecycle import Lifecycle


BY_ADDRESS = "whoever routes here reaches containers by their own address:"

MANY = 3
"""Rules and ports that are spelled out; of more their number is told."""


class OwnRule(Struct, frozen=True):
    """A rule of the engine's manner: `what` it is for, and the bridge, address and port that it names.

    `aim` is where a port of the host leads to, `172.17.0.2:80`; `port` is the host's then, else the container's.
    """

    table: str
    chain: str
    text: str
    what: str
    bridge: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    aim: str = ""

    @property
    def spelled(self) -> str:
        """Spell it as iptables-save does, with its chain."""
        return f"{self.chain} {self.text}"


_ESTABLISHED = " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
_NET = r"(?P<bridge>\S+)"
_ADDRESS = r"(?P<address>\S+)/(?:32|128)"
_PORT = r"-p (?P<protocol>\w+) -m \w+ --dport (?P<port>\d+)"
_SHAPES = tuple(
    (what, table, re.compile(chain), re.compile(text))
    for what, table, chain, text in (
        ("answers", "filter", "FORWARD|DOCKER-CT", rf"-o {_NET}{_ESTABLISHED}"),
        ("ports", "filter", "FORWARD|DOCKER-BRIDGE", rf"-o {_NET} -j DOCKER"),
        ("icc", "filter", "FORWARD|DOCKER-FORWARD", rf"-i {_NET} -o (?P=bridge) -j (?:ACCEPT|DROP)"),
        ("egress", "filter", "FORWARD|DOCKER-FORWARD", rf"-i {_NET} (?:! -o (?P=bridge) )?-j ACCEPT"),
        ("closed", "filter", "DOCKER", rf"! -i {_NET} -o (?P=bridge) -j DROP"),
        (
            "apart",
            "filter",
            "DOCKER-ISOLATION-STAGE-1",
            rf"-i {_NET} ! -o (?P=bridge) -j DOCKER-ISOLATION-STAGE-2",
        ),
        ("apart", "filter", "DOCKER-ISOLATION-STAGE-2", rf"-o {_NET} -j DROP"),
        (
            "internal",
            "filter",
            "DOCKER-ISOLATION-STAGE-1|DOCKER-INTERNAL",
            rf"! -s \S+ (?:! -i \S+ )?-o {_NET} -j DROP",
        ),
        (
            "internal",
            "filter",
            "DOCKER-ISOLATION-STAGE-1|DOCKER-INTERNAL",
            rf"! -d \S+ -i {_NET} (?:! -o \S+ )?-j DROP",
        ),
        (
            "accept",
            "filter",
            "DOCKER",
            rf"-d {_ADDRESS} ! -i {_NET} -o (?P=bridge) {_PORT} -j ACCEPT",
        ),
        ("masquerade", "nat", "POSTROUTING", rf"-s \S+ ! -o {_NET} -j (?:MASQUERADE|SNAT .+)"),
        (
            "dnat",
            "nat",
            "DOCKER",
            rf"(?:! -s \S+ )?(?:-d {_ADDRESS} )?(?:! -i {_NET} )?{_PORT} -j DNAT --to-destination (?P<aim>\S+)",
        ),
        (
            "direct",
            "raw",
            "PREROUTING",
            rf"-d {_ADDRESS} ! -i {_NET} (?:{_PORT} )?-j DROP",
        ),
    )
)
"""The engine's rules by what they are for, in the spelling of iptables-save. Links, marks, own ports are no one's here."""


def shape_of(table: str, chain: str, text: str) -> OwnRule | None:
    """Say what a rule of the engine is for; None for one that is none of its."""
    for what, its, chains, shape in _SHAPES:
        found = shape.fullmatch(text) if its == table and chains.fullmatch(chain) else None
        if found is not None:
            named = {key: value for key, value in found.groupdict().items() if value}
            return OwnRule(
                table,
                chain,
                text,
                what,
                named.get("bridge", ""),
                named.get("address", ""),
                int(named.get("port", 0)),
                named.get("protocol", ""),
                named.get("aim", ""),
            )
    return None


def missing_of(its: FamilyRules, *kinds: str) -> list[OwnRule]:
    """Give the missing rules of these kinds, but none where nothing of the table is there: that is a flush (NET021)."""
    told = [shape_of(one.table, one.chain, one.text) for one in its.difference.missing]
    found = [one for one in told if one is not None and one.what in kinds]
    # Table raw is no part of what NET021 looks at: it goes with table filter.
    flushed = {table for table in {one.table for one in found} if its.lacks("filter" if table == "raw" else table)}
    return [one for one in found if one.table not in flushed]


class Evidence(Struct, frozen=True):
    """What every check here looks at: a family of rules, what was walked of it, and what the rules would heal."""

    rules: EngineRules
    its: FamilyRules
    promises: Promises
    healed: tuple[Healed, ...]
    other: tuple[Healed, ...]

    @property
    def version(self) -> int:
        """The version of IP."""
        return 6 if self.its.family == "ip6" else 4

    @property
    def there(self) -> str:
        """What is put before a title where it is not the usual family."""
        return f"{self.its.program}: " if self.its.family == "ip6" else ""

    def subject(self, name: str) -> str:
        """Name a subject, apart from that of the other family."""
        return f"{name} of ip6tables" if self.its.family == "ip6" else name

    def weigh(self, healed: list[Healed], wanted: Callable[[Healed], bool]) -> Severity:
        """Weigh: what breaks a promise is an error; what would, once another cause is gone, warns; the rest is a note."""
        if healed and self.rules.live and any(one.flaw not in {"proxied", "one-way"} for one in healed):
            return Severity.ERROR
        hidden = any(one.flaw in {"broken", "open"} and wanted(one) for one in self.other)
        return Severity.WARNING if healed or hidden or self.promises.unwalked else Severity.INFO


def evidence_of(rules: EngineRules, promises: Promises, restored: Restored) -> list[Evidence]:
    """Give what is missing and what that does, by family."""
    found = []
    for its in rules.families:
        mine = restored.of(its.family)
        found.append(
            Evidence(
                rules,
                its,
                promises,
                tuple(one for one in mine if one.by),
                tuple(one for one in mine if not one.by),
            )
        )
    return found


def cited(its: FamilyRules, rules: Iterable[OwnRule]) -> tuple[Citation, ...]:
    """Cite the chains that the rules are missing from, with the first rule that each lacks."""
    chains: dict[tuple[str, str], OwnRule] = {}
    for rule in rules:
        chains.setdefault((rule.table, rule.chain), rule)
    found = []
    for key, rule in chains.items():
        held = its.tables.chains.get(key)
        line = held.cited.line if held is not None else 0
        found.append(Citation(its.tables.record, line, f"lacks {rule.text}", " ".join(key)))
    return tuple(found)


def put_back(its: FamilyRules, many: int, lifecycle: Lifecycle, *more: Step) -> Remedy:
    """Give the cure: what is missing put back."""
    what = "the rule" if many == 1 else f"the {many} rules"
    steps: tuple[Step, ...] = (*more, its.put_back) if its.difference.missing else more
    return Remedy(f"put back {what}" if many else "take away what is stale", steps, notes=lifecycle.also())


def names_of(several: Iterable[Container]) -> tuple[str, ...]:
    """Name containers, each once."""
    return tuple(dict.fromkeys(one.name for one in several))


def _would(names: tuple[str, ...], what: str) -> Effect:
    return (
        Effect(f"{names[0]} would {what}")
        if len(names) == 1
        else Effect(f"{len(names)} containers would {what}", names)
    )


def effects(healed: Iterable[Healed]) -> tuple[Effect, ...]:
    """Say what packets meet because of what is missing."""
    found: list[Effect] = []
    out = [one for one in healed if one.walked.kind == "egress"]
    lost = [one for one in out if one.flaw == "broken"]
    if lost:
        answer = not any(one.walked.going for one in lost)
        what = "send, and never get an answer from outside" if answer else "reach nothing outside"
        found.append(_would(names_of(member for one in lost for member in one.walked.members), what))
    bare = [one for one in out if one.flaw == "unmasked"]
    if bare:
        names = names_of(member for one in bare for member in one.walked.members)
        found.append(_would(names, "get no answer from outside, where nobody knows a way back to their addresses"))
    for flaw, text in (
        ("broken", "from outside, published ports would time out:"),
        ("proxied", "published ports answer through docker-proxy only: every client seems to be the bridge:"),
        ("astray", "published ports lead to another container or port:"),
    ):
        ports = [
            f"{spelled(port)} -> {member.name}"
            for one in healed
            if one.walked.kind == "published" and one.flaw == flaw
            for member, port in zip(one.walked.members, one.walked.ports, strict=True)
        ]
        if ports:
            found.append(Effect(text, tuple(dict.fromkeys(ports))))
    found += _between(healed)
    ends = [f"{one.walked.container.name}:{one.walked.flow.dport}" for one in healed if one.walked.kind == "direct"]
    if ends:
        found.append(Effect(BY_ADDRESS, tuple(dict.fromkeys(ends))))
    return tuple(found)


def _between(healed: Iterable[Healed]) -> Iterator[Effect]:
    for one in healed:
        walked = one.walked
        if walked.kind == "neighbours" and walked.other is not None:
            yield Effect(
                f"containers of {walked.network.name} would not reach each other:"
                f" {walked.container.name} and {walked.other.name}"
            )
        elif walked.kind == "inside" and walked.other is not None:
            yield Effect(
                f"{walked.container.name} reaches {walked.other.name}, though containers of"
                f" {walked.network.name} are to be kept apart (icc off)"
            )
        elif walked.kind == "apart" and walked.other is not None:
            way = "reaches" if one.flaw == "open" else "sends to, and gets no answer from,"
            there = next((end.network for end in walked.other.endpoints if end.network_id in ends_of(walked)), "")
            yield Effect(f"{walked.container.name} ({walked.network.name}) {way} {walked.other.name} ({there})")


def works_of(its: Evidence, network: Network) -> tuple[Effect, ...]:
    """Say what of a network still works, as it was walked."""
    broken = {id(one.walked) for one in (*its.healed, *its.other)}
    kept = [
        one
        for one in its.promises.all
        if one.network.id == network.id and one.version == its.version and id(one) not in broken and one.arrives
    ]
    ports = [
        f"{spelled(port)} -> {member.name}"
        for one in kept
        if one.kind == "published"
        for member, port in zip(one.members, one.ports, strict=True)
    ]
    found = [Effect("from outside, published ports answer:", tuple(dict.fromkeys(ports)))] if ports else []
    if any(one.kind == "egress" for one in kept):
        found.append(Effect(f"containers of {network.name} reach the outside"))
    if any(one.kind == "neighbours" for one in kept):
        found.append(Effect(f"containers of {network.name} reach each other"))
    return tuple(found)


def of_networks(networks: Networks, evidence: Evidence, *kinds: str) -> Iterator[tuple[Network, list[OwnRule]]]:
    """Give each network with its missing rules of these kinds."""
    missing = missing_of(evidence.its, *kinds)
    for network in networks.all:
        mine = [one for one in missing if one.bridge == network.bridge]
        if mine:
            yield network, mine


def unjudged(rules: EngineRules, networks: Networks, promises: Promises) -> Yield | None:
    """Say why there is nothing to judge, or nothing to judge it by."""
    if rules.off:
        return NotApplicable(rules.off)
    if not networks.all:
        return NotApplicable("no bridge network here")
    return Unknown("iptables", promises.unread) if promises.unread else None


def lacks(its: FamilyRules, rules: list[OwnRule], severity: Severity) -> str:
    """Say which rules are missing (not more than three), and where it is so that nothing hangs on them."""
    tables = " and ".join(dict.fromkeys(one.table for one in rules))
    shown = "; ".join(one.spelled for one in rules[:MANY])
    more = f"; and {len(rules) - MANY} more" if len(rules) > MANY else ""
    rest = f": no packet that was walked would miss {'them' if len(rules) > 1 else 'it'}"
    return f"{its.program}: table {tables} lacks {shown}{more}{rest if severity is Severity.INFO else ''}"


class Case(Struct):
    """A network, its rules that are missing, what they break, and how grave that is."""

    network: Network
    missing: list[OwnRule]
    healed: list[Healed]
    severity: Severity


def cases(
    evidence: Evidence,
    networks: Networks,
    kinds: tuple[str, ...],
    wanted: Callable[[Healed, Network, list[OwnRule]], bool],
) -> Iterator[list[Case]]:
    """Give the networks whose rules are missing: those where it decides in one, those where it does not in another."""
    found = []
    for network, missing in of_networks(networks, evidence, *kinds):

        def mine(its: Healed, network: Network = network, missing: list[OwnRule] = missing) -> bool:
            return wanted(its, network, missing)

        healed = [its for its in evidence.healed if its.by == "missing" and mine(its)]
        found.append(Case(network, missing, healed, evidence.weigh(healed, mine)))
    for some in (
        [one for one in found if one.severity is not Severity.INFO],
        [one for one in found if one.severity is Severity.INFO],
    ):
        if some:
            yield some


def of_cases(
    evidence: Evidence,
    cases: list[Case],
    titles: tuple[str, str],
    lifecycle: Lifecycle,
    excluded: tuple[Excluded, ...],
    *,
    works: bool = True,
) -> Finding:
    """Make one finding of all networks: what took one rule took the others, and one command puts all back.

    `titles` are what is said of one network, and of several.
    """
    rules = [rule for one in cases for rule in one.missing]
    healed = list({id(its): its for one in cases for its in one.healed}.values())
    network = cases[0].network if len(cases) == 1 else None
    places = " and ".join(dict.fromkeys(f"{one.table} {one.chain}" for one in rules))
    name = f"{'internal ' if network.internal else ''}network {network.name}" if network is not None else ""
    return finding_of(
        evidence,
        network.name if network is not None else places,
        f"{name}{titles[0]}" if network is not None else f"{len(cases)} networks{titles[1]}",
        rules,
        healed,
        max((one.severity for one in cases), key=lambda severity: severity.rank),
        lifecycle,
        scope=network.name if network is not None else "",
        works=works_of(evidence, network) if works and healed and network is not None else (),
        excluded=excluded,
    )


def jumps_stand(its: FamilyRules) -> tuple[Excluded, ...]:
    """Exclude NET020 where every jump to a chain of the engine's is there."""
    gone = any(re.fullmatch(r"-j DOCKER-\S+", one.text) for one in its.difference.missing)
    return () if gone else (Excluded("NET020", "the jumps to Docker's chains are there"),)


def nat_jumps_stand(its: FamilyRules) -> tuple[Excluded, ...]:
    """Say that the jumps of table nat stand, where they do."""
    lacking = (*its.difference.lacking("nat", "PREROUTING"), *its.difference.lacking("nat", "OUTPUT"))
    gone = any(text.endswith("-j DOCKER") for text in lacking)
    return () if gone else (Excluded("NET024", "the jumps of table nat are there"),)


def deciding(healed: list[Healed]) -> tuple[Citation, ...]:
    """Cite what decides now about packets that are stopped."""
    cited = [one.walked.decided for one in healed if one.flaw == "broken"]
    return tuple(dict.fromkeys(one for one in cited if one is not None))[:2]


def finding_of(
    evidence: Evidence,
    subject: str,
    title: str,
    rules: list[OwnRule],
    healed: list[Healed],
    severity: Severity,
    lifecycle: Lifecycle,
    *,
    scope: str = "",
    works: tuple[Effect, ...] = (),
    excluded: tuple[Excluded, ...] = (),
) -> Finding:
    """Make a finding of rules that are missing."""
    its = evidence.its
    return Finding(
        subject=evidence.subject(subject),
        scope=scope,
        title=evidence.there + title,
        message=lacks(its, rules, severity),
        evidence=(*cited(its, rules), *deciding(healed)),
        remedy=put_back(its, len(rules), lifecycle),
        severity=severity,
        hits=effects(healed),
        works=works,
        excluded=excluded,
    )


def ends_of(walked: Walked) -> set[str]:
    """Give the networks at both ends of a walk."""
    target = walked.flow.dst
    held = walked.other.endpoints if walked.other is not None else ()
    mine = {end.network_id for end in held for text in (end.address, end.address6) if text and number(text) == target}
    return {walked.network.id, *mine}
