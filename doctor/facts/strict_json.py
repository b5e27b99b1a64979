"""JSON as dockerd reads its daemon.json: strictly; where a text is none, the line, the column and what is wrong there."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct


class SyntaxFault(Struct, frozen=True):
    """Why a text is no JSON: line and column from 1, and the parser's words in lower case."""

    line: int
    column: int
    what: str


def strict(text: str, *, first_only: bool = False) -> tuple[Any, SyntaxFault | None]:
    """Read a text, or only its first value (as Docker before 23 does): the value and None, or None and the first fault."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    decoder = json.JSONDecoder(parse_constant=refuse)
    try:
        if not first_only or text.startswith("\ufeff"):
            return json.loads(text, parse_constant=refuse), None
        start = len(text) - len(text.lstrip(" \t\n\r"))
        return decoder.raw_decode(text, start)[0], None
    except json.JSONDecodeError as error:
        at = error.pos
        if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 and later point at the comma, dockerd does not
            at += len(text[at:]) - len(text[at + 1 :].lstrip())
        line = text.count("\n", 0, at) + 1
        return None, SyntaxFault(line, at - text.rfind("\n", 0, at), _go_words(error.msg, at, text))
    except ValueError as error:
        at = max(text.find(str(error)), 0)
        line = text.count("\n", 0, at) + 1
        return None, SyntaxFault(line, at - text.rfind("\n", 0, at), f"{error} is no JSON value")
    except RecursionError:
        return None, SyntaxFault(1, 1, "nested too deeply")


def _go_words(said: str, at: int, text: str) -> str:
    """Say what is wrong at the place, in words that a person can act on."""
    here = text[at : at + 1]
    before = text[:at].rstrip()
    if not text.strip():
        return "the file is empty"
    if text.startswith("\ufeff"):
        return "a byte order mark, which Docker takes from 23 on"
    if not here:
        return "the text ends too early: a bracket is not closed"
    if said == "Extra data":
        return "something follows the closing bracket"
    if before.endswith(",") and here in "}]":
        return f"comma before {here}"
    if here in "'\u2018\u2019\u201c\u201d":
        return f"{here} is no quotation mark of JSON"
    if here in "/#":
        return "JSON has no comments"
    if said.startswith("Expecting property name") and before.endswith(","):
        return f"comma before {here}" if here in "}]" else f"a key in double quotes is expected, not {here}"
    if "delimiter" in said and "','" in said:
        return f"a comma is missing before {here}"
    return f"{said[:1].lower()}{said[1:]}, not {here!r}"


def check_text(text: str) -> SyntaxFault | None:
    """Give the first fault of a text as strict JSON, None for JSON."""
    return strict(text)[1]


def decoded(data: bytes) -> tuple[str, SyntaxFault | None]:
    """Decode as Docker from 23 on does: by the byte order mark, UTF-8 without one, and nothing that is neither."""
    codec = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return data.decode(codec), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        what = f"byte 0x{data[error.start]:02x} is no UTF-8" if codec == "utf-8-sig" else "no UTF-16"
        return data.decode("utf-8", "replace"), SyntaxFault(line, column, what)


def whole(value: Any) -> Any:
    r"""Put U+FFFD for each half of a surrogate pair (`"\ud800"`), as Go's decoder does: no report could print it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole(one) for one in value]
    if isinstance(value, dict):
        return {whole(key): whole(one) for key, one in value.items()}
    return value
