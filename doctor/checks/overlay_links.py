"""The directories of overlay2: what the engine mounts, and by which short links it finds what is below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lowers import LowerFault, Lowers
from doctor.facts.repairs import MANY, lost, new_name, together, write
from doctor.facts.store import LINK, MOUNT_ID, Images, Layer, LayerDb, Overlay, Owners
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check


def _judged(overlay: Overlay, owners: Owners) -> Iterator[Layer]:
    """Give the layers that something settled stands on, and that were still there at the end."""
    for identity, layer in overlay.layers.items():
        if owners.judged(identity) and (overlay.last is None or identity in overlay.last):
            yield layer


def _unreadable(overlay: Overlay, owners: Owners) -> Iterator[Unknown]:
    for identity, why in overlay.unread.items():
        if owners.judged(identity):
            yield Unknown(identity, why)


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
    found = []
    for layer in _judged(overlay, owners):
        if layer.link is not None and LINK.fullmatch(layer.link):
            continue
        if layer.id not in overlay.unread:
            found.append(_link_file(overlay, owners, layers, layer))
    yield from together(found, "layers have no link file that holds a name", "overlay2")
    yield from _unreadable(overlay, owners)


def _above(overlay: Overlay, owners: Owners, layers: LayerDb, identity: str) -> str:
    """Give the name by which a layer right on top of this one knows it."""
    chain = owners.chain_of.get(identity, "")
    tops = [one.cache_id for one in layers.chains.values() if chain and one.parent == chain]
    tops += [one.init_id or one.mount_id for one in layers.mounts.values() if chain and one.parent == chain]
    tops += [one.mount_id for one in layers.mounts.values() if one.init_id == identity]
    for one in tops:
        held = overlay.layers.get(one or "")
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
        hits.append(Effect("when these containers are removed, their short link stays behind", _own(owners, layer.id)))
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


def _own(owners: Owners, identity: str) -> tuple[str, ...]:
    return tuple(sorted({one.name for one in owners.containers.get(identity, ())}))


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
    wrong = []
    shared = _shared_links(overlay, owners)
    for layer in _judged(overlay, owners):
        link = layer.link
        if link is None or overlay.links.get(link) == f"../{layer.id}/diff" or not LINK.fullmatch(link):
            continue
        if link not in shared:
            wrong.append(layer)
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
    own = tuple(sorted({name for layer in wrong for name in _own(owners, layer.id)}))
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


# What is below a layer

_SHORT = 200
_SAYS = {
    "missing": "is not there",
    "empty": "is empty",
    "malformed": "holds {0!r}, which is no short link",
    "unknown": "names {0}, which is no layer's",
    "twice": "names {0} twice",
    "itself": "names {0}, which is the layer itself",
    "order": "is not what the layer database says: {0}",
}


def _lower(overlay: Overlay, owners: Owners, lowers: Lowers, kinds: set[str], what: str) -> Iterator[Yield]:
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    found = [
        _lower_finding(overlay, owners, fault)
        for fault in lowers.faults
        if fault.kind in kinds and (overlay.last is None or fault.id in overlay.last)
    ]
    yield from together(found, what, "overlay2")
    yield from _unreadable(overlay, owners)


def _lower_finding(overlay: Overlay, owners: Owners, fault: LowerFault) -> Finding:
    path = f"{overlay.root}/{fault.id}/lower"
    says = _SAYS[fault.kind].format(fault.detail)
    excerpt = "is not there" if fault.kind == "missing" else overlay.layers[fault.id].lower or "is empty"
    steps: tuple[Step, ...] = (
        (write(path, fault.wanted),)
        if fault.wanted
        else (Note("heal the layers below first, then run doctor check again: it will know what to write"),)
    )
    if fault.lowest:
        steps = (Command(("rm", path)),)
    words = overlay.layers[fault.id].lower or ""
    return Finding(
        subject=fault.id,
        title=f"the list of layers below {fault.id[:12]} {says.split(',')[0].split(':')[0]}",
        message=f"{path} {says}" + (f"; it has to be {fault.wanted}" if 0 < len(fault.wanted) < _SHORT else ""),
        evidence=(overlay.cite(f"{fault.id}/lower", excerpt),),
        remedy=Remedy(
            "write the list that the layer database asks for; it holds from the next start of a container",
            steps,
            undo=(write(path, words),) if words else (),
        ),
        hits=owners.hits(fault.id),
        works=owners.works(fault.id),
        excluded=(Excluded("LAY002", "the short links of the layers below are there"),) if fault.wanted else (),
    )


@check("LAY003", Severity.ERROR, blocks_start=True)
def lower_file_damaged(overlay: Overlay, owners: Owners, lowers: Lowers) -> Iterator[Yield]:
    """A layer's list of what is below it is missing, empty, or names what is not there.

    ## What it is
    overlay2/ID/lower lists the short links of the layers below: l/NAME:l/NAME. Each layer but
    the lowest of an image has one; containers are mounted by theirs.
    ## What you see
    Without it a container has only its own files: "no such file or directory" for its command.
    With an empty one: "readlink /var/lib/docker/overlay2/l: invalid argument".
    ## By hand
    cat /var/lib/docker/overlay2/ID/lower
    ## Cure
    Write the list back: it follows from the layer database and the link files. Nothing stops.
    docker pull does not heal, it takes the layer for whole.
    ## Looks like
    LAY002 (the list is right, a short link is gone), LAY008 (a layer of the list is gone)
    ## Limits
    Only layers that an image or a container uses are judged.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, moby issue 42978
    """
    kinds = {"missing", "empty", "malformed", "unknown"}
    yield from _lower(overlay, owners, lowers, kinds, "layers have no right list of what is below them")


@check("LAY004", Severity.ERROR)
def lower_file_of_other_layers(overlay: Overlay, owners: Owners, lowers: Lowers) -> Iterator[Yield]:
    """A layer's list of what is below it is not what the layer database says.

    ## What it is
    overlay2/ID/lower has to list the layers below in the order of the layer database, the
    nearest first. Here layers are missing, or stand in another order.
    ## What you see
    Containers start and have the wrong files: some are old, some are missing, deleted ones are
    back. Nothing complains.
    ## By hand
    cat /var/lib/docker/overlay2/ID/lower
    docker image inspect IMAGE -f '{{json .GraphDriver.Data}}'
    ## Cure
    Write the list that the layer database asks for. Running containers keep what they were
    mounted with until they are started again.
    ## Looks like
    LAY003 (the list is empty or names nothing), LAY032 (a layer is in it twice)
    ## Limits
    A directory that the layer database does not know may be BuildKit's, and is not judged.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, OCI image-spec config.md
    """
    yield from _lower(overlay, owners, lowers, {"order"}, "layers have the wrong layers below them")


@check("LAY032", Severity.ERROR, blocks_start=True)
def lower_file_with_a_loop(overlay: Overlay, owners: Owners, lowers: Lowers) -> Iterator[Yield]:
    """A layer stands twice among the layers of one mount.

    ## What it is
    The kernel refuses to mount an overlay in which one directory is a layer twice. Here the
    list of a layer (overlay2/ID/lower) names one of them again, or the layer itself.
    ## What you see
    "error creating overlay mount to ... too many levels of symbolic links" (ELOOP).
    ## By hand
    cat /var/lib/docker/overlay2/ID/lower
    cat /var/lib/docker/overlay2/ID/link
    ## Cure
    Write the list that the layer database asks for. Nothing stops.
    ## Looks like
    LAY004 (each once, in the wrong order), LAY019 (two layers of one name)
    ## Limits
    Only layers that an image or a container uses are judged.
    ## References
    mount(2) ELOOP, moby issue 46498, Linux Documentation/filesystems/overlayfs.rst
    """
    yield from _lower(overlay, owners, lowers, {"twice", "itself"}, "layers have one below them twice")


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
    Whether the content is what it was is not looked at. Image layers need no work directory.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, Linux Documentation/filesystems/overlayfs.rst
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    mounts = {identity for identity in owners.containers if not identity.endswith("-init")}
    found = []
    for layer in _judged(overlay, owners):
        if layer.id in overlay.unread:
            continue
        if layer.diff != "d":
            found.append(_content(overlay, owners, layer, "diff"))
        if layer.work != "d" and layer.lower and layer.id in mounts and layer.id not in owners.images:
            found.append(_content(overlay, owners, layer, "work"))
    yield from together(found, "layers have lost their content", "overlay2")
    yield from _unreadable(overlay, owners)


def _content(overlay: Overlay, owners: Owners, layer: Layer, member: Literal["diff", "work"]) -> Finding:
    path = f"{overlay.root}/{layer.id}/{member}"
    kind = layer.diff if member == "diff" else layer.work
    state = "is not there" if kind == "-" else "is no directory"
    own = layer.id not in owners.images
    what = "work directory" if member == "work" else "content"
    names = ", ".join(_own(owners, layer.id))
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
        + (
            (Effect("what these containers wrote is lost", _own(owners, layer.id)),) if own and member == "diff" else ()
        ),
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
