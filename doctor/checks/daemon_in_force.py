"""Does daemon.json say the same as the command line, and as what is in force?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import structs

from doctor.engine.options import (
    MERGED,
    OPTIONS,
    RELOADED,
    Type,
    format_known,
    level_known,
    runtime_known,
)
from doctor.facts.config import ConfigFile, DaemonJson, Options, Origin
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.networks import Networks
from doctor.facts.nextstart import NextStart
from doctor.model import (
    Command,
    EditKey,
    Effect,
    Excluded,
    Finding,
    Moment,
    NotApplicable,
    Remedy,
    Severity,
    Since,
    Unknown,
    Yield,
)
from doctor.registry import check


@check("DMN003", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def option_in_file_and_flag(
    options: Options, config: DaemonJson, daemon: Daemon, log: DaemonLog, start: NextStart
) -> Iterator[Yield]:
    r"""An option stands both in daemon.json and on dockerd's command line.

    ## What it is
    dockerd refuses to start when a key of daemon.json is given as a flag as well, even
    with the same value. Packages give flags: `-H fd://` (key `hosts`), sysconfig OPTIONS.
    ## What you see
    dockerd running: nothing, until the next start. Down: its log says "the following
    directives are specified both as a flag and in the configuration file: KEY".
    ## By hand
    cat /etc/docker/daemon.json
    tr '\0' ' ' </proc/$(pidof dockerd)/cmdline
    ## Cure
    Keep one of the two. To keep the file: a systemd drop-in with an empty `ExecStart=`
    and then the command without the flag; or take the flag out of /etc/default/docker.
    ## Looks like
    DMN001 (the file is no JSON at all)
    ## Limits
    What an outside supervisor would add to the next start is seen only where it is
    systemd or the init script. `runtimes` may stand in both: Docker merges them.
    ## References
    dockerd(8), moby daemon/config/config.go findConfigurationConflicts, moby issue 25471
    """
    if not config.exists or not options.file:
        yield NotApplicable(f"{config.path} sets nothing")
        return
    # What the last start was told counts only where the next one's command line is not known: a unit may have changed.
    told = _conflicts_in(log) if not daemon.pid and not (options.flags_from == "unit" and options.flags) else {}
    both = [key for key in options.file if (key in options.flags or key in told) and key not in MERGED]
    for key in both:
        in_file = options.file[key]
        flags = options.flags.get(key, ())
        flag_text = " ".join(one.text for one in flags) or f"the flag of {key}, {told.get(key, '')}".rstrip(", ")
        later = bool(flags) and config.newer_than(daemon)
        yield Finding(
            subject=f"{config.path}:{key}",
            title=f"{key} is set twice: in daemon.json and by {flag_text}",
            message=(
                f"{in_file.where} sets {key} to {in_file.value}, the command line has {flag_text}:"
                f" dockerd refuses to start with both"
            ),
            evidence=(in_file.cited, *(one.cited for one in flags), *start.words("both as a flag")),
            remedy=start.cure(EditKey(config.path, config.pointer(key), None)),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
            excluded=(Excluded("DMN001", f"{config.path} is JSON"),),
            since=start.written if later or not daemon.pid else None,
        )


_DIRECTIVE = re.compile(r"([a-z0-9-]+): \(from flag: (.*?), from file: ")


def _conflicts_in(log: DaemonLog) -> dict[str, str]:
    """Read the keys, and the flags' values, out of the words of a start that failed."""
    fatal = log.fatal
    if fatal is None or "both as a flag and in the configuration file" not in fatal.text:
        return {}
    return {match[1]: match[2] for match in _DIRECTIVE.finditer(fatal.text)}


_COMPARED: frozenset[Type] = frozenset({"bool", "string", "number", "list"})
_NOT_COMPARED = frozenset(
    {"data-root", "hosts", "default-shm-size", "default-address-pools", "dns", "exec-root", "pidfile"}
)
"""Keys that dockerd writes otherwise than they stand in the file, or that another check is about."""

_DEFAULT_TOLD = ("debug", "default-runtime", "experimental", "icc", "insecure-registries", "ip", "ip-masq", "labels")
_ALWAYS = (*_DEFAULT_TOLD, "live-restore", "log-driver", "mtu", "registry-mirrors")
"""Keys whose default is known and whose value in force the API tells: compared even where the file does not set them."""

_OF_THE_BRIDGE = {
    "icc": "com.docker.network.bridge.enable_icc",
    "ip": "com.docker.network.bridge.host_binding_ipv4",
    "ip-masq": "com.docker.network.bridge.enable_ip_masquerade",
    "mtu": "com.docker.network.driver.mtu",
}
"""Options of the network `bridge` that say what dockerd was told."""


