"""Rules that are not Docker's: do packets of containers meet one that stops them?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.checks.published_ports import spelled
from doctor.facts.containers import Containers
from doctor.facts.engine_rules import SWITCHED_OFF, EngineRules, FamilyRules
from doctor.facts.networks import Networks
from doctor.facts.rules import Chain, Firewall, Rule
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.packets.promises import NATIVE, PROMISES, Promises, Walked
from doctor.packets.restored import flaw
from doctor.packets.site import HOST
from doctor.registry import check

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.facts.containers import Container, Port

_NATIVE = "nft "
_BY_RULE = {
    "DOCKER_USER_DROP",
    "FORWARD_RULE",
    "FORWARD_POLICY",
    "OTHER_BASE_CHAIN",
    "UNPUBLISHED_PORT",
    "ICC_DISABLED",
} | {
    *("RAW_DIRECT_ACCESS", "RAW_REMOTE_LOOPBACK", "ISOLATION", "INTERNAL_NET", "BRIDGE_FAMILY_DROP", "NETDEV_DROP"),
}
"""Codes of ends that a rule of the host, or a policy, decides; those that name a chain of Docker's are of rules in it."""


class _Cut(Struct, frozen=True):
    """What one rule or policy that is not Docker's stops: the promises, and all that were walked of their kinds."""

    cited: Citation
    walks: tuple[Walked, ...]
    promises: Promises

    @property
    def native(self) -> bool:
        """Whether it stands in a table of nftables that is not iptables'."""
        return self.cited.place.startswith(_NATIVE)

    @property
    def words(self) -> list[str]:
        """The words of its place: table, chain and number; before them the family, where it is native."""
        return self.cited.place.removeprefix(_NATIVE).split(" ")

    @property
    def policy(self) -> bool:
        """Whether it is the policy of a chain."""
        return not self.words[-1].isdecimal()

    @property
    def chain(self) -> str:
        """The chain that it stands in."""
        return self.words[-1] if self.policy else self.words[-2]

    @property
    def going(self) -> bool:
        """Whether it stops first packets, and not answers alone."""
        return any(one.going for one in self.walks)

    @property
    def whole(self) -> bool:
        """Whether nobody can have meant it: every way out is shut, or neighbours are kept apart."""
        ways = self.promises.of("egress")
        return any(one.kind == "neighbours" for one in self.walks) or (
            bool(ways) and all(one in self.walks for one in ways)
        )

    @property
    def bridges(self) -> list[str]:
        """The bridges of the networks whose packets it stops."""
        return list(dict.fromkeys(one.network.bridge for one in self.walks))

    @property
    def hits(self) -> tuple[Effect, ...]:
        """What would not work."""
        return effects(self.walks)

    @property
    def works(self) -> tuple[Effect, ...]:
        """What still would."""
        kinds = {one.kind for one in self.walks}
        found = []
        if "neighbours" not in kinds and self.promises.of("neighbours"):
            found.append(Effect("containers of one network among themselves"))
        kept = [one for one in self.promises.of("published") if one.kept]
        if kept and len(kept) == len(self.promises.of("published")):
            found.append(Effect("published ports, from outside"))
        return tuple(found)


def effects(walks: Iterable[Walked]) -> tuple[Effect, ...]:
    """Say what it means that these walks end as they do."""
    found = []
    held = list(walks)
    names = _names(one for one in held if one.kind == "egress")
    if names:
        who = f"{len(names)} containers" if len(names) > 1 else names[0]
        found.append(Effect(f"{who} would reach nothing outside", names if len(names) > 1 else ()))
    ports = _ports(held)
    if ports:
        found.append(Effect("clients from outside would get no answer by published ports:", ports))
    apart = dict.fromkeys(one.network.name for one in held if one.kind == "neighbours")
    found += [Effect(f"containers of network {network} would not reach each other") for network in apart]
    return tuple(found)


def _names(walks: Iterable[Walked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.name for walked in walks for one in walked.members))


def _ports(walks: Iterable[Walked]) -> tuple[str, ...]:
    """Name the published ports that walks stand for: a container may have others, which fare otherwise."""
    published = (walked for walked in walks if walked.kind == "published")
    pairs = (pair for walked in published for pair in zip(walked.members, walked.ports, strict=True))
    return tuple(dict.fromkeys(f"{spelled(port)} -> {one.name}" for one, port in pairs))


def _cuts(promises: Promises) -> list[_Cut]:
    """Give what rules and policies that are not Docker's stop: ways out, neighbours, and answers of published ports.

    That a published port cannot be reached from outside is what people write rules for, and is no cut by itself; what the
    same rule stops beside is told with it.
    """
    found: dict[Citation, list[Walked]] = {}
    for one in promises.broken("egress", "neighbours", "published"):
        cited = one.decided
        if cited is None or one.code not in _BY_RULE or one.astray or promises.own(cited) or NATIVE in cited.place:
            continue
        found.setdefault(cited, []).append(one)
    return [
        _Cut(cited, tuple(walks), promises)
        for cited, walks in found.items()
        if any(one.kind != "published" or not one.going for one in walks)
    ]


