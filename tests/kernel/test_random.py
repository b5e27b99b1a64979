"""Random rules of iptables, real connections: the model says of every flow what the kernel says, and by which rule.

A set of rules is generated from a seed, loaded whole, and met by every flow of a router between two networks. The rules
that drop a flow's packets are those that the kernel traces (`traces`): the one that the model names is among them. A
disagreement prints the seed and the rules; `DOCTOR_SEEDS=FIRST:LAST` walks other seeds than the usual ones.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from doctor.packets.flow import TCP, UDP
from doctor.packets.flow import Flow as Asked
from doctor.packets.packet import number
from doctor.packets.walk import Result, follow
from tests.kernel.lan import PORTS, Flow, Lan, shown
from tests.kernel.traces import FIRST, LAST, TRACED, Legacy, Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

_FIRST, _, _LAST = os.environ.get("DOCTOR_SEEDS", "0:3").partition(":")
SEEDS = range(int(_FIRST), int(_LAST))
SPORTS = itertools.count()

FLUSH = (
    "for p in iptables ip6tables; do for t in filter nat mangle raw; do $p-{0} -t $t -F; $p-{0} -t $t -X; done; "
    "$p-{0} -P FORWARD ACCEPT; done"
)

TWINS = {"10.1.0.": "fd01::", "10.2.0.": "fd02::", "10.0.0.0/8": "fd00::/8", "/24": "/64", "/31": "/127", "/32": "/128"}
"""What stands for what in IPv6."""


def flows(version: int) -> list[Flow]:
    """Every flow that is tried: through the host, to it, from it, and back; UDP by every fourth port."""
    found = [
        *(Flow("client", f"10.2.0.{host}", port) for host in (2, 3, 4) for port in PORTS),
        *(Flow("client", address, port) for address in ("10.1.0.1", "10.2.0.1") for port in PORTS),
        *(Flow("host", address, port) for address in ("10.2.0.2", "10.1.0.1") for port in PORTS),
        *(Flow("server", "10.1.0.2", port) for port in PORTS),
    ]
    found += [one._replace(protocol="udp") for one in found if not one.port % 4]
    return [one._replace(address=six(one.address)) for one in found] if version == 6 else found


def six(text: str) -> str:
    """Translate rules and addresses to IPv6."""
    text = re.sub(r"(10\.[12]\.0\.\d+):(\d+)", r"[\1]:\2", text)  # DNAT to a port
    text = re.sub(r"10\.([12])\.0\.0/24", r"fd0\1::/64", text)
    for four, twin in TWINS.items():
        text = text.replace(four, twin)
    return text.replace("icmp-host-prohibited", "icmp6-adm-prohibited").replace(
        "icmp-net-unreachable", "icmp6-no-route"
    )


class Maker:
    """Makes a set of rules for iptables-restore."""

    def __init__(self, seed: int) -> None:
        """Take a seed."""
        self.pick = random.Random(seed)  # noqa: S311 - for tests
        self.chains = [f"U{one}" for one in range(self.pick.randrange(1, 4))]

    def chance(self, of: float) -> bool:
        """Whether something with this probability happens."""
        return self.pick.random() < of

    def no(self) -> str:
        """Give a negation, sometimes."""
        return "! " if self.chance(0.2) else ""

    def address(self, end: str) -> str:
        """Match an end."""
        held = ["10.1.0.0/24", "10.2.0.0/24", "10.2.0.2/32", "10.2.0.3/32", "10.1.0.2/32", "10.0.0.0/8", "10.2.0.2/31"]
        return f"{self.no()}-{end} {self.pick.choice(held)}"

    def port(self) -> str:
        """Match ports of TCP."""
        low = self.pick.choice(PORTS)
        high = self.pick.choice([port for port in PORTS if port >= low])
        several = ",".join(str(port) for port in sorted(self.pick.sample(PORTS, 3)))
        name = self.pick.choice(["tcp", "tcp", "udp"])
        return self.pick.choice(
            [
                f"-p {name} -m {name} {self.no()}--dport {low}",
                f"-p {name} -m {name} {self.no()}--dport {low}:{high}",
                f"-p {name} -m multiport {self.no()}--dports {several},{low}:{high}"
                if low < high
                else f"-p tcp -m multiport --dports {several}",
                "-p tcp",
                "-p udp",
            ]
        )

    def more(self, chain: str) -> str:
        """Match something that modules know."""
        states = self.pick.choice(["NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "INVALID", "NEW,ESTABLISHED", "DNAT"])
        kinds = ["-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL", "-m addrtype --src-type UNICAST"]
        held = [
            f"-m conntrack {self.no()}--ctstate {states}",
            *kinds,
            f"-m mark {self.no()}--mark {self.pick.randrange(4):#x}/{self.pick.choice([1, 2, 3]):#x}",
            "-m conntrack --ctdir ORIGINAL",
            f"-m conntrack --ctorigdstport {self.pick.choice(PORTS)}",
            '-m comment --comment "a -j DROP that is none"',
            f"-m connmark --mark {self.pick.randrange(3):#x}",
        ]
        if chain in {"PREROUTING", "INPUT", "FORWARD"}:
            held.append(f"{self.no()}-i {self.pick.choice(['c0', 's0', 'c+', 'lo', 's+'])}")
        if chain in {"POSTROUTING", "OUTPUT", "FORWARD"}:
            held.append(f"{self.no()}-o {self.pick.choice(['c0', 's0', 'c+', 'lo'])}")
        return self.pick.choice(held)

    def matches(self, chain: str) -> str:
        """Match what is asked by a rule."""
        found = [self.address("s")] * self.chance(0.4) + [self.address("d")] * self.chance(0.4)
        found += [self.port()] * self.chance(0.6)
        modules = [self.more(chain) for _ in range(self.pick.randrange(3))]
        seen = set()
        for one in sorted(modules, key=lambda text: not text.lstrip("! ").startswith(("-i", "-o"))):
            name = one.lstrip("! ").split(" ")[0 if one.lstrip("! ").startswith(("-i", "-o")) else 1]
            if name not in seen:
                seen.add(name)
                found.append(one)
        return " ".join(found)

    def verdict(self, at: int) -> str:
        """Choose a target of a filter chain; jumps lead to later chains only."""
        later = self.chains[at + 1 :]
        held = ["ACCEPT", "DROP", "RETURN", "ACCEPT", "DROP", "REJECT"]
        text = "-j " + self.pick.choice(held)
        if self.chance(0.15):
            return "-j REJECT --reject-with " + self.pick.choice(["icmp-host-prohibited", "icmp-net-unreachable"])
        if later and self.chance(0.4):
            return f"-{self.pick.choice('jjg')} {self.pick.choice(later)}"
        return text

    def filter(self) -> list[str]:
        """Make the table filter."""
        lines = [
            "*filter",
            *(f":{name} {self.pick.choice(['ACCEPT', 'ACCEPT', 'DROP'])} [0:0]" for name in ("FORWARD",)),
        ]
        lines += [":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *(f":{name} - [0:0]" for name in self.chains)]
        for at, chain in enumerate(("FORWARD", "INPUT", "OUTPUT", *self.chains), -3):
            for _ in range(self.pick.randrange(2, 8) if chain == "FORWARD" else self.pick.randrange(4)):
                there = "" if at < 0 and chain != "FORWARD" else chain
                lines.append(f"-A {chain} {self.matches(there or chain)} {self.verdict(max(at, -1))}")
        return [*lines, "COMMIT"]

    def nat(self) -> list[str]:
        """Make the table nat."""
        lines = ["*nat", *(f":{name} ACCEPT [0:0]" for name in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"))]
        for chain in ("PREROUTING", "PREROUTING", "OUTPUT"):
            if self.chance(0.6):
                port = self.pick.choice(PORTS)
                target = self.pick.choice(
                    [
                        f"DNAT --to-destination 10.2.0.{self.pick.choice([2, 3, 4, 9])}:{port}",
                        f"REDIRECT --to-ports {port}",
                        "DNAT --to-destination 10.2.0.4",
                    ]
                )
                lines.append(
                    f"-A {chain} -p tcp -m tcp --dport {self.pick.choice(PORTS)} {self.more(chain)} -j {target}"
                )
        if self.chance(0.6):
            target = self.pick.choice(["MASQUERADE", "SNAT --to-source 10.2.0.1", "SNAT --to-source 10.1.0.77"])
            lines.append(f"-A POSTROUTING {self.address('s')} -o {self.pick.choice(['s0', 'c0'])} -j {target}")
        return [*lines, "COMMIT"]

    def early(self) -> list[str]:
        """Make the tables raw and mangle."""
        lines = ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
        if self.chance(0.4):
            action = self.pick.choice(["DROP", "CT --notrack", "CT --zone 3"])
            lines.append(f"-A PREROUTING {self.address('d')} {self.port()} -j {action}")
        lines += ["COMMIT", "*mangle", ":PREROUTING ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
        for chain in ("PREROUTING", "FORWARD", "OUTPUT"):
            if self.chance(0.4):
                action = self.pick.choice(
                    [
                        f"MARK --set-xmark {self.pick.randrange(4):#x}/0xffffffff",
                        "MARK --set-xmark 0x1/0x1",
                        "DROP",
                        "CONNMARK --save-mark",
                        "CONNMARK --set-xmark 0x2/0xffffffff",
                        "CONNMARK --restore-mark",
                    ]
                )
                lines.append(f"-A {chain} {self.address('s')} {self.port()} -j {action}")
        return [*lines, "COMMIT"]

    def rules(self) -> str:
        """Make all tables."""
        return "\n".join([*self.early(), *self.nat(), *self.filter()]) + "\n"


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """The router and its two networks."""
    with Lan() as made:
        yield made


def works(backend: str) -> bool:
    """Whether the kernel has a back end."""
    done = subprocess.run(["unshare", "-n", f"iptables-{backend}", "-L"], capture_output=True, check=False)
    return not done.returncode


def alike(kernel: str, model: Result) -> bool:
    """Whether both say the same; a connection that stands and then meets a reject is told of sooner or later."""
    if model.walk.later is not None:
        return kernel in {"connected", "reset", "refused", "unreachable"}
    return kernel == model.sees


def decider(one: Result) -> str:
    """Name the rule or policy of the router that is said to stop a flow, by its place; empty where it is none."""
    end = one.walk.decider
    if end.outcome not in {"dropped", "rejected"} or end.step is None or end.step.cited is None:
        return ""
    words = end.step.cited.place.split(" ")
    if not end.step.cited.record.startswith("net/ip"):
        return ""
    return " ".join(words[-3:] if words[-1].isdecimal() else words[-2:])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_model_and_kernel_agree(lan: Lan, seed: int, backend: str, version: int) -> None:
    """Every flow ends alike; what differs is tried once more, for longer, before it counts."""
    if not works(backend):
        pytest.skip(f"this kernel has no iptables-{backend}")
    rules = Maker(seed + 1000 * version).rules()
    program = "iptables"
    if version == 6:
        rules, program = six(rules), "ip6tables"
    for one in ("nft", "legacy"):
        if works(one):
            lan.run("host", FLUSH.format(one))
    lan.run("host", "nft add table inet traced; nft delete table inet traced")
    lan.run("host", f"{program}-{backend}-restore", rules)
    legacy = Legacy(lan, version)
    if backend == "legacy":
        legacy.rules()
    site = lan.site()
    protocols = {"tcp": TCP, "udp": UDP}
    model = {
        flow: follow(
            site, Asked(lan.space(flow.source), number(flow.address), flow.port, version, protocols[flow.protocol])
        )
        for flow in numbered(flows(version))
    }
    assert not [one for one in model.values() if one.works is None], shown(rules)
    if backend == "nft":
        lan.run("host", "nft -f -", TRACED)
    kernel, dropped = tried(lan, list(model), legacy if backend == "legacy" else None, 0.4)
    odd = [flow for flow in model if not alike(kernel[flow], model[flow]) or unseen(flow, model[flow], dropped)]
    again: dict[Flow, str] = {}
    if odd:  # a neighbour is asked three times, a second apart
        fresh = dict(zip(odd, numbered(odd), strict=True))
        again, more = tried(lan, list(fresh.values()), legacy if backend == "legacy" else None, 6.0)
        again = {flow: again[fresh[flow]] for flow in odd}
        dropped |= {flow.sport: more[fresh[flow].sport] for flow in odd if fresh[flow].sport in more}
    said = [
        f"{flow}: kernel {again[flow]}, model {model[flow].sees} ({model[flow].walk.decider.code})"
        for flow in odd
        if not alike(again[flow], model[flow])
    ]
    said += [
        f"{flow}: dropped by {dropped.get(flow.sport)}, the model says by {decider(model[flow])}"
        for flow in odd
        if unseen(flow, model[flow], dropped)
    ]
    assert not said, "\n".join([*said, f"seed {seed}", shown(rules)])


def numbered(found: list[Flow]) -> list[Flow]:
    """Give each flow a port of the client that was not used before."""
    return [flow._replace(sport=FIRST + next(SPORTS) % (LAST - FIRST - 1)) for flow in found]


def tried(
    lan: Lan, found: list[Flow], legacy: Legacy | None, seconds: float
) -> tuple[dict[Flow, str], dict[int, set[str]]]:
    """Try flows: how each ends, and by port of the client which rules dropped packets of it."""
    with legacy or Monitor(lan) as trace:
        return lan.connect(found, seconds), trace.dropped()


def unseen(flow: Flow, model: Result, dropped: dict[int, set[str]]) -> bool:
    """Whether the rule that is said to stop a flow was not seen to."""
    rule = decider(model)
    return bool(rule) and rule not in dropped.get(flow.sport, ())
