"""What the kernel said of this boot: hung tasks, faults of its own, memory that ran out, file systems shut down."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.facts.backing import Backing
from doctor.facts.clock import Clock
from doctor.facts.kernellog import KernelLine, KernelLog
from doctor.facts.mounts import Mounts
from doctor.model import Effect, Finding, Moment, NotApplicable, Note, Remedy, Severity, Since, Yield
from doctor.registry import check

DAY = 86400.0
"""Seconds: what is older was seen, or did no harm."""

_HUNG = re.compile(r"task (\S+):(\d+)(?: <\w+>)? blocked for more than (\d+) seconds")
_FAULT = re.compile(r"(?:BUG: |Oops: |kernel BUG at|general protection fault|Unable to handle kernel)")
_SHUT = re.compile(
    r"(?:XFS \((\S+)\).*(?:shutting down|Shutting down)|EXT4-fs \((\S+)\): .*Remounting filesystem read-only)"
)
_GLOBAL = re.compile(r"oom-kill:constraint=CONSTRAINT_NONE.*task=([^,]+),pid=(\d+)")


@check(
    "HST006",
    Severity.WARNING,
    says=(
        "Memory cgroup out of memory: Killed process",
        "INFO: task ... blocked for more than 120 seconds",
    ),
)
def kernel_complains(log: KernelLog, clock: Clock, mounts: Mounts | None, backing: Backing | None) -> Iterator[Yield]:
    """The kernel's log tells of a hung task, a fault, no memory, or a dead file system.

    ## What it is
    The kernel logs what it could not do: a task that waits for a disk for two minutes, a bug of
    its own, the OOM killer of the whole host, a file system that it stopped to save the rest.
    ## What you see
    Commands that hang in state D; containers that vanish with exit 137; "read-only file system"
    and "input/output error" from containers, pulls and builds.
    ## By hand
    dmesg -T
    ps -eo pid,stat,wchan:32,args
    ## Cure
    A hung task: look at the disk or the NFS server it waits for. A fault: boot, with a kernel that
    has it mended. Memory: limits for containers. A shut down file system: fsck or xfs_repair.
    ## Looks like
    CTR001 (a container met its own limit), DMN016 (it is dockerd that hangs)
    ## Limits
    Only what the ring buffer still holds, of the last day. The OOM killer of one container's
    limit is CTR001, the file system of Docker's data is STO009. One that was mounted again since is
    taken for repaired; of a loop device that is mounted nowhere here nothing is said.
    ## References
    kernel Documentation/admin-guide/sysctl/kernel.rst (hung_task), dmesg(1), xfs_repair(8)
    """
    if not log.lines:
        yield NotApplicable("the kernel's log says nothing of containers")
        return
    seen = set()
    for line in reversed(log.lines):
        if line.at and clock.collected_at - line.at > DAY:
            break
        for kind, pattern in (("hung", _HUNG), ("fault", _FAULT), ("file system", _SHUT), ("memory", _GLOBAL)):
            match = pattern.search(line.text)
            if match is None or kind in seen:
                continue
            if kind == "file system" and _is_over(match[1] or match[2], line, log, mounts, backing):
                continue
            seen.add(kind)
            yield _finding(kind, match, line)


def _is_over(device: str, line: KernelLine, log: KernelLog, mounts: Mounts | None, backing: Backing | None) -> bool:
    """Whether a file system that was shut down is no matter any more, or one that STO009 speaks of."""
    own = backing.mount if backing else None
    if own and own.read_only and own.source.rpartition("/")[2] == device:
        return True
    used = any(one.source.rpartition("/")[2] == device for one in mounts.all) if mounts else True
    return log.repaired(device, line) or (device.startswith("loop") and not used)


def _finding(kind: str, match: re.Match[str], line: KernelLine) -> Finding:
    if kind == "hung":
        title = f"{match[1]} hung for more than {match[3]} seconds"
        cure = "see what the disk or the server that it waits for does; a task in state D cannot be killed"
        hit = f"{match[1]} (pid {match[2]}), and whoever waits for it"
    elif kind == "fault":
        title = "the kernel met a fault of its own"
        cure = "save what must be saved and boot; a newer kernel may have it mended"
        hit = "anything: what the kernel does from then on cannot be relied on"
    elif kind == "file system":
        title = f"file system {match[1] or match[2]} was shut down"
        cure = "stop Docker, check the disk, repair the file system, mount it again"
        hit = "whatever is written to it fails"
    else:
        title = f"the host ran out of memory: {match[1]} was killed"
        cure = "give containers limits (docker update --memory), or the host more memory"
        hit = f"{match[1]} (pid {match[2]})"
    when = Since(latest=Moment(line.at, "the kernel said so", line.cited), exact=True) if line.at else None
    return Finding(
        subject=kind,
        title=title,
        message=f"the kernel's log says: {line.text}",
        evidence=(line.cited,),
        remedy=Remedy("see to the cause", (Note(cure),)),
        severity=Severity.ERROR if kind == "file system" else Severity.WARNING,
        hits=(Effect(hit),),
        since=when,
    )
