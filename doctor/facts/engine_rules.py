"""The firewall rules that the running engine would write for what it knows, beside those that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.engine.rules import (
    DIALECTS,
    Binding,
    Bridge,
    Dialect,
    Endpoint,
    Family,
    Link,
    Ruleset,
    Site,
    dialect,
    native,
)
from doctor.engine.rules.compare import Difference, compare
from doctor.engine.rules.native import Native
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.containers import Endpoint as Place
from doctor.facts.daemon import Daemon, Starting
from doctor.facts.links import Links
from doctor.facts.networks import Network, Networks
from doctor.facts.rules import Firewall, Tables
from doctor.model import Command
from doctor.places import Places
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

SWITCHED_OFF = "iptables is switched off"
"""Why an engine that was told so writes no rules."""

NATIVE = "the firewall back end is nftables"
"""Why an engine writes none through iptables."""

ANY = {"", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


class FamilyRules(Struct, frozen=True):
    """One family: what the engine would have written, the back end where it is looked for, and what differs.

    `program` is what writes there: `iptables` or `ip6tables`, with the back end where that is not what the name stands for.
    """

    family: Family
    expected: Ruleset
    tables: Tables
    difference: Difference
    program: str = "iptables"

    def lacks(self, table: str) -> bool:
        """Whether a table holds nothing at all of what the engine wrote."""
        held = {key: one for key, one in self.expected.chains.items() if key[0] == table}
        return all(self.difference.lacking(*key) == tuple(rule.text for rule in rules) for key, rules in held.items())

    @property
    def put_back(self) -> Command:
        """The command that puts back what is missing, and stops nothing."""
        family = " --ipv6" if self.family == "ip6" else ""
        return Command(("sh", "-c", f"doctor rules --missing{family} | {self.program}-restore --noflush"))


class EngineRules(Struct, frozen=True):
    """The families that the engine writes rules of.

    `dialect` names the generation, `live` says whether it was compared with a live engine of this release; `off` says why
    the engine writes no rules through iptables, empty when it does. `proxy`: docker-proxy runs for published ports.
    `native` are the tables that it writes to nftables itself; they are compared with nothing.
    """

    dialect: str
    live: bool
    off: str
    families: tuple[FamilyRules, ...]
    proxy: bool = True
    native: tuple[Native, ...] = ()

    def of(self, family: Family) -> FamilyRules | None:
        """Give a family, None when the engine writes nothing of it."""
        return next((one for one in self.families if one.family == family), None)

    @property
    def put_back(self) -> tuple[Command, ...]:
        """The commands that put back what is missing, a family each; empty when nothing is."""
        lacking = [one for one in self.families if one.difference.missing or one.difference.chains]
        return tuple(one.put_back for one in lacking)

    @property
    def missing(self) -> int:
        """How many rules are missing in all."""
        return sum(len(one.difference.missing) for one in self.families)


@fact
def engine_rules(
    snapshot: Snapshot,
    places: Places,
    daemon: Daemon,
    options: Options,
    firewall: Firewall,
    networks: Networks,
    containers: Containers,
    links: Links | None,
    starting: Starting,
) -> EngineRules:
    """Write the rules as the engine would, and compare."""
    if not daemon.pid:
        raise EvidenceMissing("daemon", "dockerd does not run: what it would write is not known")
    if starting.why:
        raise EvidenceMissing("daemon", starting.why)
    for key in ("iptables", "ip6tables", "userland-proxy", "allow-direct-routing", "firewall-backend"):
        if not options.known(key):
            raise EvidenceMissing("daemon.json", options.unread)
    if _native(firewall, options):
        told = _site(snapshot, daemon, options, networks, containers, links) if containers.complete else None
        return EngineRules("29 nftables", live=False, off=NATIVE, families=(), native=_natives(told))
    if not containers.complete:
        raise EvidenceMissing("API", "a container could not be inspected")

    def written(daemon: Daemon, found: Dialect) -> EngineRules:
        site = _site(snapshot, daemon, options, networks, containers, links)
        return _as_it_runs(site, found, firewall, options, places)

    if daemon.generation == (0, 0):
        return _by_shape(daemon, written)
    found, live = dialect(daemon.release)
    # What calls itself by no release may be built from a changed source, whatever its API says.
    return msgspec.structs.replace(written(daemon, found), live=live and daemon.release == daemon.version)


def _by_shape(daemon: Daemon, written: Callable[[Daemon, Dialect], EngineRules]) -> EngineRules:
    """Take the rules of the generation whose rules are there, of an engine that does not say which it is."""
    every = []
    for one in DIALECTS:
        release = ".".join(map(str, one.since)) if any(one.since) else one.name
        rules = written(msgspec.structs.replace(daemon, version=release), one)
        strange = sum(len(family.difference.missing) + len(family.difference.extra) for family in rules.families)
        held = sum(len(family.expected.own) - len(family.difference.chains) for family in rules.families)
        every.append((strange, -held, rules))
    strange, held, rules = min(reversed(every), key=lambda one: one[:2])
    if not held and not rules.off:
        raise EvidenceMissing("daemon", "neither dockerd nor the chains that are there say which generation it is")
    return rules


def _as_it_runs(site: Site, found: Dialect, firewall: Firewall, options: Options, places: Places) -> EngineRules:
    """Write the rules of a generation, and compare."""
    choice: tuple[tuple[Family, bool], ...] = (("ip", site.iptables), ("ip6", site.ip6tables))
    on = {family: _backend(firewall, family, found.chains, places.iptables) for family, wanted in choice if wanted}
    families = [_compared(site, family, tables, found, places) for family, tables in on.items()]
    if "userland-proxy" not in options.running and any(one.difference.missing for one in families):
        # A file that was edited since the start says what the next one will do: what stands there tells the two apart.
        other = msgspec.structs.replace(site, proxy=not site.proxy)
        others = [_compared(other, family, tables, found, places) for family, tables in on.items()]
        if sum(len(one.difference.missing) for one in others) < sum(len(one.difference.missing) for one in families):
            site, families = other, others
    return EngineRules(
        found.name, live=False, off="" if families else SWITCHED_OFF, families=tuple(families), proxy=site.proxy
    )


def _natives(site: Site | None) -> tuple[Native, ...]:
    """Give the tables that the engine writes to nftables itself; none where a container is not known."""
    if site is None or not site.iptables:
        return ()
    families: tuple[Family, ...] = ("ip", "ip6") if site.ip6tables else ("ip",)
    return tuple(native.write(site, family) for family in families)


def _compared(site: Site, family: Family, tables: Tables, spoken: Dialect, places: Places) -> FamilyRules:
    expected = spoken.write(_as_seen(site, tables), family)
    there = {key: tuple(rule.text for rule in chain.rules) for key, chain in tables.chains.items()}
    difference = compare(expected, there, frozenset(one.name for one in site.bridges))
    return FamilyRules(family, expected, tables, difference, _program(places, tables))


def _program(places: Places, tables: Tables) -> str:
    """Name what writes to a back end: `iptables` where that stands for it."""
    name = "iptables" if tables.family == "ip" else "ip6tables"
    return name if places.iptables in {"", f"iptables-{tables.backend}"} else f"{name}-{tables.backend}"


def _native(firewall: Firewall, options: Options) -> bool:
    """Whether an engine writes to nftables itself: its table says so, else its options.

    A file that was edited since the start says what the next one will do: where chains of iptables stand and no table of
    its own, the engine that runs wrote those.
    """
    chains = any(name == "DOCKER" for tables in firewall.tables for _, name in tables.chains)
    own = any(name.endswith(f" {native.TABLE}") for name in firewall.nft_tables)
    told = options.value("firewall-backend") == "nftables"
    return (own and (told or not chains)) or (told and not chains)


def _backend(firewall: Firewall, family: str, chains: tuple[tuple[str, str], ...], usual: str) -> Tables:
    """Give the back end that the engine writes to: the one with most of its chains, else what `iptables` stands for."""
    found = firewall.of(family)
    if not found:
        unread = next(one for one in firewall.tables if one.family == family)
        raise EvidenceMissing("firewall", f"{unread.record}: {unread.unread}")

    def known(one: Tables) -> tuple[int, bool]:
        return sum(one.chain(*chain) is not None for chain in chains), usual == f"iptables-{one.backend}"

    tables = max(found, key=known)
    if tables.damage:
        raise EvidenceMissing("firewall", f"the text of {tables.record} cannot be read: {tables.damage}")
    return tables


def _site(
    snapshot: Snapshot,
    daemon: Daemon,
    options: Options,
    networks: Networks,
    containers: Containers,
    links: Links | None,
) -> Site:
    environment = snapshot.get("engine/environ")
    names = {one.partition("=")[0] for one in environment.text.replace("\0", "\n").split("\n")}
    v6 = options.origin("ip6tables")
    bridges = tuple(_bridge(one) for one in sorted(networks.all, key=lambda one: (one.created, one.name)))
    by_id = {one.id: one for one in networks.all}
    running = sorted(containers.running, key=lambda one: (one.started, one.name))
    named = {one.engine_name: one for one in running}
    return Site(
        iptables=_on(options, "iptables"),
        # Until 26 it was off, and needed the flag `experimental`.
        ip6tables=_on(options, "ip6tables")
        and (daemon.generation >= (27, 0) or (v6 is not None and options.on("experimental"))),
        proxy=_on(options, "userland-proxy"),
        direct=_on(options, "allow-direct-routing"),
        raw="DOCKER_INSECURE_NO_IPTABLES_RAW" not in names,
        mark=_mark(options.value("bridge-accept-fwmark")),
        # The engine asks for /usr/bin/wslinfo too, which nothing but WSL has, as this link.
        mirrored=links is not None and "loopback0" in links.by_name,
        bridges=bridges,
        endpoints=tuple(end for one in running for end in _endpoints(one, by_id, classic=daemon.generation < (28, 0))),
        links=tuple(link for one in running for link in _links(one, by_id, named)),
    )


def _on(options: Options, key: str) -> bool:
    """Whether a switch is on in the dockerd that runs, as far as that can be told."""
    told = options.running.get(key)
    return told.value.lower() in {"true", "1", "t"} if told is not None else options.on(key)


def _mark(value: str) -> str:
    """Spell a mark as iptables-save does: `1/0xf` is `0x1/0xf`; empty for what is none."""
    parts = value.split("/")
    try:
        return "/".join(f"{int(part, 0):#x}" for part in parts if part)
    except ValueError:
        return ""


def _bridge(network: Network) -> Bridge:
    subnets: dict[int, str] = {}
    for subnet in network.subnets:
        subnets.setdefault(subnet.version, str(subnet))
    options = network.options
    return Bridge(
        name=network.bridge,
        subnet4=subnets.get(4, "") if network.ipv4 else "",
        subnet6=subnets.get(6, "") if network.ipv6 else "",
        internal=network.internal,
        icc=network.on("enable_icc"),
        masquerade=network.on("enable_ip_masquerade"),
        mode4=network.option("gateway_mode_ipv4") or "nat",
        mode6=network.option("gateway_mode_ipv6") or "nat",
        snat4=options.get("com.docker.network.host_ipv4", ""),
        snat6=options.get("com.docker.network.host_ipv6", ""),
        trusted=tuple(one for one in network.option("trusted_host_interfaces").split(":") if one),
    )


def _endpoints(one: Container, networks: dict[str, Network], *, classic: bool) -> list[Endpoint]:
    """Give the endpoints in bridge networks; the ports belong to the network that is the container's way out."""
    ends = [end for end in one.endpoints if end.network_id in networks and (end.address or end.address6)]
    ends.sort(key=lambda end: (end.network not in {one.network_mode, "bridge"}, end.network))
    way4, way6 = _way_out(ends, networks, 4), _way_out(ends, networks, 6)
    found = []
    for end in ends:
        bindings = [
            binding
            for binding in _bindings(one, classic=classic)
            if end is (way6 if ":" in binding.host_ip and way6 else way4 or way6)
        ]
        found.append(Endpoint(networks[end.network_id].bridge, end.address, end.address6, tuple(bindings)))
    return found


