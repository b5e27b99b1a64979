"""Images that are there and not seen: in the data root of the other setting of userns-remap, or in the other store.

`store/other-roots` is a tree below the data root without remapping: `100000.100000/image/overlay2/repositories.json ? ...`,
and with the name `.` for that root itself. Source: moby `daemon/daemon_unix.go` (setupDaemonRoot).
"""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.facts.backing import Backing
from doctor.facts.images import Images
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot, need, tree_entries

_EMPTY = len('{"Repositories":{}}')
_REMAPPED = re.compile(r"(\d+)\.(\d+)")


class OtherRoots(Struct, frozen=True):
    """Data roots that hold names of images, by path, with the citation; `own` is the one in use."""

    own: str
    with_images: dict[str, Citation]
    looked: bool = True

    @property
    def remapped(self) -> bool:
        """Whether the one in use is of remapped users."""
        return bool(_REMAPPED.fullmatch(self.own.rpartition("/")[2]))


@fact
def other_roots(snapshot: Snapshot, backing: Backing) -> OtherRoots:
    """Read the record: names of images take more than an empty list does."""
    record = snapshot.get("store/other-roots")
    if record.status == "not-run":  # a bundle from before it was asked for
        return OtherRoots(backing.root, {}, looked=False)
    record = need(snapshot, "store/other-roots", "store")
    found = {}
    for one in tree_entries(record):
        name = one.path.removesuffix("/image/overlay2/repositories.json").removeprefix(".")
        size = one.content.split(" ")[0]
        path = f"{record.target}/{name}".rstrip("/")
        if one.type in {"f", "?"} and size.isdecimal() and int(size) > _EMPTY and path != backing.root:
            found[path] = Citation(
                record.name, one.line, f"{size} bytes of names", f"{path}/image/overlay2/repositories.json"
            )
    return OtherRoots(backing.root, found)


class HiddenStores(Struct, frozen=True):
    """How many images the store of graph drivers has (`drivers`), and containerd's (`containerd`); -1: nobody knows."""

    drivers: int
    file: Citation


@fact
def hidden_stores(images: Images) -> HiddenStores:
    """Count the images that overlay2 has names or configurations of."""
    count = len(images.known)
    place = images.file.target
    return HiddenStores(count, Citation(images.file.name, 0, f"{len(images.names)} names, {count} images", place))
