"""The cgroups of running containers, and how the first process of each takes signals: few small files per container.

Where a container's groups are is what /proc/PID/cgroup of its processes says, seen through the mounts of the process
that looks: version 2 has one tree, version 1 one for each controller, and a hybrid host both. A figure is only read where
the limit that it is measured against is set, so an unlimited container costs five files.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from doctor.lines import tree_line, unescape
from doctor.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "/sys/fs/cgroup"
"""Where every distribution mounts them (file-hierarchy(7)); mounts elsewhere are not read."""

_CONTAINER = re.compile(r"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_NAME = re.compile(r"(?:docker-)?([0-9a-f]{64})(?:\.scope)?")
_SMALL = 1 << 14
_UNLIMITED = 1 << 62
"""Version 1 spells "no limit" as the greatest multiple of a page that fits into 63 bits."""

_NEAR = 0.8
"""From this share of a memory limit on, how much of it is cache is worth a file of 1.5 KB."""


class _Mount(NamedTuple):
    """A mounted hierarchy: its controllers (empty for version 2), where it is, and which group is its root."""

    controllers: frozenset[str]
    point: str
    root: str


def mounts(text: str) -> list[_Mount]:
    """Find the hierarchies in the text of a mountinfo (proc_pid_mountinfo(5)), those of version 1 first."""
    found = []
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        if not dash or not right.startswith("cgroup"):
            continue
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        if (point + "/").startswith(ROOT + "/"):
            words = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            found.append(_Mount(words, point, root.rstrip("/")))
    return sorted(found, key=lambda one: not one.controllers)


def read(processes: str) -> tuple[str, str]:
    """Give the lines of the tree records `cgroup/containers` (below /sys/fs/cgroup) and `proc/signals` (below /proc).

    `processes` is what `procfs.scan` gives. Raises OSError where the mounts cannot be read.
    """
    places = mounts(_text("/proc/self/mountinfo", 8 << 20))
    lines: list[str] = []
    signals: list[str] = []
    lived_in: dict[str, set[str]] = {one.point: set() for one in places}
    for pid, container, groups in _first_processes(processes):
        where = _folders(places, groups)
        for point, folder in where.items():
            lived_in[point].add(folder)
        lines += _Reader(container).read(places, where)
        signals.append(_signals(pid))
    for place in places:
        lines += _empty(place, lived_in[place.point])
    return "".join(lines), "".join(signals)


_PROCESS = re.compile(r"^(\d+)/(?:stat\tf\t[\d.]+\t[^\n]*\) \S (\d+) |cgroup\tf\t[\d.]+\t([^\n]*))", re.MULTILINE)


def _first_processes(processes: str) -> Iterator[tuple[int, str, str]]:
    """Give pid, container and cgroups of the first process of each container: the one whose parent is outside of it."""
    parents: dict[int, int] = {}
    owners: dict[int, tuple[str, str]] = {}
    for pid, parent, group in _PROCESS.findall(processes):
        if parent:
            parents[int(pid)] = int(parent)
        else:
            groups = unescape(group)
            found = _CONTAINER.search(groups)
            if found:
                owners[int(pid)] = (found[1], groups)
    seen = set()
    for number, (container, groups) in owners.items():
        parent = owners.get(parents.get(number, 0))
        if container not in seen and (parent is None or parent[0] != container):
            seen.add(container)
            yield number, container, groups


def _folders(places: list[_Mount], groups: str) -> dict[str, str]:
    """Give the folder of a process in each mounted hierarchy, by mount point."""
    found = {}
    for line in groups.split("\n"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/") or path.startswith("/.."):
            continue  # a group outside of what this cgroup namespace shows
        names = frozenset(controllers.split(",")) if controllers else frozenset()
        for place in places:
            fits = names <= place.controllers if names else not place.controllers
            if fits and (path + "/").startswith(place.root + "/"):
                found[place.point] = place.point + path.removeprefix(place.root)
                break
    return found


class _Reader:
    """Reads the files of one container."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.lines: list[str] = []

    def read(self, places: list[_Mount], where: dict[str, str]) -> list[str]:
        """Read what each controller has to say of it."""
        self.lines = []
        for place in places:
            folder = where.get(place.point)
            if folder is None or self.container not in folder:
                if folder is not None and place.controllers & {"memory", "pids", "cpu"}:
                    self.lines.append(tree_line(folder[len(ROOT) + 1 :] or ".", "d", 0.0, self.container))
                continue
            if not place.controllers:
                self._version_2(folder)
            if not place.controllers or "freezer" in place.controllers:
                self._frozen(folder)
            if "memory" in place.controllers:
                self._memory_1(folder)
            if "pids" in place.controllers:
                self._pids(folder)
            if "cpu" in place.controllers and self._file(folder, "cpu.cfs_quota_us").strip() not in {"-1", ""}:
                self._file(folder, "cpu.cfs_period_us")
                self._file(folder, "cpu.stat")
        return self.lines

    def _version_2(self, folder: str) -> None:
        limit = self._file(folder, "memory.max").strip()
        if limit:
            self._file(folder, "memory.events")
            if limit.isdecimal():
                used = self._file(folder, "memory.current").strip()
                self._cache(folder, int(limit), used)
        if self._pids(folder) and self._file(folder, "cpu.max").split(" ")[0] not in {"max", ""}:
            self._file(folder, "cpu.stat")

    def _memory_1(self, folder: str) -> None:
        limit = self._file(folder, "memory.limit_in_bytes").strip()
        self._file(folder, "memory.oom_control")
        if limit.isdecimal() and int(limit) < _UNLIMITED:
            used = self._file(folder, "memory.usage_in_bytes").strip()
            self._cache(folder, int(limit), used)

    def _cache(self, folder: str, limit: int, used: str) -> None:
        if used.isdecimal() and int(used) >= _NEAR * limit:
            self._file(folder, "memory.stat")

    def _pids(self, folder: str) -> bool:
        limit = self._file(folder, "pids.max").strip()
        if limit.isdecimal():
            self._file(folder, "pids.current")
            self._file(folder, "pids.events")
        return True

    def _frozen(self, folder: str) -> None:
        """Keep who froze this group (cgroup-v2 "cgroup.freeze", v1 freezer-subsystem), only where somebody did."""
        for name in ("cgroup.freeze", "freezer.self_freezing"):
            try:
                if _text(f"{folder}/{name}").strip() == "1":
                    self._file(folder, name)
            except OSError:
                continue  # the other version has it

    def _file(self, folder: str, name: str) -> str:
        """Keep a file; give its text, empty for one that is not there."""
        try:
            text = _text(f"{folder}/{name}")
        except FileNotFoundError:
            return ""
        except OSError as error:
            why = (error.strerror or "").lower()
            self.lines.append(tree_line(f"{folder[len(ROOT) + 1 :]}/{name}", "!", 0.0, why))
            return ""
        self.lines.append(tree_line(f"{folder[len(ROOT) + 1 :]}/{name}", "f", 0.0, text))
        return text


