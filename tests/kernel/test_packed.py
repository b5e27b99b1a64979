"""Random rules of iptables, hundreds of sets in one load: the ends of flows, and the rule that the kernel traces.

The sets are those of `test_random`, each in chains of its own, to which the base chains lead by the port of the client; no
rule asks for that. `DOCTOR_PACKED=FIRST:LAST` tries other sets than the usual ones.
"""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from doctor.packets.conditions import Number
from doctor.packets.program import Jump, Program, Rule
from tests.kernel.lan import Flow, Lan, shown
from tests.kernel.test_native import walked, with_rules
from tests.kernel.test_random import FLUSH, Maker, alike, decider, flows, six, unseen, works
from tests.kernel.traces import FIRST, TRACED, Legacy, Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.packets.site import Site
    from doctor.packets.walk import Result

pytestmark = pytest.mark.root

PACKED, FLOWS, TRIES = 200, 8, 4
"""Sets in a load, flows of each, and how often a flow may be tried, each time by another port."""

PACES = ((100, 0.4), (100, 3.5), (20, 3.5))
"""Flows at once, and for how many seconds: of more, what the kernel tells of packets is lost. What differs is tried again."""

LOST = 0.02
"""The share of flows whose trace may be lost for good."""

_FIRST, _, _LAST = os.environ.get("DOCTOR_PACKED", "0:800").partition(":")
LOADS = range(int(_FIRST), int(_LAST), PACKED)
KINDS = (("nft", 4), ("legacy", 4), ("nft", 6), ("legacy", 6))
_BASES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


def ports(at: int) -> range:
    """Give the ports of the clients of a set."""
    first = FIRST + at % PACKED * FLOWS * TRIES
    return range(first, first + FLOWS * TRIES)


def joined(sets: list[str], version: int) -> str:
    """Put sets of rules into one, each in chains of its own."""
    error = "icmp" if version == 4 else "ipv6-icmp"
    heads: dict[str, list[str]] = {table: [] for table in _BASES}
    lines: dict[str, list[str]] = {table: [] for table in _BASES}
    for at, text in enumerate(sets):
        table = ""
        dropping: list[str] = []
        for line in text.splitlines():
            if line.startswith("*"):
                table, dropping = line[1:], []
            elif line.startswith(":"):
                name, policy, _ = line[1:].split(" ")
                heads[table].append(f":s{at}_{name} - [0:0]")
                dropping += [f"-A s{at}_{name} -j DROP"] if policy == "DROP" else []
            elif line.startswith("-A"):
                own = re.sub(r"^-A (\w+)", rf"-A s{at}_\1", line)
                lines[table].append(re.sub(r"(?<=-[jg] )(U\d)$", rf"s{at}_\1", own))
            elif line == "COMMIT":
                lines[table] += dropping
        ends = f"{ports(at)[0]}:{ports(at)[-1]}"
        for table, bases in _BASES.items():
            for base in bases:
                heads[table] += [f":s{at}_{base} - [0:0]"] if f":s{at}_{base} - [0:0]" not in heads[table][-20:] else []
                asked = [f"-p {name} -m {name} --{end} {ends}" for name in ("tcp", "udp") for end in ("sport", "dport")]
                # An error about a packet is not led to the chains of its set before conntrack knows whose it is.
                asked += [f"-p {error} -m conntrack --ctorigsrcport {ends}"] if table != "raw" else []
                lines[table] += [f"-A {base} {one} -g s{at}_{base}" for one in asked]
    found = []
    for table, bases in _BASES.items():
        found += [f"*{table}", *(f":{base} ACCEPT [0:0]" for base in bases), *heads[table], *lines[table], "COMMIT"]
    return "\n".join(found) + "\n"


_PACKETS = Number("protocol", ((6, 6), (17, 17)))
_ERRORS = Number("protocol", ((1, 1), (58, 58)))
_TRACKED = Number("original.sport", ((0, 65535),))


def programs(whole: Program, count: int) -> list[Program]:
    """Give each set as the model has it: the same base chains, each with the jumps to the chain of that set alone."""
    found = []
    for at in range(count):
        bases = []
        for base in whole.bases:
            name = f"s{at}_{base.chain.name}"
            if (*base.chain.key[:3], name) in whole.chains:
                rules = (Rule((_PACKETS, Jump(name, leave=True)), base.chain.cited),)
                if base.chain.table != "raw":  # an error about what is not tracked is led to no set
                    rules += (Rule((_ERRORS, _TRACKED, Jump(name, leave=True)), base.chain.cited),)
                bases.append(structs.replace(base, chain=structs.replace(base.chain, rules=rules)))
        found.append(Program(whole.chains, tuple(bases), whole.unread, whole.choices))
    return found


