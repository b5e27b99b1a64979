"""Who stands on which layer: images and containers joined with the layer database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.images import Image, Images
from doctor.facts.store import LayerDb
from doctor.model import Effect, Unknown
from doctor.registry import fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doctor.facts.store import Layer, Overlay


class Owners(Struct, frozen=True):
    """Who stands on each overlay2 directory: settled images, and the settled containers whose own layer it is.

    `chain_of` gives a directory's chain id; `size_of` its recorded size; `container_images` the image that a container
    is shown with. `owned` are all ids that anything refers to.
    """

    images: dict[str, tuple[Image, ...]]
    containers: dict[str, tuple[Container, ...]]
    chain_of: dict[str, str]
    size_of: dict[str, int]
    container_images: dict[str, str]
    owned: frozenset[str]
    tops: dict[str, str]
    """The chain id that each settled container was made on, by its id, where its image is there."""
    everyone: tuple[Container, ...]
    static: bool
    """Whether nothing can be in the making, because no dockerd runs."""

    def judged(self, identity: str) -> bool:
        """Whether anything settled stands on this directory."""
        return identity in self.images or identity in self.containers

    def settled(self, overlay: Overlay, layers: Iterable[Layer]) -> Iterator[Layer]:
        """Give those of these layers that something settled stands on, and that were still there at the end."""
        for layer in layers:
            if self.judged(layer.id) and (overlay.last is None or layer.id in overlay.last):
                yield layer

    def unreadable(self, overlay: Overlay) -> Iterator[Unknown]:
        """Give the layers that something settled stands on and that could not be read."""
        for identity, why in overlay.unread.items():
            if self.judged(identity):
                yield Unknown(identity, why)

    def names(self, identity: str) -> tuple[str, ...]:
        """Give the names of the images that stand on a directory."""
        return tuple(name for image in self.images.get(identity, ()) for name in image.shown)

    def own(self, identity: str) -> tuple[str, ...]:
        """Give the names of the containers whose own layer a directory is."""
        return tuple(sorted({one.name for one in self.containers.get(identity, ())}))

    def standing(self, identity: str) -> tuple[Container, ...]:
        """Give the containers that stand on a directory: made from an image that does, or it is their own."""
        held = {image.id for image in self.images.get(identity, ())}
        names = set(self.names(identity))
        own = {one.id for one in self.containers.get(identity, ())}
        return tuple(
            one
            for one in self.everyone
            if one.id in own or one.image_id in held or self.container_images.get(one.name, one.image) in names
        )

    def hits(self, identity: str) -> tuple[Effect, ...]:
        """Say what cannot be started for want of this directory."""
        images: dict[str, list[str]] = {name: [] for name in self.names(identity)}
        for one in self.everyone:
            shown = self.container_images.get(one.name, one.image)
            if shown in images:
                images[shown].append(one.name)
        own = identity in self.containers
        hits = []
        if images:
            names = tuple(f"{image} ({', '.join(held)})" if held else image for image, held in images.items())
            hits.append(Effect("nothing made from these images can start, restart or be exec'd into:", names))
        if own:
            hits.append(Effect("these containers cannot be started again or exec'd into", self.own(identity)))
        return tuple(hits)

    def works(self, identity: str) -> tuple[Effect, ...]:
        """Say which containers run on."""
        running = tuple(one.name for one in self.standing(identity) if one.running)
        return (Effect("running containers still run, they were mounted before", running),) if running else ()


@fact
def owners(layers: LayerDb, images: Images, containers: Containers, daemon: Daemon) -> Owners:
    """Join the layer database with images and containers."""
    chains = layers.chains
    by_cache: dict[str, list[Image]] = {}
    chain_of = {}
    size_of = {}
    owned = set(layers.removing)
    for chain in chains.values():
        if chain.cache_id:
            chain_of[chain.cache_id] = chain.id
            size_of[chain.cache_id] = int(chain.size) if chain.size and chain.size.isdecimal() else -1
    owned.update(chain_of)
    for image in images.all:
        for name in image.chains:
            held = chains.get(name)
            if held is not None and held.cache_id:
                by_cache.setdefault(held.cache_id, []).append(image)
    # A container that is being removed loses its layers before it leaves the list.
    settled = {one.id: one for one in containers.all if one.status not in {"removing", "dead"}}
    own: dict[str, list[Container]] = {}
    for mount in layers.mounts.values():
        one = settled.get(mount.container)
        for identity in (mount.mount_id, mount.init_id):
            if identity:
                owned.add(identity)
                if one is not None:
                    own.setdefault(identity, []).append(one)
    by_id = {image.id: image for image in images.all}
    shown = {identity: image.shown[0] for identity, image in by_id.items()}
    made_on = ((one.id, by_id[one.image_id]) for one in settled.values() if one.image_id in by_id)
    return Owners(
        {cache: tuple(held) for cache, held in by_cache.items()},
        {cache: tuple(held) for cache, held in own.items()},
        chain_of,
        size_of,
        {one.name: shown.get(one.image_id, one.image) for one in containers.all},
        frozenset(owned),
        {identity: image.chains[-1] for identity, image in made_on if image.chains},
        containers.all,
        daemon.pid == 0,
    )
