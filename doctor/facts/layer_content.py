"""What verification found of the content of layers, where it was asked for (`--deep`): records `layers/STORE`.

Who is hit by a damage is told by the layers above it: one that brings the file anew, deletes it or hides its directory
(`Damage.hidden_by`) shows something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.facts.containers import Container
from doctor.facts.images import Image, Images
from doctor.facts.loaded import Loaded
from doctor.facts.owners import Owners
from doctor.facts.store import LayerDb
from doctor.layers.model import Checked, Damage, Run, Unread, load
from doctor.model import Citation, Effect
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "layers/"


class Found(Struct, frozen=True):
    """One damage, and where it stands."""

    damage: Damage
    record: Record
    line: int

    def cite(self) -> Citation:
        """Cite it: the file, how it differs, and where."""
        one = self.damage
        said = f"{one.kind}: recorded {one.expected}, found {one.found}" if one.expected else f"{one.kind}: {one.found}"
        return Citation(self.record.name, self.line, f"{said}; {one.detail}" if one.detail else said, one.path)


class StoreContent(Struct, frozen=True):
    """What was found in one store: the run, every layer, every damage, every file that could not be judged."""

    store: str
    run: Run | None
    checked: dict[str, Checked]
    damages: tuple[Found, ...]
    unread: tuple[Unread, ...]
    record: Record

    def of(self, layer: str) -> tuple[Found, ...]:
        """Give the damages of one layer."""
        return tuple(one for one in self.damages if one.damage.layer == layer)


class LayerContent(Struct, frozen=True):
    """All stores whose content was verified, by name; none where nobody asked for it."""

    stores: dict[str, StoreContent]

    def get(self, store: str) -> StoreContent | None:
        """Give one store."""
        return self.stores.get(store)


@fact
def layer_content(snapshot: Snapshot) -> LayerContent:
    """Read the records."""
    stores = {}
    for record in snapshot.under(PREFIX):
        run: Run | None = None
        checked: dict[str, Checked] = {}
        damages: list[Found] = []
        unread: list[Unread] = []
        for number, line in load(record.data):
            if isinstance(line, Run):
                run = line
            elif isinstance(line, Checked):
                checked[line.layer] = line
            elif isinstance(line, Damage):
                damages.append(Found(line, record, number))
            else:
                unread.append(line)
        name = record.name[len(PREFIX) :]
        stores[name] = StoreContent(name, run, checked, tuple(damages), tuple(unread), record)
    return LayerContent(stores)


class Impact(Struct, frozen=True):
    """Who has a damage before their eyes, and from whom an upper layer hides it."""

    images: tuple[Image, ...]
    containers: tuple[Container, ...]
    hidden_images: tuple[Image, ...]
    hidden_containers: tuple[Container, ...]
    every_image: tuple[Image, ...]
    every_container: tuple[Container, ...]
    """All that stand on the layer, whether they see it or not: a cure concerns them all."""

    def hits(self) -> tuple[Effect, ...]:
        """Say whom it hits, and from whom it is hidden."""
        parts = [_said("image", [name for one in self.images for name in one.shown])]
        parts += [_said("container", [_state(one) for one in self.containers])]
        hits = [Effect("; ".join(part for part in parts if part))] if any(parts) else []
        hidden = [_said("image", [name for one in self.hidden_images for name in one.shown])]
        hidden += [_said("container", [one.name for one in self.hidden_containers])]
        if any(hidden):
            hits.append(Effect("hidden by a layer above: " + "; ".join(part for part in hidden if part)))
        return tuple(hits) or (Effect("no image and no container stands on this layer"),)


_NAMED = 5


def _said(word: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"{word}{'s' if len(names) > 1 else ''} {shown}"


def _state(one: Container) -> str:
    return one.name if one.running else f"{one.name} (not running)"


class Impacts(Struct, frozen=True):
    """Joins damages of overlay2 with images and containers."""

    images: Images
    owners: Owners
    layers: LayerDb
    loaded: Loaded

    def _on(self, layer: str) -> tuple[Image, ...]:
        """Give the images that have a layer, those with names first.

        Steps of the legacy builder are left out: they are no images to anybody, and go with the image made of them.
        """
        held = [image for image in self.images.all if layer in image.chains]
        known = self.loaded.images
        steps = [
            one
            for one in held
            if not (one.names or one.digests)
            and (
                one.id not in known
                if known is not None
                else any(
                    len(other.chains) > len(one.chains) and other.chains[: len(one.chains)] == one.chains
                    for other in held
                )
            )
        ]
        return tuple(sorted((one for one in held if one not in steps), key=lambda one: not one.names))

    def of(self, layer: str, damages: Iterable[Damage]) -> Impact:
        """Say whom damages of one layer hit: each who sees at least one of them."""
        hiders = [frozenset(one.hidden_by) for one in damages]
        images = self._on(layer)
        seeing = tuple(one for one in images if any(not hides & _above(one, layer) for hides in hiders))
        held = {one.id: one for one in images}
        mounted = {mount.container: mount.parent for mount in self.layers.mounts.values()}
        standing, visible = [], []
        for one in self.owners.everyone:
            image = held.get(one.image_id)
            if image is None and mounted.get(one.id) != layer:
                continue
            standing.append(one)
            above = _above(image, layer) if image else frozenset()
            if any(not hides & (above | {one.id}) for hides in hiders):
                visible.append(one)
        return Impact(
            seeing,
            tuple(visible),
            tuple(one for one in images if one not in seeing),
            tuple(one for one in standing if one not in visible),
            images,
            tuple(standing),
        )


def _above(image: Image, layer: str) -> frozenset[str]:
    return frozenset(image.chains[image.chains.index(layer) + 1 :])


@fact
def impacts(images: Images, owners: Owners, layers: LayerDb, loaded: Loaded) -> Impacts:
    """Keep what is asked."""
    return Impacts(images, owners, layers, loaded)
