"""Rules of iptables, as its savers print them, compiled. Both back ends print the same.

What is not known stands in the rule as `Opaque` or `Unmodelled` with its own words. See iptables(8),
iptables-extensions(8); the order of the tables on a hook is that of linux/netfilter_ipv4.h.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Literal

from doctor.packets.conditions import (
    Address,
    Any,
    Ct,
    Device,
    Direction,
    Kind,
    Never,
    Number,
    Opaque,
)
from doctor.packets.packet import PROTOCOLS, SYN, number
from doctor.packets.program import (
    FILTER,
    MANGLE,
    NAT_DST,
    NAT_SRC,
    RAW,
    SECURITY,
    Base,
    Chain,
    Clamp,
    Jump,
    Nat,
    Notrack,
    Program,
    Reject,
    Rule,
    SetNumber,
    Unmodelled,
    Verdict,
    Zone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.facts.rules import Tables
    from doctor.packets.conditions import Condition, NumberField, Ranges
    from doctor.packets.program import Action, Hook, Step

_KIND: dict[str, Literal["filter", "nat", "route"]] = {"nat": "nat"}
_HOOKS: dict[str, Hook] = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_PRIORITY = {"raw": RAW, "mangle": MANGLE, "filter": FILTER, "security": SECURITY}
_NAT_PRIORITY = {"PREROUTING": NAT_DST, "OUTPUT": NAT_DST, "INPUT": NAT_SRC, "POSTROUTING": NAT_SRC}

_FLAGS = {"FIN": 1, "SYN": SYN, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_SERVICES = {"ssh": 22, "domain": 53, "http": 80, "https": 443, "ntp": 123, "smtp": 25, "bootps": 67, "bootpc": 68}
_ICMP = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "time-exceeded": 11, "parameter-problem": 12,
}  # fmt: skip
_REJECT = {
    "tcp-reset": "reset",
    "icmp-port-unreachable": "port",
    "icmp6-port-unreachable": "port",
    "port-unreach": "port",
    "icmp-host-unreachable": "host",
    "icmp6-addr-unreachable": "host",
    "addr-unreach": "host",
    "icmp-net-unreachable": "net",
    "icmp6-no-route": "net",
    "no-route": "net",
    "icmp-proto-unreachable": "proto",
    "icmp-net-prohibited": "admin",
    "icmp-host-prohibited": "admin",
    "icmp-admin-prohibited": "admin",
    "icmp6-adm-prohibited": "admin",
    "adm-prohibited": "admin",
    "icmp6-policy-fail": "admin",
    "icmp6-reject-route": "host",
}

_PASSES = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "TOS", "DSCP", "CHECKSUM", "CLASSIFY", "SECMARK"}
    | {"CONNSECMARK", "RATEEST", "IDLETIMER", "LED", "TCPOPTSTRIP", "ECN", "SET", "ACCOUNT", "HMARK", "TEE"}
)
"""Targets after which the next rule is asked: they change nothing that decides about a packet here."""


class _Words:
    """The words of one rule, taken from the left."""

    def __init__(self, text: str) -> None:
        self.words = shlex.split(text) if '"' in text or "'" in text else text.split()
        self.at = 0

    @property
    def left(self) -> bool:
        return self.at < len(self.words)

    def take(self) -> str:
        if not self.left:
            raise ValueError("the rule ends too early")
        self.at += 1
        return self.words[self.at - 1]

    def rest(self) -> list[str]:
        """Take what belongs to an option that is not known: up to the next one."""
        start = self.at
        while self.left and not self.words[self.at].startswith("-") and self.words[self.at] != "!":
            self.at += 1
        return self.words[start : self.at]


def _ranges(text: str, names: dict[str, int], highest: int, mark: str = ":") -> Ranges:
    """Read `80`, `1024:65535`, `:1023`, and several of these behind commas."""
    found = []
    for part in text.split(","):
        first, colon, last = part.partition(mark)
        low = _named(first, names) if first else 0
        found.append((low, (_named(last, names) if last else highest) if colon else low))
    return tuple(found)


def _named(text: str, names: dict[str, int]) -> int:
    return names[text] if text in names else int(text, 0)


def _ports(text: str) -> Ranges:
    return _ranges(text, _SERVICES, 65535)


@lru_cache(maxsize=1 << 14)
def _nets(text: str) -> Ranges:
    if text.endswith("/32") and not {":", ","} & set(text):  # what most rules have
        return ((number(text[:-3]),) * 2,)
    found = []
    for part in text.split(","):
        net = ip_network(part, strict=False)
        found.append((int(net.network_address), int(net.broadcast_address)))
    return tuple(found)


def _device(name: str) -> tuple[str, ...]:
    return (name[:-1] + "*",) if name.endswith("+") else (name,)


def _masked(field: NumberField, text: str, *, negated: bool) -> Number:
    value, _, mask = text.partition("/")
    return Number(field, ((int(value, 0),) * 2,), negated, int(mask, 0) if mask else 0xFFFFFFFF)


def _protocol(text: str, *, negated: bool) -> Number:
    value = _named(text, PROTOCOLS)
    return Number("protocol", ((value, value),) if value else ((0, 255),), negated)


def _icmp(text: str, *, negated: bool) -> Condition:
    kind = text.partition("/")[0]
    if kind in {"any", "255"}:
        return Number("icmp", ((0, 255),), negated)
    return Number("icmp", ((_named(kind, _ICMP),) * 2,), negated) if "/" not in text else Opaque(f"--icmp-type {text}")


def _state(text: str, *, negated: bool) -> Ct:
    return Ct(frozenset(text.lower().split(",")), negated)


class _Compiler:
    """Compiles the rules of one family."""

    def __init__(self, version: Literal[4, 6]) -> None:
        self.version = version
        self.known: dict[str, Callable[[_Words, bool], Condition]] = {
            "-s": lambda words, no: Address("src", version, _nets(words.take()), no),
            "-d": lambda words, no: Address("dst", version, _nets(words.take()), no),
            "-i": lambda words, no: Device("iif", _device(words.take()), no),
            "-o": lambda words, no: Device("oif", _device(words.take()), no),
            "-p": lambda words, no: _protocol(words.take(), negated=no),
            "-f": lambda _, no: Number("version", ((4, 4),)) if no else Never(),
            "--sport": lambda words, no: Number("sport", _ports(words.take()), no),
            "--dport": lambda words, no: Number("dport", _ports(words.take()), no),
            "--sports": lambda words, no: Number("sport", _ports(words.take()), no),
            "--dports": lambda words, no: Number("dport", _ports(words.take()), no),
            "--syn": lambda _, no: Number("flags", ((SYN, SYN),), no, 1 | SYN | 4 | 16),
            "--tcp-flags": self._flags,
            "--ctstate": lambda words, no: _state(words.take(), negated=no),
            "--state": lambda words, no: _state(words.take(), negated=no),
            "--ctstatus": self._status,
            "--ctdir": lambda words, no: Direction(words.take() == "REPLY", no),
            "--ctproto": lambda words, no: _protocol(words.take(), negated=no),
            "--ctorigdstport": lambda words, no: Number("original.dport", _ports(words.take()), no),
            "--ctorigsrcport": lambda words, no: Number("original.sport", _ports(words.take()), no),
            "--ctorigdst": lambda words, no: Number("original.dst", _nets(words.take()), no),
            "--ctorigsrc": lambda words, no: Number("original.src", _nets(words.take()), no),
            "--mark": lambda words, no: _masked("mark", words.take(), negated=no),
            "--icmp-type": lambda words, no: _icmp(words.take(), negated=no),
            "--icmpv6-type": lambda words, no: _icmp(words.take(), negated=no),
            "--src-range": lambda words, no: Address("src", version, self._span(words.take()), no),
            "--dst-range": lambda words, no: Address("dst", version, self._span(words.take()), no),
            "--physdev-in": lambda words, no: Device("physin", _device(words.take()), no),
            "--physdev-out": lambda words, no: Device("physout", _device(words.take()), no),
            "--physdev-is-bridged": lambda _, no: Device("physout", ("",), not no),
            "--physdev-is-in": lambda _, no: Device("physin", ("",), not no),
            "--physdev-is-out": lambda _, no: Device("physout", ("",), not no),
            "--ttl-eq": lambda words, no: Number("ttl", _ranges(words.take(), {}, 255), no),
        }

    @staticmethod
    def _span(text: str) -> Ranges:
        first, _, last = text.partition("-")
        return ((number(first), number(last or first)),)

    @staticmethod
    def _flags(words: _Words, negated: bool) -> Condition:  # noqa: FBT001 - as the table calls all
        mask, wanted = (sum(_FLAGS[name] for name in set(words.take().split(","))) for _ in range(2))
        return Number("flags", ((wanted, wanted),), negated, mask)

    @staticmethod
    def _status(words: _Words, negated: bool) -> Condition:  # noqa: FBT001 - as the table calls all
        text = words.take()
        asked = {word.lower() for word in text.split(",")}
        return Ct(frozenset(asked), negated) if asked <= {"dnat", "snat"} else Opaque(f"--ctstatus {text}")

    def rule(self, text: str) -> tuple[Step, ...]:
        """Compile one rule; what cannot be read is `Opaque` as a whole. The text is as saved, without `-A CHAIN`."""
        try:
            return self._rule(_Words(text))
        except (ValueError, KeyError, IndexError):
            return (Opaque(text), Unmodelled(text))

    def _rule(self, words: _Words) -> tuple[Step, ...]:
        found: list[Step] = []
        module = ""
        negated = False
        kinds: dict[str, tuple[frozenset[str], bool]] = {}
        limit: Literal["", "iif", "oif"] = ""
        opaque: list[str] = []
        while words.left:
            word = words.take()
            if word == "!":
                negated = True
                continue
            if word in {"-j", "-g"}:
                action = self._target(word, words)
                found += [Kind(_end(end), names, no, limit) for end, (names, no) in kinds.items()]
                found += [Opaque(" ".join(opaque))] if opaque else []
                return (*found, *action)
            if word == "-m":
                module = words.take()
            elif word in {"--src-type", "--dst-type"}:
                kinds[word] = (_types(words.take(), self.version), negated)
            elif word in {"--limit-iface-in", "--limit-iface-out"}:
                limit = "iif" if word.endswith("in") else "oif"
            elif word == "--comment":
                words.take()
            elif word == "--ports":
                asked = _ports(words.take())
                found.append(Any(((Number("sport", asked),), (Number("dport", asked),)), negated))
            elif module == "connmark" and word == "--mark":
                found.append(_masked("connmark", words.take(), negated=negated))
            elif module in _UNKNOWABLE or word not in self.known:
                opaque += ["!"] * negated + [word, *words.rest()]
            else:
                found.append(self.known[word](words, negated))
            negated = False
        found += [Kind(_end(end), names, no, limit) for end, (names, no) in kinds.items()]
        return (*found, *([Opaque(" ".join(opaque))] if opaque else []), Verdict("continue"))

    def _target(self, flag: str, words: _Words) -> tuple[Action, ...]:
        name = words.take()
        options = _options(words)
        if name in {"ACCEPT", "DROP", "RETURN"}:
            return (Verdict(_VERDICTS[name]),)
        if name == "REJECT":
            default = "icmp-port-unreachable"
            return (Reject(_REJECT.get(options.get("--reject-with", default), "port")),)
        if name in {"DNAT", "SNAT", "MASQUERADE", "REDIRECT"}:
            return (_nat(name, options),)
        if name == "MARK":
            return (_mark("mark", options["--set-xmark"] if "--set-xmark" in options else options["--set-mark"]),)
        if name == "CONNMARK":
            return (_connmark(options),)
        if name == "NOTRACK" or (name == "CT" and "--notrack" in options):
            return (Notrack(),)
        if name == "CT":
            zone = options.get("--zone", "")
            if zone.isdecimal():
                return (Zone(int(zone)),)
            unknown = [option for option in options if option.startswith("--zone")]
            return (Unmodelled(f"CT {' '.join(unknown)}"),) if unknown else (Verdict("continue"),)
        if name in _CHANGES:
            return (_CHANGES[name](options),)
        if name in _PASSES:
            return (Verdict("continue"),)
        if name.isupper() and name in _UNMODELLED:
            return (Unmodelled(" ".join((name, *(f"{key} {value}".strip() for key, value in options.items())))),)
        return (Jump(name, leave=flag == "-g"),)


_VERDICTS: dict[str, Literal["accept", "drop", "return"]] = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return"}
_UNMODELLED = frozenset({"NFQUEUE", "QUEUE", "TPROXY", "NETMAP", "SYNPROXY", "CLUSTERIP", "DNPT", "SNPT"})
_UNKNOWABLE = frozenset(
    {"limit", "hashlimit", "recent", "statistic", "quota", "time", "connlimit", "connbytes", "rateest", "u32", "string"}
    | {"bpf", "set", "owner", "cgroup", "socket", "policy", "mac", "length", "dscp", "tos", "ipvs", "rpfilter", "osf"}
    | {"hl", "cpu", "nfacct", "geoip", "realm", "devgroup", "helper", "pkttype", "cluster", "eui64", "frag", "rt"}
)
"""Modules that ask for what a packet alone does not tell."""


def _types(text: str, version: int) -> frozenset[str]:
    """Read types of addresses. For IPv6, UNICAST is every address that is no group, the host's own too (match_type6())."""
    asked = frozenset(text.lower().split(","))
    if version == 6 and "unicast" in asked:  # noqa: PLR2004 - IPv6
        routed = asked & {"local", "anycast", "unreachable"}
        return routed or frozenset({"unicast", "local", "anycast", "unreachable", "blackhole", "prohibit"})
    return asked


