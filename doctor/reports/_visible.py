"""Text and moments as the page shows them: nothing hidden, nothing too long."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from msgspec import Struct

SHOWN = 2000
"""Characters of one text that a page shows; of a longer one the middle is left out. Commands are never cut."""


# What a reader cannot see, or what moves the text around it: C0 but tab and newline, DEL, C1, soft hyphen, zero-width
# and bidi controls, fillers, variation selectors, non-characters, lone surrogates, tags.
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)

BLANK = re.compile(r"[\t\n]")

_BYTE, _BMP = 0x100, 0x10000


def spelled(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < _BYTE:
        return {9: r"\t", 10: r"\n"}.get(code, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < _BMP else f"\\U{code:08x}"


def visible(raw: str) -> str:
    r"""Show what could not be seen as an escape, `\x1b` or `\u202e`; tabs and newlines stay.

    >>> visible("web\x1b[31m \u202egpj.exe")
    'web\\x1b[31m \\u202egpj.exe'
    """
    if raw.isascii() and raw.isprintable():
        return raw
    return HIDDEN.sub(spelled, raw)


def one_line(raw: str) -> str:
    """Do the same with tabs and newlines too."""
    return BLANK.sub(spelled, visible(raw))


def shortened(raw: str, limit: int = SHOWN) -> str:
    """Leave out the middle of a text that is longer than the limit, and say how long it is."""
    if len(raw) <= limit:
        return raw
    half = limit // 2
    return f"{raw[:half]} ... (cut: {len(raw):,} characters in all) ... {raw[-half:]}"


class Clock(Struct, frozen=True):
    """The clock of the host: moments as it would have shown them. One that no calendar has is shown as a number."""

    now: float
    offset: int

    def _local(self, at: float) -> datetime | None:
        try:
            return datetime.fromtimestamp(at, timezone(timedelta(seconds=self.offset)) if self.offset else UTC)
        except (ValueError, OverflowError, OSError):
            return None

    def time(self, at: float) -> str:
        """Give the time, with the date when it is not the day of the report."""
        when, now = self._local(at), self._local(self.now)
        if when is None:
            return f"{at:g} s"
        today = now is not None and when.date() == now.date()
        return f"{when:%H:%M:%S}" if today else f"{when:%Y-%m-%d %H:%M:%S}"

    def stamp(self, at: float) -> str:
        """Give date, time and zone."""
        when = self._local(at)
        return f"{at:g} s" if when is None else f"{when:%Y-%m-%d %H:%M:%S %z}"

    def iso(self, at: float) -> str:
        """Give what a `datetime` attribute takes; nothing when there is no such time."""
        when = self._local(at)
        return "" if when is None else when.isoformat(timespec="seconds")
