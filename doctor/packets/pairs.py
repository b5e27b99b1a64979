"""Who reaches whom: one walk for each pair of classes whose members nothing on the host tells apart.

A walk of a hundred containers to a hundred others would be ten thousand walks, and most of them are the same walk with
other addresses. Two namespaces are of one class when their links, routes and ports of a bridge are alike and when no rule
tells their addresses apart but rules of one form, each about its own address, that stand between the same others: the
walk of one is then that of the other with the addresses exchanged. What cannot be exchanged so (a namespace with rules of
its own, an address that two have, NAT to somebody else) is walked for itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, structs

from doctor.model import Citation
from doctor.packets.conditions import Address, Any, Device, Number, Ranges
from doctor.packets.packet import Version, number
from doctor.packets.program import Map, Nat, Rule
from doctor.packets.site import HOST, Space, addresses
from doctor.packets.stack import OUTSIDE, TCP, UDP, Flow
from doctor.packets.walk import CLIENT_PORT, Result, Walk, follow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doctor.facts.links import Link, Route
    from doctor.facts.routes import Rule as Rule_
    from doctor.packets.conditions import Condition
    from doctor.packets.program import Action, Program
    from doctor.packets.site import Site
    from doctor.packets.stack import End as Ended

State = Literal["yes", "refused", "no", "depends"]
"""`refused`: it arrives where it should, and nobody listens there."""

End = tuple[int, int]
"""An address and a port, as numbers."""


class Goal(Struct, frozen=True):
    """What is to be reached: an address and port, in which namespace that is, and what stands behind a published port.

    `where` is a namespace's id, or `outside`; `behind` is where a port of the host leads to, None for anything else.
    """

    where: str
    dst: int
    dport: int
    version: Version = 4
    protocol: int = TCP
    behind: End | None = None

    @property
    def flow(self) -> tuple[int, int, Version, int]:
        """What a flow to it asks for."""
        return self.dst, self.dport, self.version, self.protocol


class Judgement(Struct, frozen=True):
    """Whether it is reached. `code` and `cited` say what denies it, `question` what it depends on.

    `text` is the deciding step in words, `alike` that it was walked for another pair of the same classes.
    """

    state: State
    code: str = ""
    cited: Citation | None = None
    text: str = ""
    question: str = ""
    alike: bool = False

    @property
    def arrives(self) -> bool:
        """Whether packets get there and back."""
        return self.state in {"yes", "refused"}


def judgement(result: Result, source: str, goal: Goal, site: Site, unread: str = "") -> Judgement:
    """Say whether a walk reached its goal; `unread` says why the host's listeners are not known, empty when they are."""
    walk = result.walk
    if result.works is None:
        text = result.question.text if result.question else ""
        if " way back to " in text:  # it is asked of each address
            text = "whether the network outside has a way back to addresses that are not masqueraded"
        return Judgement("depends", cited=result.question.cited if result.question else None, question=text)
    ends = [one.landed[0] for one in (walk, walk.proxied) if one is not None and one.landed is not None]
    there = goal.where in ends
    if walk.works and there:
        return Judgement("yes")
    last = walk.proxied or walk
    if there and last.end.outcome == "refused" and walk.sees in {"refused", "reset"} and _back(last):
        return Judgement("refused", last.end.code)
    end = walk.decider
    doubt = _doubt(end, source, site, unread)
    if doubt:
        return Judgement("depends", question=doubt)
    step = end.step
    if walk.works:
        landed = ends[-1] if ends else ""
        return Judgement("no", "ELSEWHERE", None, f"it arrives elsewhere: {landed}")
    return Judgement("no", end.code, step.cited if step else None, step.text if step else "")


