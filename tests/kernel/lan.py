"""A router between two networks, made of network namespaces: `client` 10.1.0.2, `host`, `server` 10.2.0.2 to .4.

The same in IPv6: fd01::2, fd02::2 to ::4. Services listen on all ports, by TCP, and answer what they get by UDP.

It is thrown away with its namespaces. What the model reads of it is what `ip -j` and the savers print there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from doctor.examine import Facts
from doctor.packets.build import SITE
from doctor.registry import load
from doctor.snapshot import Kind, Meta, Record, Snapshot
from tests.enginehost import _outcome, _socket_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.packets.site import Site

PORTS = range(80, 92)
SPACES = ("host", "client", "server")
_SETUP = (
    ("host", "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0"),
    ("host", "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.icmp.ratelimit=0"),
    ("host", "ip link add c0 type veth peer name eth0 netns /proc/{client}/ns/net; ip addr add 10.1.0.1/24 dev c0"),
    ("host", "ip link add s0 type veth peer name eth0 netns /proc/{server}/ns/net; ip addr add 10.2.0.1/24 dev s0"),
    ("host", "ip addr add fd01::1/64 dev c0 nodad; ip addr add fd02::1/64 dev s0 nodad"),
    ("host", "ip link set c0 up; ip link set s0 up"),
    (
        "client",
        "ip link set lo up; ip addr add 10.1.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.1.0.1",
    ),
    ("server", "ip link set lo up; for n in 2 3 4; do ip addr add 10.2.0.$n/24 dev eth0; done; ip link set eth0 up"),
    ("server", "ip route add default via 10.2.0.1"),
    ("client", "ip addr add fd01::2/64 dev eth0 nodad; ip -6 route add default via fd01::1"),
    ("server", "for n in 2 3 4; do ip addr add fd02::$n/64 dev eth0 nodad; done; ip -6 route add default via fd02::1"),
    # An error is sent whatever else was (icmp_ratelimit alone leaves 1,000 a second for the whole machine, 50 at once), and
    # that a neighbour is missing is known before a flow times out, not after three seconds.
    ("host", "sysctl -qw net.ipv4.icmp_ratemask=0; sysctl -qw net.ipv6.icmp.ratemask="),
    ("client", "sysctl -qw net.ipv4.icmp_ratemask=0; sysctl -qw net.ipv6.icmp.ratemask="),
    ("server", "sysctl -qw net.ipv4.icmp_ratemask=0; sysctl -qw net.ipv6.icmp.ratemask="),
    ("host", "for one in /proc/sys/net/ipv[46]/neigh/[cs]0/retrans_time_ms; do echo 50 > $one; done"),
    ("client", "for one in /proc/sys/net/ipv[46]/neigh/eth0/retrans_time_ms; do echo 50 > $one; done"),
    ("server", "for one in /proc/sys/net/ipv[46]/neigh/eth0/retrans_time_ms; do echo 50 > $one; done"),
    # IPv6 finds neighbours by packets that meet the rules, which may drop them: these are known for good.
    ("host", "ip link set c0 address 02:00:00:00:01:01; ip link set s0 address 02:00:00:00:02:01"),
    ("client", "ip link set eth0 address 02:00:00:00:01:02"),
    ("server", "ip link set eth0 address 02:00:00:00:02:02"),
    ("client", "ip -6 neigh replace fd01::1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent"),
    ("server", "ip -6 neigh replace fd02::1 lladdr 02:00:00:00:02:01 dev eth0 nud permanent"),
    ("host", "ip -6 neigh replace fd01::2 lladdr 02:00:00:00:01:02 dev c0 nud permanent"),
    ("host", "for n in 2 3 4; do ip -6 neigh replace fd02::$n lladdr 02:00:00:00:02:02 dev s0 nud permanent; done"),
)


class Flow(NamedTuple):
    """One connection: source, address, port; `sport` is the client's own port, 0 for any."""

    source: str
    address: str
    port: int
    protocol: str = "tcp"
    sport: int = 0


