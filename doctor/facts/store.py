"""The image store of the overlay2 driver: layers on disk, the layer database, images and who uses which layer.

Parses the trees `store/overlay2` (`ID/link f ... JQHT...`, `ID/diff d`), `store/overlay2-l` (`JQHT... l ../ID/diff`),
`store/layerdb` (`CHAIN/cache-id f ... ID`), `store/layerdb-mounts`, and the image configurations. Source: moby
`daemon/graphdriver/overlay2/overlay.go`, `layer/filestore.go`, `image/store.go`, `reference/store.go`.

What a healthy engine changes while this is read must not look like damage. An image is *settled* when its file was
written before the snapshot began and is still there after the layer database was read: its layers were whole all the
while. Layers, chains and mounts are judged only where a settled image or a settled container stands on them.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.lines import unescape
from doctor.model import Citation, Effect
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

LINK = re.compile(r"[A-Z2-7]{26}")
"""What a short link is called: 26 characters of base 32."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MOUNT_ID = re.compile(r"[0-9a-f]{64}(?:-init)?")
"""What the engine calls the layers that are not BuildKit's own (those have 25 letters and digits)."""

_TICK = 0.05
"""Seconds by which a file's time may lie before the moment when it was written: the kernel's clock for that is coarse."""
_REMAPPED = re.compile(r"/\d+\.\d+$")
_FIELDS = 4


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


def _names(record: Record) -> frozenset[str]:
    return frozenset(line.partition("\t")[0] for line in record.text.split("\n") if line)


def _cite(record: Record, path: str, excerpt: str, place: str) -> Citation:
    """Cite the line of a path in a tree; the record as a whole where it has none."""
    text = "\n" + record.text
    at = text.find(f"\n{path}\t")
    return Citation(record.name, text.count("\n", 0, at + 1) if at >= 0 else 0, excerpt, place)


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


class Overlay(Struct, frozen=True):
    """overlay2: layers by id, short links by name (where each leads; empty for what is no link), ids there at the end.

    `unused` says why nothing here is judged: another driver is in use, or there is no such store.
    """

    root: str
    layers: dict[str, Layer]
    links: dict[str, str]
    last: frozenset[str] | None
    unused: str
    unread: dict[str, str]
    record: Record
    shorts: Record

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
        wanted = f"../{identity}/diff"
        return [name for name, target in self.links.items() if target == wanted]

    def name_of(self, identity: str) -> str:
        """Give the short link of a layer: what its file says when that is one, else what leads to it; empty for neither."""
        layer = self.layers.get(identity)
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
        return Overlay(record.target, {}, {}, None, unused, {}, record, short)
    if record.status == "denied":
        raise EvidenceMissing("store", f"{record.target.removesuffix('/overlay2')} is root only")
    if not (record.readable or record.status == "absent") or short.status not in {"ok", "absent"}:
        held = short if record.readable else record  # of half a list nobody can say what is missing
        raise EvidenceMissing("store", f"{held.target}: {held.why or held.status}")
    text = record.text
    table = _table(text)
    nothing = ("-", "", "0")
    layers = {}
    for identity, members in table.items():
        layers[identity] = Layer(
            identity,
            _file(members, "link"),
            _file(members, "lower"),
            members.get("diff", nothing)[0],
            members.get("work", nothing)[0],
            _when(members.get("link", nothing)[2]),
        )
    links = {}
    for line in short.text.split("\n"):
        parts = line.split("\t")
        if len(parts) == _FIELDS:
            links[parts[0]] = parts[3] if parts[1] == "l" else ""
    last = snapshot.get("store/overlay2-last")
    remaining = _names(last) if last.readable else None
    return Overlay(record.target, layers, links, remaining, "", _unread(table, text), record, short)


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


class LayerDb(Struct, frozen=True):
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

    def folder(self, chain: str) -> str:
        """Give the directory of a chain."""
        return f"{self.root}/sha256/{chain.removeprefix('sha256:')}"

    def cite(self, chain: str, member: str, excerpt: str) -> Citation:
        """Cite a file of a chain."""
        name = chain.removeprefix("sha256:")
        return _cite(self.record, f"{name}/{member}", excerpt, f"layerdb/{name[:12]}.../{member}")

    def written(self, chain: str, member: str) -> float:
        """Give when a file of a chain was written, seconds since the epoch; 0 when it is not there."""
        start = f"\n{chain.removeprefix('sha256:')}/{member}\t"
        found = f"\n{self.record.text}".partition(start)[2].partition("\n")[0].split("\t")
        return _when(found[1]) if len(found) > 1 else 0.0

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
    text = record.text
    table = _table(text)
    chains = {}
    leftovers = {}
    records = {}
    for name, members in table.items():
        if "-" in name:
            leftovers[name] = _stripped(_file(members, "cache-id")) or ""
            continue
        identity = f"sha256:{name}"
        chains[identity] = Chain(
            identity,
            _stripped(_file(members, "cache-id")),
            _stripped(_file(members, "diff")),
            _stripped(_file(members, "parent")),
            _stripped(_file(members, "size")),
        )
        kept = members.get("tar-split.json.gz")
        if kept is not None and kept[0] in {"f", "-"}:
            records[identity] = int(kept[1]) if kept[1].isdecimal() else -1
    mounts = {
        name: Mount(
            name,
            _stripped(_file(members, "mount-id")),
            _stripped(_file(members, "init-id")),
            _stripped(_file(members, "parent")),
        )
        for name, members in _table(mounts_record.text).items()
    }
    root = record.target.removesuffix("/sha256")
    unread = {f"sha256:{name}": why for name, why in _unread(table, text).items()}
    removing = frozenset(leftovers.values())
    return LayerDb(root, chains, mounts, removing, unread, record, mounts_record, records, leftovers)


