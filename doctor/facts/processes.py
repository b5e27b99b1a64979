"""Processes of the engine and of its containers, and the network namespace of every process.

Parses the tree record `proc/processes` (`doctor.linux.procfs.scan`), lines such as::

    19/stat     f  0.000  19 (dockerd) S 1 0 0 ...
    19/ns/net   l  0.000  net:[4026532250]
    310/cgroup  f  0.000  0::/docker/3b3aa53f...
"""

from __future__ import annotations

import re
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from doctor.facts.clock import TICKS, Clock
from doctor.lines import unescape
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot

_FIELDS = 4
_TERMINAL = 4
"""Where the controlling terminal stands (field 7), 0 for none."""
_START = 19
"""Where the start stands in /proc/PID/stat, behind the command (proc_pid_stat(5), field 22)."""

STOPPED = "T"
"""State of a process that only goes on when SIGCONT reaches it (proc_pid_stat(5)); `t` is a debugger's."""

CONTAINER = re.compile(r"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)


class Process(Struct, frozen=True):
    """One process.

    `state` is the kernel's letter, `start` its start in clock ticks after boot, `started` in seconds since the epoch;
    `argv` is empty for a process that is no part of Docker; `threads` are the states of its threads
    and `waits` the kernel functions that those in state D wait in (dockerd only); `line` is that of its stat;
    `terminal` says that it has one.
    """

    pid: int
    parent: int
    name: str
    state: str
    start: int
    started: float
    argv: tuple[str, ...]
    container: str
    cgroup: str
    namespaces: dict[str, str]
    threads: str
    waits: tuple[str, ...]
    line: int
    terminal: bool = False

    def cite(self, excerpt: str, file: str = "stat") -> Citation:
        """Cite what the scan has of it, as a file of /proc/PID."""
        return Citation("proc/processes", self.line, excerpt, f"/proc/{self.pid}/{file}")

    def told(self, word: str) -> str:
        """Give the argument behind a word of its command line; empty where there is none."""
        return dict(zip(self.argv, self.argv[1:], strict=False)).get(word, "")

    @property
    def net(self) -> str:
        """The inode of its network namespace, empty where it may not be looked into."""
        return self.namespaces.get("net", "").removeprefix("net:[").rstrip("]")


class Processes(Struct, frozen=True, dict=True):
    """All of them by pid; `restarted` are the pids that were gone or another process at the end of the collection.

    `lasting` are those that were the same process in the same state at the end.
    """

    by_pid: dict[int, Process]
    restarted: frozenset[int]
    lasting: frozenset[int] = frozenset()

    @cached_property
    def _by_container(self) -> dict[str, list[Process]]:
        found: dict[str, list[Process]] = {}
        for one in self.by_pid.values():
            if one.container:
                found.setdefault(one.container, []).append(one)
        return found

    def inside(self, container: str) -> list[Process]:
        """Give the processes of a container, by its id."""
        return self._by_container.get(container, [])

    def stopped(self, one: Process) -> bool:
        """Whether a signal has stopped it, and it still was at the end of the collection where that was looked at."""
        return one.state == STOPPED and (not self.lasting or one.pid in self.lasting)

    def named(self, name: str) -> list[Process]:
        """Give the processes of that command that are no part of a container.

        A child that has not come to its execve(2) yet bears the name of its parent; it is no second one.
        """
        every = [one for one in self.by_pid.values() if one.name == name and not one.container]
        pids = {one.pid for one in every}
        return [one for one in every if one.parent not in pids]


def _stat(text: str) -> tuple[str, str, int, int, bool]:
    """Give command, state, parent, start and whether it has a terminal; the command may hold spaces and brackets."""
    end = text.rindex(")")
    name = unescape(text[text.find("(") + 1 : end])
    rest = text[end + 2 :].split(" ", _START + 1)
    return name, rest[0], int(rest[1]), int(rest[_START]), rest[_TERMINAL] != "0"


def _files(text: str) -> dict[int, dict[str, tuple[str, int]]]:
    """Give content, still escaped, and line of each file and link of a scan, by pid and name; lines of a pid stand together."""
    found: dict[int, dict[str, tuple[str, int]]] = {}
    last = ""
    files: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        path, _, rest = line.partition("\t")
        if rest[:2] not in {"f\t", "l\t"} or rest.count("\t") != _FIELDS - 2:
            continue
        content = rest[rest.rindex("\t") + 1 :]
        pid, _, name = path.partition("/")
        if pid != last:
            if not pid.isdecimal():
                continue
            last = pid
            files = found.setdefault(int(pid), {})
        files[name] = (content, number)
    return found


@fact
def processes(snapshot: Snapshot, clock: Clock) -> Processes:
    """Parse the scan of /proc; processes whose lines do not parse are left out."""
    record = snapshot.get("proc/processes")
    if not record.readable:
        raise EvidenceMissing("processes", f"/proc: {record.why or record.status}")
    raw = _files(record.text)
    found: dict[int, Process] = {}
    for number, parts in raw.items():
        try:
            name, state, parent, start, terminal = _stat(parts["stat"][0])
        except (KeyError, ValueError, IndexError):
            continue
        group = unescape(parts["cgroup"][0]) if "cgroup" in parts else ""
        owner = CONTAINER.search(group) if group else None
        tasks = []
        if name == "dockerd":  # the threads of nobody else are read
            tasks = [(rest, text) for rest, (text, _) in parts.items() if rest.startswith("task/")]
        found[number] = Process(
            pid=number,
            parent=parent,
            name=name,
            state=state,
            start=start,
            started=clock.booted + start / TICKS if clock.booted else 0.0,
            argv=tuple(unescape(parts["cmdline"][0]).split("\0")[:-1]) if "cmdline" in parts else (),
            container=owner[1] if owner else "",
            cgroup=group,
            namespaces={rest[3:]: text for rest, (text, _) in parts.items() if rest.startswith("ns/")},
            threads="".join(text[text.rfind(")") + 2 :][:1] for rest, text in tasks if rest.endswith("/stat")),
            waits=tuple(text for rest, text in tasks if rest.endswith("/wchan")),
            line=parts["stat"][1],
            terminal=terminal,
        )
    _by_shim(found)
    return Processes(found, *_again(snapshot, found))


def _by_shim(found: dict[int, Process]) -> None:
    """Give processes below a shim to its container, where none is in a control group of that: engines without, and labs.

    A runc below a shim is about to make a container, or to enter one, and is no part of it.
    """
    known = {one.container for one in found.values()}
    shims = {one.pid: one.told("-id") for one in found.values() if one.name.startswith("containerd-shim")}
    owners = {pid: identity for pid, identity in shims.items() if identity and identity not in known}
    if not owners:
        return
    below: dict[int, list[Process]] = {}
    for one in found.values():
        below.setdefault(one.parent, []).append(one)
    for shim, identity in owners.items():
        waiting = [one for one in below.get(shim, ()) if not one.name.startswith("runc")]
        while waiting:
            one = waiting.pop()
            if one.pid not in shims and found[one.pid].container != identity:
                found[one.pid] = replace(one, container=identity)
                waiting += below.get(one.pid, ())


def _again(snapshot: Snapshot, found: dict[int, Process]) -> tuple[frozenset[int], frozenset[int]]:
    """Give the pids that were gone or another process at the end, and those that were as before."""
    record = snapshot.get("proc/last")
    if not record.readable:
        return frozenset(), frozenset()
    again = {}
    for pid, files in _files(record.text).items():
        try:
            _, state, _, start, _ = _stat(files["stat"][0])
        except (KeyError, ValueError, IndexError):
            continue
        again[pid] = (start, state)
    return (
        frozenset(pid for pid, one in found.items() if one.argv and again.get(pid, (-1, ""))[0] != one.start),
        frozenset(pid for pid, one in found.items() if again.get(pid) == (one.start, one.state)),
    )
