"""What is logged: how much dockerd writes, and whether the logs of containers are valid, bounded and there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from doctor.amounts import sized
from doctor.engine.options import LOG_OPTIONS, LOG_OPTIONS_OF_ALL
from doctor.facts.clock import Clock
from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.logs import Log, Logs
from doctor.facts.nextstart import NextStart
from doctor.facts.space import Space
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
    Remedy,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check

DAY = 86_400
"""Seconds: who debugs does so for an hour; what is on for a day was left on."""
QUIET = frozenset({"error", "fatal", "panic"})
LOUD = frozenset({"debug", "trace"})
SHARE = 10
"""Percent of the disk that logs may have before they are worth a warning."""
LARGE = 1 << 30
"""Bytes of one log that nobody reads to its end any more."""
_SIZE = re.compile(r"\d+(\.\d+)? ?([kmgtp](i?b)?|b)?", re.IGNORECASE)
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})
_BOOLEANS = frozenset({*_TRUE, *_FALSE, "T", "F", "True", "False", "TRUE", "FALSE"})


@check("DMN006", Severity.WARNING)
def log_level_left(
    options: Options, config: ConfigFile, daemon: Daemon, clock: Clock, lifecycle: Lifecycle
) -> Iterator[Yield]:
    """Debugging of dockerd was left on, or its log leaves warnings out.

    ## What it is
    `debug` and log-level debug or trace write several lines for each request, with what
    was asked. log-level error, fatal or panic leave out the warnings that explain a fault.
    ## What you see
    Lines with level=debug in the log of dockerd, a journal that is rotated within hours;
    or a log that is silent while things go wrong.
    ## By hand
    docker info -f '{{.Debug}}'
    grep -s -e debug -e log-level /etc/docker/daemon.json
    ## Cure
    debug: set it to false and let dockerd read its file again (kill -HUP): nothing stops.
    log-level is read at a start only; take it out, and the next start has the default.
    ## Looks like
    DMN009 (the logs of containers), DMN005 (a level that is none)
    ## Limits
    For a day it is a note only: somebody may be debugging. A level that leaves warnings
    out is a note always.
    ## References
    dockerd(8), moby daemon/reload.go reloadDebug, CIS Docker Benchmark 2.3
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    now = options.running.get("debug")
    if now is None and not options.known("debug"):
        yield Unknown("debug", options.unread)
        return
    told = options.origin("debug")
    origin = told if told is not None and options.on("debug") else None
    if (now.value == "true") if now else (origin is not None and not config.newer_than(daemon)):
        yield _debugging(origin or now, config, daemon, clock, lifecycle)
    level = options.origin("log-level")
    if level is None or (level.source == "daemon.json" and config.newer_than(daemon)):
        return
    if level.value.lower() in LOUD:
        yield _loud(level, config, daemon, clock, lifecycle)
    elif level.value.lower() in QUIET:
        yield _quiet(level, config, lifecycle)


def _since_when(origin: Origin | None, config: ConfigFile, daemon: Daemon) -> tuple[float, Since | None]:
    """Give since when it is on, at the latest, and the same for a report."""
    if origin is not None and origin.source == "daemon.json" and config.newer_than(daemon):
        moment = config.written
    elif daemon.started:
        moment = Moment(daemon.started, "dockerd started")
    else:
        return 0.0, None
    return moment.at, Since(latest=moment)


