"""What every start of a container needs of this host: somebody who makes its groups, somebody who takes its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from doctor.facts.cgroups import EngineInfo
from doctor.facts.config import ConfigFile, DaemonJson, Options, Origin
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.links import Links
from doctor.facts.nextstart import NextStart
from doctor.facts.paths import Paths
from doctor.facts.sockets import Listener, Sockets
from doctor.model import (
    Citation,
    Command,
    EditKey,
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
from doctor.places import SYSTEMD_RUNS
from doctor.registry import check

_KEY = "native.cgroupdriver"


def kept_down(containers: Containers | None, *words: str) -> tuple[Container, ...]:
    """Give the containers whose last start failed with one of these words."""
    found = containers.all if containers is not None else ()
    return tuple(one for one in found if not one.running and any(word in one.asked.error for word in words))


def again(down: tuple[Container, ...]) -> tuple[Step, ...]:
    """Start them once more."""
    return (Command(("docker", "start", *(one.engine_name for one in down))),) if down else ()


@check(
    "DMN024",
    Severity.ERROR,
    explains=("DMN016", "DMN032"),
    blocks_start=True,
    says=(
        "systemd not running on this host, cannot use systemd cgroups manager",
        "systemd cgroup flag passed, but systemd support for managing cgroups is not available",
        "native.cgroupdriver option ... not supported",
    ),
)
def cgroup_driver_unusable(
    options: Options,
    config: DaemonJson,
    daemon: Daemon,
    start: NextStart,
    info: EngineInfo | None,
    paths: Paths | None,
    containers: Containers | None,
) -> Iterator[Yield]:
    """native.cgroupdriver asks for systemd where none runs, or is no driver.

    ## What it is
    exec-opts says who makes the control groups of containers: `cgroupfs`, dockerd itself, or
    `systemd`, which then has to run as the first process of this host. Guides for Kubernetes
    set systemd; WSL, minimal images and hosts of OpenRC or runit have none.
    ## What you see
    dockerd starts, and no container does: "systemd not running on this host, cannot use
    systemd cgroups manager". Of another value: "native.cgroupdriver option X not supported".
    ## By hand
    docker info -f '{{.CgroupDriver}}'
    ls -d /run/systemd/system; ps -p 1 -o comm=
    ## Cure
    Take the option out, then restart Docker: it chooses by itself. Start what could not.
    ## Looks like
    CGR003 (systemd runs, and Docker makes its own groups), DMN021 (the runtime is not there)
    ## Limits
    That systemd answers on D-Bus is not tried.
    ## References
    dockerd(8) --exec-opt, moby daemon/daemon_unix.go verifyCgroupDriver, sd_booted(3)
    """
    origin = options.origin("exec-opts")
    words = options.value("exec-opts").split(",") if origin is not None else []
    asked = next((word.partition("=")[2] for word in words if word.partition("=")[0].lower() == _KEY), "")
    if origin is None or not asked:
        yield NotApplicable("no driver of control groups is asked for")
        return
    in_file = origin.source == "daemon.json"
    if asked not in {"cgroupfs", "systemd"}:
        if in_file or not daemon.pid:  # the dockerd that runs has accepted its flags
            yield _no_driver(asked, origin, config, start)
        return
    if asked != "systemd":
        return
    seen = paths.get(SYSTEMD_RUNS) if paths is not None else None
    if seen is None or seen.hidden:
        yield Unknown(_KEY, f"files: {SYSTEMD_RUNS} was not looked at")
        return
    if seen.type == "d":
        return
    applied = info is not None and info.driver == "systemd"
    down = kept_down(containers, "systemd")
    yield Finding(
        subject=_KEY,
        title="native.cgroupdriver is systemd, and no systemd runs here",
        message=f"{origin.where} has {_KEY}=systemd; {SYSTEMD_RUNS} is not there: the first process of this host is no"
        " systemd, and runc makes no group",
        evidence=(origin.cited, seen.cited, *((info.cited,) if info is not None and applied else ())),
        remedy=_mended(start, _taken_out(origin, config), down, applied=applied),
        severity=Severity.ERROR if applied or not daemon.pid else Severity.WARNING,
        hits=(
            Effect("no container starts" + ("" if applied else ", after the next start of dockerd")),
            *((Effect("cannot be started", tuple(one.name for one in down)),) if down else ()),
        ),
        works=(Effect("docker commands, and containers that run already"),) if daemon.pid else (),
        excluded=(Excluded("DMN021", "runc is there: it refuses"),),
    )


def _no_driver(asked: str, origin: Origin, config: ConfigFile, start: NextStart) -> Finding:
    return Finding(
        subject=_KEY,
        title=f"native.cgroupdriver {asked} is no driver",
        message=f"{origin.where} has {_KEY}={asked}; dockerd knows cgroupfs and systemd, and refuses to start",
        evidence=(origin.cited, *start.words(_KEY)),
        remedy=start.cure(_taken_out(origin, config), what=f"take {_KEY} out"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        since=start.written if origin.source == "daemon.json" else None,
    )


def _taken_out(origin: Origin, config: ConfigFile) -> Step:
    held = (config.data or {}).get("exec-opts")
    if origin.source != "daemon.json" or not isinstance(held, list):
        return config.change("exec-opts", origin)
    rest = [one for one in held if not (isinstance(one, str) and one.lower().startswith(_KEY))]
    return EditKey(config.path, "/exec-opts", json.dumps(rest) if rest else None)


def _mended(start: NextStart, edit: Step, down: tuple[Container, ...], *, applied: bool) -> Remedy:
    """Take it out, restart where it is in force; what it kept down is started once dockerd serves again."""
    cure = start.mend(f"take {_KEY} out", edit, in_force=applied)
    if not down:
        return cure
    return replace(cure, notes=(*cure.notes, f"then: docker start {' '.join(one.engine_name for one in down)}"))


_AT_START = re.compile("initialize logging driver: (.*)")
_WORDS = re.compile(
    r"dial \w+ (\S+): |(?:GELF endpoint|gelf: cannot connect to \S+): (\S+)|(syslog delivery error)|(journald is not enabled)"
)
"""How the drivers say that nobody takes a log: with the address, or, of what every host has one, without."""
_DEFAULT_ADDRESS = {"fluentd": "127.0.0.1:24224", "syslog": "/dev/log", "journald": "journald"}
_ADDRESS = {"fluentd": "fluentd-address", "gelf": "gelf-address", "syslog": "syslog-address"}
_TRUE = {"1", "t", "true", "True", "TRUE", "T"}


class _Receiver(Struct, frozen=True):
    """Who takes a log: `host` and `port` are empty and 0 for a socket file, or what is no TCP."""

    driver: str
    address: str
    host: str
    port: int


@check(
    "DMN040",
    Severity.ERROR,
    says=(
        "failed to initialize logging driver: dial tcp ...: connect: connection refused",
        "failed to initialize logging driver: dial unix",
        "failed to initialize logging driver: Unix syslog delivery error",
        "journald is not enabled on this host",
    ),
)
def log_receiver_gone(
    containers: Containers, options: Options, config: ConfigFile, daemon: Daemon, sockets: Sockets, links: Links | None
) -> Iterator[Yield]:
    """Nobody takes the log of a container at the address of its log driver: it does not start.

    ## What it is
    fluentd, and syslog and gelf over TCP, connect when a container starts; where that fails the
    start fails. A container that runs goes on when the receiver goes, and does not come back.
    ## What you see
    "failed to initialize logging driver: dial tcp 127.0.0.1:24224: connect: connection refused",
    of one container, or, where daemon.json has the driver, of each.
    ## By hand
    docker info -f '{{.LoggingDriver}}'
    docker inspect NAME -f '{{json .HostConfig.LogConfig}} {{.State.Error}}'; ss -ltn
    ## Cure
    Start what takes the log, then the containers. A receiver that is a container itself needs a
    log driver of its own (--log-driver json-file). So that it does not matter another time:
    fluentd-async true in log-opts, for containers made after that.
    ## Looks like
    DMN010 (an option that the driver does not take), DMN009 (json-file without a limit)
    ## Limits
    A receiver of this host is looked for among its sockets. One elsewhere is not asked: it counts
    by the words of a start that failed. UDP has no answer, and is never judged.
    ## References
    moby daemon/logger/fluentd, gelf, syslog; docs.docker.com/engine/logging
    """
    refused = _refused(containers)
    default = _receiver(options.value("log-driver"), options.log_options) if not options.unread else None
    if default is not None and daemon.pid and config.newer_than(daemon) and options.file.get("log-driver"):
        default = None  # not in force before the next start
    wanted: dict[tuple[str, str], _Receiver] = {}
    for one in (default, *(_receiver(one.asked.log_driver, one.asked.log_options) for one in containers.all)):
        if one is not None:
            wanted.setdefault((one.driver, one.address), one)
    if not wanted and not refused:
        yield NotApplicable("no log driver here connects when a container starts")
        return
    for key, receiver in wanted.items():
        down = tuple(one for one, said in refused if _same(said, one, receiver))
        here = _of_this_host(receiver.host, links)
        if here and sockets.missing:
            yield Unknown(receiver.address, f"listeners: {sockets.missing}")
            continue
        # Who listens now was started since: what a start said before is over.
        served = here and _served(receiver, sockets.host, containers)
        if served or not (here or down):
            continue
        everyone = default is not None and (default.driver, default.address) == key
        users = tuple(one for one in containers.all if _uses(one, receiver))
        yield _nobody(receiver, users, down, options, containers, everyone=everyone, here=here)


def _refused(containers: Containers) -> list[tuple[Container, str]]:
    """Give the containers that did not start for want of a receiver, and its address as the driver says it."""
    found = []
    for one in containers.all:
        said = _AT_START.search(one.asked.error) if not one.running else None
        match = _WORDS.search(said[1]) if said else None
        if match:
            found.append((one, match[1] or match[2] or ""))
    return found


def _receiver(driver: str, told: dict[str, str]) -> _Receiver | None:
    """Read who takes the log of a driver; None for one that does not connect at a start."""
    if driver not in {*_ADDRESS, "journald"}:
        return None
    if driver == "fluentd" and (told.get("fluentd-async") in _TRUE or told.get("fluentd-async-connect") in _TRUE):
        return None
    address = told.get(_ADDRESS.get(driver, ""), "") or _DEFAULT_ADDRESS.get(driver, "")
    kind, slashes, rest = address.partition("://")
    if not slashes:
        kind, rest = ("unix" if address.startswith("/") else "tcp"), address
    if kind not in {"tcp", "tcp+tls", "tls"} or driver == "journald":
        return None if kind == "udp" else _Receiver(driver, rest or address, "", 0)
    host, _, port = rest.rpartition(":") if re.search(r":\d+$", rest) else (rest, "", "24224")
    return _Receiver(driver, f"{host}:{port}", host.strip("[]"), int(port)) if len(port) < 6 else None  # noqa: PLR2004 - a port's digits


def _same(said: str, one: Container, receiver: _Receiver) -> bool:
    return _uses(one, receiver) or (bool(said) and said == receiver.address)


def _uses(one: Container, receiver: _Receiver) -> bool:
    its = _receiver(one.asked.log_driver, one.asked.log_options)
    return its is not None and (its.driver, its.address) == (receiver.driver, receiver.address)


def _of_this_host(host: str, links: Links | None) -> bool:
    if host == "localhost" or host.startswith("127.") or host in {"::1", "0.0.0.0"}:  # noqa: S104 - compared with
        return True
    return bool(host) and links is not None and any(host in link.bare for link in links.all)


def _served(receiver: _Receiver, listeners: tuple[Listener, ...], containers: Containers) -> bool:
    """Whether somebody takes what comes to the receiver's port, or a rule leads it into a container."""
    address = "127.0.0.1" if receiver.host in {"localhost", "0.0.0.0"} else receiver.host  # noqa: S104 - compared with
    taken = [one for one in listeners if one.protocol == "tcp" and one.port == receiver.port]
    if any(one.takes(address) or (receiver.host == "localhost" and one.takes("::1")) for one in taken):
        return True
    return any(port.host == receiver.port for one in containers.running for port in one.ports)


