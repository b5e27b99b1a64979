"""Faults of published ports and of the processes that serve them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from doctor.checks.docker_proxy import YOUNG
from tests.engine.faults.table import Fault
from tests.enginehost import HOST_IP, IMAGE

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

PORT = 9090
LEASE = "198.51.100.77"
_LISTEN = "import socket,time;s=socket.socket();s.setsockopt(1,2,1);s.bind(('0.0.0.0',{}));s.listen();time.sleep(600)"


# What prepares


def _late(host: EngineHost) -> None:
    """A container that is there and does not run."""
    host.docker("create", "--name", "late", "-p", f"{PORT}:80", IMAGE, "serve")


def _lease(host: EngineHost) -> None:
    host.sh(f"ip address add {LEASE}/24 dev eth0")


def _on_lease(host: EngineHost) -> None:
    _lease(host)
    host.docker("run", "-d", "--name", "late", "-p", f"{LEASE}:{PORT}:80", IMAGE, "serve")
    host.await_listening("late", 80)


def _created_on_lease(host: EngineHost) -> None:
    _lease(host)
    host.docker("create", "--name", "late", "-p", f"{LEASE}:{PORT}:80", IMAGE, "serve")


def _app(host: EngineHost, *command: str) -> None:
    host.docker("rm", "-f", "app", check=False)
    host.docker("run", "-d", "--name", "app", "-p", f"{PORT}:80", IMAGE, *command)


def _serving_app(host: EngineHost) -> None:
    _app(host, "serve")
    host.await_listening("app", 80)


# What breaks


def _hold(host: EngineHost, port: int) -> None:
    """A process of the host listens on a port."""
    host.sh(f'setsid python3 -c "{_LISTEN.format(port)}" >/dev/null 2>&1 </dev/null & echo $! >/run/holder')
    for _ in range(1000):
        if host.connect("host", "127.0.0.1", port) == "connected":
            return
        time.sleep(0.01)


def _let_go(host: EngineHost) -> None:
    host.sh("kill $(cat /run/holder)")


def _busy(host: EngineHost) -> None:
    _hold(host, PORT)
    host.docker("start", "late", check=False)


def _allocated(host: EngineHost) -> None:
    host.docker("run", "-d", "--name", "first", "-p", f"{PORT}:80", IMAGE, "serve")
    host.docker("start", "late", check=False)


def _kill_proxies(host: EngineHost) -> None:
    script = "kill -9 $(pgrep -f '{0}'); while pgrep -f '{0}' >/dev/null; do sleep 0.01; done"
    host.sh(script.format("docker-prox[y].*-host-port 8080 "))


def _captured(host: EngineHost) -> None:
    _kill_proxies(host)
    _hold(host, 8080)


def _left_over(host: EngineHost) -> None:
    """A docker-proxy of nobody, as a crash leaves it; it tells whoever holds the other end of its third file.

    A younger one may belong to a container that is just being started: doctor leaves it alone for a second.
    """
    args = f"-proto tcp -host-ip 0.0.0.0 -host-port {PORT} -container-ip 172.17.0.99 -container-port 80"
    host.sh(f"setsid docker-proxy {args} >/dev/null 2>&1 </dev/null 3>/dev/null &")
    for _ in range(1000):
        if host.sh("ss -Hltn").count(f":{PORT} "):
            time.sleep(YOUNG)
            return
        time.sleep(0.01)


def _left_over_and_started(host: EngineHost) -> None:
    _left_over(host)
    host.docker("start", "late", check=False)


def _gone(host: EngineHost) -> None:
    host.sh(f"ip address del {LEASE}/24 dev eth0")


def _gone_and_started(host: EngineHost) -> None:
    _gone(host)
    host.docker("start", "late", check=False)


def _on_loopback(host: EngineHost) -> None:
    _app(host, "httpd", "-f", "-p", "127.0.0.1:80", "-h", "/www")
    host.await_listening("app", 80)


# What proves


def late_starts(host: EngineHost) -> object:
    """Whether the container that waits starts; it is stopped again."""
    code = host.run("docker", "start", "late", check=False).returncode
    if not code:
        host.docker("stop", "late")
    return code


def publishes(host: EngineHost) -> object:
    """Whether a container can publish the port."""
    code = host.run(
        "docker", "run", "-d", "--name", "probe", "-p", f"{PORT}:80", IMAGE, "serve", check=False
    ).returncode
    host.run("docker", "rm", "-f", "probe", check=False)
    return code


def served_here(host: EngineHost) -> object:
    """What answers on this host's own 8080."""
    host.await_listening("web", 80)
    return host.http_get("host", "127.0.0.1", 8080, timeout=0.5).outcome, host.connect("outside", HOST_IP, 8080)


def reached(host: EngineHost) -> object:
    """What a client outside meets at the leased address."""
    return host.connect("outside", LEASE, PORT, timeout=0.5)


def app_answers(host: EngineHost) -> object:
    """What a client outside meets at the port of the application."""
    return host.http_get("outside", HOST_IP, PORT).outcome


def _start_late(host: EngineHost) -> None:
    host.docker("start", "late")


FAULTS = (
    Fault("NET037", "process", _busy, late_starts, setup=_late, heal=lambda h: (_let_go(h), _start_late(h))),
    Fault(
        "NET037",
        "other-container",
        _allocated,
        late_starts,
        setup=_late,
        heal=lambda h: (h.docker("rm", "-f", "first"), _start_late(h)),
    ),
    Fault(
        "NET037",
        "captured",
        _captured,
        served_here,
        heal=lambda h: (_let_go(h), h.docker("restart", "web")),
    ),
    Fault("NET038", "left-over", _left_over, publishes, level="warning"),
    Fault("NET038", "left-over-keeps-one-down", _left_over_and_started, late_starts, ("NET037",), setup=_late),
    Fault("NET038", "missing", _kill_proxies, served_here),
    Fault("NET058", "loopback", _on_loopback, app_answers, setup=_serving_app, heal=_serving_app),
    Fault("NET059", "lease-changed", _gone, reached, setup=_on_lease, heal=_lease),
    Fault(
        "NET059",
        "did-not-start",
        _gone_and_started,
        late_starts,
        setup=_created_on_lease,
        heal=lambda h: (_lease(h), _start_late(h)),
    ),
)
