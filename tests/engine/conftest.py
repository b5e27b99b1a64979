"""Fixtures of the tests on real engines: `suite`, `engine`, `fresh_engine`; see `tests/enginehost.py` for what they do.

`--suite 28.5` (or sid; may be repeated) or `DOCTOR_SUITES="20.10 28.5"` chooses among the three. A test that wants a
host with other settings starts it: `with EngineHost.up(suite=suite, daemon_json={"icc": False}) as host:`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.enginehost import SUITES, EngineHost, Unavailable, build_root, unavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


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
    """Add `--suite`."""
    parser.addoption("--suite", action="append", metavar="SUITE", help="test on this engine only: 20.10, trixie, ...")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it where there can be no engine."""
    apart = [item for item in items if _cannot_be_made(item)]
    if apart:
        config.hook.pytest_deselected(items=apart)
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses `suite` on every engine that was chosen."""
    if "suite" in metafunc.fixturenames:
        chosen = _chosen(metafunc.config)
        metafunc.parametrize("suite", chosen, ids=[SUITES[name] for name in chosen], indirect=True, scope="session")


def _chosen(config: pytest.Config) -> list[str]:
    """The suites to test on, by the name of the suite or the release of Docker."""
    wanted = config.getoption("--suite", None) or os.environ.get("DOCTOR_SUITES", "").replace(",", " ").split()
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
