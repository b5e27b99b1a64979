"""Which subnets networks get, and which addresses containers: libnetwork's default IPAM, without I/O.

A pool is elected in the order of `default-address-pools`, the first that overlaps nothing in use; an address is the lowest
free one of the pool's range. Source: moby `libnetwork/ipam/allocator.go` and `libnetwork/ipamutils/utils.go` (28: below
`libnetwork/ipams/defaultipam`); the order was seen on 20.10.24, 26.1.5 and 28.5.2.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from ipaddress import (
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

from doctor.runtime.model import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Subnet = IPv4Network | IPv6Network

DEFAULT_POOLS = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 20)),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
"""Base and size of the subnets that are cut from it (ipamutils, localScopeDefaultNetworks)."""

OVERLAP = "Pool overlaps with other one on this address space"
EXHAUSTED = (
    "could not find an available, non-overlapping {family} address pool among the defaults to assign to the network"
)
EXHAUSTED_28 = "all predefined address pools have been fully subnetted"
OUTSIDE = "Invalid address {address}: It does not belong to any of this network's subnets"


class AddressError(Exception):
    """An address or a subnet that cannot be given, in the engine's words."""


@lru_cache(maxsize=256)
def network(text: str) -> Subnet:
    """Read a subnet as the engine does: bits of the host are dropped. Raises AddressError."""
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise AddressError(f"invalid CIDR address: {text}") from error


def overlap(one: Subnet, other: Subnet) -> bool:
    """Whether two subnets share an address."""
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.overlaps(other)


def _within(one: Subnet, other: Subnet) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.subnet_of(other)


def elect(
    pools: Iterable[tuple[str, int]], taken: Iterable[Subnet], version: int = 4, *, words: str = EXHAUSTED
) -> Subnet:
    """Give the first subnet of the pools that overlaps none that is taken. Raises AddressError."""
    busy = [one for one in taken if one.version == version]
    for base, size in pools:
        whole = network(base)
        if whole.version != version:
            continue
        for one in whole.subnets(new_prefix=size):
            if not any(overlap(one, other) for other in busy):
                return one
    raise AddressError(words.format(family=f"IPv{version}"))


def ula(host: str, count: int) -> tuple[str, int]:
    """Give the pool of IPv6 that an engine cuts its own subnets from: a /48 below fd00::/8 by the id of its host."""
    from hashlib import sha256

    digest = sha256(host.encode()).digest()[:5]
    base = int.from_bytes(b"\xfd" + digest, "big") << 80
    return str(IPv6Network((base, 48))), 64 if count >= 0 else 48


def complete(pool: Pool, version: int, taken: Iterable[str] = ()) -> Pool:
    """Fill in the gateway, where none is given: the lowest free address of the range. Raises AddressError."""
    subnet = network(pool.subnet)
    part = network(pool.range) if pool.range else subnet
    if subnet.version != version or part.version != version or not _within(part, subnet):
        raise AddressError(f"no matching subnet for range {pool.range}")
    if pool.gateway and ip_address(pool.gateway) not in subnet:
        raise AddressError(f"no matching subnet for gateway {pool.gateway}")
    gateway = pool.gateway or lowest(pool, {*taken, *pool.aux.values()})
    return Pool(str(subnet), pool.range, gateway, pool.aux)


def lowest(pool: Pool, taken: Iterable[str]) -> str:
    """Give the lowest address of a pool that is free; `taken` has the gateway and those of containers.

    The network's own address and, of IPv4, its broadcast address are never given. Raises AddressError when none is left.
    """
    busy = {_number(one) for one in (*taken, pool.gateway, *pool.aux.values()) if one}
    for number in _usable(pool):
        if number not in busy:
            return str(ip_address(number) if ":" not in pool.subnet else _six(number))
    raise AddressError("no available addresses")


def _number(address: str) -> int:
    """Read an address; fifty containers read one another's, so it is done without an object each."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, address), "big")


def _usable(pool: Pool) -> Iterator[int]:
    subnet = network(pool.subnet)
    part = network(pool.range) if pool.range else subnet
    first, last = int(part.network_address), int(part.broadcast_address)
    apart = {int(subnet.network_address)}
    if subnet.version == 4:  # noqa: PLR2004 - IPv4
        apart.add(int(subnet.broadcast_address))
    number = first
    while number <= last:
        if number not in apart:
            yield number
        number += 1


def _six(number: int) -> str:
    from ipaddress import IPv6Address

    return str(IPv6Address(number))


def fixed(pools: Iterable[Pool], address: str, taken: Iterable[str]) -> Pool:
    """Give the pool that an address asked for belongs to. Raises AddressError: none of them has it, or it is taken."""
    try:
        wanted = ip_address(address)
    except ValueError as error:
        raise AddressError(f"invalid IP address {address}") from error
    for pool in pools:
        if wanted in network(pool.subnet):
            if wanted in {ip_address(one) for one in taken if one}:
                raise AddressError("Address already in use")
            return pool
    raise AddressError(OUTSIDE.format(address=address))


def default_pools(values: object) -> tuple[tuple[str, int], ...]:
    """Read the option default-address-pools: objects of daemon.json or `base=10.0.0.0/8,size=24` of a flag."""
    if not isinstance(values, (list, tuple)) or not values:
        return DEFAULT_POOLS
    found = []
    for one in values:
        fields = dict(part.partition("=")[::2] for part in one.split(",")) if isinstance(one, str) else dict(one)
        found.append((str(fields["base"]), int(fields["size"])))
    return tuple(found)