def _doubt(end: Ended, source: str, site: Site, unread: str) -> str:
    """Say what a walk that ends badly depends on, where that is more than the model knows; empty where it is sure."""
    if end.code == "UNKNOWN":
        return end.step.text if end.step is not None else "what was not read"
    if unread and end.outcome == "refused" and end.space == HOST:
        return f"what listens on the host: {unread}"
    if end.code.startswith("FORWARDING_OFF") and end.space in site.spaces and end.space != HOST:
        return f"whether {site.spaces[end.space].name} forwards packets: settings inside of containers are not read"
    if site.host.missing and (end.space != source or source == HOST):  # a rule may have sent it elsewhere before
        return f"what was not read: {site.host.missing}"
    return ""


def _back(walk: Walk) -> bool:
    return walk.reply is None or walk.reply.outcome in {"delivered", "leaves"}


class Pairs:
    """Judges pairs of one site, each class once; `walks` counts what was walked."""

    def __init__(self, site: Site, unread: str = "", clients: dict[Version, tuple[int, ...]] | None = None) -> None:
        """Take a site; nothing is walked yet. `unread` says why the host's listeners are not known.

        `clients` are addresses outside, by version: who is outside is judged by the first of them that gets through.
        """
        self.site = site
        self.unread = unread
        self.clients = clients or {}
        self.walks = 0
        self._classes = _Classes(site)
        self._sources: dict[str, _Class] = {}
        self._goals: dict[Goal, _Class] = {}
        self._known: dict[tuple[int, int], tuple[Judgement, _Class, _Class, bool]] = {}
        self._own: dict[tuple[str, Goal], Judgement] = {}

    def judge(self, source: str, goal: Goal) -> Judgement:
        """Say whether a namespace (`host`, an inode, `outside`) reaches a goal."""
        if source == goal.where:
            return self._itself(source, goal)
        mine = self._sources.get(source)
        if mine is None:
            mine = self._sources[source] = self._classes.source(source)
        its = self._goals.get(goal)
        if its is None:
            its = self._goals[goal] = self._classes.goal(goal)
        known = self._known.get((mine.key, its.key))
        if known is None:
            found, shared = self.walk(source, goal)
            self._known[mine.key, its.key] = (found, mine, its, shared)
            return found
        found, theirs, those, shared = known
        if (theirs, those) == (mine, its):
            return found
        return _cited(found, (theirs, mine), (those, its)) if shared else self._itself(source, goal)

    def _itself(self, source: str, goal: Goal) -> Judgement:
        held = self._own.get((source, goal))
        if held is None:
            held = self._own[source, goal] = self.walk(source, goal)[0]
        return held

    def walk(self, source: str, goal: Goal) -> tuple[Judgement, bool]:
        """Walk one pair; also whether the walk is that of every pair of the same classes."""
        first, *others = (self.clients.get(goal.version) if source == OUTSIDE else None) or (None,)
        found = self._walked(source, goal, first)
        for src in others if found[0].state == "no" else ():
            other = self._walked(source, goal, src)
            if other[0].arrives:
                return other
        return found

    def _walked(self, source: str, goal: Goal, src: int | None) -> tuple[Judgement, bool]:
        self.walks += 1
        dst, dport, version, protocol = goal.flow
        result = follow(self.site, Flow(source, dst, dport, version, protocol, src))
        judged = judgement(result, source, goal, self.site, self.unread)
        return judged, self._exchangeable(result.walk, goal)

    def _exchangeable(self, walk: Walk, goal: Goal) -> bool:
        """Whether NAT led to nobody but the goal and the host: somebody else may be the source of another pair."""
        known = {goal.dst, goal.behind[0] if goal.behind else goal.dst}
        inner = walk.proxied.steps if walk.proxied else ()
        for step in (*walk.steps, *walk.reply_steps, *inner):
            way, _, end = step.effect.partition(" ")
            if way in {"to", "from"} and not self._known_end(end, known, goal.version):
                return False
        return True

    def _known_end(self, text: str, known: set[int], version: Version) -> bool:
        address = text[1:].partition("]")[0] if text.startswith("[") else text
        if version == 4:  # noqa: PLR2004 - IPv4
            address = address.partition(":")[0]
        try:
            held = number(address)
        except ValueError:
            return False
        return held in known or self.site.host.holds(held, version)


