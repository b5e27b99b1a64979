"""The fixture keeps its promises: what its probes see, that dockerd obeys, and that nothing is left.

What has little to do with the engine is tried on one of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import enginehost
from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP, SUITES, CommandError, EngineHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def bare(suite: str) -> Iterator[EngineHost]:
    """A host without a daemon, for what needs none."""
    with EngineHost.up(suite=suite, dockerd=False) as host:
        yield host


def eventually(condition: Callable[[], bool], timeout: float = 15) -> bool:
    """Whether a condition comes true in time: the kernel takes namespaces and processes apart in the background."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# ---- what a host is


def test_host_is_of_the_promised_release_with_an_image(engine: EngineHost, suite: str) -> None:
    """The host runs the release that its suite promises, quietly, and has the image."""
    assert engine.version.startswith(SUITES[suite] + ".")
    assert engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}") == IMAGE
    assert engine.docker("version", "-f", "{{.Server.Version}}").startswith(engine.version)
    assert engine.run("hostname").stdout == f"{engine.name}\n"
    assert engine.running() == set()
    assert "level=error" not in engine.log()


def test_host_sees_its_own_processes_cgroups_and_mounts_only(bare: EngineHost) -> None:
    """Nothing of this machine shows in a host: it looks like a machine of its own."""
    assert bare.read("/proc/1/comm") == "init\n"
    assert {line.rpartition(":")[2] for line in bare.read("/proc/1/cgroup").splitlines()} <= {"/", "/init"}
    mounts = {line.split()[4] for line in bare.read("/proc/self/mountinfo").splitlines()}
    assert {"/", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/docker"} <= mounts
    assert not [path for path in mounts if path.startswith(str(enginehost.cache_dir()))]
    groups = bare.sh("find /sys/fs/cgroup -mindepth 2 -type d -not -path '*/init'")
    assert groups == ""


def test_init_reaps_orphans(bare: EngineHost) -> None:
    """Pid 1 takes in orphans, as shims of ended containers are."""
    bare.sh("for i in 1 2 3; do (true &) ; done; (sleep 0.05 &)")
    assert eventually(lambda: " Z" not in bare.run("ps", "-eo", "pid,stat").stdout)


def test_eth0_is_up_at_once(bare: EngineHost) -> None:
    """The link to the outside carries packets, and says so, as soon as the host is up."""
    assert "LOWER_UP" in bare.run("ip", "link", "show", "eth0").stdout
    assert bare.read("/sys/class/net/eth0/operstate") == "up\n"
    assert bare.outside("ping", "-c1", "-W1", HOST_IP, check=False).returncode == 0 or not os.access(
        "/bin/ping", os.X_OK
    )
    assert bare.run("ping", "-c1", "-W1", OUTSIDE_IP).returncode == 0


@pytest.mark.sampled
def test_present_doctor_runs(bare: EngineHost) -> None:
    """`doctor` in the host is this checkout's, byte-compiled."""
    done = bare.doctor("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("doctor ")
    where = bare.run(
        "/opt/doctor/bin/python", "-c", "import doctor; print(doctor.__file__, doctor.__cached__)"
    ).stdout.split()
    assert where[0] == "/opt/src/doctor/__init__.py"
    assert bare.exists(where[1])
    assert bare.read("/opt/src/doctor/__init__.py") == (CHECKOUT / "doctor/__init__.py").read_text(encoding="utf-8")


# ---- commands and files


def test_command_output_status_input_and_environment(bare: EngineHost) -> None:
    """A command gets what it is given; what it prints is told, also by its failure."""
    done = bare.run(
        "sh", "-c", "cat; echo $WORD >&2; pwd; exit 3", check=False, stdin="in", env={"WORD": "w"}, cwd="/tmp"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in/tmp\n", "w\n")
    with pytest.raises(CommandError, match=r"(?s)status 2.*no such thing"):
        bare.run("sh", "-c", "echo no such thing >&2; exit 2")
    with pytest.raises(CommandError, match=r"(?s)status 127.*nothing-here: No such file"):
        bare.run("nothing-here")
    assert bare.run("sh", "-c", "kill -9 $$", check=False).returncode == -signal.SIGKILL
    with pytest.raises(CommandError):
        bare.sh("false; true")


@pytest.mark.sampled
def test_command_that_takes_too_long_is_killed_with_its_children(bare: EngineHost) -> None:
    """A time-out leaves no process behind."""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        bare.run("sh", "-c", "echo so far; sleep 4242 & wait", timeout=0.3)
    assert caught.value.stdout == "so far\n"
    assert eventually(lambda: bare.run("pgrep", "-f", "sleep 4242", check=False).returncode == 1)


@pytest.mark.sampled
def test_command_that_leaves_a_daemon_blocks_nobody(bare: EngineHost) -> None:
    """A command has ended when it has ended, whoever still holds its output."""
    began = time.monotonic()
    assert bare.sh("sleep 30 & echo done") == "done\n"
    assert time.monotonic() - began < 5
    command = bare.spawn("sh", "-c", "echo first; exec sleep 30")
    assert eventually(lambda: command.stdout == "first\n")
    command.kill()
    assert command.wait() == -signal.SIGKILL


def test_files_are_the_host_s(bare: EngineHost) -> None:
    """Paths are resolved in the host, absolute links too."""
    bare.write("/srv/new/folder/file", "text\n", mode=0o600)
    assert bare.read("/srv/new/folder/file") == "text\n"
    assert bare.run("stat", "-c", "%a", "/srv/new/folder/file").stdout == "600\n"
    bare.write("/var/run/proof", "in the host\n")  # an absolute link, to follow in the host and not here
    assert bare.read("/run/proof") == "in the host\n"
    assert not Path("/run/proof").exists()
    assert not bare.exists("/srv/none")
    with pytest.raises(FileNotFoundError):
        bare.read("/srv/none")


# ---- connections


@pytest.mark.sampled
def test_connections_between_host_outside_and_containers(engine: EngineHost) -> None:
    """Every pair of networks meets what Docker's documentation says."""
    with (
        engine.network("apart"),
        engine.container("web", "-p", "8080:80", command=("serve",)),
        engine.container("near"),
        engine.container("far", "--network", "apart"),
        engine.listen("outside", 7000) as listener,
    ):
        web = engine.container_ip("web")
        expected = {
            ("host", web, 80): "connected",
            ("host", web, 81): "refused",
            ("near", web, 80): "connected",
            ("far", web, 80): "timeout",
            ("far", HOST_IP, 8080): "connected",
            ("near", OUTSIDE_IP, 7000): "connected",
            ("near", OUTSIDE_IP, 7001): "refused",
            ("outside", HOST_IP, 8080): "connected",
            ("outside", HOST_IP, 8081): "refused",
            ("outside", "198.51.100.77", 80): "timeout",
            ("outside", web, 80): "no-route",
            ("host", "127.0.0.1", 8080): "connected",
        }
        assert engine.probe(expected) == expected
        assert engine.connect("outside", HOST_IP, 8080) == "connected"
        assert eventually(lambda: listener.peers == [HOST_IP])
        assert engine.running() == {"web", "near", "far"}
        assert engine.container_ip("far", "apart") == engine.container_ip("far")


@pytest.mark.sampled
def test_no_route_is_told_from_an_answer_of_others(bare: EngineHost) -> None:
    """The sender's own routing, another's answer and silence are three outcomes."""
    bare.sh(
        "ip route add unreachable 203.0.113.0/28; ip route add blackhole 203.0.113.16/28; sysctl -qw net.ipv4.ip_forward=1"
    )
    bare.outside("ip", "route", "add", "203.0.113.0/24", "via", HOST_IP)
    assert bare.connect("host", "203.0.113.1", 80) == "no-route"
    assert bare.connect("host", "203.0.113.17", 80) == "no-route"
    assert bare.connect("outside", "203.0.113.1", 80) == "unreachable"
    assert bare.connect("outside", "203.0.113.17", 80) == "timeout"
    assert bare.connect("host", "::1", 80) == "refused"


@pytest.mark.sampled
def test_http_tells_who_answered_and_whom_it_saw(engine: EngineHost) -> None:
    """The answer tells the container, and the address that its client came with."""
    with engine.container("web", "-p", "8080:80", command=("serve",)):
        engine.probe([("outside", HOST_IP, 8080)], timeout=2.0)  # a neighbour that had the address before is believed
        answer = engine.http_get("outside", HOST_IP, 8080)
        assert (answer.outcome, answer.status, answer.server, answer.peer) == ("connected", 200, "web", OUTSIDE_IP)
        assert engine.http_get("host", "127.0.0.1", 8080).peer == "172.17.0.1"  # docker-proxy
        assert engine.http_get("host", "127.0.0.1", 8080, "/none").status == 404
        assert engine.http_get("host", "127.0.0.1", 8081).outcome == "refused"


@pytest.mark.sampled
def test_held_connection_notices_its_end(engine: EngineHost) -> None:
    """A held connection is alive as long as bytes come back."""
    with (
        engine.container("echo", command=("echod", "7")),
        engine.hold_connection("host", engine.container_ip("echo"), 7) as held,
    ):
        assert held.alive()
        engine.docker("pause", "echo")
        assert not held.alive(timeout=0.2)
        engine.docker("unpause", "echo")
        assert held.alive()
        engine.docker("kill", "echo")
        assert not held.alive()


# ---- the daemon


def test_daemon_as_the_init_script_runs_it(suite: str) -> None:
    """The init script starts, restarts and stops dockerd with the options of /etc/default/docker."""
    with EngineHost.up(suite=suite, daemon_args=["--debug"], daemon_json={"icc": False}, files={"/srv/a": "b"}) as host:
        first = host.dockerd_pid()
        assert host.read("/srv/a") == "b"
        assert json.loads(host.read("/etc/docker/daemon.json")) == {"icc": False}
        assert host.read(f"/proc/{first}/cmdline").split("\0")[-2] == "--debug"
        host.run("service", "docker", "restart")
        assert eventually(host.answers)
        second = host.dockerd_pid()
        assert second not in {None, first}
        host.restart_dockerd("--log-level=info")
        assert host.read(f"/proc/{host.dockerd_pid()}/cmdline").split("\0")[-2] == "--log-level=info"
        host.stop_dockerd()
        assert host.dockerd_pid() is None
        assert not host.answers()
        # A trap of the script's, which whoever prints a cure should know.
        assert host.run("service", "docker", "restart", check=False).returncode == 1
        log = host.start_dockerd()
        assert "API listen on" in log
        assert log.count("Daemon has completed initialization") == 1


def test_daemon_that_does_not_start_says_why(suite: str) -> None:
    """A daemon that gives up is told from one that serves, and its log is handed over."""
    with EngineHost.up(suite=suite, dockerd=False, files={"/etc/docker/daemon.json": '{"no-such-key": 1}'}) as host:
        assert "no-such-key" in host.start_dockerd(expect_failure=True)
        assert host.dockerd_pid() is None
        with pytest.raises(enginehost.EngineError, match="no-such-key"):
            host.start_dockerd(by_hand=True)
        host.write("/etc/docker/daemon.json", "{}")
        assert "API listen on" in host.start_dockerd(by_hand=True)
        assert host.log_path == "/var/log/dockerd.log"
        host.stop_dockerd(signal.SIGKILL)
        host.start_dockerd()
        assert host.log_path == "/var/log/docker.log"


def test_containers_can_be_found_without_a_daemon(suite: str) -> None:
    """With live-restore, containers and their connections outlive the daemon, and the fixture still finds them."""
    with (
        EngineHost.up(suite=suite, daemon_json={"live-restore": True}) as host,
        host.container("echo", command=("echod", "7")),
        host.container("other"),
        host.hold_connection("host", host.container_ip("echo"), 7) as held,
    ):
        pid = host.container_pid("echo")
        host.stop_dockerd()
        assert host.container_pid("echo") == pid
        assert host.running() == {"echo", "other"}
        host.run("kill", "-9", str(host.container_pid("other")))
        assert eventually(lambda: host.running() == {"echo"})
        assert held.alive()
        host.start_dockerd()
        assert held.alive()
        assert host.running() == {"echo"}


# ---- the end


def _traces(state: Path, namespaces: set[str], ended: float = math.inf) -> list[str]:
    """What of a host is still on this machine: its folder, mounts, cgroups, processes and their namespaces.

    A process that started after the host `ended` (seconds since boot) is another host's: numbers of namespaces come again.
    """
    found = [str(state)] if state.exists() else []
    found += [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if state.name in line]
    found += [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if state.name in folder]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            began = int((process / "stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[19])
            if began / os.sysconf("SC_CLK_TCK") > ended:
                continue
            if {str(path.readlink()) for path in (process / "ns").iterdir()} & namespaces:
                found.append(f"{process} {(process / 'cmdline').read_text(encoding='utf-8')}")
    return found


def _namespaces(host: EngineHost) -> set[str]:
    kinds = ("net", "mnt", "pid", "uts", "ipc", "cgroup")
    here, there = (
        {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in kinds} for pid in (os.getpid(), host.init)
    )
    outside = str(Path(f"/proc/{host.supervisor}/ns/net").readlink())
    assert here.isdisjoint(there | {outside})
    return there | {outside}


def _listing(*argv: str) -> set[str]:
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines())


@pytest.mark.sampled
def test_down_leaves_nothing(suite: str) -> None:
    """After `down`, which may be called twice, nothing of a host is on this machine."""
    commands = (("ip", "netns"), ("ip", "-o", "link"), ("cat", "/proc/mounts"))
    before = [_listing(*argv) for argv in commands]
    host = EngineHost.up(suite=suite)
    host.docker("run", "-d", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "-d", "--network", "host", "--name", "frozen", IMAGE)
    host.docker("pause", "frozen")
    host.sh(
        "setsid sleep 4242 >/dev/null 2>&1 & mount -t tmpfs tmpfs /mnt; ip netns add inner; ip link add br9 type bridge"
    )
    host.outside("sh", "-c", "setsid sleep 4242 >/dev/null 2>&1 &")
    namespaces = _namespaces(host)
    assert len(_traces(host.state, namespaces)) > 10
    host.down()
    ended = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert eventually(lambda: not _traces(host.state, namespaces, ended)), _traces(host.state, namespaces, ended)
    # Others may work on this machine at the same time: what is new must not be ours.
    for argv, was in zip(commands, before, strict=True):
        assert not [line for line in _listing(*argv) - was if host.name in line or "enginehost" in line or "o0" in line]
    host.down()


@pytest.mark.sampled
def test_host_that_is_left_goes_by_itself(suite: str) -> None:
    """At the end of a `with` nobody waits for it, and soon nothing is there."""
    with EngineHost.up(suite=suite, dockerd=False) as host:
        init = host.init
    assert eventually(lambda: not host.state.exists())
    assert not Path(f"/proc/{init}").exists()


@pytest.mark.sampled
@pytest.mark.parametrize("also_supervisor", [False, True], ids=["session killed", "supervisor killed too"])
def test_killed_session_leaves_nothing(suite: str, also_supervisor: bool) -> None:  # noqa: FBT001 - a parameter
    """A session that is killed takes its hosts with it; what is left all the same goes with the next start."""
    code = (
        "import sys, json, time; from tests.enginehost import EngineHost\n"
        f"host = EngineHost.up('killed-{os.getpid()}', suite={suite!r}, dockerd=False)\n"
        "print(host.state, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout
        state = Path(session.stdout.readline().strip())
        namespaces = _namespaces(EngineHost.attach(state.name.split(".")[0]))
        if also_supervisor:
            os.kill(int(state.name.split(".")[1]), signal.SIGKILL)
        session.kill()
    ended = time.clock_gettime(time.CLOCK_BOOTTIME)
    if also_supervisor:
        with EngineHost.up(suite=suite, dockerd=False):
            pass  # sweeps first
    assert eventually(lambda: not _traces(state, namespaces, ended)), _traces(state, namespaces, ended)


@pytest.mark.sampled
def test_two_hosts_do_not_meet(suite: str, bare: EngineHost) -> None:
    """Two hosts have the same addresses and no way to each other."""
    with EngineHost.up(suite=suite, dockerd=False) as other, other.listen("host", 7000):
        assert other.connect("outside", HOST_IP, 7000) == "connected"
        assert bare.connect("outside", HOST_IP, 7000) == "refused"
        assert _namespaces(other).isdisjoint(_namespaces(bare))


@pytest.mark.sampled
def test_command_line_starts_and_stops_hosts_that_stay(suite: str) -> None:
    """A developer's host outlives the command that started it, and is found by its name until it is taken down."""
    name = f"found-{os.getpid()}"

    def call(*words: str, stdin: str = "") -> tuple[int, str]:
        argv = [sys.executable, "-m", "tests.enginehost", *words]
        done = subprocess.run(argv, cwd=CHECKOUT, check=False, capture_output=True, text=True, input=stdin)
        return done.returncode, done.stdout + done.stderr

    assert call("up", name, "--suite", suite, "--no-dockerd")[0] == 0
    host = EngineHost.attach(name)
    try:
        assert call("up", name) == (1, f"enginehost: a host {name} is up\n")
        assert f"{name}\t{SUITES[suite]}\n" in call("list")[1]
        assert call("in", name, "sh", "-c", "cat; hostname; exit 3", stdin="in\n") == (3, f"in\n{name}\n")
        assert OUTSIDE_IP in call("out", name, "ip", "-4", "-o", "addr", "show", "o0")[1]
        assert call("down", name) == (0, "")
        assert call("in", name, "true") == (1, f"enginehost: no host {name} is up\n")
    finally:
        host.down()
