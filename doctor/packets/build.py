"""The site of a snapshot: every namespace that was read, joined by its veths, with the rules compiled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Containers
from doctor.facts.links import Links, Namespace, Namespaces, Route, Routes
from doctor.facts.processes import Processes
from doctor.facts.proxies import Proxies
from doctor.facts.routes import Routing, routing_of
from doctor.facts.rules import Firewall, Tables, parse_save
from doctor.facts.sockets import Listener, Sockets, read_listeners
from doctor.facts.sysctls import Sysctls, Value
from doctor.model import Citation
from doctor.packets import iptables, nft
from doctor.packets.packet import Version, number
from doctor.packets.program import Program, joined
from doctor.packets.site import HOST, Neighbour, Port, Site, Space, Spaces
from doctor.packets.twins import twins
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot, tree_entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.facts.links import Link

_BITS: dict[Version, int] = {4: 32, 6: 128}


class _Neighbour(Struct):
    dst: str = ""
    dev: str = ""
    lladdr: str = ""
    state: list[str] = field(default_factory=list)


@fact
def site(
    snapshot: Snapshot,
    links: Links,
    routes: Routes,
    routing: Routing,
    namespaces: Namespaces,
    firewall: Firewall | None,
    sysctls: Sysctls | None,
    proxies: Proxies | None,
    containers: Containers | None,
    processes: Processes | None,
    sockets: Sockets | None,
) -> Site:
    """Join what was read. Rules of the host that could not be read leave it with a word in `missing`."""
    names = _names(containers, processes)
    program = host_program(snapshot, firewall)
    host = Space(
        HOST,
        HOST,
        links.by_name,
        routing,
        _locals(routes.all),
        program,
        read_listeners(snapshot.get("netns/host/listeners"), ""),
        _neighbours(snapshot.get("netns/host/neighbours")),
        _sysctls(snapshot, sysctls),
        program.unread if firewall is not None else "the rules of the host could not be read",
    )
    heard = {sockets.space[one]: held for one, held in sockets.containers.items()} if sockets is not None else {}
    makers: dict[str, Callable[[], Space]] = {HOST: lambda: host}
    for inode, held in namespaces.by_inode.items():
        makers[inode] = partial(_space, snapshot, held, names.get(inode, inode), heard.get(inode))
    by_name = {HOST: links.by_name}
    by_name |= {inode: {link.name: link for link in held.links} for inode, held in namespaces.by_inode.items()}
    proxied = proxies.by_port if proxies is not None else {}
    spaces = Spaces(makers, heard, partial(twins, snapshot, namespaces.by_inode))
    return Site(spaces, by_name, _peers(links, namespaces), proxied)


def _names(containers: Containers | None, processes: Processes | None) -> dict[str, str]:
    """Name each namespace by the container that made it."""
    found: dict[str, str] = {}
    for one in containers.running if containers is not None and processes is not None else ():
        process = processes.by_pid.get(one.pid) if processes is not None else None
        if process is not None and process.net and (one.own_network or process.net not in found):
            found[process.net] = one.name
    return found


def host_program(snapshot: Snapshot, firewall: Firewall | None) -> Program:
    """Compile what the savers and nft print. What iptables-nft holds is in nft's listing too, and is not read twice."""
    programs = []
    read: frozenset[str] = frozenset()
    if firewall is not None:
        # Legacy tables register their hooks when they are loaded, before any rule of nf_tables on most hosts.
        ordered = sorted(firewall.tables, key=lambda one: one.backend != "legacy")
        programs.append(iptables.compile_tables(ordered))
        read = frozenset(one.family for one in ordered if one.backend == "nft" and not one.unread)
        programs += [
            Program(unread=f"{one.record}: {one.unread}")
            for one in ordered
            if one.backend == "legacy" and snapshot.get(one.record).status in {"denied", "timeout", "failed"}
        ]
    listing, elements = snapshot.get("net/nft"), snapshot.get("net/nft-sets")
    programs.append(nft.compile_ruleset(listing, managed=read, elements=elements))
    return joined(programs)


