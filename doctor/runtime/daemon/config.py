"""What the daemon was told: flags and daemon.json put together, and its own words for what is wrong with them.

Which options there are, and what dockerd makes of a key, is `doctor.engine.options`. The words are those that dockerd
20.10.24, 26.1.5 and 28.5.2 print (moby daemon/config/config.go, cmd/dockerd/daemon.go), each as its generation has them;
`tests/runtime/daemon/words` holds them as captured. 29 is taken to speak as 28 does.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

from doctor.engine.options import (
    FLAGS,
    FLAT,
    HARMLESS,
    LOG_OPTIONS,
    LOG_OPTIONS_OF_ALL,
    MERGED,
    OPTIONS,
    RELOADED,
    SHORT,
    Option,
    config_path,
    default,
    format_known,
    level_known,
    parse_flags,
    runtime_known,
    standing,
)
from doctor.runtime.daemon.generation import Generation, Release, generation
from doctor.runtime.daemon.gojson import fault
from doctor.runtime.daemon.gotypes import mistyped
from doctor.runtime.model import Settings

__all__ = ["ConfigError", "config_path", "refused", "reloaded", "settings"]

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SEE = "\nSee 'dockerd --help'."
_USAGE = "\n\nUsage:\tdockerd [OPTIONS]\n\nA self-sufficient runtime for containers."
_PAGES: Release = (28, 0)
"""From here on a wrong flag is answered with the usage."""
_STRICT: Release = (23, 0)
"""From here on daemon.json is UTF-8, one value, and may be empty."""


class ConfigError(Exception):
    """The daemon does not start: `text` is all that it prints (without a time), `code` its exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        """Keep text and exit code."""
        super().__init__(text)
        self.text = text
        self.code = code


def settings(argv: tuple[str, ...], text: str | None, dialect: str, version: str = "", *, path: str = "") -> Settings:
    """Put the flags of `argv` (without the program) and the text of daemon.json (None: no such file) together.

    `path` is what an error calls the file. Raises ConfigError in the daemon's words, ValueError for an unknown dialect.
    """
    made = generation(dialect, version)
    given = _flags(argv, made.release)
    path = path or config_path(argv)
    if text is None and any(word.startswith("--config-file") for word in argv):
        raise ConfigError(f"{_about(path)}open {path}: no such file or directory")
    from_file = _file(text or "", given, made, path) if text is not None else {}
    values = {key: _default(option, made.release) for key, option in OPTIONS.items() if option.exists(made.release)}
    values |= {key: value for key, value in from_file.items() if key in values and value is not None}
    for key, value in given.items():
        values[key] = {**value, **from_file.get(key, {})} if key in MERGED else value
    _validate(values, given, made.release, path)
    return Settings(dialect, made.version, values, argv)


def _about(path: str) -> str:
    return f"unable to configure the Docker daemon with file {path}: "


def _default(option: Option, release: Release) -> Any:
    text = default(option.key, release)
    if option.type == "bool":
        return text == "true"
    if option.type == "number" and option.key != "default-shm-size":
        return int(text or 0)
    return {"list": [], "map": {}}.get(option.type, text)


# Flags


def _flags(argv: tuple[str, ...], release: Release) -> dict[str, Any]:
    """Read flags into values by their key in the file. Raises ConfigError for one that dockerd does not take."""
    for word in _unknown(argv, release):
        if word.startswith('"'):
            raise ConfigError(f"{word}{_SEE}{_USAGE}")
        raise ConfigError(f"Status: {word}{_SEE}" + (_USAGE if release >= _PAGES else ", Code: 125"), 125)
    found: dict[str, Any] = {}
    for flag in parse_flags(argv):
        option = OPTIONS[flag.key]
        if option.type == "list":
            found.setdefault(flag.key, []).append(flag.value)
        elif option.type == "map":
            name, _, value = flag.value.partition("=")
            found.setdefault(flag.key, {})[name] = {"path": value} if flag.key == "runtimes" else value
        elif option.type == "bool":
            found[flag.key] = flag.value in _TRUE
        elif option.type == "number" and flag.key != "default-shm-size":
            found[flag.key] = int(flag.value)
        else:
            found[flag.key] = flag.value
    return found


def _unknown(argv: tuple[str, ...], release: Release) -> list[str]:
    """Give what is wrong with the first flag that is, in pflag's words."""
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            return ['"dockerd" accepts no argument(s).']
        if not word.startswith("--"):
            if SHORT.get(word[1]) is None:
                return [f"unknown shorthand flag: '{word[1]}' in {word}"]
            option = FLAGS[SHORT[word[1]]]
            if option.type != "bool" and len(word) == 2 and rest:  # noqa: PLR2004 - the dash and the letter
                rest.pop(0)
            continue
        name, equals, value = word[2:].partition("=")
        known = FLAGS.get(name)
        if known is None or not known.exists(release):
            return [f"unknown flag: --{name}"]
        if not equals and known.type != "bool":
            if not rest:
                return [f"flag needs an argument: --{name}"]
            value = rest.pop(0)
        wrong = _value(known, value if equals or known.type != "bool" else "true")
        if wrong:
            return [f'invalid argument "{value}" for "--{name}" flag: {wrong}']
    return []


def _value(option: Option, value: str) -> str:
    if option.type == "bool" and value not in _TRUE | _FALSE:
        return f'strconv.ParseBool: parsing "{value}": invalid syntax'
    if option.type == "number" and option.key != "default-shm-size":
        try:
            int(value, 0)
        except ValueError:
            return f'strconv.ParseInt: parsing "{value}": invalid syntax'
    return ""


