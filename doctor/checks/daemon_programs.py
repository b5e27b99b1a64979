"""Programs that options name, or that dockerd looks for: are they there, and do containers start?"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from doctor.engine.options import NOT_KNOWN, Release, runtime_known
from doctor.facts.config import ConfigFile, DaemonJson, Options, Origin
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
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

PROXY_CHECKED: Release = (25, 0)
"""The first release that looks at userland-proxy-path when it starts; earlier ones fail when a port is published."""

PACKAGES = {
    "runc": "containerd.io of Docker, runc of Debian, Ubuntu and Fedora; nothing that runs stops",
    "containerd-shim-runc-v2": "containerd.io of Docker, containerd of Debian and Ubuntu",
    "docker-init": "docker-ce of Docker, docker.io of Debian and Ubuntu",
    "docker-proxy": "docker-ce of Docker, docker.io of Debian and Ubuntu",
}
"""The packages that have the programs of an engine."""

SHIM = "io.containerd.runc.v2"
"""The shim by which runc is started, whatever the default runtime is called."""

_NO_START = "no container starts, docker exec and health checks fail"


class _Wrong(Struct, frozen=True):
    """What is wrong with a runtime. `refused`: dockerd does not start with it."""

    subject: str
    title: str
    said: str
    refused: bool
    steps: tuple[Step, ...]
    cited: tuple[Citation, ...]
    only: str = ""
    """The runtime that only containers which ask for it have; empty for the default one."""


@check(
    "DMN021",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "unknown or invalid runtime name",
        "invalid runtime name",
        "fork/exec ... no such file or directory: unknown",
        "exec: runc: executable file not found in $PATH",
        "exec: docker-init: executable file not found in $PATH",
        "failed to start shim: start failed: fork/exec ... containerd-shim-runc-v2: no such file or directory",
    ),
)
def runtime_missing(
    options: Options,
    config: DaemonJson,
    daemon: Daemon,
    start: NextStart,
    paths: Paths | None,
    places: Places,
    containers: Containers | None,
) -> Iterator[Yield]:
    """The default runtime is not configured, or the program of a runtime is not there.

    ## What it is
    `default-runtime` names runc, a key of `runtimes`, or from 23 on a shim of containerd
    (io.containerd.NAME.v2). A runtime has a path, or from 23 on a runtimeType. Programs:
    runc, containerd-shim-runc-v2, and docker-init for containers made with --init.
    ## What you see
    "specified default runtime 'X' does not exist" and no dockerd; or dockerd runs and no
    container starts: "fork/exec /X: no such file or directory", or "executable file not found".
    ## By hand
    docker info -f '{{.DefaultRuntime}} {{json .Runtimes}}'
    type runc containerd-shim-runc-v2 docker-init
    ## Cure
    Set default-runtime to runc, which a reload takes: nothing stops. Or install the
    program where the file says that it is; a program of Docker's own is in its package.
    ## Looks like
    DMN001 (a value of the wrong type); a container's own command that is missing (127 too)
    ## Limits
    Whether the program works is not tried. Programs are looked for in the PATH of dockerd
    and in the usual folders, and only while it runs.
    ## References
    dockerd(8), moby daemon/runtime_unix.go setupRuntimes, containerd runtime/v2/shim
    """
    held = config.runtimes
    origin = options.origin("default-runtime")
    if daemon.pid and places.programs:
        yield from _programs(options, config, places, paths, containers)
    elif not held and origin is None:
        yield NotApplicable("no runtime but the default one is configured, and dockerd does not run")
        return
    for wrong in (
        *_default_runtime(origin, options, config, daemon),
        *(one for name in held for one in _runtime(name, options, config, daemon)),
    ):
        yield _runtime_finding(wrong, start)
    programs = {name: one.get("path") for name, one in held.items() if name != "runc"}
    for name, program in programs.items():
        if not isinstance(program, str) or not program:
            continue
        if paths is None:
            yield Unknown("runtimes", "files: what the configuration names was not looked at")
            break
        seen = paths.program(program)
        if seen is not None and seen.hidden:
            yield Unknown(f"runtimes:{name}", f"files: {seen.path}: {seen.why}")
        elif seen is not None and not seen.runs:
            yield _no_program(name, program, seen, options, config, daemon)


def _programs(
    options: Options, config: ConfigFile, places: Places, paths: Paths | None, containers: Containers | None
) -> Iterator[Yield]:
    """Judge what dockerd and its containerd start beside what the configuration names."""
    default = options.value("default-runtime")
    path = config.runtimes.get(default, {}).get("path")
    if default in {"", "runc", SHIM}:
        yield from _gone("runc", _NO_START, Severity.ERROR, places, paths)
    if default in {"", "runc", SHIM} or path:
        yield from _gone("containerd-shim-runc-v2", "no container starts", Severity.ERROR, places, paths)
    if options.value("init-path"):
        return
    users = tuple(one.name for one in containers.all if one.asked.init) if containers is not None else ()
    severity = Severity.ERROR if users or options.on("init") else Severity.INFO
    yield from _gone("docker-init", "no container with --init starts", severity, places, paths, users)


def _gone(
    name: str, said: str, severity: Severity, places: Places, paths: Paths | None, users: tuple[str, ...] = ()
) -> Iterator[Finding | Unknown]:
    """Find a program that dockerd does not find, or may not run."""
    seen = paths.get(places.programs.get(name, "")) if paths is not None else None
    if seen is None or seen.runs:
        if seen is None:
            yield Unknown(name, f"files: where {name} is was not looked at")
        return
    if seen.hidden or (seen.type == "-" and not places.searched):
        yield Unknown(
            name, f"files: {seen.path}: {seen.why}" if seen.hidden else "files: the PATH of dockerd was not read"
        )
        return
    nowhere = seen.type == "-"
    cited = (
        Citation(
            "engine/places", 0, f"PATH={places.searched}, and it is in none of them", f"/proc/{places.pid}/environ"
        )
        if nowhere
        else seen.cited
    )
    yield Finding(
        subject=f"program:{name}",
        title=f"{name} {'is nowhere in the PATH of dockerd' if nowhere else seen.unfit}: {said}",
        message=f"dockerd starts {name}, which "
        + ("is in no folder of its PATH" if nowhere else f"{seen.unfit}: {seen.path}")
        + f": {said}",
        evidence=(cited,),
        remedy=Remedy("make it runnable", (Command(("chmod", "0755", seen.path)),))
        if seen.type == "f"
        else Remedy("install it again", (Note(f"install the package that has {name} again: {PACKAGES[name]}"),)),
        severity=severity,
        hits=(Effect(said, users),),
        works=(Effect("containers that run go on"),),
        excluded=(Excluded("DMN016", "dockerd answers"),) if severity is Severity.ERROR else (),
    )


def _default_runtime(origin: Origin | None, options: Options, config: ConfigFile, daemon: Daemon) -> Iterator[_Wrong]:
    if origin is None or (origin.source != "daemon.json" and daemon.pid):
        return
    name = origin.value
    if runtime_known(name, {*config.runtimes, *options.runtimes}, daemon.generation):
        return
    yield _Wrong(
        "default-runtime",
        f"default-runtime {name} is no runtime of this engine",
        f"{origin.where} sets default-runtime to {name}, and runtimes has {', '.join(sorted(config.runtimes)) or 'nothing'}:"
        " dockerd refuses to start",
        refused=True,
        steps=(config.change("default-runtime", origin),),
        cited=(origin.cited,),
    )


def _runtime(name: str, options: Options, config: ConfigFile, daemon: Daemon) -> Iterator[_Wrong]:
    """Judge one of `runtimes` as dockerd does when it starts (26.1.5 and 28.5.2 refuse all three, 20.10.24 the first)."""
    one = config.runtimes[name]
    line = config.line_of(name)
    new = daemon.generation == NOT_KNOWN or daemon.generation >= (24, 0)
    if name == "runc":
        what, said = "the name runc is reserved", "runtime name 'runc' is reserved"
    elif new and one.get("path") and one.get("runtimeType"):
        what, said = "has both a path and a runtimeType", "cannot configure both path and runtimeType"
    elif new and not one.get("path") and not one.get("runtimeType"):
        what, said = "has neither a path nor a runtimeType", "either a runtimeType or a path must be configured"
    else:
        return
    steps: tuple[Step, ...] = (config.member("runtimes", name),)
    default = options.origin("default-runtime")
    if default is not None and default.value == name and name != "runc":
        steps += (config.change("default-runtime", default),)
    yield _Wrong(
        f"runtimes:{name}",
        f"runtime {name}: {what}",
        f"{config.path}:{line}: runtime {name}: {said}: dockerd refuses to start",
        refused=True,
        steps=steps,
        cited=(config.cite(line),),
    )


def _runtime_finding(wrong: _Wrong, start: NextStart) -> Finding:
    return Finding(
        subject=wrong.subject,
        title=wrong.title,
        message=wrong.said,
        evidence=(*wrong.cited, *start.words("untime")),
        remedy=start.cure(
            *wrong.steps, what="go back to runc" if wrong.subject == "default-runtime" else "take it out"
        ),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        since=start.written,
    )


def _no_program(name: str, program: str, seen: Seen, options: Options, config: ConfigFile, daemon: Daemon) -> Finding:
    """The program of a runtime is not there: dockerd does not mind, and no container of it starts."""
    line = config.line_of(name)
    now = options.running.get("default-runtime")
    default = options.value("default-runtime") == name
    applied = bool(daemon.pid) and (now.value == name if now else not config.newer_than(daemon))
    origin = options.origin("default-runtime")
    steps: tuple[Step, ...] = (config.member("runtimes", name),)
    notes: tuple[str, ...] = (f"or install {program}: then nothing has to be changed",)
    summary = f"take runtime {name} out"
    if seen.type == "f":
        steps, notes, summary = (Command(("chmod", "0755", seen.path)),), (), "make it runnable"
    elif default and origin is not None:
        # A reload does not see that a key has gone: it has to be given a value.
        steps = (config.change("default-runtime", origin, "runc"), *steps)
        summary = "let containers start with runc"
    if seen.type != "f" and daemon.pid:
        steps += (Command(("kill", "-HUP", str(daemon.pid))),)
    whom = "container" if default else f"container with runtime {name}"
    return Finding(
        subject=f"runtimes:{name}",
        title=f"runtime {name}: {program} {seen.unfit}",
        message=f"{config.path}:{line}: the program of runtime {name}, {program}, {seen.unfit}"
        + (", and it is the default" if default else ""),
        evidence=(config.cite(line), seen.cited),
        remedy=Remedy(summary, steps, notes=notes),
        severity=Severity.ERROR if default and applied else Severity.WARNING,
        hits=(Effect(f"no {whom} starts: fork/exec {program} fails"),),
        works=(Effect("containers that run go on"),),
        excluded=(Excluded("DMN001", f"{config.path} is JSON"),),
    )


@check(
    "DMN022",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "userland-proxy-path is not set",
        "exec: ... docker-proxy: executable file not found in $PATH",
        "failed to start userland proxy ... docker-proxy: no such file or directory",
    ),
)
def userland_proxy_path(
    options: Options, config: DaemonJson, daemon: Daemon, start: NextStart, paths: Paths | None, places: Places
) -> Iterator[Yield]:
    """userland-proxy-path leads to no program, or docker-proxy is nowhere.

    ## What it is
    With userland-proxy on, dockerd starts docker-proxy for each published port. A path of
    one's own has to be absolute and lead to a program; from 25 on dockerd looks at it.
    ## What you see
    From 25 on: "invalid userland-proxy-path" and no dockerd. Before: no container with a
    published port starts: "driver failed programming external connectivity".
    ## By hand
    grep -s userland-proxy /etc/docker/daemon.json
    ls -l $(which docker-proxy)
    ## Cure
    Take the key out, so that docker-proxy is found in PATH; or switch userland-proxy off.
    Where it is nowhere: install the package that has it again.
    ## Looks like
    NET038 (docker-proxy is there and does not run)
    ## Limits
    Without the key it is looked for in the PATH of dockerd and the libexec folders, while
    dockerd runs. With userland-proxy off nothing is looked at, by dockerd or here.
    ## References
    dockerd(8), moby daemon/config/config_linux.go verifyUserlandProxyConfig
    """
    origin = options.origin("userland-proxy-path")
    if not options.on("userland-proxy"):
        yield NotApplicable("userland-proxy is off")
        return
    if origin is None or not origin.value:
        if daemon.pid and places.programs:
            yield from _gone("docker-proxy", "no container with a published port starts", Severity.ERROR, places, paths)
        else:
            yield NotApplicable("docker-proxy is looked up in PATH")
        return
    path = origin.value
    evidence: tuple[Citation, ...]
    if not path.startswith("/"):
        said, evidence = "is no absolute path", (origin.cited,)
    elif paths is None:
        yield Unknown("userland-proxy-path", "files: what the configuration names was not looked at")
        return
    else:
        seen = paths.get(path)
        if seen is None or seen.runs:
            return
        if seen.hidden:
            yield Unknown("userland-proxy-path", f"files: {path}: {seen.why}")
            return
        said, evidence = seen.unfit, (origin.cited, seen.cited)
    edit = config.change("userland-proxy-path", origin)
    if NOT_KNOWN < daemon.generation < PROXY_CHECKED:
        yield _no_port_starts(path, said, evidence, edit, daemon, config, start)
        return
    yield Finding(
        subject="userland-proxy-path",
        title=f"userland-proxy-path: {path} {said}",
        message=f"{origin.where}: userland-proxy-path {path} {said}: dockerd refuses to start",
        evidence=(*evidence, *start.words("userland-proxy-path")),
        remedy=start.cure(edit, what="let docker-proxy be found in PATH"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        since=start.written if origin.source == "daemon.json" else None,
    )


def _no_port_starts(
    path: str,
    said: str,
    evidence: tuple[Citation, ...],
    edit: Step,
    daemon: Daemon,
    config: ConfigFile,
    start: NextStart,
) -> Finding:
    """Up to 24 dockerd starts all the same, and no container that publishes a port does."""
    applied = bool(daemon.pid) and not config.newer_than(daemon)
    return Finding(
        subject="userland-proxy-path",
        title=f"userland-proxy-path: {path} {said}",
        message=f"userland-proxy-path {path} {said}: no container with a published port starts",
        evidence=evidence,
        remedy=start.mend("let docker-proxy be found in PATH", edit, in_force=applied),
        severity=Severity.ERROR if applied else Severity.WARNING,
        hits=(
            Effect(
                "no container with a published port starts" + ("" if applied else ", after the next start of dockerd")
            ),
        ),
        works=(Effect("containers that run go on, and those without published ports"),),
    )
