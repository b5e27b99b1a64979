"""The daemon in a host of ours: what docker does there, and that doctor cannot tell it from a real one."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from doctor.runtime.daemon import cli
from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.serve import Start
from doctor.runtime.daemon.service import LOG, programs, service
from doctor.runtime.host import Completed, Lab, LabError
from doctor.runtime.model import Attachment, ContainerSpec, NetworkSpec, Pool, Publish

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

NETWORKS = (NetworkSpec("app", pools=(Pool("10.7.0.0/24"),)), NetworkSpec("closed", internal=True))
CONTAINERS = (
    ContainerSpec(
        "web",
        "busybox",
        ("serve",),
        networks=(Attachment("app", aliases=("w",)), Attachment("closed")),
        publish=(Publish(80, host_port=8080),),
        restart="unless-stopped",
    ),
    ContainerSpec("db", "busybox", ("echod", "5432"), networks=(Attachment("app"),)),
    ContainerSpec("plain", "busybox", ("idle",)),
)


def up(dialect: str = "28", configuration: str = "", **more: Any) -> Lab:
    """Bring a host up with a daemon."""
    files = {**programs(dialect), **({"/etc/docker/daemon.json": configuration} if configuration else {})}
    return Lab.up(services=[service(Start(dialect=dialect, **more))], builtins={"docker": cli.main}, files=files)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Give a host with three containers, for tests that leave it as it was."""
    with up(networks=NETWORKS, containers=CONTAINERS) as made:
        yield made


def docker(lab: Lab, *words: str, stdin: bytes = b"") -> Completed:
    """Run docker in a host."""
    return lab.run(("docker", *words), stdin=stdin, builtin=True)


def told(lab: Lab, *words: str) -> str:
    """Give what docker prints; it has to succeed."""
    done = docker(lab, *words)
    assert done.returncode == 0, (words, done)
    return done.stdout.decode().rstrip("\n")


def test_run_has_dockers_exit_codes(lab: Lab) -> None:
    """The command's own, 128 and the signal, and 125 to 127 of docker."""
    for words, code in (
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137),
        (("nope",), 127),
        (("/etc",), 126),
    ):
        assert docker(lab, "run", "--rm", "busybox", *words).returncode == code, words
    assert docker(lab, "run", "--nope").returncode == 125
    assert docker(lab, "run", "--rm", "-p", "8080:80", "busybox", "true").returncode == 125
    assert docker(lab, "run", "--rm", "--network", "nope", "busybox", "true").returncode == 125
    assert len(told(lab, "ps", "-aq").split()) == len(CONTAINERS), "what could not start is taken away, too"


