"""The group docker, as /etc/group has it; of that file nothing else is kept. Parses `docker:x:995:alice,bob`."""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot, need


class DockerGroup(Struct, frozen=True):
    """Its id (-1: there is none) and the members that the file names; root is left out."""

    gid: int
    members: tuple[str, ...]
    cited: Citation


@fact
def docker_group(snapshot: Snapshot) -> DockerGroup:
    """Read the line."""
    record = need(snapshot, "host/groups", "files")
    fields = 4
    for number, line in enumerate(record.text.split("\n"), 1):
        parts = line.split(":")
        if len(parts) == fields and parts[0] == "docker":
            members = tuple(one for one in parts[3].strip().split(",") if one and one != "root")
            gid = int(parts[2]) if parts[2].isascii() and parts[2].isdecimal() else -1
            return DockerGroup(gid, members, Citation(record.name, number, line, f"{record.target}, group docker"))
    return DockerGroup(-1, (), Citation(record.name, 0, "no group docker", record.target))
