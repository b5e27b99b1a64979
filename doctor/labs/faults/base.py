"""What every fault is: fields as its file has them, `make`, and what takes it back."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from doctor.labs.ground import Ground, Names, sh

Undo = list[Callable[[], object]]


class Place(Struct, frozen=True):
    """Where a fault is put: the host, and the names of what is on it."""

    ground: Ground
    names: Names

    def sh(self, script: str, *, seconds: float = 30.0) -> str:
        """Run a script, words in braces filled in. Raises GroundError."""
        return sh(self.ground, self.names.fill(script), seconds=seconds)

    def do(self, script: str, back: str) -> Undo:
        """Run a script, and give what takes it back: another one. Raises GroundError."""
        self.sh(script)
        return [self.later(back)]

    def later(self, script: str) -> Callable[[], object]:
        """Give what runs a script later; words in braces are filled in now."""
        filled = self.names.fill(script)
        return lambda: sh(self.ground, filled)


class Fault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fault. Its fields are the keys of a `[[fault]]`."""

    def make(self, at: Place) -> Undo:
        """Make it, and give what takes it back. Raises GroundError."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """Give all texts of it, in which words may stand in braces."""
        return [one for one in (getattr(self, name) for name in self.__struct_fields__) if isinstance(one, str)]


def take_back(undo: Undo) -> None:
    """Take faults back, the last one first."""
    for one in reversed(undo):
        one()
