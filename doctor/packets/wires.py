"""What links do with a packet: veths, bridges and their ports, and who answers for an address on them.

The order is that of linux/net/bridge: br_input.c, br_forward.c, br_netfilter_hooks.c, and of drivers/net/veth.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.packets.evaluate import Question
from doctor.packets.flow import OUTSIDE, End, spelled
from doctor.packets.packet import Packet, Version, number, spell
from doctor.packets.site import HOST, Port, Space

if TYPE_CHECKING:
    from doctor.facts.links import Link, Route
    from doctor.packets.program import Hook
    from doctor.packets.stack import Stack

_BEFORE, _LAST = -(1 << 31), (1 << 31) - 1
_TAG = 4
"""What a link takes over its MTU: room for a VLAN tag."""


def transmit(stack: Stack, space: Space, packet: Packet, route: Route) -> End:
    """Hand a packet to a device, toward the next hop."""
    link = space.links.get(route.dev)
    hop = number(route.gateway) if route.gateway else packet.dst
    if link is None:
        return stack.end("unknown", "UNKNOWN", stack.step(space, "link", f"{route.dev} is not there"), space.id)
    if not link.up:
        step = stack.step(space, "link", f"{link.name} is down", link.cited, "drop")
        return stack.end("unreachable", "SRC_LINK_DOWN" if space.id != HOST else "BRIDGE_DOWN", step, space.id)
    lost = doubted(stack, space, link)
    if lost:
        return lost
    fixed = _mac(space, link, hop, packet.version, ("PERMANENT", "NOARP"))
    if not fixed and stack.site.owner(hop, packet.version) is None:  # nobody would answer, and nobody is asked yet
        fixed = _mac(space, link, hop, packet.version, ("REACHABLE", "STALE", "DELAY", "PROBE"))
    if link.kind == "bridge":
        return bridge_out(stack, space, link, packet, hop, fixed)
    peer = stack.site.peers.get((space.id, link.name))
    if peer is not None:
        return veth(stack, space, peer, packet, hop, fixed)
    return beyond(stack, space, link, packet)


def doubted(stack: Stack, space: Space, link: Link) -> End | None:
    """Ask whether a link lets a packet through, where it may not and what decides is not read."""
    if not link.doubt or stack.unknowns.ask(Question(link.doubt, link.cited)):
        return None
    code = "BR_VLAN_MISMATCH" if link.kind == "bridge" else "TC_DROP"
    return stack.end("dropped", code, stack.step(space, "link", link.doubt, link.cited, "drop"), space.id)


def doubted_in(stack: Stack, space: Space, link: Link | None) -> End | None:
    """Ask whether a link lets a packet in, where a program decides that is not read."""
    if link is None or not link.doubt_in or stack.unknowns.ask(Question(link.doubt_in, link.cited)):
        return None
    return stack.end("dropped", "TC_DROP", stack.step(space, "link", link.doubt_in, link.cited, "drop"), space.id)


def beyond(stack: Stack, space: Space, link: Link, packet: Packet) -> End:
    """It leaves the host."""
    text = f"leaves by {link.name} as {spelled(packet.src, packet.sport, packet.version)}"
    step = stack.step(space, "link", text, link.cited)
    if not stack.answering:
        stack.landed = (OUTSIDE, packet.ends)
        return stack.end("leaves", "", step, space.id)
    if stack.flow.source == OUTSIDE and stack.first and (stack.failing or packet.ends == stack.first.back):
        return stack.end("leaves", "", step, space.id)
    return stack.end("dropped", "REPLY_ASTRAY", step, space.id)


def veth(stack: Stack, space: Space, peer: Port, packet: Packet, hop: int, fixed: str) -> End:
    """Send by a veth: into a namespace, or into a port of a bridge."""
    other = stack.site.spaces[peer[0]]
    end = other.links[peer[1]]
    if not end.up:
        step = stack.step(other, "veth", f"{end.name} is down", end.cited, "drop")
        return stack.end("unreachable", "VETH_DOWN", step, other.id)
    squeeze(stack, other, packet, end)
    bridge = other.links.get(end.master) if end.master else None
    if bridge is None:
        return arrives(stack, space, other, end, packet, hop, fixed)
    stack.step(other, "veth", f"{end.name}, port of {bridge.name}", end.cited)
    return bridged(stack, other, bridge, end, packet, hop, fixed)


def squeeze(stack: Stack, space: Space, packet: Packet, link: Link) -> None:
    """Note a link of a bridge or veth that takes less: is_skb_forwardable() drops a single packet, and tells nobody.

    What TCP sends in one large piece, to be cut by the last link (GSO), passes; so most transfers do (measured).
    """
    if packet.size and packet.size > link.mtu + _TAG:
        text = f"{link.name} takes packets of {link.mtu} bytes, not of {packet.size}"
        stack.tight.append(End("delivered", "MTU_DF", stack.step(space, "link", text, link.cited), space.id))


def arrives(stack: Stack, sender: Space, space: Space, end: Link, packet: Packet, hop: int, fixed: str) -> End:
    """Arrive in a namespace by a link, if it holds the address that was asked for."""
    if fixed and fixed != end.mac:
        step = stack.step(sender, "neighbour", f"{packet.spell(hop)} is at {fixed} for ever; it has {end.mac}", None)
        return stack.end("dropped", "NEIGH_WRONG_MAC", step, sender.id)
    if not fixed and not space.holds(hop, packet.version):
        return silent(stack, sender, packet, hop, end)
    return stack.receive(space, end.name, packet)


def silent(stack: Stack, sender: Space, packet: Packet, hop: int, link: Link | None = None) -> End:
    """Nobody has the address of the next hop."""
    text = f"nobody answers for {packet.spell(hop)}"
    step = stack.step(sender, "neighbour", text, link.cited if link else None, "drop")
    return stack.end("unreachable", "NEIGH_FAILED", step, sender.id)


def bridged(stack: Stack, space: Space, bridge: Link, port: Link, packet: Packet, hop: int, fixed: str) -> End:
    """Take a frame in by a port of a bridge."""
    version = packet.version
    if not bridge.up:
        return stack.end(
            "unreachable", "BRIDGE_DOWN", stack.step(space, "bridge", f"{bridge.name} is down", bridge.cited)
        )
    if port.port_state not in {"forwarding", ""}:
        text = f"port {port.name} is {port.port_state}"
        return stack.end("unreachable", "BR_PORT_STATE", stack.step(space, "bridge", text, port.cited, "drop"))
    target = doubted(stack, space, bridge) or neighbour(stack, space, bridge, port, hop, version, fixed)
    if isinstance(target, End):
        return target
    if target is None:
        return silent(stack, stack.site.spaces[stack.site.peers[space.id, port.name][0]], packet, hop, bridge)
    packet.mark, packet.zone, packet.original, packet.iif, packet.oif = 0, 0, None, bridge.name, ""
    packet.physin = port.name
    stop = stack.ingress(space, port.name, packet) or frames(stack, space, "prerouting", packet, bridge)
    if stop:
        return stop
    packet.iif = bridge.name
    called = space.id == HOST and stack.site.filters_bridged(bridge, version)
    if called:
        before = packet.dst
        stop = stack.prerouting(space, packet)
        if stop:
            return stop
        if packet.dst != before:
            target = redirected(stack, space, bridge, packet)
            if isinstance(target, End):
                return target
    if target == (space.id, bridge.name):
        packet.physin = ""
        stop = stack.ingress(space, bridge.name, packet)
        return stop or stack.receive(space, bridge.name, packet, filtered=called)
    return across(stack, space, bridge, port, packet, target, called=called)


def redirected(stack: Stack, space: Space, bridge: Link, packet: Packet) -> Port | End:
    """Find where a frame goes whose address NAT changed: br_nf_pre_routing_finish()."""
    mine = (space.id, bridge.name)
    route = space.find(packet, bridge.name).route
    if route is None or route.type != "unicast" or route.dev != bridge.name:
        return mine
    hop = number(route.gateway) if route.gateway else packet.dst
    found = neighbour(stack, space, bridge, None, hop, packet.version, "")
    if found is None:
        return silent(stack, space, packet, hop, bridge)
    stack.step(space, "bridge", f"{route.by_hand}: stays on the bridge", route.cited)
    return found


def across(stack: Stack, space: Space, bridge: Link, port: Link, packet: Packet, target: Port, *, called: bool) -> End:
    """Forward a frame from one port of a bridge to another one."""
    out = port_to(stack, space, target)
    if out is None:
        return stack.end("unknown", "UNKNOWN", stack.step(space, "bridge", "no port leads there", bridge.cited))
    if out.name == port.name and not port.hairpin:
        step = stack.step(space, "bridge", f"back by {port.name}, whose hairpin is off", port.cited, "drop")
        return stack.end("dropped", "BR_NO_HAIRPIN", step, space.id)
    packet.physout = out.name
    packet.oif = bridge.name
    stop = frames(stack, space, "forward", packet, bridge)
    if not stop and called:
        stop = stack.called(space, "forward", packet, _BEFORE, _LAST) or stack.postrouting(space, packet)
    if not called and not stop:
        stack.step(space, "bridge", f"{bridge.name} to port {out.name}; iptables does not see it", out.cited)
    packet.physin = packet.physout = ""
    return stop or into(stack, space, out, target, packet)


def into(stack: Stack, space: Space, out: Link, target: Port, packet: Packet) -> End:
    """Go out by a port of a bridge, into the namespace behind it."""
    lost = doubted(stack, space, out)
    if lost:
        return lost
    other = stack.site.spaces[target[0]]
    squeeze(stack, space, packet, out)
    if other.id == space.id:
        return beyond(stack, space, out, packet)
    squeeze(stack, other, packet, at(stack, target))
    return stack.receive(other, target[1], packet)


def bridge_out(stack: Stack, space: Space, bridge: Link, packet: Packet, hop: int, fixed: str) -> End:
    """Send by a bridge of the namespace itself."""
    target = neighbour(stack, space, bridge, None, hop, packet.version, fixed)
    if isinstance(target, End):
        return target
    if target is None:
        return silent(stack, space, packet, hop, bridge)
    out = port_to(stack, space, target)
    if out is None:
        return silent(stack, space, packet, hop, bridge)
    stop = frames(stack, space, "output", packet, bridge)
    if stop:
        return stop
    stack.step(space, "bridge", f"{bridge.name} to port {out.name}", out.cited)
    return into(stack, space, out, target, packet)


def frames(stack: Stack, space: Space, hook: Hook, packet: Packet, bridge: Link) -> End | None:
    """Run nft's chains of the family bridge; they see the ports as devices."""
    if not any(base.chain.family == "bridge" for base in space.program.bases):
        return None
    devices = packet.iif, packet.oif
    packet.iif, packet.oif = packet.physin or bridge.name, packet.physout
    stop = stack.called(space, hook, packet, _BEFORE, _LAST, "bridge")
    packet.iif, packet.oif = devices
    return stop


