"""containerd's store: healthy ones are whole, each damage is told with file and kind, and never a neighbour's."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from doctor.layers import containerd, containerd_store, unpacked
from doctor.layers.containerd_model import META, SNAPSHOTTER, Store
from doctor.layers.model import Run, dump
from tests.layers.archives import tar_of
from tests.layers.chance import chance_of
from tests.layers.containerd import Built, build, copied, varied
from tests.layers.curing import carry_out, findings
from tests.layers.damages import FILE_DAMAGES
from tests.layers.told import Told

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path


def verified(root: Path) -> tuple[Store, Told, set[str]]:
    """The store, everything that was told of it, and the states of its layers."""
    store = containerd_store.read_store(str(root))
    told = Told()
    states = {containerd.verify(work, told).state for work in containerd.plan(store)}
    return store, told, states


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Damages are made just before they are looked for."""
    if "in_use" not in request.node.name:
        monkeypatch.setattr(unpacked, "SETTLED", 0.0)


def whole(root: Path) -> None:
    """Nothing is wrong, and nothing unknown."""
    store, told, states = verified(root)
    assert (told.damages, told.unreadable, states) == ([], [], {"whole"})
    assert not containerd_store.odd(store)
    assert not store.fault
    assert all(image.chains for image in store.images)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One store that is copied for each damage."""
    chance = chance_of(1)
    return build(tmp_path_factory.mktemp("containerd") / "root", [varied(chance, at) for at in range(3)])


def test_a_healthy_store_is_whole(healthy: Built) -> None:
    """Something of everything in three layers."""
    whole(healthy.root)
    store = containerd_store.read_store(str(healthy.root))
    assert [one.name for one in store.images] == ["docker.io/shop/base:12"]
    assert list(store.images[0].chains) == healthy.chains
    assert len(containerd.plan(store)) == 5


@pytest.mark.parametrize(
    "squeeze", [bytes, gzip.compress, lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:])]
)
def test_healthy_ones_that_look_odd(tmp_path: Path, squeeze: Callable[[bytes], bytes]) -> None:
    """Empty layers, many layers, names that nobody should use, members that replace earlier ones."""
    odd = tar_of({"new\nline": b"1", "tab\t": b"2", "x" * 180: b"3", "deep/er/than": b"4", "./dot/./ted": b"5"})
    twice = tar_of({"a": b"first", "d/": b"", "d/in": b"1"})[: 512 * 6] + tar_of({"a": b"second one", "d/in": b"2"})
    many = [tar_of({f"f{at}": b"%d" % at}) for at in range(120)]
    for number, layers in enumerate(([odd, tar_of({})], [twice], many)):
        root = tmp_path / str(number)
        _owned(root, layers, squeeze)
        whole(root)


def _owned(root: Path, layers: list[bytes], squeeze: Callable[[bytes], bytes]) -> None:
    """Build it; archives of `tar_of` belong to root, so where the test does not run as root nothing is compared."""
    if os.geteuid():
        pytest.skip("files of root")
    build(root, layers, squeeze)


@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda one: one.__name__)
def test_a_damaged_file_is_told(
    healthy: Built, tmp_path: Path, damage: Callable[..., tuple[str, set[str]] | None]
) -> None:
    """Twice each: the file, the kind, the layer; nothing beside it, but for what was in a directory that is gone."""
    done = 0
    for seed in range(4):
        chance = chance_of(f"{damage.__name__} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        store = copied(healthy, folder)
        number = chance.randrange(3)
        expected = damage(store.fs(number), chance)
        if expected is None:
            continue
        done += 1
        path, kinds = expected
        _, told, _ = verified(store.root)
        names = path.split("|")
        mine = [one for one in told.damages if one.path in names]
        assert mine, (path, told.damages)
        assert {one.kind for one in mine} <= kinds
        assert {one.layer for one in told.damages} == {store.chains[number]}
        assert all(any(one.path == name or one.path.startswith(f"{name}/") for name in names) for one in told.damages)
        assert not told.unreadable
        if done == 2:
            return
    assert done or os.geteuid()


@pytest.mark.root
@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda one: one.__name__)
def test_a_snapshot_is_set_right_by_its_blob(
    healthy: Built, tmp_path: Path, damage: Callable[..., tuple[str, set[str]] | None]
) -> None:
    """Each kind of damage, by the commands that are printed: none removes an image or a container."""
    done = 0
    for seed in range(4):
        chance = chance_of(f"{damage.__name__} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        store = copied(healthy, folder)
        if damage(store.fs(chance.randrange(3)), chance) is None:
            continue
        done += 1
        held = containerd_store.read_store(str(store.root))
        told = Told()
        checked = [containerd.verify(work, told) for work in containerd.plan(held)]
        lines = dump([Run("containerd", len(checked), 0), *checked, *told.damages])
        (found,) = [one for one in findings("containerd", lines, held) if one.code == "LAY028"]
        assert found.remedy.risk == "safe"
        carry_out(found)
        whole(store.root)
    assert done


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


BLOBS = {
    "layer": lambda made, chance: chance.choice(made.packed),
    "config": lambda made, _: made.config,
    "manifest": lambda made, _: made.manifest,
}


@pytest.mark.parametrize("what", list(BLOBS))
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_blob_is_told(healthy: Built, tmp_path: Path, what: str, how: str) -> None:
    """By its digest, and a layer that cannot be compared with it is not called damaged itself."""
    chance = chance_of(f"{what} {how}")
    store = copied(healthy, tmp_path)
    name = BLOBS[what](store, chance)
    path = store.blob(name)
    if how == "flip":
        _flip(path, chance)
    else:
        with path.open("r+b") as file:
            file.truncate(0 if how == "empty" else path.stat().st_size // 2)
    found, told, _ = verified(store.root)
    assert {(one.layer, one.path, one.kind) for one in told.damages} == {(name, str(path), "record")}
    if what != "layer":
        assert "its content is not that of its digest" in found.images[0].why
    if how != "flip":
        assert {one.digest for one in found.blobs if one.there != one.size} == {name}


@pytest.mark.parametrize("what", list(BLOBS))
def test_a_blob_that_is_gone_shows_in_the_store(healthy: Built, tmp_path: Path, what: str) -> None:
    """Nothing is left to verify: the structure tells."""
    store = copied(healthy, tmp_path)
    name = BLOBS[what](store, chance_of(what))
    store.blob(name).unlink()
    found, told, _ = verified(store.root)
    assert not told.damages
    assert {one.digest for one in found.blobs if one.there != one.size} == {name}


def test_a_snapshot_without_a_directory_shows_in_the_store(healthy: Built, tmp_path: Path) -> None:
    """And one directory that no snapshot has."""
    store = copied(healthy, tmp_path)
    shutil.rmtree(store.fs(1).parent)
    (store.root / SNAPSHOTTER / "snapshots" / "77" / "fs").mkdir(parents=True)
    found, told, _ = verified(store.root)
    assert [one.key for one in found.snapshots if not one.fs] == [store.chains[1]]
    assert [one.id for one in found.lost] == ["77"]
    assert not told.damages


@pytest.mark.parametrize("file", [META, f"{SNAPSHOTTER}/metadata.db"])
@pytest.mark.parametrize("how", ["zeros", "cut", "gone", "empty"])
def test_a_damaged_database_is_named(healthy: Built, tmp_path: Path, file: str, how: str) -> None:
    """With the reason; a missing one is a missing file."""
    store = copied(healthy, tmp_path)
    path = store.root / file
    if how == "gone":
        path.unlink()
        with pytest.raises(FileNotFoundError):
            containerd_store.read_store(str(store.root))
        return
    data = path.read_bytes()
    path.write_bytes({"zeros": bytes(len(data)), "cut": data[:8192], "empty": b""}[how])
    found = containerd_store.read_store(str(store.root))
    assert found.fault
    assert found.file == str(path)
    assert not found.blobs


def test_several_damages_at_once_are_all_told(healthy: Built, tmp_path: Path) -> None:
    """One in each layer."""
    store = copied(healthy, tmp_path)
    chance = chance_of(9)
    wanted = set()
    for number in range(3):
        expected = chance.choice(FILE_DAMAGES[:6])(store.fs(number), chance)
        assert expected
        wanted.add((store.chains[number], expected[0]))
    _, told, _ = verified(store.root)
    assert {(one.layer, one.path) for one in told.damages} == wanted


def test_a_flipped_bit_is_found_to_the_byte(healthy: Built, tmp_path: Path) -> None:
    """The blob is there to compare with."""
    store = copied(healthy, tmp_path)
    path = store.fs(0) / "usr/bin/tool0"
    data = bytearray(path.read_bytes())
    right = data[4321]
    data[4321] ^= 0x20
    path.write_bytes(data)
    _, told, _ = verified(store.root)
    assert [one.cause for one in told.damages] == ["bit"]
    assert told.damages[0].detail == f"one flipped bit: byte 4,321, {right ^ 0x20:#04x} where {right:#04x} belongs"


def test_what_is_written_while_it_is_read_is_in_use(healthy: Built, tmp_path: Path) -> None:
    """A file that changes is in use; whatever is told of it is not a damage."""
    store = copied(healthy, tmp_path)
    path = store.fs(0) / "usr/bin/tool0"
    script = "import sys, pathlib\np = pathlib.Path(sys.argv[1])\nd = p.read_bytes()\nprint(flush=True)\n"
    script += "while True: p.write_bytes(d)"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            for _ in range(12):
                _, told, _ = verified(store.root)
                assert not told.damages
                assert all(why == "in use" for _, why in told.unreadable)
        finally:
            other.kill()


def test_links_in_the_place_of_directories_lead_nowhere(healthy: Built, tmp_path: Path) -> None:
    """The store is full of traps: nothing outside is opened, nothing waits."""
    store = copied(healthy, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.mkfifo(outside / "tool0")
    shutil.rmtree(store.fs(0) / "usr/bin")
    (store.fs(0) / "usr/bin").symlink_to(outside)
    _, told, _ = verified(store.root)
    assert {(one.path, one.kind) for one in told.damages} == {
        ("/usr/bin", "type"),
        ("/usr/bin/tool0", "missing"),
        ("/usr/bin/su0", "missing"),
    }