def _native_engine(rules: EngineRules) -> Yield | None:
    """Say why iptables is not what is judged: the engine writes to nftables itself."""
    return NotApplicable(rules.off) if rules.off and rules.off != SWITCHED_OFF else None


def _idle(promises: Promises, networks: Networks) -> Yield | None:
    """Say why nothing can be judged; None where something can."""
    if not networks.all:
        return NotApplicable("no bridge network here")
    if promises.unread:
        return Unknown("iptables", promises.unread)
    if not promises.all:
        return NotApplicable("no container runs in a bridge network")
    return None


def _without(cut: _Cut, program: str) -> Remedy:
    """Take away the rule that stops it, which is one of iptables."""
    table, chain, number = cut.words[-3:]
    rule = shlex.split(cut.cited.excerpt)
    return Remedy(
        "take away the rule, if it is not meant",
        (Command((program, "-t", table, "-D", chain, *rule)),),
        undo=(Command((program, "-t", table, "-I", chain, number, *rule)),),
        lasts="until-boot",
        for_good=(Note("find what wrote it (a firewall's script, rules saved for boot) and let it leave it out"),),
    )


def _program(cited: Citation, rules: EngineRules | None) -> str:
    """Name what writes where a rule stands: iptables, with the back end where the plain name would write to the other."""
    name = "ip6tables" if cited.record.startswith("net/ip6") else "iptables"
    if cited.record.endswith("-legacy"):
        return f"{name}-legacy"
    its = rules.of("ip6" if name == "ip6tables" else "ip") if rules is not None else None
    return its.program if its is not None and its.tables.backend == "nft" else name


def _what(cut: _Cut) -> str:
    """Say in a few words what is stopped."""
    kinds = {one.kind for one in cut.walks}
    if not cut.going:
        return "cuts the answers to containers"
    if kinds == {"neighbours"}:
        return "keeps containers of one network from each other"
    return "keeps containers from reaching anything outside" if "egress" in kinds else "cuts what containers answer"


def _scope(cut: _Cut) -> str:
    names = list(dict.fromkeys(one.network.name for one in cut.walks))
    return names[0] if len(names) == 1 else ""


@check("NET067", Severity.ERROR)
def user_rules_cut_answers(promises: PROMISES, networks: Networks, rules: EngineRules | None) -> Iterator[Yield]:
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
    if idle := _idle(promises, networks):
        yield idle
        return
    for cut in _cuts(promises):
        if cut.native or cut.chain != "DOCKER-USER" or any(one.going for one in cut.walks if one.kind != "published"):
            continue
        program = _program(cut.cited, rules)
        rule = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "RETURN")
        yield Finding(
            subject=cut.cited.place,
            scope=_scope(cut),
            title="DOCKER-USER drops the answers that containers get from outside",
            message=f"rule {cut.words[-1]} of DOCKER-USER ({cut.cited.excerpt}) stops answers to"
            f" {_some(cut.walks)}; no rule before it lets established connections pass",
            evidence=(cut.cited,),
            remedy=Remedy(
                "let answers pass first; the restriction stays",
                (Command((program, "-I", "DOCKER-USER", *rule)),),
                undo=(Command((program, "-D", "DOCKER-USER", *rule)),),
                lasts="until-boot",
                for_good=(Note("put the same rule first where your own rules for DOCKER-USER are written"),),
            ),
            # Strangers that it keeps out are its purpose, and the cure leaves them out.
            hits=effects(one for one in cut.walks if one.kind != "published" or not one.going),
            works=cut.works,
            excluded=(Excluded("NET062", "requests leave, with the host's address"),),
        )


def _some(walks: tuple[Walked, ...]) -> str:
    names = _names(walks)
    return names[0] if len(names) == 1 else f"{len(names)} containers"


@check("NET029", Severity.WARNING)
def user_rules_stop_containers(promises: PROMISES, networks: Networks, rules: EngineRules | None) -> Iterator[Yield]:
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
    if idle := _idle(promises, networks):
        yield idle
        return
    for cut in _cuts(promises):
        if (
            cut.native
            or cut.chain != "DOCKER-USER"
            or not any(one.going for one in cut.walks if one.kind != "published")
        ):
            continue
        ports = promises.of("published")
        shut = cut.whole and ports and all(one in cut.walks for one in ports)
        apart = any(one.kind == "neighbours" for one in cut.walks)
        yield Finding(
            subject=cut.cited.place,
            scope=_scope(cut),
            title=f"a rule in DOCKER-USER {_what(cut)}",
            message=f"rule {cut.words[-1]} of DOCKER-USER ({cut.cited.excerpt}) stops what {_some(cut.walks)} would send",
            evidence=(cut.cited,),
            remedy=_without(cut, _program(cut.cited, rules)),
            severity=Severity.ERROR if shut or apart else None if cut.whole else Severity.INFO,
            hits=cut.hits,
            works=cut.works,
        )


