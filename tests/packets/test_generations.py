"""What each generation of the engine makes of the same packet, from the rules that it writes and nothing else.

Two networks, c1 and c2 in the first, c0 in the second; c1 serves 80 and 81, and 8080 of the host is published for its 80. The
rules are those that a dialect writes, the policy of FORWARD is DROP as dockerd sets it, and no version is known to the walk.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct
from msgspec.structs import replace

from doctor.engine.rules import DIALECTS, Binding, Bridge, Endpoint, native
from doctor.engine.rules import Site as Told
from doctor.engine.rules.compare import whole
from doctor.facts.rules import Tables, parse_save
from doctor.facts.sysctls import Value
from doctor.packets import iptables, nft
from doctor.packets.flow import OUTSIDE, TCP, Flow
from doctor.packets.packet import number
from doctor.packets.program import Program, joined
from doctor.packets.site import HOST, Spaces
from doctor.packets.walk import follow
from doctor.snapshot import Record
from tests.linux.spaces import space
from tests.packets.hosts import NOWHERE, UPLINK, Box, Host, address, bridge, made

if TYPE_CHECKING:
    from doctor.packets.walk import Result

GENERATIONS = ("20.10", "26", "28.0.1", "28.0.2", "28.2", "29")
"""Dialects of the columns: up to 27, 28.0 to 28.1, 28.2 to 28.5, 29 with iptables."""

BOXES = (Box((0,), (80, 81), ((8080, 80),)), Box((0,)), Box((1,)))
C1, C2, C0 = address(0, 2), address(0, 3), address(1, 2)


class World(Struct, frozen=True):
    """How a host is set up; `policy` is that of FORWARD."""

    proxy: bool = True
    bridged: bool = True
    icc: bool = True
    mode: str = "nat"
    policy: str = "DROP"


def told(world: World) -> Told:
    """Give what the engine was told."""
    bindings = (Binding(80, "tcp", 8080, "0.0.0.0"),)  # noqa: S104 - as ports are published
    return Told(
        proxy=world.proxy,
        bridges=(
            Bridge(bridge(0), f"{address(0, 0)}/24", icc=world.icc, mode4=world.mode),
            Bridge(bridge(1), f"{address(1, 0)}/24"),
        ),
        endpoints=(
            Endpoint(bridge(0), C1, "", bindings),
            Endpoint(bridge(0), C2),
            Endpoint(bridge(1), C0),
        ),
    )


def saved(generation: str, world: World) -> Program:
    """Give the rules that a dialect writes, as they stand once they are loaded."""
    spoken = next(one for one in DIALECTS if one.name == generation)
    text = whole(spoken.write(told(world), "ip"))
    for table, chains in (
        ("raw", ("PREROUTING", "OUTPUT")),
        ("filter", ("INPUT", "FORWARD", "OUTPUT")),
        ("nat", ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")),
    ):
        policies = "".join(f":{name} {world.policy if name == 'FORWARD' else 'ACCEPT'} [0:0]\n" for name in chains)
        text = text.replace(f"*{table}\n", f"*{table}\n{policies}")
    held, damage = parse_save(text, "net/iptables-nft", "")
    assert not damage
    return iptables.compile_tables([Tables("ip", "nft", "net/iptables-nft", held, "")])


def listed(world: World) -> Program:
    """Give the tables of 29's own back end as the kernel lists them."""
    with space() as here:
        here.run("nft", "-f", "-", stdin=native.whole(native.write(told(world), "ip")))
        listing = here.run("nft", "-j", "list", "ruleset")
    assert json.loads(listing)["nftables"]
    return joined([nft.compile_ruleset(Record("net/nft", "command", "", data=listing.encode()), managed=frozenset())])


def walked(program: Program, world: World, source: str, target: str, port: int) -> tuple[Result, str]:
    """Walk one packet under a program; gives the result and the place that decided."""
    held = made(Host(BOXES, proxies=world.proxy, bridged=world.bridged))
    values = {**held.site.host.sysctls, f"ipv4/conf/{bridge(0)}/route_localnet": Value("1", NOWHERE)}
    host = replace(held.site.host, program=program, sysctls=values)
    makers = {key: (lambda key=key: held.site.spaces[key]) for key in held.site.spaces}
    makers[HOST] = lambda: host
    names = dict(zip(("c1", "c2", "c0"), held.spaces, strict=True)) | {"ext": OUTSIDE}
    result = follow(replace(held.site, spaces=Spaces(makers)), Flow(names[source], number(target), port, 4, TCP))
    step = result.walk.decider.step
    return result, step.cited.place if step is not None and step.cited is not None else ""


def by_proxy(result: Result) -> bool:
    """Whether docker-proxy took the connection."""
    return result.walk.proxied is not None


