"""The part of Go's text/template that people type behind `--format`: fields, json, index, len, range, if, variables.

Source: go `src/text/template/doc.go`. What is not of it is an error, never a wrong answer.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.cli.flags import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\([^()]*\)|[^\s()]+')

Node = tuple[str, Any, Any, Any]
"""text, _, _, _ · print, pipeline, _, _ · range or if, head, body, otherwise."""


def render(text: str, value: Any) -> str:
    """Fill a template in. Raises UsageError for what is no template, or names what is not there."""
    if text == "json":
        text = "{{json .}}"
    nodes, rest = _parse(list(_tokens(text)), ())
    if rest:
        raise UsageError("template parsing error: unexpected {{end}}")
    return "".join(_write(nodes, value, {"$": value}))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    trim = False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        yield "text", before.rstrip() if match[1] else before
        yield "action", match[2]
        at, trim = match.end(), bool(match[3])
    yield "text", text[at:].lstrip() if trim else text[at:]


def _parse(tokens: list[tuple[str, str]], ends: tuple[str, ...]) -> tuple[list[Node], list[tuple[str, str]]]:
    nodes: list[Node] = []
    while tokens:
        kind, text = tokens.pop(0)
        if kind == "text":
            nodes.append(("text", text, None, None))
            continue
        word = text.partition(" ")[0]
        if word in ends:
            return nodes, [(kind, text), *tokens]
        if word in {"end", "else"}:
            raise UsageError(f"template parsing error: template: :1: unexpected {{{{{word}}}}}")
        if word in {"range", "if", "with"}:
            body, tokens = _parse(tokens, ("end", "else"))
            otherwise: list[Node] = []
            if tokens and tokens[0][1] == "else":
                otherwise, tokens = _parse(tokens[1:], ("end",))
            if not tokens:
                raise UsageError("template parsing error: template: :1: unexpected EOF")
            tokens = tokens[1:]
            nodes.append((word, text.partition(" ")[2], body, otherwise))
        else:
            nodes.append(("print", text, None, None))
    if ends:
        raise UsageError("template parsing error: template: :1: unexpected EOF")
    return nodes, tokens


def _write(nodes: list[Node], dot: Any, names: dict[str, Any]) -> Iterator[str]:
    for kind, head, body, otherwise in nodes:
        if kind == "text":
            yield head
        elif kind == "print":
            yield _shown(_pipeline(head, dot, names))
        elif kind == "range":
            yield from _range(head, body, otherwise, dot, names)
        else:
            value = _pipeline(head, dot, names)
            inner = value if kind == "with" else dot
            yield from _write(body if value else otherwise, inner if value else dot, names)


def _range(head: str, body: list[Node], otherwise: list[Node], dot: Any, names: dict[str, Any]) -> Iterator[str]:
    declared, assigned, source = head.partition(":=")
    value = _pipeline(source if assigned else head, dot, names)
    keys = [one.strip() for one in declared.split(",")] if assigned else []
    pairs = sorted(value.items()) if isinstance(value, dict) else list(enumerate(value or ()))
    if not pairs:
        yield from _write(otherwise, dot, names)
    for key, one in pairs:
        inner = dict(names)
        if keys:
            inner[keys[-1]] = one
            if len(keys) > 1:
                inner[keys[0]] = key
        yield from _write(body, one, inner)


def _pipeline(text: str, dot: Any, names: dict[str, Any]) -> Any:
    value: Any = None
    for number, part in enumerate(one.strip() for one in text.split("|")):
        words = _WORD.findall(part)
        if not words:
            raise UsageError("template parsing error: template: :1: missing value for command")
        value = _command(words, dot, names, [value] if number else [])
    return value


def _command(words: list[str], dot: Any, names: dict[str, Any], piped: list[Any]) -> Any:
    name = words[0]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*[_value(word, dot, names) for word in words[1:]], *piped)
    if len(words) > 1:
        raise UsageError(f'template parsing error: template: :1: function "{name}" not defined')
    return _value(name, dot, names)


def _value(word: str, dot: Any, names: dict[str, Any]) -> Any:
    if word.startswith("("):
        return _pipeline(word[1:-1], dot, names)
    if word.startswith('"'):
        return json.loads(word)
    if word.lstrip("-").isdecimal():
        return int(word)
    if word in {"true", "false"}:
        return word == "true"
    if word.startswith("$"):
        name, _, rest = word.partition(".")
        if name not in names:
            raise UsageError(f'template parsing error: template: :1: undefined variable "{name}"')
        return _fields(names[name], rest)
    if word.startswith("."):
        return _fields(dot, word[1:])
    raise UsageError(f'template parsing error: template: :1: function "{word}" not defined')


def _fields(value: Any, path: str) -> Any:
    for name in [one for one in path.split(".") if one]:
        if not isinstance(value, dict) or name not in value:
            raise UsageError(f'template: :1:2: executing "" at <.{path}>: map has no entry for key "{name}"')
        value = value[name]
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, list):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise UsageError("template: :1:2: error calling index: index out of range")
            value = value[key]
        else:
            value = (value or {}).get(key)
    return value


def _shown(value: Any) -> str:
    """Print a value as Go does."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(held)}" for key, held in sorted(value.items())) + "]"
    return str(value)


_FUNCTIONS: dict[str, Any] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "index": _index,
    "len": lambda value: len(value or ()),
    "println": lambda *values: " ".join(map(_shown, values)) + "\n",
    "print": lambda *values: "".join(map(_shown, values)),
    "not": lambda value: not value,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, other: first != other,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "join": lambda values, between: between.join(values),
}
