"""What is expected of a container, as packets: its published ports, its way out, its nameserver, its neighbours."""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv4Network, ip_address
from typing import TYPE_CHECKING

from msgspec import structs

from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.engine_rules import ANY
from doctor.facts.name_files import EMBEDDED, NameFiles, is_loopback
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.facts.rules import Firewall
from doctor.model import Command, Looked, Promise, Remedy
from doctor.packets.asked import Asked, NotKnown, host_address, space_of
from doctor.packets.build import SITE
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, Flow
from doctor.packets.packet import number, spell
from doctor.packets.silence import DST_FROZEN
from doctor.packets.site import HOST, Site
from doctor.packets.walk import STRANGERS, follow
from doctor.reports.words import clock
from doctor.snapshot import EvidenceMissing
from doctor.trace import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.examine import Facts
    from doctor.facts.containers import Container, Endpoint, Port
    from doctor.model import HostInfo, Trace
    from doctor.packets.flow import End
    from doctor.packets.packet import Version
    from doctor.packets.walk import Result

MOST = 256
"""Neighbours that one container is asked about."""

_WEB, _DNS = 443, 53
_LISTED = 16
"""Prefixes of a list in DOCKER-USER that are tried as clients."""
_OTHERS: dict[int, str] = {4: "93.184.215.14", 6: "2606:2800:21f:cb07::14"}
"""Strangers of an ordinary range, for hosts that ban those of the documentation (RFC 5737), as many firewalls do."""
_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
_ASKED_TO = frozenset({0, 130, 143})
"""Exit codes of a container that ended by itself, or because it was told to."""


def state(one: Container, host: HostInfo) -> tuple[str, bool]:
    """Say of a container whether it runs, and whether that is as it should be."""
    if one.status == "restarting":
        return f"is restarted again and again, {one.restarts} times so far: {_ended(one)}", False
    if one.running:
        said = "is paused: its processes are frozen" if one.status == "paused" else "runs"
        said += f" since {clock(one.started, host)}" if one.started and one.status != "paused" else ""
        said += f", restarted {one.restarts} times" if one.restarts else ""
        if one.health:
            said += f", {one.health}" + (f" ({one.failing} probes failed in a row)" if one.failing else "")
        return said, one.status != "paused"
    if one.asked.error:
        return f"does not run: its last start failed: {one.asked.error}", False
    if not one.started:
        return "does not run: it was created and never started", not one.asked.ports
    at = f" at {clock(one.finished, host)}" if one.finished else ""
    well = one.exit_code in _ASKED_TO and not one.oom_killed and not one.asked.ports
    return f"does not run: {_ended(one, at)}", well


def _ended(one: Container, at: str = "") -> str:
    signal = _SIGNALS.get(one.exit_code)
    if one.oom_killed:
        return f"it was killed for memory{at} (exit code {one.exit_code})"
    if signal in {"SIGTERM", "SIGINT", "SIGHUP"}:
        return f"it was told to end by {signal}{at} (exit code {one.exit_code})"
    if signal == "SIGKILL":
        return f"it was killed by {signal}{at} (exit code {one.exit_code}), not for memory"
    if signal:
        return f"it crashed, by {signal}{at} (exit code {one.exit_code})"
    return f"it ended{at} with exit code {one.exit_code}"


def _again(one: Container) -> Remedy | None:
    if one.status == "paused":
        return Remedy("let it go on", (Command(("docker", "unpause", one.engine_name)),))
    logs = Command(("docker", "logs", "--tail", "20", one.engine_name))
    if one.running or one.status == "restarting":
        return Remedy("see why it ends", (logs,))
    return Remedy("see why it ended, and start it again", (logs, Command(("docker", "start", one.engine_name))))


def _listed(firewall: Firewall) -> tuple[IPv4Network, ...]:
    """Give the prefixes that rules of DOCKER-USER name as sources."""
    found: dict[IPv4Network, None] = {}
    for chain in firewall.chains("ip", "filter", "DOCKER-USER"):
        for rule in chain.rules:
            named = re.search(r"-s (\S+)", rule.text)
            if named is not None:
                with contextlib.suppress(ValueError):
                    found[IPv4Network(named[1], strict=False)] = None
    return tuple(found)[:_LISTED]


