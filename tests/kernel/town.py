"""A host as Docker would make it, of network namespaces: four networks, containers, an uplink, the rules of a generation.

No engine runs: the links are made here, and the rules are those of `doctor.engine.rules`, loaded into a real kernel. What
docker-proxy would hold is held by nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from doctor.engine.rules import Binding, Bridge, Endpoint, Site, dialect, native
from doctor.engine.rules.compare import whole
from tests.kernel.lan import Flow, Lan

if TYPE_CHECKING:
    from doctor.engine.rules import Family

UPLINK, OUTSIDE = "198.51.100.1", "198.51.100.2"
ANY = "0.0.0.0"  # noqa: S104 - as ports are published

NETWORKS = {"docker0": "172.17.0", "br-app": "10.7.0", "br-inner": "10.8.0", "br-noicc": "10.9.0"}
CONTAINERS = {
    "web": ("docker0", "172.17.0.2"),
    "lo1": ("docker0", "172.17.0.3"),
    "api": ("br-app", "10.7.0.2"),
    "db": ("br-app", "10.7.0.3"),
    "in1": ("br-inner", "10.8.0.2"),
    "in2": ("br-inner", "10.8.0.3"),
    "one": ("br-noicc", "10.9.0.2"),
    "two": ("br-noicc", "10.9.0.3"),
}
PUBLISHED = {"web": (8080, ANY), "lo1": (8081, "127.0.0.1"), "api": (8082, ANY), "one": (8083, ANY)}
"""Ports of the host that lead to port 80 of a container."""


class Kind(NamedTuple):
    """Which rules: the release, the back end (`nft`, `legacy`, `native`), and what somebody did to the host."""

    release: str
    backend: str
    fault: str = ""

    @property
    def name(self) -> str:
        """Name its recording."""
        return "-".join(filter(None, (self.release, self.backend, self.fault)))


FAULTS = {
    "": "",
    "user": "-I DOCKER-USER -i eth0 -j DROP\n-I DOCKER-USER -s 10.7.0.3/32 -d 172.17.0.0/16 -j REJECT",
    "policy": "-P FORWARD DROP\n-D FORWARD 1",
    "answers": "-I FORWARD -m conntrack --ctstate ESTABLISHED -i br-app -j DROP",
    "bridged": "",
}
"""What is done to the table filter; `bridged`: packets within a bridge meet no iptables."""

KINDS = tuple(
    Kind(release, backend, fault)
    for release, backend, faults in (
        ("20.10.24", "legacy", ("", "user")),
        ("26.1.4", "nft", ("", "answers")),
        ("28.0.1", "nft", ("", "policy")),
        ("28.5.2", "nft", ("", "user", "policy", "answers", "bridged")),
        ("28.5.2", "legacy", ("", "user")),
        ("29.0.0", "nft", ("", "policy")),
        ("29.0.0", "native", ("", "bridged")),
    )
    for fault in faults
)


def _wired() -> tuple[tuple[str, str], ...]:
    lines = [
        ("host", "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0"),
        ("host", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"),
        (
            "host",
            f"ip link add eth0 type veth peer name eth0 netns /proc/{{ext}}/ns/net; ip addr add {UPLINK}/24 dev eth0",
        ),
        ("host", "ip link set eth0 up"),
        (
            "ext",
            f"ip link set lo up; ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up; ip route add default via {UPLINK}",
        ),
        ("host", f"ip route add default via {OUTSIDE}"),
    ]
    lines += [
        ("host", f"ip link add {name} type bridge; ip addr add {net}.1/24 dev {name}; ip link set {name} up")
        for name, net in NETWORKS.items()
    ]
    for name, (bridge, address) in CONTAINERS.items():
        pair = f"ip link add ve-{name} type veth peer name eth0 netns /proc/{{{name}}}/ns/net"
        lines.append(("host", f"{pair}; ip link set ve-{name} master {bridge} up"))
        way = "true" if bridge == "br-inner" else f"ip route add default via {NETWORKS[bridge]}.1"
        lines.append((name, f"ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up; {way}"))
    return tuple(lines)


class Town(Lan):
    """The host (`host`), its containers, and somebody outside (`ext`)."""

    spaces = ("host", "ext", *CONTAINERS)
    setup = _wired()
    devices = ("all", "lo", "eth0", *NETWORKS)
    ports = (80, 81)

    def load(self, kind: Kind) -> None:
        """Load the rules of a kind in place of those that are there."""
        flush = (
            "for t in filter nat mangle raw; do iptables-{0} -t $t -F; iptables-{0} -t $t -X; done; "
            "iptables-{0} -P FORWARD ACCEPT"
        )
        for backend in ("nft", "legacy"):
            self.run("host", f"{flush.format(backend)} 2>/dev/null || true")
        self.run("host", "nft flush ruleset")
        bridged = int(kind.fault != "bridged")
        self.run("host", f"echo {bridged} > /proc/sys/net/bridge/bridge-nf-call-iptables")
        if kind.backend == "native":
            self.run("host", "nft -f -", native.whole(native.write(_told(), "ip")))
            return
        self.run("host", f"iptables-{kind.backend}-restore", written(kind.release, "ip"))
        for line in FAULTS[kind.fault].splitlines():
            self.run("host", f"iptables-{kind.backend} {line}")


def written(release: str, family: Family) -> str:
    """Give the rules that a release writes for this host."""
    return whole(dialect(release)[0].write(_told(), family))


def _told() -> Site:
    bridges = tuple(
        Bridge(name, f"{net}.0/24", internal=name == "br-inner", icc=name != "br-noicc")
        for name, net in NETWORKS.items()
    )
    ends = []
    for name, (bridge, address) in CONTAINERS.items():
        port, where = PUBLISHED.get(name, (0, ""))
        ends.append(Endpoint(bridge, address, "", (Binding(80, "tcp", port, where),) if port else ()))
    return Site(bridges=bridges, endpoints=tuple(ends))


def flows() -> list[Flow]:
    """Every one to every container, to the published ports, to the host and to somebody outside."""
    found = []
    for source in Town.spaces:
        for name, (_, address) in CONTAINERS.items():
            found += [Flow(source, address, port) for port in (80, 81) if name != source]
            found += [Flow(source, address, 80, "udp")] if name != source else []
        found += [Flow(source, UPLINK, port) for port, _ in PUBLISHED.values()]
        found += [Flow(source, UPLINK, 80), Flow(source, "127.0.0.1", 8081)] if source == "host" else []
        found += [Flow(source, OUTSIDE, 80), Flow(source, OUTSIDE, 80, "udp")] if source != "ext" else []
    return found
