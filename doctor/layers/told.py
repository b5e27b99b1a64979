"""What `doctor layers` says, as values: its JSON is made of them, and is a contract."""

from __future__ import annotations

from msgspec import Struct

from doctor.layers.model import Checked, Damage, Run, Unread
from doctor.model import HostInfo, Outcome, Reported


class LayerRow(Struct, frozen=True):
    """One layer of a store: its id (a chain id), directory, diffID, parent, size in bytes, and who stands on it."""

    store: str
    layer: str
    directory: str
    digest: str
    parent: str
    bytes: int
    images: tuple[str, ...]
    containers: tuple[str, ...]


class LayerList(Struct, frozen=True):
    """`doctor layers list`."""

    schema: str
    doctor: str
    host: HostInfo
    layers: tuple[LayerRow, ...]


class Verification(Struct, frozen=True):
    """`doctor layers verify`: what was done (`runs`, `layers`), what differs, and what the checks made of it.

    `host` is null where only archives were verified. `deep` says whether content was read.
    """

    schema: str
    doctor: str
    host: HostInfo | None
    deep: bool
    runs: tuple[Run, ...]
    layers: tuple[Checked, ...]
    damages: tuple[Damage, ...]
    unread: tuple[Unread, ...]
    findings: tuple[Reported, ...]
    outcomes: tuple[Outcome, ...]
    structure: int
    """Layers whose structure was looked at."""
    ms: float
    images: dict[str, tuple[str, ...]] = {}
    """Names of the images that stand on each damaged layer, by its id; those of archives and of podman's have none here."""
