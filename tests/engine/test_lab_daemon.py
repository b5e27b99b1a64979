"""doctor cannot tell a host of ours from a live one: set up the same way, each check comes out the same."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon import cli
from doctor.runtime.daemon.serve import Start
from doctor.runtime.daemon.service import programs, service
from doctor.runtime.host import Lab

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

SETUP = (
    "network create --subnet 10.7.0.0/24 app",
    "network create --internal closed",
    "run -d --name web -p 8080:80 --restart unless-stopped --network app --network-alias w busybox:lab serve",
    "network connect closed web",
    "run -d --name db --network app busybox:lab idle",
    "run -d --name plain -p 9090:99 busybox:lab idle",
    "run -d --name linked --link plain:pl -v vol1:/data busybox:lab idle",
    "create --name made busybox:lab idle",
    "run --name done busybox:lab true",
)
TAKEN_DOWN = "rm -f -v web db plain linked made done", "volume rm vol1", "network rm app closed"
DIALECTS = {(20, 10): "20.10", (26, 1): "26", (28, 5): "28"}
DIFFERENT = {
    "CGR002": "a lab has no control groups unless it is told to: nothing to judge",
    "CGR003": "the same",
    "CGR005": "the same",
    "CGR006": "the same",
    "CGR001": "which version is used is the machine's",
    "STO003": "the data root of a lab is in memory, of which there is a note",
    "HST006": "the kernel's log is the machine's, and is not shown in a lab",
    "DMN009": "a note, of a file system that is there or is not",
}
"""Codes that may come out differently, and why."""


def _outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {one["code"]: one["outcome"] for one in report["outcomes"] if one["code"] not in DIFFERENT}


def test_each_check_comes_out_the_same(engine: EngineHost) -> None:
    """Nine commands of docker on both, then `doctor check` on both."""
    dialect = DIALECTS[tuple(int(part) for part in engine.version.split(".")[:2])]
    start = Start(dialect=dialect)
    with Lab.up(services=[service(start)], builtins={"docker": cli.main}, files=programs(dialect)) as lab:
        for line in SETUP:
            engine.docker(*line.split())
            done = lab.run(("docker", *line.split()), builtin=True)
            assert done.returncode == 0, (line, done)
        try:
            live = json.loads(engine.doctor("check", "--format", "json").stdout)
        finally:
            for line in TAKEN_DOWN:
                engine.docker(*line.split(), check=False)
        ours = json.loads(lab.run((sys.executable, "-m", "doctor", "check", "--format", "json"), timeout=120).stdout)
    assert _outcomes(ours) == _outcomes(live)
