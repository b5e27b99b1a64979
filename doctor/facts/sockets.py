"""Who listens where: sockets of the host and of each container, as `ss -Htulne` prints them.

Parses the records `netns/host/listeners` and `netns/INODE/listeners` (`doctor.linux.sock_diag`), lines such as::

    tcp LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* ino:4085302 sk:38ea
    udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:* uid:101 ino:1720 sk:2003 v6only:1

The host's firewall is no part of it: a socket that listens may still be reached by nobody.
"""

from __future__ import annotations

from ipaddress import ip_address

from msgspec import Struct

from doctor.facts.containers import Containers
from doctor.facts.processes import Processes
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot, tree_entries

_V4 = "0.0.0.0"  # noqa: S104 - nothing is bound
ANY = frozenset({"*", _V4, "::"})


class Listener(Struct, frozen=True):
    """One socket: `protocol` is tcp or udp, `address` as ss spells it without brackets and zone (`*`: both families).

    `uid` owns it (0: root). `only6` is true for a socket of IPv6 that takes no IPv4. `full`: more connections wait to be
    accepted than there is room for, and the kernel drops who comes (TCP; sk_acceptq_is_full() in include/net/sock.h).
    """

    protocol: str
    address: str
    port: int
    uid: int
    only6: bool
    cited: Citation
    full: bool = False

    @property
    def loopback(self) -> bool:
        """Whether it is reached from its own namespace only."""
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            return False

    def takes(self, address: str) -> bool:
        """Whether what is sent to this address of its namespace arrives."""
        six = ":" in address
        if self.address in ANY:
            return (
                self.address == "*"
                or (self.address == "::" and (six or not self.only6))
                or (self.address == _V4 and not six)
            )
        return self.address == address

    def overlaps(self, address: str) -> bool:
        """Whether nobody else can listen on this address and its port; an empty one is any of IPv4."""
        wanted = address or _V4
        if wanted not in ANY:
            return self.takes(wanted)
        six = wanted == "::"
        return self.takes("::1" if six else "127.0.0.1") or (self.address not in ANY and (":" in self.address) == six)


class Sockets(Struct, frozen=True):
    """Listeners of the host (`missing` says why they are not known), and of each running container by its id.

    A container whose namespace could not be read stands in `unread`, with the reason; one in the host's namespace in
    neither. `space` is the inode of each container's namespace.
    """

    host: tuple[Listener, ...]
    missing: str
    containers: dict[str, tuple[Listener, ...]]
    unread: dict[str, str]
    space: dict[str, str]


@fact
def sockets(snapshot: Snapshot, containers: Containers, processes: Processes) -> Sockets:
    """Read the host's listeners and those of every container that runs."""
    index = snapshot.get("netns/index")
    if not index.readable:
        raise EvidenceMissing("network namespaces", index.why or index.status)
    own = next((entry.path for entry in tree_entries(index) if entry.content == "host"), "")
    record = snapshot.get("netns/host/listeners")
    missing = "" if record.readable else record.why or record.status
    found: dict[str, tuple[Listener, ...]] = {}
    unread: dict[str, str] = {}
    space: dict[str, str] = {}
    by_inode: dict[str, tuple[Listener, ...]] = {}
    for one in containers.running:
        process = processes.by_pid.get(one.pid)
        inode = process.net if process is not None else ""
        if not inode:
            unread[one.id] = "its process cannot be looked into"
            continue
        space[one.id] = inode
        if inode == own:
            continue
        held = snapshot.get(f"netns/{inode}/listeners")
        if not held.readable:
            unread[one.id] = held.why or held.status
            continue
        if inode not in by_inode:
            by_inode[inode] = read_listeners(held, f"{one.engine_name}: ")
        found[one.id] = by_inode[inode]
    return Sockets(read_listeners(record, "") if not missing else (), missing, found, unread, space)


def read_listeners(record: Record, whose: str) -> tuple[Listener, ...]:
    """Read the listeners of one namespace; `whose` stands before each place that is cited."""
    lines = enumerate(record.text.split("\n"), 1)
    return tuple(found for number, line in lines if (found := _listener(record, number, line, whose)) is not None)


def _listener(record: Record, number: int, line: str, whose: str) -> Listener | None:
    words = line.split()
    if len(words) < 6 or words[0] not in {"tcp", "udp"}:  # noqa: PLR2004 - protocol to peer
        return None
    address, _, port = words[4].rpartition(":")
    if not port.isdecimal():
        return None
    rest = {name: value for name, _, value in (word.partition(":") for word in words[6:])}
    address = address.partition("%")[0].strip("[]")
    uid = rest.get("uid", "0")
    full = words[1] == "LISTEN" and words[2].isdecimal() and words[3].isdecimal() and int(words[2]) > int(words[3])
    shown = words[:6] if full else words[:2] + words[4:6]
    return Listener(
        protocol=words[0],
        address=address,
        port=int(port),
        uid=int(uid) if uid.isdecimal() else 0,
        only6=rest.get("v6only") == "1",
        cited=Citation(record.name, number, " ".join(shown), f"{whose}ss -tuln, {words[4]}"),
        full=full,
    )
