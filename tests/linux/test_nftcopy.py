"""Rules of one network namespace, copied into another: what the saver prints there is the same, and it is all or nothing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from doctor.linux import nftcopy
from tests.linux.spaces import space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.linux.spaces import Space

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("iptables-nft-restore"), reason="needs iptables (apt-get install iptables)"),
]

RULES = """*filter
:FORWARD DROP [0:0]
:MINE - [0:0]
-A FORWARD -j MINE
-A MINE -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -m comment --comment "a text" -j ACCEPT
-A MINE ! -i lo -j RETURN
COMMIT
*nat
:DOCKER_OUTPUT - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:35150
COMMIT
"""


@pytest.fixture
def other() -> Iterator[Space]:
    """A second namespace."""
    with space() as made:
        yield made


def saved(where: Space) -> list[str]:
    """What both savers print, without comments and counters of chains."""
    text = where.run("iptables-nft-save") + where.run("nft", "list", "ruleset")
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_a_copy_is_what_it_was_made_of(bare: Space, other: Space) -> None:
    """Tables, policies, chains, and rules in their order; as the engine's nftables has them, too."""
    bare.run("iptables-nft-restore", stdin=RULES)
    bare.run("nft", "add table ip6 six; add chain ip6 six out { type filter hook output priority 0; policy accept; }")
    bare.run("nft", "add rule ip6 six out ip6 daddr ::1 tcp dport 53 counter drop")
    whole = bare.call(lambda: nftcopy.read(5))
    other.call(lambda: nftcopy.write(whole, 5))
    assert saved(other) == saved(bare)
    assert any("--to-destination 127.0.0.11:35150" in line for line in saved(other))


def test_what_the_kernel_refuses_leaves_nothing(bare: Space, other: Space) -> None:
    """A transaction whose last rule leads to no chain: an error, and no table."""
    bare.run("iptables-nft-restore", stdin=RULES)
    whole = bare.call(lambda: nftcopy.read(5))
    at = whole.rindex(b"DOCKER_OUTPUT\0")  # the chain that the last rule is in
    with pytest.raises(FileNotFoundError):
        other.call(lambda: nftcopy.write(whole[:at] + b"X" + whole[at + 1 :], 5))
    assert other.run("nft", "list", "tables") == ""


def test_what_cannot_be_copied_is_said(bare: Space) -> None:
    """A namespace with nothing, and one with a set."""
    with pytest.raises(nftcopy.ForeignError, match="no tables"):
        bare.call(lambda: nftcopy.read(5))
    bare.run("nft", "add table ip some; add set ip some held { type ipv4_addr; }")
    with pytest.raises(nftcopy.ForeignError, match="a set"):
        bare.call(lambda: nftcopy.read(5))
