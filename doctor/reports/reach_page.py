"""Who reaches whom, as one HTML file: networks drawn as boxes, what leads in, out and across, and every row to unfold.

A box stands for a network, however many containers it has: a hundred of them are as many boxes as networks. What Docker keeps
apart has no line; what it promises and this host breaks is red and crossed out.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.amounts import plural
from doctor.reports.html import digest, environment, part
from doctor.reports.reach import Grid, Line, places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from doctor.model import Reach

_NAMED = 12
"""Containers that are named in the box of their network."""

_WIDE = 38
"""Letters of a line in a box."""

_ARCS = 24
"""Pairs of networks that are joined by a line; of more their number is told."""

_MOST = 60
"""Exceptions that are spelt out."""

_LEFT, _RIGHT, _TOP = 270, 560, 14
_PITCH, _LINE = 22, 18
_WORDS = {"yes": "reach each other", "": "no pair to judge", "part": "reach each other in part", ".": ""}
_LOOKS = {"design": "design", "broken": "broken", "denied": "denied", "depends": "depends"}


class Shape(Struct, frozen=True):
    """A path or a text of the drawing, with its look; a path has no text."""

    look: str
    path: str = ""
    text: str = ""
    x: int = 0
    y: int = 0


class Drawing(Struct, frozen=True):
    """The drawing: its height, what is drawn, and the same in words for who does not see it."""

    height: int
    shapes: tuple[Shape, ...]
    words: str


class Cell(Struct, frozen=True):
    """A cell of a table: what stands in it, and its look."""

    text: str
    look: str


class Row(Struct, frozen=True):
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]
    ports: str


class Group(Struct, frozen=True):
    """A network: its own row, and those of its containers."""

    whole: Row
    rows: tuple[Row, ...]


def render(found: Reach, out: TextIO) -> None:
    """Write the page."""
    css = part("report.css") + part("reach.css")
    page = _Page(found)
    text = (
        environment()
        .get_template("reach.html.j2")
        .render(
            found=found,
            line=page.grid.head(),
            verdict=list(page.grid.last()),
            drawing=page.drawing(),
            columns=[line.label for line in page.columns],
            ports=page.whole,
            groups=list(page.groups()),
            others=list(page.others()),
            reasons=[
                (one, f"doctor trace {shlex.quote(one.source)} {shlex.quote(one.target)}") for one in found.reasons
            ],
            places={one.letter: places(one.places) for one in found.reasons},
            exceptions=page.exceptions(),
            css=css,
            policy=f"default-src 'none'; style-src {digest(css)}; base-uri 'none'; form-action 'none'",
        )
    )
    out.write(text.encode("ascii", "xmlcharrefreplace").decode("ascii"))


class _Page:
    """Makes the parts of a page."""

    def __init__(self, found: Reach) -> None:
        self.found = found
        self.grid = Grid(found, 100, verbose=False)
        self.networks = [
            Line(network, network, names)
            for network in self.grid.networks
            if (names := tuple(end.name for end in found.ends if (end.networks or ("",))[0] == network))
        ]
        self.whole = found.asked == ("", "")
        self.outside = Line("outside", "", ("outside",))
        self.columns = [*self.grid.columns()]

    def look(self, answer: str) -> str:
        """Give the look of an answer."""
        if answer in {"yes", "refused"}:
            return "yes"
        return _LOOKS.get(self.grid.kinds.get(answer, ""), "part" if answer == "part" else "none")

    def exceptions(self) -> list[str]:
        """Spell out what differs from the tables, not all of it."""
        lines = [*self.grid.differing(), *self.grid.ports_apart()]
        return lines[:_MOST] + ([f"and {len(lines) - _MOST} more: doctor reach -v"] if len(lines) > _MOST else [])

    # Tables

    def groups(self) -> Iterator[Group]:
        """Give each network with its containers."""
        for network in self.networks:
            names = [name for name in network.names if name in self.grid.sources or not self.grid.sources]
            rows = tuple(self.row(Line(name, network.label, (name,))) for name in names)
            if rows:
                yield Group(self.row(network), rows)

    def others(self) -> Iterator[Row]:
        """Give the rows of this host and of the outside."""
        for name in ("host", "outside"):
            if name in self.grid.sources:
                yield self.row(Line(name, "", (name,)))

    def row(self, line: Line) -> Row:
        """Make a row."""
        cells = [self.grid.cell(line, column) for column in self.columns]
        ports = [one for one in self.found.ports if one.container in line.names]
        shown = self.grid.counted(ports) if len(line.names) > 1 else self.grid.listed(ports)
        return Row(line.label, tuple(Cell(text, self.look(text)) for text in cells), shown if ports else "-")

    # The drawing

    def drawing(self) -> Drawing | None:
        """Draw the networks; nothing where only a part was asked for."""
        if not self.whole or not self.networks:
            return None
        shapes: list[Shape] = []
        middles: list[int] = []
        y = _TOP
        for network in self.networks:
            lines = self.inside(network)
            height = 14 + _LINE * (len(lines) + 1)
            middles.append(y + height // 2)
            broken = self.look(self.grid.cell(network, network)) == "broken"
            shapes.append(
                Shape("bad" if broken else "box", f"M{_LEFT} {y}h{_RIGHT - _LEFT}v{height}h-{_RIGHT - _LEFT}z")
            )
            shapes.append(Shape("name", text=network.label[:_WIDE], x=_LEFT + 12, y=y + _LINE + 2))
            shapes += [
                Shape("says" if broken and not at else "soft", text=text, x=_LEFT + 12, y=y + _LINE * (at + 2) + 2)
                for at, text in enumerate(lines)
            ]
            y += height + _PITCH
        height = y - _PITCH + _TOP
        shapes += self.ways(middles, height)
        shapes += self.arcs(middles)
        return Drawing(height, tuple(shapes), self.in_words())

    def inside(self, network: Line) -> list[str]:
        """Say what a box says: whether its containers reach each other, and who they are."""
        answer = self.grid.cell(network, network) if len(network.names) > 1 else "."
        kind = self.grid.kinds.get(answer, "")
        said = _WORDS.get(answer, f"BROKEN ({answer})" if kind == "broken" else f"kept apart ({answer})")
        count = plural(len(network.names), "container")
        head = f"{count}: {said}" if said else count
        if len(self.found.ends) > _NAMED:
            return [head]
        lines = [head]
        now = ""
        for name in network.names:
            if now and len(now) + len(name) + 1 > _WIDE:
                lines.append(now)
                now = ""
            now = f"{now} {name[:_WIDE]}".strip()
        return [*lines, now]

    def ways(self, middles: list[int], height: int) -> Iterator[Shape]:
        """Draw the outside, and what leads in and out of each network."""
        yield Shape("box", f"M8 {_TOP}h92v{height - 2 * _TOP}h-92z")
        yield Shape("name", text="outside", x=20, y=_TOP + _LINE + 2)
        for network, y in zip(self.networks, middles, strict=True):
            out = self.grid.cell(network, self.outside)
            yield from self.way(y - 9, out, f"out: {out or '-'}", back=True)
            ports = [one for one in self.found.ports if one.container in network.names]
            counted = self.grid.counted(ports)
            if counted != "-":
                bad = [one.outside for one in ports if one.outside not in {"yes", "refused", "-"}]
                yield from self.way(y + 13, bad[0] if bad else "yes", f"in: {counted}", back=False)

    def way(self, y: int, answer: str, text: str, *, back: bool) -> Iterator[Shape]:
        """Draw a line between the outside and a network, with its head where it leads to."""
        look = self.look(answer)
        start, end = (_LEFT, 100) if back else (100, _LEFT)
        step = -6 if end < start else 6
        yield Shape(f"way {look}", f"M{start} {y}H{end}")
        yield Shape(f"head {look}", f"M{end - step} {y - 4}L{end} {y}L{end - step} {y + 4}z")
        if look in {"broken", "denied"}:
            yield Shape("cross", f"M{_LEFT - 34} {y - 5}l10 10m0 -10l-10 10")
        yield Shape("label", text=text, x=112, y=y - 4)

    def arcs(self, middles: list[int]) -> Iterator[Shape]:
        """Join networks whose containers reach each other's, and those that should."""
        joined = list(self.joined())
        for one, other, answer in joined[:_ARCS]:
            top, bottom = middles[one], middles[other]
            bend = min(_RIGHT + 40 + 22 * abs(other - one), 745)
            yield Shape(f"way {self.look(answer)}", f"M{_RIGHT} {top}C{bend} {top} {bend} {bottom} {_RIGHT} {bottom}")
        if len(joined) > _ARCS:
            text = f"and {len(joined) - _ARCS} more pairs of networks"
            yield Shape("label", text=text, x=_RIGHT + 20, y=_TOP + _LINE)

    def joined(self) -> Iterator[tuple[int, int, str]]:
        """Give the pairs of networks that are not kept apart on purpose."""
        for at, one in enumerate(self.networks):
            for after, other in enumerate(self.networks[at + 1 :], at + 1):
                answers = {self.grid.cell(one, other), self.grid.cell(other, one)}
                looks = {self.look(answer): answer for answer in sorted(answers)}
                found = next(
                    (looks[look] for look in ("broken", "denied", "depends", "yes", "part") if look in looks), ""
                )
                if found:
                    yield at, after, found

    def in_words(self) -> str:
        """Say what is drawn."""
        parts = [f"{network.label}: {'; '.join(self.inside(network)[:1])}" for network in self.networks]
        pairs = [f"{self.networks[one].label} and {self.networks[other].label}" for one, other, _ in self.joined()]
        return ". ".join(parts) + (f". Joined: {', '.join(pairs[:_ARCS])}" if pairs else ". No network reaches another")
