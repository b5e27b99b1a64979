"""What stands between dockerd and a container's processes: its pid, its shim, its first process."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import plural
from doctor.facts.cgroups import Inits, Signals
from doctor.facts.clock import Clock
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.processes import Process, Processes
from doctor.facts.sandboxes import Sandboxes
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
    Unknown,
    Yield,
)
from doctor.registry import check

AFTER = 2.0
"""Seconds by which a process must be younger than the container's start to be another one: clocks are not that exact."""

MANY = 5
"""Zombies of one parent: fewer are children that are just being waited for."""

NAMESPACE = "moby"
"""dockerd's namespace in containerd; Kubernetes (k8s.io) and nerdctl (default) have others, and containers of their own."""


def _shims(processes: Processes) -> dict[str, Process]:
    """Give the shims of dockerd's containers by container id; a name in /proc/PID/comm has 15 characters."""
    shims = (one for one in processes.by_pid.values() if one.name.startswith("containerd-shim"))
    return {one.told("-id"): one for one in shims if one.told("-namespace") == NAMESPACE and one.told("-id")}


def _awake(processes: Processes, daemon: Daemon, lifecycle: Lifecycle, ended: Container) -> Remedy:
    """Give the cure of a dockerd that missed an end: a stopped containerd goes on, else dockerd reads all anew.

    The container is down already: nobody who runs is stopped by letting containerd go on.
    """
    containerd = processes.by_pid.get(daemon.containerd)
    if containerd is not None and containerd.state == "T":
        return Remedy(
            "let containerd go on, which a signal has stopped; dockerd then learns of the end",
            (Command(("kill", "-CONT", str(containerd.pid))), Command(("docker", "wait", ended.engine_name))),
            risk="disruptive",
            stops=(ended.name,),
            stays_down=(ended.name,) if ended.stays_down else (),
        )
    return lifecycle.remedy("let dockerd read anew what runs")


@check(
    "NSP001",
    Severity.ERROR,
    says=("cannot stop container: ... tried to kill container, but did not receive an exit event",),
)
def process_gone(containers: Containers, processes: Processes, daemon: Daemon, lifecycle: Lifecycle) -> Iterator[Yield]:
    """A container runs for Docker, and its process is gone or in the host's network.

    ## What it is
    dockerd knows the pid of a container's first process, and learns from containerd when that
    one ends. Whoever misses the event (a stopped or killed containerd) believes it still runs.
    ## What you see
    Up in docker ps, yet nothing answers; docker exec and docker stop hang, or fail with "no such
    process"; its restart policy does nothing.
    ## By hand
    docker inspect -f '{{.State.Pid}} {{.State.Status}}' NAME
    ps -o pid,stat,args -C containerd
    ## Cure
    Let a stopped containerd go on; else restart Docker, which asks containerd for all tasks.
    ## Looks like
    NSP013 (its pid is there, and another process), NSP007 (its shim is gone)
    ## Limits
    Needs the API: what the disk says of a dead dockerd's containers is as old as that.
    ## References
    moby daemon/monitor.go, containerd runtime v2 README
    """
    if containers.source != "API" or not containers.running:
        yield NotApplicable("no container of which dockerd says that it runs")
        return
    host = processes.by_pid.get(daemon.pid)
    own = host.namespaces.get("net", "") if host else ""
    for one in containers.running:
        process = processes.by_pid.get(one.pid)
        if process is None or process.state in {"Z", "X"}:
            what = "is gone" if process is None else "has ended"
            yield Finding(
                subject=one.name,
                scope=one.scope,
                title=f"{one.name} runs for Docker, and its process {what}",
                message=f"dockerd says that {one.name} runs with pid {one.pid}; the process {what}",
                evidence=(
                    one.cited,
                    Citation("proc/processes", 0, f"no process {one.pid} that lives", f"/proc/{one.pid}"),
                ),
                remedy=_awake(processes, daemon, lifecycle, one),
                hits=(Effect(f"{one.name} is down, and nobody starts it again"),),
                excluded=(Excluded("NSP013", f"no other process has pid {one.pid}"),),
            )
        elif _in_hosts(one, process, own):
            yield Finding(
                subject=f"{one.name}:net",
                scope=one.scope,
                title=f"{one.name} is in the host's network, and should not be",
                message=f"process {one.pid} of {one.name} is in {own}, dockerd's; its network mode is {one.network_mode}",
                evidence=(process.cite(own), one.cited),
                remedy=Remedy(
                    "start it in its own namespace",
                    (Command(("docker", "restart", one.engine_name)),),
                    risk="disruptive",
                    stops=(one.name,),
                ),
                hits=(Effect(f"{one.name} sees and can use every address and port of the host"),),
            )


