"""Hosts of public issues, rebuilt on live engines: their owners are told what it was, and nothing else."""

from __future__ import annotations

import json

import pytest

from tests.engine.reported import REPORTED, Reported
from tests.enginehost import EngineHost


@pytest.mark.sampled("row")
@pytest.mark.parametrize("row", REPORTED, ids=lambda row: row.name)
def test_owner_is_told(row: Reported, suite: str) -> None:
    """The causes are the row's, and the text of the report has the words that its owner needs."""
    with EngineHost.up(suite=suite, daemon_args=row.daemon_args) as host:
        row.make(host)
        found = json.loads(host.doctor("check", "--format", "json").stdout)
        assert tuple(one["code"] for one in found["diagnoses"]) == row.codes
        text = host.doctor("check", "-v").stdout
        assert [words for words in row.says if words not in text] == []


def test_rows_cite_an_issue() -> None:
    """Each row says where it was reported, by names that are unique."""
    assert all(one.issue.startswith("https://github.com/") for one in REPORTED)
    assert len({one.name for one in REPORTED}) == len(REPORTED)
