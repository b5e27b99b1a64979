"""A run that skips more than it may fails: a green CI must not hide what it did not test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.meta.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 0, "1 skipped"),
        (("--expected-skips", "1"), 0, "1 skipped"),
        (("--expected-skips", "0"), 1, "0 were expected"),
    ],
)
def test_number_of_skips(tmp_path: Path, options: tuple[str, ...], code: int, words: str) -> None:
    """The exit code follows the number expected, and the closing line stays the last."""
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\n@pytest.mark.skip(reason='x')\ndef test_one(): ...\ndef test_two(): ...\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            *options,
            str(tmp_path),
        ],
        cwd=ROOT,
        env={**os.environ, "CI": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert words in done.stdout
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]
