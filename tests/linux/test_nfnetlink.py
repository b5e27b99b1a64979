"""Which tables there are, and the rules of the engine's resolver."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from doctor.linux import nfnetlink

if TYPE_CHECKING:
    from tests.linux.spaces import Space

pytestmark = pytest.mark.root


def test_tables_are_those_of_nft(bare: Space) -> None:
    """Family and name, as nft prints them; none in a new namespace."""
    if not shutil.which("nft"):
        pytest.skip("needs nft (apt-get install nftables)")
    assert bare.call(lambda: nfnetlink.tables(timeout=5)) == []
    for family in ("ip", "ip6", "inet", "arp", "bridge", "netdev"):
        bare.run("nft", "add", "table", family, f"of-{family}")
    found = bare.call(lambda: nfnetlink.tables(timeout=5))
    assert sorted(f"table {family} {name}" for family, name in found) == sorted(
        bare.run("nft", "list", "tables").splitlines()
    )


def test_tables_made_without_nft(bare: Space) -> None:
    """The same, where only pyroute2 is there to make one."""
    from pyroute2.nftables.main import NFTables  # type: ignore[import-untyped]

    def work() -> list[tuple[str, str]]:
        with NFTables(nfgen_family=2) as filters:
            filters.table("add", name="mine")
        return nfnetlink.tables(timeout=5)

    assert bare.call(work) == [("ip", "mine")]


RESOLVER = """
*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:43359
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:35150
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 43359 -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 35150 -j SNAT --to-source :53
COMMIT
"""
SIMPLE = (
    "-A OUTPUT -s 10.0.0.1/32 -d 10.0.0.2/32 -j ACCEPT",
    "-A OUTPUT -p udp -j RETURN",
    "-A PREROUTING -p tcp -m tcp --sport 1 -j DNAT --to-destination 10.0.0.9",
    "-A POSTROUTING -g DOCKER_POSTROUTING",
    "-A DOCKER_OUTPUT",
)
BEYOND = (
    "-A OUTPUT ! -d 127.0.0.11/32 -j ACCEPT",
    "-A OUTPUT -d 127.0.0.0/8 -j ACCEPT",
    "-A OUTPUT -o lo -j ACCEPT",
    "-A OUTPUT -p icmp -j ACCEPT",
    "-A OUTPUT -p tcp -m tcp --dport 1:3 -j ACCEPT",
    "-A OUTPUT -m comment --comment mine -j ACCEPT",
    "-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN -j ACCEPT",
    "-A POSTROUTING -j MASQUERADE",
    "-A OUTPUT -p tcp -m tcp --sport 1 --dport 2 -j ACCEPT",
    "-A OUTPUT -p tcp -j REDIRECT --to-ports 8080",
    "-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.3",
    "-A POSTROUTING -j SNAT --to-source 10.0.0.1 --random",
)


def saved(space: Space) -> str:
    """What the saver prints, without its comments."""
    lines = space.run("iptables-nft-save").splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith("#"))


@pytest.fixture
def rules(bare: Space) -> Space:
    """A namespace with the rules that the engine's resolver has."""
    if not shutil.which("iptables-nft-save"):
        pytest.skip("needs iptables-nft-save (apt-get install iptables)")
    bare.run("iptables-nft-restore", stdin=RESOLVER.lstrip())
    return bare


@pytest.mark.parametrize("rule", ["", *SIMPLE])
def test_simple_rules_are_printed_as_the_saver_does(rules: Space, rule: str) -> None:
    """The resolver's rules, alone and with one more of the same make."""
    if rule:
        rules.run("iptables-nft", "-t", "nat", *rule.split())
    text = rules.call(lambda: nfnetlink.nat(timeout=5)).decode()
    assert text == saved(rules)
    assert len(text.splitlines()) == 14 + bool(rule)


@pytest.mark.parametrize("rule", BEYOND)
def test_anything_else_is_left_to_the_saver(rules: Space, rule: str) -> None:
    """A rule that says more than we read is not printed with less."""
    rules.run("iptables-nft", "-t", "nat", *rule.split())
    assert rules.call(lambda: nfnetlink.nat(timeout=5)) == b""


def test_a_policy_is_printed(rules: Space) -> None:
    """A policy of DROP stands at its chain."""
    rules.run("nft", "add chain ip nat OUTPUT { policy drop; }")
    assert rules.call(lambda: nfnetlink.nat(timeout=5)).decode() == saved(rules)
