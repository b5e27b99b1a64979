"""The proof of a scenario: healthy is silent, the fault is felt, named, first, alone, and the cure as printed heals.

`prove` plays it on any host, a lab or a live engine. That nothing is left behind is for whoever takes the host down.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from doctor.engine.rules import dialect
from doctor.labs.faults import Fault, Place
from doctor.labs.ground import Ground, GroundError, Names, shorten
from doctor.labs.probes import measure
from doctor.model import Command, Edit, EditKey, Note, Result, Severity
from doctor.reports.words import step_lines

if TYPE_CHECKING:
    from doctor.labs.scenario import Scenario
    from doctor.model import Outcome, Remedy, Report, Reported, Step

PATIENCE = 15.0
"""Seconds for probes to be healthy after a cure: a neighbour whose address is another now is believed for some seconds."""


LOOKS = 3
"""How often doctor looks, at most, where evidence did not come in time."""
PATIENT = 6.0
"""By what times of probes are multiplied where something was to come back and did not."""


class Failed(Exception):  # noqa: N818 - what a replay says, no fault of ours
    """One of the things to be proved is not so: `what` in a sentence, and rows of a word and a text that show it."""

    def __init__(self, what: str, *rows: tuple[str, str]) -> None:
        """Keep both."""
        super().__init__(what)
        self.what, self.rows = what, rows

    def __str__(self) -> str:
        """Give all in one text."""
        return "\n".join([self.what, *(f"  {label:<8}{text}" for label, text in self.rows)])


class Stage(NamedTuple):
    """A scenario on a host where it is played."""

    scenario: Scenario
    ground: Ground
    names: Names
    release: str
    """Of its engine."""

    @classmethod
    def of(cls, scenario: Scenario, ground: Ground) -> Stage:
        """Take a host on which the scenario's containers run; what cannot be asked later is asked now."""
        names = Names(ground)
        names.learn(list(scenario.container), list(scenario.network))
        return cls(scenario, ground, names, str(ground.ask("/version")["Version"]))

    def carry_out(self, steps: tuple[Fault, ...]) -> None:
        """Do what faults, preparations or a person do. Raises GroundError."""
        place = Place(ground=self.ground, names=self.names)
        for step in steps:
            step.make(place)

    def learn(self) -> None:
        """Ask anew for addresses and pids, as far as the daemon answers."""
        self.names.learn(list(self.scenario.container), list(self.scenario.network))

    def fates(self, wanted: list[str] | None = None) -> list[str]:
        """Give what each probe measures now; where less came back than is wanted, it is measured again, with patience.

        So a busy machine is not taken for a fault, and time is not spent where nothing is to come back.
        """
        found = measure(self.scenario.probe, self.ground, self.names)
        if wanted is not None and any(
            one in {"filtered", "hangs", "silent"} and one != wish for one, wish in zip(found, wanted, strict=True)
        ):
            return measure(self.scenario.probe, self.ground, self.names, patience=PATIENT)
        return found

    def check(self) -> Report:
        """Give what doctor says; a machine too busy to be read in time is read again."""
        report = self.ground.check(self.scenario.expect.options)
        for _ in range(LOOKS - 1):
            unknown = {one.code for one in report.outcomes if one.outcome is Result.UNKNOWN}
            late = any(one.status == "timeout" for one in report.missing)
            if not late and not unknown & {*self.scenario.expect.codes}:
                break
            report = self.ground.check(self.scenario.expect.options)
        return report

    def pids(self) -> dict[str, int]:
        """Give the containers that run, by the pid of their first process."""
        found = {}
        for name in self.scenario.container:
            pid = int(self.names.container(name)["State"]["Pid"])
            if pid and not self.ground.run(("test", "-e", f"/proc/{pid}/exe")).code:
                found[name] = pid
        return found


def prove(scenario: Scenario, ground: Ground) -> None:
    """Play a scenario to its end on a host where its containers run. Raises Failed for the first thing that is not so."""
    stage = Stage.of(scenario, ground)
    noted = healthy(stage)
    broken = break_it(stage)
    remedy = named(stage, broken, noted)
    healed(stage, noted, heal(stage, remedy))


