"""One packet on its way, and what the kernel remembers of its connection."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

Version = Literal[4, 6]
State = Literal["new", "established", "related", "invalid", "untracked"]

PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58} | {
    "icmpv6": 58,
    "ipip": 4,
    "ipv6": 41,
    "ospf": 89,
    "vrrp": 112,
    "sctp": 132,
    "udplite": 136,
    "mh": 135,
    "l2tp": 115,
    "ipcomp": 108,
    "all": 0,
}
"""Protocols by the names that iptables and nft print; see /etc/protocols."""

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


class Tuple(Struct, frozen=True):
    """The ends of a packet: addresses as numbers, ports 0 where the protocol has none."""

    src: int
    sport: int
    dst: int
    dport: int

    @property
    def back(self) -> Tuple:
        """The ends of an answer."""
        return Tuple(self.dst, self.dport, self.src, self.sport)


class Packet(Struct):
    """One packet, as a rule sees it. It changes on its way: devices, addresses, marks.

    `src` and `dst` are numbers, `protocol` is the number of RFC 790 (6: TCP). `state` is what `ct state` says: `invalid`
    before conntrack has seen it. `original` are the ends of the connection's first packet as it was, None before
    conntrack; `reply` says that it goes against that direction. `status` holds `dnat` and `snat`. `physin` and `physout`
    are the ports of a bridge. `size` is its length with all headers, where that is asked for (0: it fits everywhere);
    `mss` what a rule let a SYN announce at most, 0 for no such rule.
    """

    version: Version
    protocol: int
    src: int
    sport: int
    dst: int
    dport: int
    iif: str = ""
    oif: str = ""
    mark: int = 0
    connmark: int = 0
    state: State = "invalid"
    flags: int = 0
    ttl: int = 64
    zone: int = 0
    reply: bool = False
    original: Tuple | None = None
    status: frozenset[str] = frozenset()
    physin: str = ""
    physout: str = ""
    icmp: int = 8
    size: int = 0
    mss: int = 0

    @property
    def ends(self) -> Tuple:
        """Addresses and ports as they are now."""
        return Tuple(self.src, self.sport, self.dst, self.dport)

    def spell(self, number: int) -> str:
        """Spell an address."""
        return spell(number, self.version)


@lru_cache(maxsize=1 << 14)
def number(address: str) -> int:
    """Give an address as a number; raises ValueError for what is none."""
    return int(ip_address(address))


@lru_cache(maxsize=1 << 14)
def number_of(text: str) -> int | None:
    """Give an address as a number, None for what is none."""
    try:
        return number(text)
    except ValueError:
        return None


def spell(address: int, version: Version) -> str:
    """Spell an address.

    >>> spell(3232235777, 4)
    '192.168.1.1'
    """
    if version == 4:  # noqa: PLR2004 - IPv4
        return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
    return str(ip_address(address.to_bytes(16, "big")))
