"""Stores full of traps: everything ends, what could not be read is named, nothing is harmed, no link is followed out."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor.layers import overlay2, tally
from doctor.linux import privileges
from tests.layers.stores import Node, Store, directory
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = 700_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "docker")


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was changed a moment ago for old."""
    monkeypatch.setattr(tally, "_TICK", -3600.0)


def _layer(store: Store) -> str:
    return store.layer(
        [
            directory("usr"),
            directory("usr/bin"),
            Node("usr/bin/a", data=b"a" * LARGE),
            Node("usr/bin/b", data=b"b" * LARGE),
            Node("usr/bin/c", data=b"c" * 100),
        ]
    )


@pytest.mark.usefixtures("_settled")
def test_a_directory_that_became_a_link_is_not_entered(store: Store, tmp_path: Path) -> None:
    """Though there are the very files at its end."""
    layer = _layer(store)
    outside = tmp_path / "outside"
    (store.diff(layer) / "usr").rename(outside)
    (store.diff(layer) / "usr").symlink_to(outside)
    result = verify(store.work(layer))
    assert ("type", "/usr") in result.found
    assert {("missing", f"/usr/bin/{name}") for name in "abc"} < result.found


@pytest.mark.usefixtures("_settled")
def test_names_of_a_record_that_lead_out_stay_inside(store: Store, tmp_path: Path) -> None:
    """An archive may name anything: `..` ends at the root of the layer."""
    (tmp_path / "docker/overlay2/secret").write_bytes(b"x")
    layer = store.layer([Node("../secret", data=b"x"), Node("/../../secret2", data=b"x")])
    seen: list[str] = []
    real = os.open

    def opened(path: str, *args: int, **more: int) -> int:
        seen.append(path)
        return real(path, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        verify(store.work(layer))
    assert ".." not in seen


@pytest.mark.usefixtures("_settled")
def test_pipes_and_devices_are_never_opened(store: Store) -> None:
    """A FIFO in the place of a file would wait for ever; nobody opens it."""
    layer = _layer(store)
    for name in ("a", "c"):
        path = store.diff(layer) / "usr/bin" / name
        path.unlink()
        os.mkfifo(path)
    os.mkfifo(store.diff(layer) / "usr/bin/new")
    began = time.monotonic()
    result = verify(store.work(layer))
    assert result.found == {("type", "/usr/bin/a"), ("type", "/usr/bin/c"), ("added", "/usr/bin/new")}
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("_settled")
def test_a_huge_sparse_file_is_not_read(store: Store) -> None:
    """Neither one that grew, nor one that was added."""
    layer = _layer(store)
    os.truncate(store.diff(layer) / "usr/bin/c", 1 << 42)
    new = store.diff(layer) / "new"
    new.touch()
    os.truncate(new, 1 << 42)
    began = time.monotonic()
    assert verify(store.work(layer)).found == {("size", "/usr/bin/c"), ("added", "/new")}
    assert time.monotonic() - began < 5


def _during(store: Store, layer: str, act: Callable[[Path], object]) -> Callable[[int], None]:
    """Do something once, when the first bytes have been read."""
    done: list[int] = []

    def work(_: int) -> None:
        if not done:
            done.append(1)
            act(store.diff(layer))

    return work


@pytest.mark.parametrize(
    "act",
    [
        lambda root: (root / "usr/bin/b").unlink(),
        lambda root: (root / "usr/bin/b").write_bytes(b"x" * LARGE),
        lambda root: os.truncate(root / "usr/bin/b", 2 * LARGE),
        lambda root: os.truncate(root / "usr/bin/b", 10),
        lambda root: (root / "usr/bin/b").chmod(0o777),
        lambda root: (root / "usr/bin/new").write_bytes(b"x"),
    ],
    ids=["vanishes", "is written", "grows", "shrinks", "is changed", "appears"],
)
def test_what_changes_while_it_is_read_is_in_use(store: Store, act: Callable[[Path], object]) -> None:
    """Never damage: the layer is unknown, and what changed is named."""
    layer = _layer(store)
    time.sleep(0.1)
    result = verify(store.work(layer), _during(store, layer, act))
    assert result.damages == []
    assert result.checked.state == "unknown"
    assert result.checked.why.startswith("in use")
    assert {path for path, _ in result.open} <= {"/usr/bin/b", "/usr/bin/new"}


def test_a_layer_that_is_removed_meanwhile_is_in_use(store: Store) -> None:
    """Its record goes first or last: nothing of it is damage."""
    layer = _layer(store)
    time.sleep(0.1)

    def act(root: Path) -> None:
        shutil.rmtree(root)
        shutil.rmtree(store.record(layer).parent)

    result = verify(store.work(layer), _during(store, layer, act))
    assert (result.damages, result.checked.state) == ([], "unknown")


def test_what_cannot_be_read_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error, as of a failing disk, and a permission: the file is named, the others are judged."""
    layer = _layer(store)
    time.sleep(0.1)
    os.truncate(store.diff(layer) / "usr/bin/a", 5)
    real = os.readv

    def read(handle: int, buffers: tuple[memoryview]) -> int:
        if Path(f"/proc/self/fd/{handle}").readlink().match("usr/bin/b"):
            raise OSError(errno.EIO, "Input/output error")
        return real(handle, buffers)

    monkeypatch.setattr(tally, "_TICK", -3600.0)
    monkeypatch.setattr(overlay2.os, "readv", read)
    result = verify(store.work(layer))
    assert result.open == [("/usr/bin/b", "input/output error")]
    assert result.found == {("size", "/usr/bin/a")}
    assert result.checked.state == "damaged"


@pytest.fixture
def _plain() -> Iterator[None]:
    """Be held to the rights of files, root as well: he owns them, and may not pass over what they say."""
    effective, permitted, inheritable = privileges.capget()
    privileges.capset(0, permitted, inheritable)
    yield
    privileges.capset(effective, permitted, inheritable)


@pytest.mark.usefixtures("_settled", "_plain")
def test_without_the_right_to_read_nothing_is_said(store: Store) -> None:
    """Neither damaged nor whole."""
    layer = _layer(store)
    (store.diff(layer) / "usr/bin").chmod(0)
    try:
        result = verify(store.work(layer))
    finally:
        (store.diff(layer) / "usr/bin").chmod(0o755)
    assert {path for path, _ in result.open} >= {"/usr/bin/a", "/usr/bin/b", "/usr/bin/c"}


def test_nothing_is_changed(store: Store) -> None:
    """Not even times, but for when a file was read last."""
    layer = _layer(store)
    paths = sorted(store.root.rglob("*"))
    before = [(*path.lstat()[:7], path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in paths]
    verify(store.work(layer))
    assert [(*path.lstat()[:7], path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in paths] == before
    assert sorted(store.root.rglob("*")) == paths
