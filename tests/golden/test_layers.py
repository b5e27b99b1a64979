"""`doctor layers`, letter by letter: what is said of damaged layers, the list, and one layer (`make golden` writes them)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.layering import chosen, judged, listed
from doctor.layers.model import Checked, Damage, Run, dump
from doctor.registry import load
from doctor.reports.layers import LayerStyle, as_json, layer, listing, verification
from doctor.snapshot import Record, Snapshot
from tests.cases import casefile

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.layers.told import Verification
    from doctor.model import HostInfo, Report

    Golden = Callable[[str, str], None]

REGISTRY = load(plugins=False)
SHOWN = {
    "flipped-bit": "LAY012/fires",
    "hidden": "LAY012/fires-hidden",
    "program": "LAY012/fires-program",
    "unread": "LAY012/unknown",
    "rights": "LAY012/silent-rights",
}


BASE = "46be5921d5e1".ljust(64, "0")
OTHERS = ("a1" * 32, "a3" * 32, "a4" * 32, "d1" * 32, "d3" * 32, "d4" * 32)
"""Containers of the host of the cases, and their layers, that this one has not."""


def _shop() -> Snapshot:
    """A host with the images shop/base:12 and, on top of it, shop/jobs:7, and a container of that which has ended.

    Verified were five layers of 412 MB; in a file of the base one bit is another one.
    """
    held = casefile.base("healthy-28")
    upper = sha256(f"sha256:{BASE} sha256:{'f2' * 32}".encode()).hexdigest()
    renamed = {
        "f1" * 32: BASE,
        "1d0b976aeb9b0a96dc2724865cda312453609cdecb4cfe22db437a0b1c266bde": upper,
        '"busybox":{"busybox:lab"': '"shop/base":{"shop/base:12"',
        '"shop/api":{"shop/api:1"': '"shop/jobs":{"shop/jobs:7"',
        "busybox:lab": "shop/base:12",
        "shop/api:1": "shop/jobs:7",
        '"/api"': '"/jobs"',
        '"State":"running"': '"State":"exited"',
        '"Status":"running","Running":true': '"Status":"exited","Running":false',
        "cache-id\tf\t1795506900": "cache-id\tf\t1795509810",
    }
    records = {}
    for name, record in held.records.items():
        if any(one in name for one in OTHERS):
            continue
        lines = [line for line in record.text.split("\n") if not any(one in line for one in OTHERS)]
        text = "\n".join(lines).replace("},\n]", "}\n]")
        for before, after in renamed.items():
            text = text.replace(before, after)
        records[name] = replace(record, data=text.encode())
    chain = f"sha256:{BASE}"
    sizes = (
        (upper, 31_000_000, 412),
        ("1" * 64, 25_000_000, 30),
        ("2" * 64, 40_000_000, 18),
        ("3" * 64, 20_000_000, 11),
    )
    lines = [
        Run("overlay2", 5, 412_000_000),
        Checked("overlay2", chain, "damaged", chain, "", 3000, 296_000_000, damages=1),
        *(Checked("overlay2", f"sha256:{one}", "whole", "", "", files, size) for one, size, files in sizes),
        Damage(
            chain,
            "/usr/bin/python3.11",
            "content",
            "CRC-64 dc660d9874b84eed",
            "7a0b2a63d6827245",
            "fits one flipped bit: byte 3,099,152, 0x90 where 0x80 belongs",
            "bit",
            offset=3_099_152,
            mode=0o100755,
            changed=1795509925.0,
        ),
    ]
    records["layers/overlay2"] = Record("layers/overlay2", "command", "layers", data=dump(lines))
    return Snapshot(held.meta, records)


def _judged(case: str) -> tuple[Verification, Report]:
    snapshot = casefile.load(casefile.HERE / f"{case}.toml").snapshot
    value, report, _ = judged(snapshot, REGISTRY, (), deep=True, began=0.0)
    return replace(value, ms=400.0, outcomes=tuple(replace(one, ms=0.0) for one in value.outcomes)), report


@pytest.mark.parametrize("name", SHOWN)
def test_verified(name: str, golden: Golden) -> None:
    """As wide as most terminals."""
    golden(f"layers/{name}.txt", verification(_judged(SHOWN[name])[0], LayerStyle()))


def test_verified_otherwise(golden: Golden) -> None:
    """In colour and with everything; as a document."""
    value, _ = _judged(SHOWN["flipped-bit"])
    golden("layers/flipped-bit-colour.txt", verification(value, LayerStyle(120, colour=True, verbose=True)))
    golden("layers/flipped-bit.json", as_json(replace(value, doctor="V")))


def test_listed_and_explained(golden: Golden) -> None:
    """Every layer with who stands on it; one of them with those below it."""
    snapshot = casefile.base("healthy-28")
    _, report, facts = judged(snapshot, REGISTRY, (), deep=False, began=0.0)
    host: HostInfo = report.host
    golden("layers/list.txt", listing(listed(facts, host)))
    rows, places = chosen(facts, "1d0b976aeb9b")
    golden("layers/explain.txt", layer(rows, places, host))


def test_the_shop(golden: Golden) -> None:
    """One bit of an interpreter: two images and a container that has ended have it."""
    value, _, _ = judged(_shop(), REGISTRY, (), deep=True, began=0.0)
    value = replace(value, ms=400.0)
    golden("layers/shop.txt", verification(value, LayerStyle()))
