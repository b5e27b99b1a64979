"""The rules of 28.0.0 to 29: one chain for what happens in FORWARD, ports closed unless published, drops in table raw.

Source: moby `libnetwork/drivers/bridge/setup_ip_tables_linux.go` and `port_mapping_linux.go` up to 28.1,
`libnetwork/drivers/bridge/internal/iptabler` from 28.2 on (29: below `daemon/`), `libnetwork/firewall_linux.go`. Compared
with live 28.5.2, and with captures of an engine 29; for 28.0 and 28.1 with moby's documents of their rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.engine.rules.ruleset import (
    ESTABLISHED,
    Ruleset,
    Writer,
    dnat,
    host,
    link_rules,
    local_nat,
    nat_jumps,
    outgoing_nat,
    port_accept,
    port_masquerade,
    spell,
    to_port,
)

if TYPE_CHECKING:
    from doctor.engine.rules.site import Binding, Bridge, Endpoint, Family, Site

FIRST, SECOND, INTERNAL = "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-INTERNAL"


class Variant(Struct, frozen=True):
    """What differs between these generations.

    `forward` is the chain of the networks' own rules, `isolating`: networks are kept apart by two chains, `returns`:
    DOCKER-USER ends in RETURN, `per_port`: table raw drops by published port, not by container, `skips`: whose packets
    are not led to published ports: of `masked` networks, of `routed` ones too, or of `none`.
    """

    forward: str = "DOCKER-FORWARD"
    isolating: bool = True
    returns: bool = False
    per_port: bool = False
    skips: str = "masked"


def chains(variant: Variant) -> tuple[tuple[str, str], ...]:
    """Give the chains, in the order of iptables-save."""
    names = ["DOCKER", "DOCKER-USER"]
    if variant.forward != "FORWARD":
        names += ["DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD"]
    names += [FIRST, SECOND] if variant.isolating else [INTERNAL]
    return (*(("filter", name) for name in sorted(names)), ("nat", "DOCKER"))


def write(site: Site, family: Family, variant: Variant) -> Ruleset:
    """Write the rules of one family."""
    rules = Writer(family, chains(variant))
    _start(rules, site, variant)
    for bridge in site.bridges:
        if bridge.subnet(family):
            if bridge.internal:
                _internal(rules, bridge, variant)
            else:
                _external(rules, site, bridge, variant)
    for endpoint in site.endpoints:
        network = site.bridge(endpoint.bridge)
        if network is not None and not network.internal:
            _direct(rules, site, network, endpoint, variant)
            _ports(rules, site, network, endpoint, variant)
    if family == "ip":
        for link in site.links:
            link_rules(rules, link.bridge, link.parent, link.child, link.ports)
    return rules.done()


def _start(rules: Writer, site: Site, variant: Variant) -> None:
    """Write what a start of dockerd writes before it has any network."""
    family = rules.family
    nat_jumps(rules, proxy=site.proxy)
    apart = FIRST if variant.isolating else INTERNAL
    if variant.forward == "FORWARD":
        known = f"-m set --match-set docker-ext-bridges-v{'4' if family == 'ip' else '6'} dst"
        rules.insert("filter", "FORWARD", spell("DOCKER", match=known))
        rules.insert("filter", "FORWARD", f"-j {apart}")
        rules.insert("filter", "FORWARD", spell("ACCEPT", match=f"{known} {ESTABLISHED}"))
    else:
        rules.insert("filter", "FORWARD", f"-j {variant.forward}")
        for chain in ("DOCKER-BRIDGE", apart, "DOCKER-CT"):
            rules.insert("filter", variant.forward, f"-j {chain}")
    if variant.returns:
        rules.append("filter", "DOCKER-USER", "-j RETURN")
    rules.insert("filter", "FORWARD", "-j DOCKER-USER")
    if site.mirrored and site.proxy and family == "ip":
        rules.insert("nat", "DOCKER", spell("RETURN", dst="127.0.0.0/8", into="loopback0"))


def _internal(rules: Writer, bridge: Bridge, variant: Variant) -> None:
    subnet = bridge.subnet(rules.family)
    other = f"!{bridge.name}" if rules.family == "ip6" else ""
    chain = FIRST if variant.isolating else INTERNAL
    rules.insert("filter", chain, spell("DROP", dst=f"!{subnet}", into=bridge.name, out=other))
    rules.insert("filter", chain, spell("DROP", src=f"!{subnet}", into=other, out=bridge.name))
    verdict = "ACCEPT" if bridge.icc else "DROP"
    rules.append("filter", variant.forward, spell(verdict, into=bridge.name, out=bridge.name))


def _external(rules: Writer, site: Site, bridge: Bridge, variant: Variant) -> None:
    name = bridge.name
    if site.mark and not variant.isolating:
        rules.insert("filter", variant.forward, f"-m mark --mark {site.mark} -j ACCEPT")
    _nat(rules, site, bridge, variant)
    if not bridge.icc:
        rules.append("filter", variant.forward, spell("DROP", into=name, out=name))
    if bridge.routed(rules.family):
        icmp = "icmp" if rules.family == "ip" else "ipv6-icmp"
        rules.append("filter", "DOCKER", spell("ACCEPT", out=name, proto=icmp))
    rules.append("filter", variant.forward, spell("ACCEPT", into=name, out="" if bridge.icc else f"!{name}"))
    verdict = "ACCEPT" if bridge.unprotected(rules.family) else "DROP"
    rules.append("filter", "DOCKER", spell(verdict, into=f"!{name}", out=name))
    if variant.forward != "FORWARD":
        rules.append("filter", "DOCKER-CT", spell("ACCEPT", out=name, match=ESTABLISHED))
        rules.append("filter", "DOCKER-BRIDGE", spell("DOCKER", out=name))
    if variant.isolating:
        if bridge.routed(rules.family):
            rules.insert("filter", FIRST, spell("RETURN", out=name))
            rules.insert("filter", FIRST, spell("ACCEPT", into=name, match=ESTABLISHED))
        rules.append("filter", FIRST, spell(SECOND, into=name, out=f"!{name}"))
        rules.insert("filter", SECOND, spell("DROP", out=name))


def _nat(rules: Writer, site: Site, bridge: Bridge, variant: Variant) -> None:
    routed = bridge.routed(rules.family)
    if bridge.masquerade and not routed:
        rules.insert("nat", "POSTROUTING", outgoing_nat(bridge, rules.family))
    skips = bridge.masquerade and site.proxy and variant.skips != "none"
    if skips or (variant.skips == "routed" and routed):
        rules.insert("nat", "DOCKER", spell("RETURN", into=bridge.name))
    if not site.proxy:
        rules.insert("nat", "POSTROUTING", local_nat(bridge, rules.family))


def _shut(rules: Writer, site: Site, network: Bridge) -> bool:
    """Whether packets that address a container directly are dropped before anything else sees them."""
    return site.raw and not network.routed(rules.family) and not network.unprotected(rules.family)


def _direct(rules: Writer, site: Site, network: Bridge, endpoint: Endpoint, variant: Variant) -> None:
    address = endpoint.address(rules.family)
    if variant.per_port or site.direct or not address or not _shut(rules, site, network):
        return
    for link in network.trusted:
        rules.append("raw", "PREROUTING", spell("ACCEPT", dst=host(address), into=link))
    rules.append("raw", "PREROUTING", spell("DROP", dst=host(address), into=f"!{network.name}"))


def _ports(rules: Writer, site: Site, network: Bridge, endpoint: Endpoint, variant: Variant) -> None:
    own = endpoint.address(rules.family)
    for binding in endpoint.bindings:
        # Where the container has no IPv6, a port of the host's IPv6 leads to its IPv4: that is docker-proxy's alone.
        borrowed = binding.family == "ip6" and not endpoint.address6
        if not own or (binding.family != rules.family and not (borrowed and rules.family == "ip")):
            continue
        if site.raw:
            _loopback(rules, site, binding)
        if variant.per_port and _shut(rules, site, network):
            aim = to_port(binding.protocol, binding.port)
            into = f"!{network.name}"
            rules.append(
                "raw", "PREROUTING", spell("DROP", dst=host(own), into=into, proto=binding.protocol, match=aim)
            )
        if borrowed:
            continue
        if binding.host:
            source = "!fe80::/10" if rules.family == "ip6" else ""
            rules.append("nat", "DOCKER", dnat(binding, own, network.name, proxy=site.proxy, source=source))
            if not site.proxy:
                rules.append("nat", "POSTROUTING", port_masquerade(binding, own))
        if not network.unprotected(rules.family):
            rules.insert("filter", "DOCKER", port_accept(binding, own, network.name))


def _loopback(rules: Writer, site: Site, binding: Binding) -> None:
    """Keep other hosts from a port that is published on 127.0.0.0/8 only."""
    if not binding.host or not binding.host_ip.startswith("127."):
        return
    there = {"dst": host(binding.host_ip), "proto": binding.protocol, "match": to_port(binding.protocol, binding.host)}
    if site.mirrored:
        rules.append("raw", "PREROUTING", spell("ACCEPT", into="loopback0", **there))
    rules.append("raw", "PREROUTING", spell("DROP", into="!lo", **there))
