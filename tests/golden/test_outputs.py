"""Every output, from bundles of live engines: `make golden` rewrites the files, a reviewer reads the difference."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from doctor import evidence
from doctor import help as pages
from doctor.assess import assess
from doctor.bundle import read
from doctor.examples import HOSTS, path
from doctor.explain import explain
from doctor.model import Counts, Outcome, Report, Result
from doctor.places import Places
from doctor.reach import reach
from doctor.registry import load
from doctor.reports import json as json_report
from doctor.reports import text
from doctor.reports.reach import as_text as reach_text
from doctor.reports.why import as_json, as_text
from doctor.why import why
from tests.why import hosts

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.model import Why
    from doctor.snapshot import Snapshot

    Golden = Callable[[str, str], None]

REGISTRY = load(plugins=False)


@cache
def report(name: str) -> Report:
    """Judge an example, in a time that is as wide as most: on a busy machine a line would be filled up otherwise."""
    return replace(assess(read(path(name)), REGISTRY, REGISTRY.checks.values()), ms=250.0)


def shown(made: Report, style: text.Style, render: Any = text.render) -> str:
    """Render, with the time that the run took and doctor's version taken out.

    A time of another length would move what is aligned to the right: on a busy machine a run takes more than a second.
    """
    out = io.StringIO()
    render(replace(made, ms=250.0), out, style)
    return re.sub(
        r"\d+(\.\d+)? s\b(?=$|;| {2}| \()",
        "T s",
        re.sub(r"doctor \d+\.\d+\.\d+", "doctor V", out.getvalue()),
        flags=re.MULTILINE,
    )


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("80", text.Style(source="host.tar.gz")),
        ("200", text.Style(width=200)),
        ("verbose", text.Style(verbose=True)),
        ("colour", text.Style(colour=True)),
        ("quiet", text.Style(quiet=True)),
    ],
)
def test_text(golden: Golden, name: str, kind: str, style: text.Style) -> None:
    """The text report: at 80 and 200 columns, verbose, in colour, its last line."""
    golden(f"{name}/{kind}.txt", shown(report(name), style))


@pytest.mark.parametrize("name", HOSTS)
def test_short(golden: Golden, name: str) -> None:
    """The report for a chat."""
    golden(f"{name}/short.txt", shown(report(name), text.Style(), text.short))


@pytest.mark.parametrize("name", HOSTS)
def test_json(golden: Golden, name: str) -> None:
    """The contract, without what differs from run to run."""
    out = io.StringIO()
    json_report.render(report(name), out)

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: drop(held) for key, held in value.items() if key not in {"ms", "doctor"}}
        return [drop(held) for held in value] if isinstance(value, list) else value

    golden(f"{name}/report.json", json.dumps(drop(json.loads(out.getvalue())), indent=1) + "\n")


def test_plain_text_fits() -> None:
    """At 80 columns no line of ours is longer but commands, which are never cut, and lines of a configuration."""
    for name in HOSTS:
        for line in shown(report(name), text.Style()).splitlines()[1:]:
            assert len(line) <= 80 or line.startswith("          ")
            assert line.isascii()


def healthy(made: Report, *, unknown: int = 0) -> Report:
    """Make a report in which nothing was found, and some checks could not be judged."""
    outcomes = []
    for number, one in enumerate(made.outcomes):
        missing = number < unknown
        reason = (
            "API: /run/docker.sock is root:docker 0660, you are neither"
            if number % 2
            else "firewall: iptables-save and nft need root"
        )
        outcomes.append(
            Outcome(one.code, one.name, Result.UNKNOWN if missing else Result.PASS, reason if missing else "", 0.1)
        )
    total = len(outcomes)
    counts = Counts(total, total - unknown, 0, 0, 0, 2 if not unknown else 0, unknown, 0, 0, 0)
    host = made.host
    if unknown:
        host = replace(
            host,
            engine_state="unreadable",
            user="nobody",
            unreadable=("firewall", "store", "API"),
            firewall="",
            storage="",
        )
    return replace(made, outcomes=tuple(outcomes), findings=(), diagnoses=(), counts=counts, missing=(), host=host)


def test_healthy(golden: Golden) -> None:
    """A healthy host reads two lines."""
    out = shown(healthy(report("forwarding-off")), text.Style())
    assert len(out.splitlines()) == 2
    golden("healthy.txt", out)


def test_not_root(golden: Golden) -> None:
    """Unknowns by reason, and how to read all of it."""
    golden("not-root.txt", shown(healthy(report("forwarding-off"), unknown=7), text.Style()))


def test_unsettled(golden: Golden) -> None:
    """Containers that came or went are counted, and judged by nobody."""
    golden("unsettled.txt", shown(replace(healthy(report("forwarding-off")), unsettled=("a", "b")), text.Style()))


def test_no_docker(golden: Golden) -> None:
    """What is said where there is no engine, and what to type instead."""
    looked = (
        "dockerd (running; in PATH; snap; rootless)",
        "",
        "/run/docker.sock",
        "DOCKER_HOST (not set)",
        "contexts (none)",
        "/var/lib/docker",
    )
    places = Places(
        0, (), "", "/etc/docker/daemon.json", "/var/lib/docker", "/run/docker", "", "", "", looked, "", "podman"
    )
    golden("no-docker.txt", evidence._nothing_here(places))


def asked(word: str, held: Snapshot) -> Why:
    """Ask what is wrong with something, without what differs from run to run."""
    return replace(why(held, REGISTRY, word)[0], ms=1000.0, doctor="V")


@pytest.mark.parametrize("word", ["web1", ":8080", ":5432", "shop", "busybox:lab"])
@pytest.mark.parametrize("name", ["forwarding-off", "rules-flushed"])
def test_why(golden: Golden, name: str, word: str) -> None:
    """What is wrong with one thing: a container, a port, a network, an image."""
    golden(f"why/{name}-{word.strip(':').replace(':', '-')}.txt", as_text(asked(word, read(path(name)))))


def test_why_at_length(golden: Golden) -> None:
    """The same with -v, in colour, and as JSON."""
    held = read(path("forwarding-off"))
    golden("why/verbose.txt", as_text(asked("shop", held), text.Style(verbose=True)))
    golden("why/colour.txt", as_text(asked("web1", held), text.Style(colour=True, width=120)))
    golden("why/answer.json", as_json(asked(":8080", held)))


def test_why_of_a_rule_and_of_an_end(golden: Golden) -> None:
    """What no check names: the rule that decides, the state of a container; and one that is well."""
    rule = "-i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"
    golden("why/rule.txt", as_text(asked(":8080", hosts.user_rule(hosts.healthy(), rule))))
    golden("why/ended.txt", as_text(asked("db", hosts.down(hosts.healthy(), "db", ExitCode=137))))
    golden("why/well.txt", as_text(asked("web1", hosts.healthy())))
    golden("why/unknown.txt", as_text(asked("web1", hosts.missing(hosts.healthy(), "net/iptables-nft"))))


@pytest.mark.parametrize("name", HOSTS)
def test_reach(golden: Golden, name: str) -> None:
    """Who reaches whom."""
    golden(f"{name}/reach.txt", reach_text(reach(read(path(name)), REGISTRY)[0]))


@pytest.mark.parametrize("page", ["TOP", "CHECK", "COLLECT", "EXPLAIN", "REACH", "RUNTIME", "WHY"])
def test_help(golden: Golden, page: str) -> None:
    """The help of each command."""
    golden(f"help-{page.lower()}.txt", getattr(pages, page))


@pytest.mark.parametrize("subject", ["", "NET", "NET034"])
def test_explain(golden: Golden, subject: str) -> None:
    """The list of all codes, of an area, and one page."""
    golden(f"explain-{subject or 'all'}.txt", explain(subject))
