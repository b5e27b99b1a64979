"""`doctor layers`: which layers there are, whether they are what was pulled, and what one of them is."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import TYPE_CHECKING

from doctor import __version__
from doctor.assess import assess
from doctor.deep import Deep, named, run
from doctor.examine import Facts
from doctor.exits import CLEAN, FAULT, FOUND, INCOMPLETE, UsageError
from doctor.facts.containerd import ContainerdStore, shown
from doctor.facts.images import Images
from doctor.facts.layer_content import Impacts, LayerContent
from doctor.facts.store import LayerDb, Overlay
from doctor.layers.containerd_model import SNAPSHOTTER
from doctor.layers.model import VERIFIERS, Checked, Damage, Run, Unread, dump
from doctor.layers.told import LayerList, LayerRow, Verification
from doctor.model import SCHEMA, Result, Severity
from doctor.snapshot import EvidenceMissing, Meta, Record, Snapshot

if TYPE_CHECKING:
    from doctor.layers.model import Line, Work
    from doctor.model import HostInfo, Report, Reported
    from doctor.registry import Registry

_AREAS = ("LAY",)
_MIN = 4


def is_file(word: str) -> bool:
    """Whether a word of the command line is an archive: a file or directory that is there, or has a `/` in the beginning."""
    return word.startswith(("/", "./", "../")) or os.path.isfile(word)  # noqa: PTH113 - one look


def archives(paths: list[str], deep: Deep) -> list[Line]:
    """Verify archives given as files. Raises UsageError for one that is none."""
    try:
        plan = import_module(VERIFIERS["archive"]).plan
    except ModuleNotFoundError as error:
        raise UsageError("layers: this doctor verifies no archives") from error
    works: list[Work] = []
    for path in paths:
        try:
            works += plan(path)
        except OSError as error:
            raise UsageError(f"layers: {path}: {os.strerror(error.errno or 0).lower()}") from error
        except ValueError as error:
            raise UsageError(f"layers: {path}: {error}") from error
    return [line for lines in run(works, deep).values() for line in lines]


def judged(
    snapshot: Snapshot, registry: Registry, asked: tuple[str, ...], *, deep: bool, began: float
) -> tuple[Verification, Report, Facts]:
    """Judge a snapshot's layers: structure always, content where the snapshot has it."""
    facts = Facts(registry, snapshot)
    checks = [one for code, one in registry.checks.items() if code.startswith(_AREAS)]
    report = assess(snapshot, registry, checks, (), began, facts)
    content: LayerContent = facts.get(LayerContent)
    lines = list(content.stores.values())
    wanted = _about(facts, asked) if asked else None
    findings = tuple(one for one in report.findings if wanted is None or _concerns(one, wanted))
    layers: LayerDb | None = _or_none(facts)
    return (
        Verification(
            SCHEMA,
            __version__,
            report.host,
            deep,
            tuple(one.run for one in lines if one.run),
            tuple(checked for one in lines for checked in one.checked.values()),
            tuple(found.damage for one in lines for found in one.damages),
            tuple(unread for one in lines for unread in one.unread),
            findings,
            report.outcomes,
            len(wanted.chains) if wanted else (len(layers.chains) if layers else 0) + len(_containerd_rows(facts)),
            round((time.perf_counter() - began) * 1000, 1),
            {one.layer: _images(facts, one) for each in lines for one in each.checked.values() if one.damages},
        ),
        report,
        facts,
    )


def _images(facts: Facts, checked: Checked) -> tuple[str, ...]:
    """Name the images that stand on a layer of one of Docker's stores."""
    try:
        if checked.store == "containerd":
            held: ContainerdStore = facts.get(ContainerdStore)
            return shown(held.images_on(checked.layer))
        if checked.store == "overlay2":
            impacts: Impacts = facts.get(Impacts)
            return tuple(name for one in impacts.of(checked.layer, []).every_image for name in one.shown)
    except EvidenceMissing:
        pass
    return ()


def _or_none(facts: Facts) -> LayerDb | None:
    try:
        found: LayerDb = facts.get(LayerDb)
    except Exception:  # noqa: BLE001 - the checks have said why
        return None
    return found


class _Wanted:
    """What the words stand for: chains, and every id and name that a finding about them could have as its subject."""

    def __init__(self) -> None:
        self.chains: set[str] = set()
        self.words: set[str] = set()


def _about(facts: Facts, asked: tuple[str, ...]) -> _Wanted:
    layers: LayerDb = facts.get(LayerDb)
    wanted = _Wanted()
    for name in asked:
        chains = named(facts, name)
        if not chains:
            raise UsageError(f"layers: {name}: no such image, container or file")
        wanted.chains.update(chains)
        wanted.words.update((name, *_blobs(facts, name)))
    for chain in wanted.chains:
        held = layers.chains.get(chain)
        wanted.words.add(chain.removeprefix("sha256:"))
        if held and held.cache_id:
            wanted.words.add(held.cache_id)
    return wanted


