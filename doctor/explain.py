"""`doctor explain`: the page of a code as text for a terminal, offline, and the list of all codes by area."""

from __future__ import annotations

import textwrap

from doctor.options import match, registry
from doctor.registry import AREAS, Check, sections

WIDTH = 78
COLUMN = 15


def explain(subject: str) -> str:
    """Give the page of one code or name, or a list. Raises UsageError for what names none."""
    checks = registry().checks
    if not subject:
        return _list(list(checks.values())) + "\ndoctor explain CODE prints the page of one\n"
    found = match(subject, checks)
    one = checks[found[0]] if found else None
    if one is not None and len(found) == 1 and subject.upper() not in AREAS and subject not in AREAS.values():
        return page(one)
    return _list([checks[code] for code in found])


def _list(checks: list[Check]) -> str:
    lines: list[str] = []
    area = ""
    for one in checks:
        if one.area != area:
            lines += ([""] if lines else []) + [one.area]
            area = one.area
        head = f"  {one.code}  {one.name:<26}  "
        lines.append(head + textwrap.shorten(one.summary.rstrip("."), WIDTH + 2 - len(head), placeholder="..."))
    return "\n".join(lines) + "\n" if lines else "no code of this area yet\n"


def page(one: Check) -> str:
    """Print a page: the title line, then each heading beside its text."""
    head = f"{one.code} {one.name}"
    kind = f"{one.severity.value}, {one.area}"
    lines = [head + f"{kind:>{max(len(kind) + 2, WIDTH + 2 - len(head))}}", one.summary, ""]
    for heading, text in sections(one.page).items():
        label = heading
        verbatim = heading == "By hand"
        for line in text.split("\n") if verbatim else textwrap.wrap(" ".join(text.split()), WIDTH - COLUMN + 2):
            lines.append(f"{label:<{COLUMN}}{line}".rstrip())
            label = ""
    return "\n".join(lines) + "\n"
