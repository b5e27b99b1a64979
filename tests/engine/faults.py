"""Faults made by real commands on a live engine, one table: what breaks, what proves that it broke, what must be said.

Each host runs `web` (bridge, published on 8080), `cron` (bridge), `api` and `db` (network shop; api published on 8081).
A probe gives a value that must differ between the healthy and the broken host and be the healthy one again after the
cure; a probe sends real packets or asks the engine, it never asks doctor.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from tests.enginehost import HOST_IP, IMAGE, OUTSIDE_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost

OUTSIDE_PORT = 9000


class Fault(NamedTuple):
    """One fault: the code that must be first, a name, what makes it, and the probe that proves it.

    `also` are codes that may fire as consequences. `by_hand` marks a cure with a step that only a person can do; it is
    then not executed. `warning`: dockerd runs on, so the finding is a warning and the exit code stays 0.
    `engines` are the suites that it can be made on, empty for all.
    """

    code: str
    name: str
    make: Callable[[EngineHost], object]
    probe: Callable[[EngineHost], object]
    also: tuple[str, ...] = ()
    by_hand: bool = False
    warning: bool = False
    daemon_args: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


def populate(host: EngineHost) -> None:
    """Start the four containers."""
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "cron", IMAGE, "idle")
    host.docker("network", "create", "--subnet", "10.7.0.0/24", "shop")
    host.docker("run", "-d", "--name", "api", "--network", "shop", "-p", "8081:80", IMAGE, "serve")
    host.docker("run", "-d", "--name", "db", "--network", "shop", IMAGE, "serve")


# Probes


def flows(host: EngineHost) -> object:
    """What packets meet: from outside to both ports, from each network to outside, between neighbours."""
    # Addresses are those of a fresh host: an engine that is down cannot be asked.
    wanted = [
        ("outside", HOST_IP, 8080),
        ("outside", HOST_IP, 8081),
        ("cron", OUTSIDE_IP, OUTSIDE_PORT),
        ("db", OUTSIDE_IP, OUTSIDE_PORT),
        ("cron", "172.17.0.2", 80),
        ("db", "10.7.0.2", 80),
    ]
    with host.listen("outside", OUTSIDE_PORT):
        return {" ".join(map(str, flow)): result for flow, result in host.probe(wanted).items()}


def answers(host: EngineHost) -> object:
    """Whether the daemon answers."""
    return host.answers()


def reloads(host: EngineHost) -> object:
    """Whether a reload (SIGHUP) is taken: dockerd reads the file as it would at a start, and logs why it refuses."""
    before = len(host.log())
    host.sh(f"kill -HUP {host.dockerd_pid()}")
    for _ in range(100):
        said = host.log()[before:]
        if "Reloaded configuration" in said or "level=error" in said:
            return "level=error" not in said
        time.sleep(0.02)
    return None


def starts(host: EngineHost) -> object:
    """Whether a container of the image starts and ends."""
    return host.run("docker", "run", "--rm", IMAGE, "true", check=False).returncode


def sandboxes(host: EngineHost) -> object:
    """The sandbox files, and which of them are mounts."""
    return host.sh("ls /run/docker/netns; grep -c ' /run/docker/netns/' /proc/self/mountinfo || true")


def published(host: EngineHost) -> object:
    """Whether a container with a published port starts, and what packets meet."""
    started = host.run(
        "docker", "run", "-d", "--name", "probe", "-p", "8090:80", IMAGE, "serve", check=False
    ).returncode
    host.run("docker", "rm", "-f", "probe", check=False)
    return started, flows(host)


# What breaks


def _veth(host: EngineHost, name: str) -> str:
    inside = host.sh(f"nsenter -t {host.container_pid(name)} -n ip -o link show eth0")
    index = inside.partition("@if")[2].partition(":")[0]
    return host.sh(f"ip -o link | sed -n 's/^{index}: \\([^@]*\\)@.*/\\1/p'").strip()


def _bridge(host: EngineHost) -> str:
    return "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", "shop")[:12]


def _refused(host: EngineHost, text: str, *args: str) -> None:
    """Stop dockerd, write the file, try to start it."""
    host.stop_dockerd()
    host.write("/etc/docker/daemon.json", text)
    host.start_dockerd(*args, expect_failure=True)


def _flush_by_iptables(host: EngineHost) -> None:
    for table in ("filter", "nat", "raw"):
        host.sh(f"iptables -t {table} -F; iptables -t {table} -X")
    host.sh("iptables -P FORWARD ACCEPT")


def _link_of_image(host: EngineHost) -> tuple[str, str]:
    """Give layer id and short link of the image's only layer."""
    layer = host.sh("cat /var/lib/docker/image/overlay2/layerdb/sha256/*/cache-id").strip()
    return layer, host.read(f"/var/lib/docker/overlay2/{layer}/link").strip()


def _short_link_gone(host: EngineHost) -> None:
    host.sh(f"rm /var/lib/docker/overlay2/l/{_link_of_image(host)[1]}")


def _short_link_elsewhere(host: EngineHost) -> None:
    layer, link = _link_of_image(host)
    host.sh(f"ln -sfn ../{layer}/dif /var/lib/docker/overlay2/l/{link}")


def _leak_mount(host: EngineHost) -> None:
    host.sh(
        "ip netns add gone; touch /run/docker/netns/0123456789ab;"
        " mount --bind /run/netns/gone /run/docker/netns/0123456789ab; ip netns del gone"
    )


def _unmount_sandbox(host: EngineHost) -> None:
    key = host.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web")
    host.sh(f"umount {key}")


