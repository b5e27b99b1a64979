"""Codes by the engine's own words: what stands in quotes under a page's "What you see", found in a pasted error.

A phrase is what a program says, and `...` (or a placeholder: NAME, PATH) is where hosts differ. Texts are compared as
words: case, punctuation, quotes and the escapes of logs do not count, ids and addresses count for nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from math import log2
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.registry import sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.registry import Check

GAP = 60
"""Words that may stand where a phrase has `...`: a whole iptables command, and no more."""

LONGEST = 1 << 20
"""Characters of a pasted text that are looked at: its last ones, where a log has its reason."""

NEAR = 0.6
"""What a code must score, of the best one's score, to be named beside it."""

PLACEHOLDERS = re.compile(
    r"\b(?:ADDRESS|BRIDGE|CODE|CONTAINER|DEVICE|DIGEST|DRIVER|FILE|HOST|ID|IMAGE|IP|KEY|LAYER|N|NAME|NETWORK|NUMBER|PATH"
    r"|PID|PORT|RANGE|REGISTRY|SUBNET|TIME|USER|VALUE|VERSION|X|Y)\b"
)

WRAPPERS = (
    "Error response from daemon",
    "Error initializing network controller",
    "failed to start daemon",
    "unable to configure the Docker daemon with file",
    "merged configuration validation from file and command line flags failed",
    "failed to set up container networking",
    "failed to create task for container",
    "failed to create shim task",
    "driver failed programming external connectivity on endpoint",
    "OCI runtime create failed",
    "runc create failed: unable to start container process",
    "Job for docker.service failed because the control process exited with error code",
    "Start request repeated too quickly",
)
"""What the engine and systemd put before a reason, whatever that is."""

ERRNOS = (
    "connection refused",
    "device or resource busy",
    "file exists",
    "input/output error",
    "invalid argument",
    "no such file or directory",
    "operation not permitted",
    "operation not supported",
    "permission denied",
)
"""What the kernel says of very different faults."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\\+[nrt]|\\+u[0-9a-f]{4}|\\+x[0-9a-f]{2}")
_PREFIX = re.compile(
    r"^\w{3}\s+\d+ [\d:]{8} \S+ [\w.-]+(?:\[\d+\])?: |\btime=\S+ (?=level=)|\blevel=\w+ |\bmsg=", re.MULTILINE
)
_WORD = re.compile(r"[^\W_]+")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?(?::\d+)?|\b[0-9a-f]{12,64}\b", re.IGNORECASE)
_RESOLVER = re.compile(r"\b127\.0\.0\.(11|53)(?::53)?\b")
_ROOTS = re.compile(r"/var/lib/docker\b|/(?:var/)?run/docker\b(?!\.)|/etc/docker\b")
_QUOTED = re.compile(r'"([^"]+)"')
_CODE = re.compile(r"\b[A-Z][A-Z0-9]{1,7}[0-9]{3}\b")


class Found(Struct, frozen=True):
    """A code that a text speaks of, how surely (in bits, comparable within one text), and the phrase that says so."""

    code: str
    score: float
    phrase: str


def phrases(check: Check) -> tuple[str, ...]:
    """Give what programs say when this check's finding is true: the page's quotes, then `says`."""
    seen = " ".join(sections(check.page).get("What you see", "").split())
    return (*_QUOTED.findall(seen), *check.says)


def words(text: str) -> list[str]:
    r"""Give the words of a text, lower case, without addresses, ids, bare numbers and what a log puts before a line.

    >>> words('msg="Bind for 0.0.0.0:80 failed: \\"it\\" is in use" id=4f2c6c0e8f7a')
    ['bind', 'for', 'failed', 'it', 'is', 'in', 'use', 'id']
    """
    text = _ADDRESS.sub(" ", _RESOLVER.sub(r"resolver\1", _ESCAPE.sub(" ", _PREFIX.sub(" ", text))))
    return [word for word in _WORD.findall(text.lower()) if not word.isdigit()]


def pieces(phrase: str) -> tuple[tuple[str, ...], ...]:
    """Give the runs of words of a phrase; between two of them anything may stand.

    >>> pieces("Bind for 0.0.0.0:PORT failed: port is already allocated")
    (('bind', 'for'), ('failed', 'port', 'is', 'already', 'allocated'))
    """
    open_ = _ROOTS.sub(" ... ", _ADDRESS.sub(" ... ", _RESOLVER.sub(r"resolver\1", phrase)))
    runs = (tuple(words(part)) for part in re.split(r"\.\.\.|…", PLACEHOLDERS.sub(" ... ", open_)))
    return tuple(run for run in runs if run)


class Phrase(Struct, frozen=True):
    """What a program says when a code's finding is true. `vague`: it is no more than a wrapper, or an errno."""

    code: str
    text: str
    runs: tuple[tuple[str, ...], ...]
    vague: bool


class Index(Struct, frozen=True):
    """Every phrase of every check, and what each word is worth: the rarer, the more."""

    said: tuple[Phrase, ...]
    worth: Mapping[str, float]

    def weigh(self, some: Sequence[str]) -> float:
        """Give what words are worth together."""
        return sum(self.worth.get(word, 0.0) for word in some)


