"""Why pairs do not reach each other: each reason once, with a letter, the rules that stand for it and how many flows."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.model import Citation, ReachReason

if TYPE_CHECKING:
    from doctor.packets.pairs import Judgement

MEANT = {"RAW_DIRECT_ACCESS", "RAW_REMOTE_LOOPBACK", "ISOLATION", "INTERNAL_NET", "UNPUBLISHED_PORT", "ICC_DISABLED"}
"""Codes of rules that an engine writes to keep packets out."""

DESIGN = {
    "RAW_DIRECT_ACCESS": "another network, by design",
    "ISOLATION": "another network, by design",
    "UNPUBLISHED_PORT": "another network, by design",
    "RAW_REMOTE_LOOPBACK": "for this host alone, by design",
    "INTERNAL_NET": "the network is internal, by design",
    "SRC_NO_ROUTE": "the network is internal, by design",
    "ICC_DISABLED": "icc of the network is off, by design",
}
WHY = {
    "RAW_DIRECT_ACCESS": "a rule drops what comes by another way than its bridge",
    "RAW_REMOTE_LOOPBACK": "the port is for this host alone",
    "ISOLATION": "networks are isolated from each other",
    "INTERNAL_NET": "the network is internal",
    "UNPUBLISHED_PORT": "what is not published is dropped",
    "ICC_DISABLED": "a rule drops what containers of one network send each other",
    "DOCKER_USER_DROP": "a rule of DOCKER-USER stops it",
    "FORWARD_POLICY": "no rule takes it, and the policy is drop",
    "FORWARD_RULE": "a rule stops it",
    "OTHER_BASE_CHAIN": "a table beside Docker's stops it",
    "BRIDGE_FAMILY_DROP": "nftables stops it on the bridge",
    "NETDEV_DROP": "nftables stops it at a device",
    "LOCAL_FIREWALL": "the host's own firewall stops it",
    "SRC_FIREWALL": "a rule inside the container that it comes from stops it",
    "DST_FIREWALL": "a rule inside the container that it goes to stops it",
    "FORWARDING_OFF_GLOBAL": "the host does not forward packets",
    "FORWARDING_OFF_IFACE": "the host does not forward what comes in by that link",
    "RP_FILTER": "the kernel takes no packet whose sender it would answer by another link",
    "MARTIAN_SOURCE": "the kernel does not believe its source",
    "MARTIAN_LOCALNET": "the kernel takes no loopback address from a network",
    "DST_NO_LISTENER": "nobody listens there",
    "DST_LISTEN_ADDR": "what listens there does so on another address",
    "DST_BACKLOG_FULL": "who listens there takes no connection, and no more may wait",
    "NEIGH_FAILED": "nobody has that address",
    "NEIGH_WRONG_MAC": "the neighbour table has somebody else for it",
    "REPLY_BYPASSES_HOST": "the answer goes past the host, whose NAT it needs",
    "REPLY_ASTRAY": "the answer leads elsewhere",
    "MASQ_MISSING": "its address is not masqueraded, and nobody outside knows a way back",
    "BR_NO_HAIRPIN": "a bridge sends nothing back by the port that it came from",
    "BR_PORT_ISOLATED": "both ports of the bridge are isolated",
    "BR_PORT_STATE": "a port of the bridge does not forward",
    "SRC_LINK_DOWN": "its link is down",
    "VETH_DOWN": "a link on the way is down",
    "BRIDGE_DOWN": "the bridge is down",
    "SRC_NO_ROUTE": "its namespace has no route there",
    "NO_SOURCE": "its link has no address",
    "NO_UPLINK": "the host has no route to the outside",
    "ROUTE_NONE": "the host has no route there",
    "ROUTE_BLACKHOLE": "a route of the host leads into a black hole",
    "ROUTE_UNREACHABLE": "a route of the host says that it is unreachable",
    "ROUTE_PROHIBIT": "a route of the host forbids it",
}
"""Why by code (`docs/packet-path.md`), for what Docker did not mean."""


class _Reason(Struct):
    kind: str
    code: str
    why: str
    cited: Citation | None
    question: str
    source: str
    target: str
    places: dict[str, None]
    flows: int = 0


class Reasons:
    """The reasons so far, each with its letter."""

    def __init__(self) -> None:
        """Start without any."""
        self.held: dict[tuple[str, ...], _Reason] = {}
        self.letters: dict[tuple[str, ...], str] = {}

    def letter(self, kind: str, found: Judgement, why: str, source: str, target: str, count: int = 1) -> str:
        """Give the letter of a reason; one that is new gets the next."""
        place = found.cited.place if found.cited is not None else ""
        rule = found.cited is not None and found.cited.record.startswith(("net/ip", "net/nft"))
        chain = place.rpartition(" ")[0] if rule and place.rpartition(" ")[2].isdecimal() else ""
        key = (kind, why, *(("", "") if kind == "design" else (found.code, chain)), found.question)
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = _Reason(kind, found.code, why, found.cited, found.question, source, target, {})
            depends = sum(one.kind == "depends" for one in self.held.values())
            if kind == "depends":
                self.letters[key] = "?" if depends == 1 else f"?{depends}"
            else:
                self.letters[key] = _letter(len(self.held) - depends - 1)
        held.flows += count
        if rule:
            held.places[place] = None
        return self.letters[key]

    def all(self) -> tuple[ReachReason, ...]:
        """Give all of them."""
        return tuple(
            ReachReason(
                *(self.letters[key], one.kind, one.code, one.why, tuple(one.places), one.cited, one.question),
                *(one.source, one.target, one.flows),
            )
            for key, one in self.held.items()
        )


def _letter(at: int) -> str:
    """Give A to Z, then A2 and so on.

    >>> _letter(0), _letter(25), _letter(26)
    ('A', 'Z', 'A2')
    """
    more, at = divmod(at, 26)
    return string.ascii_uppercase[at] + (str(more + 1) if more else "")
