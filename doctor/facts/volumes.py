"""Volumes as the daemon lists them, and what stands in the place of their data and of bind mounts.

`store/volumes-data` is a tree of `{data_root}/volumes`: `NAME/_data d`. `store/bind-sources` is one of the paths on the
host that containers bind: `/srv/data d MTIME MODE UID GID SIZE`, `-` for what is not there.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Containers
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot, need, tree_entries

ANONYMOUS = 64
"""Characters of the name that the engine gives a volume that nobody named."""


class Volume(Struct, frozen=True):
    """One volume of the local driver. `data` is the type of its directory: `d`, `-` (not there), or empty for unknown."""

    name: str
    place: str
    data: str
    line: int
    used_by: tuple[str, ...]

    @property
    def anonymous(self) -> bool:
        """Whether the engine named it."""
        return len(self.name) == ANONYMOUS and all(one in "0123456789abcdef" for one in self.name)


class BoundVolume(Struct, frozen=True):
    """A volume of the local driver that binds a path of the host (`-o type=none -o o=bind -o device=PATH`)."""

    name: str
    device: str
    used_by: tuple[str, ...]
    cited: Citation


class Volumes(Struct, frozen=True):
    """Volumes by name. `known` says whether every container was read: else nobody can say which volume is unused."""

    all: tuple[Volume, ...]
    known: bool
    bound: tuple[BoundVolume, ...] = ()
    """Those whose data is a path of the host."""

    def cite(self, one: Volume) -> Citation:
        """Cite a volume's directory."""
        state = {"-": "not there", "d": "is there"}.get(one.data, "not looked at")
        return Citation("store/volumes-data" if one.line else "api/volumes", one.line, f"_data {state}", one.place)


class _Listed(Struct):
    Name: str = ""
    Driver: str = ""
    Mountpoint: str = ""
    Options: dict[str, str] | None = None


class _List(Struct):
    Volumes: list[_Listed] | None = None


@fact
def volumes(snapshot: Snapshot, containers: Containers) -> Volumes:
    """Read the list. Volumes of other drivers, and those that mount something, keep their data elsewhere."""
    record = need(snapshot, "api/volumes", "API")
    try:
        listed = msgspec.json.decode(record.data, type=_List).Volumes or []
    except UNDECODABLE as error:
        raise EvidenceMissing("API", f"/volumes: {error}") from error
    data = snapshot.get("store/volumes-data")
    there = {one.path.removesuffix("/_data"): one for one in tree_entries(data)} if data.readable else {}
    used: dict[str, list[str]] = {}
    for container in (*containers.all, *containers.changing):
        for name in container.asked.volumes:
            used.setdefault(name, []).append(container.name)
    found, bound = [], []
    for one in listed:
        users = tuple(used.get(one.Name, ()))
        options = one.Options or {}
        if one.Driver == "local" and _BIND & set(options.get("o", "").split(",")):
            device = options.get("device", "")
            cited = Citation(record.name, 0, f"{one.Name}: o={options['o']}, device={device}", "docker volume inspect")
            bound.append(BoundVolume(one.Name, device, users, cited))
        if one.Driver != "local" or options.get("device"):
            continue
        entry = there.get(one.Name)
        # The whole directory may be gone, not its _data alone; a list that was cut says nothing of who is not in it.
        state = entry.type if entry else "-" if data.status == "ok" and _below(one, data) else ""
        found.append(Volume(one.Name, one.Mountpoint, state, entry.line if entry else 0, users))
    return Volumes(tuple(found), containers.complete and not containers.unsettled, tuple(bound))


_BIND = {"bind", "rbind"}


def _below(one: _Listed, data: Record) -> bool:
    """Whether the engine keeps a volume in the directory that was looked at."""
    return one.Mountpoint == f"{data.target}/{one.Name}/_data"


class Source(Struct, frozen=True):
    """One path that containers bind: its type (`-` for not there), and the citation."""

    path: str
    type: str
    size: int
    cited: Citation


class BindSources(Struct, frozen=True):
    """All of them by path."""

    all: dict[str, Source]


@fact
def bind_sources(snapshot: Snapshot) -> BindSources:
    """Read the record."""
    record = need(snapshot, "store/bind-sources", "files")
    found = {}
    for one in tree_entries(record):
        size = one.content.split(" ")[-1] if one.type != "-" else ""
        cited = Citation(record.name, one.line, "not there" if one.type == "-" else one.content, one.path)
        found[one.path] = Source(one.path, one.type, int(size) if size.isdecimal() else 0, cited)
    return BindSources(found)
