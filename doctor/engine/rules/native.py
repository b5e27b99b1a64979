"""The rules of 29 with `firewall-backend` nftables: one table a family, a pair of chains a network and direction.

Source: moby `daemon/libnetwork/drivers/bridge/internal/nftabler` of 29, `daemon/libnetwork/resolver_unix.go`. Compared
with every combination of options that its tests have, and with captures of an engine 29. Rules are spelled as `nft list
table` prints them, but for what a counter has counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.engine.rules.site import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doctor.engine.rules.site import Binding, Bridge, Endpoint, Link, Site

TABLE = "docker-bridges"
RESOLVER = "docker-dns"

_PORTS = "nat-prerouting-and-output"
_RAW = "raw-PREROUTING"
_ESTABLISHED = "ct state established,related counter accept"
_MAPS = {
    "filter-forward-in-jumps": "filter-forward-in__",
    "filter-forward-out-jumps": "filter-forward-out__",
    "nat-postrouting-in-jumps": "nat-postrouting-in__",
    "nat-postrouting-out-jumps": "nat-postrouting-out__",
}
_FORWARD_IN, _FORWARD_OUT, _NAT_IN, _NAT_OUT = _MAPS.values()
_GROUPS = 6
_FIRST, _MARK, _LINKS, _ICC, _PUBLISHED, _LAST = range(_GROUPS)
"""In which order rules of one chain stand, whenever they are written (nftabler.go, rule groups)."""


class Chain(Struct, frozen=True):
    """A chain: `head` says where it is hooked in (`type filter hook forward …`), empty for one that is jumped to."""

    head: str
    rules: tuple[str, ...]


class Native(Struct, frozen=True):
    """A table of nftables: maps, each from a link to a chain, and chains, by name."""

    family: Family
    name: str
    maps: dict[str, dict[str, str]]
    chains: dict[str, Chain]


class _Draft:
    """A table as it grows; each chain keeps its rules in groups."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.maps: dict[str, dict[str, str]] = {name: {} for name in _MAPS}
        self.heads: dict[str, str] = {}
        self.groups: dict[str, list[list[str]]] = {}

    def chain(self, name: str, head: str = "") -> None:
        self.heads[name] = head
        self.groups[name] = [[] for _ in range(_GROUPS)]

    def add(self, chain: str, rule: str, group: int = _FIRST) -> None:
        """Put a rule at the end of its group, unless it is there."""
        held = self.groups[chain][group]
        if rule not in held:
            held.append(rule)

    def done(self) -> Native:
        chains = {
            name: Chain(head, tuple(rule for group in self.groups[name] for rule in group))
            for name, head in self.heads.items()
        }
        return Native(self.family, TABLE, {name: dict(sorted(one.items())) for name, one in self.maps.items()}, chains)


def write(site: Site, family: Family) -> Native:
    """Write the table of one family."""
    draft = _Draft(family)
    _start(draft, site)
    for bridge in site.bridges:
        if bridge.subnet(family):
            _network(draft, site, bridge)
    for endpoint in site.endpoints:
        network = site.bridge(endpoint.bridge)
        if network is not None and network.subnet(family) and not network.internal:
            _direct(draft, site, network, endpoint)
            _ports(draft, site, network, endpoint)
    if family == "ip":
        for link in site.links:
            _link(draft, link)
    return draft.done()


def _start(draft: _Draft, site: Site) -> None:
    draft.chain("filter-FORWARD", "type filter hook forward priority filter; policy accept;")
    draft.add("filter-FORWARD", "oifname vmap @filter-forward-in-jumps")
    draft.add("filter-FORWARD", "iifname vmap @filter-forward-out-jumps")
    draft.chain("nat-OUTPUT", "type nat hook output priority dstnat; policy accept;")
    near = "ip daddr != 127.0.0.0/8 " if draft.family == "ip" else "ip6 daddr != ::1 "
    draft.add("nat-OUTPUT", f"{near if site.proxy else ''}fib daddr type local counter jump {_PORTS}")
    draft.chain("nat-POSTROUTING", "type nat hook postrouting priority srcnat; policy accept;")
    draft.add("nat-POSTROUTING", "iifname vmap @nat-postrouting-out-jumps")
    draft.add("nat-POSTROUTING", "oifname vmap @nat-postrouting-in-jumps")
    draft.chain("nat-PREROUTING", "type nat hook prerouting priority dstnat; policy accept;")
    draft.add("nat-PREROUTING", f"fib daddr type local counter jump {_PORTS}")
    draft.chain(_PORTS)
    draft.chain(_RAW, "type filter hook prerouting priority raw; policy accept;")
    if site.mirrored and site.proxy and draft.family == "ip":
        draft.add(_PORTS, 'iifname "loopback0" ip daddr 127.0.0.0/8 counter return')