def _empty(place: _Mount, lived_in: set[str]) -> Iterator[str]:
    """Give the groups that bear a container's id and hold none of its processes, with what their cgroup.procs says."""
    parents = {folder.rpartition("/")[0] for folder in lived_in if _CONTAINER.search(folder)}
    for parent in sorted(parents | {place.point + "/docker", place.point + "/system.slice"}):
        try:
            names = sorted(os.listdir(parent))  # noqa: PTH208 - names
        except OSError:
            continue
        for name in names:
            if _NAME.fullmatch(name) and f"{parent}/{name}" not in lived_in:
                try:
                    held = _text(f"{parent}/{name}/cgroup.procs")
                except OSError:
                    continue
                yield tree_line(f"{parent[len(ROOT) + 1 :]}/{name}/cgroup.procs", "f", 0.0, held)


def _signals(pid: int) -> str:
    """Give the line of a process's pids by namespace and of its signal masks (proc_pid_status(5))."""
    try:
        text = _text(f"/proc/{pid}/status")
    except OSError as error:
        return tree_line(f"{pid}/status", "!", 0.0, (error.strerror or "").lower())
    kept = (line for line in text.split("\n") if line.startswith(("NSpid:", "SigBlk:", "SigIgn:", "SigCgt:")))
    return tree_line(f"{pid}/status", "f", 0.0, "\n".join(kept))


def _text(path: str, limit: int = _SMALL) -> str:
    return procfs.read(path, limit).decode("utf-8", "replace")