def _way_out(ends: list[Place], networks: dict[str, Network], version: int) -> Place | None:
    """Choose as libnetwork does: by priority, then the one with more gateways, then by name; internal ones never."""
    able = [
        end
        for end in ends
        if not networks[end.network_id].internal and (end.address if version == 4 else end.address6)  # noqa: PLR2004
    ]
    return min(
        able, key=lambda end: (-end.priority, -(bool(end.gateway) + bool(end.gateway6)), end.network), default=None
    )


_ORDER = {"tcp": 6, "udp": 17, "sctp": 132}


def _bindings(one: Container, *, classic: bool) -> list[Binding]:
    """Give what is published in the order in which the engine takes it.

    From 28 on ports asked for by number come first, then by the container's port, the protocol, the port and the address of
    the host. Before, the highest port of the container comes first; where a higher one of the host goes to a lower one of the
    container, the order is that of a map (go-connections nat/sort.go), and this one only the most likely.
    """
    asked = {(port.container, port.protocol, port.host) for port in one.asked.ports}

    def key(port: Port) -> tuple[object, ...]:
        address = port.host_ip if port.host_ip not in ANY else ""
        if classic:
            return (-port.container, port.protocol != "tcp", -port.host, address)
        chosen = bool(port.host) and (port.container, port.protocol, port.host) not in asked
        return (chosen, port.container, _ORDER.get(port.protocol, 255), port.host, address)

    ports = sorted((*one.ports, *one.opened), key=key)
    return [Binding(port.container, port.protocol, port.host, port.host_ip) for port in ports]


