"""The engine's own firewall rules: are they there?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks.bridges import attached
from doctor.engine.chains import chains
from doctor.facts.bootrules import BootRules
from doctor.facts.config import Options
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.networks import Networks
from doctor.facts.rules import Firewall, Tables
from doctor.model import (
    Citation,
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
from doctor.registry import check


@check("NET021", Severity.ERROR)
def engine_chains_missing(
    daemon: Daemon,
    options: Options,
    firewall: Firewall,
    networks: Networks,
    containers: Containers,
    log: DaemonLog,
    boot: BootRules,
    lifecycle: Lifecycle,
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
    A restart of Docker writes the rules anew; without live-restore it stops every container.
    For good: let the other firewall remove only its own tables.
    ## Looks like
    iptables switched off on purpose; rules in the other back end (nft and legacy)
    ## Limits
    Judged by chains only; one missing rule among others is not told. With
    iptables=false in force, or the nftables back end of 29, this does not apply.
    ## References
    moby libnetwork/drivers/bridge, moby issue 12294, iptables(8), nft(8)
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    if not options.known("iptables"):
        yield Unknown("iptables", options.unread)
        return
    if not options.on("iptables"):
        origin = options.origin("iptables")
        yield NotApplicable(f"iptables is switched off ({origin.where if origin else 'default'})")
        return
    if options.value("firewall-backend") == "nftables":
        yield NotApplicable("the firewall back end is nftables")
        return
    if not networks.all:
        yield NotApplicable("no bridge network here")
        return
    expected = _expected(daemon)
    tables = _engine_tables(firewall, expected)
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
        yield NotApplicable("the firewall back end is nftables (table docker-bridges)")
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
    remedy = lifecycle.remedy("let Docker write its rules again")
    yield Finding(
        subject="iptables",
        title=title,
        message=f"dockerd runs with iptables=true, yet {there} of its {total} chains exist"
        + (f", and table {' and '.join(emptied)} holds no rule of it" if emptied else ""),
        evidence=tuple(evidence),
        remedy=_with(remedy, for_good),
        hits=_hits(tables, networks, containers, set(flushed), {table for table, _ in missing}),
        works=_works(options, containers, flushed),
        excluded=(
            Excluded("NET017", "iptables is not switched off"),
            *((Excluded("NET031", "no legacy tables"),) if not _legacy(firewall) else ()),
        ),
        since=_since(daemon, containers, log),
    )


def _with(remedy: Remedy, for_good: tuple[Step, ...]) -> Remedy:
    from msgspec.structs import replace

    return replace(remedy, for_good=for_good, notes=("rules of your own in DOCKER-USER do not come back",))


def _expected(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    """Give the chains that this engine writes; 28.0.0 still had the older ones, 28.0.1 brought the rest."""
    return chains((27, 5) if daemon.version == "28.0.0" else daemon.generation)


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
    tables: Tables, networks: Networks, containers: Containers, flushed: set[str], touched: set[str]
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
    busy = [(network, attached(network, containers)) for network in networks.all]
    used = [(network, users) for network, users in busy if users]
    if "filter" in flushed and not drops and len(used) > 1:
        (first, ours), (second, theirs) = used[0], used[1]
        hits.append(
            Effect(
                f"networks are open to each other: {ours[0].name} ({first.name}) would reach"
                f" {theirs[0].name} ({second.name})"
            )
        )
    return tuple(hits)


def _masquerades(tables: Tables) -> bool:
    post = tables.chain("nat", "POSTROUTING")
    return post is not None and any(rule.target == "MASQUERADE" for rule in post.rules)


def _works(options: Options, containers: Containers, flushed: list[str]) -> tuple[Effect, ...]:
    ports = tuple(dict.fromkeys(f"{port.host} -> {one.name}" for one in containers.running for port in one.ports))
    if not ports or "nat" not in flushed or not options.on("userland-proxy"):
        return ()
    return (Effect("published ports still answer, through docker-proxy; every client seems to be the bridge:", ports),)


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
