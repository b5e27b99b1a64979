"""What differs in one layer, put into words as it is found, and what becomes of the layer in the end.

Nothing is told before the layer is done: one that is removed meanwhile is in use, and its files are gone by right.
"""

from __future__ import annotations

import os
import stat
import time
from base64 import b64encode
from collections import Counter
from typing import TYPE_CHECKING

from doctor.layers import patterns
from doctor.layers.compare import shown_name, type_name
from doctor.layers.folders import pieces
from doctor.layers.model import MOST, Checked, Damage, Unread
from doctor.layers.shifted import Owned

if TYPE_CHECKING:
    from doctor.layers.model import Cause, Kind, Teller, Work

_TICK = 0.05
"""Seconds by which a file's time may lie before the moment of its change: the kernel's clock for that is coarse."""
IN_USE = "in use: changed while it was read"


class Tally:
    """The differences of one layer."""

    def __init__(self, work: Work, teller: Teller) -> None:
        """Begin: what is changed from now on is in use."""
        self.work = work
        self.teller = teller
        self.began = time.time() - _TICK
        self.files = 0
        self.found: list[Damage] = []
        self.open: list[Unread] = []
        self.damages = self.unreadable = 0
        self.told: Counter[tuple[Kind, bool]] = Counter()
        self.owned = Owned()

    def _changed(self, at: float) -> bool:
        return at >= self.began

    def _damage(
        self,
        name: str,
        kind: Kind,
        expected: str,
        found: str,
        mode: int,
        *,
        about: os.stat_result | None = None,
        said: tuple[str, Cause, int] = ("", "", -1),
        grave: bool = False,
        capability: str = "",
    ) -> None:
        if about is not None and self._changed(about.st_ctime):
            self.in_use(name)
            return
        self.damages += 1
        held = self.found
        if kind == "owner":
            # Apart: where all are shifted by one range, that is one damage, however many there are.
            held = self.owned.damages
            self.owned.count(expected, found)
        # Each kind has its own room, and what may be somebody's doing too: many that changed little hide nothing.
        self.told[kind, grave] += 1
        if self.told[kind, grave] > MOST:
            return
        raw = name.encode("utf-8", "surrogateescape")
        plain = _is_text(raw)
        held.append(
            Damage(
                self.work.id,
                f"/{shown_name(name)}",
                kind,
                expected,
                found,
                said[0],
                said[1],
                said[2],
                mode,
                about.st_ctime if about is not None else 0.0,
                "" if plain else b64encode(raw).decode(),
                grave,
                capability=capability,
            )
        )

    def has_content(self, name: str) -> bool:
        """Whether there is content of this one to compare: it is there, of the right type and size, and can be read."""
        path = f"/{shown_name(name)}"
        lost = any(one.path == path and one.kind in {"content", "size", "missing", "type"} for one in self.found)
        return not lost and not any(one.path == path for one in self.open)

    def unread(self, name: str, error: OSError) -> None:
        """Nothing can be said of this one."""
        self._open(name, os.strerror(error.errno).lower() if error.errno else str(error))

    def in_use(self, name: str) -> None:
        """It was changed while the layer was read."""
        self._open(name, IN_USE)

    def _open(self, name: str, why: str) -> None:
        self.unreadable += 1
        if len(self.open) < MOST:
            self.open.append(Unread(self.work.id, f"/{shown_name(name)}", why))

    def record(self, path: str, why: str) -> None:
        """The record itself cannot be used: what it made of files is worth nothing."""
        self.found.clear()
        self.owned = Owned()
        self.open.clear()
        self.unreadable = 0
        self.damages = 1
        self.found.append(Damage(self.work.id, path, "record", "", why))

    def missing(self, name: str, mode: int, parent_changed: float) -> None:
        """A file is not there."""
        if parent_changed and self._changed(parent_changed):
            self.in_use(name)
            return
        self._damage(name, "missing", type_name(mode), "not there", mode)

    def differs(
        self,
        name: str,
        kind: Kind,
        expected: str,
        found: str,
        mode: int,
        about: os.stat_result | None,
        capability: bytes = b"",
    ) -> None:
        """Something but its content is not as recorded; `capability` is what was recorded of it."""
        there = about.st_mode if about is not None else 0
        cause = patterns.rights(kind, found, mode, there)
        grave = patterns.grave(kind, name, mode, there) or (kind == "capability" and found != "none")
        said: tuple[str, Cause, int] = ("", cause, -1)
        self._damage(
            name, kind, expected, found, mode, about=about, said=said, grave=grave, capability=capability.hex()
        )

    def size(self, name: str, expected: int, about: os.stat_result, mode: int) -> None:
        """A file is longer or shorter than recorded."""
        said = patterns.size(expected, about.st_size, fits=False)
        grave = patterns.grave("size", name, mode, about.st_mode) and said[1] in {"edited", "bits"}
        self._damage(
            name, "size", f"{expected:,} bytes", f"{about.st_size:,}", mode, about=about, said=said, grave=grave
        )

    def content(self, name: str, crcs: tuple[int, int], file: tuple[int, int], mode: int, *, touched: bool) -> None:
        """A file of the right size holds something else: `crcs` recorded and found, `file` is open, with its size."""
        handle, size = file
        about = os.fstat(handle)
        said = patterns.content(*crcs, size, pieces(handle, size), touched=touched)
        grave = patterns.grave("content", name, mode, about.st_mode) and said[1] in {"edited", "bits"}
        self._damage(
            name, "content", f"CRC-64 {crcs[0]:016x}", f"{crcs[1]:016x}", mode, about=about, said=said, grave=grave
        )

    def added(self, name: str, about: os.stat_result, what: str = "", *, grave_only: bool = False) -> None:
        """Something is there that nothing recorded; of an added directory, only what stands out is told by itself."""
        grave = patterns.grave("added", name, 0, about.st_mode) or bool(
            about.st_mode & 0o6000 and stat.S_ISREG(about.st_mode)
        )
        if grave_only and not grave:
            return
        found = what or type_name(about.st_mode)
        if stat.S_ISREG(about.st_mode):
            found += f", mode {stat.S_IMODE(about.st_mode):04o}, {about.st_size:,} bytes"
        cause: Cause = "planted" if grave else ""
        self._damage(name, "added", "nothing", found, 0, about=about, said=("", cause, -1), grave=grave)

    # The layer as a whole

    def whole(self, found: str, work: Work, *, ended: bool) -> None:
        """Judge the digest: a right one proves every content and header, whatever the checksums in the record say.

        `ended` says that the record goes on to the end of the archive: one that does not knows nothing of what is left out.
        """
        if not found:
            return
        contents = [one for one in self.found if one.kind == "content"]
        if found == work.digest and contents:
            more = f" and {len(contents) - 1} more" if len(contents) > 1 else ""
            why = f"wrong checksums, of {contents[0].path}{more}: the files are right, by the digest of the layer"
            owned, rest = self.owned, [one for one in self.found if one.kind != "content"]
            self._instead(why, rest)
            self.owned = owned
            self.damages += owned.wrong
        elif work.digest and found != work.digest and not contents:
            # Headers are the record's own: with other rights on disk the digest is right all the same.
            why = f"other headers than were pulled: every file fits, the digest does not ({found[:19]})"
            self._instead(why, [one for one in self.found if one.kind == "added" and ended])

    def _instead(self, why: str, rest: list[Damage]) -> None:
        self.record(self.work.record, why)
        self.found += rest
        self.damages = len(self.found)

    def recorded_size(self, work: Work, files: int, links: int) -> None:
        """Judge the size that the store noted of the layer: of its files, with or without targets of links."""
        noted = work.extra.get("size", "")
        if noted.isdecimal() and not files <= int(noted) <= files + links and self._judged():
            self.damages += 1
            self.found.append(
                Damage(work.id, work.extra.get("size_file", ""), "recorded size", f"{files:,} bytes", f"{int(noted):,}")
            )

    def _judged(self) -> bool:
        return not self.unreadable and not any(one.kind == "record" for one in self.found)

    def checked(self, found: str, seconds: float, *, gone: bool) -> Checked:
        """Tell what there is to tell, and what became of the layer."""
        work = self.work
        about = Checked(
            work.store, work.id, "whole", work.digest, found, self.files, work.bytes, seconds, root=work.root
        )
        from msgspec.structs import replace

        if gone:
            return replace(
                about, state="unknown", found="", unread=1, why="in use: removed or replaced while it was read"
            )
        moved = self.owned.shifted(work.id, work.uids, work.gids)
        if moved:
            self.damages -= self.owned.wrong - 1
        for one in (*self.found, *(moved or self.owned.damages)):
            self.teller.damage(one)
        for other in self.open:
            self.teller.unread(other.path, other.why)
        state = "damaged" if self.damages else "unknown" if self.unreadable else "whole"
        why = self.open[0].why if state == "unknown" else ""
        return replace(about, state=state, damages=self.damages, unread=self.unreadable, why=why)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
