"""What a network promises its containers, walked: whose packet, to whom, where it ended, and whether that is as promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.facts.containers import Container, Port
from doctor.facts.networks import Network
from doctor.packets.flow import Flow
from doctor.packets.packet import Version
from doctor.packets.walk import Result, Walk, follow

if TYPE_CHECKING:
    from doctor.model import Citation
    from doctor.packets.site import Site

Kind = Literal["egress", "published", "local", "neighbours", "apart", "inside", "direct"]

NATIVE = "docker-bridges"
"""The table of an engine with firewall-backend nftables; what is missing of it is not known."""


class Ending:
    """How a flow ends: walked when that is first asked. `arrives` is what is known of it without; None: nothing."""

    def __init__(self, site: Site, flow: Flow, *, arrives: bool | None = None) -> None:
        """Take what would be walked."""
        self.site = site
        self.flow = flow
        self.arrives = arrives
        self._result: Result | None = None

    @property
    def result(self) -> Result:
        """Walk it."""
        if self._result is None:
            self._result = follow(self.site, self.flow)
        return self._result


class Walked(Struct, frozen=True):
    """One promise, walked: the way out of a network, a published port, neighbours, what is to be kept apart.

    `container` is who was walked with, and stands for `members`. `egress`: to a stranger outside, and `masked` says that
    the network's addresses are to be replaced; `published`: a stranger to `port` of the host; `local`: this host to a
    `port` that is published for it alone; `neighbours`: `container` to `other` of the same network; `apart` and `inside`:
    the same, and the packet is to be kept out (networks, or icc off); `direct`: a stranger to `container` by its own
    address, which is walked only where a rule against that is missing.
    """

    kind: Kind
    network: Network
    container: Container
    members: tuple[Container, ...]
    version: Version
    flow: Flow
    ending: Ending
    port: Port | None = None
    other: Container | None = None
    masked: bool = True
    ports: tuple[Port, ...] = ()
    """Of a published port: those of all members, in their order."""
    whole: bool = False
    """Of neighbours: every pair of the network fares as this one."""

    @property
    def result(self) -> Result:
        """How its flow ends."""
        return self.ending.result

    @property
    def walk(self) -> Walk:
        """The walk of its flow: where it depends on what cannot be known, one on which it works, if there is any.

        Whether a stranger is on somebody's list of addresses cannot be known: the promise is made to those who are not.
        """
        return self.result.best or self.result.walk

    @property
    def settled(self) -> bool:
        """Whether it was seen together with all others that it arrives where it should, by the engine's own NAT."""
        return self.ending.arrives is True

    @property
    def arrives(self) -> bool:
        """Whether its packets arrive, and answers come back, even one that nobody listens."""
        if self.ending.arrives is not None:
            return self.ending.arrives
        walk = self.result.walk
        if self.result.works:
            return True
        return walk.sees == "refused" and walk.end.outcome == "refused" and self.result.works is not None

    @property
    def kept(self) -> bool:
        """Whether the promise is kept; what depends on something is taken to be."""
        if self.ending.arrives is None and self.result.works is None:
            return True
        return self.arrives != (self.kind in {"apart", "inside", "direct"})

    @property
    def code(self) -> str:
        """Name why it ends as it does."""
        return self.result.walk.decider.code

    @property
    def decided(self) -> Citation | None:
        """The rule or fact that decides; None where it is not known."""
        step = self.result.walk.decider.step
        return step.cited if step is not None else None

    @property
    def astray(self) -> bool:
        """Whether a rule that stopped it saw other devices than those it belongs on: it went another way before.

        A chain of family bridge or netdev sees ports of the bridge, never the bridge.
        """
        if self.code in {"BRIDGE_FAMILY_DROP", "NETDEV_DROP"}:
            return False
        if self.kind == "local":
            return False
        end = self.result.walk.decider
        seen, bridge = {end.iif, end.oif} - {""}, self.network.bridge
        return bridge not in seen if self.kind != "neighbours" else seen != {bridge}

    @property
    def going(self) -> bool:
        """Whether it is the first packet that is stopped, and not an answer or what follows."""
        walk = self.result.walk
        decider = walk.decider
        return decider is walk.end or (walk.proxied is not None and decider is walk.proxied.end)


class Promises(Struct, frozen=True):
    """All of them; `unwalked` counts the classes beyond the limit. `written` are the texts of the engine's own rules.

    `unread` says why nothing was walked, empty where it was.
    """

    all: tuple[Walked, ...]
    unwalked: int
    written: frozenset[str]
    unread: str = ""

    def broken(self, *kinds: Kind) -> list[Walked]:
        """Give those of these kinds that are not kept."""
        return [one for one in self.all if one.kind in kinds and not one.kept]

    def of(self, *kinds: Kind) -> list[Walked]:
        """Give those of these kinds."""
        return [one for one in self.all if one.kind in kinds]

    def own(self, cited: Citation | None) -> bool:
        """Whether a rule is one of the engine's own."""
        return cited is not None and cited.excerpt in self.written
