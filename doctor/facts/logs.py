"""How large the json logs of the containers are, what dockerd holds open of deleted ones, and how large the disk is.

Parses the trees `store/logs` (`ID/ID-json.log f ... SIZE`) and `engine/deleted-logs` (`29 f ... SIZE .../ID-json.log
(deleted)`, the numbers being dockerd's open files), and `store/space`.
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
    """Logs by container id. `disk` is the size of the file system in bytes, `free` what is left; 0 when not known."""

    by_id: dict[str, Log]
    deleted: dict[str, Deleted]
    disk: int
    free: int
    space: Citation | None


@fact
def logs(snapshot: Snapshot) -> Logs:
    """Parse the three records; logs whose lines do not parse are left out."""
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
    return Logs(by_id, deleted, *_space(snapshot))


def _space(snapshot: Snapshot) -> tuple[int, int, Citation | None]:
    record = snapshot.get("store/space")
    numbers = dict(line.split(" ", 1) for line in record.text.split("\n") if " " in line)
    size, free = (numbers.get(name, "") for name in ("size", "free"))
    if not record.readable or not (size.isascii() and size.isdecimal() and free.isascii() and free.isdecimal()):
        return 0, 0, None
    excerpt = f"{int(size):,} bytes, {int(free):,} free"
    return int(size), int(free), Citation(record.name, 1, excerpt, f"file system of {record.target}")
