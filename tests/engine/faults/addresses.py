"""Faults of addresses, routes, rules and MTU: what a VPN, another engine, or a program in a container may do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

from tests.engine.faults.table import OUTSIDE_PORT, Fault, answers, flows
from tests.enginehost import IMAGE, OUTSIDE_IP

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

_UPLOAD = 300_000
NAMESERVER = "10.66.0.53"


def _bridge(host: EngineHost, name: str = "shop") -> str:
    return "br-" + host.docker("network", "inspect", "-f", "{{.Id}}", name)[:12]


def _inside(host: EngineHost, name: str, command: str) -> str:
    return host.sh(f"nsenter -t {host.container_pid(name)} -n {command}")


def _veth(host: EngineHost, name: str) -> str:
    index = _inside(host, name, "ip -o link show eth0").partition("@if")[2].partition(":")[0]
    return host.sh(f"ip -o link | sed -n 's/^{index}: \\([^@]*\\)@.*/\\1/p'").strip()


# What dockerd is told


def _refused(host: EngineHost, settings: dict[str, object]) -> None:
    host.stop_dockerd()
    host.write("/etc/docker/daemon.json", json.dumps(settings, indent=2))
    host.start_dockerd(expect_failure=True)


def _write(host: EngineHost, settings: dict[str, object]) -> None:
    host.write("/etc/docker/daemon.json", json.dumps(settings, indent=2))


def _set(host: EngineHost, settings: dict[str, object]) -> None:
    """Put settings into force, and start again what the restart stopped."""
    _write(host, settings)
    host.restart_dockerd()
    for name in ("web", "cron", "api", "db"):
        host.run("docker", "start", name, check=False)  # those of the default network may not start


def would_start(host: EngineHost) -> object:
    """Whether another dockerd with the same file would start, in a network and on folders of its own."""
    command = (
        "mkdir -p /tmp/try; timeout 4 unshare -mn sh -c 'ip link set lo up; exec dockerd --data-root /tmp/try/data"
        " --exec-root /tmp/try/exec -p /tmp/try/pid -H unix:///tmp/try/sock' >/tmp/try/log 2>&1;"
        " grep -c 'failed to start daemon' /tmp/try/log; rm -rf /tmp/try"
    )
    return host.run("sh", "-c", command, check=False).stdout.strip()


def as_told(host: EngineHost) -> object:
    """Whether docker0 has the address that the file asks for."""
    file = "/etc/docker/daemon.json"
    told = json.loads(host.read(file)).get("bip") if host.exists(file) else None
    return told is None or told in host.sh("ip -o -4 addr show docker0")


def in_range(host: EngineHost) -> object:
    """Whether a new container of the default network gets an address of the range that the file asks for."""
    host.run("docker", "rm", "-f", "probe", check=False)
    host.run("docker", "run", "-d", "--name", "probe", IMAGE, "idle", check=False)
    told = json.loads(host.read("/etc/docker/daemon.json")).get("fixed-cidr", "172.17.0.0/16")
    address = host.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "probe").strip()
    host.docker("rm", "-f", "probe")
    return bool(address) and address.rpartition(".")[0] == told.rpartition(".")[0]


# What claims the same addresses


def _nameserver_outside(host: EngineHost) -> None:
    host.outside("ip", "address", "add", f"{NAMESERVER}/32", "dev", "lo")
    host.write("/etc/resolv.conf", f"nameserver {NAMESERVER}\n")


def asks(host: EngineHost) -> object:
    """Whether the host reaches its nameserver."""
    with host.listen("outside", OUTSIDE_PORT):
        return host.connect("host", NAMESERVER, OUTSIDE_PORT)


def _lan(host: EngineHost) -> None:
    """A second link into a LAN, whose addresses a network then takes."""
    host.sh(
        "ip link add lan0 type veth peer name lan1; ip link set lan1 up; ip addr add 10.55.1.9/16 dev lan0; ip link set lan0 up"
    )


def by_lan(host: EngineHost) -> object:
    """By which device the host reaches a neighbour of the LAN."""
    return "lan0" in host.sh("ip route get 10.55.2.2")


def _other_bridge(host: EngineHost, address: str) -> None:
    host.sh(f"ip link add virbr0 type bridge; ip addr add {address} dev virbr0; ip link set virbr0 up")


# Rules, routes and links


def _vpn(host: EngineHost) -> None:
    """A VPN that takes everything: a rule before table main, and a default route in a table of its own."""
    host.sh("ip link add wg0 type veth peer name wg1; ip link set wg1 up; ip link set wg0 up")
    host.sh(f"ip route add default dev wg0 table 51820; ip route add {OUTSIDE_IP} dev eth0 table 51820")
    host.sh("ip rule add not fwmark 0xca6c table 51820 priority 100")


def _answers_astray(host: EngineHost) -> None:
    """Two uplinks: what comes from the first is routed by a table that does not know the containers."""
    host.sh("ip route add default via 198.51.100.1 dev eth0 table 100")
    host.sh("ip rule add from 198.51.100.0/24 iif eth0 table 100 priority 200")


def _no_default(host: EngineHost) -> None:
    _inside(host, "api", "ip route del default")


def _readdress(host: EngineHost, name: str, old: str, new: str) -> None:
    _inside(host, name, f"ip address del {old} dev eth0")
    _inside(host, name, f"ip address add {new} dev eth0")


def twins(host: EngineHost) -> object:
    """How many answer to the address of api, and whether api and db still answer, db having spoken last."""
    _inside(host, "db", "ping -c 1 -W 1 10.7.0.1 || true")
    said = host.run("busybox", "arping", "-c", "1", "-w", "1", "-I", _bridge(host), "10.7.0.2", check=False).stdout
    _inside(host, "db", "ping -c 1 -W 1 10.7.0.1 || true")
    return said.count("nicast reply"), host.probe([("host", "10.7.0.2", 80), ("host", "10.7.0.3", 80)])


def _same_mac(host: EngineHost) -> None:
    mac = json.loads(_inside(host, "api", "ip -j link show eth0"))[0]["address"]
    _inside(host, "db", f"ip link set eth0 address {mac}")
    host.sh("ip neigh flush all")


def large(host: EngineHost) -> object:
    """Whether a large packet of the host reaches db."""
    ping = ("ping", "-c", "1", "-W", "1", "-M", "do", "-s")
    return [host.run(*ping, size, "10.7.0.3", check=False).returncode for size in ("100", "1472")]


def uploads(host: EngineHost, names: tuple[str, ...] = ("cron", "db")) -> dict[str, bool]:
    """Whether containers get a few hundred kilobytes out, to a server that only reads."""
    found = {}
    for name in names:
        with host.open_socket("outside") as server, host.open_socket(name) as client:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((OUTSIDE_IP, OUTSIDE_PORT))
            server.listen(1)
            server.settimeout(3)
            client.settimeout(3)
            client.connect((OUTSIDE_IP, OUTSIDE_PORT))
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(3)
                found[name] = _read(client, accepted)
    return found


def _read(client: socket.socket, accepted: socket.socket) -> bool:
    """Send, and count what arrives."""

    def send() -> None:
        with contextlib.suppress(OSError):  # ended while it waits
            client.sendall(bytes(_UPLOAD))

    sender = threading.Thread(target=send)
    sender.start()
    count = 0
    try:
        while count < _UPLOAD and (more := accepted.recv(1 << 16)):
            count += len(more)
    except TimeoutError:
        pass
    finally:
        client.shutdown(socket.SHUT_RDWR)
        sender.join()
    return count == _UPLOAD


def _unheard(host: EngineHost) -> None:
    """A narrow uplink, and a hardening guide that lets no ICMP out."""
    host.sh("ip link set eth0 mtu 1400; iptables -A OUTPUT -p icmp -j DROP")


def announced(host: EngineHost) -> object:
    """Whether a TCP connection to outside announces no more than the uplink takes."""
    mtu = int(host.read("/sys/class/net/eth0/mtu"))
    seen = []
    for name in ("cron", "db"):
        dump = host.spawn("timeout", "10", "tcpdump", "-c", "1", "-lnvi", "eth0", f"tcp dst port {OUTSIDE_PORT}")
        while "listening on" not in dump.stderr and host.exists(f"/proc/{dump.pid}"):
            time.sleep(0.01)
        host.connect(name, OUTSIDE_IP, OUTSIDE_PORT)
        dump.wait(15)
        words = dump.stdout.partition("mss ")[2].partition(",")[0]
        seen.append(bool(words) and int(words) + 40 <= mtu)
    return seen


def _stp(host: EngineHost) -> None:
    host.sh(f"ip link set {_bridge(host)} type bridge stp_state 1")


def reachable_at_once(host: EngineHost) -> object:
    """Whether a container that starts now reaches its neighbour within two seconds."""
    done = host.run(
        "docker", "run", "--rm", "--network", "shop", IMAGE, "ping", "-c", "1", "-w", "2", "10.7.0.3", check=False
    )
    return done.returncode


def _tiny(host: EngineHost) -> None:
    host.docker("network", "create", "--subnet", "10.8.0.0/29", "tiny")


def _fill(host: EngineHost) -> None:
    for number in range(5):
        host.docker("run", "-d", "--name", f"t{number}", "--network", "tiny", IMAGE, "idle")


def one_more(host: EngineHost) -> object:
    """Whether one more container of the small network starts."""
    return host.run("docker", "run", "--rm", "--network", "tiny", IMAGE, "true", check=False).returncode


def _left_over(host: EngineHost) -> None:
    host.sh("ip link add br-0123456789ab type bridge; ip addr add 172.30.0.1/16 dev br-0123456789ab")
    host.sh("ip link set br-0123456789ab up")


def same_subnet(host: EngineHost) -> object:
    """Whether a network with the subnet of the bridge that is left over works."""
    host.docker("network", "create", "--subnet", "172.30.0.0/16", "again")
    host.docker("run", "-d", "--name", "probe", "--network", "again", IMAGE, "serve")
    host.await_listening("probe", 80)
    said = host.connect("host", host.container_ip("probe"), 80)
    host.docker("rm", "-f", "probe")
    host.docker("network", "rm", "again")
    return said


def another(host: EngineHost) -> object:
    """Whether one more network can be made."""
    made = host.run("docker", "network", "create", "another", check=False).returncode
    host.run("docker", "network", "rm", "another", check=False)
    return made


def _private_ranges(host: EngineHost) -> None:
    """Have a VPN take every private range that dockerd makes networks of."""
    host.sh("for net in 172.16.0.0/12 192.168.0.0/16; do ip route add $net dev eth0; done")


def _old_project(host: EngineHost) -> None:
    """Leave the network of a project behind, which has the last subnet."""
    host.docker("network", "create", "old_default")


def _world(host: EngineHost) -> object:
    """Whether the host's routes lead out into the world."""
    return host.run("ip", "route", "get", "93.184.215.14", check=False).returncode


