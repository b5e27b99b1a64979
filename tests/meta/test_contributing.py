"""The guide to adding a check works as it is written: it is followed here, word for word, in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.meta.repository import ROOT, files

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"<!-- (file|before|after): (\S+)(?: ([^\n]*?))? -->\n```\w+\n(.*?)```", re.DOTALL)


def run(where: Path, *argv: str) -> None:
    """Run Python in the copy; what it printed is the message when it fails."""
    done = subprocess.run(
        [sys.executable, *argv], cwd=where, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(where)}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_guide_leads_to_a_check(tmp_path: Path) -> None:
    """After the last step the new check is linted, typed, documented, has its page and its proof, and its cases hold."""
    for path in files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if (ROOT / ".mypy_cache").is_dir():  # mypy compares files by their content, and takes the rest from here
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code, name, module, severity = re.findall(r"(?:CODE|NAME|MODULE|SEVERITY)=(\S+)", guide)[:4]

    run(tmp_path, "-m", "tools.new_check", code, name, module, severity)
    written = 0
    for how, target, anchor, text in BLOCK.findall(guide):
        path = tmp_path / target
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if how != "file":
            assert before.count(f"{anchor}\n") == 1, f"{target} has no line {anchor!r}"
        after = {"file": text, "before": f"{text}\n\n{anchor}\n", "after": f"{anchor}\n{text}"}[how]
        path.write_text(after if how == "file" else before.replace(f"{anchor}\n", after), encoding="utf-8")
        written += 1
    assert written == len(re.findall(r"^<!-- ", guide, re.MULTILINE))
    run(tmp_path, "-m", "tools.docs")

    touched = (f"doctor/checks/{module}.py", "doctor/checks/__init__.py", f"tests/engine/faults/{module}.py")
    run(tmp_path, "-m", "ruff", "format", "--check", "--quiet", *touched)
    run(tmp_path, "-m", "ruff", "check", "--quiet", *touched)
    run(tmp_path, "-m", "mypy", *touched[:2])
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(tmp_path, *pytest, "tests/cases", "-k", code)
    run(tmp_path, *pytest, "tests/meta/test_checks.py")
    run(tmp_path, *pytest, "tests/meta/test_project.py", "-k", "fresh")
