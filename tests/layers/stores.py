"""A data-root of docker's written by hand: layers unpacked as docker unpacks them, with the tar-split it would keep.

Needs no root: files belong to who runs the test, whiteouts may be made by anybody (mknod(2) of 0/0, Linux 5.8), and
opaque directories have user.overlay.opaque. Source: moby `layer/filestore.go`, `pkg/archive`, tar-split `tar/storage`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from doctor.facts.images import chain_ids
from doctor.layers.crc64 import own
from doctor.layers.model import Work

BLOCK = 512


@dataclass
class Node:
    """One member of a layer. `kind` is as in `tarstream.Entry`; `link` a target; `xattrs` extended attributes."""

    name: str
    kind: str = "f"
    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    mtime: int = 1_600_000_000


TYPES = {
    "f": tarfile.REGTYPE,
    "d": tarfile.DIRTYPE,
    "l": tarfile.SYMTYPE,
    "h": tarfile.LNKTYPE,
    "p": tarfile.FIFOTYPE,
}


def directory(name: str, mode: int = 0o755) -> Node:
    """Give a directory."""
    return Node(name + "/", "d", mode=mode)


def archive(nodes: list[Node], style: int = tarfile.GNU_FORMAT) -> bytes:
    """Give the tar archive of a layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style, encoding="utf-8", errors="surrogateescape") as tar:
        for node in nodes:
            info = tarfile.TarInfo(node.name)
            info.type = TYPES[node.kind]
            info.size = len(node.data) if node.kind == "f" else 0
            info.mode, info.linkname, info.mtime = node.mode, node.link, node.mtime
            info.uid, info.gid = os.getuid(), os.getgid()
            if node.xattrs:
                info.pax_headers = {
                    f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
                    for key, value in node.xattrs.items()
                }
            tar.addfile(info, io.BytesIO(node.data))
    return out.getvalue()


def tar_split(tar: bytes) -> bytes:
    """Give what docker would keep of an archive."""
    lines = []
    at = position = 0

    def segment(data: bytes) -> None:
        nonlocal position
        if data:
            lines.append({"type": 2, "payload": b64encode(data).decode(), "position": position})
            position += 1

    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as members:
        for one in members:
            size = one.size if one.isreg() else 0
            segment(tar[at : one.offset_data])
            name = one.name + ("/" if one.isdir() and one.name not in {"", "."} else "")
            raw = name.encode("utf-8", "surrogateescape")
            line: dict[str, object] = {"type": 1}
            try:
                raw.decode()
                line["name"] = name
            except UnicodeDecodeError:
                line["name_raw"] = b64encode(raw).decode()
            content = tar[one.offset_data : one.offset_data + size]
            if size:
                line["size"] = size
            line["payload"] = b64encode(own(content).to_bytes(8, "big")).decode() if size else None
            line["position"] = position
            lines.append(line)
            position += 1
            at = one.offset_data + size
    for start in range(at, len(tar), 1024):
        segment(tar[start : min(start + 1024, len(tar))])
    return gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), 1, mtime=0)


def unpack(nodes: list[Node], root: Path) -> None:
    """Unpack a layer as the overlay2 driver does."""
    root.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        if node.name == "./":
            continue  # the driver made it, and unpacking leaves it
        path = root / node.name.strip("/").removeprefix("./")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == ".wh..wh..opq":
            os.setxattr(path.parent, "user.overlay.opaque", b"y")
            continue
        if path.name.startswith(".wh."):
            os.mknod(path.with_name(path.name[4:]), stat.S_IFCHR, 0)
            continue
        if (path.is_symlink() or path.exists()) and node.kind != "d":
            path.unlink()
        _make(node, path, root)
    for node in reversed(nodes):
        if node.kind != "l" and not Path(node.name.rstrip("/")).name.startswith(".wh."):
            path = root / node.name.strip("/").removeprefix("./")
            os.utime(path, (node.mtime, node.mtime))


def _make(node: Node, path: Path, root: Path) -> None:
    if node.kind == "d":
        path.mkdir(exist_ok=True)
    elif node.kind == "l":
        path.symlink_to(node.link)
        return
    elif node.kind == "h":
        path.hardlink_to(root / node.link)
        return
    elif node.kind == "p":
        os.mkfifo(path)
    else:
        path.write_bytes(node.data)
    path.chmod(node.mode)
    for key, value in node.xattrs.items():
        os.setxattr(path, key, value)


class Store:
    """A data-root; layers by chain id, images by name."""

    def __init__(self, root: Path) -> None:
        """Make an empty one."""
        self.root = root
        self.images: dict[str, list[str]] = {}
        self.diffs: dict[str, str] = {}
        self.caches: dict[str, str] = {}
        self.parents: dict[str, str] = {}
        self.layerdb = root / "image/overlay2/layerdb/sha256"
        for path in (self.layerdb, root / "image/overlay2/imagedb/content/sha256", root / "overlay2/l"):
            path.mkdir(parents=True)

    def layer(self, nodes: list[Node], parent: str = "", style: int = tarfile.GNU_FORMAT, tail: bytes = b"") -> str:
        """Add a layer; give its chain id."""
        tar = archive(nodes, style) + tail
        diff = f"sha256:{sha256(tar).hexdigest()}"
        chain = chain_ids([parent, diff])[1] if parent else diff
        cache = sha256(f"{chain} {len(self.diffs)}".encode()).hexdigest()
        unpack(nodes, self.root / "overlay2" / cache / "diff")
        folder = self.layerdb / chain[7:]
        folder.mkdir()
        folder.joinpath("tar-split.json.gz").write_bytes(tar_split(tar))
        folder.joinpath("diff").write_text(diff)
        folder.joinpath("cache-id").write_text(cache)
        folder.joinpath("size").write_text(str(sum(len(node.data) for node in nodes if node.kind == "f")))
        if parent:
            folder.joinpath("parent").write_text(parent)
        self.diffs[chain], self.caches[chain], self.parents[chain] = diff, cache, parent
        link = sha256(cache.encode()).hexdigest()[:26].upper().translate(str.maketrans("0189", "ABCD"))
        (self.root / "overlay2" / cache / "link").write_text(link)
        (self.root / "overlay2" / "l" / link).symlink_to(f"../{cache}/diff")
        if parent:
            below = self.root / "overlay2" / self.caches[parent]
            lower = "l/" + (below / "link").read_text()
            if (below / "lower").exists():
                lower += ":" + (below / "lower").read_text()
            (self.root / "overlay2" / cache / "lower").write_text(lower)
            (self.root / "overlay2" / cache / "work").mkdir()
        return chain

    def diff(self, chain: str) -> Path:
        """Give the directory of a layer's files."""
        return self.root / "overlay2" / self.caches[chain] / "diff"

    def record(self, chain: str) -> Path:
        """Give a layer's tar-split."""
        return self.layerdb / chain[7:] / "tar-split.json.gz"

    def work(self, chain: str) -> Work:
        """Give the layer as it is handed to whoever verifies it."""
        lowers = []
        below = self.parents[chain]
        while below:
            lowers.append(str(self.diff(below)))
            below = self.parents[below]
        size = (self.layerdb / chain[7:] / "size").read_text()
        return Work(
            "overlay2",
            chain,
            self.diffs[chain],
            int(size),
            str(self.diff(chain)),
            str(self.record(chain)),
            tuple(lowers),
            extra={"size": size, "size_file": str(self.layerdb / chain[7:] / "size")},
        )
