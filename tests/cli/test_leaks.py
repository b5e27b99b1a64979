"""The last look at what is written: a text in which a secret stands is not written, whoever let it through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor import options, writing
from doctor.assess import assess
from doctor.bundle import read
from doctor.evidence import Evidence
from doctor.examples import path
from doctor.exits import CLEAN, USAGE
from doctor.redact import Redactor
from doctor.reports.text import Style

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

STYLE = Style(width=80, colour=False)


def knows(secret: str) -> Redactor:
    """Give a redactor that has seen a secret."""
    redactor = Redactor()
    redactor.scrub(f'{{"Env":["DB_PASSWORD={secret}"]}}'.encode(), "inspect")
    return redactor


def test_a_report_with_a_secret_in_it_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as text nor as HTML nor as JSON; the clean file beside it is."""
    snapshot = read(path("forwarding-off"))
    registry = options.registry()
    report = assess(snapshot, registry, registry.checks.values())
    word = "net.ipv4.ip_forward=0-hunter22"
    report = replace(report, host=replace(report.host, hostname=word))
    found = Evidence(snapshot, "", knows(word))
    wanted = [("text", str(tmp_path / "a.txt")), ("html", str(tmp_path / "a.html")), ("json", str(tmp_path / "a.json"))]
    assert writing.reports(report, STYLE, wanted, found.leaks)
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert said.count("not written: ") == 3
    assert word not in said
    assert not writing.reports(report, STYLE, wanted)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_bundle_with_a_secret_in_it_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, no file, and the secret is not told either; without it the bundle is written."""
    snapshot = read(path("forwarding-off"))
    secret = "Kestrel-41-river"  # noqa: S105 - invented
    name, record = next(iter(snapshot.records.items()))
    leaking = {**snapshot.records, name: replace(record, why=f"said {secret}")}
    found = Evidence(replace(snapshot, records=leaking), "", knows(secret))
    target = tmp_path / "host.tar.gz"
    assert writing.bundle(found.snapshot, str(target), found.leaks) == USAGE
    assert not target.exists()
    assert secret not in capsys.readouterr().err
    assert writing.bundle(snapshot, str(target), found.leaks) in {CLEAN, 3}
    assert target.exists()
