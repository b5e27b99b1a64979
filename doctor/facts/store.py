"""The image store of the overlay2 driver: layers on disk, the layer database, images and who uses which layer.

Parses the trees `store/overlay2` (`ID/link f ... JQHT...`, `ID/diff d`), `store/overlay2-l` (`JQHT... l ../ID/diff`),
`store/layerdb` (`CHAIN/cache-id f ... ID`), `store/layerdb-mounts`, and the image configurations. Source: moby
`daemon/graphdriver/overlay2/overlay.go`, `layer/filestore.go`, `image/store.go`.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Containers
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, tree_entries


class Layer(Struct, frozen=True):
    """One directory of overlay2. `link` is the text of its link file; lines are those of the record `store/overlay2`.

    `diff` and `work` are the types of these entries: `d`, `-` (not there), or what stands in their place.
    """

    id: str
    link: str
    link_line: int
    link_mtime: float
    lower: str
    diff: str
    diff_line: int
    work: str


class Short(Struct, frozen=True):
    """One entry of overlay2/l: the type (`l` for a link), where it leads, and its line in `store/overlay2-l`."""

    name: str
    type: str
    target: str
    line: int


class Overlay(Struct, frozen=True):
    """overlay2: layers by id, short links by name, and the ids that were still there at the end."""

    root: str
    layers: dict[str, Layer]
    links: dict[str, Short]
    last: frozenset[str] | None


@fact
def overlay(snapshot: Snapshot) -> Overlay:
    """Read both trees."""
    record = snapshot.get("store/overlay2")
    short = snapshot.get("store/overlay2-l")
    if record.status == "absent":
        return Overlay(record.target, {}, {}, None)
    driver = _driver(snapshot)
    if driver and driver != "overlay2":  # what an engine of another driver has left there is used by nobody
        return Overlay(f"{record.target} (the driver in use is {driver})", {}, {}, None)
    if record.status == "denied":
        raise EvidenceMissing("store", f"{record.target.removesuffix('/overlay2')} is root only")
    if not record.readable or short.status not in {"ok", "absent"}:  # of half a list nobody can say what is missing
        held = short if record.readable else record
        raise EvidenceMissing("store", f"{held.target}: {held.why or held.status}")
    parts: dict[str, dict[str, tuple[str, str, int, float]]] = {}
    for entry in tree_entries(record):
        identity, _, member = entry.path.partition("/")
        parts.setdefault(identity, {})[member] = (entry.type, entry.content, entry.line, entry.mtime)
    nothing = ("-", "", 0, 0.0)
    layers = {}
    for identity, members in parts.items():
        link, diff = members.get("link", nothing), members.get("diff", nothing)
        layers[identity] = Layer(
            id=identity,
            link=link[1] if link[0] == "f" else "",
            link_line=link[2],
            link_mtime=link[3],
            lower=members.get("lower", nothing)[1],
            diff=diff[0],
            diff_line=diff[2],
            work=members.get("work", nothing)[0],
        )
    links = {entry.path: Short(entry.path, entry.type, entry.content, entry.line) for entry in tree_entries(short)}
    last = snapshot.get("store/overlay2-last")
    remaining = frozenset(entry.path for entry in tree_entries(last)) if last.readable else None
    return Overlay(record.target, layers, links, remaining)


class _Info(Struct):
    Driver: str = ""


def _driver(snapshot: Snapshot) -> str:
    try:
        return msgspec.json.decode(snapshot.get("api/info").data, type=_Info).Driver
    except UNDECODABLE:
        return ""


class Image(Struct, frozen=True):
    """One image: id, the names it has (its short id when none), and its layers' chain ids from the base up."""

    id: str
    names: tuple[str, ...]
    chains: tuple[str, ...]


class Owners(Struct, frozen=True):
    """Who uses each overlay2 directory: images by name, containers by name. `chain_of` gives a directory's chain id."""

    images: dict[str, tuple[str, ...]]
    containers: dict[str, tuple[str, ...]]
    chain_of: dict[str, str]
    size_of: dict[str, int]
    container_images: dict[str, str]


class _RootFS(Struct):
    diff_ids: list[str] = field(default_factory=list)


class _ImageConfig(Struct):
    rootfs: _RootFS = field(default_factory=_RootFS)


class _Repositories(Struct):
    Repositories: dict[str, dict[str, str]] = field(default_factory=dict)


def chain_ids(diff_ids: list[str]) -> tuple[str, ...]:
    """Give the chain id of each layer from its diff ids: the first is itself, then sha256(parent + " " + diff id).

    Source: OCI image-spec, config.md, "Layer ChainID".

    >>> chain_ids(["sha256:a"])
    ('sha256:a',)
    """
    chains: list[str] = []
    for diff in diff_ids:
        chains.append(f"sha256:{sha256(f'{chains[-1]} {diff}'.encode()).hexdigest()}" if chains else diff)
    return tuple(chains)


def _images(snapshot: Snapshot) -> list[Image]:
    names: dict[str, list[str]] = {}
    try:
        listed = msgspec.json.decode(snapshot.get("store/repositories.json").data, type=_Repositories)
    except UNDECODABLE:
        listed = _Repositories()
    for tags in listed.Repositories.values():
        for name, identity in tags.items():
            if "@" not in name:
                names.setdefault(identity, []).append(name)
    found = []
    for record in snapshot.under("store/images/"):
        identity = "sha256:" + record.name.rpartition("/")[2]
        try:
            config = msgspec.json.decode(record.data, type=_ImageConfig)
        except UNDECODABLE:
            continue
        called = tuple(sorted(names.get(identity, ()))) or (identity[7:19],)
        found.append(Image(identity, called, chain_ids(config.rootfs.diff_ids)))
    return found


@fact
def owners(snapshot: Snapshot, containers: Containers) -> Owners:
    """Join the layer database with images and containers."""
    record = snapshot.get("store/layerdb")
    if not record.readable and record.status != "absent":  # another storage driver has its layers elsewhere
        raise EvidenceMissing("store", f"{record.target}: {record.why or record.status}")
    chain_of: dict[str, str] = {}
    size_of: dict[str, int] = {}
    cache_of: dict[str, str] = {}
    for entry in tree_entries(record):
        chain, _, member = entry.path.partition("/")
        if member == "cache-id":
            chain_of[entry.content.strip()] = f"sha256:{chain}"
            cache_of[f"sha256:{chain}"] = entry.content.strip()
        elif member == "size" and entry.content.strip().isdecimal():
            size_of[f"sha256:{chain}"] = int(entry.content)
    images: dict[str, list[str]] = {}
    image_names = {}
    for image in _images(snapshot):
        image_names[image.id] = image.names[0]
        for chain in image.chains:
            cache = cache_of.get(chain)
            if cache:
                images.setdefault(cache, []).extend(image.names)
    by_id = {one.id: one for one in containers.all}
    users: dict[str, list[str]] = {}
    for entry in tree_entries(snapshot.get("store/layerdb-mounts")):
        identity, _, member = entry.path.partition("/")
        if identity in by_id and member in {"mount-id", "init-id"}:
            users.setdefault(entry.content.strip(), []).append(by_id[identity].name)
    return Owners(
        {cache: tuple(held) for cache, held in images.items()},
        {cache: tuple(held) for cache, held in users.items()},
        chain_of,
        {cache: size_of.get(chain, -1) for cache, chain in chain_of.items()},
        {one.name: image_names.get(one.image_id, one.image) for one in containers.all},
    )
