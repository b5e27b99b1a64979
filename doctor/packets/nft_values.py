"""Values in the JSON of nftables: numbers of names, addresses, flags, states, marks. See libnftables-json(5)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Literal

from doctor.packets import conditions as when
from doctor.packets import program as then
from doctor.packets.packet import PROTOCOLS, number

if TYPE_CHECKING:
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action

SERVICES = {"ssh": 22, "domain": 53, "http": 80, "https": 443, "ntp": 123, "smtp": 25, "bootps": 67, "bootpc": 68}
ICMP = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
}  # fmt: skip
ICMP6 = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
    "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
    "mld-listener-done": 132, "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136, "nd-redirect": 137, "mld2-listener-report": 143,
}  # fmt: skip
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_REJECT = {
    "port-unreachable": "port",
    "host-unreachable": "host",
    "addr-unreachable": "host",
    "net-unreachable": "net",
    "no-route": "net",
    "prot-unreachable": "proto",
    "admin-prohibited": "admin",
    "host-prohibited": "admin",
    "net-prohibited": "admin",
}
_LENGTHS = {4: 32, 6: 128}
STATES = frozenset({"new", "established", "related", "invalid", "untracked"})


class Unread(Exception):  # noqa: N818 - a part of a rule that is not modelled
    """A part of a rule that is not modelled."""


def marked(field_: Literal["mark", "connmark"], value: Any) -> Action:
    """Compile what a mark is set to: a number, another mark, or bits of its own changed."""
    match value:
        case int():
            return then.SetNumber(field_, 0, value)
        case {"meta": {"key": "mark"}}:
            return then.SetNumber(field_, 0, 0, "mark")
        case {"ct": {"key": "mark"}}:
            return then.SetNumber(field_, 0, 0, "connmark")
        case {"|": [inner, int(bits)]} if _itself(field_, inner):
            return then.SetNumber(field_, ~bits & 0xFFFFFFFF, bits)
        case {"&": [inner, int(bits)]} if _itself(field_, inner):
            return then.SetNumber(field_, bits, 0)
        case {"^": [inner, int(bits)]} if _itself(field_, inner):
            return then.SetNumber(field_, 0xFFFFFFFF, bits)
        case {"|": [{"&": [inner, int(kept)]}, int(bits)]} if _itself(field_, inner):
            return then.SetNumber(field_, kept & ~bits & 0xFFFFFFFF, bits)
        case _:
            raise Unread


def _itself(field_: str, inner: Any) -> bool:
    return bool(inner == {"meta" if field_ == "mark" else "ct": {"key": "mark"}})


def element(one: Any) -> Any:
    """Take an element out of what may stand around it: a counter, a timeout, a comment."""
    if isinstance(one, dict) and "elem" in one:
        return one["elem"]["val"]
    return one


def states(right: Any, values: list[Any]) -> frozenset[str]:
    """Give the states that are asked for. `ct state != new,established` compares with both bits at once: no state is that."""
    joined = isinstance(right, dict) and "|" in right
    return frozenset() if joined and len(values) > 1 else frozenset(words(values))


def words(values: list[Any]) -> list[str]:
    """Give values as words."""
    return [str(one) for one in values]


def protocol(name: str) -> Condition:
    """Ask for a protocol by its name."""
    value = PROTOCOLS[name]
    return when.Number("protocol", ((value, value),))


def flags(values: list[Any]) -> int:
    """Add flags of TCP up, by name or number."""
    total = 0
    for one in values:
        if isinstance(one, dict) and "|" in one:
            total |= flags(one["|"])
        elif isinstance(one, list):
            total |= flags(one)
        else:
            total |= one if isinstance(one, int) else _FLAGS[one]
    return total


def span(value: Any, version: int) -> tuple[int, int]:
    """Read an address, a prefix or a range of addresses."""
    if isinstance(value, dict) and "prefix" in value:
        net = ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
        return int(net.network_address), int(net.broadcast_address)
    if isinstance(value, dict) and "range" in value:
        return number(value["range"][0]), number(value["range"][1])
    if not isinstance(value, str):
        raise Unread
    if "/" in value:
        net = ip_network(value, strict=False)
        return int(net.network_address), int(net.broadcast_address)
    found = number(value)
    if found >> _LENGTHS[version]:
        raise Unread
    return found, found


def reject(value: Any) -> str:
    """Name how the sender is told (`Reject.kind`)."""
    if not isinstance(value, dict):
        return "port"
    if value.get("type") == "tcp reset":
        return "reset"
    return _REJECT.get(str(value.get("expr", "port-unreachable")), "port")
