"""Archives of images made for tests: docker save of both kinds, OCI layouts, and damages of each."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

Files = dict[str, bytes]


def digest(data: bytes) -> str:
    """As descriptors name a blob."""
    return f"sha256:{sha256(data).hexdigest()}"


def tar_of(files: Files, links: Iterable[tuple[str, str, bytes]] = (), kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar with files, and links as name, target and type."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o644, 1_700_000_000
            if name.endswith("/"):
                info.type, info.mode, info.size = tarfile.DIRTYPE, 0o755, 0
            tar.addfile(info, io.BytesIO(content))
        for name, target, letter in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = letter, target
            tar.addfile(info)
    return data.getvalue()


def layers_of(chance: random.Random, count: int = 3) -> list[bytes]:
    """Layers with directories, files of several sizes, links and whiteouts."""
    layers = []
    for number in range(count):
        files: Files = {"etc/": b"", f"etc/conf{number}": chance.randbytes(chance.randint(1, 3000))}
        files[f"usr/lib/odd \u00e9\u00df{number}"] = chance.randbytes(700)
        files[f"big{number}"] = bytes(chance.randint(2000, 40_000)) + chance.randbytes(1000)
        if number:
            files[f"etc/.wh.conf{number - 1}"] = b""
        layers.append(
            tar_of(
                files,
                [
                    (f"etc/link{number}", "../usr/lib", tarfile.SYMTYPE),
                    (f"etc/hard{number}", f"big{number}", tarfile.LNKTYPE),
                ],
            )
        )
    return layers


class Archive(NamedTuple):
    """Members in order, and which of them is what."""

    members: Files
    layers: list[str]
    config: str
    manifest: str
    links: tuple[tuple[str, str], ...] = ()

    def packed(self) -> bytes:
        """As a tar."""
        return tar_of(self.members, [(name, target, tarfile.SYMTYPE) for name, target in self.links])


def config_of(layers: list[bytes]) -> bytes:
    """An image configuration."""
    history = [{"created_by": f"layer {number}"} for number in range(len(layers))]
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
            "history": [*history, {"empty_layer": True}],
        }
    ).encode()


def oci(layers: list[bytes], squeeze: Callable[[bytes], bytes] = gzip.compress, suffix: str = "+gzip") -> Archive:
    """An OCI layout."""
    members: Files = {"blobs/": b"", "blobs/sha256/": b""}

    def blob(data: bytes) -> str:
        members[f"blobs/sha256/{digest(data)[7:]}"] = data
        return f"blobs/sha256/{digest(data)[7:]}"

    config = config_of(layers)
    packed = [squeeze(one) for one in layers]
    names = [blob(one) for one in packed]
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": digest(config), "size": len(config)},
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar{suffix}", "digest": digest(one), "size": len(one)} for one in packed
            ],
        }
    ).encode()
    names_config, names_manifest = blob(config), blob(manifest)
    members["index.json"] = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [{"mediaType": f"{kind}.manifest.v1+json", "digest": digest(manifest), "size": len(manifest)}],
        }
    ).encode()
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return Archive(members, names, names_config, names_manifest)


def new_save(layers: list[bytes]) -> Archive:
    """What `docker save` of 25 and later writes: an OCI layout of plain layers, and manifest.json."""
    made = oci(layers, bytes, "")
    listed = [{"Config": made.config, "RepoTags": ["shop/base:12"], "Layers": made.layers}]
    made.members["manifest.json"] = json.dumps(listed).encode()
    return made


def old_save(layers: list[bytes]) -> Archive:
    """What `docker save` wrote before: a directory for each layer, one that is the same as another is a link."""
    members: Files = {}
    names, links, seen = [], [], {}
    for number, layer in enumerate(layers):
        name = f"{sha256(b'%d' % number).hexdigest()}/"
        members[name] = b""
        members[f"{name}VERSION"] = b"1.0"
        members[f"{name}json"] = b'{"id":"x"}'
        if digest(layer) in seen:
            links.append((f"{name}layer.tar", f"../{seen[digest(layer)]}"))
        else:
            members[f"{name}layer.tar"] = layer
            seen[digest(layer)] = f"{name}layer.tar"
        names.append(f"{name}layer.tar")
    config = config_of(layers)
    called = f"{digest(config)[7:]}.json"
    members[called] = config
    listed = [{"Config": called, "RepoTags": ["shop/base:12"], "Layers": names}]
    members["manifest.json"] = json.dumps(listed).encode()
    members["repositories"] = b'{"shop/base":{"12":"x"}}\n'
    return Archive(members, names, called, "manifest.json", tuple(links))
