"""Control groups: the hierarchies as a machine has them, and groups of a lab's own, which are opt-in (cgroups(7)).

They are the one thing that the kernel does not take back with a process. So a lab that wants limits has one directory a
hierarchy, named by the process that holds it and when that started (`doctor-lab.PID.START`); containers have theirs below.
Who takes a lab down removes it; what was killed is swept at the next start.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from errno import EBUSY
from typing import TYPE_CHECKING, Any, NamedTuple

from doctor.linux import mounting
from doctor.linux.mounting import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from doctor.runtime.process import small, start_time

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = "/sys/fs/cgroup"
PREFIX = "doctor-lab"
LIMITED = frozenset({"memory", "pids", "cpu"})
"""The controllers that limits are set with."""

_SECONDS = 2.0
"""How long a group may be busy after its last process was killed."""


class Hierarchy(NamedTuple):
    """A hierarchy: where it is mounted, its controllers (empty: version 2), the caller's own group in it."""

    place: str
    words: tuple[str, ...]
    group: str

    @property
    def controllers(self) -> frozenset[str]:
        """What it can limit; of version 2, what its root offers."""
        if self.words:
            return frozenset(self.words) & LIMITED
        try:
            return frozenset(small(f"{self.place}/cgroup.controllers").split()) & LIMITED
        except OSError:
            return frozenset()

    @property
    def own(self) -> str:
        """The directory of the caller's group."""
        return f"{self.place}{self.group}".rstrip("/")


def hierarchies() -> list[Hierarchy]:
    """List them as /proc/self/cgroup has them, at the places that every distribution mounts them. Raises OSError."""
    lines = [line.split(":", 2) for line in small("/proc/self/cgroup").splitlines()]
    unified = [line[1] for line in lines] == [""]
    found = []
    for _, words, group in lines:
        name = words.removeprefix("name=") or "unified"
        found.append(Hierarchy(ROOT if unified else f"{ROOT}/{name}", tuple(words.split(",")) if words else (), group))
    return found


def prepared(*, readonly: bool, own_namespace: bool = True) -> list[tuple[str, int]]:
    """Prepare what is mounted at /sys/fs/cgroup: places and mounts that hang nowhere yet, in their order.

    With version 1 there is a mount for each hierarchy below a tmpfs. In a cgroup namespace of one's own they are mounted,
    and where they are not `readonly`, those that are rooted in a group of a lab can be written; else they are bound with the
    caller's own group in place of the root, and flags are set when they are there. Nothing where a machine has none, or
    lets no user mount them.
    """
    flags = MS_NOSUID | MS_NOEXEC | MS_NODEV
    there = hierarchies()
    unified = [one.place for one in there] == [ROOT]
    found: list[tuple[str, int]] = []
    with suppress(OSError):
        if not unified and not own_namespace:
            found.append((ROOT, mounting.tree(ROOT, recursive=True)))
        elif not unified:
            found.append((ROOT, mounting.prepared("tmpfs", ("mode=755",), flags, "tmpfs")))
        for one in there:
            if not own_namespace:
                if unified or one.group != "/":
                    found.append((one.place, mounting.tree(one.own)))
                continue
            kind = "cgroup" if one.words else "cgroup2"
            sealed = readonly or not one.controllers
            found.append((one.place, mounting.prepared(kind, one.words, flags | (MS_RDONLY if sealed else 0), kind)))
    return found


def make(pid: int) -> list[str]:
    """Make the groups of a lab, and put the process that holds it in. Gives their directories. Raises OSError."""
    name = f"{PREFIX}.{pid}.{start_time(pid)}"
    made = []
    try:
        for one in hierarchies():
            if not one.controllers:
                continue
            # Below a group with processes version 2 limits nothing; below its root it does (cgroups(7)).
            place = f"{one.own if one.words else one.place}/{name}"
            os.mkdir(place)  # noqa: PTH102 - strings
            made.append(place)
            if not one.words:
                _see_handed_down(one, place)
            _write(f"{place}/cgroup.procs", str(pid))
    except BaseException:
        remove(made)
        raise
    return made


def _see_handed_down(one: Hierarchy, place: str) -> None:
    """See that a group of version 2 has controllers. What its root hands down is the machine's to say. Raises OSError."""
    if not one.controllers & {*small(f"{place}/cgroup.controllers").split()}:
        words = " ".join(f"+{name}" for name in sorted(one.controllers))  # systemd has them, a bare machine has none
        raise OSError(EBUSY, f"hands none down: write {words} into it", f"{one.place}/cgroup.subtree_control")


