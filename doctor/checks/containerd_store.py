"""containerd's image store: blobs that are gone or damaged, snapshots that have lost their directory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.checks._shifted import apart, finding
from doctor.checks.layer_content import LIKELY
from doctor.facts.clock import Clock
from doctor.facts.containerd import ContainerdStore, hits, shown
from doctor.facts.layer_content import LayerContent
from doctor.facts.layer_repairs import from_blob, in_place, meanwhile, who_did
from doctor.facts.repairs import together
from doctor.layers.model import Checked
from doctor.model import Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Step, Unknown, Yield
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.containers import Container
    from doctor.facts.layer_content import Found, StoreContent
    from doctor.layers.containerd_model import Blob, Image, Snapshot

_DAMAGED = "its content is not that of its digest"
_OLD = 3600.0
"""Seconds after which a directory without a snapshot is left over: containerd removes them some time after the entry."""


def _judged(held: ContainerdStore) -> Iterator[Yield]:
    """Say why nothing can be judged, where that is so."""
    store = held.store
    if store.busy:
        yield Unknown("containerd's database", f"{store.file}: {store.busy}")
    elif held.unused:
        yield NotApplicable(held.unused)


@check("LAY027", Severity.ERROR, says=("content digest ... not found", "unexpected commit digest"))
def blob_gone_or_damaged(held: ContainerdStore, content: LayerContent) -> Iterator[Yield]:
    """A blob of containerd's store is gone or damaged, or its database cannot be read.

    ## What it is
    containerd keeps what was pulled as files named by their digest: manifests, configurations, and
    layers as they came. Its database lists them with their size.
    ## What you see
    "content digest sha256:...: not found"; an image that is gone from docker images though nobody
    removed it (its configuration is damaged); docker save and push that write an image which
    nobody can load.
    ## By hand
    cd ROOT/io.containerd.content.v1.content/blobs/sha256
    sha256sum * | awk '$1 != $2'
    ## Cure
    Take the damaged file away, then docker load or docker pull: what is not there is written anew,
    what is there is taken for whole (measured on 28.5.2). Containers run on meanwhile.
    ## Looks like
    LAY028 (the blob is whole, what was unpacked from it is gone)
    ## Limits
    Without --deep only documents are hashed, of layers only the size is compared. Blobs of other
    platforms that were never pulled are not missed.
    ## References
    containerd core/metadata/buckets.go, plugins/content/local, OCI image-spec descriptor.md
    """
    yield from _judged(held)
    store = held.store
    if store.fault:
        yield _database(held)
        return
    listed = {one.digest for one in store.blobs}
    damaged = {one.why.partition(":")[0] for one in store.images if _DAMAGED in one.why}
    found = [_blob(held, one) for one in store.blobs if one.there != one.size or one.digest[7:19] in damaged]
    for image in store.images:
        needed = dict.fromkeys((image.target, *((image.config, *image.blobs) if image.config else ())))
        found.extend(_unlisted(held, image, digest) for digest in needed if digest and digest not in listed)
    told = {one.subject for one in found}
    deep = content.get("containerd")
    for one in deep.damages if deep else ():
        blob = next((blob for blob in store.blobs if blob.digest == one.damage.layer), None)
        if one.damage.kind == "record" and blob is not None and blob.digest not in told:
            told.add(blob.digest)
            found.append(_blob(held, blob, one))
        elif one.damage.kind == "digest" and one.damage.layer not in told:
            told.add(one.damage.layer)
            found.append(_other_layer(held, one))
    yield from together(found, "blobs are gone or damaged", "containerd")


def _other_layer(held: ContainerdStore, one: Found) -> Finding:
    """Tell of a layer that is whole and not the one that the configuration asks for."""
    images = held.images_on(one.damage.layer)
    names = ", ".join(shown(images))
    return Finding(
        subject=one.damage.layer,
        title=f"layer {one.damage.layer[7:19]} unpacks to another diff id than its image says",
        message=f"{one.damage.path} unpacks to {one.damage.found}, and {names or 'its image'} says {one.damage.expected}",
        evidence=(one.cite(),),
        remedy=Remedy(
            "get the image anew", (Note(f"docker rmi, then docker pull or load: {names}"),), risk="destructive"
        ),
        hits=hits(images, held.containers_of(images)),
    )


def _blob(held: ContainerdStore, blob: Blob, deep: Found | None = None) -> Finding:
    path, short = held.store.blob(blob.digest), blob.digest[7:19]
    images = held.images_with(blob.digest)
    if blob.there == -1:
        state = "is not there"
    elif blob.there < 0:
        state = "is no file"
    elif blob.there != blob.size:
        state = f"has {blob.there:,} bytes of {blob.size:,}"
    else:
        state = _DAMAGED
    steps: list[Step] = [Command(("rm", path))] if blob.there >= 0 else []
    names = shown(images)
    steps.append(Note(f"docker pull, or docker load -i FILE: {', '.join(names) or 'whatever needs it'}"))
    return Finding(
        subject=blob.digest,
        title=f"blob {short} {'is not what its name says' if state == _DAMAGED else state}",
        message=f"{path} {state}",
        evidence=(deep.cite() if deep else held.cite(blob.digest, state, f"blobs/sha256/{short}..."),),
        remedy=Remedy(
            "take it away, then have it written anew; nothing stops" if steps[1:] else "have it written anew",
            tuple(steps),
        ),
        severity=None if images else Severity.WARNING,
        hits=hits(images, ()) or (Effect("nothing that has a name"),),
        works=(Effect("containers run on", tuple(one.name for one in held.containers_of(images))),)
        if held.containers_of(images)
        else (),
    )


def _unlisted(held: ContainerdStore, image: Image, digest: str) -> Finding:
    name = shown((image,))[0]
    return Finding(
        subject=digest,
        title=f"{name} needs blob {digest[7:19]}, which the database does not list",
        message=f"{name} needs {digest}, which {held.store.root} does not list",
        evidence=(held.cite(image.name, f"{digest[:19]} is not listed", "meta.db"),),
        remedy=Remedy("have it written anew", (Note(f"docker pull, or docker load -i FILE: {name}"),)),
        hits=hits((image,), ()),
    )


def _database(held: ContainerdStore) -> Finding:
    file = held.store.file
    return Finding(
        subject=file.rpartition("/")[2],
        title=f"containerd's database {file.rpartition('/')[2]} cannot be read: {held.store.fault}",
        message=f"{file}: {held.store.fault}",
        evidence=(held.cite("", held.store.fault, file),),
        remedy=Remedy(
            "restore it from a backup, or give containerd a new store",
            (
                Note(f"stop Docker, keep a copy of {shlex.quote(held.store.root)}, move the file away and start again"),
                Note("images are loaded or pulled anew then; what containers wrote is not in it, but is found no more"),
            ),
            risk="destructive",
        ),
        hits=(Effect("containerd does not start, or knows no images"),),
    )


@check("LAY028", Severity.ERROR, says=("snapshot ... does not exist", "failed to stat parent"))
def snapshot_without_directory(held: ContainerdStore, content: LayerContent, clock: Clock) -> Iterator[Yield]:
    """A snapshot of containerd has lost its directory or its parent, or a directory its snapshot.

    ## What it is
    A snapshot is a layer unpacked: an entry in each of two databases, and the directory
    snapshots/ID/fs. Each names the snapshot below it.
    ## What you see
    "failed to stat parent: stat .../snapshots/7/fs: no such file or directory", "snapshot ... does
    not exist: not found" when a container starts; disk space that no image accounts for.
    ## By hand
    ls -d ROOT/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs
    ctr --namespace moby snapshots ls
    ## Cure
    Remove the containers and images that stand on it, and load or pull them anew: the layer is
    unpacked again. What those containers wrote is lost, so copy it out first. Where --deep finds
    single files wrong, they are set right by the layer's blob, and nothing is removed.
    ## Looks like
    LAY027 (the blob that it was unpacked from), LAY008 (the same in the store of overlay2)
    ## Limits
    Only the overlayfs snapshotter is known. A directory without a snapshot is told of after an
    hour: containerd removes them late.
    ## References
    containerd core/snapshots/storage/bolt.go, plugins/snapshots/overlay/overlay.go
    """
    yield from _judged(held)
    store = held.store
    if store.fault:
        return
    keys = {(one.space, one.key): one for one in store.snapshots}
    found = []
    for one in store.snapshots:
        parent = keys.get((one.space, one.parent))
        if one.id < 0:
            found.append(_snapshot(held, one, "is not known to the snapshotter"))
        elif not one.fs:
            found.append(_snapshot(held, one, f"has lost its directory {store.folder(one)}"))
        elif one.parent and parent is None:
            found.append(_snapshot(held, one, f"stands on {one.parent[:19]}, which is not there"))
        elif parent is not None and one.above != parent.name:
            found.append(
                _snapshot(
                    held,
                    one,
                    f"stands on {one.above[:40] or 'nothing'} in one database, on {parent.name[:40]} in the other",
                )
            )
    yield from together(found, "snapshots have lost what they are made of", "containerd")
    yield from _unpacked(held, content)
    left = [one for one in store.lost if clock.collected_at - one.made > _OLD]
    if left:
        names = ", ".join(one.id for one in left)
        yield Finding(
            subject="snapshots",
            title=f"{len(left)} directories belong to no snapshot",
            message=f"{store.root}/io.containerd.snapshotter.v1.overlayfs/snapshots: no snapshot has {names}",
            evidence=tuple(held.cite(one.id, f"snapshots/{one.id}", "snapshots/") for one in left[:3]),
            remedy=Remedy(
                "let containerd clean up: it does when the next image or container is removed",
                (
                    Note(
                        "docker rmi or docker rm of anything; what is left after that, may be removed with Docker stopped"
                    ),
                ),
            ),
            severity=Severity.INFO,
            hits=(Effect("they take room"),),
        )


_SHOWN = 5


def _unpacked(held: ContainerdStore, content: LayerContent) -> Iterator[Yield]:
    """Tell of files of unpacked layers that are not what the layer has: containerd's, and podman's beside it."""
    for name in ("containerd", "podman"):
        deep = content.get(name)
        if deep is None:
            continue
        layers: dict[str, list[Found]] = {}
        yield from _shifted(held, deep)
        for one in deep.damages:
            if not one.damage.shift and (name == "podman" or one.damage.kind not in {"record", "digest"}):
                layers.setdefault(one.damage.layer, []).append(one)
        snapshots = {one.key: one for one in held.store.snapshots}
        found = [
            _files(held, snapshots.get(layer), of, deep.checked.get(layer) or Checked(name, layer, "damaged"))
            for layer, of in layers.items()
        ]
        yield from together(found, "unpacked layers are not what was pulled", name)
        for checked in deep.checked.values():
            if checked.state == "unknown":
                why = checked.why or next((one.why for one in deep.unread if one.layer == checked.layer), "unread")
                yield Unknown(checked.layer.removeprefix("sha256:")[:12], f"a layer could not be read whole: {why}")


def _shifted(held: ContainerdStore, deep: StoreContent) -> Iterator[Finding]:
    """Tell of owners that are all in another range, as one of all layers."""
    layers = [(deep.checked[one.damage.layer], one) for one in deep.damages if one.damage.layer in deep.checked]
    snapshots = {one.key: one for one in held.store.snapshots}
    for shift, moved in apart(layers).items():
        if deep.store == "podman":
            owners = tuple(dict.fromkeys(one for checked, _ in moved for one in checked.owners))
            running = {one: one for one in _containers_of(owners)}
            yield finding(deep.store, shift, moved, (Effect("in podman", owners),), "podman", running)
            continue
        images = {one.name: one for checked, _ in moved for one in held.images_on(checked.layer)}
        own = [snapshots[checked.layer] for checked, _ in moved if checked.layer in snapshots]
        containers = {one.id: one for each in own for one in held.containers_on(each)}
        concerned = hits(tuple(images.values()), tuple(containers.values()))
        running = {one.name: one.engine_name for one in containers.values() if one.running}
        yield finding(deep.store, shift, moved, concerned, "docker", running)


def _containers_of(owners: tuple[str, ...]) -> tuple[str, ...]:
    """Give the containers among podman's owners of a layer."""
    return tuple(one.removeprefix("container ") for one in owners if one.startswith("container "))


