"""Random rules of nftables, hundreds of sets in one load: each set is met by its own client ports, and by nothing else.

The base chains send a packet to the chains of its set by the port of the client, which no rule asks about. The model is
given one set at a time: the same base chains, each with a jump to the chains of that set alone.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from doctor.packets import nft
from doctor.packets.program import Jump, Program, Rule
from doctor.snapshot import Record
from tests.kernel.lan import PORTS, Flow
from tests.kernel.traces import TRACED

if TYPE_CHECKING:
    from tests.kernel.lan import Lan

FIRST_PORT, EACH = 10_000, 40
"""Where the ports of clients begin, and how many each set has."""


class Hook(NamedTuple):
    """A base chain: its type, hook and priority."""

    kind: str
    hook: str
    priority: int


HOOKS = {
    "raw": Hook("filter", "prerouting", -300),
    "mangle": Hook("filter", "prerouting", -150),
    "dnat": Hook("nat", "prerouting", -100),
    "redirect": Hook("nat", "output", -100),
    "input": Hook("filter", "input", 0),
    "forward": Hook("filter", "forward", 0),
    "late": Hook("filter", "forward", 10),
    "output": Hook("filter", "output", 0),
    "post": Hook("filter", "postrouting", -10),
    "snat": Hook("nat", "postrouting", 100),
}
_STATES = ("new", "established", "established,related", "invalid", "new,established")


class Maker:
    """Makes one set of rules."""

    def __init__(self, seed: int, name: str, version: int) -> None:
        """Take a seed, what the chains' names begin with, and the version of IP."""
        self.pick = random.Random(seed)  # noqa: S311 - for tests
        self.name = name
        self.version = version
        self.users = [f"{name}_u{one}" for one in range(self.pick.randrange(3))]

    def chance(self, of: float) -> bool:
        """Whether something with this probability happens."""
        return self.pick.random() < of

    def no(self) -> str:
        """Give a negation, sometimes."""
        return "!= " if self.chance(0.2) else ""

    def spell(self, text: str) -> str:
        """Give an address or prefix of IPv4 as its twin where the version is 6."""
        if self.version == 4:
            return text
        text = text.replace("10.1.0.", "fd01::").replace("10.2.0.", "fd02::").replace("10.0.0.0/8", "fd00::/8")
        return text.replace("::0/24", "::/64")

    def address(self) -> str:
        """Give an address, a prefix, a range or a set."""
        held = ["10.1.0.0/24", "10.2.0.0/24", "10.2.0.2", "10.2.0.3", "10.1.0.2", "10.0.0.0/8", "10.2.0.2-10.2.0.3"]
        held += ["{ 10.2.0.2, 10.2.0.4 }", "{ 10.1.0.0/24, 10.2.0.3 }"]
        return self.spell(self.pick.choice(held))

    def ports(self) -> str:
        """Give a port, a range or a set."""
        low, high = sorted(self.pick.sample(PORTS, 2))
        several = ", ".join(str(port) for port in sorted(self.pick.sample(PORTS, 3)))
        return self.pick.choice((str(low), f"{low}-{high}", f"{{ {several} }}", f"{{ {low}-{high}, 443 }}"))

    def transport(self, name: str) -> str:
        """Give one condition about ports or flags; a rule has no more than one, of one protocol."""
        ip = "ip" if self.version == 4 else "ip6"
        if name == "udp":
            return self.pick.choice((f"udp dport {self.no()}{self.ports()}", "meta l4proto udp"))
        if name == "tcp":
            several = f"{self.spell('10.2.0.2')} . {self.pick.choice(PORTS)}, {self.spell('10.2.0.3')} . 80-85"
            flags = self.pick.choice(("syn", "& (syn | ack) == syn", "{ syn, ack }", "!= syn"))
            held = (f"tcp dport {self.no()}{self.ports()}", f"tcp dport {self.ports()}", "meta l4proto tcp")
            return self.pick.choice((*held, f"{ip} daddr . tcp dport {{ {several} }}", f"tcp flags {flags}"))
        return self.pick.choice((f"meta l4proto {{ tcp, udp }} th dport {self.ports()}", "meta l4proto != udp"))

    def match(self, at: str) -> str:
        """Give one condition for a hook, or for a chain that any hook may jump to (empty)."""
        ip = "ip" if self.version == 4 else "ip6"
        held = [
            f"{ip} saddr {self.no()}{self.address()}",
            f"{ip} daddr {self.no()}{self.address()}",
            f"{ip} daddr {self.no()}{self.address()}",
            f"fib daddr type {self.no()}local",
            f"meta mark {self.no()}{self.pick.randrange(3):#x}",
            f"meta mark & 0x1 == {self.pick.randrange(2)}",
        ]
        if at not in {"", "raw"}:
            held += [
                f"ct state {self.no()}{self.pick.choice(_STATES)}",
                f"ct direction {self.pick.choice(('original', 'reply'))}",
                f"ct status {self.pick.choice(('dnat', 'snat'))}",
                f"ct mark {self.no()}{self.pick.randrange(3):#x}",
            ]
        names = self.pick.choice(('"c0"', '"s0"', '"c*"', '{ "c0", "s0" }', '"lo"'))
        if at in {"mangle", "dnat", "input", "forward", "late"}:
            held.append(f"iifname {self.no() if '{' not in names else ''}{names}")
        if at in {"forward", "late", "output", "post", "snat"}:
            held.append(f"oifname {self.no() if '{' not in names else ''}{names}")
        return self.pick.choice(held)

    def verdict(self, at: str, name: str, later: list[str]) -> str:
        """Give what a rule of a filter does."""
        held = ["accept", "drop", "return", "accept", "drop"]
        if at in {"input", "forward", "late", "output"}:
            held += ["reject", "reject with icmpx admin-prohibited", "reject with icmpx host-unreachable"]
        held += [f"meta mark set {self.pick.randrange(3):#x}", "meta mark set meta mark or 0x1", "log"]
        if at != "raw":
            held += [f"ct mark set {self.pick.randrange(3):#x}", "meta mark set ct mark", "ct mark set meta mark"]
        held += [f"{self.pick.choice(('jump', 'jump', 'goto'))} {name}" for name in later] * 3
        text = self.pick.choice(held)
        if later and name in {"", "tcp"} and self.chance(0.15):
            ports = self.pick.sample(PORTS, 2)
            text = f"tcp dport vmap {{ {ports[0]} : {self.pick.choice(held[:3])}, {ports[1]} : jump {later[0]} }}"
        return text

    def translation(self, at: str) -> str:
        """Give what a rule of NAT does; its conditions name TCP or UDP."""
        port = self.pick.choice(PORTS)
        to = self.spell(f"10.2.0.{self.pick.choice((2, 3, 4))}")
        end = f"{to}:{port}" if self.version == 4 else f"[{to}]:{port}"
        family = "ip" if self.version == 4 else "ip6"
        if at == "snat":
            return self.pick.choice(("masquerade", f"snat {family} to {self.spell('10.2.0.1')}", "masquerade"))
        return self.pick.choice((f"dnat {family} to {end}", f"dnat {family} to {to}", f"redirect to :{port}"))

    def rules(self, chain: str, at: str, later: list[str], most: int) -> list[str]:
        """Make the rules of a chain, each with its place as comment."""
        lines = []
        for number in range(1, self.pick.randrange(most + 1) + 1):
            if at and HOOKS[at].kind == "nat":
                text = (
                    f"{self.pick.choice(('tcp', 'udp'))} dport {self.ports()} {self.match(at)} {self.translation(at)}"
                )
            else:
                several = {" ".join(one.split(" ")[:2]): one for one in (self.match(at) for _ in range(3))}
                chosen = list(several.values())[: self.pick.choice((0, 1, 1, 2, 3))]
                # An error about a packet is not led to the chains of its set before conntrack knows whose it is.
                name = self.pick.choice(("", "", "tcp", "tcp", "udp", "any") if at != "raw" else ("tcp", "tcp", "udp"))
                chosen.insert(self.pick.randrange(len(chosen) + 1), self.transport(name) if name else "")
                text = " ".join([*filter(None, chosen), self.verdict(at, name, later)])
            lines.append(f'{text} comment "{chain}.{number}"')
        return lines

    def chains(self) -> dict[str, list[str]]:
        """Make all chains, those that are jumped to first."""
        found: dict[str, list[str]] = {}
        for place in reversed(range(len(self.users))):
            found[self.users[place]] = self.rules(self.users[place], "", self.users[place + 1 :], 3)
        for at, hook in HOOKS.items():
            busy = at in {"forward", "output", "input"}
            most = 6 if at == "forward" else 2 if hook.kind != "nat" else 1
            chain = f"{self.name}_{at}"
            found[chain] = self.rules(chain, at, self.users if busy else [], most if busy or self.chance(0.35) else 0)
            if hook.kind == "filter" and self.chance(0.15):
                what = "meta l4proto { tcp, udp } drop" if at == "raw" else "drop"
                found[chain].append(f'{what} comment "{chain}.{len(found[chain]) + 1}"')
        return found


