"""What conntrack does with a packet: finds the connection that it is of, and changes its ends as NAT has decided.

The order is that of linux/net/netfilter: nf_conntrack_core.c, nf_conntrack_proto_tcp.c, nf_nat_core.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.packets.evaluate import Connection
from doctor.packets.flow import ICMP, ICMP6, TCP, End, spelled

if TYPE_CHECKING:
    from doctor.packets.packet import Packet
    from doctor.packets.program import Hook
    from doctor.packets.site import Space
    from doctor.packets.stack import Stack


def track(stack: Stack, space: Space, packet: Packet) -> Connection | None:
    """Look the packet's connection up, as nf_conntrack_in does; the first packet of one makes it."""
    if packet.state == "untracked":
        return None
    held = stack.connections.setdefault(space.id, [])
    if stack.failing:  # an error belongs to the connection that it is about
        packet.state = "related" if packet.protocol != TCP else "established"
        if held:
            packet.original, packet.status, packet.connmark = held[0].original, held[0].status, held[0].mark
            packet.reply = True
        return None
    for one in held:
        if one.zone == packet.zone and packet.ends in {one.answer, one.original}:
            packet.reply = stack.answering and packet.ends == one.answer
            if packet.reply:
                one.replied = True
            if stack.standing and not one.replied:
                break
            stands = stack.standing or (stack.repeating and one.replied)
            packet.state = "established" if stack.answering or stands else "new"
            packet.original, packet.status, packet.connmark = one.original, one.status, one.mark
            return one
    packet.reply, packet.status, packet.connmark = False, frozenset(), 0
    if stack.standing or (stack.answering and packet.protocol in {TCP, ICMP, ICMP6}) or packet.state == "related":
        # tcp_new(): a SYN-ACK or RST starts nothing; tcp_conntracks[]: nor does an ACK to a SYN without an answer go on.
        packet.state, packet.original = "invalid", None
        return None
    made = Connection(packet.ends, packet.zone)
    held.append(made)
    packet.state, packet.original = "new", made.original
    return made


def nat(stack: Stack, space: Space, hook: Hook, packet: Packet, held: Connection | None) -> End | None:
    """Do what NAT does at a hook: by the rules for the first packet, by what they made of it for all others."""
    if held is None or packet.state in {"invalid", "untracked"}:
        return None
    there = hook in {"prerouting", "output"}
    if packet.reply:
        undo(stack, space, packet, held, there=there)
        return None
    if stack.standing or stack.repeating:
        if there and held.dst is not None:
            packet.dst, packet.dport = held.dst
        elif not there and held.src is not None:
            packet.src, packet.sport = held.src
        return None
    if (held.dst if there else held.src) is not None:
        return None
    machine = stack.machine(space)
    for base in machine.program.at(hook, stack.family(packet)):
        if base.kind != "nat":
            continue
        start = len(machine.hits)
        ended = machine.base(base, packet, held)
        stack.told(space, machine, start)
        if ended:
            return stack.stopped(space, ended, packet)
        if (held.dst if there else held.src) is not None:
            return None
    if there:
        held.dst = packet.dst, packet.dport
    else:
        held.src = packet.src, packet.sport
    return None


def undo(stack: Stack, space: Space, packet: Packet, held: Connection, *, there: bool) -> None:
    """Give an answer the ends back that its first packet had."""
    if stack.failing and packet.protocol in {ICMP, ICMP6} and ("snat" if there else "dnat") not in held.status:
        return  # nf_nat_icmp_reply_translation(): only what NAT has changed
    original = held.original
    if there and (packet.dst, packet.dport) != (original.src, original.sport):
        packet.dst, packet.dport = original.src, original.sport
        text = f"destination becomes {spelled(packet.dst, packet.dport, packet.version)} again"
        stack.step(space, "conntrack", text)
    elif not there and (packet.src, packet.sport) != (original.dst, original.dport):
        packet.src, packet.sport = original.dst, original.dport
        text = f"source becomes {spelled(packet.src, packet.sport, packet.version)} again"
        stack.step(space, "conntrack", text)
