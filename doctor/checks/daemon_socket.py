"""Does the daemon answer, and if not: does it not run, or what does it wait for?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lifecycle import Lifecycle
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
