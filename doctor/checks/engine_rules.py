"""The engine's own firewall rules: are they there?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._flushed import open_networks, still_answering
from doctor.checks._native_rules import native_tables
from doctor.checks._own_rules import effects
from doctor.checks.bridges import attached
from doctor.checks.published_ports import leading
from doctor.engine.rules import dialect
from doctor.facts.bootrules import BootRules
from doctor.facts.config import Options
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog, Starting
from doctor.facts.engine_rules import NATIVE, EngineRules, FamilyRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.native_rules import NativeRules
from doctor.facts.networks import Networks
from doctor.facts.rules import Chain, Firewall, Tables
from doctor.model import (
    Citation,
    Command,
    Edit,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Remedy,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.packets.promises import PROMISES, Promises
from doctor.packets.restored import RESTORED, Healed
from doctor.registry import check


@check(
    "NET021",
    Severity.ERROR,
    explains=("NET018", "NET020", "NET022", "NET023", "NET024", "NET025", "NET026", "NET027", "NET030"),
    says=(
        "iptables failed: ... No chain/target/match by that name",
        "Chain 'DOCKER' does not exist",
        "Couldn't load target `DOCKER'",
    ),
)
def engine_chains_missing(
    daemon: Daemon,
    options: Options,
    firewall: Firewall,
    networks: Networks,
    containers: Containers,
    log: DaemonLog,
    boot: BootRules,
    lifecycle: Lifecycle,
    rules: EngineRules | None,
    native: NativeRules | None,
    promises: PROMISES | None,
    starting: Starting,
) -> Iterator[Yield]:
    """Docker's firewall rules were flushed: its chains are gone, or stand empty.

    ## What it is
    dockerd writes its chains when it starts and its rules with each network and port. It does
    not look again: a flush (iptables -F, a reload of nftables or another firewall) stays.
    ## What you see
    Containers reach nothing outside; starting one with a published port fails with "No
    chain/target/match by that name"; separate networks may reach each other.
    ## By hand
    iptables-save
    nft list ruleset
    ## Cure
    Put the rules back: doctor rules --missing prints those that Docker wrote and that are
    gone, iptables-restore --noflush adds them; nothing stops. A restart of Docker heals too.
    For good: let the other firewall remove only its own tables.
    ## Looks like
    iptables switched off on purpose; rules in the other back end (nft and legacy)
    ## Limits
    Judged by chains only; one missing rule among others is not told. With
    iptables=false in force this does not apply. With the nftables back end of 29 it is the
    tables docker-bridges that are looked at, and nft -f that puts them back.
    For a release that was never compared, the rules to put back are the nearest known.
    ## References
    moby libnetwork/drivers/bridge, moby issue 12294, iptables(8), nft(8)
    """
    nothing = _nothing_to_judge(daemon, options, networks)
    if nothing is not None:
        yield nothing
        return
    if rules is not None and rules.off == NATIVE:
        since = _since(daemon, containers, log)
        yield from native_tables(native, networks, containers, options, boot, lifecycle, since, promises)
        return
    if rules is None and starting.why:
        yield Unknown("iptables", starting.why)
        return
    if rules is None and options.value("firewall-backend") == "nftables":
        yield Unknown("firewall", "what the engine writes to nftables is not known")
        return
    expected = _expected(daemon)
    written = rules.of("ip") if rules is not None else None
    tables = written.tables if written is not None else _engine_tables(firewall, expected)
    gone = {table: [name for name in names if tables.chain(table, name) is None] for table, names in expected.items()}
    emptied = [table for table, names in expected.items() if not gone[table] and _empty(tables, table, names)]
    flushed = [table for table, names in expected.items() if len(gone[table]) == len(names) or table in emptied]
    missing = [(table, name) for table, names in gone.items() for name in names]
    if not missing and not emptied:
        return
    total = sum(map(len, expected.values()))
    there = total - len(missing)
    if tables.damage:
        yield Unknown("iptables", f"firewall: the text of {_place(tables)} cannot be read: {tables.damage}")
        return
    if not there and any(name.endswith(" docker-bridges") for name in firewall.nft_tables):
        yield Unknown(
            "firewall", "the back end is nftables (table docker-bridges), and what belongs there is not known"
        )
        return
    evidence = [Citation(tables.record, 0, _there(there, total, emptied), _place(tables))]
    evidence += [one.cited for one in boot.flushes[:1]]
    title = "Docker's firewall rules were flushed"
    if not flushed:
        title = f"chain {missing[0][1]} of table {missing[0][0]} is gone"
    elif len(flushed) == 1:
        title = f"Docker's firewall rules were flushed from table {flushed[0]}"
    for_good: tuple[Step, ...] = ()
    if boot.flushes:
        line = boot.flushes[0]
        for_good = (Edit(line.path, line.line, line.text, line.instead),)
    remedy = _put_back(rules, lifecycle) or lifecycle.remedy("let Docker write its rules again")
    yield Finding(
        subject="iptables",
        title=title,
        message=f"dockerd runs with iptables=true, yet {there} of its {total} chains exist"
        + (f", and table {' and '.join(emptied)} holds no rule of it" if emptied else ""),
        evidence=tuple(evidence),
        remedy=_with(remedy, for_good, _policy(daemon, tables, flushed)),
        hits=_hits(tables, networks, containers, set(flushed), {table for table, _ in missing}, promises),
        works=still_answering(options, containers, promises) if "nat" in flushed else (),
        excluded=(
            Excluded("NET017", "iptables is not switched off"),
            *((Excluded("NET031", "no legacy tables"),) if not _legacy(firewall) else ()),
        ),
        since=_since(daemon, containers, log),
    )


def _nothing_to_judge(daemon: Daemon, options: Options, networks: Networks) -> NotApplicable | Unknown | None:
    if not daemon.pid:
        return NotApplicable("dockerd does not run")
    if not options.known("iptables"):
        return Unknown("iptables", options.unread)
    if not options.on("iptables"):
        origin = options.origin("iptables")
        return NotApplicable(f"iptables is switched off ({origin.where if origin else 'default'})")
    return None if networks.all else NotApplicable("no bridge network here")


def _with(remedy: Remedy, for_good: tuple[Step, ...], notes: tuple[str, ...]) -> Remedy:
    from msgspec.structs import replace

    own = ("rules of your own in DOCKER-USER do not come back",)
    return replace(remedy, for_good=for_good, notes=(*own, *notes, *remedy.notes))


def _put_back(rules: EngineRules | None, lifecycle: Lifecycle) -> Remedy | None:
    """Make the cure that stops nothing: the rules that are gone, put back. None when they are not known."""
    if rules is None or not rules.put_back:
        return None
    notes = lifecycle.also()
    if not rules.live:
        notes = (f"this release was never compared: its rules are taken to be those of {rules.dialect}", *notes)
    what = f"the {rules.missing} rules" if rules.missing > 1 else "the rule"
    return Remedy(f"put back {what} that Docker had written", rules.put_back, notes=notes)


def _policy(daemon: Daemon, tables: Tables, flushed: list[str]) -> tuple[str, ...]:
    """Say what a flush changed that no rule of Docker's holds: until 27 the policy kept unpublished ports shut."""
    forward = tables.chain("filter", "FORWARD")
    if "filter" not in flushed or daemon.generation >= (28, 0) or (forward is not None and forward.policy != "ACCEPT"):
        return ()
    return ("FORWARD has policy ACCEPT now: ports that are not published are open to whoever routes here",)