def _in_hosts(one: Container, process: Process, own: str) -> bool:
    """Whether the process is where dockerd is although its container is neither of the host's nor another's network."""
    shared = one.network_mode == "host" or one.network_mode.startswith(("container:", "ns:"))
    return bool(own) and not shared and process.container == one.id and process.namespaces.get("net") == own


@check("NSP013", Severity.ERROR)
def pid_reused(containers: Containers, processes: Processes, daemon: Daemon, lifecycle: Lifecycle) -> Iterator[Yield]:
    """The pid that Docker has for a container is another process by now.

    ## What it is
    Pids are used again. When dockerd missed the end of a container, the kernel may give its pid
    to any process, which then stands in State.Pid.
    ## What you see
    Up in docker ps; nsenter, monitoring and scripts that use State.Pid enter, measure or kill a
    stranger.
    ## By hand
    docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' NAME
    ps -o pid,lstart,args -p PID
    cat /proc/PID/cgroup
    ## Cure
    Let a stopped containerd go on, or restart Docker: dockerd learns that the container ended.
    ## Looks like
    NSP001 (the pid is free)
    ## Limits
    A process as old as the container's start, but in another cgroup, is no finding: runtimes that
    are virtual machines have that.
    ## References
    proc_sys_kernel(5) pid_max, moby daemon/monitor.go
    """
    if containers.source != "API" or not containers.running:
        yield NotApplicable("no container of which dockerd says that it runs")
        return
    for one in containers.running:
        process = processes.by_pid.get(one.pid)
        if process is None or process.container == one.id or not process.started or not one.started:
            continue
        later = process.started - one.started
        if later < AFTER or processes.inside(one.id):
            continue
        yield Finding(
            subject=one.name,
            scope=one.scope,
            title=f"the pid of {one.name} belongs to another process",
            message=f"dockerd says that {one.name} runs with pid {one.pid}; that process started {later:.0f} s later and is"
            " in no container",
            evidence=(one.cited, process.cite(f"{one.pid} ({process.name}), no cgroup of {one.id[:12]}")),
            remedy=_awake(processes, daemon, lifecycle, one),
            hits=(
                Effect(f"{one.name} is down, and nobody starts it again"),
                Effect(f"whoever enters or kills pid {one.pid} meets a stranger"),
            ),
            excluded=(Excluded("NSP001", f"pid {one.pid} is in use"),),
        )


@check(
    "NSP007",
    Severity.WARNING,
    says=("task ... already exists: unknown",),
)
def shim_orphaned(
    containers: Containers, processes: Processes, sandboxes: Sandboxes | None, daemon: Daemon
) -> Iterator[Yield]:
    """A shim runs for a container that Docker does not know, or a container runs without its shim.

    ## What it is
    Each container has a containerd-shim: parent of its first process, holder of its output. It
    outlives dockerd and containerd, so either can be lost while the other stays.
    ## What you see
    Processes, ports and mounts of a container that docker ps -a does not list; or docker exec,
    logs and stop that hang for one that it does.
    ## By hand
    ps -eo pid,ppid,args -C containerd-shim-runc-v2
    ctr --address /run/containerd/containerd.sock --namespace moby tasks list
    ## Cure
    Unknown to Docker: delete its task, which kills its processes. Without shim: let containerd
    see it, or restart the container.
    ## Looks like
    NSP001 (the process is gone), NSP002 (a sandbox without a container)
    ## Limits
    Shims of other namespaces (Kubernetes, nerdctl) are not Docker's. Without the API the
    directories of the containers count as known.
    ## References
    containerd runtime v2 README, ctr(8), moby issues 35910 and 40145
    """
    if not containers.complete:
        yield Unknown("containers", "a container could not be read: its shim would seem unknown")
        return
    shims = _shims(processes)
    if not shims and not containers.running:
        yield NotApplicable("no container runs")
        return
    known = {one.id for one in (*containers.all, *containers.changing)} | containers.unsettled_ids
    for identity, shim in shims.items():
        if identity not in known and shim.pid in processes.lasting:
            yield _unknown_to_docker(identity, shim, processes, sandboxes)
    for one in containers.running:
        process = processes.by_pid.get(one.pid)
        if process is None or process.container != one.id or one.id in shims or not _adopted(processes, process):
            continue
        yield _without_shim(one, process, processes, daemon)


