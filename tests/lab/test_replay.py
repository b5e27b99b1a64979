"""Every scenario is replayed in labs of our own, by the command that a user types, in an order of chance."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import pytest

from doctor.labs import catalogue
from doctor.labs.loading import load
from doctor.labs.replaying import one_dialect

SCENARIOS = [one for one in map(load, catalogue.files()) if not one.lab]
CODES = sorted({one.expect.cure or one.expect.root or one.expect.codes[0] for one in SCENARIOS})

_PLAIN = """
import encodings.idna, grp, importlib, os, pkgutil, pwd, sys, tempfile, tomllib
import doctor
for one in pkgutil.walk_packages(doctor.__path__, "doctor."):
    importlib.import_module(one.name)
from doctor.labs import catalogue
from doctor.labs.replaying import _import_all, one_dialect, replays
jobs = [(one, one_dialect(one)) for one in map(catalogue.scenario, sys.argv[1:])]
_import_all()
os.chdir("/")
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
for one in replays(jobs, 2):
    print(one.state, one.name, one.dialect, one.what, *one.rows, flush=True)
os._exit(0)
"""
"""By a user without any right, who may not read the Python of root: all is imported and read before root is given up."""


def _replayed(argv: list[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=280, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.root
@pytest.mark.proves(*CODES)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_every_scenario_is_proved_as_root() -> None:
    """Each is proved in one of its dialects: healthy silent, fault felt, code, cause, neighbours, cure, nothing left."""
    names = [one.name for one in SCENARIOS]
    random.shuffle(names)
    said = _replayed([sys.executable, "-m", "doctor", "lab", "replay", *names, "--dialect", "one"])
    found = re.search(r"(\d+) replays? in \d+ s: (\d+) proved(?:, (\d+) skipped)?", said)
    assert found, said
    assert int(found[2]) + int(found[3] or 0) == len(names), said


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_scenarios_are_proved_without_root() -> None:
    """What needs no right of root's is proved without any: a tenth of them, by chance."""
    names = [one.name for one in SCENARIOS if not {"root", "cgroups", "iptables-legacy"} & {*one.needs}]
    chosen = random.sample(names, max(4, len(names) // 10))
    said = _replayed([sys.executable, "-c", _PLAIN, *chosen])
    assert sorted(line.split()[1] for line in said.splitlines() if line.startswith("proved ")) == sorted(chosen), said


def test_the_dialect_of_a_scenario_is_always_the_same() -> None:
    """What is played once is played in one dialect, and each dialect has its share."""
    chosen = [one_dialect(one) for one in SCENARIOS]
    assert chosen == [one_dialect(one) for one in SCENARIOS]
    assert {"20.10", "26", "28", "29"} <= set(chosen)
