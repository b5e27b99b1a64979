"""A flow, from its source to where it ends, and the answer back: what the client sees of it, and what decided.

A walk is concrete. What cannot be known is asked of `Unknowns`, and `follow` compares the walks with other answers: the
result is sure only where they all end alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.model import Citation
from doctor.packets.evaluate import Question, Unknowns
from doctor.packets.flow import ICMP, ICMP6, OUTSIDE, TCP, UDP, End, Flow, Step, spelled
from doctor.packets.full_size import Large, full_size
from doctor.packets.packet import ACK, RST, SYN, Packet, Tuple, Version, number
from doctor.packets.site import HOST, Site, Space
from doctor.packets.stack import Stack

if TYPE_CHECKING:
    from doctor.packets.program import Base

STRANGERS: dict[Version, str] = {4: "203.0.113.77", 6: "2001:db8:77::77"}
"""Clients outside that nobody knows by their address (RFC 5737, RFC 3849)."""

CLIENT_PORT = 40000
"""The port that a client takes: one of net.ipv4.ip_local_port_range."""

MOST = 64
"""Walks that are compared for one flow; six questions that all matter."""

Sees = Literal["connected", "timeout", "refused", "no-route", "unreachable", "reset"]
_REJECTED: dict[str, Sees] = {
    "reset": "refused",
    "port": "refused",
    "host": "unreachable",
    "admin": "unreachable",
    "proto": "refused",
    "net": "unreachable",
}


class Walk(Struct, frozen=True):
    """A flow, walked once: where the first packet and its answer ended, and what the client sees of it.

    `reply` is None where nothing is answered; `landed` is where the first packet went at last (namespace and ends),
    `proxied` what a docker-proxy sent on.
    """

    end: End
    reply: End | None
    sees: Sees
    steps: tuple[Step, ...]
    reply_steps: tuple[Step, ...]
    landed: tuple[str, Tuple] | None = None
    proxied: Walk | None = None
    asked: tuple[tuple[bool, Question], ...] = ()
    large: tuple[Large, ...] = ()
    """Where packets of full size do not fit, if that was asked for."""
    later: End | None = None
    """Where packets of the connection end, once it stands, if they do not arrive as its first one did."""

    @property
    def works(self) -> bool:
        """Whether the client is answered by the service."""
        return self.sees == "connected" and self.later is None and (self.proxied is None or self.proxied.works)

    @property
    def decider(self) -> End:
        """The end that decided: of the first packet, of what a docker-proxy sent, or of the answer."""
        if self.later is not None:
            return self.later
        if self.end.outcome == "delivered" and self.proxied is not None and not self.proxied.works:
            return self.proxied.decider
        if self.end.outcome in {"delivered", "refused", "leaves"} and self.reply is not None:
            bad = self.reply.outcome not in {"delivered", "leaves"}
            return self.reply if bad else self.end
        return self.end


class Result(Struct, frozen=True):
    """What would happen: `works` is None where it depends on `question`; `walk` is then one of the possible ways.

    `best` is then one on which it works, if one does where every answer is yes, or no, or all but one.
    """

    works: bool | None
    walk: Walk
    question: Question | None = None
    best: Walk | None = None

    @property
    def sees(self) -> Sees | None:
        """What the client sees; None where it depends."""
        return None if self.works is None else self.walk.sees


def follow(site: Site, flow: Flow, calls: list[tuple[Base, Packet]] | None = None, *, large: bool = False) -> Result:
    """Walk a flow with every answer to what cannot be known, and say what all walks have in common.

    With `large` packets of full size are walked as well, once a TCP connection stands.
    `calls` takes every base chain of the host that the first walk meets, with the packet as it came there.
    """
    walker = _Walker(site, flow, Unknowns(), large=large)
    walker.calls = calls
    first = walker.walk()
    if (end := first.decider).outcome == "unknown":  # it went where nothing was read: no answer makes that sure
        text = end.step.text if end.step is not None else "what was not read"
        cited = end.step.cited if end.step is not None else None
        return Result(None, first, Question(text, cited or Citation("netns/index", 0, text, end.space or HOST)))
    waiting = [(*(answer for answer, _ in first.asked[:at]), not first.asked[at][0]) for at in range(len(first.asked))]
    seen = 1
    while waiting:
        answers = waiting.pop(0)
        other = _Walker(site, flow, Unknowns(answers), large=large).walk()
        seen += 1
        if (other.works, other.sees) != (first.works, first.sees) or seen > MOST:
            nobody = _Walker(site, flow, Unknowns(rest=False), large=large).walk()
            best = next((one for one in (first, other, nobody) if one.works), None)
            return Result(None, first, other.asked[len(answers) - 1][1], best)
        waiting += [
            (*(answer for answer, _ in other.asked[:at]), not other.asked[at][0])
            for at in range(len(answers), len(other.asked))
        ]
    return Result(first.works, first)


class _Walker(Stack):
    """Walks one flow once; `depth` counts the docker-proxies on the way."""

    def __init__(self, site: Site, flow: Flow, unknowns: Unknowns, depth: int = 0, *, large: bool = False) -> None:
        super().__init__(site, flow, unknowns)
        self.depth = depth
        self.large = large
        self.synack: Packet = Packet(flow.version, flow.protocol, 0, 0, 0, 0)

    def walk(self) -> Walk:
        """Walk there, and back where something is answered."""
        flow = self.flow
        packet = Packet(flow.version, flow.protocol, flow.src or 0, CLIENT_PORT, flow.dst, flow.dport)
        packet.flags = SYN if flow.protocol == TCP else 0
        packet.icmp = 128 if flow.protocol == ICMP6 else 8
        if flow.protocol in {ICMP, ICMP6}:
            packet.sport = packet.dport = 0
        end = self.leave(packet)
        steps, self.steps = tuple(self.steps), []
        if end.outcome not in {"delivered", "refused", "leaves"} or self.first is None:
            return self.done(end, None, self.told_of(packet, end), steps)
        if end.outcome == "refused" and flow.protocol != TCP:
            told = self.error_arrives(self.site.spaces[end.space], packet, end)
            return self.done(end, None, "refused" if told else "timeout", steps)
        reply = self.answer(packet, end)
        if reply.outcome not in {"delivered", "leaves"}:
            return self.done(end, reply, self.repeated() or "timeout", steps)
        if end.outcome == "refused":
            return self.done(end, reply, "refused", steps)
        later = self.later()
        if later is not None:
            return self.done(end, reply, "reset" if later.outcome == "rejected" else "connected", steps, later=later)
        found = (
            full_size(self, self.leave, end, packet.mss, self.synack.mss) if self.large and flow.protocol == TCP else ()
        )
        lost = next((one for one in found if not one.told), None)
        if lost is not None:
            return self.done(end, reply, "connected", steps, later=lost.end, large=found)
        inner = self.proxy(end, packet)
        if inner is not None and not inner.works:
            return self.done(end, reply, "reset" if inner.sees != "timeout" else "connected", steps, inner)
        return self.done(end, reply, "connected", steps, inner, large=found)

    def later(self) -> End | None:
        """Walk a packet of the connection that now stands: rules may tell it from the first one. None where it arrives."""
        if self.flow.protocol != TCP or self.first is None:
            return None
        steps, landed, first = self.steps, self.landed, self.first
        self.steps, self.answering, self.standing, self.hops = [], False, True, 0
        end = self.leave(Packet(self.flow.version, TCP, first.src, first.sport, first.dst, first.dport, flags=ACK))
        self.landed, self.standing = landed, False
        if end.outcome in {"delivered", "refused", "leaves"}:
            self.steps = steps
            return None
        self.steps = [*steps, *self.steps]
        return end

    def repeated(self) -> Sees | None:
        """Walk the SYN that a client sends again when no answer comes: a rule may reject what was let through before."""
        if self.flow.protocol != TCP or self.first is None:
            return None
        steps, landed, first = self.steps, self.landed, self.first
        self.steps, self.answering, self.repeating, self.hops = [], False, True, 0
        packet = Packet(self.flow.version, TCP, first.src, first.sport, first.dst, first.dport, flags=SYN)
        end = self.leave(packet)
        told = self.told_of(packet, end) if end.outcome == "rejected" else None
        self.steps, self.landed, self.repeating = steps, landed, False
        return told

    def done(
        self,
        end: End,
        reply: End | None,
        sees: Sees,
        steps: tuple[Step, ...],
        inner: Walk | None = None,
        later: End | None = None,
        large: tuple[Large, ...] = (),
    ) -> Walk:
        """Put the walk together."""
        asked = tuple(self.unknowns.asked) if not self.depth else ()
        return Walk(end, reply, sees, steps, tuple(self.steps), self.landed, inner, asked, large, later)

    def told_of(self, packet: Packet, end: End) -> Sees:
        """Say what the sender learns of a packet that ended: an error has to find its way back like any packet."""
        if end.outcome == "no-route":
            return "no-route"
        if end.outcome not in {"rejected", "unreachable"} or self.first is None:
            return "timeout"
        space = self.site.spaces.get(end.space)
        if space is not None and not self.error_arrives(space, packet, end):
            return "timeout"
        if packet.protocol == UDP and (
            end.reject in {"host", "net"} or (not end.reject and end.code != "ROUTE_PROHIBIT")
        ):
            return "timeout"  # icmp_err_convert[]: to a datagram socket these are no error, it goes on waiting
        return _REJECTED.get(end.reject, "unreachable") if end.outcome == "rejected" else "unreachable"

    def error_arrives(self, space: Space, packet: Packet, end: End) -> bool:
        """Whether the error that a namespace sends reaches the sender; it is let through as RELATED, if at all."""
        steps, self.steps = self.steps, []
        held = self.connection(space, packet)
        target = held.original.src if held is not None else packet.src
        # icmp_send(): about a packet to an address of its own it comes from that one.
        own = packet.dst if space.holds(packet.dst, packet.version) else 0
        error = Packet(packet.version, ICMP if packet.version == 4 else ICMP6, own, 0, target, 0)  # noqa: PLR2004 - IPv4
        error.icmp = 3 if packet.version == 4 else 1  # noqa: PLR2004 - IPv4
        if end.reject == "reset":
            error = Packet(packet.version, TCP, packet.dst, packet.dport, packet.src, packet.sport, flags=RST | ACK)
        self.answering = self.failing = True
        arrived = self.emit(space, error)
        self.answering = self.failing = False
        self.steps = steps
        return arrived.outcome in {"delivered", "leaves"}

    def leave(self, packet: Packet) -> End:
        """Start: from a process, or from the network beyond an uplink."""
        if self.flow.source != OUTSIDE:
            return self.emit(self.site.spaces[self.flow.source], packet)
        packet.src = self.flow.src or number(STRANGERS[packet.version])
        self.first = self.first or packet.ends
        way = self.site.host.find(packet, src=0, dst=packet.src)
        device = way.dev if way.route is not None and way.route.type == "unicast" else ""
        if not device:
            return self.end("no-route", "NO_UPLINK", self.step(self.site.host, "route", "no way to the outside"))
        text = f"{packet.spell(packet.src)}, in on {device}, to {spelled(packet.dst, packet.dport, packet.version)}"
        self.steps.append(Step(OUTSIDE, "", text))
        return self.receive(self.site.host, device, packet)

    def answer(self, packet: Packet, end: End) -> End:
        """Lead the answer back, from where the packet arrived."""
        self.answering = True
        reply = Packet(packet.version, packet.protocol, packet.dst, packet.dport, packet.src, packet.sport)
        reply.flags = (RST | ACK if end.outcome == "refused" else SYN | ACK) if packet.protocol == TCP else 0
        reply.icmp = 129 if packet.protocol == ICMP6 else 0
        self.synack = reply
        if end.outcome != "leaves":
            return self.emit(self.site.spaces[end.space], reply)
        host = self.site.spaces[end.space]
        if not host.holds(packet.src, packet.version):
            step = self.steps[-1] if self.steps else None
            back = f"whether the network outside has a way back to {packet.spell(packet.src)}"
            cited = step.cited if step and step.cited else Citation("netns/host/routes", 0, back, "outside")
            if not self.unknowns.ask(Question(back, cited)):
                return self.end("dropped", "MASQ_MISSING", self.step(host, "outside", back))
        return self.receive(host, packet.oif, reply)

    def proxy(self, end: End, packet: Packet) -> Walk | None:
        """Walk what a docker-proxy of the host sends on, when that is who took the connection."""
        if end.space != HOST or end.outcome != "delivered" or self.depth:
            return None
        held = self._proxy(packet)
        if held is None:
            return None
        try:
            flow = Flow(
                HOST, number(held.container_ip), held.container, 6 if ":" in held.container_ip else 4, packet.protocol
            )
        except ValueError:
            return None
        return _Walker(self.site, flow, self.unknowns, self.depth + 1, large=self.large).walk()