def _debugging(
    origin: Origin | None, config: ConfigFile, daemon: Daemon, clock: Clock, lifecycle: Lifecycle
) -> Finding:
    at, since = _since_when(origin, config, daemon)
    left = bool(at) and clock.collected_at - at > DAY
    where = (
        f"{origin.where} sets it"
        if origin and origin.source != "API"
        else "neither the file nor a flag says so any more"
    )
    reload = Command(("kill", "-HUP", str(daemon.pid)))
    if origin is not None and origin.source == "flag":
        remedy = lifecycle.remedy("take the flag out, then restart dockerd", config.change("debug", origin))
    else:
        remedy = Remedy("switch it off: a reload takes it", (EditKey(config.path, "/debug", "false"), reload))
    return Finding(
        subject="debug",
        title="dockerd debugs" + (", and has for more than a day" if left else ""),
        message=f"debugging of dockerd is on, {where}: several lines in its log for each request",
        evidence=(origin.cited,) if origin else (),
        remedy=remedy,
        severity=Severity.WARNING if left else Severity.INFO,
        hits=(Effect("the log of dockerd grows with each request, and is rotated away sooner"),),
        works=(Effect("everything else"),),
        since=since,
    )


def _loud(level: Origin, config: ConfigFile, daemon: Daemon, clock: Clock, lifecycle: Lifecycle) -> Finding:
    at, since = _since_when(level, config, daemon)
    left = bool(at) and clock.collected_at - at > DAY
    return Finding(
        subject="log-level",
        title=f"log-level is {level.value}" + (", and has been for more than a day" if left else ""),
        message=f"{level.where} sets log-level to {level.value}: several lines in the log of dockerd for each request",
        evidence=(level.cited,),
        remedy=lifecycle.remedy("take it out: a start reads it, a reload does not", config.change("log-level", level)),
        severity=Severity.WARNING if left else Severity.INFO,
        hits=(Effect("the log of dockerd grows with each request, and is rotated away sooner"),),
        works=(Effect("everything else"),),
        since=since,
    )


def _quiet(level: Origin, config: ConfigFile, lifecycle: Lifecycle) -> Finding:
    return Finding(
        subject="log-level",
        title=f"log-level is {level.value}: dockerd logs no warnings",
        message=f"{level.where} sets log-level to {level.value}: what dockerd warns of is not in its log",
        evidence=(level.cited,),
        remedy=lifecycle.remedy("take it out: a start reads it, a reload does not", config.change("log-level", level)),
        severity=Severity.INFO,
        hits=(Effect("the log of dockerd does not say why something went wrong"),),
        works=(Effect("everything else"),),
    )


def _unlimited(logs: Logs | None, containers: Containers | None) -> list[tuple[Container, Log]]:
    """Give the json logs that grow without limit, and whose they are, largest first."""
    if logs is None or containers is None:
        return []
    held = [
        (one, logs.by_id[one.id])
        for one in containers.all
        if one.id in logs.by_id and not one.asked.log_options.get("max-size")
    ]
    return sorted(held, key=lambda pair: (-pair[1].size, pair[0].name))


def _percent(size: int, space: Space | None) -> int:
    """Give how much of the file system of Docker's data that is; 0 when its size is not known."""
    return size * 100 // space.size if space is not None and space.size else 0


def _whole(space: Space) -> Citation:
    return space.cite(1, f"size {space.size:,}")