def _blobs(facts: Facts, name: str) -> tuple[str, ...]:
    """Give what containerd's store has of an image: the subjects of findings about it."""
    try:
        held: ContainerdStore = facts.get(ContainerdStore)
    except EvidenceMissing:
        return ()
    images = held.named(name)
    return tuple(word for one in images for word in (one.target, one.config, *one.blobs, *one.chains) if word)


def _concerns(one: Reported, wanted: _Wanted) -> bool:
    if one.subject in wanted.words or any(word in one.subject for word in wanted.words if len(word) > _MIN):
        return True
    return any(name in wanted.words for effect in one.hits for name in effect.names)


def _of_archives(lines: list[Line], registry: Registry) -> tuple[Reported, ...]:
    """Judge what was found in archives: no host is asked for that."""
    record = Record("layers/archive", "command", "doctor layers verify", data=dump(lines))
    meta = Meta(__version__, "", "", "", time.time(), 0, os.geteuid(), "")
    snapshot = Snapshot(meta, {record.name: record})
    checks = [one for code, one in registry.checks.items() if code == "LAY031"]
    return assess(snapshot, registry, checks, (), time.perf_counter(), Facts(registry, snapshot)).findings


def with_archives(
    value: Verification | None, lines: list[Line], registry: Registry, *, deep: bool, began: float
) -> Verification:
    """Add what was found in archives."""
    base = value or Verification(SCHEMA, __version__, None, deep, (), (), (), (), (), (), 0, 0.0)
    from msgspec.structs import replace

    return replace(
        base,
        deep=True,
        runs=(*base.runs, *(one for one in lines if isinstance(one, Run))),
        layers=(*base.layers, *(one for one in lines if isinstance(one, Checked))),
        damages=(*base.damages, *(one for one in lines if isinstance(one, Damage))),
        unread=(*base.unread, *(one for one in lines if isinstance(one, Unread))),
        findings=(*base.findings, *_of_archives(lines, registry)),
        ms=round((time.perf_counter() - began) * 1000, 1),
    )


def from_archive(value: Verification, facts: Facts, path: str) -> Verification:
    """Cure from an archive where it holds the damaged layer, which its diffID proves. Raises UsageError."""
    from msgspec.structs import replace

    from doctor.facts.layer_repairs import meanwhile, put_back
    from doctor.layers.good import find, names

    damaged = {one.layer: one for one in value.layers if one.state == "damaged"}
    try:
        places = find(path, (one.digest for one in damaged.values()))
    except OSError as error:
        raise UsageError(f"--from {path}: {os.strerror(error.errno or 0).lower()}") from error
    except ValueError as error:
        raise UsageError(f"--from {path}: {error}") from error
    findings = []
    for finding in value.findings:
        checked = damaged.get(f"sha256:{finding.subject}") or damaged.get(finding.subject)
        place = places.get(checked.digest) if checked else None
        lost = [
            one
            for one in value.damages
            if checked and one.layer == checked.layer and one.kind in _PUT_BACK.get(finding.code, ())
        ]
        if checked is None or place is None or not lost:
            findings.append(finding)
            continue
        inner = names(path, place, (one.path for one in lost))
        summary = f"put back what is right, from {path}, which holds this layer by its digest"
        engine, running = _running(facts, checked)
        remedy = meanwhile(engine, running, summary, put_back(checked.root, inner, path, place))
        findings.append(replace(finding, remedy=remedy))
    return replace(value, findings=tuple(findings))


def _running(facts: Facts, checked: Checked) -> tuple[str, dict[str, str]]:
    """Give the engine of a layer, and the containers on it that run: of podman's nobody knows which do."""
    if checked.store == "podman":
        names = [one.removeprefix("container ") for one in checked.owners if one.startswith("container ")]
        return "podman", {one: one for one in names}
    if checked.store == "containerd":
        held: ContainerdStore = facts.get(ContainerdStore)
        standing = [one for own in held.store.snapshots if own.key == checked.layer for one in held.containers_on(own)]
    else:
        impacts: Impacts = facts.get(Impacts)
        standing = list(impacts.of(checked.layer, []).every_container)
    return "docker", {one.name: one.engine_name for one in standing if one.running}


_PUT_BACK: dict[str, tuple[str, ...]] = {
    "LAY012": ("content", "size", "missing", "type", "device"),
    "LAY015": ("mode", "owner", "xattr", "capability", "link target"),
}
_PUT_BACK["LAY028"] = _PUT_BACK["LAY012"] + _PUT_BACK["LAY015"]


