"""What the kernel does with one packet: hooks, routing, bridges, from namespace to namespace, until it ends.

The order is that of linux/net, section by section: ip_output.c, ip_input.c, route.c, fib_frontend.c, br_input.c,
br_forward.c, br_netfilter_hooks.c. See `docs/packet-path.md` for what is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, structs

from doctor.model import Citation
from doctor.packets.evaluate import Connection, Ended, Hit, Machine, Question, Unknowns
from doctor.packets.packet import Packet, Tuple, Version, number, spell
from doctor.packets.program import CONNTRACK, NAT_DST, Hook
from doctor.packets.site import HOST, Port, Site, Space

if TYPE_CHECKING:
    from doctor.facts.links import Link, Route
    from doctor.facts.proxies import Proxy
    from doctor.facts.routes import Way
    from doctor.packets.program import Base

OUTSIDE = "outside"
"""The network beyond the host's uplinks, as a source."""

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58

_TAG = 4
"""What a link takes over its MTU: room for a VLAN tag."""

_BEFORE, _LAST = -(1 << 31), (1 << 31) - 1

Outcome = Literal["delivered", "refused", "dropped", "rejected", "no-route", "unreachable", "leaves", "unknown"]

_ROUTED = frozenset({"unicast", "local", "broadcast", "multicast"})
_NOWHERE = {"blackhole": "ROUTE_BLACKHOLE", "unreachable": "ROUTE_UNREACHABLE", "prohibit": "ROUTE_PROHIBIT"}
"""Types of routes, and actions of rules, that lead nowhere."""


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


