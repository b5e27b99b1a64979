"""Writing: reports in every format asked for, and bundles; nothing in which a secret of the collect stands."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.exits import CLEAN, INCOMPLETE, USAGE, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from doctor.model import Report
    from doctor.reports.text import Style
    from doctor.snapshot import Snapshot

    Leaks = Callable[[str | bytes], list[str]]


def _renderer(name: str) -> Callable[[Report, TextIO, Style], None]:
    if name == "html":
        from doctor.reports import html

        return lambda report, out, _: html.render(report, out)
    if name == "json":
        from doctor.reports import json

        return json.render
    from doctor.reports import text

    return text.short if name == "short" else text.render


def reports(report: Report, style: Style, wanted: list[tuple[str, str]], leaks: Leaks = lambda _: []) -> bool:
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


def bundle(snapshot: Snapshot, path: str, leaks: Leaks = lambda _: []) -> int:
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
