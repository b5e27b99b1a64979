r"""The firewall of the host: what `iptables-save` prints of each back end, and the tables of nft.

Sample, as `iptables-nft-save -c` prints it::

    *nat
    :POSTROUTING ACCEPT [2:80]
    :DOCKER - [0:0]
    [5:300] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    COMMIT
"""

from __future__ import annotations

import shlex

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

BACKENDS = ("nft", "legacy")


class Rule(Struct, frozen=True):
    """One rule of a chain.

    `text` is as saved, without counter and chain; `target` is what it jumps or goes to; `number` counts in its chain from
    1; `packets` is its counter, -1 when none was printed.
    """

    chain: str
    number: int
    text: str
    target: str
    packets: int
    cited: Citation


class Chain(Struct, frozen=True):
    """One chain; `policy` is empty for a user-defined one, `packets` counts what met the policy (-1: not printed)."""

    table: str
    name: str
    policy: str
    packets: int
    rules: tuple[Rule, ...]
    cited: Citation


class Tables(Struct, frozen=True):
    """The tables of one family and back end: (table, chain) → chain. `record` names the evidence, `unread` why not."""

    family: str
    backend: str
    record: str
    chains: dict[tuple[str, str], Chain]
    unread: str
    damage: str = ""

    def chain(self, table: str, name: str) -> Chain | None:
        """Give a chain, None when there is none of that name."""
        return self.chains.get((table, name))

    @property
    def rules(self) -> int:
        """How many rules there are in all."""
        return sum(len(chain.rules) for chain in self.chains.values())


class Firewall(Struct, frozen=True):
    """Every family and back end; `nft_tables` are the native tables, as `family name`."""

    tables: tuple[Tables, ...]
    nft_tables: tuple[str, ...]

    def of(self, family: str) -> tuple[Tables, ...]:
        """Give the tables of `ip` or `ip6`, of every back end that could be read."""
        return tuple(one for one in self.tables if one.family == family and not one.unread)

    def chains(self, family: str, table: str, name: str) -> tuple[Chain, ...]:
        """Give the chains of that name in every back end."""
        return tuple(found for one in self.of(family) if (found := one.chain(table, name)) is not None)


def _target(text: str) -> str:
    words = shlex.split(text) if '"' in text else text.split(" ")
    before = ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word in {"-j", "-g"} and before != "--comment":
            return after
        before = word
    return ""


def parse_save(text: str, record: str, label: str = "") -> tuple[dict[tuple[str, str], Chain], str]:
    """Read the text of a saver. Gives the chains, and what of it could not be read (empty: all of it could)."""
    policies: dict[tuple[str, str], tuple[str, int, int]] = {}
    rules: dict[tuple[str, str], list[Rule]] = {}
    table = ""
    damage = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        if line[0] == "*":
            damage = damage or (f"table {table} has no COMMIT" if table else "")
            table = line[1:]
        elif line == "COMMIT":
            table = ""
        elif line[0] == ":" and table:
            name, _, rest = line[1:].partition(" ")
            policy, _, counted = rest.partition(" ")
            packets = counted.strip("[]").partition(":")[0]
            met = int(packets) if packets.isdecimal() else -1
            policies[table, name] = ("" if policy == "-" else policy, met, number)
            rules[table, name] = []
        else:
            rule = _rule(line, table, record, number, label, rules)
            if rule is not None:
                rules.setdefault((table, rule.chain), []).append(rule)
            elif not damage:
                damage = f"line {number}: {line[:80]}"
    if table and not damage:
        damage = f"table {table} has no COMMIT"
    chains = {}
    for (held, name), its in rules.items():
        policy, met, line_number = policies.get((held, name), ("", -1, 0))
        excerpt = f":{name} {policy or '-'}" + (f" [{met} packets]" if met >= 0 and policy else "")
        place = f"{label}{held} {name}"
        chains[held, name] = Chain(held, name, policy, met, tuple(its), Citation(record, line_number, excerpt, place))
    return chains, damage


def _rule(
    line: str, table: str, record: str, number: int, label: str, rules: dict[tuple[str, str], list[Rule]]
) -> Rule | None:
    packets = -1
    if line[0] == "[":
        counted, _, line = line.partition("] ")
        text = counted[1:].partition(":")[0]
        packets = int(text) if text.isdecimal() else -1
    if not line.startswith("-A ") or not table:
        return None
    chain, _, text = line[3:].partition(" ")
    try:
        target = _target(text)
    except ValueError:
        return None
    place = len(rules.get((table, chain), ())) + 1
    return Rule(chain, place, text, target, packets, Citation(record, number, text, f"{label}{table} {chain} {place}"))


@fact
def firewall(snapshot: Snapshot) -> Firewall:
    """Read all four savers and the names of nft's tables. A saver that is not installed leaves its back end unread.

    Where a saver may not be run or failed, and no other back end holds a chain, nothing is known of the firewall.
    """
    found = []
    for family, program in (("ip", "iptables"), ("ip6", "ip6tables")):
        for backend in BACKENDS:
            record = snapshot.get(f"net/{program}-{backend}")
            found.append(_tables(record, family, backend))
    v4 = [one for one in found if one.family == "ip"]
    records = [snapshot.get(one.record) for one in v4]
    hidden = next((one for one in records if one.status in {"denied", "timeout", "failed"}), None)
    if all(one.unread for one in v4) or (hidden is not None and not any(one.chains for one in v4)):
        record = hidden or records[0]
        if record.status == "denied" and "may not be run" not in record.why:
            raise EvidenceMissing("firewall", "iptables-save and nft need root")
        raise EvidenceMissing("firewall", record.why or record.status)
    return Firewall(tuple(found), _nft_tables(snapshot.get("net/nft")))


def _tables(record: Record, family: str, backend: str) -> Tables:
    if record.status == "not-run" and "kernel module" in record.why:
        return Tables(family, backend, record.name, {}, "")  # no module, no rules: known to be empty
    if not record.readable:
        return Tables(family, backend, record.name, {}, record.why or record.status)
    label = ("" if family == "ip" else "ip6tables ") + ("legacy " if backend == "legacy" else "")
    chains, damage = parse_save(record.text, record.name, label)
    return Tables(family, backend, record.name, chains, "", damage)


class _Table(Struct):
    family: str = ""
    name: str = ""


class _Entry(Struct):
    table: _Table | None = None


class _Ruleset(Struct):
    nftables: list[_Entry] = msgspec.field(default_factory=list)


def _nft_tables(record: Record) -> tuple[str, ...]:
    """Give the tables that are not iptables-nft's own (those are read through the savers)."""
    try:
        listed = msgspec.json.decode(record.data, type=_Ruleset)
    except UNDECODABLE:
        return ()
    own = {"filter", "nat", "mangle", "raw", "security"}
    names = [one.table for one in listed.nftables if one.table is not None]
    return tuple(f"{one.family} {one.name}" for one in names if not (one.family in {"ip", "ip6"} and one.name in own))
