"""What a whole run leaves to another engine: never a row, and never what engines differ in."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.engine.conftest import ALIKE
from tests.engine.faults import FAULTS
from tests.engine.sampling import chosen
from tests.enginehost import SUITES
from tests.meta.repository import ROOT

TEST = "tests/engine/test_faults.py::test_fault_is_named_and_healed"


def collected(*options: str) -> set[tuple[str, str]]:
    """Give the pairs of engine and fault that a run with these options makes."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", TEST, *options]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"::test_fault_is_named_and_healed\[(\d+\.\d+)-(\S+)\]", done.stdout))


PRODUCT = {
    (release, f"{one.code}-{one.name}")
    for one in FAULTS
    for suite, release in SUITES.items()
    if not one.engines or suite in one.engines
}


@pytest.mark.slow
def test_every_code_is_proved_on_every_engine() -> None:
    """Of what a run makes no fault is missing, and no code, or area of those that are alike, on an engine that can have it."""
    made = collected()
    assert made < PRODUCT
    assert {name for _, name in made} == {name for _, name in PRODUCT}

    def shown(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
        return {(release, name[:3] if name.startswith(ALIKE) else name[:6]) for release, name in pairs}

    assert shown(made) == shown(PRODUCT)


@pytest.mark.slow
def test_the_same_is_chosen_each_time() -> None:
    """Whatever the order of tests and the seed of hashes."""
    assert collected("--randomly-seed=2") == collected("--randomly-seed=3")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--every-engine",), ("--suite", "28.5")], ids=" ".join)
def test_nothing_is_left_out_when_asked_for(options: tuple[str, ...]) -> None:
    """All faults on all engines, or on the one that was asked for."""
    assert collected(*options) == {one for one in PRODUCT if options[0] != "--suite" or one[0] == options[1]}


def test_rows_are_spread() -> None:
    """Three rows go to three engines; a row that can be made on one of them goes there, whoever else does."""
    suites = list(SUITES)
    three = chosen({"one": suites, "two": suites, "three": suites})
    assert sorted(suite for _, suite in three) == sorted(suites)
    assert len(chosen({"one": suites})) == len(suites)
    mixed = chosen({"one": suites, "two": suites[:1], "three": suites[:1]})
    where = defaultdict(set)
    for row, suite in mixed:
        where[row].add(suite)
    assert where["two"] == where["three"] == {suites[0]}
    assert where["one"] == set(suites[1:])
