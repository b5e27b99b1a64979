"""Begin a check: its function with every heading, its three cases. All of it fails until it is filled.

Run as `make new-check CODE=NET099 NAME=some-name MODULE=bridges [SEVERITY=warning]`; CONTRIBUTING.md goes on from there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from doctor.checks import MODULES
from doctor.model import Severity
from doctor.registry import AREAS, HEADINGS, load

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ROOT / "doctor" / "checks"
CASES = ROOT / "tests" / "cases"
OPEN = "To be written"
"""Stands wherever something has to be filled; tests/meta finds it."""

IMPORTS = """\
from collections.abc import Iterator

from doctor.facts.daemon import Daemon
from doctor.model import NotApplicable, Severity, Yield
from doctor.registry import check
"""

FUNCTION = '''

@check("{code}", Severity.{severity})
def {function}(daemon: Daemon) -> Iterator[Yield]:
    """{open}: what is wrong, in one sentence.

{headings}
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    yield NotApplicable("{open}: one Finding for each subject that it is true of")
'''

PAGE = {
    "What it is": "the state of the host that this finding means, and how it should be.",
    "What you see": "symptoms, and error messages word for word.",
    "By hand": "ip link",
    "Cure": "what heals, what that stops, and how it is made to last.",
    "Looks like": "NET034 (why it is not that one)",
    "Limits": "what is not judged, and where this may err.",
    "References": "a man page, a file of moby, an issue.",
}

FIRES = """\
# {open}: in a sentence, what is wrong on this host and what must be said.
base = "healthy-28"

# What is different here. Remove what you do not need.
[[edit]]
record = "engine/daemon.json"
append = "\\n"

[expect]
outcome = "fail"
subjects = ["{open}"]
"""

SILENT = """\
# {open}: in a sentence, what looks alike and is well.
base = "healthy-28"

[expect]
outcome = "pass"
"""

UNKNOWN = """\
# {open}: in a sentence, which evidence is missing here.
base = "healthy-28"

[[record]]
name = "engine/daemon.json"
status = "denied"
why = "permission denied"

[expect]
outcome = "unknown"
reason = "{open}"
"""


class RefusedError(Exception):
    """What was asked for cannot be made; one line."""


def main(arguments: list[str]) -> int:
    """Write the files; give 2 when it is refused."""
    try:
        code, name, module, severity = _wanted(arguments)
    except RefusedError as error:
        print(f"new-check: {error}", file=sys.stderr)
        return 2
    path = CHECKS / f"{module}.py"
    if module not in MODULES:
        path.write_text(f'"""{OPEN}: the question that the checks of this module ask."""\n', encoding="utf-8")
        _list(module)
    _append(path, code, name, severity)
    for kind, text in (("fires", FIRES), ("silent", SILENT), ("unknown", UNKNOWN)):
        case = CASES / code / f"{kind}.toml"
        case.parent.mkdir(exist_ok=True)
        case.write_text(text.replace("{open}", OPEN), encoding="utf-8")
    print(f"doctor/checks/{module}.py      the check, at its end")
    print(f"tests/cases/{code}/            fires.toml, silent.toml, unknown.toml")
    print(f"Fill whatever says {OPEN!r}, then: make docs, make check. CONTRIBUTING.md has an example.")
    return 0


def _wanted(arguments: list[str]) -> tuple[str, str, str, Severity]:
    """Read the four words. Raises RefusedError."""
    if len(arguments) != 4 or not all(arguments):  # noqa: PLR2004 - the words of the usage
        raise RefusedError("make new-check CODE=NET099 NAME=some-name MODULE=bridges [SEVERITY=warning]")
    code, name, module, severity = arguments
    known = load(plugins=False).checks
    if not re.fullmatch(r"[A-Z]{3}[0-9]{3}", code) or code[:3] not in AREAS:
        raise RefusedError(f"{code}: a code is one of {' '.join(AREAS)} and three digits")
    if code in known:
        raise RefusedError(f"{code} exists: {known[code].name}, in {known[code].run.__module__}")
    if (CASES / code).exists():
        raise RefusedError(f"tests/cases/{code} exists")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RefusedError(f"{name}: a name is lower case words with dashes between")
    if any(check.name == name for check in known.values()):
        raise RefusedError(f"{name} is the name of another check")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module):
        raise RefusedError(f"{module}: a module is lower case letters, digits and underscores")
    if severity not in set(Severity):
        raise RefusedError(f"{severity}: is none of {', '.join(Severity)}")
    return code, name, module, Severity(severity)


def _list(module: str) -> None:
    """Add a module to the sorted tuple."""
    path = CHECKS / "__init__.py"
    names = "".join(f'    "{name}",\n' for name in sorted({*MODULES, module}))
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"MODULES = \(.*?\n\)", f"MODULES = (\n{names})", text, flags=re.DOTALL), encoding="utf-8")


def _append(path: Path, code: str, name: str, severity: Severity) -> None:
    """Add the imports and the function to a module; ruff merges the imports and removes what stands there twice."""
    headings = "\n".join(
        f"    ## {heading}\n    {PAGE[heading] if heading == 'By hand' else f'{OPEN}: {PAGE[heading]}'}"
        for heading in HEADINGS
    )
    function = FUNCTION.format(
        code=code, severity=severity.name, function=name.replace("-", "_"), headings=headings, open=OPEN
    )
    future = "from __future__ import annotations\n"
    text = path.read_text(encoding="utf-8")
    if future not in text:
        text += f"\n{future}"
    text = text.replace(future, f"{future}\n{IMPORTS}", 1) + function
    path.write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--quiet", "--fix", "--select", "I", str(path)], check=True)
    subprocess.run([*ruff, "format", "--quiet", str(path)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
