"""A healthy host of a live engine, and the same with parts of its evidence exchanged."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from doctor.bundle import read
from doctor.examples import path
from doctor.registry import load
from doctor.why import why

if TYPE_CHECKING:
    from doctor.snapshot import Snapshot

REGISTRY = load(plugins=False)
"""Loaded once the site of a packet is known to it, which the import of `why` sees to."""

__all__ = ["REGISTRY", "why"]


@cache
def healthy() -> Snapshot:
    """Give the example whose forwarding is off, with forwarding on: web1 and cron on bridge, api, db and mail on shop."""
    held = read(path("forwarding-off"))
    held = edited(held, "files/proc/sys/net/ipv4/ip_forward", ("0\n", "1\n"))
    held = edited(held, "files/etc/sysctl.d/99-cis.conf", ("ip_forward = 0", "ip_forward = 1"))
    text = re.sub(r"(/forwarding\t.*\t)0", r"\g<1>1", held.records["net/sysctl/ipv4"].text)
    return given(held, "net/sysctl/ipv4", text)


def given(held: Snapshot, record: str, text: str) -> Snapshot:
    """Give a record another text."""
    return replace(held, records=held.records | {record: replace(held.records[record], data=text.encode())})


def edited(held: Snapshot, record: str, *edits: tuple[str, str]) -> Snapshot:
    """Exchange parts of a record; each stands there."""
    text = held.records[record].text
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return given(held, record, text)


def missing(held: Snapshot, record: str, why: str = "permission denied") -> Snapshot:
    """Make a record one that could not be had."""
    gone = replace(held.records[record], status="denied", data=b"", why=why)
    return replace(held, records=held.records | {record: gone})


def inspected(held: Snapshot, name: str, **changes: Any) -> Snapshot:
    """Change what the engine says of a container: `State.Running=False` as `State={"Running": False}`."""
    for record in held.under("api/inspect/"):
        raw = msgspec.json.decode(record.data)
        if raw["Name"] == f"/{name}":
            for key, value in changes.items():
                raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
            return given(held, record.name, msgspec.json.encode(raw).decode())
    raise AssertionError(name)


def down(held: Snapshot, name: str, **state: Any) -> Snapshot:
    """End a container; what is not given is as after an end by itself."""
    ended = {"Running": False, "Status": "exited", "Pid": 0, "ExitCode": 0, "FinishedAt": "2026-11-24T16:14:20Z"}
    found = inspected(held, name, State=ended | state, NetworkSettings={"Ports": {}})
    for record in ("api/containers", "api/containers-last"):
        raw = msgspec.json.decode(found.records[record].data)
        for one in raw:
            if one["Names"] == [f"/{name}"]:
                one["State"] = ended["Status"]
        found = given(found, record, msgspec.json.encode(raw).decode())
    return found


def user_rule(held: Snapshot, rule: str) -> Snapshot:
    """Put a rule into DOCKER-USER."""
    chain = ":DOCKER-USER - [0:0]\n"
    text = held.records["net/iptables-nft"].text
    head = re.search(r":DOCKER-USER - \[\d+:\d+\]\n", text)
    assert head is not None, chain
    return given(held, "net/iptables-nft", text.replace(head[0], f"{head[0]}[0:0] -A DOCKER-USER {rule}\n"))
