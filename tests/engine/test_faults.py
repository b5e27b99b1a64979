"""Each code, made true on live engines: proved by a probe, named first, alone, and healed by the cure as printed."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.conftest import FAILED
from tests.engine.faults import FAULTS, Fault, flows, populate
from tests.engine.healthy.table import ALWAYS_NOTED
from tests.enginehost import EngineError, EngineHost

if TYPE_CHECKING:
    from collections.abc import Iterator

SPENT = pytest.StashKey[bool]()
"""Whether doctor still notes something of a healed host that it does not note of any."""

CODES = sorted({fault.code for fault in FAULTS})


class Pool:
    """The hosts that a fault was healed on, for the next fault: to start one takes longer than most faults.

    A host is given again only when everything that a fault touches is as it was at its start.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.hosts: dict[str, tuple[EngineHost, dict[str, str]]] = {}
        self.notes: dict[str, set[str]] = {}
        """What doctor notes of a suite's host while nothing is done to it; not known of one that was just made."""

    def take(self, suite: str) -> EngineHost:
        """Give a host with the four containers."""
        host, state = self.hosts.pop(suite, (None, {}))
        notes = self.notes.pop(suite, None)
        if host is not None:
            try:
                same = tidied(host, state)
            except (EngineError, OSError, KeyError):  # an engine that does not answer, or containers without a network
                same = False
            if same:
                if notes is not None:
                    self.notes[suite] = notes
                return self.keep(suite, host, state)
            host.leave()
        made = EngineHost.up(suite=suite)
        try:
            populate(made)
            return self.keep(suite, made, state_of(made))
        except BaseException:
            made.down()
            raise

    def keep(self, suite: str, host: EngineHost, state: dict[str, str]) -> EngineHost:
        """Note a host as this suite's."""
        self.hosts[suite] = host, state
        return host

    def drop(self, suite: str) -> None:
        """End a suite's host."""
        host, _ = self.hosts.pop(suite, (None, {}))
        self.notes.pop(suite, None)
        if host is not None:
            host.leave()


_STATE = r"""
part() { printf '\n=== %s\n' "$1"; }
cd /
part layers; ls var/lib/docker/overlay2 | wc -l; ls var/lib/docker/image/overlay2/layerdb/* | wc -l
part files; find etc/docker etc/default etc/systemd/system etc/network etc/sysctl.conf etc/sysctl.d etc/hosts \
  etc/resolv.conf etc/nftables.conf etc/iptables usr/local/bin usr/local/sbin -printf '%p %y %m %u %g %l\n' | sort
cat etc/docker/* etc/default/docker etc/sysctl.d/* etc/resolv.conf etc/hosts
part rules; for save in iptables-save ip6tables-save; do $save | sed '/^#/d; s/\[[0-9:]*\]//' | sort; done
part tables; nft list tables
part sysctl; grep -s . proc/sys/net/ipv4/ip_forward proc/sys/net/ipv4/conf/[!v]*/rp_filter proc/sys/net/bridge/* \
  proc/sys/net/ipv[46]/conf/[!v]*/forwarding proc/sys/net/ipv4/conf/[!v]*/route_localnet proc/sys/kernel/pid_max \
  proc/sys/net/ipv6/conf/[!v]*/disable_ipv6 proc/sys/net/netfilter/nf_conntrack_max proc/sys/net/ipv4/ip_local_port_range
part links; ip -o addr | sed 's/veth[0-9a-f]*//; s/if[0-9]*//; s/^[0-9]*//; s/[a-z_]* [0-9]*sec//g' | grep -v fe80 | sort
ip -o link | sed 's/veth[0-9a-f]*//; s/if[0-9]*//; s/^[0-9]*//; s/link.ether .*//' | sort
ip route; ip rule; ip -6 rule; ip netns
part mounts; findmnt -rno TARGET | sed 's/[0-9a-f]\{12,64\}/ID/' | sort
part processes; ps -eo comm= | grep -vx 'ps\|sh\|sort\|grep\|sleep' | sort
part daemon; tr '\0' ' ' <proc/$(pidof -s dockerd)/cmdline
"""
NAMES = ("web", "cron", "api", "db")
OWN_NETWORKS = {"bridge", "host", "none", "shop"}


