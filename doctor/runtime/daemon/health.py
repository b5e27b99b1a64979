"""Health checks: a command in the container from time to time, and what its exit codes add up to (moby daemon/health.go)."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doctor.runtime.container import ContainerError
from doctor.runtime.daemon.execs import Exec, exec_process
from doctor.runtime.daemon.log import stamp
from doctor.runtime.daemon.loop import READ

if TYPE_CHECKING:
    from doctor.runtime import shim
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.model import Container

KEPT = 5
_LATE = -1
"""The exit code of a probe that did not end in time."""


class Health:
    """Probes of one container, as long as it runs."""

    def __init__(self, engine: Engine, one: Container) -> None:
        """Begin with the first interval."""
        self.engine = engine
        self.identity = one.id
        self.begun = time.monotonic()
        self.results: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._timer = engine.loop.later(one.spec.health_interval, self._probe)
        self._handle: shim.Exec | None = None

    def stop(self) -> None:
        """Probe no more."""
        self._timer.cancel()
        self._let_go()

    def _let_go(self) -> None:
        if self._handle is not None:
            self.engine.loop.unwatch(self._handle.fileno())
            self._handle.close()
            self._handle = None

    def _argv(self, one: Container) -> tuple[str, ...]:
        kind, *rest = one.spec.health
        return ("/bin/sh", "-c", *rest) if kind == "CMD-SHELL" else tuple(rest)

    def _probe(self) -> None:
        one = self.engine.world.containers.get(self.identity)
        held = self.engine.running.shims.get(self.identity)
        if one is None or held is None or one.state != "running":
            return
        started = stamp()
        probe = Exec(one.id, {"Cmd": list(self._argv(one))})
        try:
            self._handle = held.exec(exec_process(self.engine, one, probe), None)
        except (ContainerError, ValueError, OSError) as error:
            self._over(started, getattr(error, "code", 1), str(error))
            return
        handle = self._handle
        self._timer = self.engine.loop.later(
            one.spec.health_timeout, lambda: self._late(started, one.spec.health_timeout)
        )
        self.engine.loop.watch(handle.fileno(), READ, lambda _: self._ended(started, handle))

    def _ended(self, started: str, handle: shim.Exec) -> None:
        self._timer.cancel()
        try:
            code = handle.wait()
        except ContainerError:
            code = _LATE
        self._let_go()
        self._over(started, code, "")

    def _late(self, started: str, seconds: float) -> None:
        self._let_go()
        self._over(started, _LATE, f"Health check exceeded timeout ({seconds:g}s)")

    def _over(self, started: str, code: int, output: str) -> None:
        """Count a probe, and come again after the interval."""
        engine = self.engine
        one = engine.world.containers.get(self.identity)
        if one is None or one.state != "running":
            return
        self.results.append({"Start": started, "End": stamp(), "ExitCode": code, "Output": output})
        failing = 0 if code == 0 else one.failing + 1
        before = one.health
        now = before
        if code == 0:
            now = "healthy"
        elif failing >= one.spec.health_retries and not self._starting(one):
            now = "unhealthy"
        one = replace(one, health=now, failing=0 if self._starting(one) and code else failing)
        engine.put(one)
        if now != before:
            engine.events.container(self.identity, f"health_status: {now}")
        self._timer = engine.loop.later(one.spec.health_interval, self._probe)

    def _starting(self, one: Container) -> bool:
        return one.health == "starting" and time.monotonic() - self.begun < one.spec.health_start
