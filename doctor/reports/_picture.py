"""The picture of a cause: a chain of parts, top to bottom, and the place where it is broken.

A picture draws no more than the code means by itself, with names that the report gives. A code that stands for no place
in a chain has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.reports._visible import one_line, shortened
from doctor.reports.words import middle

if TYPE_CHECKING:
    from doctor.model import HostInfo
    from doctor.reports._html import Entry

_WIDTH, _WIRE = 240, 105  # of a box, and where the line between boxes runs; the drawing is 300 wide
_LINE, _GAP, _BROKEN_GAP, _SEAM = 15, 24, 52, 4
_FITS = 30
"""Characters of a line in a box."""

_PATH = ("outside", "host", "bridge", "containers")
_NAMES = ("containers", "resolver", "nameserver")
_DAEMON = ("docker commands", "dockerd", "containerd", "containers")
_LAYERS = ("what is made from it", "other layers", "this layer", "other layers")
_OWN_LAYER = ("container", "its own layer", "layers of its image")
_OWNER = ("namespace file", "container")
_PROCESS = ("container", "process")
_SHIM = ("containerd-shim", "container")
_REGISTRY = ("host", "registry")


class _Place(Struct, frozen=True):
    """Where a code breaks its chain: the `node` itself, or the `link` below that one."""

    chain: tuple[str, ...]
    says: str
    link: int = -1
    node: int = -1


_PLACES = {
    "DMN016": _Place(_DAEMON, "does not answer", link=0),
    "DMN017": _Place(_DAEMON, "the socket", link=0),
    "DMN020": _Place(_DAEMON, "not reached", link=1),
    "NET009": _Place(_PATH, "down, or missing", node=2),
    "NET010": _Place(_PATH, "lacks its address", node=2),
    "NET012": _Place(_PATH, "veth pair broken", link=2),
    "NET013": _Place(_PATH, "wrong address", node=3),
    "NET014": _Place(_PATH, "no way back", link=2),
    "NET020": _Place(_PATH, "jumps missing", link=1),
    "NET021": _Place(_PATH, "Docker's rules missing", link=1),
    "NET022": _Place(_PATH, "rules missing", link=1),
    "NET024": _Place(_PATH, "NAT rules missing", link=1),
    "NET025": _Place(_PATH, "address not masked", link=0),
    "NET026": _Place(_PATH, "rules of the port", link=1),
    "NET028": _Place(_PATH, "foreign rule", link=1),
    "NET029": _Place(_PATH, "rule in DOCKER-USER", link=1),
    "NET033": _Place(_PATH, "the firewall", link=1),
    "NET034": _Place(_PATH, "not forwarded", link=1),
    "NET035": _Place(_PATH, "policy DROP", link=1),
    "NET037": _Place(_PATH, "port is taken", link=0),
    "NET044": _Place(_NAMES, "rules missing", link=0),
    "NET051": _Place(_PATH, "another firewall", link=1),
    "NET052": _Place(_PATH, "left-over rule", link=1),
    "NET054": _Place(_PATH, "policy route", link=0),
    "NET055": _Place(_PATH, "port is blocked", link=2),
    "NET058": _Place(_PATH, "nothing listens", node=3),
    "NET059": _Place(_PATH, "no address of the host", link=0),
    "NET064": _Place(_NAMES, "no answer", link=1),
    "NET066": _Place(_PATH, "foreign chain", link=1),
    "NET067": _Place(_PATH, "replies dropped", link=1),
    "NSP001": _Place(_PROCESS, "gone", link=0),
    "NSP002": _Place(_OWNER, "none owns it", link=0),
    "NSP003": _Place(_PROCESS, "another namespace", link=0),
    "NSP007": _Place(_SHIM, "one without the other", link=0),
    "NSP013": _Place(_PROCESS, "the pid is another's", link=0),
    "LAY001": _Place(_LAYERS, "link file", node=2),
    "LAY002": _Place(_LAYERS, "short link gone", node=2),
    "LAY003": _Place(_LAYERS, "lower file", node=2),
    "LAY004": _Place(_LAYERS, "order differs", node=2),
    "LAY006": _Place(_LAYERS, "content missing", node=2),
    "LAY007": _Place(_LAYERS, "record damaged", node=2),
    "LAY008": _Place(_LAYERS, "content missing", node=2),
    "LAY009": _Place(_LAYERS, "name does not fit", node=2),
    "LAY010": _Place(_LAYERS, "parent missing", node=3),
    "LAY011": _Place(_LAYERS, "tar-split damaged", node=2),
    "LAY012": _Place(_LAYERS, "content changed", node=2),
    "LAY013": _Place(_LAYERS, "size differs", node=2),
    "LAY014": _Place(_LAYERS, "files added", node=2),
    "LAY015": _Place(_LAYERS, "metadata changed", node=2),
    "LAY016": _Place(_LAYERS, "whiteouts lost", node=2),
    "LAY024": _Place(_OWN_LAYER, "record damaged", node=1),
    "LAY025": _Place(_OWN_LAYER, "missing", node=1),
    "REG001": _Place(_REGISTRY, "not reached", link=0),
}
_STOPPED = _Place(_DAEMON, "not running", node=1)
_STACKS = (_LAYERS, _OWN_LAYER)


class Line(Struct, frozen=True):
    """An outline, as the path of an SVG; `look` is its class."""

    look: str
    path: str


class Label(Struct, frozen=True):
    """Words, with the foot of their left end."""

    look: str
    x: int
    y: int
    text: str


class Picture(Struct, frozen=True):
    """A drawing, and the same in words."""

    title: str
    words: str
    height: int
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]


def picture(entry: Entry, host: HostInfo) -> Picture | None:
    """Draw a cause; None when its code stands for no place."""
    code = entry.shown.code
    place = _PLACES.get(code)
    if code.startswith("DMN") and host.engine_state == "not running":
        place = _STOPPED
    if place is None:
        return None
    lines: list[Line] = []
    labels: list[Label] = []
    said: list[str] = []
    y, last = 1, len(place.chain) - 1
    for number, name in enumerate(place.chain):
        called = _called(name, entry, host, broken=number == place.node)
        said.append(f"{name} {called}".rstrip())
        texts = [("name", name), *([("called", called)] if called else ())]
        if number == place.node:
            texts.append(("says", place.says))
        height = _LINE * (len(texts) + 1)
        lines.append(Line("bad" if number == place.node else "box", _rectangle(y, height)))
        labels += [Label(look, 14, y + 19 + _LINE * line, text) for line, (look, text) in enumerate(texts)]
        if number == place.node:
            lines.append(_cross(_WIDTH + 1, y + height // 2))
        y += height
        if place.chain in _STACKS or number == last:
            y += _SEAM
        elif number == place.link:
            lines += (Line("cut", f"M{_WIRE} {y}v{_BROKEN_GAP}"), _cross(_WIRE, y + _BROKEN_GAP // 2))
            labels.append(Label("says", _WIRE + 20, y + _BROKEN_GAP // 2 + 4, place.says))
            y += _BROKEN_GAP
        else:
            lines.append(Line("wire", f"M{_WIRE} {y}v{_GAP}"))
            y += _GAP
    where = said[place.node] if place.node >= 0 else f"between {said[place.link]} and {said[place.link + 1]}"
    return Picture(
        title=f"where {code} breaks",
        words=f"{', '.join(said)}. Broken: {where}: {place.says}.",
        height=y,
        lines=tuple(lines),
        labels=tuple(labels),
    )


def _rectangle(y: int, height: int) -> str:
    across, down = _WIDTH - 10, height - 10
    return f"M6 {y}h{across}q5 0 5 5v{down}q0 5 -5 5h{-across}q-5 0 -5 -5v{-down}q0 -5 5 -5z"


def _cross(x: int, y: int) -> Line:
    return Line("cross", f"M{x - 7} {y - 7}l14 14m0 -14l-14 14")


def _called(name: str, entry: Entry, host: HostInfo, *, broken: bool) -> str:
    """Say what the report calls a part of the chain; nothing when it does not."""
    if name == "host":
        return _cut(host.hostname)
    if name == "dockerd":
        return _cut(host.engine)
    if broken or name == "namespace file":
        return _cut(entry.finding.subject) if entry.finding else ""
    effects = (*entry.shown.hits, *entry.shown.works)
    if name == "containers":
        held = dict.fromkeys(
            each.rpartition(" -> ")[2]
            for effect in effects
            for each in effect.names
            if " -> " in each or "container" in effect.text
        )
        return _several(list(held))
    if name == "what is made from it":
        return _several([each for effect in entry.shown.hits for each in effect.names])
    return ""


def _several(names: list[str]) -> str:
    """Give as many names as fit, and count the others."""
    for shown in range(min(len(names), _FITS // 2), 0, -1):
        text = ", ".join(names[:shown]) + (f" +{len(names) - shown:,}" if shown < len(names) else "")
        if len(text) <= _FITS or shown == 1:
            return _cut(text)
    return ""


def _cut(text: str) -> str:
    return middle(one_line(shortened(text)), _FITS)
