"""The state of containers: those that die, do not start, fail their health check, or are stuck."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.amounts import plural
from doctor.checks.cgroups import more_memory
from doctor.facts.cgroups import Cgroups
from doctor.facts.clock import Clock
from doctor.facts.containerfiles import ContainerFiles, Damaged
from doctor.facts.containers import Container, Containers
from doctor.facts.images import Images
from doctor.facts.networks import Networks
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check

SHORT = 10.0
"""Seconds: dockerd waits twice as long after each run that was shorter, up to a minute (moby restartmanager)."""

GROWN = 3.0
"""Seconds between an end and the next start that only a wait grown by several short runs explains."""

OFTEN, BETWEEN = 5, 300.0
"""Restarts, and the mean seconds between two, from which on a container restarts again and again."""

WAITS = 600.0
"""Seconds from which on a container that was created, and not started, is worth a note."""

RECENT = 86400.0
"""Seconds: a container that died longer ago is worth a note."""

KILLED, NOT_RUNNABLE, NOT_FOUND = 137, 126, 127
CRASHES = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 139: "SIGSEGV"}
"""Exit codes of a process that a fault of its own ended: 128 and the signal's number."""

_STOOD_IN_THE_WAY = (
    (
        re.compile("networking|external connectivity|port is already allocated|network |endpoint|address pool"),
        ("DMN022", "NET003", "NET009", "NET021", "NET030", "NET037", "NET038", "NET059"),
    ),
    (
        re.compile(r"overlay mount|mount overlay|layer does not exist|overlay2/[0-9a-f]{64}(?:-init)?: no such file"),
        ("LAY001", "LAY002", "LAY003", "LAY004", "LAY006", "LAY008", "LAY024", "LAY032"),
    ),
    (re.compile("mounting volume|local volume|mount source|bind source"), ("VOL001", "VOL002")),
    (re.compile("systemd.*cgroup"), ("DMN024",)),
    (re.compile("initialize logging driver"), ("DMN010", "DMN040")),
    (re.compile("runc|runtime|docker-init|failed to start shim"), ("DMN021",)),
    (re.compile("too many open files"), ("DMN016",)),
)
"""Words of a start that failed, and the codes of what they complain about: the finding of such a code is the cause."""

_EXEC = re.compile(r'exec: "([^"]*)": (.*?)(?:: unknown)?$')


def _names_program(one: Container) -> re.Match[str] | None:
    """Find program and reason in the words of a start that failed at its program (runc, crun).

    containerd that cannot run the runtime itself quotes that program in the same words.
    """
    if "unable to retrieve OCI runtime error" in one.asked.error:
        return None
    return _EXEC.search(one.asked.error) if one.exit_code in {NOT_RUNNABLE, NOT_FOUND} else None


def ports_unanswered(one: Container) -> tuple[Effect, ...]:
    """Say on which ports of the host nobody answers while a container does not do its work."""
    ports = tuple(f"{port.host} -> {one.name}" for port in one.ports if ":" not in port.host_ip)
    return (Effect("nobody answers on", ports),) if ports else ()


def _ran(one: Container) -> str:
    return f"{max(one.finished - one.started, 0):.1f} s"


def _again(one: Container) -> Command:
    return Command(("docker", "start", one.engine_name))


def _missed(one: Container) -> Severity:
    """How grave it is that it could not be started: whether it is to run, or has run."""
    return Severity.ERROR if one.policy != "no" or one.started > 0 else Severity.WARNING


def _logs(one: Container) -> Command:
    return Command(("docker", "logs", "--tail", "50", one.engine_name))


def loops(one: Container, now: float) -> bool:
    """Whether a container restarts again and again: several short runs, or many restarts in a short life."""
    if one.policy == "no" or one.restarts < 3:  # noqa: PLR2004 - twice may be chance
        return False
    if one.status == "restarting":
        return one.finished - one.started < SHORT
    if not one.running or now - one.started > BETWEEN:
        return False
    waited = one.started - one.finished >= GROWN and now - one.started < SHORT and one.finished > 0
    return waited or (one.restarts >= OFTEN and now - one.created < one.restarts * BETWEEN)


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
    gone = _NETWORK_GONE.search(one.asked.error)
    if gone:
        yield _network_gone(one, gone[1], networks)
    elif one.asked.error and _network_of_nobody(one, containers):
        yield _orphan(one)
    elif one.asked.error and _STATE_LEFT in one.asked.error:
        yield _state_left(one)
    elif one.asked.error and one.status != "dead" and not _names_program(one):
        yield _not_started(one)
    elif one.oom_killed and one.exit_code == KILLED:
        yield _killed(one, recent=recent)
    elif one.retries and one.restarts >= one.retries and one.exit_code and one.policy == "on-failure":
        yield _gave_up(one, recent=recent)
    elif one.exit_code in CRASHES:
        yield _crashed(one, recent=recent)


