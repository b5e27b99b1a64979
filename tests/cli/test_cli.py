"""The command line: words that are wrong are told in one line with exit 2, and machine formats hold only themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest

from doctor.reports.json import schema
from doctor.reports.reach import schema as reach_schema
from doctor.reports.why import schema as why_schema
from tests.typed import typed

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = ("check", "--example", "forwarding-off")


def process(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run doctor as a user would, as a process of its own."""
    done = subprocess.run([sys.executable, "-m", "doctor", *args], check=False, capture_output=True, input=stdin)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("args", [EXAMPLE, ("check", "--only", "NET34"), ("why", "--help")], ids=" ".join)
def test_a_process_says_the_same(args: tuple[str, ...]) -> None:
    """What the other tests here have answered without a process is what one prints and leaves with."""
    done, here = process(*args), typed(*args)
    timed = re.compile(r"in [\d.]+ s\s+")  # and what is aligned behind it: on a busy machine the figure is longer
    assert (done.returncode, timed.sub("", done.stdout), done.stderr) == (
        here.returncode,
        timed.sub("", here.stdout),
        here.stderr,
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("check", "--only", "NET34"), "no such check: NET34. Did you mean NET034?"),
        (("check", "--only", "forwarding-of"), "no such check: forwarding-of. Did you mean forwarding-off?"),
        (("check", "--only", "NET030..DMN001"), "is no range of codes"),
        (("check", "--ignore", "NET034"), "give a reason"),
        (("check", "--ignore", "NET999=x"), "no such check: NET999"),
        (("check", "--ignore", "NET034=x,until=2026-02-30"), "is no date"),
        (("check", "--deadline", "soon"), "is no duration"),
        (("check", "--fail-on", "panic"), "is none of error, warning, info"),
        (("check", "--format", "pdf"), "is none of text, short, json, html"),
        (("check", "-o", "report.pdf"), "which format?"),
        (("check", "--example", "nothing"), "is none of forwarding-off"),
        (("check", "/nowhere/host.tar.gz"), "cannot read: no such file or directory"),
        (("check", "x.tar.gz", "--example", "forwarding-off"), "not both"),
        (("check", "--probe", "--example", "forwarding-off"), "asks from this host, not from a bundle or an example"),
        (("check", "--sample", "5s", "--example", "forwarding-off"), "not of a bundle or an example"),
        (("check", "--sample", "soon"), "--sample soon: is no duration"),
        (("check", "--sample", "1000"), "more than ten minutes"),
        (("collect",), "where to?"),
        (("explain", "NET03"), "no such check: NET03"),
        (("why", "web", "--example", "forwarding-off"), "Did you mean web1?"),
        (("why", ":9", "--example", "forwarding-off"), "no container publishes :9; published: :2525"),
        (("why", "web1", "--example", "forwarding-off", "--format", "html"), "--format html: text or json"),
        (("why", "web1", "--example", "forwarding-off", "--bundle", "x"), "not both"),
    ],
)
def test_usage(args: tuple[str, ...], words: str) -> None:
    """The message says what, where and what instead, in one line on stderr; exit 2."""
    done = typed(*args)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.startswith("doctor: ")
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_exit_codes() -> None:
    """1 for an error, 0 when it is ignored or not looked at, 3 when something is unknown."""
    assert typed(*EXAMPLE).returncode == 1
    assert typed(*EXAMPLE, "--skip", "NET034").returncode == 0
    assert typed(*EXAMPLE, "--ignore", "NET034:ipv4=known, see ticket 7").returncode == 0
    assert typed(*EXAMPLE, "--ignore", "NET034:other=known").returncode == 1
    assert typed("check", "--example", "daemon-stopped", "--skip", "DMN016").returncode == 3
    assert typed(*EXAMPLE, "--only", "NET", "--skip", "NET034").returncode == 0
    assert typed(*EXAMPLE, "--only", "NET010..NET034").returncode == 1


def test_why() -> None:
    """Exit 1 with a cause, 0 without; JSON is one object, text begins with the answer; a bundle is read like an example."""
    from doctor.examples import path

    bundle = ("--bundle", path("forwarding-off"))
    found = typed("why", ":8080", *bundle, "--format", "json")
    assert (found.returncode, found.stderr) == (1, "")
    answer = json.loads(found.stdout)
    jsonschema.validate(answer, why_schema())
    shown = typed("why", ":8080", *bundle)
    assert shown.returncode == 1
    assert shown.stdout.startswith(f"forwarding-off: {answer['answer']}"[:60])
    assert typed("why", ":5432", *bundle).returncode == 0
    cut = typed("why", "web1", "--example", "daemon-stopped", "--color", "always")
    assert cut.returncode == 1
    assert "\x1b[31mFAIL" in cut.stdout


