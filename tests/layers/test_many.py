"""A large store that has lost one thing everywhere, as after a power cut or a copy: it is told, and told in time."""

from __future__ import annotations

import re
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from doctor.examine import Facts, examine
from doctor.facts.images import chain_ids
from doctor.registry import load
from doctor.snapshot import Record, Snapshot
from tests.cases import casefile

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, EACH = 300, 6
REGISTRY = load(plugins=False)
BOUND = 1.5
"""Seconds of processor: a check is given five by the clock. It takes 0.1 where nothing grows with the square of layers."""


def _hex(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _link(identity: str) -> str:
    return identity[:26].upper().translate(str.maketrans("0189", "GHIJ"))


@pytest.fixture(scope="module")
def store() -> Snapshot:
    """300 images of six layers each, none shared."""
    overlay, links, layerdb, names = [], [], [], {}
    held = casefile.base("healthy-28")
    records = {name: one for name, one in held.records.items() if not name.startswith("store/")}
    when = f"{held.meta.collected_at - 9000:.3f}"
    for image in range(IMAGES):
        diffs = [f"sha256:{_hex(f'diff {image} {number}')}" for number in range(EACH)]
        parent, below = "", ""
        for chain, diff in zip(chain_ids(diffs), diffs, strict=True):
            identity = _hex(f"directory {chain}")
            name = _link(identity)
            overlay += [f"{identity}/link\tf\t{when}\t{name}"]
            overlay += [f"{identity}/lower\tf\t{when}\t{below}"] if below else []
            overlay += [f"{identity}/diff\td\t{when}\t", f"{identity}/work\td\t{when}\t"]
            links.append(f"{name}\tl\t{when}\t../{identity}/diff")
            record = {"cache-id": identity, "diff": diff, "parent": parent, "size": "7"}
            layerdb += [f"{chain[7:]}/{key}\tf\t{when}\t{text}" for key, text in record.items() if text]
            layerdb.append(f"{chain[7:]}/tar-split.json.gz\tf\t{when}\t700")
            parent, below = chain, f"l/{name}:{below}".rstrip(":")
        config = msgspec.json.encode({"architecture": "amd64", "rootfs": {"diff_ids": diffs}})
        image_id = sha256(config).hexdigest()
        names[f"shop/{image}:1"] = f"sha256:{image_id}"
        records[f"store/images/{image_id}"] = Record(f"store/images/{image_id}", "file", image_id, data=config)
    listed = msgspec.json.encode({"Repositories": {name.partition(":")[0]: {name: one} for name, one in names.items()}})
    root = "/var/lib/docker"
    for name, target, data in (
        ("store/overlay2", f"{root}/overlay2", "\n".join(overlay).encode()),
        ("store/overlay2-l", f"{root}/overlay2/l", "\n".join(links).encode()),
        ("store/layerdb", f"{root}/image/overlay2/layerdb/sha256", "\n".join(layerdb).encode()),
        ("store/repositories.json", f"{root}/image/overlay2/repositories.json", listed),
    ):
        records[name] = Record(name, "tree", target, data=data)
    return Snapshot(held.meta, records)


def _told(snapshot: Snapshot) -> tuple[set[str], tuple[str, ...], float]:
    """Give the codes of what is told of layers, faults of ours, and processor seconds."""
    checks = [one for code, one in REGISTRY.checks.items() if code.startswith("LAY")]
    began = time.process_time()
    found = examine(Facts(REGISTRY, snapshot), REGISTRY, checks)
    return {one.code for one in found.findings}, found.faults, time.process_time() - began


def _without(pattern: str) -> Callable[[str], str]:
    return lambda text: "\n".join(line for line in text.split("\n") if not re.search(pattern, line))


LOST: dict[str, tuple[str, Callable[[str], str], str]] = {
    "short-links": ("store/overlay2-l", lambda _: "", "LAY002"),
    "text-of-link": ("store/overlay2", lambda text: re.sub(r"(?m)(/link\tf\t[\d.]+\t).*", r"\1", text), "LAY001"),
    "lists": ("store/overlay2", _without(r"/lower\t"), "LAY003"),
    "content": ("store/overlay2", lambda text: text.replace("/diff\td", "/diff\t-"), "LAY006"),
    "directories": ("store/overlay2", lambda _: "", "LAY008"),
    "sizes": ("store/layerdb", _without(r"/size\t"), "LAY007"),
    "cache-ids": ("store/layerdb", _without(r"/cache-id\t"), "LAY007"),
    "parents": ("store/layerdb", _without(r"/parent\t"), "LAY009"),
    "tar-splits": ("store/layerdb", lambda text: text.replace("gz\tf", "gz\t-").replace("\t700", "\t"), "LAY011"),
    "records": ("store/layerdb", lambda _: "", "LAY021"),
}


def test_healthy_it_is(store: Snapshot) -> None:
    """Nothing is told of it but of containers, whose images are others."""
    codes, faults, _ = _told(store)
    assert (codes - {"LAY021", "LAY024"}, faults) == (set(), ())


@pytest.mark.parametrize("what", LOST)
def test_what_is_lost_everywhere_is_told_in_time(store: Snapshot, what: str) -> None:
    """As one finding, without a fault of ours, and in a time that grows with the store and not with its square."""
    name, lose, code = LOST[what]
    record = store.records[name]
    broken = replace(record, data=lose(record.text).encode())
    codes, faults, took = _told(replace(store, records={**store.records, name: broken}))
    assert faults == ()
    assert code in codes
    assert took < BOUND
