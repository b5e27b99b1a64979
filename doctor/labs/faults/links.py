"""Faults of sysctls, links, addresses and routes, on the host or in a container's network."""

from __future__ import annotations

import shlex
from typing import Literal

from doctor.labs.faults.base import Fault, Place, Undo
from doctor.labs.ground import sh


class Sysctl(Fault, frozen=True, kw_only=True):
    """`sysctl -w`."""

    key: str
    value: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        before = at.sh(f"sysctl -n {self.key}").strip()
        at.sh(f"sysctl -qw {self.key}={shlex.quote(self.value)}")
        return [at.later(f"sysctl -qw {self.key}={shlex.quote(before)}")]


class Inside(Fault, frozen=True, kw_only=True):
    """What may be done in a container's network as well: `inside` names it, empty for the host's."""

    inside: str = ""

    def head(self) -> str:
        """Give how a command is begun that runs there."""
        return f"nsenter -t {{pid:{self.inside}}} -n " if self.inside else ""

    def texts(self) -> list[str]:
        """See `Fault.texts`."""
        return [*super().texts(), self.head()]


class LinkState(Inside, frozen=True, kw_only=True):
    """`ip link set LINK up|down`."""

    link: str
    state: Literal["up", "down"]

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        at.sh(f"{self.head()}ip link set {self.link} {self.state}")
        other = "down" if self.state == "up" else "up"
        return [at.later(f"{self.head()}ip link set {self.link} {other}")]


class LinkMaster(Fault, frozen=True, kw_only=True):
    """`ip link set LINK master BRIDGE`, or `nomaster` where `master` is empty."""

    link: str
    master: str = ""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        before = at.sh(f"basename $(readlink /sys/class/net/{link}/master) 2>/dev/null || true").strip()
        at.sh(f"ip link set {link} " + (f"master {self.master}" if self.master else "nomaster"))
        return [at.later(f"ip link set {link} " + (f"master {before}" if before else "nomaster"))]


class LinkMtu(Inside, frozen=True, kw_only=True):
    """`ip link set LINK mtu N`."""

    link: str
    mtu: int

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        show = f"{self.head()}ip -o link show {link}"
        before = at.sh(show).partition(" mtu ")[2].split()[0]
        at.sh(f"{self.head()}ip link set {link} mtu {self.mtu}")
        return [at.later(f"{self.head()}ip link set {link} mtu {before}")]


class LinkRename(Fault, frozen=True, kw_only=True):
    """A link gets another name, as a service does that keeps links of its own: down, renamed, up."""

    link: str
    name: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        script = "ip link set {0} down; ip link set {0} name {1}; ip link set {1} up"
        at.sh(script.format(link, self.name))
        return [at.later(script.format(self.name, link))]


class LinkAdd(Fault, frozen=True, kw_only=True):
    """A bridge or a pair of veth (`NAME` and `NAMEp`, both up) with an address, as another program makes them."""

    name: str
    type: Literal["bridge", "veth"] = "bridge"
    address: str = ""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        other = f" peer name {self.name}p" if self.type == "veth" else ""
        lines = [f"ip link add {self.name} type {self.type}{other}"]
        if self.address:
            lines.append(f"ip address add {self.address} dev {self.name}")
        lines += [f"ip link set {self.name} up", *([f"ip link set {self.name}p up"] if other else [])]
        at.sh("\n".join(lines))
        return [at.later(f"ip link del {self.name}")]


class LinkDelete(Fault, frozen=True, kw_only=True):
    """`ip link del` of a bridge; taking it back makes one of the same name, addresses and ports."""

    link: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        address = at.sh(f"ip -o -4 addr show {link} | awk '{{print $4}}'").strip()
        ports = at.sh(f"ls /sys/class/net/{link}/brif 2>/dev/null || true").split()
        own = at.sh(f"cat /sys/class/net/{link}/address").strip()
        at.sh(f"ip link del {link}")
        lines = [f"ip link add {link} address {own} type bridge"]
        lines += [f"ip address add {address} dev {link}"] if address else []
        lines += [*(f"ip link set {port} master {link}" for port in ports), f"ip link set {link} up"]
        return [lambda: sh(at.ground, "\n".join(lines))]


class AddressAdd(Inside, frozen=True, kw_only=True):
    """`ip address add ADDRESS/LENGTH dev LINK`."""

    link: str
    address: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        at.sh(f"{self.head()}ip address add {self.address} dev {self.link}")
        return [at.later(f"{self.head()}ip address del {self.address} dev {self.link}")]


class AddressDelete(Inside, frozen=True, kw_only=True):
    """`ip address del ADDRESS/LENGTH dev LINK`."""

    link: str
    address: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        at.sh(f"{self.head()}ip address del {self.address} dev {self.link}")
        return [at.later(f"{self.head()}ip address add {self.address} dev {self.link}")]


class RouteAdd(Inside, frozen=True, kw_only=True):
    """`ip route add ROUTE`."""

    route: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        at.sh(f"{self.head()}ip route add {self.route}")
        return [at.later(f"{self.head()}ip route del {self.route}")]


class RouteDelete(Inside, frozen=True, kw_only=True):
    """`ip route del ROUTE`."""

    route: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        route = at.names.fill(self.route)
        before = at.sh(f"{self.head()}ip route show {route}").strip()
        at.sh(f"{self.head()}ip route del {route}")
        return [at.later(f"{self.head()}ip route add {before}")]


class PolicyAdd(Fault, frozen=True, kw_only=True):
    """`ip rule add RULE`."""

    rule: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        at.sh(f"ip rule add {self.rule}")
        return [at.later(f"ip rule del {self.rule}")]