class Load(NamedTuple):
    """Sets of rules that are loaded together: their family and version of IP, the text, and each set's flows by port."""

    family: str
    version: int
    text: str
    flows: dict[int, list[Flow]]


def load(first: int, count: int, family: str, version: int) -> Load:
    """Make the sets with some seeds."""
    lines: list[str] = []
    flows: dict[int, list[Flow]] = {}
    for one in range(count):
        maker = Maker(first + one, f"s{one}", version)
        for name, rules in maker.chains().items():
            lines += [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
        flows[one] = _flows(maker, FIRST_PORT + ((first + one) * EACH) % 48_000)
    ports = {one: held[0].sport for one, held in flows.items()}
    for at, hook in HOOKS.items():
        elements = ", ".join(f"{port}-{port + EACH - 1} : goto s{one}_{at}" for one, port in ports.items())
        lines += [
            f"  map m_{at} {{ type inet_service : verdict; flags interval; elements = {{ {elements} }} }}",
            f"  chain b_{at} {{ type {hook.kind} hook {hook.hook} priority {hook.priority};",
            f"    meta l4proto {{ tcp, udp }} th sport vmap @m_{at}",
            f"    meta l4proto {{ tcp, udp }} th dport vmap @m_{at}",
        ]
        if at != "raw":
            lines.append(f"    meta l4proto {{ icmp, ipv6-icmp }} ct original proto-src vmap @m_{at}")
        lines.append("  }")
    for both, single in _REJECTS.get(family, {}).items():
        lines = [line.replace(both, single) for line in lines]
    return Load(family, version, "\n".join([f"table {family} sets {{", *lines, "}", TRACED]), flows)


_REJECTS = {
    "ip": {"icmpx admin": "icmp type admin", "icmpx host": "icmp type host"},
    "ip6": {"icmpx admin": "icmpv6 type admin", "icmpx host": "icmpv6 type addr"},
}
"""`icmpx` is for tables of both versions alone."""


def _flows(maker: Maker, port: int) -> list[Flow]:
    """Choose flows for a set: through the host, to it, from it, and back."""
    ways = [("client", f"10.2.0.{place}") for place in (2, 2, 3, 4)]
    ways += [("client", "10.1.0.1"), ("client", "10.2.0.1"), ("host", "10.2.0.2"), ("server", "10.1.0.2")]
    found = []
    for at, (source, address) in enumerate(ways):
        protocol = "udp" if maker.chance(0.25) else "tcp"
        found.append(Flow(source, maker.spell(address), maker.pick.choice(PORTS), protocol, port + at))
    return found


def programs(lan: Lan, made: Load) -> dict[int, Program]:
    """Load the rules, and give each set as the model has it, out of what nft lists."""
    lan.run("host", "nft flush ruleset; nft -f -", made.text)
    record = Record("net/nft", "command", "net/nft", data=lan.run("host", "nft -j list ruleset").encode())
    whole = nft.compile_ruleset(record, managed=frozenset())
    found = {}
    for at in made.flows:
        bases = []
        for base in whole.bases:
            if base.chain.table == "sets":
                jump = Rule((Jump(f"s{at}_{base.chain.name[2:]}", leave=True),), base.chain.cited)
                bases.append(structs.replace(base, chain=structs.replace(base.chain, rules=(jump,))))
        found[at] = Program(whole.chains, tuple(bases), whole.unread, whole.choices)
    return found
