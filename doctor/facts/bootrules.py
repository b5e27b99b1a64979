"""Lines of other firewalls' boot files that would flush everybody's rules: `flush ruleset` and its like."""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot

FILES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
_TABLE = re.compile(r"^\s*table\s+(\w+)\s+(\S+)\s*\{", re.MULTILINE)


class Flush(Struct, frozen=True):
    """A line that flushes all tables, and the line to have instead; `path` and `line` say where it stands."""

    path: str
    line: int
    text: str
    instead: str
    cited: Citation


class BootRules(Struct, frozen=True):
    """What boot files would flush."""

    flushes: tuple[Flush, ...]


@fact
def boot_rules(snapshot: Snapshot) -> BootRules:
    """Find `flush ruleset` in nftables.conf and say which tables of its own it could destroy instead (nft >= 1.0.7)."""
    found = []
    for path in FILES:
        record = snapshot.get("files" + path)
        if not record.readable:
            continue
        own = [f"{family} {name}" for family, name in _TABLE.findall(record.text)]
        for number, line in enumerate(record.text.split("\n"), 1):
            if line.split("#")[0].strip() != "flush ruleset":
                continue
            instead = "; ".join(f"destroy table {table}" for table in own) or "# flush ruleset"
            cited = Citation(record.name, number, line.strip(), f"{path}:{number}")
            found.append(Flush(path, number, line, instead, cited))
    return BootRules(tuple(found))
