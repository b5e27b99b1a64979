"""Packets of full size, once a connection stands: do they fit into every link, and is their sender told where they do not?

Both ends announce what segments they take (MSS): what is sent is as large as the smaller of the two allows, or less where a
rule lowered what a SYN announced. Every packet of TCP says that it must not be cut (DF), so one that does not fit ends, and
its sender is told by ICMP, or (ICMPv6) by packet too big. Where that does not come back the sender goes on sending what
nobody gets: the connection hangs. RFC 1191, RFC 8201, RFC 2923.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, End
from doctor.packets.packet import ACK, Packet
from doctor.packets.site import headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.packets.flow import Step
    from doctor.packets.stack import Stack

ETHERNET = 1500
"""What those outside are taken to send: the MTU of Ethernet."""

_LINKS = 4
"""Narrower links, one after another, that a sender is told of."""


class Large(Struct, frozen=True):
    """Where packets of one direction do not fit: how large they are, what the link takes, and whether the sender is told.

    `back` says that they are answers. `end` is where they end; `stopped` is where the error ends that does not come back,
    None where there is none, or where it comes back. `single` says that packets are lost which are sent one by one, and
    nobody is told: by a veth or a port of a bridge, which lets pass what TCP sends in one large piece.
    """

    size: int
    takes: int
    back: bool
    told: bool
    end: End
    stopped: End | None = None
    single: bool = False


def full_size(walker: Stack, leave: Callable[[Packet], End], end: End, there: int, back: int) -> tuple[Large, ...]:
    """Walk packets of full size of a connection that stands, both ways.

    `leave` starts a packet as its sender does; `there` and `back` are what rules let the SYN and its answer announce, 0
    for no such rule.
    """
    first = walker.first
    if first is None:
        return ()
    client, server = _client(walker), _server(walker, end)
    least = min(client, server)
    head = headers(walker.flow.version)
    sizes = ((False, min(least, back + head if back else least)), (True, min(least, there + head if there else least)))
    steps, landed = walker.steps, walker.landed
    found: list[Large] = []
    for answers, size in sizes:
        for _ in range(_LINKS):
            one = _walk(walker, leave, end, size, answers=answers)
            if one is None:
                break
            found.append(one)
            if not one.told or one.takes >= size:
                break
            size = one.takes  # noqa: PLW2901 - it is told, and sends less
        found += [
            Large(size, _taken(one.step), answers, True, one, single=True)  # noqa: FBT003 - it passes
            for one in {one.step.text: one for one in walker.tight if one.step is not None}.values()
        ]
        walker.tight = []
    walker.steps, walker.landed = steps, landed
    _reset(walker)
    return tuple(found)


def _client(walker: Stack) -> int:
    if walker.flow.source == OUTSIDE or walker.first is None:
        return ETHERNET
    first = walker.first
    packet = Packet(walker.flow.version, TCP, first.src, first.sport, first.dst, first.dport)
    return walker.site.spaces[walker.flow.source].takes(packet) or ETHERNET


def _server(walker: Stack, end: End) -> int:
    if walker.landed is None or walker.landed[0] == OUTSIDE:
        return ETHERNET
    ends = walker.landed[1]
    packet = Packet(walker.flow.version, TCP, ends.dst, ends.dport, ends.src, ends.sport)
    return walker.site.spaces[end.space].takes(packet) or ETHERNET


def _reset(walker: Stack) -> None:
    walker.answering = walker.standing = walker.failing = False


def _walk(walker: Stack, leave: Callable[[Packet], End], end: End, size: int, *, answers: bool) -> Large | None:
    """Walk one packet of this size; None where it arrives, or ends for another reason."""
    first, landed = walker.first, walker.landed
    if first is None or landed is None:
        return None
    walker.steps, walker.hops, walker.tight = [], 0, []
    walker.answering, walker.standing = answers, not answers
    version = walker.flow.version
    if answers:
        ends = landed[1]
        packet = Packet(version, TCP, ends.dst, ends.dport, ends.src, ends.sport, flags=ACK, size=size)
        if landed[0] == OUTSIDE:
            space = walker.site.host
            device = _uplink(walker, packet)
            arrived = walker.receive(space, device, packet) if device else None
        else:
            arrived = walker.emit(walker.site.spaces[end.space], packet)
    else:
        packet = Packet(version, TCP, first.src, first.sport, first.dst, first.dport, flags=ACK, size=size)
        arrived = leave(packet)
    _reset(walker)
    walker.landed = landed
    if arrived is None or arrived.code != "MTU_DF":
        return None
    takes = _taken(arrived.step)
    stopped = _error(walker, arrived, packet, answers=answers)
    return Large(size, takes, answers, stopped is None, arrived, stopped)


def _uplink(walker: Stack, packet: Packet) -> str:
    way = walker.site.host.find(packet, src=0, dst=packet.src)
    return way.dev if way.route is not None and way.route.type == "unicast" else ""


def _taken(step: Step | None) -> int:
    """Read what a link takes out of the step that says it."""
    words = step.text.partition(" takes packets of ")[2].split(" ") if step is not None else [""]
    return int(words[0]) if words[0].isdecimal() else 0


def _error(walker: Stack, end: End, packet: Packet, *, answers: bool) -> End | None:
    """Walk the error back to the sender; gives where it ends instead, None where it arrives."""
    space = walker.site.spaces[end.space]
    landed = walker.landed
    held = walker.connection(space, packet)
    target = packet.src if answers or held is None else held.original.src
    error = Packet(packet.version, ICMP if packet.version == 4 else ICMP6, 0, 0, target, 0)  # noqa: PLR2004 - IPv4
    error.icmp = 3 if packet.version == 4 else 2  # noqa: PLR2004 - IPv4; packet too big
    walker.steps, walker.hops = [], 0
    walker.failing, walker.answering = True, not answers
    arrived = walker.emit(space, error)
    _reset(walker)
    walker.landed = landed
    return None if arrived.outcome in {"delivered", "leaves"} else arrived
