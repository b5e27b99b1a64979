"""`doctor layers` as text: every damaged file by its name, whom it hits, what did it most likely, and what heals."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.amounts import plural
from doctor.model import Command, Result, Severity
from doctor.reports import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.layers.model import Damage
    from doctor.layers.told import LayerList, LayerRow, Verification
    from doctor.model import HostInfo, Remedy, Reported

_INDENT = 8
_SHOWN = 5
_ID = 12
_CHUNKS = ("bit", "zeros", "cut", "emptied")
_RED, _YELLOW, _CYAN, _BOLD = "31", "33", "36", "1"


class LayerStyle(Struct, frozen=True):
    """How to print: width in columns, colour, everything (`verbose`), what was asked for (in the last command)."""

    width: int = 80
    colour: bool = False
    verbose: bool = False
    asked: tuple[str, ...] = ()


def as_json(value: Verification | LayerList | LayerRow) -> str:
    """Print one of them as a document."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def megabytes(count: int) -> str:
    """Print bytes as layers are told: `412 MB`, `1.2 GB`, `8 KB`.

    >>> megabytes(412_000_000), megabytes(1_234_000_000), megabytes(900), megabytes(8_100)
    ('412 MB', '1.2 GB', '900 B', '8 KB')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if unit == "GB" else f"{count // size:,} {unit}"
    return f"{count} B"


def listing(value: LayerList) -> str:
    """Print `doctor layers list`."""
    total = sum(one.bytes for one in value.layers)
    lines = [f"{words.safe(value.host.hostname)}: {plural(len(value.layers), 'layer')}, {megabytes(total)}"]
    if value.layers:
        lines += ["", f" {'LAYER':<{_ID}}  {'DIRECTORY':<{_ID}}  {'SIZE':>7}  USED BY"]
    for one in value.layers:
        used = " ".join(words.safe(name) for name in words.shortened(one.images)) or "-"
        if one.containers:
            used += "; " + " ".join(words.safe(name) for name in words.shortened(one.containers))
        lines.append(f" {_short(one.layer)}  {one.directory[:_ID]:<{_ID}}  {megabytes(one.bytes):>7}  {used}")
    return "\n".join(lines) + "\n"


def _short(layer: str) -> str:
    return words.safe(layer.removeprefix("sha256:")[:_ID])


def layer(rows: tuple[LayerRow, ...], places: dict[str, str], host: HostInfo) -> str:
    """Print `doctor layers explain`: one layer, those below it, where it lies, and who stands on it."""
    one = rows[0]
    lines = [f"layer {_short(one.layer)} of {words.safe(host.hostname)}, {megabytes(one.bytes)}", ""]
    lines += [f" {name:<9} {words.safe(text)}" for name, text in places.items()]
    for name, held in (("images", one.images), ("containers", one.containers)):
        if held:
            lines += _wrapped(f"{name:<9}", " ".join(words.safe(word) for word in held))
    if len(rows) > 1:
        lines.append("")
        lines.append(" on top of, nearest first")
        lines += [
            f"   {_short(below.layer)}  {below.directory[:_ID]}  {megabytes(below.bytes):>7}" for below in rows[1:]
        ]
    lines += ["", " verify it  doctor layers verify --deep " + (one.images[0] if one.images else "")]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _wrapped(label: str, text: str, width: int = 80) -> list[str]:
    return textwrap.wrap(
        f" {label} {text}", width, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False
    )


def verification(value: Verification, style: LayerStyle) -> str:
    """Print `doctor layers verify`."""
    return "\n".join(_Text(value, style).lines()) + "\n"


class _Text:
    def __init__(self, value: Verification, style: LayerStyle) -> None:
        self.value = value
        self.style = style

    def lines(self) -> Iterator[str]:
        for number, one in enumerate(self._ordered()):
            if number:
                yield ""
            yield from self._finding(one)
        if self.value.findings:
            yield ""
        yield from self._unread()
        yield from self._last()

    def _ordered(self) -> list[Reported]:
        """Give what is an error or a warning: what may be somebody's doing first."""
        grave = {one.layer.removeprefix("sha256:") for one in self.value.damages if one.grave}
        shown = [one for one in self.value.findings if self.style.verbose or one.severity is not Severity.INFO]
        return sorted(shown, key=lambda one: (one.subject not in grave, -one.severity.rank, one.code, one.subject))

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.style.colour and text else text

    def _finding(self, one: Reported) -> Iterator[str]:
        error = one.severity is Severity.ERROR
        label = "FAIL" if error else "WARN" if one.severity is Severity.WARNING else "note"
        yield f"{self._paint(label, _RED if error else _YELLOW)}  {self._paint(one.code, _CYAN)}  {words.safe(one.title)}"
        damages = self._of(one)
        if damages:
            yield from self._part("file", self._files(damages))
        else:
            yield from self._part("why", (words.safe(f"{each.place}    {each.excerpt}") for each in one.evidence))
        yield from self._part("hits", (line for each in one.hits for line in self._effect(each.text, each.names)))
        yield from self._part("works", (line for each in one.works for line in self._effect(each.text, each.names)))
        yield from self._part("likely", iter(self._wrap(words.safe(self._likely(one, damages)))))
        yield from self._part("cure", self._cure(one.remedy))
        if one.by_hand:
            yield from words.by_hand(one.by_hand)
        asked = " ".join(self.style.asked) or self._standing(damages)
        read = any(each.record.startswith("layers/") for each in one.evidence)
        deep = "--deep " if damages or (read and self.value.deep) else ""
        yield from self._part("then", iter([f"doctor layers verify {deep}{asked}".rstrip()]))

    def _standing(self, damages: list[Damage]) -> str:
        """Name an image that has the damaged layer: verifying that one alone is enough to know."""
        names = self.value.images.get(damages[0].layer, ()) if damages else ()
        return next((shlex.quote(words.safe(one)) for one in names), "")

    def _of(self, one: Reported) -> list[Damage]:
        """Give the damages that a finding is about: those of its layer that it cites, and of the same kinds."""
        cited = {each.excerpt.partition(":")[0] for each in one.evidence if each.record.startswith("layers/")}
        found = [
            each
            for each in self.value.damages
            if each.layer.removeprefix("sha256:") == one.subject and each.kind in cited
        ]
        return sorted(found, key=lambda each: not each.grave)

    def _files(self, damages: list[Damage]) -> Iterator[str]:
        limit = len(damages) if self.style.verbose else _SHOWN
        for one in damages[:limit]:
            others = {each.kind for each in self.value.damages if (each.layer, each.path) == (one.layer, one.path)}
            what: str = one.kind
            if one.kind == "content" and others == {"content"}:
                what = "content; size, mode and owner as recorded"
            yield f"{words.safe(one.path)}    {what}"
            if one.expected.startswith("CRC-64 "):
                yield f"CRC-64 recorded {one.expected[7:]}, found {one.found}"
            elif one.expected:
                yield from self._wrap(words.safe(f"recorded {one.expected}, found {one.found}"))
            else:
                yield from self._wrap(words.safe(one.found))
            if one.detail:
                yield from self._wrap(words.safe(one.detail))
        if len(damages) > limit:
            yield f"and {len(damages) - limit} more (-v)"

    def _likely(self, one: Reported, damages: list[Damage]) -> str:
        text, since, host = one.likely, one.since, self.value.host
        if not text or since is None or since.latest is None or host is None:
            return text
        text += f". Changed {words.clock(since.latest.at, host)}"
        if since.earliest is not None:
            text += f", after the layer was made ({words.clock(since.earliest.at, host)})"
        if any(each.cause in _CHUNKS for each in damages):
            text += ": look at the kernel log and the disk first"
        return text

    def _effect(self, text: str, names: tuple[str, ...]) -> Iterator[str]:
        shown = " ".join(words.safe(name) for name in words.shortened(names))
        yield from self._wrap(words.safe(text) + (f" {shown}" if shown else ""), "  ")

    def _cure(self, remedy: Remedy) -> Iterator[str]:
        head = words.risk(remedy)
        if remedy.risk == "destructive":
            head = f"{head}; {remedy.summary}" if remedy.stops else f"destructive: {remedy.summary}"
        elif remedy.risk == "safe":
            head += f"; {remedy.summary}"
        yield from self._wrap(words.safe(head), "  ")
        for note in remedy.notes:
            yield from self._wrap(words.safe(note), "  ")
        for step in remedy.steps:
            for line in words.step_lines(step):
                if isinstance(step, Command):
                    yield "  " + self._paint(words.safe(line), _BOLD)
                else:
                    yield from self._wrap(words.safe(line), "  ")

    def _part(self, name: str, lines: Iterator[str]) -> Iterator[str]:
        label = name
        for line in lines:
            yield f" {label:<6} {line}".rstrip()
            label = ""

    def _wrap(self, text: str, indent: str = "") -> list[str]:
        return textwrap.wrap(
            text,
            self.style.width - _INDENT,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _unread(self) -> Iterator[str]:
        unknown = [one for one in self.value.layers if one.state == "unknown"]
        for one in unknown[: len(unknown) if self.style.verbose else _SHOWN]:
            yield f"unknown: layer {_short(one.layer)}: {words.safe(one.why)}"
        if len(unknown) > _SHOWN and not self.style.verbose:
            yield f"unknown: and {len(unknown) - _SHOWN} more (-v)"
        if self.style.verbose:
            yield from (words.safe(f"unread: {_short(one.layer)} {one.path}: {one.why}") for one in self.value.unread)
        open_ = {one.reason for one in self.value.outcomes if one.outcome is Result.UNKNOWN}
        if not self.value.layers:
            yield from (f"unknown: {words.safe(reason)}" for reason in sorted(open_))

    def _last(self) -> Iterator[str]:
        value = self.value
        took = f"{value.ms / 1000:.1f} s"
        if not value.deep:
            wrong = sum(one.severity is Severity.ERROR for one in value.findings)
            state = f"{plural(wrong, 'fault')} in their structure" if wrong else "nothing wrong in their structure"
            yield f"{plural(value.structure, 'layer')}: {state}, in {took}; content was not read (--deep)"
            return
        done = [one for one in value.layers if one.state != "skipped"]
        files, count = sum(one.files for one in done), sum(one.bytes for one in done)
        damaged = sum(one.state == "damaged" for one in done)
        unread = sum(one.unread for one in done)
        yield (
            f"{plural(len(done), 'layer')}, {megabytes(count)}, {files:,} file{'' if files == 1 else 's'}:"
            f" {damaged} damaged, {unread} unreadable in {took}"
        )
        if len(done) < len(value.layers) or any(run.budget for run in value.runs):
            total = sum(one.bytes for one in value.layers)
            share = count / total if total else 1.0
            seed = next((run.seed for run in value.runs if run.seed), "")
            yield (
                f"sample: {len(done)} of {plural(len(value.layers), 'layer')}, {share:.0%} of the bytes,"
                f" chosen by --seed {seed}"
            )
