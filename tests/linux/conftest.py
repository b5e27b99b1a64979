"""What the tests of doctor.linux share."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.linux.spaces import Space, space

if TYPE_CHECKING:
    from collections.abc import Iterator

CROWDED = """
link add br0 type bridge
link add br1 type bridge stp_state 1 forward_delay 200 mcast_snooping 0 nf_call_iptables 1
link add v0 type veth peer name e0 netns {far}
link add v1 type veth peer name v1p
link set v0 master br0
link set v1 master br0
link set v1 type bridge_slave isolated on hairpin on neigh_suppress on learning off cost 7
link set br0 up
link set v0 up
link set v1 up
link set v1p up
link set v1p group 7
link property add dev v1p altname another-name-of-v1p
addr add 192.0.2.1/24 brd + dev br0
addr add 192.0.2.9/24 dev br0
addr add 198.51.100.1 peer 198.51.100.2/32 dev v1p label v1p:x
addr add 203.0.113.1/24 dev v1p scope link valid_lft 400000 preferred_lft 300000
addr add 2001:db8::1/64 dev br0
addr add 2001:db8:1::1/64 dev v1p nodad valid_lft 400000 preferred_lft 0
addr add 2001:db8:2::1 peer 2001:db8:2::2/128 dev v1p noprefixroute
link add down0 type veth peer name down1
link set down0 up
route add blackhole 10.66.0.0/16
route add unreachable 10.67.0.0/16 metric 7
route add prohibit 10.68.0.0/16 table 100
route add throw 10.69.0.0/16 table 1000
route add 10.70.0.0/16 via 192.0.2.2 dev br0 proto static src 192.0.2.9 metric 5 mtu 1400 advmss 1000
route add 10.71.0.0/16 nexthop via 192.0.2.2 dev br0 weight 2 nexthop via 192.0.2.3 dev br0 onlink weight 3
route add 10.72.0.0/16 via inet6 2001:db8::2 dev br0
route add 10.73.0.0/16 dev down0 scope link
route add 10.74.0.0/16 tos 0x10 dev br0
route add default via 192.0.2.254 dev br0
route add ::/0 via 2001:db8::2 dev br0
route add 2001:db8:5::/64 nexthop via 2001:db8::2 dev br0 nexthop via 2001:db8::3 dev br0 weight 4
route add blackhole 2001:db8:6::/64
route add unreachable 2001:db8:7::/64 table 300
route add 2001:db8:8::/64 from 2001:db8::/64 via 2001:db8::2 dev br0 pref high
rule add from 192.0.2.0/24 to 198.51.100.0/24 iif br0 fwmark 0x10/0xff lookup 100 pref 1000
rule add not fwmark 0x51820 table 1000 pref 900
rule add oif nowhere table main pref 800 suppress_prefixlength 0 suppress_ifgroup 3
rule add from 192.0.2.1 blackhole pref 700
rule add pref 600 goto 1000 tos 0x10
rule add pref 601 goto 99999
rule add nop pref 602
rule add pref 500 ipproto tcp sport 1-100 dport 80 uidrange 0-1000 table 7
rule add pref 501 ipproto udp fwmark 0 table 7 protocol static
neigh add 192.0.2.77 lladdr 02:00:00:00:00:07 dev br0 nud permanent
neigh add 192.0.2.78 dev br0 nud failed
neigh add 2001:db8::77 lladdr 02:00:00:00:00:07 dev br0 router nud permanent
neigh add 192.0.2.79 lladdr 02:00:00:00:00:09 dev br0 nud noarp
"""
"""A namespace with one of everything, and documentation addresses."""

KINDS = """
link add vx0 type vxlan id 42 dev br0 dstport 4789 group 239.1.1.1 ttl 5
link add vx1 type vxlan id 43 dstport 4790 remote 2001:db8::9 local 2001:db8::1 nolearning
link add mv0 link v1p type macvlan mode bridge
link add iv0 link v1p type ipvlan mode l3
link add v1p.5 link v1p type vlan id 5
link add dummy0 type dummy
tuntap add tap0 mode tap
"""
"""Kinds of links that a kernel may lack: those it has are compared."""


QUIET = 5
"""Looks without a difference, a tenth of a second apart."""


def _need_ip() -> None:
    if not shutil.which("ip"):
        pytest.skip("needs ip (apt-get install iproute2)")


@pytest.fixture(scope="session")
def far() -> Iterator[Space]:
    """Give the namespace at the other end of a veth pair."""
    _need_ip()
    with space() as made:
        yield made


@pytest.fixture(scope="session")
def crowded(far: Space) -> Iterator[Space]:
    """Give a namespace with many links, addresses, routes, rules and neighbours."""
    with space() as made:
        made.ip(*CROWDED.format(far=far.path).strip().split("\n"))
        for line in KINDS.strip().split("\n"):
            with suppress(AssertionError):
                made.ip(line)
        far.ip("link set e0 up", "addr add 192.0.2.3/24 dev e0", "route add default via 192.0.2.1")
        made.ip("nexthop add id 5 via 192.0.2.5 dev br0", "route add 10.75.0.0/16 nhid 5")
        made.run("ip", "link", "set", "v1p", "alias", 'a "quoted" alias')
        made.run("ip", "-6", "rule", "add", "from", "2001:db8::/64", "prohibit", "pref", "77")
        made.run("ip", "-6", "rule", "add", "to", "2001:db8::1", "unreachable", "pref", "78")
        made.ip(*(f"route add 10.{number}.0.0/16 via 192.0.2.2 dev br0 table 77" for number in range(100, 250)))
        _settle(made, far)
        yield made


def _settle(*spaces: Space) -> None:
    """Wait until the kernel has given its own addresses and routes, which it does when a link finds its other end."""
    seen: list[str] = []
    while len(seen) < QUIET or len(set(seen[-QUIET:])) > 1:
        time.sleep(0.1)
        seen.append("".join(one.run("ip", "-o", "route", "show", "table", "all") for one in spaces))


@pytest.fixture
def bare() -> Iterator[Space]:
    """Give a namespace with nothing but `lo`."""
    _need_ip()
    with space() as made:
        yield made
