"""Images that are on the disk, and that this engine does not show: they are in the other store, or the other root."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.backing import Backing
from doctor.facts.containerd import ContainerdStore, shown
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.other_roots import HiddenStores, OtherRoots
from doctor.model import Effect, Finding, NotApplicable, Note, Remedy, Severity, Unknown, Yield
from doctor.registry import check


@check("LAY029", Severity.WARNING)
def images_in_the_other_store(
    backing: Backing, held: ContainerdStore, drivers: HiddenStores | None, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """Both stores have images: those of the one that is not in use are hidden.

    ## What it is
    Docker keeps images either by a storage driver (overlay2) or in containerd's store; a new
    install of Docker 29 takes the latter. Each store shows what is in it and nothing else.
    ## What you see
    docker images is empty after an upgrade, a downgrade or a change of daemon.json; the disk is
    as full as before.
    ## By hand
    docker info -f '{{.Driver}} {{.DriverStatus}}'
    ls /var/lib/docker/image/overlay2/imagedb/content/sha256
    ## Cure
    Nothing is lost. Switch back (features.containerd-snapshotter in daemon.json), docker save what
    is needed, switch again and docker load; or pull anew and remove the old store.
    ## Looks like
    LAY030 (the other root of remapped users), LAY021 (images that are gone from the store in use)
    ## Limits
    Containers are hidden with their images, and are not counted here.
    ## References
    docker docs "containerd image store", moby issue 51654
    """
    if not backing.driver:
        yield Unknown("storage driver", "dockerd was not asked")
        return
    if held.used:
        if drivers is None or not drivers.drivers:
            return
        count, where, citation = drivers.drivers, "the store of overlay2", drivers.file
    else:
        mine = tuple(one for one in held.store.images if one.space == "moby")
        if not mine:
            return
        count, where = len(mine), f"containerd's store ({held.store.root})"
        citation = held.cite(mine[0].name, shown(mine[:1])[0], held.store.root)
    key = '"features": {"containerd-snapshotter": ' + ("false}" if held.used else "true}")
    yield Finding(
        subject="overlay2" if held.used else "containerd",
        title=f"{count} images in {where} are not shown: {backing.driver} is in use",
        message=f"{count} images are in {where}, and dockerd keeps its images by {backing.driver}",
        evidence=(citation, backing.cite("driver-type") if held.used else backing.cite("Backing Filesystem")),
        remedy=Remedy(
            "switch back for long enough to save what is needed, or remove what is not",
            (Note(f"{key} in daemon.json and a restart show them again; docker save, switch back, docker load"),),
            notes=(lifecycle.price(),) if lifecycle.price() else (),
        ),
        hits=(Effect("images and containers that were there before are not shown, and take room"),),
    )


@check("LAY030", Severity.INFO)
def images_in_the_other_root(roots: OtherRoots, lifecycle: Lifecycle) -> Iterator[Yield]:
    """Images are in the data root of the other setting of userns-remap.

    ## What it is
    With userns-remap dockerd keeps everything in DATA_ROOT/UID.GID, a root of its own. Turned on,
    off, or given another user, it begins with an empty one.
    ## What you see
    docker images and docker ps -a are empty after a change of daemon.json or of /etc/subuid; the
    disk is as full as before.
    ## By hand
    ls -d /var/lib/docker/*.*
    docker info -f '{{.DockerRootDir}} {{.SecurityOptions}}'
    ## Cure
    Nothing is lost. Switch back to see them, docker save what is needed; or remove the other root
    when nothing in it is.
    ## Looks like
    LAY029 (the other store)
    ## Limits
    Only the store of overlay2 is looked for, and only names of images.
    ## References
    dockerd(8) (userns-remap), moby daemon/daemon_unix.go
    """
    if not roots.looked:
        yield NotApplicable("no other root was looked for")
    for path, citation in roots.with_images.items():
        wanted = path.rpartition("/")[2] if "." in path.rpartition("/")[2] else ""
        how = f"userns-remap with subordinate ids from {wanted.partition('.')[0]}" if wanted else "no userns-remap"
        yield Finding(
            subject=path,
            title=f"{path} has images that are not shown",
            message=f"{path} has images, and dockerd keeps everything in {roots.own}",
            evidence=(citation,),
            remedy=Remedy(
                "switch back for long enough to save what is needed, or remove what is not",
                (Note(f"{how} and a restart show them again; docker save, switch back, docker load"),),
                notes=(lifecycle.price(),) if lifecycle.price() else (),
            ),
            hits=(Effect("images, containers and volumes in it are not shown, and take room"),),
        )
