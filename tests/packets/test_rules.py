"""Rules compiled: what each asks, as iptables and nft print it, and how chains are run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doctor.facts.rules import Tables, parse_save
from doctor.packets import iptables, nft
from doctor.packets.evaluate import Connection, Ended, Machine, Unknowns
from doctor.packets.packet import Packet, Tuple, number
from doctor.packets.program import Nat, Program
from doctor.snapshot import Record


class Place:
    """A namespace with one address of its own, 192.0.2.1."""

    def kind(self, address: int, packet: Packet, device: str = "") -> str:
        """Give the type of an address."""
        del packet
        return "local" if address == number("192.0.2.1") and device in {"", "eth0"} else "unicast"

    def outward(self, packet: Packet) -> int | None:
        """Give what masquerading takes."""
        return None if packet.oif == "bare" else number("192.0.2.1")

    def inward(self, packet: Packet) -> int | None:
        """Give what a redirect leads to."""
        del packet
        return number("192.0.2.1")


def packet(**changes: Any) -> Packet:
    """Give a SYN from 10.7.0.2:40000 to 192.0.2.1:80, in by br0 and out by eth0, with some of it changed."""
    made = Packet(4, 6, number("10.7.0.2"), 40000, number("192.0.2.1"), 80, "br0", "eth0", state="new", flags=2)
    made.original = made.ends
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def run(program: Program, hook: Any, one: Packet, *answers: bool) -> tuple[str, Unknowns]:
    """Run a packet through all base chains of a hook: `accept`, `drop`, or how it is rejected."""
    unknowns = Unknowns(answers)
    machine = Machine(program, Place(), unknowns)
    for base in program.at(hook, "ip" if one.version == 4 else "ip6"):
        ended = machine.base(base, one, Connection(one.ends))
        if isinstance(ended, Ended):
            return ended.reject or "drop", unknowns
    return "accept", unknowns


def saved(*lines: str, table: str = "filter", policy: str = "ACCEPT", family: str = "ip") -> Program:
    """Compile a table with FORWARD and the chains that the rules name."""
    chains = "".join(f":{line.split(' ')[0]} - [0:0]\n" for line in lines if not line.startswith("FORWARD "))
    text = f"*{table}\n:FORWARD {policy} [0:0]\n{chains}" + "".join(f"-A {line}\n" for line in lines) + "COMMIT\n"
    held, damage = parse_save(text, "net/iptables-nft")
    assert not damage
    return iptables.compile_tables([Tables(family, "nft", "net/iptables-nft", held, "")])


MATCHES = [
    ("-s 10.7.0.0/24", {}, True),
    ("-s 10.8.0.0/24", {}, False),
    ("! -s 10.8.0.0/24", {}, True),
    ("-d 192.0.2.1/32", {}, True),
    ("-i br+", {}, True),
    ("! -i br0", {}, False),
    ("-i br0 -o br0", {}, False),
    ("! -o br0", {"oif": ""}, True),
    ("-p tcp -m tcp --dport 80", {}, True),
    ("-p tcp -m tcp --dport 81:90", {}, False),
    ("-p tcp -m tcp ! --dport 81:90", {}, True),
    ("-p tcp -m tcp --sport :1023", {}, False),
    ("-p udp -m udp --dport 80", {}, False),
    ("! -p udp", {}, True),
    ("-p tcp -m multiport --dports 22,79:81", {}, True),
    ("-p tcp -m multiport ! --dports 22,443", {}, True),
    ("-p tcp -m multiport --ports 40000", {}, True),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {}, True),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", {"flags": 18}, False),
    ("-p tcp -m tcp --tcp-flags ALL NONE", {}, False),
    ("-m conntrack --ctstate RELATED,ESTABLISHED", {}, False),
    ("-m conntrack --ctstate RELATED,ESTABLISHED", {"state": "established"}, True),
    ("-m conntrack ! --ctstate NEW", {}, False),
    ("-m state --state NEW", {}, True),
    ("-m conntrack --ctstate DNAT", {"status": frozenset({"dnat"})}, True),
    ("-m conntrack --ctstatus DNAT", {}, False),
    ("-m conntrack --ctorigdstport 80 --ctdir ORIGINAL", {}, True),
    ("-m conntrack --ctorigdstport 8080", {"original": Tuple(1, 2, 3, 8080)}, True),
    ("-m conntrack --ctdir REPLY", {"reply": True}, True),
    ("-m addrtype --dst-type LOCAL", {}, True),
    ("-m addrtype ! --dst-type LOCAL", {}, False),
    ("-m addrtype --src-type LOCAL,BROADCAST", {}, False),
    ("-m addrtype --dst-type LOCAL --limit-iface-in", {}, False),
    ("-m mark --mark 0x1/0xff", {"mark": 0x101}, True),
    ("-m mark ! --mark 0x1", {"mark": 0}, True),
    ("-m connmark --mark 0x4", {"connmark": 4}, True),
    ("-p icmp -m icmp --icmp-type 8", {"protocol": 1}, True),
    ("-p icmp -m icmp --icmp-type 8", {"protocol": 1, "icmp": 0}, False),
    ("-m iprange --src-range 10.7.0.1-10.7.0.9", {}, True),
    ("-m physdev --physdev-in veth1", {"physin": "veth1"}, True),
    ("-m physdev --physdev-is-bridged", {}, False),
    ("-f", {}, False),
    ('-m comment --comment "-j DROP"', {}, True),
    ("-m limit --limit 3/min --limit-burst 10", {}, None),
    ("-m set --match-set bad src", {}, None),
    ("-m set ! --match-set bad src,dst", {}, None),
    ("-m statistic --mode random --probability 0.5", {}, None),
    ("-m recent --update --seconds 60 --name ssh --mask 255.255.255.255 --rsource", {}, None),
    ("-p tcp -m tcp --dport 81 -m limit --limit 3/min", {}, False),
]


@pytest.mark.parametrize(("match", "changes", "expected"), MATCHES)
def test_match_of_iptables(match: str, changes: dict[str, Any], expected: bool | None) -> None:  # noqa: FBT001
    """A rule drops what it matches; what cannot be known is asked, and decides both ways."""
    program = saved(f"FORWARD {match} -j DROP")
    got, unknowns = run(program, "forward", packet(**changes))
    assert bool(unknowns.asked) == (expected is None)
    assert (got == "drop") == (expected is not False)
    if expected is None:
        assert run(program, "forward", packet(**changes), *(False,) * 9)[0] == "accept"
    assert bool(program.partial) == (expected is None or "limit --limit" in match)


def test_addresses_of_the_other_version_never_match() -> None:
    """A packet of IPv6 meets no rule of IPv4."""
    program = saved("FORWARD -s 10.0.0.0/8 -j DROP", policy="DROP")
    six = Packet(6, 6, 1, 40000, 2, 80)
    assert run(program, "forward", six)[0] == "accept"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("FORWARD -j A", "A -j RETURN", "FORWARD -j DROP"), "drop"),
        (("FORWARD -j A", "A -j ACCEPT", "FORWARD -j DROP"), "accept"),
        (("FORWARD -g A", "A -p udp -j DROP", "FORWARD -j ACCEPT"), "drop"),
        (("FORWARD -j A", "A -g B", "B -p udp -j DROP", "A -j DROP", "FORWARD -j ACCEPT"), "accept"),
        (("FORWARD -j A", "A -j LOG", "FORWARD -p tcp -j REJECT --reject-with tcp-reset"), "reset"),
        (("FORWARD -j REJECT --reject-with icmp-admin-prohibited",), "admin"),
        (("FORWARD -j REJECT",), "port"),
        (("FORWARD -j MARK --set-xmark 0x4/0xf", "FORWARD -m mark --mark 0x4 -j ACCEPT"), "accept"),
        (("FORWARD -j CONNMARK --set-xmark 0x7/0xffffffff", "FORWARD -m connmark --mark 0x7 -j ACCEPT"), "accept"),
        ((), "drop"),
    ],
)
def test_chains(lines: tuple[str, ...], expected: str) -> None:
    """Jumps come back, gotos do not; the policy meets what no rule took."""
    assert run(saved(*lines, policy="DROP"), "forward", packet())[0] == expected


def test_accept_in_one_table_is_not_final() -> None:
    """Two base chains on a hook: a drop in either is the end."""
    first, second = saved("FORWARD -j ACCEPT"), saved("FORWARD -j DROP", table="security")
    both = Program(first.chains | second.chains, (*first.bases, *second.bases))
    assert run(both, "forward", packet())[0] == "drop"


def test_loops_end() -> None:
    """A kernel refuses loops; a bundle may hold them."""
    program = saved("FORWARD -j A", "A -j B", "B -j A", "B -j A")
    assert run(program, "forward", packet())[1].asked


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("DNAT --to-destination 10.7.0.9:8080", Nat("dnat", number("10.7.0.9"), (8080, 8080))),
        ("DNAT --to-destination :53", Nat("dnat", None, (53, 53))),
        ("SNAT --to-source 10.7.0.9", Nat("snat", number("10.7.0.9"))),
        ("MASQUERADE", Nat("masquerade")),
        ("MASQUERADE --to-ports 1024-2048 --random", Nat("masquerade", None, (1024, 2048))),
        ("REDIRECT --to-ports 3128", Nat("redirect", None, (3128, 3128))),
    ],
)
def test_nat_targets(target: str, expected: Nat) -> None:
    """Every way to write where it goes."""
    chain = next(iter(saved(f"FORWARD -p tcp -j {target}", table="nat").chains.values()))
    assert chain.rules[0].steps[-1] == expected


def test_nat_of_six() -> None:
    """Addresses of IPv6 stand in brackets when a port follows."""
    chain = next(iter(saved("FORWARD -p tcp -j DNAT --to-destination [fd00::9]:80", family="ip6").chains.values()))
    assert chain.rules[0].steps[-1] == Nat("dnat", number("fd00::9"), (80, 80))


def listing(*expressions: list[dict[str, Any]], policy: str = "accept", sets: Any = (), family: str = "ip") -> Program:
    """Compile a table of nft with a chain on forward and one rule for each list of statements."""
    entries: list[dict[str, Any]] = [
        {"table": {"family": family, "name": "t"}},
        *sets,
        {"chain": {"family": family, "table": "t", "name": "c", "type": "filter", "hook": "forward", "prio": 0}
         | {"policy": policy}},
        {"chain": {"family": family, "table": "t", "name": "no"}},
        {"rule": {"family": family, "table": "t", "chain": "no", "expr": [{"drop": None}]}},
        *({"rule": {"family": family, "table": "t", "chain": "c", "expr": one}} for one in expressions),
    ]  # fmt: skip
    record = Record("net/nft", "command", "nft -j list ruleset", data=json.dumps({"nftables": entries}).encode())
    return nft.compile_ruleset(record, managed=nft.FAMILIES)


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    """Write a match."""
    return {"match": {"op": operator, "left": left, "right": right}}


IIF, OIF = {"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}
FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}

FRAME = {"payload": {"protocol": "ether", "field": "type"}}

NFT = [
    (match(FRAME, "ip"), {}, True),
    (match(FRAME, "arp"), {}, False),
    (match(FRAME, "8021q"), {}, None),
    (match(IIF, "br0"), {}, True),
    (match(IIF, "br*"), {}, True),
    (match(IIF, {"set": ["lo", "eth1"]}), {}, False),
    (match(OIF, "br0", "!="), {}, True),
    (match(DPORT, 80), {}, True),
    (match(DPORT, {"set": [22, {"range": [79, 81]}]}), {}, True),
    (match(DPORT, {"range": [81, 90]}, "!="), {}, True),
    (match(DPORT, 80), {"protocol": 17}, False),
    (match({"payload": {"protocol": "th", "field": "dport"}}, 80), {"protocol": 17}, True),
    (match(DPORT, 81, "!="), {"protocol": 17}, False),
    (match(DPORT, 1024, "<"), {}, True),
    (match(SADDR, {"prefix": {"addr": "10.7.0.0", "len": 24}}), {}, True),
    (match(SADDR, {"set": ["10.7.0.9", {"range": ["10.7.0.1", "10.7.0.3"]}]}), {}, True),
    (match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fd00::1"), {}, False),
    (match({"meta": {"key": "l4proto"}}, "tcp"), {}, True),
    (match({"meta": {"key": "nfproto"}}, "ipv6"), {}, False),
    (match({"meta": {"key": "mark"}}, 4), {"mark": 4}, True),
    (match({"&": [{"meta": {"key": "mark"}}, 15]}, 4), {"mark": 0x14}, True),
    (match(STATE, ["established", "related"], "in"), {"state": "established"}, True),
    (match(STATE, {"set": ["established", "related"]}), {}, False),
    (match(STATE, "new", "in"), {}, True),
    (match({"ct": {"key": "status"}}, "dnat", "in"), {"status": frozenset({"dnat"})}, True),
    (match({"ct": {"key": "direction"}}, "reply"), {}, False),
    (match({"ct": {"key": "proto-dst", "dir": "original"}}, 80), {}, True),
    (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), {}, True),
    (match({"fib": {"result": "type", "flags": ["saddr"]}}, "local"), {}, False),
    (match({"payload": {"protocol": "tcp", "field": "flags"}}, "syn", "in"), {}, True),
    (match({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, {"|": ["syn", "ack"]}]}, "syn"), {"flags": 18}, False),
    # Found by tests/kernel/test_native.py: without `in` the whole value is compared, flags and states alike.
    (match(FLAGS, "syn", "!="), {"flags": 18}, True),
    (match(FLAGS, "syn"), {"flags": 18}, False),
    (match(FLAGS, {"set": ["syn", "ack"]}), {"flags": 18}, False),
    (match(FLAGS, {"set": ["syn", "ack"]}), {"flags": 16}, True),
    (match(FLAGS, {"set": ["syn", "ack"]}, "!="), {"flags": 18}, True),
    (match(FLAGS, ["syn", "ack"], "in"), {"flags": 16}, True),
    (match(FLAGS, {"set": ["syn", "ack"]}), {"protocol": 17, "flags": 0}, False),
    (match(STATE, {"|": ["established", "new"]}, "!="), {}, True),
    (match(STATE, {"set": ["established", "new"]}, "!="), {}, False),
    (match({"ct": {"key": "status"}}, "dnat", "!="), {"status": frozenset({"dnat"})}, True),
    (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.7.0.2", 80]}]}), {}, True),
    (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.7.0.2", 81]}]}), {}, False),
    ({"limit": {"rate": 10, "per": "second"}}, {}, None),
    (match({"meta": {"key": "skuid"}}, 0), {}, None),
    ({"xt": {"type": "match", "name": "addrtype"}}, {}, None),
    (match(SADDR, "@unknown"), {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "changes", "expected"), NFT)
def test_match_of_nft(statement: dict[str, Any], changes: dict[str, Any], expected: bool | None) -> None:  # noqa: FBT001
    """A rule drops what it matches; what cannot be known is asked."""
    got, unknowns = run(
        listing([statement, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None}]), "forward", packet(**changes)
    )
    assert bool(unknowns.asked) == (expected is None)
    assert (got == "drop") == (expected is not False)


def test_named_sets_and_verdict_maps() -> None:
    """Elements are found by the name of their set; a map leads on by what stands there."""
    held = {"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "elem": ["10.7.0.2"]}}
    assert run(listing([match(SADDR, "@s"), {"drop": None}], sets=[held]), "forward", packet())[0] == "drop"
    jumps = {"map": {"family": "ip", "table": "t", "name": "m", "elem": [["br0", {"jump": {"target": "no"}}]]}}
    by_name = [{"vmap": {"key": IIF, "data": "@m"}}]
    assert run(listing(by_name, sets=[jumps]), "forward", packet())[0] == "drop"
    assert run(listing(by_name, sets=[jumps]), "forward", packet(iif="br1"))[0] == "accept"
    assert run(listing(by_name), "forward", packet())[1].asked
    inline = [{"vmap": {"key": STATE, "data": {"set": [["new", {"drop": None}], ["established", {"accept": None}]]}}}]
    assert run(listing(inline), "forward", packet())[0] == "drop"


def test_statements_in_order() -> None:
    """A rule of nft is carried out from left to right: a mark that it sets is there for its next match."""
    rule = [
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}},
        match({"meta": {"key": "mark"}}, 7),
        {"reject": {"type": "icmpx", "expr": "admin-prohibited"}},
    ]
    assert run(listing(rule), "forward", packet())[0] == "admin"


def test_tables_of_iptables_are_not_read_twice() -> None:
    """What iptables-nft made is in both listings: nft's is left out where the saver's was read."""
    entries = [
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0,
                   "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "f", "type": "filter", "hook": "forward", "prio": 0}},
    ]  # fmt: skip
    record = Record("net/nft", "command", "nft", data=json.dumps({"nftables": entries}).encode())
    assert [base.chain.family for base in nft.compile_ruleset(record, managed=nft.FAMILIES).bases] == ["inet"]
    assert len(nft.compile_ruleset(record, managed=frozenset()).bases) == 2


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"nftables": 3}', b'{"nftables": [{"rule": {"expr": [{"match": {}}]}}]}', b"[]"]
)
def test_what_is_no_listing(data: bytes) -> None:
    """A bundle may hold anything: nothing is raised."""
    nft.compile_ruleset(Record("net/nft", "command", "nft", data=data), managed=nft.FAMILIES)


@pytest.mark.parametrize("status", ["timeout", "denied", "failed", "truncated"])
def test_a_listing_that_was_not_read_is_no_empty_one(status: Any) -> None:
    """What could not be read is unknown: no packet may be said to pass for it."""
    record = Record("net/nft", "command", "nft", status=status, data=b'{"nftables": []}')
    assert nft.compile_ruleset(record, managed=nft.FAMILIES).unread
    absent = Record("net/nft", "command", "nft", status="absent")
    assert not nft.compile_ruleset(absent, managed=nft.FAMILIES).unread
