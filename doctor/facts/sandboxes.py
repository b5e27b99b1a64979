"""The files of network sandboxes in EXEC-ROOT/netns: which are mounts of a namespace, and whose.

Parses the tree records `run/netns` and `run/netns-last`; a line of type `n` is an nsfs mount, its content the
namespace: `91836cc6ba05  n  0.000  net:[4026532326]`.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, tree_entries


class SandboxFile(Struct, frozen=True):
    """One file: `inode` is empty for one that is no mount; `age` is its age in seconds (-1: unknown, a mount)."""

    name: str
    path: str
    inode: str
    age: float
    cited: Citation


class Sandboxes(Struct, frozen=True):
    """The files that were there at the beginning and at the end of the collection, unchanged."""

    folder: str
    all: tuple[SandboxFile, ...]


@fact
def sandboxes(snapshot: Snapshot) -> Sandboxes:
    """Read both listings, keep what stands in both."""
    record = snapshot.get("run/netns")
    if record.status == "absent":
        return Sandboxes(record.target, ())
    if not record.readable:
        raise EvidenceMissing("sandboxes", f"{record.target}: {record.why or record.status}")
    last = snapshot.get("run/netns-last")
    after = {entry.path: entry.content for entry in tree_entries(last)} if last.readable else None
    found = []
    for entry in tree_entries(record):
        if after is not None and after.get(entry.path) != entry.content:
            continue
        path = f"{record.target}/{entry.path}"
        inode = entry.content.removeprefix("net:[").rstrip("]") if entry.type == "n" else ""
        age = snapshot.meta.collected_at - entry.mtime if entry.mtime else -1.0
        excerpt = entry.content if entry.type == "n" else "a file, no mount of a namespace"
        found.append(SandboxFile(entry.path, path, inode, age, Citation(record.name, entry.line, excerpt, path)))
    return Sandboxes(record.target, tuple(found))
