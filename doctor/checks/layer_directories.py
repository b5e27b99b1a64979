"""The directories of layers in overlay2: what is in them, and those that belong to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from doctor.facts.daemon import Daemon
from doctor.facts.images import Images
from doctor.facts.owners import Owners
from doctor.facts.repairs import MANY, lost, together
from doctor.facts.store import MOUNT_ID, Layer, LayerDb, Overlay
from doctor.model import (
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Yield,
)
from doctor.registry import check


@check("LAY006", Severity.ERROR, blocks_start=True)
def content_of_layer_missing(overlay: Overlay, owners: Owners) -> Iterator[Yield]:
    """A layer's directory is there, and the content in it (diff) or its work directory is not.

    ## What it is
    overlay2/ID/diff holds the files of a layer. A container's own layer also has work, which
    the kernel needs for its writes.
    ## What you see
    "error creating overlay mount to ... no such file or directory" at the start of containers.
    ## By hand
    ls -l /var/lib/docker/overlay2/ID
    ## Cure
    A container's own directories are made again, empty: what it wrote is lost already. A layer of
    an image is lost: it comes anew only when every image and container that shares it is gone.
    docker pull and docker load do not heal, they take the layer for whole.
    ## Looks like
    LAY008 (the whole directory is gone), LAY002 (the content is there, its short link is not)
    ## Limits
    Whether the content is what it was is not looked at. Image layers need no work directory. A diff
    that is a symbolic link is a warning: containers start, and where it leads is not looked at.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, Linux Documentation/filesystems/overlayfs.rst
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    mounts = {identity for identity in owners.containers if not identity.endswith("-init")}
    found = []
    bare = [layer for layer in overlay.layers.values() if layer.diff != "d" or layer.work != "d"]
    for layer in owners.settled(overlay, bare):
        if layer.id in overlay.unread:
            continue
        if layer.diff == "l":
            yield _elsewhere(overlay, owners, layer)
        elif layer.diff != "d":
            found.append(_content(overlay, owners, layer, "diff"))
        if layer.work != "d" and layer.lower and layer.id in mounts and layer.id not in owners.images:
            found.append(_content(overlay, owners, layer, "work"))
    yield from together(found, "layers have lost their content", "overlay2")
    yield from owners.unreadable(overlay)


def _elsewhere(overlay: Overlay, owners: Owners, layer: Layer) -> Finding:
    path = f"{overlay.root}/{layer.id}/diff"
    return Finding(
        subject=layer.id,
        title=f"the content of layer {layer.id[:12]} lies elsewhere: its diff is a symbolic link",
        message=f"{path} is a symbolic link; the kernel follows it, much else does not",
        evidence=(overlay.cite(f"{layer.id}/diff", "is a symbolic link"),),
        remedy=Remedy(
            "put the content back where it belongs",
            (
                Note(f"see where it leads and what is there: readlink -f {path}"),
                Note(f"stop what runs on it; rm {path}; mv TARGET {path}"),
                Note("is the disk too small, move the whole data-root; leads it to nothing, the layer is lost"),
            ),
            risk="disruptive",
            stops=tuple(one.name for one in owners.standing(layer.id) if one.running),
        ),
        severity=Severity.WARNING,
        hits=(Effect("backups, copies and doctor layers verify, which follow no link, have nothing of this layer"),),
        works=(Effect("containers start and run, as long as there is a directory where the link leads"),),
        excluded=(Excluded("LAY008", "the layer's directory is there"),),
    )


