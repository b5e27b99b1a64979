"""Images and layers in the data root, as the overlay2 driver of the engine keeps them.

    overlay2/CACHE-ID/{diff,link,lower,work,committed}   overlay2/l/SHORT -> ../CACHE-ID/diff
    image/overlay2/layerdb/sha256/CHAIN/{cache-id,diff,parent,size,tar-split.json.gz}
    image/overlay2/layerdb/mounts/CONTAINER/{mount-id,init-id,parent}
    image/overlay2/imagedb/{content,metadata}/sha256/ID   image/overlay2/repositories.json

Source: moby daemon/graphdriver/overlay2/overlay.go, layer/filestore.go, image/fs.go, daemon/initlayer/setup_unix.go.
Modes are those that 28.5.2 leaves behind. Live engines list, run and save what is written here (`tests/engine`).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from doctor.runtime.model import Image, Layer
from doctor.runtime.process import small

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from doctor.runtime.daemon.tarsplit import Entry, Packed

_SHORT_LENGTH = 26
_FOLDERS = (
    ("", 0o710),
    *((name, 0o710) for name in ("containers", "overlay2", "overlay2/l")),
    *((name, 0o711) for name in ("buildkit", "plugins", "runtimes", "swarm", "tmp", "volumes")),
    *((name, 0o700) for name in ("image", "image/overlay2", "image/overlay2/distribution")),
    *((f"image/overlay2/imagedb{name}", 0o700) for name in ("", "/content", "/content/sha256", "/metadata")),
    ("image/overlay2/imagedb/metadata/sha256", 0o700),
    ("image/overlay2/layerdb", 0o700),
    *((f"image/overlay2/layerdb/{name}", 0o755) for name in ("sha256", "mounts", "tmp")),
    *((name, 0o750) for name in ("network", "network/files")),
)
_INIT = (
    *(("dev/pts", "dir"), ("dev/shm", "dir"), ("proc", "dir"), ("sys", "dir"), (".dockerenv", "file")),
    *(("etc/resolv.conf", "file"), ("etc/hosts", "file"), ("etc/hostname", "file"), ("dev/console", "file")),
    ("etc/mtab", "/proc/mounts"),
)
"""What a container finds even where its image lacks it, on the layer between both."""


class Mounted(Struct, frozen=True):
    """A container's layers: `lowers` uppermost first (as paths of short links), and the folders of its own layer."""

    lowers: tuple[str, ...]
    upper: str
    work: str
    merged: str


