"""The short links of overlay2: what the engine mounts layers by."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.facts.containers import Containers
from doctor.facts.daemon import DaemonLog
from doctor.facts.store import Layer, Overlay, Owners
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Remedy,
    Severity,
    Since,
    Yield,
)
from doctor.registry import check

_LINK = re.compile(r"[A-Z2-7]{26}")


@check("LAY002", Severity.ERROR, blocks_start=True)
def short_link_missing(overlay: Overlay, owners: Owners, containers: Containers, log: DaemonLog) -> Iterator[Yield]:
    """A layer's short link in overlay2/l is gone, or leads elsewhere.

    ## What it is
    overlay2 mounts layers by short names: l/NAME is a symbolic link to ../ID/diff, and
    ID/link holds NAME. Without the link the layer's content is there and cannot be mounted.
    ## What you see
    Containers of the image fail to start: "readlink ... no such file or directory"; running
    ones run on, and docker exec into them fails. docker images lists the image as whole.
    ## By hand
    cat /var/lib/docker/overlay2/ID/link
    ls -l /var/lib/docker/overlay2/l
    ## Cure
    Make the link again; it heals at once, dockerd running. docker pull and docker load do
    not: they say that the layer already exists.
    ## Looks like
    a damaged link file; content that is gone
    ## Limits
    Layers that no image and no container uses (build cache, leftovers) are not judged.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, docker/for-linux issue 791
    """
    if not overlay.layers:
        yield NotApplicable(f"no layers in {overlay.root}")
        return
    for layer in overlay.layers.values():
        if not _LINK.fullmatch(layer.link) or (overlay.last is not None and layer.id not in overlay.last):
            continue
        users = (*owners.images.get(layer.id, ()), *owners.containers.get(layer.id, ()))
        if not users:
            continue
        short = overlay.links.get(layer.link)
        wanted = f"../{layer.id}/diff"
        if short is not None and short.type == "l" and short.target == wanted:
            continue
        yield _finding(overlay, layer, wanted, owners, containers, log)


def _finding(
    overlay: Overlay, layer: Layer, wanted: str, owners: Owners, containers: Containers, log: DaemonLog
) -> Finding:
    short = overlay.links.get(layer.link)
    where = f"{overlay.root}/l/{layer.link}"
    ident = f"{layer.id[:12]}..."
    if short is None:
        title = f"a layer's short link is gone: l/{layer.link}"
        second = Citation("store/overlay2-l", 0, "has no entry of that name", "overlay2/l/")
        steps = (Command(("ln", "-s", wanted, where)),)
    else:
        title = f"a layer's short link leads elsewhere: l/{layer.link}"
        now = short.target if short.type == "l" else "no link"
        second = Citation("store/overlay2-l", short.line, f"-> {now}", f"overlay2/l/{layer.link}")
        steps = (Command(("ln", "-sfn", wanted, where)),)
    size = owners.size_of.get(layer.id, -1)
    content = f"is there, {size:,} bytes as recorded" if size >= 0 else "is there"
    evidence = [Citation("store/overlay2", layer.link_line, layer.link, f"overlay2/{ident}/link"), second]
    excluded = [Excluded("LAY001", "its link file is whole")]
    if layer.diff == "d":
        evidence.append(Citation("store/overlay2", layer.diff_line, content, f"overlay2/{ident}/diff"))
        excluded.insert(0, Excluded("LAY006", "the layer's content is there"))
    return Finding(
        subject=layer.id,
        title=title,
        message=f"{where}, the short link to {wanted}, "
        + ("is not there" if short is None else f"is {second.excerpt.removeprefix('-> ')}"),
        evidence=tuple(evidence),
        remedy=Remedy("heals at once, no restart", steps),
        hits=_hits(layer, owners, containers),
        works=_works(layer, owners, containers),
        excluded=tuple(excluded),
        since=_since(layer, evidence[0], containers, owners, log),
    )


def _since(layer: Layer, link: Citation, containers: Containers, owners: Owners, log: DaemonLog) -> Since | None:
    """Say when it went: after the last start of a container that needed it, before the first complaint of dockerd."""
    named = {name for held in _of(layer, owners, containers).values() for name in held}
    started = [one for one in containers.running if one.name in named and one.started]
    last = max(started, key=lambda one: one.started, default=None)
    earliest = None
    if last is not None:
        earliest = Moment(last.started, f"{last.name} was mounted with it", last.cited)
    elif layer.link_mtime:
        earliest = Moment(layer.link_mtime, "the layer was made", link)
    first = log.first(f"readlink {layer.link}", after=earliest.at if earliest else 0.0) or log.first(
        f"/l/{layer.link}: no such file", after=earliest.at if earliest else 0.0
    )
    latest = Moment(first.at, "first complaint of dockerd", first.cited) if first is not None and first.at else None
    return Since(earliest=earliest, latest=latest) if earliest or latest else None


def _of(layer: Layer, owners: Owners, containers: Containers) -> dict[str, list[str]]:
    """Give the containers that stand on this layer, by image."""
    found: dict[str, list[str]] = {name: [] for name in owners.images.get(layer.id, ())}
    for one in containers.all:
        image = owners.container_images.get(one.name, one.image)
        if image in found:
            found[image].append(one.name)
    return found


def _hits(layer: Layer, owners: Owners, containers: Containers) -> tuple[Effect, ...]:
    images = _of(layer, owners, containers)
    own = owners.containers.get(layer.id, ())
    hits = []
    if images:
        names = tuple(f"{image} ({', '.join(held)})" if held else image for image, held in images.items())
        hits.append(Effect("nothing made from these images can start, restart or be exec'd into:", names))
    if own:
        hits.append(Effect("these containers cannot be started again or exec'd into", tuple(sorted(set(own)))))
    return tuple(hits)


def _works(layer: Layer, owners: Owners, containers: Containers) -> tuple[Effect, ...]:
    named = {name for held in _of(layer, owners, containers).values() for name in held}
    named |= set(owners.containers.get(layer.id, ()))
    running = tuple(one.name for one in containers.running if one.name in named)
    if not running:
        return ()
    return (Effect("running containers still run, they were mounted before", running),)
