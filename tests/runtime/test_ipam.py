"""Subnets and addresses, in the order that live engines gave them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from doctor.runtime.ipam import DEFAULT_POOLS, AddressError, complete, default_pools, elect, fixed, lowest, ula
from doctor.runtime.model import Pool


def test_subnets_are_elected_in_order() -> None:
    """172.17 to 172.31, then twentieths of 192.168; what is in use, by a network or a route, is left out."""
    taken = [ip_network("172.17.0.0/16"), ip_network("172.18.3.0/24"), ip_network("fd00::/8")]
    assert str(elect(DEFAULT_POOLS, taken)) == "172.19.0.0/16"
    found = []
    for _ in range(31):
        found.append(elect(DEFAULT_POOLS, found))
    assert (str(found[14]), str(found[15]), str(found[30])) == ("172.31.0.0/16", "192.168.0.0/20", "192.168.240.0/20")
    with pytest.raises(AddressError, match="non-overlapping IPv4 address pool among the defaults"):
        elect(DEFAULT_POOLS, found)


def test_pools_of_the_daemon() -> None:
    """As daemon.json and as a flag has them."""
    assert default_pools([]) == DEFAULT_POOLS
    assert default_pools([{"base": "10.0.0.0/8", "size": 24}]) == (("10.0.0.0/8", 24),)
    assert default_pools(["base=10.1.0.0/16,size=26"]) == (("10.1.0.0/16", 26),)


@pytest.mark.parametrize(
    ("pool", "gateway", "first"),
    [
        (Pool("10.7.0.0/24"), "10.7.0.1", "10.7.0.2"),
        (Pool("10.8.0.0/24", "10.8.0.128/25"), "10.8.0.128", "10.8.0.129"),
        (Pool("10.9.0.0/24", "10.9.0.64/26", "10.9.0.5"), "10.9.0.5", "10.9.0.64"),
        (Pool("10.10.0.0/24", "", "", {"x": "10.10.0.2"}), "10.10.0.1", "10.10.0.3"),
        (Pool("10.27.0.0/24", "", "10.27.0.254"), "10.27.0.254", "10.27.0.1"),
        (Pool("fd00:11::/64"), "fd00:11::1", "fd00:11::2"),
        (Pool("fd00:12::/64", "fd00:12::100/120"), "fd00:12::100", "fd00:12::101"),
    ],
)
def test_gateways_and_first_addresses(pool: Pool, gateway: str, first: str) -> None:
    """The figures are those of 20.10.24, 26.1.5 and 28.5.2, which agree."""
    made = complete(pool, 6 if ":" in pool.subnet else 4)
    assert (made.gateway, lowest(made, set())) == (gateway, first)


def test_what_is_given_back_is_given_again() -> None:
    """The lowest address that is free, up to the last but the broadcast."""
    pool = complete(Pool("10.25.0.0/30"), 4)
    assert lowest(pool, set()) == "10.25.0.2"
    with pytest.raises(AddressError, match="no available addresses"):
        lowest(pool, {"10.25.0.2"})
    wide = complete(Pool("10.7.0.0/24"), 4)
    assert lowest(wide, {"10.7.0.2", "10.7.0.4"}) == "10.7.0.3"


def test_what_cannot_be_is_told_in_the_engines_words() -> None:
    """Gateways and ranges elsewhere, addresses of nobody and of somebody else."""
    with pytest.raises(AddressError, match=r"^no matching subnet for gateway 10\.22\.0\.1$"):
        complete(Pool("10.21.0.0/24", "", "10.22.0.1"), 4)
    with pytest.raises(AddressError, match=r"^no matching subnet for range 10\.24\.0\.0/25$"):
        complete(Pool("10.23.0.0/24", "10.24.0.0/25"), 4)
    pools = [complete(Pool("10.7.0.0/24"), 4)]
    with pytest.raises(AddressError, match=r"10\.99\.0\.2: It does not belong to any of this network's subnets"):
        fixed(pools, "10.99.0.2", set())
    with pytest.raises(AddressError, match=r"^Address already in use$"):
        fixed(pools, "10.7.0.2", {"10.7.0.2"})
    assert fixed(pools, "10.7.0.9", {"10.7.0.2"}) is pools[0]


def test_an_engines_own_ipv6() -> None:
    """A /48 below fd00::/8 that is the same for the same host, cut into /64."""
    base, size = ula("a host", 0)
    assert (ula("a host", 0), ula("another", 0)[0] != base) == ((base, size), True)
    assert str(elect([(base, size)], [], 6)).endswith("::/64")
    assert ip_network(base).prefixlen == 48
