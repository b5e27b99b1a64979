"""What the configuration names, as it is on disk: the socket, the pid file, the data root, programs.

Parses the tree records `engine/paths` and `engine/key-folders`, lines such as::

    /run/docker.sock    s  1795507200.000  0660 0 999 0
    /usr/bin/nosuch     -  0.000           no such file or directory
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.places import in_run
from doctor.registry import fact
from doctor.snapshot import Record, Snapshot, need, tree_entries

_RIGHTS = 4
TYPES = {
    "f": "a file",
    "d": "a directory",
    "s": "a socket",
    "-": "not there",
    "o": "neither a file nor a directory",
}
"""What a person calls the types."""


class Seen(Struct, frozen=True):
    """One path, links followed. `type` is as in `TYPES`, or `!` when it could not be looked at, and `why` says why.

    `mode` is the permission bits, `uid` and `gid` the owner's.
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    why: str
    cited: Citation
    link: bool = False
    """Whether the path itself is a symbolic link."""

    @property
    def hidden(self) -> bool:
        """Whether this user may not look at it."""
        return self.type == "!" and "denied" in self.why

    @property
    def runs(self) -> bool:
        """Whether it is a program that may be run."""
        return self.type == "f" and bool(self.mode & 0o111)

    @property
    def unfit(self) -> str:
        """Why what does not run does not, in words that follow its path."""
        return {"-": "is not there", "f": "may not be run"}.get(self.type, f"is {self.why or 'no file'}")


class Paths(Struct, frozen=True):
    """All of them by path."""

    by_path: dict[str, Seen]
    folders: tuple[Seen, ...] = ()
    """The directories that lead to the private key of TLS, from the root on."""

    def get(self, path: str) -> Seen | None:
        """Give what is known of a path, as the configuration writes it."""
        return self.by_path.get(in_run(path))

    def program(self, name: str) -> Seen | None:
        """Give a program: by its path, or by the name that is looked up in PATH."""
        if name.startswith("/"):
            return self.get(name)
        return next((one for path, one in self.by_path.items() if path.endswith(f"/{name}")), None)


@fact
def paths(snapshot: Snapshot) -> Paths:
    """Parse the record; a line whose rights do not parse is left out."""
    record = need(snapshot, "engine/paths", "files")
    return Paths(_seen(record), tuple(_seen(snapshot.get("engine/key-folders")).values()))


def _seen(record: Record) -> dict[str, Seen]:
    found = {}
    for entry in tree_entries(record):
        mode, uid, gid = 0, 0, 0
        known = entry.type not in {"-", "!"}
        if known:
            words = entry.content.removesuffix(" link").split(" ")
            if len(words) != _RIGHTS or not all(word.isascii() and word.isdecimal() for word in words):
                continue
            try:
                mode, uid, gid = int(words[0], 8), int(words[1]), int(words[2])
            except ValueError:
                continue
        excerpt = f"{TYPES.get(entry.type, '?')}, mode {mode:04o}, owner {uid}:{gid}" if known else entry.content
        cited = Citation(record.name, entry.line, excerpt or "not there", entry.path)
        why = "" if known else entry.content
        link = entry.content.endswith(" link")
        found[entry.path] = Seen(entry.path, entry.type, mode, uid, gid, why, cited, link)
    return found
