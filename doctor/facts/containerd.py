"""containerd's image store, as `doctor.layers.containerd_store` read it: blobs, snapshots, images, and whom they serve.

`store/containerd` is lines of JSON (`doctor.layers.containerd_model`). It is there only where the store is.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.backing import Backing
from doctor.facts.containers import Container, Containers
from doctor.layers.containerd_model import Image, Snapshot, Store, load
from doctor.model import Citation, Effect
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing
from doctor.snapshot import Snapshot as Evidence


class ContainerdStore(Struct, frozen=True):
    """The store, `unused` why nothing in it is judged, `used` whether the daemon keeps its images there."""

    store: Store
    lines: dict[str, int]
    record: str
    unused: str
    used: bool
    containers: tuple[Container, ...]

    def cite(self, key: str, excerpt: str, place: str) -> Citation:
        """Cite what the store says of a digest, a snapshot or an image."""
        return Citation(self.record, self.lines.get(key, 0), excerpt, place)

    def images_with(self, digest: str) -> tuple[Image, ...]:
        """Give the images that need a blob: their own document, their configuration, a layer, or what those refer to."""
        wanted = {digest}
        for _ in range(3):
            wanted |= {one.digest for one in self.store.blobs if wanted & set(one.refs)}
        return tuple(one for one in self.store.images if one.target in wanted or digest in {one.config, *one.blobs})

    def named(self, name: str) -> tuple[Image, ...]:
        """Give the images that a name, an id or a container's name stands for."""
        bare = name.removeprefix("sha256:")
        targets = {
            one.image_id for one in self.containers if name in {one.name, one.engine_name} or _short(one.id, bare)
        }
        return tuple(
            one
            for one in self.store.images
            if one.target in targets
            or familiar(one.name) in {name, f"{name}:latest"}
            or one.name == name
            or _short(one.target.removeprefix("sha256:"), bare)
        )

    def images_on(self, key: str) -> tuple[Image, ...]:
        """Give the images that a snapshot is a layer of."""
        return tuple(one for one in self.store.images if key in one.chains)

    def above(self, one: Snapshot) -> list[Snapshot]:
        """Give a snapshot and all that stand on it."""
        children: dict[tuple[str, str], list[Snapshot]] = {}
        for held in self.store.snapshots:
            children.setdefault((held.space, held.parent), []).append(held)
        found, todo = [one], [one]
        while todo:
            held = todo.pop()
            for child in children.get((held.space, held.key), ()):
                if child not in found:
                    found.append(child)
                    todo.append(child)
        return found

    def containers_of(self, images: tuple[Image, ...]) -> tuple[Container, ...]:
        """Give the containers that were made from these images."""
        targets = {one.target for one in images}
        return tuple(one for one in self.containers if one.image_id in targets)

    def containers_on(self, one: Snapshot) -> tuple[Container, ...]:
        """Give the containers whose files are seen through a snapshot."""
        keys = {held.key.removesuffix("-init") for held in self.above(one)}
        return tuple(held for held in self.containers if held.id in keys)


def _short(identity: str, given: str) -> bool:
    return len(given) >= 12 and identity.startswith(given)  # noqa: PLR2004 - what docker prints


def familiar(name: str) -> str:
    """Give a name as docker shows it; empty for an image without one.

    >>> familiar("docker.io/library/busybox:1"), familiar("docker.io/shop/base:1"), familiar("moby-dangling@sha256:x")
    ('busybox:1', 'shop/base:1', '')
    """
    if name.startswith("moby-dangling@"):
        return ""
    return name.removeprefix("docker.io/library/").removeprefix("docker.io/")


def shown(images: tuple[Image, ...]) -> tuple[str, ...]:
    """Give the names of images, each once, or the short id of one that has none."""
    return tuple(dict.fromkeys(familiar(one.name) or one.target[7:19] for one in images))


def hits(images: tuple[Image, ...], containers: tuple[Container, ...]) -> tuple[Effect, ...]:
    """Say whom it concerns."""
    found = []
    if images:
        found.append(Effect("images that need it", shown(images)))
    if containers:
        found.append(Effect("containers that need it", tuple(one.name for one in containers)))
    return tuple(found)


@fact
def containerd_store(snapshot: Evidence, containers: Containers, backing: Backing) -> ContainerdStore:
    """Read the record."""
    record = snapshot.get("store/containerd")
    if not record.readable:
        if record.status in {"absent", "not-run"}:
            return ContainerdStore(
                Store(""), {}, record.name, "no images in containerd's store", backing.snapshotter, ()
            )
        raise EvidenceMissing("store", f"{record.target}: {record.why or record.status}")
    store, lines = load(record.data)
    unused = "" if store.images or store.fault or store.busy else f"no images in {store.root}"
    return ContainerdStore(store, lines, record.name, unused, backing.snapshotter, containers.all)