def code(value: Verification, report: Report | None) -> int:
    """Give the exit code: damage before a fault of ours before what could not be read."""
    if any(one.severity is Severity.ERROR for one in value.findings) or value.damages:
        return FOUND
    if report is not None and (report.counts.broken or report.faults):
        return FAULT
    # Without Docker nobody asks about its layers: podman's are verified.
    docker = value.host is not None and value.host.engine_state != "absent"
    open_ = docker and any(one.outcome is Result.UNKNOWN for one in value.outcomes)
    if open_ or any(one.state == "unknown" for one in value.layers):
        return INCOMPLETE
    return CLEAN


# list and explain


def rows(facts: Facts) -> tuple[LayerRow, ...]:
    """Give every layer of overlay2 with its users: a layer stands before those on top of it."""
    layers: LayerDb = facts.get(LayerDb)
    impacts: Impacts = facts.get(Impacts)
    images: Images = facts.get(Images)
    order = {chain: number for number, chain in enumerate(dict.fromkeys(c for one in images.all for c in one.chains))}
    found = []
    for chain in sorted(layers.chains.values(), key=lambda one: (order.get(one.id, len(order)), one.id)):
        impact = impacts.of(chain.id, [])
        found.append(
            LayerRow(
                "overlay2",
                chain.id,
                chain.cache_id or "",
                chain.diff or "",
                chain.parent or "",
                int(chain.size) if chain.size and chain.size.isdecimal() else 0,
                tuple(name for image in impact.every_image for name in image.shown),
                tuple(one.name for one in impact.every_container),
            )
        )
    return (*found, *_containerd_rows(facts))


def _containerd_rows(facts: Facts) -> list[LayerRow]:
    try:
        held: ContainerdStore = facts.get(ContainerdStore)
    except EvidenceMissing:
        return []
    diffs = {chain: diff for one in held.store.images for chain, diff in zip(one.chains, one.diffs, strict=True)}
    # Not as snapshots stand on each other: one that was committed stands on its container's.
    below = {
        chain: under for one in held.store.images for under, chain in zip(("", *one.chains), one.chains, strict=False)
    }
    return [
        LayerRow(
            "containerd",
            one.key,
            f"snapshots/{one.id}",
            diffs[one.key],
            below[one.key],
            one.size,
            shown(held.images_on(one.key)),
            tuple(held_by.name for held_by in held.containers_on(one)),
        )
        for one in sorted(held.store.snapshots, key=lambda one: one.id)
        if one.key in diffs
    ]


def chosen(facts: Facts, word: str) -> tuple[tuple[LayerRow, ...], dict[str, str]]:
    """Give one layer and those below it, and where it lies. Raises UsageError for a word that is no layer, or several."""
    every = rows(facts)
    bare = word.removeprefix("sha256:")
    found = [
        one
        for one in every
        if len(bare) >= _MIN
        and any(name.removeprefix("sha256:").startswith(bare) for name in (one.layer, one.directory, one.digest))
    ]
    if not found:
        raise UsageError(f"layers: {word}: no such layer; doctor layers list has them all")
    if len(found) > 1:
        raise UsageError(f"layers: {word}: {len(found)} layers begin so; give more of it")
    by_id = {one.layer: one for one in every}
    stack, parent = [found[0]], found[0].parent
    while parent in by_id and by_id[parent] not in stack:
        stack.append(by_id[parent])
        parent = by_id[parent].parent
    first = found[0]
    return tuple(stack), {
        "chain id": first.layer,
        "diffID": first.digest,
        "parent": first.parent or "none: a base",
        **_where(facts, first),
    }


def _where(facts: Facts, one: LayerRow) -> dict[str, str]:
    """Say where a layer's files are, and what tells how they have to be."""
    if one.store == "containerd":
        held: ContainerdStore = facts.get(ContainerdStore)
        blobs = {
            chain: blob for image in held.store.images for chain, blob in zip(image.chains, image.blobs, strict=False)
        }
        blob = blobs.get(one.layer, "").removeprefix("sha256:")
        return {
            "files": f"{held.store.root}/{SNAPSHOTTER}/{one.directory}/fs",
            "blob": f"{held.store.root}/io.containerd.content.v1.content/blobs/sha256/{blob}" if blob else "not known",
        }
    layers: LayerDb = facts.get(LayerDb)
    overlay: Overlay = facts.get(Overlay)
    return {
        "files": f"{overlay.root}/{one.directory}/diff",
        "record": f"{layers.folder(one.layer)}/tar-split.json.gz",
    }


def listed(facts: Facts, host: HostInfo) -> LayerList:
    """Give `doctor layers list`."""
    return LayerList(SCHEMA, __version__, host, rows(facts))
