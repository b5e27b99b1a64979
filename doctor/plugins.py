"""Third parties' entry points, found without importing `importlib.metadata` where there is none.

Reading every distribution's metadata costs about as much as the rest of the start. A directory listing says which
distributions have an `entry_points.txt` that names one of our groups at all.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUPS = ("doctor.checks", "doctor.sources")


def entry_points() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Give group, name and loader of each entry point in our groups; the loader imports and may raise anything."""
    if not _any():
        return
    from importlib import metadata

    for group in GROUPS:
        for point in metadata.entry_points(group=group):
            yield group, point.name, point.load


def _any() -> bool:
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - start-up
        except OSError:
            continue
        for name in names:
            if not name.endswith((".dist-info", ".egg-info")):
                continue
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:  # noqa: PTH118, PTH123
                    text = file.read(1 << 16)
            except OSError:
                continue
            if b"[doctor." in text:
                return True
    return False
