"""Links, addresses and routes: of the host, and of every network namespace.

Parses text in the shape of `ip -j -d addr` and `ip -j -d route show table all`, one object a line; a host's own
`ip -j`, our reader (`doctor.linux.rtnetlink`) and hand-written cases are read alike.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot, tree_entries

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Data(Struct):
    stp_state: int = 0
    forward_delay: int = 0
    nf_call_iptables: int = 0
    nf_call_ip6tables: int = 0
    vlan_filtering: int = 0


class _Port(Struct):
    state: str | int = ""
    hairpin: bool = False
    isolated: bool = False


class _Info(Struct):
    info_kind: str = ""
    info_data: _Data = field(default_factory=_Data)
    info_slave_data: _Port = field(default_factory=_Port)


class _Program(Struct):
    id: int = 0


class _Xdp(Struct):
    mode: int = 0
    prog: _Program = field(default_factory=_Program)


class _Filters(Struct):
    ingress: list[str] = field(default_factory=list)
    egress: list[str] = field(default_factory=list)


class _Address(Struct):
    family: str = ""
    local: str = ""
    prefixlen: int = 0
    scope: str = ""


class _Link(Struct):
    ifname: str = ""
    ifindex: int = 0
    link_index: int = 0
    flags: list[str] = field(default_factory=list)
    mtu: int = 0
    master: str = ""
    operstate: str = ""
    address: str = ""
    qdisc: str = ""
    linkinfo: _Info = field(default_factory=_Info)
    xdp: _Xdp | None = None
    filters: _Filters = field(default_factory=_Filters)
    addr_info: list[_Address] = field(default_factory=list)


class Link(Struct, frozen=True):
    """One link. `peer` is the ifindex of the other end of a veth (in its own namespace); addresses have prefixes.

    `port_state` is the state of a port of a bridge (`forwarding`, `listening`, ...); `learns` the seconds that a bridge
    with STP keeps a new port from forwarding, 0 without STP. `hairpin` and `isolated` are flags of a port; `filters` are
    the IP versions for which this bridge alone calls iptables (the sysctls do it for all bridges). `doubt` says what may
    stop packets that leave by it and is not read: netem and filters of tc, VLANs of a bridge; `doubt_in` what may stop
    those that come in by it: XDP programs, filters of tc. Empty for most.
    """

    name: str
    index: int
    peer: int
    kind: str
    up: bool
    state: str
    mtu: int
    master: str
    mac: str
    addresses: tuple[str, ...]
    port_state: str
    learns: float
    cited: Citation
    hairpin: bool = False
    isolated: bool = False
    filters: tuple[int, ...] = ()
    doubt: str = ""
    doubt_in: str = ""

    @property
    def bare(self) -> set[str]:
        """Its addresses without their prefix lengths."""
        return {held.partition("/")[0] for held in self.addresses}


def interface(text: str) -> IPv4Interface | IPv6Interface | None:
    """Read an address, with or without its prefix length; None for what is none: a bundle may hold anything."""
    try:
        return ip_interface(text)
    except ValueError:
        return None


class Route(Struct, frozen=True):
    """One route: `dst` is `default` or a prefix, `table` is `main` when not named.

    `source` is the address that packets of the host itself get when they have none, empty where the route names none.
    `devs` are the devices of all its next hops, `mtu` is 0 where the route sets none, `dead` says that no packet takes it.
    """

    dst: str
    dev: str
    gateway: str
    table: str
    type: str
    version: int
    metric: int
    devs: tuple[str, ...]
    mtu: int
    dead: bool
    cited: Citation
    source: str = ""

    @property
    def by_hand(self) -> str:
        """The route in the words of `ip route`."""
        parts = [self.dst if self.type == "unicast" else f"{self.type} {self.dst}"]
        parts += [f"via {self.gateway}"] if self.gateway else []
        parts += [f"dev {self.dev}"] if self.dev else []
        parts += [f"table {self.table}"] if self.table != "main" else []
        parts += [f"metric {self.metric}"] if self.metric else []
        return " ".join(parts)


class _Hop(Struct):
    dev: str = ""
    gateway: str = ""
    flags: list[str] = field(default_factory=list)


class _Metrics(Struct):
    mtu: int = 0


class _Route(Struct):
    dst: str = ""
    dev: str = ""
    gateway: str = ""
    prefsrc: str = ""
    table: str = "main"
    type: str = "unicast"
    family: str = ""
    metric: int = 0
    flags: list[str] = field(default_factory=list)
    nexthops: list[_Hop] = field(default_factory=list)
    metrics: list[_Metrics] = field(default_factory=list)


class Namespace(Struct, frozen=True):
    """What one network namespace holds. `missing` says why it could not be read; then the rest is empty."""

    inode: str
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    missing: str


class Links(Struct, frozen=True):
    """Links of the host."""

    all: tuple[Link, ...]
    by_name: dict[str, Link]
    by_index: dict[int, Link]
    cited: Citation


class Routes(Struct, frozen=True):
    """Routes of the host, of every table."""

    all: tuple[Route, ...]

    @property
    def uplinks(self) -> tuple[str, ...]:
        """Devices that an IPv4 default route of the main table leads to; one of type `unreachable` leads nowhere."""
        found = {
            dev
            for one in self.all
            if (one.dst, one.table, one.type, one.version) == ("default", "main", "unicast", 4)
            for dev in one.devs
        }
        return tuple(sorted(found))


class Namespaces(Struct, frozen=True):
    """Every other network namespace, by inode (`4026532326`)."""

    by_inode: dict[str, Namespace]


_Row = TypeVar("_Row", _Link, _Route)


def _rows(record: Record, kind: type[_Row]) -> Iterator[tuple[int, _Row]]:
    """Give line number and object: one object a line, or a list on one line, as `ip -j` prints it."""
    for number, raw in enumerate(record.data.split(b"\n"), 1):
        line = raw.strip().rstrip(b",")
        try:
            if line.startswith(b"{"):
                yield number, msgspec.json.decode(line, type=kind)
            elif line.startswith(b"[") and len(line) > 1:
                for one in msgspec.json.decode(line, type=list[kind]):  # type: ignore[valid-type]  # given at run time
                    yield number, one
        except UNDECODABLE:
            continue


def _doubt(one: _Link) -> str:
    """Say what may stop packets at a link, and is not read: tc-netem(8) loses some, a bridge with VLANs keeps them apart."""
    if one.qdisc == "netem":
        return f"how many packets tc loses on {one.ifname} (netem)"
    if one.filters.egress:
        return f"whether filters of tc ({', '.join(one.filters.egress)}) let packets leave by {one.ifname}"
    return f"which VLANs {one.ifname} lets through" if one.linkinfo.info_data.vlan_filtering else ""


def _doubt_in(one: _Link) -> str:
    """Say what may stop packets that come in by a link: a program of XDP, and filters of tc, are not read."""
    if one.xdp is not None and one.xdp.mode:
        return f"whether XDP program {one.xdp.prog.id} lets packets in by {one.ifname}"
    if one.filters.ingress:
        return f"whether filters of tc ({', '.join(one.filters.ingress)}) let packets in by {one.ifname}"
    return ""


def _links(record: Record, whose: str) -> tuple[Link, ...]:
    found = []
    for number, one in _rows(record, _Link):
        up = "UP" in one.flags
        port, data = one.linkinfo.info_slave_data, one.linkinfo.info_data
        addresses = tuple(f"{held.local}/{held.prefixlen}" for held in one.addr_info if held.local)
        excerpt = " ".join(
            word
            for word in (
                one.ifname,
                "UP" if up else "DOWN",
                f"master {one.master}" if one.master else "",
                *(address for address in addresses if not address.startswith("fe80:")),
            )
            if word
        )
        found.append(
            Link(
                name=one.ifname,
                index=one.ifindex,
                peer=one.link_index,
                kind=one.linkinfo.info_kind,
                up=up,
                state=one.operstate,
                mtu=one.mtu,
                master=one.master,
                mac=one.address,
                addresses=addresses,
                port_state=str(port.state) if one.master else "",
                learns=2 * data.forward_delay / 100 if data.stp_state else 0.0,
                cited=Citation(record.name, number, excerpt, f"{whose}link {one.ifname}"),
                hairpin=port.hairpin,
                isolated=port.isolated,
                filters=(4,) * bool(data.nf_call_iptables) + (6,) * bool(data.nf_call_ip6tables),
                doubt=_doubt(one),
                doubt_in=_doubt_in(one),
            )
        )
    return tuple(found)


def _routes(record: Record) -> tuple[Route, ...]:
    found = []
    for number, one in _rows(record, _Route):
        excerpt = f"{one.dst} via {one.gateway} dev {one.dev}" if one.gateway else f"{one.dst} dev {one.dev}"
        cited = Citation(record.name, number, excerpt, f"route {one.dst}")
        hops = [hop for hop in one.nexthops if "dead" not in hop.flags]
        found.append(
            Route(
                dst=one.dst,
                dev=one.dev or (hops[0].dev if hops else ""),
                gateway=one.gateway or (hops[0].gateway if hops else ""),
                table=one.table,
                type=one.type,
                version=6 if one.family == "inet6" or ":" in one.dst or ":" in one.gateway else 4,
                metric=one.metric,
                devs=tuple(hop.dev for hop in hops) or ((one.dev,) if one.dev else ()),
                mtu=one.metrics[0].mtu if one.metrics else 0,
                dead="dead" in one.flags or bool(one.nexthops and not hops),
                cited=cited,
                source=one.prefsrc,
            )
        )
    return tuple(found)


@fact
def links(snapshot: Snapshot) -> Links:
    """Read the host's links."""
    record = snapshot.get("netns/host/links")
    if not record.readable:
        raise EvidenceMissing("links", record.why or record.status)
    found = _links(record, "")
    return Links(
        found,
        {one.name: one for one in found},
        {one.index: one for one in found},
        Citation(record.name, 0, f"{len(found)} links", "links of the host"),
    )


@fact
def routes(snapshot: Snapshot) -> Routes:
    """Read the host's routes."""
    record = snapshot.get("netns/host/routes")
    if not record.readable:
        raise EvidenceMissing("routes", record.why or record.status)
    return Routes(_routes(record))


@fact
def namespaces(snapshot: Snapshot) -> Namespaces:
    """Read what every namespace in the index holds."""
    index = snapshot.get("netns/index")
    if not index.readable:
        raise EvidenceMissing("network namespaces", index.why or index.status)
    found = {}
    for entry in tree_entries(index):
        inode = entry.path
        if entry.content == "host":
            continue
        record = snapshot.get(f"netns/{inode}/links")
        missing = "" if record.readable else record.why or record.status
        found[inode] = Namespace(
            inode,
            _links(record, "") if not missing else (),
            _routes(snapshot.get(f"netns/{inode}/routes")) if not missing else (),
            missing,
        )
    return Namespaces(found)