def _expected(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    """Give the chains that this engine writes by table; for an unknown one, those that all of them have."""
    if daemon.generation == (0, 0):
        return {"filter": ("DOCKER", "DOCKER-USER"), "nat": ("DOCKER",)}
    chains = sorted(dialect(daemon.release)[0].chains)
    return {table: tuple(name for held, name in chains if held == table) for table in ("filter", "nat")}


def _engine_tables(firewall: Firewall, expected: dict[str, tuple[str, ...]]) -> Tables:
    """Give the back end that the engine writes to: the one with most of its chains; nft where there are none."""

    def known(tables: Tables) -> int:
        return sum(tables.chain(table, name) is not None for table, names in expected.items() for name in names)

    return max(firewall.of("ip"), key=known)


def _empty(tables: Tables, table: str, names: tuple[str, ...]) -> bool:
    """Whether the table holds its chains, no rule in any of them, and no jump to one (iptables -F leaves that)."""
    if any(chain.rules for name in names if (chain := tables.chain(table, name)) is not None):
        return False
    return not any(
        rule.target.startswith("DOCKER")
        for (held, _), chain in tables.chains.items()
        if held == table
        for rule in chain.rules
    )


def _there(there: int, total: int, emptied: list[str]) -> str:
    if emptied:
        return f"{there} of {total} chains exist; no rule of Docker's in table {' and '.join(emptied)}"
    return f"{there} of Docker's {total} chains exist"


def _place(tables: Tables) -> str:
    return "iptables-legacy-save" if tables.backend == "legacy" else "iptables-save"


def _legacy(firewall: Firewall) -> bool:
    return any(one.backend == "legacy" and one.rules for one in firewall.of("ip"))


def _hits(
    tables: Tables,
    networks: Networks,
    containers: Containers,
    flushed: set[str],
    touched: set[str],
    promises: Promises | None,
) -> tuple[Effect, ...]:
    hits: list[Effect] = []
    outward = [one for network in networks.all if not network.internal for one in attached(network, containers)]
    names = tuple(dict.fromkeys(one.name for one in outward))
    forward = tables.chain("filter", "FORWARD")
    drops = forward is not None and forward.policy == "DROP"
    nat_flushed = "nat" in flushed and not _masquerades(tables)
    if names and (nat_flushed or ("filter" in flushed and drops)):
        why = "their address is not masked" if nat_flushed else "policy DROP of FORWARD"
        if len(names) == 1:
            hits.append(Effect(f"{names[0]} would reach nothing outside ({why.replace('their', 'its')})"))
        else:
            hits.append(Effect(f"{len(names)} containers would reach nothing outside ({why})", names))
    if touched:
        hits.append(
            Effect("starting a container with a published port fails: iptables: No chain/target/match by that name.")
        )
    if "filter" in flushed and not drops:
        hits += open_networks(networks, containers, promises)
    return tuple(hits)


def _masquerades(tables: Tables) -> bool:
    post = tables.chain("nat", "POSTROUTING")
    return post is not None and any(rule.target == "MASQUERADE" for rule in post.rules)


def _since(daemon: Daemon, containers: Containers, log: DaemonLog) -> Since | None:
    began = [Moment(daemon.started, "dockerd started")] if daemon.started else []
    began += [
        Moment(one.started, f"{one.name} started: its rules were written")
        for one in containers.running
        if one.started and one.ports
    ]
    if not began:
        return None
    earliest = max(began, key=lambda moment: moment.at)
    first = log.first("No chain/target/match by that name", after=earliest.at)
    latest = Moment(first.at, 'first "No chain" in the log of dockerd', first.cited) if first and first.at else None
    return Since(earliest=earliest, latest=latest)


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


@check("NET030", Severity.WARNING, explains=("NET028", "NET052"))
def chains_of_another_generation(rules: EngineRules) -> Iterator[Yield]:
    """Chains of another generation of Docker are left over.

    ## What it is
    Generations of Docker write other chains: isolation in two stages until 28, DOCKER-FORWARD
    and its like from 28.0.1 on, DOCKER-INTERNAL from 29 on. What an upgrade or a downgrade
    leaves behind stays until the next boot; nobody keeps it up to date.
    ## What you see
    Where a jump leads to such a chain, its old rules still decide: networks that were
    removed keep their verdicts, new ones may be dropped. Where none does, nothing.
    ## By hand
    iptables -S FORWARD
    dpkg -l docker.io docker-ce
    ## Cure
    Take away the jump, then empty and delete the chain. Nothing of this release uses it.
    ## Looks like
    NET021 (chains of this release are gone); rules in the other back end (nft and legacy)
    ## Limits
    Chains of swarm mode and of Kubernetes are not counted. A note where nothing leads there.
    ## References
    moby libnetwork/drivers/bridge, moby issue 49498
    """
    if rules.off:
        yield NotApplicable(rules.off)
        return
    for its in rules.families:
        gone = [one.chain for one in its.difference.extra if one.table == "filter" and not one.text]
        if not gone:
            continue
        jumps = [
            rule
            for (table, name), chain in its.tables.chains.items()
            if table == "filter" and name not in gone
            for rule in chain.rules
            if rule.target in gone
        ]
        held = [chain for name in gone if (chain := its.tables.chain("filter", name)) is not None]
        rulesum = sum(len(chain.rules) for chain in held)
        steps = [
            *(Command((its.program, "-D", rule.chain, *rule.text.split(" "))) for rule in jumps),
            *(Command((its.program, "-F", name)) for name in gone),
            *(Command((its.program, "-X", name)) for name in gone),
        ]
        names = " and ".join(gone) if len(gone) <= 2 else f"{gone[0]} and {len(gone) - 1} more"  # noqa: PLR2004
        yield Finding(
            subject=gone[0] if its.family == "ip" else f"{gone[0]} of ip6tables",
            title=f"left over from another Docker: {names}",
            message=f"this release writes no {', '.join(gone)}; "
            + (f"{rulesum} rules stand there," if rulesum != 1 else "1 rule stands there,")
            + (f" and {jumps[0].chain} leads there" if jumps else " and nothing leads there"),
            evidence=(*(rule.cited for rule in jumps[:2]), *(chain.cited for chain in held[:2])),
            remedy=Remedy("take away what is left over", tuple(steps)),
            severity=None if jumps and rulesum else Severity.INFO,
            hits=(Effect("packets still meet rules that no Docker keeps up to date"),) if jumps else (),
        )
