"""Limits of processor time that hold on any machine: a slow one, or one that others keep busy, has more of it."""

from __future__ import annotations

import re
import time

_UNIT = 0.04
"""Seconds that `_work` takes on the machine that the limits were set on, while it had nothing else to do."""
_TEXT = 'key=value1 \\x {["a":1]} password: zQ9\n' * 1500


def _work() -> None:
    """What doctor does most: patterns over text, and many small objects."""
    for _ in range(4):
        found = [(one.start(), one.group()) for one in re.finditer(r"(\w+)[=:]\s*(\w+)|\\.|[\[{]", _TEXT)]
        {text: len(text) + at for at, text in found}


def pace() -> float:
    """How many times longer than then this takes now, never less than once."""
    spent = []
    for _ in range(3):
        begin = time.process_time()
        _work()
        spent.append(time.process_time() - begin)
    return max(1.0, max(spent) / _UNIT)


def within(spent: float, limit: float) -> bool:
    """Whether so much processor time is what `limit` allows on a quiet machine, as this one is now."""
    return spent < limit or spent < limit * pace()
