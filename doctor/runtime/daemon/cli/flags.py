"""Flags as pflag reads them: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc`; `--` ends them."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

Kind = Literal["switch", "text", "list"]
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})

REFUSED = 125
"""The exit code of what the daemon, or the command line itself, refuses."""


class UsageError(Exception):
    """What was typed is no command; the message is docker's."""


class Flags:
    """The flags that one command takes."""

    def __init__(self, *rows: str, mixed: bool = True) -> None:
        """Take rows such as `detach,d`, `name=` (a text), `publish,p=*` (a list).

        With `mixed` false flags end at the first word that is none: what follows is a command of its own.
        """
        self.kinds: dict[str, Kind] = {"help": "switch"}
        self.short: dict[str, str] = {}
        self.mixed = mixed
        for row in rows:
            names, _, kind = row.partition("=")
            name, _, letter = names.partition(",")
            self.kinds[name] = "list" if kind == "*" else "text" if "=" in row else "switch"
            if letter:
                self.short[letter] = name

    def parse(self, words: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Read flags and the other words. Raises UsageError."""
        found: dict[str, Any] = {name: [] if kind == "list" else None for name, kind in self.kinds.items()}
        others: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                others += rest
                break
            if word.startswith("--"):
                self._long(word[2:], rest, found)
            elif word.startswith("-") and word != "-":
                self._short(word, rest, found)
            elif self.mixed:
                others.append(word)
            else:
                return found, [word, *rest]
        return found, others

    def _long(self, word: str, rest: list[str], found: dict[str, Any]) -> None:
        name, equals, value = word.partition("=")
        kind = self.kinds.get(name)
        if kind is None:
            raise UsageError(f"unknown flag: --{name}")
        if kind == "switch":
            found[name] = _switch(name, value) if equals else True
            return
        if not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: --{name}")
            value = rest.pop(0)
        self._set(name, value, found)

    def _short(self, word: str, rest: list[str], found: dict[str, Any]) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            name = self.short.get(letter)
            if name is None:
                raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
            if self.kinds[name] == "switch":
                found[name] = True
                continue
            value = letters.removeprefix("=")
            if not value:
                if not rest:
                    raise UsageError(f"flag needs an argument: '{letter}' in {word}")
                value = rest.pop(0)
            self._set(name, value, found)
            return

    def _set(self, name: str, value: str, found: dict[str, Any]) -> None:
        if self.kinds[name] == "list":
            found[name].append(value)
        else:
            found[name] = value


def _switch(name: str, value: str) -> bool:
    if value.lower() not in _TRUE | _FALSE:
        raise UsageError(
            f'invalid argument "{value}" for "--{name}" flag: strconv.ParseBool: parsing "{value}": invalid syntax'
        )
    return value.lower() in _TRUE


def needs(words: list[str], least: int, name: str, most: int | None = None) -> None:
    """Refuse fewer words than `least`, or more than `most`. Raises UsageError."""
    if len(words) < least or (most is not None and len(words) > most):
        exactly = "exactly" if most == least else "at least"
        raise UsageError(
            f"docker {name}: 'docker {name}' requires {exactly} {least} argument{'s' if least > 1 else ''}"
        )


def filters(texts: list[str]) -> dict[str, str]:
    """Give the query of `--filter NAME=VALUE`. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'invalid argument "{text}" for "-f, --filter" flag: invalid filter (expected name=value)')
        found.setdefault(name, []).append(value)
    return {"filters": json.dumps(found)} if found else {}


def moment(text: str) -> str:
    """Read a time, or a duration before now (`10m`)."""
    if text[-1:] in "smh" and text[:-1].replace(".", "", 1).isdecimal():
        return str(time.time() - float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]])
    return text
