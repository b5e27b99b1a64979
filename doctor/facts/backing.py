"""The file system below Docker's data, as the engine describes it (`docker info`) and as the kernel mounts it.

`DriverStatus` of /info is pairs: `["Backing Filesystem", "extfs"]`, `["Supports d_type", "true"]`, `["Native Overlay
Diff", "true"]`; with containerd's image store `["driver-type", "io.containerd.snapshotter.v1"]`. Source: moby
`daemon/graphdriver/overlay2/overlay.go` (Status), `daemon/containerd/service.go`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.mounts import Mount, Mounts
from doctor.model import Citation
from doctor.places import Places
from doctor.registry import fact
from doctor.snapshot import Snapshot


class Backing(Struct, frozen=True):
    """`driver` is the storage driver in use, empty when the daemon was not asked; `status` what it says of itself.

    `mount` is what the data root is on, None when that is not known.
    """

    root: str
    driver: str
    status: dict[str, str]
    mount: Mount | None

    @property
    def snapshotter(self) -> bool:
        """Whether images are in containerd's store."""
        return self.status.get("driver-type", "").startswith("io.containerd.snapshotter")

    def cite(self, name: str) -> Citation:
        """Cite what the daemon says of its driver."""
        return Citation("api/info", 1, f'["{name}","{self.status.get(name, "")}"]', "docker info")


class _Info(Struct):
    Driver: str = ""
    DriverStatus: list[list[str]] | None = None


@fact
def backing(snapshot: Snapshot, places: Places, mounts: Mounts | None) -> Backing:
    """Join both."""
    try:
        info = msgspec.json.decode(snapshot.get("api/info").data, type=_Info)
    except UNDECODABLE:
        info = _Info()
    status = {pair[0]: pair[1] for pair in info.DriverStatus or () if len(pair) == 2}  # noqa: PLR2004 - a pair
    return Backing(places.data_root, info.Driver, status, mounts.of(places.data_root) if mounts else None)
