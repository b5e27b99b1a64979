"""Every error that a case has: whoever it names is told of it, by name, and no packet is explained twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from doctor.assess import assess
from doctor.model import Severity
from tests.cases import casefile
from tests.cases.test_cases import FILES, FIRST, shown
from tests.why.hosts import REGISTRY, why

if TYPE_CHECKING:
    from pathlib import Path

CASES = [path for path in FILES if path.stem.startswith("fires")]
UNSEEN = frozenset({"MARTIAN_LOCALNET"})
"""The bases of cases have no local table for the loopback device: what a packet to 127.0.0.1 meets there is no model's."""


@pytest.mark.parametrize(
    "path", [one if one in FIRST else pytest.param(one, marks=pytest.mark.slow) for one in CASES], ids=shown
)
def test_who_is_named_is_told(path: Path) -> None:
    """By subject or hits; and where its packets are stopped, that finding is why."""
    snapshot = casefile.load(path).snapshot
    found = assess(snapshot, REGISTRY, [REGISTRY.checks[path.parent.name]]).findings
    for finding in found:
        if finding.severity is not Severity.ERROR or finding.code.startswith("SEC"):
            continue
        said = " ".join((finding.subject, *(text for one in finding.hits for text in (one.text, *one.names))))
        for name in {"web", "api", "db", "job"} & set(re.split(r"[\s,:()]+", said)):
            answer, code = why(snapshot, REGISTRY, name)
            assert finding.id in {one.id for one in answer.findings}, (name, answer.answer)
            assert code == 1
            also = {"DOCKER_USER_DROP"} if finding.code == "NET067" else set()  # its cure opens no port
            assert {one.code for one in answer.stopped} <= UNSEEN | also, (name, answer.answer)
