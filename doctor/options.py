"""What the words of the command line mean: selections, ignores, durations, formats."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from time import strftime, strptime, time
from typing import TYPE_CHECKING

from doctor.exits import UsageError
from doctor.model import Ignore, Severity
from doctor.registry import AREAS, Check, Registry, load

if TYPE_CHECKING:
    from doctor.deep import Deep

SUFFIXES = {".txt": "text", ".text": "text", ".log": "text", ".json": "json", ".html": "html", ".htm": "html"}
FORMATS = ("text", "short", "json", "html")


@cache
def registry() -> Registry:
    """Load checks, facts and plugins, once."""
    return load()


def severity(word: str) -> Severity:
    """Read `--fail-on`. Raises UsageError."""
    try:
        return Severity(word)
    except ValueError:
        raise UsageError(f"--fail-on {word}: is none of error, warning, info") from None


LONGEST = 600.0
"""Seconds that a sample may take."""


def sample(text: str) -> float:
    """Read `--sample`, in seconds; 0 without. Raises UsageError."""
    seconds = duration(text, "--sample") if text else 0.0
    if seconds > LONGEST:
        raise UsageError(f"--sample {text}: is more than ten minutes")
    return seconds


def duration(text: str, option: str = "--deadline") -> float:
    """Read a duration in seconds: `10s`, `500ms`, `2m`, `1.5`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if not match or not float(match[1]):
        raise UsageError(f"{option} {text}: is no duration, such as 10s, 500ms or 2m")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}[match[2]]


def deep(
    names: tuple[str, ...] = (),
    jobs: int = 0,
    budget: str = "",
    seed: str = "",
    resume: str = "",
    *,
    gently: bool = True,
) -> Deep:
    """Say how the content of layers is read. A sample is chosen by the day, unless a seed is given. Raises UsageError."""
    from doctor.deep import Deep
    from doctor.layers.pool import Pace

    if jobs < 0 or jobs > _JOBS:
        raise UsageError(f"--jobs {jobs}: is none of 1 to {_JOBS}")
    seconds = duration(budget, "--budget") if budget else 0.0
    if seed and not budget:
        raise UsageError("--seed: chooses the sample of a --budget")
    chosen = (seed or strftime("%Y-%m-%d")) if budget else ""
    return Deep(names, Pace(jobs or len(os.sched_getaffinity(0)), seconds, chosen, gently), resume)


_JOBS = 256

_UNTIL = re.compile(r",until=(\d{4}-\d\d-\d\d)$")


def ignores(texts: list[str]) -> tuple[tuple[Ignore, ...], list[str]]:
    """Read every `--ignore CODE[:SUBJECT]=REASON[,until=DATE]`: first colon, last equals sign.

    Gives those in force, and a line for each that has expired. Raises UsageError.
    """
    from calendar import timegm

    found, expired = [], []
    for text in texts:
        until = 0.0
        dated = _UNTIL.search(text)
        rest = text
        if dated:
            rest = text[: dated.start()]
            try:
                until = float(timegm(strptime(dated[1], "%Y-%m-%d")))
            except ValueError:
                raise UsageError(f"--ignore {text}: {dated[1]} is no date") from None
        what, equals, reason = rest.rpartition("=")
        if not equals or not reason.strip():
            raise UsageError(f"--ignore {text}: give a reason: --ignore {what or rest}=REASON")
        code, _, subject = what.partition(":")
        if until and time() >= until:
            expired.append(f"the ignore of {what} expired on {dated[1] if dated else ''}: it is not applied")
            continue
        found.append(Ignore(code, subject, reason.strip(), until))
    return tuple(found), expired


def _nearest(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word.upper(), known, 1, 0.5) or get_close_matches(word.lower(), known, 1, 0.5)
    return f". Did you mean {near[0]}?" if near else ""


def match(word: str, checks: dict[str, Check]) -> list[str]:
    """Give the codes that a word names: a code, a range, an area by letters or word, a name. Raises UsageError."""
    first, dots, last = word.partition("..")
    if dots:
        letters = first.rstrip("0123456789")
        if letters and letters == last.rstrip("0123456789") and first <= last:
            return [code for code in checks if first <= code <= last and code.startswith(letters)]
        raise UsageError(f"{word}: is no range of codes, such as NET020..NET026")
    for code, one in checks.items():
        if word.upper() == code or word == one.name:
            return [code]
    area = [code for code, one in checks.items() if word.upper() == code.rstrip("0123456789") or word == one.area]
    if area or word.upper() in AREAS or word in AREAS.values():
        return area
    if word.isalnum() and word[:1].isalpha() and word[-1:].isdigit():
        raise UsageError(f"no such check: {word}{_nearest(word, list(checks))}")
    known = [*checks, *(one.name for one in checks.values()), *AREAS, *AREAS.values()]
    raise UsageError(f"no such check: {word}{_nearest(word, known)}")


def selection(only: list[str], skip: list[str], ignored: tuple[Ignore, ...]) -> tuple[Registry, list[Check]]:
    """Choose the checks to run. Raises UsageError for a word that names none, in an `--ignore` too."""
    loaded = registry()
    for one in ignored:
        if one.code not in loaded.checks:
            raise UsageError(f"--ignore: no such check: {one.code}{_nearest(one.code, list(loaded.checks))}")

    def codes(words: list[str]) -> set[str]:
        return {code for word in words for part in word.split(",") if part for code in match(part, loaded.checks)}

    chosen = codes(only) if only else set(loaded.checks)
    chosen -= codes(skip)
    return loaded, [one for code, one in loaded.checks.items() if code in chosen]


def formats(style: str, outputs: list[str]) -> list[tuple[str, str]]:
    """Give format and file of each report: the first for stdout (file empty). Raises UsageError."""
    if style and style not in FORMATS:
        raise UsageError(f"--format {style}: is none of {', '.join(FORMATS)}")
    wanted = [(style or "text", "")]
    for path in outputs:
        known = SUFFIXES.get(Path(path).suffix.lower())
        if known is None:
            raise UsageError(f"-o {path}: which format? The suffix is none of {', '.join(SUFFIXES)}")
        wanted.append((known, path))
    return wanted


def width() -> int:
    """Give the width of the terminal, at least 80: what a ticket takes is written for 80."""
    if not sys.stdout.isatty():
        return 80
    try:
        return max(80, os.get_terminal_size().columns)
    except OSError:
        return 80


def colour(word: str) -> bool:
    """Whether to colour: the flag, then NO_COLOR and FORCE_COLOR, then a terminal that is not dumb."""
    if word not in {"auto", "always", "never"}:
        raise UsageError(f"--color {word}: is none of auto, always, never")
    if word != "auto":
        return word == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()
