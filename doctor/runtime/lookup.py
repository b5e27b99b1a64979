"""What the embedded DNS knows: names of containers to addresses and back. Pure: asked of a World.

Source: moby `libnetwork/sandbox.go` ResolveName, `libnetwork/network.go` ResolveIP (29: below `daemon/`).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from doctor.runtime.names import embedded, user_networks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.runtime.model import Container, Endpoint, World


def resolve(world: World, asker: str, name: str, version: int) -> list[str] | None:
    """Give the addresses of a name, as a container (its id) sees it; None when it is nobody's.

    An empty list is a name that is known and has no address of that version. Names are tried whole in all networks of the
    container, then as NAME.NETWORK, the longest NAME first.
    """
    container = world.containers.get(asker)
    if container is None:
        return None
    wanted = name.rstrip(".").lower()
    labels = wanted.split(".")
    for cut in range(len(labels), 0, -1):
        first, network = ".".join(labels[:cut]), ".".join(labels[cut:])
        found = _in_networks(world, container, first, network, version)
        if found is not None:
            return found
    return None


def _in_networks(world: World, container: Container, name: str, network: str, version: int) -> list[str] | None:
    known = False
    addresses: list[str] = []
    for end in user_networks(world, container):
        if network and world.networks[end.network_id].spec.name.lower() != network:
            continue
        linked = {alias.lower(): target for alias, target in container.links.items()}.get(name)
        for other, its in neighbours(world, end.network_id):
            if other.id == linked or (linked is None and name in {one.lower() for one in its.names}):
                known = True
                address = its.address if version == 4 else its.address6  # noqa: PLR2004 - IPv4
                addresses += [address] if address and address not in addresses else []
        if known:
            return addresses
    return None


def neighbours(world: World, network_id: str) -> Iterator[tuple[Container, Endpoint]]:
    """Give the endpoints of a network that are in use, with their containers, in the order of the containers."""
    for container in world.containers.values():
        for end in container.endpoints:
            if end.network_id == network_id and (end.address or end.address6):
                yield container, end


def reverse(world: World, asker: str, name: str) -> str:
    """Give the name of an address asked for as `2.0.7.10.in-addr.arpa`; empty when it is nobody's.

    It is the first of the container's names in that network, and the network's.
    """
    container = world.containers.get(asker)
    address = _address(name.rstrip(".").lower())
    if container is None or not address:
        return ""
    for end in user_networks(world, container):
        for _, its in neighbours(world, end.network_id):
            if address in {its.address, its.address6} and its.names:
                return f"{its.names[0]}.{world.networks[end.network_id].spec.name}"
    return ""


def _address(name: str) -> str:
    for suffix, size in ((".in-addr.arpa", 4), (".ip6.arpa", 32)):
        if not name.endswith(suffix):
            continue
        parts = name.removesuffix(suffix).split(".")[::-1]
        if len(parts) != size:
            return ""
        text = ".".join(parts) if size == 4 else ":".join("".join(parts[at : at + 4]) for at in range(0, 32, 4))  # noqa: PLR2004
        try:
            return str(ip_address(text))
        except ValueError:
            return ""
    return ""


def served(world: World, container: Container) -> bool:
    """Whether a container has the embedded DNS: it is in a network that a user made."""
    return any(embedded(world.networks.get(end.network_id)) for end in container.endpoints)
