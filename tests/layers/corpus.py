"""Damages by the hundred: what is made by chance, judged from the disk to the finding, and counted.

Each case damages a copy, is judged twice, and has to come out with the code, the file, the layer, the kind and the owners
that are right for it, and with nothing else. `SHARE` of them are run; all with `DOCTOR_EVERY=1`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from doctor.assess import assess
from doctor.examine import Facts
from doctor.layers.containerd_model import dump as dump_store
from doctor.layers.model import Checked, Damage, Run, dump
from doctor.registry import load
from doctor.snapshot import Record
from tests.cases import casefile
from tests.layers.told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.layers.containerd_model import Store
    from doctor.layers.model import Work
    from doctor.model import Reported
    from doctor.snapshot import Snapshot

CASES = 260
SHARE = 20
REGISTRY = load(plugins=False)


class Case(NamedTuple):
    """What was done, and what has to be said: code, subjects of findings, places and kinds of damages, and owners."""

    name: str
    code: str
    subjects: set[str]
    paths: set[str]
    kinds: set[str]
    owners: tuple[str, ...] = ()


class Said(NamedTuple):
    """What was said."""

    findings: tuple[Reported, ...]
    damages: list[Damage]
    states: list[str]


def numbers() -> Iterable[int]:
    """The seeds to run: one of twenty; all when asked to."""
    return range(CASES) if os.environ.get("DOCTOR_EVERY") else range(0, CASES, SHARE)


def judge(works: list[Work], verify: Callable[[Work, Told], Checked], kind: str, store: Store | None = None) -> Said:
    """Verify, and have the checks judge what came out on a host that is well otherwise."""
    told = Told()
    checked = [verify(work, told) for work in works]
    lines = [Run(kind, len(works), 0), *checked, *told.damages]
    base = casefile.base("healthy-28")
    # Without dockerd's own store: what stands on containerd's is told by that alone.
    records = {**base.records, f"layers/{kind}": Record(f"layers/{kind}", "command", "", data=dump(lines))}
    if store is not None:
        records["store/containerd"] = Record("store/containerd", "file", store.root, data=dump_store(store))
    snapshot: Snapshot = replace(base, records=records)
    checks = [one for code, one in REGISTRY.checks.items() if code in {"LAY027", "LAY028", "LAY031"}]
    report = assess(snapshot, REGISTRY, checks, (), time.perf_counter(), Facts(REGISTRY, snapshot))
    return Said(report.findings, told.damages, [one.state for one in checked])


def wrong(case: Case, said: Said) -> str:
    """Why what was said is not right; empty where it is."""
    codes = {one.code for one in said.findings}
    if codes != {case.code}:
        return f"code {codes or 'none'}, not {case.code}"
    subjects = {one.subject for one in said.findings}
    if not case.subjects <= subjects or len(subjects) > len(case.subjects) + ("|" in "".join(case.paths)):
        return f"subjects {subjects}, not {case.subjects}"
    names = {name for path in case.paths for name in path.split("|")}
    inside = tuple(f"{name}/" for name in names)
    others = {one.path for one in said.damages if one.path not in names and not one.path.startswith(inside)}
    if others:
        return f"also {others}, not {names}"
    for path in case.paths:
        mine = {one.kind for one in said.damages if one.path in path.split("|")}
        if not mine or not mine & case.kinds:
            return f"{path}: {mine or 'nothing'}, not {case.kinds}"
    text = " ".join(f"{hit.text} {' '.join(hit.names)}" for one in said.findings for hit in one.hits)
    absent = [owner for owner in case.owners if owner not in text]
    return f"owners {absent} are not in: {text}" if absent else ""


class Tally:
    """How many were right, and why others were not."""

    def __init__(self) -> None:
        """Count from nothing."""
        self.cases = 0
        self.misses: list[str] = []

    def add(self, case: Case, judged: Callable[[], Said]) -> None:
        """Judge a case twice."""
        self.cases += 1
        found = [wrong(case, judged()) for _ in range(2)]
        if any(found):
            self.misses.append(f"{case.name}: {found[0] or found[1]}")

    def hold(self, least: float = 0.99) -> None:
        """Print the figure, and fail below `least`."""
        right = self.cases - len(self.misses)
        sys.stdout.write("\n  ".join((f"{right} of {self.cases} damages named rightly", *self.misses)) + "\n")
        assert self.cases
        assert right >= least * self.cases, self.misses
