"""Scenarios of labs on live engines: the same fault is felt, has the same code and cause, and the same cure heals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from doctor.labs import catalogue
from doctor.labs.loading import load
from doctor.labs.replay import prove
from tests.engineground import RELEASES, staged
from tests.enginehost import SUITES

if TYPE_CHECKING:
    from doctor.labs.scenario import Scenario


class Row(NamedTuple):
    """A scenario, and the suites of the engines that speak its dialects."""

    scenario: Scenario
    engines: tuple[str, ...]


def _row(one: Scenario) -> Row:
    releases = {RELEASES.get(dialect) for dialect in one.dialects}
    return Row(one, tuple(suite for suite, release in SUITES.items() if release in releases))


ROWS = [_row(one) for one in map(load, catalogue.files()) if not one.live]


@pytest.mark.sampled("row")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.scenario.name)
def test_scenario_on_a_live_engine(suite: str, row: Row) -> None:
    """Healthy is silent; the fault is felt, named, first, alone; the cure as printed heals."""
    with staged(row.scenario, suite) as ground:
        prove(row.scenario, ground)
