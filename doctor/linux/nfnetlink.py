"""Which nftables tables the calling thread's namespace has: who has rules at all, before a saver is run for it.

Source: kernel `include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h`. The caller sees to it that nf_tables is there.
"""

from __future__ import annotations

from doctor.linux.netlink import NETLINK_NETFILTER, Netlink, attributes

_GETTABLE = 10 << 8 | 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def tables(timeout: float) -> list[tuple[str, str]]:
    """Give family and name of each table. Raises OSError."""
    with Netlink(NETLINK_NETFILTER, timeout) as asked:
        return [
            (_FAMILIES.get(payload[0], str(payload[0])), attributes(payload, 4).get(1, b"").rstrip(b"\0").decode())
            for _, payload in asked.dump(_GETTABLE, b"\0" * 4)
            if payload
        ]
