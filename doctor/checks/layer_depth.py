"""How many layers stand on each other: the engine and the kernel take so many and no more."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.images import Image, Images
from doctor.facts.owners import Owners
from doctor.facts.repairs import together
from doctor.facts.store import Overlay
from doctor.model import Citation, Effect, Finding, NotApplicable, Note, Remedy, Severity, Yield
from doctor.registry import check

MOST = 125
"""Layers of an image on which the engine puts no other (moby layer/layer_store.go, maxLayerDepth)."""
MOUNTED = 127
"""Layers of an image that a container can stand on: with its init layer they are 128 (overlay2, maxDepth)."""


@check("LAY005", Severity.WARNING, says=("max depth exceeded",))
def too_many_layers(overlay: Overlay, images: Images, owners: Owners) -> Iterator[Yield]:
    """An image has so many layers that nothing can be put on top of it.

    ## What it is
    The engine lays at most 125 layers upon each other, and mounts no more than 128 below a
    container, of which one is its own. Images of docker commit upon docker commit get there.
    ## What you see
    "max depth exceeded" at docker build, docker commit, docker pull or docker load.
    ## By hand
    docker image inspect IMAGE -f '{{len .RootFS.Layers}}'
    ## Cure
    Make one layer of them. docker export and docker import do it at once, and drop what the image
    says of itself: command, environment, ports, volumes. Better build it from a Dockerfile again.
    ## Looks like
    LAY003 and LAY004 (the list of the layers below is wrong)
    ## Limits
    containerd's image store is not judged.
    ## References
    moby layer/layer_store.go (maxLayerDepth), daemon/graphdriver/overlay2/overlay.go (maxDepth)
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    found = [_deep(image, owners) for image in images.all if len(image.chains) >= MOST]
    yield from together(found, "images have too many layers", "images")


def _deep(image: Image, owners: Owners) -> Finding:
    depth, name = len(image.chains), image.shown[0]
    standing = tuple(one.name for one in owners.everyone if one.image_id == image.id)
    dead = depth > MOUNTED
    if dead:
        hits = [Effect("no container can be made from it", image.shown)]
        if standing:
            hits.append(Effect("these containers cannot be started again", standing))
    else:
        hits = [Effect("nothing can be built or committed on top of it", image.shown)]
    return Finding(
        subject=name,
        title=f"image {name} has {depth} layers",
        message=f"image {name} has {depth} layers; the engine puts {MOST} upon each other and mounts {MOUNTED}",
        evidence=(Citation(f"store/images/{image.id[7:]}", 0, f"{depth} diff_ids", f"docker image inspect {name}"),),
        remedy=Remedy("make one layer of them", (Note(f"build {name} anew with fewer layers: {_FLAT}"),)),
        severity=Severity.ERROR if dead else Severity.WARNING,
        hits=tuple(hits),
        works=() if dead else (Effect("containers are made from it and run", image.shown),),
    )


_FLAT = "or docker export CONTAINER | docker import --change 'CMD [...]' - NAME, which keeps files only"
