"""Healthy hosts, however they are set up: no error, no warning, nothing that could not be judged."""

from __future__ import annotations

import base64
import json
import tempfile
from typing import Any
from unittest.mock import patch

import pytest

from doctor.assess import assess
from doctor.bundle import read
from doctor.examine import Facts
from doctor.packets.silence import DST_FROZEN
from doctor.registry import load
from doctor.subjects import Host
from doctor.why import why
from tests.engine.healthy import HEALTHY, Healthy
from tests.engine.healthy.table import ALWAYS_NOTED
from tests.enginehost import EngineHost

REGISTRY = load(plugins=False)
HOSTS: dict[str, list[Healthy]] = {}
for _one in HEALTHY:
    HOSTS.setdefault(_one.host, []).append(_one)


def report(host: EngineHost) -> dict[str, Any]:
    """Run `doctor check` as a user would, and give the report."""
    done = host.doctor("check", "--format", "json")
    assert not done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said(found: dict[str, Any]) -> dict[str, str]:
    """Give what is not allowed by itself: findings by id, and outcomes that are no judgement."""
    held = {one["id"]: f"{one['severity']} {one['code']} {one['message']}" for one in found["findings"]}
    for one in found["outcomes"]:
        if one["outcome"] in {"unknown", "error"}:
            held[one["code"]] = f"{one['outcome']} {one['code']} {one['reason']}"
    return held


def is_allowed(words: str, row: Healthy) -> bool:
    """Whether the row says that this may be said."""
    kind, code = words.split(" ")[:2]
    if kind == "info" and code in ALWAYS_NOTED:
        return True
    return code in {"info": row.notes, "warning": row.warns, "error": row.fails, "unknown": row.unknown}.get(kind, ())


def alarms(rows: list[Healthy], suite: str, *, each: bool) -> list[str]:
    """Set up the rows on one host. Give what doctor says without leave: after `each` row by its name, or at the end."""
    asked = rows[0]
    found: list[str] = []
    with EngineHost.up(
        suite=suite, daemon_json=asked.daemon_json, daemon_args=asked.daemon_args, files=asked.files
    ) as host:
        known = said(report(host)) if each else {}
        found += [f"nothing yet: {words}" for words in known.values() if not is_allowed(words, asked)]
        turn: list[Healthy] = []
        for row in rows:
            if row.engines and suite not in row.engines:
                continue
            row.make(host)
            turn.append(row)
            if not each and row is not rows[-1]:
                continue
            now = said(report(host))
            new = [words for key, words in now.items() if key not in known]
            found += [f"{row.name}: {words}" for words in new if not any(is_allowed(words, one) for one in turn)]
            known |= now
            turn = []
        if not each:
            found += complaints(host)
    return found


def complaints(host: EngineHost) -> list[str]:
    """Ask `doctor why` of everything that has a name: give what it finds wrong with what runs."""
    host.doctor("collect", "-o", "/tmp/host.tar.gz")
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(base64.b64decode(host.sh("base64 /tmp/host.tar.gz")))
        file.flush()
        snapshot = read(file.name)
    # One judgement of the host serves all questions about it: it is the same each time, and takes most of the time.
    facts = Facts(REGISTRY, snapshot)
    judged = assess(snapshot, REGISTRY, REGISTRY.checks.values(), facts=facts)
    names = Host.of(facts)
    asked = [f"container:{one.engine_name}" for one in names.containers] + [
        f"network:{name}" for name, _ in names.networks
    ]
    found: dict[str, str] = {}
    for word in asked:
        with patch("doctor.why.Facts", lambda *_: facts), patch("doctor.why.assess", lambda *_, **__: judged):
            answer, _ = why(snapshot, REGISTRY, word)
        found |= {
            f"why {one.name}: {held.trace.source} -> {held.trace.target}": f"{held.trace.code} {held.trace.why}"
            for one in answer.containers
            for held in one.promises
            # Nobody answers for one that somebody has paused: that is so, and what they wanted.
            if held.broken and not (held.trace.code == DST_FROZEN and "paused" in one.state)
        }
        found |= {
            f"why {one.name}": one.state
            for one in answer.containers
            if one.runs and one.well is False and "paused" not in one.state
        }
    return [f"{flow}: {text}" for flow, text in found.items()]


@pytest.mark.parametrize("rows", HOSTS.values(), ids=lambda rows: rows[0].name)
def test_nothing_is_wrong(rows: list[Healthy], suite: str) -> None:
    """All rows of a host at once; only where something is said, once more row by row, to say which row's it is."""
    once = alarms(rows, suite, each=False)
    if once:
        false = [words for words in once if words.startswith("why ")] or alarms(rows, suite, each=True)
        false = false or ["what was said of all rows at once is not said of any"]
        pytest.fail("\n".join(false), pytrace=False)


def test_names_are_unique() -> None:
    """A name says which look-alike it was."""
    names = [one.name for one in HEALTHY]
    assert sorted(set(names)) == sorted(names)
