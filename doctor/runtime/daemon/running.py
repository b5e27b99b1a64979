"""Containers that run: how they end, and what comes after (`starting` has how they begin).

Restart policies are moby's restartmanager: 100 ms, doubled each time, a minute at
most, from the beginning again after ten seconds of running.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.linux import mounting
from doctor.runtime.container import ContainerError
from doctor.runtime.daemon.clock import seconds
from doctor.runtime.daemon.fault import Fault, bad, conflict
from doctor.runtime.daemon.health import Health
from doctor.runtime.daemon.log import stamp
from doctor.runtime.daemon.loop import READ
from doctor.runtime.daemon.namefiles import NameFiles
from doctor.runtime.daemon.places import TASKS
from doctor.runtime.daemon.starting import SideBySide
from doctor.runtime.model import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.runtime import shim
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.loop import Timer
    from doctor.runtime.model import Container

FIRST_WAIT = 0.1
LONGEST_WAIT = 60.0
LONG_RUN = 10.0
"""Seconds after which a container has run long enough for its next restart to come at once."""
_KILLED = 137


class Running:
    """The containers of one daemon that run."""

    def __init__(self, engine: Engine) -> None:
        """Run nothing yet."""
        self.engine = engine
        self.shims: dict[str, shim.Shim] = {}
        self.attaching: dict[str, list[Callable[[shim.Shim], None]]] = {}
        """Who wants the output of a container that is about to start."""
        self.ended: dict[str, list[Callable[[int], None]]] = {}
        """Who waits for the end of a container, with its exit code."""
        self.removed: dict[str, list[Callable[[int], None]]] = {}
        self.health: dict[str, Health] = {}
        self.names = NameFiles(engine)
        self._waits: dict[str, float] = {}
        self._timers: dict[str, Timer] = {}
        self.stopping = False
        """Whether the daemon is being shut down: nothing is restarted any more."""
        engine.views.probes = lambda identity: list(self.health[identity].results) if identity in self.health else []

    # Start

    def start(self, one: Container) -> None:
        """Start one container. Raises Fault."""
        fault = self.start_many([one.id]).get(one.id)
        if fault is not None:
            raise fault

    def start_many(self, identities: Iterable[str], meanwhile: Callable[[], None] | None = None) -> dict[str, Fault]:
        """Start containers side by side; give those that could not be started, and why. `meanwhile`: see `SideBySide`."""
        return SideBySide(self, identities, meanwhile).start()

    def failed(self, identity: str, fault: Fault) -> Fault:
        """Undo a start that failed, and keep why."""
        engine = self.engine
        one = engine.world.containers.get(identity)
        if one is None:
            return fault
        code = getattr(fault, "code", 128)
        self.clean(one)
        one = engine.world.containers[identity]
        engine.put(replace(one, pid=0, shim=0, error=fault.message, exit_code=code, sandbox="", sandbox_id=""))
        self.attaching.pop(identity, None)
        for call in self.ended.pop(identity, []):
            call(code)
        if one.spec.auto_remove:
            self.take_away(one, code)
        return fault

    # End

    def _over(self, identity: str) -> None:
        """A container has ended: take its network away, keep how it ended, and see what its policy says."""
        engine = self.engine
        running = self.shims.get(identity)
        one = engine.world.containers.get(identity)
        if running is None or one is None:
            return
        engine.loop.unwatch(running.fileno())
        try:
            code, at = running.exit()
        except ContainerError:  # the shim has gone, and nobody saw the end of what it held
            code, at = _KILLED, stamp()
        short = running.out_of_memory
        self.clean(one)
        one = engine.world.containers[identity]
        lasted = max(0.0, seconds(at) - seconds(one.started))
        one = replace(
            one, state="exited", pid=0, shim=0, exit_code=code, finished=at, sandbox="", sandbox_id="", oom_killed=short,
            health="unhealthy" if one.health else "",
        )  # fmt: skip
        again = self._again(one, lasted)
        if again is not None:
            one = replace(one, state="restarting", restarts=one.restarts + 1)
        engine.put(one)
        engine.events.container(identity, "die", execDuration=str(int(lasted)), exitCode=str(code))
        about = {"module": "libcontainerd", "topic": "/tasks/delete", "type": "*events.TaskDelete"}
        engine.daemon_log.info("ignoring event", container=identity, namespace="moby", **about)
        engine.daemon_log.info("shim disconnected", id=identity, namespace="moby")
        for call in self.ended.pop(identity, []):
            call(code)
        if again is not None:
            self._timers[identity] = engine.loop.later(again, lambda: self._restart(identity))
        elif one.spec.auto_remove and not self.stopping:
            self.take_away(one, code)

    def clean(self, one: Container, *, cold: bool = False) -> None:
        """Take away what a running container has: network, sandbox, shim, mounts. What is gone already does not matter.

        `cold`: networks are not set up yet, and there is nothing to leave.
        """
        engine = self.engine
        held = [] if one.spec.network_mode.startswith("container:") else list(one.endpoints)
        if cold or one.spec.network_mode in {"host", "none"}:
            engine.world.containers[one.id] = replace(
                one, endpoints=tuple(Endpoint(each.network_id, "") for each in held), ports=()
            )
        elif held and not one.spec.network_mode:
            engine.network.leave(one.id)
        for endpoint in held:
            network = engine.world.networks.get(endpoint.network_id)
            if network is not None and endpoint.id and not cold:
                engine.events.network(network.id, "disconnect", network.spec.name, network.spec.driver, one.id)
        if one.sandbox and not one.sandbox.endswith("/default"):
            _unmount(one.sandbox)
            with contextlib.suppress(OSError):
                Path(one.sandbox).unlink()
        probes = self.health.pop(one.id, None)
        if probes is not None:
            probes.stop()
        running = self.shims.pop(one.id, None)
        if running is not None:
            engine.loop.unwatch(running.fileno())
            running.delete()
        shutil.rmtree(f"{TASKS}/{one.id}", ignore_errors=True)
        self.names.forget(one.id)
        with contextlib.suppress(OSError):
            merged = engine.store.mounted(one.mount_id).merged
            _unmount(merged)
            Path(merged).rmdir()

    def _again(self, one: Container, lasted: float) -> float | None:
        """Say after how many seconds a container is to be restarted; None: not at all."""
        if self.stopping or not self.policy(one):
            return None
        before = self._waits.get(one.id, 0.0)
        wait = FIRST_WAIT if not before or lasted >= LONG_RUN else min(before * 2, LONGEST_WAIT)
        self._waits[one.id] = wait
        return wait

    def policy(self, one: Container) -> bool:
        """Whether the restart policy of a container that has ended wants it to run."""
        name, _, most = one.spec.restart.partition(":")
        if one.manually_stopped:
            return False
        if name == "on-failure":
            return one.exit_code != 0 and (not most or one.restarts < int(most))
        return name in {"always", "unless-stopped"}

    def _restart(self, identity: str) -> None:
        one = self.engine.world.containers.get(identity)
        if one is None or one.state != "restarting":
            return
        fault = self.start_many([identity]).get(identity)
        if fault is not None:
            self.engine.daemon_log.error("failed to restart container", container=identity, error=fault.message)
            held = self.engine.world.containers[identity]
            self.engine.put(replace(held, state="exited"))

    def adopt(self, identity: str, held: shim.Shim) -> None:
        """Take over the shim of a container that runs on."""
        self.shims[identity] = held
        self.engine.loop.watch(held.fileno(), READ, lambda _: self._over(identity))
        one = self.engine.world.containers[identity]
        if one.health:
            self.health[identity] = Health(self.engine, one)

    def cancel_all(self) -> None:
        """Restart nothing, and end nothing later."""
        for identity in list(self._timers):
            self.cancel(identity)

    def cancel(self, identity: str) -> None:
        """Do nothing later that was to be done with a container: a restart, a SIGKILL."""
        timer = self._timers.pop(identity, None)
        if timer is not None:
            timer.cancel()

    # Commands

    def kill(self, one: Container, number: int) -> None:
        """Send a signal to the first process of a container. Raises Fault."""
        if one.state == "restarting":
            self.cancel(one.id)
            self.engine.put(replace(one, state="exited", manually_stopped=True))
            return
        if one.id not in self.shims:
            old = self.engine.release < (23, 0)
            name = f"Cannot kill container: {one.spec.name}: C" if old else f"cannot kill container: {one.spec.name}: c"
            raise conflict(f"{name}ontainer {one.id} is not running")
        if number in {signal.SIGKILL, signal.SIGTERM, self.stop_signal(one)}:
            self.engine.world.containers[one.id] = replace(one, manually_stopped=True)
        self.shims[one.id].kill(number)
        self.engine.events.container(one.id, "kill", signal=str(number))

    @staticmethod
    def stop_signal(one: Container) -> int:
        """Give the signal that asks a container to end."""
        return signal_number(one.spec.stop_signal or "SIGTERM")

    def stop(self, one: Container, timeout: float | None, done: Callable[[], None]) -> bool:
        """Stop a container: its stop signal, and SIGKILL after a while (negative: never). False: it does not run."""
        if one.state == "restarting":
            self.kill(one, signal.SIGTERM)
            done()
            return True
        if one.id not in self.shims:
            return False
        wait = one.spec.stop_timeout if timeout is None else timeout
        self.ended.setdefault(one.id, []).append(lambda _: self._stopped(one.id, done))
        self.kill(one, self.stop_signal(one))
        if wait >= 0:
            self._timers[one.id] = self.engine.loop.later(wait, lambda: self.end(one.id))
        return True

    def _stopped(self, identity: str, done: Callable[[], None]) -> None:
        self.cancel(identity)
        self.engine.events.container(identity, "stop")
        done()

    def end(self, identity: str) -> None:
        """Kill a container that would not stop."""
        running = self.shims.get(identity)
        if running is not None:
            running.kill(signal.SIGKILL)

    def remove(self, one: Container, done: Callable[[], None], *, force: bool) -> None:
        """Take a container away, at once or, with force, after it was killed. Raises Fault."""
        if one.state == "restarting" and force:
            self.kill(one, signal.SIGKILL)
            one = self.engine.world.containers[one.id]
        if one.id in self.shims or one.state == "restarting":
            if not force:
                raise conflict(self._runs(one))
            self.removed.setdefault(one.id, []).append(lambda _: done())
            self.ended.setdefault(one.id, []).append(lambda code: self.take_away(one, code))
            self.kill(one, signal.SIGKILL)
            return
        self.take_away(one, one.exit_code)
        done()

    def _runs(self, one: Container) -> str:
        release = self.engine.release
        if release < (23, 0):
            return (
                f"You cannot remove a {one.state} container {one.id}."
                " Stop the container before attempting removal or force remove"
            )
        slash = "/" if release < (28, 0) else ""
        return (
            f'cannot remove container "{slash}{one.spec.name}": container is {one.state}:'
            " stop the container before removing or force remove"
        )

    def take_away(self, one: Container, code: int) -> None:
        """Take a container away that has ended, and tell who waits for that."""
        if one.id not in self.engine.world.containers:
            return
        self.cancel(one.id)
        self.engine.events.container(one.id, "destroy")
        self.engine.remove(one)
        self._waits.pop(one.id, None)
        for call in self.removed.pop(one.id, []):
            call(code)


def signal_number(name: str) -> int:
    """Read a signal by name or number. Raises Fault for one that is none."""
    text = name.upper().removeprefix("SIG")
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    found = getattr(signal, f"SIG{text}", None)
    if not isinstance(found, signal.Signals):
        raise bad(f"Invalid signal: {name}")
    return int(found)


def _unmount(path: str) -> None:
    with contextlib.suppress(OSError):
        mounting.umount(path, mounting.MNT_DETACH)