def _nobody(
    receiver: _Receiver,
    users: tuple[Container, ...],
    down: tuple[Container, ...],
    options: Options,
    containers: Containers,
    *,
    everyone: bool,
    here: bool,
) -> Finding:
    origin = options.origin("log-driver") if everyone else None
    seen = f"nobody listens on {receiver.address}" if here else f"{receiver.address} did not take it"
    cited = [one.cite(f'Error "{one.asked.error}"') for one in down[:2]]
    if here:
        cited.append(Citation("netns/host/listeners", 0, f"none on tcp port {receiver.port}", "listeners of this host"))
    steps = _start_it(receiver, containers)
    first = steps or (Note(f"start what takes the log of {receiver.driver} at {receiver.address}"),)
    running = tuple(one.name for one in users if one.running)
    hits = [Effect("no container starts that is made with the default log driver")] if everyone else []
    hits += [Effect("cannot be started", tuple(one.name for one in down))] if down else []
    hits += [Effect("would not start again", running)] if running else []
    return Finding(
        subject=f"{receiver.driver}:{receiver.address}",
        title=f"{seen}, where the log driver {receiver.driver} sends"
        + (": no container starts" if everyone else f" the log of {down[0].name if down else users[0].name}"),
        message=f"the log driver {receiver.driver} connects to {receiver.address} when a container starts, and {seen}",
        evidence=(*cited, *((origin.cited,) if origin is not None else ())),
        remedy=Remedy(
            "start what takes the log, then the containers",
            (*first, *again(down)),
            notes=("or let containers start without it: log-opts fluentd-async true, for those made after that",)
            if receiver.driver == "fluentd"
            else (),
        ),
        severity=Severity.ERROR if everyone or down else Severity.WARNING,
        hits=tuple(hits) or (Effect("would not start", tuple(one.name for one in users)),),
        works=(Effect("containers that run go on; what they print waits, or is lost"),) if running else (),
        excluded=(Excluded("DMN010", "the driver takes its options"),) if down else (),
    )


def _start_it(receiver: _Receiver, containers: Containers) -> tuple[Step, ...]:
    """Start the container that publishes the receiver's port and is down, where it does not log to itself."""
    for one in containers.all:
        published = any(port.host == receiver.port for port in one.asked.ports)
        if published and not one.running and not _uses(one, receiver):
            return (Command(("docker", "start", one.engine_name)),)
    return ()
