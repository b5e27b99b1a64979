"""Hosts of any size: networks, containers and the rules that Docker would write for them, as a site to walk in."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Asked as Created
from doctor.facts.containers import Container, Containers, Endpoint
from doctor.facts.containers import Port as Published
from doctor.facts.links import Link, Route, Routes
from doctor.facts.networks import Network, Networks
from doctor.facts.processes import Process, Processes
from doctor.facts.proxies import Proxy
from doctor.facts.routes import routing_of
from doctor.facts.rules import Tables, parse_save
from doctor.facts.sockets import Listener, Sockets
from doctor.facts.sysctls import Value
from doctor.model import Citation
from doctor.packets import iptables
from doctor.packets.boxes import Known
from doctor.packets.flow import ICMP, OUTSIDE
from doctor.packets.goal import Goal
from doctor.packets.packet import number, spell
from doctor.packets.program import Program
from doctor.packets.site import HOST, Port, Site, Space, Spaces
from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doctor.packets.packet import Version

UPLINK = "198.51.100.2"
NOWHERE = Citation("test", 1, "", "test")


class Box(Struct, frozen=True):
    """A container: in which networks (by number), on which ports it listens, which it publishes (host, container)."""

    networks: tuple[int, ...]
    listens: tuple[int, ...] = (80,)
    publishes: tuple[tuple[int, int], ...] = ()
    down: bool = False
    inner: str = ""
    """Rules of its own, as saved."""
    isolated: bool = False


class Host(Struct, frozen=True):
    """What is to be built. `icc_off` and `internal` are numbers of networks; `rules` are the user's, by chain."""

    boxes: tuple[Box, ...]
    networks: int = 2
    icc_off: frozenset[int] = frozenset()
    internal: frozenset[int] = frozenset()
    rules: tuple[str, ...] = ()
    raw: bool = True
    proxies: bool = True
    bridged: bool = True
    forwarding: bool = True
    routes: tuple[tuple[str, str, str], ...] = ()
    """More routes of the host: prefix, device, type."""


class Made(Struct, frozen=True):
    """The site, the ids of the containers' namespaces, and every goal."""

    site: Site
    spaces: tuple[str, ...]
    goals: tuple[Goal, ...]
    text: str


def bridge(net: int) -> str:
    """Name the bridge of a network."""
    return f"br-{net:012x}"


def address(net: int, place: int) -> str:
    """Give an address of a network of 254 places: the first is the bridge's."""
    return f"10.{net // 256}.{net % 256}.{place}"


def made(host: Host) -> Made:
    """Build it."""
    places = [0] * host.networks
    ends: list[list[tuple[int, str]]] = []
    for box in host.boxes:
        mine = []
        for net in box.networks:
            places[net] += 1
            mine.append((net, address(net, places[net] + 1)))
        ends.append(mine)
    text = saved(host, ends)
    chains, damage = parse_save(text, "net/iptables-nft", "")
    assert not damage
    program = iptables.compile_tables([Tables("ip", "nft", "net/iptables-nft", chains, "")])
    links: dict[str, dict[str, Link]] = {HOST: {one.name: one for one in _host_links(host)}}
    peers: dict[Port, Port] = {}
    makers: dict[str, Callable[[], Space]] = {}
    ids = tuple(str(4026532000 + at) for at in range(len(host.boxes)))
    index = 1000
    for key, box, mine in zip(ids, host.boxes, ends, strict=True):
        held = {"lo": _link("lo", 1, addresses=("127.0.0.1/8",))}
        for at, (net, own) in enumerate(mine):
            index += 1
            near = f"veth{index:x}"
            held[f"eth{at}"] = _link(f"eth{at}", 2 + at, index, up=not box.down, addresses=(f"{own}/24",))
            links[HOST][near] = _link(near, index, 2 + at, master=bridge(net), isolated=box.isolated)
            peers[key, f"eth{at}"] = (HOST, near)
            peers[HOST, near] = (key, f"eth{at}")
        links[key] = held
        makers[key] = partial(_inner, key, held, mine, box, host)
    proxies = _proxies(host, ends)
    values = {"ipv4/ip_forward": int(host.forwarding), "bridge/bridge-nf-call-iptables": int(host.bridged)}
    rows = [_route("default", "eth0", "198.51.100.1"), _route("198.51.100.0/24", "eth0", source=UPLINK)]
    rows += [_route(f"{address(net, 0)}/24", bridge(net), source=address(net, 1)) for net in range(host.networks)]
    rows += [_route(prefix, device, kind=kind) for prefix, device, kind in host.routes]
    outer = Space(
        HOST,
        HOST,
        links[HOST],
        routing_of(Record("netns/host/rules", "command", ""), Routes(tuple(rows) + _locals(links[HOST]))),
        _rows(links[HOST]),
        program,
        tuple(Listener("tcp", one.host_ip, one.host, 0, False, NOWHERE) for held in proxies.values() for one in held),  # noqa: FBT003
        sysctls={path: Value(str(value), NOWHERE) for path, value in values.items()},
    )
    makers[HOST] = lambda: outer
    return Made(Site(Spaces(makers), links, peers, proxies), ids, tuple(_goals(host, ends, ids)), text)