def _end(option: str) -> Literal["src", "dst"]:
    return "src" if option == "--src-type" else "dst"


def _options(words: _Words) -> dict[str, str]:
    """Read the options of a target: the rest of the rule."""
    found = {}
    while words.left:
        word = words.take()
        if word.startswith("--"):
            found[word] = " ".join(words.rest())
    return found


def _ttl(options: dict[str, str]) -> Action:
    """Read what is done to the TTL, or to the hop limit of IPv6: set, or changed by some."""
    for option in ("--ttl-set", "--hl-set"):
        if options.get(option, "").isdecimal():
            return SetNumber("ttl", 0, int(options[option]))
    return Unmodelled(" ".join(("TTL", *(f"{key} {value}".strip() for key, value in options.items()))))


def _clamp(options: dict[str, str]) -> Action:
    """Compile TCPMSS: to a figure, or to what the path takes."""
    size = options.get("--set-mss", "0")
    return Clamp("continue", int(size) if size.isdecimal() else 0)


_CHANGES = {"TTL": _ttl, "HL": _ttl, "TCPMSS": _clamp}
"""Targets that change a packet in a way that decides about it later."""


def _nat(name: str, options: dict[str, str]) -> Action:
    if name in {"MASQUERADE", "REDIRECT"}:
        ports = options.get("--to-ports", "")
        kind: Literal["masquerade", "redirect"] = "masquerade" if name == "MASQUERADE" else "redirect"
        return Nat(kind, None, _port_range(ports))
    text = options["--to-destination" if name == "DNAT" else "--to-source"].split(" ")[0]
    if text.startswith("["):
        address, _, ports = text[1:].partition("]")
        ports = ports.removeprefix(":")
    elif text.count(":") > 1:
        address, ports = text, ""
    else:
        address, _, ports = text.partition(":")
    first = address.partition("-")[0]
    if "/" in ports:  # dnat with a shifted range of ports
        return Unmodelled(f"{name} {text}")
    return Nat("dnat" if name == "DNAT" else "snat", number(first) if first else None, _port_range(ports))


