"""Bridges, veth pairs, addresses, routes and sysctls, as libnetwork's bridge driver leaves them.

Everything here acts in the network namespace of the calling thread, and on the container's end in the one that a
descriptor is open on. Source: moby `libnetwork/drivers/bridge/setup_*.go` and `libnetwork/osl/` (29: below `daemon/`);
compared with live 20.10.24, 26.1.5 and 28.5.2.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.linux.rtwrite import Batch
from doctor.linux.syscalls import CLONE_NEWNET, setns
from doctor.runtime.model import Endpoint, Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

OPTION = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"

_NET = "/proc/sys/net/"
_LOOPBACK = 1
_SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCETHTOOL, _REQUEST = 0x8915, 0x891B, 0x8946, 40
_ETHTOOL_GLINK = 0x0A


class Wire(Struct, frozen=True):
    """One veth pair: `mtu` 0 leaves the kernel's, `ipv6` false switches IPv6 off on the container's end."""

    endpoint: Endpoint
    bridge: str
    mtu: int = 0
    ipv6: bool = False
    hairpin: bool = False


class Plugged(Struct, frozen=True):
    """What a container's network namespace gets; `namespace` is a descriptor of it, `gateways` its default routes.

    `silent`: IPv6 is off in the whole namespace where no link has it, as releases before 25 do.
    """

    namespace: int
    wires: tuple[Wire, ...] = ()
    gateways: tuple[str, ...] = ()
    silent: bool = False


@contextmanager
def visiting(namespace: int, home: int) -> Iterator[None]:
    """Take the calling thread into a network namespace, and back to `home`; both are descriptors."""
    setns(namespace, CLONE_NEWNET)
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)


def sysctl(key: str, value: str) -> bool:
    """Set a sysctl below net/ of the namespace that the thread is in (`ipv4/ip_forward`); False when there is no such one.

    One that has the value already is left alone. Raises OSError.
    """
    try:
        handle = os.open(_NET + key, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.read(handle, 64).strip() != value.encode():
            os.pwrite(handle, value.encode(), 0)
    finally:
        os.close(handle)
    return True


def sysctl_value(key: str) -> str:
    """Read a sysctl below net/; empty when there is no such one."""
    try:
        return Path(_NET + key).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def link_index(name: str) -> int:
    """Give the index of a link, 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def routes() -> list[str]:
    """Give the networks that routes of IPv4 lead to: subnets are elected around them. The default route is none."""
    found = []
    with suppress(OSError):
        for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1] != "00000000":
                address = socket.inet_ntoa(int(fields[1], 16).to_bytes(4, "little"))
                mask = int(fields[7], 16).bit_count()
                found.append(f"{address}/{mask}")
    return found


def mac_of(address: str) -> str:
    """Make the link-layer address that releases before 28 give an endpoint of this IPv4 address."""
    return "02:42:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def random_mac(*, classic: bool) -> str:
    """Make a link-layer address at random: one that begins with 02:42 until 27, then any that is administered locally."""
    octets = bytearray(secrets.token_bytes(6))
    octets[0] = (octets[0] & 0xFC) | 0x02
    if classic:
        octets[:2] = b"\x02\x42"
    return octets.hex(":")


def veth_name() -> str:
    """Make the name of a pair's end on the host."""
    return "veth" + secrets.token_hex(4)[:7]


def make(networks: Iterable[Network], *, classic: bool) -> None:
    """Make the bridges of networks that have none yet, give them their addresses, and set them up.

    `classic` is a release before 28. A bridge that is there keeps what it has. Raises OSError.
    """
    with Batch() as batch:
        missing = [one for one in networks if not link_index(one.bridge)]
        for one in missing:
            batch.bridge(one.bridge, mac=random_mac(classic=classic))
        batch.commit()
        for one in missing:
            index = link_index(one.bridge)
            sysctl(f"ipv6/conf/{one.bridge}/accept_ra", "0")
            for address in addresses(one, classic=classic):
                batch.address(index, address, broadcast=True, nodad=not classic)
            batch.up(index)
        batch.commit()


def addresses(network: Network, *, classic: bool = False) -> list[str]:
    """Give the addresses of a network's bridge, with their prefix length; until 27 fe80::1 is one of them."""
    found = []
    for pool in network.pools:
        size = ip_network(pool.subnet).prefixlen
        six = ":" in pool.subnet
        mode = network.spec.options.get(OPTION + ("gateway_mode_ipv6" if six else "gateway_mode_ipv4"))
        inhibited = not six and network.spec.options.get(OPTION + "inhibit_ipv4") == "true"
        if mode != "isolated" and not inhibited:
            found.append(f"{pool.gateway}/{size}")
        if six and classic:
            found.append("fe80::1/64")
    return found


