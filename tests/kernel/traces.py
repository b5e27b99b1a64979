"""The rules that really dropped a packet, as the kernel traces it: by nftables, or by the target TRACE of legacy iptables.

Packets are told apart by the port of the client. A rule is named as the model names it: `filter FORWARD 3`, and
`filter FORWARD` for the policy. Nothing is added to the rules that are under test but, for legacy, TRACE in the table raw.

Source: net/netfilter/nf_tables_trace.c, net/ipv4/netfilter/ip_tables.c (trace_packet), linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

from doctor.linux.namespaces import inside
from tests.kernel.lan import Flow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.lan import Lan

FIRST, LAST = 10_000, 60_000
"""Ports of clients that are traced."""

_SET = (
    f"meta l4proto {{ tcp, udp }} th sport {FIRST}-{LAST} meta nftrace set 1; "
    f"meta l4proto {{ tcp, udp }} th dport {FIRST}-{LAST} meta nftrace set 1"
)
TRACED = f"""
table inet traced {{
  chain pre {{ type filter hook prerouting priority -400; {_SET}; }}
  chain out {{ type filter hook output priority -400; {_SET}; }}
}}
"""
"""A table that decides about nothing."""

_COUNTER = re.compile(r"counter packets \d+ bytes \d+")
_DROPPED = re.compile(r"trace id (\S+) (\S+) (\S+) (\S+) (?:rule (.*) \(verdict drop\)|(policy drop))\s*$")
_COMMENT = re.compile(r'comment "([^"]+)"')


class Monitor:
    """`nft monitor trace` while it is entered: by client port, the rules that dropped a packet of it.

    Rules are found in what nft lists: two of one text are both named. Those with a comment are named by that, too.
    """

    def __init__(self, lan: Lan, host: str = "host", *, listed: bool = True) -> None:
        """Take where, and whether the rules are to be listed: 40,000 of them take a second."""
        self.lan = lan
        self.host = host
        self.listed = listed
        self.file = Path(tempfile.mkstemp(prefix="trace")[1])

    def __enter__(self) -> Self:
        """Start it; after the rules, so that it prints them as they are."""
        argv = ["nsenter", "-t", str(self.lan.pids[self.host]), "-n", "nft", "monitor", "trace"]
        self.process = subprocess.Popen(argv, stdout=self.file.open("wb"), stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while (
            not self.file.stat().st_size and time.monotonic() < until
        ):  # it reads all rules before it tells of packets
            self.lan.connect([Flow(self.host, "127.0.0.1", self.lan.ports[0], "udp", LAST - 1)], 0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()
        self.file.unlink()

    def dropped(self) -> dict[int, set[str]]:
        """Read what was printed so far."""
        size = -1
        while size != (size := self.file.stat().st_size):
            time.sleep(0.15)
        ports: dict[str, int] = {}
        found: dict[int, set[str]] = {}
        drops: list[tuple[str, set[str]]] = []
        places: dict[tuple[str, str, str], list[str]] | None = None
        for line in self.file.read_text(errors="replace").splitlines():
            if " packet: " in line:
                held = [int(port) for port in re.findall(r"(?:sport|dport) (\d+)", line)]
                client = [port for port in held if port >= FIRST]
                if client:
                    ports[line.split(" ", 3)[2]] = client[0]
            elif (said := _DROPPED.match(line)) is not None:
                comment = _COMMENT.search(said[5] or "")
                if places is None and self.listed:
                    places = self.places()
                drops.append((said[1], _named(said, places or {}) | ({comment[1]} if comment else set())))
        for name, rules in drops:
            if name in ports:
                found.setdefault(ports[name], set()).update(rules)
        return found

    def places(self) -> dict[tuple[str, str, str], list[str]]:
        """Give the rules of each chain as nft lists them, without what they counted."""
        found: dict[tuple[str, str, str], list[str]] = {}
        table: tuple[str, str] = ("", "")
        rules: list[str] = []
        for line in self.lan.run(self.host, "nft list ruleset 2>/dev/null").splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = words[1], words[2]
            elif words[:1] == ["chain"]:
                rules = found.setdefault((*table, words[1]), [])
            elif words and words[0] not in {"}", "type", "set", "map"}:
                rules.append(_COUNTER.sub("counter", line.strip()))
        return found


def _named(said: re.Match[str], places: dict[tuple[str, str, str], list[str]]) -> set[str]:
    """Name the rules that a line of the trace may stand for."""
    chain = f"{said[3]} {said[4]}"
    if said[6]:
        return {chain}
    text = _COUNTER.sub("counter", said[5]).strip()
    return {
        f"{chain} {at}" for at, one in enumerate(places.get((said[2], said[3], said[4]), ()), 1) if one.strip() == text
    }


class Legacy:
    """The target TRACE of legacy iptables while it is entered; what it says goes to a socket of the namespace itself.

    `rules` puts TRACE into the table raw, before what is there; that is to be done before the model reads the rules.
    """

    def __init__(self, lan: Lan, version: int) -> None:
        """Take where, and the version of IP."""
        self.lan = lan
        self.version = version
        self.program = "iptables-legacy" if version == 4 else "ip6tables-legacy"

    def rules(self) -> None:
        """Add the rules that trace."""
        rules = [
            f"{self.program} -t raw -I {chain} -p {name} -m {name} --{end} {FIRST}:{LAST} -j TRACE"
            for chain in ("PREROUTING", "OUTPUT")
            for name in ("tcp", "udp")
            for end in ("sport", "dport")
        ]
        family = 2 if self.version == 4 else 10
        self.lan.run("host", "; ".join([*rules, f"echo nfnetlink_log > /proc/sys/net/netfilter/nf_log/{family}"]))

    def __enter__(self) -> Self:
        """Listen."""
        self.socket: socket.socket = inside(
            f"/proc/{self.lan.pids['host']}/ns/net",
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),  # NETLINK_NETFILTER
        )
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.settimeout(1)
        self.held = set(self.stops())
        whole = struct.pack("!IBx", 0xFFFF, 2)  # copy the packet
        for attributes in (_attribute(1, b"\x01"), _attribute(2, whole), _attribute(4, struct.pack("!I", 1))):
            body = struct.pack("!BBH", 0, 0, 0) + attributes  # group 0
            self.socket.send(struct.pack("=IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body)
            self.socket.recv(4096)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.socket.close()

    def dropped(self) -> dict[int, set[str]]:
        """Read what was said so far: by client port, the rules that drop or reject and were met."""
        found: dict[int, set[str]] = {}
        self.socket.settimeout(0.3)
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except (TimeoutError, OSError):
                return found
            for prefix, packet in _logged(data):
                table, chain, kind, number = prefix.removeprefix("TRACE: ").strip().split(":")
                place = f"{table} {chain}" + ("" if kind == "policy" else f" {number}")
                port = _client(packet)
                if place in self.held and port:
                    found.setdefault(port, set()).add(place)

    def stops(self) -> Iterator[str]:
        """Name the rules and policies that drop or reject."""
        table, seen = "", Counter[str]()
        for line in self.lan.run("host", f"{self.program}-save").splitlines():
            words = line.split(" ")
            if line.startswith("*"):
                table, seen = line[1:], Counter()
            elif line.startswith(":") and words[1] == "DROP":
                yield f"{table} {words[0][1:]}"
            elif line.startswith("-A"):
                seen[words[1]] += 1
                if re.search(r" -j (DROP|REJECT)", _COMMENT.sub("", line)):
                    yield f"{table} {words[1]} {seen[words[1]]}"


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _logged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give prefix and packet of each message (NFULNL_MSG_PACKET)."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if kind == 4 << 8:
            held: dict[int, bytes] = {}
            place = at + 20
            while place + 4 <= at + length:
                size, name = struct.unpack_from("=HH", data, place)
                held[name & 0x7FFF] = data[place + 4 : place + size]
                place += size + (-size % 4)
            yield held.get(10, b"").rstrip(b"\0").decode(), held.get(9, b"")
        at += max(16, length + (-length % 4))


def _client(packet: bytes) -> int:
    """Give the port of the client of a packet of TCP or UDP, 0 for any other."""
    start = 40 if packet[:1] and packet[0] >> 4 == 6 else 20
    if len(packet) < start + 4:
        return 0
    ports = struct.unpack_from("!HH", packet, start)
    return next((port for port in ports if port >= FIRST), 0)
