"""The tables that an engine with firewall-backend nftables writes, beside those that are there.

Compared by chains and by how many rules stand in each: `nft -j` spells rules as expressions, the engine as text. What a
rule that is there does to packets is the walk's to say.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.engine.rules.native import TABLE, Native
from doctor.facts import UNDECODABLE
from doctor.facts.engine_rules import EngineRules
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot

if TYPE_CHECKING:
    from doctor.engine.rules import Family

RECORD = "net/nft"


class NativeTable(Struct, frozen=True):
    """One family: the table as the engine writes it, and how many rules each chain has that is there (None: no table)."""

    expected: Native
    chains: dict[str, int] | None

    @property
    def family(self) -> Family:
        """The family of the table."""
        return self.expected.family

    @property
    def name(self) -> str:
        """The table as nft names it: `ip docker-bridges`."""
        return f"{self.family} {self.expected.name}"

    @property
    def gone(self) -> tuple[str, ...]:
        """The engine's chains that are not there."""
        return tuple(name for name in self.expected.chains if name not in (self.chains or {}))

    @property
    def emptied(self) -> tuple[str, ...]:
        """Its chains that are there without the rules that belong in them: with none at all."""
        held = self.chains or {}
        return tuple(name for name, one in self.expected.chains.items() if one.rules and held.get(name) == 0)

    @property
    def whole(self) -> bool:
        """Whether nothing is gone or emptied."""
        return not self.gone and not self.emptied


class NativeRules(Struct, frozen=True):
    """The tables by family; none where the engine writes none. `unknown` says why what it writes is not known."""

    tables: tuple[NativeTable, ...]
    unknown: str = ""

    @property
    def lacking(self) -> tuple[NativeTable, ...]:
        """The tables of which something is missing."""
        return tuple(one for one in self.tables if not one.whole)


class _Chain(Struct):
    family: str = ""
    table: str = ""
    name: str = ""


class _Rule(Struct):
    family: str = ""
    table: str = ""
    chain: str = ""


class _Entry(Struct):
    chain: _Chain | None = None
    rule: _Rule | None = None


class _Listing(Struct):
    nftables: list[_Entry] = msgspec.field(default_factory=list)


@fact
def native_rules(snapshot: Snapshot, rules: EngineRules) -> NativeRules:
    """Read which chains of the engine's tables are there. Raises EvidenceMissing without nft's listing."""
    if not rules.native:
        return NativeRules((), "a container could not be inspected")
    record = snapshot.get(RECORD)
    if not record.readable:
        raise EvidenceMissing("firewall", f"{RECORD}: {record.why or record.status}")
    try:
        listed = msgspec.json.decode(record.data, type=_Listing).nftables
    except UNDECODABLE as error:
        raise EvidenceMissing("firewall", f"{RECORD}: {error}") from error
    counts = Counter((one.rule.family, one.rule.chain) for one in listed if one.rule and one.rule.table == TABLE)
    found: dict[str, dict[str, int]] = {}
    for chain in (one.chain for one in listed if one.chain and one.chain.table == TABLE):
        found.setdefault(chain.family, {})[chain.name] = counts[chain.family, chain.name]
    return NativeRules(tuple(NativeTable(one, found.get(one.family)) for one in rules.native))
