"""Each code, made true on live engines: proved by a probe, named first, alone, and healed by the cure as printed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.conftest import FAILED
from tests.engine.faults import FAULTS, Fault, flows, populate
from tests.enginehost import EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

CODES = sorted({fault.code for fault in FAULTS})


class Pool:
    """The hosts that a fault was healed on, for the next fault: to start one takes longer than most faults.

    A host is given again only when everything that a fault touches is as it was at its start.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.hosts: dict[str, tuple[EngineHost, str]] = {}

    def take(self, suite: str) -> EngineHost:
        """Give a host with the four containers."""
        host, state = self.hosts.pop(suite, (None, ""))
        if host is not None:
            if _state(host) == state:
                return self.keep(suite, host, state)
            host.down()
        made = EngineHost.up(suite=suite)
        try:
            populate(made)
            return self.keep(suite, made, _state(made))
        except BaseException:
            made.down()
            raise

    def keep(self, suite: str, host: EngineHost, state: str) -> EngineHost:
        """Note a host as this suite's."""
        self.hosts[suite] = host, state
        return host

    def drop(self, suite: str) -> None:
        """End a suite's host."""
        host, _ = self.hosts.pop(suite, (None, ""))
        if host is not None:
            host.down()


_STATE = """
set +e
ls /var/lib/docker/overlay2 | wc -l; ls /var/lib/docker/image/overlay2/layerdb/* | wc -l
ls -lR --time-style=+ /etc/docker /etc/systemd/system /etc/network /etc/sysctl.d 2>/dev/null
cat /etc/docker/* /etc/default/docker /etc/resolv.conf /etc/hosts 2>/dev/null
iptables-save | sed '/^#/d; s/\\[[0-9:]*\\]//' | sort
nft list tables
sysctl -a --pattern 'ip_forward|bridge-nf|rp_filter|route_localnet|[.]forwarding|pid_max' 2>/dev/null | grep -v veth
ip -o addr | sed 's/veth[0-9a-f]*//; s/if[0-9]*//; s/^[0-9]*//' | grep -v fe80 | sort
ip route; ip rule; findmnt -rno TARGET | grep -v '/[0-9a-f]\\{12,64\\}'
docker ps -a --format '{{.Names}} {{.Ports}} {{.State}}' | sort; docker network ls --format '{{.Name}}' | sort
docker images -q; docker info -f '{{json .}}' | tr ',' '\\n' | grep -E 'LiveRestore|Driver|DefaultRuntime|DockerRootDir'
docker inspect -f '{{json .HostConfig}}{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web cron api db
tr '\\0' ' ' </proc/$(pidof -s dockerd)/cmdline
"""


def _state(host: EngineHost) -> str:
    """Everything that a fault touches and a cure puts right, as text: configuration, rules, addresses, containers."""
    return host.sh(_STATE, check=False)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """The hosts that are used again."""
    held = Pool()
    yield held
    for suite in list(held.hosts):
        held.drop(suite)


@pytest.fixture
def host(request: pytest.FixtureRequest, suite: str, pool: Pool) -> Iterator[EngineHost]:
    """A host with four containers, made with the arguments that the fault asks for."""
    fault: Fault | None = request.node.callspec.params.get("fault")
    if fault and not fault.daemon_args and not fault.setup:
        yield pool.take(suite)
        if request.node.stash.get(FAILED, False):
            pool.drop(suite)
        return
    with EngineHost.up(suite=suite, daemon_args=fault.daemon_args if fault else ()) as made:
        populate(made)
        if fault and fault.setup:
            fault.setup(made)
        yield made


def report(host: EngineHost, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Run `doctor check` as a user would; exit code and the report."""
    done = host.doctor("check", "--format", "json", *options)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def set_up(found: dict[str, Any]) -> set[str]:
    """Give the ids of the findings of a healthy host: notes on how it was set up, and nothing worse."""
    worse = [one for one in found["findings"] if one["severity"] != "info"]
    assert not worse, worse
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
@pytest.mark.sampled("fault", by="code")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.code}-{fault.name}")
def test_fault_is_named_and_healed(host: EngineHost, fault: Fault) -> None:
    """Broken: this code comes first and no other is a cause. Cured as printed: the probe is as before, doctor is clean."""
    code, found = report(host, fault.options)
    assert code == 0, found["diagnoses"]
    noted = set_up(found)
    healthy = fault.probe(host)
    fault.make(host)
    broken = fault.probe(host)
    assert broken != healthy, "the fault changed nothing"

    code, found = report(host, fault.options)
    named = [one["code"] for one in found["diagnoses"] if one["code"] not in fault.beside]
    # A note is no cause, anything else is the only one.
    assert named == ([] if fault.level == "info" else [fault.code]), found["findings"]
    new = [one for one in found["findings"] if one["id"] not in noted]
    # A container that could not be started for it is no other cause: there would be two.
    assert {one["code"] for one in new} <= {fault.code, *fault.also, *fault.beside, "CTR001"}
    assert {one["severity"] for one in new if one["code"] == fault.code} == {fault.level}
    assert code == (1 if fault.level == "error" else 0)
    remedy = next(one["remedy"] for one in new if one["code"] == fault.code)

    before = lives(host)
    if fault.heal:
        assert any(step["type"] == "note" for step in remedy["steps"]), "a cure without a note can be executed"
        fault.heal(host)
    else:
        carry_out(host, remedy["steps"])
        for _ in range(30):  # dockerd hears of a process that ended when its turn comes
            after = lives(host)
            stopped = {name for name, pid in before.items() if after.get(name) != pid}
            if stopped >= set(remedy["stops"]):
                break
            time.sleep(0.1)
        assert stopped == set(remedy["stops"]), "a cure stops exactly whom it names"
        assert {name for name in before if name not in after} == set(remedy["stays_down"])

    start(host, remedy["stays_down"])
    for one in new:
        if one["code"] == "CTR001" != fault.code and one["subject"] not in lives(host):
            carry_out(host, one["remedy"]["steps"])
    for _ in range(15):  # a neighbour whose address is another now is believed for some seconds: delay, then probes
        if (healed := fault.probe(host)) == healthy:
            break
        time.sleep(1)
    assert healed == healthy
    code, found = report(host, fault.options)
    assert code == 0, found["findings"]
    set_up(found)
    assert fault.code not in {one["code"] for one in found["findings"] if one["id"] not in noted}


DOUBLES = (
    ("NET034-host", "NET012-off-the-bridge"),
    ("LAY002-gone", "NET021-nft-flush"),
    ("NET010-address-gone", "NET021-nat-only"),
    ("DMN001-running", "NET034-uplink"),
    ("NET034-host", "NET021-nft-flush"),
    ("LAY002-gone", "DMN001-running"),
)


@pytest.mark.sampled("pair")
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
