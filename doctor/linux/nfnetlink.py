"""The nftables of a network namespace: which tables it has, and the rules of one kind that nearly all containers have.

The engine's resolver of user-defined networks is six rules in the table nat of each container. A saver takes 2.5 ms a
namespace to print them (measured: a third of a run over 200 containers); two dumps cost what any other answer does.
What `nat` gives is what `iptables-nft-save` prints but for its comments; anything beyond those few expressions is the
saver's to print.

Source: linux/netfilter/nf_tables.h, nfnetlink.h, nf_nat.h; seen as iptables 1.8.9 to 1.8.13 write them. Asking loads the
module nf_tables where it is not there yet: whoever calls looks first.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, error, pack
from typing import TYPE_CHECKING

from doctor.linux import netlink
from doctor.linux.attributes import address, string
from doctor.linux.netlink import attributes, head, values

if TYPE_CHECKING:
    from collections.abc import Iterable

_SUBSYSTEM = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE = _SUBSYSTEM | 1, _SUBSYSTEM | 4, _SUBSYSTEM | 7
HEAD = Struct("=BxH")  # family, resource id
_NAME = 1
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_IPV4 = 2
_HOOK = 4
_TARGET = 2

_HOOKS = {0: ("PREROUTING", -100), 1: ("INPUT", 100), 3: ("OUTPUT", -100), 4: ("POSTROUTING", 100)}
"""Of the table nat: NF_INET hook → chain and priority (linux/netfilter_ipv4.h, NF_IP_PRI_NAT_DST and _SRC)."""

_VERDICTS = {-3: "-j", -4: "-g"}  # NFT_JUMP, NFT_GOTO
_PROTOCOLS = {6: "tcp", 17: "udp"}
_DNAT_RANGE = Struct("=I4s12x4s12x2s2s")  # struct nf_nat_range2: flags, least and most address and port
_SNAT_RANGE = Struct("=II4s4s2s2s")  # struct nf_nat_ipv4_multi_range_compat
_MEMORY = 1024
"""Chains and expressions that are remembered: those of 200 resolvers differ in their ports alone."""
_ADDRESSES, _PORTS = 1, 2  # NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED


def tables(timeout: float) -> list[tuple[str, str]]:
    """Give family and name of every table in the calling thread's namespace, as `nft list tables` says them.

    Raises OSError. Needs CAP_NET_ADMIN over the namespace.
    """
    with netlink.Socket(netlink.NETFILTER, timeout) as filters:
        return [read_table(payload) for payload in filters.dump(_GETTABLE, bytes(4), "NFT_MSG_GETTABLE")]


def read_table(payload: bytes) -> tuple[str, str]:
    """Decode one NFT_MSG_NEWTABLE. Raises MalformedError."""
    family, _ = head(HEAD, payload)
    name = values(payload, HEAD.size).get(_NAME, b"")
    return FAMILIES.get(family) or str(family), string(name)


def nat(timeout: float) -> bytes:
    """Give the IPv4 rules of the calling thread's namespace as `iptables-nft-save` does, where it has only simple ones.

    That is: one table, nat, and rules of addresses, ports, jumps, DNAT and SNAT. Empty for anything else. Raises OSError.
    """
    with netlink.Socket(netlink.NETFILTER, timeout) as filters:
        chains = filters.dump(_GETCHAIN, pack("=BBH", _IPV4, 0, 0), "NFT_MSG_GETCHAIN")
        rules = filters.dump(_GETRULE, pack("=BBH", _IPV4, 0, 0), "NFT_MSG_GETRULE")
    return show_nat(chains, rules).encode()


class _UnknownError(Exception):
    """An expression that is not among the few."""


def show_nat(chains: Iterable[bytes], rules: Iterable[bytes]) -> str:
    """Print NFT_MSG_NEWCHAIN and NFT_MSG_NEWRULE payloads of a family; nothing where one is not among the few. Total."""
    try:
        return _shown(chains, rules)
    except (_UnknownError, LookupError, error, OSError):
        return ""


def _shown(chains: Iterable[bytes], rules: Iterable[bytes]) -> str:
    policies = {name: "ACCEPT" for name, _ in _HOOKS.values()}
    own = []
    for payload in chains:
        name, policy = _declared(payload[HEAD.size :])
        if policy:
            policies[name] = policy
        else:
            own.append(name)
    said: dict[str, list[str]] = {name: [] for name in (*policies, *sorted(own))}
    for payload in rules:
        about = values(payload, HEAD.size)
        name = _chain(about, table=1, name=2)
        if about.keys() - {1, 2, 3, 4, 6} or name not in said:  # user data, for one: a comment
            raise _UnknownError
        said[name].append(f"-A {name}{_rule(about.get(4, b''))}\n")
    lines = ["*nat\n", *(f":{name} {policies.get(name, '-')} [0:0]\n" for name in said)]
    return "".join([*lines, *(rule for held in said.values() for rule in held), "COMMIT\n"])


@lru_cache(_MEMORY)
def _declared(attributes_of_chain: bytes) -> tuple[str, str]:
    """Give name and policy of a chain; one that is no hook's has no policy."""
    about = values(attributes_of_chain)
    name = _chain(about, table=1, name=3)
    if _HOOK not in about:
        return name, ""
    hook = values(about[_HOOK])
    known = _HOOKS.get(_number(hook[1])), _number(about.get(5, b"\0"))
    if known[0] != (name, _number(hook[2], signed=True)) or known[1] not in {0, 1} or about.get(7) != b"nat\0":
        raise _UnknownError
    return name, "ACCEPT" if known[1] else "DROP"


