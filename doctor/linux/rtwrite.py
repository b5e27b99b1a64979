"""Links, addresses and routes changed by rtnetlink(7): what `ip -batch` does, without a process and in few system calls.

A batch collects requests and sends them in few datagrams. The kernel takes them one after the other and acknowledges
each; it does not stop at one that fails, so who gets an error takes back what may have been made. Numbers are those of
linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
from errno import ETIMEDOUT
from struct import Struct, pack, unpack_from
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from types import TracebackType

Kind = Literal["unicast", "blackhole", "unreachable", "prohibit"]

_HEAD = Struct("=IHHII")
_LINK = Struct("=BxHiII")
_ADDRESS = Struct("=BBBBI")
_ROUTE = Struct("=BBBBBBBBI")
_ATTRIBUTE = Struct("=HH")
_HEAD_BYTES = 16

_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 19, 20, 21, 24, 25
_ERROR = 2
_ACKNOWLEDGED, _NEW = 0x5, 0x605
"""NLM_F_REQUEST and NLM_F_ACK; with NLM_F_CREATE and NLM_F_EXCL."""

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_NET_NS_FD, _IFLA_PROTINFO = 28, 12
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_BRPORT_MODE = 4
_NESTED = 0x8000
_AF_BRIDGE = 7
_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_LINK = 254, 3, 253
_KINDS = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}

_AT_ONCE = 64
"""Requests in one datagram: their acknowledgements must all fit into the socket's buffer, or the kernel drops some."""

_BUFFER = 1 << 16
_SECONDS = 10


class Batch:
    """Requests to the network namespace in which it was opened; it stays there when the thread moves on."""

    def __init__(self) -> None:
        """Open the socket. Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(_SECONDS)
        self._sequence = 0
        self._asked: list[tuple[int, bytes, str]] = []

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what was asked and not committed is forgotten."""
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def commit(self) -> None:
        """Send what was asked, and wait until the kernel has done it.

        Raises OSError with the errno of the first request that failed and, as file name, what was asked; the others were
        carried out all the same. TimeoutError when the kernel does not answer.
        """
        asked, self._asked = self._asked, []
        first: OSError | None = None
        for at in range(0, len(asked), _AT_ONCE):
            failed = self._send(asked[at : at + _AT_ONCE])
            first = first or failed
        if first is not None:
            raise first

    def _send(self, requests: list[tuple[int, bytes, str]]) -> OSError | None:
        waiting = {number: what for number, _, what in requests}
        self._socket.sendall(b"".join(body for _, body, _ in requests))
        first: OSError | None = None
        while waiting:
            try:
                data = self._socket.recv(_BUFFER)
            except TimeoutError as error:
                raise TimeoutError(ETIMEDOUT, os.strerror(ETIMEDOUT).lower(), next(iter(waiting.values()))) from error
            at = 0
            while at < len(data):
                length, kind, _, number, _ = _HEAD.unpack_from(data, at)
                if kind == _ERROR and number in waiting:
                    what = waiting.pop(number)
                    code = -unpack_from("=i", data, at + _HEAD_BYTES)[0]
                    if code and first is None:
                        first = OSError(code, os.strerror(code).lower(), what)
                at += (length + 3) & ~3
        return first

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._sequence += 1
        head = _HEAD.pack(_HEAD_BYTES + len(body), kind, flags, self._sequence, 0)
        self._asked.append((self._sequence, head + body, what))

    # Links

    def bridge(self, name: str, *, mtu: int = 0, mac: str = "") -> None:
        """Make a bridge, down; `mtu` 0 and an empty `mac` leave the kernel's."""
        info = _kind("bridge", b"")
        self._ask(_NEWLINK, _NEW, _LINK.pack(0, 0, 0, 0, 0) + _common(name, mtu, mac) + info, f"bridge {name}")

    def veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int = -1,
        master: int = 0,
        mtu: int = 0,
        mac: str = "",
        peer_mac: str = "",
        up: bool = False,
    ) -> None:
        """Make a pair: `name` here, on the bridge of index `master` (0: none), `peer` in the namespace of a descriptor."""
        there = _LINK.pack(0, 0, 0, 0, 0) + _common(peer, mtu, peer_mac)
        if peer_namespace >= 0:
            there += _number(_IFLA_NET_NS_FD, peer_namespace)
        flag = _UP if up else 0
        body = _LINK.pack(0, 0, 0, flag, flag) + _common(name, mtu, mac) + _kind("veth", _nla(_VETH_INFO_PEER, there))
        if master:
            body += _number(_IFLA_MASTER, master)
        self._ask(_NEWLINK, _NEW, body, f"veth {name}")

    def up(self, index: int) -> None:
        """Set a link up."""
        self._ask(_NEWLINK, _ACKNOWLEDGED, _LINK.pack(0, 0, index, _UP, _UP), f"link {index} up")

    def down(self, index: int) -> None:
        """Set a link down."""
        self._ask(_NEWLINK, _ACKNOWLEDGED, _LINK.pack(0, 0, index, 0, _UP), f"link {index} down")

    def rename(self, index: int, name: str) -> None:
        """Give a link another name; it must be down."""
        self._change(index, _string(_IFLA_IFNAME, name), f"link {index} name {name}")

    def mtu(self, index: int, size: int) -> None:
        """Set the largest packet of a link, in bytes."""
        self._change(index, _number(_IFLA_MTU, size), f"link {index} mtu {size}")

    def mac(self, index: int, mac: str) -> None:
        """Set the link-layer address."""
        self._change(index, _nla(_IFLA_ADDRESS, _hex(mac)), f"link {index} address {mac}")

    def master(self, index: int, master: int) -> None:
        """Put a link on a bridge; 0 takes it off."""
        self._change(index, _number(_IFLA_MASTER, master), f"link {index} master {master}")

    def hairpin(self, index: int, *, on: bool) -> None:
        """Let a port of a bridge send packets back where they came from, or not."""
        body = _LINK.pack(_AF_BRIDGE, 0, index, 0, 0)
        body += _nla(_IFLA_PROTINFO | _NESTED, _nla(_BRPORT_MODE, bytes((on,))))
        self._ask(_SETLINK, _ACKNOWLEDGED, body, f"link {index} hairpin")

    def delete(self, index: int) -> None:
        """Delete a link; of a veth both ends go."""
        self._ask(_DELLINK, _ACKNOWLEDGED, _LINK.pack(0, 0, index, 0, 0), f"link {index} delete")

    def _change(self, index: int, attributes: bytes, what: str) -> None:
        self._ask(_NEWLINK, _ACKNOWLEDGED, _LINK.pack(0, 0, index, 0, 0) + attributes, what)

    # Addresses and routes

    def address(self, index: int, address: str, *, broadcast: bool = False, nodad: bool = False) -> None:
        """Give a link an address with its prefix length (`10.7.0.1/24`, `fd00::1/64`).

        `broadcast` writes down the broadcast address of IPv4, `nodad` leaves out duplicate address detection of IPv6.
        """
        self._ask(_NEWADDR, _NEW, _address(index, address, broadcast=broadcast, nodad=nodad), f"address {address}")

    def delete_address(self, index: int, address: str) -> None:
        """Take an address from a link."""
        self._ask(_DELADDR, _ACKNOWLEDGED, _address(index, address), f"address {address} delete")

    def route(
        self,
        destination: str,
        *,
        gateway: str = "",
        index: int = 0,
        metric: int = 0,
        source: str = "",
        kind: Kind = "unicast",
    ) -> None:
        """Add a route: `default` (with a gateway, which tells the family) or a network, through a gateway or on a link."""
        body = _route(destination, gateway, index, metric, source, kind)
        self._ask(_NEWROUTE, _NEW, body, f"route {destination}")

    def delete_route(self, destination: str, *, gateway: str = "", index: int = 0, metric: int = 0) -> None:
        """Take a route out."""
        body = _route(destination, gateway, index, metric, "", "unicast")
        self._ask(_DELROUTE, _ACKNOWLEDGED, body, f"route {destination} delete")


