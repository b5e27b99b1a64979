"""Links: RTM_NEWLINK in the words of `ip -j -d addr`. See rtnetlink(7), linux/if_link.h.

What needs other links of the namespace (the name of a bridge) is put in by `doctor.linux.rtnetlink`.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from doctor.linux.attributes import (
    IPV6_BYTES,
    RAW,
    UNKNOWN,
    Reader,
    address,
    boolean,
    colons,
    hexadecimal,
    hexed,
    ip,
    mac,
    network,
    number,
    quoted,
    string,
    switch,
    text,
    unsigned,
    word,
)
from doctor.linux.netlink import NATIVE, attributes, head, values

if TYPE_CHECKING:
    from doctor.linux.attributes import Shower, Table

_LINK_HEAD = Struct("=BxHiII")  # family, type, index, flags, change

UP = 0x1
_RUNNING = 0x40

_FLAGS = (
    (0x8, "LOOPBACK"),
    (0x2, "BROADCAST"),
    (0x10, "POINTOPOINT"),
    (0x1000, "MULTICAST"),
    (0x80, "NOARP"),
    (0x200, "ALLMULTI"),
    (0x100, "PROMISC"),
    (0x400, "MASTER"),
    (0x800, "SLAVE"),
    (0x4, "DEBUG"),
    (0x8000, "DYNAMIC"),
    (0x4000, "AUTOMEDIA"),
    (0x2000, "PORTSEL"),
    (0x20, "NOTRAILERS"),
    (UP, "UP"),
    (0x10000, "LOWER_UP"),
    (0x20000, "DORMANT"),
    (0x40000, "ECHO"),
)
_TYPES = {
    1: "ether",
    32: "infiniband",
    512: "ppp",
    519: "rawip",
    768: "ipip",
    769: "tunnel6",
    772: "loopback",
    776: "sit",
    778: "gre",
    823: "gre6",
    824: "netlink",
    825: "6lowpan",
    826: "vsockmon",
    0xFFFE: "none",
    0xFFFF: "void",
}
_TUNNELS = frozenset({768, 769, 776, 778, 823})
"""Their link-layer addresses are IP addresses."""

_STATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_MODES = {0: "DEFAULT", 1: "DORMANT"}

_ADDRESS = 1
_BROADCAST = 2
_NAME = 3
_LINK = 5
_MASTER = 10
_NETNSID = 37
_PERMANENT = 54


def _group(value: bytes) -> str:
    group = unsigned(value)
    return f'"group":"{group or "default"}"'


def _operstate(value: bytes) -> str:
    state = unsigned(value)
    return f'"operstate":"{_STATES[state]}"' if state < len(_STATES) else f'"operstate_index":{state}'


def _xdp(value: bytes) -> str:
    """Show which XDP program is attached, if any: it may drop packets before anything else sees them."""
    found = values(value)
    mode, program = unsigned(found.get(2, b"")), unsigned(found.get(4, b""))
    return f'"xdp":{{"mode":{mode},"prog":{{"id":{program}}}}}' if mode else ""


def _aliases(value: bytes) -> str:
    return '"altnames":[' + ",".join(quoted(string(value[start:end])) for _, start, end in attributes(value)) + "]"


_LINK_TABLE: Table = {
    _ADDRESS: RAW,
    _BROADCAST: RAW,
    _NAME: RAW,
    _LINK: RAW,
    _MASTER: RAW,
    _NETNSID: RAW,
    _PERMANENT: RAW,
    4: number("mtu"),
    6: text("qdisc"),
    7: None,  # stats
    13: number("txqlen"),
    14: None,  # memory map of a card
    16: _operstate,
    17: word("linkmode", _MODES),
    20: text("ifalias"),
    21: None,  # num_vf
    23: None,  # stats64
    26: None,  # af_spec: every sysctl and counter of the link, for both families
    27: _group,
    30: number("promiscuity"),
    31: number("num_tx_queues"),
    32: number("num_rx_queues"),
    33: None,  # carrier: the flags LOWER_UP and NO-CARRIER say it
    34: text("phys_port_name"),
    35: None,  # carrier_changes
    39: switch("proto_down"),
    40: number("gso_max_segs"),
    41: number("gso_max_size"),
    47: None,  # carrier_up_count
    48: None,  # carrier_down_count
    50: number("min_mtu"),
    51: number("max_mtu"),
    56: text("parentdev"),
    57: text("parentbus"),
    58: number("gro_max_size"),
    59: number("tso_max_size"),
    60: number("tso_max_segs"),
    61: number("allmulti"),
    62: None,  # devlink_port
    63: number("gso_ipv4_max_size"),
    64: number("gro_ipv4_max_size"),
    65: None,  # dpll_pin
    66: None,  # max_pacing_offload_horizon
    67: None,  # netns_immutable
    68: None,  # headroom
    69: None,  # tailroom
}


def _bridge_id(key: str) -> Shower:
    """Show priority and address of a bridge; ip spells the address as ether_ntoa(3) does, without leading zeros."""
    return lambda value: f'"{key}":"{value[:2].hex()}.{":".join(f"{byte:x}" for byte in value[2:])}"'


def _vlan_protocol(key: str) -> Shower:
    names = {0x8100: "802.1Q", 0x88A8: "802.1ad"}

    def show(value: bytes) -> str:
        protocol = int.from_bytes(value, "big")
        return f'"{key}":"{names.get(protocol) or hexed(protocol)}"'

    return show


def _bridge_options(value: bytes) -> str:
    """Show struct br_boolopt_multi: the values of the options, and which of them this kernel has."""
    values, known = unsigned(value[:4]), unsigned(value[4:8])
    names = ("no_linklocal_learn", "mcast_vlan_snooping", "mst_enabled", "mdb_offload_fail_notification")
    return ",".join(f'"{name}":{values >> bit & 1}' for bit, name in enumerate(names) if known >> bit & 1)


_BRIDGE: Table = {
    1: number("forward_delay"),
    2: number("hello_time"),
    3: number("max_age"),
    4: number("ageing_time"),
    5: number("stp_state"),
    6: number("priority"),
    7: number("vlan_filtering"),
    8: _vlan_protocol("vlan_protocol"),
    9: hexadecimal("group_fwd_mask"),
    10: _bridge_id("root_id"),
    11: _bridge_id("bridge_id"),
    12: number("root_port"),
    13: number("root_path_cost"),
    14: number("topology_change"),
    15: number("topology_change_detected"),
    16: None,  # hello_timer
    17: None,  # tcn_timer
    18: None,  # topology_change_timer
    19: None,  # gc_timer
    20: mac("group_addr"),
    22: number("mcast_router"),
    23: number("mcast_snooping"),
    24: number("mcast_query_use_ifaddr"),
    25: number("mcast_querier"),
    26: number("mcast_hash_elasticity"),
    27: number("mcast_hash_max"),
    28: number("mcast_last_member_cnt"),
    29: number("mcast_startup_query_cnt"),
    30: number("mcast_last_member_intvl"),
    31: number("mcast_membership_intvl"),
    32: number("mcast_querier_intvl"),
    33: number("mcast_query_intvl"),
    34: number("mcast_query_response_intvl"),
    35: number("mcast_startup_query_intvl"),
    36: number("nf_call_iptables"),
    37: number("nf_call_ip6tables"),
    38: number("nf_call_arptables"),
    39: number("vlan_default_pvid"),
    40: None,  # padding
    41: number("vlan_stats_enabled"),
    42: number("mcast_stats_enabled"),
    43: number("mcast_igmp_version"),
    44: number("mcast_mld_version"),
    45: number("vlan_stats_per_port"),
    46: _bridge_options,
    47: None,  # mcast_querier_state, with a timer
    48: None,  # fdb_n_learned, a counter
    49: number("fdb_max_learned"),
}

_PORT_STATES = {0: "disabled", 1: "listening", 2: "learning", 3: "forwarding", 4: "blocking"}

_PORT: Table = {
    1: word("state", _PORT_STATES),
    2: number("priority"),
    3: number("cost"),
    4: boolean("hairpin"),
    5: boolean("guard"),
    6: boolean("root_block"),
    7: boolean("fastleave"),
    8: boolean("learning"),
    9: boolean("flood"),
    10: boolean("proxy_arp"),
    11: None,  # learning_sync, for switches in hardware
    12: boolean("proxy_arp_wifi"),
    13: _bridge_id("root_id"),
    14: _bridge_id("bridge_id"),
    15: number("designated_port"),
    16: number("designated_cost"),
    17: hexadecimal("id"),
    18: hexadecimal("no"),
    19: number("topology_change_ack"),
    20: number("config_pending"),
    21: None,  # message_age_timer
    22: None,  # forward_delay_timer
    23: None,  # hold_timer
    25: number("multicast_router"),
    26: None,  # padding
    27: boolean("mcast_flood"),
    28: boolean("mcast_to_unicast"),
    29: boolean("vlan_tunnel"),
    30: boolean("bcast_flood"),
    31: hexadecimal("group_fwd_mask"),
    32: boolean("neigh_suppress"),
    33: boolean("isolated"),
    34: number("backup_port_index"),
    35: None,  # mrp_ring_open
    36: None,  # mrp_in_open
    37: None,  # mcast_eht_hosts_limit
    38: None,  # mcast_eht_hosts_cnt
    39: boolean("locked"),
    40: boolean("mab"),
    41: None,  # mcast_n_groups, a counter
    42: number("mcast_max_groups"),
    43: boolean("neigh_vlan_suppress"),
}


def _port_range(value: bytes) -> str:
    return f'"port_range":{{"low":{int.from_bytes(value[:2], "big")},"high":{int.from_bytes(value[2:4], "big")}}}'


def _remote(key: str) -> Shower:
    """Show where a VXLAN sends what it knows no port for: `group` when that is multicast, as ip calls it."""

    def show(value: bytes) -> str:
        multicast = value[:1] == b"\xff" if len(value) == IPV6_BYTES else value[:1] >= b"\xe0"
        return f'"{"group" if multicast else "remote"}{key}":"{address(value)}"'

    return show


_VXLAN: Table = {
    1: number("id"),
    2: _remote(""),
    3: number("link_index"),
    4: ip("local"),
    5: number("ttl"),
    6: number("tos"),
    7: boolean("learning"),
    8: number("ageing"),
    9: number("limit"),
    10: _port_range,
    11: boolean("proxy"),
    12: boolean("rsc"),
    13: boolean("l2miss"),
    14: boolean("l3miss"),
    15: network("port"),
    16: _remote("6"),
    17: ip("local6"),
    18: boolean("udp_csum"),
    19: boolean("udp_zero_csum6_tx"),
    20: boolean("udp_zero_csum6_rx"),
    21: boolean("remcsum_tx"),
    22: boolean("remcsum_rx"),
    25: boolean("external"),
    26: network("label"),
    29: word("df", {0: "unset", 1: "set", 2: "inherit"}),
    30: boolean("vnifilter"),
    31: boolean("localbypass"),
}

_KINDS: dict[str, Reader] = {
    "bridge": Reader(_BRIDGE),
    "vxlan": Reader(_VXLAN),
    "vlan": Reader({1: number("id"), 5: _vlan_protocol("protocol")}),
    "macvlan": Reader(
        {
            1: word("mode", {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}),
            2: number("flags"),
            6: None,  # number of source addresses
            7: number("bcqueuelen"),
            8: number("usedbcqueuelen"),
        }
    ),
    "tun": Reader(
        {
            1: number("user"),
            2: number("group"),
            3: word("type", {1: "tun", 2: "tap"}),
            4: boolean("pi"),
            5: boolean("vnet_hdr"),
            6: boolean("persist"),
            7: boolean("multi_queue"),
        }
    ),
    "ipvlan": Reader({1: word("mode", {0: "l2", 1: "l3", 2: "l3s"}), 2: number("flags")}),
}
_SLAVES = {"bridge": Reader(_PORT)}


def _linkinfo(value: bytes) -> str:
    """Show what kind a link is, and what kind of member, with the attributes of either kind."""
    found = values(value)
    parts = []
    for kind_at, data_at, prefix, readers in ((1, 2, "info", _KINDS), (4, 5, "info_slave", _SLAVES)):
        kind = string(found[kind_at]) if kind_at in found else ""
        if kind:
            parts.append(f'"{prefix}_kind":{quoted(kind)}')
        if data_at in found:
            parts.append(f'"{prefix}_data":{readers.get(kind, UNKNOWN).within(found[data_at])}')
    return '"linkinfo":{' + ",".join(parts) + "}"


_LINKS = Reader({**_LINK_TABLE, 18: _linkinfo, 43: _xdp, 52: _aliases})


class Link(NamedTuple):
    """One link: `text` is what can be said of it alone. `link` and `master` are -1, `netnsid` is None where not told.

    `name`, `flag_words` and `text` are JSON.
    """

    ifindex: int
    flags: int
    name: str
    flag_words: str
    text: str
    link: int
    netnsid: int | None
    master: int


def read_link(payload: bytes) -> Link:
    """Decode one RTM_NEWLINK. Raises MalformedError."""
    _, kind, ifindex, flags, _ = head(_LINK_HEAD, payload)
    parts, raw = _LINKS.read(payload, _LINK_HEAD.size)
    spell = address if kind in _TUNNELS else colons
    own = raw.get(_ADDRESS, b"")
    permanent = raw.get(_PERMANENT, own)
    front = [f'"link_type":"{_TYPES.get(kind) or f"[{kind}]"}"']
    for key, value in (("address", own), ("broadcast", raw.get(_BROADCAST)), ("permaddr", permanent)):
        if value and (key != "permaddr" or permanent != own):
            front.append(f'"{key}":"{spell(value)}"')
    netnsid = raw.get(_NETNSID)
    return Link(
        ifindex,
        flags,
        quoted(string(raw.get(_NAME, b""))),
        _flag_words(flags),
        ",".join(front + parts),
        unsigned(raw[_LINK]) if _LINK in raw else -1,
        None if netnsid is None else int.from_bytes(netnsid, NATIVE, signed=True),
        unsigned(raw[_MASTER]) if _MASTER in raw else -1,
    )


@lru_cache(256)
def _flag_words(flags: int) -> str:
    words = ['"NO-CARRIER"'] if flags & UP and not flags & _RUNNING else []
    flags &= ~_RUNNING
    for bit, name in _FLAGS:
        if flags & bit:
            words.append(f'"{name}"')
            flags &= ~bit
    if flags:
        words.append(f'"{flags:x}"')
    return ",".join(words)


def show_link(link: Link, addresses: list[str], links: dict[int, Link]) -> str:
    """Show a link with its addresses, as an object; `links` are all of its namespace, by index."""
    words = link.flag_words
    parts = [f'"ifindex":{link.ifindex}']
    if link.link >= 0:
        if link.netnsid is not None:
            parts.append(f'"link_index":{link.link},"link_netnsid":{link.netnsid}')
        elif link.link == 0:
            parts.append('"link":null')
        else:
            parts.append(f'"link":{device(link.link, links)}')
            other = links.get(link.link)
            if other is not None and not other.flags & UP:
                words = f'{words},"M-DOWN"' if words else '"M-DOWN"'
    parts.append(f'"ifname":{link.name},"flags":[{words}]')
    if link.master >= 0:
        parts.append(f'"master":{device(link.master, links)}')
    return f'{{{",".join(parts)},{link.text},"addr_info":[{",".join(addresses)}]}}'


def device(index: int, links: dict[int, Link]) -> str:
    """Name a link of this namespace, as JSON; one that came while we read is called as ip calls it."""
    found = links.get(index)
    return found.name if found is not None else f'"if{index}"'
