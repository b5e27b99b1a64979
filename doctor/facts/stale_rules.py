"""Rules that name an interface which is gone and an address that a container has now: left over, or saved for boot."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from doctor.facts.containers import Containers
from doctor.facts.links import Links
from doctor.facts.networks import Networks
from doctor.facts.rules import Firewall, parse_save
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.facts.rules import Rule

SAVED = (
    ("ip", "/etc/iptables/rules.v4"),
    ("ip6", "/etc/iptables/rules.v6"),
    ("ip", "/etc/sysconfig/iptables"),
    ("ip6", "/etc/sysconfig/ip6tables"),
)
"""Where distributions keep what iptables-restore loads at boot: Debian's netfilter-persistent, Red Hat's iptables-services."""

_GONE = re.compile(r"! -[io] (?P<device>[^\s+]+)(?= |$)")
"""An interface that a packet must not come in or go out by: where it is gone, that holds of every packet."""

_MUST = re.compile(r"(?:^|[^!]) ?-[io] (?P<device>[^\s+]+)(?= |$)")
_ADDRESS = re.compile(r"(?:^| )-[sd] (?P<address>[0-9a-f.:]+)/(?:32|128)(?= |$)")


class StaleRule(Struct, frozen=True):
    """One such rule: in which table and chain, the interface that is gone, the address, and the container that has it.

    `path` is the file that it is saved in, empty for one that is in force; `cited` says where it stands.
    """

    family: str
    table: str
    chain: str
    text: str
    device: str
    address: str
    container: str
    path: str
    cited: Citation
    line: str = ""
    """The line of the file, as it stands there."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it has in common with the same rule elsewhere."""
        return (self.family, self.table, self.chain, self.text)


class StaleRules(Struct, frozen=True):
    """Those in force, and those that are loaded at the next boot."""

    live: tuple[StaleRule, ...]
    saved: tuple[StaleRule, ...]

    def holds(self, cited: Citation) -> bool:
        """Whether a rule in force is one of them."""
        return any(one.cited == cited for one in self.live)


@fact
def stale_rules(
    snapshot: Snapshot, firewall: Firewall, links: Links, networks: Networks, containers: Containers
) -> StaleRules:
    """Find rules that drop or reject what has an address of a running container because of an interface that is gone.

    A bridge that is missing though its network is there is not gone: that is another fault (NET009).
    """
    there = {*links.by_name, *(network.bridge for network in networks.all)}
    held = {
        text: one.name
        for one in containers.running
        for end in one.endpoints
        for text in (end.address, end.address6)
        if _is_address(text)
    }
    live, saved = [], []
    for tables in firewall.tables:
        for (table, _), chain in tables.chains.items():
            live += [found for rule in chain.rules for found in _stale(rule, tables.family, table, "", there, held)]
    for family, path in SAVED:
        record = snapshot.get("files" + path)
        if not record.readable:
            continue
        chains, _ = parse_save(record.text, record.name, f"{path}: ")
        lines = record.text.split("\n")
        for (table, _), chain in chains.items():
            mine = [found for rule in chain.rules for found in _stale(rule, family, table, path, there, held)]
            saved += [replace(one, line=lines[one.cited.line - 1]) for one in mine]
    return StaleRules(tuple(live), tuple(saved))


def _is_address(text: str) -> bool:
    """Whether a text is an address: what an engine says may be anything."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _stale(
    rule: Rule, family: str, table: str, path: str, there: set[str], held: dict[str, str]
) -> Iterator[StaleRule]:
    """Give the rule if it is one: what it must not come by is gone, and nothing that it must come by is."""
    if rule.target not in {"DROP", "REJECT"} or "! -" not in rule.text:
        return
    address = _ADDRESS.search(rule.text)
    if address is None or address["address"] not in held or "! -s" in rule.text or "! -d" in rule.text:
        return
    gone = [one["device"] for one in _GONE.finditer(rule.text) if one["device"] not in there]
    must = [one["device"] for one in _MUST.finditer(_GONE.sub("", rule.text))]
    if gone and all(device in there for device in must):
        name = held[address["address"]]
        yield StaleRule(family, table, rule.chain, rule.text, gone[0], address["address"], name, path, rule.cited)
