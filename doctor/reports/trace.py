"""A trace as text or JSON."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import msgspec

from doctor.model import Note
from doctor.reports.words import middle, safe, step_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.model import Trace, TraceStep

_SEES = {
    "connected": "would connect",
    "timeout": "would time out",
    "refused": "would be refused",
    "no-route": "would find no route",
    "unreachable": "would be told that the host is unreachable",
    "reset": "would connect, and then be reset",
}


def as_json(trace: Trace) -> str:
    """Give the struct as it is, one object, indented."""
    return msgspec.json.format(msgspec.json.encode(trace), indent=1).decode() + "\n"


def as_text(trace: Trace, width: int = 80, *, verbose: bool = False) -> str:
    """Give the walk as a person reads it: what would happen, each step with its rule, the way back, what would help."""
    return "\n".join(_lines(trace, width, verbose=verbose)) + "\n"


def _lines(trace: Trace, width: int, *, verbose: bool) -> Iterator[str]:
    yield _head(trace, width)
    yield ""
    for note in trace.notes:
        yield from _part("name", note, width)
    yield from _steps(trace.steps, width, number=True)
    answered = trace.reply_verdict not in {"", "delivered", "leaves"}
    shown = trace.reply_steps if verbose or answered else _telling(trace.reply_steps)
    for at, step in enumerate(shown):
        lines = list(_step(step, width, " reply " if not at else "       "))
        yield from lines
    if trace.depends_on:
        yield from _part("depends", f"on what a snapshot does not tell: {trace.depends_on}", width)
    if trace.why:
        yield from _part("why", trace.why, width)
    if trace.remedy is not None:
        yield " to make it work"
        yield from (f"        {line}" for line in _wrap(trace.remedy.summary + ":", width - 8))
        for step in trace.remedy.steps:
            yield from (f"          {safe(line)}" for line in step_lines(step) if not isinstance(step, Note))
            if isinstance(step, Note):
                yield from (f"        {line}" for line in _wrap(step.text, width - 8))
    if trace.source == "outside" or trace.verdict == "leaves":
        yield " beyond this host (cloud firewall, switch): not visible from here"
    if trace.coverage:
        yield f" {trace.coverage}"


def _head(trace: Trace, width: int) -> str:
    if trace.works is None:
        said = "depends"
    else:
        said = _SEES.get(trace.client_sees or "", trace.verdict)
        last = (trace.steps or (None,))[-1]
        if trace.reply_verdict not in {"", "delivered", "leaves"}:
            said += ": the answer does not come back"
        elif last is not None and last.effect in {"drop", "reject"}:
            said += f": {'dropped' if last.effect == 'drop' else 'rejected'} on {'the host' if last.space == 'host' else last.space}"
    line = safe(f"{trace.source} -> {trace.target}  {said}")
    if trace.by_design:
        line = f"{line}  by design" if len(line) + 11 > width else f"{line:<{width - 9}}by design"
    return line


def _telling(steps: tuple[TraceStep, ...]) -> tuple[TraceStep, ...]:
    """Of an answer that arrives, only what let it through and what NAT did are worth a line."""
    return tuple(step for step in steps if step.stage == "conntrack" or step.effect == "accept")


def _steps(steps: tuple[TraceStep, ...], width: int, *, number: bool) -> Iterator[str]:
    last = ""
    count = 0
    for step in steps:
        same = step.space == last
        count += 1
        label = f"{count:2} {step.space:<6}" if number else ""
        yield from _step(step, width, label if not same or number else "")
        last = step.space


def _step(step: TraceStep, width: int, label: str) -> Iterator[str]:
    head = f"{label} {step.stage:<9} " if step.stage else f"{label} "
    effect = step.effect.upper() if step.effect in {"drop", "accept", "reject"} else step.effect
    indent = " " * min(len(head), 22)
    if step.place and step.stage not in {"route", "veth", "link", "bridge", "listens", "neighbour", "socket"}:
        place = safe(step.place.removeprefix(step.stage).strip())
        if place.startswith("nft "):
            place = place.split(" ", 3)[-1]
        yield f"{head}{middle(place, width - len(head) - 8):<{max(0, width - len(head) - 8)}} {effect if len(effect) < 8 else ''}".rstrip()
        yield from (f"{indent}{line}" for line in _wrap(safe(step.text), width - len(indent)))
        if len(effect) >= 8:
            yield f"{indent}{'now ' if effect[:3] == 'to ' or effect[:5] == 'from ' else ''}{safe(effect)}"
        return
    text = safe(step.text) + (f"  {effect}" if effect and step.stage in {"veth", "bridge", "neighbour"} else "")
    lines = _wrap(text, width - len(indent)) or [""]
    yield f"{head}{lines[0]}"
    yield from (f"{indent}{line}" for line in lines[1:])


def _part(label: str, text: str, width: int) -> Iterator[str]:
    for at, line in enumerate(_wrap(safe(text), width - 8)):
        yield f" {label:<7}{line}" if not at else f"        {line}"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)
