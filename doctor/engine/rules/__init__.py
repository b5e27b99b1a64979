"""The firewall rules that an engine writes, by its generation: a pure function of what the engine was told.

A dialect is one row of `DIALECTS`. `write` gives the chains of one family as a sequence of the engine's own commands leaves
them, so that order is right too. Where the order of two networks or containers is not known (after a restart the engine
takes them as its map gives them), any order means the same to a packet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from msgspec import Struct

from doctor.engine.rules import classic, forward
from doctor.engine.rules.ruleset import Ruleset, Written
from doctor.engine.rules.site import Binding, Bridge, Endpoint, Family, Link, Site

__all__ = [
    "DIALECTS",
    "OWNED",
    "Binding",
    "Bridge",
    "Dialect",
    "Endpoint",
    "Family",
    "Link",
    "Ruleset",
    "Site",
    "Written",
    "dialect",
]

_28 = forward.Variant(forward="FORWARD", returns=True, per_port=True, skips="routed")
_28_0_1 = forward.Variant(returns=True, per_port=True, skips="routed")
_28_0_2 = forward.Variant(returns=True, per_port=True)
_28_2 = forward.Variant()
_29 = forward.Variant(isolating=False, skips="none")


class Dialect(Struct, frozen=True):
    """The rules of some releases: `since` the first of them, `live`: releases (major, minor) that they were compared with."""

    name: str
    since: tuple[int, int, int]
    write: Callable[[Site, Family], Ruleset]
    chains: tuple[tuple[str, str], ...]
    live: frozenset[tuple[int, int]] = frozenset()


DIALECTS = (
    Dialect(
        "20.10",
        (0, 0, 0),
        lambda site, family: classic.write(site, family, first=True),
        classic.CHAINS,
        frozenset({(20, 10)}),
    ),
    Dialect("26", (23, 0, 0), classic.write, classic.CHAINS, frozenset({(25, 0), (26, 0), (26, 1)})),
    Dialect("28.0.0", (28, 0, 0), lambda site, family: forward.write(site, family, _28), forward.chains(_28)),
    Dialect("28.0.1", (28, 0, 1), lambda site, family: forward.write(site, family, _28_0_1), forward.chains(_28_0_1)),
    Dialect("28.0.2", (28, 0, 2), lambda site, family: forward.write(site, family, _28_0_2), forward.chains(_28_0_2)),
    Dialect(
        "28.2",
        (28, 2, 0),
        lambda site, family: forward.write(site, family, _28_2),
        forward.chains(_28_2),
        frozenset({(28, 2), (28, 3), (28, 4), (28, 5)}),
    ),
    Dialect("29", (29, 0, 0), lambda site, family: forward.write(site, family, _29), forward.chains(_29)),
)
"""By release, ascending. 25 and 28.2 to 28.4 have the very text of a release that was compared."""

OWNED = frozenset(chain for one in DIALECTS for chain in one.chains) - {("filter", "DOCKER-USER")} | {
    ("filter", "DOCKER-ISOLATION")
}
"""Chains that only an engine writes to, of all generations."""


@lru_cache(64)
def version(text: str) -> tuple[int, int, int]:
    """Read `28.5.2`; (0, 0, 0) when it is none."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)


def dialect(text: str) -> tuple[Dialect, bool]:
    """Give the dialect of a release (`28.5.2`), and whether it was compared with a live engine of that release."""
    wanted = version(text)
    found = [one for one in DIALECTS if one.since <= wanted][-1]
    return found, wanted[:2] in found.live
