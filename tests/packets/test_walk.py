"""Walks over hosts of the cases: what reaches whom, what stops it, what is said when it cannot be known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.examine import Facts
from doctor.exits import UsageError
from doctor.packets.build import SITE
from doctor.packets.conditions import Number
from doctor.packets.packet import Packet
from doctor.registry import load
from doctor.reports.trace import as_json, as_text
from doctor.trace import trace
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.model import Trace
    from doctor.snapshot import Snapshot

HEALTHY = casefile.base("healthy-28")


def follow(source: str, target: str, snapshot: Snapshot = HEALTHY) -> Trace:
    """Trace one packet."""
    return trace(snapshot, load(plugins=False), source, target)[0]


def with_rules(*edits: tuple[str, str], record: str = "net/iptables-nft") -> Snapshot:
    """Give the healthy host with parts of a record exchanged; each stands there once."""
    held = HEALTHY.records[record]
    text = held.text
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return replace(HEALTHY, records=HEALTHY.records | {record: replace(held, data=text.encode())})


@pytest.mark.parametrize(
    ("source", "target", "sees", "code", "design"),
    [
        ("outside", "host:8080", "connected", "", False),
        ("outside", "host:8081", "connected", "", False),
        ("outside", "host:9999", "refused", "DST_NO_LISTENER", False),
        ("outside", "web:80", "timeout", "RAW_DIRECT_ACCESS", True),
        ("web", "api:80", "timeout", "RAW_DIRECT_ACCESS", True),
        ("db", "api:80", "connected", "", False),
        ("db", "api:81", "refused", "DST_NO_LISTENER", False),
        ("web", "host:8081", "connected", "", False),
        ("web", "198.51.100.1:9000", "connected", "", False),
        ("host", "198.51.100.2:8080", "connected", "", False),
        ("host", "api", "connected", "", False),
        ("web", "web:80", "connected", "", False),
    ],
)
def test_a_healthy_host(source: str, target: str, sees: str, code: str, design: bool) -> None:  # noqa: FBT001
    """Every kind of flow, with why it does not work, and whether Docker meant it."""
    found = follow(source, target)
    assert (found.client_sees, found.code, found.by_design) == (sees, code, design)
    assert found.works is (sees == "connected")
    assert (found.decided_by is None) == (sees != "timeout" or not found.decided_by)


def test_the_rule_that_decides_is_cited() -> None:
    """A drop in DOCKER-USER is named by its place, and what takes it away is offered."""
    broken = with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n[0:0] -A DOCKER-USER -i eth0 -j DROP\n"))
    found = follow("outside", "host:8080", broken)
    assert (found.works, found.code, found.by_design) == (False, "DOCKER_USER_DROP", False)
    assert found.decided_by is not None
    assert found.decided_by.place == "filter DOCKER-USER 1"
    assert found.remedy is not None
    assert "iptables -t filter -D DOCKER-USER -i eth0 -j DROP" in as_text(found)


def test_an_answer_that_does_not_come_back() -> None:
    """The SYN leaves, the answer meets a rule: the client times out, and the trace says which way it went."""
    broken = with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n[0:0] -A DOCKER-USER -i eth0 -j REJECT\n"))
    found = follow("web", "198.51.100.1:9000", broken)
    assert (found.verdict, found.reply_verdict, found.client_sees) == ("leaves", "rejected", "timeout")
    assert "the answer does not come back" in as_text(found)


def test_a_syn_that_is_sent_again_may_be_rejected() -> None:
    """The answer was seen and stopped, so the SYN that follows belongs to a connection that stands, and is told."""
    rule = "[0:0] -A DOCKER-USER -m conntrack --ctstate ESTABLISHED -j REJECT\n"
    broken = with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n" + rule))
    found = follow("web", "198.51.100.1:9000", broken)
    assert (found.verdict, found.reply_verdict, found.client_sees) == ("leaves", "rejected", "refused")


def test_a_connection_that_stands_and_is_cut_off() -> None:
    """The handshake gets through, and what follows does not: it works no more than one that is refused."""
    rule = "[0:0] -A DOCKER-USER -i eth0 -m conntrack --ctstate ESTABLISHED -j DROP\n"
    found = follow("outside", "host:8080", with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n" + rule)))
    assert (found.works, found.client_sees, found.code) == (False, "connected", "DOCKER_USER_DROP")
    assert "hear nothing more" in as_text(found)


def test_what_depends_is_said() -> None:
    """A rate is not in a snapshot: the verdict is not guessed."""
    broken = with_rules(
        (
            ":DOCKER-USER - [0:0]\n",
            ":DOCKER-USER - [0:0]\n[0:0] -A DOCKER-USER -i eth0 -m limit --limit 1/sec -j DROP\n",
        )
    )
    found = follow("outside", "host:8080", broken)
    assert found.works is None
    assert found.client_sees is None
    assert "-m limit --limit 1/sec" in found.depends_on or "--limit 1/sec" in found.depends_on
    assert "rules of this host are modelled whole" in found.coverage


def test_a_chain_of_a_device_that_is_not_named() -> None:
    """Before 1.0.7 nft's JSON has no device for chains of the family netdev: what such a chain drops depends on it."""
    chain = {"family": "netdev", "table": "n", "name": "i", "type": "filter", "hook": "ingress", "prio": 0}
    drop = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "198.51.100.1"}}
    for named, works in (({}, None), ({"dev": "eth9"}, True)):
        rule = {"family": "netdev", "table": "n", "chain": "i", "expr": [drop, {"drop": None}]}
        listing = json.dumps({"nftables": [{"chain": chain | {"policy": "accept"} | named}, {"rule": rule}]})
        held = replace(HEALTHY.records["net/nft"], data=listing.encode())
        broken = replace(HEALTHY, records=HEALTHY.records | {"net/nft": held})
        assert follow("web", "198.51.100.1:9000", broken).works is works
        assert follow("db", "api:80", broken).works is True


