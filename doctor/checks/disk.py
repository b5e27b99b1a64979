"""The disk below Docker's data: room for bytes and inodes, and the storage driver that divides it."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import sized
from doctor.facts.config import ConfigFile, Options
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.repairs import write
from doctor.facts.space import Drivers, Space
from doctor.model import Command, EditKey, Effect, Finding, NotApplicable, Note, Remedy, Severity, Step, Unknown, Yield
from doctor.registry import check

GIB = 1 << 30
LOW, LOW_BYTES, QUARTER, TIGHT = 0.10, 50 * GIB, 0.25, 2 * GIB
"""Below a tenth and 50 GiB, or below a quarter and 2 GiB, little is left."""
FULL = 32 << 20
"""Bytes below which nothing can be pulled or started: ext4 keeps 16 MiB back even from root."""


def _room(space: Space) -> Remedy:
    steps: list[Step] = []
    if space.untagged:
        steps.append(Command(("docker", "image", "prune", "-f")))
    steps.append(Note(f"see what takes the room: du -xh -d2 {space.path} | sort -h | tail"))
    return Remedy(
        f"images without a name take {sized(space.untagged)}: remove them" if space.untagged else "make room",
        tuple(steps),
        risk="destructive" if space.untagged else "safe",
        notes=("docker builder prune removes the build cache, docker system df says how large it is",),
    )


@check("STO005", Severity.WARNING, explains=("DMN016",), blocks_start=True)
def little_space_for_docker(space: Space) -> Iterator[Yield]:
    """The file system of Docker's data is full, or nearly.

    ## What it is
    Images, containers, volumes and logs share one file system. It is nearly full below a quarter
    that is less than 2 GiB, and below a tenth that is less than 50 GiB; full below 32 MiB.
    ## What you see
    "no space left on device" at docker pull, build and run; applications that cannot write;
    empty files in the image store after a crash.
    ## By hand
    df -h /var/lib/docker
    docker system df
    ## Cure
    Remove images without a name; see what else takes the room before it goes. Stopped containers
    and unused volumes are somebody's data: a general prune deletes them.
    ## Looks like
    STO006 (there is room, and no inode is left)
    ## Limits
    Quotas of projects and users are not looked at.
    ## References
    statvfs(3), docker-system-df(1)
    """
    share = space.available / space.size if space.size else 1.0
    full = space.free < FULL
    if not space.size:
        yield NotApplicable(f"{space.path} counts no bytes")
        return
    if not full and (space.available >= TIGHT or share >= QUARTER) and (share >= LOW or space.available >= LOW_BYTES):
        return
    left = sized(min(space.available, space.free))
    yield Finding(
        subject=space.path,
        title=f"the file system of {space.path} is full"
        if full
        else f"{left} are left on the file system of {space.path}",
        message=f"{left} of {sized(space.size)} are left on the file system of {space.path} ({share:.0%})",
        evidence=(space.cite(2, f"free {space.available:,}"), space.cite(1, f"size {space.size:,}")),
        remedy=_room(space),
        severity=Severity.ERROR if full else Severity.WARNING,
        hits=(Effect("nothing can be pulled, built or started, and containers cannot write"),)
        if full
        else (Effect("a large pull or build fails, and then everything that writes"),),
    )


@check("STO006", Severity.WARNING, explains=("DMN016",), blocks_start=True)
def few_inodes_for_docker(space: Space) -> Iterator[Yield]:
    """The file system of Docker's data runs out of inodes: no file can be made.

    ## What it is
    Some file systems have a number of inodes that is fixed when they are made; each file and
    directory takes one. Images with node_modules have very many files.
    ## What you see
    "no space left on device" while df shows free space.
    ## By hand
    df -i /var/lib/docker
    ## Cure
    Remove images without a name; see which directories hold the files. In the long run, a file
    system with more inodes (mkfs.ext4 -i), or xfs.
    ## Looks like
    STO005 (no bytes are left)
    ## Limits
    btrfs and others count no inodes, and are not judged.
    ## References
    statvfs(3), mke2fs(8), moby issue 9755
    """
    if not space.inodes:
        yield NotApplicable(f"the file system of {space.path} counts no inodes, or was not asked for them")
        return
    share = space.inodes_free / space.inodes
    if share >= LOW:
        return
    full = space.inodes_free == 0
    yield Finding(
        subject=space.path,
        title=f"no inode is left on the file system of {space.path}"
        if full
        else f"{space.inodes_free:,} inodes are left on the file system of {space.path}",
        message=f"{space.inodes_free:,} of {space.inodes:,} inodes are left on the file system of {space.path} ({share:.0%})",
        evidence=(space.cite(5, f"inodes_free {space.inodes_free:,}"), space.cite(4, f"inodes {space.inodes:,}")),
        remedy=Remedy(
            "remove what has many files",
            (
                *((Command(("docker", "image", "prune", "-f")),) if space.untagged else ()),
                Note(f"see what has the files: du --inodes -x -d2 {space.path} | sort -n | tail"),
            ),
            risk="destructive" if space.untagged else "safe",
        ),
        severity=Severity.ERROR if full else Severity.WARNING,
        hits=(Effect("nothing can be pulled, built or started, and containers can make no file"),)
        if full
        else (Effect("a large pull or build fails, and then everything that makes files"),),
    )


_REMOVED = {"aufs": "24", "overlay": "24", "devicemapper": "25"}


def _choose(config: ConfigFile, name: str) -> Step:
    """Give the step that makes daemon.json choose a driver."""
    if config.exists and config.data is not None:
        return EditKey(config.path, "/storage-driver", f'"{name}"')
    return write(config.path, f'{{"storage-driver": "{name}"}}\n')


@check(
    "STO001",
    Severity.WARNING,
    says=("storage-driver has been deprecated and removed",),
)
def storage_driver_without_a_future(
    drivers: Drivers, options: Options, config: ConfigFile, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """The storage driver in use copies whole layers, or later releases of Docker do not have it.

    ## What it is
    vfs makes a full copy of all layers for each container. aufs and overlay are gone from Docker
    24 on, devicemapper from 25: after an upgrade dockerd does not start with them.
    ## What you see
    vfs: docker run takes seconds, and the disk fills by the size of the image each time.
    ## By hand
    docker info -f '{{.Driver}}'
    ## Cure
    Choose overlay2 and start dockerd again. Images and containers of the old driver stay on the
    disk and are not seen any more: save what is needed first (docker save, docker commit).
    ## Looks like
    STO011 (several drivers have left something on the disk)
    ## Limits
    vfs that was asked for is a note: on some file systems there is no other.
    ## References
    docker docs "Select a storage driver", moby daemon/graphdriver/driver.go
    """
    origin = options.origin("storage-driver")
    name = drivers.used or (origin.value if origin else "overlay2" if "overlay2" in drivers.left else "")
    if not name:
        yield Unknown("storage driver", "dockerd was not asked")
        return
    if name != "vfs" and name not in _REMOVED:
        return
    flagged = "storage-driver" in options.flags
    step: Step = Note("change --storage-driver to overlay2 where dockerd is started")
    later = f"Docker {_REMOVED.get(name, '')} and later do not have {name}: dockerd will not start after the upgrade"
    yield Finding(
        subject=name,
        title=f"the storage driver is {name}",
        message=f"dockerd uses the storage driver {name}"
        + (f", set in {origin.where}" if origin else ", which it chose by itself"),
        evidence=((drivers.info,) if drivers.used else ()) + ((origin.cited,) if origin else ()),
        remedy=lifecycle.remedy(
            "choose overlay2; what is kept by the old driver is not seen any more",
            step if flagged else _choose(config, "overlay2"),
            notes=("images and containers of the old driver stay on the disk, and come back when it is chosen again",),
        ),
        severity=Severity.INFO if name == "vfs" and origin else Severity.WARNING,
        hits=(Effect("each container is a full copy of its image") if name == "vfs" else Effect(later),),
    )


@check(
    "STO011",
    Severity.ERROR,
    explains=("DMN016", "DMN032"),
    blocks_start=True,
    says=("contains several valid graphdrivers",),
)
def several_storage_drivers(
    drivers: Drivers, options: Options, config: ConfigFile, daemon: Daemon, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """Several storage drivers have left data, and none is chosen: dockerd does not start.

    ## What it is
    Without storage-driver, dockerd takes the driver whose directory it finds in the data root. When
    several are there and not empty it does not choose, and ends.
    ## What you see
    "... contains several valid graphdrivers: overlay2, btrfs; cleanup or explicitly choose
    storage driver". A directory that was made by hand is enough.
    ## By hand
    ls /var/lib/docker
    docker info -f '{{.Driver}}'
    ## Cure
    Choose the one in use in daemon.json: nothing is deleted. While dockerd runs that is enough.
    ## Looks like
    DMN001 (daemon.json is no JSON), STO001 (the driver that is in use)
    ## Limits
    vfs does not count, and neither does what this release of Docker does not know any more.
    ## References
    moby daemon/graphdriver/driver.go (scanPriorDrivers)
    """
    if not options.known("storage-driver"):
        yield Unknown("storage-driver", options.unread)
        return
    if options.origin("storage-driver") is not None:
        return
    removed = {name for name, release in _REMOVED.items() if daemon.generation >= (int(release), 0)}
    left = [name for name in drivers.left if name not in removed]
    if len(left) < 2 or drivers.used not in {"", *left}:  # noqa: PLR2004 - several
        return
    chosen = drivers.used or ("overlay2" if "overlay2" in left else left[0])
    step = _choose(config, chosen)
    yield Finding(
        subject=drivers.data_root,
        title=f"{len(left)} storage drivers have data in {drivers.data_root}, and none is chosen",
        message=f"{', '.join(left)} have data in {drivers.data_root}, and storage-driver is not set",
        evidence=tuple(drivers.cited.get(name, drivers.overlay2) for name in left),
        remedy=Remedy("choose the one in use; nothing is deleted, nothing stops", (step,))
        if daemon.pid
        else lifecycle.starting(f"choose {chosen}, then start dockerd; nothing is deleted", (step, *lifecycle.start)),
        severity=Severity.WARNING if daemon.pid else Severity.ERROR,
        hits=(Effect("dockerd would not start again" if daemon.pid else "dockerd does not start"),),
        works=(Effect(f"it goes on with {drivers.used}"),) if daemon.pid and drivers.used else (),
    )
