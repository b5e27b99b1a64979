"""Rules of nat inside the network namespaces of containers: those that lead 127.0.0.11 to dockerd's DNS, and others.

Parses the records `netns/INODE/iptables`, as `iptables-nft-save` prints them there; an empty one says that there are no
rules. In every generation up to 28, and in 29 with iptables::

    -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
    -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:38481
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot, tree_entries

_OURS = ("-A DOCKER_OUTPUT ", "-A DOCKER_POSTROUTING ", "-A OUTPUT -d 127.0.0.11", "-A POSTROUTING -d 127.0.0.11")


class Inside(Struct, frozen=True):
    """The rules of one namespace.

    `ports` are where DNAT sends port 53 of 127.0.0.11, by protocol; `jump` whether OUTPUT leads there at all; `foreign`
    whether nat holds a rule of somebody else. `cited` is the rule for UDP, or the record as a whole.
    """

    ports: dict[str, int]
    jump: bool
    foreign: bool
    cited: Citation


class InnerRules(Struct, frozen=True):
    """By inode of the namespace; `unread` says why one could not be read."""

    by_inode: dict[str, Inside]
    unread: dict[str, str]

    def of(self, inode: str) -> Inside | None:
        """Give the rules of a namespace, None when they are not known."""
        return self.by_inode.get(inode)


@fact
def inner_rules(snapshot: Snapshot) -> InnerRules:
    """Read the rules of every namespace but the host's."""
    index = snapshot.get("netns/index")
    if not index.readable:
        raise EvidenceMissing("network namespaces", index.why or index.status)
    found, unread = {}, {}
    for entry in tree_entries(index):
        if entry.content == "host":
            continue
        record = snapshot.get(f"netns/{entry.path}/iptables")
        if record.readable:
            found[entry.path] = _inside(record)
        else:
            unread[entry.path] = record.why or record.status
    return InnerRules(found, unread)


def _inside(record: Record) -> Inside:
    table = ""
    ports: dict[str, int] = {}
    jump = foreign = False
    cited = Citation(record.name, 0, "no rule for 127.0.0.11", "iptables-save inside")
    for number, line in enumerate(record.text.split("\n"), 1):
        if line.startswith("*"):
            table = line[1:]
        if table != "nat" or not line.startswith("-A "):
            continue
        if not line.startswith(_OURS):
            foreign = True
        elif line.startswith("-A OUTPUT "):
            jump = jump or "-j DOCKER_OUTPUT" in line
        elif line.startswith("-A DOCKER_OUTPUT ") and "--to-destination 127.0.0.11:" in line:
            port = line.rpartition("--to-destination 127.0.0.11:")[2].split(" ")[0]
            protocol = "udp" if " -p udp" in line else "tcp"
            if port.isdecimal() and " --dport 53 " in line:
                ports[protocol] = int(port)
                if protocol == "udp":
                    cited = Citation(record.name, number, line, f"nat DOCKER_OUTPUT inside, line {number}")
    return Inside(ports, jump, foreign, cited)
