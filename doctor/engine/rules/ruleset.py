"""Rules in the spelling of iptables-save, and the chains that a sequence of an engine's commands leaves behind.

The spelling is that of iptables 1.8.9 to 1.8.13, of both back ends: matches of the packet first, in the order -s -d -i -o
-p, then modules, then the target; a host has its prefix length, a protocol with ports names its module.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.engine.rules.site import Binding, Bridge, Family

ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
LOCAL = "-m addrtype --dst-type LOCAL"


class Written(Struct, frozen=True):
    """A rule that an engine writes, without its chain; `top`: at the head of the chain, else at its end."""

    text: str
    top: bool


class Ruleset(Struct, frozen=True):
    """What an engine writes in one family: its own chains, and (table, chain) → rules in order, the kernel's chains too."""

    family: Family
    own: tuple[tuple[str, str], ...]
    chains: dict[tuple[str, str], tuple[Written, ...]]


class Writer:
    """Carries out an engine's commands in one family."""

    def __init__(self, family: Family, chains: tuple[tuple[str, str], ...]) -> None:
        """Start with these chains, empty; chains of the kernel need not be named."""
        self.family = family
        self.own = chains
        self.chains: dict[tuple[str, str], list[Written]] = {chain: [] for chain in chains}
        self._texts: set[tuple[str, str, str]] = set()

    def _has(self, table: str, chain: str, text: str) -> bool:
        """Whether a rule is there, as an engine asks before it writes one; from now on it is."""
        self.chains.setdefault((table, chain), [])
        if (table, chain, text) in self._texts:
            return True
        self._texts.add((table, chain, text))
        return False

    def append(self, table: str, chain: str, text: str) -> None:
        """Put a rule at the end of a chain, unless it is there."""
        if not self._has(table, chain, text):
            self.chains[table, chain].append(Written(text, top=False))

    def insert(self, table: str, chain: str, text: str) -> None:
        """Put a rule at the head of a chain, unless it is there."""
        if not self._has(table, chain, text):
            self.chains[table, chain].insert(0, Written(text, top=True))

    def raise_(self, table: str, chain: str, text: str) -> None:
        """Put a rule at the head of a chain, from where it is."""
        self._has(table, chain, text)
        held = self.chains[table, chain]
        held[:] = [Written(text, top=True), *(one for one in held if one.text != text)]

    def done(self) -> Ruleset:
        """Give what is there now."""
        return Ruleset(self.family, self.own, {chain: tuple(held) for chain, held in self.chains.items()})


def spell(
    jump: str, *, src: str = "", dst: str = "", into: str = "", out: str = "", proto: str = "", match: str = ""
) -> str:
    """Spell a rule; a value that begins with `!` is negated.

    >>> spell("ACCEPT", into="docker0", out="!docker0")
    '-i docker0 ! -o docker0 -j ACCEPT'
    """
    text = ""
    for flag, value in (("-s ", src), ("-d ", dst), ("-i ", into), ("-o ", out), ("-p ", proto)):
        if value:
            text += f"! {flag}{value[1:]} " if value[0] == "!" else f"{flag}{value} "
    return f"{text}{match} -j {jump}" if match else f"{text}-j {jump}"


def host(address: str) -> str:
    """Give an address with the prefix length of a single host."""
    return f"{address}/128" if ":" in address else f"{address}/32"


def to_port(protocol: str, number: int) -> str:
    """Match a port that packets go to."""
    return f"-m {protocol} --dport {number}"


def loopback(family: Family) -> str:
    """Give the loopback network."""
    return "127.0.0.0/8" if family == "ip" else "::1/128"


def dnat(binding: Binding, address: str, bridge: str, *, proxy: bool, source: str = "") -> str:
    """Spell the rule that leads a port of the host to a container."""
    aim = f"[{address}]:{binding.port}" if ":" in address else f"{address}:{binding.port}"
    return spell(
        f"DNAT --to-destination {aim}",
        src=source,
        dst="" if binding.host_ip in {"", "0.0.0.0", "::"} else host(binding.host_ip),  # noqa: S104 - any address
        into=f"!{bridge}" if proxy else "",
        proto=binding.protocol,
        match=to_port(binding.protocol, binding.host),
    )


def port_accept(binding: Binding, address: str, bridge: str) -> str:
    """Spell the rule that lets packets from elsewhere reach a published port of a container."""
    return spell(
        "ACCEPT",
        dst=host(address),
        into=f"!{bridge}",
        out=bridge,
        proto=binding.protocol,
        match=to_port(binding.protocol, binding.port),
    )


def port_masquerade(binding: Binding, address: str) -> str:
    """Spell the rule that lets a container reach itself through its published port."""
    return spell(
        "MASQUERADE",
        src=host(address),
        dst=host(address),
        proto=binding.protocol,
        match=to_port(binding.protocol, binding.port),
    )


def outgoing_nat(bridge: Bridge, family: Family) -> str:
    """Spell the rule that gives outgoing packets an address of the host."""
    snat = bridge.snat(family)
    return spell(f"SNAT --to-source {snat}" if snat else "MASQUERADE", src=bridge.subnet(family), out=f"!{bridge.name}")


def local_nat(bridge: Bridge, family: Family) -> str:
    """Spell the rule that gives packets of the host itself an address that a container can answer (without proxy)."""
    snat = bridge.snat(family)
    return spell(
        f"SNAT --to-source {snat}" if snat else "MASQUERADE", out=bridge.name, match="-m addrtype --src-type LOCAL"
    )


def nat_jumps(rules: Writer, *, proxy: bool) -> None:
    """Lead packets for an address of the host to the published ports."""
    rules.append("nat", "PREROUTING", spell("DOCKER", match=LOCAL))
    aim = f"!{loopback(rules.family)}" if proxy else ""
    rules.append("nat", "OUTPUT", spell("DOCKER", dst=aim, match=LOCAL))


def link_rules(rules: Writer, bridge: str, parent: str, child: str, ports: tuple[tuple[int, str], ...]) -> None:
    """Let a container use the exposed ports of another one of its network, where containers may not talk (icc off)."""
    for number, protocol in ports:
        there = {"into": bridge, "out": bridge, "proto": protocol}
        rules.append(
            "filter",
            "DOCKER",
            spell("ACCEPT", src=host(parent), dst=host(child), match=to_port(protocol, number), **there),
        )
        back = f"-m {protocol} --sport {number}"
        rules.append("filter", "DOCKER", spell("ACCEPT", src=host(child), dst=host(parent), match=back, **there))
