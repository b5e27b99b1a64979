"""`doctor explain`: the page of a code as text for a terminal, offline, and the list of all codes by area.

What names no code is taken for an error message: doctor/phrases.py says of which codes it speaks.
"""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING

from doctor.exits import UsageError
from doctor.options import match, registry
from doctor.registry import AREAS, Check, sections, single

if TYPE_CHECKING:
    from doctor.phrases import Found

_CODE = re.compile(r"[A-Za-z]{3}[0-9]{3}")
WIDTH = 78
COLUMN = 15
MOST = 6
"""Codes that are named for one error message."""


def explain(subject: str) -> str:
    """Give the page of one code or name, a list, or what an error message means. Raises UsageError for what names none.

    `-` reads the message from standard input.
    """
    alone = single(subject.upper()) if _CODE.fullmatch(subject) else None
    if alone is not None:
        return page(alone)
    checks = registry().checks
    if not subject:
        return _list(list(checks.values())) + "\ndoctor explain CODE prints the page of one\n"
    if subject == "-":
        return _message(_piped(), checks)
    try:
        found = match(subject, checks)
    except UsageError:
        if subject.isalnum() and any(char.isdigit() for char in subject):
            raise
        return _message(subject, checks)
    only = checks[found[0]] if len(found) == 1 else None
    if only is not None and subject.upper() not in AREAS and subject not in AREAS.values():
        return page(only)
    return _list([checks[code] for code in found])


def _piped() -> str:
    from doctor.phrases import LONGEST

    return sys.stdin.buffer.read(8 * LONGEST).decode(errors="replace")


def _message(text: str, checks: dict[str, Check]) -> str:
    """Say of which codes a message speaks: the page when it is one, else a short list. Raises UsageError for none."""
    from doctor import phrases

    found = phrases.find(text, checks)
    if len(found) == 1:
        return page(checks[found[0].code])
    if found:
        return _choice(found[:MOST], checks)
    from doctor.reports.words import middle, safe

    shown = middle(safe(" ".join(text.split())), WIDTH - 20)
    lines = [f"no check knows this message: {shown or 'it is empty'}"]
    if phrases.only_wraps(text):
        lines.append("  it says where it failed, not why: the reason stands behind it, or in the log of dockerd")
    near = phrases.nearest(text, checks)
    if near:
        lines += ["  the nearest pages:", *_list([checks[code] for code in near]).rstrip("\n").split("\n")]
    raise UsageError("\n".join(lines))


def _choice(found: list[Found], checks: dict[str, Check]) -> str:
    """List the codes that a message speaks of, each with its phrase and with what it is taken for."""
    lines = [f"{len(found)} codes speak of this, the likeliest first; doctor check says which it is", ""]
    codes = {one.code for one in found}
    for one in found:
        check = checks[one.code]
        head = f"  {one.code}  {check.name:<26}  "
        lines.append(head + textwrap.shorten(check.summary.rstrip("."), WIDTH + 2 - len(head), placeholder="..."))
        told = " ".join(sections(check.page).get("Looks like", "").split())
        told = f"not: {told}" if any(code in told for code in codes) else ""
        for text in (f'"{one.phrase}"' if one.phrase != one.code else "", told):
            lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12)
    return "\n".join(lines) + f"\n\ndoctor explain {found[0].code} prints a page\n"


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
        if heading == "What you see" and one.says:
            said = "; ".join(f'"{phrase}"' for phrase in one.says)
            lines += [" " * COLUMN + line for line in textwrap.wrap(f"Also: {said}", WIDTH - COLUMN + 2)]
    from doctor.labs.catalogue import to_practise

    label = "Try it"
    for name in to_practise(one.code):
        lines.append(f"{label:<{COLUMN}}doctor lab run {name}")
        label = ""
    return "\n".join(lines) + "\n"
