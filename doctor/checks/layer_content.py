"""The content of image layers: every file as it was pulled or built. Read with `--deep` only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import structs

from doctor.checks._shifted import apart, finding
from doctor.facts.layer_content import Found, Impact, Impacts, LayerContent, StoreContent
from doctor.facts.layer_repairs import anew, in_place, stopped, who_did
from doctor.facts.repairs import together, write
from doctor.facts.store import LayerDb, Overlay
from doctor.model import (
    Effect,
    Finding,
    Moment,
    NotApplicable,
    Remedy,
    Severity,
    Since,
    Unknown,
    Yield,
)
from doctor.registry import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.layers.model import Checked, Damage

STORE = "overlay2"
CONTENT = ("content", "size", "missing", "type", "device")
RIGHTS = ("mode", "owner", "xattr", "capability", "link target")
HIDDEN = ("whiteout lost", "opaque lost")
_NOT_ASKED = "the content of layers is read with --deep only"
_SHOWN = 5
_LOOK = (
    "look before anything is removed: what is missing may be what was added, under another name, or the record may be that"
    " of another layer"
)
LIKELY = {
    "bit": "memory or disk, not an edit: one bit",
    "bits": "memory, disk, or a program that kept the file's time",
    "zeros": "power loss or a failing disk: blocks of zeros",
    "cut": "power loss, a full disk or a copy that broke off: the file ends early",
    "emptied": "power loss before the data was on the disk: the file is empty",
    "edited": "edited in place: its size or its time is another one",
    "copied": "a copy or a restore that does not keep attributes, devices or owners (rsync without -X, cp -r)",
    "rights": "chmod or chown in the layer itself",
    "shifted": "copied between daemons of which one remaps users",
    "planted": "somebody's doing: nothing of Docker's writes there",
}


def _content(layers: LayerContent) -> StoreContent | None:
    return layers.get(STORE)


def _unknown(content: StoreContent) -> Iterator[Unknown]:
    for one in content.checked.values():
        if one.state == "unknown" or (one.state == "damaged" and one.unread):
            why = one.why or next((other.why for other in content.unread if other.layer == one.layer), "unread")
            yield Unknown(one.layer[7:], f"a layer could not be read whole: {why}")


def _each(content: StoreContent, kinds: tuple[str, ...]) -> Iterator[tuple[Checked, list[Found]]]:
    """Give each layer with damages of these kinds, what stands out first."""
    for checked in content.checked.values():
        found = [one for one in content.of(checked.layer) if one.damage.kind in kinds and not one.damage.shift]
        if found:
            yield checked, sorted(found, key=lambda one: not one.damage.grave)


def _of(content: LayerContent, checked: Checked) -> tuple[Found, ...]:
    held = content.get(checked.store)
    return held.of(checked.layer) if held else ()


def _since(checked: Checked, found: list[Found], layers: LayerDb) -> Since | None:
    changed = max(found, key=lambda one: one.damage.changed)
    if not changed.damage.changed:
        return None
    made = layers.written(checked.layer, "cache-id")
    return Since(
        Moment(made, "the layer was made") if 0 < made < changed.damage.changed else None,
        Moment(changed.damage.changed, "the file was changed", changed.cite()),
    )


def _likely(found: list[Found]) -> str:
    causes = dict.fromkeys(one.damage.cause for one in found if one.damage.cause)
    return "; ".join(LIKELY[cause] for cause in causes)


def _named(impact: Impact) -> str:
    for image in impact.every_image:
        return image.shown[0]
    return ""


def _finding(
    checked: Checked,
    found: list[Found],
    impacts: Impacts,
    title: str,
    *,
    severity: Severity | None = None,
    by_hand: str = "",
    remedy: Remedy | None = None,
) -> Finding:
    impact = impacts.of(checked.layer, [one.damage for one in found])
    if remedy is None:
        commands = in_place(checked, [one.damage for one in found])
        whole = len(found) <= _SHOWN and commands is not None
        notes = who_did(one.damage for one in found)
        remedy = stopped(impact, "set it right", commands or [], notes) if whole else anew(impact)
    first = found[0].damage
    return Finding(
        subject=checked.layer[7:],
        title=title,
        message=f"{title}: {_listed(found)}",
        evidence=tuple(one.cite() for one in found[:_SHOWN]),
        remedy=remedy,
        severity=severity,
        hits=impact.hits(),
        since=_since(checked, found, impacts.layers),
        likely=_likely(found),
        by_hand=by_hand.replace("PATH", checked.root + first.path).replace("IMAGE", _named(impact) or "IMAGE"),
    )


def _listed(found: list[Found]) -> str:
    said = [f"{one.damage.path} ({one.damage.kind})" for one in found[:_SHOWN]]
    more = len(found) - _SHOWN
    return ", ".join(said) + (f" and {more} more" if more > 0 else "")


def _many(found: list[Found], one: str, many: str) -> str:
    count = len({each.damage.path for each in found})
    return one if count == 1 else f"{count} {many}"


def _judged(
    overlay: Overlay,
    content: LayerContent,
    kinds: tuple[str, ...],
    told: Callable[[Checked, list[Found]], Finding],
    many: str,
) -> Iterator[Yield]:
    """Tell of each layer that has damages of these kinds, of many as one, and of what could not be read."""
    held = _content(content)
    if overlay.unused or held is None:
        yield NotApplicable(overlay.unused or _NOT_ASKED)
        return
    found = [told(checked, damages) for checked, damages in _each(held, kinds)]
    yield from together(found, many, STORE)
    yield from _unknown(held)


@check("LAY011", Severity.ERROR)
def record_of_layer_damaged(
    overlay: Overlay, content: LayerContent, impacts: Impacts, layers: LayerDb
) -> Iterator[Yield]:
    """What docker keeps of a layer's archive cannot be used: its files can be proved no more.

    ## What it is
    tar-split.json.gz in the layer database has the headers of the archive that a layer was made
    from, and a checksum of each file. docker save and push put the archive together from it.
    ## What you see
    "error creating tar stream", "unexpected EOF", "gzip: invalid header" or "file integrity
    checksum failed" at docker save and push; containers run, they do not need it.
    ## By hand
    zcat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/tar-split.json.gz | tail -1
    ## Cure
    It comes anew with the layer: remove every image and container that shares it, then pull by
    digest or load. docker pull or load over it heals nothing.
    ## Looks like
    LAY012 (the record is whole, a file is not what it says)
    ## Limits
    Without --deep only a record that is gone or empty is seen. With it, one whose headers or
    checksums were changed: the files give another digest, though each fits.
    ## References
    moby layer/filestore.go (TarSplitReader), tar-split tar/storage
    """
    if overlay.unused:
        yield NotApplicable(overlay.unused)
        return
    held = _content(content)
    found = []
    seen = set()
    for checked, damages in _each(held, ("record",)) if held else ():
        seen.add(checked.layer)
        why = damages[0].damage.found
        title = f"the record of layer {checked.layer[7:19]} cannot be used: {why}"
        impact = impacts.of(checked.layer, [])
        found.append(
            _finding(checked, damages, impacts, title, by_hand="docker save IMAGE >/dev/null", remedy=anew(impact))
        )
    used = {chain for image in impacts.images.all for chain in image.chains}
    for chain, size in layers.records.items():
        whole = layers.chains[chain].diff and layers.chains[chain].cache_id  # else LAY007 says so
        if chain in seen or size > 0 or not whole or not (chain in used or impacts.owners.static):
            continue
        found.append(_no_record(chain, size, layers, impacts))
    if not layers.chains:
        yield NotApplicable(f"no layers in {layers.root}")
        return
    yield from together(found, "records of layers cannot be used", "layerdb")
    if held:
        yield from _unknown(held)


def _no_record(chain: str, size: int, layers: LayerDb, impacts: Impacts) -> Finding:
    state = "is empty" if size == 0 else "is not there"
    impact = impacts.of(chain, [])
    name = _named(impact)
    return Finding(
        subject=chain[7:],
        title=f"the record of layer {chain[7:19]} {state}",
        message=f"{layers.folder(chain)}/tar-split.json.gz {state}",
        evidence=(layers.cite(chain, "tar-split.json.gz", state),),
        remedy=anew(impact),
        hits=(
            Effect("these cannot be saved, pushed or verified:", tuple(n for i in impact.every_image for n in i.shown)),
        )
        if impact.every_image
        else (Effect("the layer cannot be saved, pushed or verified"),),
        works=(Effect("containers run: they do not need it"),),
        by_hand=f"docker save {name} >/dev/null" if name else "",
    )


@check("LAY012", Severity.ERROR)
def file_of_layer_damaged(overlay: Overlay, content: LayerContent, impacts: Impacts) -> Iterator[Yield]:
    """A file of an image layer is not what was pulled or built.

    ## What it is
    Each file of a layer is compared with its recorded checksum, and the layer as a whole with
    its diffID. Here a file holds something else, is longer or shorter, or is gone.
    ## What you see
    Programs that crash or refuse their input in every container of an image; "file integrity
    checksum failed" at docker save. Often nothing, for months.
    ## By hand
    docker save IMAGE >/dev/null
    ## Cure
    Remove every image and container that shares the layer, then pull by digest or load; docker
    pull or load over it heals nothing. Or put the file back: doctor layers verify --from FILE.
    ## Looks like
    LAY011 (the record is damaged), LAY014 (a file too many), LAY015 (rights, not content)
    ## Limits
    Where in a file it differs can be told of one flipped bit and of blocks of zeros. What
    changes while it is read is unknown, not damage. Layers of containers are not looked at.
    ## References
    moby layer/layer_store.go, tar-split tar/asm, OCI image-spec config.md (DiffID)
    """

    def told(checked: Checked, damages: list[Found]) -> Finding:
        layer = checked.layer[7:19]
        grave = damages[0].damage.grave
        title = _many(damages, "a file of layer {} is not what was pulled", "files of layer {} are not what was pulled")
        if grave:
            title = _many(
                damages, "a program of layer {} was changed", "files of layer {} were changed, programs among them"
            )
        return _finding(
            checked,
            damages,
            impacts,
            title.format(layer),
            by_hand=_saved(damages[0].damage),
            remedy=anew(impacts.of(checked.layer, [])),
        )

    yield from _judged(overlay, content, CONTENT, told, "layers have files that are not what was pulled")


def _saved(one: Damage) -> str:
    """Say what docker itself says of the first file that it cannot put into an archive."""
    said = f'  ->  file integrity checksum failed for "{one.path.lstrip("/")}"' if one.kind == "content" else ""
    return f"docker save IMAGE >/dev/null{said}"


@check("LAY013", Severity.INFO)
def recorded_size_of_layer_differs(overlay: Overlay, content: LayerContent, impacts: Impacts) -> Iterator[Yield]:
    """The size that is noted of a layer is not that of its files.

    ## What it is
    size in the layer database is what docker images and docker system df add up.
    ## What you see
    Sizes that do not fit; nothing else.
    ## By hand
    cat /var/lib/docker/image/overlay2/layerdb/sha256/CHAIN/size
    ## Cure
    Write the right one; dockerd reads it when it starts.
    ## Looks like
    LAY007 (the file is no number at all)
    ## Limits
    Read with --deep only. Engines count targets of symbolic links or not: both are right.
    ## References
    moby layer/filestore.go (GetSize)
    """

    def told(checked: Checked, damages: list[Found]) -> Finding:
        one = damages[0].damage
        right = one.expected.split(" ")[0].replace(",", "")
        return _finding(
            checked,
            damages,
            impacts,
            f"the noted size of layer {checked.layer[7:19]} is {one.found}, its files have {one.expected}",
            remedy=Remedy("write the right size; dockerd reads it when it starts", (write(one.path, right),)),
        )

    yield from _judged(overlay, content, ("recorded size",), told, "layers have another size than is noted")


@check("LAY014", Severity.ERROR)
def file_added_to_layer(overlay: Overlay, content: LayerContent, impacts: Impacts) -> Iterator[Yield]:
    """There is a file in an image layer that was never pulled or built.

    ## What it is
    Everything in the directory of a layer is recorded. Here is something more: every container
    of the images has it.
    ## What you see
    Files in new containers that no Dockerfile made; a program in the PATH that is not the image's.
    ## By hand
    ls -l /var/lib/docker/overlay2/ID/diff
    ## Cure
    A program that was put there is an intrusion: keep a copy, and find out who did it. Then
    remove it, or the layer with all that shares it.
    ## Looks like
    LAY012 (a file of the image was changed), LAY018 (a whole directory that nothing refers to)
    ## Limits
    Files in containers' own layers are theirs. A file whose name was recorded is LAY012's. Where
    files are missing as well, no command removes the others: they may be the same, under
    another name.
    ## References
    tar-split tar/storage, kernel Documentation/filesystems/overlayfs.rst
    """

    def told(checked: Checked, damages: list[Found]) -> Finding:
        layer = checked.layer[7:19]
        title = _many(damages, "a file was added to layer {}", "files were added to layer {}")
        if damages[0].damage.grave:
            title = _many(
                damages, "a program was added to layer {}", "files were added to layer {}, programs among them"
            )
        remedy = None
        if any(one.damage.kind == "missing" for one in _of(content, checked)):
            # What one command would remove here may be the only copy of what is missing there.
            whole = anew(impacts.of(checked.layer, [one.damage for one in damages]))
            remedy = structs.replace(whole, notes=(_LOOK, *whole.notes))
        return _finding(checked, damages, impacts, title.format(layer), by_hand="ls -l PATH", remedy=remedy)

    yield from _judged(overlay, content, ("added",), told, "layers have files that were never pulled")


@check("LAY015", Severity.ERROR)
def rights_in_layer_differ(overlay: Overlay, content: LayerContent, impacts: Impacts) -> Iterator[Yield]:
    """Mode, owner, capabilities, attributes or links in an image layer are not those that were pulled.

    ## What it is
    The headers of the layer's archive say what each file is. Here a file has other rights, lost
    a capability or an attribute, or leads elsewhere.
    ## What you see
    "permission denied" or "operation not permitted" in containers (ping without its capability);
    or nothing: a program with setuid that was none before makes every user root.
    ## By hand
    stat /var/lib/docker/overlay2/ID/diff/PATH
    getfattr -d -m - /var/lib/docker/overlay2/ID/diff/PATH
    ## Cure
    Set it right where it stands, with the containers on it stopped; where much was lost, as by
    a restore without attributes, remove all that shares the layer and get it anew.
    Owners that are all off by one range of ids are one finding: the store was copied between a
    daemon that remaps users and one that does not. One command moves them back.
    ## Looks like
    LAY012 (the content is another one)
    ## Limits
    Times are not compared. Labels and attributes that a host adds are its own; of values of
    attributes only a digest is kept.
    ## References
    tar(5), capabilities(7), moby pkg/archive (createTarFile)
    """

    def told(checked: Checked, damages: list[Found]) -> Finding:
        layer = checked.layer[7:19]
        title = _many(
            damages,
            "a file of layer {} has other rights than were pulled",
            "files of layer {} have other rights than were pulled",
        )
        if damages[0].damage.grave:
            title = _many(
                damages,
                "a file of layer {} makes root: setuid or a capability was added",
                "files of layer {} have other rights, some of which make root",
            )
        only_links = all(one.damage.kind == "link target" and one.damage.found == "another file" for one in damages)
        severity = Severity.WARNING if only_links else None
        return _finding(checked, damages, impacts, title.format(layer), by_hand="stat PATH", severity=severity)

    yield from _shifted(content, impacts)
    yield from _judged(overlay, content, RIGHTS, told, "layers have other rights than were pulled")


def _shifted(content: LayerContent, impacts: Impacts) -> Iterator[Finding]:
    """Tell of owners that are all in another range, as one of all layers."""
    held = _content(content)
    layers = (
        [(held.checked[one.damage.layer], one) for one in held.damages if one.damage.layer in held.checked]
        if held
        else []
    )
    for shift, moved in apart(layers).items():
        impact = [impacts.of(checked.layer, [one.damage]) for checked, one in moved]
        images = tuple(dict.fromkeys(name for one in impact for image in one.every_image for name in image.shown))
        containers = {one.id: one for of in impact for one in of.every_container}.values()
        concerned = [Effect("images", images)] if images else []
        if containers:
            concerned.append(Effect("containers", tuple(one.name for one in containers)))
        running = {one.name: one.engine_name for one in containers if one.running}
        yield finding(STORE, shift, moved, tuple(concerned), "docker", running)


@check("LAY016", Severity.ERROR)
def deleted_files_are_back(overlay: Overlay, content: LayerContent, impacts: Impacts) -> Iterator[Yield]:
    """What an image deletes of the layers below it is back: whiteouts or opaque marks are lost.

    ## What it is
    A layer deletes a file of one below it by a device 0/0 of its name, and a whole directory by
    the attribute trusted.overlay.opaque. Copies that keep neither bring all of it back.
    ## What you see
    Files in containers that the image had removed: old packages, old configuration, secrets.
    ## By hand
    find /var/lib/docker/overlay2/ID/diff -type c
    getfattr -n trusted.overlay.opaque /var/lib/docker/overlay2/ID/diff/PATH
    ## Cure
    Make the device or the attribute again, with the containers on it stopped; where many are
    lost, remove all that shares the layer and get it anew.
    ## Looks like
    LAY014 (a file that no layer has)
    ## Limits
    One that hides nothing, since no layer below has the file, is not missed.
    ## References
    kernel Documentation/filesystems/overlayfs.rst, OCI image-spec layer.md (Whiteouts)
    """

    def told(checked: Checked, damages: list[Found]) -> Finding:
        title = _many(damages, "a file that layer {} deletes is back", "files that layer {} deletes are back")
        return _finding(checked, damages, impacts, title.format(checked.layer[7:19]), by_hand="ls -ld PATH")

    yield from _judged(overlay, content, HIDDEN, told, "layers show again what they delete")
