"""Networks, images and volumes as the API answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.clock import seconds

if TYPE_CHECKING:
    from doctor.runtime.daemon.generation import Generation
    from doctor.runtime.model import Image, Layer, Network, World

_EMPTY = ("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce")


def network(world: World, one: Network, generation: Generation, *, whole: bool) -> dict[str, Any]:
    """Answer for a network; with `whole` its containers too, which a list leaves out."""
    built_in = one.spec.driver != "bridge" or one.spec.name == "bridge"
    nothing: list[Any] | None = [] if generation.release < (23, 0) else None
    pools = [_pool(world, one, at) for at in range(len(one.pools))]
    found: dict[str, Any] = {
        "Name": one.spec.name,
        "Id": one.id,
        "Created": one.created,
        "Scope": "local",
        "Driver": one.spec.driver,
    }
    if generation.release >= (28, 0):
        found["EnableIPv4"] = one.spec.ipv4
    return found | {
        "EnableIPv6": one.spec.ipv6,
        "IPAM": {"Driver": "default", "Options": None if built_in else {}, "Config": pools or nothing},
        "Internal": one.spec.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": _members(world, one) if whole else {},
        "Options": one.spec.options,
        "Labels": one.spec.labels,
    }


def _pool(world: World, one: Network, at: int) -> dict[str, Any]:
    """Give a pool: as it was asked for, where it was, with the gateway that was chosen for one that was not."""
    held = one.pools[at]
    asked = one.spec.pools[at] if at < len(one.spec.pools) else None
    found: dict[str, Any] = {"Subnet": held.subnet}
    if asked is not None and asked.range:
        found["IPRange"] = asked.range
    if asked is None or asked.gateway or not asked.subnet or world.settings.dialect.startswith("29"):
        found["Gateway"] = held.gateway
    if asked is not None and asked.aux:
        found["AuxiliaryAddresses"] = asked.aux
    return found


def _members(world: World, one: Network) -> dict[str, Any]:
    found = {}
    for container in world.containers.values():
        if container.state not in {"running", "paused"}:
            continue
        for endpoint in container.endpoints:
            if endpoint.network_id == one.id:
                found[container.id] = {
                    "Name": container.spec.name,
                    "EndpointID": endpoint.id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.address}/{endpoint.prefix}" if endpoint.address else "",
                    "IPv6Address": f"{endpoint.address6}/{endpoint.prefix6}" if endpoint.address6 else "",
                }
    return found


# Images


def _size(image: Image) -> int:
    return sum(layer.size for layer in image.layers)


def image_listed(world: World, image: Image, generation: Generation) -> dict[str, Any]:
    """Answer for one image of /images/json."""
    release = generation.release
    users = sum(one.image_id == image.id for one in world.containers.values())
    found: dict[str, Any] = {
        "Containers": users if release >= (28, 0) else -1,
        "Created": int(seconds(image.created)),
        "Id": image.id,
        "Labels": (image.config.get("config") or {}).get("Labels"),
        "ParentId": "",
        "RepoDigests": None if release < (23, 0) else [],
        "RepoTags": list(image.tags) or (["<none>:<none>"] if release < (23, 0) else []),
        "SharedSize": -1,
        "Size": _size(image),
    }
    return found | ({"VirtualSize": found["Size"]} if release < (25, 0) else {})


def image_inspect(image: Image, generation: Generation, data_root: str) -> dict[str, Any]:
    """Answer /images/NAME/json."""
    release = generation.release
    history = image.config.get("history") or [{}]
    found: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": [],
        "Parent": "",
        "Comment": history[-1].get("comment", ""),
        "Created": image.created,
    }
    if release < (25, 0):
        found |= {"Container": "", "ContainerConfig": _image_config({}, old=True)}
    found |= {
        "DockerVersion": image.config.get("docker_version", ""),
        "Author": "",
        "Config": _image_config(image.config.get("config") or {}, old=release < (28, 0)),
        "Architecture": image.config.get("architecture", ""),
        "Os": "linux",
        "Size": _size(image),
    }
    if release < (25, 0):
        found["VirtualSize"] = found["Size"]
    return found | {
        "GraphDriver": {"Data": _graph(image.layers, data_root), "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": image.created},
    }


def _image_config(held: dict[str, Any], *, old: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if old:
        found = {"Hostname": "", "Domainname": "", "Image": "", **dict.fromkeys(_EMPTY, False)}
    found |= {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": ""}
    return found | {"Volumes": None, "WorkingDir": ""} | held


def _graph(layers: tuple[Layer, ...], data_root: str) -> dict[str, str]:
    place = f"{data_root}/overlay2/{layers[-1].cache_id}"
    below = ":".join(layer.folder for layer in reversed(layers[:-1]))
    found = {"LowerDir": below} if below else {}
    return found | {"MergedDir": f"{place}/merged", "UpperDir": f"{place}/diff", "WorkDir": f"{place}/work"}


def image_history(image: Image) -> list[dict[str, Any]]:
    """Answer /images/NAME/history, newest first."""
    layers = list(image.layers)
    found = []
    for step in image.config.get("history") or ():
        size = 0 if step.get("empty_layer") or not layers else layers.pop(0).size
        found.append(
            {
                "Comment": step.get("comment", ""),
                "Created": int(seconds(step.get("created", ""))),
                "CreatedBy": step.get("created_by", ""),
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
        )
    if found:
        found[-1] |= {"Id": image.id, "Tags": list(image.tags) or None}
    return found[::-1]


# Volumes


def volumes(data_root: str) -> list[dict[str, Any]]:
    """Read the volumes of a data root, by name."""
    place = Path(data_root, "volumes")
    names = sorted(path.name for path in place.iterdir() if (path / "_data").is_dir()) if place.is_dir() else []
    return [volume(data_root, name) for name in names]


def volume(data_root: str, name: str) -> dict[str, Any]:
    """Answer /volumes/NAME. Raises OSError where there is none."""
    from time import gmtime, strftime

    place = Path(data_root, "volumes", name)
    made = (place / "_data").stat().st_mtime
    labels: dict[str, str] | None = None
    try:
        labels = json.loads((place / "opts.json").read_bytes()).get("Labels")
    except (OSError, ValueError, AttributeError):
        labels = None
    return {
        "CreatedAt": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(made)),
        "Driver": "local",
        "Labels": labels,
        "Mountpoint": os.fspath(place / "_data"),
        "Name": name,
        "Options": None,
        "Scope": "local",
    }


def disk_usage(
    world: World, containers: list[dict[str, Any]], held: list[dict[str, Any]], generation: Generation
) -> dict[str, Any]:
    """Answer /system/df from what is listed of containers and volumes."""
    images = [
        image_listed(world, one, generation) | {"SharedSize": 0, "RepoDigests": None} for one in world.images.values()
    ]
    layers = {layer.chain_id: layer.size for image in world.images.values() for layer in image.layers}
    found: dict[str, Any] = {
        "LayersSize": sum(layers.values()),
        "Images": images,
        "Containers": containers,
        "Volumes": [{**one, "UsageData": {"RefCount": 0, "Size": 0}} for one in held],
        "BuildCache": [],
    }
    return found | ({"BuilderSize": 0} if generation.release < (23, 0) else {})
