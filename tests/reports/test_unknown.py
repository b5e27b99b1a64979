"""What could not be judged: a row for each area, and few of them."""

from __future__ import annotations

import io

from msgspec.structs import replace

from doctor.assess import assess
from doctor.model import Result
from doctor.registry import load
from doctor.reports.text import Style, render
from tests.cases import casefile

WHY = ("store: it is root only", "store: permission denied", "firewall: it needs root", "the rules could not be read")


def lines(*, verbose: bool) -> list[str]:
    """Print a report in which the first checks are unknown, for 12 reasons: the one at place n for n + 1 checks."""
    registry = load(plugins=False)
    report = assess(casefile.base("healthy-28"), registry, registry.checks.values())
    reasons = [*WHY, *(f"area{number}: gone" for number in range(8))]
    wanted = iter([reason for place, reason in enumerate(reasons) for _ in range(place + 1)])
    outcomes = tuple(
        replace(one, outcome=Result.UNKNOWN, reason=reason) if (reason := next(wanted, "")) else one
        for one in report.outcomes
    )
    report = replace(report, outcomes=outcomes)
    out = io.StringIO()
    render(report, out, Style(width=80, colour=False, verbose=verbose))
    return out.getvalue().split("\n")


def test_a_few_rows() -> None:
    """The greatest areas, the rest together; an area is called by its most frequent reason."""
    found = lines(verbose=False)
    start = next(place for place, line in enumerate(found) if line.startswith("unknown: 78 of "))
    rows = found[start + 1 : start + 6]
    assert rows == [f"  {12 - place}  area{7 - place}: gone" for place in range(3)] + [
        " " * 3 + "9  area4: gone",
        "  36  for other reasons (-v)",
    ]


def test_all_of_them() -> None:
    """With -v each reason has a row, and its checks."""
    found = lines(verbose=True)
    for place, reason in enumerate(WHY):
        assert f"   {place + 1}  {reason}" in found
