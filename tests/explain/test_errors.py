"""Errors as people paste them: the code that they mean comes first, and what no check knows is said to be unknown."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from doctor.exits import UsageError
from doctor.explain import MOST, explain
from doctor.phrases import find, phrases, pieces, words
from doctor.registry import Check, load, single
from tests.typed import typed

CHECKS = load(plugins=False).checks
ERRORS = tomllib.loads((Path(__file__).parent / "errors.toml").read_text(encoding="utf-8"))["error"]
KNOWN = [one for one in ERRORS if any(code in CHECKS for code in one["codes"])]
"""The rows of which a code exists; the others wait for theirs."""


def shown(one: dict[str, Any]) -> str:
    """Name a row by its first code and what is special in it."""
    return f"{one['codes'][0]}-{one['said'][-30:]}"


@pytest.mark.parametrize("one", KNOWN, ids=shown)
def test_the_code_comes_first(one: dict[str, Any]) -> None:
    """The first code is one of those that the message means; no more are named than a person reads."""
    found = [found.code for found in find(one["said"], CHECKS)]
    assert found
    assert found[0] in one["codes"]
    assert len(found) <= MOST


@pytest.mark.parametrize("one", KNOWN, ids=shown)
def test_as_a_log_prints_it(one: dict[str, Any]) -> None:
    """Upper case, the journal's prefix, logfmt's quotes and escapes, colours and other ids change nothing."""
    text = one["said"].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    log = f'Nov 24 08:00:00 host dockerd[812]: time="2026-11-24T08:00:00.1Z" level=error msg="{text}" id=0a1b2c3d4e5f'
    plain = find(one["said"], CHECKS)
    assert find(log, CHECKS)[0].code == plain[0].code
    assert find(f"\x1b[31m{one['said'].upper()}\x1b[0m", CHECKS)[0].code in one["codes"]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_page_is_found_by_its_own_quotes(check: Check) -> None:
    """What a page quotes, and what its check says, leads to it; and has at least two words to be found by."""
    for phrase in phrases(check):
        runs = pieces(phrase)
        assert sum(map(len, runs)) > 1, f"{phrase!r}: nothing to find it by"
        found = [one.code for one in find(phrase, CHECKS)]
        assert check.code in found[:MOST], f"{phrase!r} leads to {found}"


def test_rows_name_codes_and_sources() -> None:
    """Sixty rows and more, none twice, each with its codes and who said it."""
    assert len({one["said"] for one in ERRORS}) == len(ERRORS) >= 60
    assert all(one["codes"] and one["by"] for one in ERRORS)


@pytest.mark.parametrize(
    "text",
    [
        "hello world, all is well",
        "Error response from daemon: No such container: web",
        "container exited with code 0",
        "mkdir /srv: no such file or directory in the middle of a long line that is about something else",
    ],
)
def test_what_no_check_knows(text: str) -> None:
    """Nothing is guessed: it says so."""
    assert find(text, CHECKS) == []
    with pytest.raises(UsageError, match="no check knows this message"):
        explain(text)


def test_a_wrapper_is_no_reason() -> None:
    """A message that was cut off before its reason is told from an unknown one."""
    with pytest.raises(UsageError, match="not why"):
        explain("Error response from daemon: failed to set up container networking")


def test_a_code_in_the_text_is_the_answer() -> None:
    """A line of doctor's own report leads to its page."""
    assert explain("web cannot be reached, NET034 says my colleague").startswith("NET034 ")


def test_one_page_or_a_list() -> None:
    """A message of one code prints its page; of several, a list with the phrases and what tells them apart."""
    assert explain('Bind for 0.0.0.0:8080 failed: port is already allocated"').startswith("2 codes")
    assert '"Bind for ADDRESS failed: port is already allocated"' in explain(
        "Bind for 1.2.3.4:5 failed: port is already allocated"
    )
    assert explain("the following directives are specified both as a flag and in the configuration file").startswith(
        "DMN003 "
    )
    assert all(len(line) <= 80 for line in explain("port is already allocated").split("\n"))


def test_words_and_pieces() -> None:
    """Addresses, ids and numbers are no words; placeholders and docker's own paths are gaps."""
    assert words("Bind for [::]:8080 failed: 4f2c6c0e8f7a 12 x509") == ["bind", "for", "failed", "x509"]
    assert pieces("open /var/lib/docker/NAME: it is gone") == (("open",), ("it", "is", "gone"))
    assert words(r"a \"b\"\nc\td") == ["a", "b", "c", "d"]


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run doctor explain as a user would."""
    done = typed("explain", *arguments, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


def test_command_line() -> None:
    """Words without quotes, a pipe, an unknown code with the nearest one, control characters escaped, exit codes."""
    assert run("port", "is", "already", "allocated")[1].startswith("2 codes")
    assert run("iptables:", "No", "chain/target/match", "by", "that", "name")[0] == 0
    log = b'Nov 24 x dockerd[1]: level=fatal msg="invalid logging level: loud"\n\xff'
    assert run("-", stdin=log)[:2] == run("DMN005")[:2]
    code, out, error = run("NET99")
    assert (code, out) == (2, "")
    assert error.startswith("doctor: no such check: NET99. Did you mean NET0")
    code, out, error = run("\x1b]0;owned\x07 \u202e nothing known")
    assert (code, out) == (2, "")
    assert "\x1b" not in error
    assert "\u202e" not in error
    assert "\\x1b]0;owned" in error
    assert run("-")[0] == 2


@given(st.text(max_size=300))
@settings(max_examples=min(40, settings.default.max_examples))
def test_any_text_is_answered(text: str) -> None:
    """No text breaks it, and what it echoes is printable."""
    try:
        said = explain(text.strip("-"))
    except UsageError as error:
        said = str(error)
    assert all(char.isprintable() or char == "\n" for char in said)


def test_a_long_log_is_answered_soon() -> None:
    """A long log is read in a moment: its length is bounded, and its time is not its square."""
    text = "level=error msg=failed port is already in use bind for it\n" * 5_000 + "port is already allocated"
    assert {one.code for one in find(text, CHECKS)} >= {"NET037"}


def test_a_page_needs_no_module() -> None:
    """The page of a code is read from its source, and is that of the check, for every built-in code."""
    for code, check in load(plugins=False).checks.items():
        read = single(code)
        assert read is not None, code
        assert replace(read, run=check.run, written=check.written) == check
        assert (read.page, read.summary) == (check.page, check.summary)
    assert single("NET999") is None
    script = "import sys\nfrom doctor.explain import explain\nexplain('net034')\n"
    script += "print([one for one in sys.modules if one.startswith('doctor.checks.')])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
