"""Does the daemon answer, and if not: does it not run, or what does it wait for?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.config import Options
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.groups import DockerGroup
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.nextstart import NextStart
from doctor.facts.paths import Paths, Seen
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
from doctor.places import Places
from doctor.registry import check

NAMES = {"R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "t": "tracing stop", "Z": "zombie"}
"""What /proc/PID/status calls the states (proc(5))."""

STATES = {
    "T": "a signal has stopped it",
    "t": "a debugger has stopped it",
    "D": "it waits for a disk",
    "Z": "it is dead and was not reaped",
}


@check(
    "DMN016",
    Severity.ERROR,
    says=(
        "error during connect: ... Is the docker daemon running?",
        "Cannot connect to the Docker daemon at PATH. Is the docker daemon running?",
        "failed to connect to the docker API at PATH",
    ),
)
def daemon_does_not_answer(
    daemon: Daemon, places: Places, containers: Containers, log: DaemonLog, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """Dockerd does not run, or does not answer.

    ## What it is
    A GET of /_ping is not answered within 2 seconds, or nothing listens on the socket.
    Nothing else about the engine's own view can be known then.
    ## What you see
    Every docker command hangs, or says "Cannot connect to the Docker daemon ... Is the
    docker daemon running?". Containers may run on.
    ## By hand
    curl -m 2 --unix-socket /run/docker.sock http://docker/_ping
    grep State: /proc/$(pidof dockerd)/status
    ## Cure
    State T: `kill -CONT PID`. State S: `kill -USR1 PID` writes the goroutine stacks for
    whoever must explain the hang and stops nothing; then restart, with its price. State D:
    the disk first, a restart hangs too. Not running: read its last words, then start it.
    ## Looks like
    DMN001 and DMN003 (it cannot start)
    ## Limits
    Without the right to open the socket this is unknown, not a finding.
    ## References
    moby api/server, proc(5), failures of start in the log of dockerd
    """
    if daemon.answers:
        return
    if not places.present:
        yield NotApplicable("there is no Docker engine on this machine")
        return
    if daemon.answer == "denied":
        yield Unknown("dockerd", f"API: {daemon.why}")
        return
    if daemon.why.startswith("HTTP "):
        yield Unknown("dockerd", f"API: it answers {daemon.why}")
        return
    if daemon.pid and daemon.answer in {"absent", "failed"}:
        yield _unreachable(daemon, containers, lifecycle)
    elif daemon.pid:
        yield _hangs(daemon, containers, lifecycle)
    elif daemon.answer in {"absent", "failed", "timeout"}:
        yield _dead(daemon, containers, log, lifecycle)
    else:
        yield NotApplicable(f"the API was not asked: {daemon.why}")


def _works(containers: Containers) -> tuple[Effect, ...]:
    running = [one.name for one in containers.running]
    if not running:
        return ()
    if len(running) == 1:
        return (Effect(f"the container {running[0]} runs, as it was started"),)
    return (Effect(f"the {len(running)} containers run, as they were started"),)


def _unreachable(daemon: Daemon, containers: Containers, lifecycle: Lifecycle) -> Finding:
    """It runs, and nobody can ask it: the socket was removed, or another file stands in its place."""
    socket = daemon.socket
    gone = daemon.answer == "absent"
    return Finding(
        subject="dockerd",
        title=f"dockerd runs, but its socket {'is gone' if gone else 'cannot be asked'}: {socket}",
        message=f"dockerd (pid {daemon.pid}) runs, and nobody can ask it: {daemon.why}",
        evidence=(
            Citation("api/ping", 0, daemon.why, socket),
            daemon.cite(" ".join(daemon.argv), "cmdline"),
        ),
        remedy=lifecycle.remedy("let it make its socket again"),
        hits=(Effect("every docker command fails; whatever else speaks to the socket (CI, monitoring) does too"),),
        works=_works(containers),
    )


def _hangs(daemon: Daemon, containers: Containers, lifecycle: Lifecycle) -> Finding:
    state = f"State: {daemon.state} ({NAMES.get(daemon.state, '?')})"
    evidence = [Citation("api/ping", 0, daemon.why, daemon.socket), daemon.cite(state, "status")]
    if daemon.threads:
        word = ", ".join(f"{daemon.threads.count(state)} in {state}" for state in sorted(set(daemon.threads)))
        whole = f"all {len(daemon.threads)} threads are in {daemon.state}"
        text = whole if set(daemon.threads) == {daemon.state} else f"threads: {word}"
        evidence.append(daemon.cite(text, "task"))
    state = "D" if "D" in daemon.threads and daemon.state != "T" else daemon.state
    pid = str(daemon.pid)
    price = lifecycle.price()
    not_now = f"do not restart Docker for this: {price}" if price else ""
    if state == "T":
        remedy = Remedy("let it go on", (Command(("kill", "-CONT", pid)),), notes=(not_now,) if not_now else ())
    elif state == "D":
        waits = ", ".join(sorted(set(daemon.waits))) or "unknown"
        remedy = Remedy(
            "the disk first",
            (Note(f"a thread waits in the kernel for a disk ({waits}): see dmesg; a restart hangs too"),),
            notes=(not_now,) if not_now else (),
        )
    else:
        trace: Step = Command(("kill", "-USR1", pid))
        remedy = lifecycle.remedy(
            "write down where it hangs (stops nothing), then restart",
            trace,
            notes=("kill -USR1 writes goroutine-stacks-*.log below /run/docker, for whoever must explain the hang",),
        )
    known = STATES.get(state, "")
    excluded = (Excluded("STO009", "no thread waits for disk"),) if daemon.threads and state != "D" else ()
    return Finding(
        subject="dockerd",
        title="dockerd does not answer" + (f": {known}" if known else ""),
        message=f"dockerd (pid {pid}, state {daemon.state}) does not answer: {daemon.why}",
        evidence=tuple(evidence),
        remedy=remedy,
        hits=(Effect("every docker command hangs; no health checks, no restarts after a crash"),),
        works=_works(containers),
        excluded=excluded,
    )


def _dead(daemon: Daemon, containers: Containers, log: DaemonLog, lifecycle: Lifecycle) -> Finding:
    fatal = log.fatal
    evidence = [Citation("api/ping", 0, daemon.why or "nothing listens", daemon.socket)]
    evidence.append(Citation("proc/processes", 0, "no process dockerd", "/proc"))
    steps = lifecycle.start
    if fatal is not None:
        evidence.append(fatal.cited)
        steps = (Note("its last start failed: cure what its log says, then"), *lifecycle.start)
    return Finding(
        subject="dockerd",
        title="dockerd does not run" + (f": {_brief(fatal.text)}" if fatal else ""),
        message="no process dockerd, and nothing answers on its socket" + (f": {fatal.text}" if fatal else ""),
        evidence=tuple(evidence),
        remedy=lifecycle.starting("start it", steps),
        hits=(Effect("no docker command works; no health checks, no restarts after a crash"),),
        works=_works(containers),
        since=log.failed,
    )


def _brief(text: str) -> str:
    """Give the reason in the last words of a start, without the frame that is always the same."""
    for frame in ("failed to start daemon: ", "unable to configure the Docker daemon with file "):
        _, found, rest = text.partition(frame)
        if found:
            text = rest
    return text if len(text) <= 100 else text[:97] + "..."  # noqa: PLR2004 - a title is one line


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
            remedy=start.cure(Command(("rmdir", path)), what="remove the directory")
            if not daemon.pid
            else start.restart("remove the directory, then let dockerd make its socket", Command(("rmdir", path))),
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