class Lan:
    """The three namespaces, each held by a process that sleeps."""

    spaces: tuple[str, ...] = SPACES
    setup: tuple[tuple[str, str], ...] = _SETUP
    devices: tuple[str, ...] = ("all", "c0", "s0", "lo")
    """Devices of the host whose settings are read."""
    ports: tuple[int, ...] = tuple(PORTS)

    def __init__(self) -> None:
        """Make them; services listen on all ports everywhere."""
        self.holders = {
            name: subprocess.Popen(["unshare", "-n", "sleep", "3600"], stdin=subprocess.DEVNULL) for name in self.spaces
        }
        self.pids = {name: holder.pid for name, holder in self.holders.items()}
        mine = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - a link that leads nowhere
        while any(os.readlink(f"/proc/{pid}/ns/net") == mine for pid in self.pids.values()):  # noqa: PTH115
            time.sleep(0.005)
        for name, script in self.setup:
            self.run(name, script.format(**self.pids))
        self.listeners = [self._listen(name, port) for name in self.spaces for port in self.ports]
        echoes = [self._echo(name, port) for name in self.spaces for port in self.ports]
        self.echoes = {one.fileno(): one for one in echoes}

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes: the namespaces go with them."""
        for listener in (*self.listeners, *self.echoes.values()):
            listener.close()
        for holder in self.holders.values():
            holder.kill()
            holder.wait()

    def run(self, name: str, script: str, stdin: str = "") -> str:
        """Run a shell script in a namespace."""
        argv = ["nsenter", "-t", str(self.pids[name]), "-n", "sh", "-ec", script]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        assert not done.returncode, f"{script}\n{stdin}\n{done.stderr}"
        return done.stdout

    def _socket(self, name: str, family: int, kind: int) -> socket.socket:
        namespace = os.open(f"/proc/{self.pids[name]}/ns/net", os.O_RDONLY)
        try:
            return _socket_in(namespace, family, kind)
        finally:
            os.close(namespace)

    def _bound(self, name: str, port: int, kind: int) -> socket.socket:
        made = self._socket(name, socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        made.settimeout(0)
        return made

    def _listen(self, name: str, port: int) -> socket.socket:
        made = self._bound(name, port, socket.SOCK_STREAM)
        made.listen(64)
        return made

    def _echo(self, name: str, port: int) -> socket.socket:
        """Answer from the address that was asked: a socket that is bound to all would choose one by itself."""
        made = self._bound(name, port, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        return made

    def connect(self, flows: Iterable[Flow], seconds: float) -> dict[Flow, str]:
        """Try every flow at once; what has no answer in time timed out."""
        results: dict[Flow, str] = {}
        pending: dict[int, tuple[Flow, socket.socket]] = {}
        poller = select.poll()
        for handle in self.echoes:
            poller.register(handle, select.POLLIN)
        with contextlib.ExitStack() as stack:
            for flow in flows:
                stream = flow.protocol == "tcp"
                family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
                kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
                made = stack.enter_context(self._socket(flow.source, family, kind))
                made.settimeout(0)
                if flow.sport:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    made.bind(("", flow.sport))
                code = made.connect_ex((flow.address, flow.port))
                if not stream and not code:
                    with contextlib.suppress(PermissionError):  # a rule of OUTPUT: for UDP the sender is told
                        made.send(b"?")
                if code in {0, errno.EINPROGRESS} and not (stream and not code):
                    pending[made.fileno()] = flow, made
                    poller.register(made, select.POLLOUT if stream else select.POLLIN)
                else:
                    results[flow] = _outcome(code, made, at_once=True)
            until = time.monotonic() + seconds
            while pending and (left := until - time.monotonic()) > 0:
                for handle, _ in poller.poll(left * 1000):
                    if handle in self.echoes:
                        _answer(self.echoes[handle])
                        continue
                    flow, made = pending.pop(handle)
                    poller.unregister(handle)
                    results[flow] = _outcome(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), made, at_once=False)
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
        return results | {flow: "timeout" for flow, _ in pending.values()}

    def site(self) -> Site:
        """Read all of it as it is now, and build the model's site."""
        return site_of(self.records())

    def records(self) -> dict[str, tuple[Kind, str]]:
        """Read all of it as it is now: kind and text of each record, as a snapshot has them."""
        records: dict[str, tuple[Kind, str]] = {}

        def put(name: str, text: str, kind: Kind = "netns") -> None:
            records[name] = kind, text

        ids = {name: self.space(name) for name in self.spaces}
        index = (f"{ids[name]}\tn\t0.0\t{'host' if name == 'host' else 1}\n" for name in self.spaces)
        put("netns/index", "".join(index), "tree")
        for name, key in ids.items():
            put(f"netns/{key}/links", self.run(name, "ip -j -d addr"))
            six = self.run(name, "ip -j -6 route show table all").replace('{"', '{"family":"inet6","')
            put(f"netns/{key}/routes", self.run(name, "ip -j -4 route show table all") + six)
            six = self.run(name, "ip -j -6 rule").replace('{"', '{"family":"inet6","')
            put(f"netns/{key}/rules", self.run(name, "ip -j rule") + six)
            put(f"netns/{key}/neighbours", self.run(name, "ip -j neigh"))
            put(
                f"netns/{key}/listeners",
                "".join(f"{one} 0 64 *:{port} *:*\n" for port in self.ports for one in ("tcp LISTEN", "udp UNCONN")),
            )
        for backend in ("nft", "legacy"):
            for program in ("iptables", "ip6tables"):
                text = self.run("host", f"{program}-{backend}-save -c 2>/dev/null || true")
                put(f"net/{program}-{backend}", text, "command")
        put("net/nft", self.run("host", "nft -j list ruleset"), "command")
        values = ("forwarding", "rp_filter", "route_localnet", "accept_local")
        script = "; ".join(
            f"printf '{name}/{value}\\tf\\t0.0\\t%s\\n' $(cat /proc/sys/net/ipv4/conf/{name}/{value})"
            for name in self.devices
            for value in values
        )
        put("net/sysctl/ipv4", self.run("host", script), "tree")
        put("net/sysctl/ipv6", "all/forwarding\tf\t0.0\t1\n", "tree")
        bridged = self.run("host", "cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0")
        put("net/sysctl/bridge", f"bridge-nf-call-iptables\tf\t0.0\t{bridged}", "tree")
        put("files/proc/sys/net/ipv4/ip_forward", self.run("host", "cat /proc/sys/net/ipv4/ip_forward"), "file")
        return records

    @classmethod
    def space(cls, name: str) -> str:
        """Give the id of a namespace in the model."""
        return name if name == "host" else str(100 + cls.spaces.index(name))


def site_of(records: dict[str, tuple[Kind, str]]) -> Site:
    """Build the model's site of what was read."""
    held = {name: Record(name, kind, name, data=text.encode()) for name, (kind, text) in records.items()}
    meta = Meta("test", "lan", "6", "x86_64", 0.0, 0, 0, "root")
    made: Site = Facts(load(plugins=False), Snapshot(meta, held)).get(SITE)
    return made


def _answer(echo: socket.socket) -> None:
    """Send back what came, from the address that it came to."""
    with contextlib.suppress(OSError):
        data, about, _, sender = echo.recvmsg(64, 256)
        echo.sendmsg([data], [(level, kind, info) for level, kind, info in about], 0, sender)


def shown(rules: str) -> str:
    """Give rules for a message, numbered."""
    return "\n".join(f"{number:3} {line}" for number, line in enumerate(rules.splitlines(), 1))