def _adopted(processes: Processes, process: Process) -> bool:
    """Whether the process has no living parent of its runtime: init adopted it."""
    parent = processes.by_pid.get(process.parent)
    return parent is None or parent.pid == 1 or not parent.name.startswith(("containerd", "conmon", "docker"))


def _unknown_to_docker(identity: str, shim: Process, processes: Processes, sandboxes: Sandboxes | None) -> Finding:
    inside = processes.inside(identity)
    address = shim.told("-address") or "/run/containerd/containerd.sock"
    ctr = ("ctr", "--address", address, "--namespace", NAMESPACE)
    steps: list[Step] = [
        Command((*ctr, "tasks", "delete", "--force", identity)),
        Command((*ctr, "containers", "delete", identity)),
    ]
    spaces = {one.net for one in inside}
    for file in sandboxes.all if sandboxes else ():
        if file.inode and file.inode in spaces:
            steps += [Command(("umount", file.path)), Command(("rm", file.path))]
    many = f"{plural(len(inside), 'process', 'processes')} {'runs' if len(inside) == 1 else 'run'}"
    return Finding(
        subject=identity[:12],
        title=f"container {identity[:12]} runs, and Docker does not know it",
        message=f"shim {shim.pid} serves container {identity[:12]}, which Docker does not list; {many} in it",
        evidence=(shim.cite(" ".join(shim.argv)), *(one.cite(f"{one.pid} ({one.name})") for one in inside[:3])),
        remedy=Remedy("end what Docker does not know", tuple(steps), risk="disruptive"),
        hits=(Effect("it holds its ports, volumes and memory; docker cannot stop it"),),
        excluded=(Excluded("NSP002", "processes live in its namespace"),) if inside else (),
    )


def _without_shim(one: Container, process: Process, processes: Processes, daemon: Daemon) -> Finding:
    containerd = processes.by_pid.get(daemon.containerd)
    if containerd is not None and containerd.state == "T":
        remedy = Remedy(
            "let containerd go on, which a signal has stopped: it ends what has lost its shim",
            (Command(("kill", "-CONT", str(containerd.pid))), Command(("docker", "wait", one.engine_name))),
            risk="disruptive",
            stops=(one.name,),
            stays_down=(one.name,) if one.stays_down else (),
        )
    else:
        remedy = Remedy(
            "start it again, with a shim",
            (Command(("docker", "restart", one.engine_name)),),
            risk="disruptive",
            stops=(one.name,),
        )
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=f"{one.name} has lost its shim",
        message=f"{one.name} runs (pid {one.pid}), and no containerd-shim serves it; its parent is {process.parent}",
        evidence=(process.cite(f"{process.pid} ({process.name}) parent {process.parent}"), one.cited),
        remedy=remedy,
        severity=Severity.ERROR,
        hits=(Effect(f"docker exec, stop and logs of {one.name} hang; nobody sees its end"),),
        works=(Effect(f"the processes of {one.name}"),),
        excluded=(Excluded("NSP001", f"process {one.pid} lives"),),
    )


