"""A trace as text or JSON."""

from __future__ import annotations

import textwrap
from time import gmtime, strftime
from typing import TYPE_CHECKING

import msgspec

from doctor.model import Note
from doctor.reports.words import middle, safe, step_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.model import Remedy, Trace, TraceStep, Tried

SEES = {
    "connected": "would connect",
    "timeout": "would time out",
    "refused": "would be refused",
    "no-route": "would find no route",
    "unreachable": "would be told that the host is unreachable",
    "reset": "would connect, and then be reset",
}
"""What a client would meet, in words."""
_MET = {
    "connected": "connected",
    "answered": "answered",
    "timeout": "no answer",
    "refused": "refused",
    "no-route": "no route",
    "unreachable": "told that it is unreachable",
    "reset": "connected, then reset",
}
_ARRIVED = {"", "delivered", "leaves"}
_STOPPED = {"drop": "dropped", "reject": "rejected"}
_SENTENCES = {"", "route", "veth", "link", "bridge", "listens", "neighbour", "socket", "conntrack", "outside"}
"""Stages that are no rule of a firewall."""
_WORD = 8
"""Columns at the right edge for what a rule did, when that is one word."""


def as_json(trace: Trace) -> str:
    """Give the struct as it is, one object, indented."""
    return msgspec.json.format(msgspec.json.encode(trace), indent=1).decode() + "\n"


def as_text(trace: Trace, width: int = 80, *, verbose: bool = False) -> str:
    """Give the walk as a person reads it: what would happen, each step with its rule, the way back, what would help."""
    return "\n".join(_Text(width).lines(trace, verbose=verbose)) + "\n"


class _Text:
    """Prints a trace into lines of a width."""

    def __init__(self, width: int) -> None:
        self.width = width

    def lines(self, trace: Trace, *, verbose: bool) -> Iterator[str]:
        """Print all of it."""
        yield self.head(trace)
        yield ""
        for note in trace.notes:
            yield from self.part("name", note)
        for number, step in enumerate(trace.steps, 1):
            yield from self.step(step, f"{number:2} {safe(step.space):<6}")
        whole = verbose or trace.reply_verdict not in _ARRIVED
        back = trace.reply_steps if whole else _telling(trace.reply_steps)
        for number, step in enumerate(back):
            yield from self.step(step, "       " if number else " reply ")
        if trace.full_size:
            yield from self.part("size", trace.full_size)
        if trace.tried is not None:
            yield from self.tried(trace, trace.tried)
        if trace.depends_on:
            yield from self.part("depends", f"on what a snapshot does not tell: {trace.depends_on}")
        if trace.why:
            yield from self.part("why", trace.why)
        if trace.remedy is not None:
            yield from self.remedy(trace.remedy)
        if trace.source == "outside" or trace.verdict == "leaves":
            yield " beyond this host (cloud firewall, switch): not visible from here"
        if trace.coverage:
            yield f" {trace.coverage}"

    def head(self, trace: Trace) -> str:
        """Print what would happen."""
        if trace.works is None:
            said = "depends"
        else:
            said = SEES.get(trace.client_sees or "", trace.verdict)
            if trace.client_sees == "connected" and not trace.works:
                said += (
                    ", and then hang with what is large" if trace.code == "MTU_DF" else ", and then hear nothing more"
                )
            last = trace.steps[-1] if trace.steps else None
            if trace.reply_verdict not in _ARRIVED:
                said += ": the answer does not come back"
            elif last is not None and last.effect in _STOPPED:
                said += f": {_STOPPED[last.effect]} on {'the host' if last.space == 'host' else last.space}"
        line = safe(f"{trace.source} -> {trace.target}  {said}")
        design = "by design"
        return f"{line:<{self.width - len(design) - 2}}  {design}" if trace.by_design else line

    def step(self, step: TraceStep, label: str) -> Iterator[str]:
        """Print one step: a rule with where it stands and what it did, anything else as a sentence."""
        head = f"{label} {step.stage:<9} " if step.stage else f"{label} "
        indent = " " * len(head)
        if step.stage in _SENTENCES or not step.place:
            text = f"{step.text}  {step.effect}" if step.effect in _STOPPED else step.text
            for number, line in enumerate(self.wrap(text, len(head))):
                yield f"{indent if number else head}{line}"
            return
        word = step.effect.upper() if len(step.effect) <= _WORD else ""
        place = safe(step.place.removeprefix(step.stage).strip())
        room = max(10, self.width - len(head) - _WORD)
        yield f"{head}{middle(place, room - 1):<{room}}{word}".rstrip()
        yield from (f"{indent}{line}" for line in self.wrap(step.text, len(indent)))
        if not word:
            yield f"{indent}{'now ' if step.effect.startswith(('to ', 'from ')) else ''}{safe(step.effect)}"

    def tried(self, trace: Trace, tried: Tried) -> Iterator[str]:
        """Print what a real connection met; a disagreement is told loudly."""
        at = strftime("%H:%M:%S", gmtime(tried.at))
        said = f"{at} UTC from {trace.source}: {_MET.get(tried.sees, tried.sees)} after {tried.seconds:.1f} s"
        if tried.agrees is None:
            yield from self.part("tried", said)
        elif tried.agrees:
            yield from self.part("tried", f"{said}, as predicted")
        else:
            yield from self.part("tried", f"{said}: NOT AS PREDICTED ({SEES.get(trace.client_sees or '', '')})")
            yield from self.part("", "please send what `doctor collect -o host.tar.gz` makes: the model is wrong here")

    def remedy(self, remedy: Remedy) -> Iterator[str]:
        """Print what would make it work."""
        yield " to make it work"
        yield from (f"        {line}" for line in self.wrap(f"{remedy.summary}:", 8))
        for cure in remedy.steps:
            if isinstance(cure, Note):
                yield from (f"        {line}" for line in self.wrap(cure.text, 8))
            else:
                yield from (f"          {safe(line)}" for line in step_lines(cure))

    def part(self, label: str, text: str) -> Iterator[str]:
        """Print a labelled paragraph."""
        for number, line in enumerate(self.wrap(text, 8)):
            yield f"        {line}" if number else f" {label + ' ':<7}{line}"

    def wrap(self, text: str, used: int) -> list[str]:
        """Break a sentence into lines that fit beside what is there."""
        room = max(20, self.width - used)
        return textwrap.wrap(safe(text), room, break_long_words=False, break_on_hyphens=False) or [""]


def _telling(steps: tuple[TraceStep, ...]) -> tuple[TraceStep, ...]:
    """Of an answer that arrives, only what let it through and what NAT did are worth a line."""
    return tuple(step for step in steps if step.stage == "conntrack" or step.effect == "accept")
