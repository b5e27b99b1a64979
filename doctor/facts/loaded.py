"""What dockerd has loaded of the store, against what is on the disk: it reads the layer database only when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Container, Containers, on_disk
from doctor.facts.daemon import Daemon
from doctor.registry import fact
from doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from doctor.facts.images import Image

_TICK = 0.05


class Loaded(Struct, frozen=True):
    """The images that dockerd lists, id → names (None: it was not asked), and containers on the disk that it does not know."""

    images: dict[str, tuple[str, ...]] | None
    dropped: tuple[Container, ...]
    started: float
    """When the dockerd that runs has read the layer database, seconds since the epoch."""

    def misses(self, image: Image) -> bool:
        """Whether dockerd runs and does not have this image; one without a name it may have and not list."""
        return self.images is not None and bool(image.names) and image.id not in self.images


class _Listed(Struct):
    Id: str = ""
    RepoTags: list[str] | None = None


@fact
def loaded(snapshot: Snapshot, containers: Containers, daemon: Daemon) -> Loaded:
    """Read what the API lists, and what it does not."""
    listed = None
    record = snapshot.get("api/images")
    if record.status == "ok":
        try:
            listed = {one.Id: tuple(one.RepoTags or ()) for one in msgspec.json.decode(record.data, type=list[_Listed])}
        except UNDECODABLE:
            listed = None
    dropped = []
    if containers.source == "API":
        known = {one.id for one in containers.all} | containers.unsettled_ids
        before = snapshot.meta.collected_at - _TICK
        for one in snapshot.under("store/containers/"):
            identity = one.name.split("/")[2]
            if one.name.endswith("/config.v2.json") and identity not in known and one.readable and one.mtime < before:
                found = on_disk(snapshot, identity)
                if found is not None:
                    dropped.append(found)
    return Loaded(listed, tuple(dropped), daemon.started)
