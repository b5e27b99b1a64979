"""Would dockerd start with the configuration it has? The file as JSON, and the file against the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from doctor.engine.options import MERGED, OPTIONS, Type
from doctor.facts.config import ConfigFile, Options, SyntaxFault, check_text
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.lifecycle import Lifecycle
from doctor.model import (
    Citation,
    Edit,
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

_GO_TYPES: dict[str, type] = {"bool": bool, "string": str, "number": int, "list": list, "map": dict}
_NAMES: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number with a point",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_MEMBERS: dict[str, Type] = {
    "default-address-pools": "map",
    "default-network-opts": "map",
    "default-ulimits": "map",
    "features": "bool",
    "log-opts": "string",
    "runtimes": "map",
}
"""What the values inside a list or an object have to be; in the lists that are not named, strings."""


def _down_or_later(daemon: Daemon) -> tuple[Severity, tuple[Effect, ...], tuple[Effect, ...]]:
    """Give severity, hits and works of a configuration that dockerd refuses."""
    if daemon.pid:
        return (
            Severity.WARNING,
            (Effect("the next start of dockerd fails: at the latest after the next boot or upgrade"),),
            (Effect("dockerd runs on with what it read when it started"),),
        )
    return Severity.ERROR, (Effect("dockerd does not start: no docker command works"),), ()


def _since(config: ConfigFile) -> Since | None:
    if not config.mtime:
        return None
    written = Moment(config.mtime, f"{config.path.rpartition('/')[2]} written", config.cite(0))
    return Since(latest=written, exact=True)


def _cure(daemon: Daemon, lifecycle: Lifecycle, *edits: Step) -> Remedy:
    """Mend the file; start dockerd where it is down."""
    if daemon.pid:
        return Remedy("mend the file", edits, notes=("do not restart Docker before that",))
    return lifecycle.starting("mend the file, then start dockerd", (*edits, *lifecycle.start))


def _last_words(log: DaemonLog, *words: str) -> tuple[Citation, ...]:
    fatal = log.fatal
    return (fatal.cited,) if fatal and any(word in fatal.text for word in words) else ()


@check("DMN001", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def daemon_json_unreadable(config: ConfigFile, daemon: Daemon, log: DaemonLog, lifecycle: Lifecycle) -> Iterator[Yield]:
    """The daemon cannot read daemon.json: it is no JSON, or a value has the wrong type.

    ## What it is
    dockerd reads daemon.json when it starts and refuses to start when the text is no
    strict JSON, or a key holds a value of another type than the option has.
    ## What you see
    dockerd running: nothing, until the next start. Down: "Cannot connect to the Docker
    daemon"; its log says "unable to configure the Docker daemon with file ...".
    ## By hand
    dockerd --validate --config-file /etc/docker/daemon.json
    python3 -m json.tool /etc/docker/daemon.json
    ## Cure
    Correct the line; then start dockerd if it is down. A running dockerd survives a
    broken file (a reload logs the error and goes on), a restart does not.
    ## Looks like
    DMN003 (an option both in the file and on the command line: the file is JSON then)
    ## Limits
    `--validate` came with 23. 20.10 refuses an empty file and takes what follows the object,
    later ones do the opposite. Keys that Docker does not know are not judged.
    ## References
    dockerd(8), moby daemon/config/config.go getConflictFreeConfiguration, RFC 8259
    """
    if config.unread:
        yield Unknown(config.path, config.unread)
        return
    if not config.exists:
        yield NotApplicable(f"there is no {config.path}")
        return
    severity, hits, works = _down_or_later(daemon)
    wrong = config.fault
    if wrong is not None and _refuses(config.text, daemon.generation):
        place = f"{config.path}:{wrong.line}:{wrong.column}"
        mended = _mended(config, wrong)
        steps: tuple[Step, ...] = mended or (Note(f"correct {config.path}, line {wrong.line}: {wrong.what}"),)
        yield Finding(
            subject=config.path,
            title=f"daemon.json is no JSON: line {wrong.line}: {wrong.what}",
            message=f"{place}: {wrong.what}; dockerd refuses to start with this file",
            evidence=(config.cite(wrong.line), *_last_words(log, "unable to configure")),
            remedy=_cure(daemon, lifecycle, *steps),
            severity=severity,
            hits=hits,
            works=works,
            excluded=(Excluded("DMN003", "a text that is no JSON is refused before its keys are compared"),),
            since=_since(config),
        )
    elif wrong is None and config.data is None and config.text.strip() not in {"", "null"}:
        yield Finding(
            subject=config.path,
            title="daemon.json holds no object",
            message=f"{config.path}: the text is JSON, but no object in {{ }}: dockerd refuses to start with it",
            evidence=(config.cite(1), *_last_words(log, "unable to configure")),
            remedy=_cure(daemon, lifecycle, Note(f"put the settings of {config.path} into one object")),
            severity=severity,
            hits=hits,
            works=works,
            since=_since(config),
        )
    for key, value in (config.data or {}).items():
        wrong_type = _mistyped(key, value) if key in OPTIONS and value is not None else None
        if wrong_type is None:
            continue
        line = config.line_of(wrong_type.member) or config.line_of(key)
        step: Step = (
            EditKey(config.path, "/" + key, wrong_type.meant)
            if wrong_type.meant
            else Note(f"{config.path}, line {line}: make the value of {wrong_type.what} {wrong_type.should}")
        )
        said = f"{wrong_type.what} is {wrong_type.is_now}, and has to be {wrong_type.should}"
        yield Finding(
            subject=f"{config.path}:{key}",
            title=f"daemon.json: {said}",
            message=f"{config.path}:{line}: {said}: dockerd refuses to start",
            evidence=(config.cite(line), *_last_words(log, "cannot unmarshal")),
            remedy=_cure(daemon, lifecycle, step),
            severity=severity,
            hits=hits,
            works=works,
            since=_since(config),
        )


def _refuses(text: str, generation: tuple[int, int]) -> bool:
    """Whether this generation refuses a text with a fault: an empty one only up to 20.10 (seen there, on 26.1 and 28.5)."""
    return bool(text.strip()) or (0, 0) < generation < (23, 0)


class _Mistyped(Struct, frozen=True):
    """A value of the wrong type: which (and its own name inside the key), what it is, what it has to be, what was meant.

    `meant` is the JSON text of the whole key, empty where that is a guess.
    """

    what: str
    member: str
    is_now: str
    should: str
    meant: str


def _mistyped(key: str, value: object) -> _Mistyped | None:
    """Judge a value as Go's decoder does, members included (each type seen refused on 20.10.24, 26.1.5 and 28.5.2)."""
    kind: Type = "string" if key == "default-shm-size" else OPTIONS[key].type  # "64M"; a number is refused
    if type(value) is not _GO_TYPES[kind]:
        return _Mistyped(key, key, _NAMES[type(value)], _NAMES[_GO_TYPES[kind]], _as_wanted(kind, value) or "")
    inner = _MEMBERS.get(key, "string" if kind == "list" else None)
    if inner is None:
        return None
    held: dict[Any, Any] = (
        value if isinstance(value, dict) else dict(enumerate(value if isinstance(value, list) else (), 1))
    )
    wrong = {name: one for name, one in held.items() if one is not None and type(one) is not _GO_TYPES[inner]}
    if not wrong:
        return None
    first = next(iter(wrong))
    meant = {name: json.loads(_as_wanted(inner, one) or "null") if name in wrong else one for name, one in held.items()}
    known = all(meant[name] is not None for name in wrong)
    return _Mistyped(
        what=f"{first} in {key}" if kind == "map" else f"item {first} of {key}",
        member=first if kind == "map" else key,
        is_now=_NAMES[type(wrong[first])],
        should=_NAMES[_GO_TYPES[inner]],
        meant=json.dumps(meant if kind == "map" else list(meant.values())) if known else "",
    )