def _stripped(text: str | None) -> str | None:
    return text.strip() if text else text


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
    remaining = _names(last) if last.readable else None
    began = snapshot.meta.collected_at - _TICK
    known = set(_names(first)) if first.readable else set()
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


class Owners(Struct, frozen=True):
    """Who stands on each overlay2 directory: settled images, and the settled containers whose own layer it is.

    `chain_of` gives a directory's chain id; `size_of` its recorded size; `container_images` the image that a container
    is shown with. `owned` are all ids that anything refers to.
    """

    images: dict[str, tuple[Image, ...]]
    containers: dict[str, tuple[Container, ...]]
    chain_of: dict[str, str]
    size_of: dict[str, int]
    container_images: dict[str, str]
    owned: frozenset[str]
    tops: dict[str, str]
    """The chain id that each settled container was made on, by its id, where its image is there."""
    everyone: tuple[Container, ...]
    static: bool
    """Whether nothing can be in the making, because no dockerd runs."""

    def judged(self, identity: str) -> bool:
        """Whether anything settled stands on this directory."""
        return identity in self.images or identity in self.containers

    def names(self, identity: str) -> tuple[str, ...]:
        """Give the names of the images that stand on a directory."""
        return tuple(name for image in self.images.get(identity, ()) for name in image.shown)

    def standing(self, identity: str) -> tuple[Container, ...]:
        """Give the containers that stand on a directory: made from an image that does, or it is their own."""
        held = {image.id for image in self.images.get(identity, ())}
        names = set(self.names(identity))
        own = {one.id for one in self.containers.get(identity, ())}
        return tuple(
            one
            for one in self.everyone
            if one.id in own or one.image_id in held or self.container_images.get(one.name, one.image) in names
        )

    def hits(self, identity: str) -> tuple[Effect, ...]:
        """Say what cannot be started for want of this directory."""
        images: dict[str, list[str]] = {name: [] for name in self.names(identity)}
        for one in self.everyone:
            shown = self.container_images.get(one.name, one.image)
            if shown in images:
                images[shown].append(one.name)
        own = self.containers.get(identity, ())
        hits = []
        if images:
            names = tuple(f"{image} ({', '.join(held)})" if held else image for image, held in images.items())
            hits.append(Effect("nothing made from these images can start, restart or be exec'd into:", names))
        if own:
            names = tuple(sorted({one.name for one in own}))
            hits.append(Effect("these containers cannot be started again or exec'd into", names))
        return tuple(hits)

    def works(self, identity: str) -> tuple[Effect, ...]:
        """Say which containers run on."""
        running = tuple(one.name for one in self.standing(identity) if one.running)
        return (Effect("running containers still run, they were mounted before", running),) if running else ()


@fact
def owners(layers: LayerDb, images: Images, containers: Containers, daemon: Daemon) -> Owners:
    """Join the layer database with images and containers."""
    chains = layers.chains
    by_cache: dict[str, list[Image]] = {}
    chain_of = {}
    size_of = {}
    owned = set(layers.removing)
    for chain in chains.values():
        if chain.cache_id:
            chain_of[chain.cache_id] = chain.id
            size_of[chain.cache_id] = int(chain.size) if chain.size and chain.size.isdecimal() else -1
    owned.update(chain_of)
    for image in images.all:
        for name in image.chains:
            held = chains.get(name)
            if held is not None and held.cache_id:
                by_cache.setdefault(held.cache_id, []).append(image)
    # A container that is being removed loses its layers before it leaves the list.
    settled = {one.id: one for one in containers.all if one.status not in {"removing", "dead"}}
    own: dict[str, list[Container]] = {}
    for mount in layers.mounts.values():
        one = settled.get(mount.container)
        for identity in (mount.mount_id, mount.init_id):
            if identity:
                owned.add(identity)
                if one is not None:
                    own.setdefault(identity, []).append(one)
    by_id = {image.id: image for image in images.all}
    shown = {identity: image.shown[0] for identity, image in by_id.items()}
    made_on = ((one.id, by_id[one.image_id]) for one in settled.values() if one.image_id in by_id)
    return Owners(
        {cache: tuple(held) for cache, held in by_cache.items()},
        {cache: tuple(held) for cache, held in own.items()},
        chain_of,
        size_of,
        {one.name: shown.get(one.image_id, one.image) for one in containers.all},
        frozenset(owned),
        {identity: image.chains[-1] for identity, image in made_on if image.chains},
        containers.all,
        daemon.pid == 0,
    )
