"""Rules of nftables, of which its JSON tells no text, in the words of nft(8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN: dict[str, Callable[[Any], str]] = {
    "counter": lambda _: "",
    "accept": lambda _: "accept",
    "drop": lambda _: "drop",
    "return": lambda _: "return",
    "continue": lambda _: "continue",
    "notrack": lambda _: "notrack",
    "jump": lambda value: f"jump {value['target']}",
    "goto": lambda value: f"goto {value['target']}",
    "log": lambda _: "log",
}


def spelled(expressions: list[dict[str, Any]], comment: str = "") -> str:
    """Spell a rule as nft prints it, near enough to find it by: counters are left out."""
    words = []
    for statement in expressions:
        for name, value in statement.items():
            words.append(_statement(name, value))
    if comment:
        words.append(f'comment "{comment}"')
    return " ".join(word for word in words if word)


def _statement(name: str, value: Any) -> str:
    if name in _PLAIN:
        try:
            return _PLAIN[name](value)
        except (KeyError, TypeError):
            return name
    if name == "match" and isinstance(value, dict):
        operator = value.get("op", "==")
        middle = f" {operator} " if operator not in {"==", "in"} else " "
        return f"{_expression(value.get('left'))}{middle}{_expression(value.get('right'))}"
    if name == "vmap" and isinstance(value, dict):
        return f"{_expression(value.get('key'))} vmap {_expression(value.get('data'))}"
    if name == "mangle" and isinstance(value, dict):
        return f"{_expression(value.get('key'))} set {_expression(value.get('value'))}"
    if name in {"dnat", "snat", "redirect", "masquerade"} and isinstance(value, dict):
        address, port = value.get("addr"), value.get("port")
        aim = (_expression(address) if address is not None else "") + (
            f":{_expression(port)}" if port is not None else ""
        )
        return f"{name} to {aim}" if aim else name
    if name == "reject" and isinstance(value, dict):
        return f"reject with {value.get('type', '')} {value.get('expr', '')}".rstrip()
    return f"{name} {_expression(value)}" if value is not None else name


def _expression(value: Any) -> str:  # noqa: C901, PLR0912 - a ladder of the shapes of libnftables-json(5)
    match value:
        case {"meta": {"key": key}}:
            return str(key) if key in {"iif", "iifname", "oif", "oifname"} else f"meta {key}"
        case {"payload": {"protocol": protocol, "field": name}}:
            return f"{protocol} {name}"
        case {"ct": {"key": key, **rest}}:
            way = rest.get("dir")
            return f"ct {way} {key}" if way else f"ct {key}"
        case {"fib": {"result": result, "flags": flags}}:
            return f"fib {' . '.join(flags) if isinstance(flags, list) else flags} {result}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{_expression(first)}-{_expression(last)}"
        case {"set": list(held)}:
            return "{ " + ", ".join(_expression(one) for one in held) + " }"
        case {"set": one}:
            return "{ " + _expression(one) + " }"
        case {"concat": list(held)}:
            return " . ".join(_expression(one) for one in held)
        case {"elem": {"val": inner}}:
            return _expression(inner)
        case {"|": list(held)} | {"&": list(held)} | {"^": list(held)}:
            sign = next(iter(value))
            return f" {sign} ".join(_expression(one) for one in held)
        case [key, dict(verdict)]:
            return f"{_expression(key)} : {spelled([verdict])}"
        case list(held):
            return ", ".join(_expression(one) for one in held)
        case str():
            return value if value.startswith("@") or value.replace(".", "").replace("-", "").isalnum() else f'"{value}"'
        case dict() if len(value) == 1:
            name, inner = next(iter(value.items()))
            return f"{name} {_expression(inner)}"
        case _:
            return str(value)
