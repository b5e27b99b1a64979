"""Cures of a layer whose content is damaged: take it all anew, or set one thing right again where it stands.

`docker pull` and `docker load` over a damaged layer heal nothing: they take it for whole, and say "Already exists"
(measured on 20.10.24, 26.1.5 and 28.5.2). It comes anew only when every image and container that shares it is gone.
Setting right in place is for what one command does; the kernel leaves undefined what a mounted overlay shows of a lower
layer that changes, so what stands on the layer is stopped meanwhile.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from doctor.model import Command, Note, Remedy, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.facts.images import Image
    from doctor.facts.layer_content import Impact
    from doctor.layers.good import Place
    from doctor.layers.model import Checked, Damage

HEALS_NOTHING = '`docker pull` and `load` alone heal nothing: "Already exists"'
_FORMAT, _LINK = 0o170000, 0o120000
_HELD = (
    "is the layer still listed after rmi (doctor layers list), then dockerd holds it for a build, or for a save of several"
    " images at once: docker builder prune, or a restart of Docker before the load"
)


def anew(impact: Impact) -> Remedy:
    """Make the cure that removes all that shares the layer, and gets it again: by digest where one is known."""
    containers = impact.every_container
    images = sorted(impact.every_image, key=lambda one: -len(one.chains))  # what stands on others goes first
    steps: list[Step] = []
    if containers:
        steps.append(Note("copy out first what is worth it: docker cp"))
        force = ("-f",) if any(one.running for one in containers) else ()
        steps.append(Command(("docker", "rm", *force, *(one.engine_name for one in containers))))
    if images:
        steps.append(Command(("docker", "rmi", *(word for image in images for word in image.removed_by))))
    rest = [name for image in images if not image.digests for name in image.shown]
    for image in images:
        steps += _pulled(image)
    if rest:
        steps.append(Command(("docker", "load", "-i", "FILE")))
        steps.append(Note(f"FILE: an archive of {', '.join(rest)} from before; prove it first with"))
        steps.append(Command(("doctor", "layers", "verify", "FILE")))
    running = tuple(one.name for one in containers if one.running)
    names = ", ".join(one.name for one in containers)
    has = "containers {} have" if len(containers) > 1 else "container {} has"
    lost = f"what {has.format(names)} written is lost"
    return Remedy(
        lost if containers else "remove all that shares the layer, then get it anew",
        tuple(steps),
        risk="destructive",
        stops=running,
        stays_down=running,
        notes=(HEALS_NOTHING, _HELD),
    )


def _pulled(image: Image) -> list[Step]:
    if not image.digests:
        return []
    digest = image.digests[0]
    steps: list[Step] = [Command(("docker", "pull", digest))]
    steps += [Command(("docker", "tag", digest, name)) for name in image.names]
    return steps


def in_place(checked: Checked, damages: Iterable[Damage]) -> list[Command] | None:
    """Give the commands that set these damages right where they stand; None when one of them is lost content."""
    commands = []
    for one in damages:
        path = checked.root + one.path
        made = None if one.raw else _command(one, path)
        if made is None:
            return None
        commands.append(Command(made))
    return commands


def _command(one: Damage, path: str) -> tuple[str, ...] | None:
    if one.kind == "mode":
        return ("chmod", one.expected, path)
    if one.kind == "owner":
        return ("chown", "-h", one.expected, path)
    if one.kind == "capability":
        if one.expected == "none":
            return ("setfattr", "-x", "security.capability", path)
        return ("setfattr", "-n", "security.capability", "-v", f"0x{one.expected}", path)
    if one.kind == "link target" and one.mode & _FORMAT == _LINK:
        return ("ln", "-sfn", "--", one.expected, path)
    if one.kind == "whiteout lost" and one.found == "not there":
        return ("mknod", path, "c", "0", "0")
    if one.kind == "opaque lost":
        return ("setfattr", "-n", "trusted.overlay.opaque", "-v", "y", path)
    if one.kind == "added":
        if one.found.startswith("opaque"):
            return ("setfattr", "-x", "trusted.overlay.opaque", path)
        return ("rm", "-r", "--", path)
    return None


def stopped(impact: Impact, summary: str, commands: list[Command], notes: tuple[str, ...] = ()) -> Remedy:
    """Make a cure of commands in the layer itself, with the containers that stand on it stopped meanwhile."""
    running = tuple(one for one in impact.every_container if one.running)
    return meanwhile("docker", {one.name: one.engine_name for one in running}, summary, commands, notes)


def meanwhile(
    engine: str, running: dict[str, str], summary: str, commands: list[Command], notes: tuple[str, ...] = ()
) -> Remedy:
    """Make a cure of commands while containers are stopped: what a person calls each, and what the engine does."""
    around: tuple[Step, ...] = (Command((engine, "stop", *running.values())),) if running else ()
    after: tuple[Step, ...] = (Command((engine, "start", *running.values())),) if running else ()
    return Remedy(
        summary if not running else f"{summary}, while nothing runs on it",
        (*around, *commands, *after),
        risk="disruptive" if running else "safe",
        stops=tuple(running),
        notes=notes,
    )


def put_back(root: str, names: tuple[str, ...], archive: str, place: Place) -> list[Command]:
    """Give the commands that take files out of an archive that was proved to hold the layer (`--from`).

    `names` is what the files are called in the layer's own archive, `place` where that is, `root` the layer's directory.
    """
    out = shlex.join(("tar", "-xOf", archive, place.member))
    options = "--numeric-owner --same-owner -p --xattrs --xattrs-include='*'"
    into = f"tar -x{place.how}f - -C {shlex.quote(root)} {options} -- {shlex.join(names)}"
    gone = ("rm", "-rf", "--", *(f"{root}/{name.removeprefix('./')}" for name in names))
    return [Command(gone), Command(("sh", "-c", f"{out} | {into}"))]
