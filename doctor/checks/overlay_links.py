"""The short names of layers in overlay2, by which the engine finds what is below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from doctor.facts.daemon import DaemonLog
from doctor.facts.owners import Owners
from doctor.facts.repairs import MANY, new_name, together, write
from doctor.facts.store import LINK, Layer, LayerDb, Overlay
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
    Step,
    Yield,
)
from doctor.registry import check


@check(
    "LAY001",
    Severity.ERROR,
    blocks_start=True,
    says=(
        "readlink PATH/overlay2/l: invalid argument",
        "readlink PATH/overlay2: invalid argument",
    ),
)
def link_file_damaged(overlay: Overlay, owners: Owners, layers: LayerDb) -> Iterator[Yield]:
    """A layer's link file, which holds its short name, is missing, empty or no name.

    ## What it is
    overlay2/ID/link holds 26 letters: the name of the short link l/NAME by which layers on
    top find this one. It is read whenever something is made on top of the layer.
    ## What you see
    docker run: "no such file or directory", or "invalid argument" on readlink overlay2/l.
    With an empty file the container may even start, with the wrong content.
    ## By hand
    od -c /var/lib/docker/overlay2/ID/link
    ls -l /var/lib/docker/overlay2/l
    ## Cure
    Write the name back: the short link that leads to the layer has it. Nothing stops, and the
    file must have no newline. A pull does not heal, it takes the layer for whole.
    ## Looks like
    LAY002 (the file is whole, the short link is not), LAY008 (the directory is gone)
    ## Limits
    For a container's own layer it is a warning: nothing is made on top of that one.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, moby issues 35747 and 42964
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    found = [
        _link_file(overlay, owners, layers, layer)
        for layer in owners.settled(overlay, overlay.unnamed)
        if (layer.link is None or not LINK.fullmatch(layer.link)) and layer.id not in overlay.unread
    ]
    yield from together(found, "layers have no link file that holds a name", "overlay2")
    yield from owners.unreadable(overlay)


def _above(overlay: Overlay, owners: Owners, layers: LayerDb, identity: str) -> str:
    """Give the name by which a layer right on top of this one knows it."""
    chain = owners.chain_of.get(identity, "")
    tops = layers.on_top.get(chain, []) if chain else []
    tops = [*tops, *(one.mount_id or "" for one in layers.mounts.values() if one.init_id == identity)]
    for one in tops:
        held = overlay.layers.get(one)
        word = (held.lower or "").partition(":")[0].removeprefix("l/") if held else ""
        if LINK.fullmatch(word) and overlay.links.get(word, f"../{identity}/diff") == f"../{identity}/diff":
            return word
    return ""


def _link_file(overlay: Overlay, owners: Owners, layers: LayerDb, layer: Layer) -> Finding:
    path = f"{overlay.root}/{layer.id}/link"
    names = [name for name in overlay.names_of(layer.id) if LINK.fullmatch(name)]
    known = _above(overlay, owners, layers, layer.id)
    name = known or (names[0] if names else "") or new_name(layer.id)
    steps: list[Step] = [write(path, name)]
    evidence = [overlay.cite(f"{layer.id}/link", "is not there" if layer.link is None else f"holds {layer.link!r}")]
    if name in overlay.links:
        evidence.append(overlay.cite_short(name, f"-> {overlay.links[name]}"))
    else:
        steps.append(Command(("ln", "-s", f"../{layer.id}/diff", f"{overlay.root}/l/{name}")))
    own = layer.id not in owners.images
    state = "is not there" if layer.link is None else "is empty" if not layer.link else "holds no name"
    tops = {image.id for image in owners.images.get(layer.id, ()) if owners.chain_of.get(layer.id) == image.chains[-1]}
    names_of = owners.names(layer.id)
    top = tuple(name for image in owners.images.get(layer.id, ()) if image.id in tops for name in image.shown)
    hits = []
    if top:
        hits.append(Effect("no container can be made from these images:", top))
    if names_of and not top:
        hits.append(Effect("nothing that shares this layer can be built or pulled; it is part of:", names_of))
    if own:
        hits.append(Effect("when these containers are removed, their short link stays behind", owners.own(layer.id)))
    since = Since(latest=Moment(layer.written, "the file was written last", evidence[0])) if layer.written else None
    leads = f"l/{name} leads to this layer" if name in overlay.links else "no short link leads to this layer"
    return Finding(
        subject=layer.id,
        title=f"the link file of layer {layer.id[:12]} {state}",
        message=f"{path} {state}; {leads}",
        evidence=tuple(evidence),
        remedy=Remedy("write the name back; it heals at once, no restart", tuple(steps)),
        severity=Severity.WARNING if own else Severity.ERROR,
        hits=tuple(hits),
        works=(Effect("containers that were made before can be started"),) if not own else (),
        excluded=(Excluded("LAY002", f"the short link l/{name} is there"),) if name in overlay.links else (),
        since=since,
    )


@check(
    "LAY002",
    Severity.ERROR,
    blocks_start=True,
    says=(
        "readlink PATH/overlay2/l/ID: no such file or directory",
        "error creating overlay mount to PATH ... no such file or directory",
    ),
)
def short_link_missing(overlay: Overlay, owners: Owners, log: DaemonLog) -> Iterator[Yield]:
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
    LAY001 (the link file is damaged), LAY006 (the content is gone)
    ## Limits
    Layers that no image and no container uses (build cache, leftovers) are not judged.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, docker/for-linux issue 791
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    shared = _shared_links(overlay, owners)
    wrong = [
        layer
        for layer in owners.settled(overlay, overlay.unnamed)
        if layer.link is not None and LINK.fullmatch(layer.link) and layer.link not in shared
    ]
    if len(wrong) > MANY:
        yield _many(overlay, owners, wrong)
        return
    for layer in wrong:
        yield _short_link(overlay, layer, owners, log)


