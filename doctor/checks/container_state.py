"""Containers that die: in a loop, killed for memory, crashed, given up, or not started at all; and lost files of theirs."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import plural
from doctor.checks._ends import KILLED, RECENT, again, down, loops, names_program
from doctor.checks._not_started import (
    NETWORK_GONE,
    STATE_LEFT,
    network_gone,
    network_of_nobody,
    not_started,
    orphan,
    state_left,
)
from doctor.checks.cgroups import more_memory
from doctor.facts.cgroups import Cgroups
from doctor.facts.clock import Clock
from doctor.facts.containerfiles import ContainerFiles, Damaged
from doctor.facts.containers import Container, Containers
from doctor.facts.networks import Networks
from doctor.model import (
    Citation,
    Command,
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
from doctor.registry import check

CRASHES = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 139: "SIGSEGV"}
"""Exit codes of a process that a fault of its own ended: 128 and the signal's number."""


def _ran(one: Container) -> str:
    return f"{max(one.finished - one.started, 0):.1f} s"


def _logs(one: Container) -> Command:
    return Command(("docker", "logs", "--tail", "50", one.engine_name))


@check(
    "CTR001",
    Severity.ERROR,
    says=(
        "joining network namespace of container: No such container",
        "container with given ID already exists",
        "iptables failed: ... fork/exec",
        "error setting rlimit type ...: invalid argument",
        "failed to set up container networking: network ... not found",
    ),
)
def container_dies(
    containers: Containers, cgroups: Cgroups | None, clock: Clock, networks: Networks | None
) -> Iterator[Yield]:
    """A container restarts again and again, was killed for memory, crashed, or did not start.

    ## What it is
    dockerd keeps how a container ended: exit code, whether the kernel killed it for memory
    (OOMKilled), how often the restart policy started it anew, why a start failed.
    ## What you see
    Restarting (N) in docker ps; Exited (137) after OOM, (139) after SIGSEGV; a container that
    is up for a few seconds each time one looks; Created, and never up.
    ## By hand
    docker ps -a --format '{{.Names}} {{.Status}}'
    docker inspect -f '{{.RestartCount}} {{json .State}}' NAME
    ## Cure
    Of a loop and a crash: its last lines say why (docker logs). Killed for memory: more of it,
    which docker update gives without a stop. Not started: what the error names; one that shares
    the network of a removed container has to be made anew, and one whose own network was removed
    is connected to the new one of that name (docker network disconnect -f, connect).
    ## Looks like
    CTR005 (its program cannot be run), CTR002 (it runs, and fails its health check)
    ## Limits
    Exited (137) alone is no finding: docker stop leaves it too. An end more than a day ago
    is a note. The output of containers is not read. Where a start failed at a port, a network or
    a layer, and a check of those says why, that is the cause.
    ## References
    docker-run(1) exit status, moby restartmanager, signal(7), proc_pid_oom_score(5)
    """
    if not containers.all and not containers.changing:
        yield NotApplicable("no container here")
        return
    now = clock.collected_at
    for one in containers.changing:
        if loops(one, now):
            yield _loop(one)
    for one in containers.all:
        group = cgroups.by_container.get(one.id) if cgroups else None
        if loops(one, now):
            yield _loop(one)
        elif one.running:
            killed = group.figures.get("memory.oom_kill") if group else None
            lately = group.moved.get("memory.oom_kill") if group else None
            times = max((held.value for held in (killed, lately) if held is not None), default=0)
            if group is not None and killed is not None and times > 0:
                cited = (killed.cited, *group.growth("memory.oom_kill"))
                yield _child_killed(one, times, group.value("memory.max"), group.grew("memory.oom_kill"), cited)
        elif one.status != "restarting":
            yield from _ended(one, now, containers, networks)


def _ended(one: Container, now: float, containers: Containers, networks: Networks | None) -> Iterator[Finding]:
    recent = now - one.finished < RECENT
    gone = NETWORK_GONE.search(one.asked.error)
    if gone:
        yield network_gone(one, gone[1], networks)
    elif one.asked.error and network_of_nobody(one, containers):
        yield orphan(one)
    elif one.asked.error and STATE_LEFT in one.asked.error:
        yield state_left(one)
    elif one.asked.error and one.status != "dead" and not names_program(one):
        yield not_started(one)
    elif one.oom_killed and one.exit_code == KILLED:
        yield _killed(one, recent=recent)
    elif one.retries and one.restarts >= one.retries and one.exit_code and one.policy == "on-failure":
        yield _gave_up(one, recent=recent)
    elif one.exit_code in CRASHES:
        yield _crashed(one, recent=recent)