def _network(draft: _Draft, site: Site, bridge: Bridge) -> None:
    name = bridge.name
    for table, prefix in _MAPS.items():
        draft.chain(prefix + name)
        draft.maps[table][name] = prefix + name
    draft.add(_FORWARD_IN + name, _ESTABLISHED)
    draft.add(_FORWARD_OUT + name, _ESTABLISHED)
    verdict = "accept" if bridge.icc else "drop"
    if bridge.internal:
        draft.add(_FORWARD_IN + name, f'iifname != "{name}" counter drop comment "INTERNAL NETWORK INGRESS"')
        draft.add(_FORWARD_OUT + name, f'oifname != "{name}" counter drop comment "INTERNAL NETWORK EGRESS"')
        draft.add(_FORWARD_IN + name, f'counter {verdict} comment "ICC"', _ICC)
        return
    if site.mark:
        draft.add(_FORWARD_IN + name, f'{_mark(site.mark)} counter accept comment "ALLOW FW MARK"', _MARK)
    draft.add(_FORWARD_IN + name, f'iifname "{name}" counter {verdict} comment "ICC"', _ICC)
    draft.add(_FORWARD_OUT + name, 'counter accept comment "OUTGOING"')
    last = (
        'accept comment "UNPROTECTED"' if bridge.unprotected(draft.family) else 'drop comment "UNPUBLISHED PORT DROP"'
    )
    draft.add(_FORWARD_IN + name, f"counter {last}", _LAST)
    routed = bridge.routed(draft.family)
    if routed:
        icmp = "ip protocol icmp" if draft.family == "ip" else "meta l4proto ipv6-icmp"
        draft.add(_FORWARD_IN + name, f'{icmp} counter accept comment "ICMP"')
    snat = bridge.snat(draft.family)
    change, word = (f"snat to {snat}", "SNAT") if snat else ("masquerade", "MASQUERADE")
    if bridge.masquerade and not routed:
        source = f"{draft.family} saddr {bridge.subnet(draft.family)}"
        draft.add(_NAT_OUT + name, f'oifname != "{name}" {source} counter {change} comment "{word}"')
    if not site.proxy:
        draft.add(_NAT_IN + name, f'fib saddr type local counter {change} comment "{word} FROM HOST"')


def _mark(mark: str) -> str:
    """Spell a mark as nft lists it: `0x1/0xf` of iptables is `meta mark & 0x0000000f == 0x00000001`."""
    value, _, mask = mark.partition("/")
    if mask:
        return f"meta mark & 0x{int(mask, 0):08x} == 0x{int(value, 0):08x}"
    return f"meta mark 0x{int(value, 0):08x}"


def _direct(draft: _Draft, site: Site, network: Bridge, endpoint: Endpoint) -> None:
    """Drop what addresses a container itself, unless it comes from its bridge or a link that is trusted."""
    address = endpoint.address(draft.family)
    if not address or site.direct or network.routed(draft.family) or network.unprotected(draft.family):
        return
    near = ", ".join(f'"{one}"' for one in (network.name, *network.trusted))
    links = f"{{ {near} }}" if network.trusted else near
    there = f"{draft.family} daddr {address} iifname != {links}"
    draft.add(_RAW, f'{there} counter drop comment "DROP DIRECT ACCESS"', _MARK)


def _ports(draft: _Draft, site: Site, network: Bridge, endpoint: Endpoint) -> None:
    address = endpoint.address(draft.family)
    # Where the container has no IPv6, a port of the host's IPv6 leads to its IPv4: that is docker-proxy's alone.
    bound = [
        one
        for one in endpoint.bindings
        if one.family == draft.family or (draft.family == "ip" and not endpoint.address6)
    ]
    if not address:
        return
    for one in bound:
        if not network.unprotected(draft.family):
            rule = f"{draft.family} daddr {address} {one.protocol} dport {one.port} counter accept"
            draft.add(_FORWARD_IN + network.name, rule, _PUBLISHED)
    mapped = [one for one in bound if one.host and one.family == draft.family]
    for one in mapped:
        draft.add(_PORTS, _dnat(draft, site, network, one, address))
        if not site.proxy:
            there = f"{draft.family} saddr {address} {draft.family} daddr {address} {one.protocol} dport {one.port}"
            draft.add(_NAT_IN + network.name, f'{there} counter masquerade comment "MASQ TO OWN PORT"')
    if draft.family == "ip":
        for one in mapped:
            _loopback(draft, site, one)


def _dnat(draft: _Draft, site: Site, network: Bridge, one: Binding, address: str) -> str:
    words = [f'iifname != "{network.name}"'] if site.proxy else []
    words += ["ip6 saddr != fe80::/10"] if draft.family == "ip6" else []
    if one.host_ip not in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared with
        words.append(f"{draft.family} daddr {one.host_ip}")
    aim = f"[{address}]:{one.port}" if ":" in address else f"{address}:{one.port}"
    return " ".join((*words, f'{one.protocol} dport {one.host} counter dnat to {aim} comment "DNAT"'))


