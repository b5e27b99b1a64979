"""The answer of `doctor why` as text or JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import msgspec

from doctor.amounts import plural
from doctor.model import Counts, Report, Severity, Why
from doctor.reports import text, words
from doctor.reports.trace import SEES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.model import Diagnosis, Looked, Promise

_LABEL = 8
_ROWS = 12
"""Containers that are shown with a line each; of more, only those that are not well."""


def as_json(found: Why) -> str:
    """Give the struct as it is, one object, indented."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"


def schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of the answer, generated from the struct."""
    return msgspec.json.schema(Why)


def as_text(found: Why, style: text.Style | None = None) -> str:
    """Give the answer as a person reads it: one line, what was asked, the causes, what is elsewhere."""
    return "\n".join(_Text(found, style or text.Style()).lines()) + "\n"


class _Text:
    """Prints an answer into lines of a width."""

    def __init__(self, found: Why, style: text.Style) -> None:
        self.found = found
        self.style = style

    def lines(self) -> Iterator[str]:
        """Print all of it."""
        found = self.found
        yield from textwrap.wrap(
            words.safe(f"{found.host.hostname}: {found.answer}"),
            self.style.width,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        rows = list(self.rows())
        if rows:
            yield ""
        yield from rows
        causes = sorted((*found.stopped, *found.diagnoses), key=lambda one: -one.severity.rank)
        yield from text.causes(self.report(), self.style, causes, self.again)
        if self.style.verbose:
            yield from self.notes()
        yield ""
        yield from self.unknown()
        yield self.last()

    def again(self, cause: Diagnosis) -> str:
        """Give the command that follows what was stopped once more, step by step; empty for what a check looks at."""
        if cause.root:
            return ""
        for one in self.found.containers:
            for held in one.promises:
                if held.broken and held.trace.code == cause.code and held.trace.decided_by in {None, *cause.evidence}:
                    return f"doctor trace {held.trace.source} {_target(held)}"
        return ""

    def report(self) -> Report:
        """Give the causes the report that they are printed from."""
        found = self.found
        counts = Counts(found.checks, found.checks, 0, 0, 0, 0, 0, 0, 0, 0)
        return Report(found.schema, found.doctor, found.host, (), (), (), (), (), (), counts, found.ms)

    # What was looked at

    def rows(self) -> Iterator[str]:
        """Print the containers, each with what is expected of it; of a port all of that is in the answer."""
        held = self.found.containers
        if self.found.kind == "port":
            for one in held if self.style.verbose else ():
                yield from self.whole(one)
        elif self.found.kind == "container":
            for one in held:
                yield from self.whole(one)
        else:
            width = min(24, max((len(words.safe(one.name)) for one in held), default=0))
            quiet = len(held) > _ROWS and not self.style.verbose
            for one in held:
                if not quiet or one.well is not True:
                    yield from self.row(one, width)
            well = sum(one.well is True for one in held)
            if quiet and well:
                yield f" {plural(well, 'container')} as {'it' if well == 1 else 'they'} should be (-v)"

    def row(self, one: Looked, width: int) -> Iterator[str]:
        """Print one of several containers."""
        name = words.safe(one.name)
        said = one.state.partition(",")[0] if one.runs and one.well is not False else one.state
        broken = [held for held in one.promises if held.broken]
        asked = sum(held.wanted for held in one.promises)
        if one.runs and not broken and asked:
            said += f"; {plural(asked, 'packet')} asked for would arrive" if one.well else ""
        yield from self.wrapped(f" {name:<{width}}  ", said)
        indent = " " * (width + 3)
        if self.style.verbose:
            yield from (line for held in one.promises for line in self.wrapped(indent, self.flow(held)))
            return
        reasons: dict[str, list[str]] = {}
        for held in broken:
            said = _met(held)
            reasons.setdefault(said, []).append(_about(held))
        for said, abouts in reasons.items():
            yield from self.wrapped(indent, f"{', '.join(words.shortened(abouts))} {said}")

    def whole(self, one: Looked) -> Iterator[str]:
        """Print one container: its state, its ports, its way out, its nameservers, its neighbours."""
        yield from self.part("state", one.state)
        for kind, label in (("port", ""), ("outside", "out"), ("nameserver", "names")):
            groups: dict[str, list[Promise]] = {}
            for held in one.promises:
                if held.kind == kind:
                    groups.setdefault(held.about if kind == "port" else kind, []).append(held)
            for about, group in groups.items():
                yield from self.part(label or about, "; ".join(self.said(held) for held in group))
        yield from self.neighbours(one)
        for note in one.notes:
            yield from self.part("", note)
        if one.remedy is not None:
            yield from self.part("then", f"{one.remedy.summary}:")
            for step in one.remedy.steps:
                yield from (f"{' ' * _LABEL}  {words.safe(line)}" for line in words.step_lines(step))

    def neighbours(self, one: Looked) -> Iterator[str]:
        """Print who is reached on each network: those who are in one line, and a line for each exception."""
        label = ""
        nets = dict.fromkeys(held.about for held in one.promises if held.kind == "neighbour")
        for net in nets:
            held = [each for each in one.promises if each.kind == "neighbour" and each.about == net]
            odd = {each.peer for each in held if not each.kept}
            fine = list(dict.fromkeys(each.peer for each in held if each.peer not in odd))
            label = net
            if fine:
                names = ", ".join(fine if self.style.verbose else words.shortened(fine))
                yield from self.part(label, f"there and back: {names}")
                label = ""
            for each in held:
                if not each.kept:
                    yield from self.part(label, self.flow(each))
                    label = ""

    def said(self, held: Promise) -> str:
        """Say what a client meets: from where, or of which server."""
        if held.kind == "port":
            where = {"host": "from this host", "outside": "from outside"}.get(held.trace.source)
            return f"{where or f'from {held.trace.source}'} {_met(held)}"
        if held.kind == "outside":
            return f"{_met(held)}"
        by = " (dockerd asks it)" if held.trace.source == "host" and self.found.kind == "container" else ""
        return f"{held.about}{by} {_met(held)}"

    def flow(self, held: Promise) -> str:
        """Say of one packet from where to where, and what comes of it."""
        to = held.peer if held.kind == "neighbour" and held.peer != held.trace.source else _target(held)
        design = ", by design" if held.trace.by_design else ""
        return f"{held.trace.source} -> {to} {_met(held)}{design}"

    def part(self, label: str, said: str) -> Iterator[str]:
        """Print a labelled paragraph."""
        shown = words.safe(label)
        if len(shown) >= _LABEL:
            yield f" {shown}"
            shown = ""
        yield from self.wrapped(f" {shown:<{_LABEL - 2}} ", said)

    def wrapped(self, head: str, said: str) -> Iterator[str]:
        """Print a sentence behind a label, in as many lines as it takes."""
        room = max(20, self.style.width - len(head))
        lines = textwrap.wrap(words.safe(said), room, break_long_words=False, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            yield f"{' ' * len(head) if number else head}{line}".rstrip()

    # The end

    def notes(self) -> Iterator[str]:
        """Print the notes that are about it."""
        held = [one for one in self.found.findings if one.severity is Severity.INFO]
        if held:
            yield ""
        for one in held:
            yield f"note  {one.code}  {words.safe(one.title)}"

    def unknown(self) -> Iterator[str]:
        """Print what could not be judged."""
        held = self.found.unknown
        if not held:
            return
        yield f"unknown: {plural(len(held), 'question')}"
        for one in held if self.style.verbose else words.shortened(held, 6):
            yield from self.wrapped("  ", one)

    def last(self) -> str:
        """Print the counts, and what is wrong elsewhere."""
        found = self.found
        errors = sum(one.severity is Severity.ERROR for one in (*found.diagnoses, *found.stopped))
        warnings = len(found.diagnoses) + len(found.stopped) - errors
        took = text.seconds(found.ms)
        done = f"{plural(found.checks, 'check')} and {plural(found.walks, 'walk')} in {took}"
        down = sum(one.well is False and not one.runs for one in found.containers)
        if errors or warnings or found.well is False:
            line = f"{plural(errors, 'cause')}, {plural(warnings, 'warning')}; {done}"
            if not errors and down:
                line = f"{plural(down, 'container')} {'does' if down == 1 else 'do'} not run; {done}"
        elif found.well is None:
            line = f"incomplete: nothing wrong was found in {done}"
        else:
            line = f"ok: nothing wrong with {words.safe(found.subject)} in {done}"
        parts = []
        if found.elsewhere:
            parts.append(plural(found.elsewhere, "cause"))
        if found.warnings_elsewhere:
            parts.append(plural(found.warnings_elsewhere, "warning"))
        return line + (f"; elsewhere {' and '.join(parts)} (doctor check)" if parts else "")


def _met(held: Promise) -> str:
    if held.kept is None:
        return f"may or may not be answered: it depends on {held.trace.depends_on}"
    said = SEES.get(held.trace.client_sees or "", held.trace.verdict)
    if held.kept:
        return said if held.trace.target.endswith("/tcp") else "would be reached"
    if held.trace.client_sees == "connected":
        said = "would connect, and then hear nothing more"
    return said + (f": {held.trace.why}" if held.trace.why else "")


def _about(held: Promise) -> str:
    """Name what is expected in a word or two, of a container that is named before."""
    if held.kind == "port":
        return f"{held.about} from {'this host' if held.trace.source == 'host' else 'outside'}"
    if held.kind == "neighbour":
        return f"to {held.peer}"
    return "the way out" if held.kind == "outside" else f"nameserver {held.about}"


def _target(held: Promise) -> str:
    return held.trace.target.removesuffix("/tcp").removesuffix(" (icmp echo)")