def saved(host: Host, ends: list[list[tuple[int, str]]]) -> str:
    """Write the rules as iptables-save prints them, those of the user in DOCKER-USER (or where they say)."""
    raw, docker, dnat = [], [], []
    for box, mine in zip(host.boxes, ends, strict=True):
        for net, own in mine if host.raw else ():
            raw.append(f"-A PREROUTING -d {own}/32 ! -i {bridge(net)} -j DROP")
        for port, inner in box.publishes:
            net, own = mine[0]
            docker.append(
                f"-A DOCKER -d {own}/32 ! -i {bridge(net)} -o {bridge(net)} -p tcp -m tcp --dport {inner} -j ACCEPT"
            )
            dnat.append(
                f"-A DOCKER ! -i {bridge(net)} -p tcp -m tcp --dport {port} -j DNAT --to-destination {own}:{inner}"
            )
            dnat.append(f"-A POSTROUTING -s {own}/32 -d {own}/32 -p tcp -m tcp --dport {inner} -j MASQUERADE")
    nets = range(host.networks)
    forward = ["-A FORWARD -j DOCKER-USER"]
    forward += [f"-A FORWARD -o {bridge(net)} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT" for net in nets]
    forward += ["-A FORWARD -j ISOLATION"]
    forward += [f"-A FORWARD -o {bridge(net)} -j DOCKER" for net in nets]
    forward += [f"-A FORWARD -i {bridge(net)} -o {bridge(net)} -j DROP" for net in nets if net in host.icc_off]
    forward += [f"-A FORWARD -i {bridge(net)} -j ACCEPT" for net in nets if net not in host.internal]
    forward += [f"-A FORWARD -i {bridge(net)} -o {bridge(net)} -j ACCEPT" for net in nets if net in host.internal]
    isolation = [f"-A ISOLATION -i {bridge(net)} ! -o {bridge(net)} -j ISOLATION-2" for net in nets]
    isolation += [f"-A ISOLATION-2 -o {bridge(net)} -j DROP" for net in nets]
    isolation += [
        line
        for net in sorted(host.internal)
        for line in (
            f"-A ISOLATION ! -s {address(net, 0)}/24 -o {bridge(net)} -j DROP",
            f"-A ISOLATION ! -d {address(net, 0)}/24 -i {bridge(net)} -j DROP",
        )
    ]
    docker += [f"-A DOCKER ! -i {bridge(net)} -o {bridge(net)} -j DROP" for net in nets]
    masquerade = [
        f"-A POSTROUTING -s {address(net, 0)}/24 ! -o {bridge(net)} -j MASQUERADE"
        for net in nets
        if net not in host.internal
    ]
    user = {"filter": [], "nat": [], "raw": []}  # type: dict[str, list[str]]
    for rule in host.rules:
        table, _, rest = rule.partition(" ")
        user[table].append(rest)
    filter_chains = (":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT", ":DOCKER -", ":DOCKER-USER -", ":ISOLATION -")
    tables = {
        "raw": [[":PREROUTING ACCEPT", ":OUTPUT ACCEPT"], user["raw"], raw],
        "filter": [[*filter_chains, ":ISOLATION-2 -"], user["filter"], forward, isolation, docker],
        "nat": [
            [":PREROUTING ACCEPT", ":INPUT ACCEPT", ":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":DOCKER -"],
            user["nat"],
            ["-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"],
            ["-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"],
            masquerade,
            dnat,
        ],
    }
    return "".join(
        f"*{name}\n" + "".join(f"{line}\n" for part in held for line in part) + "COMMIT\n"
        for name, held in tables.items()
    )


def _goals(host: Host, ends: list[list[tuple[int, str]]], ids: Sequence[str]) -> list[Goal]:
    found = []
    for key, box, mine in zip(ids, host.boxes, ends, strict=True):
        for _, own in mine:
            found += [Goal(key, number(own), port) for port in box.listens]
            found.append(Goal(key, number(own), 0, 4, ICMP))
        for port, inner in box.publishes:
            found.append(Goal(key, number(UPLINK), port, behind=(number(mine[0][1]), inner)))
    found.append(Goal(OUTSIDE, number("203.0.113.77"), 443))
    return found


def _proxies(host: Host, ends: list[list[tuple[int, str]]]) -> dict[tuple[str, int], tuple[Proxy, ...]]:
    if not host.proxies:
        return {}
    return {
        ("tcp", port): (Proxy(1, 1, "tcp", "0.0.0.0", port, mine[0][1], inner, 0.0, NOWHERE),)  # noqa: S104 - as written
        for box, mine in zip(host.boxes, ends, strict=True)
        for port, inner in box.publishes
    }


def _link(
    name: str,
    index: int,
    peer: int = 0,
    *,
    up: bool = True,
    master: str = "",
    addresses: tuple[str, ...] = (),
    isolated: bool = False,
) -> Link:
    kind = "bridge" if name.startswith("br-") else "" if name in {"lo", "eth0"} and not peer else "veth"
    state = "forwarding" if master else ""
    cited = Citation("links", index, name, name)
    return Link(
        name,
        index,
        peer,
        kind,
        up,
        "up",
        1500,
        master,
        f"02:42:00:00:{index:04x}",
        addresses,
        state,
        0.0,
        cited,
        isolated=isolated,
    )


def _host_links(host: Host) -> list[Link]:
    found = [_link("lo", 1, addresses=("127.0.0.1/8",)), _link("eth0", 2, addresses=(f"{UPLINK}/24",))]
    return found + [_link(bridge(net), 10 + net, addresses=(f"{address(net, 1)}/24",)) for net in range(host.networks)]


def _inner(key: str, held: dict[str, Link], mine: list[tuple[int, str]], box: Box, host: Host) -> Space:
    routes = [_route(f"{address(net, 0)}/24", f"eth{at}", source=own) for at, (net, own) in enumerate(mine)]
    out = next(((at, net) for at, (net, _) in enumerate(mine) if net not in host.internal), None)
    if out is not None:
        routes.append(_route("default", f"eth{out[0]}", address(out[1], 1)))
    routing = routing_of(Record(f"netns/{key}/rules", "command", ""), Routes(tuple(routes) + _locals(held)))
    program = Program()
    if box.inner:
        chains, _ = parse_save(box.inner, f"netns/{key}/iptables", f"{key}: ")
        program = iptables.compile_tables([Tables("ip", "nft", "inner", chains, "")])
    listeners = tuple(Listener("tcp", "0.0.0.0", port, 0, False, NOWHERE) for port in box.listens)  # noqa: S104, FBT003 - as ss has it
    return Space(key, f"c{int(key) - 4026532000}", held, routing, _rows(held), program, listeners)


def _route(
    dst: str, dev: str, gateway: str = "", *, source: str = "", kind: str = "unicast", table: str = "main"
) -> Route:
    return Route(dst, dev, gateway, table, kind, 4, 0, (dev,), 0, False, NOWHERE, source)  # noqa: FBT003


def _locals(links: dict[str, Link]) -> tuple[Route, ...]:
    return tuple(
        _route(one.partition("/")[0] if link.name != "lo" else "127.0.0.0/8", link.name, kind="local", table="local")
        for link in links.values()
        for one in link.addresses
    )


def _rows(links: dict[str, Link]) -> dict[Version, tuple[tuple[int, int, str, str], ...]]:
    rows = []
    for link in links.values():
        for one in link.addresses:
            value = number(one.partition("/")[0])
            rows.append(
                (value, value, "local", link.name) if link.name != "lo" else (127 << 24, (128 << 24) - 1, "local", "lo")
            )
            if link.name != "lo":
                rows.append((value | 255, value | 255, "broadcast", link.name))
    return {4: tuple(rows)}


def known(host: Host) -> Known:
    """Build what a matrix is made of: the site, and the containers and networks as the engine has them."""
    built = made(host)
    networks = tuple(
        Network(
            f"{net:064x}",
            f"net{net}",
            bridge(net),
            (),
            net in host.internal,
            ipv6=False,
            options={"com.docker.network.bridge.enable_icc": "false"} if net in host.icc_off else {},
            cited=NOWHERE,
        )
        for net in range(host.networks)
    )
    containers, processes = [], {}
    for at, (box, key) in enumerate(zip(host.boxes, built.spaces, strict=True)):
        held = [goal for goal in built.goals if goal.where == key and not goal.dport]
        ends = tuple(
            Endpoint(f"net{net}", f"{net:064x}", spell(goal.dst, 4), 24, "", "", "", "")
            for net, goal in zip(box.networks, held, strict=True)
        )
        ports = tuple(Published(inner, "tcp", port, "0.0.0.0") for port, inner in box.publishes)  # noqa: S104 - as the API says
        containers.append(
            Container(
                *(f"{at:064x}", f"c{at}", f"c{at}", True, "running", at + 1, 0.0, "", ends, ports, "no", False),
                *("", "", f"net{box.networks[0]}", NOWHERE, Created()),
            )
        )
        spaces = {"net": f"net:[{key}]"}
        processes[at + 1] = Process(at + 1, 1, "serve", "S", 1, 0.0, (), f"{at:064x}", "", spaces, "", (), 1)
    return Known(
        built.site,
        Containers(tuple(containers), (), frozenset(), "API", complete=True),
        Processes(processes, frozenset()),
        Networks(networks),
        Sockets((), "", {}, {}, {}),
        None,
    )
