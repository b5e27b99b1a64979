"""Who reaches whom, as a table or JSON."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from doctor.amounts import plural
from doctor.model import Reach
from doctor.reports.words import middle, safe, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from doctor.model import ReachPort, ReachReason

MOST = 12
"""Containers that have a row each; with more of them, a row is a network."""

NAME, SHORT = 16, 10
"""Columns for a name, and for one in a short table; a longer one is cut in the middle."""

APART = 3
"""Published ports that are spelt out where several are alike."""

EXCEPTIONS = 20
"""Exceptions that are spelt out."""

_HOST, _OUTSIDE = "host", "outside"
_HERE = {"yes", "refused"}


def as_json(found: Reach) -> str:
    """Give the struct as it is, one object, indented."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"


def schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of the matrix, generated from the struct."""
    return msgspec.json.schema(Reach)


def as_text(found: Reach, width: int = 80, *, verbose: bool = False) -> str:
    """Give the table as a person reads it, what its letters stand for, and whether the promises are kept."""
    return "\n".join(Grid(found, width, verbose=verbose).lines()) + "\n"


class Line(Struct):
    """A row or column: its label, the network that it belongs to, the ends that it stands for, how many there are."""

    label: str
    network: str
    names: tuple[str, ...]


class Grid:
    """A matrix as rows, columns and cells, printed into lines of a width."""

    def __init__(self, found: Reach, width: int, *, verbose: bool) -> None:
        """Sort the flows into cells."""
        self.found = found
        self.width = width
        self.verbose = verbose
        cells: dict[tuple[str, str], dict[str, list[str]]] = {}
        for flow in found.flows:
            answer = "yes" if flow.answer in _HERE else flow.answer
            shown = f"{flow.port}/udp" if flow.protocol == "udp" else str(flow.port or "ping")
            cells.setdefault((flow.source, flow.target), {}).setdefault(answer, []).append(shown)
        self.cells = cells
        self.short = False
        self.kinds = {one.letter: one.kind for one in found.reasons}
        self.sources = {source for source, _ in cells}
        self.targets = {target for _, target in cells}
        self.single = len(found.ends) <= MOST
        self.networks = list(dict.fromkeys(end.networks[0] if end.networks else "" for end in found.ends))

    def lines(self) -> Iterator[str]:
        """Print all of it."""
        yield self.head()
        yield ""
        if self.cells:
            yield from self.table()
            yield from self.exceptions()
        elif not self.found.ends:
            yield " no container with a network of its own runs"
        told = list(self.told())
        if told:
            yield ""
            yield from told
        yield from self.last()

    def head(self) -> str:
        """Print the host in one line."""
        found = self.found
        held = {name for end in found.ends for name in end.networks}
        ports = {(one.container, one.port, one.protocol) for one in found.ports}
        parts = [plural(len(found.ends), "container"), plural(len(held), "network")]
        if found.asked[0] in {"", _OUTSIDE}:
            parts.append(plural(len(ports), "published port"))
        source, target = found.asked
        way = f"; from {source}" * bool(source) + f"; to {target}" * bool(target)
        return safe(f"{found.host}: {', '.join(parts)}{way}")

    # The table

    def rows(self) -> list[Line]:
        """Give what has a row."""
        return [
            *self.grouped(self.sources),
            *(Line(name, "", (name,)) for name in (_HOST, _OUTSIDE) if name in self.sources),
        ]

    def grouped(self, held: set[str]) -> list[Line]:
        """Give a line for each container, or for each network where there are too many, of those that are asked for."""
        ends = [end for end in self.found.ends if end.name in held]
        if len(ends) == 1 or self.single:
            return [Line(end.name, end.networks[0] if end.networks else "", (end.name,)) for end in ends]
        found = []
        for network in self.networks:
            names = tuple(end.name for end in ends if (end.networks[0] if end.networks else "") == network)
            if names:
                found.append(Line(network, network, names))
        return found

    def cell(self, row: Line, column: Line) -> str:
        """Give what stands where two lines meet: what most of the pairs have."""
        if row.names == column.names and len(row.names) == 1:
            return "."
        found = Counter(self.answer(source, target) for source in row.names for target in column.names)
        found.pop("", None)
        return found.most_common(1)[0][0] if found else ""

    def columns(self) -> list[Line]:
        """Give what has a column, the outside too."""
        outside = [Line(_OUTSIDE, "", (_OUTSIDE,))] if _OUTSIDE in self.targets else []
        return [*self.grouped(self.targets), *outside]

    def answer(self, source: str, target: str) -> str:
        """Give the answer of a pair: `part` where its ports do not have the same; empty where it was not judged."""
        held = self.cells.get((source, target), {})
        return next(iter(held)) if len(held) == 1 else "part" if held else ""

    def table(self) -> Iterator[str]:
        """Print the table; columns are numbers where their names are too wide, and sentences where these are."""
        rows, columns = self.rows(), self.grouped(self.targets)
        ports = self.published()
        whole = self.found.asked == ("", "")  # else a row is not whom a port belongs to
        for short, beside in ((False, whole), (False, False), (True, whole), (True, False)):
            made = list(_Drawing(self, rows, columns, ports if beside else {}, short=short).lines())
            if max(len(line) for line in made) <= self.width:
                yield from made
                self.short = short
                break
        else:
            beside = False
            yield from self.sentences(rows, columns, outside=_OUTSIDE in self.targets)
        if ports and not beside:
            yield ""
            text = "; ".join(f"{name} {text}" for name, text in ports.items() if text != "-")
            yield from self.part("outside reaches", text or "no port")

    def sentences(self, rows: Sequence[Line], columns: Sequence[Line], *, outside: bool) -> Iterator[str]:
        """Print each row as a list of what it reaches."""
        lines = [*columns, *([Line(_OUTSIDE, "", (_OUTSIDE,))] if outside else [])]
        for row in rows:
            found: dict[str, list[str]] = {}
            for column in lines:
                found.setdefault(self.cell(row, column), []).append(column.label)
            text = "; ".join(
                f"{answer}: {' '.join(names if self.verbose else shortened(names))}"
                for answer, names in found.items()
                if answer not in {"", "."}
            )
            yield from self.part(middle(row.label, NAME), text)

    def published(self) -> dict[str, str]:
        """Give for each row which ports of it are reached from outside."""
        found: dict[str, list[ReachPort]] = {}
        for one in self.found.ports:
            found.setdefault(one.container, []).append(one)
        rows = self.grouped({end.name for end in self.found.ends}) if found else []
        shown = {}
        for row in rows:
            ports = [one for name in row.names for one in found.get(name, ())]
            shown[row.label] = self.counted(ports) if len(row.names) > 1 else self.listed(ports)
        return shown

    def counted(self, ports: Sequence[ReachPort]) -> str:
        """Count the ports of a network that are reached from outside."""
        asked = {(one.container, one.port, one.protocol): one.outside for one in ports if one.outside != "-"}
        if not asked:
            return "-"
        good = sum(answer in _HERE for answer in asked.values())
        return f"{good} of {plural(len(asked), 'port')}"

    def listed(self, ports: Sequence[ReachPort]) -> str:
        """List the ports of one container, with what keeps one from being reached."""
        shown: dict[str, None] = {}
        alone: dict[str, None] = {}
        for one in ports:
            name = f"{one.port}/{one.protocol}" if one.protocol != "tcp" else str(one.port)
            if one.outside == "-":
                alone[f"{name} on {one.address}"] = None
            elif one.outside == "yes":
                shown[name] = None
            else:
                shown[f"{name} ({one.outside})"] = None
        text = " ".join(shown) or "-"
        return f"{text} ({', '.join(alone)})" if alone else text

    # What stands below

    def exceptions(self) -> Iterator[str]:
        """Spell out what differs from what stands in the table."""
        lines = list(self.differing())
        lines += [
            f"{_OUTSIDE} -> {one.container}, port {one.port}  {one.outside}"
            for one in self.found.ports
            if not self.single and one.outside not in {"yes", "-"}
        ]
        lines += list(self.ports_apart())
        if not lines:
            return
        yield ""
        limit = len(lines) if self.verbose else EXCEPTIONS
        for at, line in enumerate(shortened(lines, limit)):
            yield from self.part("" if at else "but", line)

    def differing(self) -> Iterator[str]:
        """Spell out the pairs that differ: all of one container with a network in one line, where they are alike."""
        rows = {name: row for row in self.rows() for name in row.names}
        columns = {name: column for column in self.columns() for name in column.names}
        shown: dict[tuple[str, str], str] = {}
        apart: list[tuple[str, str]] = []
        there: dict[tuple[str, str], set[str]] = {}
        back: dict[tuple[str, str], set[str]] = {}
        for source, target in self.cells:
            row, column = rows[source], columns[target]
            if (row.label, column.label) not in shown:
                shown[row.label, column.label] = self.cell(row, column)
            answer = self.answer(source, target)
            there.setdefault((source, column.label), set()).add(answer)
            back.setdefault((row.label, target), set()).add(answer)
            if answer == "part" or answer != shown[row.label, column.label]:
                apart.append((source, target))
        told: set[str] = set()
        for source, target in apart:
            row, column = rows[source], columns[target]
            answer = self.answer(source, target)
            line = self.exception(source, target)
            if answer != "part" and len(column.names) > 1 and there[source, column.label] == {answer}:
                line = f"{source} -> {column.label} ({len(column.names)})  {answer}"
            elif answer != "part" and len(row.names) > 1 and back[row.label, target] == {answer}:
                line = f"{row.label} ({len(row.names)}) -> {target}  {answer}"
            if line not in told:
                told.add(line)
                yield line

    def exception(self, source: str, target: str) -> str:
        """Spell out one pair."""
        held = self.cells[source, target]
        if len(held) == 1:
            return f"{source} -> {target}  {next(iter(held))}"
        return f"{source} -> {target}  " + ", ".join(f"{' '.join(ports)} {answer}" for answer, ports in held.items())

    def ports_apart(self) -> Iterator[str]:
        """Spell out the published ports that the host or containers do not reach, where Docker did not mean it."""
        found: dict[tuple[str, str], list[str]] = {}
        for one in self.found.ports:
            name = f"port {one.port} of {one.container}"
            if self.strange(one.host):
                found.setdefault((_HOST, one.host), []).append(name)
            for answer, count in one.containers.items():
                if self.strange(answer):
                    found.setdefault((plural(count, "container"), answer), []).append(name)
            if self.strange(one.itself):
                found.setdefault(("the container itself", one.itself), []).append(name)
        for (who, answer), names in found.items():
            if self.verbose or len(names) <= APART:
                yield from (f"{who} -> {name}  {answer}" for name in names)
            else:
                yield f"{who} -> {names[0]} and {len(names) - 1} more  {answer}"

    def strange(self, answer: str) -> bool:
        """Whether an answer is worth a line of its own."""
        kind = self.kinds.get(answer, "")
        return bool(kind) and (self.verbose or kind != "design")

    def told(self) -> Iterator[str]:
        """Say what the letters stand for, and what is left out."""
        if self.short:
            yield " +   yes"
        for one in self.found.reasons:
            yield from self.reason(one)
        for end in self.found.ends:
            if end.shared_by:
                yield from self.part("", f"as {end.name}, whose namespace they share: {' '.join(end.shared_by)}")
        apart = self.apart()
        if apart:
            yield from self.part(
                "", f"{plural(apart, 'pair')} of containers that share no network: one reaches the other"
            )
        for note in self.found.notes:
            yield from self.part("", note)
        if self.found.coverage:
            yield f" {self.found.coverage}"

    def apart(self) -> int:
        """Count the pairs of containers that share no network and reach each other all the same."""
        networks = {end.name: set(end.networks) for end in self.found.ends}
        return sum(
            bool({"yes", "part"} & {self.answer(source, target)}) and not networks[source] & networks[target]
            for source, target in self.cells
            if source in networks and target in networks
        )

    def reason(self, one: ReachReason) -> Iterator[str]:
        """Say what a letter stands for: whether it is meant, why, by which rules, and how to see it."""
        rules = places(one.places) if one.places else ""
        if one.kind == "depends":
            text = f"depends on {one.question}"
        else:
            text = ("BROKEN: " if one.kind == "broken" else "") + one.why
            if rules:
                text += f": {rules}"
            elif one.cited is not None and one.kind != "design":
                text += f": {one.cited.place} {one.cited.excerpt}"
        words = textwrap.wrap(safe(text), self.width - 5, break_long_words=False, break_on_hyphens=False)
        command = safe(f"(doctor trace {shlex.quote(one.source)} {shlex.quote(one.target)})")
        if words and len(words[-1]) + 1 + len(command) <= self.width - 5:
            words[-1] += f" {command}"
        else:
            words.append(command)
        yield f" {one.letter:<3} {words[0]}"
        yield from (f"     {line}" for line in words[1:])

    def last(self) -> Iterator[str]:
        """Say whether the promises are kept."""
        found = self.found
        if found.broken:
            yield f"{plural(found.broken, 'promised way is', 'promised ways are')} broken"
        elif not found.unread and not found.depends:
            yield "every promise of these networks is kept"
        if found.depends:
            yield f"{plural(found.depends, 'way depends', 'ways depend')} on what a snapshot does not tell"
        for one in found.unread:
            yield safe(f"not read: {one}")

    def part(self, label: str, text: str) -> Iterator[str]:
        """Print a labelled paragraph."""
        head = f" {safe(label)} " if label else "     "
        room = max(20, self.width - len(head))
        for number, line in enumerate(textwrap.wrap(safe(text), room, break_long_words=False, break_on_hyphens=False)):
            yield f"{' ' * len(head) if number else head}{line}"


class _Drawing:
    """Draws the table; a short one has numbers for names above, and `+` for yes."""

    def __init__(
        self, text: Grid, rows: Sequence[Line], columns: Sequence[Line], ports: dict[str, str], *, short: bool
    ) -> None:
        self.text = text
        self.rows = rows
        self.columns = columns
        self.ports = ports
        self.short = short
        self.room = SHORT if short else NAME
        self.outside = _OUTSIDE in text.targets
        self.numbers = {one.label: str(at) for at, one in enumerate(columns, 1)}
        self.first = max([len(middle(safe(row.network), self.room)) for row in rows if text.single] + [0])

    def lines(self) -> Iterator[str]:
        """Draw it."""
        heads = [self.numbers[one.label] if self.short else middle(safe(one.label), NAME) for one in self.columns]
        widths = [max(2 if self.short else 3, len(head)) for head in heads]
        labels = [self.label(row) for row in self.rows]
        corner = " from \\ to"
        left = max(len(label) for label in [*labels, corner]) + 2
        tail = ["outside"] * self.outside + ["outside reaches"] * bool(self.ports)
        yield self.line(f"{corner:<{left}}", heads, widths, tail)
        before = ""
        for row, label in zip(self.rows, labels, strict=True):
            cells = [self.cell(row, column) for column in self.columns]
            tail = [f"{self.cell(row, Line(_OUTSIDE, '', (_OUTSIDE,))):<7}"] * self.outside
            tail += [self.ports.get(row.label, "")] * bool(self.ports)
            same = self.text.single and row.network and row.network == before
            before = row.network
            shown = " " * (self.first + 1) + label[self.first + 1 :] if same else label
            yield self.line(f"{shown:<{left}}", cells, widths, tail)

    def cell(self, row: Line, column: Line) -> str:
        """Give what stands in a cell."""
        found = self.text.cell(row, column)
        return {"yes": "+", "part": "p"}.get(found, found) if self.short else found

    def line(self, left: str, cells: Sequence[str], widths: Sequence[int], tail: Sequence[str]) -> str:
        """Join cells, with a bar where another network begins."""
        bar, space = ("|", " ") if self.short else (" | ", "  ")
        made = [f"{cell:^{wide}}" for cell, wide in zip(cells, widths, strict=True)]
        if self.text.single:
            groups = groupby(zip(self.columns, made, strict=True), key=lambda one: one[0].network)
            joined = bar.join(space.join(cell for _, cell in held) for _, held in groups)
        else:
            joined = space.join(made)
        return " | ".join([left + joined, *tail] if made else [left.rstrip().ljust(len(left) - 1), *tail]).rstrip()

    def label(self, row: Line) -> str:
        """Give what stands at the left of a row."""
        name = middle(safe(row.label), self.room)
        number = f"{self.numbers[row.label]:>2} " if self.short and row.label in self.numbers else ""
        if not row.network:
            return f" {name}"
        if self.text.single:
            return f" {middle(safe(row.network), self.room):<{self.first}}  {number}{name}"
        return f" {number}{name}  ({len(row.names)})"


def places(places: Iterable[str]) -> str:
    """Join places of rules: those of one chain share its name.

    >>> places(["raw PREROUTING 1", "raw PREROUTING 2", "raw PREROUTING 3", "raw PREROUTING 5"])
    'raw PREROUTING 1-3, 5'
    """
    chains: dict[str, list[int]] = {}
    whole: list[str] = []
    for place in places:
        chain, _, number = place.rpartition(" ")
        if chain and number.isdecimal():
            chains.setdefault(chain, []).append(int(number))
        else:
            whole.append(place)
    return "; ".join([*(f"{chain} {_ranges(sorted(set(held)))}" for chain, held in chains.items()), *whole])


def _ranges(numbers: Sequence[int]) -> str:
    found = []
    for _, held in groupby(enumerate(numbers), key=lambda one: one[1] - one[0]):
        run = [number for _, number in held]
        if len(run) > 2:  # noqa: PLR2004 - two are as short as a range
            found.append(f"{run[0]}-{run[-1]}")
        else:
            found += [str(number) for number in run]
    return ", ".join(found)
