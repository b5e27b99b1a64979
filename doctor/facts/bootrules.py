"""Lines of other firewalls' boot files: what would flush everybody's rules, and ufw's policy for what is forwarded."""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot

FILES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
UFW_CONFIG, UFW_DEFAULTS = "/etc/ufw/ufw.conf", "/etc/default/ufw"
_ENABLED = re.compile(r"^\s*ENABLED=['\"]?yes", re.MULTILINE | re.IGNORECASE)
_FORWARD = re.compile(r"^\s*DEFAULT_FORWARD_POLICY=['\"]?(?:DROP|REJECT)", re.IGNORECASE)
_TABLE = re.compile(r"^\s*table\s+(\w+)\s+(\S+)\s*\{", re.MULTILINE)


class Flush(Struct, frozen=True):
    """A line that flushes all tables, and the line to have instead; `path` and `line` say where it stands."""

    path: str
    line: int
    text: str
    instead: str
    cited: Citation


class BootRules(Struct, frozen=True):
    """What boot files would flush; and where ufw is told what to do with what is forwarded, unless that is to accept."""

    flushes: tuple[Flush, ...]
    ufw_forward: Citation | None = None


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
    return BootRules(tuple(found), _ufw(snapshot))


def _ufw(snapshot: Snapshot) -> Citation | None:
    """Cite ufw's policy for forwarded packets, where it is enabled and the policy is to drop or reject."""
    config, defaults = snapshot.get(f"files{UFW_CONFIG}"), snapshot.get(f"files{UFW_DEFAULTS}")
    if not config.readable or not defaults.readable or not _ENABLED.search(config.text):
        return None
    for number, line in enumerate(defaults.text.split("\n"), 1):
        match = _FORWARD.match(line)
        if match is not None:
            return Citation(defaults.name, number, line.strip(), f"{UFW_DEFAULTS}:{number}")
    return None
