"""Netlink attributes as JSON text: tables that say, for each type of attribute, under which key and how it is shown.

A table is `{type: shower}`; a shower makes `"mtu":1500` of the value's bytes, or nothing. None in a table leaves an
attribute out (counters and timers: they differ between two looks at a host where nothing happened), RAW hands it to
whoever reads; what no table names is kept as `"nla":{"TYPE":"HEX"}`. Showers are total: a value of an unexpected length
is shown somehow.
"""

from __future__ import annotations

import socket
from struct import error
from typing import TYPE_CHECKING

from doctor.linux.netlink import ATTRIBUTE, ATTRIBUTE_BYTES, KIND, NATIVE, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Shower = Callable[[bytes], str]
    Table = Mapping[int, Shower | None]


IPV4_BYTES = 4
IPV6_BYTES = 16

_SHORT = 12
"""Bytes of an attribute that holds a number or a short name, head included."""

_MEMORY = 4096
"""Texts of numbers that a reader remembers: the links of 200 namespaces have few different ones."""


def RAW(value: bytes) -> str:  # noqa: N802 - a mark in tables; its function is never called
    """Mark a type whose value is handed to whoever reads."""
    return value.hex()


def _unnamed(value: bytes) -> str:
    """Mark a type that a table does not name."""
    return value.hex()


class Reader:
    """Reads attributes by a table."""

    def __init__(self, table: Table) -> None:
        """Keep the table, and remember nothing yet."""
        self._table = table
        self._memory: dict[bytes, str] = {}

    def read(self, data: bytes, at: int = 0) -> tuple[list[str], dict[int, bytes]]:
        """Show what stands in `data` from `at` on: texts in their order, and the values of RAW types.

        Raises MalformedError. The loop is that of `netlink.attributes`, written out: it runs 40 times a link.
        """
        parts: list[str] = []
        raw: dict[int, bytes] = {}
        rest: dict[int, str] = {}
        table = self._table
        memory = self._memory
        unpack = ATTRIBUTE.unpack_from
        size = len(data)
        while at < size:
            try:
                length, kind = unpack(data, at)
            except error as cause:
                raise MalformedError("cut short in an attribute's head") from cause
            end = at + length
            if length < ATTRIBUTE_BYTES or end > size:
                raise MalformedError(f"an attribute of {length} bytes where {size - at} are left")
            kind &= KIND
            shower = table.get(kind, _unnamed)
            if shower is RAW:
                raw[kind] = data[at + ATTRIBUTE_BYTES : end]
            elif shower is not None:
                text = memory.get(data[at:end]) if length <= _SHORT else None
                if text is None:
                    text = self._show(shower, kind, data[at:end], rest)
                if text:
                    parts.append(text)
            at = (end + 3) & ~3
        if rest:
            parts.append('"nla":{' + ",".join(f'"{kind}":"{value}"' for kind, value in rest.items()) + "}")
        return parts, raw

    def _show(self, shower: Shower, kind: int, attribute: bytes, rest: dict[int, str]) -> str:
        value = attribute[ATTRIBUTE_BYTES:]
        if shower is _unnamed:
            rest[kind] = f"{rest[kind]} {value.hex()}" if kind in rest else value.hex()
            return ""
        text = shower(value)
        if len(attribute) <= _SHORT:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            self._memory[attribute] = text
        return text

    def within(self, value: bytes) -> str:
        """Show the attributes within an attribute, as an object; a value that holds none is `nla`, type 0."""
        try:
            parts, _ = self.read(value)
        except MalformedError:
            parts = [f'"nla":{{"0":"{value.hex()}"}}']
        return "{" + ",".join(parts) + "}"


UNKNOWN = Reader({})
"""Keeps everything."""


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


def switch(key: str) -> Shower:
    """Show true, or nothing."""
    return lambda value: f'"{key}":true' if any(value) else ""


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
