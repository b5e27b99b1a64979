"""Networks of driver bridge, as the API lists them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.clock import epoch
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, need

Subnet = IPv4Network | IPv6Network


class _Pool(Struct):
    Subnet: str = ""
    Gateway: str = ""
    IPRange: str = ""
    AuxiliaryAddresses: dict[str, str] | None = None


class _Ipam(Struct):
    Config: list[_Pool] | None = None


class _Network(Struct):
    Name: str = ""
    Id: str = ""
    Driver: str = ""
    Created: str = ""
    Internal: bool = False
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    IPAM: _Ipam | None = None
    Options: dict[str, str] | None = None


class Pool(Struct, frozen=True):
    """One subnet (`10.7.0.0/24`) and its gateway (`10.7.0.1`, empty when none was recorded).

    `others` are addresses that the network knows and the bridge does not have (`--aux-address`, `default-gateway`);
    `range` is the part of the subnet that containers get their addresses from, empty for all of it.
    """

    subnet: str
    gateway: str
    others: tuple[str, ...] = ()
    range: str = ""

    @property
    def prefix(self) -> str:
        """The prefix length, as text."""
        return self.subnet.rpartition("/")[2]

    @property
    def parsed(self) -> Subnet | None:
        """The subnet, None where it is none."""
        return _subnet(self.subnet)

    @property
    def room(self) -> Subnet | None:
        """The part of it that containers get their addresses from."""
        return _subnet(self.range or self.subnet)


def _subnet(text: str) -> Subnet | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


class Network(Struct, frozen=True):
    """One bridge network; `bridge` is the name of its link, `options` the driver's, as given at creation.

    `created` is in seconds since the epoch; the default bridge is made anew with each start of dockerd.
    """

    id: str
    name: str
    bridge: str
    pools: tuple[Pool, ...]
    internal: bool
    ipv6: bool
    options: dict[str, str]
    cited: Citation
    ipv4: bool = True
    created: float = 0.0

    @property
    def subnets(self) -> list[Subnet]:
        """Its subnets, without those that cannot be parsed."""
        return [subnet for pool in self.pools if (subnet := pool.parsed) is not None]

    def option(self, name: str) -> str:
        """Give an option of the bridge driver by the end of its key: `enable_icc`, `inhibit_ipv4`, ..."""
        return self.options.get(f"com.docker.network.bridge.{name}", "")

    def on(self, name: str) -> bool:
        """Whether a switch of the bridge driver is on: read as Go's strconv.ParseBool does, on where it is not set."""
        return self.option(name) not in {"0", "f", "F", "false", "FALSE", "False"}


class Networks(Struct, frozen=True):
    """All bridge networks, by name."""

    all: tuple[Network, ...]


@fact
def networks(snapshot: Snapshot) -> Networks:
    """Parse `GET /networks`; other drivers are left out."""
    record = need(snapshot, "api/networks", "API")
    try:
        raw = msgspec.json.decode(record.data, type=list[_Network])
    except UNDECODABLE as error:
        raise EvidenceMissing("API", f"/networks: {error}") from error
    found = []
    for one in sorted(raw, key=lambda network: network.Name):
        if one.Driver != "bridge":
            continue
        options = one.Options or {}
        pools = tuple(
            Pool(
                pool.Subnet,
                pool.Gateway.partition("/")[0],
                tuple((pool.AuxiliaryAddresses or {}).values()),
                pool.IPRange,
            )
            for pool in (one.IPAM or _Ipam()).Config or ()
        )
        excerpt = f"{one.Name} " + " ".join(f"{pool.subnet} gateway {pool.gateway or '-'}" for pool in pools)
        found.append(
            Network(
                id=one.Id,
                name=one.Name,
                bridge=options.get("com.docker.network.bridge.name") or f"br-{one.Id[:12]}",
                pools=pools,
                internal=one.Internal,
                ipv6=one.EnableIPv6,
                options=options,
                cited=Citation(record.name, 1, excerpt, f"network {one.Name}"),
                ipv4=one.EnableIPv4,
                created=epoch(one.Created),
            )
        )
    return Networks(tuple(found))
