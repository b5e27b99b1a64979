"""`--deep`: the content of layers, read by processes of our own and kept as records `layers/STORE` of the snapshot.

A snapshot says which layers there are and where; this reads them, beside the deadline of everything else, and what comes
out is evidence like any other: it stands in a bundle, and the checks judge it. Nothing is changed on the host.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.exits import UsageError
from doctor.facts.containerd import ContainerdStore
from doctor.facts.containers import Containers
from doctor.facts.images import Images
from doctor.facts.store import LayerDb, Overlay
from doctor.hiders import seen
from doctor.layers import containerd, podman
from doctor.layers.manifests import Unusable
from doctor.layers.model import Checked, Line, Work, dump, load
from doctor.layers.pool import Pace, Progress, verify
from doctor.snapshot import EvidenceMissing, Record, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.examine import Facts
    from doctor.layers.containerd_model import Image as StoredImage
    from doctor.layers.model import Owners
    from doctor.redact import Redactor

RATE = 500e6
"""Bytes a second that one process is taken to verify, for the estimate: half of what a warm cache gives."""
_FIELDS = 3


class Deep(Struct, frozen=True):
    """What is asked for: names of images and containers (none: everything), the pace, a file to resume from and to."""

    asked: tuple[str, ...] = ()
    pace: Pace = Pace()
    resume: str = ""


def read(snapshot: Snapshot, facts: Facts, deep: Deep, redactor: Redactor | None) -> Snapshot:
    """Verify what is asked for, and give the snapshot with what was found. Raises UsageError for a name that is none."""
    works = [work for plan in PLANNERS for work in plan(facts, deep.asked)]
    began = time.monotonic()
    lines = run(works, deep)
    for store, of in lines.items():
        told = seen(of, store, facts)
        data = dump(told)
        redactions = 0
        if redactor is not None:
            data, redactions = redactor.scrub(data, "text")
        name = f"layers/{store}"
        took = (time.monotonic() - began) * 1000
        record = Record(
            name, "command", "doctor layers verify --deep", data=data, ms=took, size=len(data), redactions=redactions
        )
        finished = redactor.finish([record]) if redactor is not None else [record]
        snapshot = msgspec.structs.replace(snapshot, records={**snapshot.records, name: finished[0]})
    return snapshot


def run(works: list[Work], deep: Deep) -> dict[str, list[Line]]:
    """Verify layers, with the estimate first, progress on stderr, and what is known of them from a run before."""
    known = list(_known(deep.resume, works)) if deep.resume else []
    left = sum(one.bytes for one in works) - sum(one.bytes for one in known)
    pace = deep.pace
    seconds = min(left / RATE / pace.jobs, pace.budget or left)
    estimate = (
        f"verify: {len(works) - len(known)} layers, {left / 1e6:,.0f} MB; about {max(1, round(seconds))} s"
        f"{f', at most {pace.budget:.0f} s' if pace.budget else ''}\n"
    )
    if sys.stderr.isatty():
        sys.stderr.write(estimate)
    show = _Show()
    keep = _Keep(deep.resume) if deep.resume else None
    try:
        lines = verify(works, pace, show, known, keep or (lambda _: None))
    finally:
        show.erase()
        if keep:
            keep.close()
    return {store: [msgspec.structs.replace(of[0], asked=deep.asked), *of[1:]] for store, of in lines.items()}


class _Show:
    """The line of progress: on a terminal only, twice a second at most."""

    def __init__(self) -> None:
        self.on = sys.stderr.isatty()
        self.last = time.monotonic()

    def __call__(self, state: Progress) -> None:
        """Write it."""
        now = time.monotonic()
        if not self.on or now - self.last < 0.5:  # noqa: PLR2004 - half a second
            return
        self.last = now
        rate = state.bytes / max(0.001, now - state.began)
        left = (state.all_bytes - state.bytes) / rate if rate else 0
        sys.stderr.write(
            f"\r\x1b[Kverify: {state.layers}/{state.all_layers} layers, {state.bytes / 1e6:,.0f} of"
            f" {state.all_bytes / 1e6:,.0f} MB, {rate / 1e9:.1f} GB/s, {max(0, left):.0f} s left"
        )
        sys.stderr.flush()

    def erase(self) -> None:
        """Take it away."""
        if self.on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class _Keep:
    """The file of `--resume`: the lines of each layer, as soon as it is through."""

    def __init__(self, path: str) -> None:
        try:
            self.handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"--resume {path}: cannot write: {os.strerror(error.errno or 0).lower()}") from error

    def __call__(self, lines: list[Line]) -> None:
        """Keep them; one write, so that a line is there as a whole or not at all."""
        os.write(self.handle, dump(lines))

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)


def _known(path: str, works: list[Work]) -> Iterable[Checked]:
    """Give the layers that a run before found whole. What was damaged or unknown is looked at again."""
    wanted = {(one.store, one.id): one for one in works}
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"--resume {path}: cannot read: {os.strerror(error.errno or 0).lower()}") from error
    found = {}
    for _, line in load(data):
        if isinstance(line, Checked) and (line.store, line.layer) in wanted:
            work = wanted[line.store, line.layer]
            if line.state == "whole" and line.root == (work.root or work.record) and line.digest == work.digest:
                found[line.store, line.layer] = line
            else:
                found.pop((line.store, line.layer), None)
    yield from found.values()


# What overlay2 has


def overlay2(facts: Facts, asked: tuple[str, ...]) -> list[Work]:
    """Plan the layers of overlay2 that the names stand on, all of them without names. Raises UsageError."""
    try:
        overlay: Overlay = facts.get(Overlay)
        layers: LayerDb = facts.get(LayerDb)
    except EvidenceMissing as missing:
        sys.stderr.write(f"doctor: layers are not read: {missing}\n")
        return []
    if overlay.unused:
        return []
    wanted = _wanted(facts, asked) if asked else set(layers.chains)
    uids, gids = _maps(overlay.root)
    works = []
    for chain in layers.chains.values():
        if chain.id in wanted and chain.cache_id in overlay.layers and layers.records.get(chain.id, 1) > 0:
            below = _below(chain.id, layers)
            works.append(
                Work(
                    "overlay2",
                    chain.id,
                    chain.diff or "",
                    int(chain.size) if chain.size and chain.size.isdecimal() else 0,
                    f"{overlay.root}/{chain.cache_id}/diff",
                    f"{layers.folder(chain.id)}/tar-split.json.gz",
                    tuple(f"{overlay.root}/{one}/diff" for one in below),
                    uids,
                    gids,
                    {"size": chain.size or "", "size_file": f"{layers.folder(chain.id)}/size"},
                )
            )
    return works


def _below(chain: str, layers: LayerDb) -> list[str]:
    """Give the directories below a chain, nearest first."""
    found: list[str] = []
    seen = {chain}
    parent = layers.chains[chain].parent
    while parent in layers.chains and parent not in seen:
        seen.add(parent)
        held = layers.chains[parent]
        if held.cache_id:
            found.append(held.cache_id)
        parent = held.parent
    return found


def named(facts: Facts, name: str) -> tuple[str, ...]:
    """Give the chains of an image or a container, from the base up; none for a name that is neither."""
    images: Images = facts.get(Images)
    containers: Containers = facts.get(Containers)
    layers: LayerDb = facts.get(LayerDb)
    bare = name.removeprefix("sha256:")
    for image in images.all:
        short = len(bare) >= 12 and image.id[7:].startswith(bare)  # noqa: PLR2004 - what docker prints
        if name in image.words or f"{name}:latest" in image.names or short:
            return image.chains
    for one in containers.all:
        if name in {one.name, one.engine_name} or (len(bare) >= 12 and one.id.startswith(bare)):  # noqa: PLR2004
            for image in images.all:
                if image.id == one.image_id:
                    return image.chains
            mount = layers.mounts.get(one.id)
            chain = mount.parent if mount else None
            found: list[str] = []
            while chain in layers.chains and chain not in found:
                found.append(chain or "")
                chain = layers.chains[chain or ""].parent
            if found:
                return tuple(reversed(found))
    return tuple(dict.fromkeys(chain for image in _in_containerd(facts, name) for chain in image.chains))


def _in_containerd(facts: Facts, name: str) -> tuple[StoredImage, ...]:
    """Give the images of containerd's store that a name stands for."""
    try:
        held: ContainerdStore = facts.get(ContainerdStore)
    except EvidenceMissing:
        return ()
    return held.named(name)