# daemon.json


def _file(text: str, given: dict[str, Any], made: Generation, path: str) -> dict[str, Any]:
    """Read daemon.json into values by key. Raises ConfigError in the words of its generation."""
    release = made.release
    about = _about(path) + ("invalid JSON: " if release >= _PAGES else "")
    body = text if release < _STRICT else text.removeprefix("\ufeff").strip(" \t\r\n\v\f")
    if not body and release >= _STRICT:
        return {}
    wrong = fault(body, whole=release >= _STRICT)
    if wrong:
        raise ConfigError(about + wrong)
    try:
        data = json.loads(body) if release >= _STRICT else json.JSONDecoder().raw_decode(body.lstrip())[0]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{about}{error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        kind = {list: "array", str: "string", bool: "bool"}.get(type(data), "number")
        raise ConfigError(f"{about}json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    flat = _flattened(data)
    _conflicts(data, flat, given, release, path)
    said = mistyped(data, release)
    if said:
        raise ConfigError(about + said)
    return {key: value for key, value in flat.items() if key in OPTIONS}


def _flattened(data: dict[str, Any]) -> dict[str, Any]:
    """Give keys and values as dockerd compares them with its flags: members of objects that are none of its own."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and key not in FLAT:
            found |= value
        else:
            found[key] = value
    return found


def _conflicts(data: dict[str, Any], flat: dict[str, Any], given: dict[str, Any], release: Release, path: str) -> None:
    unknown = [
        key
        for key in flat
        if key not in HARMLESS and standing(key, release) == "unknown" and not _inside(data, key, release)
    ]
    if unknown:
        names = ", ".join(unknown)
        raise ConfigError(f"{_about(path)}the following directives don't match any configuration option: {names}")
    both = [
        f"{key}: (from flag: {_as_go(given[key])}, from file: {_as_go(flat[key])})"
        for key in sorted(given, key=lambda name: OPTIONS[name].flag)
        if key in flat and key not in MERGED
    ]
    if both:
        said = "the following directives are specified both as a flag and in the configuration file: "
        raise ConfigError(_about(path) + said + ", ".join(both))


def _inside(data: dict[str, Any], key: str, release: Release) -> bool:
    """Whether a key is a member of `proxies`, and an option there."""
    option = OPTIONS.get(key)
    return key not in data and option is not None and bool(option.parent) and option.exists(release)


def _as_go(value: Any) -> str:
    """Print a value as Go's %v does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(_as_go, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_as_go(held)}" for key, held in sorted(value.items())) + "]"
    return "<nil>" if value is None else str(value)


def _validate(values: dict[str, Any], given: dict[str, Any], release: Release, path: str) -> None:
    """Refuse values that no generation starts with. Raises ConfigError."""
    old = release < _STRICT
    merged = "merged configuration validation from file and command line flags failed: "
    where = _about(path) + ("configuration validation from file failed: " if old else merged)
    if not level_known(values["log-level"], release):
        level = values["log-level"]
        raise ConfigError(
            f"unable to parse logging level: {level}" if old else f"{where}invalid logging level: {level}"
        )
    if not format_known(values.get("log-format", "")):
        raise ConfigError(f"{where}invalid log format: {values['log-format']}")
    for label in values["labels"]:
        if "=" not in label:
            raise ConfigError(f"{where}bad attribute format: {label}")
    for server in values["dns"]:
        try:
            ip_address(server)
        except ValueError:
            said = (
                f"{where}{server} is not an ip address"
                if old
                else _about(path)
                + ("invalid JSON: " if release >= _PAGES and "dns" not in given else "")
                + f"invalid IP address: {server}"
            )
            raise ConfigError(said) from None
    runtime = values["default-runtime"]
    if old and not runtime_known(runtime, values["runtimes"], release):
        raise ConfigError(f"{where}specified default runtime '{runtime}' does not exist")


def refused(told: Settings) -> str:
    """Give why a daemon with these settings does not start although they can be read; empty when it does.

    What needs the network is left to whoever sets it up.
    """
    values = told.values
    release = generation(told.dialect, told.version).release
    if values["bridge"] and values["bip"]:
        return "You specified -b & --bip, mutually exclusive options. Please specify only one"
    if not values["icc"] and not values["iptables"]:
        return (
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function."
            " Please set --icc or --iptables to true"
        )
    driver = values["log-driver"]
    for name in values["log-opts"]:
        if driver in LOG_OPTIONS and name not in LOG_OPTIONS[driver] | LOG_OPTIONS_OF_ALL:
            twice = "failed to set log opts: " * (1 if release < _STRICT else 2)
            return f"{twice}unknown log opt '{name}' for {driver} log driver"
    runtime = values["default-runtime"]
    if not runtime_known(runtime, values["runtimes"], release):
        return f"specified default runtime '{runtime}' does not exist"
    storage = values["storage-driver"]
    if storage not in {"", "overlay2"}:
        return "error initializing graphdriver: driver not supported" + (f": {storage}" if release >= _STRICT else "")
    return ""


def reloaded(told: Settings, text: str | None, path: str) -> Settings:
    """Give the settings after SIGHUP: those options that a running daemon takes anew. Raises ConfigError."""
    fresh = settings(told.flags, text, told.dialect, told.version, path=path)
    values = dict(told.values)
    values |= {key: fresh.values[key] for key in RELOADED if key in fresh.values}
    return Settings(told.dialect, told.version, values, told.flags)
