"""What words the options of the log have: would dockerd start with them?"""

from __future__ import annotations

from collections.abc import Iterator

from doctor.engine.options import LOG_LEVELS, NOT_KNOWN, OPTIONS, Release, format_known, level_known
from doctor.facts.config import DaemonJson, Options, Origin
from doctor.facts.daemon import Daemon
from doctor.facts.nextstart import NextStart
from doctor.model import (
    Finding,
    NotApplicable,
    Severity,
    Yield,
)
from doctor.registry import check

FORMAT_SINCE: Release = OPTIONS["log-format"].since

_WORDS = {
    "critical": "fatal",
    "err": "error",
    "notice": "info",
    "verbose": "debug",
    "warning": "warn",
    "warnings": "warn",
    "all": "trace",
    "none": "panic",
}


def _told(options: Options, key: str, daemon: Daemon) -> Origin | None:
    """Give what sets a key for the next start; flags of a dockerd that runs it has accepted."""
    origin = options.origin(key)
    return None if origin is None or (origin.source != "daemon.json" and daemon.pid) else origin


@check(
    "DMN005",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "logging level must be one of",
        "not a valid logrus Level",
    ),
)
def log_level_unknown(options: Options, config: DaemonJson, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """log-level is none of the levels that dockerd knows.

    ## What it is
    dockerd takes panic, fatal, error, warn, info, debug and trace, in any case of letters,
    and up to 24 `warning` too. It refuses to start with any other.
    ## What you see
    dockerd running: nothing, until the next start. Down: "invalid logging level: X" in
    its log, or, of 20.10, "unable to parse logging level: X".
    ## By hand
    dockerd --validate --config-file /etc/docker/daemon.json
    grep -rs log-level /etc/docker/daemon.json /etc/default/docker
    ## Cure
    Give it a level of the list; then start dockerd if it is down. The level is read at a
    start only: a reload takes `debug`, and not `log-level`.
    ## Looks like
    DMN007 (the format of the log), DMN006 (a level that is known and loud)
    ## Limits
    The command line of the next start is known where systemd or the init script gives it.
    An upgrade to 25 turns `warning` into this.
    ## References
    dockerd(8), moby daemon/config/config.go Validate, containerd log package SetLevel
    """
    origin = _told(options, "log-level", daemon)
    if origin is None:
        return
    level = origin.value.lower()
    if level_known(level, daemon.generation):
        return
    from difflib import get_close_matches

    near = _WORDS.get(level) or next(iter(get_close_matches(level, LOG_LEVELS, n=1)), "info")
    yield Finding(
        subject="log-level",
        title=f"log-level {origin.value} is no level",
        message=f"{origin.where} sets log-level to {origin.value}; dockerd knows {', '.join(LOG_LEVELS)},"
        " and refuses to start",
        evidence=(origin.cited, *start.words("logging level")),
        remedy=start.cure(config.change("log-level", origin, near), what=f"make it {near}"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        since=start.written if origin.source == "daemon.json" else None,
    )


@check("DMN007", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def log_format_unknown(options: Options, config: DaemonJson, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """log-format is neither text nor json.

    ## What it is
    From 25 on dockerd writes its own log as `text` (the default) or `json`, both in lower
    case. It refuses to start with anything else.
    ## What you see
    dockerd running: nothing, until the next start. Down: "invalid log format: X" in its
    log.
    ## By hand
    dockerd --validate --config-file /etc/docker/daemon.json
    grep -rs log-format /etc/docker/daemon.json /etc/default/docker
    ## Cure
    Make it text or json; then start dockerd if it is down. That is the format of dockerd's
    own log: how containers log is `log-driver`.
    ## Looks like
    DMN005 (the level of the log), DMN002 (before 25 the key itself is unknown)
    ## Limits
    The command line of the next start is known where systemd or the init script gives it.
    A running dockerd keeps the format that it was started with.
    ## References
    dockerd(8), moby daemon/config/config.go Validate
    """
    if NOT_KNOWN < daemon.generation < FORMAT_SINCE:
        yield NotApplicable(f"Docker {daemon.version} has no log-format")
        return
    origin = _told(options, "log-format", daemon)
    if origin is None or format_known(origin.value):
        return
    near = "json" if "js" in origin.value.lower() else "text"
    yield Finding(
        subject="log-format",
        title=f"log-format {origin.value} is no format",
        message=f"{origin.where} sets log-format to {origin.value}; dockerd knows text and json, and refuses to start",
        evidence=(origin.cited, *start.words("log format")),
        remedy=start.cure(config.change("log-format", origin, near), what=f"make it {near}"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        since=start.written if origin.source == "daemon.json" else None,
    )
