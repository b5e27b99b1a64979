"""Volumes and bind mounts: data that is not where a container expects it, and data that nobody uses."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks.container_starts import again, kept_down
from doctor.facts.containers import Container, Containers
from doctor.facts.volumes import BindSources, BoundVolume, Volumes
from doctor.model import Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Unknown, Yield
from doctor.registry import check

_MANY = 10
"""Anonymous volumes that nobody uses, from which on they are worth a note."""


@check(
    "VOL001",
    Severity.INFO,
    says=("failed to populate volume", "error evaluating symlinks from mount source ... volumes/"),
)
def volume_without_data_or_user(volumes: Volumes, containers: Containers) -> Iterator[Yield]:
    """A volume has lost its directory, or many volumes belong to no container any more.

    ## What it is
    A volume of the local driver is a directory, volumes/NAME/_data. dockerd keeps its name in a
    database beside it, and goes on listing it when the directory is gone.
    ## What you see
    "error evaluating symlinks from mount source" when a container with it starts. Unused
    anonymous volumes take room: each docker run of an image with VOLUME left one.
    ## By hand
    docker volume inspect NAME -f '{{.Mountpoint}}'
    docker volume ls -f dangling=true
    ## Cure
    Make the directory again (it is empty: what was in it is gone), or restore it from a backup;
    then start whom it kept down.
    Unused volumes are somebody's data: look into each before docker volume rm.
    ## Looks like
    VOL002 (a directory that was bound by its path, by a container or by a volume)
    ## Limits
    Sizes are not measured: that means reading every directory. Volumes of other drivers are left
    out. Fewer than ten unused anonymous volumes are not told of.
    ## References
    moby volume/local/local.go, docker-volume-ls(1)
    """
    if not volumes.all:
        yield NotApplicable("no volumes of the local driver")
        return
    for one in volumes.all:
        if one.data != "-":
            continue
        yield Finding(
            subject=one.name,
            title=f"the data of volume {one.name[:12] if one.anonymous else one.name} is gone",
            message=f"{one.place}, where volume {one.name} keeps its data, is not there",
            evidence=(volumes.cite(one),),
            remedy=Remedy(
                "make the directory again; it is empty then",
                (Command(("mkdir", "-p", "-m", "755", one.place)), *again(kept_down(containers, one.place))),
                notes=("what was in it is gone, unless a backup has it: restore that before the start",),
            ),
            severity=Severity.ERROR if one.used_by else Severity.WARNING,
            hits=(Effect("cannot be started again", one.used_by),)
            if one.used_by
            else (Effect("whoever uses it next"),),
        )
    unused = [one for one in volumes.all if one.anonymous and not one.used_by and one.data != "-"]
    if len(unused) < _MANY:
        return
    if not volumes.known:
        yield Unknown("unused volumes", "not every container could be read")
        return
    yield Finding(
        subject="anonymous volumes",
        title=f"{len(unused)} volumes without a name belong to no container",
        message=f"{len(unused)} of {len(volumes.all)} volumes have no name and no container",
        evidence=tuple(volumes.cite(one) for one in unused[:3]),
        remedy=Remedy(
            "look into them, then remove those that nobody misses",
            (Note("docker volume ls -qf dangling=true names them; docker volume rm NAME deletes its data for good"),),
        ),
        hits=(Effect("they take room, however much is in them"),),
    )


@check(
    "VOL002",
    Severity.WARNING,
    says=(
        "bind source path does not exist",
        "error while creating mount source path",
        "failed to mount local volume",
        "error while mounting volume",
    ),
)
def bound_path_missing(containers: Containers, sources: BindSources | None, volumes: Volumes | None) -> Iterator[Yield]:
    """A path of the host that a container, or a volume, binds is not there.

    ## What it is
    A bind mount names a path of the host. With -v dockerd makes a missing one as an empty directory
    of root's at the next start; with --mount, and on a file system that is read-only, it refuses.
    A volume with o=bind has its path in `device`, which has to be there, and be absolute.
    ## What you see
    "bind source path does not exist: ..."; "failed to mount local volume: mount PATH"; a
    container that starts with an empty directory in the place of its data.
    ## By hand
    docker inspect NAME -f '{{json .Mounts}}'
    docker volume inspect VOLUME -f '{{json .Options}}'; ls -ld PATH
    ## Cure
    Bring the path back: mount the disk that it is on, restore it, or correct the path. Do it before
    the container starts again, or dockerd makes it empty.
    ## Looks like
    VOL001 (a volume with a name), CTR001 (the container ended for another reason)
    ## Limits
    A path that was removed and made again while the container runs looks right, and the container
    goes on with the old one. Labels of SELinux are not compared. A directory that dockerd has made
    empty already cannot be told from one that is meant to be.
    ## References
    mount(2) (MS_BIND), docker docs "Bind mounts", moby volume/mounts/linux_parser.go
    """
    bound = volumes.bound if volumes is not None else ()
    for volume in bound:
        yield from _volume_source(volume, sources, kept_down(containers, volume.device) if volume.device else ())
    users: dict[str, list[str]] = {}
    running = set()
    for one in containers.all:
        for path, _ in one.asked.binds:
            users.setdefault(path, []).append(one.name)
            if one.running:
                running.add(path)
    if not users and not bound:
        yield NotApplicable("no container and no volume binds a path")
        return
    for path, names in users.items():
        source = sources.all.get(path) if sources else None
        if source is None or source.type == "!":
            yield Unknown(path, source.cited.excerpt if source else "it was not looked at")
            continue
        if source.type != "-":
            continue
        yield Finding(
            subject=path,
            title=f"{path}, which {names[0]} binds, is not there",
            message=f"{', '.join(names)} bind{'s' if len(names) == 1 else ''} {path}, which is not there",
            evidence=(source.cited,),
            remedy=Remedy(
                "bring the path back before the next start",
                (Note(f"mount or restore what belongs to {path}; docker inspect {names[0]} says what it was for"),),
            ),
            hits=(
                Effect(
                    "go on with what was there when they started, and find an empty directory or do not start the next time"
                    if path in running
                    else "will find an empty directory, or not start",
                    tuple(names),
                ),
            ),
        )


def _volume_source(
    volume: BoundVolume, sources: BindSources | None, down: tuple[Container, ...]
) -> Iterator[Finding | Unknown]:
    """Judge the path that a volume binds: dockerd makes none, so that whoever mounts the volume does not start."""
    source = sources.all.get(volume.device) if sources else None
    relative = not volume.device.startswith("/")
    if not relative and (source is None or source.type == "!"):
        yield Unknown(volume.device, source.cited.excerpt if source else "it was not looked at")
        return
    if source is not None and source.type != "-":
        return
    who = " ".join(one.engine_name for one in down) or "NAME"
    if relative:
        said = f"{volume.device or 'an empty device'}, which is no absolute path"
        step = Note(
            f"make the volume anew with an absolute device: docker rm {who}; docker volume rm {volume.name}; correct"
            " device (in Compose: driver_opts), and start all of it again"
        )
    else:
        said = f"{volume.device}, which is not there"
        step = Note(
            f"mount or restore what belongs to {volume.device} (mkdir -p makes it, empty); then docker start {who}"
        )
    yield Finding(
        subject=volume.name,
        title=f"volume {volume.name} binds {said}",
        message=f"volume {volume.name} is made of {said}: mount fails, and dockerd makes no directory",
        evidence=(volume.cited, *((source.cited,) if source is not None else ())),
        remedy=Remedy("bring the path back, then start again what it keeps down", (step,)),
        severity=Severity.ERROR if down else Severity.WARNING,
        hits=(Effect("cannot be started", volume.used_by),) if volume.used_by else (Effect("whoever uses it next"),),
    )
