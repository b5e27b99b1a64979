"""What a host's networks look like from inside, as values that can be compared: a live engine's and ours.

Left out is what is made at random (names of veths, ports that the daemon chose, addresses of IPv6 links), what differs by
time (a neighbour's state), and what belongs to the machine (eth0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[str], str]
"""Runs a shell script somewhere and gives what it prints."""

_SEPARATOR = "@@@"
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/ipv4/conf/docker0/route_localnet",
    "net/ipv6/conf/docker0/accept_ra",
    "net/ipv6/conf/docker0/disable_ipv6",
    "net/ipv6/conf/eth0/disable_ipv6",
)
_SCRIPT = f"\necho; echo {_SEPARATOR}\n".join(
    (
        "iptables-save",
        "ip6tables-save",
        "ip -j -d addr",
        "ip -j route",
        "ip -j -6 route",
        "ss -Hlntu",
        *(f"cat /proc/sys/{name} 2>/dev/null || true" for name in _SYSCTLS),
    )
)
_PROXIES = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | tr '\\n' ' ' || true"
_PROXY = re.compile(
    r"docker-proxy( -proto \w+ -host-ip \S+ -host-port \d+ -container-ip \S+ -container-port \d+(?: -use-listen-fd)?)"
)
_CHOSEN = re.compile(r"(?<![\w.])(3[2-9]\d{3}|[45]\d{4}|60\d{3})(?![\w.])")


def host(run: Run, classic: bool) -> dict[str, Any]:  # noqa: FBT001 - of a generation before 28
    """The host's side."""
    found = _namespace(run(_SCRIPT), inner=False, classic=classic)
    found["proxies"] = sorted(_CHOSEN.sub("PORT", words) for words in _PROXY.findall(run(_PROXIES)))
    return found


def container(run: Run, classic: bool) -> dict[str, Any]:  # noqa: FBT001 - as above
    """A container's side."""
    return _namespace(run(_SCRIPT), inner=True, classic=classic)


def _namespace(text: str, *, inner: bool, classic: bool) -> dict[str, Any]:
    parts = [part.strip("\n") for part in text.split(f"\n{_SEPARATOR}\n")]
    v4, v6, links, routes4, routes6, sockets, *sysctls = parts
    found = {
        "iptables": rules(v4),
        "ip6tables": rules(v6),
        "links": _links(json.loads(links or "[]"), inner=inner, classic=classic),
        "routes": sorted(_route(one) for one in json.loads(routes4 or "[]") if inner or one.get("dev") != "eth0"),
        "routes6": sorted(
            _route(one)
            for one in json.loads(routes6 or "[]")
            if not one["dst"].startswith(("fe80", "ff00", "multicast"))
        ),
        "sysctls": dict(zip(_SYSCTLS, (one.strip() for one in sysctls), strict=True)),
    }
    heard = [line.split() for line in sockets.splitlines()]
    found["sockets"] = sorted({(one[0], _CHOSEN.sub("PORT", one[4].replace("*:", "0.0.0.0:"))) for one in heard})
    if inner:
        found["sockets"] = [one for one in found["sockets"] if "127.0.0.11" in one[1]]
    else:
        found["sockets"] = [one for one in found["sockets"] if "%" not in one[1]]
    return found


def rules(text: str) -> dict[str, list[str]]:
    """The rules of a save by `table chain`, with the policy first; chains of the kernel without either are left out."""
    chains: dict[str, list[str]] = {}
    table = ""
    for line in text.split("\n"):
        if line[:1] == "*":
            table = line[1:]
        elif line[:1] == ":":
            name, policy = line[1:].split(" ")[:2]
            chains[f"{table} {name}"] = [] if policy in {"-", "ACCEPT"} else [f"policy {policy}"]
            if policy == "-":
                chains[f"{table} {name}"].append("own")
        elif line[:3] == "-A ":
            _, chain, rule = line.split(" ", 2)
            chains.setdefault(f"{table} {chain}", []).append(_CHOSEN.sub("PORT", rule))
    return {name: held for name, held in chains.items() if held}


def _links(links: list[dict[str, Any]], *, inner: bool, classic: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ports: dict[str, list[Any]] = {}
    for one in links:
        name = one["ifname"]
        if not inner and name.startswith(("eth", "out", "lo")):
            continue
        about = {
            "mtu": one["mtu"],
            "up": "UP" in one["flags"],
            "addresses": sorted(
                f"{its['local']}/{its['prefixlen']} {its.get('broadcast', '')} {'nodad' if its.get('nodad') else ''}".strip()
                for its in one["addr_info"]
                if not its["local"].startswith("fe80") or its["local"] == "fe80::1"
            ),
        }
        if name.startswith("veth"):
            hairpin = one.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin")
            ports.setdefault(one.get("master", ""), []).append({**about, "hairpin": hairpin})
            continue
        mac = one.get("address", "")
        if name != "lo":
            about["mac"] = (mac if inner else mac[:5]) if classic else bool(int(mac[:2] or "0", 16) & 2)
        found[name] = about
    for bridge, held in ports.items():
        found.setdefault(bridge, {})["ports"] = sorted(held, key=str)
    return found


def _route(one: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {one[key]}" for key in ("dst", "gateway", "dev", "prefsrc", "metric") if key in one)
