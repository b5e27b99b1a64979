"""Where a value starts and ends in text that says only where its name ends."""

from __future__ import annotations

import re

from doctor.redact.json_text import backslashes
from doctor.redact.limits import FEW, QUOTED
from doctor.redact.tokens import GUILLEMET

_BARE = re.compile(rb"[^\s\"'`<>|,;&()\[\]{}\\\x00-\x1f\x7f]*")
_ON = re.compile(rb"[,;&()\[\]{}](?![\s\"'`,;&()\[\]{}<>|\\]|\Z|[\w.\-]{1,32}[=:])|\\(?![nrtu\"'\\])")

_OPENING = re.compile(rb"\\{0,8}[\"'`]")
_SCHEME = re.compile(rb"(?i)(bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)[ +]+")
_ANY_SCHEME = re.compile(rb"([A-Za-z][A-Za-z0-9\-]{1,20})[ +]+(?=[^\s\"']{6})")
_NON_QUOTE = re.compile(rb"[^\r\n\"'`\x00\\]*")
_LINE = re.compile(rb"[^\r\n\x00]{0,1024}")
_NON_BLANK = re.compile(rb"\S*")


def past(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    """Give where a pattern stops that matches nothing too."""
    match = pattern.match(data, position)
    return match.end() if match else position


def value_at(data: bytes, position: int, *, cookie: bool, header: bool) -> tuple[int, int, bool, bytes]:
    """Find start and end of the value that starts here, whether it is quoted, and its scheme (bearer, basic) if it has one.

    Neither quotes nor scheme belong to the value.
    """
    if data[position : position + 1] == b"[" and data[position + 1 : position + 2] in {b'"', b"'"}:
        position += 1
    schemes = _ANY_SCHEME if header else _SCHEME
    position, scheme = _scheme_at(schemes, data, position, len(data))
    opening = _OPENING.match(data, position)
    start = opening.end() if opening else position
    if opening:
        end = _closing(data, opening[0], start)
        if not scheme:
            start, scheme = _scheme_at(schemes, data, start, end)
    elif cookie or scheme == b"digest":
        end = past(_NON_QUOTE if cookie else _LINE, data, start)
    else:
        end = _bare(data, start)
    token = data.find(GUILLEMET, start, end)
    if token >= 0 and (token == start or not opening):
        end = token
    return start, end, opening is not None, scheme


def _scheme_at(schemes: re.Pattern[bytes], data: bytes, start: int, end: int) -> tuple[int, bytes]:
    scheme = schemes.match(data, start, end)
    return (scheme.end(), scheme[1].lower()) if scheme else (start, b"")


def _closing(data: bytes, delimiter: bytes, start: int) -> int:
    """Find where a quoted value ends: at the same quote, unescaped, on the same line, not too far away."""
    line = data.find(b"\n", start, start + QUOTED)
    stop = line if line >= 0 else min(len(data), start + QUOTED)
    position = start
    for _ in range(FEW):
        end = data.find(delimiter, position, stop)
        if end < 0:
            break
        escaped = backslashes(data, start, end)
        if escaped == 0 or (escaped % 2 == 0 and delimiter[:1] != b"\\"):
            return end
        position = end + 1
    return stop


def _bare(data: bytes, start: int) -> int:
    """Find where an unquoted value ends; `,;&)` belong to it when something follows that is no next name."""
    position = start
    for _ in range(2 * FEW):
        position = past(_BARE, data, position)
        further = _ON.match(data, position) if position > start else None
        if further is None:
            return position
        position = further.end()
    return past(_NON_BLANK, data, position)
