"""Rules of nftables, as `nft -j list ruleset` prints them, compiled. See libnftables-json(5), nft(8).

The tables that iptables-nft made are left out where its saver was read: nft shows what it does not know of them as `xt`.
Named sets and maps are listed with their elements where these were asked for; where they were not, what asks for them is
`Opaque`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from doctor.facts import UNDECODABLE
from doctor.model import Citation
from doctor.packets import conditions as when
from doctor.packets import nft_values as read
from doctor.packets import program as then
from doctor.packets.nft_text import spelled
from doctor.packets.nft_values import ICMP, ICMP6, SERVICES, Unread
from doctor.packets.packet import PROTOCOLS, number
from doctor.packets.program import Base, Chain, Hook, Program, Rule

if TYPE_CHECKING:
    from doctor.packets.conditions import Condition, NumberField
    from doctor.packets.program import Action, Step
    from doctor.snapshot import Record

FAMILIES = frozenset({"ip", "ip6"})
"""The families in which iptables-nft makes tables."""

OWN = frozenset({"filter", "nat", "mangle", "raw", "security"})
"""The tables of iptables-nft, in the families ip and ip6."""

_HOOKS: dict[str, Hook] = {
    name: name for name in ("ingress", "prerouting", "input", "forward", "output", "postrouting")
}
_KINDS: dict[str, Literal["filter", "nat", "route"]] = {"nat": "nat", "route": "route"}
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}


class _Set(Struct):
    family: str = ""
    table: str = ""
    name: str = ""
    elem: list[Any] | None = None


class _Chain(Struct):
    family: str = ""
    table: str = ""
    name: str = ""
    type: str = ""
    hook: str = ""
    prio: int | str = 0
    policy: str = "accept"
    dev: str | list[str] = ""


class _Rule(Struct):
    family: str = ""
    table: str = ""
    chain: str = ""
    handle: int = 0
    comment: str = ""
    expr: list[dict[str, Any]] = field(default_factory=list)


class _Entry(Struct):
    chain: _Chain | None = None
    rule: _Rule | None = None
    set: _Set | None = None
    map: _Set | None = None


class _Listing(Struct):
    nftables: list[_Entry] = field(default_factory=list)


def compile_ruleset(
    record: Record, *, managed: frozenset[str], whose: str = "", elements: Record | None = None
) -> Program:
    """Compile a listing; `managed` are the families whose tables of iptables-nft were read from its saver: left out here.

    `elements` are what stands in named sets, where the listing itself is terse.
    """
    if not record.readable:
        none = record.status in {"absent", "not-run"}  # no nft, or no nf_tables: no rules of its
        return Program(unread="" if none else f"nft: {record.why or record.status}")
    if record.status == "truncated":
        return Program(unread="nft: its listing is cut off")
    try:
        entries = msgspec.json.decode(record.data, type=_Listing).nftables
    except UNDECODABLE as error:
        return Program(unread=f"{record.name}: {error}")

    def ours(one: _Chain | _Rule | _Set) -> bool:
        return not (one.family in managed and one.table in OWN)

    terse = " -t " in record.target
    sets = _sets(entries, terse=terse)
    if elements is not None and elements.readable:
        try:
            sets |= _sets(msgspec.json.decode(elements.data, type=_Listing).nftables, terse=False)
        except UNDECODABLE as error:
            return Program(unread=f"{elements.name}: {error}")
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for entry in entries:
        rule = entry.rule
        if rule is None or not ours(rule):
            continue
        held = rules.setdefault((rule.family, rule.table, rule.chain), [])
        place = f"{whose}nft {rule.family} {rule.table} {rule.chain} {len(held) + 1}"
        cited = Citation(record.name, 1, spelled(rule.expr, rule.comment), place)
        held.append(Rule(_Compiler(rule, sets).steps(), cited))
    chains: dict[tuple[str, str, str, str], Chain] = {}
    bases = []
    for entry in entries:
        one = entry.chain
        if one is None or not ours(one):
            continue
        place = f"{whose}nft {one.family} {one.table} {one.name}"
        text = f"chain {one.name}" + (f" hook {one.hook} policy {one.policy}" if one.hook else "")
        cited = Citation(record.name, 1, text, place)
        chain = Chain(
            "nft", one.family, one.table, one.name, tuple(rules.get((one.family, one.table, one.name), ())), cited
        )
        chains[chain.key] = chain
        hook = _HOOKS.get(one.hook)
        if hook is not None:
            kind = _KINDS.get(one.type, "filter")
            priority = one.prio if isinstance(one.prio, int) else _PRIORITIES.get(one.prio, 0)
            devices = (one.dev,) if isinstance(one.dev, str) else tuple(one.dev)
            policy: Literal["accept", "drop"] = "drop" if one.policy == "drop" else "accept"
            bases.append(Base(chain, hook, priority, kind, policy, tuple(filter(None, devices))))
    return Program(chains, tuple(bases))


def _sets(entries: list[_Entry], *, terse: bool) -> dict[tuple[str, str, str], list[Any] | None]:
    """Give the elements of each set and map by its name; None where they are not known, nothing where there is none."""
    return {
        (one.family, one.table, one.name): one.elem if one.elem is not None or terse else []
        for entry in entries
        for one in (entry.set, entry.map)
        if one is not None
    }


class _Compiler:
    """Compiles one rule."""

    def __init__(self, rule: _Rule, sets: dict[tuple[str, str, str], list[Any] | None]) -> None:
        self.rule = rule
        self.sets = sets
        self.version: Literal[0, 4, 6] = 4 if rule.family == "ip" else 6 if rule.family == "ip6" else 0

    def steps(self) -> tuple[Step, ...]:
        """Compile all statements, in order."""
        found: list[Step] = []
        for statement in self.rule.expr:
            try:
                found += self.statement(statement)
            except (Unread, ValueError, KeyError, TypeError, IndexError):
                name = next(iter(statement), "")
                text = spelled([statement])
                if name in {"match", "xt"}:
                    found.append(when.Opaque(text))
                else:
                    found.append(then.Unmodelled(text))
        return tuple(found)

    def statement(self, statement: dict[str, Any]) -> list[Step]:
        """Compile one statement; raises Unread for what is not modelled."""
        (name, value), *_ = statement.items()
        match name:
            case "match":
                return self.match(value)
            case "accept" | "drop" | "return" | "continue":
                return [then.Verdict(name)]
            case "jump" | "goto":
                return [then.Jump(value["target"], leave=name == "goto")]
            case "reject":
                return [then.Reject(read.reject(value))]
            case "vmap":
                return [self.vmap(value)]
            case "dnat" | "snat" | "masquerade" | "redirect":
                return [self.nat(name, value or {})]
            case "mangle":
                return self.mangle(value)
            case "notrack":
                return [then.Notrack()]
            case "counter" | "log" | "comment" | "quota_" | "ct helper" | "flow":
                return []
            case "limit" | "quota" | "ct count" | "last":
                return [] if name == "last" else [when.Opaque(spelled([statement]))]
            case _:
                raise Unread

    # Conditions

    def match(self, value: dict[str, Any]) -> list[Step]:
        """Compile `left op right`."""
        operator = value.get("op", "==")
        if operator not in {"==", "!=", "in"}:
            return [*self.ordered(value["left"], operator, value["right"])]
        return [*self.conditions(value["left"], value["right"], negated=operator == "!=", bits=operator == "in")]

    def ordered(self, left: Any, operator: str, right: Any) -> list[Condition]:
        """Compile a comparison of numbers."""
        bound = self.number(left, right)
        ranges = {
            "<": ((0, bound - 1),),
            "<=": ((0, bound),),
            ">": ((bound + 1, 1 << 128),),
            ">=": ((bound, 1 << 128),),
        }[operator]
        needs, field_, mask = self.numeric(left)
        return [*needs, when.Number(field_, ranges, mask=mask)]

    def conditions(self, left: Any, right: Any, *, negated: bool = False, bits: bool = False) -> list[Condition]:
        """Compile an expression and what it is compared with; a negation covers the comparison, not what it needs."""
        if isinstance(left, dict) and "concat" in left:
            return [self.concat(left["concat"], right, negated=negated)]
        values = self.elements(right)
        key, what = next(iter(left.items())) if isinstance(left, dict) else ("", None)
        match key, what:
            case "meta", {"key": ("iif" | "iifname" | "oif" | "oifname") as name}:
                end: Literal["iif", "oif"] = "iif" if name.startswith("iif") else "oif"
                return [when.Device(end, tuple(str(one) for one in values), negated)]
            case "ct", {"key": "state"}:
                return [when.Ct(read.states(right, values), negated)]
            case "ct", {"key": "status"}:
                asked = frozenset(read.words(values))
                if not asked <= {"dnat", "snat"}:
                    raise Unread
                # Without `in` the whole word is compared, and no connection has one of these bits alone.
                return [when.Ct(asked if bits else frozenset(), negated)]
            case "ct", {"key": "direction"}:
                return [when.Direction(values == ["reply"], negated)]
            case "fib", {"result": "type", "flags": flags}:
                return [self.fib(flags, values, negated=negated)]
            case "payload", {"protocol": ("ip" | "ip6") as protocol, "field": ("saddr" | "daddr") as name}:
                return self.addresses(protocol, name, values, negated=negated)
            case "payload", {"protocol": "tcp", "field": "flags"}:
                return [read.protocol("tcp"), self.flags(values, negated=negated, bits=bits)]
            case "&", [{"payload": {"protocol": "tcp", "field": "flags"}}, mask]:
                return [read.protocol("tcp"), self.flags(values, negated=negated, mask=read.flags([mask]))]
            case _:
                needs, field_, mask = self.numeric(left)
                ranges = tuple(self.span(left, one) for one in values)
                if bits and field_ in {"mark", "connmark"}:
                    raise Unread
                return [*needs, when.Number(field_, ranges, negated, mask)]

    @staticmethod
    def flags(values: list[Any], *, negated: bool, bits: bool = False, mask: int = 0xFF) -> Condition:
        """Compile the flags of TCP: `tcp flags syn` asks for a bit (`in`), `tcp flags == syn`, `!= syn` and sets for all."""
        if bits:
            return when.Number("flags", ((0, 0),), not negated, read.flags(values))
        wanted = [read.flags([one]) for one in values]
        return when.Number("flags", tuple((one, one) for one in wanted), negated, mask)

    def addresses(self, protocol: str, name: str, values: list[Any], *, negated: bool) -> list[Condition]:
        """Compile addresses of one version."""
        version = 4 if protocol == "ip" else 6
        ranges = tuple(read.span(one, version) for one in values)
        needs: list[Condition] = [] if self.version == version else [when.Number("version", ((version, version),))]
        return [*needs, when.Address("src" if name == "saddr" else "dst", version, ranges, negated)]

    def fib(self, flags: Any, values: list[Any], *, negated: bool) -> Condition:
        """Compile `fib daddr type local`, with `iif` or `oif`."""
        asked = {flags} if isinstance(flags, str) else set(flags)
        ends = asked & {"saddr", "daddr"}
        if len(ends) != 1 or asked - {"saddr", "daddr", "iif", "oif"}:
            raise Unread
        end: Literal["src", "dst"] = "src" if ends == {"saddr"} else "dst"
        limit: Literal["", "iif", "oif"] = "iif" if "iif" in asked else "oif" if "oif" in asked else ""
        return when.Kind(end, frozenset(str(one) for one in values), negated, limit)

    def concat(self, lefts: list[Any], right: Any, *, negated: bool) -> Condition:
        """Compile a set of concatenations."""
        several = []
        for element in self.elements(right):
            parts = element["concat"] if isinstance(element, dict) and "concat" in element else [element]
            held: list[Condition] = []
            for left, part in zip(lefts, parts, strict=True):
                held += self.conditions(left, part)
            several.append(tuple(held))
        return when.Any(tuple(several), negated)

    def numeric(self, left: Any) -> tuple[list[Condition], NumberField, int]:  # noqa: C901, PLR0912 - a ladder of fields
        """Give a field that is a number, what it needs to be there, and its mask."""
        if not isinstance(left, dict):
            raise Unread
        key, what = next(iter(left.items()))
        match key, what:
            case "&", [inner, int(mask)]:
                needs, field_, _ = self.numeric(inner)
                return needs, field_, mask
            case "meta", {"key": "mark"}:
                return [], "mark", -1
            case "ct", {"key": "mark"}:
                return [], "connmark", -1
            case "ct", {"key": "zone"}:
                return [], "zone", -1
            case "meta", {"key": "l4proto"}:
                return [], "protocol", -1
            case "meta", {"key": "nfproto"} | {"key": "protocol"}:
                return [], "version", -1
            case "payload", {"protocol": "ether", "field": "type"}:
                return [], "version", -1
            case "payload", {"protocol": ("tcp" | "udp" | "th") as protocol, "field": ("sport" | "dport") as name}:
                return ([read.protocol(protocol)] if protocol != "th" else []), name, -1
            case "payload", {"protocol": "ip", "field": "protocol"}:
                return self._of(4), "protocol", -1
            case "payload", {"protocol": "ip6", "field": "nexthdr"}:
                return self._of(6), "protocol", -1
            case "payload", {"protocol": "ip", "field": "ttl"}:
                return self._of(4), "ttl", -1
            case "payload", {"protocol": ("icmp" | "icmpv6") as protocol, "field": "type"}:
                return [read.protocol(protocol)], "icmp", -1
            case "ct", {"key": ("proto-dst" | "proto-src") as name, "dir": "original"}:
                return [], "original.dport" if name.endswith("dst") else "original.sport", -1
            case "ct", {"key": ("daddr" | "saddr" | "ip daddr" | "ip saddr") as name, "dir": "original"}:
                return [], "original.dst" if name.endswith("daddr") else "original.src", -1
            case _:
                raise Unread

    def _of(self, version: int) -> list[Condition]:
        return [] if self.version == version else [when.Number("version", ((version, version),))]

    def number(self, left: Any, value: Any) -> int:
        """Read a number, or the name of one."""
        return self.span(left, value)[0]

    def span(self, left: Any, value: Any) -> tuple[int, int]:
        """Read a number or a range of them, in the words of a field."""
        if isinstance(value, dict) and "range" in value:
            first, last = value["range"]
            return self.number(left, first), self.number(left, last)
        if isinstance(value, bool):
            raise Unread
        if isinstance(value, int):
            return value, value
        if isinstance(value, dict) and "prefix" in value:
            return read.span(value, 6 if ":" in value["prefix"]["addr"] else 4)
        if not isinstance(value, str):
            raise Unread
        for names in self.names(left):
            if value in names:
                return names[value], names[value]
        if "." in value or ":" in value:
            return number(value), number(value)
        return int(value, 0), int(value, 0)

    def names(self, left: Any) -> tuple[dict[str, int], ...]:
        """Give the words that stand for numbers of a field."""
        _, field_, _ = self.numeric(left)
        match field_:
            case "protocol":
                return (PROTOCOLS,)
            case "version":
                return ({"ipv4": 4, "ipv6": 6, "ip": 4, "ip6": 6, "arp": 0},)
            case "icmp":
                six = isinstance(left, dict) and left.get("payload", {}).get("protocol") == "icmpv6"
                return (ICMP6 if six else ICMP,)
            case "sport" | "dport":
                return (SERVICES,)
            case _:
                return ()

    def elements(self, right: Any) -> list[Any]:
        """Give what a comparison is made with, one by one; raises Unread for a set whose elements are not known."""
        if isinstance(right, str) and right.startswith("@"):
            held = self.sets.get((self.rule.family, self.rule.table, right[1:]))
            if held is None:
                raise Unread
            return [read.element(one) for one in held]
        if isinstance(right, dict) and "set" in right:
            inner = right["set"]
            return [read.element(one) for one in (inner if isinstance(inner, list) else [inner])]
        if isinstance(right, dict) and "|" in right:
            return [*right["|"]]
        if isinstance(right, list):
            return right
        return [right]

    # Actions

    def vmap(self, value: dict[str, Any]) -> Action:
        """Compile a verdict map."""
        data = value["data"]
        if isinstance(data, str):
            pairs = self.sets.get((self.rule.family, self.rule.table, data.removeprefix("@")))
        else:
            pairs = data["set"]
        if pairs is None:
            raise Unread
        elements: list[tuple[tuple[Condition, ...], Action]] = []
        for pair in pairs:
            wanted, verdict = pair
            wanted = read.element(wanted)
            action = self.statement(verdict)[0]
            if not isinstance(action, then.Verdict | then.Jump):
                raise Unread
            elements.append((tuple(self.conditions(value["key"], wanted)), action))
        return then.Map(tuple(elements))

    def nat(self, name: Any, value: dict[str, Any]) -> Action:
        """Compile a translation; maps of addresses are not modelled."""
        address = value.get("addr")
        if isinstance(address, dict):
            if "range" not in address:
                raise Unread
            address = address["range"][0]
        port = value.get("port")
        ports = None
        if isinstance(port, dict):
            ports = (int(port["range"][0]), int(port["range"][1]))
        elif port is not None:
            ports = (int(port), int(port))
        return then.Nat(name, number(address) if address is not None else None, ports)

    def mangle(self, value: dict[str, Any]) -> list[Step]:
        """Compile a mark that is set; other fields of the packet decide nothing here."""
        key, what = next(iter(value["key"].items()))
        field_: Literal["mark", "connmark"] | None = None
        if what == {"key": "mark"} and key in {"meta", "ct"}:
            field_ = "mark" if key == "meta" else "connmark"
        if field_ is None:
            if key == "ct" and what.get("key") == "zone" and isinstance(value["value"], int):
                return [then.Zone(value["value"])]
            if key == "meta" and what.get("key") in {"nftrace", "priority", "pkttype"}:
                return []
            if key == "tcp option" and what.get("name") == "maxseg":
                size = value["value"]
                return [then.Clamp("continue", size if isinstance(size, int) else 0)]
            if key in {"payload", "tcp option", "exthdr"} and what.get("field") in {
                "size",
                "dscp",
                "ttl",
                "hoplimit",
                None,
            }:
                return []
            raise Unread
        return [read.marked(field_, value["value"])]
