"""`doctor reach`: who reaches whom, from a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doctor import __version__
from doctor.examine import Facts
from doctor.exits import CLEAN, FOUND, INCOMPLETE, UsageError
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.facts.sockets import Sockets
from doctor.packets.boxes import Known
from doctor.packets.build import SITE
from doctor.packets.flow import OUTSIDE
from doctor.packets.matrix import Wanted, matrix
from doctor.packets.site import HOST
from doctor.snapshot import EvidenceMissing

if TYPE_CHECKING:
    from doctor.model import Reach
    from doctor.registry import Registry
    from doctor.snapshot import Snapshot


def reach(snapshot: Snapshot, registry: Registry, source: str = "", target: str = "") -> tuple[Reach, int]:
    """Judge every pair, or those from one source or to one target.

    Gives the matrix and the exit code: 0, 1 where a promise is broken, 3 where something depends or could not be read.
    Raises UsageError for a name that is none, EvidenceMissing where there is nothing to judge by.
    """
    facts = Facts(registry, snapshot)
    containers: Containers = facts.get(Containers)
    daemon: Daemon = facts.get(Daemon)
    if daemon.rootless:
        raise EvidenceMissing(
            "the rules", "dockerd runs rootless: its networks and ports are in a namespace of its own"
        )
    known = Known(
        facts.get(SITE),
        containers,
        facts.get(Processes),
        _optional(facts, Networks),
        _optional(facts, Sockets),
        _optional(facts, EngineRules),
    )
    wanted = Wanted(_named(source, containers, {HOST, OUTSIDE}), _named(target, containers, {OUTSIDE}))
    found = matrix(known, snapshot.meta.hostname, __version__, wanted)
    code = FOUND if found.broken else INCOMPLETE if found.depends or found.unread else CLEAN
    return found, code


def _optional(facts: Facts, wanted: type) -> Any:
    try:
        return facts.get(wanted)
    except EvidenceMissing:
        return None


def _named(name: str, containers: Containers, others: set[str]) -> str:
    """Give the name of a container as it is shown: one in the namespace of another goes by that. Raises UsageError."""
    if not name or name in others:
        return name
    for one in containers.all:
        if name in {one.name, one.engine_name, one.id} or (len(name) >= 12 and one.id.startswith(name)):  # noqa: PLR2004 - as docker ps prints it
            break
    else:
        names = ", ".join(one.name for one in containers.running[:5])
        raise UsageError(
            f"reach: {name}: no container, and not {' or '.join(sorted(others))}; containers: {names or 'none'}"
        )
    if not one.running:
        raise UsageError(f"reach: {one.name} does not run")
    if one.network_mode == "host":
        return HOST
    mode, _, whose = one.network_mode.partition(":")
    if mode == "container":
        held = next((other for other in containers.running if whose in {other.id, other.engine_name}), None)
        if held is not None:
            return held.name
    return one.name