_OWNERS = (
    ("firewalld", re.compile(r"^(?:firewalld|FORWARD_(?:direct|IN|OUT|POLICIES)|FWD[IO]_|filter_(?:FORWARD|FWD))")),
    ("ufw", re.compile(r"^ufw6?-")),
    ("CSF", re.compile(r"^(?:LOCALINPUT|DENYIN|DENYOUT|LOGDROPIN|LOGDROPOUT)$")),
    ("Tailscale", re.compile(r"^ts-")),
    ("ZeroTier", re.compile(r"^zt-")),
    ("Synology", re.compile(r"^(?:FORWARD_FIREWALL|INPUT_FIREWALL|DEFAULT_FORWARD)$")),
    ("UGREEN", re.compile(r"^UG_")),
    ("Kubernetes", re.compile(r"^(?:KUBE-|CNI-|cali-|FLANNEL)")),
)


def _owner(cut: _Cut) -> str:
    """Name whose table or chain it is, by the names that its program gives; empty where nobody is known."""
    words = [cut.chain, *(cut.words[1:2] if cut.native else ())]
    return next((name for name, pattern in _OWNERS if any(pattern.search(word) for word in words)), "")


@check("NET051", Severity.ERROR)
def other_table_stops_containers(promises: PROMISES, networks: Networks) -> Iterator[Yield]:
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
    if idle := _idle(promises, networks):
        yield idle
        return
    for cut in _cuts(promises):
        if not cut.native:
            continue
        family, table, chain = cut.words[:3]
        owner = _owner(cut)
        whose = f"table {family} {table}" + (f" ({owner})" if owner else "")
        rule = "its policy is drop" if cut.policy else f"rule {cut.words[-1]}: {cut.cited.excerpt}"
        yield Finding(
            subject=f"{family} {table} {chain}",
            scope=_scope(cut),
            title=f"{whose} {_what(cut)}",
            message=f"chain {chain} of {whose} stops what {_some(cut.walks)} would send or get ({rule});"
            " an accept of Docker's does not overrule it",
            evidence=(cut.cited,),
            remedy=_let_in(cut, family, table, chain),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=(Excluded("NET021", "Docker's own rules stand"),) if promises.written else (),
        )


def _let_in(cut: _Cut, family: str, table: str, chain: str) -> Remedy:
    """Let a chain of nftables accept what comes from and goes to bridges."""
    summary = "let that chain accept what is Docker's; Docker's own chains still judge it"
    keep = Note("put the same rules into the file that this table is loaded from")
    if family in {"netdev", "bridge"}:
        return Remedy("take the rule away, or narrow it", (Note(f"nft -a list chain {family} {table} {chain}"),))
    names = ", ".join(f'"{name}"' for name in cut.bridges)
    one = f'"{cut.bridges[0]}"' if len(cut.bridges) == 1 else f"{{ {names} }}"
    where = ("nft", "insert", "rule", family, table, chain)
    steps: tuple[Step, ...] = tuple(Command((*where, word, one, "accept")) for word in ("iifname", "oifname"))
    return Remedy(summary, steps, lasts="until-boot", for_good=(keep,))


@check("NET028", Severity.ERROR)
def other_rule_stops_containers(promises: PROMISES, networks: Networks, rules: EngineRules | None) -> Iterator[Yield]:
    """A rule of iptables that is not Docker's stops packets of containers.

    ## What it is
    A rule of a firewall, of a VPN, or of somebody's script stands before Docker's in FORWARD,
    in one of Docker's own chains, or in table mangle or raw, and drops or rejects what
    containers send, or the answers to it. Or it accepts in table nat before Docker's rules
    are asked: addresses are not masked then, ports not led to their containers.
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
    if idle := _idle(promises, networks):
        yield idle
        return
    if promises.unwalked:
        yield Unknown(
            "promises", f"{promises.unwalked} kinds of containers and ports, told apart by rules, were not walked"
        )
    for cut in _cuts(promises):
        if cut.native or cut.policy or cut.chain == "DOCKER-USER" or _other_backend(cut, rules):
            continue
        owner = _owner(cut)
        place = " ".join(cut.words)
        yield Finding(
            subject=place,
            scope=_scope(cut),
            title=f"a rule of {owner or 'somebody else'} in {cut.chain} {_what(cut)}",
            message=f"rule {place} ({cut.cited.excerpt}) is not Docker's, and stops what"
            f" {_some(cut.walks)} would send or get",
            evidence=(cut.cited,),
            remedy=_without(cut, _program(cut.cited, rules)),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=(Excluded("NET021", "Docker's own rules stand"),) if promises.written else (),
        )
    for cited, walks in _skipped(promises).items():
        yield _skips(_Cut(cited, tuple(walks), promises), rules)


def _skipped(promises: Promises) -> dict[Citation, list[Walked]]:
    """Give the rules of others that accept in table nat what Docker's own rules, which stand behind, would have replaced."""
    found: dict[Citation, list[Walked]] = {}
    for one in promises.of("egress", "published"):
        chain = {"unmasked": "nat POSTROUTING ", "proxied": "nat PREROUTING "}.get(flaw(one), "")
        for step in one.result.walk.steps if chain else ():
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


