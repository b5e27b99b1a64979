"""How large the json logs of the containers are, and what dockerd holds open of deleted ones.

Parses the trees `store/logs` (`ID/ID-json.log f ... SIZE`) and `engine/deleted-logs` (`29 f ... SIZE .../ID-json.log
(deleted)`, the numbers being dockerd's open files).
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot, need, tree_entries


class Log(Struct, frozen=True):
    """One json log: its path on the host and its size in bytes, without what was rotated."""

    path: str
    size: int
    cited: Citation


class Deleted(Struct, frozen=True):
    """A log that was deleted while dockerd writes to it: as `/proc/PID/fd/N`, with its size in bytes."""

    open_as: str
    path: str
    size: int
    cited: Citation


class Logs(Struct, frozen=True):
    """Logs by container id."""

    by_id: dict[str, Log]
    deleted: dict[str, Deleted]


@fact
def logs(snapshot: Snapshot) -> Logs:
    """Parse both records; logs whose lines do not parse are left out."""
    record = need(snapshot, "store/logs", "store")
    by_id = {}
    for entry in tree_entries(record):
        if entry.type == "f" and entry.content.isascii() and entry.content.isdecimal():
            path = f"{record.target}/{entry.path}"
            cited = Citation(record.name, entry.line, f"{int(entry.content):,} bytes", path)
            by_id[entry.path.partition("/")[0]] = Log(path, int(entry.content), cited)
    deleted = {}
    held = snapshot.get("engine/deleted-logs")
    for entry in tree_entries(held) if held.readable else ():
        size, _, link = entry.content.partition(" ")
        path = link.removesuffix(" (deleted)")
        if size.isascii() and size.isdecimal():
            open_as = f"{held.target}/{entry.path}"
            cited = Citation(held.name, entry.line, f"{link}: {int(size):,} bytes", open_as)
            deleted[path.rpartition("/")[2].removesuffix("-json.log")] = Deleted(open_as, path, int(size), cited)
    return Logs(by_id, deleted)
