"""Layers of overlay2, written by hand as docker writes them: whole ones are whole, and each damage is told by its name."""

from __future__ import annotations

import os
import random
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doctor.layers import crc64, overlay2, tally
from doctor.layers.model import MOST
from tests.layers.overlay2_damages import MAKERS, Done, Target, owner
from tests.layers.stores import Node, Store, directory
from tests.layers.verifying import verify

if TYPE_CHECKING:
    from pathlib import Path

STYLES = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@pytest.fixture(autouse=True)
def _nothing_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was changed a moment ago for old: a damage of a test is as young as it can be."""
    monkeypatch.setattr(tally, "_TICK", -3600.0)


def base(seed: int = 1) -> list[Node]:
    """Give a base with every class of file."""
    data = random.Random(seed).randbytes
    return [
        directory("."),
        directory("usr"),
        directory("usr/bin"),
        Node("usr/bin/tool", data=data(300_000), mode=0o755),
        Node("usr/bin/twin", "h", link="usr/bin/tool", mode=0o755),
        Node("usr/bin/su", data=data(9000), mode=0o4755),
        Node("usr/bin/link", "l", link="tool"),
        directory("etc", 0o750),
        Node("etc/one", data=b"1"),
        Node("etc/text", data=b"hello world, this is text\n" * 40),
        Node("etc/empty"),
        Node("etc/shadow", data=b"secret", mode=0o600),
        Node("etc/dangling", "l", link="/nowhere"),
        Node("etc/fifo", "p"),
        directory("srv/deep/er"),
        Node("srv/deep/er/block", data=data(4096)),
        Node("srv/deep/er/blocks", data=data(40_960)),
        Node("srv/implicit/file", data=data(70_000)),
        Node("srv/odd\n\x1b[31mname", data=data(33)),
        Node("srv/caf\udce9", data=data(44)),
        Node("srv/" + "l" * 90 + "/" + "m" * 90, data=data(55)),
    ]


def upper(seed: int = 2) -> list[Node]:
    """Give a layer on top of it that deletes and replaces."""
    data = random.Random(seed).randbytes
    return [
        directory("etc", 0o750),
        Node("etc/.wh.one"),
        Node("etc/.wh.dangling"),
        Node("etc/text", data=data(500)),
        directory("srv/deep"),
        Node("srv/deep/.wh..wh..opq"),
        Node("srv/deep/only", data=data(5000)),
        Node("srv/tagged", data=data(10), xattrs={"user.tag": b"value"}),
        Node("srv/tagged2", data=data(100_000), xattrs={"user.tag": b"v\xc3\xa9"}),
    ]


class Both:
    """A store with both layers, as targets."""

    def __init__(self, root: Path) -> None:
        """Write it."""
        self.store = Store(root)
        low = self.store.layer(base())
        high = self.store.layer(upper(), low, tarfile.PAX_FORMAT)
        self.targets = (self._target(low, base()), self._target(high, upper()))

    def _target(self, layer: str, nodes: list[Node]) -> Target:
        marks = [node for node in nodes if "/.wh." in node.name]
        plain = [node for node in nodes if node not in marks]

        def names(kind: str) -> tuple[str, ...]:
            return tuple(node.name.strip("/") for node in plain if node.kind == kind and node.name != "./")

        return Target(
            self.store,
            layer,
            tuple(node.name for node in plain if node.kind == "f"),
            names("l"),
            tuple(node.name.replace(".wh.", "") for node in marks if ".wh..wh." not in node.name),
            tuple(node.name.rpartition("/")[0] for node in marks if ".wh..wh." in node.name),
            tuple(node.name for node in plain if node.xattrs),
            names("h"),
            names("d"),
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """One store for all damages: each takes itself back."""
    return Both(tmp_path_factory.mktemp("store") / "docker")


def _choose(rng: random.Random, both: Both, maker: object) -> Target:
    """Choose a layer that has what a maker needs."""
    needs = {
        "retarget": "links",
        "whiteout": "whiteouts",
        "opaque": "opaque",
        "attribute": "attributes",
        "parted": "hard",
    }
    needed = needs.get(getattr(maker, "__name__", ""), "files")
    return rng.choice([one for one in both.targets if getattr(one, needed)])


@pytest.mark.parametrize("maker", MAKERS, ids=lambda one: one.__name__)
def test_each_damage_is_told_by_kind_and_file(both: Both, maker: object) -> None:
    """Twice the same; where it is, for one flipped bit and for zeros and cuts on a block; the other layer stays whole."""
    if maker is owner and os.getuid():
        pytest.skip("chown needs root")
    for number in range(MAKERS[maker]):  # type: ignore[index]
        rng = random.Random(f"{maker.__name__} {number}")  # type: ignore[attr-defined]
        target = _choose(rng, both, maker)
        done: Done = maker(rng, target)  # type: ignore[operator]
        try:
            results = [verify(both.store.work(target.layer)) for _ in range(2)]
        finally:
            done.undo()
        for result in results:
            assert result.found == done.expected, f"{number}: {result.damages} {result.open}"
            assert result.checked.state == "damaged"
            assert result.checked.damages == len(result.damages)
            if done.offset >= 0:
                assert result.damages[0].offset == done.offset
    for target in both.targets:
        assert verify(both.store.work(target.layer)).checked.state == "whole"


def test_several_damages_at_once_are_all_told(both: Both) -> None:
    """Three of different kinds in one layer; files of which two are damaged may have either told."""
    makers = [one for one in MAKERS if one.__name__ in {"flip", "cut", "mode", "added", "longer"}]
    for number in range(20):
        rng = random.Random(number)
        target = both.targets[0]
        done = [maker(rng, target) for maker in rng.sample(makers, 2)]
        try:
            found = verify(both.store.work(target.layer)).found
        finally:
            for one in reversed(done):
                one.undo()
        paths = [path for one in done for _, path in one.expected]
        if len(set(paths)) == len(paths):
            wanted = set().union(*(one.expected for one in done))
            assert found == wanted, number


HEALTHY: dict[str, list[Node]] = {
    "nothing": [],
    "root only": [directory(".")],
    "plain names": base(3)[1:],
    "dot names": [
        Node(f"./{node.name}", node.kind, node.data, node.mode, node.link) for node in base(4)[1:] if node.kind != "h"
    ],
    "root of other rights": [directory(".", 0o700), Node("f", data=b"x")],
    "empty files": [Node(f"f{number}") for number in range(50)],
    "many small": [Node(f"d{number % 7}/f{number}", data=bytes([number])) for number in range(200)],
    "one large": [Node("large", data=random.Random(5).randbytes(3_000_000))],
    "zeros": [Node("zeros", data=bytes(1_000_000)), Node("hole", data=bytes(4096) + b"x" + bytes(4096))],
    "hard links": [Node("a", data=b"a"), *(Node(f"l{number}", "h", link="a") for number in range(20))],
    "links out": [
        Node("l", "l", link="/etc/passwd"),
        Node("up", "l", link="../../../../etc"),
        Node("self", "l", link="self"),
    ],
    "odd names": [
        Node(name, data=b"x") for name in ("a b", "-rf", "$(x)", "a\tb", "\x01", "..a", "a..", "\udcff", "\u202e")
    ],
    "deep": [Node("/".join("d" * 3 for _ in range(40)) + "/f", data=b"x")],
    "modes": [Node(f"m{mode:o}", data=b"x", mode=mode) for mode in (0o400, 0o777, 0o4755, 0o2755, 0o1644, 0o644)],
    "again": [Node(".wh.x"), Node("x", data=b"anew")],
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("nodes", HEALTHY, ids=str)
def test_a_whole_layer_is_whole(tmp_path: Path, nodes: str, style: str) -> None:
    """Every variant, in every form of archive: no hit, and the digest comes out."""
    store = Store(tmp_path / "docker")
    layer = store.layer(HEALTHY[nodes], style=STYLES[style])
    result = verify(store.work(layer))
    assert (result.damages, result.open) == ([], [])
    assert result.checked.found == store.diffs[layer]
    assert result.checked.files == len(HEALTHY[nodes])


def test_a_stack_of_120_layers_is_whole(tmp_path: Path) -> None:
    """Each deletes a file of the one below, and brings one."""
    store = Store(tmp_path / "docker")
    layer = ""
    for number in range(120):
        nodes = [Node(f"f{number}", data=b"%d" % number)]
        if number:
            nodes.append(Node(f".wh.f{number - 1}"))
        layer = store.layer(nodes, layer)
        assert verify(store.work(layer)).checked.state == "whole"
    (store.diff(layer) / "f118").unlink()
    assert verify(store.work(layer)).found == {("whiteout lost", "/f118")}


@pytest.mark.parametrize("tail", [0, 512, 10_240, 3_000_000])
def test_padding_behind_the_end_is_of_the_archive(tmp_path: Path, tail: int) -> None:
    """However much there is of it."""
    store = Store(tmp_path / "docker")
    layer = store.layer(base(), tail=bytes(tail))
    assert verify(store.work(layer)).checked.state == "whole"


def test_a_whiteout_that_hides_nothing_is_not_missed(tmp_path: Path) -> None:
    """Where the driver unpacks through a mount, it makes none."""
    store = Store(tmp_path / "docker")
    low = store.layer([Node("a", data=b"a")])
    high = store.layer([Node(".wh.b"), Node("d/.wh..wh..opq")], low)
    (store.diff(high) / "b").unlink()
    os.removexattr(store.diff(high) / "d", "user.overlay.opaque")
    assert verify(store.work(high)).checked.state == "whole"


def test_an_opaque_mark_too_much_hides_files(tmp_path: Path) -> None:
    """It is told where there is something to hide, and only there."""
    store = Store(tmp_path / "docker")
    low = store.layer([Node("d/a", data=b"a"), directory("e")])
    high = store.layer([directory("d"), directory("e")], low)
    for name in ("d", "e"):
        os.setxattr(store.diff(high) / name, "user.overlay.opaque", b"y")
    assert verify(store.work(high)).found == {("added", "/d")}


def test_without_a_fast_checksum_the_file_is_named_all_the_same(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a second pass, that only a wrong digest is worth."""
    monkeypatch.setattr(overlay2, "FAST", False)
    monkeypatch.setattr(overlay2, "crc64", crc64.own)
    for number in range(12):
        rng = random.Random(number)
        maker = rng.choice([one for one in MAKERS if one.__name__ in {"flip", "cut", "scrambled", "record"}])
        target = _choose(rng, both, maker)
        done = maker(rng, target)
        try:
            found = verify(both.store.work(target.layer)).found
        finally:
            done.undo()
        # A wrong checksum in the record is seen by nobody when the digest is right.
        assert found in (done.expected, set()) if maker.__name__ == "record" else found == done.expected