def _files(held: ContainerdStore, snapshot: Snapshot | None, found: list[Found], checked: Checked) -> Finding:
    layer, root = checked.layer, checked.root
    found.sort(key=lambda one: not one.damage.grave)
    paths = list(dict.fromkeys(one.damage.path for one in found))
    short = layer.removeprefix("sha256:")[:12]
    said = ", ".join(f"{one.damage.path} ({one.damage.kind})" for one in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    title = f"{paths[0]} of layer {short}" if len(paths) == 1 else f"{len(paths)} files of layer {short}"
    title += " is not what was pulled" if len(paths) == 1 else " are not what was pulled"
    if found[0].damage.grave:
        title += ": a program, or a right that makes root" + (", among them" if len(paths) > 1 else "")
    damages = [one.damage for one in found]
    if snapshot is None:
        commands = in_place(checked, damages) if len(found) <= _SHOWN else None
        remedy = _anew_in_podman(checked)
        if commands:
            standing = {one: one for one in _containers_of(checked.owners)}
            remedy = meanwhile("podman", standing, "set it right", commands, who_did(damages))
        concerned: tuple[Effect, ...] = (Effect("in podman", checked.owners),) if checked.owners else ()
    else:
        images, containers = held.images_on(layer), held.containers_on(snapshot)
        blob = next(
            (blob for one in images for blob, chain in zip(one.blobs, one.chains, strict=True) if chain == layer), ""
        )
        remedy = _anew(held, snapshot)
        commands = from_blob(checked, damages, held.store.blob(blob)) if blob else None
        if commands:
            running = {one.name: one.engine_name for one in containers if one.running}
            summary = "set it right by the layer's blob, which is whole"
            remedy = meanwhile("docker", running, summary, commands, who_did(damages))
        concerned = _seeing(held, layer, images, containers, [frozenset(one.damage.hidden_by) for one in found])
    return Finding(
        subject=layer,
        title=title,
        message=f"{root}: {said}{more}",
        evidence=tuple(one.cite() for one in found[:_SHOWN]),
        remedy=remedy,
        hits=concerned or (Effect("nothing that has a name"),),
        likely="; ".join(dict.fromkeys(LIKELY[one.damage.cause] for one in found if one.damage.cause)),
    )


def _seeing(
    held: ContainerdStore,
    layer: str,
    images: tuple[Image, ...],
    containers: tuple[Container, ...],
    hiders: list[frozenset[str]],
) -> tuple[Effect, ...]:
    """Say who sees at least one of the files, and from whom snapshots above hide all of them."""
    of_images = {one.name: _on_top(one.chains, layer) for one in images}
    parents = {one.key: one.parent for one in held.store.snapshots}
    seeing = tuple(one for one in images if any(not hides & of_images[one.name] for hides in hiders))
    visible = tuple(one for one in containers if any(not hides & _way(one.id, layer, parents) for hides in hiders))
    hidden = shown(tuple(one for one in images if one not in seeing))
    hidden += tuple(one.name for one in containers if one not in visible)
    return hits(seeing, visible) + ((Effect("hidden by a layer above from", hidden),) if hidden else ())


def _on_top(chains: tuple[str, ...], layer: str) -> frozenset[str]:
    return frozenset(chains[chains.index(layer) + 1 :])


def _way(container: str, layer: str, parents: dict[str, str]) -> frozenset[str]:
    """Give the snapshots between a container's own and a layer."""
    found: set[str] = set()
    key = container
    while key in parents and key != layer and key not in found:
        found.add(key)
        key = parents[key]
    return frozenset(found)


def _anew_in_podman(checked: Checked) -> Remedy:
    """Make the cure of podman's, which has names of its own."""
    containers = _containers_of(checked.owners)
    images = tuple(one.removeprefix("image ") for one in checked.owners if one.startswith("image "))
    steps: list[Step] = [Note("podman rm and podman rmi of all that stands on it")] if not checked.owners else []
    if containers:
        steps += (Note("copy out first what is worth it: podman cp"), Command(("podman", "rm", "-f", *containers)))
    if images:
        steps.append(Command(("podman", "rmi", *images)))
    steps.append(Note(f"podman pull, or podman load -i FILE: {', '.join(images) or 'what stood on it'}"))
    return Remedy("remove what stands on it, then get it anew", tuple(steps), risk="destructive")


def _snapshot(held: ContainerdStore, one: Snapshot, state: str) -> Finding:
    images, containers = _standing(held, one)
    return Finding(
        subject=one.key,
        title=f"snapshot {one.key[7:19] if one.key.startswith('sha256:') else one.key[:12]} {state.partition(' /')[0]}",
        message=f"snapshot {one.key} of {held.store.root} {state}",
        evidence=(held.cite(one.key, state, f"snapshots/{one.id}" if one.id >= 0 else "meta.db"),),
        remedy=_anew(held, one),
        severity=None if images or containers else Severity.WARNING,
        hits=hits(images, containers) or (Effect("nothing that has a name"),),
    )


def _standing(held: ContainerdStore, one: Snapshot) -> tuple[tuple[Image, ...], tuple[Container, ...]]:
    """Give the images and containers on a snapshot, those through a container's own snapshots too."""
    images = held.images_on(one.key)
    for above in held.above(one):
        images += tuple(image for image in held.images_on(above.key) if image not in images)
    return images, held.containers_on(one)


def _anew(held: ContainerdStore, one: Snapshot, notes: tuple[str, ...] = ()) -> Remedy:
    """Make the cure that removes all that stands on a snapshot, and has it unpacked again."""
    images, containers = _standing(held, one)
    steps: list[Step] = []
    if containers:
        names = ", ".join(each.name for each in containers)
        steps.append(Note(f"copy out what they wrote while they still are there (docker cp): {names}"))
        steps.append(Command(("docker", "rm", "-f", *(each.engine_name for each in containers))))
    if images:
        steps.append(Command(("docker", "rmi", "-f", *shown(images))))
        steps.append(Note(f"docker pull, or docker load -i FILE: {', '.join(shown(images))}"))
    running = tuple(each.name for each in containers if each.running)
    return Remedy(
        "remove what stands on it, then have it unpacked anew",
        tuple(steps) or (Note("nothing with a name stands on it"),),
        risk="destructive" if containers or images else "safe",
        stops=running,
        stays_down=running,
        notes=notes,
    )
