"""Containers of one network that are to be kept apart (icc off): the rule, and whether bridged packets meet it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._own_rules import (
    Evidence,
    OwnRule,
    cited,
    deciding,
    effects,
    evidence_of,
    jumps_stand,
    lacks,
    of_networks,
    put_back,
    shape_of,
    unjudged,
    works_of,
)
from doctor.facts.bridge_filter import BridgeFilter
from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.daemon import Daemon
from doctor.facts.engine_rules import EngineRules, FamilyRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.links import Links
from doctor.facts.networks import Network, Networks
from doctor.facts.nextstart import NextStart
from doctor.facts.sysctls import Sysctls
from doctor.model import (
    Command,
    Edit,
    Effect,
    Finding,
    NotApplicable,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES, Walked
from doctor.packets.restored import RESTORED, Healed
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.rules import Rule
    from doctor.packets.packet import Version


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
    if (said := unjudged(rules, networks, promises)) is not None:
        yield said
        return
    for one in evidence_of(rules, promises, restored):
        missing = {network.id: its for network, its in of_networks(networks, one, "icc")}
        for network in networks.all:
            yield from _icc(one, network, missing.get(network.id, []), lifecycle)


def _icc(evidence: Evidence, network: Network, missing: list[OwnRule], lifecycle: Lifecycle) -> Iterator[Finding]:
    its = evidence.its
    off = not network.on("enable_icc")

    def mine(healed: Healed) -> bool:
        return healed.walked.network.id == network.id and healed.walked.kind in {"inside", "neighbours"}

    healed = [one for one in evidence.healed if mine(one)]
    extra = {
        one.text: one
        for one in its.difference.extra
        if any(by.by == "extra" for by in healed)
        and (told := shape_of(one.table, one.chain, one.text)) is not None
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
    parts = [f"{old} is stale" if old else "", lacks(its, missing, severity) if missing else ""]
    yield Finding(
        subject=evidence.subject(network.name),
        scope=network.name,
        title=f"{evidence.there}network {network.name}: icc is {state}, and {name} {what}",
        message="; ".join(part for part in parts if part),
        evidence=(*(rule.cited for rule in held[:2]), *cited(its, missing), *deciding(healed), network.cited),
        remedy=put_back(its, len(missing), lifecycle, *steps),
        severity=severity,
        hits=effects(healed),
        works=works_of(evidence, network) if healed else (),
        excluded=jumps_stand(its),
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
                shape_of("filter", chain, rule.text) == OwnRule("filter", chain, rule.text, "icc", bridge.name)
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


@check("NET017", Severity.ERROR, explains=("DMN013", "DMN016"), blocks_start=True)
def icc_off_without_rules(options: Options, config: ConfigFile, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """Containers shall not reach each other (icc), and dockerd may write no rules that see to it.

    ## What it is
    `icc` false is made of rules of iptables. With `iptables` false dockerd ends at its start;
    with `ip6tables` false and IPv6 on docker0, from 27 on it does too, and before that
    containers go on reaching each other over IPv6.
    ## What you see
    dockerd running: nothing, until its next start. Down: "You specified --iptables=false with
    --icc=false" in its log.
    ## By hand
    grep -n -e icc -e tables /etc/docker/daemon.json
    ## Cure
    Take `iptables` (or `ip6tables`) out of the file, so that dockerd writes its rules; or take
    `icc` out, where other rules keep containers apart.
    ## Looks like
    DMN003 (an option stands in two places), NET001 (another value that is refused)
    ## Limits
    Networks of one's own have an option of their own for this, and are not judged.
    ## References
    dockerd(8) --icc, moby daemon/daemon_unix.go verifyDaemonSettings
    """
    if not options.known("icc") or not options.known("iptables"):
        yield Unknown("icc", options.unread)
        return
    icc = options.origin("icc")
    if icc is None or options.on("icc"):
        return
    v6 = options.on("ipv6") and daemon.generation != (0, 0)
    for key in ("iptables", *(("ip6tables",) if v6 else ())):
        origin = options.origin(key)
        if origin is not None and not options.on(key):
            refuses = key == "iptables" or daemon.generation >= (27, 0)
            yield _refused(key, icc, origin, config, start) if refuses else _unenforced(key, icc, origin, config)
            return


def _refused(key: str, icc: Origin, rules: Origin, config: ConfigFile, start: NextStart) -> Finding:
    return Finding(
        subject="icc",
        title=f"icc is false, and so is {key}: dockerd refuses to start",
        message=f"icc is false ({icc.where}) and {key} is false ({rules.where}): no rule keeps containers apart",
        evidence=tuple(dict.fromkeys((icc.cited, rules.cited, *start.words("--icc=false")))),
        remedy=start.cure(config.change(key, rules), what=f"let dockerd write the rules of {key}"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )


def _unenforced(key: str, icc: Origin, rules: Origin, config: ConfigFile) -> Finding:
    return Finding(
        subject="icc",
        title=f"icc is false, and so is {key}: nothing enforces it",
        message=f"icc is false ({icc.where}) and {key} is false ({rules.where}): no rule keeps containers apart",
        evidence=tuple(dict.fromkeys((icc.cited, rules.cited))),
        remedy=Remedy(
            f"let dockerd write the rules of {key}",
            (config.change(key, rules),),
            notes=("it counts from the next start of dockerd on",),
        ),
        severity=Severity.WARNING,
        hits=(Effect("containers of the default network reach each other over IPv6, although icc is false"),),
    )
