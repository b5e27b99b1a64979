"""Scenarios are replayed in labs of our own, by the command that a user types, in an order of chance."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import pytest

from doctor.labs import catalogue
from doctor.labs.loading import load
from doctor.labs.replaying import lacking, one_dialect, replays

SCENARIOS = [one for one in map(load, catalogue.files()) if not one.lab]
PLAYED, DIALECT = 20, "28"
CODES = sorted({one.expect.cure or one.expect.root or one.expect.codes[0] for one in SCENARIOS})


def _replayed(argv: list[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=280, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.root
@pytest.mark.proves(*CODES)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_scenarios_are_proved_as_root() -> None:
    """Healthy silent, fault felt, code, cause, neighbours, cure, nothing left: some by chance, with DOCTOR_EVERY all.

    Each is played as 28 writes its rules. All are played on live engines as well.
    """
    names = [one.name for one in SCENARIOS if DIALECT in one.dialects]
    random.shuffle(names)
    if not os.environ.get("DOCTOR_EVERY"):
        names = names[:PLAYED]
    said = _replayed([sys.executable, "-m", "doctor", "lab", "replay", *names, "--dialect", DIALECT])
    found = re.search(r"(\d+) replays? in \d+ s: (\d+) proved(?:, (\d+) skipped)?", said)
    assert found, said
    assert int(found[2]) + int(found[3] or 0) == len(names), said


def test_without_root_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain user's lab cannot give containers a network yet: each scenario is skipped, and the reason is told."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert {outcome.state for outcome in replays([(one, one_dialect(one)) for one in SCENARIOS], 2)} == {"skipped"}
    assert "root" in lacking(SCENARIOS[0])


def test_the_dialect_of_a_scenario_is_always_the_same() -> None:
    """What is played once is played in one dialect, and each dialect has its share."""
    chosen = [one_dialect(one) for one in SCENARIOS]
    assert chosen == [one_dialect(one) for one in SCENARIOS]
    assert {"20.10", "26", "28", "29"} <= set(chosen)
