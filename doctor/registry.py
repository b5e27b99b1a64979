"""Checks and facts: what a decorator makes of a function, the built-in list, and plugins.

A check is a generator function; its annotations are its dependencies and its docstring is its page. A fact is a
function from the snapshot, or from other facts, to one struct; it is found by its return type and computed once a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from msgspec import Struct

from doctor import checks
from doctor.checks import MODULES
from doctor.model import Severity, Yield
from doctor.sources import Source

HEADINGS = ("What it is", "What you see", "By hand", "Cure", "Looks like", "Limits", "References")
"""The headings of every page, in this order."""

AREAS = {
    "DMN": "daemon",
    "STO": "storage",
    "LAY": "layers",
    "IMG": "images",
    "VOL": "volumes",
    "NET": "network",
    "NSP": "namespaces",
    "CGR": "cgroups",
    "CTR": "containers",
    "REG": "registry",
    "BLD": "build",
    "SEC": "exposure",
    "HST": "host",
}
"""The letters of a code and the area they stand for."""

OPTIONAL = " | None"

_CODE = re.compile(r"[A-Z][A-Z0-9]{1,7}[0-9]{3}")


class Check(Struct, frozen=True):
    """One check: `run` is the decorated function, `written` its docstring as it stands in the source.

    `blocks_start`: while its finding stands, dockerd or a container would not start again once stopped.
    `says`: what programs say then, beside the quotes on the page; `...` is where hosts differ.
    """

    code: str
    severity: Severity
    name: str
    written: str
    explains: tuple[str, ...]
    run: Callable[..., Iterator[Yield]]
    blocks_start: bool = False
    says: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Its docstring without the indentation. Few of the checks of a run are ever asked for theirs."""
        return _clean(self.written)

    @property
    def summary(self) -> str:
        """The page's first line."""
        return self.written.lstrip().partition("\n")[0].rstrip()

    @property
    def area(self) -> str:
        """The area in a word; a plugin's own letters stand for themselves."""
        letters = self.code.rstrip("0123456789")
        return AREAS.get(letters, letters.lower())

    @property
    def needs(self) -> dict[str, type]:
        """The facts it takes, by parameter name."""
        return _annotations(self.run)

    @property
    def optional(self) -> frozenset[str]:
        """The parameters that are None when their fact is missing (`firewall: Firewall | None`)."""
        return _optional(self.run)


class Fact(Struct, frozen=True):
    """One fact: the function that computes it and the type it returns."""

    result: type
    make: Callable[..., Any]

    @property
    def needs(self) -> dict[str, type]:
        """What it is computed from, by parameter name."""
        return _annotations(self.make)

    @property
    def optional(self) -> frozenset[str]:
        """The parameters that are None when their fact is missing."""
        return _optional(self.make)


@cache
def _annotations(function: Callable[..., Any]) -> dict[str, type]:
    """Give the annotations of a function's parameters as types, `X | None` as X.

    Plain names are looked up: importing `inspect` costs 9 ms of a start.
    """
    notes = {}
    for name, written in function.__annotations__.items():
        if name == "return":
            continue
        plain = written.removesuffix(OPTIONAL) if isinstance(written, str) else written
        found = function.__globals__.get(plain) if isinstance(plain, str) else plain
        if not isinstance(found, type):
            raise TypeError(
                f"{function.__module__}.{function.__name__}: {name} is no class that can be looked up: {written!r}"
            )
        notes[name] = found
    return notes


@cache
def _optional(function: Callable[..., Any]) -> frozenset[str]:
    notes = function.__annotations__.items()
    return frozenset(name for name, written in notes if isinstance(written, str) and written.endswith(OPTIONAL))


def _clean(page: str) -> str:
    """Take the docstring's indentation away, as inspect.cleandoc does: the compiler does so only from 3.13 on."""
    lines = page.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    return "\n".join([lines[0].lstrip(), *(line[margin:] for line in lines[1:])]).strip()


_CHECKS: dict[str, Check] = {}
_FACTS: dict[type, Fact] = {}

Function = TypeVar("Function", bound="Callable[..., Any]")


