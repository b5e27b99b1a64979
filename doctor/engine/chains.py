"""The chains that each generation of the engine makes in iptables, and how to tell the generations apart.

Source: moby `libnetwork/drivers/bridge/setup_ip_tables_linux.go` of 20.10 to 28, `internal/iptabler` of 28 and 29; seen
on 20.10.24, 26.1.5 and 28.5.2, and in captures of 29.
"""

from __future__ import annotations

_CLASSIC = {
    "filter": ("DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"),
    "nat": ("DOCKER",),
}
_FORWARD = {
    "filter": (
        "DOCKER",
        "DOCKER-BRIDGE",
        "DOCKER-CT",
        "DOCKER-FORWARD",
        "DOCKER-ISOLATION-STAGE-1",
        "DOCKER-ISOLATION-STAGE-2",
        "DOCKER-USER",
    ),
    "nat": ("DOCKER",),
}
_INTERNAL = {
    "filter": ("DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-INTERNAL", "DOCKER-USER"),
    "nat": ("DOCKER",),
}


def chains(generation: tuple[int, int]) -> dict[str, tuple[str, ...]]:
    """Give the chains of a generation (major, minor) by table; for an unknown one, those that all of them have."""
    if generation == (0, 0):
        return {"filter": ("DOCKER", "DOCKER-USER"), "nat": ("DOCKER",)}
    if generation[0] < 28:  # noqa: PLR2004 - a version of Docker
        return _CLASSIC
    return _FORWARD if generation[0] == 28 else _INTERNAL  # noqa: PLR2004 - the same
