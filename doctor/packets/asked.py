"""From words to a flow: `web1`, `host:8080`, `outside`, `10.7.0.3:5432/udp`, as `doctor trace` takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, Flow
from doctor.packets.packet import number
from doctor.packets.site import HOST

if TYPE_CHECKING:
    from doctor.facts.containers import Containers, Endpoint
    from doctor.facts.processes import Processes
    from doctor.packets.packet import Version
    from doctor.packets.site import Site

PORTS = 65535


class NotKnown(Exception):  # noqa: N818 - it is the user's word that is not known
    """A name, address or port that is none; the text says which, and what there is."""


class Asked(Struct, frozen=True):
    """What was asked: the flow, its ends in words, and what is to be said of the names.

    `client` and `server` are the containers at its ends, None where there is none.
    """

    flow: Flow
    source: str
    target: str
    notes: tuple[str, ...]
    client: Container | None
    server: Container | None


class _Target(Struct, frozen=True):
    name: str
    port: int
    protocol: str


def asked(source: str, target: str, site: Site, containers: Containers, processes: Processes) -> Asked:
    """Read both ends. Raises NotKnown."""
    wanted = _target(target)
    client = _container(source, containers)
    space, src = _source(source, client, site, processes)
    server = _container(wanted.name, containers)
    notes: list[str] = []
    if server is not None:
        address, said = _address(client, server, space)
        notes += said
    else:
        address = _number(wanted.name, site, space, containers)
    version: Version = 6 if ":" in address else 4
    protocols = {"tcp": TCP, "udp": UDP, "icmp": ICMP if version == 4 else ICMP6}  # noqa: PLR2004 - IPv4
    flow = Flow(space, number(address), wanted.port, version, protocols[wanted.protocol], src)
    if src is not None and (src >> 32 > 0) != (version == 6):  # noqa: PLR2004 - IPv6
        raise NotKnown(f"{source} and {address} are of two versions of IP")
    shown = f"[{wanted.name}]" if ":" in wanted.name else wanted.name
    text = shown + (f":{wanted.port}/{wanted.protocol}" if wanted.port else f" ({wanted.protocol} echo)")
    return Asked(flow, source, text, tuple(notes), client, server)


def _target(text: str) -> _Target:
    """Read `NAME[:PORT][/PROTOCOL]`; without a port it is a ping."""
    rest, _, protocol = text.partition("/")
    if protocol not in {"", "tcp", "udp", "icmp"}:
        raise NotKnown(f"{text}: the protocol is tcp, udp or icmp")
    if rest.startswith("["):
        name, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") > 1:
        name, port = rest, ""
    else:
        name, _, port = rest.partition(":")
    if not name:
        raise NotKnown(f"{text}: to whom? a container, host:PORT or an address")
    if not port:
        if protocol in {"tcp", "udp"}:
            raise NotKnown(f"{text}: to which port?")
        return _Target(name, 0, "icmp")
    if not port.isdecimal() or not 0 < int(port) <= PORTS:
        raise NotKnown(f"{text}: {port} is no port")
    if protocol == "icmp":
        raise NotKnown(f"{text}: icmp has no ports")
    return _Target(name, int(port), protocol or "tcp")


def _container(name: str, containers: Containers) -> Container | None:
    """Find a container by the name that a person or docker gives it, or by the beginning of its id."""
    for one in containers.all:
        if name in {one.name, one.engine_name, one.id}:
            return one
    if len(name) >= 12:  # noqa: PLR2004 - as docker ps prints it
        return next((one for one in containers.all if one.id.startswith(name)), None)
    return None


def _source(name: str, client: Container | None, site: Site, processes: Processes) -> tuple[str, int | None]:
    """Give the namespace that a packet starts in, and its address where that is asked for."""
    if name == HOST:
        return HOST, None
    if name == OUTSIDE:
        return OUTSIDE, None
    if client is not None:
        return space_of(client, site, processes), None
    try:
        address = number(name)
    except ValueError:
        raise NotKnown(f"{name}: no container, no address, not host and not outside") from None
    owner = site.owner(address, 6 if ":" in name else 4)
    return (owner.id if owner is not None else OUTSIDE), address


def space_of(one: Container, site: Site, processes: Processes) -> str:
    """Give the namespace that a container's processes are in. Raises NotKnown."""
    if not one.running:
        raise NotKnown(f"{one.name} does not run")
    process = processes.by_pid.get(one.pid)
    if process is not None and process.net in site.spaces:
        return process.net
    if one.network_mode == "host":
        return HOST
    raise NotKnown(f"the network namespace of {one.name} could not be read")


def _address(client: Container | None, server: Container, space: str) -> tuple[str, list[str]]:
    """Give the address of a container that another end would use, and what is to be said of its name."""
    if not server.running:
        raise NotKnown(f"{server.name} does not run")
    mine = {end.network_id for end in client.endpoints} if client is not None else set()
    shared = [end for end in server.endpoints if end.network_id in mine and (end.address or end.address6)]
    ends = shared or [end for end in server.endpoints if end.address or end.address6]
    if not ends:
        raise NotKnown(f"{server.name} has no address (network mode {server.network_mode})")
    end = ends[0]
    address = end.address or end.address6
    if client is None or space in {HOST, OUTSIDE}:
        return address, [f"{server.name} has {address} on {end.network}"]
    return address, [_naming(client, server, shared, end, address)]


def _naming(client: Container, server: Container, shared: list[Endpoint], end: Endpoint, address: str) -> str:
    """Say whether the client can resolve the server's name: only user-defined networks have a DNS for names."""
    aliases = [alias for name, alias in client.asked.links if name == server.engine_name]
    if aliases:
        return f"{aliases[0]} is known in {client.name} by --link: {address}"
    if any(one.network != "bridge" for one in shared):
        return f"{server.engine_name} is known in {client.name}: {address} on {end.network}"
    if all(one.network == "bridge" for one in client.endpoints):
        why = "the default network has no DNS for names"
    else:
        why = "they share no network"
    return f"{server.engine_name} is not known in {client.name}: {why}. Followed to its address on {end.network}, {address}"


def host_address(site: Site) -> str:
    """Give the address of this host that clients outside know it by. Raises NotKnown."""
    uplinks = [link for link in site.host.links.values() if link.kind != "bridge" and link.name != "lo"]
    held = [one.partition("/")[0] for link in uplinks for one in link.addresses if not link.master]
    found = next((one for one in held if ":" not in one), None)
    if found is None:
        raise NotKnown("this host has no address of its own beside its bridges")
    return found


def _number(name: str, site: Site, space: str, containers: Containers) -> str:
    """Give the address of what is no container."""
    if name == HOST:
        return "127.0.0.1" if space == HOST else host_address(site)
    if name == "localhost":
        return "127.0.0.1"
    try:
        number(name)
    except ValueError:
        names = ", ".join(one.name for one in containers.running[:5])
        raise NotKnown(f"{name}: no container, no address and not host; containers: {names or 'none'}") from None
    return name
