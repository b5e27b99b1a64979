"""What is mounted where, as the kernel lists it for this process.

Parses /proc/self/mountinfo (proc(5)), lines such as::

    29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
"""

from __future__ import annotations

from msgspec import Struct

from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot, need

_HEAD = 6


class Mount(Struct, frozen=True):
    """One mount: where, of which type, with which options of its own, and with which of the file system."""

    point: str
    type: str
    options: tuple[str, ...]
    of_type: tuple[str, ...]
    cited: Citation
    source: str = ""
    """The device, or what stands for one."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written by it, whoever says so."""
        return "ro" in self.options or "ro" in self.of_type or self.shut_down

    @property
    def shut_down(self) -> bool:
        """Whether the kernel itself lets nothing be written any more, after an error: no remount takes that back.

        From Linux 6.15 on ext4 stays `rw` then, and says so by an option of its own (fs/ext4/super.c).
        """
        return bool({"emergency_ro", "shutdown"} & set(self.of_type))


class Mounts(Struct, frozen=True):
    """All of them in the order that they were made in: of two on one place the later one is seen."""

    all: tuple[Mount, ...]

    def of(self, path: str) -> Mount | None:
        """Give the mount that a path is on."""
        found = None
        for one in self.all:
            inside = one.point in {"/", path} or path.startswith(one.point + "/")
            if inside and (found is None or len(one.point) >= len(found.point)):
                found = one
        return found


def plain(text: str) -> str:
    """Take back the octal escapes of blanks."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


@fact
def mounts(snapshot: Snapshot) -> Mounts:
    """Parse the record; those of containers, which are many and on no path that is asked for, are left out."""
    record = need(snapshot, "host/mounts", "files")
    found = []
    for number, line in enumerate(record.text.split("\n"), 1):
        if "/overlay2/" in line or "/netns/" in line:
            continue
        head, dash, tail = line.partition(" - ")
        words, rest = head.split(" "), tail.split(" ")
        if not dash or len(words) < _HEAD:
            continue
        cited = Citation(record.name, number, line.split(" ", 4)[4], f"{record.target}:{number}")
        own, of_type = tuple(words[5].split(",")), tuple(rest[-1].split(","))
        source = plain(rest[1]) if len(rest) > 2 else ""  # noqa: PLR2004 - type, source, options
        found.append(Mount(plain(words[4]), rest[0], own, of_type, cited, source))
    return Mounts(tuple(found))
