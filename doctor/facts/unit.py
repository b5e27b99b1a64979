"""What systemd would start: docker.service and docker.socket with their drop-ins, and whether they are masked.

A unit is the first file of that name in the folders that systemd reads; of drop-ins of one name the first counts as well,
and all are applied in the order of their names (systemd.unit(5)). A unit that is a link to /dev/null, or empty, is masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


class Directive(Struct, frozen=True):
    """One line `NAME=VALUE`, continued lines joined; `line` is the first of them, from 1."""

    section: str
    name: str
    value: str
    path: str
    line: int
    cited: Citation


class Unit(Struct, frozen=True):
    """One unit. `starts` are the ExecStart in force: more than one is refused but for Type=oneshot.

    `masked` cites what masks it. `exists` is whether there is a unit file at all.
    """

    exists: bool
    masked: Citation | None
    directives: tuple[Directive, ...]

    @property
    def starts(self) -> tuple[Directive, ...]:
        """The ExecStart in force: an empty one takes back those before it."""
        held: list[Directive] = []
        for one in self.directives:
            if one.section == "Service" and one.name == "ExecStart":
                held = [*held, one] if one.value else []
        return tuple(held)

    def last(self, section: str, name: str) -> str:
        """Give the value of a directive that counts once; empty when nothing sets it."""
        values = [one.value for one in self.directives if one.section == section and one.name == name]
        return values[-1] if values else ""


class Units(Struct, frozen=True):
    """The two units of dockerd; `systemd` is whether systemd runs this host."""

    systemd: bool
    service: Unit
    socket: Unit


def _records(snapshot: Snapshot, unit: str) -> list[Record]:
    """Give the unit file in force and its drop-ins, in the order that systemd reads them."""
    found = None
    drop_ins: dict[str, Record] = {}
    for folder in FOLDERS:
        record = snapshot.get(f"files{folder}/{unit}")
        if found is None and (record.readable or _null(record)):
            found = record
        prefix = f"files{folder}/{unit}.d/"
        for one in snapshot.under(prefix):
            if one.readable:
                drop_ins.setdefault(one.name.removeprefix(prefix), one)
    return ([found] if found else []) + [drop_ins[name] for name in sorted(drop_ins)]


def _directives(records: Iterable[Record]) -> Iterator[Directive]:
    """Parse the lines of unit files, in order (systemd.syntax(7): a backslash and the end of the line are a space)."""
    for record in records:
        section, joined, text = "", 0, ""
        for number, raw in enumerate(record.text.split("\n"), 1):
            if raw.lstrip()[:1] in {"#", ";"}:
                continue
            joined = joined or number
            if raw.endswith("\\"):
                text += raw[:-1] + " "
                continue
            text = (text + raw).strip()
            if text.startswith("[") and text.endswith("]"):
                section = text[1:-1]
            elif "=" in text:
                name, _, value = (part.strip() for part in text.partition("="))
                cited = Citation(record.name, joined, text, f"{record.target}:{joined}")
                yield Directive(section, name, value, record.target, joined, cited)
            joined, text = 0, ""


def _null(record: Record) -> bool:
    return record.status == "failed" and "character device" in record.why


def _unit(snapshot: Snapshot, name: str) -> Unit:
    records = _records(snapshot, name)
    first = next((one for one in records if not one.name.endswith(".conf")), None)
    masked = None
    if first is not None and (_null(first) or (first.readable and not first.data.strip())):
        masked = Citation(first.name, 0, "a link to /dev/null" if _null(first) else "an empty file", first.target)
    return Unit(first is not None, masked, tuple(_directives(one for one in records if one.readable)))


@fact
def units(snapshot: Snapshot) -> Units:
    """Read both units."""
    systemd = snapshot.get("host/init").text.strip() == "systemd"
    return Units(systemd, _unit(snapshot, "docker.service"), _unit(snapshot, "docker.socket"))