class Promises:
    """Walks what is expected of containers; `missing` says why no packet can be followed on this host."""

    def __init__(self, facts: Facts, host: HostInfo) -> None:
        """Take the site, and what else can be read."""
        self.facts = facts
        self.host = host
        self.walks = 0
        self.missing = ""
        self.site: Site | None = None
        try:
            self.containers: Containers = facts.get(Containers)
            self.processes: Processes = facts.get(Processes)
            daemon: Daemon = facts.get(Daemon)
            if daemon.rootless:
                self.missing = "dockerd runs rootless: its networks and ports are in a namespace of its own"
            else:
                self.site = facts.get(SITE)
        except EvidenceMissing as missing:
            self.missing = str(missing)
        self.files: NameFiles | None = None
        self.networks: Networks | None = None
        self.listed: tuple[IPv4Network, ...] = ()
        with contextlib.suppress(EvidenceMissing):
            self.listed = _listed(facts.get(Firewall))
        with contextlib.suppress(EvidenceMissing):
            self.files = facts.get(NameFiles)
        with contextlib.suppress(EvidenceMissing):
            self.networks = facts.get(Networks)

    def look(
        self,
        one: Container,
        *,
        port: str = "",
        there: tuple[Container, ...] = (),
        back: tuple[Container, ...] = (),
    ) -> Looked:
        """Look at a container: its state, then every promise; with `port` only that one.

        `there` are the neighbours that it should reach, `back` those that should reach it.
        """
        said, well = state(one, self.host)
        promises: list[Promise] = []
        notes: list[str] = []
        unknown: list[str] = []
        settled = one in self.containers.all
        if not settled and one.status != "restarting":
            unknown.append(f"{one.name} came, went or changed while evidence was taken")
        elif one.running and self.site is None:
            unknown.append(f"{one.name}: no packet was followed: {self.missing}")
        elif one.running and self.site is not None:
            asked = _Walks(self, self.site, one, promises, notes)
            steps: tuple[Callable[[], None], ...] = (lambda: asked.ports(port),)
            if not port:
                steps += (asked.outside, asked.names, lambda: asked.neighbours(there, back))
            for step in steps:
                try:
                    step()
                except NotKnown as error:
                    unknown.append(f"{one.name}: {error}")
            self.walks += asked.count
            unknown += asked.unknown
        unknown += [
            f"{held.trace.source} -> {held.trace.target} depends on {held.trace.depends_on}"
            for held in promises
            if held.wanted and held.kept is None
        ]
        if any(held.broken for held in promises):
            well = False
        return Looked(
            name=one.name,
            image=one.image,
            networks=tuple(end.network for end in one.endpoints),
            runs=one.running,
            state=said,
            well=None if well and unknown else well,
            promises=tuple(promises),
            notes=tuple(notes),
            unknown=tuple(dict.fromkeys(unknown)),
            remedy=None if state(one, self.host)[1] else _again(one),
        )


