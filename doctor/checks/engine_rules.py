"""The engine's own firewall rules: are they there?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._flushed import open_networks, still_answering
from doctor.checks._native_rules import native_tables
from doctor.checks.bridges import attached
from doctor.engine.rules import dialect
from doctor.facts.bootrules import BootRules
from doctor.facts.config import Options
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog, Starting
from doctor.facts.engine_rules import NATIVE, EngineRules
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.native_rules import NativeRules
from doctor.facts.networks import Networks
from doctor.facts.rules import Firewall, Tables
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