def healthy(stage: Stage) -> set[str]:
    """Prove that nothing is found on the healthy host but notes; give their ids."""
    _attempt("the healthy host could not be prepared", stage, stage.scenario.prepare)
    stage.learn()
    report = stage.check()
    worse = [one for one in report.findings if one.severity is not Severity.INFO]
    if worse:
        raise Failed("the healthy host is not silent", *_rows(worse))
    _expect_fates(stage, [one.healthy for one in stage.scenario.probe], "the healthy host is not as the scenario says")
    return {one.id for one in report.findings}


def break_it(stage: Stage) -> Report:
    """Prove that the fault is felt; give what doctor then says."""
    _attempt("the fault could not be made", stage, stage.scenario.faults)
    if stage.ground.answers():
        stage.learn()
    _expect_fates(stage, [one.broken for one in stage.scenario.probe], "the fault did not change what is measured")
    return stage.check()


def named(stage: Stage, report: Report, noted: set[str]) -> Remedy:
    """Prove that its codes fire, the cause is first and alone, and neighbours are silent; give the cure to try."""
    wanted = stage.scenario.expect
    new = [one for one in report.findings if one.id not in noted]
    fired = {one.code for one in new}
    outcomes = {one.code: one for one in report.outcomes}
    if missing := [code for code in wanted.codes if code not in fired]:
        said = [("said", _said(outcomes[code])) for code in missing if code in outcomes]
        raise Failed(f"{' '.join(missing)} does not fire", *said, *_rows(new))
    causes = [one.code for one in report.diagnoses if one.code not in wanted.beside]
    if wanted.root and causes[:1] != [wanted.root]:
        raise Failed(f"{wanted.root} is not the first cause", ("causes", " ".join(causes) or "none"), *_rows(new))
    levels = {one.severity for one in new if one.code == (wanted.root or wanted.codes[0])}
    level = wanted.level if not wanted.unproved or dialect(stage.release)[1] else wanted.unproved
    if levels != {Severity(level)}:
        raise Failed(f"{wanted.codes[0]} is no {level}", *_rows(new))
    silent = {one.code for one in report.outcomes if one.outcome in {Result.PASS, Result.NOT_APPLICABLE}}
    if loud := [code for code in wanted.silent if code not in silent]:
        said = [("loud", _said(outcomes[code]) if code in outcomes else f"{code} was not asked") for code in loud]
        raise Failed("a neighbour is not silent", *said, *_rows(new))
    if more := [one for one in new if one.code not in {*wanted.codes, *wanted.also, *wanted.beside}]:
        raise Failed("something else is found as well", *_rows(more))
    cure = wanted.cure or wanted.root or wanted.codes[0]
    return next(one.remedy for one in new if one.code == cure)


def heal(stage: Stage, remedy: Remedy) -> list[str]:
    """Do the cure as it is printed, and what its notes ask of a person; start again what it says stays down.

    Gives what was said on the way: commands may end with 0 and have something to say, as the first of a pipe.
    """
    said: list[str] = []
    if stage.ground.answers():
        stage.learn()
    before = stage.pids()
    notes = [one for one in remedy.steps if isinstance(one, Note)]
    if notes and not stage.scenario.person:
        raise Failed(
            "the cure asks a person for something, and the scenario has no [[person]]", ("cure", notes[0].text)
        )
    if stage.scenario.person and not notes:
        raise Failed("the scenario has a [[person]], and the cure needs none", *_cure_rows(remedy))
    if notes:
        _attempt("what a person does could not be done", stage, stage.scenario.person)
    else:
        for step in remedy.steps:
            said += carry_out(stage.ground, step)
        _stopped_whom_it_names(stage, before, remedy)
    for name in stage.scenario.container:
        if name in remedy.stays_down:
            done = stage.ground.run(("docker", "start", name))
            if done.code:
                raise Failed("what the cure stopped does not start again", ("start", f"{name}: {shorten(done.err)}"))
    return said


