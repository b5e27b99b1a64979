"""Strings of JSON, where they stand: what is not JSON stays as it is, too."""

from __future__ import annotations

import re

import msgspec

from doctor.redact.limits import FEW

_ESCAPED = {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
    b"\b": b"\\b",
    b"\f": b"\\f",
}
_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_TO_UNESCAPE = re.compile(rb'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})')
_FROM = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_NEEDLESS = re.compile(rb"\\(?:/|u00(?!22|26|3[cCeE]|5[cC])[2-7][0-9a-fA-F])")
_BACKSLASHES = re.compile(rb"(?:\\\\)++|" + _NEEDLESS.pattern)

_LITERAL = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+){0,200}"')
_UNESCAPED_QUOTE = re.compile(rb'(?<!\\)(?:\\\\){0,4096}"')


def json_escape(value: bytes) -> bytes:
    """Write a value as it stands between the quotes of a JSON string."""
    return _TO_ESCAPE.sub(lambda m: _ESCAPED.get(m[0]) or b"\\u%04x" % m[0][0], value)


def json_unescape(literal: bytes) -> bytes:
    """Read what stands between the quotes of a JSON string; what is no JSON stays as it is, as far as it is none."""
    if b"\\" not in literal:
        return literal
    try:
        return msgspec.json.decode(b'"' + literal + b'"', type=str).encode()
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return _TO_UNESCAPE.sub(_one_escape, literal)


def _one_escape(match: re.Match[bytes]) -> bytes:
    body = match[1]
    if len(body) == 1:
        return _FROM.get(body, body)
    code = int(body[1:], 16)
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code).encode()  # noqa: PLR2004 - surrogates, RFC 8259 section 7


def plain_escapes(data: bytes) -> bytes:
    r"""Write `\/` and `\u0070` as the characters they are: a name must be readable to be judged. Go escapes only <>&."""

    def plain(match: re.Match[bytes]) -> bytes:
        text = match[0]
        if text.startswith(b"\\\\"):
            return text
        return b"/" if text == b"\\/" else bytes([int(text[4:], 16)])

    return _BACKSLASHES.sub(plain, data) if _NEEDLESS.search(data) else data


def backslashes(data: bytes, start: int, end: int) -> int:
    """Count the backslashes that stand right before `end`, not before `start`."""
    tail = data[max(start, end - FEW) : end]
    count = len(tail) - len(tail.rstrip(b"\\"))
    if count == FEW:
        tail = data[start:end]
        count = len(tail) - len(tail.rstrip(b"\\"))
    return count


def literal_end(data: bytes, position: int) -> int:
    """Find the quote that ends the JSON string whose content starts at `position`; the end of the line if there is none."""
    simple = _LITERAL.match(data, position)
    if simple:
        return simple.end() - 1
    line = data.find(b"\n", position)
    stop = line if line >= 0 else len(data)
    start = position
    for _ in range(FEW):
        end = data.find(b'"', position, stop)
        if end < 0:
            return stop
        if backslashes(data, start, end) % 2 == 0:
            return end
        position = end + 1
    found = _UNESCAPED_QUOTE.search(data, position, stop)
    return found.end() - 1 if found else stop


def literal_start(data: bytes, position: int) -> int:
    """Find where the content of the JSON string around `position` starts."""
    while True:
        quote_at = data.rfind(b'"', 0, position)
        count = backslashes(data, 0, quote_at) if quote_at > 0 else 0
        if count % 2 == 0:
            return quote_at + 1
        position = quote_at - count


def is_json(data: bytes) -> bool:
    """Tell whether it is one whole JSON text."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return False
    return True
