"""What of an engine's rules is missing from a firewall, at which place it belongs, and what is there beyond them.

Also the printing of it as input of `iptables-restore --noflush`, which leaves alone whatever it does not name.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from msgspec import Struct

from doctor.engine.rules import OWNED, Ruleset, Written

Chains = Mapping[tuple[str, str], tuple[str, ...]]
"""(table, chain) → the rules that are there, in the spelling of iptables-save, without their chain."""

TABLES = ("filter", "nat", "raw", "mangle")
USERS = ("filter", "DOCKER-USER")
"""The chain that is the user's: an engine makes it, and ends it in a RETURN until 28.1."""


class Missing(Struct, frozen=True):
    """A rule to be put in: at place `number` of its chain as it is then, counted from 1; 0: at its end."""

    table: str
    chain: str
    number: int
    text: str


class Extra(Struct, frozen=True):
    """A rule that the engine would not write, in a chain of its own or in its manner; `text` empty: a whole chain."""

    table: str
    chain: str
    text: str


class Difference(Struct, frozen=True):
    """What lacks (chains to be made, rules to be put in) and what is too much."""

    chains: tuple[tuple[str, str], ...]
    missing: tuple[Missing, ...]
    extra: tuple[Extra, ...]

    def lacking(self, table: str, chain: str) -> tuple[str, ...]:
        """Give the rules that lack in a chain."""
        return tuple(one.text for one in self.missing if (one.table, one.chain) == (table, chain))


def compare(expected: Ruleset, there: Chains, links: frozenset[str]) -> Difference:
    """Compare what an engine would have written with what is there; `links` are the bridges that the engine knows."""
    missing: list[Missing] = []
    for (table, chain), rules in expected.chains.items():
        held = there.get((table, chain), ())
        if (table, chain) == USERS and held:
            continue
        missing += _missing(table, chain, rules, held)
    chains = tuple(chain for chain in expected.own if chain not in there)
    return Difference(chains, tuple(missing), tuple(_extra(expected, there, links)))


def _missing(table: str, chain: str, rules: tuple[Written, ...], held: tuple[str, ...]) -> Iterable[Missing]:
    """Put each rule that lacks behind the one that precedes it, or before the one that follows it.

    Where neither is there, it goes where the engine's own command would put it.
    """
    place: dict[str, int] = {}
    for index, text in enumerate(held):
        place.setdefault(text, index)
    kept = _rising([place[one.text] for one in rules if one.text in place])
    size = len(held)
    added = 0
    cursor = 0
    anchored = False
    later = sorted(kept)
    for one in rules:
        found = place.get(one.text)
        if found is not None:
            if found in kept:
                cursor = found + added + 1
                anchored = True
                later.pop(0)
            continue
        if anchored:
            at = cursor
        elif later:
            at = later[0] + added
        else:
            at = 0 if one.top else size
        yield Missing(table, chain, 0 if at == size else at + 1, one.text)
        added += 1
        size += 1
        cursor = at + 1
        anchored = True


def _rising(places: list[int]) -> set[int]:
    """Give the longest part of a sequence that rises."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(places):
        at = bisect_left(tails, value)
        before.append(ends[at - 1] if at else -1)
        if at == len(tails):
            tails.append(value)
            ends.append(index)
        else:
            tails[at] = value
            ends[at] = index
    rising = set()
    index = ends[-1] if ends else -1
    while index >= 0:
        rising.add(places[index])
        index = before[index]
    return rising


_NETWORK = re.compile(r"-[io] (br-[0-9a-f]{12})\b")
_TARGET = re.compile(r"-[jg] (\S+)$")
_SHAPES = {
    ("nat", "POSTROUTING"): re.compile(r"-s (\S+)/(?:32|128) -d \1/(?:32|128) -p \w+ -m \w+ --dport \d+ -j MASQUERADE"),
    ("raw", "PREROUTING"): re.compile(r"-d \S+/(?:32|128) ! -i (?:docker0|br-[0-9a-f]{12}) (?:-p .*)?-j DROP"),
}
"""How an engine's rules in chains of the kernel look, where they name no bridge of their own."""

FOREIGN = ("DOCKER-INGRESS", "docker_gwbridge")
"""Words of the rules of swarm mode, which are not known here."""


def _extra(expected: Ruleset, there: Chains, links: frozenset[str]) -> Iterable[Extra]:
    gone = {name for table, name in there if (table, name) in OWNED and (table, name) not in expected.own}
    for (table, chain), held in there.items():
        wanted = {one.text for one in expected.chains.get((table, chain), ())}
        owned = (table, chain) in OWNED
        seen: set[str] = set()
        for text in held:
            known = text in wanted and text not in seen
            seen.add(text)
            if known or any(word in text for word in FOREIGN) or (table, chain) == USERS:
                continue
            if owned or text in wanted or _engines(table, chain, text, links, gone):
                yield Extra(table, chain, text)
    for table, name in there:
        if (table, name) in OWNED and (table, name) not in expected.own:
            yield Extra(table, name, "")


def _engines(table: str, chain: str, text: str, links: frozenset[str], gone: set[str]) -> bool:
    """Whether a rule in a chain of the kernel is one of an engine's: it jumps to its chains, or is of its manner."""
    target = _TARGET.search(text)
    if target is not None and (target[1] in gone or (table, target[1]) in OWNED):
        return True
    if any(name not in links for name in _NETWORK.findall(text)):
        return True
    shape = _SHAPES.get((table, chain))
    return shape is not None and shape.fullmatch(text) is not None


def whole(expected: Ruleset) -> str:
    """Print all of an engine's rules as input of iptables-restore."""
    lines: list[str] = []
    for table in TABLES:
        chains = [name for held, name in expected.own if held == table]
        rules = [
            f"-A {name} {one.text}" for (held, name), them in expected.chains.items() if held == table for one in them
        ]
        _table(lines, table, [f":{name} - [0:0]" for name in sorted(chains)], rules)
    return "".join(f"{line}\n" for line in lines)


def lacking(difference: Difference) -> str:
    """Print what is missing as input of iptables-restore --noflush; empty when nothing is."""
    lines: list[str] = []
    for table in TABLES:
        chains = [f":{name} - [0:0]" for held, name in difference.chains if held == table]
        rules = [
            f"-I {one.chain} {one.number} {one.text}" if one.number else f"-A {one.chain} {one.text}"
            for one in difference.missing
            if one.table == table
        ]
        _table(lines, table, chains, rules)
    return "".join(f"{line}\n" for line in lines)


def surplus(difference: Difference) -> str:
    """Print what takes away the rules that are too much, as input of iptables-restore --noflush; empty: none are."""
    lines: list[str] = []
    for table in TABLES:
        extra = [one for one in difference.extra if one.table == table]
        rules = [f"-D {one.chain} {one.text}" for one in extra if one.text]
        _table(lines, table, [], [*rules, *(f"-X {one.chain}" for one in extra if not one.text)])
    return "".join(f"{line}\n" for line in lines)


def _table(lines: list[str], table: str, chains: list[str], rules: list[str]) -> None:
    if chains or rules:
        lines += [f"*{table}", *chains, *rules, "COMMIT"]
