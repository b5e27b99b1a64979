"""Netlink attributes as JSON text: tables that say, for each type of attribute, under which key and how it is shown.

A reader is a table `{type: shower}`; a shower makes `"mtu":1500` of the value's bytes. None in a table leaves an
attribute out (counters and timers: they differ between two looks at a host where nothing happened); what no table names
is kept as `"nla":{"TYPE":"HEX"}`. Showers are total: a value of an unexpected length is shown somehow, and raises nothing.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from doctor.linux.netlink import NATIVE, attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Shower = Callable[[bytes], str]
    Table = Mapping[int, Shower | None]

IPV4_BYTES = 4
IPV6_BYTES = 16

_ABSENT: Shower = repr


def shown(found: Iterable[tuple[int, bytes]], table: Table) -> list[str]:
    """Show attributes by a table, in their order; those it does not name come last, under `nla`."""
    parts: list[str] = []
    rest: dict[int, str] = {}
    for kind, value in found:
        shower = table.get(kind, _ABSENT)
        if shower is _ABSENT:
            rest[kind] = f"{rest[kind]} {value.hex()}" if kind in rest else value.hex()
        elif shower is not None:
            parts.append(shower(value))
    if rest:
        parts.append('"nla":{' + ",".join(f'"{kind}":"{value}"' for kind, value in rest.items()) + "}")
    return parts


def nested(key: str, table: Table) -> Shower:
    """Show attributes within an attribute as an object; what cannot be split is kept as `nla`, type 0."""

    def show(value: bytes) -> str:
        return f'"{key}":{within(value, table)}'

    return show


def within(value: bytes, table: Table) -> str:
    """Show the attributes in a value as an object."""
    return "{" + ",".join(shown(inner(value), table)) + "}"


def inner(value: bytes) -> list[tuple[int, bytes]]:
    """Split the attributes within an attribute; a value that holds none comes back whole, as type 0."""
    try:
        return attributes(value)
    except OSError:
        return [(0, value)]


def array(lines: Iterable[str]) -> bytes:
    """Make a JSON array of objects, one a line, so that a line number cites one."""
    text = ",\n".join(lines)
    return f"[\n{text}\n]\n".encode() if text else b"[]\n"


# Values


def unsigned(value: bytes) -> int:
    """Read a number in the byte order of this machine."""
    return int.from_bytes(value, NATIVE)


def string(value: bytes) -> str:
    r"""Read a string that ends in NUL; what is not UTF-8 becomes `\xNN`, so that two names never become one."""
    return value.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    """Quote a string for JSON."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text)


def address(value: bytes) -> str:
    """Spell an IP address by its length; anything else in hexadecimal."""
    if len(value) == IPV4_BYTES:
        return "%d.%d.%d.%d" % tuple(value)  # noqa: UP031 - half the time of an f-string's
    if len(value) == IPV6_BYTES:
        return socket.inet_ntop(socket.AF_INET6, value)
    return value.hex()


def colons(value: bytes) -> str:
    """Spell a link-layer address."""
    return value.hex(":") if value else ""


# Showers


def number(key: str) -> Shower:
    """Show an unsigned number of any width."""
    prefix = f'"{key}":'
    return lambda value: prefix + str(int.from_bytes(value, NATIVE))


def signed(key: str) -> Shower:
    """Show a signed number of any width."""
    return lambda value: f'"{key}":{int.from_bytes(value, NATIVE, signed=True)}'


def network(key: str) -> Shower:
    """Show a number in network byte order."""
    return lambda value: f'"{key}":{int.from_bytes(value, "big")}'


def boolean(key: str) -> Shower:
    """Show true or false."""
    return lambda value: f'"{key}":{"true" if any(value) else "false"}'


def hexadecimal(key: str) -> Shower:
    """Show a number as ip does with %#x: `0x1f`, and `0` for none."""
    return lambda value: f'"{key}":"{hexed(unsigned(value))}"'


def hexed(value: int) -> str:
    """Print a number as %#x does."""
    return f"0x{value:x}" if value else "0"


def word(key: str, words: Mapping[int, str]) -> Shower:
    """Show the name of a number; one without is shown as a string of digits, as ip does."""
    texts = {value: f'"{key}":{quoted(name)}' for value, name in words.items()}

    def show(value: bytes) -> str:
        what = int.from_bytes(value, NATIVE)
        return texts.get(what) or f'"{key}":"{what}"'

    return show


def text(key: str) -> Shower:
    """Show a string."""
    return lambda value: f'"{key}":{quoted(string(value))}'


def ip(key: str) -> Shower:
    """Show an IP address."""
    return lambda value: f'"{key}":"{address(value)}"'


def mac(key: str) -> Shower:
    """Show a link-layer address."""
    return lambda value: f'"{key}":"{colons(value)}"'