def _rename_bridge(host: EngineHost) -> None:
    bridge = _bridge(host)
    host.sh(f"ip link set {bridge} down; ip link set {bridge} name other0; ip link set other0 up")


def _wrong_gateway(host: EngineHost) -> None:
    bridge = _bridge(host)
    host.sh(f"ip addr del 10.7.0.1/24 dev {bridge}; ip addr add 10.7.0.9/24 dev {bridge}")
    # A neighbour entry outlives the address for some seconds, and everything seems to work.
    for name in ("api", "db"):
        host.sh(f"nsenter -t {host.container_pid(name)} -n ip neigh flush all")


def _kill_daemon(host: EngineHost) -> None:
    host.sh(f"kill -9 {host.dockerd_pid()}")
    for _ in range(200):
        if not host.dockerd_pid():
            return
        time.sleep(0.01)


def _broken_then_killed(host: EngineHost) -> None:
    """Containers outlive a dockerd that is killed, and end when the next one starts."""
    host.write("/etc/docker/daemon.json", '{\n  "debug": true,\n}\n')
    _kill_daemon(host)


FAULTS = (
    Fault("DMN001", "trailing-comma", lambda h: _refused(h, '{\n  "debug": true,\n}\n'), answers, ("DMN016",)),
    Fault("DMN001", "wrong-type", lambda h: _refused(h, '{\n  "debug": "true"\n}\n'), answers, ("DMN016",)),
    Fault("DMN001", "bracket-open", lambda h: _refused(h, '{\n  "dns": ["192.0.2.1"]\n'), answers, ("DMN016",)),
    Fault(
        "DMN001",
        "running",
        lambda h: h.write("/etc/docker/daemon.json", '{\n  "debug": false\n  "mtu": 1400\n}\n'),
        reloads,
        warning=True,
    ),
    Fault("DMN001", "killed", _broken_then_killed, answers, ("DMN016",)),
    Fault(
        "DMN003",
        "hosts",
        lambda h: _refused(h, '{"hosts": ["unix:///run/docker.sock"]}\n', "-H", "unix:///var/run/docker.sock"),
        answers,
        ("DMN016",),
    ),
    Fault(
        "DMN003",
        "log-level",
        lambda h: _refused(h, '{\n  "icc": true,\n  "log-level": "info"\n}\n', "--log-level=info"),
        answers,
        ("DMN016",),
    ),
    Fault(
        "DMN003",
        "running",
        lambda h: h.write("/etc/docker/daemon.json", '{\n  "log-level": "warn"\n}\n'),
        reloads,
        warning=True,
        daemon_args=("--log-level=info",),
    ),
    Fault("DMN016", "stopped-by-signal", lambda h: h.sh(f"kill -STOP {h.dockerd_pid()}"), answers),
    Fault("DMN016", "killed", _kill_daemon, answers),
    Fault("DMN016", "socket-removed", lambda h: h.sh("rm /run/docker.sock"), answers),
    Fault("DMN016", "stopped", lambda h: h.stop_dockerd(), answers),
    Fault("NET009", "down", lambda h: h.sh("ip link set docker0 down"), flows),
    Fault("NET009", "deleted", lambda h: h.sh(f"ip link del {_bridge(h)}"), flows, ("NET010", "NET012")),
    Fault("NET009", "renamed", _rename_bridge, flows, ("NET012",)),
    Fault("NET010", "address-gone", lambda h: h.sh("ip addr del 172.17.0.1/16 dev docker0"), flows),
    Fault("NET010", "other-address", _wrong_gateway, flows),
    Fault("NET012", "off-the-bridge", lambda h: h.sh(f"ip link set {_veth(h, 'web')} nomaster"), flows),
    Fault("NET012", "other-bridge", lambda h: h.sh(f"ip link set {_veth(h, 'web')} master {_bridge(h)}"), flows),
    Fault("NET012", "host-end-down", lambda h: h.sh(f"ip link set {_veth(h, 'api')} down"), flows),
    Fault("NET012", "gone", lambda h: h.sh(f"ip link del {_veth(h, 'web')}"), flows),
    Fault(
        "NET012",
        "inner-end-down",
        lambda h: h.sh(f"nsenter -t {h.container_pid('api')} -n ip link set eth0 down"),
        flows,
    ),
    Fault("NET021", "nft-flush", lambda h: h.sh("nft flush ruleset"), published),
    Fault("NET021", "iptables-flush", _flush_by_iptables, published),
    Fault("NET021", "nat-only", lambda h: h.sh("iptables -t nat -F; iptables -t nat -X"), published),
    Fault("NET034", "host", lambda h: h.sh("sysctl -qw net.ipv4.ip_forward=0"), flows),
    Fault("NET034", "bridge", lambda h: h.sh("sysctl -qw net.ipv4.conf.docker0.forwarding=0"), flows),
    Fault("NET034", "uplink", lambda h: h.sh("sysctl -qw net.ipv4.conf.eth0.forwarding=0"), flows),
    Fault("LAY002", "gone", _short_link_gone, starts),
    Fault("LAY002", "elsewhere", _short_link_elsewhere, starts),
    Fault("NSP002", "mount", _leak_mount, sandboxes, warning=True),
    Fault(
        "NSP002",
        "file",
        lambda h: h.sh("touch /run/docker/netns/ba9876543210"),
        sandboxes,
        warning=True,
        engines=("sid",),
    ),
    Fault("NSP002", "unmounted", _unmount_sandbox, sandboxes, warning=True),
)
