"""`doctor why` on live engines: each symptom asked as a person would; the cause comes first, and neighbours are well.

What is said is held against what packets meet: a client really does connect, or not.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.enginehost import HOST_IP, IMAGE, EngineHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Symptom(NamedTuple):
    """What was broken, whom a person asks about, the first line and the code of the answer, and who is well.

    `flow` is what a person met, and how it ended; `codes` are those of the answer, findings first. `well` are others that
    must be told to be well meanwhile. `heals` does what the answer says.
    """

    name: str
    make: Callable[[EngineHost], object]
    subject: str
    answer: str
    codes: tuple[str, ...]
    well: tuple[str, ...]
    undo: Callable[[EngineHost], object]
    flow: tuple[str, str, int, str] = ("", "", 0, "")


@pytest.fixture(scope="module")
def host(suite: str) -> Iterator[EngineHost]:
    """A host with two networks and a Compose project's labels; each test leaves it as it was."""
    with EngineHost.up(suite=suite) as made:
        made.docker("network", "create", "--subnet", "10.7.0.0/24", "shop")
        made.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
        made.docker("run", "-d", "--name", "cron", IMAGE, "serve")
        labels = ("--label", "com.docker.compose.project=store", "--label", "com.docker.compose.service=api")
        made.docker("run", "-d", "--name", "store-api-1", *labels, "--network", "shop", "-p", "8081:80", IMAGE, "serve")
        made.docker("run", "-d", "--name", "db", "--network", "shop", "-p", "127.0.0.1:8082:80", IMAGE, "serve")
        for name in ("web", "cron", "store-api-1", "db"):
            made.await_listening(name, 80)
        made.sh("iptables-save >/tmp/rules")
        yield made


def why(host: EngineHost, subject: str, *, text: bool = False) -> tuple[int, dict[str, Any], str]:
    """Ask as a program would, and as a person: exit code, JSON, and the text or the JSON once more."""
    done = host.doctor("why", subject, "--format", "json")
    shown = host.doctor("why", subject) if text else done
    assert done.returncode == shown.returncode, shown.stdout + done.stderr
    return done.returncode, json.loads(done.stdout or "{}"), shown.stdout + shown.stderr


def codes(found: dict[str, Any]) -> tuple[str, ...]:
    """The codes of the answer: what a check names, else what stops the packets."""
    return tuple(one["code"] for one in (*found["diagnoses"], *found["stopped"]) if one["severity"] == "error")


SUBJECTS = ("web", "cron", "api", "store/api", "db", ":8080", ":8081", ":8082", "store", "shop", "bridge", IMAGE)


@pytest.mark.sampled("subject")
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_healthy_host(host: EngineHost, subject: str) -> None:
    """Nothing is wrong with anything, and every question is answered."""
    code, found, text = why(host, subject, text=True)
    assert code == 0, text
    assert found["well"] is True
    assert text.splitlines()[-1].startswith("ok: nothing wrong with"), text
    assert found["walks"] > 0


def _loopback(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "app", "-p", "9090:80", IMAGE, "httpd", "-f", "-p", "127.0.0.1:80", "-h", "/www")
    host.await_listening("app", 80)


def _pid(host: EngineHost, name: str) -> str:
    return str(host.docker("inspect", "-f", "{{.State.Pid}}", name)).strip()


def _killed(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "app", "-p", "9090:80", IMAGE, "serve")
    host.docker("kill", "app")
    time.sleep(0.2)


def _remove(host: EngineHost) -> None:
    host.docker("rm", "-f", "app")


def _rules(host: EngineHost) -> None:
    host.sh("iptables-restore </tmp/rules")


def _port_of(host: EngineHost, name: str) -> str:
    """The host's end of a container's veth."""
    link = host.sh(f"nsenter -t {_pid(host, name)} -n ip -o link show eth0")
    peer = link.partition("@if")[2].partition(":")[0]
    return host.sh(f"ip -o link | sed -n 's/^{peer}: \\([^@:]*\\).*/\\1/p'").strip()


def _sysctl(value: int) -> Callable[[EngineHost], object]:
    return lambda host: host.sh(f"sysctl -qw net.ipv4.ip_forward={value}")


def _without_route(host: EngineHost) -> None:
    host.sh(f"nsenter -t {_pid(host, 'cron')} -n ip route del default")


def _with_route(host: EngineHost) -> None:
    host.sh(f"nsenter -t {_pid(host, 'cron')} -n ip route add default via 172.17.0.1")


def _down(host: EngineHost) -> None:
    host.sh(f"ip link set {_port_of(host, 'db')} down")


def _up(host: EngineHost) -> None:
    host.sh(f"ip link set {_port_of(host, 'db')} up")


def _inside(host: EngineHost) -> None:
    host.sh(f"nsenter -t {_pid(host, 'store-api-1')} -n iptables -I INPUT -p tcp --dport 80 -j DROP")


def _inside_gone(host: EngineHost) -> None:
    host.sh(f"nsenter -t {_pid(host, 'store-api-1')} -n iptables -D INPUT -p tcp --dport 80 -j DROP")


_USER = "iptables -I DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"

