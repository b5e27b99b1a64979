"""Room that is taken by files which have no name any more."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import sized
from doctor.facts.containers import Container, Containers
from doctor.facts.deleted_files import DeletedFile, DeletedFiles
from doctor.facts.logs import Logs
from doctor.facts.space import Space
from doctor.model import Command, Effect, Excluded, Finding, Note, Remedy, Severity, Step, Unknown, Yield
from doctor.registry import check

GIB = 1 << 30
SHARE = 20
"""A GiB is told of, or a twentieth of a small file system."""
SHOWN = 5


@check("STO010", Severity.WARNING, explains=("STO005",))
def room_of_deleted_files(
    files: DeletedFiles, space: Space, containers: Containers, logs: Logs | None
) -> Iterator[Yield]:
    """Files that were deleted and are still open take the room that is missing for Docker's data.

    ## What it is
    Who removes a file takes its name away. Its blocks are free when the last process that has it
    open lets it go: until then no directory shows what they are taken by.
    ## What you see
    df says that the disk is full, du finds much less. Removing files frees nothing.
    ## By hand
    ls -l /proc/[0-9]*/fd 2>/dev/null | grep '(deleted)'
    df /var/lib/docker; du -sx /var/lib/docker
    ## Cure
    Start again what holds them: for a container that is docker restart. What must not stop can be
    emptied: truncate -s 0 /proc/PID/fd/N frees the room at once, and what is in the file is lost.
    ## Looks like
    DMN039 (the log of a container that runs), STO005 (files that are there fill the disk)
    ## Limits
    Looked for where less than a quarter is free; told from 1 GiB or a twentieth of the disk on.
    Files that are mapped and not open are not seen. Without root nothing is known.
    ## References
    unlink(2), proc_pid_fd(5)
    """
    if not files.looked:
        return
    told = {held.open_as for held in logs.deleted.values()} if logs is not None else set()
    found = [one for one in files.all if one.open_as not in told]
    taken = sum(one.size for one in found)
    if taken < GIB and (not space.size or taken < space.size // SHARE):
        if files.unread:
            yield Unknown("open files", files.unread)
        return
    names = {one.id: one for one in (*containers.all, *containers.changing)}
    holders = {one.pid: names.get(one.container) for one in found}
    largest = found[0]
    yield Finding(
        subject=space.path,
        title=f"files that were deleted take {sized(taken)} on the file system of {space.path}",
        message=f"{_counted(len(found))} deleted and still open, and {'takes' if len(found) == 1 else 'take'} {sized(taken)};"
        f" {sized(space.available)} are left. The largest: {largest.path}, {sized(largest.size)}, as {largest.open_as}",
        evidence=tuple(one.cited for one in found[:SHOWN]),
        remedy=_release(found, holders),
        hits=(Effect("the disk fills, and no directory shows by what"),),
        works=(Effect("what holds the files reads and writes them as before", _held_by(holders)),),
        excluded=(Excluded("DMN039", "they are no logs of containers that run"),),
    )


def _counted(number: int) -> str:
    return "one file was" if number == 1 else f"{number} files were"


def _held_by(holders: dict[int, Container | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.name if one else f"pid {pid}" for pid, one in holders.items()))


def _release(found: list[DeletedFile], holders: dict[int, Container | None]) -> Remedy:
    """Start containers again; of another process nobody but a person knows how."""
    mine = {one.engine_name: one for one in holders.values() if one is not None}
    others = [one for one in found if holders[one.pid] is None]
    steps: list[Step] = [Note(f"start again what pid {pid} is") for pid in dict.fromkeys(one.pid for one in others)]
    if mine:
        steps.append(Command(("docker", "restart", *mine)))
    return Remedy(
        "start again what holds them",
        tuple(steps),
        risk="disruptive",
        stops=tuple(one.name for one in mine.values()),
        notes=(f"to free {sized(found[0].size)} at once and stop nothing: truncate -s 0 {found[0].open_as}",),
    )
