"""Verify layers in processes of our own, as many side by side as asked for, and put together what they say.

The largest layers go first, so that the last ones to end are small. With a budget the order is by chance, from a seed that
is told: the same seed takes the same layers, another one others, and what there was no time for is `skipped`.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from doctor.layers.crc64 import FAST
from doctor.layers.model import Checked, Line, Run, Unread
from doctor.layers.worker import Order
from doctor.linux import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from doctor.layers.model import Work

WORKER = "doctor.layers.worker"


class Pace(Struct, frozen=True):
    """How to go about it: processes side by side, seconds (0: all it takes), what chooses the sample, gently or not."""

    jobs: int = 1
    budget: float = 0.0
    seed: str = ""
    gently: bool = True


class Progress(Struct):
    """How far it has come: layers and bytes done, of how many; since when (time.monotonic)."""

    layers: int = 0
    bytes: int = 0
    all_layers: int = 0
    all_bytes: int = 0
    began: float = 0.0


def ordered(works: Iterable[Work], pace: Pace) -> list[Work]:
    """Give layers in the order in which they are verified."""
    if pace.budget:
        return sorted(works, key=lambda one: sha256(f"{pace.seed} {one.store} {one.id}".encode()).digest())
    return sorted(works, key=lambda one: (-one.bytes, one.id))


def verify(
    works: Sequence[Work],
    pace: Pace,
    progress: Callable[[Progress], None] = lambda _: None,
    known: Iterable[Checked] = (),
    done: Callable[[list[Line]], None] = lambda _: None,
) -> dict[str, list[Line]]:
    """Verify all of them; give the lines of a record for each store, its `Run` first.

    `known` are layers that were found whole before and are taken for that; `done` is given the lines of each layer as soon
    as it is through.
    """
    began = time.monotonic()
    until = began + pace.budget if pace.budget else 0.0
    before = {(one.store, one.layer): one for one in known}
    todo = ordered((one for one in works if (one.store, one.id) not in before), pace)
    state = Progress(0, 0, len(todo), sum(one.bytes for one in todo), began)
    said: list[list[Line]] = [[] for _ in todo]
    read = [0] * len(todo)

    def say(number: int, line: bytes) -> None:
        if line.startswith(b"+"):
            count = int(line[1:])
            read[number] += count
            state.bytes += count
        else:
            said[number].append(msgspec.json.decode(line, type=Line))
            if isinstance(said[number][-1], Checked):
                finish(number)
        progress(state)

    def finish(number: int) -> None:
        state.layers += 1
        state.bytes += todo[number].bytes - read[number]
        said[number].sort(key=lambda one: not isinstance(one, Checked))
        done(said[number])

    def lose(number: int) -> None:
        work = todo[number]
        why = (
            "the process that read it ended early"
            if not until or time.monotonic() < until
            else "the budget was used up"
        )
        told: Literal["unknown", "skipped"] = "unknown" if why.startswith("the process") else "skipped"
        said[number] = [Checked(work.store, work.id, told, work.digest, bytes=work.bytes, why=why, root=work.root)]
        if told == "unknown":
            said[number].append(Unread(work.id, "", why))
        finish(number)

    orders = (msgspec.json.encode(Order(work, until, pace.gently)) for work in todo)
    if todo:
        workers.run(workers.command(WORKER), orders, max(1, min(pace.jobs, len(todo))), say, lose, until)
    seconds = time.monotonic() - began
    found: dict[str, list[Line]] = {}
    for store in dict.fromkeys(one.store for one in works):
        of = [one for one in works if one.store == store]
        run = Run(
            store,
            len(of),
            sum(one.bytes for one in of),
            round(seconds, 3),
            pace.jobs,
            pace.budget,
            pace.seed,
            crc="fastcrc" if FAST else "own",
        )
        found[store] = [run]
    for work, lines in zip(todo, said, strict=True):
        found[work.store] += lines
    for work in works:
        if (work.store, work.id) in before:
            found[work.store].append(before[work.store, work.id])
    return found