def test_names() -> None:
    """Whether a name can be resolved is said before the packet is followed to the address."""
    assert "default network has no DNS" in follow("web", "api:80").notes[0]
    assert follow("db", "api:80").notes[0].startswith("api is known in db")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("nobody", "web:80", "nobody"),
        ("web", "nobody:80", "nobody"),
        ("web", "api:port", "port"),
        ("web", "api:70000", "70000"),
        ("web", "api:80/sctp", "protocol"),
        ("web", "api/udp", "port"),
        ("web", ":80", "to whom"),
        ("10.7.0.2", "[fd00::1]:80", "two versions"),
    ],
)
def test_what_is_not_known(source: str, target: str, words: str) -> None:
    """A word that is none is an error of usage that names it."""
    with pytest.raises(UsageError, match=words):
        follow(source, target)


@settings(max_examples=min(150, settings.default.max_examples))
@given(
    record=st.sampled_from(
        ["net/iptables-nft", "netns/host/links", "netns/host/routes", "netns/host/rules", "net/sysctl/ipv4", "net/nft"]
    ),
    cut=st.integers(0, 5000),
    length=st.integers(1, 400),
    flow=st.sampled_from([("outside", "host:8080"), ("web", "api:80"), ("host", "web:80"), ("db", "8.8.8.8:53/udp")]),
    put=st.sampled_from(["", "{", '"', "}", "-j A\n", "10.7.0.0/99", "null", "[0:0] -A FORWARD -j FORWARD\n"]),
)
def test_always_an_answer(record: str, cut: int, length: int, flow: tuple[str, str], put: str) -> None:
    """Whatever of the evidence is broken: an answer or a word of what is missing, never anything else."""
    held = HEALTHY.records[record]
    text = held.text
    broken = text[:cut] + put + text[cut + length :]
    snapshot = replace(HEALTHY, records=HEALTHY.records | {record: replace(held, data=broken.encode())})
    try:
        found = follow(*flow, snapshot)
    except UsageError:
        return
    assert as_text(found)
    assert as_json(found)


def test_rules_that_were_not_read_decide_nothing() -> None:
    """Half of a firewall is none: neither yes nor no is said."""
    held = HEALTHY.records["net/nft"]
    cut = replace(
        HEALTHY, records=HEALTHY.records | {"net/nft": replace(held, status="timeout", data=b"", why="2.0 s")}
    )
    found = follow("outside", "host:8080", cut)
    assert found.works is None
    assert "host" in found.depends_on


def test_datagrams() -> None:
    """UDP: a port that nobody listens on is refused by an error, which has to come back; some errors are none to it."""
    assert follow("db", "api:80/udp").client_sees == "refused"
    reject = "[0:0] -A DOCKER-USER -i br-b4b4b4b4b4b4 -p udp -j REJECT --reject-with icmp-net-unreachable\n"
    cut = with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n" + reject))
    assert follow("db", "198.51.100.1:53/udp", cut).client_sees == "timeout"
    told = with_rules((":DOCKER-USER - [0:0]\n", ":DOCKER-USER - [0:0]\n" + reject.replace("net-un", "port-un")))
    assert follow("db", "198.51.100.1:53/udp", told).client_sees == "refused"