class Stack:
    """The kernel, for one flow: what it remembers of the flow in each namespace, and the steps that it took.

    `answering` says that the packet goes back to the client, `failing` that it is an error about the first one,
    `standing` that its connection stands, `repeating` that it is the first one once more, since no answer came: where its
    answer was seen (`replied`) it is of a connection that stands. `first` are its ends as its sender sent it.
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
        self.replied: set[str] = set()
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

    def track(self, space: Space, packet: Packet) -> Connection | None:
        """Look the packet's connection up, as nf_conntrack_in does; the first packet of one makes it."""
        if packet.state == "untracked":
            return None
        held = self.connections.setdefault(space.id, [])
        if self.failing:  # an error belongs to the connection that it is about
            packet.state = "related" if packet.protocol != TCP else "established"
            if held:
                packet.original, packet.status, packet.connmark = held[0].original, held[0].status, held[0].mark
                packet.reply = True
            return None
        for one in held:
            if one.zone == packet.zone and packet.ends in {one.answer, one.original}:
                packet.reply = self.answering and packet.ends == one.answer
                if packet.reply:
                    self.replied.add(space.id)
                stands = self.standing or (self.repeating and space.id in self.replied)
                packet.state = "established" if self.answering or stands else "new"
                packet.original, packet.status, packet.connmark = one.original, one.status, one.mark
                return one
        packet.reply, packet.status, packet.connmark = False, frozenset(), 0
        if self.standing or (self.answering and packet.protocol in {TCP, ICMP, ICMP6}) or packet.state == "related":
            packet.state, packet.original = "invalid", None  # tcp_new(): a SYN-ACK or RST starts nothing
            return None
        made = Connection(packet.ends, packet.zone)
        held.append(made)
        packet.state, packet.original = "new", made.original
        return made

    def nat(self, space: Space, hook: Hook, packet: Packet, held: Connection | None) -> End | None:
        """Do what NAT does at a hook: by the rules for the first packet, by what they made of it for all others."""
        if held is None or packet.state in {"invalid", "untracked"}:
            return None
        there = hook in {"prerouting", "output"}
        if packet.reply:
            self.undo(space, packet, held, there=there)
            return None
        if self.standing or self.repeating:
            if there and held.dst is not None:
                packet.dst, packet.dport = held.dst
            elif not there and held.src is not None:
                packet.src, packet.sport = held.src
            return None
        if (held.dst if there else held.src) is not None:
            return None
        machine = self.machine(space)
        for base in machine.program.at(hook, self.family(packet)):
            if base.kind != "nat":
                continue
            start = len(machine.hits)
            ended = machine.base(base, packet, held)
            self.told(space, machine, start)
            if ended:
                return self.stopped(space, ended, packet)
            if (held.dst if there else held.src) is not None:
                return None
        if there:
            held.dst = packet.dst, packet.dport
        else:
            held.src = packet.src, packet.sport
        return None

    def undo(self, space: Space, packet: Packet, held: Connection, *, there: bool) -> None:
        """Give an answer the ends back that its first packet had."""
        original = held.original
        if there and (packet.dst, packet.dport) != (original.src, original.sport):
            packet.dst, packet.dport = original.src, original.sport
            text = f"destination becomes {spelled(packet.dst, packet.dport, packet.version)} again"
            self.step(space, "conntrack", text)
        elif not there and (packet.src, packet.sport) != (original.dst, original.dport):
            packet.src, packet.sport = original.dst, original.dport
            text = f"source becomes {spelled(packet.src, packet.sport, packet.version)} again"
            self.step(space, "conntrack", text)

    def before(self, space: Space, hook: Hook, packet: Packet) -> End | Connection | None:
        """Run prerouting or output up to and with destination NAT; gives the connection, or the end."""
        packet.state = "invalid"
        stop = self.called(space, hook, packet, _BEFORE, CONNTRACK - 1)
        if stop:
            return stop
        held = self.track(space, packet)
        stop = self.called(space, hook, packet, CONNTRACK, NAT_DST - 1) or self.nat(space, hook, packet, held)
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
            or self.nat(space, "postrouting", packet, held)
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
        stop = self.called(space, "output", packet, NAT_DST, _LAST)
        self.keep(packet, held)
        if stop:
            return stop
        stop = self.postrouting(space, packet)
        if stop:
            return stop
        if route.type == "local":
            return self.loop(space, packet)
        return self.transmit(space, packet, route)

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
        packet.oif = "lo" if found.type == "local" else found.dev
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
        packet.state = "invalid" if held is None else state
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
        """Run the chains of nft that look at a device before anything else."""
        packet.iif = device
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
        return stop or self.transmit(space, packet, route)

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

    def squeeze(self, space: Space, packet: Packet, link: Link) -> None:
        """Note a link of a bridge or veth that takes less: is_skb_forwardable() drops a single packet, and tells nobody.

        What TCP sends in one large piece, to be cut by the last link (GSO), passes; so most transfers do (measured).
        """
        if packet.size and packet.size > link.mtu + _TAG:
            text = f"{link.name} takes packets of {link.mtu} bytes, not of {packet.size}"
            self.tight.append(End("delivered", "MTU_DF", self.step(space, "link", text, link.cited), space.id))

    def input(self, space: Space, packet: Packet) -> End:
        """Deliver to a process of the namespace, if one listens."""
        packet.oif = ""
        held = self.connection(space, packet)
        stop = (
            self.called(space, "input", packet, _BEFORE, 99)
            or self.nat(space, "input", packet, held)
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

    # Links

    def transmit(self, space: Space, packet: Packet, route: Route) -> End:
        """Hand a packet to a device, toward the next hop."""
        link = space.links.get(route.dev)
        hop = number(route.gateway) if route.gateway else packet.dst
        if link is None:
            return self.end("unknown", "UNKNOWN", self.step(space, "link", f"{route.dev} is not there"), space.id)
        if not link.up:
            step = self.step(space, "link", f"{link.name} is down", link.cited, "drop")
            return self.end("unreachable", "SRC_LINK_DOWN" if space.id != HOST else "BRIDGE_DOWN", step, space.id)
        fixed = _mac(space, link, hop, packet.version, ("PERMANENT", "NOARP"))
        if not fixed and self.site.owner(hop, packet.version) is None:  # nobody would answer, and nobody is asked yet
            fixed = _mac(space, link, hop, packet.version, ("REACHABLE", "STALE", "DELAY", "PROBE"))
        if link.kind == "bridge":
            return self.bridge_out(space, link, packet, hop, fixed)
        peer = self.site.peers.get((space.id, link.name))
        if peer is not None:
            return self.veth(space, peer, packet, hop, fixed)
        return self.beyond(space, link, packet)

    def beyond(self, space: Space, link: Link, packet: Packet) -> End:
        """It leaves the host."""
        text = f"leaves by {link.name} as {spelled(packet.src, packet.sport, packet.version)}"
        step = self.step(space, "link", text, link.cited)
        if not self.answering:
            self.landed = (OUTSIDE, packet.ends)
            return self.end("leaves", "", step, space.id)
        if self.flow.source == OUTSIDE and self.first and (self.failing or packet.ends == self.first.back):
            return self.end("leaves", "", step, space.id)
        return self.end("dropped", "REPLY_ASTRAY", step, space.id)

    def veth(self, space: Space, peer: Port, packet: Packet, hop: int, fixed: str) -> End:
        """Send by a veth: into a namespace, or into a port of a bridge."""
        other = self.site.spaces[peer[0]]
        end = other.links[peer[1]]
        if not end.up:
            step = self.step(other, "veth", f"{end.name} is down", end.cited, "drop")
            return self.end("unreachable", "VETH_DOWN", step, other.id)
        self.squeeze(other, packet, end)
        bridge = other.links.get(end.master) if end.master else None
        if bridge is None:
            return self.arrives(space, other, end, packet, hop, fixed)
        self.step(other, "veth", f"{end.name}, port of {bridge.name}", end.cited)
        return self.bridged(other, bridge, end, packet, hop, fixed)

    def arrives(self, sender: Space, space: Space, end: Link, packet: Packet, hop: int, fixed: str) -> End:
        """Arrive in a namespace by a link, if it holds the address that was asked for."""
        if fixed and fixed != end.mac:
            step = self.step(sender, "neighbour", f"{packet.spell(hop)} is at {fixed} for ever; it has {end.mac}", None)
            return self.end("dropped", "NEIGH_WRONG_MAC", step, sender.id)
        if not fixed and not space.holds(hop, packet.version):
            return self.silent(sender, packet, hop, end)
        return self.receive(space, end.name, packet)

    def silent(self, sender: Space, packet: Packet, hop: int, link: Link | None = None) -> End:
        """Nobody has the address of the next hop."""
        text = f"nobody answers for {packet.spell(hop)}"
        step = self.step(sender, "neighbour", text, link.cited if link else None, "drop")
        return self.end("unreachable", "NEIGH_FAILED", step, sender.id)

    def bridged(self, space: Space, bridge: Link, port: Link, packet: Packet, hop: int, fixed: str) -> End:
        """Take a frame in by a port of a bridge."""
        version = packet.version
        if not bridge.up:
            return self.end(
                "unreachable", "BRIDGE_DOWN", self.step(space, "bridge", f"{bridge.name} is down", bridge.cited)
            )
        if port.port_state not in {"forwarding", ""}:
            text = f"port {port.name} is {port.port_state}"
            return self.end("unreachable", "BR_PORT_STATE", self.step(space, "bridge", text, port.cited, "drop"))
        target = self.neighbour(space, bridge, port, hop, version, fixed)
        if isinstance(target, End):
            return target
        if target is None:
            return self.silent(self.site.spaces[self.site.peers[space.id, port.name][0]], packet, hop, bridge)
        packet.mark, packet.zone, packet.original, packet.iif, packet.oif = 0, 0, None, bridge.name, ""
        packet.physin = port.name
        stop = self.ingress(space, port.name, packet) or self.frames(space, "prerouting", packet, bridge)
        if stop:
            return stop
        packet.iif = bridge.name
        called = space.id == HOST and self.site.filters_bridged(bridge, version)
        if called:
            before = packet.dst
            stop = self.prerouting(space, packet)
            if stop:
                return stop
            if packet.dst != before:
                target = self.redirected(space, bridge, packet)
                if isinstance(target, End):
                    return target
        if target == (space.id, bridge.name):
            packet.physin = ""
            stop = self.ingress(space, bridge.name, packet)
            return stop or self.receive(space, bridge.name, packet, filtered=called)
        return self.across(space, bridge, port, packet, target, called=called)

    def redirected(self, space: Space, bridge: Link, packet: Packet) -> Port | End:
        """Find where a frame goes whose address NAT changed: br_nf_pre_routing_finish()."""
        mine = (space.id, bridge.name)
        route = space.find(packet, bridge.name).route
        if route is None or route.type != "unicast" or route.dev != bridge.name:
            return mine
        hop = number(route.gateway) if route.gateway else packet.dst
        found = self.neighbour(space, bridge, None, hop, packet.version, "")
        if found is None:
            return self.silent(space, packet, hop, bridge)
        self.step(space, "bridge", f"{route.by_hand}: stays on the bridge", route.cited)
        return found

    def across(self, space: Space, bridge: Link, port: Link, packet: Packet, target: Port, *, called: bool) -> End:
        """Forward a frame from one port of a bridge to another one."""
        out = self.port_to(space, target)
        if out is None:
            return self.end("unknown", "UNKNOWN", self.step(space, "bridge", "no port leads there", bridge.cited))
        if out.name == port.name and not port.hairpin:
            step = self.step(space, "bridge", f"back by {port.name}, whose hairpin is off", port.cited, "drop")
            return self.end("dropped", "BR_NO_HAIRPIN", step, space.id)
        packet.physout = out.name
        packet.oif = bridge.name
        stop = self.frames(space, "forward", packet, bridge)
        if not stop and called:
            stop = self.called(space, "forward", packet, _BEFORE, _LAST) or self.postrouting(space, packet)
        if not called and not stop:
            self.step(space, "bridge", f"{bridge.name} to port {out.name}; iptables does not see it", out.cited)
        packet.physin = packet.physout = ""
        return stop or self.into(space, out, target, packet)

    def into(self, space: Space, out: Link, target: Port, packet: Packet) -> End:
        """Go out by a port of a bridge, into the namespace behind it."""
        other = self.site.spaces[target[0]]
        self.squeeze(space, packet, out)
        if other.id == space.id:
            return self.beyond(space, out, packet)
        self.squeeze(other, packet, self.at(target))
        return self.receive(other, target[1], packet)

    def bridge_out(self, space: Space, bridge: Link, packet: Packet, hop: int, fixed: str) -> End:
        """Send by a bridge of the namespace itself."""
        target = self.neighbour(space, bridge, None, hop, packet.version, fixed)
        if isinstance(target, End):
            return target
        if target is None:
            return self.silent(space, packet, hop, bridge)
        out = self.port_to(space, target)
        if out is None:
            return self.silent(space, packet, hop, bridge)
        stop = self.frames(space, "output", packet, bridge)
        if stop:
            return stop
        self.step(space, "bridge", f"{bridge.name} to port {out.name}", out.cited)
        return self.into(space, out, target, packet)

    def frames(self, space: Space, hook: Hook, packet: Packet, bridge: Link) -> End | None:
        """Run nft's chains of the family bridge; they see the ports as devices."""
        if not any(base.chain.family == "bridge" for base in space.program.bases):
            return None
        devices = packet.iif, packet.oif
        packet.iif, packet.oif = packet.physin or bridge.name, packet.physout
        stop = self.called(space, hook, packet, _BEFORE, _LAST, "bridge")
        packet.iif, packet.oif = devices
        return stop

    def port_to(self, space: Space, target: Port) -> Link | None:
        """Give the port of a bridge that leads to a link."""
        if target[0] == space.id:
            return space.links.get(target[1])
        near = self.site.peers.get(target)
        return space.links.get(near[1]) if near is not None and near[0] == space.id else None

    def neighbour(
        self, space: Space, bridge: Link, port: Link | None, hop: int, version: Version, fixed: str
    ) -> Port | End | None:
        """Give the link that answers for an address on a bridge: the bridge itself, or what is behind one of its ports.

        With a MAC that is fixed for ever only the link that has it gets the frame.
        """
        if port is not None and (bridge.mac == fixed if fixed else space.holds(hop, version)):
            return space.id, bridge.name
        if fixed:
            found = [(peer, link) for peer, link in self.ends(space, bridge) if self.at(peer).mac == fixed]
        else:
            found = self.site.wiring.behind(self.site, space, bridge.name, hop, version)
            # A namespace answers for the addresses of its other links, too.
            others = self.ends(space, bridge) if not found else ()
            found = found or [(peer, link) for peer, link in others if self.site.spaces[peer[0]].holds(hop, version)]
        stopped = None
        for peer, link in found:
            stopped = self.shut(space, port, link, peer)
            if stopped is None:
                return peer
        if fixed and not found:
            step = self.step(
                space, "neighbour", f"no port leads to {fixed}, which {spell(hop, version)} is said to have"
            )
            return self.end("dropped", "NEIGH_WRONG_MAC", step, space.id)
        ports = self.site.wiring.ports(space, bridge.name) if stopped is None else ()
        return stopped or self.unread(
            space, bridge, [link for link in ports if link.up and (space.id, link.name) not in self.site.peers]
        )

    def ends(self, space: Space, bridge: Link) -> list[tuple[Port, Link]]:
        """Give what is on the other side of a bridge's ports, each with its port."""
        ports = self.site.wiring.ports(space, bridge.name)
        peers = [(self.site.peers.get((space.id, link.name)), link) for link in ports]
        return [(peer, link) for peer, link in peers if peer is not None]

    def at(self, port: Port) -> Link:
        """Give a link by where it is."""
        return self.site.links[port[0]][port[1]]

    def unread(self, space: Space, bridge: Link, ports: list[Link]) -> Port | End | None:
        """Say what of ports whose other end is not known: a veth leads to a namespace unread, anything else outside."""
        beyond = next((link for link in ports if link.kind != "veth"), None)
        if beyond is not None:
            return space.id, beyond.name
        if not ports:
            return None
        text = f"what is behind {ports[0].name}, port of {bridge.name}"
        if not self.unknowns.ask(Question(text, ports[0].cited)):
            return None
        return self.end("unknown", "UNKNOWN", self.step(space, "veth", text, ports[0].cited), space.id)

    def shut(self, space: Space, port: Link | None, link: Link, peer: Port) -> End | None:
        """Say why a port of a bridge takes nothing from another one."""
        end = self.at(peer)
        if not link.up or not end.up:
            down, where = (link, space) if not link.up else (end, self.site.spaces[peer[0]])
            step = self.step(where, "veth", f"{down.name} is down", down.cited, "drop")
            return self.end("unreachable", "VETH_DOWN", step, where.id)
        if link.port_state not in {"forwarding", ""}:
            step = self.step(space, "bridge", f"port {link.name} is {link.port_state}", link.cited, "drop")
            return self.end("unreachable", "BR_PORT_STATE", step, space.id)
        if port is not None and port.isolated and link.isolated:
            text = f"ports {port.name} and {link.name} are isolated from each other"
            return self.end("unreachable", "BR_PORT_ISOLATED", self.step(space, "bridge", text, link.cited, "drop"))
        return None


def _mac(space: Space, link: Link, hop: int, version: Version, states: tuple[str, ...]) -> str:
    """Give the MAC that the neighbour table has for a next hop, in one of these states; empty for none."""
    target = spell(hop, version)
    held = (one for one in space.neighbours if one.dev == link.name and one.address == target)
    return next((one.mac for one in held if one.state in states), "")


def _unknown(space: Space) -> Question:
    return Question(f"what is in the namespace of {space.name}", Citation("netns/index", 0, space.missing, space.name))


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