class _Walks:
    """The walks that concern one container."""

    def __init__(self, all_: Promises, site: Site, one: Container, promises: list[Promise], notes: list[str]) -> None:
        self.all = all_
        self.site = site
        self.one = one
        self.promises = promises
        self.notes = notes
        self.unknown: list[str] = []
        self.count = 0

    def walk(
        self,
        kind: str,
        about: str,
        ends: tuple[str, str],
        way: tuple[str, str, int, str],
        client: Container | None = None,
        server: Container | None = None,
        *,
        peer: str = "",
        wanted: bool = True,
    ) -> Promise:
        """Follow one packet. `ends` are source and target in words; `way` namespace, address, port and protocol."""
        space, address, port, protocol = way
        version: Version = 6 if ":" in address else 4
        flow = Flow(
            space,
            number(address),
            port,
            version,
            _PROTOCOLS.get(protocol, ICMP if version == 4 else ICMP6),  # noqa: PLR2004 - IPv4
        )
        result = follow(self.site, flow)
        source = ends[0]
        if result.walk.end.code == "NO_UPLINK" and (near := self._near(flow)):
            # No default route: clients are those of the subnet.
            flow, source = structs.replace(flow, src=near), spell(near, version)
            result = follow(self.site, flow)
        if result.works is False and space == OUTSIDE and flow.src is None:
            other = follow(self.site, structs.replace(flow, src=number(_OTHERS[version])))
            result = other if other.works is not False else result
            if result.works is False:
                flow, source, result = self._listed(flow, source, result)
        self.count += 1
        target = f"{ends[1]} (icmp echo)" if not port else f"{ends[1]}:{port}/{protocol}"
        trace = told(self.site, self.all.facts, Asked(flow, source, target, (), client, server), result)
        doubt = self._doubt(trace, result.walk.decider, server)
        if doubt:
            trace = structs.replace(trace, works=None, by_design=False, depends_on=trace.depends_on or doubt)
        kept = trace.works
        if kept:
            trace = structs.replace(trace, steps=(), reply_steps=())
        # That a neighbour stands still is a matter of its own.
        wanted = wanted and not trace.by_design and not (kind == "neighbour" and trace.code == DST_FROZEN)
        made = Promise(kind, about, peer, kept, wanted, structs.replace(trace, coverage=""))
        self.promises.append(made)
        return made

    def _doubt(self, trace: Trace, end: End, server: Container | None) -> str:
        """Say what a walk that ends badly depends on, where that is more than the model knows; empty where it is sure."""
        if trace.works is not False:
            return ""
        if server is not None and server.asked.own_kernel and trace.code.startswith("DST_"):
            return f"the network stack of its own that {server.name} has"
        if self.site.host.missing:  # it may send a packet elsewhere: where this one ended is one way of several
            return f"what was not read: {self.site.host.missing}"
        if trace.code.startswith("FORWARDING_OFF") and end.space != HOST:
            name = self.site.spaces[end.space].name if end.space in self.site.spaces else end.space
            return f"whether {name} forwards packets: settings inside of containers are not read"
        return ""

    def _listed(self, flow: Flow, source: str, result: Result) -> tuple[Flow, str, Result]:
        """Try the clients that a list of DOCKER-USER lets in, where it lets in no stranger: that is meant so."""
        end = result.walk.decider
        if end.code != "DOCKER_USER_DROP" or flow.version != 4:  # noqa: PLR2004 - IPv4
            return flow, source, result
        for prefix in self.all.listed:
            first = number(str(prefix.network_address)) + (1 if prefix.prefixlen < 31 else 0)  # noqa: PLR2004 - a host's
            tried = structs.replace(flow, src=first)
            other = follow(self.site, tried)
            if other.works:
                said = f"{flow.dport}: of those outside, clients of {prefix} are let in by a list in DOCKER-USER"
                self.notes.append(said)
                return tried, spell(first, 4), other
        return flow, source, result

    def _near(self, flow: Flow) -> int | None:
        """Give an address in the subnet of one of the host's addresses that is not its own."""
        for near in (flow.dst ^ 1, flow.dst ^ 2, flow.dst ^ 3):
            if not self.site.host.holds(near, flow.version) and near & 0xFF not in {0, 0xFF}:
                return near
        return None

    # Ports

    def ports(self, only: str) -> None:
        """Walk from outside and from this host to each published port; with `only` (`80/tcp`) to that one."""
        seen: set[tuple[int, str, str]] = set()
        held = [one for one in self.one.ports if not only or f"{one.host}/{one.protocol}" == only]
        fours = {(one.host, one.protocol) for one in held if ":" not in one.host_ip}
        for port in held:
            number_ = f"{port.host}" if port.protocol == "tcp" else f"{port.host}/{port.protocol}"
            if port.protocol not in _PROTOCOLS:
                self.notes.append(f"{number_}: packets of {port.protocol} are not followed")
                continue
            six = ":" in port.host_ip
            if six and (port.host, port.protocol) in fours:
                continue  # the same for IPv6
            any_ = port.host_ip in ANY
            loops = is_loopback(port.host_ip)
            key = (port.host, port.protocol, "" if any_ else port.host_ip)
            if key in seen:
                continue
            seen.add(key)
            if not loops and not (any_ and six):
                address = host_address(self.site) if any_ else port.host_ip
                self._to(port, number_, OUTSIDE, OUTSIDE, "host" if any_ else address, address)
            near = ("::1" if six else "127.0.0.1") if any_ else port.host_ip
            self._to(port, number_, HOST, HOST, near, near)
            if loops:
                self.notes.append(f"{number_} is published on {port.host_ip}: for this host alone")

    def _to(self, port: Port, about: str, source: str, space: str, name: str, address: str) -> None:
        shown = f"[{name}]" if ":" in name else name
        self.walk("port", about, (source, shown), (space, address, port.host, port.protocol), None, self.one)

    # The way out

    def outside(self) -> None:
        """Walk to an address that nobody on this host has."""
        one = self.one
        why = self._kept_in()
        if why:
            self.notes.append(why)
            return
        six = bool(one.endpoints) and not any(end.address for end in one.endpoints) and one.own_network
        version: Version = 6 if six and any(end.address6 for end in one.endpoints) else 4
        stranger = STRANGERS[version]
        own = follow(self.site, Flow(HOST, number(stranger), _WEB, version)).walk.end
        if own.code == "SRC_NO_ROUTE" and own.space == HOST:
            self.unknown.append("this host has no default route: whether anything here is meant to have a way out")
            return
        if follow(self.site, Flow(self._space(), number(stranger), _WEB, version)).works is False:
            flow = Flow(self._space(), number(_OTHERS[version]), _WEB, version)
            stranger = _OTHERS[version] if follow(self.site, flow).works is not False else stranger
        name = f"[{stranger}]" if version == 6 else stranger  # noqa: PLR2004 - IPv6
        self.walk("outside", "outside", (one.engine_name, name), (self._space(), stranger, _WEB, "tcp"), one)

    def _space(self) -> str:
        return space_of(self.one, self.site, self.all.processes)

    def _kept_in(self) -> str:
        """Say why it is meant to have no way out; empty where it should have one."""
        one = self.one
        if one.network_mode == "none":
            return "it has no network (none): no way out, by design"
        inner = {net.id for net in self.all.networks.all if net.internal} if self.all.networks is not None else set()
        if one.own_network and one.endpoints and all(end.network_id in inner for end in one.endpoints):
            names = ", ".join(end.network for end in one.endpoints)
            return f"{names}: internal, no way out, by design"
        return ""

    # Nameservers

    def names(self) -> None:
        """Walk to each nameserver: it is enough that one of them is reached."""
        files = self.all.files
        one = self.one
        if one.network_mode.startswith("container:") or one.network_mode == "none" or not (one.endpoints or files):
            return
        if files is None:
            self.unknown.append(f"{one.name}: its nameservers could not be read")
            return
        if one.network_mode == "host":
            self._servers([(server, HOST) for server in files.host.servers])
            return
        held = files.containers.get(one.id)
        if held is None or held.resolv.missing:
            why = held.resolv.missing if held is not None else "not read"
            if why != "mounted":
                self.unknown.append(f"{one.name}: its resolv.conf: {why}")
            return
        space = self._space()
        servers = held.resolv.servers
        if EMBEDDED not in servers:
            self._servers([(server, space) for server in servers])
            return
        self._servers([(EMBEDDED, space)])
        if self._kept_in():
            return
        behind = held.resolv.behind
        if behind is None:
            behind = tuple((server, False) for server in one.asked.dns or files.source.beyond)
        self._servers([(server, HOST if from_host else space) for server, from_host in behind])

    def _servers(self, servers: list[tuple[str, str]]) -> None:
        made = []
        for text, space in servers:
            address = text.partition("%")[0]
            try:
                ip_address(address)
            except ValueError:
                continue
            name = f"[{address}]" if ":" in address else address
            source = HOST if space == HOST else self.one.engine_name
            client = None if space == HOST else self.one
            made.append(self.walk("nameserver", address, (source, name), (space, address, _DNS, "udp"), client))
        if any(held.kept for held in made):
            for held in made:
                if not held.kept:
                    self.promises[self.promises.index(held)] = structs.replace(held, wanted=False)

    # Neighbours

    def neighbours(self, there: tuple[Container, ...], back: tuple[Container, ...]) -> None:
        """Walk to each neighbour on a common network, and from it."""
        for peer, mine, its in self._pairs(there):
            self._between(self.one, peer, its, mine)
        for peer, mine, _ in self._pairs(back):
            self._between(peer, self.one, mine, mine)

    def _pairs(self, others: tuple[Container, ...]) -> Iterator[tuple[Container, Endpoint, Endpoint]]:
        known = {net.id for net in self.all.networks.all} if self.all.networks is not None else None
        for mine in self.one.endpoints:
            if known is not None and mine.network_id not in known:
                continue  # macvlan and overlay networks are not modelled
            for peer in others:
                if peer.id == self.one.id or not peer.running or not peer.own_network:
                    continue
                its = next((end for end in peer.endpoints if end.network_id == mine.network_id), None)
                if its is not None and (its.address or its.address6):
                    yield peer, mine, its

    def _between(self, client: Container, server: Container, end: Endpoint, mine: Endpoint) -> None:
        address = end.address or end.address6
        space = space_of(client, self.site, self.all.processes)
        inside = self.site.spaces[space_of(server, self.site, self.all.processes)]
        heard = [one.port for one in inside.listeners if one.protocol == "tcp" and one.takes(address)]
        exposed = [port for port, protocol in server.exposed if protocol == "tcp" and port in heard]
        port = min(exposed or heard, default=0)
        name = f"[{address}]" if ":" in address and port else address
        peer = server if client is self.one else client
        self.walk(
            "neighbour",
            mine.network,
            (client.engine_name, name),
            (space, address, port, "tcp" if port else ""),
            client,
            server,
            peer=peer.name,
        )