def _content(overlay: Overlay, owners: Owners, layer: Layer, member: Literal["diff", "work"]) -> Finding:
    path = f"{overlay.root}/{layer.id}/{member}"
    kind = layer.diff if member == "diff" else layer.work
    state = "is not there" if kind == "-" else "is no directory"
    own = layer.id not in owners.images
    what = "work directory" if member == "work" else "content"
    names = ", ".join(owners.own(layer.id))
    if own:
        steps: tuple[Step, ...] = () if kind == "-" else (Command(("mv", path, f"{path}.was")),)
        steps += (Command(("mkdir", "-m", "755" if member == "diff" else "700", path)),)
        remap = overlay.root.split("/")[-2].partition(".")
        if remap[0].isdecimal() and remap[2].isdecimal():
            steps += (Command(("chown", f"{remap[0]}:{remap[2]}", path)),)
        remedy = Remedy("make it again, empty; it heals at once, no restart", steps)
    else:
        remedy = lost(layer.id, owners)
    return Finding(
        subject=layer.id if member == "diff" else f"{layer.id}/work",
        title=f"the {what} of {f'the layer of {names}' if own and names else f'layer {layer.id[:12]}'} is gone",
        message=f"{path} {state}",
        evidence=(overlay.cite(f"{layer.id}/{member}", state), overlay.cite(f"{layer.id}/link", layer.link or "")),
        remedy=remedy,
        hits=owners.hits(layer.id)
        + ((Effect("what these containers wrote is lost", owners.own(layer.id)),) if own and member == "diff" else ()),
        works=owners.works(layer.id),
        excluded=(Excluded("LAY008", "the layer's directory is there"),),
    )


@check("LAY018", Severity.INFO)
def layers_left_over(
    overlay: Overlay, owners: Owners, layers: LayerDb, images: Images, daemon: Daemon
) -> Iterator[Yield]:
    """Directories of overlay2 belong to nothing any more.

    ## What it is
    Each directory that the engine made is named in the layer database, by a layer or by a
    container. A dockerd that was killed while it pulled, made or removed something leaves others.
    ## What you see
    du of overlay2 says much more than docker system df; names that end in -init without the one
    they belong to.
    ## By hand
    grep -r ID /var/lib/docker/image/overlay2/layerdb
    ## Cure
    Remove the directories and their short links. What is listed was there before dockerd started,
    and no layer stands on it.
    ## Looks like
    LAY024 (a container has lost the record of its directory), LAY007 (a layer has)
    ## Limits
    BuildKit's directories have names of 25 letters, and are not judged; sizes are not measured.
    When the layer database is damaged nothing is said: what seems left over may be needed.
    ## References
    moby layer/layer_store.go (deleteLayer), Docker release notes 29.1.3
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    left = [layer for layer in overlay.layers.values() if _left(layer, overlay, owners, daemon)]
    if not left or _in_doubt(owners, layers, images):
        return
    ids = {layer.id for layer in left}
    named = {
        word[2:]
        for layer in overlay.layers.values()
        if layer.lower and layer.id not in ids
        for word in layer.lower.split(":")
    }
    left = [layer for layer in left if not named.intersection({layer.link, *overlay.names_of(layer.id)})]
    if not left:
        return
    links = [f"{overlay.root}/l/{name}" for layer in left for name in overlay.names_of(layer.id)]
    inits = sum(layer.id.endswith("-init") for layer in left)
    yield Finding(
        subject="overlay2",
        title=f"{len(left)} directories in overlay2 belong to nothing",
        message=f"{len(left)} of {len(overlay.layers)} directories in {overlay.root} belong to no image and no container"
        + (f", {inits} of them are init layers" if inits else ""),
        evidence=tuple(overlay.cite(f"{layer.id}/diff", "in no record of the layer database") for layer in left[:MANY]),
        remedy=Remedy(
            "remove them and their short links; nothing stops",
            (Command(("rm", "-r", *(f"{overlay.root}/{layer.id}" for layer in left), *links)),),
            risk="destructive",
        ),
        hits=(Effect("they take room that docker system df does not count"),),
        works=(Effect("everything: nothing stands on them"),),
    )


def _left(layer: Layer, overlay: Overlay, owners: Owners, daemon: Daemon) -> bool:
    if layer.id in owners.owned or not MOUNT_ID.fullmatch(layer.id) or layer.id in overlay.unread:
        return False
    if overlay.last is not None and layer.id not in overlay.last:
        return False
    return not daemon.pid or 0 < layer.written < daemon.started - 1


def _in_doubt(owners: Owners, layers: LayerDb, images: Images) -> bool:
    """Whether something here has lost its record, so that nobody can say what it stood on."""
    chains = layers.chains
    if layers.unread or images.damaged or images.unread or any(not one.cache_id for one in chains.values()):
        return True
    if any(name not in chains for name in images.chains):
        return True
    mounts = layers.mounts
    return any(
        one.id not in mounts or not mounts[one.id].mount_id for one in owners.everyone if one.driver in {"", "overlay2"}
    )
