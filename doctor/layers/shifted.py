"""Owners that all lie in another range of ids: a store that came from a daemon that remaps users, or went to one.

With `userns-remap` every owner on disk is moved up by where the range in /etc/subuid begins. A data-root that is copied
between two daemons of which only one does that, or which have different ranges, has every file of every layer with a
wrong owner, by one difference: one cause, and one cure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doctor.layers.model import Damage

if TYPE_CHECKING:
    from doctor.layers.model import Owners

RANGE = 65536
"""Ids of a range, as subuid(5) gives them out: owners that moved by less are somebody's chown."""


class Owned:
    """The owners of one layer: how many are right, how many wrong, and by which differences."""

    def __init__(self) -> None:
        """Count from nothing."""
        self.damages: list[Damage] = []
        self.right = self.wrong = 0
        self.differences: set[tuple[int, int]] = set()

    def count(self, expected: str, found: str) -> None:
        """Count a wrong one; both are `UID:GID`."""
        self.wrong += 1
        if len(self.differences) <= 1:
            self.differences.add(_difference(expected, found))

    def shifted(self, layer: str, uids: Owners, gids: Owners) -> list[Damage]:
        """Give the one damage that stands for all wrong owners, none where they have no such thing in common.

        `uids` and `gids` are the maps that owners on disk should follow.
        """
        if len(self.differences) != 1 or self.right >= self.wrong:
            return []
        ((uid, gid),) = self.differences
        if abs(uid) < RANGE or abs(gid) < RANGE:
            return []
        right = (uids[0][1] if uids else 0, gids[0][1] if gids else 0)
        start = (right[0] + uid, right[1] + gid)
        expected, found = ("owners from {}:{} on".format(*both) for both in (right, start))
        about = f"{self.wrong:,} owners are off by {uid:+,}:{gid:+,}"
        changed = max((one.changed for one in self.damages), default=0.0)
        return [
            Damage(layer, "/", "owner", expected, found, about, "shifted", changed=changed, shift=(*start, *right)),
        ]


def _difference(expected: str, found: str) -> tuple[int, int]:
    """Give by how much uid and gid are higher than they should be.

    >>> _difference("0:42", "100000:100042")
    (100000, 100000)
    """
    (uid, _, gid), (found_uid, _, found_gid) = expected.partition(":"), found.partition(":")
    return int(found_uid) - int(uid), int(found_gid) - int(gid)