def chosen(seed: int, at: int, version: int) -> list[Flow]:
    """Choose flows for a set."""
    picked = random.Random(seed).sample(flows(version), FLOWS)  # noqa: S311 - for tests
    return [flow._replace(sport=port) for flow, port in zip(picked, ports(at), strict=False)]


def tried(
    lan: Lan, found: list[Flow], legacy: Legacy | None, attempt: int
) -> tuple[dict[Flow, str], dict[int, set[str]]]:
    """Try flows, a few at a time: how each ends, and by its first port the rules that dropped packets of it."""
    kernel: dict[Flow, str] = {}
    dropped: dict[int, set[str]] = {}
    shift = attempt * FLOWS
    pace, seconds = PACES[attempt]
    with legacy or Monitor(lan) as trace:
        for at in range(0, len(found), pace):
            held = {flow._replace(sport=flow.sport + shift): flow for flow in found[at : at + pace]}
            kernel |= {held[flow]: said for flow, said in lan.connect(held, seconds).items()}
            if legacy is not None:
                dropped |= trace.dropped()
        dropped |= trace.dropped()
    return kernel, {port - shift: rules for port, rules in dropped.items()}


def wrong(flow: Flow, kernel: dict[Flow, str], model: Result, dropped: dict[int, set[str]]) -> str:
    """Say what model and kernel do not agree in; empty where they do."""
    if model.works is None:
        return f"{flow}: the model does not know: {model.question}"
    if not alike(kernel[flow], model):
        return f"{flow}: kernel {kernel[flow]}, model {model.sees} ({model.walk.decider.code}, {decider(model)})"
    if unseen(flow, model, dropped) and flow.sport in dropped:
        return f"{flow}: dropped by {dropped[flow.sport]}, the model says by {decider(model)}"
    return ""


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """The router and its two networks; connections are forgotten soon."""
    with Lan() as made:
        made.run("host", "for one in /proc/sys/net/netfilter/nf_conntrack_*timeout*; do echo 4 > $one || true; done")
        yield made


def loaded(lan: Lan, backend: str, version: int, text: str) -> tuple[Site, Legacy | None]:
    """Load rules in place of those that are there, and read the site."""
    for one in ("nft", "legacy"):
        if works(one):
            lan.run("host", FLUSH.format(one))
    lan.run("host", "nft add table inet traced; nft delete table inet traced")
    lan.run("host", f"{'iptables' if version == 4 else 'ip6tables'}-{backend}-restore", text)
    legacy = Legacy(lan, version) if backend == "legacy" else None
    if legacy is not None:
        legacy.rules()
    site = lan.site()
    if legacy is None:
        lan.run("host", "nft -f -", TRACED)
    return site, legacy


@pytest.mark.parametrize("first", LOADS)
def test_model_and_kernel_agree(lan: Lan, first: int) -> None:
    """Every flow ends alike, by a rule that the trace saw drop a packet of it; what differs is tried again before it counts."""
    backend, version = KINDS[first // PACKED % len(KINDS)]
    if not works(backend):
        pytest.skip(f"this kernel has no iptables-{backend}")
    sets = [Maker(10_000 + first + at).rules() for at in range(PACKED)]
    sets = [six(one) for one in sets] if version == 6 else sets
    site, legacy = loaded(lan, backend, version, joined(sets, version))
    model = {
        flow: walked(lan, with_rules(site, its), version, flow)
        for at, its in enumerate(programs(site.host.program, PACKED))
        for flow in chosen(first + at, at, version)
    }
    kernel, dropped = tried(lan, list(model), legacy, 0)
    said: list[str] = []
    for attempt in range(1, len(PACES)):
        odd = [
            flow for flow in model if wrong(flow, kernel, model[flow], dropped) or unseen(flow, model[flow], dropped)
        ]
        again, more = tried(lan, odd, legacy, attempt)
        kernel, dropped = kernel | again, dropped | more
        said = [text for flow in odd if (text := wrong(flow, kernel, model[flow], dropped))]
    assert not said, "\n".join([*said[:20], *_rules(sets, first, said[0])])
    stopped = [flow for flow in model if decider(model[flow])]
    assert len(stopped) > PACKED
    assert sum(flow.sport not in dropped for flow in stopped) <= LOST * len(stopped)


def _rules(sets: list[str], first: int, said: str) -> list[str]:
    """Give the rules of the set that a disagreement is about."""
    at = (int(re.findall(r"sport=(\d+)", said)[0]) - FIRST) // (FLOWS * TRIES)
    return [f"seed {first + at}", shown(sets[at])]
