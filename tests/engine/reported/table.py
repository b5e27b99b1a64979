"""What a reported host is: the issue that describes it, what makes it, and what its owner must be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost


class Reported(NamedTuple):
    """One host of an issue, rebuilt: nothing is taken from it but what was set up.

    `codes` are the causes that must be named, and no others; `says` what must stand in the text of the report. `make`
    breaks a running host that was started with `daemon_args`; `engines` are the suites that it can be made on.
    """

    name: str
    issue: str
    make: Callable[[EngineHost], object]
    codes: tuple[str, ...]
    says: tuple[str, ...]
    engines: tuple[str, ...] = ()
    daemon_args: tuple[str, ...] = ()
