"""Scenarios are replayed in labs of our own, by the command that a user types, in an order of chance."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from doctor.labs import catalogue, commands, replaying
from doctor.labs.loading import load
from doctor.labs.replaying import ROOT_ALONE, lacking, one_dialect
from tests.runtime.columns import COLUMNS, become, forget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.labs.replaying import Outcome

SCENARIOS = [one for one in map(load, catalogue.files()) if not one.lab]
PLAYED = {"root": 14, "user with subuid": 4, "plain user": 6}
"""How many of them a run plays in each column of the table of docs/runtime.md."""
CODES = sorted({one.expect.cure or one.expect.root or one.expect.codes[0] for one in SCENARIOS})


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Take the user away again that was made for a column."""
    yield
    forget()


def _replayed(names: list[str]) -> int:
    """Replay them, each in the dialect that is its own; 0 when each is proved."""
    argv = [sys.executable, "-m", "doctor", "lab", "replay", *names, "--dialect", "one"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=280, cwd="/")
    found = re.search(r"(\d+) replays? in \d+ s: (\d+) proved(?:, (\d+) skipped)?", done.stdout)
    well = found and int(found[2]) + int(found[3] or 0) == len(names) and not done.returncode
    if not well:
        os.write(2, (done.stdout + done.stderr).encode(errors="replace"))
    return 0 if well else 1


@pytest.mark.root
@pytest.mark.proves(*CODES)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("column", COLUMNS)
def test_scenarios_are_proved(column: str) -> None:
    """Healthy silent, fault felt, code, cause, neighbours, cure, nothing left: some by chance, with DOCTOR_EVERY all.

    Each is played in one dialect, always the same, so that each dialect has its share. All are played on live engines as well.
    """
    names = [one.name for one in SCENARIOS if column == "root" or not ROOT_ALONE & {*one.needs}]
    random.shuffle(names)
    if not os.environ.get("DOCTOR_EVERY"):
        names = names[: PLAYED[column]]
    assert become(column, partial(_replayed, names)) == 0


def test_without_root_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user is told of what only root's labs have, and nothing else is kept from him."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = {one.name: lacking(one) for one in SCENARIOS}
    kept = {one.name for one in SCENARIOS if ROOT_ALONE & {*one.needs}}
    assert kept
    assert {name for name, why in said.items() if "root" in why or why == "control groups"} <= kept
    assert all(said[name] for name in kept)


def test_three_replays_a_processor_go_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a replay is waiting; who says a number gets that."""
    widths: list[int] = []

    def replays(jobs: object, width: int, *, keep: bool) -> list[Outcome]:
        del jobs, keep
        widths.append(width)
        return []

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(replaying, "replays", replays)
    assert [commands.replay(["forwarding-off"], jobs=jobs) for jobs in (0, 1)] == [0, 0]
    assert widths == [6, 1]


def test_the_dialect_of_a_scenario_is_always_the_same() -> None:
    """What is played once is played in one dialect, and each dialect has its share."""
    chosen = [one_dialect(one) for one in SCENARIOS]
    assert chosen == [one_dialect(one) for one in SCENARIOS]
    assert {"20.10", "26", "28", "29", "29-nftables"} == set(chosen)
    assert all(chosen.count(dialect) >= 8 for dialect in set(chosen))
