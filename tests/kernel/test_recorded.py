"""What a kernel did with the flows of Docker's hosts, recorded by `make record`: the model says the same, by the same rule."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from doctor.packets.flow import TCP, UDP
from doctor.packets.flow import Flow as Asked
from doctor.packets.packet import number
from doctor.packets.walk import follow
from tests.kernel.lan import Flow, site_of
from tests.kernel.record import RECORDED, recorded
from tests.kernel.test_random import alike
from tests.kernel.town import KINDS, Kind, Town
from tests.kernel.traces import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from doctor.packets.walk import Result


class Count(NamedTuple):
    """Flows that were compared, those that a rule of the host stops, and what did not agree."""

    flows: int
    stopped: int
    wrong: list[str]


def place(model: Result) -> str:
    """Name the rule or policy of the host that is said to stop a flow, as the trace names it; empty where it is none."""
    end = model.walk.decider
    cited = end.step.cited if end.step is not None else None
    if end.outcome not in {"dropped", "rejected"} or cited is None or not cited.record.startswith("net/"):
        return ""
    words = cited.place.split(" ")
    return " ".join(words[-3:] if words[-1].isdecimal() else words[-2:])


def compared(held: dict[str, Any]) -> Count:
    """Walk each flow of a recording."""
    site = site_of({name: tuple(record) for name, record in held["records"].items()})
    assert not site.host.missing
    assert not site.host.program.partial, "a rule that an engine writes is not modelled whole"
    wrong = []
    stopped = 0
    for source, address, port, protocol, ended, dropped in held["flows"]:
        flow = Flow(source, address, port, protocol)
        asked = Asked(Town.space(source), number(address), port, 4, TCP if protocol == "tcp" else UDP)
        model = follow(site, asked)
        rule = place(model)
        stopped += bool(rule)
        if model.works is None or not alike(ended, model):
            wrong.append(f"{flow}: kernel {ended}, model {model.sees} ({model.walk.decider.code} {rule}), {dropped}")
        elif rule and rule not in dropped:
            wrong.append(f"{flow}: {ended} by {dropped}, the model says by {rule}")
    return Count(len(held["flows"]), stopped, wrong)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_model_says_what_was_recorded(kind: Kind) -> None:
    """Every flow ends as it did, and the rule that decides is one that the trace saw drop a packet of it."""
    found = compared(json.loads(gzip.decompress((RECORDED / f"{kind.name}.json.gz").read_bytes())))
    assert not found.wrong, "\n".join(found.wrong)
    assert found.flows > 200
    assert found.stopped > 30


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """The host, its containers and somebody outside."""
    with Town() as made:
        yield made


@pytest.mark.root
@pytest.mark.parametrize("kind", [KINDS[1], KINDS[-2]], ids=lambda kind: kind.name)
def test_this_kernel_does_what_the_model_says(town: Town, kind: Kind) -> None:
    """What is recorded here and now agrees as well."""
    found = compared(recorded(town, kind, FIRST + 1000 * KINDS.index(kind)))
    assert not found.wrong, "\n".join(found.wrong)