def _port_range(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition("-")
    return (int(first), int(last or first)) if first else None


def _mark(field: Literal["mark", "connmark"], text: str) -> SetNumber:
    value, _, mask = text.partition("/")
    bits = int(mask, 0) if mask else 0xFFFFFFFF
    return SetNumber(field, ~bits & 0xFFFFFFFF, int(value, 0))


Mark = Literal["mark", "connmark"]
_COPIES: tuple[tuple[str, Mark, Mark], ...] = (
    ("--save-mark", "connmark", "mark"),
    ("--restore-mark", "mark", "connmark"),
)


def _connmark(options: dict[str, str]) -> Action:
    for option, target, source in _COPIES:
        if option in options:
            masks = [int(options[name], 0) for name in ("--nfmask", "--ctmask", "--mask") if name in options]
            bits = masks[0] if masks else 0xFFFFFFFF
            if any(one != bits for one in masks):
                return Unmodelled("CONNMARK with two masks")
            return SetNumber(target, ~bits & 0xFFFFFFFF, 0, source, bits)
    return _mark("connmark", options["--set-xmark"] if "--set-xmark" in options else options["--set-mark"])


def compile_tables(tables: Iterable[Tables]) -> Program:
    """Compile the tables of the families and back ends given; one that could not be read is named in `unread`."""
    chains: dict[tuple[str, str, str, str], Chain] = {}
    bases: list[Base] = []
    unread = []
    for one in tables:
        if one.unread:
            continue
        if one.damage:
            unread.append(f"{one.record}: {one.damage}")
        compiler = _Compiler(6 if one.family == "ip6" else 4)
        for (table, name), held in one.chains.items():
            rules = tuple(Rule(compiler.rule(rule.text), rule.cited) for rule in held.rules)
            chain = Chain(f"iptables-{one.backend}", one.family, table, name, rules, held.cited)
            chains[chain.key] = chain
            hook = _HOOKS.get(name)
            if hook is None or (table == "nat" and name not in _NAT_PRIORITY):
                continue
            kind: Literal["filter", "nat", "route"] = (
                "nat" if table == "nat" else "route" if (table, name) == ("mangle", "OUTPUT") else "filter"
            )
            priority = _NAT_PRIORITY[name] if table == "nat" else _PRIORITY.get(table, FILTER)
            bases.append(Base(chain, hook, priority, kind, "drop" if held.policy == "DROP" else "accept"))
    return Program(chains, tuple(bases), "; ".join(unread))
