"""What docs/runtime.md says can be typed is typed, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT

FAILS = {
    "doctor runtime run --rm -p 8080:80 busybox true": 125,
    """doctor runtime enter sh -c 'echo "{\\"icc\\": \\"no\\"}" > /etc/docker/daemon.json; service docker restart'""": 1,
}
"""What is there to be read: a port that is taken, a configuration that is refused."""


def commands() -> list[str]:
    """Give the lines of every block of shell."""
    text = (ROOT / "docs/runtime.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.root
def test_every_command_runs() -> None:
    """On a host of the test's own, since others may be up here; exit code 0 each."""
    name = f"doc{os.getpid()}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert len(commands()) > 8
    try:
        for typed in commands():
            line = typed.replace("doctor runtime", f"doctor runtime --host {name}")
            done = subprocess.run(
                ["sh", "-c", line], check=False, capture_output=True, text=True, env=os.environ | {"PATH": path}
            )
            assert done.returncode == FAILS.get(typed, 0), f"{line}\n{done.stdout}{done.stderr}"
    finally:
        subprocess.run(
            [sys.executable, "-m", "doctor", "runtime", "--host", name, "down"], check=False, capture_output=True
        )


def test_every_file_that_it_names_is_there() -> None:
    """Links to code lead to code."""
    text = (ROOT / "docs/runtime.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
