"""Cures that several checks print alike, as data: of a damaged image store, and the restart of a container."""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING

from doctor.model import Command, Effect, Finding, Note, Remedy, Severity, Step

if TYPE_CHECKING:
    from doctor.facts.containers import Container
    from doctor.facts.images import Image
    from doctor.facts.owners import Owners

MANY = 5
"""Findings of one check on one host from which on they are told as one: they have one cause."""


def restart(container: Container, heals: str) -> Remedy:
    """Make the cure that is a restart of one container, and say what heals in it."""
    return Remedy(
        f"restart the container: {heals}",
        (Command(("docker", "restart", container.engine_name)),),
        risk="disruptive",
        stops=(container.name,),
    )


def new_name(identity: str) -> str:
    """Give a layer that nobody knows by any name one of its own: always the same, so that a report does not change."""
    return b32encode(sha256(identity.encode()).digest()).decode()[:26]


def write(path: str, text: str) -> Command:
    """Give the step that makes a file hold exactly this text: the engine takes a newline for a part of it."""
    return Command(("tee", path), stdin=text)


def again(images: tuple[Image, ...]) -> tuple[Step, ...]:
    """Give the steps that bring images back: by digest where one is known, else a person knows from where."""
    steps: list[Step] = []
    rest = []
    for image in images:
        if image.digests:
            steps.append(Command(("docker", "pull", image.names[0] if image.names else image.digests[0])))
        else:
            rest.append(image.shown[0])
    if rest:
        steps.append(Note(f"docker load -i FILE, from a docker save elsewhere, or build again: {', '.join(rest)}"))
    return tuple(steps)


def lost(identity: str, owners: Owners, *, known: bool = True) -> Remedy:
    """Make the cure for content that is lost.

    docker pull and docker load take a layer that is listed for whole: it comes anew only after everything that shares it
    has been removed (measured on 20.10.24, 26.1.5 and 28.5.2).
    """
    images = owners.images.get(identity, ())
    standing = owners.standing(identity)
    running = tuple(one for one in standing if one.running)
    steps: list[Step] = []
    if standing:
        steps.append(Note(f"copy out what they wrote while they still are there (docker cp): {_list(standing)}"))
        steps.append(Command(("docker", "rm", "-f", *(one.engine_name for one in standing))))
    if images:
        steps.append(Command(("docker", "rmi", *(word for image in images for word in image.removed_by))))
    steps += again(images)
    if not any(isinstance(step, Note) for step in steps):
        steps.insert(0, Note("see that the registry still has them"))
    return Remedy(
        "remove all that shares the layer, then get it anew",
        tuple(steps),
        risk="destructive",
        stops=tuple(one.name for one in running),
        stays_down=tuple(one.name for one in running),
        notes=("docker pull or docker load over it heals nothing: they take the layer for whole",) if known else (),
    )


def _list(containers: tuple[Container, ...]) -> str:
    return ", ".join(one.name for one in containers)


def together(found: list[Finding], what: str, subject: str) -> list[Finding]:
    """Tell many findings of one check as one: what broke so much at once is one cause."""
    if len(found) <= MANY:
        return found
    first = found[0].remedy
    steps = tuple(step for one in found for step in one.remedy.steps)
    stops = tuple(sorted({name for one in found for name in one.remedy.stops}))
    down = tuple(sorted({name for one in found for name in one.remedy.stays_down}))
    risks = ("safe", "disruptive", "destructive")
    worst = max(found, key=lambda one: (one.severity or Severity.ERROR).rank)
    return [
        Finding(
            subject=subject,
            title=f"{len(found)} {what}",
            message=f"{len(found)} {what}; the first: {found[0].message}",
            evidence=tuple(one.evidence[0] for one in found[:MANY]),
            remedy=Remedy(
                first.summary,
                tuple(dict.fromkeys(steps)),
                risk=max((one.remedy.risk for one in found), key=risks.index),
                stops=stops,
                stays_down=down,
                restarts=first.restarts,
                notes=first.notes,
            ),
            severity=worst.severity,
            hits=_joined([one.hits for one in found]),
            works=_joined([one.works for one in found]),
        )
    ]


def _joined(effects: list[tuple[Effect, ...]]) -> tuple[Effect, ...]:
    held: dict[str, dict[str, None]] = {}
    for several in effects:
        for one in several:
            held.setdefault(one.text, {}).update(dict.fromkeys(one.names))
    return tuple(Effect(text, tuple(names)) for text, names in held.items())
