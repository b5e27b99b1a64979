"""What dockerd makes networks of when nobody names a subnet: its pools, and what of them it may still take.

Pools are those of `GET /info` (DefaultAddressPools, there only where they are configured), else those that dockerd is
built with (moby libnetwork/ipamutils).
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.links import Routes
from doctor.facts.networks import Networks
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, need

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BUILT_IN = (
    *(f"172.{number}.0.0/16 16" for number in (17, 18, 19)),
    *(f"172.{number}.0.0/14 16" for number in (20, 24, 28)),
    "192.168.0.0/16 20",
)
"""Base and size of the pools that dockerd is built with: 31 networks."""


class _Pool(Struct):
    Base: str = ""
    Size: int = 0


class _Info(Struct):
    DefaultAddressPools: list[_Pool] | None = None


class Held(Struct, frozen=True):
    """Addresses that no network can be made of: a network's (`name` says which), or a route's on a link (`name` empty)."""

    subnet: IPv4Network
    name: str
    cited: Citation


class Subnets(Struct, frozen=True):
    """The pools as (base, prefix length of a network), what is held, and the first subnets that are free: two at most.

    `cited` is where the pools stand, None for those that are built in.
    """

    pools: tuple[tuple[IPv4Network, int], ...]
    held: tuple[Held, ...]
    free: tuple[IPv4Network, ...]
    cited: Citation | None

    @property
    def built_in(self) -> bool:
        """Whether nobody has configured pools."""
        return self.cited is None

    def standing(self) -> tuple[Held, ...]:
        """Give what stands in the way, in the order of the pools."""
        return tuple(one for one in self.held if any(one.subnet.overlaps(base) for base, _ in self.pools))


def unused(pools: Iterable[tuple[IPv4Network, int]], held: Iterable[IPv4Network]) -> Iterator[IPv4Network]:
    """Give the subnets of pools that overlap nothing; what is held is stepped over, however many subnets it spans."""
    taken = sorted((int(one.network_address), int(one.broadcast_address)) for one in held)
    for base, size in pools:
        step = 1 << (32 - size)
        at, end = int(base.network_address), int(base.broadcast_address)
        while at <= end:
            over = max((last for first, last in taken if first <= at + step - 1 and last >= at), default=-1)
            if over < 0:
                yield IPv4Network((at, size))
                at += step
            else:
                at = max(at + step, (over + 1 + step - 1) // step * step)


@fact
def subnets(snapshot: Snapshot, networks: Networks, routes: Routes) -> Subnets:
    """Put pools, networks and routes together: dockerd leaves out what a route of scope link leads to.

    Seen on 20.10.24, 26.1.5 and 28.5.2: routes by a gateway, of other tables, and those of other types do not count.
    """
    record = need(snapshot, "api/info", "API")
    try:
        told = msgspec.json.decode(record.data, type=_Info).DefaultAddressPools
    except UNDECODABLE as error:
        raise EvidenceMissing("API", f"/info: {error}") from error
    pools = [(one.Base, one.Size) for one in told or ()]
    cited = None
    if pools:
        said = ", ".join(f"{base} size {size}" for base, size in pools)
        cited = Citation(record.name, 1, f"DefaultAddressPools: {said}", "GET /info")
    parsed = []
    for base, size in pools or [(text.split(" ")[0], int(text.split(" ")[1])) for text in BUILT_IN]:
        try:
            net = ip_network(base, strict=False)
        except ValueError:
            continue
        if isinstance(net, IPv4Network) and net.prefixlen <= size <= 30:  # noqa: PLR2004 - a network has hosts
            parsed.append((net, size))
    held = [
        Held(subnet, network.name, network.cited)
        for network in networks.all
        for subnet in network.subnets
        if isinstance(subnet, IPv4Network)
    ]
    own = {network.bridge for network in networks.all}
    for route in routes.all:
        if (route.version, route.table, route.type, route.gateway) != (4, "main", "unicast", "") or route.dev in own:
            continue
        try:
            net = ip_network(route.dst, strict=False)
        except ValueError:
            continue  # the default route
        if isinstance(net, IPv4Network) and net.prefixlen:
            held.append(Held(net, "", route.cited))
    free = []
    for one in unused(parsed, [each.subnet for each in held]):
        free.append(one)
        if len(free) > 1:
            break
    return Subnets(tuple(parsed), tuple(held), tuple(free), cited)