def _cited(found: Judgement, *classes: tuple[_Class, _Class]) -> Judgement:
    """Cite the rule that stands for these two where another one stood for the pair that was walked."""
    for theirs, mine in classes:
        if found.cited is not None and found.cited in theirs.cited:
            return structs.replace(found, cited=mine.cited[theirs.cited.index(found.cited)], alike=True)
    return structs.replace(found, alike=True)


class _Class(Struct, frozen=True, eq=False):
    """What a namespace or goal is alike in (`key`), and the rules about it alone, in the order of the key."""

    key: int
    cited: tuple[Citation, ...] = ()


Own = tuple[str, int]
"""Stands for an address of a namespace's own: `own`, and its number."""

Party = Literal["source", "goal", "client"]
_FORWARD: dict[str, Party] = {
    "src": "source",
    "sport": "client",
    "dst": "goal",
    "dport": "goal",
    "original.src": "source",
    "original.sport": "client",
    "original.dst": "goal",
    "original.dport": "goal",
}
_BACK: dict[str, Party] = _FORWARD | {"src": "goal", "sport": "goal", "dst": "source", "dport": "client"}
_WAYS = (_FORWARD, _BACK)
"""Whose a field of a packet is, on the way there and on the way back."""

_VERSIONS: tuple[Version, ...] = (4, 6)

_LOOPS = {4: (127 << 24, (128 << 24) - 1), 6: (1, 1)}

_CLIENT = (CLIENT_PORT, 0)
"""Ports of a client: 0 in an error about its packet."""


class _Asks(Struct, frozen=True):
    """What a condition asks of an end."""

    field: str
    ranges: Ranges
    negated: bool
    mask: int
    version: int

    @property
    def single(self) -> int | None:
        """The one value that it asks for, None for all else."""
        first, last = self.ranges[0] if len(self.ranges) == 1 else (0, 1)
        return first if first == last and not self.negated and self.mask == -1 else None

    def holds(self, value: int) -> bool:
        """Whether a value satisfies it."""
        found = any(first <= value & self.mask <= last for first, last in self.ranges)
        return found != self.negated


class _Row(Struct, frozen=True):
    """A rule that asks about an end: which chain, in which run of rules that ask of the same ends, and its number there.

    `own` says that it may be exchanged for one of the same form about another address.
    """

    chain: Hashable
    run: int
    at: int
    rule: Rule
    asks: tuple[_Asks, ...]
    several: tuple[tuple[_Asks, ...], ...]
    own: bool


