"""The layer database: what dockerd knows of each layer, of how layers stand on each other, and of containers' layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.facts.chain_users import ChainUsers
from doctor.facts.images import chain_ids
from doctor.facts.lowers import Lowers
from doctor.facts.repairs import lost, together, write
from doctor.facts.store import DIGEST, LINK, Chain, Overlay
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
    from doctor.facts.owners import Owners


def _nothing(overlay: Overlay, users: ChainUsers) -> str:
    layers = users.layers
    if overlay.unused:
        return overlay.unused
    return "" if layers.chains or layers.mounts else f"no layers in {layers.root}"


def _unread(users: ChainUsers) -> Iterator[Unknown]:
    for chain, why in users.layers.unread.items():
        if chain in users.used:
            yield Unknown(chain[7:], why)


# The files of a chain


def _cache_of(overlay: Overlay, users: ChainUsers, lowers: Lowers, chain: str) -> str:
    """Find the directory of a chain: what is right below the layers on top of it, else the one that fits and has no owner."""
    layers = users.layers
    found = set()
    for one in layers.on_top.get(chain, ()):
        held = overlay.layers.get(one)
        word = (held.lower or "").partition(":")[0].removeprefix("l/") if held else ""
        target = overlay.links.get(word, "")
        if LINK.fullmatch(word) and target.startswith("../") and target.endswith("/diff"):
            found.add(target[3:-5])
    if not found:
        parent = layers.chains[chain].parent if chain in layers.chains else None
        below = lowers.below(parent or "")
        if parent and not below:
            return ""
        found.update(lowers.spare.get(below or None, ()))
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
def layer_record_damaged(overlay: Overlay, users: ChainUsers, lowers: Lowers) -> Iterator[Yield]:
    """A layer's record in the layer database lacks a file, or one of them holds nonsense.

    ## What it is
    layerdb/sha256/CHAIN holds diff (a digest), size (a number) and cache-id (the directory in
    overlay2). dockerd drops a layer that lacks one when it starts, and every image with it. A
    cache-id that names another layer's directory gives containers the wrong files.
    ## What you see
    Images that are gone from docker images after a restart; "failed to register layer: rename
    ... file exists" when they are pulled again. The log says nothing without debug.
    ## By hand
    ls -l /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN
    ## Cure
    Write the file again: the image's configuration has the digest, the layers on top know the
    directory. Where dockerd has dropped the image already, it has to be started again.
    ## Looks like
    LAY008 (the record is whole, its directory is gone), LAY021 (there is no record at all), LAY004
    (the lists are wrong)
    ## Limits
    tar-split.json.gz is not looked at. Two cache-ids that were exchanged are told where a layer or
    a container stands on one of them. Records that no image needs are judged when dockerd is down.
    ## References
    moby layer/filestore.go (GetDiffID, GetSize, GetCacheID), moby issue 44909
    """
    why = _nothing(overlay, users)
    if why:
        yield NotApplicable(why)
        return
    found = []
    for chain in users.used.values():
        sound = chain.cache_id and chain.size and chain.size.isdecimal()
        if (sound and chain.id not in users.odd) or chain.id in users.layers.unread:
            continue
        wrong = {}
        if not chain.diff or not DIGEST.fullmatch(chain.diff):
            wrong["diff"] = chain.diff
        if not chain.cache_id:
            wrong["cache-id"] = chain.cache_id
        if not chain.size or not chain.size.isdecimal():
            wrong["size"] = chain.size
        if wrong:
            found.append(_record(chain, wrong, overlay, lowers, users))
    found += [_exchanged(first, second, users) for first, second in lowers.exchanged if first in users.used]
    yield from together(found, "records of layers are damaged", "layerdb")
    yield from _unread(users)


def _exchanged(first: str, second: str, users: ChainUsers) -> Finding:
    """Two records name each other's directory: what stands on top of the directories knows."""
    layers = users.layers
    held = {name: layers.chains[name].cache_id or "" for name in (first, second)}
    steps: list[Step] = [
        write(f"{layers.folder(first)}/cache-id", held[second]),
        write(f"{layers.folder(second)}/cache-id", held[first]),
    ]
    images = tuple(dict.fromkeys((*users.images_on(first), *users.images_on(second))))
    return Finding(
        subject=first[7:],
        title=f"the records of layers {first[7:19]} and {second[7:19]} name each other's directory",
        message=f"cache-id of {first[7:19]} is {held[first][:12]} and that of {second[7:19]} {held[second][:12]}:"
        " by the lists of the layers on top it is the other way round",
        evidence=tuple(layers.cite(name, "cache-id", cache) for name, cache in held.items()),
        remedy=users.reread(first, ("cache-id",), steps),
        hits=(Effect("containers that start have the wrong files, or do not start:", images),),
        works=users.works(first),
        excluded=(Excluded("LAY004", "the lists of the layers agree with each other"),),
    )


def _record(chain: Chain, wrong: dict[str, str | None], overlay: Overlay, lowers: Lowers, users: ChainUsers) -> Finding:
    layers, folder = users.layers, users.layers.folder(chain.id)
    cache = chain.cache_id or _cache_of(overlay, users, lowers, chain.id)
    steps: list[Step] = []
    for member in wrong:
        if member == "diff" and chain.id in users.images.chains:
            steps.append(write(f"{folder}/diff", users.images.chains[chain.id][1]))
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
        remedy=users.remedy(chain.id, "write what is missing", *steps),
        severity=None if users.images_on(chain.id) or users.containers_on(chain.id) else Severity.WARNING,
        hits=users.hits(chain.id) or (Effect("the layer cannot be pulled or built again"),),
        works=users.works(chain.id),
        excluded=(Excluded("LAY008", "its directory in overlay2 is there"),) if cache in overlay.layers else (),
    )


