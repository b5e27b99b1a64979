"""A live engine as the ground of a scenario: the same faults, probes and proofs as in a lab, on a real Docker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from doctor.labs import population
from doctor.labs.apart import ApartError, gather
from doctor.labs.ground import GroundError, Ran
from doctor.model import Report
from tests.enginehost import EngineError, EngineHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from doctor.labs.scenario import Scenario

OUTSIDE_PORT = 9000
RELEASES = {"20.10": "20.10", "26": "26.1", "28": "28.5"}
"""The dialect of a scenario → the release of the engine that speaks it."""
_NEWNET = 1 << 30


class EngineGround:
    """One engine host; see `doctor.labs.ground.Ground`."""

    def __init__(self, host: EngineHost) -> None:
        """Play on this host."""
        self.host = host
        self._pids: dict[str, int] = {}

    def run(self, argv: Sequence[str], *, stdin: str = "", seconds: float = 30.0) -> Ran:
        """See `Ground.run`."""
        command = self.host.spawn(*argv, stdin=stdin)
        try:
            code = command.wait(seconds)
        except subprocess.TimeoutExpired:
            return Ran(124, command.stdout, command.stderr)
        return Ran(code if code >= 0 else 128 - code, command.stdout, command.stderr)

    def read(self, path: str) -> str | None:
        """See `Ground.read`."""
        try:
            return self.host.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, text: str) -> None:
        """See `Ground.write`."""
        self.host.write(path, text)

    def ask(self, path: str) -> Any:
        """See `Ground.ask`."""
        try:
            return self.host.api("GET", path, timeout=3)
        except (OSError, EngineError) as error:
            raise GroundError(f"GET {path}: {error}") from error

    def answers(self) -> bool:
        """See `Ground.answers`."""
        return self.host.answers()

    def start_daemon(self, *, fails: bool) -> None:
        """See `Ground.start_daemon`."""
        try:
            self.host.start_dockerd(expect_failure=fails)
        except EngineError as error:
            raise GroundError(str(error)) from error

    def stop_daemon(self) -> None:
        """See `Ground.stop_daemon`."""
        self.host.stop_dockerd()

    def within(self, jobs: Mapping[str, Callable[[], bytes]], seconds: float) -> dict[str, bytes]:
        """See `Ground.within`."""
        with contextlib.ExitStack() as stack:
            spaces = {where: self._network(where) for where in jobs}
            for space in spaces.values():
                stack.callback(os.close, space)
            listed = [(lambda space=spaces[where]: _enter(space), function) for where, function in jobs.items()]
            try:
                return dict(zip(jobs, gather(listed, seconds), strict=True))
            except ApartError as error:
                raise GroundError(str(error)) from error

    def _network(self, where: str) -> int:
        if where in {"host", "outside"}:
            return self.host._network(where)
        with contextlib.suppress(LookupError, OSError):
            self._pids[where] = self.host.container_pid(where)
        if where not in self._pids:
            raise GroundError(f"{where} does not run")
        return self.host._open(f"/proc/{self._pids[where]}/ns/net", os.O_RDONLY)

    def check(self, options: tuple[str, ...] = ()) -> Report:
        """See `Ground.check`."""
        done = self.host.doctor("check", "--format", "json", *options)
        if not done.stdout:
            raise GroundError(f"doctor check: exit {done.returncode}: {done.stderr}")
        return msgspec.json.decode(done.stdout, type=Report)


def _enter(space: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(space, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def staged(scenario: Scenario, suite: str) -> Iterator[EngineGround]:
    """A host of a suite on which a scenario's containers run, as long as the context lasts."""
    files = dict(scenario.files)
    with EngineHost.up(
        suite=suite, daemon_args=scenario.flags, daemon_json=scenario.daemon or None, files=files
    ) as host:
        populate(host, scenario)
        with host.listen("outside", OUTSIDE_PORT):
            yield EngineGround(host)


def populate(host: EngineHost, scenario: Scenario) -> None:
    """Make the networks and start the containers of a scenario, and wait until they serve."""
    for network in population.networks(scenario):
        host.docker(*population.network_words(network))
    for spec in population.containers(scenario):
        state = scenario.container[spec.name].state
        host.docker(*(["create"] if state == "created" else ["run", "-d"]), *population.run_words(spec))
        for attached in spec.networks[1:]:
            host.docker("network", "connect", attached.network, spec.name)
        if state == "running" and spec.command[0] == "serve":
            host.await_listening(spec.name, int(spec.command[1]))


def main() -> None:
    """Replay scenario files on a release: `python -m tests.engineground 28.5 FILE...`."""
    from doctor.labs.loading import ScenarioError, load
    from doctor.labs.replay import Failed, prove
    from tests.enginehost import SUITES

    suite = next(name for name, release in SUITES.items() if release == sys.argv[1])
    bad = 0
    for path in sys.argv[2:]:
        try:
            scenario = load(path)
        except ScenarioError as error:
            print("FAIL", error, flush=True)  # noqa: T201
            bad += 1
            continue
        if sys.argv[1] not in {RELEASES.get(one) for one in scenario.dialects} or scenario.live:
            continue
        try:
            with staged(scenario, suite) as ground:
                prove(scenario, ground)
            print("ok", scenario.name, flush=True)  # noqa: T201
        except (Failed, GroundError, EngineError) as error:
            bad += 1
            print("FAIL", scenario.name, error, flush=True)  # noqa: T201
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