class _Classes:
    """Puts namespaces and goals into classes."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.by_address: dict[int, list[_Row]] = {}
        self.by_port: dict[int, list[_Row]] = {}
        self.others: list[_Row] = []
        self.names: set[str] = set()
        self.shapes: dict[str, Hashable] = {}
        self.owners: dict[tuple[int, int], list[str]] = {}
        self.own: dict[str, dict[int, Own]] = {}
        self.numbers: dict[Hashable, int] = {}
        self.bounds: dict[int, list[int]] = {4: [], 6: []}
        self.fixed: set[int] = set()
        for key, links in site.links.items():
            held = [(version, one) for version in (4, 6) for link in links.values() for one in _held(link, version)]
            for version, one in held:
                self.owners.setdefault((version, one), []).append(key)
            self.own[key] = {one: ("own", at) for at, (_, one) in enumerate(held)}
        self.read()

    # What is read of the site

    def read(self) -> None:
        """Read what tells ends apart: rules, routes, routing rules, neighbours that are known for ever."""
        self.rules(HOST, self.site.host.program)
        bounds: dict[int, set[int]] = {4: set(), 6: set()}
        for key in self.site.spaces:
            space = self.site.spaces[key]
            if key != HOST and _tells(space.program):
                self.rules(key, space.program)
            self.routes(key, space, bounds)
            self.fixed |= {
                value
                for one in space.neighbours
                if one.state in {"PERMANENT", "NOARP"} and (value := _number(one.address)) is not None
            }
        self.bounds = {version: sorted(held) for version, held in bounds.items()}

    def routes(self, key: str, space: Space, bounds: dict[int, set[int]]) -> None:
        """Note where prefixes of routes and routing rules begin and end; a namespace's own addresses are its own affair."""
        own = self.own.get(key, {}) if key != HOST else {}
        for version, tables in space.routing.tables.items():
            bits = 32 if version == 4 else 128  # noqa: PLR2004 - IPv4
            for table in tables.values():
                for length, networks in table.items():
                    size = 1 << bits - length
                    bounds[version] |= {end for first in networks if first not in own for end in (first, first + size)}
        for version, rows in space.locals.items():
            bounds[version] |= {end for low, high, _, _ in rows if low not in own for end in (low, high + 1)}
        for version, rules in space.routing.rules.items():
            for rule in rules:
                for prefix in (rule.src, rule.dst):
                    bounds[version] |= _ends(prefix)
        for link in self.site.links.get(key, {}).values() if key == HOST else ():
            for held in link.addresses:
                bounds[6 if ":" in held else 4] |= _ends(held)

    def rules(self, key: str, program: Program) -> None:
        """Note the rules that ask about an end."""
        for chain in program.chains.values():
            rows = [_row((key, chain.key), at, rule) for at, rule in enumerate(chain.rules)]
            kept = [row for row in rows if not _about_itself(row)]
            for run, (kind, members) in enumerate(groupby(kept, key=_kind)):
                for row in members if kind else ():
                    self.index(structs.replace(row, run=run))
            for rule in chain.rules:
                self.names |= _devices(rule.steps)
        self.names |= {name for base in program.bases for name in base.devices}

    def index(self, row: _Row) -> None:
        """Put a rule where those that it can be about find it."""
        singles = [one.single for one in row.asks if one.field.endswith(("src", "dst")) and one.single is not None]
        if row.own and singles:
            self.by_address.setdefault(singles[0], []).append(row)
            return
        ports = [one.single for one in row.asks if one.field.endswith("port") and one.single is not None]
        if row.own and ports and not set(ports) & set(_CLIENT):
            self.by_port.setdefault(ports[0], []).append(row)
            return
        self.others.append(row)

    # Classes

    def source(self, key: str) -> _Class:
        """Put a namespace that sends into its class."""
        if key in {HOST, OUTSIDE} or self.shape(key) == key:
            return self.numbered(key, ())
        held = list(self.own[key])
        values = [_Values("source", {"src": one, "dst": one, "original.src": one}) for one in held]
        about, cited = self.about(values, dict(self.own[key]))
        return self.numbered((self.shape(key), about), cited)

    def numbered(self, key: Hashable, cited: tuple[Citation, ...]) -> _Class:
        """Number the classes: what they are alike in is long."""
        return _Class(self.numbers.setdefault(key, len(self.numbers)), cited)

    def goal(self, goal: Goal) -> _Class:
        """Put a goal into its class."""
        place = self.site.spaces.get(goal.where)
        own = goal.where in {HOST, OUTSIDE} or place is None
        listens: Hashable = ()
        if place is not None and goal.protocol in {TCP, UDP}:
            end = goal.behind or (goal.dst, goal.dport)
            listens = self.listens(place, end, goal)
        first: End = (goal.dst, goal.dport)
        last = goal.behind or first
        values = [
            _Values(
                "goal",
                {
                    "src": now[0],
                    "sport": now[1],
                    "dst": now[0],
                    "dport": now[1],
                    "original.dst": then[0],
                    "original.dport": then[1],
                },
            )
            for now in dict.fromkeys((first, last))
            for then in dict.fromkeys((first, last))
        ]
        names: dict[int, Hashable] = {} if own else {last[0]: "it"}
        ports: dict[int, Hashable] = {first[1]: "port", last[1]: "inner port"}
        about, cited = self.about(values, names, ports)
        host = self.proxied(goal) if goal.behind else ()
        shape = goal.where if own else self.shape(goal.where)
        what = (self.address(last[0], goal.version), first[0] if goal.behind or own else 0, goal.version, goal.protocol)
        ports_alike = (first[1] == last[1], not first[1], first[1] == CLIENT_PORT, last[1] == CLIENT_PORT)
        at = self.own.get(goal.where, {}).get(last[0])
        return self.numbered((shape, what, at, ports_alike, listens, host, about, goal.dport if own else 0), cited)

    def listens(self, space: Space, end: End, goal: Goal) -> Hashable:
        """Say whether somebody listens."""
        from doctor.packets.packet import spell

        name = "tcp" if goal.protocol == TCP else "udp"
        found = space.listener(name, spell(end[0], goal.version), end[1])
        other = any((one.protocol, one.port) == (name, end[1]) for one in space.listeners)
        return found is not None, other

    def proxied(self, goal: Goal) -> Hashable:
        """Say whether a docker-proxy holds the port of the host, and whether it leads where it should."""
        name = "tcp" if goal.protocol == TCP else "udp"
        proxies = tuple(
            (
                one.host_ip,
                (_number(one.container_ip), one.container) == goal.behind or (one.container_ip, one.container),
            )
            for one in self.site.proxies.get((name, goal.dport), ())
        )
        return self.listens(self.site.host, (goal.dst, goal.dport), goal), proxies

    def address(self, value: int, version: int) -> Hashable:
        """Say what routes and neighbours make of an address; one that is not one container's alone is like no other."""
        link_local = version == 6 and value >> 118 == 0xFE80 >> 6  # noqa: PLR2004 - fe80::/10
        if (len(self.owners.get((version, value), ())) != 1 and not link_local) or value in self.fixed:
            return ("only", value)
        return bisect_right(self.bounds[version], value)

    def about(
        self, values: list[_Values], names: dict[int, Hashable], ports: dict[int, Hashable] | None = None
    ) -> tuple[Hashable, tuple[Citation, ...]]:
        """Give the form of each rule that is about an end, in order, and where they stand."""
        found: dict[tuple[Hashable, int], tuple[_Row, tuple[object, ...]]] = {}
        asked = {one for held in values for one in held.fields.values()}
        rows = [row for one in asked for row in self.by_address.get(one, ())]
        rows += [row for one in ports or () for row in self.by_port.get(one, ())]
        for row in (*rows, *self.others):
            answers = tuple(_matches(row, held) for held in values)
            if any(any(one) for one in answers):
                found[row.chain, row.at] = (row, answers)
        ordered = sorted(found.values(), key=lambda one: (str(one[0].chain), one[0].at))
        key = tuple(
            (row.chain, row.run, _form(row, names, ports or {}) if row.own else row.at, answers)
            for row, answers in ordered
        )
        return key, tuple(row.rule.cited for row, _ in ordered)

    def shape(self, key: str) -> Hashable:
        """Give what a namespace is alike in; its id where nothing else is like it."""
        held = self.shapes.get(key)
        if held is None:
            held = self.shapes[key] = self.shaped(key)
        return held

    def shaped(self, key: str) -> Hashable:
        """Describe a namespace with its own addresses left out."""
        space = self.site.spaces[key]
        own = self.own[key]
        links = [self.link(key, link) for link in space.links.values() if link.name != "lo"]
        lo = space.links.get("lo")
        alone = (
            space.missing
            or None in links
            or _tells(space.program)
            or any(one.state in {"PERMANENT", "NOARP"} and one.mac for one in space.neighbours)
            or (lo is not None and any(one.partition("/")[0] not in {"127.0.0.1", "::1"} for one in lo.addresses))
        )
        routes = list(_routes(space))
        # Where nobody is known to have an address of the way out, the neighbour that is remembered decides.
        hops = {route.gateway for *_, route in routes if route.gateway}
        if alone or (space.neighbours and any(self.strange(hop) for hop in hops)):
            return key
        return (
            tuple(links),
            lo is not None and lo.up,
            tuple(self.address(one, _version(one)) for one in own),
            tuple((*where, own.get(network, network), _route(route, own)) for *where, network, route in routes),
            tuple(_rule(rule) for rules in space.routing.rules.values() for rule in rules),
            tuple(
                sorted(
                    (version, str(own.get(low, low)), str(own.get(high, high)), kind, dev)
                    for version, held in space.locals.items()
                    for low, high, kind, dev in held
                )
            ),
        )

    def strange(self, hop: str) -> bool:
        """Whether no namespace is known to have the address of a next hop."""
        value = _number(hop)
        return value is None or self.site.owner(value, _version(value)) is None

    def link(self, key: str, link: Link) -> Hashable | None:
        """Describe a link: what the port of the bridge on its other end is like; None for what is not exchanged."""
        peer = self.site.peers.get((key, link.name))
        held = tuple(self.own[key].get(one) for version in _VERSIONS for one in addresses(link, version))
        if peer is None:
            return None if link.up or held else (link.kind,)
        end = self.site.links[peer[0]][peer[1]]
        if not end.master or end.addresses or peer[0] != HOST:
            return None
        names = tuple(sorted(name for name in self.names if _named(end.name, name)))
        return (
            (link.name, link.kind, link.up, held, tuple(one.partition("/")[2] for one in link.addresses)),
            (end.master, end.up, end.port_state, end.hairpin, end.isolated, names),
        )


