"""What the HTML report says: the values of a report as words, lines and groups. The markup is in the template."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from doctor.amounts import plural
from doctor.model import Command, Diagnosis, Moment, Note, Reported, Result, Severity
from doctor.reports import text, words
from doctor.reports._paste import command_line
from doctor.reports._visible import Clock, one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doctor.model import Report, Since, Step


_TITLE_WIDTH = 120
_FOLD = 5


# Verdict


def causes(report: Report) -> tuple[Diagnosis, ...]:
    """Give the diagnoses that are errors, in their order."""
    return tuple(each for each in report.diagnoses if each.severity is Severity.ERROR)


def _undone(report: Report) -> int:
    """Count the checks that came to no result."""
    return report.counts.unknown + report.counts.broken


def _found(report: Report) -> bool:
    """Tell whether anything is wrong; notes are not."""
    return bool(causes(report) or report.counts.errors or report.counts.warnings)


def headline(report: Report) -> str:
    """Say in a few words what came of it. Nothing is called right that could not be looked at."""
    counts = report.counts
    if causes(report):
        return plural(len(causes(report)), "cause")
    if _found(report):
        return plural(counts.errors or counts.warnings, "error" if counts.errors else "warning")
    if _undone(report):
        return f"{_undone(report)} of {plural(counts.checks, 'check')} unknown"
    return f"{plural(counts.ran, 'check')} found nothing wrong"


def title(report: Report) -> str:
    """Give the title of the page: the first cause, or the headline."""
    found = causes(report)
    said = shortened(one_line(found[0].title), _TITLE_WIDTH) if found else headline(report)
    more = f" (and {plural(len(found) - 1, 'cause')} more)" if len(found) > 1 else ""
    return f"{said}{more} - {shortened(report.host.hostname, _TITLE_WIDTH)}"


def summary(report: Report) -> Iterator[str]:
    """Give the lines below the headline: the other counts, and the order of the cures."""
    counts = report.counts
    took = text.seconds(report.ms)
    parts = [plural(counts.notes, "note")]
    parts += [
        f"{number} {word}" for number, word in ((counts.ignored, "ignored"), (counts.unknown, "unknown")) if number
    ]
    if counts.broken:
        parts.append(f"{counts.broken} broken by a fault of doctor")
    if report.unsettled:
        parts.append(f"{plural(len(report.unsettled), 'container')} came or went, not judged")
    if not _found(report):
        others = f"the other {plural(counts.ran, 'check')} found nothing wrong in {took}"
        done = others if _undone(report) else f"in {took}"
        idle = f"{counts.not_applicable} {'does' if counts.not_applicable == 1 else 'do'} not apply"
        yield "; ".join([*([done] if counts.ran else ()), *([idle] if counts.not_applicable else ()), *parts])
        return
    if causes(report) or counts.errors:
        parts.insert(0, plural(counts.warnings, "warning"))
    done = f"{counts.checks - _undone(report)} of " if _undone(report) else ""
    yield f"{', '.join(parts)}; {done}{plural(counts.checks, 'check')} in {took}"
    for each in causes(report):
        if each.cure_after:
            yield _order(each)


def _order(cause: Diagnosis) -> str:
    first = " and ".join(part for part in (", ".join(cause.cure_after[:-1]), cause.cure_after[-1]) if part)
    remedy = cause.remedy
    if remedy.restarts == "dockerd" and remedy.stops:
        return (
            f"Do not restart Docker before {first} {'is' if len(cause.cure_after) == 1 else 'are'} cured:"
            f" {plural(len(remedy.stops), 'container')} would stop, and could fail to start again."
        )
    why = {"dockerd": ", which restarts Docker", "host": ", which restarts the host"}.get(remedy.restarts or "", "")
    return f"Cure {first} before {cause.code}{why}."


# Findings


class Entry(Struct, frozen=True):
    """A finding as a page shows it: `shown` is the diagnosis it is the root of, or the finding itself."""

    anchor: str
    shown: Diagnosis | Reported
    finding: Reported | None
    consequences: tuple[Entry, ...] = ()


class Family(Struct, frozen=True):
    """Findings of one code; more than five are folded into one line."""

    code: str
    name: str
    entries: tuple[Entry, ...]

    @property
    def folded(self) -> bool:
        """True when a page shows one line for all of them."""
        return len(self.entries) > _FOLD


class Findings(Struct, frozen=True):
    """Every finding of a report, each in one place. `errors` are those that no diagnosis accounts for."""

    causes: tuple[Entry, ...]
    errors: tuple[Family, ...]
    warnings: tuple[Family, ...]
    notes: tuple[Family, ...]
    ignored: tuple[Family, ...]


_ID = re.compile(r"[A-Za-z0-9-]{4,64}")


def sort_findings(report: Report) -> Findings:
    """Put each finding where a page shows it: once, below its cause where it has one."""
    entries: dict[str, Entry] = {}
    alone: list[Entry] = []
    for number, finding in enumerate(report.findings, 1):
        unique = _ID.fullmatch(finding.id) and finding.id not in entries
        entry = Entry(f"f-{finding.id if unique else number}", finding, finding)
        alone.append(entry)
        entries.setdefault(finding.id, entry)
    told = set[str]()
    parts: dict[Severity, list[Entry]] = {severity: [] for severity in Severity}
    for number, diagnosis in enumerate(report.diagnoses, 1):
        # A report that was tampered with may name one finding twice; a page has it, and its anchor, once.
        root = entries.get(diagnosis.root) if diagnosis.root not in told else None
        told.add(diagnosis.root)
        below = [each for each in dict.fromkeys(diagnosis.consequences) if each not in told and each in entries]
        told.update(below)
        anchor = root.anchor if root else f"c-{number}"
        entry = Entry(anchor, diagnosis, root.finding if root else None, tuple(entries[each] for each in below))
        parts[diagnosis.severity].append(entry)
    found, parts[Severity.ERROR] = parts[Severity.ERROR], []
    ignored: list[Entry] = []
    for entry, finding in zip(alone, report.findings, strict=True):
        if finding.id in told and entries[finding.id] is entry:
            continue
        if finding.ignored:
            ignored.append(entry)
        else:
            parts[finding.severity].append(entry)
    return Findings(
        causes=tuple(found),
        errors=_families(parts[Severity.ERROR]),
        warnings=_families(parts[Severity.WARNING]),
        notes=_families(parts[Severity.INFO]),
        ignored=_families(ignored),
    )


def _families(entries: Iterable[Entry]) -> tuple[Family, ...]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.shown.code, []).append(entry)
    return tuple(
        Family(code, next((entry.finding.name for entry in group if entry.finding), ""), tuple(group))
        for code, group in groups.items()
    )


# The parts of a finding


Cell = str | tuple[str, ...] | Moment
"""What stands in a cell: text, codes, or a moment (of which the time is shown)."""

Kind = Literal["text", "lead", "bold", "cells", "command", "edit", "names", "effects", "evidence", "rivals", "entries"]


class Block(Struct, frozen=True):
    """A piece of a part: what the template needs to print it, by kind."""

    kind: Kind
    value: Any
    more: Any = ""


def parts(entry: Entry) -> Iterator[tuple[str, list[Block]]]:
    """Give a finding's parts in the order of every report, each with its label; absent when empty."""
    shown = entry.shown
    if shown.hits:
        yield "hits", [Block("effects", shown.hits)]
    if shown.works:
        yield "works", [Block("effects", shown.works)]
    if shown.evidence:
        yield "why", [Block("evidence", shown.evidence)]
    if shown.since:
        yield "since", [Block("cells", list(_since(shown.since)))]
    if shown.excluded:
        yield "not", [Block("rivals", shown.excluded)]
    if entry.consequences:
        yield "also", [Block("entries", entry.consequences)]
    yield "cure", list(_cure(shown))
    if shown.severity is not Severity.INFO:
        yield "then", [Block("command", one_line(words.again(shown.code, shown.evidence)))]


