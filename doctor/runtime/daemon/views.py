"""Containers as the API answers: `/containers/json`, `/containers/ID/json`, field by field as each generation has them.

Source: moby api/swagger.yaml, daemon/inspect.go, daemon/list.go, and answers of 20.10.24, 26.1.5 and 28.5.2 to the same
requests (`tests/runtime/daemon/keys.json` has their keys).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon import spec as spelling
from doctor.runtime.daemon.clock import ago, seconds
from doctor.runtime.model import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.daemon.generation import Release
    from doctor.runtime.daemon.store import Store
    from doctor.runtime.model import Bind, Container, World

NEVER = "0001-01-01T00:00:00Z"
_RUNS = frozenset({"running", "paused", "restarting"})


class Views:
    """What is told of containers; `where` is the data root."""

    def __init__(self, world: World, store: Store, release: Release, where: str) -> None:
        """Read from the daemon's world, at each answer anew."""
        self.world = world
        self.store = store
        self.release = release
        self.where = where
        self.probes: Callable[[str], list[dict[str, Any]]] = lambda _: []
        """Gives the last probes of a container's health check."""

    # One container

    def inspect(self, one: Container, *, whole: bool = True) -> dict[str, Any]:
        """Answer /containers/ID/json; without HostConfig and GraphDriver where it is not to be `whole`."""
        folder = f"{self.where}/containers/{one.id}"
        path, *arguments = spelling.argv(one.spec)
        begun = bool(one.started)
        links = [f"/{self._name(target)}:/{one.spec.name}/{alias}" for alias, target in sorted(one.links.items())]
        return {
            "Id": one.id,
            "Created": one.created,
            "Path": path,
            "Args": arguments,
            "State": self.state(one),
            "Image": one.image_id,
            "ResolvConfPath": f"{folder}/resolv.conf" if begun else "",
            "HostnamePath": f"{folder}/hostname" if begun else "",
            "HostsPath": f"{folder}/hosts" if begun else "",
            "LogPath": f"{folder}/{one.id}-json.log" if begun else "",
            "Name": f"/{one.spec.name}",
            "RestartCount": one.restarts,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": None,
            **({"HostConfig": spelling.host_config(one.spec, self.release, links or None)} if whole else {}),
            **({"GraphDriver": self._graph(one)} if whole else {}),
            "Mounts": self._mounts(one),
            "Config": spelling.config(one.spec, one.id),
            "NetworkSettings": self._settings(one),
        }

    def state(self, one: Container) -> dict[str, Any]:
        """Give State."""
        found: dict[str, Any] = {
            "Status": one.state,
            "Running": one.state in _RUNS,
            "Paused": one.state == "paused",
            "Restarting": one.state == "restarting",
            "OOMKilled": one.oom_killed,
            "Dead": one.state == "dead",
            "Pid": one.pid,
            "ExitCode": one.exit_code,
            "Error": one.error,
            "StartedAt": one.started or NEVER,
            "FinishedAt": one.finished or NEVER,
        }
        if one.health:
            log = self.probes(one.id)
            found["Health"] = {"Status": one.health, "FailingStreak": one.failing, "Log": log}
        return found

    def _graph(self, one: Container) -> dict[str, Any]:
        held = self.store.mounted(one.mount_id)
        folders = ":".join(self.store.folder(lower) for lower in held.lowers)
        data = {"ID": one.id} if self.release >= (28, 0) else {}
        data |= {"LowerDir": folders, "MergedDir": held.merged, "UpperDir": held.upper, "WorkDir": held.work}
        return {"Data": data, "Name": "overlay2"}

    def _mounts(self, one: Container) -> list[dict[str, Any]]:
        return [self._mount(bind) for bind in one.spec.mounts if bind.kind != "tmpfs"]

    def _mount(self, bind: Bind) -> dict[str, Any]:
        if bind.kind == "bind":
            rest = {"Mode": bind.options, "RW": not bind.readonly, "Propagation": "rprivate"}
            return {"Type": "bind", "Source": bind.source, "Destination": bind.target, **rest}
        return {
            "Type": "volume",
            "Name": bind.source,
            "Source": f"{self.where}/volumes/{bind.source}/_data",
            "Destination": bind.target,
            "Driver": "local",
            "Mode": bind.options or "z",
            "RW": not bind.readonly,
            "Propagation": "",
        }

    # Networks of a container

    def _settings(self, one: Container) -> dict[str, Any]:
        networks = self.networks(one)
        first = networks.get("bridge", {})
        found: dict[str, Any] = {
            "Bridge": "",
            "SandboxID": one.sandbox_id,
            "SandboxKey": one.sandbox.replace("/run/", "/var/run/", 1) if one.sandbox else "",
            "Ports": self.ports(one),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
        }
        for key in ("EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen"):
            found[key] = first.get(key, 0 if key.endswith("Len") else "")
        found |= {key: first.get(key, "") for key in ("IPv6Gateway", "MacAddress")}
        return found | {"Networks": networks}

    def ports(self, one: Container) -> dict[str, list[dict[str, str]] | None]:
        """Give NetworkSettings.Ports: each exposed port, and where on the host it is; nothing while it does not run."""
        if one.state not in {"running", "paused"} or one.spec.network_mode:
            return {}
        found: dict[str, list[dict[str, str]] | None] = {
            text if "/" in text else f"{text}/tcp": None for text in sorted(one.spec.expose)
        }
        for bound in one.ports:
            held = found.get(f"{bound.port}/{bound.protocol}") or []
            held.append({"HostIp": bound.host_ip, "HostPort": str(bound.host_port)})
            found[f"{bound.port}/{bound.protocol}"] = held
        return found

    def networks(self, one: Container, *, listed: bool = False) -> dict[str, dict[str, Any]]:
        """Give NetworkSettings.Networks; in a list of containers names are left out."""
        found = {}
        for endpoint in one.endpoints:
            network = self.world.networks.get(endpoint.network_id)
            if network is not None:
                found[network.spec.name] = self.endpoint(one, endpoint, network.spec.name, listed=listed)
        asked = [attachment.network for attachment in one.spec.networks] or [one.spec.network_mode or "bridge"]
        for name in asked if not one.spec.network_mode.startswith("container:") else ():
            if name not in found:
                identity = "" if not one.started else self._network_id(name)
                found[name] = self.endpoint(one, Endpoint(identity, ""), name, listed=listed)
        return found

    def _network_id(self, name: str) -> str:
        return next((one.id for one in self.world.networks.values() if one.spec.name == name), "")

    def endpoint(self, one: Container, endpoint: Endpoint, network: str, *, listed: bool = False) -> dict[str, Any]:
        """Give one endpoint, with the keys of this release, in its order."""
        asked = next((held for held in one.spec.networks if held.network == network), None)
        fixed = {"IPv4Address": asked.ip, "IPv6Address": asked.ip6} if asked else {}
        fixed = {key: value for key, value in fixed.items() if value}
        aliases = list(asked.aliases) if asked else []
        own = network != "bridge" and not one.spec.network_mode
        old = self.release < (26, 0)
        if old and own:
            aliases.append(one.id[:12])
        head: dict[str, Any] = {
            "IPAMConfig": fixed or None,
            "Links": None,
            "Aliases": (aliases or None) if not listed else None,
        }
        place: dict[str, Any] = {
            "NetworkID": endpoint.network_id,
            "EndpointID": endpoint.id if endpoint.address or endpoint.address6 or one.spec.network_mode else "",
            "Gateway": endpoint.gateway,
            "IPAddress": endpoint.address,
            "IPPrefixLen": endpoint.prefix,
            "IPv6Gateway": endpoint.gateway6,
            "GlobalIPv6Address": endpoint.address6,
            "GlobalIPv6PrefixLen": endpoint.prefix6,
        }
        mac = {"MacAddress": endpoint.mac}
        if old:
            return head | place | mac | {"DriverOpts": None}
        names = list(endpoint.names) if own and endpoint.address and not listed else None
        if self.release < (28, 0):
            return head | mac | place | {"DriverOpts": None, "DNSNames": names}
        return (
            head
            | mac
            | {"DriverOpts": None, "GwPriority": asked.priority if asked else 0}
            | place
            | {"DNSNames": names}
        )

    # Lists

    def listed(self, one: Container, now: float, *, size: bool = False) -> dict[str, Any]:
        """Answer for one container of /containers/json."""
        image = self.world.images.get(one.image_id)
        found: dict[str, Any] = {
            "Id": one.id,
            "Names": self.names(one),
            "Image": one.spec.image if image is not None else one.image_id,
            "ImageID": one.image_id,
            "Command": _command(spelling.argv(one.spec)),
            "Created": int(seconds(one.created)),
            "Ports": self.listed_ports(one),
        }
        if size:
            found["SizeRootFs"] = sum(layer.size for layer in image.layers) if image else 0
        return found | {
            "Labels": one.spec.labels,
            "State": one.state,
            "Status": status(one, now),
            "HostConfig": {"NetworkMode": spelling.network_mode(one.spec, self.release)},
            "NetworkSettings": {"Networks": self.networks(one, listed=True)},
            "Mounts": self._mounts(one),
        }

    def names(self, one: Container) -> list[str]:
        """Give its names: its own, and those by which others link to it."""
        linked = [
            f"/{other.spec.name}/{alias}"
            for other in self.world.containers.values()
            for alias, target in other.links.items()
            if target == one.id
        ]
        return sorted([*linked, f"/{one.spec.name}"])

    def listed_ports(self, one: Container) -> list[dict[str, Any]]:
        """Give Ports of a list."""
        found: list[dict[str, Any]] = []
        for spelled, held in self.ports(one).items():
            number, _, protocol = spelled.partition("/")
            if held is None:
                found.append({"PrivatePort": int(number), "Type": protocol})
            found += [
                {
                    "IP": where["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(where["HostPort"]),
                    "Type": protocol,
                }
                for where in held or ()
            ]
        return found

    def _name(self, identity: str) -> str:
        found = self.world.containers.get(identity)
        return found.spec.name if found is not None else identity


def _command(argv: tuple[str, ...]) -> str:
    """Join a command as a list of containers tells it: words with spaces in apostrophes."""
    return " ".join([argv[0], *(f"'{word}'" if " " in word else word for word in argv[1:])]) if argv else ""


def status(one: Container, now: float) -> str:
    """Say how it is, as `docker ps` does (moby daemon/container State.String)."""
    if one.state == "created":
        return "Created"
    if one.state in {"running", "paused"}:
        text = f"Up {ago(now - seconds(one.started))}"
        if one.state == "paused":
            return f"{text} (Paused)"
        return f"{text} ({'health: starting' if one.health == 'starting' else one.health})" if one.health else text
    since = ago(now - seconds(one.finished))
    if one.state == "restarting":
        return f"Restarting ({one.exit_code}) {since} ago"
    if one.state == "dead":
        return "Dead"
    return f"Exited ({one.exit_code}) {since} ago"
