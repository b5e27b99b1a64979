"""The tables of 29's nftables back end, beside what an engine 29 wrote (`native/`, recorded from one built from main)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.engine.rules import Binding, Bridge, Endpoint, Family, Link, Site, native
from tests.linux.spaces import space

if TYPE_CHECKING:
    from doctor.engine.rules.native import Native

RECORDED = Path(__file__).parent / "native"

Read = dict[str, tuple[dict[str, dict[str, str]], dict[str, tuple[str, tuple[str, ...]]]]]

DOCKER0 = Bridge("docker0", "172.17.0.0/16")
ON = "0.0.0.0"  # noqa: S104 - as ports are published
WEB = Endpoint("docker0", "172.17.0.2", "", (Binding(80, "tcp", 8080, ON), Binding(80, "tcp", 8080, "::")))
LO = Endpoint("docker0", "172.17.0.3", "", (Binding(80, "tcp", 8081, "127.0.0.1"),))


def on(bridge: str, address: str, port: int) -> Endpoint:
    """A container with one published port."""
    return Endpoint(bridge, address, "", (Binding(80, "tcp", port, ON), Binding(80, "tcp", port, "::")))


NETWORKS = (
    Bridge("br-647d3a9f9663", "10.7.0.0/24"),
    Bridge("br-6ed46d2253f8", "10.8.0.0/24", internal=True),
    Bridge("br-8d3fcf68cb97", "10.9.0.0/24", icc=False),
    Bridge("br-34dd403858a9", "10.10.0.0/24", mode4="routed"),
)
HOSTS = {
    "fresh": Site(ip6tables=True, bridges=(DOCKER0,)),
    "published": Site(ip6tables=True, bridges=(DOCKER0,), endpoints=(WEB, LO)),
    "networks": Site(
        ip6tables=True,
        bridges=(DOCKER0, *NETWORKS),
        endpoints=(
            WEB,
            LO,
            on("br-647d3a9f9663", "10.7.0.2", 32768),
            Endpoint("br-6ed46d2253f8", "10.8.0.2"),
            on("br-8d3fcf68cb97", "10.9.0.2", 32769),
            on("br-34dd403858a9", "10.10.0.2", 0),
        ),
    ),
    "proxy-off-icc-off": Site(
        ip6tables=True,
        proxy=False,
        bridges=(Bridge("docker0", "172.17.0.0/16", icc=False),),
        endpoints=(WEB, Endpoint("docker0", "172.17.0.3")),
    ),
}


def read(text: str) -> Read:
    """Read what `nft list` prints: by family maps and chains, without counts, and with one word for a priority."""
    found: Read = {}
    family = name = kind = ""
    text = re.sub(r"\bcounter packets \d+ bytes \d+", "counter", text)
    for line in re.sub(r",\n\s+", ", ", text).splitlines():
        words = sets(line.strip().replace("priority -100", "priority dstnat"))
        if words.startswith("table "):
            family = words.split()[1]
            found[family] = ({}, {})
        elif words.startswith(("map ", "chain ")):
            kind, name = words.split()[:2]
            if kind == "map":
                found[family][0][name] = {}
            else:
                found[family][1][name] = ("", ())
        elif words.startswith("elements"):
            found[family][0][name] = dict(re.findall(r'"([^"]+)" : jump (\S+?)(?=[ ,])', f"{words} "))
        elif kind == "chain" and words.startswith("type "):
            found[family][1][name] = (words, ())
        elif kind == "chain" and words not in {"", "}"}:
            head, rules = found[family][1][name]
            found[family][1][name] = (head, (*rules, words))
    return found


def sets(rule: str) -> str:
    """Put the members of a set without a name in order: the kernel has its own."""
    return re.sub(
        r"(?<!elements = )\{ ([^}]*) \}", lambda one: "{ " + ", ".join(sorted(one[1].split(", "))) + " }", rule
    )


def plain(table: Native) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, tuple[str, ...]]]]:
    """A written table in that form."""
    return table.maps, {name: (chain.head, chain.rules) for name, chain in table.chains.items()}


@pytest.mark.parametrize("name", HOSTS)
def test_tables_are_those_of_the_engine(name: str) -> None:
    """Both families, every chain and map, every rule in its place."""
    recorded = read((RECORDED / f"{name}.nft").read_text(encoding="utf-8"))
    families: tuple[Family, ...] = ("ip", "ip6")
    assert {family: plain(native.write(HOSTS[name], family)) for family in families} == recorded


RICH = Site(
    ip6tables=True,
    proxy=False,
    mark="0x1/0xf",
    bridges=(
        Bridge("br0", "10.1.0.0/24", "fd00:1::/64", icc=False, snat4="198.51.100.2", trusted=("eth0", "wg0")),
        Bridge("br1", "10.2.0.0/24", "fd00:2::/64", mode4="nat-unprotected", mode6="routed", masquerade=False),
    ),
    endpoints=(
        Endpoint(
            "br0", "10.1.0.2", "fd00:1::2", (Binding(80, "udp", 53, "127.0.0.2"), Binding(80, "tcp", 8080, "::1"))
        ),
        Endpoint("br1", "10.2.0.2", "fd00:2::2", (Binding(81, "tcp", 81, ON), Binding(81, "tcp", 81, "::"))),
    ),
    links=(Link("br0", "10.1.0.3", "10.1.0.2", ((80, "tcp"),)),),
)


@pytest.mark.root
@pytest.mark.parametrize("name", [*HOSTS, "rich"])
def test_the_kernel_takes_it_and_nft_spells_it_alike(name: str) -> None:
    """What is loaded is listed as it was written; from any host to any other by what changes alone."""
    site = {**HOSTS, "rich": RICH}[name]
    families: tuple[Family, ...] = ("ip", "ip6")
    wanted = {family: native.write(site, family) for family in families}
    with space() as here:
        for _ in range(2):  # in place of what is there, too
            here.run("nft", "-f", "-", stdin="".join(native.whole(one) for one in wanted.values()))
        assert read(here.run("nft", "list", "ruleset")) == {family: plain(one) for family, one in wanted.items()}
        now = wanted
        for other in (*HOSTS.values(), RICH, Site(ip6tables=True)):
            then = {family: native.write(other, family) for family in families}
            here.run("nft", "-f", "-", stdin="".join(native.change(now[family], then[family]) for family in families))
            assert read(here.run("nft", "list", "ruleset")) == {family: plain(one) for family, one in then.items()}
            now = then


def test_nothing_changes_nothing() -> None:
    """Between two of the same there is nothing to do."""
    assert not native.change(native.write(RICH, "ip"), native.write(RICH, "ip"))


@pytest.mark.root
def test_the_resolver_of_a_container() -> None:
    """The table that leads to the embedded DNS loads, and is listed as written."""
    with space() as here:
        here.run("nft", "-f", "-", stdin=native.whole(native.resolver(4001, 4002)))
        assert read(here.run("nft", "list", "ruleset"))["ip"] == plain(native.resolver(4001, 4002))
