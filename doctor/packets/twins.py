"""Namespaces whose evidence is the same but for their own addresses: what was read of one holds for all of them.

To make rules, routes and listeners of a namespace costs half a millisecond, and a host has hundreds that differ in an
address. Texts are compared instead, with the addresses and the ports of Docker's embedded DNS left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from doctor.facts.links import Namespace
    from doctor.snapshot import Snapshot

_CHANCE = re.compile(rb"127\.0\.0\.11:\d+|sport \d+|\[\d+:\d+\]|packets \d+ bytes \d+|# handle \d+")
"""What differs from one namespace to the next in what the engine writes there: ports of its DNS, counters, handles.

Each begins with a letter of its own, not with what looks behind: such beginnings are looked for fast.
"""

_RULES = ("iptables", "ip6tables", "nft")


def twins(snapshot: Snapshot, namespaces: Mapping[str, Namespace]) -> dict[str, str]:
    """Give for each namespace the first one that is the same; itself where there is none."""
    firsts: dict[Hashable, str] = {}
    return {inode: firsts.setdefault(_text(snapshot, held), inode) for inode, held in namespaces.items()}


def _text(snapshot: Snapshot, held: Namespace) -> Hashable:
    """Give what was read of a namespace, without what is its own."""
    neighbours = snapshot.get(f"netns/{held.inode}/neighbours").data
    if held.missing or b"PERMANENT" in neighbours or b"NOARP" in neighbours:
        return held.inode
    routes, rules = (snapshot.get(f"netns/{held.inode}/{word}") for word in ("routes", "rules"))
    ways = routes.data
    links = []
    count = 0
    for link in held.links:
        lengths = []
        for address in link.addresses if link.name != "lo" else ():
            mine, _, length = address.partition("/")
            ways = ways.replace(f'"{mine}"'.encode(), b'"own %d"' % count)
            lengths.append((":" in mine, mine.startswith("fe80"), length))
            count += 1
        links.append((link.name, link.kind, link.up, link.doubt, link.doubt_in, tuple(lengths or link.addresses)))
    records = (snapshot.get(f"netns/{held.inode}/{word}") for word in _RULES)
    inner = tuple((one.status, one.why, _CHANCE.sub(b"?", one.data) if one.data else b"") for one in records)
    whole = (routes.status, ways, rules.status, rules.why, rules.data, len(neighbours) > len(b"[\n]\n"))
    return (tuple(links), whole, inner)
