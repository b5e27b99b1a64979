"""A lab's host as `doctor check` reads it: what any host is, but for what belongs to the whole machine."""

from __future__ import annotations

from doctor.host import LocalHost


class LabHost(LocalHost):
    """The host that this process is in. Its namespaces hold all but the kernel's log, which is the machine's."""

    def kernel_log(self) -> bytes:
        """Give an empty log: what the machine's kernel says is of no host in here, and tells of the machine."""
        return b""
