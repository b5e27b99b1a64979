"""What is to be reached: an address and port, and where that is."""

from __future__ import annotations

from msgspec import Struct

from doctor.packets.flow import TCP
from doctor.packets.packet import Version

End = tuple[int, int]
"""An address and a port, as numbers."""


class Goal(Struct, frozen=True):
    """What is to be reached: an address and port, in which namespace that is, and what stands behind a published port.

    `where` is a namespace's id, or `outside`; `behind` is where a port of the host leads to, None for anything else.
    """

    where: str
    dst: int
    dport: int
    version: Version = 4
    protocol: int = TCP
    behind: End | None = None

    @property
    def flow(self) -> tuple[int, int, Version, int]:
        """What a flow to it asks for."""
        return self.dst, self.dport, self.version, self.protocol
