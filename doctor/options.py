"""What the words of the command line mean: selections, ignores, durations, formats, where evidence comes from."""

from __future__ import annotations

import os
import re
import sys
from calendar import timegm
from io import StringIO
from pathlib import Path
from time import strptime, time
from typing import TYPE_CHECKING, NamedTuple

from doctor.assess import Ignore
from doctor.exits import CLEAN, INCOMPLETE, USAGE, UsageError
from doctor.model import Severity
from doctor.registry import AREAS, Check, Registry, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from doctor.model import Report
    from doctor.places import Places
    from doctor.redact import Redactor
    from doctor.reports.text import Style
    from doctor.snapshot import Snapshot

    Leaks = Callable[[str | bytes], list[str]]

SUFFIXES = {".txt": "text", ".text": "text", ".log": "text", ".json": "json", ".html": "html", ".htm": "html"}
FORMATS = ("text", "short", "json", "html")


def registry() -> Registry:
    """Load checks, facts and plugins."""
    return load()


def severity(word: str) -> Severity:
    """Read `--fail-on`. Raises UsageError."""
    try:
        return Severity(word)
    except ValueError:
        raise UsageError(f"--fail-on {word}: is none of error, warning, info") from None


def duration(text: str) -> float:
    """Read a duration in seconds: `10s`, `500ms`, `2m`, `1.5`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text)
    if not match or not float(match[1]):
        raise UsageError(f"--deadline {text}: is no duration, such as 10s, 500ms or 2m")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}[match[2]]


_UNTIL = re.compile(r",until=(\d{4}-\d\d-\d\d)$")


def ignores(texts: list[str]) -> tuple[tuple[Ignore, ...], list[str]]:
    """Read every `--ignore CODE[:SUBJECT]=REASON[,until=DATE]`: first colon, last equals sign.

    Gives those in force, and a line for each that has expired. Raises UsageError.
    """
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


class Evidence(NamedTuple):
    """What is judged: the snapshot, what to call it when it is no live host, and who scrubbed it when it is one."""

    snapshot: Snapshot
    source: str
    redactor: Redactor | None = None

    def leaks(self, artefact: str | bytes) -> list[str]:
        """Name the secrets that stand in something made of it, which then must not be written."""
        if self.redactor is None:
            return []
        from doctor.redact import leaks

        return leaks(artefact, self.redactor)


def evidence(bundle: str, example: str, loaded: Registry, seconds: float) -> Evidence:
    """Give what is to be judged. Raises UsageError."""
    if bundle and example:
        raise UsageError("check: a bundle or an example, not both")
    if example:
        from doctor.examples import path

        bundle = path(example)
    if bundle:
        from doctor.bundle import BundleError, read

        try:
            return Evidence(read(bundle), bundle)
        except BundleError as error:
            raise UsageError(str(error)) from error
    from doctor.collect import gather
    from doctor.host import LocalHost
    from doctor.places import find, here

    host = LocalHost()
    places = find(host, here())
    if not places.present:
        sys.stderr.write(_nothing_here(places))
        import typer

        raise typer.Exit(INCOMPLETE)
    # What remains of the deadline is for judging and writing.
    budget = max(0.2, seconds - min(0.5, seconds * 0.1))
    snapshot, redactor = gather(host, deadline=budget, extra=loaded.sources, places=places, progress=_progress())
    return Evidence(snapshot, "", redactor)


def _nothing_here(places: Places) -> str:
    looked = [place for place in places.looked if place]
    lines = ["doctor: no Docker engine on this machine"]
    import textwrap

    lines += textwrap.wrap(
        "looked for: " + ", ".join(looked), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    if places.other:
        lines.append(f"  {places.other} is here, and is not examined")
    lines += [
        "instead:",
        "  doctor check --example forwarding-off    a broken host that ships with doctor",
        "  doctor check host.tar.gz                 a bundle made elsewhere by `collect`",
    ]
    return "\n".join(lines) + "\n"


def _progress() -> Callable[[int, float], None] | None:
    """Give the writer of the progress line: on a terminal only, after half a second, and it erases itself."""
    if not sys.stderr.isatty():
        return None

    def write(records: int, seconds: float) -> None:
        if seconds < 0:
            sys.stderr.write("\r\x1b[K")
        elif seconds >= 0.5:  # noqa: PLR2004 - half a second
            sys.stderr.write(f"\rreading: {records} pieces of evidence, {seconds:.1f} s")
        sys.stderr.flush()

    return write


def _renderer(name: str) -> Callable[[Report, TextIO, Style], None]:
    if name == "html":
        from doctor.reports import html

        return lambda report, out, _: html.render(report, out)
    if name == "json":
        from doctor.reports import json

        return json.render
    from doctor.reports import text

    return text.short if name == "short" else text.render


def write(report: Report, style: Style, wanted: list[tuple[str, str]], leaks: Leaks = lambda _: []) -> bool:
    """Write every report; one that cannot be written costs no other. Gives whether one failed.

    `leaks` names the secrets that stand in a finished text: one that holds any is not written.
    """
    failed = False
    for name, path in wanted:
        render = _renderer(name)
        if not path:
            render(report, sys.stdout, style)
            continue
        out = StringIO()
        render(report, out, _plain(style))
        try:
            if found := leaks(out.getvalue()):
                sys.stderr.write(_leaked(path, found))
                failed = True
                continue
            _write_file(path, out.getvalue())
        except OSError as error:
            sys.stderr.write(f"doctor: {path}: cannot write: {os.strerror(error.errno or 0).lower()}.\n")
            sys.stderr.write("  The report is on stdout all the same (exit 2)\n")
            failed = True
    return failed


def _leaked(path: str, found: list[str]) -> str:
    names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")  # noqa: PLR2004 - five
    return (
        f"doctor: {path}: not written: {names} would stand in it.\n"
        "  This is a fault in doctor itself: please send this line, never the file.\n"
    )


def _plain(style: Style) -> Style:
    from msgspec.structs import replace

    return replace(style, colour=False, width=80, quiet=False)


def _write_file(path: str, text: str) -> None:
    """Write a file as a whole or not at all."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as out:
            out.write(text)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


