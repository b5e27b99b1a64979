"""Published ports: what `-p` says, and which ports and addresses of the host they become.

Source: docker/go-connections `nat/nat.go`, moby `libnetwork/portallocator` and
`libnetwork/drivers/bridge/port_mapping_linux.go` (29: below `daemon/`). Seen on 20.10.24, 26.1.5 and 28.5.2: before 28 each
address has its own ports, and the families may get different ones; from 28 on one port is taken for all addresses of a
mapping, and 0.0.0.0 stands in the way of any.
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.runtime.model import Publish

if TYPE_CHECKING:
    from collections.abc import Iterable

PROTOCOLS = ("tcp", "udp", "sctp")
TRIES = 10
"""How often a port that the daemon chose is chosen anew when somebody else holds it."""

_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_LAST = 65535
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_ANY = {"", "0.0.0.0", "::"}  # noqa: S104 - compared with
_BACKLOG = 4096


class PortError(Exception):
    """A port that cannot be had, in the engine's words."""


# What -p says


def parse(text: str) -> tuple[Publish, ...]:
    """Read a `-p`: `80`, `8080:80`, `127.0.0.1::80/udp`, `[::1]:8080-8082:80-82`.

    A range of one length with the container's is one port each; one for a single port lets the daemon choose in it.
    Raises ValueError with docker's words.
    """
    rest, _, protocol = text.partition("/")
    address, host, container = _split(rest)
    protocol = protocol.lower() or "tcp"
    if address:
        try:
            ip_address(address)
        except ValueError as error:
            raise ValueError(f"Invalid ip address: {address}") from error
    if not container:
        raise ValueError(f"No port specified: {text}<empty>")
    first, last = _range(container, "containerPort")
    low, high = _range(host, "hostPort") if host else (0, 0)
    if host and last - first != high - low and last != first:
        raise ValueError(f"Invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"Invalid proto: {text.partition('/')[2]}")
    if first == last and high > low:
        return (Publish(first, protocol, low, address, high),)
    return tuple(
        Publish(first + index, protocol, low + index if host else 0, address) for index in range(last - first + 1)
    )


def _split(text: str) -> tuple[str, str, str]:
    """Split into address, port of the host and port of the container."""
    parts = text.split(":")
    if len(parts) <= 3:  # noqa: PLR2004 - address:host:container
        address, host, container = ([""] * 3 + parts)[-3:]
        return address, host, container
    address = ":".join(parts[:-2])
    if address[:1] == "[" and address[-1:] == "]":
        return address[1:-1], parts[-2], parts[-1]
    raise ValueError(f"Invalid ip address {address}: address {address}:: too many colons in address")


def _range(text: str, what: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    numbers = [int(one) if one.isascii() and one.isdecimal() else -1 for one in (low, high if dash else low)]
    if any(not 0 <= one <= _LAST for one in numbers) or numbers[0] > numbers[1]:
        raise ValueError(f"Invalid {what}: {text}")
    return numbers[0], numbers[1]


def ordered(asked: Iterable[Publish], *, classic: bool) -> list[Publish]:
    """Put mappings in the order in which the engine takes them.

    `classic` (before 28) is the highest port of the container first, tcp before udp; from 28 on those with a port of their
    own come first, then ports of the host out of a range, then any, each by the container's port.
    """
    rank = {"tcp": 6, "udp": 17, "sctp": 132}
    if classic:
        return sorted(asked, key=lambda one: (-one.port, one.protocol != "tcp", -one.host_port, one.host_ip))
    return sorted(
        asked,
        key=lambda one: (
            one.host_port == 0 or one.host_port_end > one.host_port,
            one.port,
            rank.get(one.protocol, 255),
            one.host_port,
            one.host_port_end,
            one.host_ip if one.host_ip not in _ANY else "",
        ),
    )


# Which ports they become


class Held(Struct):
    """A port in force: `address` and `number` of the host, and the socket that holds it (None where no family has it)."""

    port: int
    protocol: str
    address: str
    number: int
    holder: socket.socket | None = None

    def close(self) -> None:
        """Let go of the socket; whoever inherited it keeps it."""
        if self.holder is not None:
            self.holder.close()
            self.holder = None


class PortAllocator:
    """The ports that are taken, by address and protocol, and where the search for a free one goes on."""

    def __init__(self, *, classic: bool) -> None:
        """Start with none; `classic` is a release before 28."""
        self._classic = classic
        self._taken: dict[tuple[str, str], set[int]] = {}
        self._last: dict[tuple[str, str], int] = {}

    def publish(self, wanted: Publish, addresses: tuple[str, ...], target: str) -> list[Held]:
        """Take a port of each address. Raises PortError.

        `target` is the container's address, for the engine's words.
        """
        if self._classic:
            found: list[Held] = []
            try:
                for address in addresses:
                    found += self._take(wanted, (address,), target)
            except PortError:
                self.release(found)
                raise
            return found
        return self._take(wanted, addresses, target)

    def _take(self, wanted: Publish, addresses: tuple[str, ...], target: str) -> list[Held]:
        tried: set[int] = set()
        for attempt in range(TRIES):
            number = self._number(wanted, addresses, tried)
            tried.add(number)
            try:
                return self._hold(wanted, addresses, number)
            except OSError as error:
                # A port that was asked for is not replaced by another.
                fixed = wanted.host_port and wanted.host_port_end <= wanted.host_port
                if fixed or attempt == TRIES - 1:
                    raise PortError(self._words(error, wanted, str(error.filename), number, target)) from error
        raise AssertionError

    def _words(self, error: OSError, wanted: Publish, address: str, number: int, target: str) -> str:
        reason = {
            errno.EADDRINUSE: "address already in use",
            errno.EADDRNOTAVAIL: "cannot assign requested address",
            errno.EACCES: "permission denied",
        }.get(error.errno or 0, (error.strerror or "").lower())
        where = f"[{address}]" if ":" in address else address
        if self._classic:
            family = "6" if ":" in address else "4"
            return f"Error starting userland proxy: listen {wanted.protocol}{family} {where}:{number}: bind: {reason}"
        inner = f"[{target}]" if ":" in target else target
        return f"failed to bind host port for {where}:{number}:{inner}:{wanted.port}/{wanted.protocol}: {reason}"

    def _number(self, wanted: Publish, addresses: tuple[str, ...], tried: set[int]) -> int:
        low, high = wanted.host_port, max(wanted.host_port, wanted.host_port_end)
        if not low:
            low, high = _ephemeral()
        if low == high:
            if conflict := self._conflict(wanted.protocol, addresses, low):
                shown = f"[{conflict}]" if ":" in conflict and conflict != "::" else conflict
                raise PortError(f"Bind for {shown}:{low} failed: port is already allocated")
            return low
        key = (addresses[0], wanted.protocol)
        # From 28 on each range is searched from its beginning; before, the search goes on where the last one ended.
        start = self._last.get(key, low - 1) + 1 if not wanted.host_port else low
        size = high - low + 1
        for step in range(size):
            number = low + (start - low + step) % size
            if number not in tried and not self._conflict(wanted.protocol, addresses, number):
                if not wanted.host_port:
                    self._last[key] = number
                return number
        raise PortError("all ports are allocated")

    def _conflict(self, protocol: str, addresses: tuple[str, ...], number: int) -> str:
        """Give an address of which the port is taken, empty when it is free."""
        for address in addresses:
            held = [address] if self._classic else self._overlapping(address)
            for one in held:
                if number in self._taken.get((one, protocol), ()):
                    return one
        return ""

    def _overlapping(self, address: str) -> list[str]:
        """Give the addresses whose ports stand in the way of one's: its own, any, and for any all of its family."""
        wide = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - compared with
        if address != wide:
            return [wide, address]
        return [wide, *sorted({one for one, _ in self._taken if (":" in one) == (":" in address) and one != wide})]

    def _hold(self, wanted: Publish, addresses: tuple[str, ...], number: int) -> list[Held]:
        found: list[Held] = []
        try:
            for address in addresses:
                holder = bind(wanted.protocol, address, number)
                found.append(Held(wanted.port, wanted.protocol, address, number, holder))
        except OSError:
            for one in found:
                one.close()
            raise
        for address in addresses:
            self._taken.setdefault((address, wanted.protocol), set()).add(number)
        return found

    def restore(self, address: str, protocol: str, number: int) -> None:
        """Note a port that is in force already."""
        self._taken.setdefault((address, protocol), set()).add(number)

    def release(self, held: Iterable[Held]) -> None:
        """Give ports back."""
        for one in held:
            one.close()
            self._taken.get((one.address, one.protocol), set()).discard(one.number)


def bind(protocol: str, address: str, number: int) -> socket.socket:
    """Bind a socket of the host, as docker-proxy does, and the engine where none runs: it listens, and nobody answers.

    Raises OSError with the address as file name.
    """
    kind, proto = _KINDS[protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, number))
        if protocol != "udp":
            made.listen(_BACKLOG)
        made.setblocking(False)  # noqa: FBT003 - its name
    except OSError as error:
        made.close()
        error.filename = address
        raise
    return made


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = Path(_RANGE).read_text(encoding="ascii").split()
    except OSError:
        return 49153, 65535
    return int(low), int(high)


def has_ipv6() -> bool:
    """Whether the kernel speaks IPv6: where it does not, only ports of IPv4 are published."""
    return os.path.exists("/proc/net/if_inet6")  # noqa: PTH110 - at each published port
