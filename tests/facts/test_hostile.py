"""A bundle may hold anything: no record makes a parser raise anything but EvidenceMissing, and no check fails for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.diagnose import diagnose
from doctor.examine import Facts, examine
from doctor.registry import load
from doctor.snapshot import EvidenceMissing
from tests.cases import casefile

if TYPE_CHECKING:
    from doctor.snapshot import Snapshot, Status

REGISTRY = load(plugins=False)
BASES = {name: casefile.base(name) for name in ("healthy-20", "healthy-28", "killed-28")}
QUICK = settings(max_examples=2 * settings.default.max_examples, suppress_health_check=list(HealthCheck))

PIECES = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\\",
        b"\\n",
        b"\t",
        b"\n",
        b"\r\n",
        b" ",
        b'"',
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"/",
    ),
    *(
        b"-",
        b"*",
        b"!",
        b"0",
        b"-1",
        b"1e999",
        b"9" * 40,
        "²".encode(),
        "٣".encode(),
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
    ),
    *(
        b"NaN",
        b"\\ud800",
        "\ufeff".encode(),
        "\u202e".encode(),
        b"a" * 300,
        b"[" * 2000,
        b'{"a":' * 500,
        b"=",
        b"$",
        b"(",
        b")",
    ),
)
"""What is put into a text: what formats are made of, and what has broken parsers before."""


HOW: tuple[Status | Literal["gone"], ...] = (
    *("ok", "ok", "ok", "ok", "denied", "absent", "timeout", "truncated", "gone"),
)
"""What becomes of a record; most often it can be read, and holds something else."""


class Damage(NamedTuple):
    """What was done to one record: another status, or other bytes (None: the record is gone)."""

    name: str
    status: Status
    data: bytes | None


@st.composite
def damages(draw: st.DrawFn, base: str) -> list[Damage]:
    """Draw what is done to one to three records of a base: their own bytes with pieces put in, out or doubled, or noise."""
    records = BASES[base].records
    found = []
    for name in draw(st.lists(st.sampled_from(sorted(records)), min_size=1, max_size=3, unique=True)):
        how = draw(st.sampled_from(HOW))
        data = records[name].data
        if how == "gone":
            found.append(Damage(name, "ok", None))
            continue
        if how not in {"ok", "truncated"}:
            found.append(Damage(name, how, b""))
            continue
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(data)))
            end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 8, 60))))
            data = data[:start] + draw(st.sampled_from((b"", *PIECES, data[start : start + 40] * 2))) + data[end:]
        found.append(Damage(name, how, draw(st.binary(max_size=200)) if draw(st.integers(0, 5)) == 0 else data))
    return found


hosts = st.sampled_from(sorted(BASES)).flatmap(lambda base: st.tuples(st.just(base), damages(base)))


def damaged(host: tuple[str, list[Damage]]) -> Snapshot:
    """Build the snapshot."""
    base, found = host
    records = dict(BASES[base].records)
    for one in found:
        if one.data is None:
            del records[one.name]
        else:
            records[one.name] = replace(records[one.name], status=one.status, data=one.data, why=one.status)
    return replace(BASES[base], records=records)


@QUICK
@given(hosts)
def test_facts_raise_nothing_but_evidence_missing(host: tuple[str, list[Damage]]) -> None:
    """Each fact is made, or its evidence is missing."""
    facts = Facts(REGISTRY, damaged(host))
    reasons = []
    for wanted in REGISTRY.facts:
        try:
            facts.get(wanted)
        except EvidenceMissing as missing:
            reasons += [missing.area, missing.why]
    assert all(reasons), "what is missing has a name, and a reason"


ADDRESSES = (b"10.7.0.2", b"10.7.0.1", b"172.17.0.1", b"198.51.100.2", b"198.51.100.1", b"10.7.0.0/24", b"0.0.0.0")
"""Addresses of the base: of containers, bridges, the host, a nameserver, a network, a published port."""

OTHERS = (b"10.7.0.999", "«»".encode(), b"", b"fe80::1%eth0", b"1/2/3")
"""What is no address, or not of its kind."""


@pytest.mark.parametrize("address", ADDRESSES, ids=bytes.decode)
@pytest.mark.parametrize(
    "other", [OTHERS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS[1:])], ids=repr
)
def test_an_address_that_is_none_stops_no_check(address: bytes, other: bytes) -> None:
    """What stands in the place of an address, in any one record, is no address, or not where it belongs."""
    base = BASES["healthy-28"]
    for record in base.records.values():
        if address not in record.data:
            continue
        changed = replace(record, data=record.data.replace(address, other))
        facts = Facts(REGISTRY, replace(base, records=base.records | {record.name: changed}))
        assert examine(facts, REGISTRY, REGISTRY.checks.values()).faults == (), record.name


@QUICK
@given(hosts)
def test_no_check_fails_for_its_evidence(host: tuple[str, list[Damage]]) -> None:
    """No check raises, every citation leads into the snapshot, and what is found can be written as JSON."""
    snapshot = damaged(host)
    done = examine(Facts(REGISTRY, snapshot), REGISTRY, REGISTRY.checks.values())
    assert done.faults == ()
    for one in done.findings:
        for cited in one.evidence:
            held = snapshot.records.get(cited.record)
            assert cited.line == 0 or (held is not None and cited.line <= held.text.count("\n") + 1)
    msgspec.json.encode((done, diagnose(done.findings, REGISTRY)))
