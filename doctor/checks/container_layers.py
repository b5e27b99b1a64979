"""The layers of containers themselves: what the layer database knows of each, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doctor.facts.images import Images
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.loaded import Loaded
from doctor.facts.lowers import Lowers
from doctor.facts.owners import Owners
from doctor.facts.repairs import new_name, together, write
from doctor.facts.store import LINK, MOUNT_ID, LayerDb, Mount, Overlay
from doctor.model import Citation, Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Step, Yield
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.containers import Container


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
    below = lowers.below(top)
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
    below = lowers.below(parent)
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
