"""Containers that run: how they are started, many side by side, how they end, and what comes after.

The order is the engine's: layers are mounted, the shim makes the container and holds it before its first instruction, its
network is set up, and then it starts. Restart policies are moby's restartmanager: 100 ms, doubled each time, a minute at
most, from the beginning again after ten seconds of running.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.linux import mounting
from doctor.runtime import shim
from doctor.runtime.container import ContainerError
from doctor.runtime.daemon import bundle, making
from doctor.runtime.daemon.clock import seconds
from doctor.runtime.daemon.fault import Fault, bad, broken, conflict, not_found
from doctor.runtime.daemon.health import Health
from doctor.runtime.daemon.lasting import remember
from doctor.runtime.daemon.log import stamp
from doctor.runtime.daemon.loop import READ
from doctor.runtime.daemon.namefiles import NameFiles
from doctor.runtime.daemon.places import TASKS
from doctor.runtime.model import Endpoint
from doctor.runtime.network import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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

    def start_many(self, identities: Iterable[str]) -> dict[str, Fault]:
        """Start containers side by side; give those that could not be started, and why."""
        faults: dict[str, Fault] = {}
        made: list[str] = []
        for identity in identities:
            try:
                self._make(self.engine.world.containers[identity])
                made.append(identity)
            except Fault as fault:
                faults[identity] = self._failed(identity, fault)
        self._each(made, faults, self._made)
        try:
            with self.engine.network.batch():
                self._each(made, faults, self._join)
        except NetworkError as error:
            for identity in [one for one in made if one not in faults]:
                faults[identity] = self._failed(identity, broken(str(error)))
        self._each(made, faults, self._begin)
        self._each(made, faults, self._begun)
        return faults

    def _each(self, identities: list[str], faults: dict[str, Fault], step: Callable[[str], None]) -> None:
        for identity in identities:
            if identity in faults:
                continue
            try:
                step(identity)
            except Fault as fault:
                faults[identity] = self._failed(identity, fault)

    def _make(self, one: Container) -> None:
        """Mount layers, write what is bound into it, and let its shim begin to make it."""
        engine = self.engine
        self._cancel(one.id)
        for alias, target in one.links.items():
            linked = engine.world.containers.get(target)
            if linked is None or linked.state != "running":
                name = linked.spec.name if linked else target
                raise conflict(f"Cannot link to a non running container: /{name} AS /{one.spec.name}/{alias}")
        for attachment in () if one.spec.network_mode else one.spec.networks:
            if not any(held.spec.name == attachment.network for held in engine.world.networks.values()):
                early = "failed to set up container networking: " if engine.release >= (28, 0) else ""
                raise not_found(f"{early}network {attachment.network} not found")
        folder = engine.state.folder(one.id)
        try:
            held = making.mounted(engine, one)
            self.names.write(one)
            config = bundle.config(
                one, held.merged, str(folder), f"{engine.root}/volumes", making.shared(engine, one), engine.controllers
            )
            place = f"{TASKS}/{one.id}"
            self.shims[one.id] = shim.create(
                config,
                id=one.id,
                directory=place,
                log=str(folder / f"{one.id}-json.log") if one.spec.log_driver == "json-file" else None,
                open_stdin=one.spec.interactive,
                init=one.spec.init,
            )
        except (ContainerError, ValueError) as error:
            raise making.in_words(self.engine.release, error) from error
        except OSError as error:
            what = f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".lstrip(": ")
            raise broken(f"failed to create task for container: {what}") from error

    def _made(self, identity: str) -> None:
        """Wait until the container is there, held before its first instruction, and keep its network namespace."""
        engine = self.engine
        one = engine.world.containers[identity]
        try:
            pid = self.shims[identity].created()
        except ContainerError as error:
            raise making.in_words(self.engine.release, error) from error
        mode = one.spec.network_mode
        sandbox, sandbox_id = "", ""
        if not mode.startswith("container:"):
            sandbox_id = os.urandom(32).hex()
            name = "default" if mode == "host" else sandbox_id[:12]
            handle = self.shims[identity].network
            own = f"/proc/self/fd/{handle}" if handle >= 0 else "/proc/self/ns/net"
            sandbox = making.keep_namespace(engine.run, name, own)
        engine.world.containers[identity] = replace(
            one, pid=pid, shim=self.shims[identity].pid, sandbox=sandbox, sandbox_id=sandbox_id
        )

    def _join(self, identity: str) -> None:
        engine = self.engine
        one = engine.world.containers[identity]
        mode = one.spec.network_mode
        if mode.startswith("container:"):
            return
        if mode in {"host", "none"}:
            network = next(held for held in engine.world.networks.values() if held.spec.name == mode)
            engine.world.containers[identity] = replace(one, endpoints=(Endpoint(network.id, os.urandom(32).hex()),))
            engine.events.network(network.id, "connect", mode, network.spec.driver, identity)
            return
        descriptor = os.open(one.sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            engine.network.join(identity, descriptor)
        except NetworkError as error:
            raise broken(str(error)) from error
        finally:
            os.close(descriptor)
        for endpoint in engine.world.containers[identity].endpoints:
            held = engine.world.networks[endpoint.network_id]
            engine.events.network(held.id, "connect", held.spec.name, held.spec.driver, identity)

    def _begin(self, identity: str) -> None:
        """Let the first instruction come."""
        running = self.shims[identity]
        self.names.write(self.engine.world.containers[identity])
        for attach in self.attaching.pop(identity, []):
            attach(running)
        running.begin()

    def _begun(self, identity: str) -> None:
        """Wait for the first instruction, and keep that it runs."""
        engine = self.engine
        one = engine.world.containers[identity]
        running = self.shims[identity]
        try:
            running.started()
        except ContainerError as error:
            raise making.in_words(self.engine.release, error) from error
        engine.put(
            replace(
                one,
                state="running",
                started=stamp(),
                error="",
                exit_code=0,
                oom_killed=False,
                manually_stopped=False,
                health="starting" if one.spec.health and one.spec.health[0] != "NONE" else "",
                failing=0,
            )
        )
        remember(engine.world.containers[identity])
        self.adopt(identity, running)
        engine.events.container(identity, "start")

    def _failed(self, identity: str, fault: Fault) -> Fault:
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
            self._take_away(one, code)
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
            self._take_away(one, code)

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
            self._cancel(identity)

    def _cancel(self, identity: str) -> None:
        timer = self._timers.pop(identity, None)
        if timer is not None:
            timer.cancel()

    # Commands

    def kill(self, one: Container, number: int) -> None:
        """Send a signal to the first process of a container. Raises Fault."""
        if one.state == "restarting":
            self._cancel(one.id)
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
        self._cancel(identity)
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
            self.ended.setdefault(one.id, []).append(lambda code: self._take_away(one, code))
            self.kill(one, signal.SIGKILL)
            return
        self._take_away(one, one.exit_code)
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

    def _take_away(self, one: Container, code: int) -> None:
        if one.id not in self.engine.world.containers:
            return
        self._cancel(one.id)
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
