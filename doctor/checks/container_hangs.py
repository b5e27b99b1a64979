"""Containers that do not do what they should: a health check that fails, one that is neither up nor gone."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks._ends import NOT_FOUND, NOT_RUNNABLE, again
from doctor.facts.clock import Clock
from doctor.facts.containers import Container, Containers
from doctor.model import (
    Command,
    Effect,
    Finding,
    Moment,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Since,
    Yield,
)
from doctor.registry import check

WAITS = 600.0
"""Seconds from which on a container that was created, and not started, is worth a note."""


@check(
    "CTR002",
    Severity.ERROR,
    says=("dependency failed to start: container ... is unhealthy",),
)
def health_check_fails(containers: Containers) -> Iterator[Yield]:
    """A running container fails its own health check.

    ## What it is
    An image or docker run may name a command that says whether the service works. dockerd
    runs it in the container; after several failures in a row it calls the container unhealthy.
    ## What you see
    (unhealthy) in docker ps; Swarm and Compose replace or do not start what depends on it.
    dockerd itself does nothing about it.
    ## By hand
    docker inspect -f '{{json .State.Health}}' NAME
    ## Cure
    See what the last probe printed. When the service hangs, a restart helps for now; when the
    check itself cannot run (exit code 126 or 127), the check is what has to be mended.
    ## Looks like
    CTR001 (the container dies), NET012 (the container's link is broken)
    ## Limits
    What the probes print is not read. A container without a health check is not judged.
    ## References
    Dockerfile reference HEALTHCHECK, moby daemon/health.go
    """
    tested = [one for one in containers.running if one.health]
    if not tested:
        yield NotApplicable("no running container has a health check")
        return
    for one in tested:
        if one.health != "unhealthy":
            continue
        codes = [code for _, code in one.probes]
        broken = bool(codes) and all(code in {NOT_RUNNABLE, NOT_FOUND} for code in codes)
        last = f"exit code {codes[-1]}" if codes else "no probe ended"
        many = f"{one.failing} probes in a row failed, the last with {last}"
        title = f"the health check of {one.name} cannot be run" if broken else f"{one.name} fails its health check"
        yield Finding(
            subject=one.name,
            scope=one.scope,
            title=title,
            message=f"{one.name} is unhealthy: {many}",
            evidence=(one.cite(f"Health unhealthy, FailingStreak {one.failing}, {last}"),),
            remedy=Remedy(
                "see what the probes say",
                (
                    Command(("docker", "inspect", "-f", "{{json .State.Health.Log}}", one.engine_name)),
                    Note("mend what they name; the next probe that succeeds makes it healthy again"),
                ),
                notes=(f"if the service hangs: docker restart {one.engine_name}, which stops it for a moment",),
            ),
            severity=Severity.WARNING if broken else Severity.ERROR,
            hits=(Effect("nobody knows whether it works" if broken else f"{one.name} does not do what it is for"),),
            works=(Effect(f"the processes of {one.name} run"),),
            since=_failing_since(one),
        )


def _failing_since(one: Container) -> Since | None:
    """When it began to fail, where the log of probes (the last five) reaches back that far."""
    if not one.probes or one.failing > len(one.probes):
        return None
    return Since(latest=Moment(one.probes[-one.failing][0], "the first probe failed"), exact=True)


@check(
    "CTR004",
    Severity.WARNING,
    says=("tried to kill container, but did not receive an exit event",),
)
def container_stuck(containers: Containers, clock: Clock) -> Iterator[Yield]:
    """A container is dead, is being removed for minutes, or was created and never started.

    ## What it is
    Dead is a container that could only be removed in part: its processes are gone, some of its
    files are not. Removing lasts seconds. Created is one that nobody has started yet.
    ## What you see
    Dead or Removal In Progress in docker ps -a; its name stays taken; "removal of container is
    already in progress"; "device or resource busy" in the log of dockerd.
    ## By hand
    docker ps -a --filter status=dead --filter status=removing --filter status=created
    ## Cure
    Remove it again: what was busy then is mostly free by now. The files that stay say what
    holds them.
    ## Looks like
    CTR001 (it was started, and that failed)
    ## Limits
    One that was created and never started is a note, from ten minutes on: docker create and
    compose create do that on purpose.
    ## References
    docker-rm(1), moby container/state.go
    """
    if not containers.all:
        yield NotApplicable("no container here")
        return
    now = clock.collected_at
    for one in containers.all:
        remove = Command(("docker", "rm", "-f", one.engine_name))
        if one.status in {"dead", "removing"}:
            if one.status == "removing" and now - one.finished < 60:  # noqa: PLR2004 - seconds
                continue
            what = (
                "is dead: it was removed only in part" if one.status == "dead" else "is being removed, and still there"
            )
            yield Finding(
                subject=one.name,
                scope=one.scope,
                title=f"{one.name} {what}",
                message=f"{one.name} {what}{f'; {one.asked.error}' if one.asked.error else ''}",
                evidence=(one.cite(f"Status {one.status}"),),
                remedy=Remedy("remove the rest of it", (remove,)),
                hits=(Effect(f"the name {one.engine_name} stays taken, and its files stay on the disk"),),
            )
        elif one.status == "created" and not one.asked.error and one.created and now - one.created > WAITS:
            yield Finding(
                subject=one.name,
                scope=one.scope,
                title=f"{one.name} was created and never started",
                message=f"{one.name} was created {(now - one.created) / 60:.0f} minutes ago, and has not been started",
                evidence=(one.cite("Status created"),),
                remedy=Remedy(
                    "start it",
                    (again(one),),
                    notes=(f"or remove it: docker rm {one.engine_name}",),
                ),
                severity=Severity.INFO,
            )