class Store:
    """The images and layers of one data root."""

    def __init__(self, root: str) -> None:
        """Take the data root; makes its folders where they are missing. Raises OSError."""
        self.root = Path(root)
        self.overlay = self.root / "overlay2"
        self.layerdb = self.root / "image/overlay2/layerdb"
        self.imagedb = self.root / "image/overlay2/imagedb"
        for name, mode in _FOLDERS:
            place = f"{root}/{name}"
            if not os.path.isdir(place):  # noqa: PTH112 - as in _write
                os.makedirs(place)  # noqa: PTH103 - as above
                os.chmod(place, mode)  # noqa: PTH101 - as above

    # Layers

    def add_layer(self, packed: Packed, parent: Layer | None = None) -> Layer:
        """Keep a layer on top of another. Raises OSError (disk full)."""
        diff_id = packed.diff_id
        chain = diff_id
        if parent is not None:
            chain = "sha256:" + hashlib.sha256(f"{parent.chain_id} {diff_id}".encode()).hexdigest()
        kept = self.layerdb / "sha256" / chain[7:]
        if (kept / "cache-id").exists():
            return self.layer(chain)
        cache = secrets.token_hex(32)
        self._folder(cache, parent.cache_id if parent else "")
        _unpack(packed.tree, f"{self.overlay}/{cache}/diff")
        _write(self.overlay / cache / "committed", "", 0o600)
        kept.mkdir(0o700)
        _write(kept / "diff", diff_id)
        _write(kept / "cache-id", cache)
        _write(kept / "size", str(packed.size))
        if parent is not None:
            _write(kept / "parent", parent.chain_id)
        (kept / "tar-split.json.gz").write_bytes(packed.split)
        return Layer(diff_id, chain, cache, str(self.overlay / cache / "diff"), packed.size)

    def layer(self, chain: str) -> Layer:
        """Read what the store has of a layer, by its chain id. Raises OSError, ValueError for a broken one."""
        kept = self.layerdb / "sha256" / chain[7:]
        cache = (kept / "cache-id").read_text()
        folder = str(self.overlay / cache / "diff")
        return Layer((kept / "diff").read_text(), chain, cache, folder, int((kept / "size").read_text()))

    def _folder(self, cache: str, parent: str) -> None:
        """Make the folder of a layer in overlay2, with its short link and what stands below it."""
        place = f"{self.overlay}/{cache}"
        os.mkdir(place, 0o710)  # noqa: PTH102 - as in _write
        os.mkdir(f"{place}/diff", 0o755)  # noqa: PTH102 - as above
        short = base64.b32encode(os.urandom(_SHORT_LENGTH)).decode()[:_SHORT_LENGTH]  # five bits a letter
        _write(f"{place}/link", short)
        os.symlink(f"../{cache}/diff", f"{self.overlay}/l/{short}")  # noqa: PTH211 - as above
        if parent:
            os.mkdir(f"{place}/work", 0o700)  # noqa: PTH102 - as above
            _write(f"{place}/lower", self._below(parent))

    def _below(self, cache: str) -> str:
        """Give the text of `lower` for a layer that stands on this one."""
        place = f"{self.overlay}/{cache}"
        above = "l/" + small(f"{place}/link")
        try:
            return f"{above}:{small(f'{place}/lower')}"
        except FileNotFoundError:
            return above

    # Images

    def add_image(self, config: dict[str, Any], layers: Sequence[Layer], tags: Sequence[str]) -> Image:
        """Keep an image: its config gets the layers' digests. Raises OSError."""
        whole = {**config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}
        text = json.dumps(whole, separators=(",", ":"))
        identity = hashlib.sha256(text.encode()).hexdigest()
        _write(self.imagedb / "content/sha256" / identity, text, 0o600)
        names = self._names()
        for tag in tags:
            names.setdefault(tag.rpartition(":")[0], {})[tag] = "sha256:" + identity
        _replace(self.root / "image/overlay2/repositories.json", json.dumps({"Repositories": names}), 0o600)
        return Image("sha256:" + identity, tuple(tags), whole, tuple(layers), str(config.get("created", "")))

    def save_names(self, images: Mapping[str, Image]) -> None:
        """Write the names of all images anew, as they are in memory, as the engine does for each that changes. OSError."""
        names: dict[str, dict[str, str]] = {}
        for image in images.values():
            for tag in image.tags:
                names.setdefault(tag.rpartition(":")[0], {})[tag] = image.id
        _replace(self.root / "image/overlay2/repositories.json", json.dumps({"Repositories": names}), 0o600)

    def images(self) -> dict[str, Image]:
        """Read all images by id; one whose config or layers cannot be read is left out, as the engine leaves it out."""
        tags: dict[str, list[str]] = {}
        for held in self._names().values():
            for tag, identity in held.items():
                tags.setdefault(identity, []).append(tag)
        found = {}
        for path in sorted((self.imagedb / "content/sha256").iterdir()):
            try:
                text = path.read_bytes()
                if hashlib.sha256(text).hexdigest() != path.name:
                    continue
                config = json.loads(text)
                layers = self._chain(config["rootfs"]["diff_ids"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            identity = "sha256:" + path.name
            named = tuple(tag for tag in tags.get(identity, ()) if "@" not in tag)
            found[identity] = Image(identity, named, config, layers, str(config.get("created", "")))
        return found

    def _chain(self, diffs: list[str]) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        chain = ""
        for diff in diffs:
            chain = "sha256:" + hashlib.sha256(f"{chain} {diff}".encode()).hexdigest() if chain else diff
            layers.append(self.layer(chain))
        return tuple(layers)

    def _names(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads((self.root / "image/overlay2/repositories.json").read_bytes())["Repositories"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    # Containers

    def add_container(self, container: str, image: Image) -> str:
        """Make the two layers of a container on top of an image; give the cache id of its own. Raises OSError."""
        mount = secrets.token_hex(32)
        top = image.layers[-1]
        self._folder(f"{mount}-init", top.cache_id)
        self._fill_init(f"{self.overlay}/{mount}-init/diff", image)
        _write(f"{self.overlay}/{mount}-init/committed", "", 0o600)
        self._folder(mount, f"{mount}-init")
        kept = f"{self.layerdb}/mounts/{container}"
        os.mkdir(kept, 0o755)  # noqa: PTH102 - as in _write
        _write(f"{kept}/mount-id", mount)
        _write(f"{kept}/init-id", f"{mount}-init")
        _write(f"{kept}/parent", top.chain_id)
        return mount

    def _fill_init(self, place: str, image: Image) -> None:
        folders = [layer.folder for layer in image.layers]
        made = set[str]()
        for name, kind in _INIT:
            if any(os.path.lexists(f"{folder}/{name}") for folder in folders):
                continue
            path = f"{place}/{name}"
            parent = name.rpartition("/")[0]
            if parent and parent not in made:
                os.mkdir(f"{place}/{parent}")  # noqa: PTH102 - as in _write
                made.add(parent)
            if kind == "dir":
                os.mkdir(path, 0o755)  # noqa: PTH102 - as above
            elif kind == "file":
                _write(path, "", 0o755)
            else:
                os.symlink(kind, path)  # noqa: PTH211 - as above

    def mount_id(self, container: str) -> str:
        """Give the cache id of a container's layer, empty where the store has none."""
        try:
            return (self.layerdb / "mounts" / container / "mount-id").read_text()
        except OSError:
            return ""

    def mounted(self, mount: str) -> Mounted:
        """Give what is mounted for a container's layer. Raises OSError where a part of it is gone."""
        place = f"{self.overlay}/{mount}"
        lowers = tuple(f"{self.overlay}/{one}" for one in small(f"{place}/lower").split(":"))
        return Mounted(lowers, f"{place}/diff", f"{place}/work", f"{place}/merged")

    @staticmethod
    def folder(short: str) -> str:
        """Give the folder that a short link leads to, the link itself where it leads nowhere."""
        try:
            return os.path.normpath(f"{os.path.dirname(short)}/{os.readlink(short)}")  # noqa: PTH115, PTH120 - text
        except OSError:
            return short

    def remove_container(self, container: str) -> None:
        """Take a container's layers away; what is gone already does not matter. Raises OSError for what stays."""
        mount = self.mount_id(container)
        for cache in (mount, f"{mount}-init") if mount else ():
            place = self.overlay / cache
            with contextlib.suppress(OSError):
                (self.overlay / "l" / (place / "link").read_text()).unlink(missing_ok=True)
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.layerdb / "mounts" / container, ignore_errors=True)


def _unpack(tree: Sequence[Entry], place: str) -> None:
    for entry in tree:
        path = f"{place}/{entry.path}"
        if entry.link:
            os.symlink(entry.link, path)  # noqa: PTH211 - as in _write
            continue
        if entry.data is not None:
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - as above
                data = memoryview(entry.data)
                while data:
                    data = data[file.write(data) :]
        else:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)  # noqa: PTH102 - as above
        os.chmod(path, entry.mode)  # noqa: PTH101 - as above


def _write(path: Path | str, text: str, mode: int = 0o644) -> None:
    """Write a small file: a container is a dozen of them, and pathlib would take as long as the kernel."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file in one step: a reader sees the old text or the new one."""
    part = path.with_name(f".tmp-{path.name}{secrets.randbits(32)}")
    _write(part, text, mode)
    part.rename(path)
