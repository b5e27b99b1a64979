"""Times as the engine writes and says them."""

from __future__ import annotations

from calendar import timegm
from time import strptime

_MINUTE, _HOUR = 60, 3600
_STEPS = ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 730, 24 * 30, "months"))


def seconds(text: str) -> float:
    """Read RFC 3339 in UTC as seconds since the epoch; 0 for what is none, or is the engine's never.

    >>> seconds("1970-01-01T00:01:00.5Z"), seconds("0001-01-01T00:00:00Z")
    (60.5, 0.0)
    """
    whole, _, rest = text.removesuffix("Z").partition(".")
    try:
        found = timegm(strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{rest or 0}")
    except ValueError:
        return 0.0
    return max(found, 0.0)


def ago(duration: float) -> str:
    """Say a duration as a person does (docker/go-units HumanDuration).

    >>> [ago(one) for one in (0.3, 1.2, 59, 61, 3700, 90_000, 200_000)]
    ['Less than a second', '1 second', '59 seconds', 'About a minute', 'About an hour', '25 hours', '2 days']
    """
    whole = int(duration)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return f"{whole} second" + ("s" if whole > 1 else "")
    if whole < _HOUR:
        return "About a minute" if whole < 2 * _MINUTE else f"{whole // _MINUTE} minutes"
    hours = int(duration / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    for least, unit, name in _STEPS:
        if hours < least:
            return f"{hours // unit} {name}"
    return f"{hours // (24 * 365)} years"