@check("DMN009", Severity.WARNING)
def json_logs_unbounded(
    options: Options,
    config: ConfigFile,
    lifecycle: Lifecycle,
    logs: Logs | None,
    space: Space | None,
    containers: Containers | None,
) -> Iterator[Yield]:
    """The logs of containers have no limit.

    ## What it is
    The log driver json-file, the default, keeps what a container prints in one file for
    as long as the container exists. Only with max-size is it rotated.
    ## What you see
    A disk that fills: /var/lib/docker/containers/ID/ID-json.log. Then nothing that writes
    works any more, dockerd included.
    ## By hand
    du -sh /var/lib/docker/containers
    docker info -f '{{.LoggingDriver}}'
    ## Cure
    log-opts with max-size and max-file in daemon.json, and a start of dockerd: a reload
    does not take it. It is for new containers only: the others have to be created anew.
    ## Looks like
    DMN011 (one log is large already), DMN010 (a limit that is none)
    ## Limits
    A note, until the logs have more than a tenth of the disk. The driver `local` rotates
    by itself. max-file without max-size limits nothing.
    ## References
    moby daemon/logger/jsonfilelog/jsonfilelog.go, moby issue 40207
    """
    driver = options.running["log-driver"].value if "log-driver" in options.running else options.value("log-driver")
    if driver != "json-file":
        yield NotApplicable(f"the log driver is {driver}")
        return
    if not options.known("log-opts"):
        yield Unknown("log-opts", options.unread)
        return
    told = options.log_options
    if told.get("max-size"):
        return
    held = _unlimited(logs, containers)
    total = sum(log.size for _, log in held)
    share = _percent(total, space)
    much = share >= SHARE
    wanted = json.dumps({**told, "max-size": "10m", "max-file": told.get("max-file", "3")})
    flags = options.flags.get("log-opts", ())
    edit: Step = (
        Note(f"give dockerd --log-opt max-size=10m as well, beside {flags[0].text}")
        if flags
        else EditKey(config.path, "/log-opts", wanted)
    )
    origin = options.origin("log-opts") or options.origin("log-driver")
    evidence = [origin.cited if origin else _default(options, config)]
    if space is not None and much:
        evidence += [_whole(space), *(log.cited for _, log in held[:3])]
    sizes = tuple(f"{one.name} {sized(log.size)}" for one, log in held if log.size * 100 >= total)
    yield Finding(
        subject="log-opts",
        title="logs of containers have no limit" + (f", and have {share} % of the disk" if much else ""),
        message="the log driver is json-file without max-size"
        + (f": the logs of {len(held)} containers have {sized(total)}, {share} % of the disk" if much else ""),
        evidence=tuple(evidence),
        remedy=lifecycle.remedy(
            "limit them for new containers",
            edit,
            notes=("containers that are there keep theirs until they are created anew",),
        ),
        severity=Severity.WARNING if much else Severity.INFO,
        hits=(Effect("the disk fills:", sizes),) if much else (Effect("a container that prints much fills the disk"),),
    )


def _default(options: Options, config: ConfigFile) -> Citation:
    now = options.running.get("log-driver")
    if now is not None:
        return now.cited
    if config.exists:
        return config.cite(0)
    return Citation("engine/daemon.json", 0, "no such file", config.path)


