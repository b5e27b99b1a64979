"""Owners of whole layers in another range of ids: one finding of a store, whatever the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.facts.layer_repairs import meanwhile
from doctor.layers.shifted import RANGE
from doctor.model import Command, Effect, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from doctor.facts.layer_content import Found
    from doctor.layers.model import Checked

_CITED = 5
_SCRIPT = """import os, stat, sys
uid, gid, right_uid, right_gid, many = map(int, sys.argv[1:6])
def back(path):
    about, kept = os.lstat(path), None
    owner = [right + one - start if start <= one < start + many else one
             for one, start, right in ((about.st_uid, uid, right_uid), (about.st_gid, gid, right_gid))]
    if owner == [about.st_uid, about.st_gid]:
        return
    if "security.capability" in os.listxattr(path, follow_symlinks=False):
        kept = os.getxattr(path, "security.capability", follow_symlinks=False)
    os.lchown(path, *owner)
    if not stat.S_ISLNK(about.st_mode):
        os.chmod(path, stat.S_IMODE(about.st_mode))
    if kept:
        os.setxattr(path, "security.capability", kept)
for root in sys.argv[6:]:
    back(root)
    for folder, names, files in os.walk(root):
        for name in names + files:
            back(os.path.join(folder, name))
"""
"""Moves owners from one range to another. chown(2) takes setuid and capabilities away, so both are set again."""


def apart(
    layers: Iterable[tuple[Checked, Found]],
) -> dict[tuple[int, ...], list[tuple[Checked, Found]]]:
    """Give the layers whose owners are shifted, by what they are shifted from and to."""
    by: dict[tuple[int, ...], list[tuple[Checked, Found]]] = {}
    for checked, one in layers:
        if one.damage.shift:
            by.setdefault(one.damage.shift, []).append((checked, one))
    return by


def finding(
    store: str,
    shift: tuple[int, ...],
    moved: Sequence[tuple[Checked, Found]],
    hits: tuple[Effect, ...],
    engine: str,
    running: dict[str, str],
) -> Finding:
    """Tell of all layers that are shifted alike. `running` is what a person calls each container, and the engine."""
    uid, gid, right_uid, right_gid = shift
    count, first = len(moved), moved[0][0].layer.removeprefix("sha256:")
    which = f"layer {first[:12]}" if count == 1 else f"{count} layers"
    off = f"{uid - right_uid:+,}" + (f":{gid - right_gid:+,}" if gid - right_gid != uid - right_uid else "")
    roots = tuple(checked.root for checked, _ in moved)
    numbers = tuple(map(str, (*shift, RANGE)))
    place = f"userns-remap and DATA-ROOT/{uid}.{gid}" if uid else "no userns-remap, and no UID.GID after DATA-ROOT"
    notes = (
        f"instead: give this daemon the range of the files, and the store its place then: {place}",
        "what containers wrote, and volumes, came the same way: they are theirs, and are not judged here",
    )
    return Finding(
        subject=f"{store}, owners from {uid}:{gid} on",  # a layer may have a finding of its own beside this
        title=f"owners of {which} are shifted by {off}, all of them",
        message=(f"{which} of {store}: owners on disk begin at {uid}:{gid}, and should at {right_uid}:{right_gid}"),
        evidence=tuple(one.cite() for _, one in moved[:_CITED]),
        remedy=meanwhile(
            engine,
            running,
            "move the owners back, files stay",
            [Command(("python3", "-", *numbers, *roots), stdin=_SCRIPT)],
            notes,
        ),
        hits=hits,
        likely=_likely(uid, right_uid),
        by_hand=f"stat -c '%u:%g %n' {roots[0]}/*",
    )


def _likely(start: int, right: int) -> str:
    if not right:
        return f"copied from a daemon that remaps users (userns-remap: root is {start} there) to one that does not"
    if not start:
        return f"copied from a daemon that remaps nobody to one that does (userns-remap: root is {right} here)"
    return f"copied from a daemon with another range (userns-remap: root was {start} there, is {right} here)"
