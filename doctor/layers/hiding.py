"""Whiteouts and opaque directories of one overlay2 layer: whether what it deletes of the layers below it stays deleted.

Judged by what is to be seen: where the driver unpacks through a mount (native diff off), a whiteout of nothing is not
made, and a directory may be opaque without a mark in the archive.
"""

from __future__ import annotations

import stat
from errno import ELOOP, ENOENT, ENOTDIR, ENXIO
from typing import TYPE_CHECKING

from doctor.layers.compare import shown_name, type_name
from doctor.layers.union import below, is_opaque, is_whiteout, shines_through, shows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.layers.folders import Folders
    from doctor.layers.tally import Tally

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
OPAQUES = ("trusted.overlay.opaque", "user.overlay.opaque")
GONE = {ENOENT, ENOTDIR, ELOOP, ENXIO}


class Hiding:
    """What a layer hides, as far as it is not yet known to be right."""

    def __init__(self, folders: Folders, lowers: tuple[str, ...], tally: Tally) -> None:
        """Begin with nothing; `lowers` are the layers below, nearest first."""
        self.folders = folders
        self.lowers = lowers
        self.tally = tally
        self.lost: list[str] = []
        self.opaque: set[str] = set()
        """Directories that are opaque, until it is known that they should be."""

    def whiteout(self, name: str) -> bool:
        """Whether a recorded whiteout is there; one that is not is judged in the end."""
        try:
            if is_whiteout(self.folders, name, self.folders.look(name)):
                return True
        except OSError as error:
            if error.errno not in GONE:
                self.tally.unread(name, error)
                return True
        self.lost.append(name)
        return False

    def mark(self, path: str) -> None:
        """Judge a directory that was recorded as opaque."""
        self.opaque.discard(path)
        try:
            if is_opaque(self.folders, path or "."):
                return
            name = shines_through(self.lowers, path, self.folders)
        except OSError as error:
            self.tally.unread(path, error)
            return
        if name:
            found = f"shows {shown_name(name)} of a layer below"
            self.tally.differs(path, "opaque lost", "hides what is below it", found, stat.S_IFDIR, None)

    def tell(self, names: Callable[[], Iterator[str]]) -> None:
        """Tell what is lost and what is too much; `names` gives every recorded name, and is asked only where it matters."""
        if not (self.lost or self.opaque):
            return
        recorded = set(names())
        for name in self.lost:
            if name not in recorded:  # a layer may bring anew what it deletes
                self._whiteout(name)
        for path in sorted(self.opaque):
            self._opaque(path, recorded)

    def _whiteout(self, name: str) -> None:
        try:
            about = self.folders.look(name)
        except OSError:
            about = None
        try:
            if about is None and not shows(self.lowers, name):
                return
        except OSError as error:
            self.tally.unread(name, error)
            return
        found = "not there" if about is None else type_name(about.st_mode)
        self.tally.differs(name, "whiteout lost", "deletes what is below it", found, 0, about)

    def _opaque(self, path: str, recorded: set[str]) -> None:
        """A directory that is opaque and was not: it hides what is to be seen of the layers below."""
        start = f"{path}/" if path else ""
        try:
            hidden = (
                name
                for name in below(self.lowers, path)
                if start + name not in recorded and start + WHITEOUT + name not in recorded
            )
            name = next(hidden, "")
            about = self.folders.look(path or ".")
        except OSError as error:
            self.tally.unread(path, error)
            return
        if name:
            self.tally.added(path, about, f"opaque: hides {shown_name(name)} of a layer below")