def test_streams_go_their_own_way(lab: Lab) -> None:
    """Standard output, standard error and input, of run, exec and logs."""
    script = "cat; echo error >&2; exit 4"
    done = docker(lab, "run", "--name", "streams", "-i", "busybox", "sh", "-c", script, stdin=b"input\n")
    assert (done.returncode, done.stdout, done.stderr) == (4, b"input\n", b"error\n")
    logs = docker(lab, "logs", "streams")
    assert (logs.stdout, logs.stderr) == (b"input\n", b"error\n")
    told(lab, "rm", "streams")
    done = docker(lab, "exec", "-i", "web", "sh", "-c", script, stdin=b"x" * 300_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (4, 300_000, b"error\n")
    done = docker(lab, "exec", "web", "nope")
    assert done.returncode == 127
    assert b"executable file not found" in done.stdout


def test_containers_meet_by_name(lab: Lab) -> None:
    """On a network of the user; from another one they do not, and a published port is reached from outside."""
    assert "10.7.0." in told(lab, "exec", "db", "nslookup", "w")
    assert told(lab, "port", "web", "80").split("\n")[0] == "0.0.0.0:8080"
    assert b"it works" in lab.outside.run(("curl", "-s", "-m", "3", "http://198.51.100.2:8080/")).stdout
    assert docker(lab, "exec", "plain", "ping", "-c1", "-W1", "10.7.0.2").returncode == 1


def test_networks_come_and_go(lab: Lab) -> None:
    """Made, joined, left and taken away; with docker's words for what cannot be."""
    told(lab, "network", "create", "--subnet", "10.9.0.0/24", "extra")
    told(lab, "network", "connect", "--ip", "10.9.0.9", "extra", "db")
    assert "10.9.0.9" in told(lab, "exec", "db", "ip", "-4", "-o", "address")
    assert b"has active endpoints" in docker(lab, "network", "rm", "extra").stderr
    told(lab, "network", "disconnect", "extra", "db")
    told(lab, "network", "rm", "extra")
    assert b"network extra not found" in docker(lab, "network", "inspect", "extra").stderr


def test_restart_policies(lab: Lab) -> None:
    """on-failure tries again as often as it may; what a person stopped stays down."""
    told(lab, "run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")
    for _ in range(100):
        state, restarts = told(lab, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again").split()
        if (state, restarts) == ("exited", "2"):
            break
        time.sleep(0.05)
    assert (state, restarts) == ("exited", "2")
    told(lab, "rm", "again")
    events = told(
        lab, "events", "--since", "0", "--until", "0s", "--filter", "container=again", "--format", "{{.Action}}"
    )
    assert events.split() == ["create", "start", "die", "start", "die", "start", "die", "destroy"]


def test_health_checks(lab: Lab) -> None:
    """Two probes that fail make it unhealthy."""
    told(lab, "run", "-d", "--name", "ill", "--health-cmd", "false", "--health-interval", "50ms", "--health-retries", "2",
         "busybox", "idle")  # fmt: skip
    for _ in range(100):
        if told(lab, "inspect", "-f", "{{.State.Health.Status}}", "ill") == "unhealthy":
            break
        time.sleep(0.05)
    assert "(unhealthy)" in told(lab, "ps", "--filter", "name=ill")
    told(lab, "rm", "-f", "ill")


def killed(lab: Lab) -> None:
    """Kill the daemon, and wait until its supervisor has seen it."""
    lab.run(("sh", "-c", "kill -9 $(cat /run/docker.pid)"))
    until = time.monotonic() + 5
    while lab.services()["docker"] and time.monotonic() < until:
        time.sleep(0.01)


def check(lab: Lab) -> dict[str, Any]:
    """Give the report of `doctor check` in a host."""
    done = lab.run((sys.executable, "-m", "doctor", "check", "--format", "json"), timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("dialect", ["20.10", "26", "28", "29", "29-nftables"])
def test_doctor_finds_nothing(dialect: str) -> None:
    """In a healthy host: no error, no warning, nothing unknown."""
    with up(dialect, networks=NETWORKS, containers=CONTAINERS) as made:
        report = check(made)
        assert report["host"]["engine"] == generation(dialect).version.partition("+")[0]
        assert [one for one in report["findings"] if one["severity"] != "info"] == []
        assert [one["code"] for one in report["outcomes"] if one["outcome"] in {"unknown", "error"}] == []
        log = made.run(("cat", LOG)).stdout.decode()
        assert "API listen on /var/run/docker.sock" in log
        assert "level=error" not in log


def test_a_killed_daemon_is_followed_by_one_that_knows() -> None:
    """Without live-restore the next start ends what runs, and starts what `always` and `unless-stopped` want."""
    with up(networks=NETWORKS, containers=CONTAINERS) as made:
        pids = told(made, "inspect", "-f", "{{.State.Pid}}", "web", "db")
        killed(made)
        assert b"Cannot connect to the Docker daemon" in docker(made, "ps").stderr
        made.service("docker", "start")
        assert (
            told(made, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web", "db") == "running 0\nexited 137"
        )
        assert told(made, "inspect", "-f", "{{.State.Pid}}", "web") not in pids.split()
        assert b"it works" in made.outside.run(("curl", "-s", "-m", "3", "http://198.51.100.2:8080/")).stdout
        assert [one for one in check(made)["findings"] if one["severity"] == "error"] == []


def test_live_restore() -> None:
    """Containers run on under the next daemon, with their ports, and end under it."""
    with up(configuration='{"live-restore": true}', networks=NETWORKS, containers=CONTAINERS) as made:
        before = told(made, "inspect", "-f", "{{.State.Pid}} {{json .NetworkSettings.Ports}}", "web", "db")
        for way in (killed, lambda lab: lab.service("docker", "stop")):
            way(made)
            made.service("docker", "start")
            assert told(made, "inspect", "-f", "{{.State.Pid}} {{json .NetworkSettings.Ports}}", "web", "db") == before
        assert told(made, "exec", "web", "echo", "still here") == "still here"
        assert b"it works" in made.outside.run(("curl", "-s", "-m", "3", "http://198.51.100.2:8080/")).stdout
        told(made, "stop", "-t", "1", "web")
        assert told(made, "ps", "-a", "--filter", "name=web", "--format", "{{.State}}") == "exited"


def test_mistakes_in_its_configuration() -> None:
    """It does not start, in its own words, and the host is there all the same; mended, it starts."""
    with pytest.raises(LabError, match="don't match any configuration option: nope"):
        up(configuration='{"nope": 1}')
    with up() as made:
        made.run(("sh", "-c", "echo '{' > /etc/docker/daemon.json"))
        with pytest.raises(LabError, match="unexpected end of JSON input"):
            made.service("docker", "restart")
        assert b"Cannot connect" in docker(made, "ps").stderr
        made.run(("rm", "/etc/docker/daemon.json"))
        made.service("docker", "start")
        assert told(made, "ps", "-q") == ""


def test_a_reload_takes_what_the_engine_takes() -> None:
    """Debug and live-restore, and not icc; a file that is broken changes nothing."""
    with up() as made:
        for text in ('{"debug": true, "icc": false, "labels": ["a=b"]}', '{"debug": '):
            made.run(
                ("sh", "-c", f"echo '{text}' > /etc/docker/daemon.json; kill -HUP $(cat /run/docker.pid); sleep 0.3")
            )
            assert told(made, "info", "-f", "{{.Debug}} {{.Labels}}") == "true [a=b]"
        log = made.run(("cat", LOG)).stdout.decode()
        assert "level=debug" in log
        assert "Error reloading configuration" in log
        assert (
            told(
                made, "network", "inspect", "bridge", "-f", '{{index .Options "com.docker.network.bridge.enable_icc"}}'
            )
            == "true"
        )
