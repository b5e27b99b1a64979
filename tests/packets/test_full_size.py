"""Packets of full size: which link does not take them, whether their sender is told, and what a firewall lowers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.registry import load
from doctor.reports.trace import as_text
from doctor.trace import trace
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.model import Trace

HEALTHY = casefile.base("healthy-28")
REGISTRY = load(plugins=False)

UPLINK = ("netns/host/links", '"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500')
NARROW = (*UPLINK, UPLINK[1].replace("1500", "1400"))
RULES = "net/iptables-nft"
SILENT = (RULES, "-A FORWARD -j DOCKER-USER", "-A OUTPUT -p icmp -j DROP\n[0:0] -A FORWARD -j DOCKER-USER")
OUT = "198.51.100.1:9000"


def clamp(options: str) -> tuple[str, str, str]:
    """Give what adds a rule of table mangle."""
    table = f"*mangle\n:FORWARD ACCEPT [0:0]\n[0:0] -A FORWARD {options}\nCOMMIT\n*raw\n"
    return (RULES, "*raw\n", table)


def follow(source: str, target: str, *edits: tuple[str, str, str]) -> Trace:
    """Trace a packet of the healthy host, with texts of records exchanged."""
    records = dict(HEALTHY.records)
    for name, old, new in edits:
        assert records[name].text.count(old) == 1, old
        records[name] = replace(records[name], data=records[name].text.replace(old, new).encode())
    return trace(replace(HEALTHY, records=records), REGISTRY, source, target)[0]


def test_all_links_alike() -> None:
    """Where everything fits nothing is said of sizes."""
    for source, target in (("web", OUT), ("outside", "host:8080"), ("db", "api:80"), ("web", "host:8081")):
        assert follow(source, target).full_size == ""


def test_a_sender_that_is_told() -> None:
    """The uplink takes less: the host says so, and the sender hears it. It works."""
    found = follow("web", OUT, NARROW)
    assert found.works is True
    assert "eth0 takes packets of 1400 bytes, not of 1500; the sender is told" in found.full_size


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ("-A OUTPUT -p icmp -j DROP", "filter OUTPUT 1"),
        ("-A OUTPUT -p icmp -m icmp --icmp-type 3 -j DROP", "filter OUTPUT 1"),
        ("-A OUTPUT -o docker0 -m conntrack --ctstate RELATED -j REJECT", "filter OUTPUT 1"),
    ],
)
def test_a_sender_that_is_not_told(rule: str, place: str) -> None:
    """The error is stopped on its way: it connects and hangs, and the rule is named."""
    found = follow("web", OUT, NARROW, (RULES, SILENT[1], f"{rule}\n[0:0] {SILENT[1]}"))
    assert (found.works, found.client_sees, found.code) == (False, "connected", "MTU_DF")
    assert f"the error that says so ends at {place}" in found.full_size
    text = as_text(found)
    assert "then hang with what is large" in text
    assert "TCPMSS --clamp-mss-to-pmtu" in text


def test_another_kind_of_icmp_may_be_stopped() -> None:
    """Pings are not what tells a sender."""
    rule = f"-A OUTPUT -p icmp -m icmp --icmp-type 0 -j DROP\n[0:0] {SILENT[1]}"
    assert follow("web", OUT, NARROW, (RULES, SILENT[1], rule)).works is True


@pytest.mark.parametrize(
    ("options", "works"),
    [
        ("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", True),
        ("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1360", True),
        ("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400", False),
        ("-o eth0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", False),
        ("-i eth0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", True),
    ],
)
def test_what_a_clamp_lowers(options: str, works: bool) -> None:  # noqa: FBT001
    """What the other end announces bounds what is sent: a clamp on the SYN alone does not help who sends."""
    found = follow("web", OUT, NARROW, SILENT, clamp(options))
    assert found.works is works
    assert (found.full_size == "") == works


def test_answers_of_a_published_port() -> None:
    """From outside to a port: the answers are what does not fit, and it is the container that is not told."""
    found = follow("outside", "host:8080", NARROW, SILENT)
    assert (found.works, found.code) == (False, "MTU_DF")
    assert found.full_size.startswith("answers of full size: eth0 takes packets of 1400")
    assert follow("outside", "host:8080", NARROW).works is True


def test_a_route_says_less_than_its_link() -> None:
    """The MTU of a route counts for what is forwarded as well."""
    name = "netns/host/routes"
    old = next(line for line in HEALTHY.records[name].text.split("{") if '"dst":"198.51.100.0/24"' in line)
    edit = (name, old, old.replace('"dst":', '"metrics":[{"mtu":1380}],"dst":', 1))
    assert "takes packets of 1380 bytes" in follow("web", OUT, edit).full_size


def test_a_port_of_a_bridge_that_takes_less() -> None:
    """Single packets are lost between the ends of a link, and transfers of TCP pass (as on a live engine): it is said."""
    text = HEALTHY.records["netns/host/links"].text
    head, _, tail = text.partition('"ifname":"veth')
    name = tail.split('"')[0]
    line = f'"ifname":"veth{name}' + tail[len(name) : tail.index('"mtu":1500') + len('"mtu":1500')]
    assert head
    edit = ("netns/host/links", line, line.replace('"mtu":1500', '"mtu":1200'))
    found = [follow(one, OUT, edit) for one in ("web", "api", "db")]
    assert [one.works for one in found] == [True, True, True]
    said = [one.full_size for one in found if one.full_size]
    assert len(said) == 1
    assert f"veth{name} takes packets of 1200 bytes, not of 1500; one by one they are lost" in said[0]
