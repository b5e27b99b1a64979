"""podman's store, made by podman: healthy it is whole, each damage is told with file and kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.layering import from_archive, judged
from doctor.layers import podman, tally
from doctor.layers.model import Run, dump
from doctor.model import Command
from doctor.registry import load
from doctor.snapshot import Record
from tests.cases import casefile
from tests.layers.chance import chance_of
from tests.layers.damages import FILE_DAMAGES
from tests.layers.podmanstore import copied, layers, made
from tests.layers.told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("podman"), reason="no podman"),
]


@pytest.fixture(scope="module")
def healthy() -> Iterator[Path]:
    """A store with one image of three layers, which podman unpacked."""
    yield from made()


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damages are made just before they are looked for."""
    monkeypatch.setattr(tally, "_TICK", -3600.0)


def verified(root: Path) -> tuple[Told, set[str]]:
    """Everything that is told of a store, and the states of its layers."""
    told = Told()
    return told, {podman.verify(work, told).state for work in podman.plan(podman.read_store(str(root)))}


def test_a_healthy_store_is_whole(healthy: Path) -> None:
    """Three layers with something of everything, and the documents of the image."""
    told, states = verified(healthy)
    assert (told.damages, told.unreadable, states) == ([], [], {"whole"})
    assert len(layers(healthy)) == 3


@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda one: one.__name__)
def test_a_damaged_file_is_told(
    healthy: Path, tmp_path: Path, damage: Callable[..., tuple[str, set[str]] | None]
) -> None:
    """Twice each: the file, the kind, the layer."""
    done = 0
    for seed in range(4):
        chance = chance_of(f"{damage.__name__} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        root = copied(healthy, folder)
        layer = chance.choice(layers(root))
        expected = damage(root / "overlay" / layer / "diff", chance)
        if expected is None:
            continue
        done += 1
        path, kinds = expected
        told, states = verified(root)
        names = path.split("|")
        mine = [one for one in told.damages if one.path in names]
        assert mine, (path, told.damages, told.unreadable)
        assert {one.kind for one in mine} & kinds
        assert {one.layer for one in told.damages} == {layer}
        assert "damaged" in states
        if done == 2:
            return
    assert done


STRUCTURE = ("link", "lower", "short link", "tar-split", "manifest", "config", "directory")


@pytest.mark.parametrize("what", STRUCTURE)
def test_a_damaged_record_is_told(healthy: Path, tmp_path: Path, what: str) -> None:
    """What holds the layers together: each is named by its file."""
    root = copied(healthy, tmp_path)
    layer = layers(root)[1]
    own = root / "overlay" / layer
    image = podman.read_store(str(root)).images[0]
    if what in {"link", "lower"}:
        path = own / what
        path.write_text("")
    elif what == "short link":
        path = root / "overlay" / "l" / (own / "link").read_text()
        path.unlink()
    elif what == "tar-split":
        path = root / "overlay-layers" / f"{layer}.tar-split.gz"
        path.write_bytes(path.read_bytes()[:40])
    elif what == "directory":
        path = own / "diff"
        shutil.rmtree(path)
    else:
        folder = root / "overlay-images" / image.id
        path = (
            folder / "manifest"
            if what == "manifest"
            else next(one for one in folder.iterdir() if one.name != "manifest")
        )
        path.write_bytes(path.read_bytes()[:-1] + b" ")
    told, states = verified(root)
    assert str(path) in {one.path for one in told.damages}, told.damages
    assert {one.kind for one in told.damages if one.path == str(path)} == {"record"}
    assert "damaged" in states


def test_lists_that_cannot_be_read_are_named(healthy: Path, tmp_path: Path) -> None:
    """layers.json is no list any more."""
    root = copied(healthy, tmp_path)
    (root / "overlay-layers" / "layers.json").write_text(json.dumps({"no": "list"}))
    with pytest.raises(podman.Unusable, match=r"layers\.json"):
        podman.read_store(str(root))
    os.truncate(root / "overlay-layers" / "layers.json", 0)
    assert podman.read_store(str(root)).layers == {}


def test_files_come_back_from_an_archive_that_holds_the_layer(healthy: Path, tmp_path: Path) -> None:
    """`--from`: proved by the digest, put back by the commands as printed, and whole again; the image is named."""
    root = copied(healthy, tmp_path)
    layer = layers(root)[1]
    file = root / "overlay" / layer / "diff/usr/bin/tool1"
    right = file.read_bytes()
    file.write_bytes(right[:100])
    file.chmod(0o4711)
    told = Told()
    checked = [podman.verify(work, told) for work in podman.plan(podman.read_store(str(root)))]
    lines = dump([Run("podman", len(checked), 0), *checked, *told.damages])
    base = casefile.base("healthy-28")
    records = {**base.records, "layers/podman": Record("layers/podman", "command", "", data=lines)}
    value, _, facts = judged(replace(base, records=records), load(plugins=False), (), deep=True, began=0.0)
    value = from_archive(value, facts, str(healthy.parent / "image.tar"))
    (found,) = [one for one in value.findings if one.code == "LAY028"]
    assert [hit.names for hit in found.hits] == [("image localhost/shop/base:12",)]
    for step in found.remedy.steps:
        assert isinstance(step, Command)
        subprocess.run(step.argv, check=True, capture_output=True)
    assert file.read_bytes() == right
    told, states = verified(root)
    assert (told.damages, states) == ([], {"whole"})


ALONE = """
mount -t tmpfs none /var/lib
mkdir -p /var/lib/containers
cp -a "$0" /var/lib/containers/storage
exec "$@"
"""


def test_a_machine_with_podman_alone(healthy: Path) -> None:
    """Docker is not needed: podman's layers are verified, and nobody asks about Docker's."""
    argv = (sys.executable, "-m", "doctor", "layers", "verify", "--deep", "--format", "json")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", ALONE, str(healthy), *argv], check=False, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert {one["store"] for one in told["layers"]} == {"podman"}
    assert {one["state"] for one in told["layers"]} == {"whole"}
    if told["host"]["engine_state"] == "absent":
        assert done.returncode == 0, done.stderr