def of(pid: int) -> list[str]:
    """Give the groups of the lab that a process holds: none where it has none."""
    try:
        name = f"{PREFIX}.{pid}.{start_time(pid)}"
        places = (f"{one.own if one.words else one.place}/{name}" for one in hierarchies() if one.controllers)
        return [place for place in places if os.path.isdir(place)]  # noqa: PTH112 - strings
    except OSError:
        return []


def sweep() -> None:
    """Remove groups of labs whose holder has ended."""
    for one in hierarchies():
        place = one.own if one.words else one.place
        with suppress(OSError):
            for name in os.listdir(place):  # noqa: PTH208 - strings
                prefix, _, rest = name.partition(".")
                pid, _, started = rest.partition(".")
                if prefix == PREFIX and not _lives(pid, started):
                    remove([f"{place}/{name}"])


def _lives(pid: str, started: str) -> bool:
    try:
        ended = small(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] in {"Z", "X"}
        return not ended and start_time(pid) == started
    except OSError:
        return False


def remove(places: Iterable[str]) -> None:
    """Remove groups and those below; a process that is about to end is waited for."""
    until = time.monotonic() + _SECONDS
    for place in places:
        for folder, _, _ in os.walk(place, topdown=False):
            while True:
                try:
                    os.rmdir(folder)  # noqa: PTH106 - strings
                except OSError as error:
                    if error.errno == EBUSY and time.monotonic() < until:
                        time.sleep(0.002)
                        continue
                break


def limit(path: str, resources: dict[str, Any]) -> list[str]:
    """Make the groups of a container, where the caller may, and set the limits of the OCI configuration.

    `path` is linux.cgroupsPath. Gives the directories; none where groups cannot be made: there are no limits then, as docker
    warns. Raises OSError for a limit that the kernel refuses.
    """
    made = []
    for one in hierarchies():
        if not one.controllers:
            continue
        place = f"{one.own}/{path.strip('/')}"
        try:
            os.makedirs(place, exist_ok=True)  # noqa: PTH103 - strings
            if not one.words:
                _delegate(one, path.strip("/"))
        except OSError:
            continue
        made.append(place)
        for name, value in _files(one, resources):
            _write(f"{place}/{name}", value)
    return made


def _delegate(one: Hierarchy, path: str) -> None:
    """Let a group below have the controllers: of version 2, once no process is in this one any more, level by level."""
    inner = f"{one.own}/host"
    os.makedirs(inner, exist_ok=True)  # noqa: PTH103 - strings
    for pid in small(f"{one.own}/cgroup.procs").split():
        with suppress(ProcessLookupError):
            _write(f"{inner}/cgroup.procs", pid)
    words = " ".join(f"+{name}" for name in sorted(one.controllers))
    level = one.own
    for name in path.split("/"):
        _write(f"{level}/cgroup.subtree_control", words)
        level += f"/{name}"


def _files(one: Hierarchy, resources: dict[str, Any]) -> list[tuple[str, str]]:
    """Give the files of a group and what is written into them."""
    memory = int(resources.get("memory", {}).get("limit") or 0)
    pids = int(resources.get("pids", {}).get("limit") or 0)
    cpu = resources.get("cpu", {})
    quota, period = int(cpu.get("quota") or 0), int(cpu.get("period") or 100_000)
    found = []
    if memory > 0 and "memory" in one.controllers:
        found.append(("memory.limit_in_bytes" if one.words else "memory.max", str(memory)))
    if pids > 0 and "pids" in one.controllers:
        found.append(("pids.max", str(pids)))
    if quota > 0 and "cpu" in one.controllers:
        if one.words:
            found += [("cpu.cfs_period_us", str(period)), ("cpu.cfs_quota_us", str(quota))]
        else:
            found.append(("cpu.max", f"{quota} {period}"))
    return found


def enter(places: Iterable[str]) -> None:
    """Put the calling process into groups: of a lab's, where containers have theirs below, into the host's. Raises OSError."""
    for place in places:
        try:
            _write(f"{place}/cgroup.procs", "0")
        except OSError as error:
            if error.errno != EBUSY:  # of version 2: groups below have controllers (_delegate)
                raise
            _write(f"{place}/host/cgroup.procs", "0")


def killed_for_memory(places: Iterable[str]) -> bool:
    """Whether the kernel killed a process of these groups for want of memory."""
    for place in places:
        for name in ("memory.oom_control", "memory.events"):
            with suppress(OSError):
                lines = (line.split() for line in small(f"{place}/{name}").splitlines())
                if any(line[0] == "oom_kill" and line[1] != "0" for line in lines):
                    return True
    return False


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(handle)
