"""What the networks of a host promise, asked of the model: the fact that the checks of packets share."""

from __future__ import annotations

from doctor.facts.containers import Containers
from doctor.facts.engine_rules import EngineRules
from doctor.facts.links import Namespaces
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.packets.build import SITE
from doctor.packets.promising import Asker
from doctor.packets.seats import Seats
from doctor.packets.walked import NATIVE, Promises, Walked
from doctor.registry import fact


@fact
def promises(
    site: SITE,
    networks: Networks,
    containers: Containers,
    processes: Processes,
    namespaces: Namespaces,
    rules: EngineRules | None,
) -> Promises:
    """Judge what is promised; none of it where the rules of the host could not be read."""
    written = frozenset(
        rule.text
        for its in (rules.families if rules is not None else ())
        for held in its.expected.chains.values()
        for rule in held
    )
    if site.host.missing:
        return Promises((), 0, written, site.host.missing)
    seats = Seats(site, networks, containers, processes, namespaces.by_inode)
    asker = Asker(site, seats, rules, written)
    asker.ask()
    return Promises(tuple(asker.found), asker.unwalked, written)


PROMISES = Promises
"""The type that the fact above gives: who asks for it has imported this module, and the fact is known."""

__all__ = ["NATIVE", "PROMISES", "Promises", "Walked", "promises"]