def _nla(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def _number(kind: int, value: int) -> bytes:
    return pack("=HHI", 8, kind, value)


def _string(kind: int, value: str) -> bytes:
    return _nla(kind, value.encode() + b"\0")


def _hex(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _common(name: str, mtu: int, mac: str) -> bytes:
    body = _string(_IFLA_IFNAME, name)
    if mtu:
        body += _number(_IFLA_MTU, mtu)
    return body + _nla(_IFLA_ADDRESS, _hex(mac)) if mac else body


def _kind(name: str, data: bytes) -> bytes:
    info = _nla(_INFO_KIND, name.encode())
    return _nla(_IFLA_LINKINFO, info + _nla(_INFO_DATA, data) if data else info)


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _address(index: int, text: str, *, broadcast: bool = False, nodad: bool = False) -> bytes:
    name, _, length = text.partition("/")
    family, packed = _packed(name)
    size = int(length)
    body = _ADDRESS.pack(family, size, 0, 0, index) + _nla(_IFA_LOCAL, packed) + _nla(_IFA_ADDRESS, packed)
    if broadcast and family == socket.AF_INET:
        rest = (1 << (32 - size)) - 1
        body += _nla(_IFA_BROADCAST, (int.from_bytes(packed, "big") | rest).to_bytes(4, "big"))
    if nodad and family == socket.AF_INET6:
        body += _number(_IFA_FLAGS, _IFA_F_NODAD)
    return body


def _route(destination: str, gateway: str, index: int, metric: int, source: str, kind: Kind) -> bytes:
    attributes = b""
    size = 0
    family = int(socket.AF_INET)
    if destination != "default":
        name, _, length = destination.partition("/")
        family, packed = _packed(name)
        size = int(length or 8 * len(packed))
        attributes += _nla(_RTA_DST, packed)
    if gateway:
        family, packed = _packed(gateway)
        attributes += _nla(_RTA_GATEWAY, packed)
    if index:
        attributes += _number(_RTA_OIF, index)
    if metric:
        attributes += _number(_RTA_PRIORITY, metric)
    if source:
        attributes += _nla(_RTA_PREFSRC, _packed(source)[1])
    # A route that names no gateway leads to neighbours of the link; IPv6 knows no scope.
    near = kind == "unicast" and not gateway and family == socket.AF_INET
    scope = _SCOPE_LINK if near else 0
    return _ROUTE.pack(family, size, 0, 0, _TABLE_MAIN, _PROTO_BOOT, scope, _KINDS[kind], 0) + attributes