def _down(
    one: Container,
    title: str,
    message: str,
    said: str,
    remedy: Remedy,
    *,
    severity: Severity = Severity.ERROR,
    hits: str = "is down",
    dated: bool = False,
    excluded: tuple[Excluded, ...] = (),
    because: tuple[str, ...] = (),
) -> Finding:
    """Tell of a container that does not do its work; `said` is what the engine says of it, `dated` whether it ended."""
    ended = Since(latest=Moment(one.finished, f"{one.name} ended"), exact=True) if dated and one.finished else None
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=title,
        message=message,
        evidence=(one.cite(said),),
        remedy=remedy,
        severity=severity,
        hits=(Effect(f"{one.name} {hits}"), *ports_unanswered(one)),
        excluded=excluded,
        because=because,
        since=ended,
    )


def _loop(one: Container) -> Finding:
    code = f"exit {one.exit_code}" if one.status == "restarting" else "it has just started once more"
    why = "killed for memory" if one.oom_killed and one.exit_code == KILLED else code
    steps: tuple[Step, ...] = (_logs(one), Note("mend what its last lines name; it then comes up by itself"))
    if one.oom_killed and one.memory:
        steps = (more_memory(one, one.memory),)
    return _down(
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
    return _down(
        one,
        f"{one.name} was killed for memory",
        f"the kernel killed the first process of {one.name} for memory after {_ran(one)}; {limit}",
        f"OOMKilled true, ExitCode {one.exit_code}, Memory {one.memory}",
        Remedy("give it more memory", (first, _again(one))),
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
    return _down(
        one,
        f"{one.name} crashed with {signal}",
        f"the first process of {one.name} ended with exit code {one.exit_code} ({signal}) after {_ran(one)}",
        f"ExitCode {one.exit_code}, OOMKilled {str(one.oom_killed).lower()}",
        Remedy("see its last lines, start it again", (_logs(one), _again(one))),
        severity=Severity.WARNING if recent else Severity.INFO,
        dated=True,
    )


def _gave_up(one: Container, *, recent: bool) -> Finding:
    return _down(
        one,
        f"{one.name} failed {one.restarts + 1} times, and is not tried again",
        f"{one.name} ended with exit code {one.exit_code} {one.restarts + 1} times; its policy on-failure allows"
        f" {one.retries} restarts",
        f"RestartCount {one.restarts}, ExitCode {one.exit_code}",
        Remedy("see its last lines, start it again", (_logs(one), _again(one))),
        severity=Severity.ERROR if recent else Severity.INFO,
        dated=True,
    )


def _network_of_nobody(one: Container, containers: Containers) -> bool:
    """Whether it shares the network of a container that was removed: it holds the id, which no other will have."""
    target = one.network_mode.removeprefix("container:")
    if target == one.network_mode or not containers.complete or containers.unsettled:
        return False
    return not any(target in {other.id, other.engine_name} for other in containers.all)


def _orphan(one: Container) -> Finding:
    target = one.network_mode.removeprefix("container:")[:12]
    return _down(
        one,
        f"{one.name} shares the network of a container that was removed: {target}",
        f"{one.name} was made with --network container:{target}, which is gone, and no start will find it;"
        f" its last one failed: {one.asked.error}",
        f"NetworkMode {one.network_mode}",
        Remedy(
            "make it anew, beside the container that took that one's place",
            (
                Note(
                    f"make {one.engine_name} anew with --network container:NAME of the one that is there now"
                    " (Compose: docker compose up -d --force-recreate); docker start will fail again"
                ),
            ),
            notes=("whenever that one is made anew (an update, a watchtower), this one has to be as well",),
        ),
        severity=_missed(one),
    )


_NETWORK_GONE = re.compile(r"network ([0-9a-f]{64}) not found")


def _network_gone(one: Container, identity: str, networks: Networks | None) -> Finding:
    """A container holds the id of a network that was removed, while it was down: one of the same name is another."""
    end = next((end for end in one.endpoints if end.network_id == identity), None)
    name = end.network if end is not None else one.network_mode
    there = networks is not None and any(held.name == name for held in networks.all)
    service = one.name.rpartition("/")[2] if one.project else ""
    options: tuple[str, ...] = ("--alias", service) if service else ()
    if end is not None and end.static:
        options += ("--ip6" if ":" in end.static[0] else "--ip", end.static[0])
    steps: tuple[Step, ...] = (
        Command(("docker", "network", "disconnect", "-f", name, one.engine_name)),
        Command(("docker", "network", "connect", *options, name, one.engine_name)),
        _again(one),
    )
    anew = f"docker network create {name}" + (", or docker compose up -d" if one.project else "")
    return _down(
        one,
        f"{one.name} could not be started: its network {name} was removed" + (", and made anew" if there else ""),
        f"{one.name} holds {identity[:12]} as its network {name}, which is gone"
        + ("; the one of that name is another" if there else "")
        + f"; its last start failed: {one.asked.error}",
        f'Error "{one.asked.error}"',
        Remedy(
            "connect it to the network that there is now, then start it",
            steps if there else (Note(f"make the network again: {anew}"), *steps),
            notes=("docker compose up -d --force-recreate does the same for a whole project",) if one.project else (),
        ),
        severity=_missed(one),
    )


def _state_left(one: Container) -> Finding:
    """A container that was killed together with its shim has left its state with runc, which makes no second one."""
    runc = ("runc", "--root", "/run/docker/runtime-runc/moby")
    return _down(
        one,
        f"{one.name} could not be started: runc still has one of that id",
        f"the last start of {one.name} failed: {one.asked.error}; what runc keeps of it outlived it",
        f'Error "{one.asked.error}"',
        Remedy(
            "let runc forget the one that is gone, then start it again",
            (Command((*runc, "delete", "--force", one.id)), _again(one)),
        ),
        severity=_missed(one),
    )


_STATE_LEFT = "container with given ID already exists"


_KNOWN = (
    (
        re.compile(r"fork/exec (?P<what>/\S*ip6?tables\S*): (?P<why>no such file or directory|permission denied)"),
        "dockerd cannot run {what}: {why}",
        (
            "install iptables again (apt-get install --reinstall iptables, dnf reinstall iptables-nft), or, where {what} is"
            " there: chmod 0755 {what}; no container of a bridge network starts before"
        ),
    ),
    (
        re.compile(r"error setting rlimit type (?P<what>\d+): invalid argument"),
        "a soft limit is above its hard limit",
        (
            "correct default-ulimits in daemon.json (Soft at most Hard), then restart Docker; or make {name} anew with"
            " another --ulimit: docker inspect -f '{{{{json .HostConfig.Ulimits}}}}' {name}"
        ),
    ),
)
"""Words of a start that failed which say what to do: what they mean, and that."""


def _not_started(one: Container) -> Finding:
    steps: tuple[Step, ...] = (_again(one),)
    meaning, severity = "", _missed(one)
    for words, means, advice in _KNOWN:
        match = words.search(one.asked.error)
        if match:
            said = match.groupdict() | {"name": one.engine_name}
            meaning = means.format(**said)
            steps = (Note(advice.format(**said)), *steps)
            severity = Severity.ERROR  # it is not this container's fault: no other will start either
    return _down(
        one,
        f"{one.name} could not be started" + (f": {meaning}" if meaning else ""),
        f"the last start of {one.name} failed: {one.asked.error}" + (f": {meaning}" if meaning else ""),
        f'Error "{one.asked.error}"',
        Remedy("start it again when what the error names is mended", steps),
        severity=severity,
        because=tuple(code for words, codes in _STOOD_IN_THE_WAY if words.search(one.asked.error) for code in codes),
    )


@check(
    "CTR002",
    Severity.ERROR,
    says=("dependency failed to start: container ... is unhealthy",),
)
def health_check_fails(containers: Containers) -> Iterator[Yield]:
    """A running container fails its own health check.

    ## What it is
    An image or docker run may name a command that says whether the service works. dockerd
    runs it in the container; after several failures in a row it calls the container unhealthy.
    ## What you see
    (unhealthy) in docker ps; Swarm and Compose replace or do not start what depends on it.
    dockerd itself does nothing about it.
    ## By hand
    docker inspect -f '{{json .State.Health}}' NAME
    ## Cure
    See what the last probe printed. When the service hangs, a restart helps for now; when the
    check itself cannot run (exit code 126 or 127), the check is what has to be mended.
    ## Looks like
    CTR001 (the container dies), NET012 (the container's link is broken)
    ## Limits
    What the probes print is not read. A container without a health check is not judged.
    ## References
    Dockerfile reference HEALTHCHECK, moby daemon/health.go
    """
    tested = [one for one in containers.running if one.health]
    if not tested:
        yield NotApplicable("no running container has a health check")
        return
    for one in tested:
        if one.health != "unhealthy":
            continue
        codes = [code for _, code in one.probes]
        broken = bool(codes) and all(code in {NOT_RUNNABLE, NOT_FOUND} for code in codes)
        last = f"exit code {codes[-1]}" if codes else "no probe ended"
        many = f"{one.failing} probes in a row failed, the last with {last}"
        title = f"the health check of {one.name} cannot be run" if broken else f"{one.name} fails its health check"
        yield Finding(
            subject=one.name,
            scope=one.scope,
            title=title,
            message=f"{one.name} is unhealthy: {many}",
            evidence=(one.cite(f"Health unhealthy, FailingStreak {one.failing}, {last}"),),
            remedy=Remedy(
                "see what the probes say",
                (
                    Command(("docker", "inspect", "-f", "{{json .State.Health.Log}}", one.engine_name)),
                    Note("mend what they name; the next probe that succeeds makes it healthy again"),
                ),
                notes=(f"if the service hangs: docker restart {one.engine_name}, which stops it for a moment",),
            ),
            severity=Severity.WARNING if broken else Severity.ERROR,
            hits=(Effect("nobody knows whether it works" if broken else f"{one.name} does not do what it is for"),),
            works=(Effect(f"the processes of {one.name} run"),),
            since=_failing_since(one),
        )


def _failing_since(one: Container) -> Since | None:
    """When it began to fail, where the log of probes (the last five) reaches back that far."""
    if not one.probes or one.failing > len(one.probes):
        return None
    return Since(latest=Moment(one.probes[-one.failing][0], "the first probe failed"), exact=True)


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


@check(
    "CTR004",
    Severity.WARNING,
    says=("tried to kill container, but did not receive an exit event",),
)
def container_stuck(containers: Containers, clock: Clock) -> Iterator[Yield]:
    """A container is dead, is being removed for minutes, or was created and never started.

    ## What it is
    Dead is a container that could only be removed in part: its processes are gone, some of its
    files are not. Removing lasts seconds. Created is one that nobody has started yet.
    ## What you see
    Dead or Removal In Progress in docker ps -a; its name stays taken; "removal of container is
    already in progress"; "device or resource busy" in the log of dockerd.
    ## By hand
    docker ps -a --filter status=dead --filter status=removing --filter status=created
    ## Cure
    Remove it again: what was busy then is mostly free by now. The files that stay say what
    holds them.
    ## Looks like
    CTR001 (it was started, and that failed)
    ## Limits
    One that was created and never started is a note, from ten minutes on: docker create and
    compose create do that on purpose.
    ## References
    docker-rm(1), moby container/state.go
    """
    if not containers.all:
        yield NotApplicable("no container here")
        return
    now = clock.collected_at
    for one in containers.all:
        again = Command(("docker", "rm", "-f", one.engine_name))
        if one.status in {"dead", "removing"}:
            if one.status == "removing" and now - one.finished < 60:  # noqa: PLR2004 - seconds
                continue
            what = (
                "is dead: it was removed only in part" if one.status == "dead" else "is being removed, and still there"
            )
            yield Finding(
                subject=one.name,
                scope=one.scope,
                title=f"{one.name} {what}",
                message=f"{one.name} {what}{f'; {one.asked.error}' if one.asked.error else ''}",
                evidence=(one.cite(f"Status {one.status}"),),
                remedy=Remedy("remove the rest of it", (again,)),
                hits=(Effect(f"the name {one.engine_name} stays taken, and its files stay on the disk"),),
            )
        elif one.status == "created" and not one.asked.error and one.created and now - one.created > WAITS:
            yield Finding(
                subject=one.name,
                scope=one.scope,
                title=f"{one.name} was created and never started",
                message=f"{one.name} was created {(now - one.created) / 60:.0f} minutes ago, and has not been started",
                evidence=(one.cite("Status created"),),
                remedy=Remedy(
                    "start it",
                    (_again(one),),
                    notes=(f"or remove it: docker rm {one.engine_name}",),
                ),
                severity=Severity.INFO,
            )


@check(
    "CTR005",
    Severity.ERROR,
    explains=("CTR001",),
    says=(
        "executable file not found in $PATH",
        "exec format error",
        "unable to start container process ... exec: ... permission denied",
    ),
)
def program_cannot_run(containers: Containers, images: Images | None, clock: Clock) -> Iterator[Yield]:
    """The program of a container cannot be run: not found, not executable, or for another machine.

    ## What it is
    The first process is started by execve(2). It fails with 127 when there is no such file (or
    its interpreter is missing), with 126 when it is no executable.
    ## What you see
    "executable file not found in $PATH", "permission denied"; exit code 126 or 127; "exec format
    error" and exit code 1 or 255 from an image of another architecture.
    ## By hand
    docker inspect -f '{{.State.ExitCode}} {{.State.Error}} {{.Path}} {{.Args}}' NAME
    docker image inspect -f '{{.Os}}/{{.Architecture}}' NAME
    ## Cure
    Name a program that the image has (ENTRYPOINT, CMD, command), chmod +x it in the Dockerfile,
    or take the image of this machine's architecture; then make the container anew.
    ## Looks like
    CTR001 (the program runs, and ends)
    ## Limits
    A script with CRLF or without a first line #! is told by the output of the container alone,
    which is not read. Files in the image are not read.
    ## References
    docker-run(1) exit status, execve(2), Dockerfile reference ENTRYPOINT
    """
    every = (*containers.all, *(one for one in containers.changing if loops(one, clock.collected_at)))
    if not every:
        yield NotApplicable("no container here")
        return
    for one in every:
        said = _names_program(one)
        if one.running and not loops(one, clock.collected_at):
            continue
        if said:
            yield _wrong(one, f"{said[1]}: {said[2]}", f'Error "{one.asked.error}"', said[1])
            continue
        if one.exit_code in {NOT_RUNNABLE, NOT_FOUND} and not one.asked.error and one.started:
            # A shell in the container ran, and says with its own exit code that it could not run a command.
            recent = clock.collected_at - one.finished < RECENT
            reason = "found no such command" if one.exit_code == NOT_FOUND else "could not execute a command"
            yield _wrong(
                one,
                f"{one.program or 'its program'} {reason}",
                f"ExitCode {one.exit_code}, Path {one.program}",
                one.program,
                Severity.ERROR if recent and one.policy != "no" else Severity.WARNING if recent else Severity.INFO,
            )
            continue
        other = _other_machine(one, images)
        if other and one.exit_code and one.finished - one.started < 2:  # noqa: PLR2004 - seconds
            yield _wrong(
                one, f"{one.image} is for {other}", f"ExitCode {one.exit_code}, Path {one.program}", one.program
            )


_RUNS = {
    "x86_64": ("amd64", "386"),
    "aarch64": ("arm64", "arm"),
    "armv7l": ("arm",),
    "armv6l": ("arm",),
    "i686": ("386",),
    "ppc64le": ("ppc64le",),
    "riscv64": ("riscv64",),
    "s390x": ("s390x",),
}
"""What a machine (uname -m) runs without an emulator, in the words of images (GOARCH)."""


def _other_machine(one: Container, images: Images | None) -> str:
    """Give the architecture of a container's image when this machine does not run it; empty when it does, or unknown."""
    held = next((image for image in images.all if image.id == one.image_id), None) if images else None
    if images is None or held is None or not held.architecture:
        return ""
    return "" if held.architecture in _RUNS.get(images.machine, (held.architecture,)) else held.architecture


def _wrong(one: Container, what: str, said: str, program: str, severity: Severity | None = None) -> Finding:
    told = Command(("docker", "inspect", "-f", "{{json .Path}} {{json .Args}} {{.Config.Image}}", one.engine_name))
    return _down(
        one,
        f"the program of {one.name} cannot be run",
        f"{one.name} ended with exit code {one.exit_code}: {what}",
        said,
        Remedy(
            "make it anew with a program that the image has",
            (told, Note(f"mend {program or 'its program'} in the image or name another, and make {one.name} anew")),
        ),
        severity=severity or _missed(one),
        hits="does not run",
        excluded=(Excluded("CTR001", "the kernel did not kill it for memory"),) if not one.oom_killed else (),
    )
