"""When the snapshot was taken, and when the host booted: the only times that anything right of the snapshot knows."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct

from doctor.registry import fact
from doctor.snapshot import Snapshot

TICKS = 100
"""USER_HZ: the unit of times in /proc/PID/stat, fixed at 100 for user space (proc(5))."""


class Clock(Struct, frozen=True):
    """Seconds since the epoch; `booted` is 0 when unknown."""

    collected_at: float
    booted: float


@fact
def clock(snapshot: Snapshot) -> Clock:
    """Read the boot time from `btime` of /proc/stat."""
    for line in snapshot.get("host/boot").text.split("\n"):
        name, _, value = line.partition(" ")
        if name == "btime" and value.strip().isdecimal():
            return Clock(snapshot.meta.collected_at, float(value))
    return Clock(snapshot.meta.collected_at, 0.0)


@lru_cache(maxsize=1024)
def _seconds(head: str) -> int:
    """Read `2026-11-24T11:38:55`: a log of 5,000 lines has few seconds. `time.strptime` would cost 12 ms to import."""
    if head[10:11] != "T":
        raise ValueError(head)
    return int(datetime.fromisoformat(head).replace(tzinfo=UTC).timestamp())


def epoch(text: str) -> float:
    """Read an RFC 3339 time as Go and journald print it; 0 for Go's zero time and for what is none.

    >>> epoch("2026-11-24T11:38:55.348128636Z")
    1795520335.348129
    >>> epoch("0001-01-01T00:00:00Z")
    0.0
    """
    head, rest = text[:19], text[19:]
    try:
        seconds = _seconds(head)
    except ValueError:
        return 0.0
    if seconds < 0:
        return 0.0
    fraction = ""
    if rest.startswith("."):
        digits = len(rest) - len(rest[1:].lstrip("0123456789"))
        fraction, rest = rest[1:digits], rest[digits:]
    offset = 0
    if rest[:1] in {"+", "-"} and rest[1:].replace(":", "").isdecimal():
        digits_only = rest[1:].replace(":", "")
        offset = (int(digits_only[:2]) * 60 + int(digits_only[2:4] or 0)) * 60
        offset = offset if rest[0] == "+" else -offset
    return round(seconds - offset + (float("0." + fraction) if fraction else 0.0), 6)
