"""The store of the overlay2 driver: the directories of layers on disk, and the layer database.

Parses the trees `store/overlay2` (`ID/link f ... JQHT...`, `ID/diff d`), `store/overlay2-l` (`JQHT... l ../ID/diff`),
`store/layerdb` (`CHAIN/cache-id f ... ID`) and `store/layerdb-mounts`. Source: moby
`daemon/graphdriver/overlay2/overlay.go`, `layer/filestore.go`.

There may be thousands of both. A directory whose lines are as they should be is read by one regular expression; any other
line by line (`_table`).
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.lines import unescape
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

LINK = re.compile(r"[A-Z2-7]{26}")
"""What a short link is called: 26 characters of base 32."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MOUNT_ID = re.compile(r"[0-9a-f]{64}(?:-init)?")
"""What the engine calls the layers that are not BuildKit's own (those have 25 letters and digits)."""

_REMAPPED = re.compile(r"/\d+\.\d+$")
_FIELDS = 4
_TEXT = r"[^\t\n\\]*"
_LAYER = re.compile(
    rf"""(?m)^([^/\t\n\\]+)/link\tf\t([0-9.]+)\t({_TEXT})\n"""
    rf"""(?:\1/lower\tf\t[0-9.]+\t({_TEXT})\n)?"""
    rf"""\1/diff\t([d-])\t[0-9.]+\t\n"""
    rf"""\1/work\t([d-])\t[0-9.]+\t(?:\n|\Z)(?!\1/)"""
)
"""The lines of one directory of overlay2 that is whole: id, time and text of link, text of lower, types of diff and work."""
_CHAIN = re.compile(
    rf"""(?m)^([0-9a-f]{{64}})/cache-id\tf\t[0-9.]+\t({_TEXT})\n"""
    rf"""\1/diff\tf\t[0-9.]+\t({_TEXT})\n"""
    rf"""(?:\1/parent\tf\t[0-9.]+\t({_TEXT})\n)?"""
    rf"""\1/size\tf\t[0-9.]+\t({_TEXT})\n"""
    rf"""(?:\1/tar-split\.json\.gz\t([f-])\t[0-9.]+\t([0-9]*)(?:\n|\Z))?(?!\1/)"""
)
"""The lines of one record of the layer database that is whole: name, its four files, what there is of tar-split."""


def _whole(pattern: re.Pattern[str], text: str, rest: list[str]) -> Iterator[re.Match[str]]:
    """Give the directories of a tree that a pattern knows; what lies between them is left in `rest`."""
    at = 0
    for match in pattern.finditer(text):
        if match.start() > at:
            rest.append(text[at : match.start()])
        at = match.end()
        yield match
    rest.append(text[at:])


def _table(text: str) -> dict[str, dict[str, tuple[str, str, str]]]:
    """Read a tree of directories: name → member → type, content, time. Lines of one directory stand together."""
    found: dict[str, dict[str, tuple[str, str, str]]] = {}
    escaped = "\\" in text
    last = None
    members: dict[str, tuple[str, str, str]] = {}
    for line in text.split("\n"):
        parts = line.split("\t")
        if len(parts) != _FIELDS:
            continue
        path, kind, when, content = parts
        if escaped:
            path, content = unescape(path), unescape(content)
        name, _, member = path.partition("/")
        if name != last:
            last = name
            members = found.setdefault(name, {})
        members[member] = (kind, content, when)
    return found


def _file(members: dict[str, tuple[str, str, str]], name: str) -> str | None:
    """Give the text of a member, None when it is not there; of what is no file nothing is left but that it is there."""
    held = members.get(name)
    if held is None or held[0] == "-":
        return None
    return held[1] if held[0] == "f" else ""


