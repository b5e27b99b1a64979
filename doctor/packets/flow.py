"""What is asked of the kernel, and what is said of a packet: a flow, the steps of its way, and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.model import Citation
from doctor.packets.packet import Version, spell
from doctor.packets.site import HOST

if TYPE_CHECKING:
    from doctor.packets.evaluate import Hit
    from doctor.packets.site import Space

OUTSIDE = "outside"
"""The network beyond the host's uplinks, as a source."""

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58

Outcome = Literal["delivered", "refused", "dropped", "rejected", "no-route", "unreachable", "leaves", "unknown"]


class Step(Struct, frozen=True):
    """One step of the way: in which namespace (by name), at which stage, what it was and what came of it."""

    space: str
    stage: str
    text: str
    cited: Citation | None = None
    effect: str = ""


class End(Struct, frozen=True):
    """Where a packet ends. `code` names why (`docs/packet-path.md` lists them), `step` is what decided.

    `iif` and `oif` are the devices that a rule which ended it saw, empty before they were known.
    """

    outcome: Outcome
    code: str = ""
    step: Step | None = None
    space: str = ""
    reject: str = ""
    iif: str = ""
    oif: str = ""


class Flow(Struct, frozen=True):
    """What is asked: `source` is a namespace's id or `outside`; `protocol` a number; `src` the source's address, or None."""

    source: str
    dst: int
    dport: int
    version: Version = 4
    protocol: int = TCP
    src: int | None = None


def spelled(address: int, port: int, version: Version) -> str:
    """Spell an end: the address, and the port where there is one."""
    text = spell(address, version)
    if not port:
        return text
    return f"[{text}]:{port}" if version == 6 else f"{text}:{port}"  # noqa: PLR2004 - IPv6


def code_of(hit: Hit, space: Space, flow: Flow, step: Step) -> str:
    """Name why a rule ended a packet: by whose chain it stands in."""
    chain, table = hit.chain.name, hit.chain.table
    if hit.chain.family in {"bridge", "netdev"}:
        return "BRIDGE_FAMILY_DROP" if hit.chain.family == "bridge" else "NETDEV_DROP"
    if space.id != HOST:
        return "SRC_FIREWALL" if space.id == flow.source else "DST_FIREWALL"
    lower = f"{table} {chain}".lower()
    if "raw" in lower:
        return "RAW_REMOTE_LOOPBACK" if "127." in step.text or "LOOPBACK" in step.text else "RAW_DIRECT_ACCESS"
    if hit.base.hook in {"input", "output"}:
        return "LOCAL_FIREWALL"
    if chain == "DOCKER-USER":
        return "DOCKER_USER_DROP"
    if "ISOLATION" in chain:
        return "ISOLATION"
    if chain == "DOCKER-INTERNAL" or "internal" in lower:
        return "INTERNAL_NET"
    if hit.cited == hit.chain.cited:
        return "FORWARD_POLICY"
    if chain == "DOCKER" or "UNPUBLISHED" in step.text:
        return "UNPUBLISHED_PORT"
    if hit.base.chain.table in {"filter", "docker-bridges"}:
        words = step.text.split(" ")
        if "-i" in words and "-o" in words and words[words.index("-i") + 1] == words[words.index("-o") + 1]:
            return "ICC_DISABLED"
        return "FORWARD_RULE"
    return "OTHER_BASE_CHAIN"
