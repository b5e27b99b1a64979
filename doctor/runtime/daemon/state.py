"""What the daemon keeps of containers and networks in its data root, and reads again when it starts.

A container is kept as the engine keeps it (config.v2.json, hostconfig.json: moby container/container.go), so that readers
of a dead daemon's files find what they expect. Networks stand in network/files/networks.json, a file of our own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec.structs import replace

from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.boltempty import database
from doctor.runtime.daemon.system import architecture
from doctor.runtime.daemon.views import NEVER, Views
from doctor.runtime.model import Container, Endpoint, Network

if TYPE_CHECKING:
    from doctor.runtime.daemon.generation import Release
    from doctor.runtime.model import ContainerSpec
    from doctor.runtime.model import State as StateName

_NETWORKS = "network/files/networks.json"
_VOLATILE = frozenset({"Status"})


class State:
    """The files of one data root."""

    def __init__(self, root: str, views: Views) -> None:
        """Take the data root, whose folders are there (`Store` makes them)."""
        self.root = Path(root)
        self.views = views
        self._specs: dict[str, tuple[ContainerSpec, list[str]]] = {}
        """What hostconfig.json of each container was written from: most changes of a container are not in it."""

    def folder(self, identity: str) -> Path:
        """Give the folder of a container."""
        return self.root / "containers" / identity

    # Containers

    def create(self, one: Container) -> None:
        """Make the folder of a container and write it. Raises OSError."""
        place = f"{self.root}/containers/{one.id}"
        os.mkdir(place, 0o710)  # noqa: PTH102 - as in _replace
        os.mkdir(f"{place}/checkpoints", 0o700)  # noqa: PTH102 - as above
        self.save(one)

    def save(self, one: Container) -> None:
        """Write a container, in one step each file. Raises OSError."""
        place = f"{self.root}/containers/{one.id}"
        release = self.views.release
        links = [f"{self._name(target)}:{alias}" for alias, target in sorted(one.links.items())]
        if self._specs.get(one.id) != (one.spec, links):
            _replace(f"{place}/hostconfig.json", spelling.host_config(one.spec, release, links or None))
            self._specs[one.id] = (one.spec, links)
        _replace(f"{place}/config.v2.json", self._config(one, release))

    def _name(self, identity: str) -> str:
        found = self.views.world.containers.get(identity)
        return found.spec.name if found is not None else identity

    def _config(self, one: Container, release: Release) -> dict[str, Any]:
        told = self.views.inspect(one, whole=False)
        state = {key: value for key, value in told["State"].items() if key not in _VOLATILE}
        health = state.pop("Health", None)
        if release < (28, 0):
            state["RemovalInProgress"] = False
        networks = told["NetworkSettings"]["Networks"]
        more = {"IPAMOperational": False} | ({} if release < (26, 0) else {"DesiredMacAddress": ""})
        settings = {key: told["NetworkSettings"][key] for key in ("Bridge", "SandboxID", "SandboxKey", "HairpinMode")}
        settings |= {
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "Networks": {name: {**endpoint, **more} for name, endpoint in networks.items()},
            "Service": None,
            "Ports": told["NetworkSettings"]["Ports"] if one.started else None,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            **({"IsAnonymousEndpoint": False} if release < (26, 0) else {}),
            "HasSwarmEndpoint": False,
        }
        found: dict[str, Any] = {
            "StreamConfig": {},
            "State": {**state, "Health": health},
            "ID": one.id,
            "Created": one.created,
            "Managed": False,
            "Path": told["Path"],
            "Args": told["Args"],
            "Config": told["Config"],
            "Image": one.image_id,
            **({"ImageManifest": None} if release >= (25, 0) else {}),
            "NetworkSettings": settings,
            "LogPath": told["LogPath"],
            "Name": told["Name"],
            "Driver": "overlay2",
            "OS": "linux",
        }
        if release >= (28, 0):
            found["ImagePlatform"] = {"architecture": architecture(), "os": "linux"}
        return found | {
            "RestartCount": one.restarts,
            "HasBeenStartedBefore": bool(one.started),
            "HasBeenManuallyStopped": one.manually_stopped,
            "MountPoints": {held["Destination"]: _mount_point(held) for held in told["Mounts"]},
            "SecretReferences": None,
            "ConfigReferences": None,
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "SeccompProfile": "",
            "NoNewPrivileges": one.spec.no_new_privileges,
            **({"WritableCgroups": None} if release >= (28, 0) else {}),
            "HostnamePath": told["HostnamePath"],
            "HostsPath": told["HostsPath"],
            "ShmPath": "",
            "ResolvConfPath": told["ResolvConfPath"],
            "LocalLogCacheMeta": {"HaveNotifyEnabled": False},
        }

    def remove(self, identity: str) -> None:
        """Take the folder of a container away."""
        self._specs.pop(identity, None)
        shutil.rmtree(self.folder(identity), ignore_errors=True)

    def containers(self, networks: dict[str, Network]) -> tuple[dict[str, Container], list[tuple[str, str]]]:
        """Read all containers by id, oldest first, and of those that cannot be read id and reason."""
        found: list[Container] = []
        wrong: list[tuple[str, str]] = []
        place = self.root / "containers"
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            try:
                config = json.loads((path / "config.v2.json").read_bytes())
                config["Config"]["HostConfig"] = json.loads((path / "hostconfig.json").read_bytes())
                found.append(_loaded(config, path.name, networks))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                wrong.append((path.name, str(error)))
        found.sort(key=lambda one: one.created)
        by_name = {one.spec.name: one.id for one in found}
        linked = [replace(one, links=_links(one, by_name)) for one in found]
        return {one.id: one for one in linked}, wrong

    # Networks

    def save_networks(self, networks: dict[str, Network]) -> None:
        """Write all networks. Raises OSError."""
        path = self.root / _NETWORKS
        _replace(f"{path}", msgspec.to_builtins(list(networks.values())))
        if not (path.parent / "local-kv.db").exists():
            (path.parent / "local-kv.db").write_bytes(database())
            (path.parent / "local-kv.db").chmod(0o644)

    def networks(self) -> dict[str, Network]:
        """Read all networks by id; none where there is no file, or it is none of ours."""
        try:
            held = msgspec.json.decode((self.root / _NETWORKS).read_bytes(), type=list[Network])
        except (OSError, msgspec.MsgspecError):
            return {}
        return {one.id: one for one in held}


def _mount_point(told: dict[str, Any]) -> dict[str, Any]:
    common = {"Source": told["Source"], "Destination": told["Destination"], "RW": told["RW"]}
    rest = {"Name": told.get("Name", ""), "Driver": told.get("Driver", ""), "Type": told["Type"]}
    return (
        common | rest | {"Relabel": told["Mode"], "Propagation": told["Propagation"], "SkipMountpointCreation": False}
    )


def _links(one: Container, by_name: dict[str, str]) -> dict[str, str]:
    pairs = (text.rpartition(":") for text in one.spec.links)
    return {alias: by_name[name or alias] for name, _, alias in pairs if (name or alias) in by_name}


def _loaded(config: dict[str, Any], identity: str, networks: dict[str, Network]) -> Container:
    """Put a container together again. Raises KeyError, TypeError for what lacks a part."""
    body = config["Config"]
    settings = config["NetworkSettings"]
    held: dict[str, Any] = settings.get("Networks") or {}
    body["NetworkingConfig"] = {"EndpointsConfig": {name: _asked(one or {}, identity) for name, one in held.items()}}
    state = config["State"]
    if body.get("Hostname") == identity[:12]:
        body["Hostname"] = ""  # it was given none
    spec = spelling.parse(body, config["Name"].lstrip("/"))
    health = (state.get("Health") or {}).get("Status", "")
    return Container(
        id=identity,
        spec=spec,
        image_id=config["Image"],
        state=_state(state),
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        error=state.get("Error") or "",
        oom_killed=bool(state.get("OOMKilled")),
        created=config["Created"],
        started=_time(state.get("StartedAt")),
        finished=_time(state.get("FinishedAt")),
        restarts=int(config.get("RestartCount") or 0),
        sandbox=(settings.get("SandboxKey") or "").replace("/var/run/", "/run/", 1),
        sandbox_id=settings.get("SandboxID") or "",
        endpoints=tuple(_endpoint(one or {}) for one in held.values() if (one or {}).get("NetworkID") in networks),
        manually_stopped=bool(config.get("HasBeenManuallyStopped")),
        health=health if health != "none" else "",
    )


def _asked(endpoint: dict[str, Any], identity: str) -> dict[str, Any]:
    aliases = [one for one in endpoint.get("Aliases") or () if one != identity[:12]]
    return {"IPAMConfig": endpoint.get("IPAMConfig"), "Aliases": aliases, "GwPriority": endpoint.get("GwPriority")}


def _state(state: dict[str, Any]) -> StateName:
    for key, name in (("Paused", "paused"), ("Restarting", "restarting"), ("Running", "running"), ("Dead", "dead")):
        if state.get(key):
            return cast("StateName", name)
    return "exited" if _time(state.get("StartedAt")) or state.get("Error") else "created"


def _time(text: str | None) -> str:
    return "" if not text or text == NEVER else text


def _endpoint(held: dict[str, Any]) -> Endpoint:
    return Endpoint(
        network_id=held["NetworkID"],
        id=held.get("EndpointID") or "",
        address=held.get("IPAddress") or "",
        prefix=held.get("IPPrefixLen") or 0,
        gateway=held.get("Gateway") or "",
        address6=held.get("GlobalIPv6Address") or "",
        prefix6=held.get("GlobalIPv6PrefixLen") or 0,
        gateway6=held.get("IPv6Gateway") or "",
        mac=held.get("MacAddress") or "",
        names=tuple(held.get("DNSNames") or ()),
    )


def _replace(path: str, held: object) -> None:
    """Write JSON in one step, readable by root alone, as the engine does (pkg/ioutils AtomicFileWriter).

    A container is two of these, twice: pathlib and a file object would take as long as the kernel. Raises OSError.
    """
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.tmp-{name}{os.getpid()}"
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(msgspec.json.encode(held) + b"\n")
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)
        os.rename(part, path)  # noqa: PTH104 - as above
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)  # noqa: PTH108 - as above
        raise
