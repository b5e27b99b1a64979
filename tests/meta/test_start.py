"""What a start imports: the time to the first line is a promise, and imports are most of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.meta.repository import ROOT

HEAVY = {"asyncio", "jinja2", "psutil", "pyroute2", "rich", "scapy"}
EXAMPLE = ("check", "--example", "forwarding-off")


def imported(*arguments: str) -> set[str]:
    """Run doctor; give the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "doctor", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in {0, 1, 3}, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_version_imports_next_to_nothing() -> None:
    """`--version` is answered before anything that takes time is imported."""
    found = imported("--version")
    assert "doctor" in found
    assert found & (HEAVY | {"typer", "msgspec", "json", "inspect", "importlib_metadata"}) == set()


def test_check_alone_imports_no_parser() -> None:
    """`doctor check` has nothing to parse: a parser would take a tenth of a run to import."""
    assert imported("check") & (HEAVY | {"typer", "subprocess"}) == set()


@pytest.mark.parametrize(
    "arguments",
    [EXAMPLE, (*EXAMPLE, "--format", "json"), (*EXAMPLE, "--format", "short"), ("explain", "NET034"), ("explain",)],
    ids=" ".join,
)
def test_reading_a_bundle_imports_no_heavy_library(arguments: tuple[str, ...]) -> None:
    """Neither packets nor netlink, templates, processes nor terminals are needed to judge a bundle or print a page."""
    assert imported(*arguments) & HEAVY == set()
