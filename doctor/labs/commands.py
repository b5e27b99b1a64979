"""What `doctor lab` does, a function for each word; the words and their options are in `doctor.cli`."""

from __future__ import annotations

import os
import pwd
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.amounts import plural
from doctor.exits import CLEAN, FOUND, USAGE, UsageError
from doctor.labs import catalogue
from doctor.labs.loading import ScenarioError, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.labs.replaying import Outcome
    from doctor.labs.scenario import Scenario
    from doctor.runtime.host import Lab

WIDTH = 80
SIDE_BY_SIDE = 3
"""Replays a processor by default: most of a replay is waiting, for what does not come back or a container that ends."""


def listing(area: str = "") -> int:
    """List the scenarios, or those of an area."""
    every = list(_read(catalogue.files()))
    held = [one for one in every if area in {"", one.area, one.expect.root, *one.expect.codes}]
    if not held:
        areas = ", ".join(sorted({one.area for one in every}))
        raise UsageError(
            f"no scenario is of {area}: there are {areas}" if every else "this installation has no scenarios"
        )
    column = max(len(one.name) for one in held) + 1
    lines = [f" {'NAME':<{column}} MIN  TEACHES"]
    lines += [f" {one.name:<{column}} {one.minutes:>3}  {one.teaches}" for one in held]
    lines.append(f"{len(held)} of {plural(len(every), 'scenario')}. doctor lab run NAME")
    sys.stdout.write("\n".join(lines) + "\n")
    return CLEAN


def _read(files: Sequence[Path]) -> list[Scenario]:
    try:
        return [load(path, catalogue.shown(path)) for path in files]
    except ScenarioError as error:
        raise UsageError(str(error)) from error


def _scenario(word: str) -> Scenario:
    try:
        return catalogue.scenario(word)
    except ScenarioError as error:
        raise UsageError(str(error)) from error


def story(one: Scenario) -> str:
    """Give what a person reads before the shell of a lab."""
    here = "docker, iptables, ip, ping work. hint, check, solve, leave are for you."
    lines = []
    for label, text in (("STORY", one.story), ("TRY", one.symptom), ("HERE", here)):
        lines += textwrap.wrap(
            " ".join(text.split()), WIDTH - 1, initial_indent=f" {label:<7}", subsequent_indent=" " * 8
        )
    return "\n".join(lines) + "\n"


def run(word: str, dialect: str = "") -> int:
    """Break a host, and leave a shell in it; when that ends, everything is gone."""
    one = _scenario(word)
    from doctor.labs import lab, shell
    from doctor.labs.replay import Failed, Stage
    from doctor.labs.replaying import lacking
    from doctor.labs.words import breaking

    if why := lacking(one):
        raise UsageError(f"{one.name} needs {why}")
    chosen = _dialect(one, dialect)
    try:
        made = lab.up(one, chosen, one.name)
    except lab.StartError as error:
        raise UsageError(str(error)) from error
    try:

        def broken(stage: Stage) -> None:
            breaking(stage, proved=True)

        lab.played(made, one, broken)
        sys.stdout.write(story(one))
        sys.stdout.flush()
        shell.attach(made, one.name)
    except (Failed, lab.StartError) as error:
        raise UsageError(f"{one.name}: {error}") from error
    finally:
        made.down()
    sys.stdout.write("everything is gone; this machine is as it was\n")
    return CLEAN


def _dialect(one: Scenario, asked: str) -> str:
    if not asked:
        return "28" if "28" in one.dialects else one.dialects[0]
    if asked not in one.dialects:
        raise UsageError(f"{one.name}: --dialect {asked} is none of {', '.join(one.dialects)}")
    return asked


def enter(name: str) -> int:
    """Open one more shell in a lab that is up."""
    from doctor.labs import shell

    return shell.attach(_attached(name), name)


def word(name: str, which: str) -> int:
    """Say a word of a lab's shell from another terminal: hint, check, solve."""
    lab = _attached(name)
    running = lab.spawn((which,), stdin=0, stdout=1, stderr=2, builtin=True)
    try:
        return running.wait()
    finally:
        running.close()


def _attached(name: str) -> Lab:
    from doctor.runtime.host import Lab, LabError

    try:
        return Lab.attach(name)
    except LabError as error:
        up = Lab.names()
        raise UsageError(f"no lab {name} is up" + (f": {', '.join(up)}" if up else "; doctor lab run NAME")) from error


