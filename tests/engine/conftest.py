"""Fixtures of the tests on real engines: `suite`, `engine`, `fresh_engine`; see `tests/enginehost.py` for what they do.

`--suite 28.5` (or sid; may be repeated) or `DOCTOR_SUITES="20.10 28.5"` chooses among the three. A test that wants a
host with other settings starts it: `with EngineHost.up(suite=suite, daemon_json={"icc": False}) as host:`.

A test marked `sampled("row")` takes the rows of its parameter `row` on one engine each, see `sampling.py`; with
`by="code"` it keeps one row of each code on every engine, of areas where engines are alike one row of each area. With
`sampled` alone the test itself is on one engine: for what has little to do with which.
`--every-engine` or `DOCTOR_EVERY=1` takes all rows on all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.sampling import chosen
from tests.enginehost import SUITES, EngineHost, Unavailable, build_root, unavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


ALIKE = ("CGR", "CTR", "HST", "IMG", "LAY", "NSP", "SEC", "STO", "VOL")
"""Areas that are alike on every engine: their rows are spread over the engines by area, those of others by code."""

FAILED = pytest.StashKey[bool]()
"""Whether a test failed; known when its fixtures end."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test failed, for fixtures that would use its host again."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--suite` and `--every-engine`."""
    parser.addoption("--all-settings", action="store_true", help="compare the runtime in every setting, not in a few")
    parser.addoption("--suite", action="append", metavar="SUITE", help="test on this engine only: 20.10, trixie, ...")
    parser.addoption("--every-engine", action="store_true", help="every row on every engine, none left to another one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder, skip it where there can be no engine, and leave out what another engine tests."""
    apart = {item for item in items if _cannot_be_made(item)}
    if not (config.getoption("--every-engine") or os.environ.get("DOCTOR_EVERY") or _wanted(config)):
        apart |= _left_to_others([item for item in items if item not in apart])
    if apart:
        config.hook.pytest_deselected(items=list(apart))
        items[:] = [item for item in items if item not in apart]
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = unavailable() if ours else None
    for item in ours:
        item.add_marker("engine")
        item.add_marker("root")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _cannot_be_made(item: pytest.Item) -> bool:
    """Whether the test makes a fault on an engine that it cannot be made on."""
    params = getattr(item, "callspec", None)
    fault = (params.params.get("fault") or params.params.get("row")) if params else None
    engines = getattr(fault, "engines", ())
    return bool(engines) and params is not None and params.params.get("suite") not in engines


def _left_to_others(items: list[pytest.Item]) -> set[pytest.Item]:
    """The items of sampled tests that are not chosen: their rows are tested on another engine."""
    groups: dict[tuple[str, str], dict[str, dict[str, pytest.Item]]] = {}
    for item in items:
        mark, params = item.get_closest_marker("sampled"), getattr(item, "callspec", None)
        if mark is None or params is None or "suite" not in params.params:
            continue
        test, _, words = item.nodeid.partition("[")
        if not mark.args:  # of its module, each such test is a row
            test, words = test.partition("::")[0], item.nodeid.partition("::")[2]
        proved = getattr(params.params[mark.args[0]], mark.kwargs["by"]) if "by" in mark.kwargs else ""
        if proved.startswith(ALIKE):
            proved = proved.rstrip("0123456789")
        suite = params.params["suite"]
        rows = groups.setdefault((test, proved), {})
        rows.setdefault(words.replace(SUITES[suite], "", 1), {})[suite] = item
    apart = set()
    for rows in groups.values():
        taken = chosen({name: [suite for suite in SUITES if suite in on] for name, on in rows.items()})
        apart |= {item for name, on in rows.items() for suite, item in on.items() if (name, suite) not in taken}
    return apart


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses `suite` on every engine that was chosen."""
    if "suite" in metafunc.fixturenames:
        chosen = _chosen(metafunc.config)
        metafunc.parametrize("suite", chosen, ids=[SUITES[name] for name in chosen], indirect=True, scope="session")


def _wanted(config: pytest.Config) -> list[str]:
    """The engines that were asked for by name."""
    asked: list[str] | None = config.getoption("--suite", None)
    return asked or os.environ.get("DOCTOR_SUITES", "").replace(",", " ").split()


def _chosen(config: pytest.Config) -> list[str]:
    """The suites to test on, by the name of the suite or the release of Docker."""
    wanted = _wanted(config)
    names = {release: suite for suite, release in SUITES.items()} | {suite: suite for suite in SUITES}
    if unknown := [name for name in wanted if name not in names]:
        raise pytest.UsageError(f"no such suite: {', '.join(unknown)}; there are {', '.join(names)}")
    return [names[name] for name in wanted] or list(SUITES)


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian suite under test, its root built."""
    name: str = request.param
    try:
        build_root(name)
    except Unavailable as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="module")
def engine(suite: str) -> Iterator[EngineHost]:
    """A healthy host that the tests of a module share: each leaves it as it found it."""
    with EngineHost.up(suite=suite) as host:
        yield host


@pytest.fixture
def fresh_engine(suite: str) -> Iterator[EngineHost]:
    """A host for this test alone, which may break it."""
    with EngineHost.up(suite=suite) as host:
        yield host


@pytest.fixture(autouse=True)
def _left_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves the shared host otherwise than it was."""
    host: EngineHost | None = request.getfixturevalue("engine") if "engine" in request.fixturenames else None
    before = _summary(host) if host else None
    yield
    if host:
        assert _summary(host) == before, "the test did not leave the shared engine as it found it"


def _summary(host: EngineHost) -> dict[str, object]:
    return {
        "dockerd": host.dockerd_pid(),
        "containers": sorted(c["Names"][0] for c in host.api("GET", "/containers/json?all=1")),
        "networks": sorted(n["Name"] for n in host.api("GET", "/networks")),
        "images": len(host.api("GET", "/images/json")),
        "daemon.json": host.exists("/etc/docker/daemon.json") and host.read("/etc/docker/daemon.json"),
        "rules": host.run("iptables-save").stdout.count("\n-A "),
    }
