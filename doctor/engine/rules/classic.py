"""The rules of 20.10 to 27: four rules a network in FORWARD, networks kept apart by two isolation chains.

Source: moby `libnetwork/drivers/bridge/setup_ip_tables_linux.go`, `libnetwork/firewall_linux.go`,
`libnetwork/iptables/iptables.go` (in 20.10 below `vendor/github.com/docker/libnetwork`). Compared with live 20.10.24 and
26.1.5; 23 to 25 are the same text but for the family of DOCKER-USER, 27 adds gateway modes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.engine.rules.ruleset import (
    ESTABLISHED,
    Ruleset,
    Writer,
    dnat,
    link_rules,
    local_nat,
    nat_jumps,
    outgoing_nat,
    port_accept,
    port_masquerade,
    spell,
)

if TYPE_CHECKING:
    from doctor.engine.rules.site import Bridge, Endpoint, Family, Site

FIRST, SECOND = "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"
CHAINS = (("filter", "DOCKER"), ("filter", FIRST), ("filter", SECOND), ("filter", "DOCKER-USER"), ("nat", "DOCKER"))


def write(site: Site, family: Family, *, first: bool = False) -> Ruleset:
    """Write the rules of one family. `first` is 20.10, which knew no DOCKER-USER of IPv6."""
    users = family == "ip" or not first
    rules = Writer(family, tuple(one for one in CHAINS if users or one[1] != "DOCKER-USER"))
    rules.append("filter", FIRST, "-j RETURN")
    rules.append("filter", SECOND, "-j RETURN")
    for bridge in site.bridges:
        if bridge.subnet(family):
            if bridge.internal:
                _internal(rules, bridge, wide=family == "ip6" and not first)
            else:
                _external(rules, site, bridge)
            rules.raise_("filter", "FORWARD", f"-j {FIRST}")
        # Of a network without IPv6 the isolation is written in ip6tables too.
        if not bridge.internal and site.iptables:
            rules.insert("filter", FIRST, spell(SECOND, into=bridge.name, out=f"!{bridge.name}"))
            rules.insert("filter", SECOND, spell("DROP", out=bridge.name))
        if users:
            rules.append("filter", "DOCKER-USER", "-j RETURN")
            rules.raise_("filter", "FORWARD", "-j DOCKER-USER")
    for endpoint in site.endpoints:
        _ports(rules, site, endpoint)
    if family == "ip":
        for link in site.links:
            link_rules(rules, link.bridge, link.parent, link.child, link.ports)
    return rules.done()


def _icc(rules: Writer, bridge: Bridge) -> None:
    if bridge.icc:
        rules.insert("filter", "FORWARD", spell("ACCEPT", into=bridge.name, out=bridge.name))
    else:
        rules.append("filter", "FORWARD", spell("DROP", into=bridge.name, out=bridge.name))


def _internal(rules: Writer, bridge: Bridge, *, wide: bool) -> None:
    subnet = bridge.subnet(rules.family)
    other = f"!{bridge.name}" if wide else ""
    rules.insert("filter", FIRST, spell("DROP", dst=f"!{subnet}", into=bridge.name, out=other))
    rules.insert("filter", FIRST, spell("DROP", src=f"!{subnet}", into=other, out=bridge.name))
    _icc(rules, bridge)


def _external(rules: Writer, site: Site, bridge: Bridge) -> None:
    if bridge.masquerade and not bridge.routed(rules.family):
        rules.insert("nat", "POSTROUTING", outgoing_nat(bridge, rules.family))
        if site.proxy:
            rules.insert("nat", "DOCKER", spell("RETURN", into=bridge.name))
    if not site.proxy:
        rules.insert("nat", "POSTROUTING", local_nat(bridge, rules.family))
    _icc(rules, bridge)
    rules.insert("filter", "FORWARD", spell("ACCEPT", into=bridge.name, out=f"!{bridge.name}"))
    nat_jumps(rules, proxy=site.proxy)
    rules.insert("filter", "FORWARD", spell("DOCKER", out=bridge.name))
    rules.insert("filter", "FORWARD", spell("ACCEPT", out=bridge.name, match=ESTABLISHED))


def _ports(rules: Writer, site: Site, endpoint: Endpoint) -> None:
    address = endpoint.address(rules.family)
    for binding in endpoint.bindings:
        # A port of the host's IPv6 that leads to an IPv4 address is docker-proxy's alone.
        if not address or binding.family != rules.family:
            continue
        if binding.host:
            rules.append("nat", "DOCKER", dnat(binding, address, endpoint.bridge, proxy=site.proxy))
        rules.append("filter", "DOCKER", port_accept(binding, address, endpoint.bridge))
        if binding.host:
            rules.append("nat", "POSTROUTING", port_masquerade(binding, address))
        if binding.protocol == "sctp":
            filling = f"-m sctp --sport {binding.port}"
            rules.append("mangle", "POSTROUTING", spell("CHECKSUM --checksum-fill", proto="sctp", match=filling))
