"""Limits of containers: what can be kept here, what the engine says of the rest, and what the runtime is told.

Source: moby `daemon/daemon_unix.go` (verifyPlatformContainerResources); the same words since 20.10. A lab has control groups
where it was brought up with them (`--limits`); elsewhere it is like a kernel without.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doctor.runtime import cgroups
from doctor.runtime.daemon.spec import SpecError

if TYPE_CHECKING:
    from doctor.runtime.model import Limits

_LEAST = 6 << 20
"""Bytes of memory that a container must be left (moby linuxMinMemory)."""
_NO_GROUP = "or the cgroup is not mounted"


def kept(asked: Limits, can: frozenset[str]) -> tuple[Limits, list[str]]:
    """Give the limits that are kept where these controllers can be used, and warnings for the others.

    Raises SpecError for those that the engine refuses.
    """
    found, said = asked, []
    if asked.memory and asked.memory < _LEAST:
        raise SpecError("Minimum memory limit allowed is 6MB")
    if asked.memory and "memory" not in can:
        said.append(f"Your kernel does not support memory limit capabilities {_NO_GROUP}. Limitation discarded.")
        found = replace(found, memory=0)
    if asked.pids and "pids" not in can:
        said.append(f"Your kernel does not support PIDs limit capabilities {_NO_GROUP}. PIDs limit discarded.")
        found = replace(found, pids=0)
    if asked.cpus and "cpu" not in can:
        raise SpecError(f"NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler {_NO_GROUP}")
    there = os.cpu_count() or 1
    if asked.cpus < 0 or asked.cpus > there:
        raise SpecError(f"Range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available")
    return found, said


def group(identity: str, can: frozenset[str]) -> str:
    """Give linux.cgroupsPath of a container, empty where it gets none. Without limits it has a group as well."""
    return f"/docker/{identity}" if can else ""


def resources(limits: Limits) -> dict[str, Any]:
    """Give linux.resources of the OCI configuration."""
    found: dict[str, Any] = {}
    if limits.memory:
        found["memory"] = {"limit": limits.memory}
    if limits.pids:
        found["pids"] = {"limit": limits.pids}
    if limits.cpus:
        found["cpu"] = {"period": 100_000, "quota": int(limits.cpus * 100_000)}
    return found


def usable() -> frozenset[str]:
    """Name the controllers that containers of this daemon can be limited by. None where groups are not ours to make."""
    try:
        return frozenset(
            name for one in cgroups.hierarchies() if os.access(one.own, os.W_OK) for name in one.controllers
        )
    except OSError:
        return frozenset()