def check(
    code: str,
    severity: Severity,
    *,
    explains: tuple[str, ...] = (),
    blocks_start: bool = False,
    says: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Make a check of a generator function. Raises ValueError for a code that is none, or taken by another function."""

    def register(function: Function) -> Function:
        if not _CODE.fullmatch(code):
            raise ValueError(f"{code}: a code is letters and three digits")
        held = _CHECKS.get(code)
        if held is not None and held.run.__module__ != function.__module__:
            raise ValueError(f"{code}: taken by {held.run.__module__}.{held.run.__name__}")
        _CHECKS[code] = _made(
            code,
            severity,
            function.__name__,
            function.__doc__ or "",
            function,
            explains=explains,
            blocks_start=blocks_start,
            says=says,
        )
        return function

    return register


def _returns(function: Callable[..., Any]) -> type:
    written = function.__annotations__["return"]
    found = function.__globals__.get(written) if isinstance(written, str) else written
    if not isinstance(found, type):
        raise TypeError(f"{function.__module__}.{function.__name__}: a fact returns a class, not {written!r}")
    return found


def fact(function: Function) -> Function:
    """Make a fact of a function; its return annotation is what others ask for."""
    made = _returns(function)
    _FACTS[made] = Fact(made, function)
    return function


class Registry(Struct, frozen=True):
    """What one run works with. `faults` are plugins that could not be loaded, one line each."""

    checks: dict[str, Check]
    facts: dict[type, Fact]
    sources: tuple[Source, ...] = ()
    faults: tuple[str, ...] = ()


def load(*, plugins: bool = True) -> Registry:
    """Import the built-in checks and the plugins' (entry points `doctor.checks` and `doctor.sources`).

    An entry point of `doctor.checks` is a module, or a function without arguments that registers; one of
    `doctor.sources` is a sequence of `Source`. A plugin that raises is a line in `faults`, never a crash.
    """
    for name in MODULES:
        import_module(f"doctor.checks.{name}")
    builtin = set(_CHECKS)
    faults: list[str] = []
    sources: list[Source] = []
    if plugins:
        _load_plugins(faults, sources)
    checks = {code: _CHECKS[code] for code in sorted(_CHECKS, key=lambda code: (code not in builtin, code))}
    return Registry(checks, dict(_FACTS), tuple(sources), tuple(faults))


def single(code: str) -> Check | None:
    """Read one built-in check out of its source, for who wants a page; None where no source names it.

    Nothing is imported: what a check needs takes ten times as long. Its `run` says so. Codes of plugins are not found.
    """
    written = f'@check("{code}"'.encode(), f'@check(\n    "{code}"'.encode()
    for name in MODULES:
        try:
            with open(f"{checks.__path__[0]}/{name}.py", "rb") as file:  # noqa: PTH123 - start-up
                text = file.read()
        except OSError:
            continue
        if any(one in text for one in written):
            return _read(code, text)
    return None


def _read(code: str, text: bytes) -> Check | None:
    import ast

    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in function.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.args[0], ast.Constant) and call.args[0].value == code:
                level = call.args[1]
                options = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
                severity = Severity[level.attr] if isinstance(level, ast.Attribute) else Severity.ERROR
                return _made(code, severity, function.name, ast.get_docstring(function) or "", _unread, **options)
    return None


def _unread(*_: Any) -> Iterator[Yield]:
    raise TypeError("a check that was read for its page cannot be run")


def _made(
    code: str,
    severity: Severity,
    name: str,
    page: str,
    run: Callable[..., Iterator[Yield]],
    *,
    explains: tuple[str, ...] = (),
    blocks_start: bool = False,
    says: tuple[str, ...] = (),
) -> Check:
    return Check(
        code=code,
        severity=severity,
        name=name.replace("_", "-"),
        written=page,
        explains=explains,
        run=run,
        blocks_start=blocks_start,
        says=says,
    )


def _load_plugins(faults: list[str], sources: list[Source]) -> None:
    from doctor.plugins import entry_points

    for group, name, loader in entry_points():
        before = dict(_CHECKS)
        try:
            found = loader()
            if group == "doctor.sources":
                sources += _valid_sources(found() if callable(found) else found)
            elif callable(found):
                found()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            _CHECKS.clear()
            _CHECKS.update(before)
            faults.append(f"plugin {name} ({group}): {type(error).__name__}: {error}")


def _valid_sources(found: Any) -> list[Source]:
    rows = list(found)
    for row in rows:
        if not isinstance(row, Source):
            raise TypeError(f"{row!r} is no doctor.sources.Source")
    return rows


def sections(page: str) -> dict[str, str]:
    r"""Split a page into its headings and their text, in the page's order.

    >>> sections("Title.\n\n## Cure\nDo it.\n\n## Limits\nNone.")
    {'Cure': 'Do it.', 'Limits': 'None.'}
    """
    found: dict[str, str] = {}
    for part in page.split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        found[heading.strip()] = text.strip()
    return found
