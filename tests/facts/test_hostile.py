"""A bundle may hold anything: no record makes a parser raise anything but EvidenceMissing, and no check fails for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.assess import assess
from doctor.examine import Facts
from doctor.registry import load
from doctor.snapshot import EvidenceMissing
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.snapshot import Record, Snapshot

REGISTRY = load(plugins=False)
BASES = [casefile.base(name) for name in ("healthy-20", "healthy-28", "killed-28")]
QUICK = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = (
    *(b"\x00", b"\xff\xfe", b"\\", b"\\n", b"\t", b"\n", b"\r\n", b" ", b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b"/"),
    *(b"-", b"*", b"!", b"0", b"-1", b"1e999", b"9" * 40, "²".encode(), "٣".encode(), b"null", b"true", b"{}", b"[]", b'""'),
    *(b"NaN", b"\\ud800", "\ufeff".encode(), "\u202e".encode(), b"a" * 300, b"[" * 2000, b'{"a":' * 500, b"=", b"$", b"(", b")"),
)
"""What is put into a text: what formats are made of, and what has broken parsers before."""


@st.composite
def damaged(draw: st.DrawFn, record: Record) -> Record:
    """Draw a record with other bytes: anything at all, or its own with pieces put in, taken out, doubled or swapped."""
    data = record.data
    if draw(st.booleans()) and draw(st.booleans()):
        return replace(record, data=draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 8, 60))))
        piece = draw(st.sampled_from((b"", *PIECES, data[start : start + 40] * 2)))
        data = data[:start] + piece + data[end:]
    return replace(record, data=data)


@st.composite
def hostile(draw: st.DrawFn) -> Snapshot:
    """Draw a snapshot of which one to three records are damaged, or missing in some way."""
    snapshot = draw(st.sampled_from(BASES))
    records = dict(snapshot.records)
    for name in draw(st.lists(st.sampled_from(sorted(records)), min_size=1, max_size=3, unique=True)):
        how = draw(st.sampled_from(("data", "data", "data", "data", "denied", "absent", "timeout", "truncated", "gone")))
        if how == "gone":
            del records[name]
        elif how in {"data", "truncated"}:
            made = draw(damaged(records[name]))
            records[name] = made if how == "data" else replace(made, status="truncated", why="more than 1 byte")
        else:
            records[name] = replace(records[name], status=how, data=b"", why=how)
    return replace(snapshot, records=records)


@QUICK
@given(hostile())
def test_facts_raise_nothing_but_evidence_missing(snapshot: Snapshot) -> None:
    """Each fact is made, or its evidence is missing."""
    facts = Facts(REGISTRY, snapshot)
    for wanted in REGISTRY.facts:
        try:
            facts.get(wanted)
        except EvidenceMissing as missing:
            assert missing.area
            assert missing.why


@QUICK
@given(hostile())
def test_checks_fail_for_no_evidence(snapshot: Snapshot) -> None:
    """No check raises, every citation leads into the snapshot, and the report can be written as JSON."""
    report = assess(snapshot, REGISTRY, REGISTRY.checks.values())
    assert report.faults == ()
    for one in report.findings:
        for cited in one.evidence:
            held = snapshot.records.get(cited.record)
            assert cited.line == 0 or (held is not None and cited.line <= held.data.count(b"\n") + 1)
    msgspec.json.encode(report)


@QUICK
@given(st.data())
def test_random_bytes_in_one_record(data: st.DataObject) -> None:
    """Plain noise in any one record that a parser reads."""
    snapshot = data.draw(st.sampled_from(BASES))
    name = data.draw(st.sampled_from(sorted(snapshot.records)))
    noise = replace(snapshot.records[name], data=data.draw(st.binary(max_size=200)))
    facts = Facts(REGISTRY, replace(snapshot, records={**snapshot.records, name: noise}))
    for wanted in REGISTRY.facts:
        try:
            facts.get(wanted)
        except EvidenceMissing:
            continue
