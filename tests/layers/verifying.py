"""Verify a layer in this process, and keep what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from doctor.layers import overlay2

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.layers.model import Checked, Damage, Work


class Told:
    """Keeps what a verifier tells; `during` is called with each count of bytes."""

    def __init__(self, during: Callable[[int], object] = lambda _: None) -> None:
        """Begin with nothing."""
        self.damages: list[Damage] = []
        self.open: list[tuple[str, str]] = []
        self.bytes = 0
        self.during = during

    def damage(self, one: Damage) -> None:
        """See `model.Teller`."""
        self.damages.append(one)

    def unread(self, path: str, why: str) -> None:
        """See `model.Teller`."""
        self.open.append((path, why))

    def read(self, count: int) -> None:
        """See `model.Teller`."""
        self.bytes += count
        self.during(count)


class Result(NamedTuple):
    """What became of a layer, and what was told of it."""

    checked: Checked
    damages: list[Damage]
    open: list[tuple[str, str]]

    @property
    def found(self) -> set[tuple[str, str]]:
        """Kind and path of each damage."""
        return {(one.kind, one.path) for one in self.damages}


def verify(work: Work, during: Callable[[int], object] = lambda _: None) -> Result:
    """Verify one layer of overlay2."""
    told = Told(during)
    checked = overlay2.verify(work, told)
    return Result(checked, told.damages, told.open)
