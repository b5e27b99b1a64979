"""The words of a lab's shell: `hint`, `check`, `solve`. Each runs in a fork of the lab's holder, so it is there at once.

What the shell knows of its lab stands in one file inside: when it began, the hints that were read, what was noted while
the host was healthy.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.amounts import plural
from doctor.labs.ground import GroundError, Known, Names
from doctor.labs.inside import Inside
from doctor.labs.replay import Failed, Stage, about, break_it, heal, healthy
from doctor.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.labs.scenario import Scenario
    from doctor.model import Report

STATE = "/run/doctor/lab"
SOLVED, NOT_YET, WRONG = 0, 1, 4
WIDTH = 80

FATES = {
    "open": ("connects", "should connect"),
    "refused": ("is refused", "should be refused"),
    "filtered": ("times out", "should time out"),
    "unreachable": ("finds no way", "should find no way"),
    "works": ("works", "should work"),
    "fails": ("fails", "should fail"),
    "hangs": ("hangs", "should hang"),
    "there": ("is there", "should be there"),
    "gone": ("is gone", "should be gone"),
    "runs": ("runs", "should run"),
    "stopped": ("is stopped", "should be stopped"),
    "zombie": ("is a zombie", "should be a zombie"),
    "written": ("is written", "should be written"),
    "silent": ("is not written", "should not be written"),
}
"""What a probe measured, in words: as it is, and as it should be."""


class State(Struct):
    """What a lab knows of itself: when it was broken (epoch), how many hints were read, ids of what a healthy host has.

    `known` is what its engine said of containers and networks, and `release` which one it is: it may not answer any more.
    """

    begun: float
    hints: int = 0
    noted: tuple[str, ...] = ()
    known: Known = ({}, {})
    release: str = ""


def _held() -> State:
    return msgspec.json.decode(Path(STATE).read_bytes(), type=State)


def _keep(state: State) -> None:
    Path(STATE).write_bytes(msgspec.json.encode(state))


def within(scenario: Scenario) -> dict[str, Callable[[list[str]], int]]:
    """Give the words of a scenario's shell: functions of their arguments to an exit code."""
    following = _next(scenario)  # now: in the lab the other files are not there
    words: dict[str, Callable[[Scenario], int]] = {
        "hint": hint,
        "check": partial(check, following=following),
        "solve": partial(solve, following=following),
    }
    return {name: partial(_said, scenario, function) for name, function in words.items()}


def _said(scenario: Scenario, function: Callable[[Scenario], int], _: list[str]) -> int:
    try:
        return function(scenario)
    except (GroundError, Failed) as error:
        sys.stderr.write(f"{error}\n")
        return WRONG


def breaking(stage: Stage, *, proved: bool) -> None:
    """Break a host for its shell; with `proved` it is looked at first, and what is found then is noted. Raises Failed."""
    noted = tuple(sorted(healthy(stage))) if proved else ()
    break_it(stage)
    _keep(State(time.time(), 0, noted, stage.names.known, stage.release))


def _stage(scenario: Scenario) -> Stage:
    """Give the broken host, with what was known of it where its engine does not answer."""
    state, ground = _held(), Inside()
    stage = Stage(scenario, ground, Names(ground, state.known), state.release)
    stage.learn()
    return stage


def hint(scenario: Scenario) -> int:
    """Print the next hint."""
    state = _held()
    total = len(scenario.hints)
    if state.hints >= total:
        sys.stdout.write(f"there is no further hint: you have read all {total}. solve shows the cure, and does it\n")
        return SOLVED
    sys.stdout.write(f"hint {state.hints + 1} of {total}: {scenario.hints[state.hints]}\n")
    _keep(msgspec.structs.replace(state, hints=state.hints + 1))
    return SOLVED


def check(scenario: Scenario, following: str = "") -> int:
    """Say what is as it should be, and what is not yet; exit 0 when all is."""
    stage, state = _stage(scenario), _held()
    rows = []
    for number, (fate, probe) in enumerate(zip(stage.fates(), scenario.probe, strict=True)):
        what = about(scenario, number)
        if fate == probe.healthy:
            rows.append((True, f"{what} {FATES[fate][0]}"))
        else:
            rows.append((False, f"{what} {FATES[fate][0]}, and {FATES[probe.healthy][1]}"))
    left = remains(stage.ground.check(scenario.expect.options), scenario, state.noted)
    rows.append((not left, "doctor check is clean" if not left else f"doctor check: {left}"))
    sys.stdout.write(_columns(rows))
    if not all(ok for ok, _ in rows):
        return NOT_YET
    took = _duration(time.time() - state.begun)
    sys.stdout.write(f"solved in {took} with {plural(state.hints, 'hint')}. {following}".rstrip() + "\n")
    return SOLVED


def remains(report: Report, scenario: Scenario, noted: tuple[str, ...]) -> str:
    """Say what is found that is not of a healthy host: codes and titles, empty for nothing."""
    codes = {*scenario.expect.codes}
    left = [
        one
        for one in report.findings
        if one.severity is not Severity.INFO or (one.code in codes and one.id not in noted)
    ]
    return "; ".join(f"{one.code} {one.title}" for one in left[:3])


def solve(scenario: Scenario, following: str = "") -> int:
    """Print the cause as `doctor check` does, do its cure, and check."""
    from doctor.reports.text import Style, render

    stage = _stage(scenario)
    report = stage.ground.check(scenario.expect.options)
    render(report, sys.stdout, Style(width=WIDTH))
    wanted = scenario.expect.cure or scenario.expect.root or scenario.expect.codes[0]
    found = [one for one in report.findings if one.code == wanted]
    if not found:
        sys.stdout.write(f"{wanted} is not found: nothing to cure\n")
        return check(scenario, following)
    sys.stdout.write("\n")
    heal(stage, found[0].remedy)
    return check(scenario, following)


def _columns(rows: list[tuple[bool, str]]) -> str:
    """Print what is as it should be and what is not, two to a line where both fit."""
    cells = [("ok  " if ok else "no  ") + what for ok, what in rows]
    half = WIDTH // 2 - 5
    lines = []
    while cells:
        first = cells.pop(0)
        if cells and len(first) < half and len(cells[0]) <= WIDTH - half:
            first = f"{first:<{half}}{cells.pop(0)}"
        lines.append(first)
    return "\n".join(lines) + "\n"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _next(scenario: Scenario) -> str:
    from doctor.labs import catalogue

    names = catalogue.names()
    if scenario.name in names:
        at = names.index(scenario.name)
        for name in (*names[at + 1 :], *names[:at]):
            if not catalogue.scenario(name).lab:  # else it is played on live engines alone
                return f"Next: doctor lab run {name}"
    return "doctor lab list"