def _loop(one: Container) -> Finding:
    code = f"exit {one.exit_code}" if one.status == "restarting" else "it has just started once more"
    why = "killed for memory" if one.oom_killed and one.exit_code == KILLED else code
    steps: tuple[Step, ...] = (_logs(one), Note("mend what its last lines name; it then comes up by itself"))
    if one.oom_killed and one.memory:
        steps = (more_memory(one, one.memory),)
    return down(
        one,
        f"{one.name} restarts again and again",
        f"{one.name} was restarted {one.restarts} times by its policy {one.policy}: {why}; its last run took {_ran(one)}",
        f"RestartCount {one.restarts}, Status {one.status}, ExitCode {one.exit_code}",
        Remedy("find out why it ends", steps, notes=(f"to end the loop meanwhile: docker stop {one.engine_name}",)),
        hits="is down most of the time",
    )


def _killed(one: Container, *, recent: bool) -> Finding:
    limit = f"its limit is {one.memory:,} bytes" if one.memory else "it has no limit: the host itself ran out"
    first: Step = more_memory(one, one.memory) if one.memory else Note("see what else takes the host's memory")
    return down(
        one,
        f"{one.name} was killed for memory",
        f"the kernel killed the first process of {one.name} for memory after {_ran(one)}; {limit}",
        f"OOMKilled true, ExitCode {one.exit_code}, Memory {one.memory}",
        Remedy("give it more memory", (first, again(one))),
        severity=Severity.ERROR if recent else Severity.INFO,
        dated=True,
    )


def _child_killed(one: Container, times: int, limit: int, grew: str, cited: tuple[Citation, ...]) -> Finding:
    back = Command(("docker", "restart", one.engine_name))
    first: tuple[Step, ...] = (more_memory(one, one.memory),) if one.memory else ()
    said = f"its limit is {limit:,} bytes" if limit else "it has no limit of its own"
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=f"{one.name} lost {plural(times, 'process', 'processes')} to the OOM killer, and runs on",
        message=f"since {one.name} started, the kernel killed {times} of its processes for memory{grew}; {said}",
        evidence=(*cited, one.cite(f"Memory {one.memory}, Pid {one.pid}")),
        remedy=Remedy(
            "give it more memory, and start all of it again",
            (*first, back),
            risk="disruptive",
            stops=(one.name,),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"{one.name} runs without what was killed"),),
        works=(Effect(f"the first process of {one.name}"),),
    )


def _crashed(one: Container, *, recent: bool) -> Finding:
    signal = CRASHES[one.exit_code]
    return down(
        one,
        f"{one.name} crashed with {signal}",
        f"the first process of {one.name} ended with exit code {one.exit_code} ({signal}) after {_ran(one)}",
        f"ExitCode {one.exit_code}, OOMKilled {str(one.oom_killed).lower()}",
        Remedy("see its last lines, start it again", (_logs(one), again(one))),
        severity=Severity.WARNING if recent else Severity.INFO,
        dated=True,
    )


def _gave_up(one: Container, *, recent: bool) -> Finding:
    return down(
        one,
        f"{one.name} failed {one.restarts + 1} times, and is not tried again",
        f"{one.name} ended with exit code {one.exit_code} {one.restarts + 1} times; its policy on-failure allows"
        f" {one.retries} restarts",
        f"RestartCount {one.restarts}, ExitCode {one.exit_code}",
        Remedy("see its last lines, start it again", (_logs(one), again(one))),
        severity=Severity.ERROR if recent else Severity.INFO,
        dated=True,
    )


@check("CTR003", Severity.ERROR, blocks_start=True)
def container_files_damaged(files: ContainerFiles, containers: Containers) -> Iterator[Yield]:
    """A container's config.v2.json or hostconfig.json is damaged.

    ## What it is
    dockerd keeps each container in two JSON files below its data directory. At a start it reads
    them; a container whose files do not parse does not exist for it.
    ## What you see
    After a crash or a full disk, and a start of dockerd, a container is missing in docker ps -a;
    the log says "failed to load container". Its layer, volumes and name on disk are there.
    ## By hand
    python3 -m json.tool /var/lib/docker/containers/ID/config.v2.json
    ## Cure
    Put the file back from a backup and restart Docker, or make the container anew from its
    Compose file.
    ## Looks like
    DMN001 (it is daemon.json that does not parse)
    ## Limits
    Of containers that dockerd lists and inspects the files are not read: it has them in memory,
    and docker update, for one, writes them anew.
    ## References
    moby container/container.go (FromDisk, toDisk), docker-container-update(1)
    """
    if not files.judged:
        yield NotApplicable("no container has files here")
        return
    for identity, why in files.unread.items():
        yield Unknown(identity[:12], why)
    by_id = {one.id: one for one in containers.all}
    for file in files.damaged:
        if file.container in containers.unsettled_ids:
            continue
        yield _damaged(file, by_id.get(file.container))


def _damaged(file: Damaged, one: Container | None) -> Finding:
    name = one.name if one else file.container[:12]
    member = file.path.rpartition("/")[2]
    return Finding(
        subject=f"{name}:{member}",
        scope=f"container {name}",
        title=f"{member} of {name} is damaged",
        message=f"{file.path} {file.why}",
        evidence=(file.cited,),
        remedy=Remedy("put it back", (Note(f"put {file.path} back from a backup, then start dockerd again"),)),
        hits=(Effect(f"Docker has no {name}"),),
    )
