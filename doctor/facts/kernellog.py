"""The kernel's log: lines such as `<6>[12911.488478] docker0: port 4(vethc8b667c) entered disabled state`."""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.facts.clock import Clock
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot

_MOUNTED = re.compile(r"(?:XFS|EXT4-fs) \((\S+)\): (mounted filesystem|Mounting V\d|warning: mounting fs with errors)")
_LINE = re.compile(r"^(?:<\d+>)?\[\s*(\d+\.\d+)\]\s?(.*)$")


class KernelLine(Struct, frozen=True):
    """A line: when (seconds since the epoch, 0 when the boot's time is unknown), text and citation."""

    at: float
    text: str
    cited: Citation


class KernelLog(Struct, frozen=True):
    """What the ring buffer holds, oldest first."""

    lines: tuple[KernelLine, ...]

    def repaired(self, device: str, line: KernelLine) -> bool:
        """Whether a file system was mounted anew after a line, and not with its errors still in it.

        A remount (`re-mounted`) repairs nothing.
        """
        repaired = flawed = False
        for later in self.lines[self.lines.index(line) + 1 :]:
            match = _MOUNTED.search(later.text)
            if match is not None and match[1] == device:
                warned = match[2].startswith("warning")
                repaired, flawed = not warned and not flawed, warned
        return repaired


@fact
def kernel_log(snapshot: Snapshot, clock: Clock) -> KernelLog:
    """Read the ring buffer; lines of another shape are left out."""
    record = snapshot.get("host/kernel-log")
    if not record.readable:
        raise EvidenceMissing("kernel log", record.why or record.status)
    found = []
    for number, raw in enumerate(record.text.split("\n"), 1):
        match = _LINE.match(raw)
        if match:
            at = clock.booted + float(match[1]) if clock.booted else 0.0
            found.append(KernelLine(at, match[2], Citation(record.name, number, match[2], "dmesg")))
    return KernelLog(tuple(found))
