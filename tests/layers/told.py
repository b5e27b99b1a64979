"""A teller that keeps what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.layers.model import Damage


class Told:
    """What a verifier told."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.damages: list[Damage] = []
        self.unreadable: list[tuple[str, str]] = []
        self.bytes = 0

    def damage(self, one: Damage) -> None:
        """One more."""
        self.damages.append(one)

    def unread(self, path: str, why: str) -> None:
        """One more."""
        self.unreadable.append((path, why))

    def read(self, count: int) -> None:
        """So many more."""
        self.bytes += count
