"""Random rules of native nftables against the kernel: same end of each flow, and the rule that `nft monitor trace` names.

`DOCTOR_SETS=FIRST:LAST` tries other sets than the usual ones; a disagreement prints the rules of its set.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from doctor.packets.flow import TCP, UDP
from doctor.packets.flow import Flow as Asked
from doctor.packets.packet import number
from doctor.packets.site import HOST, Site, Spaces
from doctor.packets.walk import Result, follow
from tests.kernel.lan import Flow, Lan, shown
from tests.kernel.native import EACH, Load, load, programs
from tests.kernel.test_random import alike
from tests.kernel.traces import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.packets.program import Program
    from doctor.packets.site import Space

pytestmark = pytest.mark.root

PACKED = 200
"""Sets of rules in one load."""

PACES = (100, 40, 15, 5)
"""Flows that are tried at once: of more, what the kernel tells of packets is lost. Those are tried again, fewer at once."""

LOST = 0.02
"""The share of traces that may be lost for good: the socket runs over where the machine is busy."""

_FIRST, _, _LAST = os.environ.get("DOCTOR_SETS", "0:2000").partition(":")
LOADS = range(int(_FIRST), int(_LAST), PACKED)
KINDS = (("inet", 4), ("ip", 4), ("inet", 6), ("ip6", 6))


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """The router and its two networks; connections are forgotten soon."""
    with Lan() as made:
        made.run("host", "for one in /proc/sys/net/netfilter/nf_conntrack_*timeout*; do echo 4 > $one || true; done")
        yield made


def with_rules(site: Site, program: Program) -> Site:
    """Give the site with other rules on the host."""
    host = structs.replace(site.host, program=program)
    makers: dict[str, Callable[[], Space]] = {key: partial(site.spaces.__getitem__, key) for key in site.spaces}
    makers[HOST] = lambda: host
    return structs.replace(site, spaces=Spaces(makers))


def walked(lan: Lan, site: Site, version: int, flow: Flow) -> Result:
    """Ask the model."""
    protocol = {"tcp": TCP, "udp": UDP}[flow.protocol]
    asked = Asked(lan.space(flow.source), number(flow.address), flow.port, 4 if version == 4 else 6, protocol)
    return follow(site, asked)


def decider(result: Result) -> str:
    """Name the rule that the model says decided, as its comment does; empty where it was no rule of the host."""
    end = result.walk.decider
    place = end.step.cited.place if end.step is not None and end.step.cited is not None else ""
    words = place.split(" ")
    named = end.outcome in {"dropped", "rejected"} and place.startswith("nft ") and words[-1].isdecimal()
    return f"{words[-2]}.{words[-1]}" if named else ""


def wrong(flow: Flow, kernel: str, model: Result, dropped: dict[int, set[str]]) -> str:
    """Say what model and kernel do not agree in; empty where they do."""
    if model.works is None:
        return f"{flow}: the model does not know: {model.question}"
    if not alike(kernel, model):
        return f"{flow}: kernel {kernel}, model {model.sees} ({model.walk.decider.code}, {decider(model)})"
    rule, told = decider(model), dropped.get(flow.sport)
    if rule and told and rule not in told:
        return f"{flow}: {kernel} by {told}, the model says by {rule}"
    return ""


def tried(
    lan: Lan, flows: list[Flow], seconds: float, shift: int, pace: int = PACES[0]
) -> tuple[dict[Flow, str], dict[int, set[str]]]:
    """Try flows a few at a time, by client ports that were not used before: how each ends, and which rules dropped it."""
    kernel: dict[Flow, str] = {}
    if not flows:
        return kernel, {}
    with Monitor(lan, listed=False) as monitor:
        for at in range(0, len(flows), pace):
            held = {flow._replace(sport=flow.sport + shift): flow for flow in flows[at : at + pace]}
            kernel |= {held[flow]: said for flow, said in lan.connect(held, seconds).items()}
        return kernel, {port - shift: rules for port, rules in monitor.dropped().items()}


@pytest.mark.parametrize("first", LOADS)
def test_model_and_kernel_agree(lan: Lan, first: int) -> None:
    """Every flow of every set ends alike; what differs is tried once more, for longer, before it counts."""
    family, version = KINDS[first // PACKED % len(KINDS)]
    made = load(first, PACKED, family, version)
    sets = programs(lan, made)
    site = lan.site()
    model = {
        flow: walked(lan, with_rules(site, sets[at]), version, flow) for at, held in made.flows.items() for flow in held
    }
    kernel, dropped = tried(lan, list(model), 0.4, 0)
    stopped = [flow for flow in model if decider(model[flow])]
    for again, pace in enumerate(PACES[1:], 1):
        lost = [flow for flow in stopped if flow.sport not in dropped]
        dropped = tried(lan, lost, 0.4, 8 * again, pace)[1] | dropped
    odd = [flow for flow in model if wrong(flow, kernel[flow], model[flow], dropped)]
    kernel, told = tried(lan, odd, 3.5, 8 * len(PACES))
    said = [text for flow in odd if (text := wrong(flow, kernel[flow], model[flow], told))]
    assert not said, "\n".join([*said[:20], *_rules(made, first, said[0])])
    assert sum(flow.sport not in dropped for flow in stopped) <= LOST * len(stopped)


def _rules(made: Load, first: int, said: str) -> list[str]:
    """Give the rules of the set that a disagreement is about."""
    port = int(re.findall(r"sport=(\d+)", said)[0])
    at = next(at for at, held in made.flows.items() if held[0].sport <= port < held[0].sport + EACH)
    chains = re.findall(rf"^  chain s{at}_.*?^  }}", made.text, re.MULTILINE | re.DOTALL)
    return [f"seed {first + at}", shown("\n".join(chains))]
