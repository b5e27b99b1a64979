"""Why does dockerd not start, or will not the next time? Its unit, its socket from systemd, and its last words."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from msgspec import structs

from doctor.checks._start_signs import SIGNS, Sign
from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.daemon import Daemon, DaemonLog, LogLine
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.nextstart import NextStart
from doctor.facts.processes import Processes
from doctor.facts.unit import Directive, Units
from doctor.model import (
    Citation,
    Command,
    EditKey,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Note,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.places import Places
from doctor.registry import check

_GAVE_UP = re.compile(r"docker\.service: Failed with result '([a-z-]+)'")
_RESULTS = {
    "signal": "a signal ended it",
    "core-dump": "it crashed",
    "oom-kill": "the kernel ended it, memory had run out",
    "timeout": "it was not ready in time",
    "watchdog": "it did not report in time",
    "resources": "systemd could not set it up",
}
"""What systemd says of a service that ended by something else than its own exit code (systemd.exec(5))."""
_EXITED = re.compile(r"docker\.service: Main process exited, code=exited, status=(\d+)/(\S+)")
_NOT_RUN = range(200, 246)
"""Statuses that systemd itself gives a process that it could not make the service of (systemd.exec(5))."""


@check("DMN014", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def unit_does_not_start(
    units: Units, daemon: Daemon, processes: Processes, places: Places, log: DaemonLog, start: NextStart
) -> Iterator[Yield]:
    """Systemd will not start docker.service: it is masked, has two ExecStart, or was given up.

    ## What it is
    A unit that is a link to /dev/null is masked and never starts. A drop-in that sets
    ExecStart has to take the one of the unit back first, with an empty `ExecStart=`.
    ## What you see
    "Unit docker.service is masked"; "has more than one ExecStart= setting ... Refusing";
    "Start request repeated too quickly", when it had failed five times.
    ## By hand
    systemctl cat docker.service
    systemctl status docker.service
    ## Cure
    systemctl unmask; or the line `ExecStart=` above the drop-in's own, and daemon-reload.
    Given up: cure what ended it, then reset-failed and start.
    ## Looks like
    DMN042 (docker.socket is masked), DMN016 (dockerd is down for its own reasons)
    ## Limits
    Files of units are read, systemd is not asked. What dockerd itself gave as its reason
    is another code's.
    ## References
    systemd.unit(5), systemd.service(5), systemctl(1)
    """
    if not units.systemd or daemon.supervisor != "systemd":
        yield NotApplicable("systemd does not start dockerd here")
        return
    service = units.service
    process = processes.by_pid.get(daemon.pid)
    if "/snap" in places.data_root or (process is not None and "docker.service" not in process.cgroup):
        yield NotApplicable("dockerd is not that of docker.service")
        return
    if service.masked is not None:
        yield _masked("docker.service", service.masked, start)
    elif len(service.starts) > 1 and service.last("Service", "Type") != "oneshot":
        yield _two_starts(service.starts, start)
    elif not daemon.pid:
        ended = _ended(log)
        if ended is not None:
            yield _given_up(*ended, start)


def _masked(unit: str, cited: Citation, start: NextStart) -> Finding:
    unmask = Command(("systemctl", "unmask", unit))
    return Finding(
        subject=unit,
        title=f"{unit} is masked",
        message=f"{cited.place} is {cited.excerpt}: {unit} is masked, and systemd does not start it",
        evidence=(cited,),
        remedy=start.cure(unmask, what="unmask it"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )


def _two_starts(starts: tuple[Directive, ...], start: NextStart) -> Finding:
    last = starts[-1]
    return Finding(
        subject="docker.service",
        title="docker.service has more than one ExecStart",
        message=f"{last.cited.place} sets ExecStart without taking back that of {starts[0].cited.place}:"
        " systemd refuses the unit",
        evidence=tuple(one.cited for one in starts),
        remedy=start.cure(
            Command(("sed", "-i", f"{last.line}i ExecStart=", last.path)),
            Command(("systemctl", "daemon-reload")),
            what="take the first one back",
        ),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )


def _ended(log: DaemonLog) -> tuple[LogLine, str] | None:
    """Give the last word of systemd on a service that ended without a reason of dockerd's, unless a later start served.

    That it was tried too often (`start-limit-hit`) is said last, and is no reason.
    """
    found, exited = None, None
    for line in log.lines:
        if "API listen on" in line.text or "Started docker.service" in line.text:
            found = exited = None
        status = _EXITED.search(line.text)
        if status:
            exited = line, _exit(int(status[1]), status[2])
        match = _GAVE_UP.search(line.text)
        if match is None or match[1] == "start-limit-hit":
            continue
        if match[1] in _RESULTS:
            found = line, _RESULTS[match[1]]
        else:
            found = exited if match[1] == "exit-code" and log.fatal is None else None
    return found


def _exit(status: int, name: str) -> str:
    if status in _NOT_RUN:
        return f"systemd could not run what its ExecStart names ({status}/{name})"
    return f"it ended with status {status}/{name}"


def _given_up(line: LogLine, why: str, start: NextStart) -> Finding:
    since = Since(latest=Moment(line.at, "systemd gave it up", line.cited)) if line.at else None
    return Finding(
        subject="docker.service",
        title=f"docker.service was given up: {why}",
        message=f"the journal of docker.service says: {line.text}: {why}",
        evidence=(line.cited,),
        remedy=start.cure(Note(f"find out why first: {why}"), what="cure that first"),
        severity=Severity.ERROR,
        hits=start.hits,
        since=since,
    )


_QUOTING = ("don't match any configuration option", "both as a flag and in the configuration file")
"""Reasons that quote keys and values, any of which may be one of these words: DMN002 and DMN003 tell them."""


def _reason(daemon: Daemon, places: Places, log: DaemonLog) -> Generator[Unknown | NotApplicable, None, LogLine | None]:
    """Give why the last start failed, None when it did not; say so where that cannot be judged."""
    if daemon.pid or not places.present:
        yield NotApplicable("dockerd runs" if daemon.pid else "there is no Docker engine on this machine")
        return None
    if not log.lines:
        yield Unknown("dockerd", "the log of dockerd: nothing of it could be read")
    return log.fatal


@check(
    "DMN032",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "network at index ... has a smaller prefix ... than the target size of that pool",
        "error obtaining controller instance: invalid pools size",
        "unknown flag: ...",
        "opening seccomp profile ... failed",
        "invalid TLS configuration: Could not load X509 key pair",
        "failed to create NAT chain DOCKER: iptables not found",
        "live-restore daemon configuration is incompatible with swarm mode",
        "error initializing graphdriver: overlay2: unknown option",
        "IPv6 is enabled for the default bridge, but no subnet is configured",
    ),
)
def last_words(
    options: Options, config: ConfigFile, daemon: Daemon, places: Places, log: DaemonLog, start: NextStart
) -> Iterator[Yield]:
    """The last start of dockerd failed, and its log says why.

    ## What it is
    dockerd ends with one line that names the reason. Those that have no code of their own
    are known here by their words: values that are none, missing groups, drivers, rules.
    ## What you see
    "Cannot connect to the Docker daemon"; systemctl says "start request repeated too
    quickly", which hides the reason. The log has it.
    ## By hand
    journalctl -u docker.service -n 50 --no-pager
    tail -n 50 /var/log/docker.log
    ## Cure
    By the words: take out the option that it refuses, or put there what it misses; then
    start it.
    ## Looks like
    DMN001 to DMN003 (the file itself), DMN010 (log-opts), DMN018 (the pid file)
    ## Limits
    Words change between releases; a reason that is not known is in DMN016 as it stands.
    Only the last start that failed counts, and none that was followed by one that served.
    ## References
    moby daemon/daemon.go, daemon/config/config.go Validate, cmd/dockerd/daemon.go
    """
    fatal = yield from _reason(daemon, places, log)
    if fatal is None or any(words in fatal.text for words in _QUOTING):
        return
    sign = next((one for one in SIGNS if any(words in fatal.text for words in one.words)), None)
    if sign is None:
        return
    key, origin = _blamed(sign, fatal.text, options)
    quoted = fatal.text.rstrip(".").rpartition(" ")[2]
    unopened = _UNOPENED.search(fatal.text)
    means = sign.means.replace("{}", quoted) + (f": {unopened[1]}: {unopened[2]}" if unopened else "")
    step = config.change(key, origin) if origin else Note(sign.advice.replace("{}", quoted) or f"correct {key}")
    subject = f"{config.path}:{key}" if origin else "dockerd"
    yield Finding(
        subject=subject,
        title=f"the last start of dockerd failed: {means}",
        message=f"{fatal.text}: {means}",
        evidence=(fatal.cited, *((origin.cited,) if origin else ())),
        remedy=start.cure(step, what=f"take {key} out" if origin else "cure that first"),
        severity=Severity.ERROR,
        hits=start.hits,
        since=log.failed,
    )


_UNOPENED = re.compile(r"\bopen (/[^\s:]+): ((?:no such|permission|is a|not a)[a-z ]+)$")
"""The file that a start could not open, and why."""


def _blamed(sign: Sign, said: str, options: Options) -> tuple[str, Origin | None]:
    """Give the option that a reason is about, and where it was set: of several that one whose value is quoted."""
    if sign.others:
        for key in (sign.key, *sign.others):
            origin = options.origin(key)
            if origin is not None and any(
                word in said.split(" ") for word in re.findall(r"[^\s\[\]\",]+", origin.value)
            ):
                return key, origin
    return sign.key, options.origin(sign.key) if sign.key else None


_SAME_BRIDGE = re.compile(r"network ([0-9a-f]{12})[0-9a-f]* \((\S+)\): networks have same bridge name")


_DAMAGED = re.compile(
    r"error obtaining controller instance: .*(?:file size too small|invalid database|checksum error|version mismatch)"
)
"""How the reader of that database (bbolt) refuses one that a full disk or a power cut has damaged."""


@check("DMN036", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def network_database_stale(
    daemon: Daemon, places: Places, log: DaemonLog, lifecycle: Lifecycle, start: NextStart
) -> Iterator[Yield]:
    """The network database has another network on the bridge docker0, and dockerd does not start.

    ## What it is
    dockerd makes its default network anew at each start. If its database, local-kv.db,
    still holds a network on that bridge, as after a power cut, both conflict.
    ## What you see
    At every start: "cannot create network X (docker0): conflicts with network Y (docker0):
    networks have same bridge name".
    ## By hand
    journalctl -u docker.service -n 20 --no-pager
    ls -l /var/lib/docker/network/files
    ## Cure
    Move the database aside, and start. Images, containers and volumes stay; networks of
    your own are lost and have to be created anew, and their containers connected to them.
    ## Looks like
    DMN032 (other reasons of a start that failed), NET009 (a bridge that is gone)
    ## Limits
    Known by the daemon's own words: the database is not read.
    ## References
    moby issues 18113, 20312 and 49291, moby libnetwork/drivers/bridge
    """
    fatal = yield from _reason(daemon, places, log)
    match = _SAME_BRIDGE.search(fatal.text) if fatal else None
    damaged = _DAMAGED.search(fatal.text) if fatal else None
    if fatal is None or (match is None and damaged is None):
        return
    database = f"{places.data_root}/network/files/local-kv.db"
    aside = Command(("mv", database, f"{database}.aside"))
    if match is not None:
        title = f"two networks on bridge {match[2]}: dockerd does not start"
        message = (
            f"{database} still holds network {match[1]} on bridge {match[2]}: the default network conflicts with it"
        )
    else:
        title = "the network database is damaged: dockerd does not start"
        message = f"{database} cannot be read: {fatal.text}"
    yield Finding(
        subject="network database",
        title=title,
        message=message,
        evidence=(fatal.cited,),
        remedy=structs.replace(
            lifecycle.starting("move the network database aside, then start dockerd", (aside, *lifecycle.start)),
            risk="destructive",
            notes=("networks of your own are lost: create them as before, then connect their containers",),
        ),
        hits=start.hits,
        works=(Effect("images, containers and volumes are there"),),
        excluded=(Excluded("DMN001", "the configuration was read"),),
        since=log.failed,
    )


@check("DMN042", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def no_socket_activation(
    units: Units, options: Options, config: ConfigFile, daemon: Daemon, start: NextStart
) -> Iterator[Yield]:
    """Dockerd is to take its socket from systemd (fd://), and there is none to take.

    ## What it is
    `-H fd://` means that systemd opens the socket (docker.socket) and hands it over.
    Started by hand or by an init script, or with docker.socket masked, there is none.
    ## What you see
    "no sockets found via socket activation: make sure the service was started by systemd";
    or systemd says "Unit docker.socket is masked".
    ## By hand
    systemctl cat docker.socket
    grep -s fd:// /etc/default/docker /etc/docker/daemon.json
    ## Cure
    With systemd: unmask docker.socket. Without: take `-H fd://` out, dockerd makes its
    socket by itself then.
    ## Looks like
    DMN003 (hosts in the file as well), DMN017 (something else stands at the socket's place)
    ## Limits
    Files of units are read, systemd is not asked. Started by hand, only the log tells.
    ## References
    systemd.socket(5), sd_listen_fds(3), moby daemon/listeners
    """
    told = [one for one in options.flags.get("hosts", ()) if one.value.startswith("fd:")]
    if "hosts" in options.file and "fd://" in options.file["hosts"].value:
        told.append(options.file["hosts"])
    failed = start.words("socket activation")
    if not told and not failed:
        yield NotApplicable("dockerd makes its socket by itself")
        return
    if units.systemd:
        socket = units.socket
        if socket.masked is not None:
            yield _masked_socket(socket.masked, told, start)
        elif not socket.exists and (failed or units.service.exists):
            yield _no_socket(told, failed, config, start)
        return
    if daemon.pid:
        return  # it has what it wanted
    yield _no_socket(told, failed, config, start)


def _masked_socket(cited: Citation, told: list[Origin], start: NextStart) -> Finding:
    steps: tuple[Step, ...] = (Command(("systemctl", "unmask", "docker.socket")),)
    if not start.running:  # systemd does not open a socket whose service runs
        steps += (Command(("systemctl", "start", "docker.socket")),)
    return Finding(
        subject="docker.socket",
        title="docker.socket is masked, and dockerd wants its socket from it",
        message=f"{cited.place} is {cited.excerpt}: docker.socket is masked, and dockerd is started with fd://",
        evidence=(cited, *(one.cited for one in told)),
        remedy=start.cure(*steps, what="unmask it"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )


def _no_socket(told: list[Origin], failed: tuple[Citation, ...], config: ConfigFile, start: NextStart) -> Finding:
    steps: list[Step] = []
    for one in told:
        path, _, line = one.where.rpartition(":")
        if one.source == "daemon.json":
            steps.append(EditKey(config.path, config.pointer("hosts"), None))
        elif path.startswith("/etc/") and line.isdecimal():
            steps.append(Command(("sed", "-i", f"{line}s| *{one.text}||", path)))
    if not steps:
        steps.append(Note("start dockerd without -H fd://, or let systemd start it"))
    return Finding(
        subject="dockerd",
        title="dockerd wants its socket from systemd, which does not start it",
        message=(f"{told[0].where} has {told[0].text}" if told else "dockerd was started with -H fd://")
        + ": no sockets are found via socket activation, and dockerd does not start",
        evidence=(*(one.cited for one in told), *failed),
        remedy=start.cure(*steps, what="let it make its socket by itself"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
    )
