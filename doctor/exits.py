"""The exit codes of every command, and the error that is the user's to mend."""

from __future__ import annotations

CLEAN, FOUND, USAGE, INCOMPLETE, FAULT = 0, 1, 2, 3, 4
"""Clean; findings at or above --fail-on; what was asked for was not done; evidence missing; a fault of doctor.

When several hold: 2, then 1, 4, 3, 0. A broken check or missing evidence never hides a finding.
"""


class UsageError(Exception):
    """What was asked for cannot be done: one line for the person who asked. Exit 2."""


class Left(Exception):  # noqa: N818 - it is no error: all that can be said was said
    """A command ends here, with this code."""

    def __init__(self, code: int) -> None:
        """Keep the code."""
        super().__init__(code)
        self.code = code
