"""What rules left over from another network do to packets: those in force, and those that the next boot would load.

A rule that is saved is put at the head of its chain, where iptables-restore has it before dockerd starts, and walked.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from doctor.facts.containers import Container, Containers
from doctor.facts.rules import Chain, Firewall, Rule, Tables
from doctor.facts.stale_rules import StaleRule, StaleRules
from doctor.packets.asked import NotKnown, host_address
from doctor.packets.build import SITE, host_program
from doctor.packets.flow import OUTSIDE, TCP, Flow
from doctor.packets.packet import Version, number
from doctor.packets.site import HOST, Site, Spaces
from doctor.packets.walk import CLIENT_PORT, STRANGERS, follow
from doctor.registry import fact
from doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.packets.site import Space

_TRIED = 4
"""Neighbours that are walked from, for each address."""

Kind = Literal["neighbour", "published", "egress", "host"]


class Lost(Struct, frozen=True):
    """A flow of a container that ends at a left-over rule: what it is, from whom (a neighbour's name, or a port)."""

    kind: Kind
    container: str
    peer: str


class Leftover(Struct, frozen=True):
    """The left-over rules about one container: what they stop, as it was walked; nothing where no packet meets them.

    `scope` is the network of the address.
    """

    container: Container
    scope: str
    rules: tuple[StaleRule, ...]
    lost: tuple[Lost, ...]


class Leftovers(Struct, frozen=True):
    """By container: what is in force, and what the next boot would load beside (those that stop nothing left out)."""

    live: tuple[Leftover, ...]
    saved: tuple[Leftover, ...]


@fact
def leftovers(
    snapshot: Snapshot, site: SITE, firewall: Firewall, stale: StaleRules, containers: Containers
) -> Leftovers:
    """Walk what they are about; nothing is walked where there are none."""
    live = _walked(site, stale.live, containers)
    known = {one.key for one in stale.live}
    new = tuple(one for one in stale.saved if one.key not in known)
    then = _walked(_with(snapshot, site, firewall, new), new, containers) if new else ()
    return Leftovers(live, tuple(one for one in then if one.lost))


def _walked(site: Site, rules: tuple[StaleRule, ...], containers: Containers) -> tuple[Leftover, ...]:
    by_name: dict[str, list[StaleRule]] = {}
    for rule in rules:
        by_name.setdefault(rule.container, []).append(rule)
    found = []
    for one in containers.running:
        mine = by_name.get(one.name, [])
        if not mine:
            continue
        texts = {(rule.table, rule.chain, rule.text) for rule in mine}
        lost = tuple(
            Lost(kind, one.name, peer)
            for kind, peer, flow in _flows(site, one, mine, containers)
            if _ends_at(site, flow, texts)
        )
        held = {rule.address for rule in mine}
        scope = next((end.network for end in one.endpoints if {end.address, end.address6} & held), "")
        found.append(Leftover(one, scope, tuple(mine), lost))
    return tuple(found)


def _ends_at(site: Site, flow: Flow, texts: set[tuple[str, str, str]]) -> bool:
    """Whether a flow ends at one of these rules."""
    result = follow(site, flow)
    step = result.walk.decider.step
    if result.works is not False or step is None or step.cited is None:
        return False
    words = step.cited.place.split(" ")
    return len(words) > 2 and (words[-3], words[-2], step.cited.excerpt) in texts  # noqa: PLR2004 - table, chain, number


def _flows(
    site: Site, one: Container, rules: list[StaleRule], containers: Containers
) -> Iterator[tuple[Kind, str, Flow]]:
    """Give what is promised of a container: its neighbours and this host reach it, its ports are reached, it gets out."""
    ports = [port for port in one.ports if port.protocol == "tcp"]
    port = ports[0].container if ports else CLIENT_PORT
    for address in dict.fromkeys(rule.address for rule in rules):
        version: Version = 6 if ":" in address else 4
        owner = site.owner(number(address), version)
        if owner is None:
            continue
        networks = {end.network_id for end in one.endpoints if address in {end.address, end.address6}}
        for other, its in _neighbours(one, networks, containers, version)[:_TRIED]:
            with contextlib.suppress(ValueError):  # what an engine says may be anything
                source = site.owner(number(its), version)
                if source is not None:
                    yield "neighbour", other.name, Flow(source.id, number(address), port, version, TCP)
        yield "host", "", Flow(HOST, number(address), port, version, TCP)
        yield "egress", "", Flow(owner.id, number(STRANGERS[version]), 443, version, TCP)
    with contextlib.suppress(NotKnown):
        for held in ports:
            if not held.host_ip.startswith("127.") and ":" not in held.host_ip:
                yield "published", str(held.host), Flow(OUTSIDE, number(host_address(site)), held.host, 4, TCP)


def _neighbours(
    one: Container, networks: set[str], containers: Containers, version: Version
) -> list[tuple[Container, str]]:
    found = []
    for other in containers.running:
        for end in other.endpoints if other.id != one.id else ():
            text = end.address if version == 4 else end.address6  # noqa: PLR2004 - IPv4
            if end.network_id in networks and text:
                found.append((other, text))
    return found


def _with(snapshot: Snapshot, site: Site, firewall: Firewall, rules: tuple[StaleRule, ...]) -> Site:
    """Give the site with rules at the heads of their chains, in the back end that holds most of that family."""
    tables = list(firewall.tables)
    for family in {rule.family for rule in rules}:
        mine = [one for one in tables if one.family == family and not one.unread]
        if mine:
            held = max(mine, key=lambda one: one.rules)
            tables[tables.index(held)] = _headed(held, [rule for rule in rules if rule.family == family])
    program = host_program(snapshot, replace(firewall, tables=tuple(tables)))
    host = replace(site.host, program=program)
    makers: dict[str, Callable[[], Space]] = {key: partial(site.spaces.__getitem__, key) for key in site.spaces}
    makers[HOST] = lambda: host
    return replace(site, spaces=Spaces(makers))


def _headed(tables: Tables, rules: list[StaleRule]) -> Tables:
    chains = dict(tables.chains)
    for one in reversed(rules):
        key = (one.table, one.chain)
        was = chains.get(key)
        target = "REJECT" if "-j REJECT" in one.text else "DROP"
        cited = replace(one.cited, place=f"{one.table} {one.chain} 1")
        rule = Rule(one.chain, 1, one.text, target, -1, cited)
        before = was.rules if was is not None else ()
        base = one.chain in {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
        policy = was.policy if was is not None else "ACCEPT" if base else ""
        chains[key] = Chain(one.table, one.chain, policy, -1, (rule, *before), cited if was is None else was.cited)
    return replace(tables, chains=chains)


LEFTOVERS = Leftovers
"""The type that the fact above gives: who asks for it has imported this module, and the fact is known."""
