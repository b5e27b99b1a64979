"""Read a scenario file. What is wrong with one is told with file, line and key, as a compiler does.

>>> parse('schema = 2', "scenarios/mine.toml")
Traceback (most recent call last):
doctor.labs.loading.ScenarioError: scenarios/mine.toml:1: schema: "2" is none of 1
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from doctor.labs.faults import KINDS, Fault
from doctor.labs.judging import amiss
from doctor.labs.scenario import NAME, ContainerTable, NetworkTable, Probe, Scenario
from doctor.labs.toml_lines import Lines


class ScenarioError(Exception):
    """A scenario file that is none; the text is one line for whoever wrote it."""


_T = TypeVar("_T")


class _Reader:
    """One file: values, and what to say of those that do not fit."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.lines = path, Lines(text)

    def wrong(self, key: str, why: str) -> ScenarioError:
        where = f"{self.path}:{self.lines.of(key)}"
        return ScenarioError(f"{where}: {key}: {why}" if key else f"{where}: {why}")

    def take(self, value: Any, kind: type[_T], at: str) -> _T:
        """Convert a value, with the key that it stands at."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            key, why = _said(str(error), at, kind)
            raise self.wrong(key, why) from error

    def table(self, value: Any, kind: type[_T], at: str) -> dict[str, _T]:
        if not isinstance(value, dict):
            raise self.wrong(at, "is no table")
        return {name: self.take(one, kind, f"{at}.{name}") for name, one in value.items()}

    def steps(self, value: Any, at: str) -> tuple[Fault, ...]:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(at, f"is no list of tables: write [[{at}]]")
        made = []
        for number, one in enumerate(value):
            here = f"{at}[{number}]"
            kind = one.get("kind")
            if kind not in KINDS:
                said = f'"{kind}" is none of {", ".join(KINDS)}' if "kind" in one else f"is missing: {', '.join(KINDS)}"
                raise self.wrong(f"{here}.kind", said)
            rest = {name: held for name, held in one.items() if name != "kind"}
            made.append(self.take(rest, KINDS[kind], here))
        return tuple(made)


def parse(text: str, path: str) -> Scenario:
    """Read a scenario. Raises ScenarioError for the first thing that is wrong."""
    reader = _Reader(path, text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at line (\d+), column (\d+)\)| \(at end of document\)", str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise ScenarioError(f"{path}:{line}: {_lower(re.sub(r' [(]at .*[)]$', '', str(error)))}") from error
    pieces: dict[str, Any] = {
        "network": reader.table(data.pop("network", {}), NetworkTable, "network"),
        "container": reader.table(data.pop("container", {}), ContainerTable, "container"),
        "prepare": reader.steps(data.pop("prepare", []), "prepare"),
        "faults": reader.steps(data.pop("fault", []), "fault"),
        "person": reader.steps(data.pop("person", []), "person"),
    }
    probes = data.pop("probe", [])
    made = reader.take(data, Scenario, "")
    made = msgspec.structs.replace(made, **pieces, probe=reader.take(probes, tuple[Probe, ...], "probe"))
    name = Path(path).stem
    if not NAME.fullmatch(name):
        raise ScenarioError(f"{path}:1: a scenario is named by words with dashes, not {name}")
    made = msgspec.structs.replace(made, name=name)
    for key, why in amiss(made):
        raise reader.wrong(key, why)
    return made


def load(path: Path | str, shown: str = "") -> Scenario:
    """Read a scenario file; `shown` is what messages call it. Raises ScenarioError."""
    shown = shown or str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{shown}:1: is no UTF-8: byte {error.start}") from error
    except OSError as error:
        raise ScenarioError(f"{shown}: cannot read: {(error.strerror or str(error)).lower()}") from error
    return parse(text, shown)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


_AT = re.compile(r" - at `\$?\.?([^`]*)`$")
_CHOICE = re.compile(r"Invalid enum value (.+)$")
_UNKNOWN = re.compile(r"Object contains unknown field `(\w+)`")
_MISSING = re.compile(r"Object missing required field `(\w+)`")


def _said(message: str, at: str, kind: Any) -> tuple[str, str]:
    """Turn what msgspec says into the key and the words of this project."""
    found = _AT.search(message)
    inner = found[1] if found else ""
    text = message[: found.start()] if found else message
    key = at + (inner if inner.startswith("[") or not at or not inner else f".{inner}")
    if unknown := _UNKNOWN.match(text):
        key = f"{key}.{unknown[1]}" if key else unknown[1]
        return key, f"no such key; there are {', '.join(_fields(kind, inner))}"
    if missing := _MISSING.match(text):
        return (f"{key}.{missing[1]}" if key else missing[1]), "is missing"
    if choice := _CHOICE.match(text):
        options = _choices(kind, inner)
        shown = choice[1].strip("'\"")
        return key, f'"{shown}" is none of {", ".join(options)}'
    return key, _lower(text).replace("`", "")


def _reach(kind: Any, inner: str) -> msgspec.inspect.Type:
    """Give the type that a path of msgspec's leads to (`probe[0].healthy`, `[...]`)."""
    here = msgspec.inspect.type_info(kind)
    for step in re.findall(r"\w+|\[[^\]]*\]", inner):
        if isinstance(here, msgspec.inspect.StructType) and not step.startswith("["):
            here = next((field.type for field in here.fields if field.encode_name == step), here)
        elif isinstance(here, msgspec.inspect.VarTupleType):
            here = here.item_type
        elif isinstance(here, msgspec.inspect.DictType):
            here = here.value_type
    return here


def _choices(kind: Any, inner: str) -> list[str]:
    found = _reach(kind, inner)
    return [str(one) for one in found.values] if isinstance(found, msgspec.inspect.LiteralType) else []


def _fields(kind: Any, inner: str) -> list[str]:
    found = _reach(kind, inner)
    return [field.encode_name for field in found.fields] if isinstance(found, msgspec.inspect.StructType) else []
