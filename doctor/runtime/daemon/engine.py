"""The daemon's world and what changes it: containers are made and taken away, networks come and go.

What makes a container run and end is in `running`, commands in it are in `execs`; the links, rules and names of networks
are `doctor.runtime.network`'s. Each change is written to the data root before it is told of.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.runtime.daemon import limits
from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.events import Events
from doctor.runtime.daemon.fault import Fault, bad, broken, conflict, not_found
from doctor.runtime.daemon.generation import generation
from doctor.runtime.daemon.images import builtin
from doctor.runtime.daemon.log import Log, stamp
from doctor.runtime.daemon.names import random_name
from doctor.runtime.daemon.state import State
from doctor.runtime.daemon.store import Store
from doctor.runtime.daemon.views import Views
from doctor.runtime.model import Container, Image, Network, NetworkSpec, Settings, World
from doctor.runtime.network import NetworkController, NetworkError

if TYPE_CHECKING:
    from doctor.runtime.daemon.loop import Loop
    from doctor.runtime.daemon.running import Running
    from doctor.runtime.model import ContainerSpec

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TAGGED = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\d+/[a-z0-9._/-]+)?:[\w][\w.-]{0,127}")
"""A name with a tag (distribution/reference), without what few use."""
_ALLOWED = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
BUILT_IN = ("bridge", "host", "none")


class Engine:
    """Everything that one daemon knows and does. `running` is set by who puts both together."""

    running: Running

    def __init__(self, settings: Settings, loop: Loop, log: Log) -> None:
        """Read the data root. Raises OSError where it cannot be read or made."""
        self.generation = generation(settings.dialect, settings.version)
        self.release = self.generation.release
        self.loop = loop
        self.daemon_log = log
        self.root = settings.values["data-root"]
        self.run = settings.values["exec-root"].replace("/var/run/", "/run/", 1)
        self.store = Store(self.root)
        self.world = World(settings, {}, {}, {})
        self.views = Views(self.world, self.store, self.release, self.root)
        self.state = State(self.root, self.views)
        self.events = Events(self._about)
        self.network = NetworkController(self.world)
        self.controllers = limits.usable()
        """Those of control groups that containers are limited by here."""
        self.identity = self._own_id()

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self.world.settings

    def _own_id(self) -> str:
        """Give the daemon's ID, made once for a data root."""
        path = Path(self.root, "engine-id")
        try:
            return path.read_text(encoding="ascii")
        except OSError:
            text = secrets.token_hex(16)
            made = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
            path.write_text(made, encoding="ascii")
            path.chmod(0o600)
            return made

    # Start

    def load(self) -> None:
        """Read images, networks and containers, and set the networks up. Raises NetworkError, OSError."""
        with suppress(OSError, ValueError):  # a layer whose record is damaged is left out, and what stands on it
            builtin(self.store)
        self.world.images = self.store.images()
        self.world.networks.update(self.state.networks())
        for name, driver in (("host", "host"), ("none", "null")):
            if not any(one.spec.name == name for one in self.world.networks.values()):
                identity = secrets.token_hex(32)
                spec = NetworkSpec(name, driver=driver)  # type: ignore[arg-type]  # a literal of two tuples above
                self.world.networks[identity] = Network(identity, spec, "", (), stamp())
        held, wrong = self.state.containers(self.world.networks)
        for identity, reason in wrong:
            self.daemon_log.error("failed to load container", container=identity, error=reason)
        for one in held.values():
            self.world.containers[one.id] = replace(one, mount_id=self.store.mount_id(one.id))

    # Looking up

    def _about(self, identity: str) -> tuple[str, str, dict[str, str]]:
        one = self.world.containers.get(identity)
        return (one.spec.name, one.spec.image, one.spec.labels) if one else ("", "", {})

    def container(self, name: str) -> Container:
        """Find a container by id, name, or the beginning of its id. Raises Fault."""
        found = self.world.containers.get(name)
        if found is not None:
            return found
        for one in self.world.containers.values():
            if one.spec.name == name.lstrip("/"):
                return one
        near = [one for identity, one in self.world.containers.items() if name and identity.startswith(name)]
        if len(near) > 1:
            raise bad(f"Multiple IDs found with provided prefix: {name}")
        if not near:
            raise not_found(f"No such container: {name}")
        return near[0]

    def find_network(self, name: str) -> Network:
        """Find a network by id, name, or the beginning of its id. Raises Fault."""
        held = self.world.networks
        named = [one for one in held.values() if one.spec.name == name]
        near = [one for identity, one in held.items() if name and identity.startswith(name)]
        found = [held[name]] if name in held else named or near
        if len(found) > 1:
            raise bad(f"network {name} is ambiguous ({len(found)} matches found based on name)")
        if not found:
            raise not_found(f"network {name} not found")
        return found[0]

    def image(self, name: str) -> Image:
        """Find an image by name, id, or the beginning of its id. Raises Fault."""
        named = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        for one in self.world.images.values():
            if named in one.tags or name == one.id:
                return one
        short = name.removeprefix("sha256:")
        near = [
            one
            for one in self.world.images.values()
            if re.fullmatch("[0-9a-f]{4,64}", short) and one.id[7:].startswith(short)
        ]
        if len(near) == 1:
            return near[0]
        old = f"no such image: {name}: " if self.release < (23, 0) else ""
        raise not_found(f"{old}No such image: {named}")

    def tag(self, image: Image, name: str) -> None:
        """Give an image one more name, which is no other's any more. Raises Fault for what is no name."""
        name = name.removeprefix("docker.io/").removeprefix("library/")  # as the engine keeps it
        if not _TAGGED.fullmatch(name):
            raise bad("invalid reference format")
        for one in list(self.world.images.values()):
            kept = tuple(tag for tag in one.tags if tag != name)
            tags = (*kept, name) if one.id == image.id else kept
            self.world.images[one.id] = replace(one, tags=tags)
        self._keep_names()
        self.events.image(image.id, "tag", name)

    def untag(self, image: Image, name: str) -> str:
        """Take a name away from an image; gives it whole. Raises Fault for the last one: images of a lab stay."""
        whole = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if whole not in image.tags or len(image.tags) == 1:
            raise conflict(f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - images of a lab stay")
        self.world.images[image.id] = replace(image, tags=tuple(tag for tag in image.tags if tag != whole))
        self._keep_names()
        self.events.image(image.id, "untag", whole)
        return whole

    def _keep_names(self) -> None:
        try:
            self.store.save_names(self.world.images)
        except OSError as error:
            raise broken(f"{error.filename or self.root}: {(error.strerror or str(error)).lower()}") from error

    # Containers

    def put(self, one: Container) -> Container:
        """Keep a container as it is now, in memory and on disk."""
        self.world.containers[one.id] = one
        try:
            self.state.save(one)
        except OSError as error:
            self.daemon_log.error("failed to save container", container=one.id, error=str(error))
        return one

    def create(self, asked: ContainerSpec) -> Container:
        """Make a container. Raises Fault."""
        name = asked.name.lstrip("/")
        if name and (not _NAME.fullmatch(name) or len(name) < 2):  # noqa: PLR2004 - as the engine has it
            raise bad(f"Invalid container name ({name}), {_ALLOWED}")
        taken = {one.spec.name: one.id for one in self.world.containers.values()}
        if name in taken:
            raise conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{taken[name]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )
        image = self.image(asked.image)
        identity = secrets.token_hex(32)
        try:
            spec = spelling.settled(replace(asked, name=name or random_name(taken)), image)
        except spelling.SpecError as error:
            raise bad(str(error)) from error
        spec = self._defaults(spec)
        links = self._links(spec)
        one = Container(identity, spec, image.id, created=stamp(), links=links)
        try:
            one = replace(one, mount_id=self.store.add_container(identity, image))
            self.world.containers[identity] = one
            self.state.create(one)
            self._volumes(spec)
        except OSError as error:
            self.world.containers.pop(identity, None)
            self.store.remove_container(identity)
            self.state.remove(identity)
            raise broken(f"{error.filename or self.root}: {(error.strerror or str(error)).lower()}") from error
        self.events.container(identity, "create")
        return one

    def _defaults(self, spec: ContainerSpec) -> ContainerSpec:
        """Fill in what the daemon's own configuration says of new containers."""
        values = self.settings.values
        mounts = tuple(
            replace(one, source=secrets.token_hex(32)) if one.kind == "volume" and not one.source else one
            for one in spec.mounts
        )
        host = os.uname().nodename if spec.network_mode == "host" and not spec.hostname else spec.hostname
        return replace(
            spec,
            mounts=mounts,
            hostname=host,
            log_driver=spec.log_driver or values["log-driver"],
            log_options=spec.log_options if spec.log_driver else {**values["log-opts"], **spec.log_options},
            init=spec.init or values["init"],
            no_new_privileges=spec.no_new_privileges or values["no-new-privileges"],
        )

    def _links(self, spec: ContainerSpec) -> dict[str, str]:
        found = {}
        for text in spec.links:
            name, _, alias = text.partition(":")
            try:
                target = self.container(name)
            except Fault as error:
                raise bad(f"could not get container for {name}: {error.message}") from error
            found[alias.rpartition("/")[2] or target.spec.name] = target.id
        return found

    def _volumes(self, spec: ContainerSpec) -> None:
        for one in spec.mounts:
            if one.kind == "volume":
                self.create_volume(one.source)
            elif one.kind == "bind" and not os.path.lexists(one.source):
                os.makedirs(one.source, 0o755, exist_ok=True)  # noqa: PTH103 - a text

    def create_volume(self, name: str) -> None:
        """Make a volume, unless it is there. Raises Fault, OSError."""
        if not _NAME.fullmatch(name):
            raise bad(f'create {name}: "{name}" includes invalid characters for a local volume name, {_ALLOWED}')
        place = Path(self.root, "volumes", name)
        if place.exists():
            return
        place.mkdir(0o701)
        place.chmod(0o701)
        (place / "_data").mkdir(0o755)
        self.events.volume(name, "create")

    def remove(self, one: Container) -> None:
        """Take a container that does not run away. Raises Fault."""
        self.store.remove_container(one.id)
        self.state.remove(one.id)
        self.world.containers.pop(one.id, None)
        for other in list(self.world.containers.values()):
            if one.id in other.links.values():
                self.put(replace(other, links={name: to for name, to in other.links.items() if to != one.id}))

    # Networks

    def create_network(self, spec: NetworkSpec) -> Network:
        """Make a network. Raises Fault."""
        if spec.name in BUILT_IN:
            raise Fault(403, f"operation is not permitted on predefined {spec.name} network")
        if any(one.spec.name == spec.name for one in self.world.networks.values()):
            raise conflict(f"network with name {spec.name} already exists")
        try:
            made = self.network.create_network(spec, secrets.token_hex(32), stamp())
        except NetworkError as error:
            raise (Fault(403, str(error)) if "overlaps" in str(error) else bad(str(error))) from error
        self._keep_networks()
        self.events.network(made.id, "create", spec.name, spec.driver)
        return made

    def remove_network(self, one: Network) -> None:
        """Take a network away. Raises Fault."""
        if one.spec.name in BUILT_IN:
            raise Fault(403, f"{one.spec.name} is a pre-defined network and cannot be removed")
        try:
            self.network.remove_network(one.id)
        except NetworkError as error:
            raise Fault(403, f"error while removing network: {error}") from error
        self._keep_networks()
        self.events.network(one.id, "destroy", one.spec.name, one.spec.driver)

    def _keep_networks(self) -> None:
        try:
            self.state.save_networks(self.world.networks)
        except OSError as error:
            self.daemon_log.error("failed to save networks", error=str(error))
