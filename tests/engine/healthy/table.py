"""What a healthy host is: one more thing that people set up, and that is well.

Rows with the same dockerd (`daemon_json`, `daemon_args`) share a host, where each is added to those before it: a row is
said to be at fault when doctor says something new after its turn. What it made stays, so names must differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.enginehost import EngineHost


ALWAYS_NOTED = frozenset({"CGR001", "DMN009"})
"""What a default install is told anyway, as a note."""


class Healthy(NamedTuple):
    """One look-alike: a name, what makes it, and the dockerd that it needs.

    `notes` are the codes that may say something, as a note (info), because it is worth knowing; `warns` those that
    warn, because what is set up here works and will bite; `fails` those that are errors, of a container that the row ends
    on purpose. `unknown` are those that may lack evidence, `engines` the suites that it can be made on, empty for all;
    `files` are there before dockerd starts.
    """

    name: str
    make: Callable[[EngineHost], object]
    notes: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    daemon_json: dict[str, Any] | None = None
    daemon_args: tuple[str, ...] = ()
    files: dict[str, str] | None = None

    @property
    def host(self) -> str:
        """What it shares with the other rows of its host."""
        return repr((self.daemon_json, self.daemon_args, self.files))
