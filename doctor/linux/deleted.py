"""Files that are deleted and still open: their room is not free until the last process that holds one lets it go.

/proc/PID/fd/N of such a file is a link to `PATH (deleted)`, and stat(2) through it gives size and device (proc_pid_fd(5)).
What a container deletes in its own layer is on the device of its overlay, and its room is that of the data root.
"""

from __future__ import annotations

import os
import stat
import time

from doctor.lines import tree_line

DELETED = " (deleted)"
SMALL = 1 << 20
"""Bytes below which a file is not worth a line."""
MANY = 500
"""Lines at most."""


def deleted_files(root: str, mounts: str, until: float) -> tuple[str, bool]:
    """Give the lines of a tree record for deleted files that take room below `root`, and whether everything was seen.

    Lines are `PID/fd/N f 0 SIZE DEVICE:INODE PATH`, `!` for a process that may not be looked into. `mounts` is a
    mountinfo in which the overlays on the root stand; `until` is when to end (time.monotonic). Raises OSError for `root`.
    """
    devices = {os.stat(root).st_dev, *_overlays(root, mounts)}  # noqa: PTH116 - as the others here
    lines: list[str] = []
    for pid in os.listdir("/proc"):  # noqa: PTH208 - names
        if not pid.isdigit():
            continue
        if time.monotonic() > until or len(lines) >= MANY:
            return "".join(lines), False
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names
        except PermissionError:
            lines.append(tree_line(f"{pid}/fd", "!", 0.0, "permission denied"))
            continue
        except OSError:
            continue  # it has ended
        lines += [line for number in numbers if (line := _line(f"{pid}/fd/{number}", devices))]
    return "".join(lines), True


def _line(path: str, devices: set[int]) -> str:
    try:
        held = os.readlink(f"/proc/{path}")  # noqa: PTH115 - a string is enough
        if not held.endswith(DELETED) or held[0] != "/":
            return ""
        about = os.stat(f"/proc/{path}")  # noqa: PTH116
    except OSError:
        return ""  # it was closed meanwhile
    size = about.st_blocks * 512
    if size < SMALL or not stat.S_ISREG(about.st_mode) or about.st_dev not in devices:
        return ""
    return tree_line(path, "f", 0.0, f"{size} {about.st_dev}:{about.st_ino} {held.removesuffix(DELETED)}")


def _overlays(root: str, mounts: str) -> set[int]:
    """Give the devices of overlays whose layers are below the root: field 3 of their line (proc_pid_mountinfo(5))."""
    found = set()
    for line in mounts.split("\n"):
        if " - overlay " not in line or f"{root}/" not in line:
            continue
        major, _, minor = line.split(" ", 3)[2].partition(":")
        if major.isdigit() and minor.isdigit():
            found.add(os.makedev(int(major), int(minor)))
    return found
