"""Which rows of a table are tested on which engine, where not every row is on every engine.

A whole run tests every row on one engine at least, and what is proved on every engine that it can be made on (a code, or
an area where engines are alike):
three engines run the same checks, and the same fault made three times rarely says more than once. `--every-engine`, or one
engine asked for with `--suite`, leaves nothing out.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def _turn(row: str, suites: Sequence[str]) -> int:
    """A number that is a row's for good, whatever stands beside it in the table."""
    return zlib.crc32(row.encode()) % len(suites)


def chosen(rows: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """Choose pairs of row and engine among the rows of one group: name → the engines that it can be made on.

    Each row is chosen once at least, each engine too, if there is a row for it. Rows go where there are fewest, so that
    variations of one fault are spread over the engines.
    """
    found: set[tuple[str, str]] = set()
    load = dict.fromkeys((suite for suites in rows.values() for suite in suites), 0)

    def take(row: str, suites: Iterable[str]) -> None:
        suite = min(suites, key=load.__getitem__)
        found.add((row, suite))
        load[suite] += 1

    # Those with the least choice first.
    for row, suites in sorted(rows.items(), key=lambda one: (len(one[1]), one[0])):
        turn = _turn(row, suites)
        take(row, (*suites[turn:], *suites[:turn]))
    for suite in [suite for suite, count in load.items() if not count]:
        there = [row for row, suites in rows.items() if suite in suites]
        take(min(there, key=lambda row: (sum(one == row for one, _ in found), row)), (suite,))
    return found
