"""An answer of the API that is an error."""

from __future__ import annotations


class Fault(Exception):  # noqa: N818 - what the daemon answers, not what went wrong in it
    """A request cannot be answered: HTTP status, and the engine's words."""

    def __init__(self, status: int, message: str) -> None:
        """Keep status and words."""
        super().__init__(message)
        self.status = status
        self.message = message


def not_found(message: str) -> Fault:
    """Say that something is not there."""
    return Fault(404, message)


def conflict(message: str) -> Fault:
    """Say that something is in the way."""
    return Fault(409, message)


def bad(message: str) -> Fault:
    """Say that what was asked makes no sense."""
    return Fault(400, message)


def broken(message: str) -> Fault:
    """Say that what was asked failed."""
    return Fault(500, message)
