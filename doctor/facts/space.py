"""Space of the file system that Docker keeps its data on, and what storage drivers have left there.

`store/space` is lines of `NAME NUMBER`, in bytes and inodes: `size 270552150016`, as statvfs(3) has them. `free` is
what is left to those who are not root.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.model import Citation
from doctor.places import Places
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, need

OTHERS = ("aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "zfs")
"""Storage drivers besides overlay2 whose directories dockerd looks for when it starts; it ignores vfs."""


class Space(Struct, frozen=True):
    """Bytes and inodes. `inodes` is 0 on a file system that does not count them."""

    path: str
    size: int
    free: int
    available: int
    inodes: int
    inodes_free: int
    untagged: int
    """Bytes of images without a name that no container uses, as the engine counts them."""

    def cite(self, line: int, excerpt: str) -> Citation:
        """Cite one of the numbers."""
        return Citation("store/space", line, excerpt, f"statvfs {self.path}")


class _Listed(Struct):
    RepoTags: list[str] | None = None
    Size: int = 0
    Containers: int = -1


@fact
def space(snapshot: Snapshot) -> Space:
    """Read the numbers."""
    record = need(snapshot, "store/space", "store")
    held = {}
    for line in record.text.split("\n"):
        name, _, number = line.partition(" ")
        if number.isdecimal():
            held[name] = int(number)
    absent = [name for name in ("size", "free") if name not in held]
    if absent:
        raise EvidenceMissing("store", f"{record.target}: no {absent[0]}")
    free = held["free"]  # bundles of the first days have no more than these two
    root, inodes = held.get("free_root", free), held.get("inodes", 0)
    return Space(record.target, held["size"], root, free, inodes, held.get("inodes_free", 0), _untagged(snapshot))


def _untagged(snapshot: Snapshot) -> int:
    try:
        listed = msgspec.json.decode(snapshot.get("api/images").data, type=list[_Listed])
    except UNDECODABLE:
        return 0
    return sum(one.Size for one in listed if one.RepoTags in (None, [], ["<none>:<none>"]) and one.Containers <= 0)


class Drivers(Struct, frozen=True):
    """Storage drivers: the one in use (empty when dockerd was not asked), and those that have something on the disk."""

    used: str
    left: tuple[str, ...]
    data_root: str
    overlay2: Citation
    cited: dict[str, Citation]
    info: Citation


class _Info(Struct):
    Driver: str = ""


@fact
def drivers(snapshot: Snapshot, places: Places) -> Drivers:
    """Look at what stands in the data root."""
    try:
        used = msgspec.json.decode(snapshot.get("api/info").data, type=_Info).Driver
    except UNDECODABLE:
        used = ""
    record = snapshot.get("store/overlay2")
    if record.status == "denied":
        raise EvidenceMissing("store", f"{places.data_root} is root only")
    left = []
    cited = {}
    for name in OTHERS:
        one = snapshot.get(f"store/driver-{name}")
        if one.readable and one.data.strip():
            left.append(name)
            excerpt = f"holds {one.text.partition(chr(9))[0]}"
            cited[name] = Citation(one.name, 1, excerpt, f"{places.data_root}/{name}")
    if record.readable:
        left.append("overlay2")
    there = Citation(record.name, 0, "is there", f"{places.data_root}/overlay2")
    info = Citation("api/info", 1, f'"Driver":"{used}"', "docker info")
    return Drivers(used, tuple(left), places.data_root, there, cited, info)