@check("NSP008", Severity.WARNING)
def zombies_not_reaped(containers: Containers, processes: Processes) -> Iterator[Yield]:
    """A process of a container does not reap its children: they stay as zombies.

    ## What it is
    A child that ended stays as a zombie until its parent waits for it. Orphans become children
    of the container's first process, which often is a program that waits for none.
    ## What you see
    <defunct> in ps; docker top grows; in the end "fork: Resource temporarily unavailable",
    when pids.max or the kernel's pid_max is reached.
    ## By hand
    ps -eo pid,ppid,stat,args
    docker top NAME -o pid,ppid,stat,args
    ## Cure
    Restart the container; for good, let an init reap: docker run --init, or init: true in
    Compose, or mend the program.
    ## Looks like
    CGR006 (living processes fill pids.max)
    ## Limits
    Fewer than five of one parent are no finding, nor is one that was reaped while doctor looked.
    ## References
    wait(2), pid_namespaces(7), docker-run(1) --init
    """
    if not containers.running:
        yield NotApplicable("no container runs")
        return
    owners = {one.id: one for one in containers.running}
    held: dict[int, list[Process]] = {}
    for process in processes.by_pid.values():
        if process.state == "Z" and process.pid in processes.lasting:
            held.setdefault(process.parent, []).append(process)
    for parent, dead in sorted(held.items()):
        waiting = processes.by_pid.get(parent)
        owner = owners.get(waiting.container) if waiting else None
        if waiting is None or owner is None or len(dead) < MANY:
            continue
        first = f"its first process, {waiting.name}," if parent == owner.pid else f"process {parent} ({waiting.name})"
        yield Finding(
            subject=f"{owner.name}:{waiting.name}",
            scope=owner.scope,
            title=f"{len(dead)} zombies in {owner.name}",
            message=f"{len(dead)} children of {first} have ended and are not waited for",
            evidence=(
                dead[0].cite(f"{dead[0].pid} ({dead[0].name}) Z, parent {parent}"),
                waiting.cite(f"{parent} ({waiting.name}) {waiting.state}"),
            ),
            remedy=Remedy(
                "restart it: its zombies go with it",
                (Command(("docker", "restart", owner.engine_name)),),
                risk="disruptive",
                stops=(owner.name,),
                for_good=(Note(f"make {owner.name} anew with docker run --init, or init: true in Compose"),),
            ),
            hits=(Effect(f"each holds a pid; when they are used up, {owner.name} can start no process"),),
            works=(Effect(f"{owner.name}, until then"),),
        )


_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15, "STOP": 19}
_SIGNALS |= {"WINCH": 28, "PWR": 30, "RTMIN": 34, "RTMAX": 64}


def signal_number(text: str) -> int:
    """Read a signal as Docker takes it, `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; 0 for what is none that is known.

    >>> [signal_number(text) for text in ("SIGTERM", "15", "RTMIN+3", "SIGFOO")]
    [15, 15, 37, 0]
    """
    plain = text.upper().removeprefix("SIG")
    if plain.isdecimal():
        return int(plain)
    name, plus, more = plain.partition("+")
    if plus and more.isdecimal() and name in _SIGNALS:
        return _SIGNALS[name] + int(more)
    return _SIGNALS.get(plain, 0)


@check("NSP014", Severity.INFO)
def stop_signal_ignored(containers: Containers, inits: Inits, clock: Clock) -> Iterator[Yield]:
    """The first process of a container does not take the signal that docker stop sends.

    ## What it is
    In its own pid namespace, pid 1 gets only signals that it has a handler for: one without a
    handler for SIGTERM ignores it. docker stop then waits (10 s) and kills.
    ## What you see
    docker stop takes ten seconds and ends in Exited (137); so do restarts, deployments and the
    shutdown of the host. Nothing is flushed or closed before the end.
    ## By hand
    docker exec NAME grep Sig /proc/1/status
    docker inspect -f '{{.Config.StopSignal}} {{.Path}} {{.Args}}' NAME
    ## Cure
    Handle the signal, or start the program through an init (docker run --init), or as exec form
    (CMD ["prog"]) when it is a shell that stands before it.
    ## Looks like
    NSP008 (pid 1 does not reap)
    ## Limits
    A blocked signal counts as handled: inits and Go programs fetch theirs. A process that is
    younger than two seconds may not have come to it yet.
    ## References
    pid_namespaces(7), signal(7), docker-container-stop(1)
    """
    if not containers.running:
        yield NotApplicable("no container runs")
        return
    for one in containers.running:
        held = inits.by_pid.get(one.pid)
        number = signal_number(one.stop_signal)
        if held is None or held.inside != 1 or not number or number in {9, 19} or _takes(held, number):
            continue
        if clock.collected_at - one.started < AFTER:
            continue
        yield Finding(
            subject=one.name,
            scope=one.scope,
            title=f"{one.name} does not take {one.stop_signal}: docker stop waits {one.stop_timeout} s and kills",
            message=f"{one.program or 'pid 1'} of {one.name} neither handles nor blocks {one.stop_signal} ({number})",
            evidence=(held.cited,),
            remedy=Remedy(
                "let an init take the signal",
                (Note(f"make {one.name} anew with docker run --init (init: true), or handle {one.stop_signal} in it"),),
                notes=("a shorter wait loses nothing when it never ends in time: docker run --stop-timeout 1",),
            ),
        )


def _takes(held: Signals, number: int) -> bool:
    return bool((held.caught | held.blocked) >> (number - 1) & 1)
