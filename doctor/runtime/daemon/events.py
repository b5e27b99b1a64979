"""Events of the daemon, as `/events` tells them: the last ones kept, new ones sent to whoever listens.

Source: moby daemon/events/events.go, api/types/events; 256 are kept there, too.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 256


class Events:
    """What happened, oldest first."""

    def __init__(self, image_of: Callable[[str], tuple[str, str, dict[str, str]]]) -> None:
        """Take what gives name, image and labels of a container by its id."""
        self._held: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._of = image_of
        self.listeners: list[Callable[[dict[str, Any]], None]] = []

    def container(self, identity: str, action: str, **more: str) -> None:
        """Tell what happened to a container."""
        name, image, labels = self._of(identity)
        attributes = dict(sorted({**labels, "image": image, "name": name, **more}.items()))
        self._tell("container", action, identity, attributes, image)

    def network(self, identity: str, action: str, name: str, driver: str, container: str = "") -> None:
        """Tell what happened to a network."""
        attributes = {**({"container": container} if container else {}), "name": name, "type": driver}
        self._tell("network", action, identity, attributes)

    def volume(self, name: str, action: str, **more: str) -> None:
        """Tell what happened to a volume."""
        self._tell("volume", action, name, dict(sorted({"driver": "local", **more}.items())))

    def image(self, identity: str, action: str, name: str) -> None:
        """Tell what happened to an image."""
        self._tell("image", action, identity, {"name": name})

    def daemon(self, action: str, **more: str) -> None:
        """Tell what happened to the daemon."""
        self._tell("daemon", action, more.get("name", ""), more)

    def _tell(self, kind: str, action: str, identity: str, attributes: dict[str, str], image: str = "") -> None:
        now = time.time_ns()
        old = {"status": action, "id": identity} if kind in {"container", "image"} else {}
        if kind == "container":
            old["from"] = image
        event: dict[str, Any] = {
            **old,
            "Type": kind,
            "Action": action,
            "Actor": {"ID": identity, "Attributes": attributes},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        self._held.append(event)
        for listener in tuple(self.listeners):
            listener(event)

    def between(self, since: float, until: float) -> list[dict[str, Any]]:
        """Give what happened between two times, in seconds since the epoch."""
        return [event for event in self._held if since * 1e9 <= event["timeNano"] <= until * 1e9]


def wanted(event: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Whether the filters of a request let an event through."""
    for name, values in filters.items():
        if name == "type" and event["Type"] not in values:
            return False
        if name == "event" and not any(event["Action"].startswith(value) for value in values):
            return False
        actor = event["Actor"]
        if name in {"container", "network", "volume", "image"}:
            told = {actor["ID"], actor["Attributes"].get("name", ""), actor["Attributes"].get(name, "")}
            if not any(value in told or actor["ID"].startswith(value) for value in values):
                return False
    return True


def line(event: dict[str, Any]) -> bytes:
    """Give an event as a line of JSON."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
