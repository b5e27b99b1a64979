"""What daemon.json says: is it JSON, and are its keys options?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from doctor.engine.options import (
    FLAGS,
    FLAT,
    LOG_OPTIONS,
    LOG_OPTIONS_OF_ALL,
    OPTIONS,
    RELOADED,
    RENAMED,
    Release,
    Type,
    standing,
)
from doctor.facts.config import ConfigFile, DaemonJson
from doctor.facts.daemon import Daemon
from doctor.facts.nextstart import NextStart
from doctor.facts.strict_json import SyntaxFault, check_text
from doctor.model import (
    Command,
    Edit,
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
    "proxies": "string",
    "runtimes": "map",
}
"""What the values inside a list or an object have to be; in the lists that are not named, strings."""


@check(
    "DMN001",
    Severity.ERROR,
    explains=("DMN016",),
    blocks_start=True,
    says=(
        "unable to configure the Docker daemon with file ... invalid character",
        "unable to configure the Docker daemon with file ... EOF",
        "unable to configure the Docker daemon with file ... cannot unmarshal",
        "invalid character ... looking for beginning of",
        "invalid character ... after object key",
    ),
)
def daemon_json_unreadable(config: DaemonJson, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
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
    later ones do the opposite. Keys that Docker does not know are DMN002's.
    ## References
    dockerd(8), moby daemon/config/config.go getConflictFreeConfiguration, RFC 8259
    """
    if not config.exists:
        yield NotApplicable(f"there is no {config.path}")
        return
    wrong = config.fault
    if wrong is not None and _refuses(config.text, daemon.generation):
        place = f"{config.path}:{wrong.line}:{wrong.column}"
        mended = _mended(config, wrong)
        steps: tuple[Step, ...] = mended or (Note(f"correct {config.path}, line {wrong.line}: {wrong.what}"),)
        yield Finding(
            subject=config.path,
            title=f"daemon.json is no JSON: line {wrong.line}: {wrong.what}",
            message=f"{place}: {wrong.what}; dockerd refuses to start with this file",
            evidence=(config.cite(wrong.line), *start.words("unable to configure")),
            remedy=start.cure(*steps),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
            excluded=(Excluded("DMN003", "a text that is no JSON is refused before its keys are compared"),),
            since=start.written,
        )
    elif wrong is None and config.data is None and config.text.strip() not in {"", "null"}:
        yield Finding(
            subject=config.path,
            title="daemon.json holds no object",
            message=f"{config.path}: the text is JSON, but no object in {{ }}: dockerd refuses to start with it",
            evidence=(config.cite(1), *start.words("unable to configure")),
            remedy=start.cure(Note(f"put the settings of {config.path} into one object")),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
            since=start.written,
        )
    for key, value in (config.data or {}).items():
        known = standing(key, daemon.generation) == "option"
        wrong_type = _mistyped(key, value) if known and value is not None else None
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
            evidence=(config.cite(line), *start.words("cannot unmarshal")),
            remedy=start.cure(step),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
            since=start.written,
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


@check("DMN002", Severity.ERROR, explains=("DMN016",), blocks_start=True)
def daemon_json_unknown_key(config: DaemonJson, daemon: Daemon, start: NextStart) -> Iterator[Yield]:
    """daemon.json has a key that is no option of this Docker: it refuses to start, or takes no notice.

    ## What it is
    Each key has to be an option of this release. dockerd refuses to start with any other,
    but for the names of its flags: those it accepts, and they set nothing.
    ## What you see
    Down: "the following directives don't match any configuration option: KEY" in its log.
    A flag's name (registry-mirror, host, label): all is well, and it has no effect.
    ## By hand
    dockerd --validate --config-file /etc/docker/daemon.json
    docker info
    ## Cure
    Rename the key to the option that was meant (registry-mirrors, hosts, labels); remove
    one that this release has no more, or not yet.
    ## Looks like
    DMN001 (no JSON, or a value of the wrong type), DMN003 (in the file and as a flag)
    ## Limits
    `--validate` came with 23. Keys inside builder, features, runtimes and log-opts are not
    judged here. Of a Docker that is newer than 29.7, a key nobody knows is unknown.
    ## References
    dockerd(8), moby daemon/config/config.go findConfigurationConflicts, moby issue 28216
    """
    if not config.data:
        yield NotApplicable(f"{config.path} sets nothing")
        return
    for key, value in config.data.items():
        became, named = _judged(key, value, daemon.generation)
        if became == "unsure":
            yield Unknown(f"{config.path}:{key}", f"options of Docker {daemon.version}: newer than what is known here")
        elif became == "unknown":
            yield _no_option(config, key, named, daemon, start)
        elif became == "ignored":
            yield _sets_nothing(config, key, daemon, start)


def _judged(key: str, value: object, release: Release) -> tuple[str, tuple[str, ...]]:
    """Say what dockerd makes of a key, and which names it looked at: of most objects it looks at the members."""
    if not isinstance(value, dict) or key in FLAT:
        return standing(key, release), (key,)
    inside = {name: standing(name, release) for name in value}
    wrong = tuple(name for name, one in inside.items() if one in {"unknown", "unsure"})
    if wrong:
        return inside[wrong[0]], wrong
    known = standing(key, release)
    return ("option" if known in {"option", "harmless"} else "ignored"), (key,)