def _since(value: Since) -> Iterator[Cell]:
    early, late = value.earliest, value.latest
    if late and (value.exact or not early):
        yield from (late, f" ({late.what})" if value.exact else f" at the latest ({late.what})")
        if early:
            yield from (f"; {early.what} at ", early)
    elif early and late:
        yield from ("between ", early, f" ({early.what}) and ", late, f" ({late.what})")
    elif early:
        yield from ("later than ", early, f" ({early.what})")


def _cure(shown: Diagnosis | Reported) -> Iterator[Block]:
    remedy = shown.remedy
    risk = words.risk(remedy)
    yield Block("bold", risk, f"{'' if risk.endswith(':') else '.'} {remedy.summary}" if remedy.summary else "")
    if len(remedy.stops) > words.NAMES:
        yield Block("names", remedy.stops, "all that stop: ")
    if len(remedy.stays_down) > words.NAMES and remedy.stays_down != remedy.stops:
        yield Block("names", remedy.stays_down, "all that stay down: ")
    if isinstance(shown, Diagnosis) and shown.cure_after:
        yield Block("text", f"after the cure of {', '.join(shown.cure_after)}")
    for lead, steps in (
        ("until the next boot" if remedy.lasts == "until-boot" else "", remedy.steps),
        ("for good", remedy.for_good),
        ("undo", remedy.undo),
    ):
        for number, step in enumerate(steps):
            yield from _step(step, lead if not number else "")
    for note in remedy.notes:
        yield Block("text", note)


def _step(step: Step, lead: str) -> Iterator[Block]:
    """Give a step; the lead is what holds from this one on: `for good`."""
    place = words.step_place(step)
    if lead or place:
        yield Block("lead", ", ".join(part for part in (lead, place) if part) if place else f"{lead}:")
    if isinstance(step, Command):
        yield Block("command", command_line(step))
    elif isinstance(step, Note):
        yield Block("text", step.text)
    else:
        yield Block("edit", words.step_lines(step))


# Tables


class Table(Struct, frozen=True):
    """A table: rows in groups, each group below a heading of its own when it has one. `look` is its class."""

    look: str
    caption: str
    heads: tuple[str, ...]
    groups: tuple[tuple[str, list[tuple[Cell, ...]]], ...]


