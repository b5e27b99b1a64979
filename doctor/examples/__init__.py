"""Broken hosts that ship with doctor, as bundles of live engines: what `doctor check --example NAME` reads."""

from __future__ import annotations

from pathlib import Path

from doctor.exits import UsageError

HOSTS = {
    "forwarding-off": "Docker 28.5: IPv4 forwarding is off, published ports and egress are lost",
    "rules-flushed": "Docker 26.1: the firewall was flushed, and a layer's link is gone",
    "daemon-stopped": "Docker 28.5: a signal has stopped dockerd, every docker command hangs",
}
"""Name of each example and what it shows."""


def listing() -> str:
    """Give the list that `--example list` prints."""
    return "\n".join(f"{name:<16}  {what}" for name, what in HOSTS.items()) + "\n"


def path(name: str) -> str:
    """Give the path of an example's bundle. Raises UsageError for a name that is none."""
    if name not in HOSTS:
        raise UsageError(f"--example {name}: is none of {', '.join(HOSTS)}")
    return str(Path(__file__).with_name(f"{name}.tar.gz"))