def _links(one: Container, networks: dict[str, Network], named: dict[str, Container]) -> list[Link]:
    """Give the legacy links of a container to others on the default bridge, where containers may not talk."""
    found = []
    for target, _ in one.asked.links:
        child = named.get(target)
        for end in one.endpoints:
            network = networks.get(end.network_id)
            if child is None or network is None or network.on("enable_icc") or not end.address:
                continue
            other = next((its for its in child.endpoints if its.network_id == network.id), None)
            if other is not None and other.address and network.bridge == "docker0":
                found.append(Link(network.bridge, end.address, other.address, tuple(sorted(child.exposed))))
    return found


def _as_seen(site: Site, tables: Tables) -> Site:
    """Put the networks in the order in which their rules stand: after a restart it is that of a map."""
    known = {bridge.name for bridge in site.bridges}
    for chain, option, last_first in (
        ("DOCKER-CT", "-o", False),
        ("DOCKER-ISOLATION-STAGE-2", "-o", True),
    ):
        held = tables.chain("filter", chain)
        if held is None:
            continue
        seen = [rule.text.split(" ")[1] for rule in held.rules if rule.text.startswith(f"{option} ")]
        seen = [name for name in (reversed(seen) if last_first else seen) if name in known]
        rank = {name: index for index, name in enumerate(dict.fromkeys(seen))}
        if len(rank) > 1:
            inner = [bridge for bridge in site.bridges if bridge.name in rank]
            inner.sort(key=lambda bridge: rank[bridge.name])
            places = iter(inner)
            mixed = tuple(next(places) if bridge.name in rank else bridge for bridge in site.bridges)
            return msgspec.structs.replace(site, bridges=mixed)
    return site