class Row(Struct, frozen=True):
    """A row of the table: who asks whom, and by generation what decides; empty: it works (by DNAT), `proxy`: by docker-proxy.

    What decides is a pattern of the place that is named.
    """

    name: str
    source: str
    target: str
    port: int
    fates: dict[str, str]
    world: World = World()


RAW = r"raw PREROUTING"
STAGE2 = "ISOLATION-STAGE-2"
OLD, MIDDLE, NEW, LAST = ("20.10", "26"), ("28.0.1", "28.0.2"), ("28.2",), ("29", "nft")


def fates(old: str, middle: str, new: str, last: str) -> dict[str, str]:
    """Give what becomes of a packet by the columns of the table."""
    columns = ((OLD, old), (MIDDLE, middle), (NEW, new), (LAST, last))
    return {one: fate for several, fate in columns for one in several}


ROWS = (
    Row("published-from-outside", "ext", UPLINK, 8080, fates("", "", "", "")),
    Row("direct-to-a-published-port", "ext", C1, 80, fates("", RAW, RAW, RAW)),
    Row("direct-to-another-port", "ext", C1, 81, fates("filter FORWARD", "filter DOCKER", RAW, RAW)),
    Row(
        "direct-to-another-port-policy-accept",
        "ext",
        C1,
        81,
        fates("", "filter DOCKER", RAW, RAW),
        World(policy="ACCEPT"),
    ),
    Row("another-network-direct", "c0", C1, 80, fates(STAGE2, RAW, RAW, RAW)),
    Row("another-network-published", "c0", UPLINK, 8080, fates("proxy", "proxy", "proxy", "")),
    Row("same-network-published", "c2", UPLINK, 8080, fates("proxy", "proxy", "proxy", "proxy")),
    Row("same-network-published-without-proxy", "c2", UPLINK, 8080, fates("", "", "", ""), World(proxy=False)),
    Row(
        "another-network-published-without-proxy",
        "c0",
        UPLINK,
        8080,
        fates(STAGE2, STAGE2, STAGE2, ""),
        World(proxy=False),
    ),
    Row("icc-off", "c2", C1, 80, fates("filter ", "filter ", "filter ", "filter"), World(icc=False)),
    Row("icc-off-and-not-bridged", "c2", C1, 80, fates("", "", "", ""), World(icc=False, bridged=False)),
)


def holds(row: Row, generation: str, program: Program) -> None:
    """Compare what becomes of a row's packet with the table."""
    fate = row.fates[generation]
    result, place = walked(program, row.world, row.source, row.target, row.port)
    ends = result.walk.end.outcome, result.sees, place
    if fate in {"", "proxy"}:
        assert result.works, ends
        assert by_proxy(result) == (fate == "proxy"), ends
        return
    assert (result.works, result.sees) == (False, "timeout"), ends
    assert re.search(fate, place), ends


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table(row: Row, generation: str) -> None:
    """Every row in every column of iptables."""
    holds(row, generation, saved(generation, row.world))


@pytest.mark.root
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table_with_nftables(row: Row) -> None:
    """The column of 29 with nftables: what the kernel lists decides as the rules of iptables do."""
    fate = {"filter DOCKER": "filter-forward-in", "filter ": "filter-forward-in", "filter": "filter-forward-in"}
    fate |= {RAW: "raw-PREROUTING"}
    wanted = row.fates["nft"]
    holds(replace(row, fates={"nft": fate.get(wanted, wanted)}), "nft", listed(row.world))


@pytest.mark.parametrize("generation", ["20.10", "26", "28.2", "29"])
def test_answers_that_pass_the_host_by(generation: str) -> None:
    """Without docker-proxy a neighbour's answer has to meet the host, which undoes what it did: by br_netfilter alone."""
    world = World(proxy=False, bridged=False)
    result, _ = walked(saved(generation, world), world, "c2", UPLINK, 8080)
    assert not result.works


@pytest.mark.parametrize("port", [80, 81])
def test_networks_that_are_not_protected(port: int) -> None:
    """From 29 on another network reaches any port of one that is not protected; before, networks are apart all the same."""
    world = World(mode="nat-unprotected")
    assert walked(saved("29", world), world, "c0", C1, port)[0].works
    for generation in ("28.0.1", "28.2"):
        before, place = walked(saved(generation, world), world, "c0", C1, port)
        assert not before.works
        assert STAGE2 in place


def test_networks_that_are_routed() -> None:
    """What a routed network publishes is reached by address, from outside and from another network; other ports are not."""
    world = World(mode="routed")
    for generation in ("28.0.1", "28.2", "29"):
        program = saved(generation, world)
        assert walked(program, world, "c0", C1, 80)[0].works
        assert walked(program, world, "ext", C1, 80)[0].works
        assert not walked(program, world, "ext", C1, 81)[0].works
