"""Archives given as files: healthy ones are whole, each damage is told with its member, hostile ones end and harm nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from doctor.layers import archives
from tests.layers.archive_damages import DAMAGES, MAKES, layers_are_swapped, zstd
from tests.layers.archives import Archive, digest, layers_of, new_save, oci, tar_of
from tests.layers.chance import chance_of
from tests.layers.told import Told

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from doctor.layers.model import Checked


def verified(path: Path) -> tuple[Checked, Told]:
    """What becomes of an archive."""
    told = Told()
    (work,) = archives.plan(str(path))
    return archives.verify(work, told), told


def kept(folder: Path, data: bytes) -> Path:
    """A file with these bytes."""
    file = folder / "image.tar"
    file.write_bytes(data)
    return file


def laid_out(folder: Path, made: Archive) -> Path:
    """The same as a directory."""
    for name, data in made.members.items():
        path = folder / "layout" / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder / "layout"


def whole(path: Path) -> None:
    """Nothing is wrong, and nothing unknown."""
    checked, told = verified(path)
    assert (told.damages, told.unreadable, checked.state) == ([], [], "whole")


# Healthy ones


@pytest.mark.parametrize("make", list(MAKES))
@pytest.mark.parametrize("outer", ["plain", "gzip", "zstd"])
def test_a_healthy_archive_is_whole(tmp_path: Path, make: str, outer: str) -> None:
    """Each kind, plain and compressed as a whole."""
    data = MAKES[make](layers_of(chance_of(make))).packed()
    if outer == "zstd" and zstd is None:
        pytest.skip("no zstd in this Python")
    squeeze = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress if zstd else bytes}[outer]
    whole(kept(tmp_path, squeeze(data)))


def test_a_healthy_layout_is_whole(tmp_path: Path) -> None:
    """A directory."""
    whole(laid_out(tmp_path, oci(layers_of(chance_of(1)))))


@pytest.mark.parametrize("make", list(MAKES))
def test_healthy_ones_that_look_odd(tmp_path: Path, make: str) -> None:
    """Layers that are empty, the same twice, a hundred and twenty of them, with names that nobody should use."""
    base = layers_of(chance_of(2))[0]
    empty = tar_of({})
    odd = tar_of(
        {"new\nline": b"1", "tab\t": b"2", "x" * 180: b"3", "\u202e": b"4", "a/./b//c": b"5"}, kind=tarfile.GNU_FORMAT
    )
    for layers in ([base, empty], [base, base, empty, empty], [odd], [tar_of({f"{n}": b"%d" % n}) for n in range(120)]):
        whole(kept(tmp_path, MAKES[make](layers).packed()))


def test_members_of_gzip_and_what_is_filled_up(tmp_path: Path) -> None:
    """As pigz and stargz write several members, tape blocks end in zeros."""

    def squeeze(data: bytes) -> bytes:
        return gzip.compress(data[:700]) + gzip.compress(data[700:])

    whole(kept(tmp_path, oci(layers_of(chance_of(3)), squeeze).packed() + bytes(10240)))


def test_platforms_that_were_not_saved_are_not_missed(tmp_path: Path) -> None:
    """A docker save of one platform keeps the index of all of them."""
    made = oci(layers_of(chance_of(4)))
    index = json.loads(made.members["index.json"])
    other = {"mediaType": index["manifests"][0]["mediaType"], "digest": digest(b"arm"), "size": 3}
    inner = json.dumps({"schemaVersion": 2, "manifests": [other, *index["manifests"]]}).encode()
    made.members[f"blobs/sha256/{digest(inner)[7:]}"] = inner
    index["manifests"] = [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(inner), "size": len(inner)}
    ]
    made.members["index.json"] = json.dumps(index).encode()
    whole(kept(tmp_path, made.packed()))


def test_an_attestation_is_no_tar(tmp_path: Path) -> None:
    """BuildKit puts provenance beside an image, as a manifest whose layers are JSON."""
    made = oci([b'{"predicateType":"https://slsa.dev/provenance/v1"}'], bytes, "")
    manifest = json.loads(made.members.pop(made.manifest))
    manifest["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
    data = json.dumps(manifest).encode()
    made.members[f"blobs/sha256/{digest(data)[7:]}"] = data
    index = json.loads(made.members["index.json"])
    index["manifests"][0] |= {"digest": digest(data), "size": len(data)}
    made.members["index.json"] = json.dumps(index).encode()
    whole(kept(tmp_path, made.packed()))


@pytest.mark.parametrize("make", list(MAKES))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_damage_is_told_with_its_member(
    tmp_path: Path, make: str, damage: Callable[[Archive, random.Random], str]
) -> None:
    """Twice each, and nothing that is whole is told of."""
    for seed in range(2):
        chance = chance_of(f"{make} {damage.__name__} {seed}")
        made = MAKES[make](layers_of(chance))
        wanted = damage(made, chance)
        checked, told = verified(kept(tmp_path, made.packed()))
        assert checked.state == "damaged"
        paths = {one.path for one in told.damages}
        assert wanted in paths, told.damages
        others = paths - {wanted} - (set(made.layers) if damage is layers_are_swapped else set())
        assert not others, told.damages


@pytest.mark.parametrize("make", list(MAKES))
def test_every_cut_of_the_whole_is_told(tmp_path: Path, make: str) -> None:
    """An archive that ends early says where it ends, and does not call what would follow missing."""
    chance = chance_of(make)
    data = MAKES[make](layers_of(chance)).packed()
    end = len(data.rstrip(b"\0"))
    for _ in range(15):
        at = chance.randrange(1, end)
        checked, told = verified(kept(tmp_path, data[:at]))
        if checked.state != "damaged":
            # Cut between two members, it is a shorter archive: something that is named is not there then.
            raise AssertionError(at)
        assert not any(one.kind == "missing" for one in told.damages if "ends" in one.found), told.damages


# Hostile ones


def test_what_stands_in_it_twice_is_told(tmp_path: Path) -> None:
    """One program reads the first, another the last."""
    made = new_save(layers_of(chance_of(5)))
    data = io.BytesIO(made.packed())
    with tarfile.open(fileobj=data, mode="a") as tar:
        info = tarfile.TarInfo(made.layers[0])
        info.size = 3
        tar.addfile(info, io.BytesIO(b"two"))
    _, told = verified(kept(tmp_path, data.getvalue()))
    assert {one.path for one in told.damages} == {made.layers[0]}
    assert any("twice" in one.found for one in told.damages)


@pytest.mark.parametrize(
    ("name", "target", "letter"),
    [
        ("../../etc/cron.d/x", "", b"0"),
        ("blobs/x", "/etc/shadow", b"2"),
        ("blobs/x", "../../etc/shadow", b"2"),
        ("blobs/x", "../../etc/shadow", b"1"),
    ],
)
def test_members_that_lead_out_are_told_and_not_followed(tmp_path: Path, name: str, target: str, letter: bytes) -> None:
    """Names and links of the archive itself."""
    data = io.BytesIO(new_save(layers_of(chance_of(6))).packed())
    with tarfile.open(fileobj=data, mode="a") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = letter, target
        tar.addfile(info)
    _, told = verified(kept(tmp_path, data.getvalue()))
    assert [one.found for one in told.damages if "leads out" in one.found]
    assert {one.path for one in told.damages} == {name}


def test_a_layer_written_through_a_link_is_told(tmp_path: Path) -> None:
    """First a link that climbs, then a file below it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../root"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("a/.bashrc"))
    made = new_save([data.getvalue()])
    _, told = verified(kept(tmp_path, made.packed()))
    assert [one.path for one in told.damages] == made.layers
    assert "through the link a" in told.damages[0].found


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Sixty megabytes of zeros in sixty kilobytes: read through in pieces."""
    undo = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = tarfile.TarInfo("zeros")
    head.size = 64 << 20
    packed = undo.compress(head.tobuf(tarfile.GNU_FORMAT)) + b"".join(undo.compress(bytes(1 << 20)) for _ in range(64))
    packed += undo.compress(bytes(1024)) + undo.flush()
    made = oci([b""], lambda _: packed)
    tracemalloc.start()
    checked, _ = verified(kept(tmp_path, made.packed()))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert checked.state == "damaged"  # its diff id is another one


def test_an_export_is_no_image(tmp_path: Path) -> None:
    """What docker export writes has no manifest: the reader is told which command reads it."""
    _, told = verified(kept(tmp_path, tar_of({"etc/": b"", "etc/passwd": b"root", "usr/": b"", "bin/": b""})))
    assert "docker import" in told.damages[0].detail


@pytest.mark.parametrize("data", [b"", b"\0" * 2000, b"PK\3\4 a zip", b"\x1f\x8b\x08 not really", b"{}" * 400])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    """Whatever it is, there is an answer."""
    checked, told = verified(kept(tmp_path, data))
    assert checked.state == "damaged"
    assert told.damages


def test_random_bytes_end(tmp_path: Path) -> None:
    """Archives with many bytes changed: an answer each time, and no exception."""
    chance = chance_of(7)
    data = new_save(layers_of(chance)).packed()
    for _ in range(40):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 60)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        with contextlib.suppress(OSError):
            verified(kept(tmp_path, bytes(changed)))
