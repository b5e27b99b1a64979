"""Where the scenarios are that come with doctor, and which there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.exits import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.labs.scenario import Scenario

FOLDER = "scenarios"


def folder() -> Path:
    """Give the folder of the scenarios: of a checkout beside the package, of an installation inside it."""
    package = Path(__file__).parent
    beside = package.parent.parent / FOLDER
    return beside if (package.parent.parent / "pyproject.toml").exists() and beside.is_dir() else package / FOLDER


def files() -> list[Path]:
    """Give the scenario files by name; none where an installation has none."""
    return sorted(folder().glob("*.toml"))


def names() -> list[str]:
    """Give the names of all scenarios."""
    return [path.stem for path in files()]


def scenarios() -> Iterator[Scenario]:
    """Read all scenarios. Raises ScenarioError."""
    from doctor.labs.loading import load

    for path in files():
        yield load(path, shown(path))


def shown(path: Path) -> str:
    """Give what messages call a file: `scenarios/NAME.toml` for one of ours."""
    return f"{FOLDER}/{path.name}" if path.parent == folder() else str(path)


def scenario(word: str) -> Scenario:
    """Give the scenario of a name, or in a file (a path with a slash or .toml). Raises UsageError, ScenarioError."""
    from doctor.labs.loading import load

    if "/" in word or word.endswith(".toml"):
        return load(word)
    path = folder() / f"{word}.toml"
    if word not in names():
        import difflib

        near = difflib.get_close_matches(word, names(), 1)
        raise UsageError(f"no such scenario: {word}" + (f". Did you mean {near[0]}?" if near else "; doctor lab list"))
    return load(path, shown(path))


_ROOT = re.compile(rb'^root = "([A-Z]{3}\d{3})"', re.MULTILINE)
_CODES = re.compile(rb'^codes = \["([A-Z]{3}\d{3})"', re.MULTILINE)


def to_practise(code: str) -> list[str]:
    """Give the scenarios that are about a code, without reading more of them than this needs: for `doctor explain`."""
    found = []
    for path in files():
        data = path.read_bytes()
        about = _ROOT.search(data) or _CODES.search(data)
        if about is not None and about[1].decode() == code:
            found.append(path.stem)
    return found