class _Values(Struct, frozen=True):
    """What the fields of a packet are when they are one end's."""

    party: Party
    fields: dict[str, int]


def _matches(row: _Row, values: _Values) -> tuple[object, ...]:
    """Say for both ways whether a rule is about an end: it asks of it, and what it asks holds."""
    return tuple(_about(row, values, way) for way in _WAYS)


def _about(row: _Row, values: _Values, way: dict[str, Party]) -> object:
    asked = False
    for one in row.asks:
        answer = _answer(one, values, way)
        if answer is False:
            return False
        asked = asked or answer is True
    several = tuple(
        at
        for at, conditions in enumerate(row.several)
        if True in (answers := [_answer(one, values, way) for one in conditions]) and False not in answers
    )
    return several or asked


def _answer(one: _Asks, values: _Values, way: dict[str, Party]) -> bool | None:
    party = way[one.field]
    if party == values.party:
        return one.holds(values.fields[one.field])
    if party == "client" and not any(one.holds(port) for port in _CLIENT):
        return False
    return None


def _row(chain: Hashable, at: int, rule: Rule) -> _Row:
    asks: list[_Asks] = []
    several: list[tuple[_Asks, ...]] = []
    for step in rule.steps:
        found = _asks(step)
        if found is not None:
            asks.append(found)
        else:
            several += _several(step)
    own = not several and not any(len({way[one.field] for one in asks} - {"client"}) > 1 for way in _WAYS)
    return _Row(chain, 0, at, rule, tuple(asks), tuple(several), own)


