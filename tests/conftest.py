"""What all tests share: reasons to skip, how many skips CI expects, golden files, and an environment without surprises."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "golden"

EXPECTED_SKIPS: dict[str, str] = {
    "tests/engine/test_stores.py::test_an_image_of_another_machine_is_told[20.10]": "imports for its own platform alone",
}
"""Tests that are skipped in CI, by the beginning of their id, and why nothing can be done about it."""

SKIPPED = 7
"""Exit code of a run with failures in which a test was skipped that should not have been."""

# A zone that is neither UTC nor a whole number of hours off: a time that forgets its offset is seen. POSIX text, so that
# no time zone database is needed.
os.environ["TZ"] = "<+0545>-5:45"
time.tzset()
for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCTOR_TRACEBACK"):
    os.environ.pop(name, None)
# What is compiled is kept: doctor is started two hundred times, and images of Python often forbid it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# No test of Hypothesis has a deadline, nor is slow to make its examples: machines are busy. `make check` takes
# `--hypothesis-profile quick`; tools/test.sh takes `steady`, whose examples are the same each time.
busy = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("thorough", **busy)
settings.register_profile("quick", max_examples=25, **busy)
settings.register_profile("steady", derandomize=True, **busy)
settings.load_profile("thorough")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this file."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew instead of comparing")
    parser.addoption(
        "--expected-skips",
        type=int,
        metavar="N",
        help="fail unless N tests are skipped; in CI as root: those listed here",
    )


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make, and seldom: eight thousand of them and their modules stay anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine or this user cannot do, and say why."""
    reasons = dict.fromkeys(("root", "engine", "browser")) | _missing(items)
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _missing(items: list[pytest.Item]) -> dict[str, str | None]:
    """Give the reason why tests of a marker cannot run here; only asked where there is one."""
    used = {marker.name for item in items for marker in item.iter_markers()}
    found: dict[str, str | None] = {}
    if "root" in used and os.geteuid():
        found["root"] = "needs root"
    if "engine" in used:
        from tests.enginehost import unavailable

        found["engine"] = unavailable()
    if "browser" in used:
        from tests.browser.chromium import BINARY

        found["browser"] = None if BINARY else "needs Chromium (apt-get install chromium)"
    return found


class Herald:
    """Tells of a failure when it happens: a run that is cut off leaves no summary."""

    def __init__(self, config: pytest.Config) -> None:
        """Write where the dots go."""
        self.plugins = config.pluginmanager

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the test and the last words of its failure on a line."""
        reporter = self.plugins.get_plugin("terminalreporter")
        if report.failed and reporter is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            words = str(crash.message if crash else report.longrepr).strip().splitlines()
            reporter.write_line(f"\nfailed: {report.nodeid} ({report.when}): {' '.join(words)[:600]}")


def pytest_configure(config: pytest.Config) -> None:
    """Herald failures where several processes test, for that takes long."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Herald(config))


def _skips(config: pytest.Config) -> tuple[int, int | None]:
    """Give how many tests were skipped, and how many should have been: None for whatever comes."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [one.nodeid for one in reporter.stats.get("skipped", ())] if reporter else []
    wanted: int | None = config.getoption("--expected-skips")
    if wanted is None and os.environ.get("CI") == "true" and not os.geteuid():
        unlisted = [nodeid for nodeid in skipped if not nodeid.startswith(tuple(EXPECTED_SKIPS))]
        wanted = len(skipped) - len(unlisted)
    return len(skipped), wanted


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that skipped another number of tests than expected: a green CI must not hide what it did not test."""
    if hasattr(session.config, "workerinput"):
        return  # a worker of pytest-xdist knows of its own tests only: who started it counts
    skipped, wanted = _skips(session.config)
    if wanted is not None and skipped != wanted:
        # Beside failures it is a code of its own: those may be tried again, this may not.
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if exitstatus == pytest.ExitCode.OK else SKIPPED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so before the closing line."""
    skipped, wanted = _skips(terminalreporter.config)
    if wanted is not None and skipped != wanted:
        terminalreporter.write_line(f"FAILED: {skipped} tests were skipped, {wanted} were expected to be", red=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name below tests/golden/; `--update-golden` writes the file instead."""
    update = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"no tests/golden/{name}: `make golden` writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare
