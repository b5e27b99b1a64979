"""daemon.json as it stands, and every option with where its value comes from.

`ConfigFile` keeps the text and, where it does not parse, line and column of the fault. `Options` says for each key what
the file, the command line and the environment ask for, and what the API and the last reload say is in force. What a dead
daemon would be started with is read from the unit (systemd) or from /etc/default/docker (init script).
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from doctor.engine.options import ENVIRONMENT, FLAT, Flag, Release, default, parse_flags
from doctor.facts import UNDECODABLE
from doctor.facts.daemon import Daemon, DaemonLog
from doctor.facts.strict_json import SyntaxFault, decoded, strict, whole
from doctor.facts.unit import Unit, Units
from doctor.model import Citation, EditKey, Moment, Note, Step
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD = "engine/daemon.json"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class ConfigFile(Struct, frozen=True):
    """daemon.json: `data` is None when it does not parse or holds no object; `mtime` is in seconds since the epoch."""

    path: str
    exists: bool
    text: str
    data: dict[str, Any] | None
    fault: SyntaxFault | None
    mtime: float
    unread: str = ""
    """Why the file, which is there, could not be read; then nothing is known of it."""

    def line_of(self, key: str) -> int:
        """Give the line that a key stands in, one of the top level first; 0 when it does not."""
        matches = list(re.finditer(rf'"{re.escape(key)}"\s*:', self.text))
        for match in matches:
            before = _STRING.sub("", self.text[: match.start()])
            if before.count("{") - before.count("}") == 1 and before.count("[") == before.count("]"):
                return self.text.count("\n", 0, match.start()) + 1
        return self.text.count("\n", 0, matches[0].start()) + 1 if matches else 0

    def pointer(self, key: str) -> str:
        """Give the JSON pointer of a key: at the top, or in the object that it stands in."""
        data = self.data or {}
        inside = [outer for outer, held in data.items() if isinstance(held, dict) and outer not in FLAT and key in held]
        return f"/{inside[0]}/{key}" if key not in data and inside else f"/{key}"

    @property
    def runtimes(self) -> dict[str, dict[str, Any]]:
        """What it configures of each runtime; what is no object is left out."""
        held = (self.data or {}).get("runtimes")
        return {name: one for name, one in held.items() if isinstance(one, dict)} if isinstance(held, dict) else {}

    @property
    def written(self) -> Moment:
        """When it was written last."""
        return Moment(self.mtime, f"{self.path.rpartition('/')[2]} written", self.cite(0))

    def newer_than(self, daemon: Daemon) -> bool:
        """Whether it was written after the dockerd that runs had started, which has not read it at its start then."""
        return bool(daemon.pid) and self.mtime > daemon.started

    def change(self, key: str, origin: Origin, value: str = "") -> Step:
        """Give the step that gives an option another value (a text), or takes it out, where it is set."""
        if origin.source == "daemon.json":
            return EditKey(self.path, self.pointer(key), json.dumps(value) if value else None)
        if value:
            return Note(f"in {origin.where}, make it --{key}={value}")
        return Note(f"take {origin.text} out of what starts dockerd ({origin.where})")

    def member(self, key: str, name: str) -> EditKey:
        """Give the step that takes one member out of an object; the key goes with the last of them."""
        rest = {other: value for other, value in (self.data or {})[key].items() if other != name}
        return EditKey(self.path, f"/{key}", json.dumps(rest, ensure_ascii=False) if rest else None)

    def cite(self, line: int) -> Citation:
        """Cite one line of the file, or the file as a whole with line 0."""
        lines = self.text.split("\n")
        excerpt = (lines[line - 1].strip() if 0 < line <= len(lines) else "") or f"{len(self.text):,} characters"
        return Citation(RECORD, line, excerpt, f"{self.path}:{line}" if line else self.path)


class Origin(Struct, frozen=True):
    """One place that sets an option: the value as text, the words that do, and the citation.

    `source` is `daemon.json`, `flag`, `environment`, or, for what is in force, `API` or `reload` (the daemon's log).
    """

    value: str
    text: str
    where: str
    cited: Citation
    source: str = "daemon.json"


class Options(Struct, frozen=True):
    """Per key of daemon.json: what the file sets, what the command line sets, and what is in force.

    `flags_from` says whose command line that is: `running` (of the dockerd that runs), `unit`, `init script`, or empty
    when nobody knows what the next start will be given. `running` is what the API, or the log of the last reload, says
    of the dockerd that runs; a key that neither tells is not in it.
    """

    file: dict[str, Origin]
    flags: dict[str, tuple[Origin, ...]]
    flags_from: str
    unread: str = ""
    """Why daemon.json could not be read; a key that no flag sets is then not known."""
    environment: dict[str, Origin] = {}
    running: dict[str, Origin] = {}
    release: Release = (0, 0)
    log_options: dict[str, str] = {}
    """The log options that new containers get: the flags', else the file's."""

    def value(self, key: str) -> str:
        """Give what a start would take, as text: the flag's, the file's, the environment's, the default; lists by commas."""
        origin = self.origin(key)
        if origin is not None and origin.source == "flag":
            return ",".join(one.value for one in self.flags[key])
        return origin.value if origin is not None else default(key, self.release)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The names of the runtimes that the command line adds."""
        return tuple(one.value.partition("=")[0] for one in self.flags.get("runtimes", ()))

    def known(self, key: str) -> bool:
        """Whether the value in force is known."""
        return not self.unread or key in self.flags

    def on(self, key: str) -> bool:
        """Whether a switch is on."""
        return self.value(key).lower() in {"true", "1", "t"}

    def origin(self, key: str) -> Origin | None:
        """Give what sets the key, None when it has its default."""
        if key == "storage-driver" and key in self.environment:
            return self.environment[key]  # DOCKER_DRIVER goes before all (moby daemon/daemon.go)
        if key in self.flags:
            return self.flags[key][0]
        return self.file.get(key) or self.environment.get(key)


@fact
def config_file(snapshot: Snapshot, daemon: Daemon) -> ConfigFile:
    """Parse daemon.json as this generation of dockerd does (seen on 20.10.24, 26.1.5 and 28.5.2).

    20.10 takes bytes as they are, and reads the first JSON value; later ones know byte order marks, want UTF-8, and
    nothing behind the value.
    """
    record = snapshot.get(RECORD)
    if record.status == "absent":
        return ConfigFile(record.target, exists=False, text="", data=None, fault=None, mtime=0.0)
    if not record.readable:
        unread = f"{record.target}: {record.why or record.status}"
        return ConfigFile(record.target, exists=True, text="", data=None, fault=None, mtime=0.0, unread=unread)
    old = (0, 0) < daemon.generation < (23, 0)
    text, wrong = (record.text, None) if old else decoded(record.data)
    found = None
    if wrong is None:
        found, wrong = strict(text if old else text.rstrip(), first_only=old)
        found = whole(found) if "\\u" in text else found
    return ConfigFile(
        record.target,
        exists=True,
        text=text,
        data=found if isinstance(found, dict) else None,
        fault=wrong,
        mtime=record.mtime,
    )


class DaemonJson(ConfigFile, frozen=True):
    """daemon.json where it could be read, or is not there: for checks that say nothing without it."""


@fact
def daemon_json(config: ConfigFile) -> DaemonJson:
    """Raise EvidenceMissing for a file that is there and was not read."""
    if config.unread:
        raise EvidenceMissing("daemon.json", config.unread)
    return DaemonJson(**msgspec.structs.asdict(config))


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return value if isinstance(value, str) else json.dumps(value)


@fact
def options(snapshot: Snapshot, config: ConfigFile, daemon: Daemon, log: DaemonLog, units: Units) -> Options:
    """Put the file, the command line, the environment and what is in force side by side."""
    from_file = {}
    for key, value in _flattened(config.data or {}).items():
        line = config.line_of(key)
        from_file[key] = Origin(_as_text(value), f'"{key}"', f"{config.path}:{line}", config.cite(line))
    flags, whose = _command_line(snapshot, daemon, units)
    by_key: dict[str, list[Origin]] = {}
    for flag, cited in flags:
        by_key.setdefault(flag.key, []).append(Origin(flag.value, flag.text, cited.place, cited, "flag"))
    return Options(
        from_file,
        {key: tuple(held) for key, held in by_key.items()},
        whose,
        f"daemon.json: {config.unread}" if config.unread else "",
        environment=_environment(snapshot, daemon),
        running=_reloaded(log, daemon) | _asked(snapshot),
        release=daemon.generation,
        log_options=_log_options(by_key.get("log-opts", ()), config),
    )


def _log_options(flags: Sequence[Origin], config: ConfigFile) -> dict[str, str]:
    if flags:
        return {name: value for name, _, value in (one.value.partition("=") for one in flags)}
    held = (config.data or {}).get("log-opts")
    return {name: value for name, value in held.items() if isinstance(value, str)} if isinstance(held, dict) else {}


def _flattened(data: dict[str, Any]) -> dict[str, Any]:
    """Give keys and values as dockerd compares them with its flags: members of `proxies` stand for themselves."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        found[key] = value
        if isinstance(value, dict) and key not in FLAT:
            found |= value
    return found


def _environment(snapshot: Snapshot, daemon: Daemon) -> dict[str, Origin]:
    """Read what dockerd takes from its environment; of one that does not run nobody knows it."""
    record = snapshot.get("engine/environ")
    if not daemon.pid or not record.readable:
        return {}
    held = dict(one.split("=", 1) for one in record.text.split("\0") if "=" in one)
    found = {}
    for key, variable in ENVIRONMENT.items():
        name = variable if variable in held else variable.lower()
        if held.get(name):
            cited = Citation(record.name, 0, f"{name}={held[name]}", record.target)
            found[key] = Origin(held[name], name, record.target, cited, "environment")
    return found


class _Index(Struct):
    Secure: bool = True


class _Registries(Struct):
    InsecureRegistryCIDRs: list[str] | None = None
    IndexConfigs: dict[str, _Index] | None = None
    Mirrors: list[str] | None = None


class _Info(Struct):
    """The part of `GET /info` that says what the daemon was told; what an engine does not say stays None."""

    Debug: bool | None = None
    LiveRestoreEnabled: bool | None = None
    ExperimentalBuild: bool | None = None
    LoggingDriver: str | None = None
    DefaultRuntime: str | None = None
    DockerRootDir: str | None = None
    Labels: list[str] | None = None
    RegistryConfig: _Registries = field(default_factory=_Registries)


_TOLD = {
    "debug": "Debug",
    "live-restore": "LiveRestoreEnabled",
    "experimental": "ExperimentalBuild",
    "log-driver": "LoggingDriver",
    "default-runtime": "DefaultRuntime",
    "data-root": "DockerRootDir",
    "labels": "Labels",
}
"""Keys of daemon.json and the field of `GET /info` that says what is in force."""

_LOOPBACK = {"127.0.0.0/8", "::1/128"}
"""Networks that dockerd adds to the insecure registries by itself."""


def _asked(snapshot: Snapshot) -> dict[str, Origin]:
    """Read what the API says is in force."""
    record = snapshot.get("api/info")
    if not record.readable:
        return {}
    try:
        info = msgspec.json.decode(record.data, type=_Info)
    except UNDECODABLE:
        return {}

    def said(value: Any, name: str) -> Origin:
        line = record.data.count(b"\n", 0, max(0, record.data.find(f'"{name}":'.encode()))) + 1
        return Origin(
            _as_text(value),
            name,
            "GET /info",
            Citation(record.name, line, f"{name}: {_as_text(value)}", "GET /info"),
            "API",
        )

    values = {key: (getattr(info, name), name) for key, name in _TOLD.items()}
    found = {key: said(value, name) for key, (value, name) in values.items() if value is not None}
    registries = info.RegistryConfig
    if registries.IndexConfigs is not None:
        insecure = {name for name, index in registries.IndexConfigs.items() if not index.Secure}
        insecure |= set(registries.InsecureRegistryCIDRs or ()) - _LOOPBACK
        found["insecure-registries"] = said(sorted(insecure), "RegistryConfig")
        found["registry-mirrors"] = said([one.rstrip("/") for one in registries.Mirrors or ()], "RegistryConfig")
    return found


_CONFIG = re.compile(r'Reloaded configuration(?:: |.*? config=")(\{.*\})')


def _reloaded(log: DaemonLog, daemon: Daemon) -> dict[str, Origin]:
    """Read what was in force after the last reload of the dockerd that runs: its log holds all of it."""
    if not daemon.pid:
        return {}
    last = next(
        (one for one in reversed(log.lines) if "Reloaded configuration" in one.text and one.at >= daemon.started), None
    )
    match = _CONFIG.search(last.text) if last else None
    if last is None or match is None:
        return {}
    try:
        data = msgspec.json.decode(match[1].replace('\\"', '"'))
    except UNDECODABLE:
        return {}
    if not isinstance(data, dict):
        return {}
    place = last.cited.place
    return {
        key: Origin(
            _as_text(value),
            f'"{key}"',
            place,
            msgspec.structs.replace(last.cited, excerpt=f"Reloaded configuration: {key} {_as_text(value)}"),
            "reload",
        )
        for key, value in _flattened(data).items()
    }


def _command_line(snapshot: Snapshot, daemon: Daemon, units: Units) -> tuple[list[tuple[Flag, Citation]], str]:
    if daemon.pid:
        cited = daemon.cite(" ".join(daemon.argv), "cmdline")
        return [(flag, cited) for flag in parse_flags(daemon.argv[1:])], "running"
    if daemon.supervisor == "systemd":
        return _from_unit(snapshot, units.service), "unit"
    if daemon.supervisor == "init script":
        return _from_environment(snapshot, "files/etc/default/docker", "DOCKER_OPTS"), "init script"
    return [], ""


def _assignments(record: Record) -> list[tuple[str, str, int]]:
    """Give name, value and line of each `NAME="value"` of a shell-like file; other lines are skipped."""
    found = []
    for number, line in enumerate(record.text.split("\n"), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or not name.isidentifier():
            continue
        try:
            words = shlex.split(value, comments=True)
        except ValueError:
            continue
        found.append((name, " ".join(words), number))
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    """Read the words of an Environment= line: `"DOCKER_OPTS=--icc=false --debug" NAME=value`."""
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    return [(name, value) for name, equals, value in (word.partition("=") for word in words) if equals]


def _from_environment(snapshot: Snapshot, name: str, variable: str) -> list[tuple[Flag, Citation]]:
    record = snapshot.get(name)
    if not record.readable:
        return []
    flags: list[tuple[Flag, Citation]] = []
    for held, value, number in _assignments(record):
        if held == variable:
            cited = Citation(name, number, f"{held}={value}", f"{record.target}:{number}")
            flags = [(flag, cited) for flag in parse_flags(tuple(value.split()))]
    return flags


def _from_unit(snapshot: Snapshot, service: Unit) -> list[tuple[Flag, Citation]]:
    """Read the ExecStart in force, with what it takes from its environment (systemd.exec(5))."""
    if not service.starts:
        return []
    environment: dict[str, tuple[str, Citation]] = {}
    for one in service.directives:
        if one.name == "Environment":
            environment.update({name: (held, one.cited) for name, held in _pairs(one.value)})
        elif one.name == "EnvironmentFile":
            named = snapshot.get("files" + one.value.lstrip("-"))
            for name, held, line in _assignments(named) if named.readable else ():
                place = f"{named.target}:{line}"
                environment[name] = (held, Citation(named.name, line, f"{name}={held}", place))
    start = service.starts[-1]
    words = start.value.split()[1:]
    plain = tuple(word for word in words if not word.startswith("$"))
    flags: list[tuple[Flag, Citation]] = [(flag, start.cited) for flag in parse_flags(plain)]
    for word in words:
        held_value = environment.get(word.strip("${}")) if word.startswith("$") else None
        if held_value is not None:
            flags += [(flag, held_value[1]) for flag in parse_flags(tuple(held_value[0].split()))]
    return flags
