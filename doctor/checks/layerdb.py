"""The layer database: what dockerd knows of each layer, of how layers stand on each other, and of containers' layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.facts.lifecycle import Lifecycle
from doctor.facts.loaded import Loaded
from doctor.facts.lowers import Lowers
from doctor.facts.repairs import lost, new_name, together, write
from doctor.facts.store import DIGEST, LINK, MOUNT_ID, Chain, Images, LayerDb, Mount, Overlay, Owners, chain_ids
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.containers import Container


def _used(layers: LayerDb, images: Images, owners: Owners) -> dict[str, Chain]:
    """Give the chains that a settled image or container stands on; all of them where nothing can change."""
    if owners.static:
        return layers.chains
    wanted = dict.fromkeys(images.chains)
    by_id = {one.id for one in owners.everyone}
    for mount in layers.mounts.values():
        chain = mount.parent or ""
        while mount.container in by_id and chain in layers.chains and chain not in wanted:
            wanted[chain] = None
            chain = layers.chains[chain].parent or ""
    return {name: layers.chains[name] for name in wanted if name in layers.chains}


class _Store:
    """What the cures of this module need: who stands on a chain, and whether dockerd has to be started anew."""

    def __init__(self, layers: LayerDb, images: Images, owners: Owners, loaded: Loaded, lifecycle: Lifecycle) -> None:
        """Keep the facts."""
        self.layers = layers
        self.images = images
        self.owners = owners
        self.loaded = loaded
        self.lifecycle = lifecycle

    def images_on(self, chain: str) -> tuple[str, ...]:
        """Give the names of the images that a chain is part of."""
        return tuple(name for image in self.images.all if chain in image.chains for name in image.shown)

    def containers_on(self, chain: str) -> tuple[Container, ...]:
        """Give the containers of these images, and those whose mount stands on the chain."""
        held = {image.id for image in self.images.all if chain in image.chains}
        mounted = {mount.container for mount in self.layers.mounts.values() if mount.parent == chain}
        return tuple(one for one in self.owners.everyone if one.image_id in held or one.id in mounted)

    def hits(self, chain: str) -> tuple[Effect, ...]:
        """Say what dockerd drops when it reads the database at its next start."""
        images, containers = self.images_on(chain), tuple(one.name for one in self.containers_on(chain))
        hits = []
        if images:
            lost_now = any(self.loaded.misses(image) for image in self.images.all if chain in image.chains)
            text = "dockerd has dropped these images:" if lost_now else "at its next start dockerd drops these images:"
            hits.append(Effect(text, images))
        if containers:
            hits.append(Effect("and does not know these containers any more:", containers))
        return tuple(hits)

    def works(self, chain: str) -> tuple[Effect, ...]:
        """Say what goes on: a dockerd that runs has read the database before."""
        if any(self.loaded.misses(image) for image in self.images.all if chain in image.chains):
            return ()
        running = tuple(one.name for one in self.containers_on(chain) if one.running)
        return (Effect("running containers go on until dockerd is started again", running),) if running else ()

    def remedy(self, chain: str, summary: str, *steps: Step, notes: tuple[str, ...] = ()) -> Remedy:
        """Make a cure of the database: where dockerd has dropped something already, it has to read it again."""
        missed = any(self.loaded.misses(image) for image in self.images.all if chain in image.chains)
        if missed and not self.owners.static:
            return self.lifecycle.remedy(f"{summary}, then let dockerd read it", *steps, notes=notes)
        return Remedy(f"{summary}; nothing stops", tuple(steps), notes=notes)


def _nothing(overlay: Overlay, layers: LayerDb) -> str:
    if overlay.unused:
        return overlay.unused
    return "" if layers.chains or layers.mounts else f"no layers in {layers.root}"


def _unread(layers: LayerDb, used: dict[str, Chain]) -> Iterator[Unknown]:
    for chain, why in layers.unread.items():
        if chain in used:
            yield Unknown(chain[7:], why)


# The files of a chain


def _cache_of(overlay: Overlay, layers: LayerDb, owners: Owners, lowers: Lowers, chain: str) -> str:
    """Find the directory of a chain: what is right below the layers on top of it, else the one that fits and has no owner."""
    tops = [one.cache_id for one in layers.chains.values() if one.parent == chain]
    tops += [one.init_id or one.mount_id for one in layers.mounts.values() if one.parent == chain]
    found = set()
    for one in tops:
        held = overlay.layers.get(one or "")
        word = (held.lower or "").partition(":")[0].removeprefix("l/") if held else ""
        target = overlay.links.get(word, "")
        if LINK.fullmatch(word) and target.startswith("../") and target.endswith("/diff"):
            found.add(target[3:-5])
    if not found:
        parent = layers.chains[chain].parent if chain in layers.chains else None
        below = lowers.below.get(parent or "", "")
        wanted = below or None
        if parent and not below:
            return ""
        for layer in overlay.layers.values():
            if layer.id not in owners.owned and layer.lower == wanted and not layer.id.endswith("-init"):
                found.add(layer.id)
    return found.pop() if len(found) == 1 else ""


@check(
    "LAY007",
    Severity.ERROR,
    says=(
        "failed to register layer: rename ... layerdb ... file exists",
        "failed to register layer: rename ... layerdb ... directory not empty",
        "layer does not exist",
    ),
)
def layer_record_damaged(
    overlay: Overlay,
    layers: LayerDb,
    images: Images,
    owners: Owners,
    lowers: Lowers,
    loaded: Loaded,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """A layer's record in the layer database lacks a file, or one of them holds nonsense.

    ## What it is
    layerdb/sha256/CHAIN holds diff (a digest), size (a number) and cache-id (the directory in
    overlay2). dockerd drops a layer that lacks one when it starts, and every image with it.
    ## What you see
    Images that are gone from docker images after a restart; "failed to register layer: rename
    ... file exists" when they are pulled again. The log says nothing without debug.
    ## By hand
    ls -l /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN
    ## Cure
    Write the file again: the image's configuration has the digest, the layers on top know the
    directory. Where dockerd has dropped the image already, it has to be started again.
    ## Looks like
    LAY008 (the record is whole, its directory is gone), LAY021 (there is no record at all)
    ## Limits
    tar-split.json.gz is not looked at. Records that no image needs are judged when dockerd is down.
    ## References
    moby layer/filestore.go (GetDiffID, GetSize, GetCacheID), moby issue 44909
    """
    why = _nothing(overlay, layers)
    if why:
        yield NotApplicable(why)
        return
    used = _used(layers, images, owners)
    store = _Store(layers, images, owners, loaded, lifecycle)
    found = []
    for chain in used.values():
        if chain.id in layers.unread:
            continue
        wrong = {}
        if not chain.diff or not DIGEST.fullmatch(chain.diff):
            wrong["diff"] = chain.diff
        if not chain.cache_id:
            wrong["cache-id"] = chain.cache_id
        if not chain.size or not chain.size.isdecimal():
            wrong["size"] = chain.size
        if wrong:
            found.append(_record(chain, wrong, overlay, lowers, store))
    yield from together(found, "records of layers are damaged", "layerdb")
    yield from _unread(layers, used)


def _record(chain: Chain, wrong: dict[str, str | None], overlay: Overlay, lowers: Lowers, store: _Store) -> Finding:
    layers, folder = store.layers, store.layers.folder(chain.id)
    cache = chain.cache_id or _cache_of(overlay, layers, store.owners, lowers, chain.id)
    steps: list[Step] = []
    for member in wrong:
        if member == "diff" and chain.id in store.images.chains:
            steps.append(write(f"{folder}/diff", store.images.chains[chain.id][1]))
        elif member == "cache-id" and cache:
            steps.append(write(f"{folder}/cache-id", cache))
        elif member == "size" and cache:
            count = (
                f"find {overlay.root}/{cache}/diff -type f -printf '%s\\n' | awk '{{n += $1}} END {{printf \"%d\", n}}'"
            )
            steps.append(Command(("sh", "-c", f"{count} >{folder}/size")))
        else:
            steps.append(
                Note(f"nothing here tells what {folder}/{member} held: docker rmi, then pull or load the image again")
            )
    states = {
        name: "is not there" if text is None else f"holds {text!r}" if text else "is empty"
        for name, text in wrong.items()
    }
    said = ", ".join(f"{name} {state}" for name, state in states.items())
    return Finding(
        subject=chain.id[7:],
        title=f"the record of layer {chain.id[7:19]} is damaged: {said}",
        message=f"{folder}: {said}",
        evidence=tuple(layers.cite(chain.id, name, state) for name, state in states.items()),
        remedy=store.remedy(chain.id, "write what is missing", *steps),
        severity=None if store.images_on(chain.id) or store.containers_on(chain.id) else Severity.WARNING,
        hits=store.hits(chain.id) or (Effect("the layer cannot be pulled or built again"),),
        works=store.works(chain.id),
        excluded=(Excluded("LAY008", "its directory in overlay2 is there"),) if cache in overlay.layers else (),
    )


@check("LAY008", Severity.ERROR, explains=("LAY002", "LAY003"), blocks_start=True)
def directory_of_layer_missing(
    overlay: Overlay, layers: LayerDb, images: Images, owners: Owners, lowers: Lowers
) -> Iterator[Yield]:
    """A layer is in the layer database, and its directory in overlay2 is gone.

    ## What it is
    cache-id in the layer database names the directory in overlay2 that holds the layer. dockerd
    does not look whether it is there before a container needs it.
    ## What you see
    "stat /var/lib/docker/overlay2/ID: no such file or directory" at docker run; images are
    listed as whole. Directories were removed by hand, by a cleaning script, or by fsck.
    ## By hand
    cat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/cache-id
    ls -d /var/lib/docker/overlay2/ID
    ## Cure
    The content is lost here. It comes anew only when every image and container that shares the
    layer is gone; docker pull and docker load over it heal nothing, they say it already exists.
    ## Looks like
    LAY006 (the directory is there, its content is not), LAY024 (a container's own layer)
    ## Limits
    Layers that no image and no container uses are not judged while dockerd runs.
    ## References
    moby layer/layer_store.go, moby daemon/graphdriver/overlay2/overlay.go
    """
    why = _nothing(overlay, layers)
    if why:
        yield NotApplicable(why)
        return
    used = _used(layers, images, owners)
    found = []
    for chain in used.values():
        cache = chain.cache_id
        if (
            cache
            and overlay.gone(cache)
            and chain.id not in layers.unread
            and (cache in owners.images or owners.static)
        ):
            found.append(_directory(chain, cache, overlay, layers, owners, lowers))
    yield from together(found, "layers have lost their directory", "overlay2")
    yield from _unread(layers, used)


def _directory(chain: Chain, cache: str, overlay: Overlay, layers: LayerDb, owners: Owners, lowers: Lowers) -> Finding:
    other = _cache_of(overlay, layers, owners, lowers, chain.id)
    if other and other in overlay.layers and other != cache:
        remedy = Remedy(
            "name the directory that holds it; nothing stops",
            (write(f"{layers.folder(chain.id)}/cache-id", other),),
        )
    else:
        remedy = lost(cache, owners)
    running = tuple(one.name for one in owners.standing(cache) if one.running)
    return Finding(
        subject=cache,
        title=f"the directory of layer {cache[:12]} is gone",
        message=f"{overlay.root}/{cache}, which the layer database names for {chain.id[7:19]}, is not there",
        evidence=(
            layers.cite(chain.id, "cache-id", cache),
            Citation("store/overlay2", 0, f"no {cache[:12]}... among {len(overlay.layers)} directories", "overlay2/"),
        ),
        remedy=remedy,
        severity=None if owners.names(cache) else Severity.WARNING,
        hits=owners.hits(cache) or (Effect("what is built on it fails"),),
        works=(Effect("running containers run on, with the files they still hold open", running),) if running else (),
    )


@check("LAY009", Severity.ERROR, explains=("LAY004",))
def chain_id_does_not_add_up(
    overlay: Overlay, layers: LayerDb, images: Images, owners: Owners, loaded: Loaded, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """A layer's record says another parent or content than its name is made of.

    ## What it is
    The name of a record in the layer database is the digest of its parent's name and its own
    diff. Here they do not give that name: parent or diff was lost or changed.
    ## What you see
    Sizes that are too small, "layer does not exist"; a base image that is removed though others
    stand on it, since dockerd counts references by parent.
    ## By hand
    cat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/parent
    cat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/diff
    ## Cure
    Write what the image's configuration says. Where dockerd has read the wrong one it goes on
    with it until it is started again; until then remove no image.
    ## Looks like
    LAY010 (the parent that is named does not exist), LAY007 (a file is no digest at all)
    ## Limits
    Of a record that no known image contains it can only be said that it does not add up.
    ## References
    OCI image-spec config.md (Layer ChainID), moby layer/layer_store.go
    """
    yield from _arithmetic(overlay, layers, images, owners, loaded, lifecycle, unknown_parent=False)


@check("LAY010", Severity.ERROR, explains=("LAY004",))
def parent_of_layer_unknown(
    overlay: Overlay, layers: LayerDb, images: Images, owners: Owners, loaded: Loaded, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """A layer's record names a parent that the layer database does not have.

    ## What it is
    parent in the layer database names the record of the layer below. dockerd drops a layer
    whose parent it cannot read when it starts, and every image on it.
    ## What you see
    Images that are gone from docker images after a restart of dockerd.
    ## By hand
    cat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/parent
    ## Cure
    Write the parent that the image's configuration says; then start dockerd again where it has
    dropped the image.
    ## Looks like
    LAY009 (the parent exists, and is another layer's), LAY021 (the name is right, that record
    is gone)
    ## Limits
    Records that no image needs are judged only when dockerd is down.
    ## References
    moby layer/filestore.go (GetParent), moby layer/layer_store.go (loadLayer)
    """
    yield from _arithmetic(overlay, layers, images, owners, loaded, lifecycle, unknown_parent=True)


def _arithmetic(
    overlay: Overlay,
    layers: LayerDb,
    images: Images,
    owners: Owners,
    loaded: Loaded,
    lifecycle: Lifecycle,
    *,
    unknown_parent: bool,
) -> Iterator[Yield]:
    why = _nothing(overlay, layers)
    if why:
        yield NotApplicable(why)
        return
    used = _used(layers, images, owners)
    store = _Store(layers, images, owners, loaded, lifecycle)
    found = []
    for chain in used.values():
        parent = chain.parent
        made = images.chains.get(chain.id)
        if made is not None and made == (parent or "", chain.diff) and parent != "":
            continue
        if chain.id in layers.unread or not chain.diff or not DIGEST.fullmatch(chain.diff):
            continue  # LAY007 says so
        strange = parent is not None and parent not in layers.chains
        if made is not None and strange and parent == made[0]:
            continue  # the name is right: LAY021 says that the record is gone
        if strange != unknown_parent:
            continue
        if strange or not _adds_up(chain):
            found.append(_does_not_add_up(chain, made, store))
    yield from together(found, "records of layers name the wrong parent or content", "layerdb")
    yield from _unread(layers, used)


def _adds_up(chain: Chain) -> bool:
    if not chain.parent:
        return chain.diff == chain.id
    return chain_ids((chain.parent, chain.diff or ""))[1] == chain.id


def _does_not_add_up(chain: Chain, made: tuple[str, str] | None, store: _Store) -> Finding:
    layers, folder = store.layers, store.layers.folder(chain.id)
    steps: list[Step] = []
    evidence = []
    says = []
    right = made or ("", "")
    if made is None or (chain.parent or "") != right[0] or chain.parent == "":
        state = "is not there" if chain.parent is None else f"holds {chain.parent[:19] or 'nothing'}"
        evidence.append(layers.cite(chain.id, "parent", chain.parent or state))
        says.append(f"parent {state}")
        if made is not None:
            steps.append(write(f"{folder}/parent", right[0]) if right[0] else Command(("rm", f"{folder}/parent")))
    if made is None or chain.diff != right[1]:
        evidence.append(layers.cite(chain.id, "diff", chain.diff or ""))
        says.append(f"diff holds {(chain.diff or '')[:19]}")
        if made is not None:
            steps.append(write(f"{folder}/diff", right[1]))
    if made is None:
        steps.append(
            Note(f"no image here says what {folder} has to hold: remove what stands on it, and pull or build that anew")
        )
    said = ", ".join(says)
    images = store.images_on(chain.id)
    return Finding(
        subject=chain.id[7:],
        title=f"the record of layer {chain.id[7:19]} does not add up: {says[0]}",
        message=f"{folder}: {said}"
        + (
            f"; {images[0]} needs parent {right[0][7:19] or 'none'} and diff {right[1][7:19]}"
            if made and images
            else ""
        ),
        evidence=tuple(evidence),
        remedy=_reread(chain.id, ("diff", "parent"), steps, store),
        severity=None if images or store.containers_on(chain.id) else Severity.WARNING,
        hits=store.hits(chain.id)
        or (Effect("dockerd counts references by parent: a layer below may be removed under this one"),),
        works=store.works(chain.id),
    )


def _reread(chain: str, members: tuple[str, ...], steps: list[Step], store: _Store) -> Remedy:
    """Make a cure of a record that dockerd takes for good: one written before it started has been read."""
    written = [store.layers.written(chain, member) for member in members]
    if any(0 < one < store.loaded.started for one in written) and not store.owners.static:
        return store.lifecycle.remedy("write what is right, then let dockerd read it", *steps)
    price = store.lifecycle.price()
    note = "a dockerd that has read the wrong one has to be started again" + (f": {price}" if price else "")
    return store.remedy(chain, "write what is right", *steps, notes=(note,))


# Two layers in one directory


@check("LAY019", Severity.ERROR)
def layers_share_a_directory(
    overlay: Overlay,
    layers: LayerDb,
    images: Images,
    owners: Owners,
    lowers: Lowers,
    loaded: Loaded,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """Two layers claim one directory of overlay2, or one short name.

    ## What it is
    Each layer has a directory and a short link of its own. Here two records name the same
    cache-id, or two directories hold the same name in link: one of them is served wrong files.
    ## What you see
    Containers with the files of another image; removing one image breaks the other.
    ## By hand
    grep -r . /var/lib/docker/image/overlay2/layerdb/sha256 --include=cache-id
    grep -r . /var/lib/docker/overlay2 --include=link
    ## Cure
    Give the one that is wrong its own again: the layers on top of it, and the short links, tell
    which that is. Remove no image before.
    ## Looks like
    LAY002 (one short link leads elsewhere), LAY004 (a list has the wrong layers)
    ## Limits
    A copy of a directory that nothing refers to is LAY018's.
    ## References
    moby layer/layer_store.go, moby daemon/graphdriver/overlay2/overlay.go
    """
    why = _nothing(overlay, layers)
    if why:
        yield NotApplicable(why)
        return
    used = _used(layers, images, owners)
    store = _Store(layers, images, owners, loaded, lifecycle)
    by_cache: dict[str, list[Chain]] = {}
    for chain in used.values():
        if chain.cache_id:
            by_cache.setdefault(chain.cache_id, []).append(chain)
    for cache, several in by_cache.items():
        if len(several) > 1:
            yield _shared_cache(cache, several, overlay, lowers, store)
    by_link: dict[str, list[str]] = {}
    for layer in overlay.layers.values():
        if layer.link and LINK.fullmatch(layer.link) and (owners.judged(layer.id) or owners.static):
            by_link.setdefault(layer.link, []).append(layer.id)
    for link, claims in by_link.items():
        if len(claims) > 1:
            yield _shared_link(link, claims, overlay, owners)
    yield from _unread(layers, used)


def _shared_cache(cache: str, several: list[Chain], overlay: Overlay, lowers: Lowers, store: _Store) -> Finding:
    steps: list[Step] = []
    wrong = several[-1].id
    for chain in several:
        right = _cache_of(overlay, store.layers, store.owners, lowers, chain.id)
        if right and right != cache:
            steps.append(write(f"{store.layers.folder(chain.id)}/cache-id", right))
            wrong = chain.id
    if not steps:
        steps.append(
            Note("see which of the two the directory belongs to, remove the images on the other, and get them anew")
        )
    names = tuple(dict.fromkeys(name for chain in several for name in store.images_on(chain.id)))
    return Finding(
        subject=cache,
        title=f"{len(several)} layers claim the directory {cache[:12]}",
        message=f"{overlay.root}/{cache} is the cache-id of {' and of '.join(chain.id[7:19] for chain in several)}",
        evidence=tuple(store.layers.cite(chain.id, "cache-id", cache) for chain in several),
        remedy=_reread(wrong, ("cache-id",), steps, store),
        hits=(Effect("one of these images is served the files of another layer:", names),) if names else (),
    )


def _shared_link(link: str, claims: list[str], overlay: Overlay, owners: Owners) -> Finding:
    target = overlay.links.get(link, "")
    steps: list[Step] = []
    for identity in claims:
        if target == f"../{identity}/diff":
            continue
        own = [name for name in overlay.names_of(identity) if LINK.fullmatch(name)]
        if own:
            steps.append(write(f"{overlay.root}/{identity}/link", own[0]))
    if not steps:
        steps.append(Note("no short link leads to the other one: remove what stands on it, and get it anew"))
    names = tuple(dict.fromkeys(name for identity in claims for name in owners.names(identity)))
    return Finding(
        subject=f"l/{link}",
        title=f"{len(claims)} layers are called {link}",
        message=f"{' and '.join(one[:12] for one in claims)} both hold {link} in link; the short link is {target or 'gone'}",
        evidence=(
            *(overlay.cite(f"{identity}/link", link) for identity in claims),
            overlay.cite_short(link, f"-> {target}" if target else "is not there"),
        ),
        remedy=Remedy("give the other one its name back; it heals at once, no restart", tuple(steps)),
        hits=(Effect("what is made from one of these images gets the files of another layer:", names),)
        if names
        else (),
        works=(Effect("containers that were made before have the right files"),),
    )


# Containers


@check("LAY024", Severity.ERROR, explains=("LAY003",), blocks_start=True)
def mount_of_container_damaged(
    overlay: Overlay,
    layers: LayerDb,
    images: Images,
    owners: Owners,
    lowers: Lowers,
    loaded: Loaded,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """A container's own layer cannot be found: its record is damaged, or its directory is gone.

    ## What it is
    layerdb/mounts/CONTAINER holds mount-id and init-id, directories in overlay2, and parent, the
    chain of its image. dockerd drops a container whose record it cannot read when it starts.
    ## What you see
    docker ps -a does not list a container any more after a restart; "failed to load container
    mount", "mount does not exist"; or "stat .../overlay2/ID: no such file or directory".
    ## By hand
    grep -r . /var/lib/docker/image/overlay2/layerdb/mounts/CONTAINER
    ## Cure
    Write the record again: the two ids differ by -init, parent follows from the image. Where a
    directory is gone, what the container wrote is lost; an empty one lets it start again.
    ## Looks like
    LAY006 (the directory is there, its content is not), LAY008 (a layer of the image is gone)
    ## Limits
    Of a container that is in the making or being removed nothing is said.
    ## References
    moby layer/filestore.go (GetMountID), moby layer/layer_store.go (loadMount)
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    everyone = [
        one for one in owners.everyone if one.status not in {"removing", "dead"} and one.driver in {"", "overlay2"}
    ]
    dropped = {one.id for one in loaded.dropped}
    everyone += [one for one in loaded.dropped if one.driver in {"", "overlay2"}]
    if not everyone:
        yield NotApplicable("no containers here")
        return
    found = []
    for one in everyone:
        finding = _container(one, overlay, layers, images, lowers, lifecycle, gone=one.id in dropped)
        if finding is not None:
            found.append(finding)
    yield from together(found, "containers have lost their layer", "containers")


class _Said:
    """What is wrong with one container's record, the lines that show it, and the steps that heal it."""

    def __init__(self, one: Container, layers: LayerDb) -> None:
        """Begin with nothing."""
        self.one = one
        self.layers = layers
        self.folder = f"{layers.root}/mounts/{one.id}"
        self.there = one.id in layers.mounts
        self.says: list[str] = []
        self.steps: list[Step] = []
        self.evidence: list[Citation] = []
        self.lost = False

    def record(self) -> None:
        """The record as a whole is not there."""
        self.says.append("there is no such record")
        self.evidence.append(
            Citation(self.layers.mounts_record.name, 0, f"has no {self.one.id[:12]}...", "layerdb/mounts/")
        )
        self.steps.append(Command(("mkdir", self.folder)))

    def wrong(self, member: str, text: str | None, right: str) -> None:
        """One of its files is wrong."""
        if self.there:
            state = "is not there" if text is None else f"holds {text!r}" if text else "is empty"
            self.says.append(f"{member} {state}")
            self.evidence.append(self.layers.cite_mount(self.one.id, member, state))
        path = f"{self.folder}/{member}"
        self.steps.append(write(path, right) if right else Note(f"nothing here tells what {path} held"))

    def gone(self, member: str, identity: str, steps: list[Step]) -> None:
        """A directory that it names is gone."""
        self.says.append(f"{identity[:12]}{'-init' if member == 'init-id' else ''} is not in overlay2")
        self.evidence.append(self.layers.cite_mount(self.one.id, member, identity))
        self.steps += steps
        self.lost = self.lost or member == "mount-id"


def _valid(identity: str | None) -> str:
    return identity if identity and MOUNT_ID.fullmatch(identity) else ""


def _container(
    one: Container,
    overlay: Overlay,
    layers: LayerDb,
    images: Images,
    lowers: Lowers,
    lifecycle: Lifecycle,
    *,
    gone: bool,
) -> Finding | None:
    said = _Said(one, layers)
    held = layers.mounts.get(one.id) or Mount(one.id, None, None, None)
    mount_id, init_id = _valid(held.mount_id), _valid(held.init_id)
    image = next((image for image in images.all if image.id == one.image_id), None)
    top = image.chains[-1] if image and image.chains else ""
    if not said.there and one.driver != "overlay2":
        return None
    if not said.there:
        said.record()
    right_mount = mount_id or _mount_of(init_id, top, overlay, layers, lowers)
    right_init = init_id or (f"{right_mount}-init" if f"{right_mount}-init" in overlay.layers else "")
    if not mount_id:
        said.wrong("mount-id", held.mount_id, right_mount)
    if not init_id and (held.init_id is not None or right_init):
        said.wrong("init-id", held.init_id, right_init)
    unknown = held.parent is not None and held.parent not in layers.chains
    if held.parent != top and (unknown or top in layers.chains):
        said.wrong("parent", held.parent, top)
    for member, identity in (("mount-id", mount_id), ("init-id", init_id)):
        if identity and overlay.gone(identity):
            said.gone(member, identity, _empty_layer(identity, init_id, held.parent or top, overlay, lowers, one))
    return _lost_mount(said, lifecycle, gone=gone) if said.says else None


def _lost_mount(said: _Said, lifecycle: Lifecycle, *, gone: bool) -> Finding:
    name = said.one.name
    summary = "give it an empty layer" if said.lost else "make the record whole"
    text = "dockerd has dropped this container" if gone else "this container cannot be started again"
    hits = [Effect(text, (name,))]
    if said.lost:
        hits.append(Effect("what it wrote is lost", (name,)))
    return Finding(
        subject=name,
        title=f"the layer of container {name} cannot be found: {said.says[0]}",
        message=f"{said.folder}: {', '.join(said.says)}",
        evidence=tuple(said.evidence),
        remedy=lifecycle.remedy(f"{summary}, then let dockerd read it", *said.steps)
        if gone
        else Remedy(f"{summary}; nothing stops", tuple(said.steps)),
        hits=tuple(hits),
        works=(Effect("it still runs, it was mounted before", (name,)),) if said.one.running else (),
    )


def _mount_of(init_id: str, top: str, overlay: Overlay, layers: LayerDb, lowers: Lowers) -> str:
    """Find a container's directory: by its init layer, else the one without an owner that stands on its image."""
    by_init = init_id.removesuffix("-init")
    if by_init:
        return by_init if by_init in overlay.layers else ""
    owned = {identity for mount in layers.mounts.values() for identity in (mount.mount_id, mount.init_id) if identity}
    below = lowers.below.get(top, "")
    found = [
        layer.id
        for layer in overlay.layers.values()
        if below and layer.lower and layer.lower.endswith(f":{below}") and layer.id not in owned
        if f"{layer.id}-init" in overlay.layers and layer.lower == f"l/{overlay.name_of(f'{layer.id}-init')}:{below}"
    ]
    return found[0] if len(found) == 1 else ""


def _empty_layer(
    identity: str, init_id: str, parent: str, overlay: Overlay, lowers: Lowers, one: Container
) -> list[Step]:
    """Give the steps that make a directory with nothing in it, under the name that others know it by."""
    path = f"{overlay.root}/{identity}"
    names = [name for name in overlay.names_of(identity) if LINK.fullmatch(name)]
    name = names[0] if names else new_name(identity)
    below = lowers.below.get(parent, "")
    lower = below
    if not identity.endswith("-init") and init_id:
        link = overlay.name_of(init_id) or new_name(init_id)
        lower = f"l/{link}:{below}" if below else ""
    if not lower:
        return [Note(f"docker rm {one.engine_name}, and make it anew: what is below it is not known")]
    steps: list[Step] = [
        Command(("mkdir", "-p", "-m", "710", path)),
        Command(("mkdir", "-m", "755", f"{path}/diff")),
        Command(("mkdir", "-m", "700", f"{path}/work")),
        write(f"{path}/link", name),
        write(f"{path}/lower", lower),
    ]
    if identity.endswith("-init"):
        steps.append(Command(("touch", f"{path}/committed")))
    if not names:
        steps.append(Command(("ln", "-s", f"../{identity}/diff", f"{overlay.root}/l/{name}")))
    return steps
