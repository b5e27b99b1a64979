"""Who can no longer send what to whom because of one rule: walked, and put into words.

A promise is walked with one container, one port and TCP. What the same rule does to another port, another protocol and
the other pairs of a network is walked here, before it is said of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from doctor.checks.published_ports import spelled
from doctor.model import Effect
from doctor.packets.flow import UDP
from doctor.packets.packet import number
from doctor.packets.walk import follow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.facts.containers import Container
    from doctor.model import Citation
    from doctor.packets.flow import Flow
    from doctor.packets.promises import Walked
    from doctor.packets.site import Site
    from doctor.packets.walked import Kind

_ANOTHER = 40001
"""A port that no promise is walked to."""

_MEMBERS = 5
"""Containers of a network of which each is walked to each."""


class _Pair(Struct, frozen=True):
    """A container that cannot reach a neighbour, and where its packet ends: on the way there or on the way back."""

    source: str
    target: str
    going: bool


_TITLE = 60
"""Characters of a title that say what a rule does; the rest stands in the message and in what it hits."""


class Ways:
    """What a rule stops of some promises: texts for a title, a sentence and the effects, all of them walked."""

    def __init__(self, site: Site, cited: Citation, walks: tuple[Walked, ...]) -> None:
        """Walk nothing yet."""
        self.site = site
        self.cited = cited
        self.walks = walks
        self._limits: dict[Flow, str] = {}
        self._between: dict[int, tuple[list[_Pair], bool]] = {}

    # How wide

    def _stops(self, flow: Flow) -> bool | None:
        """Whether the rule ends a flow; None where another one does, or nobody knows."""
        result = follow(self.site, flow)
        step = result.walk.decider.step
        if step is not None and step.cited == self.cited and result.works is False:
            return True
        return False if result.works or result.walk.sees == "refused" else None

    def _limit(self, flow: Flow) -> str:
        """Say what of a flow's kind the rule stops: all of it (empty), TCP, or a port."""
        if flow not in self._limits:
            self._limits[flow] = self._tried(flow)
        return self._limits[flow]

    def _tried(self, flow: Flow) -> str:
        if self._stops(structs.replace(flow, dport=_ANOTHER)) is False:
            return f"port {flow.dport}"
        return "TCP" if self._stops(structs.replace(flow, protocol=UDP)) is False else ""

    def _of(self, kind: str) -> list[Walked]:
        return [one for one in self.walks if one.kind == kind]

    def _pairs(self, one: Walked) -> tuple[list[_Pair], bool]:
        """Walk between the containers of a network; gives the pairs that are cut, and whether all that were walked are."""
        if id(one) not in self._between:
            self._between[id(one)] = self._walked(one)
        return self._between[id(one)]

    def _walked(self, one: Walked) -> tuple[list[_Pair], bool]:
        seats = [(held, address) for held in one.members if (address := _address(held, one)) is not None]
        first = [one.container.id, one.other.id if one.other is not None else ""]
        seats.sort(key=lambda seat: first.index(seat[0].id) if seat[0].id in first else len(first))
        seats = seats[:_MEMBERS]
        found, whole = [], True
        for source, mine in seats:
            owner = self.site.owner(mine, one.version)
            for target, address in seats:
                if source.id == target.id or owner is None:
                    continue
                flow = structs.replace(one.flow, source=owner.id, dst=address, dport=_port(target, one))
                result = follow(self.site, flow)
                step = result.walk.decider.step
                if step is not None and step.cited == self.cited and result.works is False:
                    found.append(_Pair(source.name, target.name, result.walk.decider is result.walk.end))
                else:
                    whole = False
        return found, whole

    # In words

    @property
    def title(self) -> str:
        """What the rule does, in a few words."""
        found = [self._out_title(), *self._between_titles(), self._in_title(), self._local_title()]
        said = list(dict.fromkeys(one for one in found if one))
        both = " and ".join(said[:2])
        return both if len(both) <= _TITLE else f"{said[0]}, and more"

    def _out_title(self) -> str:
        out = self._of("egress")
        if not out:
            return ""
        if not any(one.going for one in out):
            return "cuts what containers are answered from outside"
        limit = self._limit(out[0].flow)
        return "keeps containers from reaching " + (
            "anything outside" if not limit else f"{limit} outside" if limit != "TCP" else "anything outside by TCP"
        )

    def _between_titles(self) -> Iterable[str]:
        for one in self._of("neighbours"):
            pairs, whole = self._pairs(one)
            limit = self._limit(one.flow)
            by = " by TCP" if limit == "TCP" else ""
            if not any(pair.going for pair in pairs):
                yield "cuts answers between containers of one network"
            elif whole:
                yield (
                    f"keeps containers of one network from {limit} of each other"
                    if limit not in {"", "TCP"}
                    else f"keeps containers of one network from each other{by}"
                )
            else:
                target = pairs[0].target + (f" ({limit})" if limit not in {"", "TCP"} else by)
                others = {pair.target for pair in pairs} - {pairs[0].target}
                yield f"keeps neighbours from {target}" + (f" and {len(others)} more" if others else "")

    def _local_title(self) -> str:
        ports = ports_of(self._of("local"), "local")
        more = f" and {len(ports) - 1} more" if len(ports) > 1 else ""
        return f"keeps this host from {ports[0].partition(' -> ')[0]}{more}" if ports else ""

    def _in_title(self) -> str:
        ports = self._of("published")
        if not ports:
            return ""
        return (
            "keeps clients outside from published ports"
            if any(one.going for one in ports)
            else "cuts what published ports answer"
        )

    @property
    def sentence(self) -> str:
        """Who sends what to whom that the rule stops."""
        found = []
        out = self._of("egress")
        for going in (True, False):
            its = [one for one in out if one.going == going]
            if its:
                who, limit = _who(names_of(its)), self._limit(its[0].flow)
                to = f" to {limit}" if limit.startswith("port") else f" by {limit}" if limit else ""
                found.append(f"what {who} send outside{to}" if going else f"what is answered to {who} from outside{to}")
        for one in self._of("neighbours"):
            pairs, _ = self._pairs(one)
            limit = self._limit(one.flow)
            at = f" ({limit})" if limit else ""
            more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
            pair = next(iter(pairs), None)
            if pair is not None:
                found.append(
                    f"what {pair.source} sends to {pair.target}{at}{more}"
                    if pair.going
                    else f"what {pair.target} answers {pair.source}{at}{more}"
                )
        its = self._of("published")
        for going in (True, False):
            ports = ports_of(one for one in its if one.going == going)
            if ports:
                named = ", ".join(ports[:3]) + (f" and {len(ports) - 3} more" if len(ports) > 3 else "")  # noqa: PLR2004 - as many as are named
                found.append(f"what clients outside send to {named}" if going else f"what {named} answers them")
        ports = ports_of(self._of("local"), "local")
        if ports:
            named = ", ".join(ports[:3]) + (f" and {len(ports) - 3} more" if len(ports) > 3 else "")  # noqa: PLR2004 - as many as are named
            found.append(f"what this host sends to {named}")
        return "; ".join(found)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What does not work because of it."""
        return self.effects_of(self.walks)

    def effects_of(self, walks: Iterable[Walked]) -> tuple[Effect, ...]:
        """Say it of some of the walks."""
        held = list(walks)
        found = list(self._outward([one for one in held if one.kind == "egress"]))
        its = [one for one in held if one.kind == "published"]
        for going, text in (
            (True, "from outside, published ports would not be reached:"),
            (False, "from outside, published ports would be reached, and their answers lost:"),
        ):
            ports = ports_of(one for one in its if one.going == going)
            if ports:
                found.append(Effect(text, ports))
        ports = ports_of(held, "local")
        if ports:
            found.append(Effect("this host itself would not reach what is published for it alone:", ports))
        for one in held:
            if one.kind == "neighbours":
                found += self._apart(one)
        return tuple(found)

    def _outward(self, out: list[Walked]) -> Iterable[Effect]:
        for going in (True, False):
            its = [one for one in out if one.going == going]
            if not its:
                continue
            names, limit = names_of(its), self._limit(its[0].flow)
            what = "reach nothing outside" if going else "send, and get no answer from outside"
            if limit.startswith("port"):
                what = f"not reach {limit} outside" if going else f"get no answer from {limit} outside"
            elif limit:
                what += f" by {limit}"
            yield Effect(f"{_who(names)} would {what}", names if len(names) > 1 else ())

    def _apart(self, one: Walked) -> Iterable[Effect]:
        pairs, whole = self._pairs(one)
        limit = self._limit(one.flow)
        network = one.network.name
        if whole and not limit:
            yield Effect(f"containers of network {network} would not reach each other")
            return
        by = " by TCP" if limit == "TCP" else f" at {limit}" if limit else ""
        if whole and limit == "TCP":
            yield Effect(f"containers of network {network} would not reach each other{by}")
            return
        named = tuple(f"{pair.source} -> {pair.target}" for pair in pairs)
        if len(named) == 1:
            yield Effect(f"in network {network} {pairs[0].source} would not reach {pairs[0].target}{by}")
        elif named:
            yield Effect(f"in network {network} these would not reach each other{by}:", named)


def _who(names: tuple[str, ...]) -> str:
    return f"{len(names)} containers" if len(names) > 1 else next(iter(names), "nobody")


def names_of(walks: Iterable[Walked]) -> tuple[str, ...]:
    """Name the containers that walks stand for."""
    return tuple(dict.fromkeys(one.name for walked in walks for one in walked.members))


def ports_of(walks: Iterable[Walked], kind: Kind = "published") -> tuple[str, ...]:
    """Name the published ports that walks stand for: a container may have others, which fare otherwise."""
    published = (walked for walked in walks if walked.kind == kind)
    pairs = (pair for walked in published for pair in zip(walked.members, walked.ports, strict=True))
    return tuple(dict.fromkeys(f"{spelled(port)} -> {one.name}" for one, port in pairs))


def _address(held: Container, one: Walked) -> int | None:
    """Give a container's address in the network of a promise."""
    for end in held.endpoints:
        text = end.address if one.version == 4 else end.address6  # noqa: PLR2004 - IPv4
        if end.network_id == one.network.id and text:
            try:
                return number(text)
            except ValueError:
                return None
    return None


def _port(target: Container, one: Walked) -> int:
    """Give the port that a neighbour is walked to: what it publishes, else what was walked to before."""
    if one.other is not None and target.id == one.other.id:
        return one.flow.dport
    return next((port.container for port in target.ports if port.protocol == "tcp"), one.flow.dport)
