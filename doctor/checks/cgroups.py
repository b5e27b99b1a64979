"""The control groups: which version, what they can limit, whether containers are in theirs, and how near a limit they are."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import plural
from doctor.facts.cgroups import Cgroups, EngineInfo, Group, Hierarchies
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.processes import Processes
from doctor.model import (
    Citation,
    Command,
    Effect,
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

NEAR = 0.9
"""Share of a limit from which on it will be met."""

FEW = 10
"""Periods (a second) of a sample from which on the share of those in which it waited means something."""

THROTTLED, PERIODS = 0.5, 600
"""Share of periods in which a container had to wait, and the periods (a minute) from which on the share means something."""

_LIMITS = {
    "MemoryLimit": ("memory", "memory limits"),
    "PidsLimit": ("pids", "limits of processes"),
    "CpuCfsQuota": ("cpu", "limits of processor time"),
    "CPUShares": ("cpu", "shares of processor time"),
    "CPUSet": ("cpuset", "sets of processors"),
}
"""What dockerd cannot set, by its name in docker info: the controller that is missing, and that in words."""


@check("CGR001", Severity.INFO)
def cgroup_version_1(info: EngineInfo | None, hierarchies: Hierarchies, daemon: Daemon) -> Iterator[Yield]:
    """The host uses control groups of version 1.

    ## What it is
    Version 1 has a tree for each controller, version 2 one for all. systemd, runc and Docker
    (from 29 on) call version 1 deprecated; a hybrid host mounts both, and Docker uses the first.
    ## What you see
    Nothing yet. No memory pressure figures, no memory.high, no rootless limits; a later systemd
    or engine does not start on it any more.
    ## By hand
    docker info -f '{{.CgroupVersion}} {{.CgroupDriver}}'
    stat -f -c %T /sys/fs/cgroup
    ## Cure
    Boot with systemd.unified_cgroup_hierarchy=1; needs Linux 4.15 and Docker 20.10.
    ## Looks like
    CGR002 (a controller is missing)
    ## Limits
    A note: all limits work with version 1.
    ## References
    cgroups(7), kernel Documentation/admin-guide/cgroup-v2.rst, docker docs deprecated features
    """
    if not hierarchies.kind:
        yield NotApplicable("no control groups are mounted")
        return
    version = info.version if info and info.version else "2" if hierarchies.kind == "v2" else "1"
    if version == "2" or not hierarchies.controllers:
        return
    first = next(iter(hierarchies.controllers.values()))
    mixed = " (hybrid: version 2 is mounted beside it)" if hierarchies.kind == "hybrid" else ""
    yield Finding(
        subject="cgroup",
        title="control groups of version 1 are in use",
        message=f"{len(hierarchies.controllers)} controllers are mounted as version 1{mixed}",
        evidence=(first, *((info.cited,) if info and info.version else ())),
        remedy=Remedy(
            "boot with version 2",
            (Note("add systemd.unified_cgroup_hierarchy=1 to the kernel's command line, and boot"),),
            risk="disruptive",
            restarts="host",
            notes=("a dockerd before 20.10 does not run on version 2",) if daemon.generation < (20, 10) else (),
        ),
    )


@check(
    "CGR002",
    Severity.WARNING,
    says=(
        "cgroup mountpoint does not exist",
        "Devices cgroup isn't mounted",
    ),
)
def controllers_missing(
    info: EngineInfo, hierarchies: Hierarchies | None, containers: Containers, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """Docker cannot set a limit here: the controller that it needs is not there.

    ## What it is
    A limit is a file of a controller: memory, pids, cpu, cpuset. One that is not mounted, not
    enabled by the kernel or not delegated is left out: Docker warns once, and starts without.
    ## What you see
    "Your kernel does not support memory limit capabilities or the cgroup is not mounted.
    Limitation discarded."; WARNING: No ... support in docker info; limits that do nothing.
    ## By hand
    docker info
    cat /proc/cgroups
    cat /sys/fs/cgroup/cgroup.controllers
    ## Cure
    Mount the controller and restart Docker; on a Raspberry Pi and some clouds the kernel's
    command line enables it (cgroup_enable=memory). Containers made meanwhile have no limit.
    ## Looks like
    CGR005 (one container is not in its group)
    ## Limits
    Needs the API. Swap, I/O and realtime are not judged: many kernels are built without.
    ## References
    cgroups(7), moby pkg/sysinfo, dockerd(8)
    """
    if not info.version:
        yield NotApplicable("this dockerd does not say what it can limit")
        return
    missing: dict[str, list[str]] = {}
    for name in info.cannot:
        controller, words = _LIMITS[name]
        missing.setdefault(controller, []).append(words)
    asking = tuple(one.name for one in containers.running if one.memory or one.pids_limit)
    for controller, spoken in missing.items():
        what = " and ".join(spoken)
        steps, why = _mounting(controller, info.version, hierarchies)
        words = f"let Docker have the controller {controller}"
        boot = Remedy(words, steps, risk="disruptive", restarts="host")
        remedy = boot if info.version == "2" else lifecycle.remedy(words, *steps)
        evidence = [Citation(info.cited.record, info.cited.line, f"no {what}", info.cited.place)]
        if hierarchies and hierarchies.unified and info.version == "2":
            evidence.append(hierarchies.unified)
        yield Finding(
            subject=controller,
            title=f"Docker can set no {what} here",
            message=f"the controller {controller} is {why}: {what} of containers are discarded",
            evidence=tuple(evidence),
            remedy=remedy,
            hits=(Effect(f"a container may use all the {controller} of the host", asking),),
            works=(Effect("containers start, and run without that limit"),),
        )


def _mounting(controller: str, version: str, hierarchies: Hierarchies | None) -> tuple[tuple[Step, ...], str]:
    """Give the steps that bring a controller back, and why it is missing."""
    if version == "2":
        text = f"boot with the controller {controller} free of version 1 and enabled (cgroup_no_v1=, cgroup_enable=)"
        return (Note(text),), "not delegated"
    if hierarchies is not None and controller in hierarchies.controllers:
        return (), "mounted by now, and was not when dockerd started"
    folder = f"/sys/fs/cgroup/{controller}"
    return (
        Command(("mkdir", "-p", folder)),
        Command(("mount", "-t", "cgroup", "-o", controller, "cgroup", folder)),
    ), "not mounted"


@check("CGR003", Severity.INFO)
def driver_not_systemd(info: EngineInfo, daemon: Daemon) -> Iterator[Yield]:
    """Systemd manages the control groups, and Docker makes its own beside it.

    ## What it is
    With the driver systemd, dockerd asks systemd for a scope for each container; with cgroupfs it
    makes folders itself. Two managers of one tree do not know of each other.
    ## What you see
    A kubelet that refuses ("kubelet cgroup driver: systemd is different from docker cgroup
    driver: cgroupfs"); on version 2, limits that systemd resets when it reloads.
    ## By hand
    docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}'
    ps -p 1 -o comm=
    ## Cure
    exec-opts native.cgroupdriver=systemd in daemon.json, then restart Docker; containers that
    exist keep their driver until they are made anew.
    ## Looks like
    CGR001 (version 1), CGR005 (a container is not in its group)
    ## Limits
    On version 1 cgroupfs is Docker's default, and a note; on version 2 somebody chose it.
    ## References
    dockerd(8) --exec-opt, systemd CGROUP_DELEGATION, docker docs runmetrics
    """
    if daemon.supervisor != "systemd" or not info.driver:
        yield NotApplicable("systemd does not start Docker here")
        return
    if info.driver != "cgroupfs":
        return
    yield Finding(
        subject="cgroupfs",
        title="Docker makes control groups beside systemd",
        message=f"dockerd uses the driver cgroupfs, version {info.version or 'unknown'}, on a host of systemd",
        evidence=(info.cited,),
        remedy=Remedy(
            "let systemd make them",
            (Note('set "exec-opts": ["native.cgroupdriver=systemd"] in daemon.json, then restart Docker'),),
            restarts="dockerd",
        ),
        severity=Severity.WARNING if info.version == "2" else Severity.INFO,
    )


@check("CGR005", Severity.WARNING)
def cgroup_path_wrong(cgroups: Cgroups, containers: Containers, processes: Processes) -> Iterator[Yield]:
    """A container's process is outside of its control group, or a group is left without a container.

    ## What it is
    A limit holds for the processes in a group. A process that somebody moved out (another manager,
    a script that writes cgroup.procs) has none; a group without processes is a leftover.
    ## What you see
    docker stats shows 0 for the container, its limits do nothing; thousands of empty groups slow
    down the kernel and whoever lists them.
    ## By hand
    cat /proc/PID/cgroup
    ls -d /sys/fs/cgroup/*/docker/*
    ## Cure
    Write the pid into the group's cgroup.procs: nothing stops. Remove an empty group with rmdir.
    ## Looks like
    CGR002 (the controller is missing for all)
    ## Limits
    Only the first process of each container is looked at, and groups below docker/ and
    system.slice.
    ## References
    cgroups(7), runc libcontainer/cgroups, moby issue 29638
    """
    if not cgroups.by_container and not cgroups.empty:
        yield NotApplicable("no container has a control group here")
        return
    by_id = {one.id: one for one in containers.all}
    for group in cgroups.by_container.values():
        one = by_id.get(group.container)
        if one is not None and one.running:
            for hierarchy, cited in group.outside.items():
                yield _outside(one, hierarchy, cited, processes)
    if containers.source != "API":
        return
    leaked: dict[str, list[tuple[str, Citation]]] = {}
    for held in cgroups.empty:
        one = by_id.get(held.container)
        if held.container in containers.unsettled_ids or (
            one is not None and (one.running or one.status == "restarting")
        ):
            continue
        leaked.setdefault(held.container, []).append((held.path, held.cited))
    for identity, found in leaked.items():
        yield Finding(
            subject=identity[:12],
            title=f"{plural(len(found), 'control group')} of {identity[:12]} left behind",
            message=f"{found[0][0]} bears the id of a container that does not run, and holds no process",
            evidence=tuple(cited for _, cited in found[:3]),
            remedy=Remedy("remove it", tuple(Command(("rmdir", path)) for path, _ in found)),
            hits=(Effect("memory that was charged to it stays charged; each makes statistics slower"),),
        )


def _outside(one: Container, hierarchy: str, cited: Citation, processes: Processes) -> Finding:
    procs = f"/sys/fs/cgroup/{hierarchy}/docker/{one.id}/cgroup.procs"
    process = processes.by_pid.get(one.pid)
    others = process.cgroup.split("\n") if process else []
    for line in others:
        if one.id in line:  # where its groups of other controllers are, this one's is too
            procs = f"/sys/fs/cgroup/{hierarchy}{line.partition(':')[2].partition(':')[2]}/cgroup.procs"
            break
    return Finding(
        subject=f"{one.name}:{hierarchy}",
        scope=one.scope,
        title=f"{one.name} is outside of its {hierarchy} group",
        message=f"process {one.pid} of {one.name} is in {cited.place}: limits of {hierarchy} do not hold for it",
        evidence=(cited, one.cited),
        remedy=Remedy(
            "put its processes back",
            tuple(
                Command(("tee", procs), stdin=f"{pid}\n")
                for pid in sorted(other.pid for other in processes.inside(one.id))
            ),
        ),
        hits=(Effect(f"{one.name} may use all the {hierarchy} of the host"),),
        works=(Effect(f"{one.name} runs on"),),
    )


@check("CGR006", Severity.WARNING)
def near_limit(cgroups: Cgroups, containers: Containers) -> Iterator[Yield]:
    """A container is near its limit of memory or processes, or waits for its processor time.

    ## What it is
    memory.max, pids.max and cpu.max are what a container may use. At the first the kernel kills,
    at the second fork fails with EAGAIN, at the third everything waits for the next period.
    ## What you see
    Exited (137); "fork: retry: Resource temporarily unavailable", "can't start new thread"; slow
    answers while the host is idle.
    ## By hand
    docker stats --no-stream
    docker update --help
    ## Cure
    docker update gives more while it runs: --memory, --pids-limit, --cpus. Nothing stops.
    ## Looks like
    CTR001 (the kernel has killed already), NSP008 (zombies fill pids.max)
    ## Limits
    Of memory, what the kernel can drop (inactive page cache) does not count. Waiting for
    processor time in more than half of all periods is a note: it is what a limit is for.
    With --sample 5s what is refused, and waited for, within that time is told as well.
    ## References
    kernel Documentation/admin-guide/cgroup-v2.rst, docker-container-update(1)
    """
    limited = False
    for one in containers.running:
        group = cgroups.by_container.get(one.id)
        if group is None:
            continue
        limited = limited or bool({"memory.max", "pids.max", "cpu.quota"} & set(group.figures))
        yield from _memory(one, group)
        yield from _pids(one, group)
        yield from _cpu(one, group)
    if not limited:
        yield NotApplicable("no running container has a limit")


def _memory(one: Container, group: Group) -> Iterator[Finding]:
    limit, used = group.value("memory.max"), group.value("memory.current")
    kept = used - group.value("memory.inactive_file")
    if not limit or kept < NEAR * limit:
        return
    yield Finding(
        subject=f"{one.name}:memory",
        scope=one.scope,
        title=f"{one.name} uses {kept / limit:.0%} of its memory limit",
        message=f"{one.name} uses {kept:,} of {limit:,} bytes, page cache that can be dropped not counted",
        evidence=(group.figures["memory.current"].cited, group.figures["memory.max"].cited),
        remedy=Remedy(
            "give it more memory",
            (more_memory(one, limit),),
            undo=(_update(one, "--memory", str(limit), "--memory-swap", str(limit * 2)),),
        ),
        hits=(Effect(f"at the limit the kernel kills a process of {one.name}"),),
        works=(Effect(f"{one.name}, until then"),),
    )


def _update(one: Container, *words: str) -> Command:
    return Command(("docker", "update", *words, one.engine_name))


def more_memory(one: Container, limit: int) -> Command:
    """Give the step that doubles a limit of memory (bytes) while the container runs, with as much swap as before."""
    return _update(one, "--memory", str(limit * 2), "--memory-swap", str(limit * 4))


def _pids(one: Container, group: Group) -> Iterator[Finding]:
    limit, now, refused = group.value("pids.max"), group.value("pids.current"), group.figures.get("pids.refused")
    if not limit:
        return
    full = now >= NEAR * limit
    lately = group.moved.get("pids.refused")
    refuses = lately is not None and lately.value > 0
    if not full and not refuses and not (refused and refused.value and now * 2 >= limit):
        return
    times = f"; {refused.value} were refused since it started" if refused and refused.value else ""
    times += group.grew("pids.refused")
    evidence = [group.figures["pids.current"].cited, group.figures["pids.max"].cited]
    if refused and refused.value:
        evidence.append(refused.cited)
    evidence += group.growth("pids.refused")
    yield Finding(
        subject=f"{one.name}:pids",
        scope=one.scope,
        title=f"{one.name} has {now} of {limit} processes",
        message=f"{one.name} has {now} processes and threads, its limit is {limit}{times}",
        evidence=tuple(evidence),
        remedy=Remedy(
            "allow it more",
            (_update(one, "--pids-limit", str(max(limit * 4, 64))),),
            undo=(_update(one, "--pids-limit", str(limit)),),
        ),
        severity=Severity.ERROR if now >= limit or refuses else Severity.WARNING,
        hits=(
            Effect(
                f"{one.name} can start no process or thread" if now >= limit or refuses else "at the limit fork fails"
            ),
        ),
        works=(Effect(f"what runs in {one.name}"),),
        excluded=(Excluded("CTR001", "the kernel killed none of its processes"),)
        if not group.value("memory.oom_kill")
        else (),
    )


def _cpu(one: Container, group: Group) -> Iterator[Finding]:
    quota, period = group.value("cpu.quota"), group.value("cpu.period")
    periods, waited = group.value("cpu.periods"), group.value("cpu.throttled")
    lately, late = group.moved.get("cpu.periods"), group.moved.get("cpu.throttled")
    sampled = lately is not None and late is not None and lately.value >= FEW
    waits = lately is not None and late is not None and sampled and late.value >= THROTTLED * lately.value
    if not quota or not period or not (waits or (periods >= PERIODS and waited >= THROTTLED * periods)):
        return
    now = ""
    if lately is not None and late is not None:
        now = f"; in the last {group.within} in {late.value} of {lately.value}"
    yield Finding(
        subject=f"{one.name}:cpu",
        scope=one.scope,
        title=f"{one.name} waited for processor time in {waited / periods:.0%} of all periods",
        message=f"{one.name} may use {quota / period:g} processors, and had to wait in {waited} of {periods} periods"
        + now,
        evidence=(
            group.figures["cpu.throttled"].cited,
            group.figures["cpu.quota"].cited,
            *group.growth("cpu.throttled"),
        ),
        remedy=Remedy(
            "give it more processor time",
            (_update(one, "--cpus", f"{2 * quota / period:g}"),),
            undo=(_update(one, "--cpus", f"{quota / period:g}"),),
        ),
        severity=Severity.INFO,
        hits=(Effect(f"{one.name} answers late while the host may be idle"),),
    )