def _asks(step: Condition | Action) -> _Asks | None:
    if isinstance(step, Address):
        return _Asks(step.end, step.ranges, step.negated, -1, step.version)
    if isinstance(step, Number) and step.field in _FORWARD:
        return _Asks(step.field, step.ranges, step.negated, step.mask, 0)
    return None


def _several(step: Condition | Action) -> list[tuple[_Asks, ...]]:
    """Give what the elements of a set or map ask of ends; those that ask nothing stand as what they are: empty."""
    if isinstance(step, Any):
        inner = step.several
    elif isinstance(step, Map):
        inner = tuple(conditions for conditions, _ in step.elements)
    else:
        return []
    found = []
    for conditions in inner:
        asks: list[_Asks] = []
        for one in conditions:
            simple = _asks(one)
            asks += [simple] if simple else _flat(one)
        found.append(tuple(asks))
    return found if any(found) else []


def _flat(step: Condition) -> list[_Asks]:
    """Give all that a set within an element asks; together they say too little, but never of another end."""
    return [one for held in _several(step) for one in held]


def _kind(row: _Row) -> Hashable:
    """Say whose ends a rule asks about on each way; rules of one kind that follow each other are a run."""
    if not row.asks and not row.several:
        return ()
    if not row.own:
        return ("mixed", row.at)
    return tuple(frozenset(way[one.field] for one in row.asks) for way in _WAYS)


def _about_itself(row: _Row) -> bool:
    """Whether a rule is only for what somebody sends to himself: `-s X -d X`."""
    ends = {one.field: one.single for one in row.asks}
    return ends.get("src") is not None and ends.get("src") == ends.get("dst")


def _form(row: _Row, names: dict[int, Hashable], ports: dict[int, Hashable]) -> Hashable:
    """Give a rule with the end's own addresses and ports left out."""
    found: list[Hashable] = []
    for step in row.rule.steps:
        asks = _asks(step)
        if asks is not None and asks.single is not None:
            held = ports if asks.field.endswith("port") else names
            found.append((asks.field, asks.version, held.get(asks.single, asks.single)))
        elif isinstance(step, Nat):
            port = step.ports
            inner = ports.get(port[0], port) if port is not None and port[0] == port[1] else port
            address = names.get(step.address, step.address) if step.address is not None else None
            found.append((step.kind, address, inner))
        else:
            found.append(step)
    return tuple(found)


def _routes(space: Space) -> Iterator[tuple[int, str, int, int, Route]]:
    """Give version, table, prefix length, network and route, in an order that does not ask for the network itself."""
    for version, tables in space.routing.tables.items():
        for name, table in sorted(tables.items()):
            for length, networks in table.items():
                for network, held in sorted(networks.items()):
                    yield from ((version, name, length, network, route) for route in held)


def _route(route: Route, own: dict[int, Own]) -> Hashable:
    source = _number(route.source)
    return (
        own.get(source, route.source) if source is not None else "",
        *(route.dev, route.gateway, route.type, route.metric, route.devs, route.dead),
    )


def _rule(rule: Rule_) -> Hashable:
    return (
        *(rule.version, rule.priority, rule.src, rule.dst, rule.iif, rule.mark, rule.mask, rule.inverted, rule.action),
        *(rule.table, rule.target, rule.prefix, rule.unasked),
    )


def _named(device: str, name: str) -> bool:
    return device.startswith(name[:-1]) if name.endswith("*") else device == name


def _version(value: int) -> Version:
    """Tell the version by the number: link-local addresses and all others of IPv6 are greater than any of IPv4."""
    return 4 if value >> 32 == 0 else 6


def _tells(program: Program) -> bool:
    """Whether the rules of a namespace decide about anything but its own loopback addresses (the embedded DNS)."""
    if any(base.policy == "drop" for base in program.bases):
        return True
    return any(not _loops(rule) for chain in program.chains.values() for rule in chain.rules)


def _loops(rule: Rule) -> bool:
    return any(
        isinstance(step, Address)
        and not step.negated
        and all(_LOOPS[step.version][0] <= first and last <= _LOOPS[step.version][1] for first, last in step.ranges)
        for step in rule.steps
    )


def _devices(steps: Iterable[Condition | Action]) -> set[str]:
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Device):
            found |= {name for name in step.names if name}
        elif isinstance(step, Any):
            found |= {name for held in step.several for name in _devices(held)}
        elif isinstance(step, Map):
            found |= {name for held, _ in step.elements for name in _devices(held)}
    return found


def _held(link: Link, version: int) -> Iterator[int]:
    """Give every address of a link, the link-local ones too."""
    for one in link.addresses:
        if (":" in one) == (version == 6) and link.name != "lo":  # noqa: PLR2004 - IPv6
            value = _number(one.partition("/")[0])
            if value is not None:
                yield value


def _number(text: str) -> int | None:
    try:
        return number(text)
    except ValueError:
        return None


def _ends(prefix: str) -> set[int]:
    """Give where a prefix begins, and what follows it."""
    from ipaddress import ip_network

    try:
        net = ip_network(prefix, strict=False)
    except ValueError:
        return set()
    return {int(net.network_address), int(net.broadcast_address) + 1}
