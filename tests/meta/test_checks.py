"""Every check has its page, its cases and its proof; none is listed that is not there."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from doctor import checks
from doctor.registry import AREAS, HEADINGS, load, sections
from tests.meta.repository import ROOT, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS = load(plugins=False).checks
CASES = ROOT / "tests" / "cases"
CODE = re.compile(rf"(?:{'|'.join(AREAS)})\d\d\d")
LONGEST_PAGE, LONGEST_LINE = 25, 96


def test_page_has_every_heading_in_order() -> None:
    """The headings are those of every page, in the order of every page, with 1 to 4 lines each."""
    for check in CHECKS.values():
        found = sections(check.page)
        assert tuple(found) == HEADINGS, check.code
        lines = {heading: text.count("\n") + 1 if text else 0 for heading, text in found.items()}
        assert {heading: count for heading, count in lines.items() if not 1 <= count <= 4} == {}, check.code


def test_page_is_short() -> None:
    """A page fits on a screen, and its lines into a source file."""
    for check in CHECKS.values():
        lines = [line for line in check.page.split("\n") if line]
        assert len(lines) <= LONGEST_PAGE, check.code
        assert [line for line in lines if len(line) > LONGEST_LINE] == [], check.code


def test_summary_is_a_sentence() -> None:
    """The first line says what is wrong in one sentence, and stands alone."""
    for check in CHECKS.values():
        assert re.fullmatch(r"[A-Za-z].+[^.]\.", check.summary), check.code
        assert check.page.split("\n")[1] == "", check.code


def test_codes_on_a_page_are_codes() -> None:
    """What looks like a code is spelled as one, and is one that has a page; no check is its own rival."""
    for check in CHECKS.values():
        rivals = sections(check.page)["Looks like"]
        found = re.findall(r"\b[A-Z]{2,8}\d{2,4}\b", check.page)
        assert [word for word in (*found, *check.explains) if word not in CHECKS] == [], check.code
        assert check.code not in (*re.findall(CODE, rivals), *check.explains), check.code


def test_code_and_name() -> None:
    """The code is the catalogue's: letters of an area and three digits. The name is words with dashes."""
    for check in CHECKS.values():
        assert CODE.fullmatch(check.code), check.code
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", check.name), check.code


def test_codes_and_names_are_unique() -> None:
    """No code is given twice in the sources (a second one in the same module would replace the first), no name either."""
    codes = Counter(
        code
        for name, text in texts()
        if re.match(r"doctor/checks/\w+\.py", name)
        for code in re.findall(r'^@check\(\s*"(\w+)"', text, re.MULTILINE)
    )
    assert codes == Counter(CHECKS.keys())
    assert [name for name, count in Counter(one.name for one in CHECKS.values()).items() if count > 1] == []


def test_every_module_is_listed() -> None:
    """MODULES is sorted and complete: a check that nobody imports does not exist. `_x.py` is what some of them share."""
    assert list(checks.MODULES) == sorted(checks.MODULES)
    there = {path.stem for path in Path(checks.__file__).parent.glob("[!_]*.py")}
    assert set(checks.MODULES) == there


def test_nothing_is_left_to_be_written() -> None:
    """What `make new-check` wrote has been filled."""
    marker = "To be " + "written"
    left = [name for name, text in texts() if marker in text and name.startswith(("doctor/", "tests/cases/"))]
    assert left == []


def test_cases_are_of_checks_that_exist() -> None:
    """Each folder of cases is named by a code; that every code has its three is seen to in tests/cases."""
    folders = {path.name for path in CASES.iterdir() if re.fullmatch(r"[A-Z0-9]+", path.name)}
    assert folders - CHECKS.keys() == set()


def _proved() -> Iterator[str]:
    """Give the codes that tests on engines and in labs are marked to prove."""
    for folder in ("engine", "lab"):
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py")):
            module = importlib.import_module(f"tests.{folder}.{path.stem}")
            for held in vars(module).values():
                marks = getattr(held, "pytestmark", [])
                for mark in marks if isinstance(marks, list) else [marks]:
                    if mark.name == "proves":
                        yield from mark.args


def test_every_code_is_proved() -> None:
    """A test on live engines makes each code true and cures it, or unproved.toml says why not; that list only shrinks."""
    listed = tomllib.loads((Path(__file__).parent / "unproved.toml").read_text(encoding="utf-8"))
    proved = set(_proved())
    assert proved - CHECKS.keys() == set(), "proved, and no check"
    assert CHECKS.keys() - proved == set(listed["codes"])
    assert len(listed["codes"]) == listed["at_most"]
    assert all(reason.strip() for reason in listed["codes"].values())