def host_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Give the host as names and values; what could not be known says so."""
    host = report.host
    yield "host", host.hostname or "not known"
    yield "kernel", host.kernel or "not known"
    yield "engine", f"Docker {host.engine}" if host.engine else "not known"
    yield "state of the engine", host.engine_state or "not known"
    yield "firewall", host.firewall or "not known"
    yield "storage driver", host.storage or "not known"
    yield "running containers", str(host.running) if host.running >= 0 else "not known"
    yield "read as", host.user or "not known"
    if host.unreadable:
        yield "not readable as this user", ", ".join(host.unreadable)


def origin(report: Report, clock: Clock) -> Iterator[tuple[str, str]]:
    """Give how the report was made, as names and values."""
    host, counts = report.host, report.counts
    yield "doctor", f"{report.doctor}, schema {report.schema} of the report"
    yield "evidence of", clock.stamp(host.collected_at)
    yield "digest of the evidence", host.digest
    yield "time taken", text.seconds(report.ms)
    idle = f"{counts.not_applicable} {'does' if counts.not_applicable == 1 else 'do'} not apply"
    yield "checks", f"{counts.checks}: {counts.ran} ran, {counts.unknown} unknown, {idle}, {counts.broken} broken"
    levels = (plural(counts.errors, "error"), plural(counts.warnings, "warning"))
    notes = plural(counts.notes, "note")
    yield "findings", f"{len(report.findings)}: {', '.join(levels)}, {notes}, {counts.ignored} ignored"
    yield "removed from the evidence", ", ".join(f"{one.count} {one.kind}" for one in report.removed) or "nothing"


def unknown_tables(report: Report) -> Iterator[Table]:
    """Give what is unknown: checks by reason, the most frequent first; missing evidence; checks that raised."""
    reasons: dict[str, list[str]] = {}
    for outcome in report.outcomes:
        if outcome.outcome is Result.UNKNOWN:
            reasons.setdefault(outcome.reason, []).append(outcome.code)
    if reasons:
        rows: list[tuple[Cell, ...]] = [
            (str(len(codes)), reason, tuple(codes))
            for reason, codes in sorted(reasons.items(), key=lambda item: -len(item[1]))
        ]
        caption = f"{plural(report.counts.unknown, 'check')} could not be judged"
        yield Table("unknown", caption, ("checks", "why", "codes"), (("", rows),))
    if report.missing:
        rows = [(one.record, one.status, one.why, f"{one.ms:.1f}") for one in report.missing]
        heads = ("record", "status", "why", "waited, ms")
        yield Table("missing", "evidence that could not be had", heads, (("", rows),))
    broken = [one for one in report.outcomes if one.outcome is Result.ERROR]
    if broken:
        rows = [((one.code,), one.name, one.reason) for one in broken]
        yield Table("broken", "checks that failed, by a fault of doctor", ("code", "name", "why"), (("", rows),))


def _all(report: Report) -> Iterator[Diagnosis | Reported]:
    yield from report.diagnoses
    yield from report.findings


def _moments(since: Since | None) -> list[Moment]:
    return [moment for moment in (since.earliest, since.latest) if moment] if since else []


def timeline(report: Report) -> Table:
    """Give every moment that a cause or finding names, in the order of time, and the collection of the evidence."""
    moments: dict[tuple[float, str], tuple[Moment, dict[str, None]]] = {}
    for each in _all(report):
        for moment in _moments(each.since):
            moments.setdefault((moment.at, moment.what), (moment, {}))[1][each.code] = None
    told = [*moments.values(), (Moment(report.host.collected_at, "this evidence was collected"), {})]
    rows: list[tuple[Cell, ...]] = [
        (moment, moment.what, moment.evidence.place if moment.evidence else "", tuple(codes))
        for moment, codes in sorted(told, key=lambda item: item[0].at)
    ]
    heads = ("when", "what", "where it is written", "code")
    return Table("timeline", "moments that the evidence gives, by the clock of the host", heads, (("", rows),))


def cited(report: Report) -> Table:
    """Give every line of evidence that a finding rests on, once, by record and number."""
    records: dict[str, dict[tuple[int, str], dict[str, None]]] = {}
    for each in _all(report):
        for citation in (*each.evidence, *(moment.evidence for moment in _moments(each.since))):
            if citation is not None:
                key = (citation.line, citation.excerpt)
                records.setdefault(citation.record, {}).setdefault(key, {})[each.code] = None
    groups: list[tuple[str, list[tuple[Cell, ...]]]] = [
        (record, [(str(line), excerpt, tuple(codes)) for (line, excerpt), codes in sorted(lines.items())])
        for record, lines in sorted(records.items())
    ]
    return Table("cited", "by record; line 0 is a record as a whole", ("line", "text", "code"), tuple(groups))


def outcomes(report: Report) -> Table:
    """Give what became of each check."""
    rows: list[tuple[Cell, ...]] = [
        ((one.code,), one.name, one.outcome.value, one.reason, f"{one.ms:.1f}") for one in report.outcomes
    ]
    return Table("checks", "what became of each check", ("code", "name", "outcome", "why", "ms"), (("", rows),))


# Cures and the ticket