def state_of(host: EngineHost) -> dict[str, str]:
    """Everything that a fault touches and a cure puts right, by part: configuration, rules, addresses, containers."""
    parts = (part.partition("\n") for part in host.run("sh", "-c", _STATE, check=False).stdout.split("\n=== ")[1:])
    found: dict[str, object] = {name: text for name, _, text in parts}
    ours = [host.api("GET", f"/containers/{name}/json") for name in NAMES]
    listed, info = host.api("GET", "/containers/json?all=1"), host.api("GET", "/info")
    found["asked for"] = [(one["HostConfig"], one["Config"]) for one in ours]
    found["addresses"] = [[place["IPAddress"] for place in one["NetworkSettings"]["Networks"].values()] for one in ours]
    found["containers"] = sorted((one["Names"], one["State"], sorted(map(str, one["Ports"]))) for one in listed)
    found["networks"] = sorted(one["Name"] for one in host.api("GET", "/networks"))
    found["images"] = sorted(one["Id"] for one in host.api("GET", "/images/json?all=1"))
    found["volumes"] = host.api("GET", "/volumes")["Volumes"]
    found["info"] = [info[key] for key in ("LiveRestoreEnabled", "Driver", "DefaultRuntime", "DockerRootDir")]
    return {name: str(value) for name, value in found.items()}


def tidied(host: EngineHost, state: dict[str, str]) -> bool:
    """Whether a host is as it was, once what a fault or its setup added is gone: containers, networks, images."""
    for one in host.api("GET", "/containers/json?all=1"):
        if one["Names"][0].removeprefix("/") not in NAMES:
            host.api("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    for one in host.api("GET", "/networks"):
        if one["Name"] not in OWN_NETWORKS:
            host.api("DELETE", f"/networks/{one['Id']}")
    for one in host.api("GET", "/images/json"):
        if one["Id"] not in state["images"]:
            host.api("DELETE", f"/images/{one['Id']}?force=1")
    return state_of(host) == state


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
    if fault and fault.daemon_args:
        with EngineHost.up(suite=suite, daemon_args=fault.daemon_args) as made:
            populate(made)
            if fault.setup:
                fault.setup(made)
            yield made
        return
    made = pool.take(suite)
    if fault and fault.setup:
        fault.setup(made)
    yield made
    if request.node.stash.get(FAILED, False) or request.node.stash.get(SPENT, False):
        pool.drop(suite)


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
    found = {}
    for name in host.running():
        with contextlib.suppress(LookupError):  # it has ended meanwhile
            found[name] = host.container_pid(name)
    return found


def start(host: EngineHost, names: list[str]) -> None:
    """Start containers again in the order in which they were made, so that each gets its old address."""
    first = ("web", "cron", "api", "db")
    if names:
        host.docker(
            "start", *sorted(names, key=lambda name: (first.index(name) if name in first else len(first), name))
        )


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
def test_fault_is_named_and_healed(
    request: pytest.FixtureRequest, pool: Pool, suite: str, host: EngineHost, fault: Fault
) -> None:
    """Broken: this code comes first and no other is a cause. Cured as printed: the probe is as before, doctor is clean."""
    plain = not (fault.setup or fault.options or fault.daemon_args)
    noted = pool.notes.get(suite) if plain else None
    if noted is None:  # else the fault before has ended with the same report, and the host is as it was at its start
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
    left = set_up(found)
    assert fault.code not in {one["code"] for one in found["findings"] if one["id"] not in noted}
    if plain:
        pool.notes[suite] = left
    request.node.stash[SPENT] = bool({one["code"] for one in found["findings"]} - ALWAYS_NOTED)


DOUBLES = (
    ("NET034-host", "NET012-off-the-bridge"),
    ("LAY002-gone", "NET021-nft-flush"),
    ("NET010-address-gone", "NET021-nat-only"),
    ("DMN001-running", "NET034-uplink"),
    ("NET034-host", "NET021-nft-flush"),
    ("LAY002-gone", "DMN001-running"),
    ("NET045-lo-of-a-container", "NET021-nat-only"),
    ("NSP015-docker-proxy", "LAY002-gone"),
    ("NSP015-first-process", "NET034-uplink"),
    ("NET022-ports", "LAY002-elsewhere"),
    ("NET055-blocked", "NET026-another-container"),
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
