"""The file system that layers are kept on: whether overlay works on it, whether quotas do, and whether it is sound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import structs

from doctor.facts.backing import Backing
from doctor.facts.clock import Clock
from doctor.facts.config import ConfigFile, Options
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.kernellog import KernelLog
from doctor.facts.lifecycle import Lifecycle
from doctor.model import Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Unknown, Yield
from doctor.registry import check

if TYPE_CHECKING:
    from doctor.facts.mounts import Mount

_POOR = {
    "nfs": "a network file system: overlay2 and fuse-overlayfs fail on it, locks and whiteouts do not hold",
    "nfs4": "a network file system: overlay2 and fuse-overlayfs fail on it, locks and whiteouts do not hold",
    "cifs": "a network file system without owners and devices",
    "9p": "a shared folder of a virtual machine, without overlay's attributes",
    "ecryptfs": "an encrypting layer that overlay cannot stand on",
    "overlay": "an overlay itself: the kernel refuses a second one on it as upper directory",
    "tmpfs": "memory: images, volumes and containers are gone at the next boot",
    "ramfs": "memory: images, volumes and containers are gone at the next boot",
    "vfat": "a file system without owners, links and devices",
    "exfat": "a file system without owners, links and devices",
}
_LOST_AT_BOOT = frozenset({"tmpfs", "ramfs"})
_BROKEN = re.compile(
    r"I/O error, dev (\S+?),|Buffer I/O error on dev (\S+?),|EXT4-fs error \(device (\S+?)\)|XFS \((\S+?)\):.*(?:error|orrupt)"
    r"|BTRFS (?:error|critical) \(device (\S+?)\)"
)
_DAY = 86400.0
_COMPARED = "Not using native diff for overlay2"
_TURN_OFF = (
    "options overlay metacopy=off redirect_dir=off in /etc/modprobe.d, then boot; until then write N to"
    " /sys/module/overlay/parameters/redirect_dir and metacopy, and restart Docker"
)


@check(
    "STO002",
    Severity.ERROR,
    explains=("DMN016", "DMN032"),
    blocks_start=True,
    says=("formatted without d_type support, which leads to incorrect behavior",),
)
def no_types_in_directories(backing: Backing, log: DaemonLog, daemon: Daemon, lifecycle: Lifecycle) -> Iterator[Yield]:
    """The file system does not tell types of directory entries, which overlay2 needs.

    ## What it is
    overlayfs reads from a directory what each entry is (d_type). An xfs that was made with
    ftype=0, as RHEL 7.2 and older did, or an ext4 without the feature filetype does not tell:
    whiteouts are taken for files.
    ## What you see
    Files that are there again after rm; "directory not empty". Docker 20.10 runs on a data root
    that is in use already; 26.1 and 28.5 do not start: "the backing extfs filesystem is
    formatted without d_type support, which leads to incorrect behavior".
    ## By hand
    docker info -f '{{.DriverStatus}}'
    tune2fs -l DEVICE | grep features
    xfs_info /var/lib/docker
    ## Cure
    ext4 learns it while it is not mounted: tune2fs -O filetype, then e2fsck -f, and nothing is
    lost. An xfs has to be made anew: save images and volumes, mkfs.xfs -n ftype=1, restore.
    ## Looks like
    STO003 (a file system that overlay2 cannot stand on at all)
    ## Limits
    As dockerd tells it, in docker info or as the reason why it does not start.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go, mkfs.xfs(8), tune2fs(8), moby issue 10294
    """
    refused = log.fatal if log.fatal and "without d_type support" in log.fatal.text else None
    told = backing.status.get("Supports d_type")
    if not backing.driver and refused is None:
        yield Unknown("storage driver", "dockerd was not asked")
        return
    if told is None and refused is None:
        yield NotApplicable("no overlay driver that tells of d_type")
        return
    if refused is None and told != "false":
        return
    said = refused.cited if refused else backing.cite("Supports d_type")
    yield Finding(
        subject=backing.root,
        title=f"the file system of {backing.root} does not tell types in directories (d_type)",
        message=f"dockerd says of the file system of {backing.root}: "
        + ("it is without d_type support" if refused else "Supports d_type false"),
        evidence=(said, *((backing.mount.cited,) if backing.mount else ())),
        remedy=_types(backing, daemon, lifecycle),
        hits=(Effect("dockerd does not start: no docker command works"),)
        if refused and not daemon.pid
        else (Effect("files that layers and containers delete are seen again, and directories cannot be removed"),),
    )


def _types(backing: Backing, daemon: Daemon, lifecycle: Lifecycle) -> Remedy:
    """Give the cure: ext4 can learn types, of anything else the data has to be moved."""
    mount = backing.mount
    if mount is None or mount.type != "ext4" or mount.point == "/" or not mount.source.startswith("/dev/"):
        what = f"save images and volumes, make the file system of {backing.root} anew (xfs: mkfs.xfs -n ftype=1,"
        return Remedy(
            "make the file system anew, with types",
            (Note(f"{what} ext4: mkfs.ext4 -O filetype), then bring them back"),),
            risk="destructive",
        )
    away = (Note("stop Docker, and whatever else uses that file system"),) if daemon.pid else ()
    return lifecycle.starting(
        "let ext4 keep types, then start dockerd; nothing is lost",
        (
            *away,
            Command(("umount", mount.point)),
            Command(("tune2fs", "-O", "filetype", mount.source)),
            Note(f"e2fsck -f -y {mount.source} writes the types; its exit code is 1 then"),
            Command(("mount", mount.source, mount.point)),
            *lifecycle.start,
        ),
    )


@check("STO003", Severity.WARNING)
def file_system_not_for_layers(backing: Backing, daemon: Daemon) -> Iterator[Yield]:
    """Docker's data is on a file system that layers do not work on, or do not last on.

    ## What it is
    overlay2 wants a local file system with whiteouts, extended attributes and d_type: ext4, xfs or
    btrfs. On NFS, CIFS, 9p or another overlay it fails; in a tmpfs all is gone after a boot.
    ## What you see
    dockerd falls back to vfs, which copies whole images; "driver not supported"; "invalid
    argument" when a container starts; no image is left after a boot.
    ## By hand
    findmnt -T /var/lib/docker
    docker info -f '{{.Driver}}'
    ## Cure
    Move data-root to a local ext4 or xfs; images are pulled anew there, volumes have to be copied.
    ## Looks like
    STO001 (the driver that was chosen for it), STO009 (the right file system, mounted read-only)
    ## Limits
    Told by the type of the mount alone. Where overlay2 is in use all the same, as in a container
    with an overlay that the kernel took, it is a note; so is a tmpfs that was chosen on purpose.
    ## References
    kernel Documentation/filesystems/overlayfs.rst, docker docs "Select a storage driver"
    """
    if backing.mount is None:
        yield Unknown("file system", "mounts could not be read")
        return
    kind = backing.mount.type.removeprefix("fuse.")
    why = _POOR.get(kind)
    if why is None:
        return
    works = backing.driver in {"overlay2", "overlayfs"} or not daemon.pid
    yield Finding(
        subject=backing.root,
        title=f"{backing.root} is on {kind}",
        message=f"{backing.root} is on {kind}, {why}",
        evidence=(backing.mount.cited,),
        remedy=Remedy(
            "keep Docker's data on a local file system",
            (Note(f"mount ext4 or xfs and give it to dockerd as data-root; copy {backing.root}/volumes to it"),),
        ),
        severity=Severity.INFO if works or kind in _LOST_AT_BOOT else Severity.WARNING,
        hits=(Effect("everything is gone at the next boot"),)
        if kind in _LOST_AT_BOOT
        else (Effect("images and containers may fail in ways that look like damage"),),
    )


@check(
    "STO004",
    Severity.ERROR,
    explains=("DMN016", "DMN032"),
    blocks_start=True,
    says=(
        "Storage option overlay2.size not supported. Filesystem does not support Project Quota",
        "Storage Option overlay2.size only supported for backingFS XFS",
    ),
)
def size_without_quota(
    options: Options, config: ConfigFile, backing: Backing, daemon: Daemon, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """overlay2.size is set, and the file system has no project quotas: dockerd does not start.

    ## What it is
    overlay2.size bounds what each container may write, by a project quota of xfs. That needs xfs
    mounted with pquota; anywhere else dockerd refuses to start.
    ## What you see
    "Storage Option overlay2.size only supported for backingFS XFS. Found extfs", or "Storage option
    overlay2.size not supported. Filesystem does not support Project Quota".
    ## By hand
    findmnt -no FSTYPE,OPTIONS -T /var/lib/docker
    grep -A3 storage-opts /etc/docker/daemon.json
    ## Cure
    Take the option out; or mount the xfs with pquota, and start dockerd again.
    ## Looks like
    STO001 (the storage driver itself), DMN003 (options given twice)
    ## Limits
    The size of a single container (docker run --storage-opt) is not looked at.
    ## References
    moby daemon/graphdriver/overlay2/overlay.go (Init), xfs(5), dockerd(8)
    """
    if not options.known("storage-opts"):
        yield Unknown("storage-opts", options.unread)
        return
    value, origin = options.value("storage-opts"), options.origin("storage-opts")
    if origin is None or "overlay2.size" not in value or backing.driver not in {"", "overlay2"}:
        return
    mount = backing.mount
    if mount is None:
        yield Unknown("file system", "mounts could not be read")
        return
    if mount.type == "xfs" and {"prjquota", "pquota"} & set(mount.of_type):
        return
    what = "xfs without pquota" if mount.type == "xfs" else mount.type
    step = config.change("storage-opts", origin)
    yield Finding(
        subject="overlay2.size",
        title=f"overlay2.size is set, and {backing.root} is on {what}",
        message=f"{origin.where} sets overlay2.size, and {backing.root} is on {what}: dockerd does not start with it",
        evidence=(origin.cited, mount.cited),
        remedy=Remedy("take the option out; nothing stops", (step,))
        if daemon.pid
        else lifecycle.starting("take the option out, then start dockerd", (step, *lifecycle.start)),
        severity=Severity.WARNING if daemon.pid else Severity.ERROR,
        hits=(Effect("dockerd would not start again" if daemon.pid else "dockerd does not start"),),
    )


@check("STO008", Severity.INFO)
def layers_cannot_be_compared(backing: Backing, log: DaemonLog | None) -> Iterator[Yield]:
    """The kernel keeps changes in a form that Docker cannot read: builds copy and compare.

    ## What it is
    With metacopy or redirect_dir the kernel writes only what changed of a file, or notes where a
    directory was renamed from. A layer's directory then no longer holds the layer, so docker
    build and commit mount it and compare every file (native diff is off).
    ## What you see
    "Native Overlay Diff: false" in docker info; docker build and commit that take long.
    ## By hand
    docker info -f '{{.DriverStatus}}'
    grep . /sys/module/overlay/parameters/metacopy /sys/module/overlay/parameters/redirect_dir
    ## Cure
    Turn both off for the module, boot, and start dockerd: options overlay metacopy=off
    redirect_dir=off in /etc/modprobe.d. It is a matter of speed alone.
    ## Looks like
    STO001 (a driver that copies anyway)
    ## Limits
    Other reasons are told as dockerd logged them; rootless engines always say false.
    ## References
    kernel Documentation/filesystems/overlayfs.rst, moby daemon/graphdriver/overlay2/check.go
    """
    native, copies = backing.status.get("Native Overlay Diff"), backing.status.get("Using metacopy")
    if not backing.driver:
        yield Unknown("storage driver", "dockerd was not asked")
        return
    if native is None and copies is None:
        yield NotApplicable("no overlay driver that tells of it")
        return
    if (native != "false" and copies != "true") or backing.status.get("userxattr") == "true":
        return
    name = "Using metacopy" if copies == "true" else "Native Overlay Diff"
    reason = next((line for line in reversed(log.lines if log else ()) if _COMPARED in line.text), None)
    why = reason.text.partition(_COMPARED)[2].rpartition(": ")[2].partition('" storage-driver')[0] if reason else ""
    own = not why or copies == "true" or "REDIRECT_DIR" in why
    yield Finding(
        subject=name,
        title="layers are compared file by file: overlay's native diff is off",
        message=f"dockerd says {name} {backing.status[name]}: docker build and commit compare every file of a layer"
        + (f" ({why})" if why else ""),
        evidence=(backing.cite(name), *((reason.cited,) if reason else ())),
        remedy=Remedy("turn metacopy and redirect_dir of overlay off", (Note(_TURN_OFF),))
        if own
        else Remedy("take away what dockerd gives as its reason", (Note(why),)),
        hits=(Effect("docker build and docker commit take longer"),),
    )


@check("STO009", Severity.ERROR, says=("read-only file system", "input/output error"), explains=("DMN016",))
def data_root_read_only_or_failing(
    backing: Backing, log: KernelLog | None, clock: Clock, daemon: Daemon, lifecycle: Lifecycle | None
) -> Iterator[Yield]:
    """The file system of Docker's data is mounted read-only, or its disk fails.

    ## What it is
    ext4 is remounted read-only at the first error of its disk (errors=remount-ro), xfs shuts down;
    a volume of a cloud that was detached looks the same. Nothing can be written from then on.
    ## What you see
    "read-only file system" and "input/output error" from docker pull, build and run, and from
    containers; "I/O error, dev sda" in the kernel's log.
    ## By hand
    findmnt -no SOURCE,OPTIONS -T /var/lib/docker
    dmesg -T | grep -iE 'i/o error|ext4-fs error|xfs'
    ## Cure
    Look at the disk first (smartctl -a, the provider's console); stop Docker, check the file
    system, and mount it again. Prune nothing: what cannot be written cannot be freed.
    ## Looks like
    STO005 (no room is left), HST006 (what else the kernel complained of)
    ## Limits
    Errors of a disk that cannot be told to be the data root's are a warning; of a loop device
    that it is not on nothing is said. Errors of a file system that was mounted again since, without
    a warning of errors still in it, are taken for repaired.
    ## References
    ext4(5) (errors=), xfs_repair(8), dmesg(1)
    """
    mount = backing.mount
    if mount is None:
        yield Unknown("file system", "mounts could not be read")
        return
    # Of a dockerd that is down DMN019 says what keeps it so.
    if mount.read_only and daemon.pid:
        yield Finding(
            subject=backing.root,
            title=f"{backing.root} is on a file system that is mounted read-only",
            message=f"the file system of {backing.root}, mounted on {mount.point}, is read-only",
            evidence=(mount.cited,),
            remedy=_repair(mount, lifecycle)
            if mount.shut_down
            else Remedy(
                "see why first (dmesg); where it was remounted by hand, make it writable again",
                (Command(("mount", "-o", "remount,rw", mount.point)),),
            ),
            hits=(Effect("nothing can be pulled, built or started, and containers cannot write"),),
        )
        return
    yield from _failing(mount.source, backing, log, clock)


def _repair(mount: Mount, lifecycle: Lifecycle | None) -> Remedy:
    """Give the cure of a file system that the kernel shut down: a remount does not take that back, a repair does."""
    steps = (
        f"look at the disk first (dmesg, smartctl -a {mount.source})",
        f"stop Docker; umount {mount.point}",
        f"e2fsck -f {mount.source}, or xfs_repair {mount.source}; then mount it again and start Docker",
    )
    what = "stop Docker, repair the file system, mount it again"
    price = lifecycle.remedy(what) if lifecycle else Remedy(what, (), risk="disruptive", restarts="dockerd")
    return structs.replace(price, steps=tuple(Note(step) for step in steps))


def _failing(source: str, backing: Backing, log: KernelLog | None, clock: Clock) -> Iterator[Yield]:
    if log is None:
        yield Unknown("kernel log", "it could not be read")
        return
    own = source.rpartition("/")[2]
    for line in reversed(log.lines):
        if line.at and clock.collected_at - line.at > _DAY:
            return
        match = _BROKEN.search(line.text)
        device = next((one for one in match.groups() if one), "") if match else ""
        if not device:
            continue
        mine = bool(own) and (own == device or (own.startswith(device) and own[len(device) :].lstrip("p").isdecimal()))
        if device.startswith("loop") and not mine:
            continue  # a file of another disk, and perhaps detached long ago: its number says nothing of Docker's data
        if "I/O error" not in line.text and log.repaired(device, line):
            continue
        yield Finding(
            subject=device,
            title=f"{device} fails" + (f", which {backing.root} is on" if mine else ""),
            message=f"the kernel's log says: {line.text}",
            evidence=(line.cited,) + ((backing.mount.cited,) if mine and backing.mount else ()),
            remedy=Remedy(
                "look at the disk before anything else", (Note(f"smartctl -a /dev/{device}; save what can be read"),)
            ),
            severity=Severity.ERROR if mine else Severity.WARNING,
            hits=(Effect("layers, volumes and logs may be damaged: doctor layers verify --deep says which"),)
            if mine
            else (Effect(f"whatever is on {device}"),),
        )
        return
