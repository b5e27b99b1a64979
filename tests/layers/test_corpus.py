"""Damages by chance of containerd's store, of podman's and of archives: code, file, layer, kind and owners, in 99 of 100."""

from __future__ import annotations

import gzip
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest

from doctor.layers import archives, containerd, containerd_store, podman, tally, unpacked
from tests.layers import podmanstore
from tests.layers.archive_damages import DAMAGES, MAKES, layers_are_swapped, no_manifest, zstd
from tests.layers.archives import layers_of
from tests.layers.chance import chance_of
from tests.layers.containerd import Built, build, copied, varied
from tests.layers.corpus import Case, Said, Tally, judge, numbers
from tests.layers.damages import FILE_DAMAGES, called
from tests.layers.damages import paths as files

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

IMAGE = "shop/base:12"


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damages are made just before they are looked for."""
    monkeypatch.setattr(unpacked, "SETTLED", 0.0)
    monkeypatch.setattr(tally, "_TICK", -3600.0)


def _twins(root: Path, path: str) -> list[str]:
    """Give all names of a file: what is changed of it is changed under each."""
    place = root / path[1:]
    if "|" in path or not place.is_file() or place.is_symlink() or place.lstat().st_nlink == 1:
        return [path]
    number = place.lstat().st_ino
    return [called(root, one) for one, about in files(root) if about.st_ino == number]


def _files(chance: random.Random, number: int, roots: list[tuple[str, Path]]) -> tuple[set[str], set[str], set[str]]:
    """Damage files of one layer, in one case of seven of two: the layers, the paths and the kinds."""
    layers, paths, kinds = set(), set(), set()
    for layer, root in chance.sample(roots, 2 if number % 7 == 0 else 1):
        for _ in range(99):
            done = chance.choice(FILE_DAMAGES)(root, chance)
            if done is not None:
                break
        layers.add(layer)
        paths.add("|".join(_twins(root, done[0])))
        kinds |= done[1]
    return layers, paths, kinds


# containerd


def _flipped(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _of_blob(store: Built, chance: random.Random) -> Case:
    digest = chance.choice([*store.packed, store.config, store.manifest])
    path = store.blob(digest)
    how = chance.choice(("flipped", "cut", "emptied", "gone"))
    if how == "gone":
        path.unlink()
        return Case(f"blob {how}", "LAY027", {digest}, set(), set(), (IMAGE,))
    if how == "flipped":
        _flipped(path, chance)
    else:
        os.truncate(path, 0 if how == "emptied" else chance.randrange(1, path.stat().st_size))
    return Case(f"blob {how}", "LAY027", {digest}, {str(path)}, {"record"}, (IMAGE,) if digest in store.packed else ())


def _of_database(store: Built, chance: random.Random) -> Case:
    name = chance.choice(
        ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")
    )
    path = store.root / name
    size = path.stat().st_size
    how = chance.choice(("zeros", "cut", "empty"))
    path.write_bytes({"zeros": bytes(size), "cut": path.read_bytes()[:8192], "empty": b""}[how])
    return Case(f"{name} {how}", "LAY027", {name.rpartition("/")[2]}, set(), set())


def _of_snapshot(store: Built, chance: random.Random) -> Case:
    number = chance.randrange(3)
    shutil.rmtree(store.fs(number).parent)
    return Case("directory gone", "LAY028", {store.chains[number]}, set(), set(), (IMAGE,))


def _in_containerd(store: Built) -> Said:
    held = containerd_store.read_store(str(store.root))
    return judge(containerd.plan(held), containerd.verify, "containerd", held)


def test_damages_of_containerds_store(tmp_path: Path) -> None:
    """Files of snapshots of every kind, blobs, databases, directories; several at once."""
    first = chance_of(1)
    healthy = build(tmp_path / "healthy", [varied(first, at) for at in range(3)])
    assert not _in_containerd(healthy).findings
    counted = Tally()
    for number in numbers():
        chance = chance_of(f"containerd {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        store = copied(healthy, folder)
        kind = chance.randrange(10)
        if kind > 2:
            layers, paths, kinds = _files(chance, number, [(store.chains[at], store.fs(at)) for at in range(3)])
            case = Case(f"{number}: {paths}", "LAY028", layers, paths, kinds, (IMAGE,))
        else:
            case = (_of_blob, _of_database, _of_snapshot)[kind](store, chance)
        counted.add(case, partial(_in_containerd, store))
        shutil.rmtree(folder)
    counted.hold()


# podman


@pytest.fixture(scope="module")
def of_podman() -> Iterator[Path]:
    """A store that podman made."""
    yield from podmanstore.made()


def _in_podman(root: Path) -> Said:
    return judge(podman.plan(podman.read_store(str(root))), podman.verify, "podman")


def _of_record(root: Path, layers: list[str], chance: random.Random) -> Case:
    layer = chance.choice(layers[1:])
    what = chance.choice(("link", "lower", "short link", "tar-split", "directory"))
    path = {
        "link": root / "overlay" / layer / "link",
        "lower": root / "overlay" / layer / "lower",
        "short link": root / "overlay/l" / (root / "overlay" / layer / "link").read_text(),
        "tar-split": root / "overlay-layers" / f"{layer}.tar-split.gz",
        "directory": root / "overlay" / layer / "diff",
    }[what]
    if what == "directory":
        shutil.rmtree(path)
    elif what == "short link":
        path.unlink()
    elif what == "tar-split":
        _flipped(path, chance) if chance.random() < 0.5 else os.truncate(path, 40)
    else:
        path.write_text("")
    return Case(what, "LAY028", {layer}, {str(path)}, {"record", "missing"}, (IMAGE,))


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("podman"), reason="no podman")
def test_damages_of_podmans_store(of_podman: Path, tmp_path: Path) -> None:
    """Files of layers of every kind, and what holds layers together; several at once."""
    assert not _in_podman(of_podman).findings
    counted = Tally()
    for number in numbers():
        chance = chance_of(f"podman {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        root = podmanstore.copied(of_podman, folder)
        layers = podmanstore.layers(root)
        if chance.randrange(10) > 1:
            found, paths, kinds = _files(chance, number, [(one, root / "overlay" / one / "diff") for one in layers])
            case = Case(f"{number}: {paths}", "LAY028", found, paths, kinds, (IMAGE,))
        else:
            case = _of_record(root, layers, chance)
        counted.add(case, partial(_in_podman, root))
        shutil.rmtree(folder)
    counted.hold()


# Archives

DIFFERENT, MISSING = {"content", "size", "digest", "record", "added"}, {"missing"}


def test_damages_of_archives(tmp_path: Path) -> None:
    """Docker save old and new, OCI layouts of every compression, plain or compressed once more as a whole; cut anywhere."""
    squeezes: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, *([zstd.compress] if zstd else [])]
    file = tmp_path / "image.tar"

    def judged() -> Said:
        return judge(archives.plan(str(file)), archives.verify, "archive")

    counted = Tally()
    for number in numbers():
        chance = chance_of(f"archives {number}")
        make, squeeze = chance.choice(list(MAKES)), chance.choice(squeezes)
        made = MAKES[make](layers_of(chance))
        damage = chance.choice(DAMAGES)
        if number % 8 == 0:  # a download that broke off
            whole = squeeze(made.packed())
            data, paths, kinds = whole[: len(whole) * chance.randrange(10, 60) // 100], {str(file)}, DIFFERENT
        else:
            paths, kinds = {damage(made, chance)}, MISSING if "gone" in damage.__name__ else DIFFERENT
            if damage is layers_are_swapped:
                paths = {"|".join(made.layers)}
            if damage is no_manifest:
                kinds = MISSING
            data = squeeze(made.packed())
        file.write_bytes(data)
        case = Case(f"{number}: {make} {damage.__name__}", "LAY031", {str(file)}, paths, kinds)
        counted.add(case, judged)
    counted.hold()