@check(
    "DMN010",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "unknown log opt ... for ... log driver",
        "failed to set log opts",
    ),
)
def log_options_invalid(options: Options, config: ConfigFile, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """log-opts has an option that the log driver does not know, or a value that it does not take.

    ## What it is
    Each log driver has options of its own. dockerd refuses to start with one that the
    driver does not know; values it looks at when a container starts.
    ## What you see
    "failed to set log opts: unknown log opt 'X' for json-file log driver" and no dockerd;
    or no container starts: "failed to initialize logging driver: invalid size: 'X'".
    ## By hand
    docker info -f '{{.LoggingDriver}}'
    grep -s -A5 log- /etc/docker/daemon.json
    ## Cure
    Take the option out, or give it a value of its kind: max-size 10m, max-file 3, compress
    true. Then start or restart dockerd: a reload does not take log-opts.
    ## Looks like
    DMN001 (a value that is no string), DMN009 (no limit at all)
    ## Limits
    Judged are json-file, local, journald, syslog and gelf, and values of the first two.
    tag and the -regex options are not tried.
    ## References
    moby daemon/logger/factory.go ValidateLogOpts, jsonfilelog.go, local.go
    """
    if not options.known("log-opts"):
        yield Unknown("log-opts", options.unread)
        return
    told = options.log_options
    origin = options.origin("log-opts")
    driver = options.value("log-driver")
    if not told or origin is None or driver not in LOG_OPTIONS:
        yield NotApplicable("no log options" if not told else f"options of the driver {driver} are not known here")
        return
    refused = _refused(driver, told)
    in_file = origin.source == "daemon.json"
    if refused and daemon.pid and not in_file:
        return  # the dockerd that runs has accepted its flags
    applied = bool(daemon.pid) and not (in_file and config.newer_than(daemon))
    for name, said in (refused or _unusable(driver, told)).items():
        line = config.line_of(name) or config.line_of("log-opts")
        cited = config.cite(line) if in_file else origin.cited
        edit: Step = (
            config.member("log-opts", name)
            if in_file
            else Note(f"take {name} out of what starts dockerd ({origin.where})")
        )
        yield Finding(
            subject=f"log-opts:{name}",
            title=f"log option {name} of {driver}: {said}",
            message=f"{cited.place}: {name}={told[name]} for the log driver {driver}: {said}: "
            + ("dockerd refuses to start" if refused else "no container starts with it"),
            evidence=(cited, *start.words("log opts")),
            remedy=start.cure(edit, what=f"take {name} out")
            if refused
            else start.mend(f"take {name} out", edit, in_force=applied),
            severity=start.severity if refused else Severity.ERROR if applied else Severity.WARNING,
            hits=start.hits
            if refused
            else (Effect("no new container starts" + ("" if applied else ", after the next start of dockerd")),),
            works=start.works if refused else (Effect("containers that are there keep their own log options"),),
            excluded=(Excluded("DMN001", f"{config.path} is JSON, and the value a string"),),
        )


def _refused(driver: str, told: dict[str, str]) -> dict[str, str]:
    """Give what dockerd does not start with (seen on 20.10.24, 26.1.5 and 28.5.2)."""
    wrong = {
        name: f"unknown log opt '{name}' for {driver}"
        for name in told
        if name not in LOG_OPTIONS[driver] | LOG_OPTIONS_OF_ALL
    }
    mode = told.get("mode", "")
    if mode not in {"", "blocking", "non-blocking"}:
        wrong["mode"] = f"logging mode not supported: {mode}"
    elif "max-buffer-size" in told and mode != "non-blocking":
        wrong["max-buffer-size"] = "it is for mode=non-blocking only"
    elif "max-buffer-size" in told and not _SIZE.fullmatch(told["max-buffer-size"]):
        wrong["max-buffer-size"] = f"invalid size: '{told['max-buffer-size']}'"
    return wrong


def _unusable(driver: str, told: dict[str, str]) -> dict[str, str]:
    """Give what no container starts with: values are looked at when the log is opened."""
    if driver not in {"json-file", "local"}:
        return {}
    wrong = {}
    size, files, compress = told.get("max-size"), told.get("max-file"), told.get("compress", "")
    if size is not None and not _SIZE.fullmatch(size):
        wrong["max-size"] = f"invalid size: '{size}'"
    count = int(files) if files is not None and re.fullmatch(r"[+-]?[0-9]{1,9}", files) else None
    if files is not None and count is None:
        wrong["max-file"] = f"'{files}' is no whole number"
    elif count is not None and count < 1:
        wrong["max-file"] = "it cannot be less than 1"
    if compress and compress not in _BOOLEANS:
        wrong["compress"] = f"'{compress}' is neither true nor false"
    elif not wrong and driver == "json-file" and compress.lower() in _TRUE and (size is None or (count or 1) < 2):  # noqa: PLR2004 - files
        wrong["compress"] = "it wants max-size, and max-file of 2 or more"
    elif not wrong and driver == "local" and count == 1 and compress.lower() not in _FALSE:
        wrong["max-file"] = "with 1 file, compress has to be false"
    return wrong


@check("DMN011", Severity.WARNING)
def json_log_large(containers: Containers, logs: Logs, space: Space | None) -> Iterator[Yield]:
    """The log of a container is large.

    ## What it is
    The json log of one container has more than 1 GiB, or a tenth of the disk. What is
    rotated away is not counted.
    ## What you see
    A disk that fills; `docker logs NAME` that takes minutes and prints what nobody reads.
    ## By hand
    ls -lS /var/lib/docker/containers/*/*-json.log
    docker inspect NAME -f '{{json .HostConfig.LogConfig}}'
    ## Cure
    Empty the file (truncate): nothing stops, and what was in it is gone, so save it first if
    it matters. Never remove it: dockerd goes on writing to what cannot be seen any more.
    ## Looks like
    DMN009 (no limit is set), DMN039 (the file was removed and still fills the disk)
    ## Limits
    A container with max-size is judged too: its limit may be as large. Logs of other
    drivers are not on this disk, or not in this place.
    ## References
    moby daemon/logger/jsonfilelog/jsonfilelog.go, truncate(1)
    """
    if not logs.by_id:
        yield NotApplicable("no container logs into a json file")
        return
    for one in containers.all:
        log = logs.by_id.get(one.id)
        percent = _percent(log.size, space) if log else 0
        if log is None or (log.size < LARGE and percent < SHARE):
            continue
        limit = one.asked.log_options.get("max-size", "")
        share = f", {percent} % of the disk" if percent else ""
        yield Finding(
            subject=one.name,
            title=f"the log of {one.name} has {sized(log.size)}",
            message=f"the log of {one.name} has {log.size:,} bytes{share}, and "
            + (f"max-size is {limit}" if limit else "no limit"),
            evidence=(log.cited, *((_whole(space),) if space and share else ()), one.cited),
            remedy=Remedy(
                "empty it, without stopping anything",
                (Command(("truncate", "-s", "0", log.path)),),
                risk="destructive",
                notes=(
                    f"what {one.name} has printed until now is gone then: docker logs {one.engine_name} >FILE saves it",
                ),
            ),
            hits=(Effect("the disk fills, with what nobody reads"),),
            works=(Effect(f"{one.name} runs, as it was started"),) if one.running else (),
        )


@check(
    "DMN039",
    Severity.ERROR,
    says=("error grabbing logs: open ... json.log: no such file or directory",),
)
def log_deleted_while_open(containers: Containers, logs: Logs, daemon: Daemon) -> Iterator[Yield]:
    """A container's log file was deleted while dockerd writes to it.

    ## What it is
    Who removes ID-json.log takes its name away only: dockerd holds it open and goes on
    writing, and the space is not free until it closes the file.
    ## What you see
    df says that the disk is full, du does not find by what. `docker logs NAME` says "no such
    file or directory".
    ## By hand
    ls -l /proc/$(pidof dockerd)/fd | grep deleted
    df /var/lib/docker; du -sx /var/lib/docker
    ## Cure
    A restart of that container opens a new file and frees the old one. To free the space at
    once and stop nothing: truncate -s 0 /proc/PID/fd/N.
    ## Looks like
    DMN011 (the file is there, and large)
    ## Limits
    Only json logs; of other files that are deleted and open, a look with ls -l is needed.
    A log that was renamed or replaced is not seen.
    ## References
    proc(5), unlink(2), moby daemon/logger/loggerutils/logfile.go
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run: it holds nothing open")
        return
    for one in containers.running:
        held = logs.deleted.get(one.id)
        if held is None:
            continue
        still = f", and still has {sized(held.size)}" if held.size >= LARGE // 1024 else ""
        yield Finding(
            subject=one.name,
            title=f"the log of {one.name} was deleted while dockerd writes to it",
            message=f"{held.path} was deleted; dockerd (pid {daemon.pid}) goes on writing to it{still}",
            evidence=(held.cited, one.cited),
            remedy=Remedy(
                "let it open a new file",
                (Command(("docker", "restart", one.engine_name)),),
                risk="disruptive",
                stops=(one.name,),
                notes=(f"to free {sized(held.size)} at once and stop nothing: truncate -s 0 {held.open_as}",),
            ),
            hits=(
                Effect(f"docker logs {one.engine_name} fails, what it prints is lost"),
                *((Effect("the disk fills, and no file shows by what"),) if still else ()),
            ),
            works=(Effect(f"{one.name} runs, as it was started"),),
            excluded=(Excluded("DMN011", "there is no file of that name"),),
        )