def test_where_nothing_was_read_nothing_is_sure() -> None:
    """A packet that goes into a namespace that could not be read ends in a question, not in a no."""
    name = next(
        name for name in HEALTHY.records if name.startswith("netns/") and name.endswith("/links") and "host" not in name
    )
    lost = {
        key: replace(held, status="denied", data=b"", why="permission denied") if key.startswith(name[:-5]) else held
        for key, held in HEALTHY.records.items()
    }
    for target in ("web:80", "api:80", "db:80"):
        found = follow("host", target, replace(HEALTHY, records=lost))
        assert found.works is not False


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("eth0", "how many packets tc loses on eth0 (netem)"),
        ("docker0", "which VLANs docker0 lets through"),
        ("xdp", "whether XDP program 7 lets packets in by docker0"),
        ("ingress", "whether filters of tc (bpf, u32) let packets in by eth0"),
        ("egress", "whether filters of tc (flower) let packets leave by eth0"),
    ],
)
def test_what_may_stop_packets_at_a_link_is_asked(name: str, question: str) -> None:
    """Netem and filters of tc, XDP, VLANs of a bridge: the answer depends on the link that is named, and no other does."""
    more: dict[str, tuple[str, dict[str, object]]] = {
        "xdp": ("docker0", {"xdp": {"mode": 2, "prog": {"id": 7}}}),
        "ingress": ("eth0", {"filters": {"ingress": ["bpf", "u32"]}}),
        "egress": ("eth0", {"filters": {"egress": ["flower"]}}),
    }
    rows = []
    record = HEALTHY.records["netns/host/links"]
    for line in record.text.splitlines():
        row = json.loads(line.rstrip(",")) if line.startswith("{") else {}
        if row.get("ifname") == name == "eth0":
            row["qdisc"] = "netem"
        elif name in more and row.get("ifname") == more[name][0]:
            row |= more[name][1]
        elif row.get("ifname") == name:
            row["linkinfo"]["info_data"]["vlan_filtering"] = 1
        rows.append(json.dumps(row) if row else line)
    held = replace(record, data="\n".join(rows).encode())
    doubted = replace(HEALTHY, records=HEALTHY.records | {record.name: held})
    found = follow("web", "198.51.100.77:80", doubted)
    assert found.works is None
    assert question in str(found)
    assert follow("db", "api:80", doubted).works


def test_nat_that_changes_nothing_leaves_no_mark() -> None:
    """nf_nat_setup_info() says DNAT of a connection only when its end is another one now (set 302711 of the random ones)."""
    jump = "[0:0] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n[0:0] -A OUTPUT ! -d 127.0.0.0/8"
    same = jump, "-A PREROUTING -d 10.7.0.2/32 -p tcp -j DNAT --to-destination 10.7.0.2:80\n" + jump
    user = "[0:0] -A FORWARD -j DOCKER-USER\n"
    drop = user, user + "[0:0] -A DOCKER-USER -m conntrack --ctstate DNAT -j DROP\n"
    assert follow("db", "api:80", with_rules(same, drop)).works
    assert not follow("outside", "host:8081", with_rules(same, drop)).works


def test_an_error_is_translated_where_nat_was() -> None:
    """What OUTPUT rejects is told by the host itself, whom no rule about the receiver stops (set 300804)."""
    user = "[0:0] -A FORWARD -j DOCKER-USER\n"
    rules = (
        user,
        user
        + (
            "[0:0] -A OUTPUT -d 10.7.0.2/32 -p tcp -j REJECT --reject-with icmp-port-unreachable\n"
            "[0:0] -A INPUT -s 10.7.0.2/32 -j DROP\n"
        ),
    )
    assert follow("host", "api:80", with_rules(rules)).client_sees == "refused"


def test_without_a_connection_no_mark_is_compared() -> None:
    """connmark_mt(): a packet that is not tracked matches neither a mark nor its absence (set 303226)."""
    packet = Packet(4, 17, 1, 2, 3, 4)
    here = Facts(load(plugins=False), HEALTHY).get(SITE).host
    for negated in (False, True):
        assert Number("connmark", ((0, 0),), negated).holds(packet, here) is False


def test_an_ack_to_a_syn_that_was_not_answered_is_invalid() -> None:
    """tcp_conntracks[]: a connection whose answers are of another zone stands for its ends, not here (set 1200880)."""
    user = "[0:0] -A FORWARD -j DOCKER-USER\n"
    later = user, "[0:0] -A OUTPUT -p tcp -m tcp --dport 80 -m conntrack --ctstate ESTABLISHED -j DROP\n" + user
    raw = "[0:0] -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\n"
    zone = raw, "[0:0] -A PREROUTING -s 10.7.0.2/32 -p tcp -j CT --zone 3\n" + raw
    found = follow("host", "api:80", with_rules(later))
    assert (found.works, found.client_sees, found.code) == (False, "connected", "LOCAL_FIREWALL")
    assert follow("host", "api:80", with_rules(later, zone)).works
    invalid = user, later[1].replace("ESTABLISHED", "INVALID")
    assert follow("host", "api:80", with_rules(invalid)).works
    assert not follow("host", "api:80", with_rules(invalid, zone)).works
