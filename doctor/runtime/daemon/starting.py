"""Containers that are started side by side.

The order is the engine's: layers are mounted, the shim makes the container and holds it before its first instruction, its
network is set up, and then it starts. Each step is done for all of them before the next.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.runtime import shim
from doctor.runtime.container import ContainerError
from doctor.runtime.daemon import bundle, making
from doctor.runtime.daemon.fault import Fault, broken, conflict, not_found
from doctor.runtime.daemon.lasting import remember
from doctor.runtime.daemon.log import stamp
from doctor.runtime.daemon.places import TASKS
from doctor.runtime.model import Endpoint
from doctor.runtime.network import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.runtime.daemon.running import Running


class SideBySide:
    """A start of some containers."""

    def __init__(
        self, running: Running, identities: Iterable[str], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Start none yet. `meanwhile` sets up the networks, where they are not there: while shims make the containers."""
        self.running, self.engine = running, running.engine
        self.meanwhile = meanwhile
        self.identities = list(identities)
        self.faults: dict[str, Fault] = {}
        self.prepared: dict[str, shim.Prepared] = {}
        self.pids: dict[str, int] = {}

    def start(self) -> dict[str, Fault]:
        """Start them; give those that could not be started, and why."""
        self._each(self._see_links)
        if self.meanwhile is None:
            self._each(self._see_networks)
        self._each(self._prepare)
        # Each fork write-protects all memory: so nothing is done between them that would write much.
        self._each(self._fork)
        self._each(self._meet)
        if self.meanwhile is not None:
            self.meanwhile()
            self._each(self._see_networks)
        self._each(self._made)
        try:
            with self.engine.network.batch():
                self._each(self._join)
        except NetworkError as error:
            for identity in [one for one in self.identities if one not in self.faults]:
                self.faults[identity] = self.running.failed(identity, broken(str(error)))
        self._each(self._begin)
        self._each(self._begun)
        return self.faults

    def _each(self, step: Callable[[str], None]) -> None:
        for identity in self.identities:
            if identity in self.faults:
                continue
            try:
                step(identity)
            except Fault as fault:
                self.faults[identity] = self.running.failed(identity, fault)

    def _prepare(self, identity: str) -> None:
        """Mount layers, write what is bound into it, and make what its shim needs."""
        engine = self.engine
        one = engine.world.containers[identity]
        self.running.cancel(identity)
        folder = engine.state.folder(one.id)
        try:
            held = making.mounted(engine, one)
            self.running.names.write(one)
            config = bundle.config(
                one, held.merged, str(folder), f"{engine.root}/volumes", making.shared(engine, one), engine.controllers
            )
            self.prepared[identity] = shim.prepare(
                config,
                id=one.id,
                directory=f"{TASKS}/{one.id}",
                log=str(folder / f"{one.id}-json.log") if one.spec.log_driver == "json-file" else None,
                open_stdin=one.spec.interactive,
                init=one.spec.init,
            )
        except (ContainerError, ValueError) as error:
            raise making.in_words(engine.release, error) from error
        except OSError as error:
            what = f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".lstrip(": ")
            raise broken(f"failed to create task for container: {what}") from error

    def _see_links(self, identity: str) -> None:
        """See that what it is linked to runs. Raises Fault."""
        world = self.engine.world
        one = world.containers[identity]
        for alias, target in one.links.items():
            linked = world.containers.get(target)
            if linked is None or linked.state != "running":
                name = linked.spec.name if linked else target
                raise conflict(f"Cannot link to a non running container: /{name} AS /{one.spec.name}/{alias}")

    def _see_networks(self, identity: str) -> None:
        """See that its networks are there. Raises Fault."""
        world = self.engine.world
        spec = world.containers[identity].spec
        for attachment in () if spec.network_mode else spec.networks:
            if not any(held.spec.name == attachment.network for held in world.networks.values()):
                early = "failed to set up container networking: " if self.engine.release >= (28, 0) else ""
                raise not_found(f"{early}network {attachment.network} not found")

    def _fork(self, identity: str) -> None:
        """Let its shim begin to make it."""
        try:
            self.pids[identity] = self.prepared[identity].fork()
        except ContainerError as error:
            raise making.in_words(self.engine.release, error) from error

    def _meet(self, identity: str) -> None:
        try:
            self.running.shims[identity] = self.prepared[identity].connect(self.pids[identity])
        except ContainerError as error:
            raise making.in_words(self.engine.release, error) from error

    def _made(self, identity: str) -> None:
        """Wait until the container is there, held before its first instruction, and keep its network namespace."""
        engine = self.engine
        one = engine.world.containers[identity]
        try:
            pid = self.running.shims[identity].created()
        except ContainerError as error:
            raise making.in_words(self.engine.release, error) from error
        mode = one.spec.network_mode
        sandbox, sandbox_id = "", ""
        if not mode.startswith("container:"):
            sandbox_id = os.urandom(32).hex()
            name = "default" if mode == "host" else sandbox_id[:12]
            handle = self.running.shims[identity].network
            own = f"/proc/self/fd/{handle}" if handle >= 0 else "/proc/self/ns/net"
            sandbox = making.keep_namespace(engine.run, name, own)
        engine.world.containers[identity] = replace(
            one, pid=pid, shim=self.running.shims[identity].pid, sandbox=sandbox, sandbox_id=sandbox_id
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
        running = self.running.shims[identity]
        self.running.names.write(self.engine.world.containers[identity])
        for attach in self.running.attaching.pop(identity, []):
            attach(running)
        running.begin()

    def _begun(self, identity: str) -> None:
        """Wait for the first instruction, and keep that it runs."""
        engine = self.engine
        one = engine.world.containers[identity]
        running = self.running.shims[identity]
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
        self.running.adopt(identity, running)
        engine.events.container(identity, "start")
