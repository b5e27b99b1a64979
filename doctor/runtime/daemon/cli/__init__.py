"""The command `docker` of a lab: words, flags, columns and exit codes as the real one has them, for what labs need of it."""

from __future__ import annotations

from doctor.runtime.daemon.cli.commands import main

__all__ = ["main"]