def _wanted(facts: Facts, asked: tuple[str, ...]) -> set[str]:
    wanted: set[str] = set()
    for name in asked:
        chains = named(facts, name)
        if not chains:
            raise UsageError(f"layers: {name}: no such image, container or file")
        wanted.update(chains)
    return wanted


def _maps(root: str) -> tuple[Owners, Owners]:
    """Give the maps of ids where users are remapped: the data-root ends in the ids of root, `231072.231072`."""
    first, dot, second = root.removesuffix("/overlay2").rpartition("/")[2].partition(".")
    if not dot or not (first.isdecimal() and second.isdecimal()):
        return (), ()
    return _ranges("/etc/subuid", int(first)), _ranges("/etc/subgid", int(second))


def _ranges(path: str, root: int) -> Owners:
    """Read the ranges of whoever has the one that begins at `root`, in their order (subuid(5)); moby `pkg/idtools`."""
    try:
        lines = Path(path).read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    rows = [parts for parts in (line.strip().split(":") for line in lines) if len(parts) == _FIELDS]
    ranges = [(name, int(start), int(count)) for name, start, count in rows if start.isdecimal() and count.isdecimal()]
    whose = next((name for name, start, _ in ranges if start == root), "")
    found, inside = [], 0
    for start, count in sorted((start, count) for name, start, count in ranges if name == whose):
        found.append((inside, start, count))
        inside += count
    return tuple(found) or ((0, root, 65536),)


# What containerd and podman have

_PODMAN = "/var/lib/containers/storage"


def in_containerd(facts: Facts, asked: tuple[str, ...]) -> list[Work]:
    """Plan the layers and blobs of containerd's store: those that the names need, all of them without names."""
    try:
        held: ContainerdStore = facts.get(ContainerdStore)
    except EvidenceMissing as missing:
        sys.stderr.write(f"doctor: containerd's store is not read: {missing}\n")
        return []
    if held.unused or held.store.fault or held.store.busy:
        return []
    works = containerd.plan(held.store)
    if not asked:
        return works
    needed = {
        word for name in asked for one in held.named(name) for word in (one.target, one.config, *one.blobs, *one.chains)
    }
    return [one for one in works if one.id in needed]


def podman_here() -> bool:
    """Whether root has layers of podman's."""
    return os.path.isdir(f"{_PODMAN}/overlay-layers")  # noqa: PTH112 - one look


def in_podman(_: Facts, asked: tuple[str, ...]) -> list[Work]:
    """Plan podman's layers where root has any; names are Docker's."""
    if asked or not podman_here():
        return []
    try:
        return podman.plan(podman.read_store(_PODMAN))
    except (OSError, Unusable) as error:
        sys.stderr.write(f"doctor: podman's store is not read: {error}\n")
        return []


PLANNERS: tuple[Callable[[Facts, tuple[str, ...]], Iterable[Work]], ...] = (overlay2, in_containerd, in_podman)
"""What is on this host, of each kind of store."""
