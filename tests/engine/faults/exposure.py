"""Faults of exposure: the API on TCP, the group docker, the engine's socket and capabilities in containers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault
from tests.enginehost import HOST_IP, IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

SOCKET = ("-v", "/run/docker.sock:/run/docker.sock")
PUBLISHED = ("-p", "9090:80")


def _listen(address: str) -> Callable[[EngineHost], None]:
    """Have dockerd listen on TCP; said to be meant (`tls` false), later engines do not wait 15 seconds for it."""

    def make(host: EngineHost) -> None:
        running = sorted(host.running(), key=("web", "cron", "api", "db").index)
        hosts = ["unix:///var/run/docker.sock", f"tcp://{address}:2375"]
        host.write("/etc/docker/daemon.json", json.dumps({"hosts": hosts, "tls": False}))
        host.restart_dockerd()
        host.docker("start", *running)
        host.await_listening("web", 80)
        host.await_listening("api", 80)

    return make


def _tool(*options: str) -> Callable[[EngineHost], None]:
    """Have a container `tool` that was made with these options."""

    def make(host: EngineHost) -> None:
        host.docker("rm", "-f", "tool", check=False)
        host.docker("run", "-d", "--name", "tool", *options, IMAGE, "serve")
        host.await_listening("tool", 80)

    return make


def _configured(host: EngineHost) -> None:
    host.write("/etc/docker/daemon.json", '{"log-level": "info"}\n')


def open_to(frm: str, address: str) -> Callable[[EngineHost], object]:
    """What a client meets on 2375."""
    return lambda host: host.connect(frm, address, 2375)


def members(host: EngineHost) -> object:
    """Who is in the group."""
    return host.sh("getent group docker").strip().rpartition(":")[2]


def strangers(host: EngineHost) -> object:
    """Whether nobody (uid 65534) may write to daemon.json, and open containerd's socket."""
    path = "/run/docker/containerd/containerd.sock"
    tried = f"test -w /etc/docker/daemon.json && echo daemon.json; test -w {path} && echo {path}; true"
    return host.sh(f"setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{tried}'"), host.sh(
        "stat -c %u /etc/docker/daemon.json"
    )


def inside(host: EngineHost) -> object:
    """What the tool has in its hands: the socket, and its capabilities."""
    socket = host.run("docker", "exec", "tool", "test", "-S", "/run/docker.sock", check=False).returncode
    return socket, host.docker("exec", "tool", "grep", "CapEff", "/proc/self/status")


FAULTS = (
    Fault("SEC001", "everywhere", _listen("0.0.0.0"), open_to("outside", HOST_IP)),  # noqa: S104 - the fault
    Fault("SEC001", "loopback", _listen("127.0.0.1"), open_to("host", "127.0.0.1"), level="warning"),
    Fault(
        "SEC003",
        "member",
        lambda h: h.sh("gpasswd -a alice docker"),
        members,
        level="info",
        setup=lambda h: h.sh("useradd alice"),
        engines=("bookworm", "trixie"),  # a small sid has no gpasswd
    ),
    Fault("SEC004", "mounted", _tool(*SOCKET), inside, level="info", setup=_tool(), heal=_tool()),
    Fault(
        "SEC004",
        "published",
        _tool(*SOCKET, *PUBLISHED),
        inside,
        level="warning",
        setup=_tool(*PUBLISHED),
        heal=_tool(*PUBLISHED),
    ),
    Fault("SEC009", "daemon-json", lambda h: h.sh("chmod 666 /etc/docker/daemon.json"), strangers, setup=_configured),
    Fault(
        "SEC009",
        "owned-by-a-user",
        lambda h: h.sh("chown 1000 /etc/docker/daemon.json"),
        strangers,
        level="warning",
        setup=_configured,
    ),
    Fault(
        "SEC005",
        "privileged",
        _tool("--privileged"),
        inside,
        level="info",
        setup=_tool(),
        heal=_tool(),
        engines=("trixie", "sid"),  # runc 1.1.5 asks for capabilities that a host in a namespace does not have
    ),
    Fault(
        "SEC005",
        "capability-published",
        _tool("--cap-add=SYS_ADMIN", *PUBLISHED),
        inside,
        level="warning",
        setup=_tool(*PUBLISHED),
        heal=_tool(*PUBLISHED),
    ),
)