def _phrase(code: str, text: str) -> Phrase:
    runs = pieces(text)
    return Phrase(code, text, runs, _is_vague(runs))


def index(checks: Mapping[str, Check]) -> Index:
    """Read every page; once for the same checks, however many texts are asked about."""
    return _index(tuple(checks.values()))


@cache
def _index(checks: tuple[Check, ...]) -> Index:
    said = tuple(_phrase(one.code, text) for one in checks for text in phrases(one))
    users: dict[str, set[str]] = defaultdict(set)
    for phrase in said:
        for run in phrase.runs:
            for word in run:
                users[word].add(phrase.code)
    return Index(said, {word: log2(1 + len(checks) / len(codes)) for word, codes in users.items()})


def find(text: str, checks: Mapping[str, Check]) -> list[Found]:
    """Give the codes that a text speaks of, the likeliest first; empty when it speaks of none.

    A phrase counts when all of it stands in the text, or when the text is a part of it of two words or more. One that
    is only the kernel's errno, or a wrapper, counts where the text is little else. Of one code only the weightiest
    counts, and codes far below the best are left out.
    """
    text = text[-LONGEST:]
    named = [Found(code, 0.0, code) for code in dict.fromkeys(_CODE.findall(text)) if code in checks]
    if named:
        return named
    known = index(checks)
    given = words(text)
    stripped = _without_wrappers(given)
    where: dict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(given):
        where[word].append(at)
    best: dict[str, Found] = {}
    for one in known.said:
        code, runs, score = one.code, one.runs, 0.0
        if one.vague and len(given) > 2 * sum(map(len, runs)):
            continue
        if runs and _stands(runs, given, where):
            score = known.weigh([word for run in runs for word in run])
        elif len(stripped) > 1 and any(_inside(tuple(stripped), run) for run in runs):
            score = known.weigh(stripped)
        if score > (best[code].score if code in best else 0.0):
            best[code] = Found(code, score, one.text)
    found = sorted(best.values(), key=lambda one: (-one.score, one.code))
    return [one for one in found if one.score >= NEAR * found[0].score]


def _is_vague(runs: tuple[tuple[str, ...], ...]) -> bool:
    """Whether a phrase is no more than a part of a wrapper, or an errno."""
    return all(any(_inside(run, other) for other in (*_wrappers(), *_errnos())) for run in runs)


def _stands(runs: tuple[tuple[str, ...], ...], given: list[str], where: Mapping[str, list[int]]) -> bool:
    """Whether the runs stand in the text one after the other, each at most GAP words behind the one before.

    Of two places of one run, the earlier and the later may each be the one that the next run follows: all are tried.
    """
    ends: set[int] = set()
    for number, run in enumerate(runs):
        starts = (at for at in where.get(run[0], ()) if tuple(given[at : at + len(run)]) == run)
        if number == 0:
            ends = {at + len(run) for at in starts}
        else:
            held = sorted(ends)
            ends = {at + len(run) for at in starts if _follows(at, held)}
        if not ends:
            return False
    return True


def _follows(at: int, ends: list[int]) -> bool:
    before = bisect_right(ends, at)
    return before > 0 and at - ends[before - 1] <= GAP


def _inside(some: tuple[str, ...], run: tuple[str, ...]) -> bool:
    return any(run[at : at + len(some)] == some for at in range(len(run) - len(some) + 1))


@cache
def _wrappers() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(words(one)) for one in WRAPPERS)


@cache
def _errnos() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(words(one)) for one in ERRNOS)


def _without_wrappers(given: list[str]) -> list[str]:
    """Take away what stands before a reason, at the head of a text."""
    rest = given
    while any(rest[: len(one)] == list(one) for one in _wrappers()):
        rest = rest[max(len(one) for one in _wrappers() if rest[: len(one)] == list(one)) :]
    return rest


def only_wraps(text: str) -> bool:
    """Whether a text is nothing but what the engine puts before a reason."""
    given = words(text[-LONGEST:])
    joined = " ".join(given)
    return any(" ".join(one) in joined for one in _wrappers())


def nearest(text: str, checks: Mapping[str, Check], most: int = 3) -> list[str]:
    """Give the codes whose pages share the most, and the rarest, words with a text."""
    given = {word for word in words(text[-LONGEST:]) if len(word) > 2}  # noqa: PLR2004 - "is", "to", "of"
    pages = {code: _words_of(one) for code, one in checks.items()}
    counts = {word: sum(word in page for page in pages.values()) for word in given}
    # A word of every tenth page says nothing of any.
    telling = {word: log2(len(pages) / count) for word, count in counts.items() if 0 < count <= max(1, len(pages) / 10)}
    scores = {code: sum(telling[word] for word in page & telling.keys()) for code, page in pages.items()}
    ranked = sorted((code for code in scores if scores[code] > 0), key=lambda code: (-scores[code], code))
    return ranked[:most]


@cache
def _words_of(check: Check) -> frozenset[str]:
    return frozenset(words(f"{check.name} {check.page}"))