def _unread(table: dict[str, dict[str, tuple[str, str, str]]], text: str) -> dict[str, str]:
    """Give the directories of which something could not be read, and why."""
    if "\t!\t" not in text:
        return {}
    return {
        name: f"{name[:12]}/{member}: {content}"
        for name, members in table.items()
        for member, (kind, content, _) in members.items()
        if kind == "!"
    }


def names_in(record: Record) -> frozenset[str]:
    """Give the paths of a tree."""
    return frozenset(line.partition("\t")[0] for line in record.text.split("\n") if line)


@lru_cache(maxsize=4)
def _lines(data: bytes) -> tuple[list[str], dict[str, int]]:
    """Give the lines of a tree, and where each path stands (from 1): known once somebody asks, who then asks often."""
    lines = data.decode("utf-8", "replace").split("\n")
    return lines, {line.partition("\t")[0]: number for number, line in enumerate(lines, 1)}


def _cite(record: Record, path: str, excerpt: str, place: str) -> Citation:
    """Cite the line of a path in a tree; the record as a whole where it has none."""
    return Citation(record.name, _lines(record.data)[1].get(path, 0), excerpt, place)


class Layer(Struct, frozen=True, gc=False):
    """One directory of overlay2.

    `link` and `lower` are the text of these files, None when they are not there; `diff` and `work` are the types of these
    entries: `d`, `-` (not there), or what stands in their place. `written` is when `link` was, seconds since the epoch.
    """

    id: str
    link: str | None
    lower: str | None
    diff: str
    work: str
    written: float