_BACK = "ip route replace default via 198.51.100.1"

FAULTS = (
    Fault("NET006", "vpn", _private_ranges, another, level="warning"),
    Fault(
        "NET006",
        "old-project",
        _old_project,
        another,
        level="warning",
        daemon_args=("--default-address-pool", "base=10.99.0.0/24,size=24", "--bip", "172.17.0.1/16"),
    ),
    Fault("NET001", "network-address", lambda h: _refused(h, {"bip": "10.9.8.0/24"}), answers, ("DMN016",)),
    Fault("NET001", "no-prefix", lambda h: _refused(h, {"bip": "10.9.8.1"}), answers, ("DMN016",)),
    Fault(
        "NET001", "with-bridge", lambda h: _refused(h, {"bip": "10.9.8.1/24", "bridge": "br9"}), answers, ("DMN016",)
    ),
    Fault("NET001", "running", lambda h: _write(h, {"bip": "172.17.0.0/16"}), would_start, level="warning"),
    Fault("NET002", "not-restarted", lambda h: _write(h, {"bip": "172.17.0.1/20"}), as_told, level="warning"),
    Fault(
        "NET003",
        "outside",
        lambda h: _set(h, {"bip": "172.17.0.1/16", "fixed-cidr": "10.9.9.0/24"}),
        in_range,
        engines=("sid",),
        setup=lambda h: _write(h, {"bip": "172.17.0.1/16"}),
    ),
    Fault("NET007", "narrower", lambda h: _other_bridge(h, "10.7.0.100/25"), flows),
    Fault("NET008", "narrower", lambda h: h.sh(f"ip route add 10.7.0.0/25 via {OUTSIDE_IP}"), flows),
    Fault(
        "NET068",
        "no-default-route",
        lambda h: h.sh("ip route del default"),
        _world,
        level="warning",
        heal=lambda h: h.sh(_BACK),
    ),
    Fault(
        "NET068",
        "uplink-down",
        lambda h: h.sh("ip link set eth0 down"),
        _world,
        heal=lambda h: h.sh(f"ip link set eth0 up; {_BACK}"),
    ),
    Fault(
        "NET068",
        "a-rule-into-a-black-hole",
        lambda h: h.sh("ip rule add from 172.17.0.0/16 lookup 77 priority 50; ip route add blackhole default table 77"),
        flows,
    ),
    Fault("NET008", "route-gone", lambda h: h.sh(f"ip route del 10.7.0.0/24 dev {_bridge(h)}"), flows),
    Fault(
        "NET008",
        "nameserver",
        lambda h: h.docker("network", "create", "--subnet", "10.66.0.0/24", "late"),
        asks,
        setup=_nameserver_outside,
    ),
    Fault(
        "NET008",
        "lan",
        lambda h: h.docker("network", "create", "--subnet", "10.55.2.0/24", "late"),
        by_lan,
        level="warning",
        setup=_lan,
        heal=lambda h: h.docker("network", "rm", "late"),
    ),
    Fault("NET011", "left-over", _left_over, same_subnet, level="warning"),
    Fault("NET013", "other-address", lambda h: _readdress(h, "api", "10.7.0.2/24", "10.7.0.77/24"), flows),
    Fault("NET013", "no-address", lambda h: _inside(h, "web", "ip address del 172.17.0.2/16 dev eth0"), flows),
    Fault("NET014", "gone", _no_default, flows),
    Fault("NET014", "nobody", lambda h: _inside(h, "db", "ip route replace default via 10.7.0.200"), flows),
    Fault("NET015", "uplink", lambda h: h.sh("ip link set eth0 mtu 1400"), announced, level="warning"),
    Fault("NET015", "error-does-not-come-back", _unheard, uploads),
    Fault("NET015", "ends", lambda h: h.sh(f"ip link set {_veth(h, 'db')} mtu 1200"), large),
    Fault("NET017", "refused", lambda h: _refused(h, {"icc": False, "iptables": False}), answers, ("DMN016",)),
    Fault("NET054", "vpn", _vpn, flows),
    Fault("NET054", "answers", _answers_astray, flows),
    Fault("NET055", "stp", _stp, reachable_at_once, level="warning"),
    Fault("NET055", "blocked", lambda h: h.sh(f"bridge link set dev {_veth(h, 'api')} state 0"), flows),
    Fault("NET056", "address", lambda h: _inside(h, "db", "ip address add 10.7.0.2/24 dev eth0"), twins),
    Fault("NET056", "mac", _same_mac, twins),
    Fault("NET061", "full", _fill, one_more, level="warning", setup=_tiny, heal=lambda h: h.docker("rm", "-f", "t4")),
)