def port_to(stack: Stack, space: Space, target: Port) -> Link | None:
    """Give the port of a bridge that leads to a link."""
    if target[0] == space.id:
        return space.links.get(target[1])
    near = stack.site.peers.get(target)
    return space.links.get(near[1]) if near is not None and near[0] == space.id else None


def neighbour(
    stack: Stack, space: Space, bridge: Link, port: Link | None, hop: int, version: Version, fixed: str
) -> Port | End | None:
    """Give the link that answers for an address on a bridge: the bridge itself, or what is behind one of its ports.

    With a MAC that is fixed for ever only the link that has it gets the frame.
    """
    if port is not None and (bridge.mac == fixed if fixed else space.holds(hop, version)):
        return space.id, bridge.name
    if fixed:
        found = [(peer, link) for peer, link in ends(stack, space, bridge) if at(stack, peer).mac == fixed]
    else:
        found = stack.site.wiring.behind(stack.site, space, bridge.name, hop, version)
        # A namespace answers for the addresses of its other links, too.
        others = ends(stack, space, bridge) if not found else ()
        found = found or [(peer, link) for peer, link in others if stack.site.spaces[peer[0]].holds(hop, version)]
    stopped = None
    for peer, link in found:
        stopped = shut(stack, space, port, link, peer)
        if stopped is None:
            return peer
    if fixed and not found:
        step = stack.step(space, "neighbour", f"no port leads to {fixed}, which {spell(hop, version)} is said to have")
        return stack.end("dropped", "NEIGH_WRONG_MAC", step, space.id)
    ports = stack.site.wiring.ports(space, bridge.name) if stopped is None else ()
    return stopped or unread(
        stack, space, bridge, [link for link in ports if link.up and (space.id, link.name) not in stack.site.peers]
    )


