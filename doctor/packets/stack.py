"""What the kernel does with one packet: hooks, routing, bridges, from namespace to namespace, until it ends.

The order is that of linux/net, section by section: ip_output.c, ip_input.c, route.c, fib_frontend.c, br_input.c,
br_forward.c, br_netfilter_hooks.c. See `docs/packet-path.md` for what is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from doctor.model import Citation
from doctor.packets import tracking, wires
from doctor.packets.evaluate import Connection, Ended, Machine, Question, Unknowns
from doctor.packets.flow import ICMP, ICMP6, TCP, UDP, End, Flow, Outcome, Step, code_of, spelled
from doctor.packets.program import CONNTRACK, NAT_DST, Hook
from doctor.packets.site import HOST, Site, Space

if TYPE_CHECKING:
    from doctor.facts.links import Route
    from doctor.facts.proxies import Proxy
    from doctor.facts.routes import Way
    from doctor.packets.packet import Packet, Tuple
    from doctor.packets.program import Base

_BEFORE, _LAST = -(1 << 31), (1 << 31) - 1

_ROUTED = frozenset({"unicast", "local", "broadcast", "multicast"})
_NOWHERE = {"blackhole": "ROUTE_BLACKHOLE", "unreachable": "ROUTE_UNREACHABLE", "prohibit": "ROUTE_PROHIBIT"}
"""Types of routes, and actions of rules, that lead nowhere."""


class Stack:
    """The kernel, for one flow: what it remembers of the flow in each namespace, and the steps that it took.

    `answering` says that the packet goes back to the client, `failing` that it is an error about the first one,
    `standing` that its connection stands, `repeating` that it is the first one once more, since no answer came: where its
    answer was seen (`Connection.replied`) it is of a connection that stands. `first` are its ends as its sender sent it.
    """

    def __init__(self, site: Site, flow: Flow, unknowns: Unknowns) -> None:
        """Start with nothing remembered."""
        self.site = site
        self.flow = flow
        self.unknowns = unknowns
        self.steps: list[Step] = []
        self.connections: dict[str, list[Connection]] = {}
        self.machines: dict[str, Machine] = {}
        self.calls: list[tuple[Base, Packet]] | None = None
        self.first: Tuple | None = None
        self.answering = False
        self.failing = False
        self.standing = False
        self.repeating = False
        self.hops = 0
        self.landed: tuple[str, Tuple] | None = None
        self.tight: list[End] = []

    # Steps and ends

    def step(self, space: Space, stage: str, text: str, cited: Citation | None = None, effect: str = "") -> Step:
        """Note a step."""
        found = Step(space.name, stage, text, cited, effect)
        self.steps.append(found)
        return found

    def end(self, outcome: Outcome, code: str, step: Step | None = None, space: str = "", reject: str = "") -> End:
        """Say where it ends."""
        return End(outcome, code, step, space, reject)

    def stopped(self, space: Space, ended: Ended, packet: Packet) -> End:
        """Say which rule ended it."""
        step = self.steps[-1]
        outcome: Outcome = "rejected" if ended.reject else "dropped"
        code = code_of(ended.hit, space, self.flow, step)
        return End(outcome, code, step, space.id, ended.reject, packet.iif, packet.oif)

    # Hooks

    def machine(self, space: Space) -> Machine:
        """Give what runs a namespace's rules."""
        held = self.machines.get(space.id)
        if held is None:
            calls = self.calls if space.id == HOST else None
            held = self.machines[space.id] = Machine(space.program, space, self.unknowns, calls)
        return held

    def told(self, space: Space, machine: Machine, start: int) -> None:
        """Make steps of the rules that matched."""
        for hit in machine.hits[start:]:
            text = hit.cited.excerpt or hit.chain.name
            table = hit.chain.table if hit.chain.backend.startswith("iptables") else f"nft {hit.chain.table}"
            self.steps.append(Step(space.name, table, text, hit.cited, hit.effect))

    def family(self, packet: Packet) -> str:
        """Name the packet's family."""
        return "ip" if packet.version == 4 else "ip6"  # noqa: PLR2004 - IPv4

    def called(self, space: Space, hook: Hook, packet: Packet, first: int, last: int, family: str = "") -> End | None:
        """Run what a hook calls between two priorities, nat left out."""
        machine = self.machine(space)
        start = len(machine.hits)
        ended = machine.run(hook, family or self.family(packet), packet, first=first, last=last)
        self.told(space, machine, start)
        return self.stopped(space, ended, packet) if ended else None

    def before(self, space: Space, hook: Hook, packet: Packet) -> End | Connection | None:
        """Run prerouting or output up to and with destination NAT; gives the connection, or the end."""
        packet.state = "invalid"
        stop = self.called(space, hook, packet, _BEFORE, CONNTRACK - 1)
        if stop:
            return stop
        held = tracking.track(self, space, packet)
        stop = self.called(space, hook, packet, CONNTRACK, NAT_DST - 1) or tracking.nat(self, space, hook, packet, held)
        return stop or held

    def keep(self, packet: Packet, held: Connection | None) -> None:
        """Keep the connection's mark."""
        if held is not None:
            held.mark = packet.connmark

    def prerouting(self, space: Space, packet: Packet) -> End | None:
        """Run the hook."""
        held = self.before(space, "prerouting", packet)
        if isinstance(held, End):
            return held
        stop = self.called(space, "prerouting", packet, NAT_DST, _LAST)
        self.keep(packet, held)
        return stop

    def postrouting(self, space: Space, packet: Packet) -> End | None:
        """Run the hook, source NAT included."""
        held = self.connection(space, packet)
        stop = (
            self.called(space, "postrouting", packet, _BEFORE, 99)
            or tracking.nat(self, space, "postrouting", packet, held)
            or self.called(space, "postrouting", packet, 100, _LAST)
        )
        self.keep(packet, held)
        return stop

    def connection(self, space: Space, packet: Packet) -> Connection | None:
        """Give the connection that the packet was found to be of."""
        if packet.original is None:
            return None
        held = self.connections.get(space.id, ())
        return next((one for one in held if one.original == packet.original and one.zone == packet.zone), None)

    # Sending

    def emit(self, space: Space, packet: Packet) -> End:
        """Send what a process of a namespace sends: route, output, postrouting."""
        packet.iif, packet.oif, packet.mark, packet.zone, packet.original = "", "", 0, 0, None
        if space.missing and not self.unknowns.ask(_unknown(space)):
            return self.end("unknown", "UNKNOWN", self.step(space, "", space.missing))
        route = self.sourced(space, packet)
        if isinstance(route, End):
            return route
        if self.first is None:
            self.first = packet.ends
        packet.oif = "lo" if route.type == "local" else route.dev
        self.routed(space, packet, route)
        target, mark = packet.dst, packet.mark
        held = self.before(space, "output", packet)
        if isinstance(held, End):
            return held
        if packet.dst != target or packet.mark != mark:
            again = self.again(space, packet, route)
            if isinstance(again, End):
                return again
            route = again
        # The hook began with one device, and its later chains are told that one still (nf_hook_state).
        stop = self.called(space, "output", packet, NAT_DST, _LAST)
        self.keep(packet, held)
        if stop:
            return stop
        packet.oif = "lo" if route.type == "local" else route.dev
        stop = self.postrouting(space, packet)
        if stop:
            return stop
        if route.type == "local":
            return self.loop(space, packet)
        return wires.transmit(self, space, packet, route)

    def sourced(self, space: Space, packet: Packet) -> Route | End:
        """Find the way of what a process sends, and its source: then once more, as rules may ask for the source."""
        way = space.find(packet)
        route = way.route
        if route is None or route.type not in _ROUTED:
            return self.no_way(space, packet, way)
        if packet.src:
            return route
        source = space.source(packet, route) if route.type != "local" else packet.dst
        if source is None:
            return self.end("no-route", "NO_SOURCE", self.step(space, "route", f"no address on {route.dev}"), space.id)
        packet.src = source
        if self.failing:
            return route  # icmp_route_lookup() asks once
        way = space.find(packet)
        if way.route is None or way.route.type not in _ROUTED:
            return self.no_way(space, packet, way)
        return way.route

    def again(self, space: Space, packet: Packet, route: Route) -> Route | End:
        """Route anew what output has changed: ip_route_me_harder(). What then has no way is dropped without a word."""
        way = space.find(packet)
        found = way.route
        if found is None or found.type not in {"unicast", "local"}:
            return structs.replace(self.no_way(space, packet, way), outcome="dropped")
        if found != route:
            self.routed(space, packet, found)
        return found

    def routed(self, space: Space, packet: Packet, route: Route, more: str = "") -> None:
        """Note which way a packet takes."""
        text = f"{packet.spell(packet.dst)} is one of its own addresses" if route.type == "local" else route.by_hand
        self.step(space, "route", text + more, route.cited)

    def no_way(self, space: Space, packet: Packet, way: Way) -> End:
        """Say that no route leads on, for what a process sends: the kernel refuses it at once."""
        step, code = self.nowhere(space, packet, way)
        if code == "ROUTE_NONE" and not self.answering:
            code = "SRC_NO_ROUTE"
        return self.end("no-route", code, step, space.id)

    def nowhere(self, space: Space, packet: Packet, way: Way) -> tuple[Step, str]:
        """Note which route or rule leads nowhere, and name it."""
        route, rule = way.route, way.rule
        if route is not None:
            kind, text, cited = route.type, route.by_hand, route.cited
        elif rule is not None:
            kind, text, cited = rule.action, rule.by_hand, rule.cited
        else:
            kind, text, cited = "", f"no route to {packet.spell(packet.dst)}", None
        return self.step(space, "route", text, cited, "no route"), _NOWHERE.get(kind, "ROUTE_NONE")

    def loop(self, space: Space, packet: Packet) -> End:
        """Deliver what a namespace sends to itself: by lo, through prerouting and input; its connection goes with it."""
        packet.iif, packet.oif = "lo", ""
        held = self.connection(space, packet)
        state, original = packet.state, packet.original
        packet.state = state if held is not None or state == "untracked" else "invalid"
        stop = self.called(space, "prerouting", packet, _BEFORE, CONNTRACK - 1) or self.called(
            space, "prerouting", packet, CONNTRACK, _LAST
        )
        packet.original = original
        self.keep(packet, held)
        return stop or self.input(space, packet)

    # Receiving

    def receive(self, space: Space, iif: str, packet: Packet, *, filtered: bool = False) -> End:
        """Take a packet in by a device: prerouting, routing, and then input or forward."""
        self.hops += 1
        if self.hops > 32:  # noqa: PLR2004 - a ring of bridges; the kernel's TTL would end it later
            return self.end("dropped", "TTL_EXPIRED", self.step(space, "route", "it goes in circles"))
        packet.iif, packet.oif = iif, ""
        if not filtered:
            packet.mark, packet.zone, packet.original = 0, 0, None
            stop = self.ingress(space, iif, packet) or self.prerouting(space, packet)
            if stop:
                return stop
        if space.missing and not self.unknowns.ask(_unknown(space)):
            return self.end("unknown", "UNKNOWN", self.step(space, "", space.missing))
        return self.martian(space, packet) or self.directed(space, packet)

    def ingress(self, space: Space, device: str, packet: Packet) -> End | None:
        """Run what looks at a device before anything else: programs of XDP and tc, which are asked for, and chains of nft."""
        packet.iif = device
        lost = wires.doubted_in(self, space, space.links.get(device))
        if lost:
            return lost
        for base in space.program.at("ingress", "netdev"):
            if base.devices and device not in base.devices:
                continue
            machine = self.machine(space)
            if not base.devices and not self.bound(machine, base, device, packet):
                continue
            start = len(machine.hits)
            ended = machine.base(base, packet)
            self.told(space, machine, start)
            if ended:
                return self.stopped(space, ended, packet)
        return None

    def bound(self, machine: Machine, base: Base, device: str, packet: Packet) -> bool:
        """Whether a chain is bound to a device: before 1.0.7 nft does not say so in JSON. Asked where it would drop."""
        hits = len(machine.hits)
        ended = machine.base(base, structs.replace(packet))
        del machine.hits[hits:]
        if ended is None:
            return False
        text = f"whether chain {base.chain.table} {base.chain.name} of nftables is bound to {device}"
        return self.unknowns.ask(Question(text, base.chain.cited))

    def martian(self, space: Space, packet: Packet) -> End | None:
        """Refuse loopback addresses from the network, as ip_route_input_slow() does."""
        version = packet.version
        if not (space.loops(packet.dst, version) or space.loops(packet.src, version)):
            return None
        if version == 4 and any(  # noqa: PLR2004 - IPv4
            space.conf(4, name, "route_localnet") for name in ("all", packet.iif)
        ):
            return None
        held = space.sysctls.get(f"ipv4/conf/{packet.iif}/route_localnet")
        text = f"a loopback address from the network; route_localnet of {packet.iif} is 0"
        return self.end(
            "dropped", "MARTIAN_LOCALNET", self.step(space, "route", text, held.cited if held else None), space.id
        )

    def directed(self, space: Space, packet: Packet) -> End:
        """Look up where a packet that came in goes."""
        way = space.find(packet, packet.iif)
        route = way.route
        version = packet.version
        forwards = self.forwards(space, packet)
        if route is None or route.type not in {"unicast", "local"}:
            return self.astray(space, packet, way, forwards=forwards)
        if route.type == "local":
            self.routed(space, packet, route)
            return self.validated(space, packet) or self.input(space, packet)
        if not forwards:
            name = packet.iif if version == 4 else "all"  # noqa: PLR2004 - IPv4
            family = "ipv4" if version == 4 else "ipv6"  # noqa: PLR2004 - IPv4
            held = space.sysctls.get(f"{family}/conf/{name}/forwarding") or space.sysctls.get("ipv4/ip_forward")
            whole = version == 6 or not space.sysctl("ipv4/ip_forward", 1)  # noqa: PLR2004 - IPv6
            step = self.step(
                space, "route", f"{route.by_hand}; forwarding of {name} is 0", held.cited if held else None, "drop"
            )
            return self.end("dropped", "FORWARDING_OFF_GLOBAL" if whole else "FORWARDING_OFF_IFACE", step, space.id)
        return self.validated(space, packet) or self.forward(space, packet, route)

    def forwards(self, space: Space, packet: Packet) -> bool:
        """Whether what came in may go on: IPv4 asks the interface it came in by, IPv6 the namespace as a whole."""
        if packet.version == 6:  # noqa: PLR2004 - IPv6
            return bool(space.conf(6, "all", "forwarding"))
        return bool(space.conf(4, packet.iif, "forwarding", space.sysctl("ipv4/ip_forward")))

    def astray(self, space: Space, packet: Packet, way: Way, *, forwards: bool) -> End:
        """Say what becomes of a packet that came in and has no way: ip_error() tells only where the host forwards."""
        step, code = self.nowhere(space, packet, way)
        silent = code == "ROUTE_BLACKHOLE" or not forwards
        silent = silent or (way.route is not None and way.route.type in {"broadcast", "multicast"})
        return self.end("dropped" if silent else "unreachable", code, step, space.id)

    def validated(self, space: Space, packet: Packet) -> End | None:
        """Check the way back to the source, as fib_validate_source() does."""
        version, device = packet.version, packet.iif
        if version != 4 or device == "lo":  # noqa: PLR2004 - rp_filter is IPv4's
            return None
        mode = max(space.conf(4, "all", "rp_filter"), space.conf(4, device, "rp_filter"))
        back = space.find(packet, device, src=packet.dst, dst=packet.src).route
        if back is not None and back.type == "local":
            if space.conf(4, device, "accept_local") or space.conf(4, "all", "accept_local"):
                return None
            step = self.step(space, "route", f"{packet.spell(packet.src)} is an address of its own", back.cited, "drop")
            return self.end("dropped", "MARTIAN_SOURCE", step, space.id)
        if not mode or (back is not None and (device in back.devs or (mode == 2 and back.dev))):  # noqa: PLR2004 - loose
            return None
        held = space.sysctls.get(f"ipv4/conf/{device}/rp_filter")
        leads = f"the way back to {packet.spell(packet.src)} is by {back.dev}" if back else "there is no way back"
        text = f"{leads}, not by {device}; rp_filter is {mode}"
        return self.end(
            "dropped", "RP_FILTER", self.step(space, "route", text, held.cited if held else None, "drop"), space.id
        )

    def forward(self, space: Space, packet: Packet, route: Route) -> End:
        """Forward: TTL, the hook, postrouting, and out."""
        more = f"; forwarding of {packet.iif} is 1" if packet.version == 4 else ""  # noqa: PLR2004 - IPv4
        self.routed(space, packet, route, more)
        if packet.ttl <= 1:
            # ip_forward() tells the sender (time exceeded): tcp_v4_err() takes that for a host that is not reached.
            return self.end("unreachable", "TTL_EXPIRED", self.step(space, "route", "its TTL is used up"), space.id)
        packet.ttl -= 1
        packet.oif = route.dev
        large = self.too_large(space, packet, route)
        if large:
            return large
        stop = self.called(space, "forward", packet, _BEFORE, _LAST) or self.postrouting(space, packet)
        return stop or wires.transmit(self, space, packet, route)

    def too_large(self, space: Space, packet: Packet, route: Route) -> End | None:
        """End a packet that does not fit into the next link: ip_forward() tells its sender, whose packets say DF."""
        link = space.links.get(route.dev)
        takes = route.mtu or (link.mtu if link is not None else 0)
        if not packet.size or not takes or packet.size <= takes:
            return None
        text = f"{route.dev} takes packets of {takes} bytes, not of {packet.size}"
        return End(
            "rejected", "MTU_DF", self.step(space, "link", text, link.cited if link else None, "drop"), space.id, "size"
        )

    def input(self, space: Space, packet: Packet) -> End:
        """Deliver to a process of the namespace, if one listens."""
        packet.oif = ""
        held = self.connection(space, packet)
        stop = (
            self.called(space, "input", packet, _BEFORE, 99)
            or tracking.nat(self, space, "input", packet, held)
            or self.called(space, "input", packet, 100, _LAST)
        )
        self.keep(packet, held)
        if stop:
            return stop
        if self.answering:
            return self.arrived(space, packet)
        self.landed = (space.id, packet.ends)
        if packet.protocol in {ICMP, ICMP6}:
            self.step(space, "", "the kernel answers")
            return self.end("delivered", "", None, space.id)
        name = {TCP: "tcp", UDP: "udp"}.get(packet.protocol, "")
        target = packet.spell(packet.dst)
        listener = space.listener(name, target, packet.dport)
        if listener is None:
            return self.refused(space, packet, name, target)
        if listener.full:
            text = f"{listener.address}:{listener.port} has no room: more connections wait to be accepted than it lets wait"
            return self.end(
                "dropped", "DST_BACKLOG_FULL", self.step(space, "listens", text, listener.cited, "drop"), space.id
            )
        proxy = self._proxy(packet) if space.id == HOST else None
        who = f", docker-proxy (pid {proxy.pid}) to {proxy.container_ip}:{proxy.container}" if proxy else ""
        self.step(space, "listens", f"{listener.address}:{listener.port}{who}", listener.cited)
        return self.end("delivered", "PROXY_PATH" if proxy else "", None, space.id)

    def refused(self, space: Space, packet: Packet, name: str, target: str) -> End:
        """Nobody listens: the kernel says so to the sender."""
        others = [one for one in space.listeners if (one.protocol, one.port) == (name, packet.dport)]
        text = f"nobody listens on {target}:{packet.dport}"
        if others:
            text += f", only on {', '.join(sorted({one.address for one in others}))}"
        step = self.step(space, "listens", text, others[0].cited if others else None)
        return self.end("refused", "DST_LISTEN_ADDR" if others else "DST_NO_LISTENER", step, space.id)

    def arrived(self, space: Space, packet: Packet) -> End:
        """An answer reached a namespace: the client's socket takes it only from whom it asked."""
        wanted = self.first.back if self.first else packet.ends
        if space.id == self.flow.source and (self.failing or packet.ends == wanted):
            return self.end("delivered", "", None, space.id)
        got = spelled(packet.src, packet.sport, packet.version)
        text = f"the answer comes from {got}, the client asked {spelled(wanted.src, wanted.sport, packet.version)}"
        step = self.step(space, "socket", text, None, "reset")
        return self.end("dropped", "REPLY_BYPASSES_HOST", step, space.id)

    def _proxy(self, packet: Packet) -> Proxy | None:
        name = "udp" if packet.protocol == UDP else "tcp"
        target = packet.spell(packet.dst)
        held = self.site.proxies.get((name, packet.dport), ())
        return next((one for one in held if one.host_ip in {"", "0.0.0.0", "::", target}), None)  # noqa: S104 - any


def _unknown(space: Space) -> Question:
    return Question(f"what is in the namespace of {space.name}", Citation("netns/index", 0, space.missing, space.name))
