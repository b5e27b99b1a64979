"""The fields of a JSON text that are known by name, edited in place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.redact.edits import Edit, in_order
from doctor.redact.json_text import json_escape, json_unescape, literal_end
from doctor.redact.limits import MEMO, MOST_FIELDS, SHORT_TEXT
from doctor.redact.names import level_of
from doctor.redact.tokens import TOKEN, WITHHELD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.redact.settings import Settings

_ENV, _ARGV, _OPTIONS, _HISTORY, _LOG_CONFIG = range(5)

_FIELDS: dict[bytes, tuple[int, str]] = {
    b"Env": (_ENV, "environment"),
    b"env": (_ENV, "environment"),
    b"Cmd": (_ARGV, "command line"),
    b"Entrypoint": (_ARGV, "command line"),
    b"Args": (_ARGV, "command line"),
    b"args": (_ARGV, "command line"),
    b"arguments": (_ARGV, "command line"),
    b"runtimeArgs": (_ARGV, "command line"),
    b"Test": (_ARGV, "health check"),
    b"OnBuild": (_HISTORY, "image history"),
    b"Labels": (_OPTIONS, "label"),
    b"labels": (_OPTIONS, "label"),
    b"annotations": (_OPTIONS, "label"),
    b"Annotations": (_OPTIONS, "label"),
    b"Options": (_OPTIONS, "driver option"),
    b"DriverOpts": (_OPTIONS, "driver option"),
    b"storage-opts": (_OPTIONS, "driver option"),
    b"exec-opts": (_OPTIONS, "driver option"),
    b"log-opts": (_OPTIONS, "log option"),
    b"LogConfig": (_LOG_CONFIG, "log option"),
    b"LogDriver": (_LOG_CONFIG, "log option"),
    b"HttpHeaders": (_OPTIONS, "registry login"),
}
"""Lists and objects by name, wherever they stand: config.v2.json, inspect, image configs, /info, daemon.json share them."""


def _anchors(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """Make a pattern for the start of a field's value; by first letters, or it would take thrice as long.

    Strings are few: instructions of a Dockerfile that set something (group 2), and the content of swarm configs (3).
    """
    tails: dict[bytes, list[bytes]] = {}
    for name in names:
        tails.setdefault(name[:1], []).append(re.escape(name[1:]))
    tree = b"|".join(first + rb"(?:" + b"|".join(rest) + rb")" for first, rest in tails.items())
    instruction = rb'"(?:/bin/sh -c )?(?:#\(nop\)\s+)?(?:(?i:ENV|ARG|LABEL)\s|(?:RUN )?\|\d)'
    return re.compile(
        rb'"(?:('
        + tree
        + rb')"\s*:\s*(?=[\[{])|[cC]reated_?[bB]y("\s*:\s*)(?='
        + instruction
        + rb')|Data("\s*:\s*)(?="))'
    )


_ANCHOR = _anchors(_FIELDS)
_CLOSERS = {ord("["): b'"]', ord("{"): b'"}', ord('"'): b'",'}
_LOGIN = re.compile(rb'"(?i:(auth|identitytoken|registrytoken|password)|username|email)"\s*:\s*"')
_LOG_OPTIONS = re.compile(rb'\s*\{\s*(?:"(?:Type|Name)"\s*:\s*"[^"\\]*"\s*,\s*)?"(?:Config|Options)"\s*:\s*(?=\{)')

_ITEM = re.compile(rb'\s*,?\s*"([^"\\\n]*)(["\\\n]|\Z)')
_PAIR = re.compile(rb'\s*,?\s*"([^"\\]*+(?:\\.[^"\\]{0,256}){0,64})"\s*:\s*(?:"([^"\\\n]*+)(["\\\n]|\Z))?')
_KEYS = re.compile(rb'"([^"\\]*)"\s*:')
_SCALAR = re.compile(rb"[A-Za-z0-9.+\-]+")


Memo = dict[tuple[int, str, bytes], tuple[int, list[tuple[int, int, bytes]]]]
"""What was decided about fields: where they end, and their edits, both counted from their start."""


class Fields:
    """The fields of one JSON text that are known by name, edited in place."""

    def __init__(self, settings: Settings, memo: Memo, data: bytes) -> None:
        """Take a text; `memo` is shared by all texts of a collect."""
        self.settings = settings
        self.memo = memo
        self.data = data
        self.edits: list[Edit] = []
        self.given_up = False
        """There were more fields than any engine has containers: hostile."""
        self._places: list[tuple[int, int, str]] = []

    def judge(self) -> None:
        """Judge every known field."""
        data = self.data
        done = 0
        for match in _ANCHOR.finditer(data):
            start = match.end()
            if match.start() < done or data[start : start + 2] in {b"[]", b"{}", b'""'}:
                continue
            if match[1] is None:
                done = self._string(start, instruction=match[2] is not None)
                continue
            if len(self._places) >= MOST_FIELDS:
                self.given_up = True
                return
            what, kind = _FIELDS[match[1]]
            done = self._remembered(start, what, kind)
            self._places.append((start, done, kind))

    def regions(self) -> list[tuple[int, int, str]]:
        """Give where these fields are after the edits, and what a secret in them is called."""
        regions: list[tuple[int, int, str]] = []
        shift = 0
        edits = iter(self.edits)
        edit = next(edits, None)
        for start, end, kind in self._places:
            begin = start + shift
            while edit is not None and edit.start < end:
                shift += len(edit.new) - (edit.end - edit.start)
                edit = next(edits, None)
            regions.append((begin, end + shift, kind))
        return regions

    def _remembered(self, start: int, what: int, kind: str) -> int:
        """Judge a field, or know it from another text: inspect and config.v2.json say the same, and so do images."""
        data, memo = self.data, self.memo
        stop = data.find(_CLOSERS[data[start]], start, start + SHORT_TEXT) + 2
        region = data[start:stop]
        if stop < start or b"\\" in region:
            return self._field(start, what, kind)
        if what == _OPTIONS and region.startswith(b"{") and kind != "log option" and b"{" not in region[1:]:
            if not any(map(level_of, _KEYS.findall(region))):
                return stop
            return self._field(start, what, kind)
        key = (what, kind, region)
        known = memo.get(key)
        if known is None:
            before = len(self.edits)
            end = self._compact(region, start, what, kind) or self._field(start, what, kind)
            if stop - 1 <= end <= stop:
                if len(memo) > MEMO:
                    memo.clear()
                memo[key] = (end - start, [(a - start, b - start, new) for a, b, new in self.edits[before:]])
            return end
        size, edits = known
        if edits:
            self.edits += [Edit(a + start, b + start, new) for a, b, new in edits]
        return start + size

    def _compact(self, region: bytes, start: int, what: int, kind: str) -> int:
        """Judge a list of strings as Go prints it, all at once; 0 when it is not printed so."""
        olds = region[2:-2].split(b'","')
        if not region.startswith(b'["') or region.count(b'"') != 2 * len(olds):
            return 0
        news = self._judged(olds, what, kind)
        if news != olds:
            self.edits.append(Edit(start + 2, start + len(region) - 2, b'","'.join(map(json_escape, news))))
        return start + len(region)

    def _judged(self, olds: list[bytes], what: int, kind: str) -> list[bytes]:
        settings = self.settings
        if what == _ENV:
            return [settings.env(old) for old in olds]
        if what == _ARGV:
            return settings.argv(olds, kind)
        if what == _OPTIONS:
            return [settings.pair(old, kind) for old in olds]
        return [settings.history(old, kind) for old in olds]

    def _put(self, start: int, end: int, old: bytes, new: bytes) -> None:
        if new != old:
            self.edits.append(Edit(start, end, json_escape(new)))

    def _field(self, start: int, what: int, kind: str) -> int:
        """Judge the list or object that starts at `start`; give where to read on."""
        if what == _LOG_CONFIG:
            match = _LOG_OPTIONS.match(self.data, start)
            if match is None:
                return start
            start, what = match.end(), _OPTIONS
        if self.data[start : start + 1] == b"[":
            return self._array(start + 1, what, kind)
        return self._object(start + 1, what, kind) if what in {_OPTIONS, _ENV} else start

    def _string(self, start: int, *, instruction: bool) -> int:
        """Judge an instruction of an image's history; withhold the content of a swarm config."""
        end = literal_end(self.data, start + 1)
        literal = self.data[start + 1 : end]
        old = json_unescape(literal)
        new = self.settings.instruction(old) if instruction else WITHHELD
        self._put(start + 1, end, old, new)
        return end + 1

    def _array(self, position: int, what: int, kind: str) -> int:
        """Judge a list of strings: an environment, a command line, labels, instructions."""
        data = self.data
        places: list[tuple[int, int]] = []
        olds: list[bytes] = []
        while (match := _ITEM.match(data, position)) is not None:
            start, end = match.span(1)
            text = match[1]
            if match[2] == b"\\":
                end = literal_end(data, start)
                text = json_unescape(data[start:end])
            places.append((start, end))
            olds.append(text)
            position = end + 1
        news = self._judged(olds, what, kind)
        if news != olds:
            for (start, end), old, new in zip(places, olds, news, strict=True):
                self._put(start, end, old, new)
        return position

    def _object(self, position: int, what: int, kind: str) -> int:
        """Judge an object of strings: labels, options; what is nested in it is not read."""
        data, settings = self.data, self.settings
        while (match := _PAIR.match(data, position)) is not None:
            start, end = match.span(2)
            if start < 0:
                scalar = _SCALAR.match(data, match.end())
                if scalar is None:
                    return match.end()
                position = scalar.end()
                continue
            if match[3] == b"\\":
                end = literal_end(data, start)
            name = match[1]
            if what == _ENV or kind == "log option" or level_of(name):
                name, old = json_unescape(name), json_unescape(data[start:end])
                new = (
                    settings.env(name + b"=" + old)[len(name) + 1 :]
                    if what == _ENV
                    else settings.option(name, old, kind)
                )
                self._put(start, end, old, new)
            position = end + 1
        return position

    def judge_logins(self) -> None:
        """Judge what `docker login` wrote: the names of its fields say nothing elsewhere, and all here."""
        for match in _LOGIN.finditer(self.data):
            start = match.end()
            end = literal_end(self.data, start)
            value = new = json_unescape(self.data[start:end])
            if match[1] is None:
                new = WITHHELD if value else value
            elif value and not TOKEN.fullmatch(value):
                self.settings.known.learn_login(value)
                new = self.settings.known.token(value, "registry login")
            self._put(start, end, value, new)
        self.edits = in_order(self.edits)