def plug(containers: Sequence[Plugged], home: int) -> None:
    """Make the pairs of all containers at once, then set up each one's namespace; `home` is a descriptor of this one.

    Raises OSError; what was made by then stays until `remove`, and goes with the namespaces.
    """
    indexes: dict[str, int] = {}
    with Batch() as batch:
        for one in containers:
            for wire in one.wires:
                end = wire.endpoint
                bridge = indexes.setdefault(wire.bridge, link_index(wire.bridge))
                batch.veth(
                    end.veth,
                    end.interface,
                    peer_namespace=one.namespace,
                    master=bridge,
                    mtu=wire.mtu,
                    peer_mac=end.mac,
                    up=True,
                )
        batch.commit()
        told = []
        for one in containers:
            with visiting(one.namespace, home):
                told += _inside(one)
        for wire in (wire for one in containers for wire in one.wires if wire.hairpin):
            batch.hairpin(link_index(wire.endpoint.veth), on=True)
        batch.commit()
    _settle([wire.endpoint.veth for one in containers for wire in one.wires])
    for owner in told:
        owner.announce()


def _settle(names: Iterable[str]) -> None:
    """Let the kernel see now that links are up: their ports of a bridge forward from then on.

    By itself it does when it gets round to it (net/core/link_watch.c); since Linux 6.8 also when somebody asks for the carrier.
    """
    import array
    import fcntl

    answer = array.array("I", (_ETHTOOL_GLINK, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name in names:
            request = pack("=16sQ", name.encode(), answer.buffer_info()[0]).ljust(_REQUEST, b"\0")
            with suppress(OSError):
                fcntl.ioctl(asker, _SIOCETHTOOL, request)


def _inside(container: Plugged) -> list[_Owner]:
    """Set up the container's ends, in its namespace; gives whose addresses are to be announced."""
    if container.silent:
        sysctl("ipv6/conf/all/disable_ipv6", "0" if any(wire.ipv6 for wire in container.wires) else "1")
    owners = []
    with Batch() as batch:
        batch.up(_LOOPBACK)
        for wire in container.wires:
            end = wire.endpoint
            index = link_index(end.interface)
            sysctl(f"ipv6/conf/{end.interface}/disable_ipv6", "0" if wire.ipv6 else "1")
            if end.address:
                batch.address(index, f"{end.address}/{end.prefix}", broadcast=True)
                owners.append(_Owner(end, index))
            if end.address6:
                batch.address(index, f"{end.address6}/{end.prefix6}", nodad=True)
            batch.up(index)
        for gateway in container.gateways:
            batch.route("default", gateway=gateway)
        batch.commit()
    return owners


class _Owner:
    """Who has an address now, and says so to its network (RFC 5227, 3): who spoke to the last owner would not find it.

    The engine does so from 28.1 on (libnetwork/osl), since its hardware addresses are random. It sends a packet; closing
    the socket for that waits until no processor can see it any more (net/packet/af_packet.c), ten milliseconds for each
    container. So the kernel is asked to do it: with `arp_notify` it tells a link's addresses when its own is set.
    """

    def __init__(self, end: Endpoint, index: int) -> None:
        """Open what is needed in the namespace that the thread is in. Raises OSError."""
        self._index, self._mac = index, end.mac
        self._switch = os.open(f"{_NET}ipv4/conf/{end.interface}/arp_notify", os.O_WRONLY | os.O_CLOEXEC)
        self._batch = Batch()

    def announce(self) -> None:
        """Say it, from wherever the thread is by now. Raises OSError."""
        try:
            os.write(self._switch, b"1")
            self._batch.mac(self._index, self._mac)
            self._batch.commit()
            os.pwrite(self._switch, b"0", 0)
        finally:
            os.close(self._switch)
            self._batch.close()


def reroute(namespace: int, home: int, old: Iterable[str], new: Iterable[str]) -> None:
    """Put other default routes in the place of a namespace's. Raises OSError."""
    with visiting(namespace, home), Batch() as batch:
        for gateway in old:
            batch.delete_route("default", gateway=gateway)
        with suppress(OSError):  # the link that it led through is gone, and the route with it
            batch.commit()
        for gateway in new:
            batch.route("default", gateway=gateway)
        batch.commit()


def address_of(name: str) -> str:
    """Give the first IPv4 address of a link with its prefix length (netdevice(7), SIOCGIFADDR); empty: none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        request = name.encode().ljust(_REQUEST, b"\0")
        try:
            address, mask = (fcntl.ioctl(asker, what, request)[20:24] for what in (_SIOCGIFADDR, _SIOCGIFNETMASK))
        except OSError:
            return ""
    return f"{socket.inet_ntoa(address)}/{int.from_bytes(mask, 'big').bit_count()}"


def readdress(name: str, old: str, new: str) -> None:
    """Give a link another IPv4 address in the place of one. Raises OSError."""
    with Batch() as batch:
        index = link_index(name)
        batch.delete_address(index, old)
        batch.address(index, new, broadcast=True)
        batch.commit()


def remove(names: Iterable[str]) -> None:
    """Delete links; one that is gone already is none. Raises OSError."""
    with Batch() as batch:
        for name in names:
            index = link_index(name)
            if index:
                batch.delete(index)
        batch.commit()
