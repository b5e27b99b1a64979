"""Who sees a damaged file: the layers above it that show something else in its place, found on the disk.

Of overlay2 and of containerd's snapshots; podman's images are not known here. What is found stands in `Damage.hidden_by`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from doctor.facts.containerd import ContainerdStore
from doctor.facts.images import Images
from doctor.facts.store import LayerDb, Overlay
from doctor.layers.folders import Folders
from doctor.layers.model import Damage
from doctor.layers.union import meets

if TYPE_CHECKING:
    from doctor.examine import Facts
    from doctor.layers.model import Line

_LOOKED = 50
"""Damages of one layer of which it is found out who sees them."""


def seen(lines: list[Line], store: str, facts: Facts) -> list[Line]:
    """Find out, of each damage of a file, which layers above it hide it."""
    above = {"overlay2": _overlay2, "containerd": _containerd}.get(store)
    if above is None:
        return lines
    damages: dict[str, list[Damage]] = {}
    for line in lines:
        if isinstance(line, Damage) and line.path.startswith("/") and line.kind not in {"record", "recorded size"}:
            damages.setdefault(line.layer, []).append(line)
    hidden: dict[int, tuple[str, ...]] = {}
    for layer, of in damages.items():
        folders = above(layer, facts)
        for one in of[:_LOOKED]:
            hidden[id(one)] = tuple(name for name, root in folders.items() if _hides(root, one.path.lstrip("/")))
    return [
        msgspec.structs.replace(one, hidden_by=hidden[id(one)])
        if isinstance(one, Damage) and id(one) in hidden
        else one
        for one in lines
    ]


def _hides(root: str, path: str) -> bool:
    try:
        with Folders(root) as folders:
            return meets(folders, path) != "nothing"
    except OSError:
        return False


def _overlay2(layer: str, facts: Facts) -> dict[str, str]:
    """Give the directories above a layer: of images by chain id, of containers by their id."""
    overlay: Overlay = facts.get(Overlay)
    layers: LayerDb = facts.get(LayerDb)
    images: Images = facts.get(Images)
    above = {}
    for image in images.all:
        if layer in image.chains:
            for chain in image.chains[image.chains.index(layer) + 1 :]:
                held = layers.chains.get(chain)
                above[chain] = (held.cache_id or "") if held else ""
    on = {layer, *above}
    for mount in layers.mounts.values():
        if mount.parent in on:
            above[mount.container] = mount.mount_id or ""
    return {name: f"{overlay.root}/{cache}/diff" for name, cache in above.items() if cache}


def _containerd(layer: str, facts: Facts) -> dict[str, str]:
    """Give the directories of the snapshots above one, by their keys."""
    held: ContainerdStore = facts.get(ContainerdStore)
    return {
        one.key: held.store.folder(one)
        for own in held.store.snapshots
        if own.key == layer
        for one in held.above(own)
        if one.key != layer and one.fs
    }
