"""What would become of a promise that is not kept if the engine's own rules stood as it wrote them.

A rule that is missing is a fault when it decides: so the promises that are broken are walked again, with what is missing
put back, and then with what is too much taken out. Nothing is walked where nothing differs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from doctor.facts.engine_rules import EngineRules, FamilyRules
from doctor.facts.rules import Chain, Firewall, Rule, Tables
from doctor.model import Citation
from doctor.packets.build import SITE, host_program
from doctor.packets.flow import OUTSIDE
from doctor.packets.packet import number
from doctor.packets.promises import PROMISES, Promises, Walked
from doctor.packets.site import HOST, Site, Spaces
from doctor.packets.walked import Ending
from doctor.registry import fact
from doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.engine.rules import Family
    from doctor.packets.site import Space

Flaw = Literal["", "broken", "open", "one-way", "unmasked", "proxied", "astray"]

_KEPT_OUT = frozenset({"apart", "inside", "direct"})


def flaw(one: Walked) -> Flaw:
    """Say what is wrong with a promise, empty when it is kept as it was meant.

    `open`: what is to be kept out arrives and is answered, `one-way`: it arrives, and no answer comes back; `unmasked`: it
    leaves by an address that nobody outside knows; `proxied`: a port answers, by docker-proxy alone; `astray`: another answers.
    """
    if one.settled and one.kind not in _KEPT_OUT:
        return ""
    walk = one.walk
    if one.kind in _KEPT_OUT:
        if not one.kept:
            return "open"
        inner = walk.end.space not in {HOST, OUTSIDE, ""}
        return "one-way" if inner and walk.end.outcome in {"delivered", "refused"} and not one.arrives else ""
    ends = walk.landed[1] if walk.landed is not None else None
    if one.kind == "egress" and one.masked and ends is not None and walk.landed and walk.landed[0] == OUTSIDE:
        mine = {number(text) for end in one.container.endpoints for text in (end.address, end.address6) if text}
        if ends.src in mine:
            return "unmasked"
    if not one.kept:
        return "broken"
    if one.kind == "published" and walk.proxied is not None:
        return "proxied"
    if one.kind == "published" and one.port is not None and ends is not None:
        mine = {number(text) for end in one.container.endpoints for text in (end.address, end.address6) if text}
        if ends.dst not in mine or ends.dport != one.port.container:
            return "astray"
    return ""


class Healed(Struct, frozen=True):
    """A promise, what is wrong with it, and what the engine's rules would make of it (`then`).

    `by` says what heals it: `missing` rules put back, `extra` ones taken out besides, or nothing of both (empty).
    """

    walked: Walked
    flaw: Flaw
    then: Flaw
    by: Literal["missing", "extra", ""]


class Restored(Struct, frozen=True):
    """The promises that have a flaw on a host whose rules differ from what the engine wrote."""

    all: tuple[Healed, ...]

    def of(self, family: Family) -> tuple[Healed, ...]:
        """Give those of a family."""
        version = 6 if family == "ip6" else 4
        return tuple(one for one in self.all if one.walked.version == version)


def _patched(its: FamilyRules, *, without: bool) -> Tables:
    """Give the tables of a family with what is missing put in, and what is too much taken out."""
    held: dict[tuple[str, str], list[Rule]] = {key: list(chain.rules) for key, chain in its.tables.chains.items()}
    for key in its.difference.chains:
        held.setdefault(key, [])
    if without:
        for extra in its.difference.extra:
            rules = held.get((extra.table, extra.chain), [])
            stale = next((rule for rule in rules if rule.text == extra.text), None)
            if stale is not None:
                rules.remove(stale)
    for one in its.difference.missing:
        place = Citation(its.tables.record, 0, one.text, f"{one.table} {one.chain}")
        target = one.text.rpartition("-j ")[2].partition(" ")[0]
        rules = held.setdefault((one.table, one.chain), [])
        rule = Rule(one.chain, 0, one.text, target, -1, place)
        rules.insert(one.number - 1 if one.number else len(rules), rule)
    chains = {}
    for (table, name), rules in held.items():
        was = its.tables.chains.get((table, name))
        policy = was.policy if was is not None else ("" if (table, name) in its.expected.own else "ACCEPT")
        cited = was.cited if was is not None else Citation(its.tables.record, 0, f":{name}", f"{table} {name}")
        chains[table, name] = Chain(table, name, policy, -1, tuple(rules), cited)
    return replace(its.tables, chains=chains)


def _site(snapshot: Snapshot, site: Site, firewall: Firewall, rules: EngineRules, *, without: bool) -> Site:
    """Give the site with the engine's rules as it wrote them."""
    by_record = {its.tables.record: _patched(its, without=without) for its in rules.families}
    tables = tuple(by_record.get(one.record, one) for one in firewall.tables)
    program = host_program(snapshot, replace(firewall, tables=tables))
    host = replace(site.host, program=program)
    makers: dict[str, Callable[[], Space]] = {key: partial(site.spaces.__getitem__, key) for key in site.spaces}
    makers[HOST] = lambda: host
    return replace(site, spaces=Spaces(makers))


@fact
def restored(snapshot: Snapshot, site: SITE, firewall: Firewall, promises: PROMISES, rules: EngineRules) -> Restored:
    """Walk again what has a flaw."""
    differs = [its for its in rules.families if its.difference.missing or its.difference.extra]
    if not differs:
        return Restored(())
    flawed = [(one, its) for one in promises.all if (its := flaw(one))]
    if not flawed:
        return Restored(())
    worlds: list[tuple[Literal["missing", "extra"], Site]] = []
    if any(its.difference.missing for its in differs):
        worlds.append(("missing", _site(snapshot, site, firewall, rules, without=False)))
    if any(one.text for its in differs for one in its.difference.extra):
        worlds.append(("extra", _site(snapshot, site, firewall, rules, without=True)))
    return Restored(tuple(_healed(one, its, worlds) for one, its in flawed))


def _healed(one: Walked, now: Flaw, worlds: list[tuple[Literal["missing", "extra"], Site]]) -> Healed:
    then = now
    for by, site in worlds:
        then = flaw(replace(one, ending=Ending(site, one.flow)))
        if then not in {now, "broken"}:
            return Healed(one, now, then, by)
    return Healed(one, now, then, "")


RESTORED = Restored
"""The type that the fact above gives: who asks for it has imported this module, and the fact is known."""

__all__ = ["RESTORED", "Flaw", "Healed", "Promises", "Restored", "flaw", "restored"]
