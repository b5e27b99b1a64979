"""Are the paths that dockerd needs what it needs: its socket, its pid file, its data root?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.groups import DockerGroup
from doctor.facts.mounts import Mount, Mounts
from doctor.facts.nextstart import NextStart
from doctor.facts.paths import TYPES, Paths, Seen
from doctor.facts.pidfile import PidFile
from doctor.model import (
    Command,
    EditKey,
    Effect,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.places import Places
from doctor.registry import check

WORLD = 0o006
"""Permission bits of everybody: who may write to the socket is root on this host."""


@check(
    "DMN017",
    Severity.ERROR,
    explains=("DMN016",),
    says=(
        "permission denied while trying to connect to the Docker daemon socket",
        "permission denied while trying to connect to the docker API at PATH",
    ),
)
def socket_rights(
    daemon: Daemon, places: Places, paths: Paths, options: Options, group: DockerGroup | None, start: NextStart
) -> Iterator[Yield]:
    """The socket of dockerd is open to everybody, closed to its group, or no socket.

    ## What it is
    Who may write to the socket is root on this host: a container can mount anything. It is
    to be root's and the group docker's, mode 0660.
    ## What you see
    Mode 0666: any user and any process on the host can do everything. A directory in its
    place: "can't create unix socket: is a directory". Another group: "permission denied".
    ## By hand
    stat -c '%U:%G %a %F' /run/docker.sock
    getent group docker
    ## Cure
    chmod and chgrp: nothing stops, connections that are open stay. A directory, which a
    container with -v made while dockerd was down, has to go; then start dockerd.
    ## Looks like
    DMN016 (the socket is gone, or nobody answers on it)
    ## Limits
    The first socket of dockerd is looked at. A mode of 0600 is taken for a wish; rootless
    sockets are their user's. ACLs are not read.
    ## References
    dockerd(8), unix(7), moby daemon/listeners/group_unix.go
    """
    if not daemon.address.startswith("unix://") or daemon.rootless:
        yield NotApplicable("dockerd is rootless" if daemon.rootless else f"it listens on {daemon.address}")
        return
    path = daemon.socket
    seen = paths.get(path)
    if seen is None or seen.hidden:
        yield Unknown(path, f"files: {path}: {seen.why}" if seen else f"files: {path} was not looked at")
    elif seen.type == "d" and places.present:
        yield Finding(
            subject=path,
            title=f"a directory stands in the place of the socket {path}",
            message=f"{path} is a directory: dockerd cannot make its socket",
            evidence=(seen.cited, *start.words("unix socket")),
            remedy=start.mend("remove the directory", Command(("rmdir", path)), in_force=bool(daemon.pid)),
            severity=Severity.ERROR,
            hits=start.hits if not daemon.pid else (Effect("every docker command fails"),),
        )
    elif seen.type == "s" and daemon.pid:
        yield from _rights(path, seen, options, group)


def _rights(path: str, seen: Seen, options: Options, group: DockerGroup | None) -> Iterator[Finding | Unknown]:
    if seen.mode & 0o002:
        yield Finding(
            subject=path,
            title=f"everybody may write to {path}: mode {seen.mode:04o}",
            message=f"{path} has mode {seen.mode:04o}: any user and any process of this host can become root by it",
            evidence=(seen.cited,),
            remedy=Remedy("close it", (Command(("chmod", f"{seen.mode & ~WORLD:04o}", path)),), lasts="until-boot"),
            hits=(Effect("every user and every process of this host is as good as root"),),
            works=(Effect("connections that are open stay"),),
        )
    wanted = options.origin("group")
    if seen.uid != 0 or (wanted is not None and wanted.value not in {"", "docker"}):
        return
    if group is None:
        yield Unknown(f"{path}:group", "files: /etc/group was not read")
    elif group.members and group.gid >= 0 and seen.gid != group.gid:
        members = ", ".join(group.members)
        yield Finding(
            subject=f"{path}:group",
            title=f"{path} is not the group docker's",
            message=f"{path} is group {seen.gid}'s, docker is {group.gid}: its members ({members}) may not use it",
            evidence=(seen.cited, group.cited),
            remedy=Remedy(
                "give it to the group",
                (Command(("chgrp", "docker", path)), Command(("chmod", "0660", path))),
                lasts="until-boot",
                notes=("dockerd does so when it starts, if the group is there by then",),
            ),
            severity=Severity.WARNING,
            hits=(Effect("docker says permission denied to", group.members),),
            works=(Effect("root can use it"),),
        )


@check(
    "DMN018",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "pid file found, ensure docker is not running or delete PATH",
        "ensure docker is not running or delete PATH: process with PID N is still running",
    ),
)
def pid_file_of_another(pidfile: PidFile, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """The pid file names a process that is alive and is no dockerd.

    ## What it is
    dockerd writes its pid into a file, and does not start while the process named there is
    alive. After a crash, or in a copied /run, the number may be another process's by now.
    ## What you see
    "ensure docker is not running or delete /var/run/docker.pid: process with PID N is
    still running", though no dockerd runs.
    ## By hand
    cat /run/docker.pid
    ps -p $(cat /run/docker.pid)
    ## Cure
    Remove the file, then start dockerd. Nothing stops: the process that has the number
    goes on.
    ## Looks like
    DMN016 (it is down for another reason)
    ## Limits
    A file that names a dead process is none's fault: dockerd overwrites it. While dockerd
    runs the file is not judged.
    ## References
    dockerd(8), moby pkg/pidfile
    """
    if daemon.pid:
        yield NotApplicable("dockerd runs")
        return
    if pidfile.unread:
        yield Unknown(pidfile.path, pidfile.unread)
        return
    if pidfile.directory:
        said, what = "it is a directory", Command(("rmdir", pidfile.path))
    elif pidfile.alive:
        said, what = f"process {pidfile.pid} is alive, and no dockerd", Command(("rm", pidfile.path))
    else:
        return
    yield Finding(
        subject=pidfile.path,
        title=f"the pid file keeps dockerd from starting: {said}",
        message=f"{pidfile.path}: {said}: dockerd takes it for itself, and refuses to start",
        evidence=(*pidfile.cited, *start.words("pid", "PID")),
        remedy=start.cure(what, what="remove the file"),
        severity=Severity.ERROR,
        hits=start.hits,
    )


@check("DMN019", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def data_root_unfit(
    options: Options,
    config: ConfigFile,
    daemon: Daemon,
    start: NextStart,
    paths: Paths,
    mounts: Mounts | None,
    containers: Containers | None,
) -> Iterator[Yield]:
    """The data root is no directory, is read-only or noexec, or will be another at the next start.

    ## What it is
    dockerd keeps images, containers and volumes below its data root (/var/lib/docker).
    It has to be an absolute path to a directory that can be written.
    ## What you see
    "Unable to get the full path to root" or "read-only file system" and no dockerd; or,
    after a restart, an engine without images and containers.
    ## By hand
    docker info -f '{{.DockerRootDir}}'
    findmnt -T /var/lib/docker
    ## Cure
    Move aside what stands in its place; mount it read-write. A data-root that was changed:
    take the change back, or move the data while dockerd is down.
    ## Looks like
    DMN013 (another key is not in force), DMN001 (a value of the wrong type)
    ## Limits
    noexec and nosuid are a note: they hold for volumes, whose programs do not run then;
    containers themselves are on overlay, which has options of its own (seen on 28.5.2).
    ## References
    dockerd(8), moby daemon/daemon.go, mount(8)
    """
    if not options.known("data-root"):
        yield Unknown("data-root", options.unread)
        return
    origin = options.origin("data-root") or options.origin("graph")
    root = options.value("data-root") if "graph" not in options.file else options.value("graph")
    now = options.running.get("data-root")
    if not root.startswith("/"):
        yield _relative(root, origin, config, daemon, start)
        return
    seen = paths.get(root)
    mount = mounts.of(root) if mounts is not None else None
    if seen is None or seen.hidden:
        yield Unknown("data-root", f"files: {root}: {seen.why}" if seen else f"files: {root} was not looked at")
    elif seen.type not in {"d", "-"}:
        yield _no_directory(root, seen, origin, start)
    elif mount is not None and mount.read_only and not daemon.pid:
        yield Finding(
            subject="data-root",
            title=f"the data root {root} is read-only",
            message=f"{root} is on {mount.point} ({mount.type}), which is mounted read-only: dockerd does not start",
            evidence=(mount.cited, *start.words("read-only")),
            remedy=start.cure(Command(("mount", "-o", "remount,rw", mount.point)), what="mount it read-write"),
            severity=start.severity,
            hits=start.hits,
        )
    elif mount is not None and {"noexec", "nosuid"} & {*mount.options}:
        yield _no_programs(root, mount)
    if now is not None and config.newer_than(daemon) and origin is not None:
        told = root.rstrip("/")
        # userns-remap adds a directory of its own, `/100000.100000`.
        same = now.value == told or re.fullmatch(re.escape(told) + r"/\d+\.\d+", now.value)
        if origin.source == "daemon.json" and not same and not (seen and seen.link):
            yield _elsewhere(told, now, origin, config, containers, start)


def _relative(root: str, origin: Origin | None, config: ConfigFile, daemon: Daemon, start: NextStart) -> Finding:
    where = origin.where if origin else config.path
    later = config.newer_than(daemon)
    edit: Step = (
        EditKey(config.path, config.pointer("data-root"), None)
        if origin is not None and origin.source == "daemon.json"
        else Note(f"make data-root an absolute path in {where}")
    )
    return Finding(
        subject="data-root",
        title=f"data-root {root} is no absolute path",
        message=f"{where} sets data-root to {root}: dockerd takes it from where it was started, and no container starts",
        evidence=(origin.cited,) if origin else (),
        remedy=start.mend("go back to the default", edit, in_force=bool(daemon.pid) and not later),
        severity=Severity.WARNING if later else Severity.ERROR,
        hits=(Effect("no container starts"),),
    )


def _no_directory(root: str, seen: Seen, origin: Origin | None, start: NextStart) -> Finding:
    what = seen.why if seen.type == "!" else TYPES.get(seen.type, "no directory")
    aside = Command(("mv", root, f"{root}.aside"))
    return Finding(
        subject="data-root",
        title=f"the data root {root} is no directory: {what}",
        message=f"{root} is no directory ({what}): dockerd refuses to start",
        evidence=(seen.cited, *((origin.cited,) if origin else ()), *start.words("path to root")),
        remedy=start.cure(aside, what="move aside what stands in its place"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )


def _no_programs(root: str, mount: Mount) -> Finding:
    point, options = mount.point, sorted({"noexec", "nosuid"} & {*mount.options})
    said = " and ".join(options)
    return Finding(
        subject="data-root",
        title=f"the data root {root} is on a {said} mount",
        message=f"{root} is on {point}, which is mounted {said}: that holds for volumes as well",
        evidence=(mount.cited,),
        remedy=Remedy(
            "lift it, if programs in volumes have to run",
            (Command(("mount", "-o", "remount," + ",".join(one.removeprefix("no") for one in options), point)),),
            lasts="until-boot",
            for_good=(Note(f"and for {point} in /etc/fstab"),),
        ),
        severity=Severity.INFO,
        hits=(
            Effect("programs in volumes do not run" if "noexec" in options else "programs in volumes have no setuid"),
        ),
        works=(Effect("containers themselves: overlay has options of its own"),),
    )


def _elsewhere(
    told: str, now: Origin, origin: Origin, config: ConfigFile, containers: Containers | None, start: NextStart
) -> Finding:
    many = len(containers.all) if containers is not None else 0
    return Finding(
        subject="data-root",
        title=f"the next start of dockerd uses another data root: {told}",
        message=f"{origin.where} sets data-root to {told}, and dockerd runs with {now.value}:"
        " the next start finds none of its images and containers",
        evidence=(origin.cited, now.cited),
        remedy=Remedy(
            "take the change back",
            (EditKey(config.path, config.pointer("data-root"), f'"{now.value}"'),),
            notes=(f"to move the data: stop Docker, copy {now.value} to {told} with its attributes, start it",),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"after the next start {many or 'all'} containers, their images and volumes are not there"),),
        works=start.works,
        since=start.written,
    )
