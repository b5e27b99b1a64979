"""What a flush leaves behind, for both back ends: what is open now, and what docker-proxy still serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.checks.bridges import attached
from doctor.checks.published_ports import leading
from doctor.model import Effect, Excluded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.facts.config import Options
    from doctor.facts.containers import Containers
    from doctor.facts.engine_rules import EngineRules
    from doctor.facts.networks import Networks
    from doctor.packets.promises import Promises


def open_networks(networks: Networks, containers: Containers, promises: Promises | None) -> Iterator[Effect]:
    """Say that networks are open to each other, unless a walk between two says that something else keeps them apart."""
    used = [(network, users) for network in networks.all if (users := attached(network, containers))]
    walked = promises.of("apart") if promises is not None else []
    if len(used) < 2 or (walked and not any(one.arrives for one in walked)):  # noqa: PLR2004 - two networks
        return
    (first, ours), (second, theirs) = used[0], used[1]
    yield Effect(
        f"networks are open to each other: {ours[0].name} ({first.name}) would reach {theirs[0].name} ({second.name})"
    )


def still_answering(options: Options, containers: Containers, promises: Promises | None) -> tuple[Effect, ...]:
    """Name the published ports that docker-proxy serves without a rule: those that a stranger's packet is walked to."""
    if not options.on("userland-proxy") or promises is None:
        return ()
    arrives = {
        f"{port.host} -> {member.name}"
        for one in promises.of("published")
        if one.arrives
        for member, port in zip(one.members, one.ports, strict=True)
    }
    ports = tuple(one for one in leading(containers.running) if one in arrives)
    if not ports:
        return ()
    return (Effect("published ports still answer, through docker-proxy; every client seems to be the bridge:", ports),)


def not_flushed(rules: EngineRules | None) -> tuple[Excluded, ...]:
    """Exclude a flush: of the rules that the engine has written none is missing."""
    if rules is None or not rules.families or rules.missing:
        return ()
    return (Excluded("NET021", "Docker's own rules stand"),)
