"""Mounts of containers' layers: there while the container runs, and once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.facts.clock import Clock
from doctor.facts.daemon import Daemon
from doctor.facts.overlay_mounts import OverlayMount, OverlayMounts
from doctor.facts.owners import Owners
from doctor.facts.store import Overlay
from doctor.model import Command, Effect, Finding, NotApplicable, Remedy, Severity, Step, Yield
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.containers import Container

_YOUNG = 60.0
"""Seconds after its creation in which the layer of a container is mounted because somebody is about to start it."""


@check("LAY026", Severity.ERROR)
def layer_mounted_beside_its_container(
    overlay: Overlay, owners: Owners, mounts: OverlayMounts, daemon: Daemon, clock: Clock
) -> Iterator[Yield]:
    """A container's own layer is mounted twice, or still mounted though the container has ended.

    ## What it is
    The engine mounts a container's layer at overlay2/ID/merged when it starts, and takes the mount
    away when it ends. Two overlays that write into one directory know nothing of each other: the
    kernel says that the result is undefined.
    ## What you see
    Files that appear late or not at all, "stale file handle". In the kernel's log: "overlayfs:
    upperdir is in-use as upperdir/workdir of another mount".
    ## By hand
    grep ID/diff /proc/self/mountinfo
    ## Cure
    Take the mount away that is not the engine's. What has files open in it keeps it busy.
    ## Looks like
    LAY024 (the layer cannot be found), NSP013 (network sandboxes that were left mounted)
    ## Limits
    Of a container that has ended it is a warning; docker cp and docker export mount its layer while
    they last. Mounts in namespaces other than dockerd's and doctor's own are not seen.
    ## References
    Linux Documentation/filesystems/overlayfs.rst, moby daemon/graphdriver/overlay2/overlay.go (Get)
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    # What a dockerd that hangs has written of its containers is not how they are.
    settled = daemon.answers or not daemon.pid
    by_layer: dict[str, list[OverlayMount]] = {}
    for one in mounts.all:
        by_layer.setdefault(one.id, []).append(one)
    for identity, held in by_layer.items():
        standing = owners.containers.get(identity, ())
        if not standing or identity.endswith("-init"):
            continue
        name = standing[0].name
        if len({one.device for one in held}) > 1:
            yield _twice(name, held, f"{overlay.root}/{identity}/merged", daemon)
        elif settled and mounts.last is not None and held[0].point in mounts.last and _ended(standing[0], clock):
            yield _left(name, held, daemon)


def _ended(one: Container, clock: Clock) -> bool:
    """Whether it does not run, and is not just being started: on a busy host that takes longer than we look."""
    return not one.running and (one.status != "created" or clock.collected_at - one.created > _YOUNG)


def _twice(name: str, held: list[OverlayMount], place: str, daemon: Daemon) -> Finding:
    # The engine's own is the first one on its place: what was mounted over it stands behind it in the list.
    own = next((one for one in held if one.point == place), held[0])
    others = [one for one in held if one.device != own.device]
    points = ", ".join(dict.fromkeys(one.point for one in others))
    return Finding(
        subject=name,
        title=f"the layer of container {name} is mounted twice",
        message=f"two overlays write into the layer of {name}: that of the engine at {own.point}, and another at {points}",
        evidence=tuple(one.cited for one in (own, *others)),
        remedy=Remedy("take the other mount away; the container runs on", _unmount(others, daemon)),
        hits=(Effect("what is written through one may not be seen through the other, or be lost", (name,)),),
    )


def _left(name: str, held: list[OverlayMount], daemon: Daemon) -> Finding:
    return Finding(
        subject=name,
        title=f"the layer of {name}, which does not run, is mounted",
        message=f"container {name} does not run, and its layer is mounted at {held[0].point}",
        evidence=tuple(one.cited for one in held),
        remedy=Remedy("take the mount away; nothing stops", _unmount(held, daemon)),
        severity=Severity.WARNING,
        hits=(Effect("when it is started meanwhile, it has this mount or is mounted twice", (name,)),),
    )


def _unmount(held: list[OverlayMount], daemon: Daemon) -> tuple[Step, ...]:
    """Give the steps, the uppermost mount first; one that only dockerd sees is taken away where dockerd is."""
    steps = []
    for one in reversed(held):
        there = ("nsenter", "-t", str(daemon.pid), "-m") if one.inside else ()
        steps.append(Command((*there, "umount", one.point)))
    return tuple(steps)