def ends(stack: Stack, space: Space, bridge: Link) -> list[tuple[Port, Link]]:
    """Give what is on the other side of a bridge's ports, each with its port."""
    ports = stack.site.wiring.ports(space, bridge.name)
    peers = [(stack.site.peers.get((space.id, link.name)), link) for link in ports]
    return [(peer, link) for peer, link in peers if peer is not None]


def at(stack: Stack, port: Port) -> Link:
    """Give a link by where it is."""
    return stack.site.links[port[0]][port[1]]


def unread(stack: Stack, space: Space, bridge: Link, ports: list[Link]) -> Port | End | None:
    """Say what of ports whose other end is not known: a veth leads to a namespace unread, anything else outside."""
    beyond = next((link for link in ports if link.kind != "veth"), None)
    if beyond is not None:
        return space.id, beyond.name
    if not ports:
        return None
    text = f"what is behind {ports[0].name}, port of {bridge.name}"
    if not stack.unknowns.ask(Question(text, ports[0].cited)):
        return None
    return stack.end("unknown", "UNKNOWN", stack.step(space, "veth", text, ports[0].cited), space.id)


def shut(stack: Stack, space: Space, port: Link | None, link: Link, peer: Port) -> End | None:
    """Say why a port of a bridge takes nothing from another one."""
    end = at(stack, peer)
    if not link.up or not end.up:
        down, where = (link, space) if not link.up else (end, stack.site.spaces[peer[0]])
        step = stack.step(where, "veth", f"{down.name} is down", down.cited, "drop")
        return stack.end("unreachable", "VETH_DOWN", step, where.id)
    if link.port_state not in {"forwarding", ""}:
        step = stack.step(space, "bridge", f"port {link.name} is {link.port_state}", link.cited, "drop")
        return stack.end("unreachable", "BR_PORT_STATE", step, space.id)
    if port is not None and port.isolated and link.isolated:
        text = f"ports {port.name} and {link.name} are isolated from each other"
        return stack.end("unreachable", "BR_PORT_ISOLATED", stack.step(space, "bridge", text, link.cited, "drop"))
    return None


def _mac(space: Space, link: Link, hop: int, version: Version, states: tuple[str, ...]) -> str:
    """Give the MAC that the neighbour table has for a next hop, in one of these states; empty for none."""
    target = spell(hop, version)
    held = (one for one in space.neighbours if one.dev == link.name and one.address == target)
    return next((one.mac for one in held if one.state in states), "")
