"""Replace pieces of a text."""

from __future__ import annotations

from typing import NamedTuple

from doctor.redact.tokens import WITHHELD


class Edit(NamedTuple):
    """Put `new` for what stands from `start` to before `end`."""

    start: int
    end: int
    new: bytes


def apply(data: bytes, edits: list[Edit]) -> bytes:
    """Make edits that are sorted and do not overlap."""
    if not edits:
        return data
    out: list[bytes] = []
    done = 0
    for start, end, new in edits:
        out += (data[done:start], new)
        done = end
    out.append(data[done:])
    return b"".join(out)


def in_order(edits: list[Edit]) -> list[Edit]:
    """Sort edits; of those that overlap the first stays."""
    out: list[Edit] = []
    for edit in sorted(edits):
        if not out or edit.start >= out[-1].end:
            out.append(edit)
    return out


def cut_off(data: bytes, edits: list[Edit], limit: int) -> bytes:
    """Make the edits; withhold what comes after `limit`, from the start of its line."""
    if limit >= len(data):
        return apply(data, edits)
    cut = data.rfind(b"\n", 0, limit) + 1
    cut = min([cut, *(edit.start for edit in edits if edit.start < cut < edit.end)])
    return apply(data[:cut], [edit for edit in edits if edit.end <= cut]) + WITHHELD
