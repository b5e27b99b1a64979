"""Which nftables tables a network namespace has: whoever has none has no rules to save. See nfnetlink, linux/netfilter.

Asking loads the module nf_tables where it is not there yet: whoever calls looks first.
"""

from __future__ import annotations

from struct import Struct

from doctor.linux import netlink
from doctor.linux.attributes import string
from doctor.linux.netlink import head, values

_GETTABLE = 10 << 8 | 1
_HEAD = Struct("=BxH")  # family, resource id
_NAME = 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def tables(timeout: float) -> list[tuple[str, str]]:
    """Give family and name of every table in the calling thread's namespace, as `nft list tables` says them.

    Raises OSError. Needs CAP_NET_ADMIN over the namespace.
    """
    with netlink.Socket(netlink.NETFILTER, timeout) as filters:
        return [read_table(payload) for payload in filters.dump(_GETTABLE, bytes(4), "NFT_MSG_GETTABLE")]


def read_table(payload: bytes) -> tuple[str, str]:
    """Decode one NFT_MSG_NEWTABLE. Raises MalformedError."""
    family, _ = head(_HEAD, payload)
    name = values(payload, _HEAD.size).get(_NAME, b"")
    return _FAMILIES.get(family) or str(family), string(name)
