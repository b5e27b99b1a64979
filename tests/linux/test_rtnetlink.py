"""Links, addresses, routes, rules and neighbours: as iproute2 prints them, and as pyroute2 reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from doctor.linux import namespaces, rtnetlink

if TYPE_CHECKING:
    from tests.linux.spaces import Space

pytestmark = pytest.mark.root

LEFT_OUT = {
    # ages and timers: they differ between two looks
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "message_age_timer",
    "forward_delay_timer",
    "hold_timer",
    "expires",
    # a second spelling of group_fwd_mask
    "group_fwd_mask_str",
    # the next hop object behind nhid, which ip asks for; gateway and device stand in the route as well
    "nh_info",
}
"""Keys of ip that we do not print; for all others, ours are the same."""

CHANGING = {"valid_life_time", "preferred_life_time"}


def read(where: Space) -> dict[str, bytes]:
    """Read everything with one socket."""

    def work() -> dict[str, bytes]:
        with rtnetlink.Route(timeout=5) as route:
            return {
                "links": route.links(),
                "routes": route.routes(),
                "rules": route.rules(),
                "neighbours": route.neighbours(),
            }

    found: dict[str, bytes] = where.call(work)
    return found


def agree(theirs: Any, ours: Any, place: str = "") -> list[str]:
    """Give where ours lacks or contradicts what iproute2 says."""
    if isinstance(theirs, dict):
        return [
            line
            for key, value in theirs.items()
            if key not in LEFT_OUT
            for line in (
                agree(value, ours[key], f"{place}/{key}") if key in ours else [f"{place}/{key}: no {value!r} in {ours}"]
            )
        ]
    if isinstance(theirs, list):
        if len(theirs) != len(ours):
            return [f"{place}: {len(theirs)} of ip, {len(ours)} of ours"]
        return [
            line
            for number, (one, other) in enumerate(zip(theirs, ours, strict=True))
            for line in agree(one, other, f"{place}[{number}]")
        ]
    if place.rpartition("/")[2] in CHANGING and abs(theirs - ours) < 5:
        return []
    return [] if theirs == ours else [f"{place}: ip says {theirs!r}, we {ours!r}"]


@pytest.mark.parametrize("which", ["crowded", "far", "bare"])
def test_links_are_those_of_ip(which: str, request: pytest.FixtureRequest) -> None:
    """Links and addresses: every key that `ip -j -d addr` prints, with its value, in its order."""
    where = request.getfixturevalue(which)
    theirs = where.ask("addr")
    for link in theirs:
        data = link.get("linkinfo", {}).get("info_data", {})
        if "link" in data:  # ip names another link in here, ours gives its index
            name = data.pop("link")
            data["link_index"] = next(one["ifindex"] for one in theirs if one["ifname"] == name)
    assert agree(theirs, json.loads(read(where)["links"])) == []


@pytest.mark.parametrize("which", ["crowded", "far", "bare"])
def test_routes_are_those_of_ip(which: str, request: pytest.FixtureRequest) -> None:
    """Routes: every key that `ip -j -d route show table all` prints, and the family of IPv6."""
    where = request.getfixturevalue(which)
    ours = json.loads(read(where)["routes"])
    assert agree(where.ask("route", "show", "table", "all"), ours) == []
    six = where.ask("-6", "route", "show", "table", "all")
    assert agree(six, [route for route in ours if route.get("family") == "inet6"]) == []


@pytest.mark.parametrize("which", ["crowded", "far", "bare"])
def test_rules_are_those_of_ip(which: str, request: pytest.FixtureRequest) -> None:
    """Rules: every key that `ip -j -d rule` prints, of both families."""
    where = request.getfixturevalue(which)
    ours = json.loads(read(where)["rules"])
    assert agree(where.ask("rule"), [rule for rule in ours if "family" not in rule]) == []
    assert agree(where.ask("-6", "rule"), [rule for rule in ours if rule.get("family") == "inet6"]) == []


@pytest.mark.parametrize("which", ["crowded", "far", "bare"])
def test_neighbours_are_those_of_ip(which: str, request: pytest.FixtureRequest) -> None:
    """Neighbours: every key that `ip -j -d neigh` prints; what needs no resolution is in neither."""
    where = request.getfixturevalue(which)
    ours = json.loads(read(where)["neighbours"])
    assert agree(where.ask("neigh"), ours) == []
    assert "192.0.2.79" not in {one["dst"] for one in ours}


def test_nothing_is_undecoded(crowded: Space) -> None:
    """On this kernel only some options of VXLAN are kept as hexadecimal; a new attribute is seen here first."""
    found = read(crowded)
    undecoded = {
        name: [json.loads(line.rstrip(b",")) for line in text.split(b"\n") if b'"nla"' in line]
        for name, text in found.items()
    }
    assert {link["linkinfo"]["info_kind"] for link in undecoded.pop("links")} <= {"vxlan"}
    assert undecoded == {"routes": [], "rules": [], "neighbours": []}


def test_crowded_namespace_has_what_is_compared(crowded: Space) -> None:
    """The comparison is worth something: the odd ones are really there."""
    found = {name: json.loads(text) for name, text in read(crowded).items()}
    links = {link["ifname"]: link for link in found["links"]}
    assert links["v0"]["master"] == "br0"
    assert {"link_index", "link_netnsid"} <= links["v0"].keys()
    assert links["v1"]["link"] == "v1p"
    assert links["v1"]["linkinfo"]["info_slave_data"]["isolated"] is True
    assert links["down0"]["flags"] == ["NO-CARRIER", "BROADCAST", "MULTICAST", "UP", "M-DOWN"]
    assert links["v1p"]["ifalias"] == 'a "quoted" alias'
    assert links["v1p"]["altnames"] == ["another-name-of-v1p"]
    assert links["br1"]["linkinfo"]["info_data"]["nf_call_iptables"] == 1
    if "vx1" in links:  # not every kernel has VXLAN
        assert links["vx1"]["linkinfo"]["info_data"]["remote6"] == "2001:db8::9"
    routes = {route["dst"]: route for route in found["routes"] if route["table"] != "local"}
    assert routes["10.73.0.0/16"]["flags"] == ["linkdown"]
    assert routes["10.72.0.0/16"]["via"] == {"family": "inet6", "host": "2001:db8::2"}
    assert len(routes["10.71.0.0/16"]["nexthops"]) == 2
    assert routes["10.75.0.0/16"]["nhid"] == 5
    assert sum(route["table"] == "77" for route in found["routes"]) == 150


def test_one_object_a_line(crowded: Space) -> None:
    """Every line between the brackets is one object, so that its number can be cited."""
    for text in read(crowded).values():
        first, *lines, last, end = text.decode("ascii").split("\n")
        assert (first, last, end) == ("[", "]", "")
        assert all(isinstance(json.loads(line.removesuffix(",")), dict) for line in lines)


def test_what_has_no_neighbour_is_an_empty_array(bare: Space) -> None:
    """No entry, no line, and JSON all the same."""
    assert read(bare)["neighbours"] == b"[]\n"


def test_names_are_known_whatever_is_asked_first(crowded: Space) -> None:
    """Routes and neighbours name their devices without links having been asked for."""

    def work() -> tuple[bytes, bytes]:
        with rtnetlink.Route(timeout=5) as route:
            neighbours = route.neighbours()
        with rtnetlink.Route(timeout=5) as route:
            return route.routes(), neighbours

    found = read(crowded)
    assert crowded.call(work) == (found["routes"], found["neighbours"])


def test_two_looks_are_the_same(crowded: Space) -> None:
    """Evidence is stable: nothing but the life times of addresses moves on a host where nothing happens."""
    one, other = read(crowded), read(crowded)
    links = [json.loads(text.pop("links")) for text in (one, other)]
    for found in links:
        for link in found:
            for address in link["addr_info"]:
                for key in CHANGING:
                    address.pop(key)
    assert links[0] == links[1]
    assert one == other


def test_pyroute2_reads_the_same(crowded: Space) -> None:
    """A reader that shares no code with iproute2 agrees on what a diagnosis rests on."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    def work() -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        with IPRoute() as route:
            return (
                list(route.get_links()),
                list(route.get_addr()),
                [*route.get_routes(family=2), *route.get_routes(family=10)],
                list(route.get_neighbours(family=2)),
            )

    links, addresses, routes, neighbours = crowded.call(work)
    ours = {name: json.loads(text) for name, text in read(crowded).items()}
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    assert [
        (link["index"], names[link["index"]], link.get_attr("IFLA_MTU"), names.get(link.get_attr("IFLA_MASTER")))
        for link in links
    ] == [(link["ifindex"], link["ifname"], link["mtu"], link.get("master")) for link in ours["links"]]
    theirs = sorted(
        (names[one["index"]], one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"), one["prefixlen"])
        for one in addresses
    )
    assert theirs == sorted(
        (link["ifname"], one["local"], one["prefixlen"]) for link in ours["links"] for one in link["addr_info"]
    )
    assert sorted(
        (route.get_attr("RTA_TABLE"), names.get(route.get_attr("RTA_OIF"), ""), route.get_attr("RTA_GATEWAY") or "")
        for route in routes
    ) == sorted(
        (
            {"local": 255, "main": 254}.get(route["table"]) or int(route["table"]),
            route.get("dev", ""),
            route.get("gateway", ""),
        )
        for route in ours["routes"]
    )
    assert {(one.get_attr("NDA_DST"), one.get_attr("NDA_LLADDR")) for one in neighbours if not one["state"] & 0x40} == {
        (one["dst"], one.get("lladdr")) for one in ours["neighbours"] if ":" not in one["dst"]
    }


def test_the_socket_stays_where_it_was_opened(crowded: Space, far: Space) -> None:
    """A thread that moves on keeps reading the namespace in which it opened the socket."""

    def work() -> bytes:
        with rtnetlink.Route(timeout=5) as route:
            namespaces.enter(far.path)
            return route.links()

    assert b'"br0"' in crowded.call(work)
    assert b'"br0"' not in read(far)["links"]