def _skips(cut: _Cut, rules: EngineRules | None) -> Finding:
    """Say what it means that a rule of table nat comes before Docker's."""
    place, names, ports = " ".join(cut.words), _names(cut.walks), _ports(cut.walks)
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
        scope=_scope(cut),
        title=f"rule {place} skips Docker's {skipped}",
        message=f"rule {place} ({cut.cited.excerpt}) is not Docker's, and accepts before Docker's rules of table nat are asked",
        evidence=(cut.cited,),
        remedy=_without(cut, _program(cut.cited, rules)),
        # From 28 on Docker drops an answer to a container's own address, else a network outside may know a way back.
        severity=Severity.WARNING if all(one.kept for one in cut.walks) else None,
        hits=hits,
    )


def _family(cut: _Cut, rules: EngineRules | None) -> FamilyRules | None:
    """Give the engine's rules of the family that it is of."""
    return rules.of("ip6" if cut.cited.record.startswith("net/ip6") else "ip") if rules is not None else None


def _flushed(cut: _Cut, rules: EngineRules | None) -> bool:
    """Whether the engine's own rules are gone: which back end it writes to is not known then."""
    its = _family(cut, rules)
    return its is not None and its.lacks("filter")


def _other_backend(cut: _Cut, rules: EngineRules | None) -> bool:
    """Whether it stands in the back end that the engine does not write to."""
    its = _family(cut, rules)
    return its is not None and not cut.native and cut.cited.record != its.tables.record


@check(
    "NET031",
    Severity.ERROR,
    says=("# Warning: iptables-legacy tables present, use iptables-legacy-save to see them",),
)
def other_backend_stops_containers(
    promises: PROMISES, networks: Networks, rules: EngineRules | None
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
    if idle := _idle(promises, networks):
        yield idle
        return
    for cut in _cuts(promises):
        if not _other_backend(cut, rules) or _flushed(cut, rules):
            continue
        program = _program(cut.cited, None)
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
            else _without(cut, program)
        )
        where = f"the policy of {cut.chain}" if cut.policy else "rule " + " ".join(cut.words[-3:])
        yield Finding(
            subject=" ".join((backend, *(word for word in cut.words if word != "legacy"))),
            scope=_scope(cut),
            title=f"{backend} {_what(cut)}, beside the rules that Docker writes",
            message=f"{where} of {backend} ({cut.cited.excerpt}) stops what {_some(cut.walks)} would send or get;"
            " Docker writes to the other back end",
            evidence=(cut.cited,),
            remedy=remedy,
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
        )


@check("NET035", Severity.ERROR)
def policy_stops_containers(promises: PROMISES, networks: Networks, rules: EngineRules) -> Iterator[Yield]:
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
    if idle := _idle(promises, networks) or _native_engine(rules):
        yield idle
        return
    for cut in _cuts(promises):
        if cut.native or not cut.policy or _other_backend(cut, rules):
            continue
        its = _family(cut, rules)
        if its is not None and any(one.table == "filter" for one in its.difference.missing):
            continue
        program = _program(cut.cited, rules)
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
            scope=_scope(cut),
            title="the policy of FORWARD is DROP, and no rule takes what containers send",
            message=f"packets of {_some(cut.walks)} end at the policy of {cut.chain} ({cut.cited.excerpt}): Docker has"
            f" no rule there that accepts them{off}",
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
    if idle := _idle(promises, networks) or _native_engine(rules):
        yield idle
        return
    bare: dict[tuple[int, str], list[Walked]] = {}
    for one in promises.of("egress"):
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
    names = _names(walks)
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
        message=f"what {_some(walks)} would send outside bears an address of {networks[0].name}: {why}, and no rule"
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
                f"{_some(walks)} would get no answer from outside, unless it has a route back",
                names if len(names) > 1 else (),
            ),
        ),
        works=(Effect("containers of one network among themselves, and this host"),),
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
            program = _program(chain.cited, rules)
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