_TOGETHER = 1 << 20
"""Bytes of evidence that are searched for secrets at a time."""


def write_bundle(snapshot: Snapshot, path: str, leaks: Leaks = lambda _: []) -> int:
    """Write a bundle and say what is in it and what was removed; give the exit code. Raises UsageError."""
    from doctor.bundle import write as write_archive
    from doctor.redact import removed_text

    found = {one for part in _parts(snapshot) for one in leaks(part)}
    if found:
        sys.stderr.write(_leaked(path, sorted(found)))
        return USAGE
    try:
        written = write_archive(snapshot, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {os.strerror(error.errno or 0).lower()}") from error
    kilobytes = max(1, round(written.bytes / 1024))
    out = sys.stderr if path == "-" else sys.stdout
    out.write(
        f"{path}: {written.records} pieces of evidence, {kilobytes:,} KB, mode 0600, in {snapshot.meta.seconds:.1f} s\n"
    )
    out.write(f"  removed: {removed_text(snapshot.removed)}\n")
    out.write("  in it: names of containers, images and networks, addresses, rules, log lines\n")
    out.write("  tar -tf FILE to look inside\n".replace("FILE", path))
    missing = [one for one in snapshot.records.values() if one.status in {"timeout", "denied", "failed"}]
    for one in missing[:10]:
        out.write(f"  missing: {one.name}: {one.why or one.status}\n")
    return INCOMPLETE if missing else CLEAN


def _parts(snapshot: Snapshot) -> Iterator[bytes]:
    """Give everything that a bundle would hold, some at a time."""
    batch: list[bytes] = []
    size = 0
    for record in snapshot.records.values():
        batch += [record.data, f"\n{record.name}\n{record.target}\n{record.why}\n".encode("utf-8", "replace")]
        size += len(record.data)
        if size > _TOGETHER:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)
