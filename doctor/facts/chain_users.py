"""Who stands on each record of the layer database, and what its cure has to do: dockerd reads the database when it starts."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.images import Images
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.loaded import Loaded
from doctor.facts.owners import Owners
from doctor.facts.store import DIGEST, Chain, LayerDb
from doctor.model import Effect, Remedy, Step
from doctor.registry import fact

if TYPE_CHECKING:
    from doctor.facts.containers import Container
    from doctor.facts.images import Image


class ChainUsers(Struct, frozen=True, dict=True):
    """The layer database with its users.

    `used` are the chains, by chain id, that a settled image or container stands on; all of them where nothing can change.
    """

    used: dict[str, Chain]
    odd: frozenset[str]
    """Those of them whose parent and diff are not, word for word, what an image says."""
    layers: LayerDb
    images: Images
    owners: Owners
    loaded: Loaded
    lifecycle: Lifecycle

    @cached_property
    def _by_chain(self) -> dict[str, list[Image]]:
        found: dict[str, list[Image]] = {}
        for image in self.images.all:
            for chain in dict.fromkeys(image.chains):
                found.setdefault(chain, []).append(image)
        return found

    @cached_property
    def _mounted(self) -> dict[str, set[str]]:
        """The containers whose mount stands right on a chain, by its id."""
        found: dict[str, set[str]] = {}
        for mount in self.layers.mounts.values():
            found.setdefault(mount.parent or "", set()).add(mount.container)
        return found

    def _images_on(self, chain: str) -> tuple[Image, ...]:
        return tuple(self._by_chain.get(chain, ()))

    def _dropped(self, chain: str) -> bool:
        """Whether the dockerd that runs has dropped an image of this chain already."""
        return any(self.loaded.misses(image) for image in self._images_on(chain))

    def images_on(self, chain: str) -> tuple[str, ...]:
        """Give the names of the images that a chain is part of."""
        return tuple(name for image in self._images_on(chain) for name in image.shown)

    def containers_on(self, chain: str) -> tuple[Container, ...]:
        """Give the containers of these images, and those whose mount stands on the chain."""
        held = {image.id for image in self._images_on(chain)}
        mounted = self._mounted.get(chain, set())
        return tuple(one for one in self.owners.everyone if one.image_id in held or one.id in mounted)

    def hits(self, chain: str) -> tuple[Effect, ...]:
        """Say what dockerd drops when it reads the database at its next start."""
        images, containers = self.images_on(chain), tuple(one.name for one in self.containers_on(chain))
        hits = []
        if images:
            dropped = self._dropped(chain)
            text = "dockerd has dropped these images:" if dropped else "at its next start dockerd drops these images:"
            hits.append(Effect(text, images))
        if containers:
            hits.append(Effect("and does not know these containers any more:", containers))
        return tuple(hits)

    def works(self, chain: str) -> tuple[Effect, ...]:
        """Say what goes on: a dockerd that runs has read the database before."""
        running = tuple(one.name for one in self.containers_on(chain) if one.running)
        if not running or self._dropped(chain):
            return ()
        return (Effect("running containers go on until dockerd is started again", running),)

    def remedy(self, chain: str, summary: str, *steps: Step, notes: tuple[str, ...] = ()) -> Remedy:
        """Make a cure of the database: where dockerd has dropped something already, it has to read it again."""
        if self._dropped(chain) and not self.owners.static:
            return self.lifecycle.remedy(f"{summary}, then let dockerd read it", *steps, notes=notes)
        return Remedy(f"{summary}; nothing stops", tuple(steps), notes=notes)

    def reread(self, chain: str, members: tuple[str, ...], steps: list[Step]) -> Remedy:
        """Make a cure of files that dockerd takes for good: one written before it started has been read."""
        written = [self.layers.written(chain, member) for member in members]
        if any(0 < one < self.loaded.started for one in written) and not self.owners.static:
            return self.lifecycle.remedy("write what is right, then let dockerd read it", *steps)
        price = self.lifecycle.price()
        note = "a dockerd that has read the wrong one has to be started again" + (f": {price}" if price else "")
        return self.remedy(chain, "write what is right", *steps, notes=(note,))


@fact
def chain_users(layers: LayerDb, images: Images, owners: Owners, loaded: Loaded, lifecycle: Lifecycle) -> ChainUsers:
    """Follow every settled image and container down to its base."""
    used = _used(layers, images, owners)
    made = images.chains
    odd = frozenset(
        name
        for name, one in used.items()
        if one.parent == "" or made.get(name) != (one.parent or "", one.diff) or not DIGEST.fullmatch(one.diff or "")
    )
    return ChainUsers(used, odd, layers, images, owners, loaded, lifecycle)


def _used(layers: LayerDb, images: Images, owners: Owners) -> dict[str, Chain]:
    if owners.static:
        return layers.chains
    wanted = dict.fromkeys(images.chains)
    by_id = {one.id for one in owners.everyone}
    for mount in layers.mounts.values():
        chain = mount.parent or ""
        while mount.container in by_id and chain in layers.chains and chain not in wanted:
            wanted[chain] = None
            chain = layers.chains[chain].parent or ""
    return {name: layers.chains[name] for name in wanted if name in layers.chains}
