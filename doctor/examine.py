"""Run the checks on a snapshot: give each the facts it asks for, isolate what fails, time it."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from doctor import vantage
from doctor.model import Finding, NotApplicable, Outcome, Reported, Result, Unknown
from doctor.places import Places
from doctor.snapshot import EvidenceMissing, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.registry import Check, Fact, Registry

SECONDS = 5.0
"""A plugin's generator that goes on for longer is cut off between two of its yields."""


class Examination(Struct, frozen=True):
    """What the checks found. `faults` are faults of doctor or of a plugin, one line each."""

    outcomes: tuple[Outcome, ...]
    findings: tuple[Reported, ...]
    faults: tuple[str, ...]


class Facts:
    """Computes facts on demand, each once. A fact whose evidence is missing is missing for all who ask."""

    def __init__(self, registry: Registry, snapshot: Snapshot) -> None:
        """Start with nothing but the snapshot."""
        self._facts: dict[type, Fact] = registry.facts
        self._made: dict[type, Any] = {Snapshot: snapshot}
        self._failed: dict[type, Exception] = {}
        self._elsewhere = vantage.whole(snapshot)

    def get(self, wanted: type) -> Any:
        """Give a fact. Raises EvidenceMissing, or what the fact's function raised."""
        if wanted in self._made:
            return self._made[wanted]
        if wanted in self._failed:
            raise self._failed[wanted]
        known = self._facts.get(wanted)
        if known is None:
            raise LookupError(f"no fact makes a {wanted.__name__}")
        if self._elsewhere and wanted is not Places:
            raise EvidenceMissing("this host", self._elsewhere)
        try:
            made = known.make(**self.arguments(known.needs, known.optional))
        except Exception as error:
            self._failed[wanted] = error
            raise
        self._made[wanted] = made
        return made

    def arguments(self, needs: dict[str, type], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Give the facts for a function's parameters; None for an optional one whose evidence is missing."""
        given: dict[str, Any] = {}
        for name, wanted in needs.items():
            try:
                given[name] = self.get(wanted)
            except EvidenceMissing:
                if name not in optional:
                    raise
                given[name] = None
        return given


def fingerprint(code: str, subject: str) -> str:
    """Give the id of a finding: equal for equal code and subject, on every run and every machine."""
    return f"{code}-{sha256(f'{code} {subject}'.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def examine(facts: Facts, registry: Registry, checks: Iterable[Check]) -> Examination:
    """Run these checks on the facts of a snapshot, in the order given."""
    outcomes: list[Outcome] = []
    findings: list[Reported] = []
    faults = list(registry.faults)
    for check in checks:
        start = time.perf_counter()
        found: list[Reported] = []
        try:
            result, reason = _run(check, facts, found)
        except EvidenceMissing as missing:
            result, reason = Result.UNKNOWN, str(missing)
        except Exception as error:  # noqa: BLE001 - one check's fault must not cost the others' results
            result, reason = Result.ERROR, _where(error)
            faults.append(f"check {check.code} raised {reason}")
            found = []
        outcomes.append(Outcome(check.code, check.name, result, reason, round((time.perf_counter() - start) * 1000, 3)))
        findings += found
    return Examination(tuple(outcomes), tuple(findings), tuple(faults))


def _run(check: Check, facts: Facts, found: list[Reported]) -> tuple[Result, str]:
    unknown: list[str] = []
    inapplicable = ""
    seen: set[str] = set()
    until = time.monotonic() + SECONDS
    for one in check.run(**facts.arguments(check.needs, check.optional)):
        if time.monotonic() > until:
            raise TimeoutError(f"went on for more than {SECONDS:.0f} s")
        if isinstance(one, Finding):
            if not one.evidence:
                raise ValueError(f"finding about {one.subject!r} cites nothing")
            if one.subject in seen:
                raise ValueError(f"two findings about {one.subject!r}")
            seen.add(one.subject)
            found.append(_report(check, one))
        elif isinstance(one, Unknown):
            unknown.append(one.missing)
        elif isinstance(one, NotApplicable):
            inapplicable = one.why
        else:
            raise TypeError(f"yielded {type(one).__name__}, which is none of Finding, Unknown, NotApplicable")
    if found:
        return Result.FAIL, ""
    if unknown:
        return Result.UNKNOWN, unknown[0]
    if inapplicable:
        return Result.NOT_APPLICABLE, inapplicable
    return Result.PASS, ""


def _report(check: Check, one: Finding) -> Reported:
    return Reported(
        id=fingerprint(check.code, one.subject),
        code=check.code,
        name=check.name,
        severity=one.severity or check.severity,
        subject=one.subject,
        title=one.title,
        message=one.message,
        evidence=one.evidence,
        remedy=one.remedy,
        hits=one.hits,
        works=one.works,
        excluded=one.excluded,
        since=one.since,
        scope=one.scope,
        because=one.because,
        likely=one.likely,
        by_hand=one.by_hand,
    )


def _where(error: Exception) -> str:
    """Say what was raised and where, with nothing of the host in it but the message."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = f" at {last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno}" if last else ""
    text = str(error).split("\n", 1)[0][:200]
    return f"{type(error).__name__}{place}" + (f": {text}" if text else "")
