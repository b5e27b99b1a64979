"""What deleted files that a process holds open take of the room for Docker's data.

Parses the tree `store/deleted-files` (`doctor.linux.deleted`), lines such as::

    4711/fd/5  f  0.000  3221225472 2049:131 /var/lib/docker/volumes/data/_data/log

The record is absent where there is room: then nobody looked.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.processes import Processes
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot, tree_entries

_FIELDS = 3


class DeletedFile(Struct, frozen=True):
    """One file: where it is open, the name that it had, its bytes on disk, and the container of the process if any."""

    pid: int
    open_as: str
    path: str
    size: int
    container: str
    cited: Citation


class DeletedFiles(Struct, frozen=True):
    """Each file once, the largest first; `unread` says what could not be seen, `looked` whether anybody looked."""

    all: tuple[DeletedFile, ...]
    looked: bool
    unread: str


@fact
def deleted_files(snapshot: Snapshot, processes: Processes) -> DeletedFiles:
    """Read the record; lines that do not parse are left out."""
    record = snapshot.get("store/deleted-files")
    if record.status in {"absent", "not-run"}:
        return DeletedFiles((), looked=False, unread="")
    if not record.readable:
        return DeletedFiles((), looked=True, unread=f"{record.target}: {record.why or record.status}")
    found: dict[str, DeletedFile] = {}
    denied = 0
    for entry in tree_entries(record):
        denied += entry.type == "!"
        words = entry.content.split(" ", _FIELDS - 1)
        pid = entry.path.partition("/")[0]
        if entry.type != "f" or len(words) != _FIELDS or not (words[0].isdecimal() and pid.isdecimal()):
            continue
        size, file, path = int(words[0]), words[1], words[2]
        process = processes.by_pid.get(int(pid))
        open_as = f"/proc/{entry.path}"
        cited = Citation(record.name, entry.line, f"{path} (deleted): {size:,} bytes", open_as)
        found.setdefault(file, DeletedFile(int(pid), open_as, path, size, process.container if process else "", cited))
    unread = "what other users' processes hold open is seen by root only" if denied else ""
    if not unread and record.status == "truncated":
        unread = f"{record.target}: {record.why}"
    return DeletedFiles(tuple(sorted(found.values(), key=lambda one: -one.size)), looked=True, unread=unread)
