"""What is left of layers, and what an image tells of layers that it does not have."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.images import Images
from doctor.facts.owners import Owners
from doctor.facts.repairs import again
from doctor.facts.store import LayerDb, Overlay
from doctor.model import Citation, Command, Effect, Finding, NotApplicable, Remedy, Severity, Step, Unknown, Yield
from doctor.registry import check


@check("LAY017", Severity.INFO)
def removed_layer_left_behind(overlay: Overlay, layers: LayerDb, owners: Owners) -> Iterator[Yield]:
    """A layer was half removed: its record is marked as being removed, and is still there.

    ## What it is
    dockerd renames a record to NAME-removing before it removes the layer's files, and removes it
    last. What is left of that was interrupted: dockerd was killed, or the files were busy.
    ## What you see
    Nothing but room that is not given back.
    ## By hand
    ls -d /var/lib/docker/image/overlay2/layerdb/sha256/*-removing
    ## Cure
    Remove the record, and its directory in overlay2: nothing refers to either.
    ## Looks like
    LAY018 (a directory in overlay2 that no record refers to)
    ## Limits
    While dockerd runs, only records whose directory is gone already are told: the others may be
    in the middle of it. dockerd looks for them when it ends in good order.
    ## References
    moby layer/filestore.go (Remove, getOrphan), moby layer/layer_store.go
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    for name, cache in sorted(layers.leftovers.items()):
        there = bool(cache) and not overlay.gone(cache)
        if there and not owners.static:
            continue  # it may be at it
        path = f"{layers.root}/sha256/{name}"
        steps: list[Step] = [Command(("rm", "-r", path))]
        if there:
            steps.append(Command(("rm", "-r", f"{overlay.root}/{cache}")))
            link = overlay.name_of(cache)
            if link:
                steps.append(Command(("rm", f"{overlay.root}/l/{link}")))
        yield Finding(
            subject=name,
            title=f"layer {name[:12]} was half removed",
            message=f"{path} is marked as being removed, and is still there"
            + (f", with its directory {cache[:12]}" if there else ""),
            evidence=(layers.cite(name, "cache-id", cache or "is not there"),),
            remedy=Remedy("remove what is left; nothing stops", tuple(steps)),
            hits=(Effect("its room is not given back" if there else "nothing: it is only in the way"),),
        )
    for chain, why in layers.unread.items():
        if "-removing" in chain:
            yield Unknown(chain[7:], why)


@check("LAY022", Severity.WARNING)
def history_tells_of_more_layers(overlay: Overlay, images: Images) -> Iterator[Yield]:
    """An image's history tells of more layers than the image has.

    ## What it is
    Each step in an image's history is a layer, unless it says that it made none. Here are more
    such steps than diffIDs: whatever built the image wrote a configuration that is wrong.
    ## What you see
    "too many non-empty layers in History section" at docker history; containers run. docker load
    and docker pull refuse such an image with the same words.
    ## By hand
    docker history IMAGE
    ## Cure
    Build the image again, or get it from who builds it right: it is named by the digest of its
    configuration, which cannot be corrected.
    ## Looks like
    LAY020 (the configuration is damaged), LAY021 (a layer that it names is gone)
    ## Limits
    Fewer steps than layers are no fault: squashed and imported images have them.
    ## References
    OCI image-spec config.md (history), moby daemon/images/image_history.go
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    if not images.all:
        yield NotApplicable("no images here")
        return
    for image in images.all:
        if image.told <= len(image.diffs):
            continue
        name = image.shown[0]
        yield Finding(
            subject=name,
            title=f"the history of image {name} tells of {image.told} layers, it has {len(image.diffs)}",
            message=f"{image.told} steps in the history of {name} are layers, and it has {len(image.diffs)} diffIDs",
            evidence=(
                Citation(
                    f"store/images/{image.id[7:]}",
                    1,
                    f"{image.told} steps that are layers",
                    f"imagedb/{image.id[7:19]}...",
                ),
            ),
            remedy=Remedy("get it from who builds it right, or build it again; nothing stops", again((image,))),
            hits=(Effect("docker history fails:", image.shown),),
            works=(Effect("containers of it run"),),
        )
    for subject, why in images.unread.items():
        yield Unknown(subject, why)
