"""The files of the project, and the commands that its documents name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent


def files() -> list[Path]:
    """Give every file of the project: those that git knows or would add, else all but what is made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        skipped = {".venv", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        paths = [path for path in ROOT.rglob("*") if not skipped.intersection(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Give name and text of every file that is text."""
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data and not path.name.endswith(".gz"):
            yield str(path.relative_to(ROOT)), data.decode("utf-8", "replace")


def commands(document: str) -> list[str]:
    """Give the commands in the fenced blocks of a document; of a session, what stands behind the prompt."""
    found = []
    for block in re.findall(r"```(?:sh|console|text)?\n(.*?)```", document, re.DOTALL):
        for line in block.splitlines():
            words = re.sub(r"^\$ ", "", line).split("  ")[0].strip()
            if re.match(r"(doctor|make|sh|python3?) ", words):
                found.append(words)
    return found
