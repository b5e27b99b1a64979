"""The image database: configurations of images, their layers, and the names they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.images import Image, Images
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.loaded import Loaded
from doctor.facts.repairs import again, together, write
from doctor.facts.store import LayerDb, Overlay
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

_PAIR = re.compile(r'"([^"\s@]+:[\w.-]{1,128})"\s*:\s*"(sha256:[0-9a-f]{64})"')


def _image(images: Images, identity: str) -> Image:
    """Give what the names tell of an image whose configuration is gone or damaged."""
    names = images.called(identity)
    digests = tuple(sorted(name for name, held in images.names.items() if held == identity and "@" in name))
    return Image(identity, names, (), (), digests)


def _users(containers: Containers, identity: str) -> tuple[str, ...]:
    return tuple(one.name for one in containers.all if one.image_id == identity)


def _kept(containers: Containers, identity: str) -> tuple[Effect, ...]:
    names = _users(containers, identity)
    return (Effect("its containers run, and can be started again:", names),) if names else ()


@check("LAY020", Severity.ERROR)
def image_configuration_damaged(overlay: Overlay, images: Images, containers: Containers) -> Iterator[Yield]:
    """An image's configuration is not what its name says: it was cut or changed.

    ## What it is
    imagedb/content/sha256/ID is the image's configuration, and ID its digest. dockerd compares
    the two whenever it reads the file, and takes an image that differs for none.
    ## What you see
    docker run says "No such image", or pulls; the image is missing from docker images. Empty
    files are what a power cut leaves.
    ## By hand
    sha256sum /var/lib/docker/image/overlay2/imagedb/content/sha256/ID
    ## Cure
    Pull or load the image again: that writes the file anew, the layers are still there. Nothing
    stops. Its containers need the configuration no more.
    ## Looks like
    LAY023 (the file is gone, a name still leads to it), LAY021 (a layer is gone)
    ## Limits
    Only what is smaller than a mebibyte is compared.
    ## References
    moby image/fs.go (get), moby image/store.go (restore)
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    if not images.all and not images.damaged and not images.unread:
        yield NotApplicable(f"no images in {images.root}")
        return
    found = []
    for identity, record in images.damaged.items():
        image = _image(images, identity)
        name = image.shown[0]
        empty = not record.size and not record.data
        state = "is empty" if empty else f"has the digest {record.sha256[:12]}..."
        cited = Citation(record.name, 0, state, f"imagedb/content/sha256/{identity[7:19]}...")
        found.append(
            Finding(
                subject=name,
                title=f"the configuration of image {name} is {'empty' if empty else 'not what its name says'}",
                message=f"{record.target} {state}, its name is {identity[7:19]}...",
                evidence=(cited,),
                remedy=Remedy("pull or load it again: that writes the file anew, and nothing stops", again((image,))),
                hits=(Effect("nothing can be made from it:", image.shown),),
                works=_kept(containers, identity),
                since=Since(latest=Moment(record.mtime, "the file was written last", cited)) if record.mtime else None,
            )
        )
    yield from together(found, "images have a damaged configuration", "imagedb")
    for identity, why in images.unread.items():
        yield Unknown(identity, why)