class Overlay(Struct, frozen=True, dict=True):
    """overlay2: layers by id, short links by name (where each leads; empty for what is no link), ids there at the end.

    `unused` says why nothing here is judged: another driver is in use, or there is no such store. `named` are the ids of
    layers whose short name is one, and leads to them.
    """

    root: str
    layers: dict[str, Layer]
    links: dict[str, str]
    last: frozenset[str] | None
    unused: str
    unread: dict[str, str]
    named: frozenset[str]
    record: Record
    shorts: Record

    @property
    def unnamed(self) -> list[Layer]:
        """The layers whose short name is none, or does not lead to them."""
        return [layer for identity, layer in self.layers.items() if identity not in self.named]

    def cite(self, path: str, excerpt: str) -> Citation:
        """Cite an entry of a layer, `ID/link`."""
        name, _, member = path.partition("/")
        return _cite(self.record, path, excerpt, f"overlay2/{name[:12]}.../{member}")

    def cite_short(self, name: str, excerpt: str) -> Citation:
        """Cite a short link; an empty name cites the directory."""
        return _cite(self.shorts, name, excerpt, f"overlay2/l/{name}")

    def gone(self, identity: str) -> bool:
        """Whether there is no such directory, and none at the end either."""
        return identity not in self.layers and (self.last is None or identity not in self.last)

    def names_of(self, identity: str) -> list[str]:
        """Give the short links that lead to a layer."""
        return self._leading.get(f"../{identity}/diff", [])

    @cached_property
    def _leading(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, target in self.links.items():
            found.setdefault(target, []).append(name)
        return found

    def name_of(self, identity: str) -> str:
        """Give the short link of a layer: what its file says when that is one, else what leads to it; empty for neither."""
        layer = self.layers.get(identity)
        if layer and identity in self.named:
            return layer.link or ""
        led = f"../{identity}/diff"
        if layer and layer.link and LINK.fullmatch(layer.link) and self.links.get(layer.link, led) == led:
            return layer.link
        return next((name for name in self.names_of(identity) if LINK.fullmatch(name)), "")


class _Info(Struct):
    Driver: str = ""
    DockerRootDir: str = ""


def _info(snapshot: Snapshot) -> _Info:
    try:
        return msgspec.json.decode(snapshot.get("api/info").data, type=_Info)
    except UNDECODABLE:
        return _Info()


@fact
def overlay(snapshot: Snapshot) -> Overlay:
    """Read both trees."""
    record = snapshot.get("store/overlay2")
    short = snapshot.get("store/overlay2-l")
    info = _info(snapshot)
    unused = ""
    if info.Driver and info.Driver != "overlay2":  # what an engine of another driver has left there is used by nobody
        unused = f"no layers in {record.target} (the driver in use is {info.Driver})"
    elif _REMAPPED.search(info.DockerRootDir) and not record.target.startswith(f"{info.DockerRootDir}/"):
        unused = f"no layers in {record.target} (users are remapped, they are in {info.DockerRootDir})"
    elif record.status == "absent" and info.Driver != "overlay2":
        unused = f"no layers in {record.target}"
    if unused:
        return Overlay(record.target, {}, {}, None, unused, {}, frozenset(), record, short)
    if record.status == "denied":
        raise EvidenceMissing("store", f"{record.target.removesuffix('/overlay2')} is root only")
    if not (record.readable or record.status == "absent") or short.status not in {"ok", "absent"}:
        held = short if record.readable else record  # of half a list nobody can say what is missing
        raise EvidenceMissing("store", f"{held.target}: {held.why or held.status}")
    layers, unread = _layers(record.text)
    links = {}
    for line in short.text.split("\n"):
        parts = line.split("\t")
        if len(parts) == _FIELDS:
            links[parts[0]] = parts[3] if parts[1] == "l" else ""
    last = snapshot.get("store/overlay2-last")
    remaining = names_in(last) if last.readable else None
    named = frozenset(
        identity
        for identity, layer in layers.items()
        if layer.link and links.get(layer.link) == f"../{identity}/diff" and LINK.fullmatch(layer.link)
    )
    return Overlay(record.target, layers, links, remaining, "", unread, named, record, short)


def _layers(text: str) -> tuple[dict[str, Layer], dict[str, str]]:
    """Give the layers of a tree by id, and those of which something could not be read, with why."""
    rest: list[str] = []
    layers = {}
    for match in _whole(_LAYER, text, rest):
        identity, when, link, lower, diff, work = match.groups()
        layers[identity] = Layer(identity, link, lower, diff, work, _when(when))
    left = "".join(rest)
    table = _table(left)
    if (
        table.keys() & layers.keys()
    ):  # lines of one directory that do not stand together, as in a bundle that was edited
        left, table = text, _table(text)
    nothing = ("-", "", "0")
    for identity, members in table.items():
        layers[identity] = Layer(
            identity,
            _file(members, "link"),
            _file(members, "lower"),
            members.get("diff", nothing)[0],
            members.get("work", nothing)[0],
            _when(members.get("link", nothing)[2]),
        )
    return layers, _unread(table, left)


def _when(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return 0.0


class Chain(Struct, frozen=True, gc=False):
    """One layer of the layer database, by its chain id; a file that is not there is None."""

    id: str
    cache_id: str | None
    diff: str | None
    parent: str | None
    size: str | None


class Mount(Struct, frozen=True, gc=False):
    """The layer of one container in the layer database; a file that is not there is None."""

    container: str
    mount_id: str | None
    init_id: str | None
    parent: str | None


class LayerDb(Struct, frozen=True, dict=True):
    """The layer database: chains by chain id, mounts by container id, the cache ids of layers that are being removed."""

    root: str
    chains: dict[str, Chain]
    mounts: dict[str, Mount]
    removing: frozenset[str]
    unread: dict[str, str]
    record: Record
    mounts_record: Record
    records: dict[str, int]
    """Bytes of each chain's tar-split, -1 for one that is not there; empty where nobody looked (older bundles)."""
    leftovers: dict[str, str]
    """Records that are being removed, by the name of their directory: the cache id in each, perhaps empty."""

    @cached_property
    def on_top(self) -> dict[str, list[str]]:
        """The directories right on top of each chain: of layers, then of containers (their init layers, where there are)."""
        found: dict[str, list[str]] = {}
        for one in self.chains.values():
            found.setdefault(one.parent or "", []).append(one.cache_id or "")
        for mount in self.mounts.values():
            found.setdefault(mount.parent or "", []).append(mount.init_id or mount.mount_id or "")
        return found

    def folder(self, chain: str) -> str:
        """Give the directory of a chain."""
        return f"{self.root}/sha256/{chain.removeprefix('sha256:')}"

    def cite(self, chain: str, member: str, excerpt: str) -> Citation:
        """Cite a file of a chain."""
        name = chain.removeprefix("sha256:")
        return _cite(self.record, f"{name}/{member}", excerpt, f"layerdb/{name[:12]}.../{member}")

    def written(self, chain: str, member: str) -> float:
        """Give when a file of a chain was written, seconds since the epoch; 0 when it is not there."""
        lines, numbers = _lines(self.record.data)
        number = numbers.get(f"{chain.removeprefix('sha256:')}/{member}", 0)
        parts = lines[number - 1].split("\t") if number else []
        return _when(parts[2]) if len(parts) == _FIELDS else 0.0

    def cite_mount(self, container: str, member: str, excerpt: str) -> Citation:
        """Cite a file of a container's mount."""
        return _cite(
            self.mounts_record, f"{container}/{member}", excerpt, f"layerdb/mounts/{container[:12]}.../{member}"
        )


@fact
def layer_db(snapshot: Snapshot) -> LayerDb:
    """Read the layer database."""
    record, mounts_record = snapshot.get("store/layerdb"), snapshot.get("store/layerdb-mounts")
    for one in (record, mounts_record):
        if one.status not in {"ok", "absent"} and not (one is mounts_record and one.status == "not-run"):
            raise EvidenceMissing("store", f"{one.target}: {one.why or one.status}")
    held = _Records(record.text)
    mounts = {
        name: Mount(
            name,
            _stripped(_file(members, "mount-id")),
            _stripped(_file(members, "init-id")),
            _stripped(_file(members, "parent")),
        )
        for name, members in _table(mounts_record.text).items()
    }
    return LayerDb(
        record.target.removesuffix("/sha256"),
        held.chains,
        mounts,
        frozenset(held.leftovers.values()),
        held.unread,
        record,
        mounts_record,
        held.tar_splits,
        held.leftovers,
    )


class _Records:
    """What the tree of the layer database holds: see `LayerDb`."""

    def __init__(self, text: str) -> None:
        """Read it."""
        rest: list[str] = []
        self.chains: dict[str, Chain] = {}
        self.leftovers: dict[str, str] = {}
        self.tar_splits: dict[str, int] = {}
        for match in _whole(_CHAIN, text, rest):
            name, cache, diff, parent, size, kind, length = match.groups()
            identity = f"sha256:{name}"
            self.chains[identity] = Chain(identity, cache.strip(), diff.strip(), _stripped(parent), size.strip())
            if kind is not None:
                self.tar_splits[identity] = int(length) if length else -1
        left = "".join(rest)
        table = _table(left)
        if any(f"sha256:{name}" in self.chains for name in table):  # as of layers
            left, table = text, _table(text)
        for name, members in table.items():
            self._record(name, members)
        self.unread = {f"sha256:{name}": why for name, why in _unread(table, left).items()}

    def _record(self, name: str, members: dict[str, tuple[str, str, str]]) -> None:
        if "-" in name:
            self.leftovers[name] = _stripped(_file(members, "cache-id")) or ""
            return
        identity = f"sha256:{name}"
        self.chains[identity] = Chain(
            identity, *(_stripped(_file(members, one)) for one in ("cache-id", "diff", "parent", "size"))
        )
        kept = members.get("tar-split.json.gz")
        if kept is not None and kept[0] in {"f", "-"}:
            self.tar_splits[identity] = int(kept[1]) if kept[1].isdecimal() else -1


def _stripped(text: str | None) -> str | None:
    return text.strip() if text else text