@check("DMN013", Severity.WARNING)
def daemon_json_not_in_force(
    options: Options,
    config: DaemonJson,
    daemon: Daemon,
    networks: Networks | None,
    log: DaemonLog,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """daemon.json was changed after dockerd had read it, and says otherwise than what is in force.

    ## What it is
    dockerd reads its file when it starts. A reload (SIGHUP) takes a few keys anew (debug,
    labels, live-restore, mirrors, runtimes, ...); all others wait for the next start.
    ## What you see
    An option that is set and has no effect; and one day, after a restart for some other
    reason, containers that behave differently.
    ## By hand
    docker info
    stat -c %y /etc/docker/daemon.json; ps -o lstart= -p $(pidof dockerd)
    ## Cure
    kill -HUP where a reload takes every changed key: nothing stops. Else a restart, with
    its price; or take the change back.
    ## Looks like
    DMN002 (a key that sets nothing at all), DMN003 (the flag would win)
    ## Limits
    Compared is what the API tells, and after a reload what dockerd logged of itself. A file
    that is newer and says the same is no finding, nor one older than the start.
    ## References
    dockerd(8), moby daemon/reload.go, moby cmd/dockerd/daemon.go reloadConfig
    """
    if not daemon.pid or not config.exists:
        yield NotApplicable("dockerd does not run" if not daemon.pid else f"there is no {config.path}")
        return
    if config.data is None or not daemon.started or not config.newer_than(daemon):
        return  # DMN001 says the one; a file that is older was read
    running = options.running | _of_the_bridge(networks)
    if not running:
        yield Unknown(config.path, f"API: {daemon.why or 'it does not say what is in force'}")
        return
    differ = [
        (key, running[key])
        for key in sorted({*options.file, *_ALWAYS})
        if key in running and _differs(key, options, config, running[key])
    ]
    if differ:
        yield _stale(differ, options, config, daemon, log, lifecycle)


def _of_the_bridge(networks: Networks | None) -> dict[str, Origin]:
    network = next((one for one in networks.all if one.name == "bridge"), None) if networks else None
    if network is None:
        return {}
    found = {}
    for key, name in _OF_THE_BRIDGE.items():
        if name in network.options:
            cited = structs.replace(network.cited, excerpt=f"{name}: {network.options[name]}")
            found[key] = Origin(network.options[name], name, "network bridge", cited, "API")
    return found


def _differs(key: str, options: Options, config: ConfigFile, now: Origin) -> bool:
    """Whether what a start would take is something else than what is in force; secrets that were taken out are not compared."""
    option = OPTIONS.get(key)
    told = options.value(key)
    if key == "ip-masq" and not options.on("iptables"):
        told = "false"  # nobody could write the rule (moby daemon/daemon_unix.go)
    if option is None or option.type not in _COMPARED or key in _NOT_COMPARED or "\u00ab" in told + now.value:
        return False
    if _refused(key, told, options, config):
        return False  # of what no start takes, another check says so
    if option.type == "list":
        return _entries(told) != _entries(now.value)
    return told.lower() != now.value.lower()


def _refused(key: str, told: str, options: Options, config: ConfigFile) -> bool:
    if key == "log-level":
        return not level_known(told, options.release)
    if key == "log-format":
        return not format_known(told)
    configured = {*config.runtimes, *options.runtimes}
    return key == "default-runtime" and not runtime_known(told, configured, options.release)


def _entries(text: str) -> set[str]:
    return {one.removeprefix("http://").rstrip("/") for one in text.split(",") if one}


def _stale(
    differ: list[tuple[str, Origin]],
    options: Options,
    config: ConfigFile,
    daemon: Daemon,
    log: DaemonLog,
    lifecycle: Lifecycle,
) -> Finding:
    names = [key for key, _ in differ]
    said = "; ".join(
        f"{key} is {_word(now.value)}, a start would make it {_word(options.value(key))}" for key, now in differ
    )
    failed = next(
        (one for one in log.lines if one.at >= config.mtime and "rror reloading configuration" in one.text), None
    )
    evidence = []
    for key, now in differ:
        origin = options.origin(key)
        evidence += [origin.cited if origin else config.cite(0), now.cited]
    reload = Command(("kill", "-HUP", str(daemon.pid)))
    taken = [key for key in names if key in RELOADED]
    if len(taken) == len(names):
        # A reload does not see that a key has gone: it has to be told the default.
        gone = tuple(
            EditKey(config.path, f"/{key}", _as_json(key, options.value(key)))
            for key in names
            if key not in options.file and key not in options.flags
        )
        remedy = Remedy("let dockerd read its file again: nothing stops", (*gone, reload))
    else:
        late = ", ".join(key for key in names if key not in RELOADED)
        also = (f"a reload (kill -HUP {daemon.pid}) takes {', '.join(taken)} at once",) if taken else ()
        remedy = lifecycle.remedy(
            f"restart dockerd, a reload does not take {late}; or take the change back", notes=also
        )
    return Finding(
        subject=config.path,
        title=f"daemon.json is newer than what runs: {', '.join(names)}",
        message=f"{config.path} was written after dockerd had started: {said}",
        evidence=(*evidence, *((failed.cited,) if failed else ())),
        remedy=remedy,
        hits=(
            Effect("what the file says is not in force:", tuple(names)),
            Effect("the next start of dockerd changes it, for whatever reason it comes"),
        ),
        works=(Effect("dockerd runs on with what it read when it started"),),
        since=Since(
            earliest=Moment(daemon.started, "dockerd started"),
            latest=config.written,
            exact=True,
        ),
    )


def _word(value: str) -> str:
    return (value if len(value) <= 60 else value[:57] + "...") or "empty"  # noqa: PLR2004 - of a line


def _as_json(key: str, value: str) -> str:
    kind = OPTIONS[key].type
    if kind == "list":
        return json.dumps([one for one in value.split(",") if one])
    return value if kind in {"bool", "number"} else json.dumps(value)