def replay(names: Sequence[str], *, every: bool = False, dialect: str = "", keep: bool = False, jobs: int = 0) -> int:
    """Prove scenarios: one by name in all its dialects, or all of them, each in one."""
    if bool(names) == every:
        raise UsageError("lab replay: which? NAME, or --all")
    chosen = _read(catalogue.files()) if every else [_scenario(one) for one in names]
    from doctor.labs.replaying import one_dialect, replays

    wanted = [
        (one, spoken)
        for one in chosen
        for spoken in one.dialects
        if dialect in {spoken, "all"}
        or (spoken == one_dialect(one) if dialect == "one" or (every and not dialect) else not dialect)
    ]
    if not wanted:
        raise UsageError(f"lab replay: --dialect {dialect} is of none of them")
    width = jobs or SIDE_BY_SIDE * len(os.sched_getaffinity(0))
    sys.stdout.write(f" {plural(len(wanted), 'replay')}, {width} at a time, as {_user()}\n")
    sys.stdout.flush()
    began = time.monotonic()
    done = []
    for outcome in replays(wanted, width, keep=keep):
        done.append(outcome)
        sys.stdout.write("".join(f"{line}\n" for line in _failure(outcome)))
        sys.stdout.flush()
    sys.stdout.write(_summary(done, time.monotonic() - began) + "\n")
    return FOUND if any(one.state == "failed" for one in done) else CLEAN


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _failure(one: Outcome) -> list[str]:
    if one.state != "failed":
        return []
    lines = [f"FAIL  {one.name} [{one.dialect}]: {one.what}"]
    lines += [f"        {label:<7} {text}" for label, text in one.rows]
    again = f"doctor lab replay {one.name} --dialect {one.dialect}"
    lines.append(f"        {'again':<7} " + (f"doctor lab enter {one.kept}" if one.kept else f"{again} --keep"))
    return lines


def _summary(done: list[Outcome], seconds: float) -> str:
    states = [one.state for one in done]
    skipped = sorted({one.what for one in done if one.state == "skipped"})
    line = f"{plural(len(done), 'replay')} in {seconds:.0f} s: {states.count('proved')} proved"
    line += f", {states.count('failed')} failed" if "failed" in states else ""
    return line + (f", {states.count('skipped')} skipped ({'; '.join(skipped)})" if skipped else "")


def lint(paths: Sequence[str] = ()) -> int:
    """Say what is wrong with scenario files; without one, with those that are here or come with doctor."""
    from doctor.labs.judging import codes
    from doctor.labs.toml_lines import Lines

    files = [Path(path) for path in paths] or sorted(Path(catalogue.FOLDER).glob("*.toml")) or catalogue.files()
    wrong = []
    for path in files:
        try:
            one = load(path, catalogue.shown(path))
        except ScenarioError as error:
            wrong.append(str(error))
            continue
        where = Lines(path.read_text(encoding="utf-8"))
        wrong += [f"{catalogue.shown(path)}:{where.of(key)}: {key}: {why}" for key, why in codes(one)]
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    if wrong:
        return USAGE
    sys.stdout.write(f"{plural(len(files), 'scenario')}: nothing is wrong\n")
    return CLEAN


def new(name: str) -> int:
    """Write the file of a new scenario, which is whole and can be replayed."""
    from doctor.labs.scenario import NAME

    if not NAME.fullmatch(name):
        raise UsageError(f"lab new: {name}: words of a-z and 0-9 with dashes between them")
    folder = Path(catalogue.FOLDER) if Path(catalogue.FOLDER).is_dir() else Path()
    path = folder / f"{name}.toml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STUB)
    except FileExistsError as error:
        raise UsageError(f"{path}: is there already") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {(error.strerror or str(error)).lower()}") from error
    sys.stdout.write(f"{path}: change it, then\n  doctor lab lint {path}\n  doctor lab replay {path}\n")
    return CLEAN


STUB = '''\
schema = 1
title = "What is wrong, in one line"
area = "network"
minutes = 3
teaches = "what one knows after it"
story = """
What happened, told by somebody who does not know the cause.
"""
try = "what should work, and what it does instead."
hints = [
  "where to look first",
  "the command that shows it",
]

[container]
web = { listen = ["80/tcp"], publish = ["8080:80"] }
cron = {}

[[fault]]
kind = "sysctl"
key = "net.ipv4.ip_forward"
value = "0"

[[probe]]
from = "cron"
to = "outside:9000"
healthy = "open"
broken = "filtered"

[expect]
codes = ["NET034"]
root = "NET034"
silent = ["NET021", "NET035"]
'''