@check(
    "LAY021",
    Severity.ERROR,
    says=("layer does not exist",),
)
def layer_of_image_missing(
    overlay: Overlay, layers: LayerDb, images: Images, containers: Containers, loaded: Loaded, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """An image stands on a layer that the layer database does not have.

    ## What it is
    The configuration of an image lists its layers; each has a record in layerdb/sha256. When one
    is missing, dockerd drops the image when it starts, and says so in its log only.
    ## What you see
    docker images does not list the image after a restart: "not restoring image ... layer does not
    exist" in the log. Containers made from it may be gone from docker ps -a as well.
    ## By hand
    docker image inspect IMAGE -f '{{json .RootFS.Layers}}'
    ls /var/lib/docker/image/overlay2/layerdb/sha256
    ## Cure
    Let dockerd notice (a restart), then pull or load the image: only what it has not in memory
    comes anew. Another restart brings back the containers.
    ## Looks like
    LAY007 (the record is there, and damaged), LAY020 (the configuration is damaged)
    ## Limits
    An image that came while evidence was taken, or was gone at the end, is not judged.
    ## References
    moby image/store.go (restore), OCI image-spec config.md
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    if not images.all:
        yield NotApplicable(f"no images in {images.root}")
        return
    found = []
    for image in images.all:
        missing = [chain for chain in image.chains if chain not in layers.chains]
        if missing:
            found.append(_without(image, missing, layers, containers, loaded, lifecycle))
    yield from together(found, "images stand on layers that are not there", "imagedb")


def _without(
    image: Image, missing: list[str], layers: LayerDb, containers: Containers, loaded: Loaded, lifecycle: Lifecycle
) -> Finding:
    name = image.shown[0]
    users = _users(containers, image.id) + tuple(one.name for one in loaded.dropped if one.image_id == image.id)
    dropped = loaded.misses(image)
    steps: list[Step] = [] if dropped else list(lifecycle.restart)
    steps += again((image,))
    if users:
        steps += lifecycle.restart
    number = image.chains.index(missing[0]) + 1
    return Finding(
        subject=name,
        title=f"layer {number} of {len(image.chains)} of image {name} is not in the layer database",
        message=f"image {name} stands on {len(image.chains)} layers, and {layers.root}/sha256 lacks"
        f" {', '.join(chain[7:19] for chain in missing)}",
        evidence=(
            Citation(
                f"store/images/{image.id[7:]}",
                0,
                image.diffs[number - 1],
                f"imagedb/content/sha256/{image.id[7:19]}...",
            ),
            Citation(layers.record.name, 0, f"has no {missing[0][7:19]}...", "layerdb/sha256/"),
        ),
        remedy=lifecycle.starting("let dockerd notice, then get the image again", tuple(steps)),
        hits=(
            Effect(
                "dockerd has dropped the image:" if dropped else "dockerd drops the image when it starts:", image.shown
            ),
            *((Effect("and these containers with it:", users),) if users else ()),
        ),
        works=() if dropped or not users else (Effect("its containers go on until then", users),),
        excluded=(Excluded("LAY020", "the image's configuration is whole"),),
    )


@check("LAY023", Severity.ERROR, explains=("DMN016", "DMN032"))
def name_of_image_leads_nowhere(
    overlay: Overlay, images: Images, containers: Containers, daemon: Daemon, loaded: Loaded, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """The names of images (repositories.json) are damaged, or one leads to no image.

    ## What it is
    repositories.json maps names and digests to image ids. dockerd reads it when it starts, and does
    not start when it is no JSON; it writes it whenever a name changes.
    ## What you see
    dockerd ends: "Couldn't create reference store repository". Or docker run says "No such
    image" for a name that docker images does not list either.
    ## By hand
    python3 -m json.tool /var/lib/docker/image/overlay2/repositories.json
    ## Cure
    While dockerd runs it still knows all names: giving one more writes them all. Once it is down,
    what containers and the rest of the file tell is written back; other images keep their ids.
    ## Looks like
    LAY020 (the image is there, its configuration is damaged), DMN001 (daemon.json is no JSON)
    ## Limits
    While dockerd runs, a damaged file is a warning: it bites at the next start.
    ## References
    moby reference/store.go (NewReferenceStore), docker-tag(1)
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    file = images.file
    if not file.readable and file.status != "absent":
        yield Unknown("repositories.json", f"{file.target}: {file.why or file.status}")
        return
    if images.fault or (file.status == "absent" and images.all):
        yield _no_names(images, containers, daemon, loaded, lifecycle)
        return
    if not images.names:
        yield NotApplicable("no image has a name")
        return
    if file.mtime >= images.began:
        return  # written while it was read: what it names may have come after the images were listed
    found = []
    for identity in dict.fromkeys(one for one in images.names.values() if one[7:] not in images.known):
        image = _image(images, identity)
        name = (image.names or image.digests)[0]
        found.append(
            Finding(
                subject=name,
                title=f"the name {name} leads to no image",
                message=f"{file.target} gives {name} to {identity[7:19]}, which {images.root}/imagedb does not have",
                evidence=(Citation(file.name, 1, f'"{name}":"{identity[:19]}..."', "repositories.json"),),
                remedy=Remedy("pull or load it again; nothing stops", again((image,))),
                hits=(Effect("nothing can be made by these names:", image.names or image.digests),),
                works=_kept(containers, identity),
            )
        )
    yield from together(found, "names lead to no image", "repositories.json")


def _no_names(images: Images, containers: Containers, daemon: Daemon, loaded: Loaded, lifecycle: Lifecycle) -> Finding:
    file = images.file
    state = f"is {images.fault}" if images.fault else "is not there"
    cited = Citation(file.name, 1 if file.data else 0, file.text[:60] or state, file.target)
    since = Since(latest=Moment(file.mtime, "the file was written last", cited)) if file.mtime else None
    if daemon.pid:
        return _names_in_memory(images, loaded, state, cited, since)
    told = _told(images, containers)
    text: dict[str, dict[str, str]] = {}
    for name, identity in sorted(told.items()):
        text.setdefault(name.rpartition(":")[0], {})[name] = identity
    first: list[Step] = [Command(("mv", file.target, f"{file.target}.was"))] if file.status != "absent" else []
    first.append(write(file.target, json.dumps({"Repositories": text}, separators=(",", ":"))))
    nameless = tuple(image.id[7:19] for image in images.all if image.id not in told.values())
    return Finding(
        subject="repositories.json",
        title=f"the names of images are lost: repositories.json {state.partition(':')[0]}",
        message=f"{file.target} {state}; {len(told)} names can be told from containers and from what is left of it",
        evidence=(cited,),
        remedy=lifecycle.starting(
            "write back the names that are known, then start dockerd", (*first, *lifecycle.start)
        ),
        hits=(
            Effect("dockerd does not start" if images.fault else "all images lose their names when dockerd starts"),
            *((Effect("no name is known for these images; docker tag gives one:", nameless),) if nameless else ()),
        ),
        works=(Effect("the images are there, by their ids"),),
        since=since,
    )


def _names_in_memory(images: Images, loaded: Loaded, state: str, cited: Citation, since: Since | None) -> Finding:
    """While dockerd runs it knows all names, and writes them all when one more comes."""
    known = sorted(name for names in (loaded.images or {}).values() for name in names if name != "<none>:<none>")
    steps: tuple[Step, ...] = (Note("give any image one more name (docker tag): that writes all names anew"),)
    if known:
        steps = (Command(("docker", "tag", known[0], "doctor:names")), Command(("docker", "rmi", "doctor:names")))
    bites = "dockerd ends" if images.fault else "all images lose their names"
    return Finding(
        subject="repositories.json",
        title=f"the names of images are not on the disk: repositories.json {state.partition(':')[0]}",
        message=f"{images.file.target} {state}; dockerd still knows {len(known)} names, and at its next start {bites}",
        evidence=(cited,),
        remedy=Remedy("make dockerd write what it knows; nothing stops", steps),
        severity=Severity.WARNING,
        hits=(Effect(f"at its next start {bites}"),),
        works=(Effect("dockerd goes on, with all names"),),
        since=since,
    )


def _told(images: Images, containers: Containers) -> dict[str, str]:
    """Give names and image ids that what is left of the file tells, and containers that were made by a name."""
    told = {name: held for name, held in _PAIR.findall(images.file.text) if held[7:] in images.known}
    for one in containers.all:
        identity = one.image_id[7:]
        by_name = one.image and "@" not in one.image and not identity.startswith(one.image)
        if by_name and identity in images.known:
            name = one.image if ":" in one.image.rpartition("/")[2] else f"{one.image}:latest"
            told.setdefault(name, one.image_id)
    return told