def _as_wanted(kind: str, value: object) -> str | None:
    """Give the JSON text of a value turned into the type that was meant, None when that is a guess."""
    if kind == "bool" and isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower()
    if kind == "number" and isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value):
        return value
    if kind == "number" and isinstance(value, float) and value.is_integer():
        return str(int(value))
    if kind == "list" and isinstance(value, str) and '"' not in value and "\\" not in value:
        return f'["{value}"]'
    if kind == "string" and isinstance(value, (int, float)):
        return f'"{json.dumps(value)}"'
    return None


def _mended(config: ConfigFile, wrong: SyntaxFault) -> tuple[Step, ...]:
    """Give the edit of one line that makes the text JSON, when one of the usual slips is all that is wrong."""
    lines = config.text.split("\n")
    if not config.text.strip():
        return (Edit(config.path, 1, lines[0], "{}"),)
    for number, new in _candidates(lines, wrong):
        after = [*lines]
        after[number - 1] = new
        if check_text("\n".join(after)) is None:
            return (Edit(config.path, number, lines[number - 1], new),)
    return ()


def _candidates(lines: list[str], wrong: SyntaxFault) -> Iterator[tuple[int, str]]:
    """Give line numbers and what they could have been meant to be, likeliest first."""
    here = wrong.line
    line = lines[here - 1]
    column = wrong.column - 1
    above = next((number for number in range(here - 1, 0, -1) if lines[number - 1].strip()), 0)
    yield here, re.sub(r",(\s*[}\]])", r"\1", line)
    yield here, line.removeprefix("\ufeff")
    if above:
        yield above, lines[above - 1].rstrip().removesuffix(",")
        yield above, lines[above - 1].rstrip() + ","
    before = line[:column].rstrip()
    yield here, f"{before}, {line[column:]}"
    yield here, before.removesuffix(",") + line[column:]
    yield here, re.sub("[\u201c\u201d\u201e\u201f]", '"', line)
    yield here, line.replace("'", '"')
    yield here, re.sub(r"\s*(//|#).*$", "", line)
    last = len(lines) - next((back for back, text in enumerate(reversed(lines)) if text.strip()), 0)
    for closing in ("}", "]", "]}", "}}", '"}'):
        yield last, lines[last - 1].rstrip() + closing
    yield here, line[:column].rstrip()


