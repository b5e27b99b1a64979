"""Containers that have ended: what several checks ask of them, and how they tell it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from doctor.model import (
    Command,
    Effect,
    Excluded,
    Finding,
    Moment,
    Remedy,
    Severity,
    Since,
)

if TYPE_CHECKING:
    from doctor.facts.containers import Container

SHORT = 10.0
"""Seconds: dockerd waits twice as long after each run that was shorter, up to a minute (moby restartmanager)."""

GROWN = 3.0
"""Seconds between an end and the next start that only a wait grown by several short runs explains."""

OFTEN, BETWEEN = 5, 300.0
"""Restarts, and the mean seconds between two, from which on a container restarts again and again."""

RECENT = 86400.0
"""Seconds: a container that died longer ago is worth a note."""

KILLED, NOT_RUNNABLE, NOT_FOUND = 137, 126, 127

_EXEC = re.compile(r'exec: "([^"]*)": (.*?)(?:: unknown)?$')


def names_program(one: Container) -> re.Match[str] | None:
    """Find program and reason in the words of a start that failed at its program (runc, crun).

    containerd that cannot run the runtime itself quotes that program in the same words.
    """
    if "unable to retrieve OCI runtime error" in one.asked.error:
        return None
    return _EXEC.search(one.asked.error) if one.exit_code in {NOT_RUNNABLE, NOT_FOUND} else None


def ports_unanswered(one: Container) -> tuple[Effect, ...]:
    """Say on which ports of the host nobody answers while a container does not do its work."""
    ports = tuple(f"{port.host} -> {one.name}" for port in one.ports if ":" not in port.host_ip)
    return (Effect("nobody answers on", ports),) if ports else ()


def again(one: Container) -> Command:
    """Start it once more."""
    return Command(("docker", "start", one.engine_name))


def missed(one: Container) -> Severity:
    """How grave it is that it could not be started: whether it is to run, or has run."""
    return Severity.ERROR if one.policy != "no" or one.started > 0 else Severity.WARNING


def loops(one: Container, now: float) -> bool:
    """Whether a container restarts again and again: several short runs, or many restarts in a short life."""
    if one.policy == "no" or one.restarts < 3:  # noqa: PLR2004 - twice may be chance
        return False
    if one.status == "restarting":
        return one.finished - one.started < SHORT
    if not one.running or now - one.started > BETWEEN:
        return False
    waited = one.started - one.finished >= GROWN and now - one.started < SHORT and one.finished > 0
    return waited or (one.restarts >= OFTEN and now - one.created < one.restarts * BETWEEN)


def down(
    one: Container,
    title: str,
    message: str,
    said: str,
    remedy: Remedy,
    *,
    severity: Severity = Severity.ERROR,
    hits: str = "is down",
    dated: bool = False,
    excluded: tuple[Excluded, ...] = (),
    because: tuple[str, ...] = (),
) -> Finding:
    """Tell of a container that does not do its work; `said` is what the engine says of it, `dated` whether it ended."""
    ended = Since(latest=Moment(one.finished, f"{one.name} ended"), exact=True) if dated and one.finished else None
    return Finding(
        subject=one.name,
        scope=one.scope,
        title=title,
        message=message,
        evidence=(one.cite(said),),
        remedy=remedy,
        severity=severity,
        hits=(Effect(f"{one.name} {hits}"), *ports_unanswered(one)),
        excluded=excluded,
        because=because,
        since=ended,
    )
