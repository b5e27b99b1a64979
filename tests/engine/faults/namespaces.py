"""Faults of namespaces and sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.faults.table import Fault, sandboxes

if TYPE_CHECKING:
    from tests.enginehost import EngineHost


# What breaks


def _leak_mount(host: EngineHost) -> None:
    host.sh(
        "ip netns add gone; touch /run/docker/netns/0123456789ab;"
        " mount --bind /run/netns/gone /run/docker/netns/0123456789ab; ip netns del gone"
    )


def _unmount_sandbox(host: EngineHost) -> None:
    key = host.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web")
    host.sh(f"umount {key}")


FAULTS = (
    Fault("NSP002", "mount", _leak_mount, sandboxes, level="warning"),
    Fault(
        "NSP002",
        "file",
        lambda h: h.sh("touch /run/docker/netns/ba9876543210"),
        sandboxes,
        level="warning",
        engines=("sid",),
    ),
    Fault("NSP002", "unmounted", _unmount_sandbox, sandboxes, level="warning"),
)