SYMPTOMS = (
    Symptom(
        "listens-on-loopback",
        _loopback,
        ":9090",
        "9090 -> app, 172.17.0.4:80: a client would be refused",
        ("NET058",),
        (":8080", "web", "cron", "shop"),
        _remove,
        ("outside", HOST_IP, 9090, "refused"),
    ),
    Symptom(
        "drop-in-docker-user",
        lambda host: host.sh(_USER),
        ":8080",
        "8080 -> web, 172.17.0.2:80: a client would time out; from this host it would connect",
        ("DOCKER_USER_DROP",),
        (":8081", "cron", "store", "db", "shop"),
        _rules,
        ("outside", HOST_IP, 8080, "timeout"),
    ),
    Symptom(
        "killed",
        _killed,
        "app",
        "app does not run: it was killed by SIGKILL at ",
        (),
        ("web", ":8080", "shop"),
        _remove,
        ("outside", HOST_IP, 9090, "refused"),
    ),
    Symptom(
        "killed-port",
        _killed,
        ":9090",
        "9090 -> app: it does not run: it was killed by SIGKILL at ",
        (),
        ("web", ":8080", "shop"),
        _remove,
    ),
    Symptom(
        "no-default-route",
        _without_route,
        "cron",
        "cron runs; it would reach nothing outside; nor its nameserver",
        ("NET014",),
        ("web", ":8080", "shop"),
        _with_route,
        ("cron", "198.51.100.1", 9000, "no-route"),
    ),
    Symptom(
        "forwarding-off",
        _sysctl(0),
        "db",
        "db runs; it would reach nothing outside",
        ("NET034",),
        (":8082",),
        _sysctl(1),
        ("db", "198.51.100.1", 9000, "timeout"),
    ),
    Symptom(
        "forwarding-off-port",
        _sysctl(0),
        ":8081",
        "8081 -> store/api, 10.7.0.2:80: a client would time out; from this host it would connect",
        ("NET034",),
        (":8082",),
        _sysctl(1),
        ("outside", HOST_IP, 8081, "timeout"),
    ),
    Symptom(
        "link-down",
        _down,
        "db",
        "db runs; ",
        ("NET012",),
        ("web", ":8080", ":8081", "cron"),
        _up,
        ("store-api-1", "10.7.0.3", 80, "timeout"),
    ),
    Symptom(
        "link-down-network",
        _down,
        "shop",
        "network shop, 2 containers: ",
        ("NET012",),
        ("bridge", "web"),
        _up,
    ),
    Symptom(
        "rule-for-a-network",
        lambda host: host.sh("iptables -I DOCKER-USER -i docker0 -j DROP"),
        "cron",
        "cron runs; it would reach nothing outside",
        ("NET029",),
        (":8081", "store", "shop"),
        _rules,
        ("cron", "198.51.100.1", 9000, "timeout"),
    ),
    Symptom(
        "table-beside",
        lambda host: host.sh(
            "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 10; }'; "
            "nft add rule inet other f tcp dport 80 ip daddr 10.7.0.2 drop"
        ),
        ":8081",
        "8081 -> store/api, 10.7.0.2:80: a client would time out; from this host it would connect",
        ("NET051",),
        (":8080", "web", "cron", ":8082"),
        lambda host: host.sh("nft delete table inet other"),
        ("outside", HOST_IP, 8081, "timeout"),
    ),
    Symptom(
        "rule-inside",
        _inside,
        "store",
        "Compose project store, 1 container: 8081 would time out from outside; ",
        ("DST_FIREWALL",),
        ("bridge", "web", ":8080"),
        _inside_gone,
        ("outside", HOST_IP, 8081, "timeout"),
    ),
)


@pytest.mark.sampled("symptom")
@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda one: one.name)
def test_a_symptom(host: EngineHost, symptom: Symptom) -> None:
    """The first line is what really happens, the cause is the right one; others are well; afterwards it is, too."""
    symptom.make(host)
    try:
        source, ip, port, met = symptom.flow
        if source:
            assert host.connect(source, ip, port) == met
        code, found, text = why(host, symptom.subject, text=True)
        assert code == 1, text
        assert found["answer"].startswith(symptom.answer), text
        assert codes(found) == symptom.codes, text
        assert text.splitlines()[0].partition(": ")[2][:30] == found["answer"][:30]
        for other in symptom.well:
            code, found, text = why(host, other)
            assert (code, found["well"], codes(found)) == (0, True, ()), text
    finally:
        symptom.undo(host)
    if symptom.undo is not _remove:
        deadline = time.monotonic() + 5
        while why(host, symptom.subject)[0] != 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert why(host, symptom.subject)[0] == 0


def test_published_for_this_host_alone(host: EngineHost) -> None:
    """A port on 127.0.0.1 is refused from outside, and that is meant: nothing is wrong with it."""
    assert host.connect("outside", HOST_IP, 8082) != "connected"
    assert host.connect("host", "127.0.0.1", 8082) == "connected"
    code, found, text = why(host, ":8082")
    assert code == 0
    assert found["answer"] == "8082 -> db, 10.7.0.3:80: for this host only; a client here would connect", text


def test_a_bundle_says_the_same(host: EngineHost) -> None:
    """The same answer from the evidence elsewhere."""
    host.doctor("collect", "-o", "/tmp/host.tar.gz")
    live, bundle = (
        why(host, "store")[1],
        host.doctor("why", "store", "--bundle", "/tmp/host.tar.gz", "--format", "json"),
    )
    held = json.loads(bundle.stdout)
    assert (held["answer"], held["well"], held["walks"]) == (live["answer"], live["well"], live["walks"])


def test_what_is_not_here(host: EngineHost) -> None:
    """A word that names nothing is a usage error with what is near."""
    done = host.doctor("why", "wep")
    assert done.returncode == 2
    assert "Did you mean web?" in done.stderr
    done = host.doctor("why", ":8083")
    assert done.returncode == 2
    assert "no container publishes :8083; published: :8082" in done.stderr


def test_without_root(host: EngineHost) -> None:
    """A user who may read nothing is told so, and nothing is said to be well."""
    done = host.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "doctor", "why", "web", check=False)
    assert done.returncode in {2, 3}, done.stdout
    assert "ok:" not in done.stdout
    assert "Traceback" not in done.stderr
