"""`doctor layers`, letter by letter: what is said of damaged layers, the list, and one layer (`make golden` writes them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor.layering import chosen, judged, listed
from doctor.registry import load
from doctor.reports.layers import LayerStyle, as_json, layer, listing, verification
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
