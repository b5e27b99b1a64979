"""The data root that the daemon writes: digests, links and tar-split as the engine has them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from doctor.layers.crc64 import crc64
from doctor.runtime.daemon.store import Store
from doctor.runtime.daemon.tarsplit import Entry, pack

LOWER = (
    Entry("bin", 0o755),
    Entry("bin/tool", 0o755, os.urandom(70_001)),
    Entry("bin/other", 0o777, link="tool"),
    Entry("empty", 0o644, b""),
)
UPPER = (Entry("etc", 0o755), Entry("etc/hosts", 0o644, b"from the image\n"))


def _bytewise(data: bytes) -> int:
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xD800000000000000 if value & 1 else 0)
    return value ^ ((1 << 64) - 1)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 63, 64, 65, 100, 511, 1000, 4097])
def test_crc_is_gos(length: int) -> None:
    """Folding in one integer gives what a register of 64 bits gives."""
    data = os.urandom(length)
    assert crc64(data) == _bytewise(data)


def _assembled(store: Store, chain: str) -> bytes:
    """Put a layer's tar together again, as the engine does to save an image; checks each file on the way."""
    folder = Path(store.layer(chain).folder)
    text = gzip.decompress((store.layerdb / "sha256" / chain[7:] / "tar-split.json.gz").read_bytes())
    out = b""
    for number, line in enumerate(text.decode().splitlines()):
        piece = json.loads(line)
        assert piece["position"] == number
        payload = base64.b64decode(piece["payload"] or "")
        if piece["type"] == 2:
            out += payload
        elif piece.get("size"):
            content = (folder / piece["name"]).read_bytes()
            assert len(content) == piece["size"]
            assert payload == struct.pack(">Q", crc64(content))
            out += content
    return out


def test_a_layer_is_what_its_digest_says(tmp_path: Path) -> None:
    """Tar, diff id, chain id, short links and sizes hold together, for a layer on top of another too."""
    store = Store(str(tmp_path))
    lower = store.add_layer(pack(LOWER))
    upper = store.add_layer(pack(UPPER), lower)
    for layer, size in ((lower, 70_001), (upper, 15)):
        assert "sha256:" + hashlib.sha256(_assembled(store, layer.chain_id)).hexdigest() == layer.diff_id
        assert layer.size == size
        assert store.layer(layer.chain_id) == layer
    assert upper.chain_id == "sha256:" + hashlib.sha256(f"{lower.chain_id} {upper.diff_id}".encode()).hexdigest()
    below = (tmp_path / "overlay2" / upper.cache_id / "lower").read_text()
    assert store.folder(f"{tmp_path}/overlay2/{below}") == lower.folder
    assert (Path(upper.folder) / "etc/hosts").read_bytes() == b"from the image\n"


def test_images_are_read_again(tmp_path: Path) -> None:
    """What one store writes, another reads; what is damaged is left out, as the engine leaves it out."""
    store = Store(str(tmp_path))
    layers = [store.add_layer(pack(LOWER))]
    layers.append(store.add_layer(pack(UPPER), layers[0]))
    made = store.add_image({"os": "linux", "config": {"Cmd": ["sh"]}}, layers, ("made:1", "made:two"))
    assert Store(str(tmp_path)).images() == {made.id: made}
    (store.layerdb / "sha256" / layers[1].chain_id[7:] / "cache-id").unlink()
    assert Store(str(tmp_path)).images() == {}


def test_a_container_stands_on_its_image(tmp_path: Path) -> None:
    """It has a layer of its own and one below that has what every container finds; both go with it."""
    store = Store(str(tmp_path))
    lower = store.add_layer(pack(LOWER))
    image = store.add_image({"os": "linux"}, [lower, store.add_layer(pack(UPPER), lower)], ())
    before = sorted(path.name for path in (tmp_path / "overlay2/l").iterdir())
    mount = store.add_container("c" * 64, image)
    held = store.mounted(mount)
    below = [f"{tmp_path}/overlay2/{mount}-init/diff", *(layer.folder for layer in reversed(image.layers))]
    assert [store.folder(one) for one in held.lowers] == below
    init = tmp_path / f"overlay2/{mount}-init/diff"
    assert (init / ".dockerenv").exists()
    assert not (init / "etc/hosts").exists(), "the image has its own"
    store.remove_container("c" * 64)
    assert sorted(path.name for path in (tmp_path / "overlay2/l").iterdir()) == before
    assert not (tmp_path / "overlay2" / mount).exists()
