"""Requests that change something: containers and networks are made, started, stopped, taken away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doctor.runtime.daemon import limits
from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.engine import BUILT_IN
from doctor.runtime.daemon.fault import Fault, bad, broken, conflict, not_found
from doctor.runtime.daemon.lasting import remember
from doctor.runtime.daemon.running import signal_number
from doctor.runtime.model import Attachment, NetworkSpec, Pool
from doctor.runtime.network import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Connection, Request
    from doctor.runtime.model import Container, Network


class Commands:
    """What POST and DELETE do."""

    def __init__(self, engine: Engine) -> None:
        """Change one engine's world."""
        self.engine = engine

    # Containers

    def create(self, request: Request, to: Connection, _: str) -> None:
        """POST /containers/create."""
        try:
            asked = spelling.parse(request.json(), request.query.get("name", ""))
            held, said = limits.kept(asked.limits, self.engine.controllers)
        except spelling.SpecError as error:
            raise bad(str(error)) from error
        for text in said:
            self.engine.daemon_log.warning(text)
        to.json({"Id": self.engine.create(replace(asked, limits=held)).id, "Warnings": said}, 201)

    def tag(self, request: Request, to: Connection, name: str) -> None:
        """POST /images/NAME/tag."""
        repository, tag = request.query.get("repo", ""), request.query.get("tag", "")
        self.engine.tag(self.engine.image(name), f"{repository}:{tag or 'latest'}")
        to.answer(201)

    def untag(self, _: Request, to: Connection, name: str) -> None:
        """DELETE /images/NAME."""
        to.json([{"Untagged": self.engine.untag(self.engine.image(name), name)}])

    def start(self, _: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/start."""
        one = self.engine.container(name)
        if one.state in {"running", "paused"}:
            to.answer(304)
            return
        self._by_hand(one)
        to.answer(204)

    def _by_hand(self, one: Container) -> None:
        """Start a container because somebody asked: its restarts are counted anew (moby ResetRestartManager). Fault."""
        one = replace(one, restarts=0)
        self.engine.world.containers[one.id] = one
        self.engine.running.start(one)

    def stop(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/stop."""
        one = self.engine.container(name)
        if not self.engine.running.stop(one, _timeout(request), lambda: to.answer(204)):
            to.answer(304)

    def restart(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/restart."""
        one = self.engine.container(name)

        def again() -> None:
            held = self.engine.world.containers.get(one.id)
            try:
                if held is not None:
                    self._by_hand(held)
                to.answer(204)
            except Fault as fault:
                to.fault(fault.status, fault.message)

        if not self.engine.running.stop(one, _timeout(request), again):
            again()

    def kill(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/kill."""
        one = self.engine.container(name)
        self.engine.running.kill(one, signal_number(request.query.get("signal") or "SIGKILL"))
        to.answer(204)

    def wait(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/wait: the answer begins at once, and ends when the container does."""
        one = self.engine.container(name)
        condition = request.query.get("condition") or "not-running"
        running = self.engine.running
        to.stream()

        def tell(code: int) -> None:
            to.chunk(b'{"StatusCode":%d}\n' % code)
            to.end()

        if condition == "removed":
            running.removed.setdefault(one.id, []).append(tell)
        elif condition == "next-exit" or one.state in {"running", "paused"}:
            running.ended.setdefault(one.id, []).append(tell)
        else:
            tell(one.exit_code)

    def rename(self, request: Request, to: Connection, name: str) -> None:
        """POST /containers/ID/rename."""
        one = self.engine.container(name)
        wanted = request.query.get("name", "").lstrip("/")
        if any(other.spec.name == wanted for other in self.engine.world.containers.values()):
            raise conflict(f'Conflict. The container name "/{wanted}" is already in use')
        if not wanted:
            raise bad("Neither old nor new names may be empty")
        self.engine.put(replace(one, spec=replace(one.spec, name=wanted)))
        self.engine.events.container(one.id, "rename", oldName=f"/{one.spec.name}")
        to.answer(204)

    def remove(self, request: Request, to: Connection, name: str) -> None:
        """DELETE /containers/ID."""
        one = self.engine.container(name)
        volumes = [held.source for held in one.spec.mounts if held.kind == "volume" and len(held.source) == 64]  # noqa: PLR2004

        def done() -> None:
            if request.on("v"):
                for volume in volumes:
                    shutil.rmtree(Path(self.engine.root, "volumes", volume), ignore_errors=True)
            to.answer(204)

        self.engine.running.remove(one, done, force=request.on("force"))

    # Networks

    def create_network(self, request: Request, to: Connection, _: str) -> None:
        """POST /networks/create."""
        made = self.engine.create_network(network_spec(request.json()))
        to.json({"Id": made.id, "Warning": ""}, 201)

    def remove_network(self, _: Request, to: Connection, name: str) -> None:
        """DELETE /networks/ID."""
        one = self.engine.find_network(name)
        self.engine.remove_network(one)
        to.answer(204)

    def connect(self, request: Request, to: Connection, name: str) -> None:
        """POST /networks/ID/connect."""
        body = request.json()
        network = self.engine.find_network(name)
        one = self.engine.container(str(body.get("Container") or ""))
        asked: Any = body.get("EndpointConfig") or {}
        fixed = asked.get("IPAMConfig") or {}
        attachment = Attachment(
            network.spec.name,
            fixed.get("IPv4Address") or "",
            fixed.get("IPv6Address") or "",
            tuple(asked.get("Aliases") or ()),
            asked.get("MacAddress") or "",
            int(asked.get("GwPriority") or 0),
        )
        if network.spec.name == "host":
            raise Fault(403, "container cannot be connected to host network")
        if one.spec.network_mode == "host" or one.spec.network_mode.startswith("container:"):
            shared = "container sharing network namespace with another container or host"
            raise Fault(403, f"{shared} cannot be connected to any other network")
        if any(
            endpoint.network_id == network.id for endpoint in one.endpoints if endpoint.address or endpoint.address6
        ):
            raise Fault(403, f"endpoint with name {one.spec.name} already exists in network {network.spec.name}")
        self._with_network(one, lambda descriptor: self.engine.network.connect(one.id, attachment, descriptor))
        one = self.engine.world.containers[one.id]
        self._changed(one, network, "connect")
        to.answer(200)

    def disconnect(self, request: Request, to: Connection, name: str) -> None:
        """POST /networks/ID/disconnect."""
        network = self.engine.find_network(name)
        one = self.engine.container(str(request.json().get("Container") or ""))
        held = any(endpoint.network_id == network.id for endpoint in one.endpoints)
        if not held and all(asked.network != network.spec.name for asked in one.spec.networks):
            raise Fault(403, f"container {one.id} is not connected to network {network.spec.name}")
        self._with_network(one, lambda descriptor: self.engine.network.disconnect(one.id, network.id, descriptor))
        one = self.engine.world.containers[one.id]
        self._changed(one, network, "disconnect")
        to.answer(200)

    def _with_network(self, one: Container, change: Callable[[int | None], object]) -> None:
        descriptor = (
            os.open(one.sandbox, os.O_RDONLY | os.O_CLOEXEC) if one.state == "running" and one.sandbox else None
        )
        try:
            change(descriptor)
        except NetworkError as error:
            raise (Fault(403, str(error)) if "already exists" in str(error) else broken(str(error))) from error
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _changed(self, one: Container, network: Network, action: str) -> None:
        self.engine.put(one)
        if one.state == "running":
            remember(one)
            self.engine.running.names.write(one)
            self.engine.events.network(network.id, action, network.spec.name, network.spec.driver, one.id)

    # Volumes

    def create_volume(self, request: Request, to: Connection, _: str) -> None:
        """POST /volumes/create."""
        from doctor.runtime.daemon.objects import volume

        name = str(request.json().get("Name") or os.urandom(32).hex())
        self.engine.create_volume(name)
        to.json(volume(self.engine.root, name), 201)

    def remove_volume(self, _: Request, to: Connection, name: str) -> None:
        """DELETE /volumes/NAME."""
        place = Path(self.engine.root, "volumes", name)
        if "/" in name or name.startswith(".") or not place.is_dir():
            raise not_found(f"get {name}: no such volume")
        users = [
            one.id
            for one in self.engine.world.containers.values()
            if any(held.kind == "volume" and held.source == name for held in one.spec.mounts)
        ]
        if users:
            raise conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        shutil.rmtree(place, ignore_errors=True)
        self.engine.events.volume(name, "destroy")
        to.answer(204)


def _timeout(request: Request) -> float | None:
    text = request.query.get("t")
    try:
        return float(text) if text else None
    except ValueError:
        raise bad(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def network_spec(body: dict[str, Any]) -> NetworkSpec:
    """Read the body of POST /networks/create. Raises Fault."""
    driver = body.get("Driver") or "bridge"
    if driver not in {"bridge", "default"}:
        if driver in {"host", "null"}:
            raise Fault(403, f'only one instance of "{driver}" network is allowed')
        raise not_found(
            f"could not find plugin {driver} in v1 plugin registry: plugin {driver!r} not found".replace("'", '"')
        )
    pools = tuple(
        Pool(
            one.get("Subnet") or "",
            one.get("IPRange") or "",
            one.get("Gateway") or "",
            dict(one.get("AuxiliaryAddresses") or one.get("AuxAddress") or {}),
        )
        for one in (body.get("IPAM") or {}).get("Config") or ()
    )
    ipv4 = body.get("EnableIPv4")
    return NetworkSpec(
        str(body.get("Name") or ""),
        pools=pools,
        internal=bool(body.get("Internal")),
        ipv4=True if ipv4 is None else bool(ipv4),
        ipv6=bool(body.get("EnableIPv6")),
        options={name: str(value) for name, value in (body.get("Options") or {}).items()},
        labels=dict(body.get("Labels") or {}),
    )


__all__ = ["BUILT_IN", "Commands", "network_spec"]