def _chain(about: dict[int, bytes], table: int, name: int) -> str:
    if about.get(table) != b"nat\0" or name not in about:
        raise _UnknownError
    return string(about[name])


@lru_cache(_MEMORY)
def _expression(data: bytes) -> tuple[str, dict[int, bytes]]:
    """Give kind and attributes of an expression, which nobody changes."""
    element = values(data)
    return string(element.get(1, b"")), values(element.get(2, b""))


def _rule(expressions: bytes) -> str:
    """Print what a rule asks and does."""
    asked: dict[str, str] = {}
    loaded = target = protocol = ""
    for _, start, end in attributes(expressions):
        kind, about = _expression(expressions[start:end])
        if target:
            raise _UnknownError  # nothing follows a verdict
        if kind == "payload":
            loaded = {
                (1, 12, 4): "-s",
                (1, 16, 4): "-d",
                (1, 9, 1): "-p",
                (2, 0, 2): "--sport",
                (2, 2, 2): "--dport",
            }.get((_number(about[2]), _number(about[3]), _number(about[4])), "")
        elif kind == "meta":
            loaded = "-p" if 1 in about and _number(about[2]) == 16 else ""  # NFT_META_L4PROTO  # noqa: PLR2004
        elif kind == "cmp":
            data = values(about[3]).get(1, b"")
            if not loaded or loaded in asked or _number(about[2]):  # NFT_CMP_EQ is 0
                raise _UnknownError
            asked[loaded] = _asked(loaded, data)
            protocol = asked[loaded] if loaded == "-p" else protocol
            loaded = ""
        elif kind == "immediate":
            target = _verdict(values(about.get(2, b"")).get(2, b""))
        elif kind == "target":
            target = _nat(string(about[1]), _number(about[2]), about[3])
        elif kind != "counter":
            raise _UnknownError
        if kind in {"payload", "meta"} and not loaded:
            raise _UnknownError
    ports = [f" {word} {asked[word]}" for word in ("--sport", "--dport") if word in asked]
    if ports and not protocol:
        raise _UnknownError
    found = "".join(f" {word} {asked[word]}" for word in ("-s", "-d", "-p") if word in asked)
    return found + (f" -m {protocol}{''.join(ports)}" if ports else "") + target


def _asked(word: str, data: bytes) -> str:
    if word in {"-s", "-d"}:
        return f"{address(data)}/32"
    if word == "-p":
        name = _PROTOCOLS.get(data[0])
        if name is None:
            raise _UnknownError
        return name
    return str(_number(data))


def _verdict(data: bytes) -> str:
    about = values(data)
    code = _number(about.get(1, b""), signed=True)
    if code in _VERDICTS and _TARGET in about:
        return f" {_VERDICTS[code]} {string(about[_TARGET])}"
    word = {-5: "RETURN", 0: "DROP", 1: "ACCEPT"}.get(code)
    if word is None or not about.get(1):
        raise _UnknownError
    return f" -j {word}"


def _nat(name: str, revision: int, data: bytes) -> str:
    if (name, revision) == ("DNAT", 2):
        flags, least, most, port, last = _DNAT_RANGE.unpack_from(data)
        count = 1
    elif (name, revision) == ("SNAT", 0):
        count, flags, least, most, port, last = _SNAT_RANGE.unpack_from(data)
    else:
        raise _UnknownError
    if count != 1 or flags & ~(_ADDRESSES | _PORTS) or not flags or least != most or port != last:
        raise _UnknownError
    where = address(least) if flags & _ADDRESSES else ""
    what = f":{_number(port)}" if flags & _PORTS else ""
    return f" -j {name} --to-{'destination' if name == 'DNAT' else 'source'} {where}{what}"


def _number(data: bytes, *, signed: bool = False) -> int:
    return int.from_bytes(data, "big", signed=signed)
