"""The image database of the overlay2 driver: names, configurations, and the layers that each image is made of.

Parses `store/repositories.json` and the configurations `store/images/HEX`. Source: moby `image/store.go`,
`reference/store.go`.

An image is *settled* when its file was written before the snapshot began and is still there after the layer database was
read: its layers were whole all the while. Layers, chains and mounts are judged only where a settled image or a settled
container stands on them (`doctor.facts.owners`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.facts.store import names_in
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK = 0.05
"""Seconds by which a file's time may lie before the moment when it was written: the kernel's clock for that is coarse."""


class Image(Struct, frozen=True):
    """One image: id, the names it has, and its layers from the base up, as diff ids and as chain ids."""

    id: str
    names: tuple[str, ...]
    diffs: tuple[str, ...]
    chains: tuple[str, ...]
    digests: tuple[str, ...] = ()
    architecture: str = ""
    told: int = 0
    """Layers that its history tells of."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Its names, or its short id when it has none."""
        return self.names or (self.id[7:19],)

    @property
    def words(self) -> tuple[str, ...]:
        """All that it is called, with the digests that it was pulled by; its short id when it has neither."""
        return (*self.names, *self.digests) or (self.id[7:19],)

    @property
    def removed_by(self) -> tuple[str, ...]:
        """All that `docker rmi` has to be told: with the last name of a repository go its digests, and rmi of those fails."""
        named = {name.rpartition(":")[0] for name in self.names}
        rest = tuple(digest for digest in self.digests if digest.partition("@")[0] not in named)
        return (*self.names, *rest) or (self.id[7:19],)


class Images(Struct, frozen=True):
    """The image database.

    `all` are the settled images whose configuration can be read; `damaged` those whose file is not what its name says,
    each with its record; `known` are the ids of all files, seen at any time. `names` is repositories.json: name → id, and
    `fault` why that is none. `chains` is what each chain has to be made of: its parent's chain id (empty for a base) and
    its diff id.
    """

    root: str
    all: tuple[Image, ...]
    damaged: dict[str, Record]
    known: frozenset[str]
    names: dict[str, str]
    fault: str
    file: Record
    chains: dict[str, tuple[str, str]]
    unread: dict[str, str]
    """Configurations that could not be read or compared, by short id, and why."""
    began: float
    """What was written after this may have come while evidence was taken, seconds since the epoch."""
    machine: str = ""
    """The host's, as `uname -m` says it."""

    def called(self, identity: str) -> tuple[str, ...]:
        """Give the names of an image id."""
        return tuple(sorted(name for name, held in self.names.items() if held == identity and "@" not in name))


class _RootFS(Struct):
    diff_ids: list[str] = field(default_factory=list)


class _Step(Struct):
    empty_layer: bool = False


class _ImageConfig(Struct):
    rootfs: _RootFS = field(default_factory=_RootFS)
    architecture: str = ""
    history: list[_Step] | None = None


class _Repositories(Struct):
    Repositories: dict[str, dict[str, str]] = field(default_factory=dict)


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Give the chain id of each layer from its diff ids: the first is itself, then sha256(parent + " " + diff id).

    Source: OCI image-spec, config.md, "Layer ChainID".

    >>> chain_ids(["sha256:a"])
    ('sha256:a',)
    """
    chains: list[str] = []
    for diff in diff_ids:
        chains.append(f"sha256:{sha256(f'{chains[-1]} {diff}'.encode()).hexdigest()}" if chains else diff)
    return tuple(chains)


@fact
def images(snapshot: Snapshot) -> Images:
    """Read the names and every configuration."""
    file = snapshot.get("store/repositories.json")
    names: dict[str, str] = {}
    fault = ""
    if file.readable:
        try:
            listed = msgspec.json.decode(file.data, type=_Repositories)
        except UNDECODABLE as error:
            fault = "empty" if not file.data.strip(b"\0 \n") else f"no JSON: {error}"
        else:
            names = {name: held for tags in listed.Repositories.values() for name, held in tags.items()}
    called: dict[str, list[str]] = {}
    for name, held in names.items():
        called.setdefault(held, []).append(name)
    first, last = snapshot.get("store/images-first"), snapshot.get("store/images-last")
    remaining = names_in(last) if last.readable else None
    began = snapshot.meta.collected_at - _TICK
    known = set(names_in(first)) if first.readable else set()
    decoder = msgspec.json.Decoder(_ImageConfig)
    found = []
    damaged = {}
    unread = {}
    for record in snapshot.under("store/images/"):
        name = record.name[13:]
        known.add(name)
        if record.mtime >= began or record.status == "absent" or (remaining is not None and name not in remaining):
            continue
        identity = f"sha256:{name}"
        if record.status != "ok":
            unread[name[:12]] = f"{record.target}: {record.why or record.status}"
        elif record.sha256 and record.sha256 != name:
            damaged[identity] = record
            continue
        try:
            config = decoder.decode(record.data)
            diffs = config.rootfs.diff_ids
        except UNDECODABLE:
            continue
        words = sorted(called.get(identity, ()))
        found.append(
            Image(
                identity,
                tuple(name for name in words if "@" not in name),
                tuple(diffs),
                chain_ids(diffs),
                tuple(name for name in words if "@" in name),
                config.architecture,
                sum(not step.empty_layer for step in config.history or ()),
            )
        )
    root = file.target.removesuffix("/repositories.json")
    made = {}
    for image in found:
        parent = ""
        for chain, diff in zip(image.chains, image.diffs, strict=True):
            made[chain] = (parent, diff)
            parent = chain
    return Images(
        root,
        tuple(found),
        damaged,
        frozenset(known),
        names,
        fault,
        file,
        made,
        unread,
        began,
        snapshot.meta.machine,
    )