def test_an_expired_ignore_is_told_and_not_applied() -> None:
    """Its date is past: the finding counts again, and a line says why."""
    done = typed(*EXAMPLE, "--ignore", "NET034=moved,until=2020-01-01")
    assert done.returncode == 1
    assert "expired on 2020-01-01" in done.stderr


def test_reach() -> None:
    """1 for a broken promise, 3 where something depends, 0 else; one row, one column; a name that is none is usage."""
    assert typed("reach", "--example", "forwarding-off").returncode == 1
    assert typed("reach", "--example", "rules-flushed").returncode == 3
    column = typed("reach", "--to", "db", "--example", "forwarding-off")
    assert column.returncode == 0
    assert "every promise" in column.stdout
    row = typed("reach", "web1", "--example", "forwarding-off", "--format", "json")
    found = json.loads(row.stdout)
    jsonschema.validate(found, reach_schema())
    assert {one["source"] for one in found["flows"]} == {"web1"}
    assert found["broken"] == 1
    page = typed("reach", "--example", "forwarding-off", "--format", "html")
    assert (page.returncode, page.stderr) == (1, "")
    assert "<svg" in page.stdout
    for args, words in ((("nobody",), "nobody: no container"), (("--format", "short"), "text, json or html")):
        done = typed("reach", *args, "--example", "forwarding-off")
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


def test_json_is_its_schema() -> None:
    """The report validates against the schema that is generated from the same structs."""
    done = typed(*EXAMPLE, "--format", "json")
    report = json.loads(done.stdout)
    jsonschema.validate(report, schema())
    ids = [one["id"] for one in report["findings"]]
    assert len(ids) == len(set(ids))
    assert report["diagnoses"][0]["root"] in ids
    assert not done.stderr


def test_formats_agree(tmp_path: Path) -> None:
    """Text, JSON and HTML of one run name the same causes."""
    files = [tmp_path / name for name in ("r.html", "r.json", "r.txt")]
    done = typed("check", "--example", "rules-flushed", *(word for file in files for word in ("-o", str(file))))
    assert done.returncode == 1
    codes = {one["code"] for one in json.loads(files[1].read_text(encoding="utf-8"))["diagnoses"]}
    assert codes == {"LAY002", "NET021"}
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert all(code in text for code in codes)
    assert files[2].read_text(encoding="utf-8").splitlines()[2:] == done.stdout.splitlines()[2:]


def test_a_report_that_cannot_be_written_is_on_stdout() -> None:
    """Exit 2, the path and the cause, and nothing lost."""
    done = typed(*EXAMPLE, "-o", "/nowhere/r.html")
    assert done.returncode == 2
    assert "/nowhere/r.html: cannot write: no such file or directory" in done.stderr
    assert "NET034" in done.stdout


def test_bundle_from_stdin() -> None:
    """`check -` reads the bundle from a pipe."""
    from doctor.examples import path

    with open(path("forwarding-off"), "rb") as bundle:  # noqa: PTH123 - bytes for a pipe
        done = process("check", "-", stdin=bundle.read())
    assert done.returncode == 1
    assert "NET034" in done.stdout


def test_cut_bundle_goes_on() -> None:
    """A bundle that is cut short is judged as far as it goes, and says so."""
    from doctor.examples import path

    with open(path("forwarding-off"), "rb") as bundle:  # noqa: PTH123 - bytes for a pipe
        data = bundle.read()
    done = process("check", "-", stdin=data[: len(data) * 2 // 3])
    assert done.returncode in {1, 3}
    assert "truncated after" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["", "check", "collect", "explain", "reach", "rules", "why"])
def test_help(command: str) -> None:
    """Every command has help that fits 80 columns, exit 0."""
    done = typed(*([command] if command else []), "--help")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_explain_lists_and_pages() -> None:
    """All codes by area, one area, one page by code or name."""
    assert "NET034  forwarding-off" in typed("explain").stdout
    assert "DMN" not in typed("explain", "NET").stdout
    assert typed("explain", "forwarding-off").stdout == typed("explain", "NET034").stdout
    assert all(len(line) <= 80 for line in typed("explain", "NET034").stdout.splitlines())
