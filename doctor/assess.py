"""From a snapshot to a report: the host in one line, the checks, the causes, the counts. Pure but for the stopwatch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from doctor import __version__
from doctor.diagnose import diagnose
from doctor.examine import Facts, examine
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.rules import Firewall
from doctor.model import SCHEMA, Counts, HostInfo, Missing, Outcome, Removed, Report, Reported, Result, Severity
from doctor.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.model import Ignore
    from doctor.registry import Check, Registry
    from doctor.snapshot import Snapshot


def assess(
    snapshot: Snapshot,
    registry: Registry,
    checks: Iterable[Check],
    ignores: tuple[Ignore, ...] = (),
    began: float | None = None,
    facts: Facts | None = None,
) -> Report:
    """Judge a snapshot. `began` is when the run began (time.perf_counter), for the report's milliseconds.

    `facts` are those of the snapshot, where somebody else asks for them too.
    """
    began = time.perf_counter() if began is None else began
    facts = facts or Facts(registry, snapshot)
    done = examine(facts, registry, checks)
    findings = tuple(_ignored(one, ignores, snapshot.meta.collected_at) for one in done.findings)
    findings = tuple(sorted(findings, key=lambda one: (-one.severity.rank, one.code, one.subject)))
    causes = diagnose(findings, registry)
    host = _host(snapshot, facts)
    return Report(
        schema=SCHEMA,
        doctor=__version__,
        host=host,
        outcomes=done.outcomes,
        findings=findings,
        diagnoses=causes,
        unsettled=_unsettled(facts),
        missing=_missing(snapshot),
        removed=tuple(Removed(kind, count) for kind, count in sorted(snapshot.removed.items())),
        counts=_counts(done.outcomes, findings, sum(one.severity is Severity.ERROR for one in causes)),
        ms=round((time.perf_counter() - began) * 1000, 1),
        faults=done.faults,
    )


def _ignored(one: Reported, ignores: tuple[Ignore, ...], at: float) -> Reported:
    for ignore in ignores:
        if ignore.covers(one, at):
            return replace(one, ignored=ignore.reason)
    return one


def _counts(outcomes: tuple[Outcome, ...], findings: tuple[Reported, ...], causes: int) -> Counts:
    results = [one.outcome for one in outcomes]
    judged = [one for one in findings if not one.ignored]
    levels = [one.severity for one in judged]
    return Counts(
        checks=len(outcomes),
        ran=results.count(Result.PASS) + results.count(Result.FAIL),
        causes=causes,
        errors=levels.count(Severity.ERROR),
        warnings=levels.count(Severity.WARNING),
        notes=levels.count(Severity.INFO),
        unknown=results.count(Result.UNKNOWN),
        not_applicable=results.count(Result.NOT_APPLICABLE),
        broken=results.count(Result.ERROR),
        ignored=len(findings) - len(judged),
    )


def _missing(snapshot: Snapshot) -> tuple[Missing, ...]:
    """Give what should have been there and was not; what this host simply does not have is not missing."""
    found = []
    for name, record in sorted(snapshot.records.items()):
        if record.status in {"ok", "absent"} or (record.status == "not-run" and "kernel module" in record.why):
            continue
        found.append(Missing(name, record.status, record.why, round(record.ms, 1)))
    return tuple(found)


def _unsettled(facts: Facts) -> tuple[str, ...]:
    found = _try(facts, Containers)
    return found.unsettled if isinstance(found, Containers) else ()


def _try(facts: Facts, wanted: type) -> object:
    try:
        return facts.get(wanted)
    except Exception:  # noqa: BLE001 - the checks that need the fact have said why it is missing
        return None


class _Info(Struct):
    Driver: str = ""


def _host(snapshot: Snapshot, facts: Facts) -> HostInfo:
    daemon = _try(facts, Daemon)
    containers = _try(facts, Containers)
    firewall = _try(facts, Firewall)
    places = _try(facts, Places)
    state, engine = "unreadable", ""
    if isinstance(daemon, Daemon):
        engine = daemon.version
        if daemon.answers:
            state = "answers"
        elif daemon.pid:
            state = "unreadable" if daemon.answer == "denied" else "does not answer"
        else:
            state = "unreadable" if daemon.answer == "denied" else "not running"
    if isinstance(places, Places) and not places.present:
        state = "absent"
    meta = snapshot.meta
    denied = [area for area, name in _AREAS if snapshot.get(name).status == "denied"]
    running = -1
    if isinstance(containers, Containers):
        running = len(containers.running)
    return HostInfo(
        hostname=meta.hostname,
        kernel=meta.kernel.partition("-")[0],
        engine=engine,
        engine_state=state,
        firewall=_backend(firewall, places),
        storage=_storage(snapshot),
        running=running,
        digest=snapshot.digest(),
        collected_at=meta.collected_at,
        utc_offset=meta.utc_offset,
        user=meta.user,
        unreadable=tuple(denied),
    )


_AREAS = (("firewall", "net/iptables-nft"), ("store", "store/overlay2"), ("API", "api/ping"))


def _backend(firewall: object, places: object) -> str:
    if isinstance(firewall, Firewall):
        if any(name.endswith(" docker-bridges") for name in firewall.nft_tables):
            return "nftables"
        for tables in firewall.of("ip"):
            if any(name.startswith("DOCKER") for _, name in tables.chains):
                return f"iptables-{tables.backend}"
    return places.iptables if isinstance(places, Places) and isinstance(firewall, Firewall) else ""


def _storage(snapshot: Snapshot) -> str:
    try:
        return msgspec.json.decode(snapshot.get("api/info").data, type=_Info).Driver
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "overlay2" if snapshot.get("store/overlay2").readable else ""
