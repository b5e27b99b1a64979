"""The engine's own rules of networks and ports: is one missing, or stale, and what packets meet because of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from doctor.checks.published_ports import overlap, spelled
from doctor.facts.bridge_filter import BridgeFilter
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.engine_rules import ANY, EngineRules, FamilyRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Links
from doctor.facts.networks import Network, Networks
from doctor.facts.rules import Rule
from doctor.facts.sysctls import Sysctls
from doctor.model import (
    Citation,
    Command,
    Edit,
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
from doctor.packets.build import SITE
from doctor.packets.packet import number
from doctor.packets.promises import PROMISES, Promises, Walked
from doctor.packets.restored import RESTORED, Healed, Restored
from doctor.registry import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.packets.packet import Version

_BY_ADDRESS = "whoever routes here reaches containers by their own address:"

MANY = 3
"""Rules and ports that are spelled out; of more their number is told."""


class _Rule(Struct, frozen=True):
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


def _told(table: str, chain: str, text: str) -> _Rule | None:
    for what, its, chains, shape in _SHAPES:
        found = shape.fullmatch(text) if its == table and chains.fullmatch(chain) else None
        if found is not None:
            named = {key: value for key, value in found.groupdict().items() if value}
            return _Rule(
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


def _missing(its: FamilyRules, *kinds: str) -> list[_Rule]:
    """Give the missing rules of these kinds, but none where nothing of the table is there: that is a flush (NET021)."""
    told = [_told(one.table, one.chain, one.text) for one in its.difference.missing]
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


def _evidence(rules: EngineRules, promises: Promises, restored: Restored) -> list[Evidence]:
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


def _cited(its: FamilyRules, rules: Iterable[_Rule]) -> tuple[Citation, ...]:
    """Cite the chains that the rules are missing from, with the first rule that each lacks."""
    chains: dict[tuple[str, str], _Rule] = {}
    for rule in rules:
        chains.setdefault((rule.table, rule.chain), rule)
    found = []
    for key, rule in chains.items():
        held = its.tables.chains.get(key)
        line = held.cited.line if held is not None else 0
        found.append(Citation(its.tables.record, line, f"lacks {rule.text}", " ".join(key)))
    return tuple(found)


def _remedy(its: FamilyRules, many: int, lifecycle: Lifecycle, *more: Step) -> Remedy:
    what = "the rule" if many == 1 else f"the {many} rules"
    steps: tuple[Step, ...] = (*more, its.put_back) if its.difference.missing else more
    return Remedy(f"put back {what}" if many else "take away what is stale", steps, notes=lifecycle.also())


def _names(several: Iterable[Container]) -> tuple[str, ...]:
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
        found.append(_would(_names(member for one in lost for member in one.walked.members), what))
    bare = [one for one in out if one.flaw == "unmasked"]
    if bare:
        names = _names(member for one in bare for member in one.walked.members)
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
        found.append(Effect(_BY_ADDRESS, tuple(dict.fromkeys(ends))))
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
            there = next((end.network for end in walked.other.endpoints if end.network_id in _ends(walked)), "")
            yield Effect(f"{walked.container.name} ({walked.network.name}) {way} {walked.other.name} ({there})")


def _works(its: Evidence, network: Network) -> tuple[Effect, ...]:
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


def _of_networks(networks: Networks, evidence: Evidence, *kinds: str) -> Iterator[tuple[Network, list[_Rule]]]:
    """Give each network with its missing rules of these kinds."""
    missing = _missing(evidence.its, *kinds)
    for network in networks.all:
        mine = [one for one in missing if one.bridge == network.bridge]
        if mine:
            yield network, mine


def _unjudged(rules: EngineRules, networks: Networks, promises: Promises) -> Yield | None:
    """Say why there is nothing to judge, or nothing to judge it by."""
    if rules.off:
        return NotApplicable(rules.off)
    if not networks.all:
        return NotApplicable("no bridge network here")
    return Unknown("iptables", promises.unread) if promises.unread else None


def _lacks(its: FamilyRules, rules: list[_Rule], severity: Severity) -> str:
    """Say which rules are missing (not more than three), and where it is so that nothing hangs on them."""
    tables = " and ".join(dict.fromkeys(one.table for one in rules))
    shown = "; ".join(one.spelled for one in rules[:MANY])
    more = f"; and {len(rules) - MANY} more" if len(rules) > MANY else ""
    rest = f": no packet that was walked would miss {'them' if len(rules) > 1 else 'it'}"
    return f"{its.program}: table {tables} lacks {shown}{more}{rest if severity is Severity.INFO else ''}"


class _Case(Struct):
    """A network, its rules that are missing, what they break, and how grave that is."""

    network: Network
    missing: list[_Rule]
    healed: list[Healed]
    severity: Severity


def _cases(
    evidence: Evidence,
    networks: Networks,
    kinds: tuple[str, ...],
    wanted: Callable[[Healed, Network, list[_Rule]], bool],
) -> Iterator[list[_Case]]:
    """Give the networks whose rules are missing: those where it decides in one, those where it does not in another."""
    found = []
    for network, missing in _of_networks(networks, evidence, *kinds):

        def mine(its: Healed, network: Network = network, missing: list[_Rule] = missing) -> bool:
            return wanted(its, network, missing)

        healed = [its for its in evidence.healed if its.by == "missing" and mine(its)]
        found.append(_Case(network, missing, healed, evidence.weigh(healed, mine)))
    for some in (
        [one for one in found if one.severity is not Severity.INFO],
        [one for one in found if one.severity is Severity.INFO],
    ):
        if some:
            yield some


def _of_cases(
    evidence: Evidence,
    cases: list[_Case],
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
    return _finding(
        evidence,
        network.name if network is not None else places,
        f"{name}{titles[0]}" if network is not None else f"{len(cases)} networks{titles[1]}",
        rules,
        healed,
        max((one.severity for one in cases), key=lambda severity: severity.rank),
        lifecycle,
        scope=network.name if network is not None else "",
        works=_works(evidence, network) if works and healed and network is not None else (),
        excluded=excluded,
    )


def _jumps_stand(its: FamilyRules) -> tuple[Excluded, ...]:
    """Exclude NET020 where every jump to a chain of the engine's is there."""
    gone = any(re.fullmatch(r"-j DOCKER-\S+", one.text) for one in its.difference.missing)
    return () if gone else (Excluded("NET020", "the jumps to Docker's chains are there"),)


