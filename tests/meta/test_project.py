"""Documents say what is so, and nothing in the project depends on the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import typer

from doctor import __version__, cli
from doctor import help as pages
from tests.meta.repository import ROOT, commands, texts

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group
PARAMETERS = {
    name: [one for each in (command, *getattr(command, "commands", {}).values()) for one in each.params]
    for name, command in COMMANDS.items()
}
"""Of a group of commands, those of all of them: they have one page."""
OPTIONS = {
    name: {option for parameter in PARAMETERS[name] for option in (*parameter.opts, *parameter.secondary_opts)}
    | {"--help"}
    for name in COMMANDS
}
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/limits.md")


def run(*argv: str) -> None:
    """Run a tool of the project; what it printed is the message when it fails."""
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_contracts() -> None:
    """Modules import only what stands below them; the judging ones neither do I/O nor know a clock."""
    run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache")


def test_generated_documents_are_fresh() -> None:
    """`make docs` would change nothing."""
    run(sys.executable, "-m", "tools.docs", "--check")


def test_nothing_names_a_registry_or_this_machine() -> None:
    """Packages come from wherever the machine is told to take them; no path is one of a certain workplace."""
    names = "pypi. pythonhosted. deb.debian. security.debian. npmjs. proxy.golang."
    hosts = [f"{name}org" for name in names.split()]
    wrong = re.compile(rf"{'|'.join(map(re.escape, hosts))}|(?<![\w.}}-])/" + r"work/(main|shared|\.)", re.IGNORECASE)
    assert [f"{name}: {found[0]}" for name, text in texts() if (found := wrong.search(text))] == []


def test_version_stands_in_one_place() -> None:
    """doctor/__init__.py has the version; the project's metadata take it from there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "doctor/__init__.py"
    places = [name for name, text in texts() if re.search(r"^__version__\s*=", text, re.MULTILINE)]
    assert places == ["doctor/__init__.py"]
    said = [name for name in ("pyproject.toml", "Makefile", "doctor/help.py") if __version__ in read(name)]
    assert said == []


def read(name: str) -> str:
    """Give the text of a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_help_names_commands_that_exist() -> None:
    """`doctor --help` names every command and no other."""
    assert set(re.findall(r"^  doctor ([a-z]+)", pages.TOP, re.MULTILINE)) == set(COMMANDS)


HANDED_ON = {"runtime"}
"""Commands whose words are read by themselves: most are docker's, and so are their options."""


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - HANDED_ON))
def test_help_of_a_command_names_its_options(name: str) -> None:
    """The page of a command names its options, each at least by one spelling, and no other."""
    page = pages.wanted([name, "--help"])
    own = re.sub(r"(ip6?tables-restore) --\w+", r"\1", page)  # the other half of a pipe
    named = set(re.findall(r"(?<![\w-])(--?[a-z][a-z0-9-]*)", own))
    assert named - OPTIONS[name] == set()
    options = [parameter for parameter in PARAMETERS[name] if parameter.param_type_name == "option"]
    silent = [one.opts for one in options if not named.intersection((*one.opts, *one.secondary_opts))]
    assert [opts for opts in silent if opts != ["--help"]] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_commands_that_exist(document: str) -> None:
    """Each command in a block of a document can be typed: the script, the target, the command and its options exist."""
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for words in commands(read(document)):
        program, first, *rest = words.split()
        if program == "sh":
            assert (ROOT / first).is_file(), words
        elif program == "make":
            assert first in targets, words
        elif program == "doctor":
            assert first in COMMANDS or first in {"--help", "--version"}, words
            if first in HANDED_ON:
                continue
            options = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
            assert options <= OPTIONS.get(first, set()), words


def test_readme_commands_are_there() -> None:
    """The two commands of the README, and what CI runs: the second of them."""
    found = commands(read("README.md"))
    assert {"sh tools/run.sh", "sh tools/test.sh"} <= set(found)
    assert "sh tools/test.sh" in read(".ci/run")


def test_make_help_lists_every_target() -> None:
    """Each target has its line in `make help`, but for the one that others need."""
    text = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert targets - set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == {"dev"}


def test_links_in_documents_lead_somewhere() -> None:
    """Each relative link of a document names a file of the project; the picture is made by hand."""
    for name, text in texts():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
                if "://" not in target:
                    assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_the_report_in_the_readme_is_what_is_printed() -> None:
    """Word for word, but for the time that it took."""
    shown = read("README.md").partition("<!-- report -->\n```text\n$ doctor check --example forwarding-off\n")[2]
    argv = [sys.executable, "-m", "doctor", "check", "--example", "forwarding-off"]
    printed = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
    lines = [
        [re.sub(r" checks in .*", "", line) for line in text.splitlines()]
        for text in (shown.partition("```")[0], printed)
    ]
    assert lines[0] == lines[1]
