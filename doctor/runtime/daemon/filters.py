"""Filters of lists, as `docker ps --filter` sends them (moby daemon/list.go)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from doctor.runtime.daemon.fault import bad

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Request
    from doctor.runtime.model import Container

_KNOWN = frozenset(
    {"ancestor", "exited", "expose", "health", "id", "label", "name", "network", "publish", "status", "volume"}
)


def read_filters(request: Request) -> dict[str, list[str]]:
    """Read `filters` of a query: lists of values by name, or maps of values as new clients send them. Raises Fault."""
    text = request.query.get("filters")
    if not text:
        return {}
    try:
        held = json.loads(text)
        return {name: list(values) for name, values in held.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise bad(f"invalid filter: {error}") from error


def chosen(
    engine: Engine, every: Iterable[Container], filters: dict[str, list[str]], *, running: bool
) -> list[Container]:
    """Choose containers; with `running` only those that run. Raises Fault for a filter that is none."""
    for name in filters:
        if name not in _KNOWN:
            raise bad(f"invalid filter '{name}'")
    live = {"running", "paused", "restarting"}
    return [
        one
        for one in every
        if (not running or one.state in live)
        and all(any(_fits(engine, one, name, value) for value in values) for name, values in filters.items() if values)
    ]


def _fits(engine: Engine, one: Container, name: str, value: str) -> bool:
    if name == "id":
        return one.id.startswith(value)
    if name == "name":
        return re.search(value.lstrip("/"), one.spec.name) is not None
    if name == "status":
        return one.state == value
    if name == "exited":
        return one.state == "exited" and str(one.exit_code) == value
    if name == "health":
        return (one.health or "none") == value
    if name == "label":
        key, equals, wanted = value.partition("=")
        return key in one.spec.labels and (not equals or one.spec.labels[key] == wanted)
    if name == "ancestor":
        image = engine.world.images.get(one.image_id)
        tags = image.tags if image else ()
        return one.image_id.removeprefix("sha256:").startswith(value) or value in tags or f"{value}:latest" in tags
    if name == "network":
        networks = engine.views.networks(one)
        return value in networks or any(held["NetworkID"] == value for held in networks.values())
    if name in {"publish", "expose"}:
        return any(value.partition("/")[0] in {str(port.port), str(port.host_port)} for port in one.ports)
    return any(value in {bind.source, bind.target} for bind in one.spec.mounts)