def _nat_jumps_stand(its: FamilyRules) -> tuple[Excluded, ...]:
    lacking = (*its.difference.lacking("nat", "PREROUTING"), *its.difference.lacking("nat", "OUTPUT"))
    gone = any(text.endswith("-j DOCKER") for text in lacking)
    return () if gone else (Excluded("NET024", "the jumps of table nat are there"),)


def _deciding(healed: list[Healed]) -> tuple[Citation, ...]:
    """Cite what decides now about packets that are stopped."""
    cited = [one.walked.decided for one in healed if one.flaw == "broken"]
    return tuple(dict.fromkeys(one for one in cited if one is not None))[:2]


def _finding(
    evidence: Evidence,
    subject: str,
    title: str,
    rules: list[_Rule],
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
        message=_lacks(its, rules, severity),
        evidence=(*_cited(its, rules), *_deciding(healed)),
        remedy=_remedy(its, len(rules), lifecycle),
        severity=severity,
        hits=effects(healed),
        works=works,
        excluded=excluded,
    )


@check("NET018", Severity.ERROR, explains=("NET028",))
def icc_not_effective(
    rules: EngineRules,
    networks: Networks,
    promises: PROMISES,
    restored: RESTORED,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """Whether containers of a network reach each other is not as the network was told (icc).

    ## What it is
    A network says whether its own containers may talk (enable_icc, daemon.json: icc). dockerd
    writes one rule for what comes in and goes out by the same bridge: ACCEPT, or DROP.
    ## What you see
    Containers of a network with icc off reach each other, though only links and published
    ports should work; or those of a network with icc on do not, and each is well alone.
    ## By hand
    docker network inspect NAME -f '{{json .Options}}'
    iptables -S FORWARD
    iptables -S DOCKER-FORWARD
    ## Cure
    Put the rule back: doctor rules --missing finds its place; take away one that is stale.
    Nothing stops.
    ## Looks like
    NET019 (the rule is there, and bridged packets do not meet it), NET022, NET020
    ## Limits
    Told when it decides: two running containers are walked in a model. Where another rule,
    or the policy, does the same, it is a note.
    ## References
    moby libnetwork/drivers/bridge, docker network create --opt
    """
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        missing = {network.id: its for network, its in _of_networks(networks, one, "icc")}
        for network in networks.all:
            yield from _icc(one, network, missing.get(network.id, []), lifecycle)


def _icc(evidence: Evidence, network: Network, missing: list[_Rule], lifecycle: Lifecycle) -> Iterator[Finding]:
    its = evidence.its
    off = not network.on("enable_icc")

    def mine(healed: Healed) -> bool:
        return healed.walked.network.id == network.id and healed.walked.kind in {"inside", "neighbours"}

    healed = [one for one in evidence.healed if mine(one)]
    extra = {
        one.text: one
        for one in its.difference.extra
        if any(by.by == "extra" for by in healed)
        and (told := _told(one.table, one.chain, one.text)) is not None
        and (told.what, told.bridge) in {("icc", network.bridge), ("egress", network.bridge)}
    }
    if not missing and not extra:
        return
    severity = evidence.weigh(healed, mine)
    steps = tuple(Command((its.program, "-D", one.chain, *one.text.split(" "))) for one in extra.values())
    held = [rule for one in extra.values() for rule in _rules(its, one.chain) if rule.text == one.text]
    state = "off" if off else "on"
    what = "reach each other" if off and healed else "do not reach each other" if healed else "lack their rule"
    name = "its containers" if healed else "containers"
    old = "; ".join(f"{rule.cited.place} ({rule.text})" for rule in held[:2])
    parts = [f"{old} is stale" if old else "", _lacks(its, missing, severity) if missing else ""]
    yield Finding(
        subject=evidence.subject(network.name),
        scope=network.name,
        title=f"{evidence.there}network {network.name}: icc is {state}, and {name} {what}",
        message="; ".join(part for part in parts if part),
        evidence=(*(rule.cited for rule in held[:2]), *_cited(its, missing), *_deciding(healed), network.cited),
        remedy=_remedy(its, len(missing), lifecycle, *steps),
        severity=severity,
        hits=effects(healed),
        works=_works(evidence, network) if healed else (),
        excluded=_jumps_stand(its),
    )


def _rules(its: FamilyRules, name: str) -> tuple[Rule, ...]:
    chain = its.tables.chain("filter", name)
    return chain.rules if chain is not None else ()


@check(
    "NET019",
    Severity.ERROR,
    says=(
        "WARNING: bridge-nf-call-iptables is disabled",
        "cannot restrict inter-container communication or run without the userland proxy: stat ...",
        "set environment variable DOCKER_IGNORE_BR_NETFILTER_ERROR=1 to ignore",
    ),
)
def icc_without_bridge_filter(
    rules: EngineRules,
    networks: Networks,
    site: SITE,
    promises: PROMISES,
    bridged: BridgeFilter,
    links: Links,
    sysctls: Sysctls | None,
) -> Iterator[Yield]:
    """Containers of a network with icc off reach each other: bridged packets do not meet iptables.

    ## What it is
    Packets between two containers of one network stay on its bridge. They meet Docker's rule
    against that (enable_icc=false) only by br_netfilter, with bridge-nf-call-iptables = 1.
    ## What you see
    Containers that are to be kept apart reach each other, though the rule is there and
    counts nothing. dockerd sets the sysctl when it makes such a network, and looks once.
    ## By hand
    sysctl net.bridge.bridge-nf-call-iptables
    iptables -S DOCKER-FORWARD -v
    ## Cure
    Let the bridges of these networks call iptables. Nothing stops.
    ## Looks like
    NET018 (the rule is missing)
    ## Limits
    Told where two running containers show it in a model. Other bridges (of virtual
    machines) may be meant not to call iptables: then only Docker's own are changed.
    ## References
    moby libnetwork/drivers/bridge/setup_bridgenetfiltering.go, ip-link(8) nf_call_iptables
    """
    if rules.off:
        yield NotApplicable(rules.off)
        return
    off = [network for network in networks.all if not network.on("enable_icc")]
    if not off:
        yield NotApplicable("no network with icc off")
        return
    if promises.unread:
        yield Unknown("iptables", promises.unread)
        return
    for its in rules.families:
        version: Version = 6 if its.family == "ip6" else 4
        open_ = [
            one
            for one in promises.broken("inside")
            if one.version == version
            and (bridge := links.by_name.get(one.network.bridge)) is not None
            and not site.filters_bridged(bridge, version)
            and any(
                _told("filter", chain, rule.text) == _Rule("filter", chain, rule.text, "icc", bridge.name)
                for chain in ("FORWARD", "DOCKER-FORWARD")
                for rule in its.expected.chains.get(("filter", chain), ())
            )
        ]
        if open_:
            yield _unfiltered(its, open_, bridged, links, networks, sysctls)


def _unfiltered(
    its: FamilyRules,
    open_: list[Walked],
    bridged: BridgeFilter,
    links: Links,
    networks: Networks,
    sysctls: Sysctls | None,
) -> Finding:
    key = "bridge-nf-call-iptables" if its.family == "ip" else "bridge-nf-call-ip6tables"
    option = "nf_call_iptables" if its.family == "ip" else "nf_call_ip6tables"
    value = bridged.values.get(key)
    docker = {network.bridge for network in networks.all}
    others = [one.name for one in links.all if one.kind == "bridge" and one.name not in docker]
    whole = Command(("sysctl", "-w", f"net.bridge.{key}=1"))
    steps: tuple[Step, ...] = (whole,)
    undo: tuple[Step, ...] = (Command(("sysctl", "-w", f"net.bridge.{key}=0")),)
    notes: tuple[str, ...] = ()
    if not bridged.loaded:
        steps, undo = (Command(("modprobe", "br_netfilter")), whole), ()
    elif others:
        names = list(dict.fromkeys(one.network.bridge for one in open_))
        steps = tuple(Command(("ip", "link", "set", name, "type", "bridge", option, "1")) for name in names)
        undo = tuple(Command(("ip", "link", "set", name, "type", "bridge", option, "0")) for name in names)
        notes = (f"sysctl -w net.bridge.{key}=1 heals too, and holds for bridge {others[0]} as well",)
    setting = sysctls.setting(f"net.bridge.{key}") if sysctls is not None else None
    for_good: tuple[Step, ...] = ()
    if setting is not None and setting.value == "0":
        for_good = (Edit(setting.path, setting.line, setting.text, f"net.bridge.{key} = 1"),)
    cited = value.cited if value is not None else bridged.cited
    state = f"{key} is {value.value}" if value is not None else "br_netfilter is not loaded"
    many = tuple(dict.fromkeys(one.network.name for one in open_))
    names_ = f"network {many[0]}" if len(many) == 1 else f"{len(many)} networks"
    return Finding(
        subject=key,
        title=f"icc is off for {names_}, and bridged packets do not meet the rule: {state}",
        message=f"{state}: what stays on a bridge is not shown to {its.program}, and"
        f" -i {open_[0].network.bridge} -o {open_[0].network.bridge} -j DROP drops nothing",
        evidence=(cited, *((setting.cited,) if for_good and setting is not None else ()), open_[0].network.cited),
        remedy=Remedy(
            "let bridged packets meet the rules",
            steps,
            lasts="until-boot",
            for_good=for_good,
            undo=undo,
            notes=notes,
        ),
        hits=effects([Healed(one, "open", "", "") for one in open_]),
    )


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


@check("NET022", Severity.ERROR, explains=("NET018", "NET023", "NET025", "NET027", "NET028"))
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
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        for cases in _cases(one, networks, tuple(_FOR), _rests_on):
            missing = [rule for case in cases for rule in case.missing]
            many = f": {len(missing)} of {'its' if len(cases) == 1 else 'their'} rules are missing"
            yield _of_cases(
                one,
                cases,
                (many if len(missing) > 1 else f": {_FOR[missing[0].what]} is missing", many),
                lifecycle,
                _jumps_stand(one.its),
            )


def _rests_on(its: Healed, network: Network, missing: list[_Rule]) -> bool:
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
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        for cases in _cases(one, networks, ("apart", "internal"), _between_networks):
            titles = " is not kept apart from the others", " are not kept apart from each other"
            if not any(case.healed for case in cases):
                titles = ": a rule that keeps it apart is missing", ": rules that keep them apart are missing"
            yield _of_cases(one, cases, titles, lifecycle, _jumps_stand(one.its), works=False)


def _between_networks(its: Healed, network: Network, _: list[_Rule]) -> bool:
    return its.walked.kind == "apart" and network.id in _ends(its.walked)


def _ends(walked: Walked) -> set[str]:
    """Give the networks at both ends of a walk."""
    target = walked.flow.dst
    held = walked.other.endpoints if walked.other is not None else ()
    mine = {end.network_id for end in held for text in (end.address, end.address6) if text and number(text) == target}
    return {walked.network.id, *mine}


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
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        for cases in _cases(one, networks, ("masquerade",), _goes_out):
            titles = ": what its containers send is not masqueraded", ": what their containers send is not masqueraded"
            yield _of_cases(one, cases, titles, lifecycle, _nat_jumps_stand(one.its))


def _goes_out(its: Healed, network: Network, _: list[_Rule]) -> bool:
    return its.walked.network.id == network.id and its.walked.kind == "egress"


class _Way(Struct):
    """A published port with what is wrong on the way to it: rules missing, and stale ones before them."""

    container: Container
    port: Port
    missing: list[_Rule]
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
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        ways = _ways(one, containers)
        if ways:
            names = list(dict.fromkeys(way.container.name for way in ways))
            yield from _ports(one, ways, names[0] if len(names) == 1 else "published ports", lifecycle)


def _ways(evidence: Evidence, containers: Containers) -> list[_Way]:
    """Give the published ports whose rules are not as they should be."""
    its = evidence.its
    missing = _missing(its, "dnat", "accept")
    chain = its.tables.chain("nat", "DOCKER")
    extra = [
        (rule, told)
        for rule in (chain.rules if chain is not None else ())
        if any((one.table, one.chain, one.text) == ("nat", "DOCKER", rule.text) for one in its.difference.extra)
        and (told := _told("nat", "DOCKER", rule.text)) is not None
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


def _is_for(rule: _Rule, port: Port, held: set[str]) -> bool:
    """Whether a rule is one of a port's: by the host's side and where it leads, or by the container's."""
    if rule.what == "accept":
        return rule.address in held and (rule.port, rule.protocol) == (port.container, port.protocol)
    on = "" if port.host_ip in ANY else port.host_ip
    aims = {f"[{one}]:{port.container}" if ":" in one else f"{one}:{port.container}" for one in held}
    return (rule.port, rule.protocol, rule.address) == (port.host, port.protocol, on) and rule.aim in aims


def _lost(stale: list[Rule], missing: list[_Rule], *, many: bool) -> str:
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
    parts = [f"{old} stands in the way" if old else "", _lacks(its, missing, severity) if missing else ""]
    yield Finding(
        subject=evidence.subject(subject),
        title=evidence.there + title,
        message="; ".join(part for part in parts if part),
        evidence=(
            *(rule.cited for rule in stale[:2]),
            *_cited(its, missing),
            *_deciding(healed),
            ways[0].container.cited,
        ),
        remedy=_remedy(its, len(missing), lifecycle, *steps),
        severity=severity,
        hits=effects(healed),
        excluded=_nat_jumps_stand(its),
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
    if (said := _unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in _evidence(rules, promises, restored):
        missing = _missing(one.its, "direct")
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
        names = _names(container for container, _ in opened)
        several = f"{len(names)} containers are" if len(names) > 1 else f"{next(iter(names), '')} is"
        found = _finding(
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
        yield replace(found, hits=(Effect(_BY_ADDRESS, ends),)) if healed else found
