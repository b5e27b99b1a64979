"""Records what this kernel does with the flows of a host: `make record`, as root. `test_recorded.py` reads what it writes.

A recording is what a snapshot has of the host, and of each flow how it ended and which rules the kernel's own trace saw
drop a packet of it. Nothing in it is of this machine but the release of its kernel.
"""

from __future__ import annotations

import gzip
import json
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kernel.town import KINDS, Kind, Town, flows
from tests.kernel.traces import FIRST, TRACED, Legacy, Monitor

if TYPE_CHECKING:
    from tests.kernel.lan import Flow

RECORDED = Path(__file__).parent / "recorded"
PACE = 60
"""Flows at once."""


def recorded(town: Town, kind: Kind, first: int) -> dict[str, Any]:
    """Record one kind of host; ports of clients begin at `first`."""
    town.load(kind)
    legacy = Legacy(town, 4)
    if kind.backend == "legacy":
        legacy.rules()
    records = town.records()
    if kind.backend != "legacy":
        town.run("host", "nft -f -", TRACED)
    found = [flow._replace(sport=first + at) for at, flow in enumerate(flows())]
    ended: dict[Flow, str] = {}
    with legacy if kind.backend == "legacy" else Monitor(town) as trace:
        for at in range(0, len(found), PACE):
            ended |= town.connect(found[at : at + PACE], 1.0)
        dropped = trace.dropped()
    kernel = re.match(r"\d+\.\d+", platform.release())
    return {
        "kernel": kernel[0] if kernel else "",
        "records": {name: (kind_, _plain(text)) for name, (kind_, text) in records.items()},
        "flows": [
            [flow.source, flow.address, flow.port, flow.protocol, ended[flow], sorted(dropped.get(flow.sport, ()))]
            for flow in found
        ],
    }


def _plain(text: str) -> str:
    """Leave out when the savers ran."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))


def main() -> None:
    """Record all kinds."""
    RECORDED.mkdir(exist_ok=True)
    with Town() as town:
        for at, kind in enumerate(KINDS):
            held = json.dumps(recorded(town, kind, FIRST + at * 1000)).encode()
            (RECORDED / f"{kind.name}.json.gz").write_bytes(gzip.compress(held, mtime=0))
            print(kind.name, len(held))  # noqa: T201 - who records wants to see that it goes on


if __name__ == "__main__":
    main()
