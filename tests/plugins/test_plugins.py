"""Third parties: a plugin brings a source, a fact and a check; one that is broken costs nobody else anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '''
from __future__ import annotations
from collections.abc import Iterator
from msgspec import Struct
from doctor.model import Citation, Finding, Note, Remedy, Severity, Yield
from doctor.registry import check, fact
from doctor.snapshot import Snapshot, need
from doctor.sources import Source

SOURCES = (Source(name="acme/os-release", kind="file", target="/etc/os-release", area="acme"),)

class Distribution(Struct, frozen=True):
    name: str

@fact
def distribution(snapshot: Snapshot) -> Distribution:
    record = need(snapshot, "files/etc/os-release", "acme")
    return Distribution(next(line[3:] for line in record.text.split("\\n") if line.startswith("ID=")))

@check("ACME001", Severity.WARNING)
def wrong_distribution(distribution: Distribution) -> Iterator[Yield]:
    """This host runs a distribution that Acme does not support."""
    yield Finding(
        "host", f"{distribution.name} is not supported", f"ID={distribution.name}",
        (Citation("files/etc/os-release", 1, distribution.name, "/etc/os-release"),), Remedy("ask Acme", (Note("ask"),)),
    )
'''
RAISES_AT_IMPORT = 'raise RuntimeError("broken at import")\n'
EXITS = "import sys\nsys.exit(7)\n"
RAISES = '''
from __future__ import annotations
from collections.abc import Iterator
from doctor import examine
from doctor.model import Severity, Yield
from doctor.registry import check
from doctor.snapshot import Snapshot

examine.SECONDS = 0.3  # what never ends would last for five seconds

@check("ACME002", Severity.ERROR)
def raises(snapshot: Snapshot) -> Iterator[Yield]:
    """Raises."""
    raise KeyError("no such thing")
    yield

@check("ACME003", Severity.ERROR)
def nonsense(snapshot: Snapshot) -> Iterator[Yield]:
    """Yields nonsense."""
    yield "hello"

@check("ACME004", Severity.ERROR)
def endless(snapshot: Snapshot) -> Iterator[Yield]:
    """Never ends."""
    from doctor.model import Unknown
    while True:
        yield Unknown("x", "never ends")
'''
TAKEN = '''
from __future__ import annotations
from collections.abc import Iterator
from doctor.model import Severity, Yield
from doctor.registry import check
from doctor.snapshot import Snapshot

@check("NET034", Severity.INFO)
def mine(snapshot: Snapshot) -> Iterator[Yield]:
    """Takes a code that is taken."""
    yield from ()
'''


def install(folder: Path, name: str, source: str, *, sources: bool = False) -> None:
    """Install a plugin as pip would: a module, and its entry points in a dist-info."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    points = f"[doctor.checks]\n{name} = {name}\n"
    if sources:
        points += f"[doctor.sources]\n{name} = {name}:SOURCES\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")


def run(folder: Path, *args: str) -> tuple[int, str, str]:
    """Run doctor with these plugins in its path."""
    done = subprocess.run(
        [sys.executable, "-m", "doctor", *args],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    return done.returncode, done.stdout, done.stderr


def report(folder: Path, *args: str) -> tuple[int, dict[str, Any]]:
    """Judge an example with these plugins; exit code and report."""
    code, out, err = run(folder, "check", "--example", "forwarding-off", "--format", "json", *args)
    assert not err
    return code, json.loads(out)


def test_a_plugin_brings_a_fact_and_a_check(tmp_path: Path) -> None:
    """Its check runs beside the built-in ones, is explained, and can be chosen."""
    install(tmp_path, "acme", GOOD, sources=True)
    code, found = report(tmp_path)
    assert code == 1
    worse = [one for one in found["findings"] if one["severity"] != "info" or one["code"] == "ACME001"]
    assert {one["code"] for one in worse} == {"NET034", "ACME001"}
    code, found = report(tmp_path, "--only", "ACME001", "--fail-on", "warning")
    assert (code, [one["title"] for one in found["findings"]]) == (1, ["debian is not supported"])
    assert run(tmp_path, "explain", "ACME001")[1].startswith("ACME001 wrong-distribution")


def test_a_plugin_brings_a_source(tmp_path: Path) -> None:
    """Its rows are part of the table that `collect` carries out."""
    install(tmp_path, "acme", GOOD, sources=True)
    script = "from doctor.registry import load; print([source.name for source in load().sources])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.strip() == "['acme/os-release']"


@pytest.mark.parametrize("source", [RAISES_AT_IMPORT, EXITS, TAKEN], ids=["raises", "exits", "takes-a-code"])
def test_a_plugin_that_does_not_load_is_a_line(tmp_path: Path, source: str) -> None:
    """It is named in the report, everything else has its result, and the exit code is that of the findings."""
    install(tmp_path, "broken", source)
    code, found = report(tmp_path)
    assert code == 1
    assert [one["code"] for one in found["diagnoses"]] == ["NET034"]
    assert len(found["faults"]) == 1
    assert "broken" in found["faults"][0]


def test_a_check_that_fails_is_an_error_outcome(tmp_path: Path) -> None:
    """One that raises, one that yields nonsense, one that never ends: outcomes `error`, and exit 4 when nothing failed."""
    install(tmp_path, "bad", RAISES)
    code, found = report(tmp_path)
    outcomes = {one["code"]: one["outcome"] for one in found["outcomes"]}
    assert code == 1
    assert {outcomes[code] for code in ("ACME002", "ACME003", "ACME004")} == {"error"}
    assert found["counts"]["broken"] == 3
    assert report(tmp_path, "--only", "ACME002")[0] == 4
