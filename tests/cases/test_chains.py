"""Hosts with several faults at once: each chain file names the causes, what each explains, and the order of the cures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases.casefile import CaseError, Cause, load_chain
from tests.cases.test_cases import judge

FILES = sorted((Path(__file__).parent / "chains").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_chain(path: Path) -> None:
    """The causes are these, in this order; the sentence is the file's first line."""
    says = path.read_text(encoding="utf-8").partition("\n")[0]
    assert says.startswith("# ")
    snapshot, wanted = load_chain(path)
    report = judge(snapshot)
    codes = {one.id: one.code for one in report.findings}
    since = {
        one.code: " ".join(moment.what for moment in (one.since.earliest, one.since.latest) if moment)
        for one in report.diagnoses
        if one.since
    }
    found = tuple(
        Cause(
            one.code,
            tuple(sorted({codes[other] for other in one.consequences})),
            tuple(sorted({other.rival for other in one.excluded if other.rival})),
            one.cure_after,
            next((cause.since for cause in wanted if cause.since and cause.since in since.get(one.code, "")), ""),
        )
        for one in report.diagnoses
    )
    assert found == wanted, says


def test_a_chain_is_of_one_base(tmp_path: Path) -> None:
    """Cases of two engines make no host."""
    path = tmp_path / "two.toml"
    path.write_text('of = ["NET012/fires-off-the-bridge", "NET012/fires-on-another-bridge"]\ncause = []\n')
    with pytest.raises(CaseError, match="cases of one base"):
        load_chain(path)
