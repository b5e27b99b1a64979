"""Whether the two JSON files of each container can be read by dockerd."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot

_FILES = ("config.v2.json", "hostconfig.json")


class Damaged(Struct, frozen=True):
    """A file that dockerd could not load: whose, where, and why in words that follow its path."""

    container: str
    path: str
    why: str
    cited: Citation


class ContainerFiles(Struct, frozen=True):
    """What was judged (number of files), what is damaged, and whose files could not be read, with the reason."""

    judged: int
    damaged: tuple[Damaged, ...]
    unread: dict[str, str]


class _Head(Struct):
    ID: str = ""


@fact
def container_files(snapshot: Snapshot) -> ContainerFiles:
    """Decode each file; a directory without a config.v2.json is one that dockerd skips at its start."""
    folder = snapshot.get("store/containers/")
    if folder.status == "denied":
        raise EvidenceMissing("store", f"{folder.target}: {folder.why}")
    judged = 0
    damaged = []
    unread = {}
    for record in snapshot.under("store/containers/"):
        identity, _, name = record.name.removeprefix("store/containers/").partition("/")
        if name not in _FILES or record.status == "absent":
            continue
        if not record.readable:
            unread[identity] = f"{record.target}: {record.why or record.status}"
            continue
        judged += 1
        why = _why(record, identity if name == "config.v2.json" else "")
        if why:
            first = record.text.split("\n")[0][:60] or "0 bytes"
            damaged.append(Damaged(identity, record.target, why, Citation(record.name, 1, first, record.target)))
    return ContainerFiles(judged, tuple(damaged), unread)


def _why(record: Record, identity: str) -> str:
    if not record.data.strip():
        return "is empty"
    try:
        held = msgspec.json.decode(record.data, type=_Head)
    except UNDECODABLE as error:
        return f"is no JSON that dockerd reads: {error}"
    return (
        f"does not hold the id of its directory but {held.ID[:12] or 'none'}"
        if identity and identity != held.ID
        else ""
    )
