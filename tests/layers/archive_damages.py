"""Archives of every make, and damages of them by chance: each changes one, and says which member has to be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tests.layers.archives import Archive, config_of, digest, layers_of, new_save, oci, old_save, tar_of

if TYPE_CHECKING:
    import random

try:
    from compression import zstd
except ImportError:
    try:
        from backports import zstd  # type: ignore[no-redef]
    except ImportError:
        zstd = None  # type: ignore[assignment]

Make: TypeAlias = Callable[[list[bytes]], Archive]
MAKES: dict[str, Make] = {
    "old": old_save,
    "new": new_save,
    "oci-gzip": oci,
    "oci-plain": lambda layers: oci(layers, bytes, ""),
}
if zstd is not None:
    MAKES["oci-zstd"] = lambda layers: oci(layers, zstd.compress, "+zstd")


def _flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flip_in_layer(made: Archive, chance: random.Random) -> str:
    """One bit of a layer."""
    name = chance.choice([one for one in made.layers if one in made.members])
    made.members[name] = _flip(made.members[name], chance)
    return name


def flip_in_config(made: Archive, chance: random.Random) -> str:
    """One bit of a configuration."""
    made.members[made.config] = _flip(made.members[made.config], chance)
    return made.config


def flip_in_manifest(made: Archive, chance: random.Random) -> str:
    """One bit of a manifest that an index names by its digest."""
    if made.manifest == "manifest.json":
        return flip_in_config(made, chance)
    made.members[made.manifest] = _flip(made.members[made.manifest], chance)
    return made.manifest


def zeros_in_layer(made: Archive, chance: random.Random) -> str:
    """A block of zeros."""
    name = chance.choice([one for one in made.layers if one in made.members])
    data = made.members[name]
    at = chance.randrange(len(data) - 40)
    changed = data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    made.members[name] = changed if changed != data else _flip(data, chance)
    return name


def layer_ends_early(made: Archive, chance: random.Random) -> str:
    """A layer without its end."""
    name = chance.choice([one for one in made.layers if one in made.members])
    made.members[name] = made.members[name][: chance.randrange(len(made.members[name]))]
    return name


def layer_is_empty(made: Archive, chance: random.Random) -> str:
    """A layer of no bytes, as a full disk leaves it."""
    name = chance.choice([one for one in made.layers if one in made.members])
    made.members[name] = b""
    return name


def layer_is_gone(made: Archive, chance: random.Random) -> str:
    """A layer that is not there."""
    name = chance.choice([one for one in made.layers if one in made.members])
    del made.members[name]
    return name


def config_is_gone(made: Archive, chance: random.Random) -> str:  # noqa: ARG001 - as the others
    """A configuration that is not there."""
    del made.members[made.config]
    return made.config


def layers_are_swapped(made: Archive, chance: random.Random) -> str:
    """Two layers under each other's name."""
    one, two = chance.sample([name for name in made.layers if name in made.members], 2)
    made.members[one], made.members[two] = made.members[two], made.members[one]
    return one


def bytes_after_layer(made: Archive, chance: random.Random) -> str:
    """A layer that goes on."""
    name = chance.choice([one for one in made.layers if one in made.members])
    made.members[name] += b"and more"
    return name


def no_manifest(made: Archive, chance: random.Random) -> str:  # noqa: ARG001 - as the others
    """Neither of the files that say what is in it."""
    made.members.pop("manifest.json", None)
    made.members.pop("index.json", None)
    return "manifest.json"


def manifest_is_cut(made: Archive, chance: random.Random) -> str:
    """The list of images ends early."""
    name = "manifest.json" if "manifest.json" in made.members else "index.json"
    data = made.members[name].rstrip()
    made.members[name] = data[: chance.randrange(1, len(data) - 1)]
    return name


def layer_leads_out(made: Archive, chance: random.Random) -> str:
    """A layer with a name that climbs out, in an archive that is right in everything else."""
    bad = tar_of({"etc/../../../root/.ssh/authorized_keys": b"key"})
    make = old_save if made.manifest == "manifest.json" else new_save if "manifest.json" in made.members else oci
    fresh = make([*layers_of(chance), bad])
    made.members.clear()
    made.members.update(fresh.members)
    return fresh.layers[-1]


def one_layer_too_few(made: Archive, chance: random.Random) -> str:
    """A configuration of two layers for a manifest of three."""
    short = config_of(layers_of(chance, 2))
    if made.manifest != "manifest.json":
        manifest = json.loads(made.members.pop(made.manifest))
        manifest["config"] |= {"digest": digest(short), "size": len(short)}
        data = json.dumps(manifest).encode()
        name = f"blobs/sha256/{digest(data)[7:]}"
        made.members[name] = data
        made.members[f"blobs/sha256/{digest(short)[7:]}"] = short
        index = json.loads(made.members["index.json"])
        index["manifests"][0] |= {"digest": digest(data), "size": len(data)}
        made.members["index.json"] = json.dumps(index).encode()
        return name
    listed = json.loads(made.members["manifest.json"])
    listed[0]["Config"] = f"{digest(short)[7:]}.json"
    made.members[listed[0]["Config"]] = short
    made.members["manifest.json"] = json.dumps(listed).encode()
    return "manifest.json"


DAMAGES = (
    flip_in_layer,
    flip_in_config,
    flip_in_manifest,
    zeros_in_layer,
    layer_ends_early,
    layer_is_empty,
    layer_is_gone,
    config_is_gone,
    layers_are_swapped,
    bytes_after_layer,
    no_manifest,
    manifest_is_cut,
    layer_leads_out,
    one_layer_too_few,
)
