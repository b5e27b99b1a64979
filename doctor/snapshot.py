"""The evidence store: raw records of one host at one time, never parsed facts.

A record's name is also its path in a bundle (`files/etc/docker/daemon.json`, `api/version`, `netns/4026532250/links`).
Absence is a record too. Many small files below one directory are one record of kind `tree`, see `TreeEntry`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct, field

from doctor import lines
from doctor.lines import unescape

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
"""Version of the bundle. Readers accept every older format for ever."""

Status = lines.Status
Kind = lines.Kind


class Record(Struct, frozen=True):
    """One piece of evidence.

    `target` is what was read: a path, an argv joined by spaces, an API path. `data` is the text after redaction (empty
    unless status is ok, truncated or failed). `why` explains every status but ok. `sha256` is of the bytes *before*
    redaction, hex, empty when nothing was read. `mtime` is the file's, in seconds since the epoch, 0 when it has none.
    """

    name: str
    kind: Kind
    target: str
    status: Status = "ok"
    data: bytes = b""
    why: str = ""
    errno: int = 0
    ms: float = 0.0
    size: int = 0
    sha256: str = ""
    mtime: float = 0.0
    redactions: int = 0

    @property
    def readable(self) -> bool:
        """True when `data` is what was asked for, whole or cut."""
        return self.status in {"ok", "truncated"}

    @property
    def text(self) -> str:
        """The data as text; bytes that are not UTF-8 become U+FFFD."""
        return self.data.decode("utf-8", "replace")


class TreeEntry(Struct, frozen=True):
    r"""One line of a `tree` record: `path TAB type TAB mtime TAB content`.

    `path` is relative to the record's target. `type` is `f` (content: the text), `l` (the link's target), `d` (a
    directory), `-` (absent), `!` (content: why it could not be read), `o` (any other type: content is its st_mode in
    octal). In `engine/paths`, `s` is a socket, and the content is mode, owner, group and size.
    Backslash, tab, newline and carriage return are escaped in path and content as `\\ \t \n \r`.
    `line` counts from 1, for citations.
    """

    path: str
    type: str
    mtime: float
    content: str
    line: int


def tree_entries(record: Record) -> Iterator[TreeEntry]:
    """Parse a tree record; a line that is none is skipped (hostile bundles), its number is not reused."""
    fields = 4
    text = record.text
    escaped = "\\" in text
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.split("\t")
        if len(parts) != fields:
            continue
        path, kind, mtime, content = parts
        try:
            when = float(mtime)
        except ValueError:
            continue
        if escaped:
            path, content = unescape(path), unescape(content)
        yield TreeEntry(path, kind, when, content, number)


class Meta(Struct, frozen=True):
    """The snapshot's head. Times are seconds since the epoch, `utc_offset` is seconds east of UTC."""

    doctor: str
    hostname: str
    kernel: str
    machine: str
    collected_at: float
    utc_offset: int
    uid: int
    user: str
    seconds: float = 0.0
    format: int = FORMAT


class Snapshot(Struct, frozen=True):
    """All evidence of one host. `removed` counts redacted secrets by kind; `bundle` says that it came out of one."""

    meta: Meta
    records: dict[str, Record]
    removed: dict[str, int] = field(default_factory=dict)
    bundle: bool = False
    damage: str = ""
    """Why a bundle could not be read whole; empty for a live host."""

    def get(self, name: str) -> Record:
        """Give the record of that name; one that was never asked for is `not-run`."""
        found = self.records.get(name)
        return found if found is not None else Record(name, "file", name, status="not-run", why="not asked for")

    def under(self, prefix: str) -> Iterator[Record]:
        """Give every record whose name starts with `prefix`, sorted by name."""
        for name in sorted(name for name in self.records if name.startswith(prefix)):
            yield self.records[name]

    def digest(self) -> str:
        """Fingerprint the evidence: SHA-256 over names, statuses and data; a bundle has that of its host's snapshot."""
        total = hashlib.sha256()
        for name in sorted(self.records):
            record = self.records[name]
            total.update(f"{name}\0{record.status}\0{len(record.data)}\0".encode())
            total.update(record.data)
        return total.hexdigest()


class EvidenceMissing(Exception):  # noqa: N818 - it is no error of ours: the host would not tell
    """A fact cannot be had: `area` names the evidence in a word, `why` says what stood in the way.

    Reports group by the text of this exception, so it names the evidence and the reason, no single subject.
    """

    def __init__(self, area: str, why: str) -> None:
        """Keep area and reason."""
        super().__init__(f"{area}: {why}")
        self.area = area
        self.why = why


def need(snapshot: Snapshot, name: str, area: str) -> Record:
    """Give a record that can be read. Raises EvidenceMissing for one that cannot, absence included."""
    record = snapshot.get(name)
    if not record.readable:
        raise EvidenceMissing(area, record.why or record.status)
    return record
