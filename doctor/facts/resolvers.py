"""The nameservers of the host: what /etc/resolv.conf says, and what systemd-resolved asks in its stead."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot

FILES = ("files/etc/resolv.conf", "files/run/systemd/resolve/resolv.conf")


class Nameserver(Struct, frozen=True):
    """One nameserver: its address without a zone, and the line that names it."""

    address: str
    cited: Citation


class Nameservers(Struct, frozen=True):
    """All that the host's files name, in their order; each address once."""

    all: tuple[Nameserver, ...]


@fact
def nameservers(snapshot: Snapshot) -> Nameservers:
    """Read resolv.conf(5) of the host; lines that hold no address are left out."""
    records = [snapshot.get(name) for name in FILES]
    readable = [record for record in records if record.readable]
    if not readable and records[0].status != "absent":
        raise EvidenceMissing("files", f"/etc/resolv.conf: {records[0].why or records[0].status}")
    found: dict[str, Nameserver] = {}
    for record in readable:
        for number, line in enumerate(record.text.split("\n"), 1):
            words = line.split()
            if len(words) < 2 or words[0] != "nameserver":  # noqa: PLR2004 - the word and its address
                continue
            try:
                address = str(ip_address(words[1].partition("%")[0]))
            except ValueError:
                continue
            place = f"{record.target}:{number}"
            found.setdefault(address, Nameserver(address, Citation(record.name, number, line.strip(), place)))
    return Nameservers(tuple(found.values()))
