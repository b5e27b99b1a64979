"""The elements of named sets, by netlink, against what nft itself lists."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RULES = """
table ip t {
  set plain { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
  set pairs { type ipv4_addr . inet_service; elements = { 172.17.0.2 . 80, 172.17.0.3 . 443 }; }
  set spans { type ipv4_addr; flags interval; elements = { 0.0.0.0/8, 10.1.0.0/16, 192.168.0.5-192.168.0.9, 240.0.0.0/4 }; }
  set links { type ifname; elements = { "docker0", "br-0123456789ab" }; }
  set ports { type inet_service; flags interval; elements = { 80, 1000-2000 }; }
  set both { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 }; }
  set marks { type mark; elements = { 0x5 }; }
  set empty { type ipv4_addr; }
  map jumps { type ifname : verdict; elements = { "docker0" : jump x, "eth0" : drop }; }
  chain x { }
}
table inet u { set six { type ipv6_addr; flags interval; elements = { fd00::/8 }; }; }
"""
LEFT_OUT = """
table ip v {
  set macs { type ether_addr; elements = { 00:11:22:33:44:55 }; }
  map targets { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1 }; }
}
"""

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")]


def inside(*scripts: str) -> list[str]:
    """Load rules into a namespace of its own, and give what nft and we print there."""
    ours = "from doctor.linux import nfsets; print(nfsets.sets(1.0).decode())"
    script = "nft -f - && nft -j list ruleset && echo === && exec " + f'"{sys.executable}" -c "{ours}"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        input="\n".join(scripts),
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    return done.stdout.split("===\n")


def spread(value: Any) -> Any:
    """Write prefixes as ranges, as both mean the same."""
    if isinstance(value, dict) and "prefix" in value:
        net = ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
        return {"range": [str(net[0]), str(net[-1])]}
    if isinstance(value, dict):
        return {name: spread(one) for name, one in value.items()}
    return [spread(one) for one in value] if isinstance(value, list) else value


def elements(text: str) -> dict[tuple[str, str, str], list[str]]:
    """Give the elements of each set and map, in no order."""
    found = {}
    for entry in json.loads(text)["nftables"]:
        for kind in ("set", "map"):
            if kind in entry:
                one = entry[kind]
                found[one["family"], one["table"], one["name"]] = sorted(
                    json.dumps(spread(held), sort_keys=True) for held in one.get("elem", [])
                )
    return found


def test_equal_to_nft() -> None:
    """Every kind of key, intervals and concatenations, verdict maps."""
    theirs, ours = inside(RULES)
    assert elements(ours) == elements(theirs)


def test_what_is_not_known_is_left_out() -> None:
    """A set of another kind is not there at all, rather than there and empty."""
    _, ours = inside(RULES, LEFT_OUT)
    assert not [key for key in elements(ours) if key[1] == "v"]


def test_a_large_set_is_left_out() -> None:
    """What nobody can read costs nothing, and the others are there."""
    many = ", ".join(str(ipaddress.IPv4Address(0x0A000000 + number)) for number in range(20000))
    _, ours = inside(RULES, f"table ip w {{ set large {{ type ipv4_addr; elements = {{ {many} }}; }}; }}")
    assert ("ip", "w", "large") not in elements(ours)
    assert ("ip", "t", "plain") in elements(ours)
