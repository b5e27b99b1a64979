"""`doctor rules`: the firewall rules that Docker would write here, as input of iptables-restore or nft. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from doctor.engine.rules import native
from doctor.engine.rules.compare import lacking, surplus, whole
from doctor.examine import Facts
from doctor.exits import CLEAN, FOUND, INCOMPLETE
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.engine_rules import EngineRules
from doctor.facts.native_rules import NativeRules
from doctor.snapshot import EvidenceMissing

if TYPE_CHECKING:
    from doctor.engine.rules import Family
    from doctor.registry import Registry
    from doctor.snapshot import Snapshot


Wanted = Literal["expected", "missing", "extra"]
"""Which rules: all that the engine writes, those that are gone, or those that are too many."""


def rules(snapshot: Snapshot, registry: Registry, wanted: Wanted, family: Family) -> tuple[str, str, int]:
    """Give the rules, a line for stderr, and the exit code.

    0 when nothing is missing or extra, 1 when something is, 3 when evidence is: then nothing is printed but why.
    """
    facts = Facts(registry, snapshot)
    try:
        daemon: Daemon = facts.get(Daemon)
        found: EngineRules = facts.get(EngineRules)
        containers: Containers = facts.get(Containers)
    except EvidenceMissing as missing:
        return "", f"not known: {missing}", INCOMPLETE
    its = found.of(family)
    if its is None:
        if found.native:
            return _native(facts, daemon, snapshot, wanted, family)
        if found.off:
            return "", f"not known: {found.off}", INCOMPLETE
        return "", f"Docker {daemon.version} writes no rules of {'IPv6' if family == 'ip6' else 'IPv4'} here", CLEAN
    if wanted == "extra" and containers.unsettled:
        came = ", ".join(containers.unsettled[:3])
        return "", f"not known: containers came or went while rules were read: {came}; try again", INCOMPLETE
    said = (
        "" if found.live else f"Docker {daemon.version} was never compared: rules of {found.dialect}, the nearest known"
    )
    if wanted == "expected":
        lines = whole(its.expected)
    else:
        lines = lacking(its.difference) if wanted == "missing" else surplus(its.difference)
    head = f"# Docker {daemon.version} on {snapshot.meta.hostname}, for {its.program}-restore --noflush: "
    many = sum(line[:1] == "-" for line in lines.split("\n"))
    head += (
        f"{many} rules " + {"expected": "as it writes them", "missing": "that are gone", "extra": "too many"}[wanted]
    )
    return f"{head}\n{lines}", said, FOUND if lines and wanted != "expected" else CLEAN


def _native(facts: Facts, daemon: Daemon, snapshot: Snapshot, wanted: Wanted, family: Family) -> tuple[str, str, int]:
    """Print a table as input of nft, which puts it in the place of the one that is there: whole, if anything is missing."""
    if wanted == "extra":
        return (
            "",
            f"not known: {facts.get(EngineRules).off}, where nobody's rules can be told from the engine's",
            INCOMPLETE,
        )
    try:
        there: NativeRules = facts.get(NativeRules)
    except EvidenceMissing as missing:
        return "", f"not known: {missing}", INCOMPLETE
    table = next((one for one in there.tables if one.family == family), None)
    if table is None:
        return "", f"Docker {daemon.version} writes no rules of {'IPv6' if family == 'ip6' else 'IPv4'} here", CLEAN
    said = f"Docker {daemon.version} was never compared: tables as an engine 29 wrote them"
    head = f"# Docker {daemon.version} on {snapshot.meta.hostname}, for nft -f -: "
    if wanted == "missing" and table.whole:
        return f"{head}0 rules that are gone\n", said, CLEAN
    many = sum(len(chain.rules) for chain in table.expected.chains.values())
    what = "as it writes them" if wanted == "expected" else "in place of a table of which some are gone"
    text = f"{head}{many} rules {what}\n{native.whole(table.expected)}"
    return text, said, CLEAN if wanted == "expected" else FOUND
