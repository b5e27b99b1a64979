"""The report as text: what a person reads on a terminal and pastes into a ticket. `short` is the same for a chat.

The order and the words are a contract with readers: the host in one line, causes, warnings, counts. Everything that came
from the host passes through `words.safe` before it is written.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from msgspec import Struct

from doctor.amounts import plural
from doctor.model import Command, Diagnosis, Edit, EditKey, Effect, Report, Reported, Result, Severity
from doctor.reports import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doctor.model import Citation, Remedy, Step

    Then = Callable[[Diagnosis], str]

INDENT = 8
RIGHT = 78
PLACE = 46
"""Columns that the place of evidence may take before what it says goes to the next line."""
_RED, _YELLOW, _GREEN, _CYAN, _BOLD, _DIM = "31", "33", "32", "36", "1", "2"
_REASONS = 5
"""Rows of what could not be judged; -v has them all."""


class Style(Struct, frozen=True):
    """How to print: width in columns, colour, notes and all evidence (`verbose`), the last line only (`quiet`).

    `source` is the bundle that the report was made from, empty for a live host; it changes the first line only.
    """

    width: int = 80
    colour: bool = False
    verbose: bool = False
    quiet: bool = False
    source: str = ""


def render(report: Report, out: TextIO, style: Style | None = None) -> None:
    """Write the report."""
    out.write("\n".join(_Text(report, style or Style()).lines()) + "\n")


def short(report: Report, out: TextIO, style: Style | None = None) -> None:
    """Write the report for a chat: a line for the host, three for a cause, one for the counts."""
    host = report.host
    del style
    parts = [host.hostname, f"Docker {host.engine}".rstrip(), host.firewall, host.storage, f"Linux {host.kernel}"]
    lines = [" ".join(words.safe(part) for part in parts if part) + f", {words.stamp(host)}"]
    for cause in report.diagnoses:
        label = "FAIL" if cause.severity is Severity.ERROR else "WARN"
        file = next((one.place for one in cause.evidence if one.place.startswith("/etc/")), "")
        lines.append(
            f"{label} {words.safe(cause.code)} {words.safe(cause.title)}" + (f" ({words.safe(file)})" if file else "")
        )
        if cause.severity is Severity.ERROR:
            hits = "; ".join(_flat(effect) for effect in cause.hits[:2])
            if hits:
                lines.append(f"  hits {words.middle(hits, 160)}")
            first = next((step for step in cause.remedy.steps if isinstance(step, Command)), None)
            what = words.command(first) if first else cause.remedy.summary
            lines.append(f"  cure ({cause.remedy.risk}) {words.safe(what)}")
    counts = report.counts
    lines.append(
        f"{plural(counts.causes, 'cause')}, {plural(counts.warnings, 'warning')},"
        f" {counts.unknown} unknown of {counts.checks}; doctor {words.safe(report.doctor)}"
    )
    out.write("\n".join(lines) + "\n")


def _flat(effect: Effect) -> str:
    names = " ".join(words.safe(name) for name in words.shortened(effect.names))
    text = words.safe(effect.text).rstrip(":")
    return f"{text}: {names}" if names else text


def causes(report: Report, style: Style, found: Iterable[Diagnosis], then: Then) -> Iterator[str]:
    """Give the lines of causes as the report has them; `then` gives a command for what no check looks at again."""
    return _Text(report, style).causes(found, then)


def seconds(ms: float) -> str:
    """Print a duration as a person would: `0.44 s`, `2.3 s`, `41 s`.

    >>> seconds(437.0), seconds(2341.0)
    ('0.44 s', '2.3 s')
    """
    value = ms / 1000
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"  # noqa: PLR2004


class _Text:
    """One report being written, line by line."""

    def __init__(self, report: Report, style: Style) -> None:
        self.report = report
        self.style = style

    # The whole

    def lines(self) -> Iterator[str]:
        """Give every line of the report."""
        if self.style.quiet:
            yield self._last()
            return
        yield self._first()
        yield from self.causes(self.report.diagnoses)
        if self.style.verbose:
            yield from self._details()
        unknown = list(self._unknown())
        if self.report.diagnoses or unknown:
            yield ""
        yield from unknown
        if self.report.unsettled:
            several = len(self.report.unsettled) > 1
            went = plural(len(self.report.unsettled), "container")
            yield f"unsettled: {went} came or went meanwhile and {'were' if several else 'was'} not judged"
        yield self._last()
        for fault in self.report.faults:
            yield f"doctor: fault in doctor itself: {words.safe(fault)}"

    def causes(self, found: Iterable[Diagnosis], then: Then | None = None) -> Iterator[str]:
        """Give the lines of causes and warnings; `then` gives a command for what no check looks at again."""
        held = tuple(found)
        errors = [one for one in held if one.severity is Severity.ERROR]
        warnings = [one for one in held if one.severity is Severity.WARNING]
        if errors:
            yield ""
            yield from self._order(errors)
        for number, cause in enumerate(errors):
            if number:
                yield ""
            yield from self._cause(cause, then(cause) if then else "")
        if warnings:
            yield ""
            for cause in warnings:
                if self.style.verbose:
                    yield from self._cause(cause)
                else:
                    yield self._heading("WARN", cause, self.style.width)

    def _first(self) -> str:
        line = words.host_line(self.report.host)
        if self.style.source:
            line += f"; bundle of {words.stamp(self.report.host)[:16]}, doctor {words.safe(self.report.doctor)}"
        return line

    def _order(self, errors: list[Diagnosis]) -> Iterator[str]:
        """Say in which order to cure, where the order matters."""
        if len(errors) == 1:
            return
        text = f"{len(errors)} causes."
        later = next((one for one in errors if one.cure_after), None)
        if later is not None:
            both = "both" if len(errors) == 2 else "all"  # noqa: PLR2004 - both means two
            first = " and ".join(later.cure_after)
            stops = later.remedy.stops
            if stops:
                text += (
                    f" Do not restart Docker before {first} {'is' if len(later.cure_after) == 1 else 'are'} cured:"
                    f" {plural(len(stops), 'container')} would stop,"
                    " and could fail to start again."
                )
            elif len(later.cure_after) == len(errors):
                text += f" Do not restart Docker before {both} are cured."
            else:
                text += f" Cure {first} before {later.code}, which restarts Docker."
        yield from textwrap.wrap(text, self.style.width)
        yield ""

    # One cause

    def _heading(self, label: str, cause: Diagnosis | Reported, width: int = 0) -> str:
        colour = {"FAIL": _RED, "WARN": _YELLOW}.get(label, _DIM)
        title = words.safe(cause.title)
        if width and len(label) + len(cause.code) + len(title) + 4 > width:
            title = words.middle(title, width - len(label) - len(cause.code) - 4)
        return f"{self._paint(label, colour)}  {self._paint(cause.code, _CYAN)}  {title}"

    def _cause(self, cause: Diagnosis, then: str = "") -> Iterator[str]:
        label = "FAIL" if cause.severity is Severity.ERROR else "WARN"
        yield self._heading(label, cause)
        yield from self._part("hits", self._effects(cause.hits))
        yield from self._part("works", self._effects(cause.works))
        yield from self._part("why", self._evidence(cause.evidence))
        if cause.since:
            yield from self._part("since", iter(self._wrap(words.safe(words.since(cause.since, self.report.host)))))
        rivals = (
            line
            for one in cause.excluded
            for line in self._wrap(words.safe(f"{one.rival}: {one.fact}" if one.rival else one.fact))
        )
        yield from self._part("not", rivals)
        yield from self._part("likely", iter(self._wrap(words.safe(cause.likely))))
        yield from self._part("cure", self._cure(cause))
        if cause.by_hand:
            yield from words.by_hand(cause.by_hand)
        yield from self._part("then", iter([words.safe(then) or words.again(cause.code, cause.evidence)]))

    def _part(self, name: str, lines: Iterator[str]) -> Iterator[str]:
        label = name
        for line in lines:
            yield f" {label:<6} {line}".rstrip() if line else ""
            label = ""

    def _wrap(self, text: str, indent: str = "") -> list[str]:
        return textwrap.wrap(
            text,
            self.style.width - INDENT,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _effects(self, effects: Iterable[Effect]) -> Iterator[str]:
        for effect in effects:
            text = words.safe(effect.text)
            names = [words.safe(name) for name in effect.names]
            if not self.style.verbose:
                names = words.shortened(names)
            if not names:
                yield from self._wrap(text)
            elif text.endswith(":"):
                yield from self._wrap(text)
                yield from self._columns(names)
            else:
                yield from self._wrap(f"{text}: {' '.join(names)}", "  ")

    def _columns(self, names: list[str]) -> Iterator[str]:
        line = ""
        for name in names:
            joined = f"{line}    {name}" if line else f"  {name}"
            if line and len(joined) > self.style.width - INDENT:
                yield line
                joined = f"  {name}"
            line = joined
        if line:
            yield line

    def _evidence(self, evidence: Iterable[Citation]) -> Iterator[str]:
        cited = [(words.safe(one.place), words.safe(one.excerpt)) for one in evidence]
        room = self.style.width - INDENT
        column = max((len(place) for place, _ in cited if len(place) <= PLACE), default=0) + 4
        for place, excerpt in cited:
            if len(place) + 4 > column:
                yield place
                yield f"    {self._paint(excerpt if self.style.verbose else words.middle(excerpt, room - 4), _DIM)}"
                continue
            text = excerpt if self.style.verbose else words.middle(excerpt, room - column)
            yield f"{place:<{column}}{self._paint(text, _DIM)}"

    def _cure(self, cause: Diagnosis) -> Iterator[str]:
        remedy = cause.remedy
        head = words.risk(remedy)
        if remedy.lasts == "until-boot":
            head += ". Until the next boot:"
        elif remedy.risk == "safe":
            head += f"; {remedy.summary}"
        yield from self._wrap(words.safe(head), "  ")
        yield from self._steps(remedy.steps)
        yield from self._for_good(remedy)
        if len(remedy.undo) == 1 and isinstance(remedy.undo[0], Command):
            yield f"undo: {words.safe(words.command(remedy.undo[0]))}"
        elif remedy.undo:
            yield "undo:"
            yield from self._steps(remedy.undo)
        if cause.cure_after:
            yield from self._wrap(f"after the cure of {', '.join(cause.cure_after)}: this one restarts Docker")
        for note in remedy.notes:
            yield from self._wrap(words.safe(note), "  ")

    def _for_good(self, remedy: Remedy) -> Iterator[str]:
        for step in remedy.for_good:
            place = words.safe(words.step_place(step))
            yield from self._wrap(f"for good, {place}" if place else "for good:")
            yield from self._step(step)

    def _steps(self, steps: Iterable[Step]) -> Iterator[str]:
        for step in steps:
            place = words.step_place(step)
            if place:
                yield from self._wrap(words.safe(place))
            yield from self._step(step)

    def _step(self, step: Step) -> Iterator[str]:
        if words.is_plain(step):
            for line in words.step_lines(step):
                yield from self._wrap(words.safe(line), "  ")
            return
        for line in words.step_lines(step):
            shown = words.safe(line)
            yield "  " + (shown if isinstance(step, (Edit, EditKey)) else self._paint(shown, _BOLD))

    # Details of -v

    def _details(self) -> Iterator[str]:
        report = self.report
        roots = {one.root for one in report.diagnoses}
        consequences = {other: one.code for one in report.diagnoses for other in one.consequences}
        rest = [one for one in report.findings if one.id not in roots]
        if rest:
            yield ""
        for one in rest:
            label = "note" if one.severity is Severity.INFO else "also"
            why = f"   (ignored: {one.ignored})" if one.ignored else ""
            cause = consequences.get(one.id)
            why += f"   (explained by {cause})" if cause else ""
            yield self._heading(label, one) + words.safe(why)
            yield from self._part("why", self._evidence(one.evidence))
        passed = [one.code for one in report.outcomes if one.outcome is Result.PASS]
        if passed:
            yield ""
            yield from textwrap.wrap(f"passed: {' '.join(passed)}", self.style.width, subsequent_indent="  ")
        for outcome in report.outcomes:
            if outcome.outcome is Result.NOT_APPLICABLE:
                yield f"does not apply: {outcome.code}  {words.safe(outcome.reason)}"
        for missing in report.missing:
            yield words.safe(f"missing: {missing.record}  {missing.status}: {missing.why} ({missing.ms:.0f} ms)")
        if report.unsettled:
            yield "came or went: " + " ".join(words.safe(name) for name in report.unsettled)

    def _unknown(self) -> Iterator[str]:
        """Say what could not be judged, by reason."""
        unknown = [one for one in self.report.outcomes if one.outcome is Result.UNKNOWN]
        if not unknown:
            return
        reasons = Counter(one.reason for one in unknown)
        total = self.report.counts.checks
        yield f"unknown: {len(unknown)} of {plural(total, 'check')}"
        for reason, count in reasons.most_common() if self.style.verbose else _in_short(reasons):
            yield from textwrap.wrap(
                words.safe(reason),
                self.style.width,
                initial_indent=f"  {count:2}  ",
                subsequent_indent="      ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            if self.style.verbose:
                codes = " ".join(one.code for one in unknown if one.reason == reason)
                yield from textwrap.wrap(codes, self.style.width, initial_indent="      ", subsequent_indent="      ")
        if self.report.host.unreadable and self.report.host.user != "root" and not self.style.source:
            yield "  read all of it:  sudo doctor check"

    # The last line

    def _last(self) -> str:
        counts = self.report.counts
        took = seconds(self.report.ms)
        if not counts.errors and not counts.warnings and not counts.broken:
            if counts.unknown:
                # No `ok`: what could not be looked at may be what is broken, and the exit code says so too.
                head = self._paint("incomplete", _YELLOW)
                questions = plural(counts.unknown, "question")
                return f"{head}: {questions} open; {plural(counts.ran, 'check')} found nothing wrong in {took}"
            ok = self._paint("ok", _GREEN)
            line = f"{ok}: {plural(counts.ran, 'check')} found nothing wrong in {took}"
            if counts.not_applicable:
                line += f"; {counts.not_applicable} {'does' if counts.not_applicable == 1 else 'do'} not apply"
            if counts.notes:
                line += f"; {plural(counts.notes, 'note')} (-v)"
            if counts.ignored:
                line += f"; {counts.ignored} ignored"
            return line
        line = f"{plural(counts.causes, 'cause')}, {plural(counts.warnings, 'warning')}"
        line += f", {plural(counts.notes, 'note')}"
        if counts.ignored:
            line += f", {counts.ignored} ignored"
        if counts.unknown:
            line += f", {counts.unknown} unknown; {counts.checks - counts.unknown} of {counts.checks} checks in {took}"
        else:
            line += f"; {counts.checks} checks in {took}"
        first = self.report.diagnoses[0] if self.report.diagnoses else None
        if first is None or self.style.quiet:
            return line
        hint = f"doctor explain {first.code}"
        if len(line) + 2 + len(hint) > RIGHT:
            return line
        return f"{line}{hint:>{RIGHT - len(line)}}"

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.style.colour and text else text


def _in_short(reasons: Counter[str]) -> list[tuple[str, int]]:
    """Give the reasons of one area as one, the most frequent of them, and those beyond a few areas together."""
    areas: dict[str, list[tuple[str, int]]] = {}
    for reason, count in reasons.most_common():
        area, colon, _ = reason.partition(": ")
        areas.setdefault(area if colon else reason, []).append((reason, count))
    held = sorted(
        ((several[0][0], sum(count for _, count in several)) for several in areas.values()), key=lambda one: -one[1]
    )
    if len(held) <= _REASONS:
        return held
    rest = sum(count for _, count in held[_REASONS - 1 :])
    return [*held[: _REASONS - 1], ("for other reasons (-v)", rest)]