def _loopback(draft: _Draft, site: Site, one: Binding) -> None:
    """Keep other hosts from a port that is published on 127.0.0.0/8 only."""
    if not one.host_ip.startswith("127."):
        return
    there = f"ip daddr {one.host_ip} {one.protocol} dport {one.host} counter"
    if site.mirrored:
        draft.add(_RAW, f'iifname "loopback0" {there} accept comment "ACCEPT WSL2 LOOPBACK"', _MARK)
    draft.add(_RAW, f'iifname != "lo" {there} drop comment "DROP REMOTE LOOPBACK"', _MARK)


def _link(draft: _Draft, link: Link) -> None:
    chain = _FORWARD_IN + link.bridge
    if chain not in draft.heads:
        return
    for number, protocol in link.ports:
        there = f"ip saddr {link.parent} ip daddr {link.child} {protocol} dport {number} counter accept"
        back = f"ip daddr {link.parent} ip saddr {link.child} {protocol} sport {number} counter accept"
        draft.add(chain, there, _LINKS)
        draft.add(chain, back, _LINKS)


def resolver(tcp: int, udp: int) -> Native:
    """Write the table of a container's namespace that leads to the embedded DNS, on these ports of 127.0.0.11."""
    out = Chain(
        "type nat hook output priority dstnat; policy accept;",
        (
            f"ip daddr 127.0.0.11 udp dport 53 counter dnat to 127.0.0.11:{udp}",
            f"ip daddr 127.0.0.11 tcp dport 53 counter dnat to 127.0.0.11:{tcp}",
        ),
    )
    back = Chain(
        "type nat hook postrouting priority srcnat; policy accept;",
        (
            f"ip saddr 127.0.0.11 udp sport {udp} counter snat to :53",
            f"ip saddr 127.0.0.11 tcp sport {tcp} counter snat to :53",
        ),
    )
    return Native("ip", RESOLVER, {}, {"dns-dnat": out, "dns-snat": back})


# As input of nft


def whole(table: Native) -> str:
    """Print a table as input of `nft -f`, in place of one of that name. Older nft reads no word for some priorities."""
    head = f"table {table.family} {table.name}"
    lines = [f"{head} {{ }}", f"delete {head}", f"{head} {{"]
    for name, elements in table.maps.items():
        lines.append(f"\tmap {name} {{")
        lines.append("\t\ttype ifname : verdict")
        if elements:
            listed = ", ".join(f'"{link}" : jump {chain}' for link, chain in elements.items())
            lines.append(f"\t\telements = {{ {listed} }}")
        lines.append("\t}")
    for name, chain in table.chains.items():
        lines.append(f"\tchain {name} {{")
        lines += [f"\t\t{_plain(chain.head)}"] if chain.head else []
        lines += [f"\t\t{rule}" for rule in chain.rules]
        lines.append("\t}")
    return "".join(f"{line}\n" for line in [*lines, "}"])


def _plain(head: str) -> str:
    # nft 1.0.6 (Debian 12) has no `dstnat` for the hook output, and no word for srcnat outside postrouting.
    return head.replace("priority dstnat;", "priority -100;")


def change(old: Native, new: Native) -> str:
    """Print what makes one table of the other, as input of `nft -f`: chains that differ are written anew."""
    return "".join(f"{line}\n" for line in _changes(old, new))


def _changes(old: Native, new: Native) -> Iterator[str]:
    where = f"{new.family} {new.name}"
    gone = [name for name in old.chains if name not in new.chains]
    for name, elements in _missing(new.maps, old.maps):
        yield f"delete element {where} {name} {{ {', '.join(elements)} }}"
    for name, chain in new.chains.items():
        if name not in old.chains:
            yield f"add chain {where} {name}" + (f" {{ {_plain(chain.head)} }}" if chain.head else "")
    for name, chain in new.chains.items():
        if name in old.chains and old.chains[name].rules != chain.rules:
            yield f"flush chain {where} {name}"
        if name not in old.chains or old.chains[name].rules != chain.rules:
            yield from (f"add rule {where} {name} {rule}" for rule in chain.rules)
    for name, elements in _missing(old.maps, new.maps):
        listed = ", ".join(f"{link} : jump {new.maps[name][link.strip(chr(34))]}" for link in elements)
        yield f"add element {where} {name} {{ {listed} }}"
    yield from (f"delete chain {where} {name}" for name in gone)


def _missing(
    there: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, list[str]]]:
    """Give the maps that lack links of `wanted`, and those links, quoted."""
    for name, elements in wanted.items():
        lacking = [f'"{link}"' for link in elements if link not in there.get(name, {})]
        if lacking:
            yield name, lacking