@check("DMN003", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def option_in_file_and_flag(
    options: Options, config: ConfigFile, daemon: Daemon, log: DaemonLog, lifecycle: Lifecycle
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
    if config.unread:
        yield Unknown(config.path, config.unread)
        return
    if not config.exists or not options.file:
        yield NotApplicable(f"{config.path} sets nothing")
        return
    # What the last start was told counts only where the next one's command line is not known: a unit may have changed.
    told = _conflicts_in(log) if not daemon.pid and not (options.flags_from == "unit" and options.flags) else {}
    both = [key for key in options.file if (key in options.flags or key in told) and key not in MERGED]
    severity, hits, works = _down_or_later(daemon)
    for key in both:
        in_file = options.file[key]
        flags = options.flags.get(key, ())
        flag_text = " ".join(one.text for one in flags) or f"the flag of {key}, {told.get(key, '')}".rstrip(", ")
        later = bool(flags) and daemon.pid and config.mtime > daemon.started
        yield Finding(
            subject=f"{config.path}:{key}",
            title=f"{key} is set twice: in daemon.json and by {flag_text}",
            message=(
                f"{in_file.where} sets {key} to {in_file.value}, the command line has {flag_text}:"
                f" dockerd refuses to start with both"
            ),
            evidence=(in_file.cited, *(one.cited for one in flags), *_last_words(log, "both as a flag")),
            remedy=_cure(daemon, lifecycle, EditKey(config.path, "/" + key, None)),
            severity=severity,
            hits=hits,
            works=works,
            excluded=(Excluded("DMN001", f"{config.path} is JSON"),),
            since=_since(config) if later or not daemon.pid else None,
        )


_DIRECTIVE = re.compile(r"([a-z0-9-]+): \(from flag: (.*?), from file: ")


def _conflicts_in(log: DaemonLog) -> dict[str, str]:
    """Read the keys, and the flags' values, out of the words of a start that failed."""
    fatal = log.fatal
    if fatal is None or "both as a flag and in the configuration file" not in fatal.text:
        return {}
    return {match[1]: match[2] for match in _DIRECTIVE.finditer(fatal.text)}
