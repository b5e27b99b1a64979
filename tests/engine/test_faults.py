"""Each code, made true on live engines: proved by a probe, named first, alone, and healed by the cure as printed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.faults import FAULTS, Fault, flows, populate
from tests.enginehost import EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = sorted({fault.code for fault in FAULTS})


@pytest.fixture
def host(request: pytest.FixtureRequest, suite: str) -> Iterator[EngineHost]:
    """A host with four containers, made with the arguments that the fault asks for."""
    fault: Fault | None = request.node.callspec.params.get("fault")
    args = fault.daemon_args if fault else ()
    with EngineHost.up(suite=suite, daemon_args=args) as made:
        populate(made)
        if fault and fault.setup:
            fault.setup(made)
        yield made


def report(host: EngineHost) -> tuple[int, dict[str, Any]]:
    """Run `doctor check` as a user would; exit code and the report."""
    done = host.doctor("check", "--format", "json")
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def set_up(found: dict[str, Any]) -> set[str]:
    """Give the ids of the findings of a healthy host: notes on how it was set up, and nothing worse."""
    worse = [one for one in found["findings"] if one["severity"] != "info"]
    assert not worse
    return {one["id"] for one in found["findings"]}


def lives(host: EngineHost) -> dict[str, int]:
    """Give the pid of each running container: another pid after a cure means that it was stopped."""
    held = host.containers()
    running = host.running()
    return {one["Name"].lstrip("/"): one["State"]["Pid"] for one in held if one["Name"].lstrip("/") in running}


def start(host: EngineHost, names: list[str]) -> None:
    """Start containers again in the order in which they were made, so that each gets its old address."""
    first = ("web", "cron", "api", "db")
    for name in sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name)):
        host.docker("start", name)


def carry_out(host: EngineHost, steps: list[dict[str, Any]]) -> None:
    """Do what a cure says, as printed; a note is for a person and must not stand in an executed cure."""
    for step in steps:
        match step["type"]:
            case "command":
                host.run(*step["argv"], stdin=step.get("stdin") or None)
            case "edit":
                lines = host.read(step["path"]).split("\n")
                assert lines[step["line"] - 1] == step["old"]
                lines[step["line"] - 1 : step["line"]] = [] if step["new"] is None else [step["new"]]
                host.write(step["path"], "\n".join(lines))
            case "edit-key":
                data = json.loads(host.read(step["path"])) if host.exists(step["path"]) else {}
                key = step["pointer"].removeprefix("/")
                if step["value"] is None:
                    del data[key]
                else:
                    data[key] = json.loads(step["value"])
                host.write(step["path"], json.dumps(data))
            case other:
                pytest.fail(f"a step that cannot be executed: {other}: {step}")
    if any("service" in step.get("argv", ()) for step in steps):
        for _ in range(100):  # the init script does not wait until dockerd serves
            if host.answers():
                break
            time.sleep(0.1)


@pytest.mark.proves(*CODES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.code}-{fault.name}")
def test_fault_is_named_and_healed(host: EngineHost, fault: Fault) -> None:
    """Broken: this code comes first and no other is a cause. Cured as printed: the probe is as before, doctor is clean."""
    code, found = report(host)
    assert code == 0, found["diagnoses"]
    noted = set_up(found)
    healthy = fault.probe(host)
    fault.make(host)
    broken = fault.probe(host)
    assert broken != healthy, "the fault changed nothing"

    code, found = report(host)
    named = [one["code"] for one in found["diagnoses"]]
    assert named == ([] if fault.level == "info" else [fault.code]), "a note is no cause, anything else is the only one"
    new = [one for one in found["findings"] if one["id"] not in noted]
    assert {one["code"] for one in new} <= {fault.code, *fault.also}
    assert {one["severity"] for one in new if one["code"] == fault.code} == {fault.level}
    assert code == (1 if fault.level == "error" else 0)
    remedy = next(one["remedy"] for one in new if one["code"] == fault.code)

    before = lives(host)
    if fault.heal:
        assert any(step["type"] == "note" for step in remedy["steps"]), "a cure without a note can be executed"
        fault.heal(host)
    else:
        carry_out(host, remedy["steps"])
        after = lives(host)
        stopped = {name for name, pid in before.items() if after.get(name) != pid}
        assert stopped == set(remedy["stops"]), "a cure stops exactly whom it names"
        assert {name for name in before if name not in after} == set(remedy["stays_down"])

    start(host, remedy["stays_down"])
    assert fault.probe(host) == healthy
    code, found = report(host)
    assert code == 0
    assert set_up(found) == noted


DOUBLES = (
    ("NET034-host", "NET012-off-the-bridge"),
    ("LAY002-gone", "NET021-nft-flush"),
    ("NET010-address-gone", "NET021-nat-only"),
    ("DMN001-running", "NET034-uplink"),
)


@pytest.mark.parametrize("pair", DOUBLES, ids="+".join)
def test_two_faults_are_two_causes(host: EngineHost, pair: tuple[str, str]) -> None:
    """Two independent faults at once: both are named as causes, and what restarts dockerd comes after the other."""
    by_name = {f"{one.code}-{one.name}": one for one in FAULTS}
    faults = [by_name[name] for name in pair]
    healthy = flows(host)
    for fault in faults:
        fault.make(host)
    _, found = report(host)
    causes = found["diagnoses"]
    assert {one["code"] for one in causes} == {one.code for one in faults}
    for cause in causes:
        others = {one["code"] for one in causes if one["code"] != cause["code"]}
        assert set(cause["cure_after"]) == (others if cause["remedy"]["restarts"] else set())
    for cause in sorted(causes, key=lambda one: len(one["cure_after"])):
        carry_out(host, cause["remedy"]["steps"])
        start(host, cause["remedy"]["stays_down"])
    code, found = report(host)
    assert code == 0
    set_up(found)
    assert flows(host) == healthy
