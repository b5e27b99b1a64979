"""The list of the layers below each layer of overlay2 (`lower`), by which it is mounted."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.lowers import LowerFault, Lowers
from doctor.facts.owners import Owners
from doctor.facts.repairs import together, write
from doctor.facts.store import Overlay
from doctor.model import (
    Command,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Yield,
)
from doctor.registry import check

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
    yield from owners.unreadable(overlay)


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
