"""Where layers of overlay2 are mounted to be written: as `upperdir` of an overlay.

Parses the mountinfo of dockerd and of this process (proc_pid_mountinfo(5)), lines such as::

    612 47 0:58 / /var/lib/docker/overlay2/ID/merged rw - overlay overlay rw,lowerdir=...,upperdir=.../ID/diff,workdir=...

The engine gives absolute paths where they fit a page, else those below overlay2.
"""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.facts.mounts import plain
from doctor.facts.store import Overlay
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

_UPPER = re.compile(r"[,=]?\bupperdir=((?:[^,\\]|\\.)*)/diff(?:,|$)")
_HEAD = 6


class OverlayMount(Struct, frozen=True):
    """One mount: whose layer is written, where, and on which device: one overlay at several places has one.

    `inside` says that dockerd has it in a mount namespace of its own, and nobody else does.
    """

    id: str
    point: str
    device: str
    inside: bool
    cited: Citation


class OverlayMounts(Struct, frozen=True):
    """All of them in the order of the kernel's list; `last` are the places that were mounted at the end as well."""

    all: tuple[OverlayMount, ...]
    last: frozenset[str] | None


@fact
def overlay_mounts(snapshot: Snapshot, overlay: Overlay) -> OverlayMounts:
    """Read both lists, and each mount once."""
    inner, outer = snapshot.get("engine/mounts"), snapshot.get("host/mounts")
    if not inner.readable and not outer.readable:
        raise EvidenceMissing("files", f"/proc/self/mountinfo: {outer.why or outer.status}")
    found = _listed(outer, overlay.root, inside=False)
    for key, one in _listed(inner, overlay.root, inside=outer.readable).items():
        found.setdefault(key, one)
    last = snapshot.get("engine/mounts-last")
    points = frozenset(plain(one) for one in last.text.split("\n") if one) if last.readable else None
    return OverlayMounts(tuple(found.values()), points)


def _listed(record: Record, root: str, *, inside: bool) -> dict[tuple[str, str], OverlayMount]:
    found = {}
    for number, line in enumerate(record.text.split("\n") if record.readable else (), 1):
        head, dash, tail = line.partition(" - overlay ")
        words = head.split(" ")
        match = _UPPER.search(tail)
        if not dash or len(words) < _HEAD or match is None:
            continue
        folder, _, name = plain(match[1]).rpartition("/")
        if folder in {"", root}:
            point = plain(words[4])
            cited = Citation(record.name, number, f"{point}: upperdir={name}/diff", f"{record.target}:{number}")
            found[words[2], point] = OverlayMount(name, point, words[2], inside, cited)
    return found
