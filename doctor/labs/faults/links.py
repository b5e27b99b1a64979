"""Faults of sysctls, links, addresses and routes, on the host or in a container's network."""

from __future__ import annotations

import shlex
from typing import Literal

from doctor.labs.faults.base import Fault, Place, Undo


class Sysctl(Fault, frozen=True, kw_only=True):
    """`sysctl -w`."""

    key: str
    value: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        before = at.sh(f"sysctl -n {self.key}").strip()
        setting = f"sysctl -qw {self.key}="
        return at.do(setting + shlex.quote(self.value), setting + shlex.quote(before))


class Inside(Fault, frozen=True, kw_only=True):
    """What may be done in a container's network as well: `inside` names it, empty for the host's."""

    inside: str = ""

    def ip(self, words: str) -> str:
        """Give the command `ip` that runs there."""
        return (f"nsenter -t {{pid:{self.inside}}} -n " if self.inside else "") + f"ip {words}"

    def texts(self) -> list[str]:
        """See `Fault.texts`."""
        return [*super().texts(), self.ip("")]


class LinkState(Inside, frozen=True, kw_only=True):
    """`ip link set LINK up|down`."""

    link: str
    state: Literal["up", "down"]

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        other = "down" if self.state == "up" else "up"
        return at.do(self.ip(f"link set {self.link} {self.state}"), self.ip(f"link set {self.link} {other}"))


class LinkMaster(Fault, frozen=True, kw_only=True):
    """`ip link set LINK master BRIDGE`, or `nomaster` where `master` is empty."""

    link: str
    master: str = ""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        before = at.sh(f"basename $(readlink /sys/class/net/{link}/master) 2>/dev/null || true").strip()
        after, before = (f"master {name}" if name else "nomaster" for name in (self.master, before))
        return at.do(f"ip link set {link} {after}", f"ip link set {link} {before}")


class LinkMtu(Inside, frozen=True, kw_only=True):
    """`ip link set LINK mtu N`."""

    link: str
    mtu: int

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        before = at.sh(self.ip(f"-o link show {link}")).partition(" mtu ")[2].split()[0]
        return at.do(self.ip(f"link set {link} mtu {self.mtu}"), self.ip(f"link set {link} mtu {before}"))


class LinkRename(Fault, frozen=True, kw_only=True):
    """A link gets another name, as a service does that keeps links of its own: down, renamed, up."""

    link: str
    name: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        script = "ip link set {0} down; ip link set {0} name {1}; ip link set {1} up"
        return at.do(script.format(link, self.name), script.format(self.name, link))


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
        return at.do("\n".join(lines), f"ip link del {self.name}")


class LinkDelete(Fault, frozen=True, kw_only=True):
    """`ip link del` of a bridge; taking it back makes one of the same name, addresses and ports."""

    link: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        link = at.names.fill(self.link)
        address = at.sh(f"ip -o -4 addr show {link} | awk '{{print $4}}'").strip()
        ports = at.sh(f"ls /sys/class/net/{link}/brif 2>/dev/null || true").split()
        own = at.sh(f"cat /sys/class/net/{link}/address").strip()
        lines = [f"ip link add {link} address {own} type bridge"]
        lines += [f"ip address add {address} dev {link}"] if address else []
        lines += [*(f"ip link set {port} master {link}" for port in ports), f"ip link set {link} up"]
        return at.do(f"ip link del {link}", "\n".join(lines))


class Address(Inside, frozen=True, kw_only=True):
    """An address of a link, with its length."""

    link: str
    address: str

    def change(self, verb: str) -> str:
        """Give the command that adds it, or takes it away."""
        return self.ip(f"address {verb} {self.address} dev {self.link}")


class AddressAdd(Address, frozen=True, kw_only=True):
    """`ip address add ADDRESS/LENGTH dev LINK`."""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        return at.do(self.change("add"), self.change("del"))


class AddressDelete(Address, frozen=True, kw_only=True):
    """`ip address del ADDRESS/LENGTH dev LINK`."""

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        return at.do(self.change("del"), self.change("add"))


class RouteAdd(Inside, frozen=True, kw_only=True):
    """`ip route add ROUTE`."""

    route: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        return at.do(self.ip(f"route add {self.route}"), self.ip(f"route del {self.route}"))


class RouteDelete(Inside, frozen=True, kw_only=True):
    """`ip route del ROUTE`."""

    route: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        route = at.names.fill(self.route)
        before = at.sh(self.ip(f"route show {route}")).strip()
        return at.do(self.ip(f"route del {route}"), self.ip(f"route add {before}"))


class PolicyAdd(Fault, frozen=True, kw_only=True):
    """`ip rule add RULE`."""

    rule: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        return at.do(f"ip rule add {self.rule}", f"ip rule del {self.rule}")