@check("LAY008", Severity.ERROR, explains=("LAY002", "LAY003"), blocks_start=True)
def directory_of_layer_missing(overlay: Overlay, users: ChainUsers, lowers: Lowers) -> Iterator[Yield]:
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
    why = _nothing(overlay, users)
    if why:
        yield NotApplicable(why)
        return
    found = []
    for chain in [one for one in users.used.values() if one.cache_id not in overlay.layers]:
        cache = chain.cache_id
        if (
            cache
            and overlay.gone(cache)
            and chain.id not in users.layers.unread
            and (cache in users.owners.images or users.owners.static)
        ):
            found.append(_directory(chain, cache, overlay, users, lowers))
    yield from together(found, "layers have lost their directory", "overlay2")
    yield from _unread(users)


def _directory(chain: Chain, cache: str, overlay: Overlay, users: ChainUsers, lowers: Lowers) -> Finding:
    layers, owners = users.layers, users.owners
    other = _cache_of(overlay, users, lowers, chain.id)
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
def chain_id_does_not_add_up(overlay: Overlay, users: ChainUsers) -> Iterator[Yield]:
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
    yield from _arithmetic(overlay, users, unknown_parent=False)


@check("LAY010", Severity.ERROR, explains=("LAY004",))
def parent_of_layer_unknown(overlay: Overlay, users: ChainUsers) -> Iterator[Yield]:
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
    yield from _arithmetic(overlay, users, unknown_parent=True)


def _arithmetic(overlay: Overlay, users: ChainUsers, *, unknown_parent: bool) -> Iterator[Yield]:
    why = _nothing(overlay, users)
    if why:
        yield NotApplicable(why)
        return
    found = []
    for chain in [users.used[name] for name in users.used if name in users.odd]:
        parent = chain.parent
        made = users.images.chains.get(chain.id)
        if chain.id in users.layers.unread or not chain.diff or not DIGEST.fullmatch(chain.diff):
            continue  # LAY007 says so
        strange = parent is not None and parent not in users.layers.chains
        if made is not None and strange and parent == made[0]:
            continue  # the name is right: LAY021 says that the record is gone
        if strange != unknown_parent:
            continue
        if strange or not _adds_up(chain):
            found.append(_does_not_add_up(chain, made, users))
    yield from together(found, "records of layers name the wrong parent or content", "layerdb")
    yield from _unread(users)


def _adds_up(chain: Chain) -> bool:
    if not chain.parent:
        return chain.diff == chain.id
    return chain_ids((chain.parent, chain.diff or ""))[1] == chain.id


def _does_not_add_up(chain: Chain, made: tuple[str, str] | None, users: ChainUsers) -> Finding:
    layers, folder = users.layers, users.layers.folder(chain.id)
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
    images = users.images_on(chain.id)
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
        remedy=users.reread(chain.id, ("diff", "parent"), steps),
        severity=None if images or users.containers_on(chain.id) else Severity.WARNING,
        hits=users.hits(chain.id)
        or (Effect("dockerd counts references by parent: a layer below may be removed under this one"),),
        works=users.works(chain.id),
    )


# Two layers in one directory


@check("LAY019", Severity.ERROR)
def layers_share_a_directory(overlay: Overlay, users: ChainUsers, lowers: Lowers) -> Iterator[Yield]:
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
    why = _nothing(overlay, users)
    if why:
        yield NotApplicable(why)
        return
    caches = Counter(chain.cache_id for chain in users.used.values())
    for cache, count in caches.items():
        if cache and count > 1:
            several = [chain for chain in users.used.values() if chain.cache_id == cache]
            yield _shared_cache(cache, several, overlay, lowers, users)
    links = Counter(layer.link for layer in overlay.layers.values())
    for link, count in links.items():
        if link and count > 1 and LINK.fullmatch(link):
            claims = [layer.id for layer in overlay.layers.values() if layer.link == link]
            claims = [one for one in claims if users.owners.judged(one) or users.owners.static]
            if len(claims) > 1:
                yield _shared_link(link, claims, overlay, users.owners)
    yield from _unread(users)


def _shared_cache(cache: str, several: list[Chain], overlay: Overlay, lowers: Lowers, users: ChainUsers) -> Finding:
    steps: list[Step] = []
    wrong = several[-1].id
    for chain in several:
        right = _cache_of(overlay, users, lowers, chain.id)
        if right and right != cache:
            steps.append(write(f"{users.layers.folder(chain.id)}/cache-id", right))
            wrong = chain.id
    if not steps:
        steps.append(
            Note("see which of the two the directory belongs to, remove the images on the other, and get them anew")
        )
    names = tuple(dict.fromkeys(name for chain in several for name in users.images_on(chain.id)))
    return Finding(
        subject=cache,
        title=f"{len(several)} layers claim the directory {cache[:12]}",
        message=f"{overlay.root}/{cache} is the cache-id of {' and of '.join(chain.id[7:19] for chain in several)}",
        evidence=tuple(users.layers.cite(chain.id, "cache-id", cache) for chain in several),
        remedy=users.reread(wrong, ("cache-id",), steps),
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
