"""NET021 where the engine writes tables of nftables itself (29, firewall-backend nftables)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.checks._flushed import open_networks, still_answering
from doctor.checks.bridges import attached
from doctor.facts.native_rules import RECORD, NativeRules, NativeTable
from doctor.model import Citation, Command, Edit, Effect, Excluded, Finding, Remedy, Unknown, Yield

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.facts.bootrules import BootRules
    from doctor.facts.config import Options
    from doctor.facts.containers import Containers
    from doctor.facts.lifecycle import Lifecycle
    from doctor.facts.networks import Networks
    from doctor.model import Since
    from doctor.packets.promises import Promises

NAMED = 3
"""Chains that are named; of more their number is told."""


def native_tables(
    native: NativeRules | None,
    networks: Networks,
    containers: Containers,
    options: Options,
    boot: BootRules,
    lifecycle: Lifecycle,
    since: Since | None,
    promises: Promises | None,
) -> Iterator[Yield]:
    """Find what was flushed of the engine's own tables."""
    if native is None or native.unknown:
        yield Unknown("firewall", native.unknown if native else "what the engine would write is not known")
        return
    lacking = native.lacking
    if not lacking:
        return
    flushed = [one for one in lacking if one.chains is None or len(one.gone) == len(one.expected.chains)]
    first = lacking[0]
    evidence = [Citation(RECORD, 0, _there(one), f"nft list table {one.name}") for one in lacking]
    evidence += [one.cited for one in boot.flushes[:1]]
    yield Finding(
        subject="nftables",
        title="Docker's firewall rules were flushed"
        if flushed
        else f"{_chains(first)} of table {first.name} {_state(first)}",
        message="dockerd runs with firewall-backend=nftables, yet " + "; ".join(_there(one) for one in lacking),
        evidence=tuple(evidence),
        remedy=_cure(lacking, boot, lifecycle),
        hits=tuple(_hits(lacking, networks, containers, promises)),
        works=still_answering(options, containers, promises) if _touches(lacking, "nat-prerouting") else (),
        excluded=(Excluded("NET017", "the engine's rules are not switched off"),),
        since=since,
    )


def _there(one: NativeTable) -> str:
    total = len(one.expected.chains)
    if one.chains is None:
        return f"table {one.name} does not exist"
    said = f"{total - len(one.gone)} of the {total} chains of table {one.name} exist"
    return said + (f", and {', '.join(one.emptied[:NAMED])} without a rule" if one.emptied else "")


def _chains(one: NativeTable) -> str:
    names = one.gone or one.emptied
    return f"chain {names[0]}" if len(names) == 1 else f"{len(names)} chains"


def _state(one: NativeTable) -> str:
    many = len(one.gone or one.emptied) > 1
    return ("are gone" if many else "is gone") if one.gone else ("are empty" if many else "is empty")


def _cure(lacking: tuple[NativeTable, ...], boot: BootRules, lifecycle: Lifecycle) -> Remedy:
    """Write the tables anew: nft does so in one step, and connections go on, since conntrack has them."""
    commands = tuple(
        Command(("sh", "-c", f"doctor rules --missing{' --ipv6' if one.family == 'ip6' else ''} | nft -f -"))
        for one in lacking
    )
    remedy = Remedy(
        "put back the tables that Docker had written",
        commands,
        notes=(
            "what others put into these tables does not come back",
            "this release was never compared: its tables are taken to be those of an engine 29",
            *lifecycle.also(),
        ),
    )
    if boot.flushes:
        line = boot.flushes[0]
        remedy = replace(remedy, for_good=(Edit(line.path, line.line, line.text, line.instead),))
    return remedy


def _touches(lacking: tuple[NativeTable, ...], begin: str) -> bool:
    """Whether chains of that begin are gone or empty, of IPv4, which every network has."""
    return any(name.startswith(begin) for one in lacking if one.family == "ip" for name in (*one.gone, *one.emptied))


def _hits(
    lacking: tuple[NativeTable, ...], networks: Networks, containers: Containers, promises: Promises | None
) -> Iterator[Effect]:
    outward = [one for network in networks.all if not network.internal for one in attached(network, containers)]
    names = tuple(dict.fromkeys(one.name for one in outward))
    if names and _touches(lacking, "nat-postrouting"):
        if len(names) == 1:
            yield Effect(f"{names[0]} would reach nothing outside (its address is not masked)")
        else:
            yield Effect(f"{len(names)} containers would reach nothing outside (their address is not masked)", names)
    if _touches(lacking, "filter-FORWARD"):
        yield from open_networks(networks, containers, promises)
