"""What is a secret goes, what only looks like one stays: by the corpus, case by case."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doctor.redact import Redactor

HERE = Path(__file__).parent
CORPUS = tomllib.loads((HERE / "corpus.toml").read_text())
CLEAN = tomllib.loads((HERE / "clean.toml").read_text())
MARKED = re.compile("⟦(.*?)(?:⟧|\\Z)", re.DOTALL)
STRUCTURED = [(how, case) for how, cases in CORPUS["structured"].items() for case in cases]
FREE = CORPUS["text"]["lines"]
PIECE = 6
"""So many characters of a secret in a row are a leak, too."""


def left(case: str, how: str) -> list[str]:
    """Scrub a marked case; give its secrets that are still there, whole or in part."""
    out, count = Redactor().scrub(MARKED.sub(lambda match: match[1], case).encode(), how)
    text = out.decode()
    rest = MARKED.sub("", case)
    found = []
    for secret in MARKED.findall(case):
        pieces = [secret[start : start + PIECE] for start in range(max(1, len(secret) - PIECE + 1))]
        if secret in text or any(piece in text and piece not in rest for piece in pieces):
            found.append(secret)
    if not found and not count and "«value»" not in text:
        found.append("nothing was counted")
    return found


def test_every_structured_secret_goes() -> None:
    """A field that holds a secret is known by its name: recall is 100 %."""
    assert [(case, found) for how, case in STRUCTURED if (found := left(case, how))] == []


def test_the_corpus_is_large_enough() -> None:
    """The figures below mean something."""
    assert sum(len(MARKED.findall(case)) for _, case in STRUCTURED) >= 60
    assert sum(len(MARKED.findall(case)) for case in FREE) >= 200


def test_free_text_recall() -> None:
    """Of the secrets in logs, commands and files, at least 99.5 % go."""
    total = sum(len(MARKED.findall(case)) for case in FREE)
    missed = [(case, found) for case in FREE if (found := left(case, "text"))]
    assert len(missed) <= total * 0.005, missed


@pytest.mark.parametrize("how", CLEAN)
def test_look_alikes_stay(how: str) -> None:
    """Evidence that only looks secret stays, and nothing of it is counted."""
    for case in CLEAN[how]:
        out, count = Redactor().scrub(case.encode(), how)
        assert (out.decode(), count) == (case, 0)


def shape(value: Any) -> Any:
    """Reduce JSON to its keys, in order, and the types of its values."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("how", [how for how in CORPUS["structured"] if how not in {"unit", "cmdline"}])
def test_json_keeps_its_shape(how: str) -> None:
    """What was JSON is JSON of the same keys, order and types; what was none has as many lines as before."""
    for case in CORPUS["structured"][how]:
        data = MARKED.sub(lambda match: match[1], case).encode()
        out, _ = Redactor().scrub(data, how)
        assert out.count(b"\n") == data.count(b"\n")
        try:
            before = msgspec.json.decode(data)
        except msgspec.DecodeError:
            continue
        assert shape(msgspec.json.decode(out)) == shape(before)


def test_scrubbing_twice_changes_nothing_more() -> None:
    """Tokens are no secrets: a scrubbed text is at rest."""
    for how, case in (*STRUCTURED, *(("text", case) for case in FREE)):
        once, _ = Redactor().scrub(MARKED.sub(lambda match: match[1], case).encode(), how)
        again, count = Redactor().scrub(once, how)
        assert (again.decode(), count) == (once.decode(), 0)
