"""Every case file is one test: the checks on its mini-snapshot say what the file says they must."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from doctor.assess import assess
from doctor.model import Report, Reported, Result, Severity
from doctor.registry import load as load_registry
from doctor.reports.words import step_lines
from tests.cases import casefile
from tests.cases.casefile import CaseError, Expect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.snapshot import Snapshot

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*[0-9][0-9][0-9]/*.toml"))
BASES = sorted(path.stem for path in (HERE / "base").glob("*.toml"))
REGISTRY = load_registry(plugins=False)


FIRST = frozenset({path.parent: path for path in reversed(FILES)}.values())
"""Of each code a case that fires."""


def shown(path: Path) -> str:
    """Name a case as `-k` finds it."""
    return f"{path.parent.name}/{path.stem}"


def judge(snapshot: Snapshot, *codes: str) -> Report:
    """Run these checks, or every one. What must hold of any snapshot: no fault of doctor, and citations that lead there."""
    report = assess(snapshot, REGISTRY, [REGISTRY.checks[code] for code in codes or REGISTRY.checks])
    assert report.faults == ()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    for one in report.findings:
        for cited in one.evidence:
            lines = snapshot.records[cited.record].text.count("\n") + 1
            assert 0 <= cited.line <= lines, f"{one.code} cites line {cited.line} of {cited.record}, which has {lines}"
            assert cited.place, one.code
            assert cited.excerpt, one.code
    return report


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_case(path: Path, request: pytest.FixtureRequest) -> None:
    """The outcome of the case's check is the one expected, and so is what it says; the sentence is the file's first line."""
    case = casefile.load(path)
    if case.expect.broken:
        request.node.add_marker(pytest.mark.xfail(reason=case.expect.broken, strict=True))
    report = judge(case.snapshot, case.code)
    wanted = case.expect
    mine, outcome = report.findings, report.outcomes[0]
    said = "; ".join(one.message for one in mine) or outcome.reason
    assert outcome.outcome == wanted.outcome, f"{case.says} Said: {said}"
    assert wanted.reason in outcome.reason
    assert sorted(one.subject for one in mine) == sorted(wanted.subjects), said
    if mine:
        _check_findings(mine, wanted)
    if wanted.unsettled is not None:
        assert report.unsettled == wanted.unsettled


@pytest.mark.parametrize(
    "path", [one if one in FIRST else pytest.param(one, marks=pytest.mark.slow) for one in FILES], ids=shown
)
def test_what_all_others_say(path: Path) -> None:
    """On the host of a case no check fails, those that must be silent are, and the cause is named first.

    `make check` asks this of the FIRST only; a whole run, and `pytest tests/cases -k CODE`, of every case.
    """
    case = casefile.load(path)
    wanted = case.expect
    report = judge(case.snapshot)
    if wanted.root:
        first = report.diagnoses[0]
        assert first.code == wanted.root
        explained = {one.code for one in report.findings if one.id in first.consequences}
        assert explained == set(wanted.explains)
    quiet = {one.code for one in report.outcomes if one.outcome is not Result.FAIL}
    others = {one.code for one in report.findings if one.severity is not Severity.INFO} - {case.code}
    assert others >= set(wanted.beside)
    others -= set(wanted.beside)
    loud = (others if wanted.silent == "all others" else set(wanted.silent)) - quiet
    assert not loud, [f"{one.code}: {one.message}" for one in report.findings if one.code in loud]


def _check_findings(mine: Sequence[Reported], wanted: Expect) -> None:
    """Compare what the findings say; a text may stand in any of them."""
    if wanted.severity:
        assert {one.severity.value for one in mine} == {wanted.severity}
    _stands_in(wanted.title, [one.title for one in mine])
    _stands_in(wanted.message, [one.message for one in mine])
    _stands_in(wanted.hits, [f"{effect.text} {' '.join(effect.names)}" for one in mine for effect in one.hits])
    _stands_in(wanted.works, [f"{effect.text} {' '.join(effect.names)}" for one in mine for effect in one.works])
    _stands_in(wanted.cure, [line for one in mine for step in one.remedy.steps for line in step_lines(step)])
    _stands_in(wanted.for_good, [line for one in mine for step in one.remedy.for_good for line in step_lines(step)])
    places = {cited.place for one in mine for cited in one.evidence}
    assert set(wanted.cites) <= places
    if wanted.risk:
        assert {one.remedy.risk for one in mine} == {wanted.risk}
    if wanted.stops is not None:
        assert {name for one in mine for name in one.remedy.stops} == set(wanted.stops)


def _stands_in(part: str, texts: list[str]) -> None:
    assert not part or any(part in text for text in texts), f"{part!r} stands in none of {texts}"


@pytest.mark.parametrize("name", BASES)
def test_base_is_healthy(name: str) -> None:
    """On a healthy host nothing is worse than a note, and no evidence lacks; of a dead daemon only that is said."""
    dead = not name.startswith("healthy-")
    report = judge(casefile.base(name))
    worse = [one.code for one in report.findings if one.severity is not Severity.INFO]
    assert worse == (["DMN016"] if dead else [])
    assert [(one.code, one.reason) for one in report.outcomes if one.outcome is Result.UNKNOWN and not dead] == []
    assert report.unsettled == ()


@pytest.mark.parametrize("code", sorted(REGISTRY.checks))
def test_every_code_has_its_trio(code: str) -> None:
    """Each check has at least one case that fires, one that is silent and one that lacks evidence."""
    kinds = {path.stem.partition("-")[0] for path in FILES if path.parent.name == code}
    assert kinds == {"fires", "silent", "unknown"}


WRONG = {
    "no sentence": ('[expect]\noutcome = "pass"\n', "no sentence"),
    "no expectation": ("# Nothing is expected.\n", "expects nothing"),
    "unknown key": ('# A key is misspelt.\nbases = "x"\n', "bases"),
    "name and outcome": ('# Silent, and fails.\n[expect]\noutcome = "fail"\n', "cannot expect fail"),
    "edit of nothing": (
        '# An edit that changes nothing.\n[[edit]]\nrecord = "engine/places"\nreplace = "NO"\n[expect]\noutcome = "pass"\n',
        "stands there 0 times",
    ),
    "edit of no record": (
        '# An edit of what is not there.\n[[edit]]\nrecord = "api/pong"\nappend = "x"\n[expect]\noutcome = "pass"\n',
        "no record api/pong",
    ),
    "removes nothing": (
        '# Removes nothing.\nremove = ["api/pong"]\n[expect]\noutcome = "pass"\n',
        "no record api/pong",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_case_is_refused(kind: str, tmp_path: Path) -> None:
    """A case file that does not say what it means is an error, never a test that passes."""
    text, words = WRONG[kind]
    path = tmp_path / "silent-x.toml"
    path.write_text(text)
    with pytest.raises(CaseError, match=words):
        casefile.load(path)


def test_an_edit_reaches_the_copies(tmp_path: Path) -> None:
    """The last list of containers follows an edit of the first, unless it is edited itself."""
    head = '# Copies.\nbase = "healthy-28"\n[expect]\noutcome = "pass"\n'
    edit = '[[edit]]\nrecord = "api/containers"\nreplace = "/web"\nwith = "/www"\n'
    path = tmp_path / "silent-x.toml"
    path.write_text(head + edit)
    snapshot = casefile.load(path).snapshot
    assert snapshot.records["api/containers-last"].data == snapshot.records["api/containers"].data
    path.write_text(head + edit.replace("containers", "containers-last"))
    snapshot = casefile.load(path).snapshot
    assert "/www" in snapshot.records["api/containers-last"].text
    assert "/www" not in snapshot.records["api/containers"].text
