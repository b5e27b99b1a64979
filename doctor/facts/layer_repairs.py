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
_SET_ID = 0o6000
_MOST = 50
"""Files that one command takes out of a blob: with more, the layer is better had anew."""
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
        made = None if one.raw or one.shift else _command(one, path)
        if made is None:
            return None
        commands.append(Command(made))
        if one.kind == "owner":
            commands += _kept(one, path)
    return commands


def _kept(one: Damage, path: str) -> list[Command]:
    """Give what a change of owner takes away, of root's doing too: setuid, setgid and capabilities (chown(2))."""
    kept = []
    if one.mode & _SET_ID and one.mode & _FORMAT != _LINK:
        kept.append(Command(("chmod", f"{one.mode & 0o7777:04o}", path)))
    if one.capability:
        kept.append(Command(("setfattr", "-n", "security.capability", "-v", f"0x{one.capability}", path)))
    return kept


def from_blob(checked: Checked, damages: Iterable[Damage], blob: str) -> list[Command] | None:
    """Give the commands that set a snapshot right by what its own blob says; None where that is too much or too little.

    Rights are set in place, the rest is taken out of the blob into the files that are there: another name of the same
    file stays one.
    """
    gone, members, rest = [], [], []
    for one in damages:
        made = in_place(checked, [one])
        if made is not None:
            rest += made
        elif one.kind == "whiteout lost" and not one.raw:
            gone.append(checked.root + one.path)
            rest.append(Command(("mknod", checked.root + one.path, "c", "0", "0")))
        elif not one.member or one.raw or one.shift:
            return None
        else:
            members.append(one.member)
            rest += _kept(one, checked.root + one.path)  # tar changes the owner last of all
            if one.kind == "type":
                gone.append(checked.root + one.path)
    if len(members) + len(rest) > _MOST:
        return None
    commands = [Command(("rm", "-rf", "--", *gone))] if gone else []
    if members:
        how = ("--overwrite", "--no-recursion", "--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*")
        names = tuple(dict.fromkeys(members))
        commands.append(Command(("tar", "-xpf", blob, "-C", checked.root, *how, "--", *names)))
    return commands + rest


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
    if one.kind == "whiteout lost" and one.found.endswith("not there"):
        return ("mknod", path, "c", "0", "0")
    if one.kind == "opaque lost":
        return ("setfattr", "-n", "trusted.overlay.opaque", "-v", "y", path)
    if one.kind == "added":
        if one.found.startswith("opaque"):
            return ("setfattr", "-x", "trusted.overlay.opaque", path)
        return ("rm", "-r", "--", path)
    return None


def who_did(damages: Iterable[Damage]) -> tuple[str, ...]:
    """Warn of a cure that takes away what somebody did."""
    grave = any(one.grave for one in damages)
    return ("find out first who did that: what is set right is no evidence any more",) if grave else ()


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
    if engine == "podman" and running:  # nobody knows which of them ran
        after = (Note(f"podman start, of these those that ran: {' '.join(running.values())}"),)
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
    # Whiteouts are no files on disk: those that are lost are told, and made, by themselves.
    options = "--exclude='.wh.*' --numeric-owner --same-owner -p --xattrs --xattrs-include='*'"
    into = f"tar -x{place.how}f - -C {shlex.quote(root)} {options} -- {shlex.join(names)}"
    gone = ("rm", "-rf", "--", *(f"{root}/{name.removeprefix('./')}" for name in names))
    return [Command(gone), Command(("sh", "-c", f"{out} | {into}"))]
