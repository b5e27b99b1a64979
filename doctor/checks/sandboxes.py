"""The files of network sandboxes: each belongs to a container, and is a mount of its namespace."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.processes import Processes
from doctor.facts.sandboxes import Sandboxes, SandboxFile
from doctor.model import Command, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Yield
from doctor.registry import check

COLLECTS = (28, 0)
"""Before this generation dockerd unmounts a sandbox at once and removes its file up to a minute later (measured on
20.10.24 and 26.1.5; moby libnetwork/osl, gpmCleanupPeriod)."""

YOUNG = 60.0
"""Seconds: a sandbox younger than this may belong to a container that is just being made or removed."""


@check("NSP002", Severity.WARNING)
def sandbox_file_leaked(
    sandboxes: Sandboxes, containers: Containers, processes: Processes, daemon: Daemon
) -> Iterator[Yield]:
    """A network sandbox belongs to no container, or is no mount of a namespace.

    ## What it is
    dockerd mounts each container's network namespace on a file in /run/docker/netns. One is
    left without a container (a crash, a kill -9), or is a plain file without its mount.
    ## What you see
    Links and addresses of containers that are long gone; "file exists" when a sandbox is
    made; docker exec and network connect fail for a container whose mount is gone.
    ## By hand
    findmnt -t nsfs
    docker inspect -f '{{.NetworkSettings.SandboxKey}}' NAME
    ## Cure
    Unmount and remove what belongs to nobody: nothing stops. A running container whose
    mount is gone gets it back by mounting its namespace there again.
    ## Looks like
    a shim without a container
    ## Limits
    Files of Swarm (ingress_sbox, lb_*, 1-*) and `default` belong to no container by design.
    While containers come and go, one without an owner younger than a minute is not judged, and
    a plain file never while a dockerd before 28 runs, which removes it in its own time.
    ## References
    moby libnetwork/osl/namespace_linux.go, mount_namespaces(7), moby issues 31414 and 41136
    """
    if not sandboxes.all:
        yield NotApplicable(f"no sandbox in {sandboxes.folder}")
        return
    owned = {one.sandbox: one for one in containers.all if one.sandbox}
    lived_in = {process.net for process in processes.by_pid.values()}
    collected = daemon.pid != 0 and (0, 0) < daemon.generation < COLLECTS
    busy = bool(containers.unsettled) or not containers.complete
    for file in sandboxes.all:
        if file.name == "default" or file.name.startswith(("ingress_", "lb_")) or "-" in file.name:
            continue
        owner = owned.get(file.path)
        if owner is not None and owner.running:
            if not file.inode:
                yield _unmounted(file, owner.name, owner.pid)
            continue
        if (file.inode and file.inode in lived_in) or (busy and file.age < YOUNG):
            continue
        if not file.inode and collected:
            continue  # its container may have gone a second ago: the file has no date of that
        if owner is not None and file.inode:
            continue  # a container that is starting or stopping
        yield _leaked(file)


def _leaked(file: SandboxFile) -> Finding:
    remove = Command(("rm", file.path))
    steps = (Command(("umount", file.path)), remove) if file.inode else (remove,)
    what = f"holds namespace {file.inode} alive" if file.inode else "is a plain file"
    return Finding(
        subject=file.path,
        title=f"sandbox {file.name} belongs to no container",
        message=f"{file.path} {what}; no container has it as its sandbox, no process lives in it",
        evidence=(file.cited,),
        remedy=Remedy("remove it", steps),
        hits=(Effect("links and addresses in it stay; making a sandbox of that name would fail"),),
        excluded=(Excluded("NSP007", "no process lives in that namespace"),),
    )


def _unmounted(file: SandboxFile, name: str, pid: int) -> Finding:
    return Finding(
        subject=file.path,
        title=f"the sandbox file of {name} is no mount of its namespace",
        message=f"{file.path}, the sandbox of running container {name}, is a plain file",
        evidence=(file.cited,),
        remedy=Remedy(
            "mount its namespace there again",
            (Command(("mount", "--bind", f"/proc/{pid}/ns/net", file.path)),),
            lasts="until-boot",
            undo=(Command(("umount", file.path)),),
        ),
        hits=(Effect(f"docker network connect and disconnect fail for {name}"),),
        works=(Effect(f"{name} runs on, with the network that it has"),),
    )


@check("NSP003", Severity.WARNING)
def sandbox_of_another_namespace(sandboxes: Sandboxes, containers: Containers, processes: Processes) -> Iterator[Yield]:
    """A container's sandbox file leads to another network namespace than its processes are in.

    ## What it is
    dockerd works on a container's network through its sandbox file: links, addresses and routes
    are made in the namespace that is mounted there. The processes are to be in the same.
    ## What you see
    docker network connect succeeds, and the container has no new interface; what docker network
    inspect shows is not what ip addr shows inside.
    ## By hand
    docker inspect -f '{{.State.Pid}} {{.NetworkSettings.SandboxKey}}' NAME
    stat -L -c %i /run/docker/netns/* /proc/PID/ns/net
    ## Cure
    Mount the namespace of its processes there again: nothing stops.
    ## Looks like
    NSP002 (the file is no mount at all), NET012 (only its link is broken)
    ## Limits
    Containers that share a namespace (network mode host or container) are judged by their owner.
    ## References
    moby libnetwork/osl/namespace_linux.go, network_namespaces(7)
    """
    files = {file.path: file for file in sandboxes.all}
    judged = [one for one in containers.running if one.sandbox in files and not one.sandbox.endswith("/default")]
    if not judged:
        yield NotApplicable("no running container has a sandbox of its own")
        return
    for one in judged:
        file = files[one.sandbox]
        process = processes.by_pid.get(one.pid)
        space = process.net if process is not None else ""
        if process is None or process.container != one.id or not space or not file.inode or file.inode == space:
            continue
        yield Finding(
            subject=one.name,
            scope=f"container {one.name}",
            title=f"the sandbox of {one.name} is another network namespace",
            message=f"{file.path} holds namespace {file.inode}; process {one.pid} of {one.name} is in {space}",
            evidence=(
                file.cited,
                process.cite(f"net:[{space}]", "ns/net"),
            ),
            remedy=Remedy(
                "mount its own namespace there",
                (
                    Command(("umount", "-l", file.path)),
                    Command(("mount", "--bind", f"/proc/{one.pid}/ns/net", file.path)),
                ),
                lasts="until-boot",
            ),
            hits=(Effect(f"what Docker changes in the network of {one.name} is changed elsewhere"),),
            works=(Effect(f"{one.name} runs on, with the network that it has"),),
        )