def _shared_links(overlay: Overlay, owners: Owners) -> dict[str, list[Layer]]:
    """Give the names that several layers claim, with these layers."""
    counted = Counter(layer.link for layer in overlay.layers.values())
    claimed = {link for link, count in counted.items() if link and count > 1 and LINK.fullmatch(link)}
    found: dict[str, list[Layer]] = {}
    for layer in overlay.layers.values() if claimed else ():
        if layer.link in claimed:
            found.setdefault(layer.link or "", []).append(layer)
    return {link: several for link, several in found.items() if sum(owners.judged(one.id) for one in several) > 1}


_ALL_LINKS = (
    "mkdir -p l && for f in */link; do i=${f%/link}; n=$(cat $f);"
    ' [ -n "$n" ] && [ "$(readlink l/$n)" != ../$i/diff ] && ln -sfn ../$i/diff l/$n; done'
)


def _many(overlay: Overlay, owners: Owners, wrong: list[Layer]) -> Finding:
    gone = sum(layer.link not in overlay.links for layer in wrong)
    first = wrong[0]
    evidence = [overlay.cite_short("", f"has no entry for {gone} of {len(overlay.layers)} layers")]
    evidence.append(overlay.cite(f"{first.id}/link", first.link or ""))
    running = tuple(sorted({one.name for layer in wrong for one in owners.standing(layer.id) if one.running}))
    images = tuple(sorted({name for layer in wrong for name in owners.names(layer.id)}))
    own = tuple(sorted({name for layer in wrong for name in owners.own(layer.id)}))
    hits = [Effect("nothing made from these images can start, restart or be exec'd into:", images)] if images else []
    if own:
        hits.append(Effect("these containers cannot be started again or exec'd into", own))
    return Finding(
        subject="overlay2/l",
        title=f"the short links of {len(wrong)} layers are gone",
        message=f"{overlay.root}/l lacks the short links of {len(wrong)} of {len(overlay.layers)} layers",
        evidence=tuple(evidence),
        remedy=Remedy(
            "make each anew from the link file of its layer; it heals at once, no restart",
            (Command(("sh", "-c", f"cd {overlay.root} && {_ALL_LINKS}")),),
        ),
        hits=tuple(hits),
        works=(Effect("running containers still run, they were mounted before", running),) if running else (),
        excluded=(Excluded("LAY001", "the link files are whole"),),
    )


def _short_link(overlay: Overlay, layer: Layer, owners: Owners, log: DaemonLog) -> Finding:
    link = layer.link or ""
    wanted = f"../{layer.id}/diff"
    where = f"{overlay.root}/l/{link}"
    ident = f"{layer.id[:12]}..."
    if link not in overlay.links:
        title = f"a layer's short link is gone: l/{link}"
        second = Citation("store/overlay2-l", 0, "has no entry of that name", "overlay2/l/")
        steps = (Command(("ln", "-s", wanted, where)),)
        state = "is not there"
    else:
        title = f"a layer's short link leads elsewhere: l/{link}"
        now = overlay.links[link] or "no link"
        second = overlay.cite_short(link, f"-> {now}")
        steps = (Command(("ln", "-sfn", wanted, where)),)
        state = f"is {now}"
    size = owners.size_of.get(layer.id, -1)
    content = f"is there, {size:,} bytes as recorded" if size >= 0 else "is there"
    evidence = [overlay.cite(f"{layer.id}/link", link), second]
    excluded = [Excluded("LAY001", "its link file is whole")]
    if layer.diff == "d":
        found = overlay.cite(f"{layer.id}/diff", content)
        evidence.append(Citation(found.record, found.line, content, f"overlay2/{ident}/diff"))
        excluded.insert(0, Excluded("LAY006", "the layer's content is there"))
    return Finding(
        subject=layer.id,
        title=title,
        message=f"{where}, the short link to {wanted}, {state}",
        evidence=tuple(evidence),
        remedy=Remedy("heals at once, no restart", steps),
        hits=owners.hits(layer.id),
        works=owners.works(layer.id),
        excluded=tuple(excluded),
        since=_since(layer, evidence[0], owners, log),
    )


def _since(layer: Layer, link: Citation, owners: Owners, log: DaemonLog) -> Since | None:
    """Say when it went: after the last start of a container that needed it, before the first complaint of dockerd."""
    started = [one for one in owners.standing(layer.id) if one.running and one.started]
    last = max(started, key=lambda one: one.started, default=None)
    earliest = None
    if last is not None:
        earliest = Moment(last.started, f"{last.name} was mounted with it", last.cited)
    elif layer.written:
        earliest = Moment(layer.written, "the layer was made", link)
    first = log.first(f"readlink {layer.link}", after=earliest.at if earliest else 0.0) or log.first(
        f"/l/{layer.link}: no such file", after=earliest.at if earliest else 0.0
    )
    latest = Moment(first.at, "first complaint of dockerd", first.cited) if first is not None and first.at else None
    return Since(earliest=earliest, latest=latest) if earliest or latest else None
