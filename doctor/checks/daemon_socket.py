"""Does the daemon answer, and if not: does it not run, or what does it wait for?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks.frozen import stopped_shims, wake
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog, Starting
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.openfiles import USUAL, OpenFiles
from doctor.facts.processes import Process, Processes
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
        "accept unix ... docker.sock: accept4: too many open files; retrying in",
        "Failed to retrieve containerd version ... context canceled",
    ),
)
def daemon_does_not_answer(
    daemon: Daemon,
    places: Places,
    containers: Containers,
    log: DaemonLog,
    lifecycle: Lifecycle,
    processes: Processes,
    files: OpenFiles,
    starting: Starting,
) -> Iterator[Yield]:
    """Dockerd does not run, or does not answer.

    ## What it is
    A request of the API is not answered within 2 seconds, or nothing listens on the socket.
    Where /_ping is answered and the rest is not, dockerd waits: for containerd, or a lock.
    ## What you see
    Docker commands hang, or say "Cannot connect to the Docker daemon ... Is the docker
    daemon running?". Containers may run on. "too many open files" in the log of dockerd.
    ## By hand
    curl -m 2 --unix-socket /run/docker.sock http://docker/info
    grep State: /proc/$(pidof dockerd)/status /proc/$(pidof containerd)/status
    ## Cure
    State T, of dockerd or containerd: `kill -CONT PID`. At its limit of open files: prlimit
    raises it. State S: `kill -USR1 PID` writes the goroutine stacks and stops nothing; then
    restart, with its price. State D: the disk first, a restart hangs too.
    ## Looks like
    DMN001 and DMN003 (it cannot start)
    ## Limits
    Without the right to open the socket this is unknown, not a finding. A single request
    that waits, of /info or /networks, is a slow host and no hang.
    ## References
    moby api/server, proc(5), prlimit(1), failures of start in the log of dockerd
    """
    if daemon.answers:
        yield from _stuck(daemon, processes, containers, lifecycle)
        if files.near:
            yield _few_files_left(daemon, files)
        return
    if not places.present:
        yield NotApplicable("there is no Docker engine on this machine")
        return
    if daemon.answer == "denied":
        yield Unknown("dockerd", f"API: {daemon.why}")
        return
    if starting.why and daemon.state not in STATES:
        yield Unknown("dockerd", starting.why)
        return
    if daemon.why.startswith("HTTP "):
        yield Unknown("dockerd", f"API: it answers {daemon.why}")
        return
    if daemon.pid and daemon.answer in {"absent", "failed"}:
        yield _unreachable(daemon, containers, lifecycle)
    elif daemon.pid:
        if files.reached and daemon.state not in STATES:
            yield _no_file_left(daemon, files, containers, lifecycle)
        else:
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


def _stuck(daemon: Daemon, processes: Processes, containers: Containers, lifecycle: Lifecycle) -> Iterator[Finding]:
    """It answers a ping, and what needs containerd or the lock of a container waits in vain."""
    waits = daemon.unanswered
    containerd = processes.by_pid.get(daemon.containerd)
    if waits and containerd is not None and containerd.state in {"T", "t"}:
        yield _containerd_stopped(daemon, containerd, containers, lifecycle)
    elif asleep := {owner: shim for owner, shim in stopped_shims(processes).items() if _waited_for(owner, waits)}:
        yield _shims_stopped(daemon, asleep, containers, lifecycle)
    elif len(waits) > 1 or any(one.record.startswith(("api/inspect/", "api/containers")) for one in waits):
        yield _hangs(daemon, containers, lifecycle)


def _waited_for(owner: str, waits: tuple[Citation, ...]) -> bool:
    return any(one.record == f"api/inspect/{owner}" for one in waits)


def _shims_stopped(daemon: Daemon, shims: dict[str, Process], containers: Containers, lifecycle: Lifecycle) -> Finding:
    """Whoever stops or removes a container holds its lock, and waits for a shim that does not answer."""
    price = lifecycle.price()
    names = {one.id: one.name for one in containers.all}
    who = ", ".join(sorted(names.get(owner, owner[:12]) for owner in shims))
    first = next(iter(shims.values()))
    return Finding(
        subject="dockerd",
        title=f"dockerd waits for the shim of {who}: {STATES[first.state]}",
        message=f"the shim of {who} (pid {first.pid}) is in state {first.state}, and dockerd waits for it:"
        f" {daemon.unanswered[0].place} {daemon.unanswered[0].excerpt}",
        evidence=(first.cite(f"State: {first.state} ({NAMES[first.state]})", "status"), *daemon.unanswered[:3]),
        remedy=wake(
            *(shim.pid for shim in shims.values()), notes=(f"do not restart Docker for this: {price}",) if price else ()
        ),
        hits=(Effect(f"docker commands that ask for {who} hang: exec, stop, rm, inspect"),),
        works=_works(containers),
        excluded=(Excluded("", f"dockerd itself is in state {daemon.state}, and answers /_ping"),),
        because=("NSP015",),
    )


def _containerd_stopped(daemon: Daemon, containerd: Process, containers: Containers, lifecycle: Lifecycle) -> Finding:
    state = f"State: {containerd.state} ({NAMES[containerd.state]})"
    price = lifecycle.price()
    return Finding(
        subject="containerd",
        title=f"dockerd waits for containerd: {STATES[containerd.state]}",
        message=f"containerd (pid {containerd.pid}) is in state {containerd.state}, and dockerd waits for it:"
        f" {daemon.unanswered[0].place} {daemon.unanswered[0].excerpt}",
        evidence=(containerd.cite(state, "status"), *daemon.unanswered[:3]),
        remedy=Remedy(
            "let it go on",
            (Command(("kill", "-CONT", str(containerd.pid))),),
            notes=(f"do not restart Docker for this: {price}",) if price else (),
        ),
        hits=(Effect("no container starts or stops, docker exec, info and version hang; no restarts after a crash"),),
        works=_works(containers),
        excluded=(Excluded("", f"dockerd itself is in state {daemon.state}, and answers /_ping"),),
    )


def _no_file_left(daemon: Daemon, files: OpenFiles, containers: Containers, lifecycle: Lifecycle) -> Finding:
    """It may open no more files: a connection is one."""
    pid = str(daemon.pid)
    known = f": {files.soft}" if files.soft >= 0 else ""
    price = lifecycle.price()
    return Finding(
        subject="dockerd",
        title=f"dockerd does not answer: it has as many files open as it may{known}",
        message=f"dockerd (pid {pid}) does not answer: {daemon.why}; "
        + (files.said.text if files.said else f"{files.held} of {files.soft} files are open"),
        evidence=(Citation("api/ping", 0, daemon.why, daemon.socket), *_said(files), *files.cited),
        remedy=_more_files(daemon, files, *((f"do not restart Docker for this: {price}",) if price else ())),
        hits=(Effect("every docker command hangs; no health checks, no restarts after a crash"),),
        works=_works(containers),
        excluded=(Excluded("STO009", "no thread waits for disk"),)
        if daemon.threads and "D" not in daemon.threads
        else (),
    )


def _few_files_left(daemon: Daemon, files: OpenFiles) -> Finding:
    """It answers, and what it starts (iptables, a shim) needs more files than are left."""
    return Finding(
        subject="open files",
        title=f"dockerd has {files.held} of {files.soft} files open",
        message=f"dockerd (pid {daemon.pid}) has {files.held} of {files.soft} files open"
        + (f": {files.said.text}" if files.said else ""),
        evidence=(*files.cited, *_said(files)),
        remedy=_more_files(daemon, files),
        severity=Severity.ERROR if files.said else Severity.WARNING,
        hits=(
            Effect("containers do not start: too many open files; soon no docker command is answered")
            if files.said
            else Effect("at the limit no container starts, and no docker command is answered"),
        ),
        works=(Effect("containers that run go on"),),
    )


def _said(files: OpenFiles) -> tuple[Citation, ...]:
    return (files.said.cited,) if files.said else ()


def _more_files(daemon: Daemon, files: OpenFiles, *notes: str) -> Remedy:
    """Raise the limit of the process that runs: nothing stops (prlimit(1))."""
    pid = str(daemon.pid)
    where = {
        "systemd": f"LimitNOFILE={USUAL} for docker.service: systemctl edit docker, and at the next restart it holds",
        "init script": f"ulimit -n {USUAL} in /etc/default/docker, and at the next restart it holds",
    }
    return Remedy(
        "raise the limit",
        (Command(("prlimit", "--pid", pid, f"--nofile={files.room}:{max(files.room, files.hard)}")),),
        lasts="until-boot",
        for_good=(Note(where.get(daemon.supervisor, f"start dockerd with a limit of {USUAL} open files")),),
        notes=(f"see what they are, or there will be no end: ls -l /proc/{pid}/fd", *notes),
    )


def _hangs(daemon: Daemon, containers: Containers, lifecycle: Lifecycle) -> Finding:
    state = f"State: {daemon.state} ({NAMES.get(daemon.state, '?')})"
    asked = daemon.unanswered[:3] or (Citation("api/ping", 0, daemon.why, daemon.socket),)
    evidence = [*asked, daemon.cite(state, "status")]
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
        title=("dockerd hangs, though it answers /_ping" if daemon.answers else "dockerd does not answer")
        + (f": {known}" if known else ""),
        message=f"dockerd (pid {pid}, state {daemon.state}) does not answer: "
        + " ".join((*(one.place for one in daemon.unanswered[:1]), asked[0].excerpt)),
        evidence=tuple(evidence),
        remedy=remedy,
        hits=(
            Effect("docker commands hang: those that need what it waits for")
            if daemon.answers
            else Effect("every docker command hangs; no health checks, no restarts after a crash"),
        ),
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
    # What dockerd wraps around a reason names its own parts; the reason itself stands last. A title is one line.
    while len(text) > 100 and ": " in text:  # noqa: PLR2004
        text = text.partition(": ")[2]
    return text if len(text) <= 100 else text[:97] + "..."  # noqa: PLR2004
