"""The words of a lab's shell, in labs whose daemon answers and in those where it does not: hint, check, solve, check."""

from __future__ import annotations

import os

import pytest

from doctor.labs import catalogue, lab
from doctor.labs.words import _next, breaking

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.mark.parametrize(
    ("name", "code", "title"),
    [
        ("daemon-json-comma", "DMN001", "daemon.json"),
        ("socket-removed", "DMN016", "does not answer"),
        ("forwarding-off", "NET034", "IPv4 forwarding is off"),
    ],
)
def test_a_lab_is_solved_by_its_words(name: str, code: str, title: str) -> None:
    """What a person types, and what is said: nothing is asked of a daemon that does not run."""
    scenario = catalogue.scenario(name)
    made = lab.up(scenario, "28", f"{name}-{os.getpid()}")
    try:
        lab.played(made, scenario, lambda stage: breaking(stage, proved=False))
        hint, before, solved, after = (made.run((word,), builtin=True) for word in ("hint", "check", "solve", "check"))
    finally:
        made.down()
    told = [one.stdout.decode() + one.stderr.decode() for one in (hint, before, solved, after)]
    assert told[0] == f"hint 1 of {len(scenario.hints)}: {scenario.hints[0]}\n"
    assert (before.returncode, solved.returncode, after.returncode) == (1, 0, 0), told
    assert f"no  doctor check: {code}" in told[1]
    assert f"FAIL  {code}" in told[2]
    assert title in told[2]
    assert "ok  doctor check is clean" in told[3]
    assert "with 1 hint. Next: doctor lab run " in told[3]


def test_the_next_one_can_be_played() -> None:
    """What needs a live engine is passed over."""
    assert catalogue.scenario("layer-lower-file-empty").lab
    assert _next(catalogue.scenario("layer-link-file-empty")) == "Next: doctor lab run layer-record-damaged"