def test_large_files_are_named_when_the_digest_is_wrong(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their checksums are computed in a second pass, of them alone; small ones are named in the first."""
    monkeypatch.setattr(overlay2, "_LARGE", 40_000)
    for number in range(15):
        rng = random.Random(number)
        maker = rng.choice([one for one in MAKERS if one.__name__ in {"flip", "zeroed", "cut", "mode"}])
        target = _choose(rng, both, maker)
        done = maker(rng, target)
        try:
            found = verify(both.store.work(target.layer)).found
        finally:
            done.undo()
        assert found == done.expected


def test_a_file_of_other_rights_and_other_content_is_told_of_both(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its checksum is computed late: what is wrong beside it says nothing of its content."""
    monkeypatch.setattr(overlay2, "_LARGE", 40_000)
    target, rng = both.targets[0], random.Random(3)
    tool = both.store.diff(target.layer) / "usr/bin/tool"
    flip = next(one for one in MAKERS if one.__name__ == "flip")
    done = flip(rng, target._replace(files=("usr/bin/tool",)))
    tool.chmod(0o4755)
    try:
        assert verify(both.store.work(target.layer)).found == {*done.expected, ("mode", "/usr/bin/tool")}
    finally:
        tool.chmod(0o755)
        done.undo()


def test_many_small_damages_hide_no_grave_one(tmp_path: Path) -> None:
    """Of each kind so many are told; what may be somebody's doing, and another kind, beside them."""
    store = Store(tmp_path / "docker")
    layer = store.layer(
        [Node(f"a{number:03}", data=b"x") for number in range(300)] + [Node("z1"), Node("z2", data=b"x")]
    )
    for number in range(300):
        (store.diff(layer) / f"a{number:03}").chmod(0o600)
    (store.diff(layer) / "z1").chmod(0o4755)
    (store.diff(layer) / "z2").write_bytes(b"y")
    result = verify(store.work(layer))
    assert result.checked.damages == 302
    assert {("mode", "/z1"), ("content", "/z2")} <= result.found
    assert len(result.damages) == MOST + 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_any_layer_is_found_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Names, sizes and contents by chance; a bit anywhere."""
    names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
        lambda name: name not in {".", ".."} and not name.startswith(".wh.") and len(name.encode()) < 90
    )
    files = data.draw(st.dictionaries(names, st.binary(min_size=1, max_size=3000), min_size=1, max_size=5))
    store = Store(tmp_path_factory.mktemp("any") / "docker")
    style = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    layer = store.layer([Node(name, data=content) for name, content in files.items()], style=style)
    assert verify(store.work(layer)).checked.state == "whole"
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    held = bytearray(files[name])
    held[at] ^= 1 << data.draw(st.integers(0, 7))
    (store.diff(layer) / name).write_bytes(bytes(held))
    result = verify(store.work(layer))
    assert [(one.kind, one.path, one.offset) for one in result.damages] == [("content", f"/{name}", at)]