def carry_out(ground: Ground, step: Step) -> list[str]:
    """Do one step as printed: a line for the shell, or an edit; gives what is said on stderr. Raises Failed if it cannot be."""
    heard: list[str] = []
    match step:
        case Command():
            for line in step_lines(step):
                done = ground.run(("sh", "-c", line), seconds=60)
                if done.code:
                    said = shorten(done.err or done.out)
                    raise Failed("the printed cure did not heal", ("cure", f"{line}     exit {done.code}: {said}"))
                heard += [shorten(done.err)] if done.err else []
            if "service" in step.argv or "systemctl" in step.argv:
                _await(ground)
        case Edit():
            lines = (ground.read(step.path) or "").split("\n")
            if step.line > len(lines) or lines[step.line - 1] != step.old:
                raise Failed(
                    "the printed cure did not heal", ("cure", f"line {step.line} of {step.path} is not {step.old}")
                )
            lines[step.line - 1 : step.line] = [] if step.new is None else [step.new]
            ground.write(step.path, "\n".join(lines))
        case EditKey():
            data = json.loads(ground.read(step.path) or "{}")
            key = step.pointer.removeprefix("/").replace("~1", "/").replace("~0", "~")
            if step.value is None:
                data.pop(key, None)
            else:
                data[key] = json.loads(step.value)
            ground.write(step.path, json.dumps(data, indent=2) + "\n")
    return heard


def _await(ground: Ground) -> None:
    """Wait for a daemon whose init script does not."""
    end = time.monotonic() + PATIENCE
    while not ground.answers():
        if time.monotonic() > end:
            raise Failed("the printed cure did not heal", ("cure", "dockerd does not answer after its restart"))
        time.sleep(0.02)


def _stopped_whom_it_names(stage: Stage, before: dict[str, int], remedy: Remedy) -> None:
    end = time.monotonic() + 3
    while True:  # dockerd hears of a process that ended when its turn comes
        stage.learn()
        after = stage.pids()
        stopped = {name for name, pid in before.items() if after.get(name) != pid}
        down = {name for name in before if name not in after}
        if stopped == set(remedy.stops) and down == set(remedy.stays_down):
            return
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    said = f"stops {' '.join(remedy.stops) or 'nobody'}, stay down {' '.join(remedy.stays_down) or 'nobody'}"
    did = f"stopped {' '.join(sorted(stopped)) or 'nobody'}, down are {' '.join(sorted(down)) or 'nobody'}"
    raise Failed("the cure does not stop whom it names", ("said", said), ("did", did))


def healed(stage: Stage, noted: set[str], said: list[str]) -> None:
    """Prove that everything is measured as it was before, and that doctor finds nothing that it did not find before.

    `said` is what the cure printed on stderr, to be shown where it did not heal.
    """
    wanted = [one.healthy for one in stage.scenario.probe]
    end = time.monotonic() + PATIENCE
    while True:
        stage.learn()
        if stage.fates() == wanted or time.monotonic() > end:
            break
        time.sleep(0.2)
    _expect_fates(stage, wanted, "the printed cure did not heal", *(("cure", text) for text in said))
    report = stage.check()
    codes = {*stage.scenario.expect.codes}
    left = [
        one
        for one in report.findings
        if one.severity is not Severity.INFO or (one.code in codes and one.id not in noted)
    ]
    if left:
        raise Failed("after the cure doctor still finds something", *_rows(left))


def _attempt(what: str, stage: Stage, steps: tuple[Fault, ...]) -> None:
    try:
        stage.carry_out(steps)
    except GroundError as error:
        raise Failed(what, ("said", str(error))) from error


def _expect_fates(stage: Stage, wanted: list[str], what: str, *more: tuple[str, str]) -> None:
    try:
        found = stage.fates(wanted)
    except GroundError as error:
        raise Failed(what, ("probe", str(error))) from error
    wrong = [
        ("probe", f"{about(stage.scenario, number)}: {fate}, not {wish}")
        for number, (fate, wish) in enumerate(zip(found, wanted, strict=True))
        if fate != wish
    ]
    if wrong:
        raise Failed(what, *wrong, *more)


def about(scenario: Scenario, number: int) -> str:
    """Say what a probe looks at: `client -> web:80`."""
    probe = scenario.probe[number]
    if probe.target:
        return f"{probe.source} -> {probe.target}"
    return " ".join((probe.run or probe.file or probe.process or f"log {probe.log}").split())[:60]


def _rows(found: list[Reported]) -> list[tuple[str, str]]:
    return [("found", f"{one.code} {one.severity} {one.subject}: {one.title}") for one in found] or [
        ("found", "nothing")
    ]


def _said(one: Outcome) -> str:
    """Say what a check came to, and why."""
    return f"{one.code} {one.outcome}" + (f": {one.reason}" if one.reason else "")


def _cure_rows(remedy: Remedy) -> list[tuple[str, str]]:
    return [("cure", line) for step in remedy.steps for line in step_lines(step)]
