"""Which tables there are."""

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
