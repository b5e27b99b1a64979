"""Firewalls and VPNs that know nothing of containers: firewalld and ufw, and what vendors bring along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._cuts import hand_back, idle, let_in, program_of, told_by
from doctor.checks._flushed import not_flushed
from doctor.facts.bootrules import BootRules
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.stale_rules import StaleRules
from doctor.model import Finding, Severity, Yield
from doctor.packets.build import SITE
from doctor.packets.promises import PROMISES
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.checks._cuts import Cut
    from doctor.packets.site import Site

_KEEP = {
    "firewalld": "firewall-cmd --permanent --zone=docker --change-interface=BRIDGE for each bridge, then"
    " firewall-cmd --reload",
    "ufw": "put the same rules into /etc/ufw/before.rules (before6.rules for IPv6), or ufw route allow in on BRIDGE",
}


@check("NET033", Severity.ERROR, says=("ZONE_CONFLICT: '...' already bound to '...'",))
def firewall_manager_stops_containers(
    promises: PROMISES,
    site: SITE,
    networks: Networks,
    rules: EngineRules | None,
    stale: StaleRules | None,
    boot: BootRules,
) -> Iterator[Yield]:
    """A firewall manager (firewalld, ufw) stops packets of containers.

    ## What it is
    firewalld rejects what comes by an interface of none of its zones. dockerd puts its bridges
    into the zone docker when it starts; deleted, or moved by hand, they are in none. ufw has
    a policy for what is forwarded, and decides where its chains are asked before Docker's.
    ## What you see
    After a reload containers reach nothing outside, or are rejected at once. A bridge that is
    in another zone keeps dockerd from starting: ZONE_CONFLICT: 'docker0' already bound to ...
    ## By hand
    iptables -L FORWARD -n -v --line-numbers
    nft list ruleset
    cat /etc/default/ufw
    ## Cure
    Let its chain hand back, or accept, what comes from and goes to Docker's bridges; Docker's
    own chains still judge it. For good: in the zone, or in ufw's own rules. Nothing stops.
    ## Looks like
    NET051 (a table of somebody else), NET028 (a rule of somebody else), NET021 (a reload took
    Docker's own rules along), NET035 (ufw's policy DROP, and Docker has no rules)
    ## Limits
    Whose chain it is goes by its name. What it keeps from coming in is taken to be meant,
    unless the same rule stops ways out. A warning where some networks are spared.
    ## References
    firewalld.zone(5), ufw-framework(8), https://github.com/moby/moby/issues/49528
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET033", promises, site, rules, stale):
        name = cut.owner.name if cut.owner is not None else ""
        unknown = [bridge for bridge in cut.bridges if name == "firewalld" and not _names(site, cut, bridge)]
        why = f": it has no rule for {', '.join(unknown)}, which is in none of its zones" if unknown else ""
        policy = boot.ufw_forward if name == "ufw" else None
        if policy is not None:
            why = f"; {policy.place} has {policy.excerpt}"
        yield Finding(
            subject=" ".join(cut.words),
            scope=cut.scope,
            title=f"{name} {cut.what}",
            message=f"{_where(cut)} of {name} stops {cut.stops}{why}",
            evidence=(cut.cited, *((policy,) if policy is not None else ())),
            remedy=let_in(cut, _KEEP[name])
            if cut.native
            else hand_back(cut, program_of(cut.cited, rules), _KEEP[name], strangers=True),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=not_flushed(rules),
        )


def _where(cut: Cut) -> str:
    return f"the policy of {cut.chain}" if cut.policy else f"rule {' '.join(cut.words)} ({cut.cited.excerpt})"


def _names(site: Site, cut: Cut, bridge: str) -> bool:
    """Whether a rule of the same table names a bridge."""
    table = cut.words[1] if cut.native else cut.words[-3]
    return any(
        bridge in rule.cited.excerpt
        for chain in site.host.program.chains.values()
        if chain.table == table and (cut.native or not _dockers(chain.name))
        for rule in chain.rules
    )


def _dockers(chain: str) -> bool:
    """Whether a chain of iptables is Docker's."""
    return chain.startswith("DOCKER")


@check("NET066", Severity.ERROR)
def vendor_chain_stops_containers(
    promises: PROMISES, site: SITE, networks: Networks, rules: EngineRules | None, stale: StaleRules | None
) -> Iterator[Yield]:
    """A chain of a NAS, a VPN or a panel stops packets of containers.

    ## What it is
    The firewalls of NAS systems (Synology, QNAP, UGREEN), panels (CSF) and VPNs (Tailscale,
    ZeroTier) put chains of their own before Docker's rules, or into DOCKER-USER. Such a chain
    lets the LAN pass, and ends in a DROP for everything else: what containers send, and what
    they are answered, is everything else.
    ## What you see
    Everything works until the vendor's firewall is switched on; then containers reach
    nothing outside, and published ports time out.
    ## By hand
    iptables -S
    iptables -L DOCKER-USER -n -v --line-numbers
    ## Cure
    Let that chain hand back what comes from Docker's bridges, and answers to it; whom it
    keeps out stays out. For good: allow Docker's subnets where the vendor's firewall is set
    up, since it writes its chains anew. Nothing stops.
    ## Looks like
    NET029 (a rule in DOCKER-USER itself), NET028 (nobody knows whose chain it is), NET033
    ## Limits
    Whose chain it is goes by its name. What it keeps from coming in is taken to be meant,
    unless the same rule stops ways out. A warning where some networks are spared.
    ## References
    iptables(8), https://github.com/telnetdoogie/synology-docker/issues/8
    """
    if said := idle(promises, networks):
        yield said
        return
    for cut in told_by("NET066", promises, site, rules, stale):
        name = cut.owner.name if cut.owner is not None else ""
        keep = f"allow Docker's subnets in the settings of {name}: it writes its chains anew"
        yield Finding(
            subject=" ".join(cut.words),
            scope=cut.scope,
            title=f"the firewall of {name} {cut.what}",
            message=f"{_where(cut)}, of a chain that {name} writes, stops {cut.stops}",
            evidence=(cut.cited,),
            remedy=let_in(cut, keep)
            if cut.native
            else hand_back(cut, program_of(cut.cited, rules), keep, strangers=False),
            severity=None if cut.whole else Severity.WARNING,
            hits=cut.hits,
            works=cut.works,
            excluded=not_flushed(rules),
        )