def _meant(key: str, release: Release) -> str:
    """Give the option that was likely meant; empty when none is near."""
    if key in RENAMED:
        return RENAMED[key]
    flag = FLAGS.get(key)
    if flag is not None and flag.key != key and not flag.flag_only:
        return flag.key
    spelled = re.sub(r"(?<=[a-z])([A-Z])", r"-\1", key).replace("_", "-").lower()
    names = [name for name in OPTIONS if standing(name, release) == "option"]
    if spelled in names:
        return spelled
    if spelled in FLAGS and not FLAGS[spelled].flag_only and FLAGS[spelled].key in names:
        return FLAGS[spelled].key
    from difflib import get_close_matches

    near = get_close_matches(spelled, names, n=1, cutoff=0.8)
    return near[0] if near else ""


def _renamed(config: ConfigFile, key: str, meant: str) -> tuple[Step, ...]:
    """Give the edits that put a key's value where it was meant, and take the key away."""
    away = EditKey(config.path, "/" + key, None)
    data = config.data or {}
    value = data.get(key)
    if not meant or meant in data or value is None:
        return (away,)
    kind: Type = "string" if meant == "default-shm-size" else OPTIONS[meant].type
    parent = OPTIONS[meant].parent
    text = json.dumps(value, ensure_ascii=False) if type(value) is _GO_TYPES[kind] else _as_wanted(kind, value)
    if text is None:
        return (Note(f"{config.path}: put the value of {key} under {meant}, as {_NAMES[_GO_TYPES[kind]]}"), away)
    if parent and parent in data:
        return (Note(f"{config.path}: move {key} into {parent}"), away)
    return (away, EditKey(config.path, "/" + (parent or meant), f'{{"{meant}": {text}}}' if parent else text))


def _no_option(config: ConfigFile, key: str, named: tuple[str, ...], daemon: Daemon, start: NextStart) -> Finding:
    release = daemon.generation
    docker = f"Docker {release[0]}.{release[1]}" if release[0] else "any Docker"
    option = OPTIONS.get(key)
    line = config.line_of(key)
    inside = named != (key,)
    names = ", ".join(named)
    steps: tuple[Step, ...]
    moved = _log_option(config, key)
    meant = "" if moved else _meant(key, release)
    steps = moved or _renamed(config, key, meant)
    hint = f"; {meant} is near" if meant else "; it belongs into log-opts" if moved else ""
    if option is not None and not option.exists(release):
        gone = (
            f"is gone since {_dotted(option.until)}"
            if release >= option.until
            else f"came with {_dotted(option.since)}"
        )
        hint = f"; it {gone}" + (f", and {meant} took its place" if meant else "")
    what = f"{names} in {key}" if inside else key
    return Finding(
        subject=f"{config.path}:{key}",
        title=f"daemon.json: {what} is no option of {docker}",
        message=f"{config.path}:{line}: {what} is no option of {docker}{hint}: dockerd refuses to start,"
        f" the directives don't match any configuration option: {names}",
        evidence=(config.cite(line), *start.words("don't match any configuration option")),
        remedy=start.cure(*steps, what=f"call it {meant}" if meant and len(steps) > 1 else "mend the file"),
        severity=start.severity,
        hits=start.hits,
        works=start.works,
        excluded=(Excluded("DMN001", f"{config.path} is JSON"),),
        since=start.written,
    )


def _dotted(release: Release) -> str:
    return f"{release[0]}.{release[1]}" if release[1] else str(release[0])


def _log_option(config: ConfigFile, key: str) -> tuple[Step, ...]:
    """Give the edits that move `max-size` and the like into log-opts, where they belong."""
    data = config.data or {}
    held = data.get("log-opts", {})
    if key not in LOG_OPTIONS_OF_ALL.union(*LOG_OPTIONS.values()) or not isinstance(held, dict) or key in OPTIONS:
        return ()
    text = data[key] if isinstance(data[key], str) else json.dumps(data[key])
    moved = json.dumps(held | {key: text}, ensure_ascii=False)
    return (EditKey(config.path, "/" + key, None), EditKey(config.path, "/log-opts", moved))


def _sets_nothing(config: ConfigFile, key: str, daemon: Daemon, start: NextStart) -> Finding:
    """A flag's name as a key: dockerd knows the word, and has no such setting in the file."""
    meant = _meant(key, daemon.generation)
    line = config.line_of(key)
    value = config.cite(line).excerpt.rstrip(",")
    if key == "validate":
        return Finding(
            subject=f"{config.path}:{key}",
            title="daemon.json: validate lets dockerd check the file, and end",
            message=f"{config.path}:{line}: with {value}, dockerd says whether the file is in order and ends",
            evidence=(config.cite(line), *start.words("configuration OK")),
            remedy=start.cure(EditKey(config.path, "/validate", None)),
            severity=start.severity,
            hits=start.hits,
            works=start.works,
        )
    instead = f": the option is {meant}" if meant else ""
    steps = _renamed(config, key, meant)
    then: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    if daemon.pid and meant in RELOADED and any(isinstance(one, EditKey) and one.value for one in steps):
        then = (Command(("kill", "-HUP", str(daemon.pid))),)
    elif meant and meant not in RELOADED:
        notes = ("it takes effect with the next start of dockerd",)
    return Finding(
        subject=f"{config.path}:{key}",
        title=f"daemon.json: {key} sets nothing{instead}",
        message=f"{config.path}:{line}: {value}: {key} is the name of a flag, dockerd accepts it in its file and"
        f" takes no notice{instead}",
        evidence=(config.cite(line),),
        remedy=Remedy(f"call it {meant}" if meant else "take it out", (*steps, *then), notes=notes),
        severity=Severity.WARNING,
        hits=(Effect(f"what {key} was to set is not set"),),
        works=(Effect("every other key of the file"),),
    )
