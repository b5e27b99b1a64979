"""What an engine was told, as far as it decides which firewall rules it writes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Family = Literal["ip", "ip6"]


class Binding(Struct, frozen=True):
    """A published port: `port`/`protocol` of the container on `host` of the address `host_ip`; `host` 0: not mapped."""

    port: int
    protocol: str
    host: int
    host_ip: str

    @property
    def family(self) -> Family:
        """The family of the host's address."""
        return "ip6" if ":" in self.host_ip else "ip"


class Bridge(Struct, frozen=True):
    """A bridge network: the name of its link, its subnets (`10.7.0.0/24`, empty: none) and what it was created with.

    `mode` is the gateway mode (`nat`, `nat-unprotected`, `routed`, `isolated`), `snat` the address that outgoing packets
    are given instead of the one of their way out, `trusted` links from which containers may be addressed directly.
    """

    name: str
    subnet4: str = ""
    subnet6: str = ""
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    mode4: str = "nat"
    mode6: str = "nat"
    snat4: str = ""
    snat6: str = ""
    trusted: tuple[str, ...] = ()

    def subnet(self, family: Family) -> str:
        """Give the subnet of a family, empty when the network has none."""
        return self.subnet4 if family == "ip" else self.subnet6

    def snat(self, family: Family) -> str:
        """Give the address that outgoing packets of a family are given, empty for that of the way out."""
        return self.snat4 if family == "ip" else self.snat6

    def routed(self, family: Family) -> bool:
        """Whether addresses of a family are routed, not translated."""
        return (self.mode4 if family == "ip" else self.mode6) == "routed"

    def unprotected(self, family: Family) -> bool:
        """Whether ports of a family that are not published are open all the same."""
        return (self.mode4 if family == "ip" else self.mode6) == "nat-unprotected"


class Endpoint(Struct, frozen=True):
    """A running container's place in a bridge network; `bindings` only where that network is its way out."""

    bridge: str
    address4: str = ""
    address6: str = ""
    bindings: tuple[Binding, ...] = ()

    def address(self, family: Family) -> str:
        """Give the address of a family, empty when there is none."""
        return self.address4 if family == "ip" else self.address6


class Link(Struct, frozen=True):
    """A legacy link (`--link`): the container `parent` may use `ports` (number, protocol) of `child`; addresses of IPv4."""

    bridge: str
    parent: str
    child: str
    ports: tuple[tuple[int, str], ...]


class Site(Struct, frozen=True):
    """Everything that decides the rules. Networks, endpoints and links stand in the order in which they were made.

    `iptables` and `ip6tables` say whether the engine writes rules of that family, `proxy` whether docker-proxy runs for
    published ports. `direct` (allow-direct-routing) and `raw` false (DOCKER_INSECURE_NO_IPTABLES_RAW) leave rules of table
    raw out; `mark` is bridge-accept-fwmark; `mirrored` is WSL2 in mirrored mode.
    """

    iptables: bool = True
    ip6tables: bool = False
    proxy: bool = True
    direct: bool = False
    raw: bool = True
    mark: str = ""
    mirrored: bool = False
    bridges: tuple[Bridge, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    links: tuple[Link, ...] = ()

    def bridge(self, name: str) -> Bridge | None:
        """Give the network of a link's name."""
        return next((one for one in self.bridges if one.name == name), None)