def _space(snapshot: Snapshot, held: Namespace, name: str, heard: tuple[Listener, ...] | None) -> Space:
    program = _inner_program(snapshot, held.inode, name)
    return Space(
        held.inode,
        name,
        {link.name: link for link in held.links},
        routing_of(snapshot.get(f"netns/{held.inode}/rules"), Routes(held.routes)),
        _locals(held.routes),
        program,
        heard if heard is not None else read_listeners(snapshot.get(f"netns/{held.inode}/listeners"), f"{name}: "),
        _neighbours(snapshot.get(f"netns/{held.inode}/neighbours")),
        missing=held.missing or program.unread,
    )


def _inner_program(snapshot: Snapshot, inode: str, name: str) -> Program:
    """Compile the rules inside a container; a record that was not made says that there are none."""
    programs = []
    for family, word in (("ip", "iptables"), ("ip6", "ip6tables")):
        record = snapshot.get(f"netns/{inode}/{word}")
        if record.readable and record.data:
            chains, damage = parse_save(record.text, record.name, f"{name}: ")
            programs.append(iptables.compile_tables([Tables(family, "nft", record.name, chains, "", damage)]))
        elif not record.readable and record.status not in {"not-run", "absent"}:
            programs.append(Program(unread=f"{word} inside: {record.why or record.status}"))
    own = snapshot.get(f"netns/{inode}/nft")
    programs.append(nft.compile_ruleset(own, managed=nft.FAMILIES, whose=f"{name}: "))
    return joined(programs)


def _locals(routes: tuple[Route, ...]) -> dict[Version, tuple[tuple[int, int, str, str], ...]]:
    """Give the rows of table local: first and last address, type, device; the longest prefixes first."""
    found: dict[Version, list[tuple[int, int, int, str, str]]] = {4: [], 6: []}
    for route in routes:
        if route.table != "local":
            continue
        version: Version = 6 if route.version == 6 else 4  # noqa: PLR2004 - IPv6
        address, _, length = route.dst.partition("/")
        try:
            first = number(address)
            spare = _BITS[version] - int(length or _BITS[version])
        except ValueError:
            continue
        found[version].append((spare, first, first + (1 << spare) - 1, route.type, route.dev))
    return {version: tuple(row[1:] for row in sorted(rows)) for version, rows in found.items()}


def _neighbours(record: Record) -> tuple[Neighbour, ...]:
    """Read what `ip -j neigh` prints, one object a line or a list on one line."""
    found = []
    for raw in record.data.split(b"\n") if record.readable else ():
        line = raw.strip().rstrip(b",")
        try:
            rows = (
                msgspec.json.decode(line, type=list[_Neighbour])
                if line.startswith(b"[{")
                else [msgspec.json.decode(line, type=_Neighbour)]
                if line.startswith(b"{")
                else []
            )
        except UNDECODABLE:
            continue
        found += [Neighbour(one.dev, one.dst, one.lladdr, one.state[0] if one.state else "") for one in rows]
    return tuple(found)


def _sysctls(snapshot: Snapshot, sysctls: Sysctls | None) -> dict[str, Value]:
    values = dict(sysctls.values) if sysctls is not None else {}
    tree = snapshot.get("net/sysctl/bridge")
    for entry in tree_entries(tree) if tree.readable else ():
        if entry.type == "f":
            place = f"/proc/sys/net/bridge/{entry.path}"
            values[f"bridge/{entry.path}"] = Value(
                entry.content.strip(), Citation(tree.name, entry.line, entry.content.strip(), place)
            )
    return values


def _peers(links: Links, namespaces: Namespaces) -> dict[Port, Port]:
    """Pair the veths: the index that one end names is the other's, and back. Those between two containers are left out."""
    found: dict[Port, Port] = {}
    for inode, held in namespaces.by_inode.items():
        for link in held.links:
            other: Link | None = links.by_index.get(link.peer) if link.kind == "veth" else None
            if other is not None and other.kind == "veth" and other.peer == link.index:
                found[inode, link.name] = (HOST, other.name)
                found[HOST, other.name] = (inode, link.name)
    return found


SITE = Site
"""The type that the fact above gives: who asks for it has imported this module, and the fact is known."""
