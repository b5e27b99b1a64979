"""Owners that are all off by one range of ids are one damage of a layer, and the command that is printed moves them back."""

from __future__ import annotations

import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.layers import containerd, containerd_store, overlay2, tally, unpacked
from doctor.layers.model import Run, dump
from doctor.reports import words
from tests.layers.chance import chance_of
from tests.layers.containerd import build, varied
from tests.layers.curing import carry_out, findings
from tests.layers.stores import Node, Store, directory
from tests.layers.told import Told
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from pathlib import Path

    from doctor.layers.model import Work

pytestmark = pytest.mark.root
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
NODES = (
    directory("usr"),
    directory("usr/bin", 0o1777),
    Node("usr/bin/su", data=b"s" * 900, mode=0o4755),
    Node("usr/bin/ping", data=b"p" * 900, mode=0o755),
    Node("usr/bin/twin", "h", link="usr/bin/su", mode=0o4755),
    Node("usr/bin/link", "l", link="su"),
    Node("usr/odd\nname", data=b"x"),
    Node("usr/fifo", "p"),
)


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed a moment ago is taken for old."""
    monkeypatch.setattr(tally, "_TICK", -3600.0)
    monkeypatch.setattr(unpacked, "SETTLED", 0.0)


def shift(root: Path, uid: int, gid: int) -> None:
    """Move owners up, as a daemon does that remaps users: modes and capabilities stay."""
    for path in {one.lstat().st_ino: one for one in (root, *root.rglob("*"))}.values():
        about = path.lstat()
        kept = "security.capability" in os.listxattr(path, follow_symlinks=False)
        os.chown(path, about.st_uid + uid, about.st_gid + gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(about.st_mode & 0o7777)
        if kept:
            os.setxattr(path, "security.capability", CAPABILITY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two layers, with what chown(2) takes away."""
    made = Store(tmp_path / "docker")
    below = made.layer(list(NODES))
    made.layer([directory("etc"), Node("etc/conf", data=b"c")], below)
    return made


def deep(works: list[Work]) -> bytes:
    """Verify layers of overlay2, and keep it as a record does."""
    told = Told()
    checked = [overlay2.verify(work, told) for work in works]
    return dump([Run("overlay2", len(works), 0), *checked, *told.damages])


def test_a_store_of_remapped_users_is_one_finding_and_comes_back(store: Store) -> None:
    """Copied to a daemon without userns-remap: both layers in one; setuid stays, and so does the content."""
    for layer in store.diffs:
        shift(store.diff(layer), 100_000, 200_000)
    works = [store.work(layer) for layer in store.diffs]
    for work in works:
        (damage,) = verify(work).damages
        assert damage.shift == (100_000, 200_000, 0, 0)
        assert (damage.kind, damage.path, damage.cause) == ("owner", "/", "shifted")
    (found,) = findings("overlay2", deep(works))
    assert (found.code, found.subject) == ("LAY015", "overlay2, owners from 100000:200000 on")
    assert "2 layers are shifted by +100,000:+200,000" in found.title
    assert "root is 100000 there" in found.likely
    text = next(words.step_lines(step)[0] for step in found.remedy.steps if "python3" in getattr(step, "argv", ()))
    assert text.isprintable()
    subprocess.run(["sh", "-c", text], check=True)  # as a person would paste it
    for work in works:
        assert verify(work).checked.state == "whole"
    tool = store.diff(works[0].id) / "usr/bin/su"
    assert (tool.stat().st_uid, tool.stat().st_mode & 0o7777) == (0, 0o4755)


def test_a_plain_store_where_users_are_remapped_comes_up(store: Store) -> None:
    """The other way round: the map says where owners should be."""
    ids = ((0, 100_000, 65_536),)
    works = [replace(store.work(layer), uids=ids, gids=ids) for layer in store.diffs]
    (found,) = findings("overlay2", deep(works))
    assert "root is 100000 here" in found.likely
    carry_out(found)
    for work in works:
        assert verify(work).checked.state == "whole"
        assert os.lstat(work.root).st_uid == 100_000


def test_what_is_wrong_beside_it_is_told_too(store: Store) -> None:
    """Two findings of one layer."""
    layer = next(iter(store.diffs))
    (store.diff(layer) / "usr/bin/ping").chmod(0o4755)
    shift(store.diff(layer), 100_000, 100_000)
    lines = deep([store.work(layer)])
    assert len({one.subject for one in findings("overlay2", lines)}) == 2
    assert len({one.subject for one in findings("podman", lines)}) == 2


def test_single_owners_are_told_by_file(store: Store) -> None:
    """A few of many, or a chown of somebody: no range; and the cure keeps setuid."""
    layer = next(iter(store.diffs))
    tool = store.diff(layer) / "usr/bin/su"
    os.chown(tool, 100_000, 100_000)
    tool.chmod(0o4755)
    (damage,) = verify(store.work(layer)).damages
    assert (damage.path, damage.shift) == ("/usr/bin/su", ())
    (found,) = findings("overlay2", deep([store.work(layer)]))
    carry_out(found)
    assert verify(store.work(layer)).checked.state == "whole"
    shift(store.diff(layer), 1000, 1000)
    assert len(verify(store.work(layer)).damages) == len(NODES) - 1


def test_a_capability_comes_back_with_the_owner(tmp_path: Path) -> None:
    """chown(2) takes it away, of whoever does it."""
    made = Store(tmp_path / "docker")
    recorded = Node("usr/bin/ping", data=b"p" * 900, mode=0o755, xattrs={"security.capability": CAPABILITY})
    layer = made.layer([directory("usr"), directory("usr/bin"), recorded], style=tarfile.PAX_FORMAT)
    ping = made.diff(layer) / "usr/bin/ping"
    assert verify(made.work(layer)).checked.state == "whole"
    os.chown(ping, 7, 8)
    os.setxattr(ping, "security.capability", CAPABILITY)
    (found,) = findings("overlay2", deep([made.work(layer)]))
    carry_out(found)
    assert verify(made.work(layer)).checked.state == "whole"
    shift(made.diff(layer), 100_000, 100_000)
    (found,) = findings("overlay2", deep([made.work(layer)]))
    carry_out(found)
    assert verify(made.work(layer)).checked.state == "whole"


def test_snapshots_of_containerd_likewise(tmp_path: Path) -> None:
    """The same of its store: one damage a snapshot."""
    chance = chance_of(5)
    made = build(tmp_path / "root", [varied(chance, at) for at in range(3)])
    for number in range(3):
        shift(made.fs(number), 100_000, 100_000)
    told = Told()
    works = containerd.plan(containerd_store.read_store(str(made.root)))
    checked = [containerd.verify(work, told) for work in works]
    assert {one.shift for one in told.damages} == {(100_000, 100_000, 0, 0)}
    assert sorted(one.layer for one in told.damages) == sorted(made.chains)
    (found,) = findings("containerd", dump([Run("containerd", len(checked), 0), *checked, *told.damages]))
    assert found.code == "LAY028"
    carry_out(found)
    told = Told()
    assert {containerd.verify(work, told).state for work in works} == {"whole"}, told.damages
