r"""The cgroups of containers: limits, use and events, in the words of version 2 whichever version the host has.

Parses the tree records `cgroup/containers` and `proc/signals` (`doctor.linux.cgroups`), and with `--sample` the first over
again as it stood at two times (`sample/first/cgroups`, `sample/second/cgroups`); lines such as::

    memory/docker/3b3aa53f.../memory.limit_in_bytes  f  0.000  67108864\n
    docker/3b3aa53f.../pids.events                   f  0.000  max 3\n
    pids/user.slice                                  d  0.000  3b3aa53f...
    310/status                                       f  0.000  NSpid:\t310\t1\nSigCgt:\t0000000000014002
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.mounts import Mounts
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Record, Snapshot, TreeEntry, tree_entries

ROOT = "/sys/fs/cgroup"
UNLIMITED = 1 << 62
"""From here on a limit of version 1 is none: its default is the greatest multiple of a page below 2^63."""

_OWNER = re.compile(r"(?:^|/)(?:docker-)?([0-9a-f]{64})(?:\.scope)?/([a-z_.]+)$")
_FLAT = {
    "memory.events": {"oom_kill": "memory.oom_kill"},
    "memory.oom_control": {"oom_kill": "memory.oom_kill"},
    "memory.stat": {
        "inactive_file": "memory.inactive_file",
        "total_inactive_file": "memory.inactive_file",
    },
    "pids.events": {"max": "pids.refused"},
    "cpu.stat": {"nr_periods": "cpu.periods", "nr_throttled": "cpu.throttled"},
}
"""Files of `name number` lines, and what each name is called here."""
_SINGLE = {
    "memory.limit_in_bytes": "memory.max",
    "memory.usage_in_bytes": "memory.current",
    "cpu.cfs_quota_us": "cpu.quota",
    "cpu.cfs_period_us": "cpu.period",
    "memory.max": "memory.max",
    "memory.current": "memory.current",
    "pids.max": "pids.max",
    "pids.current": "pids.current",
    "cgroup.freeze": "frozen",
    "freezer.self_freezing": "frozen",
}


class Figure(Struct, frozen=True):
    """A number and the line that says it."""

    value: int
    cited: Citation


COUNTERS = ("memory.oom_kill", "pids.refused", "cpu.periods", "cpu.throttled")
"""Figures that only grow: what they grew by in a while is what happens now."""


class Group(Struct, frozen=True):
    """What the groups of one running container say.

    `figures` has `memory.max`, `memory.current` (bytes), `memory.inactive_file` (only near the limit), `memory.oom_kill`
    (processes killed since it started), `pids.max`, `pids.current`, `pids.refused` (forks), `cpu.quota`, `cpu.period`
    (microseconds), `cpu.periods` and `cpu.throttled` (since it started), `frozen` (1: somebody froze it, docker pause
    included). A limit that is not set is left out. `outside` are hierarchies in which its first process is in another
    group, with the line that says so.
    """

    container: str
    figures: dict[str, Figure]
    outside: dict[str, Citation]
    moved: dict[str, Figure] = {}
    """What the COUNTERS grew by between two readings; empty when they were read once."""
    within: str = ""
    """The time between the two, as a person reads it (`5.0 s`)."""

    def value(self, name: str) -> int:
        """Give a figure, 0 when nothing says it."""
        held = self.figures.get(name)
        return held.value if held else 0

    def grew(self, name: str) -> str:
        """Say what a counter grew by, as the end of a sentence; empty when it was read once."""
        held = self.moved.get(name)
        return f"; +{held.value:,} in {self.within}" if held else ""

    def growth(self, *names: str) -> tuple[Citation, ...]:
        """Cite what these counters grew by."""
        return tuple(self.moved[name].cited for name in names if name in self.moved)


class Empty(Struct, frozen=True):
    """A group that bears a container's id and in which no process is."""

    container: str
    path: str
    cited: Citation


class Cgroups(Struct, frozen=True):
    """The groups of running containers by id, and those that nobody lives in."""

    by_container: dict[str, Group]
    empty: tuple[Empty, ...]


@fact
def cgroups(snapshot: Snapshot) -> Cgroups:
    """Read the tree; lines that do not parse are left out."""
    record = snapshot.get("cgroup/containers")
    if not record.readable:
        raise EvidenceMissing("cgroups", f"{ROOT}: {record.why or record.status}")
    figures, outside, empty = _tree(record)
    moved, within = _moved(snapshot)
    groups = {
        owner: Group(owner, held, outside.get(owner, {}), moved.get(owner, {}), within if owner in moved else "")
        for owner, held in figures.items()
    }
    return Cgroups(groups, tuple(empty))


def _moved(snapshot: Snapshot) -> tuple[dict[str, dict[str, Figure]], str]:
    """Give what the counters of each container grew by between two readings, and in what time."""
    text = snapshot.get("sample/seconds").text.strip()
    try:
        within = f"{float(text):.1f} s"
    except ValueError:
        return {}, ""
    before, after = (_tree(snapshot.get(f"sample/{which}/cgroups"))[0] for which in ("first", "second"))
    found: dict[str, dict[str, Figure]] = {}
    for owner, held in after.items():
        for name in COUNTERS:
            then, now = before.get(owner, {}).get(name), held.get(name)
            if then is not None and now is not None and now.value >= then.value:
                grown = now.value - then.value
                cited = now.cited
                said = Citation(cited.record, cited.line, f"{cited.excerpt}, +{grown} in {within}", cited.place)
                found.setdefault(owner, {})[name] = Figure(grown, said)
    return found, within


def _tree(record: Record) -> tuple[dict[str, dict[str, Figure]], dict[str, dict[str, Citation]], list[Empty]]:
    """Read one tree: figures by container, groups that its first process is in instead, and groups of nobody."""
    figures: dict[str, dict[str, Figure]] = {}
    outside: dict[str, dict[str, Citation]] = {}
    empty: list[Empty] = []
    for entry in tree_entries(record):
        if entry.type == "d":
            hierarchy = entry.path.partition("/")[0]
            cited = Citation(record.name, entry.line, entry.path, f"{ROOT}/{entry.path}")
            outside.setdefault(entry.content, {})[hierarchy] = cited
            figures.setdefault(entry.content, {})
            continue
        match = _OWNER.search(entry.path)
        if match is None or entry.type != "f":
            continue
        owner, name = match[1], match[2]
        if name == "cgroup.procs":
            if not entry.content.strip():
                folder = f"{ROOT}/{entry.path.removesuffix('/cgroup.procs')}"
                cited = Citation(record.name, entry.line, "cgroup.procs is empty", folder)
                empty.append(Empty(owner, folder, cited))
            continue
        figures.setdefault(owner, {}).update(_figures(record, entry, name))
    return figures, outside, empty


def _figures(record: Record, entry: TreeEntry, name: str) -> dict[str, Figure]:
    """Give the figures of one file by their names here."""
    place = f"{ROOT}/{entry.path}"
    words = entry.content.split()
    if name == "cpu.max" and len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():  # noqa: PLR2004 - both
        cited = Citation(record.name, entry.line, entry.content.strip(), place)
        return {"cpu.quota": Figure(int(words[0]), cited), "cpu.period": Figure(int(words[1]), cited)}
    if name in _SINGLE:
        text = entry.content.strip()
        if not text.isdecimal() or int(text) >= UNLIMITED:
            return {}
        return {_SINGLE[name]: Figure(int(text), Citation(record.name, entry.line, text, place))}
    found = {}
    for line in entry.content.split("\n"):
        word, _, number = line.partition(" ")
        called = _FLAT.get(name, {}).get(word)
        if called is not None and number.isdecimal():
            found[called] = Figure(int(number), Citation(record.name, entry.line, line, place))
    return found


class Signals(Struct, frozen=True):
    """How a container's first process takes signals: masks with bit N-1 for signal N; `inside` is its pid in there."""

    inside: int
    caught: int
    blocked: int
    cited: Citation


class Inits(Struct, frozen=True):
    """The first processes of running containers by pid."""

    by_pid: dict[int, Signals]


@fact
def inits(snapshot: Snapshot) -> Inits:
    """Read the masks of /proc/PID/status; a process that went meanwhile is left out."""
    record = snapshot.get("proc/signals")
    if not record.readable:
        raise EvidenceMissing("processes", f"/proc: {record.why or record.status}")
    found = {}
    for entry in tree_entries(record):
        pid, _, rest = entry.path.partition("/")
        if rest != "status" or entry.type != "f" or not pid.isdecimal():
            continue
        held = dict(line.partition(":")[::2] for line in entry.content.split("\n"))
        try:
            caught, blocked = (int(held[name].strip(), 16) for name in ("SigCgt", "SigBlk"))
            inside = int(held["NSpid"].split()[-1])
        except (KeyError, ValueError, IndexError):
            continue
        cited = Citation(record.name, entry.line, f"SigCgt: {caught:016x}", f"/proc/{pid}/status")
        found[int(pid)] = Signals(inside, caught, blocked, cited)
    return Inits(found)


class EngineInfo(Struct, frozen=True):
    """What dockerd says of the host.

    `version` of cgroups (`1`, `2`, empty when it does not say), `driver`, and the limits that it `cannot` set here.
    """

    version: str
    driver: str
    cannot: tuple[str, ...]
    cited: Citation


class _Info(Struct):
    CgroupVersion: str = ""
    CgroupDriver: str = ""
    MemoryLimit: bool = True
    PidsLimit: bool = True
    CpuCfsQuota: bool = True
    CPUShares: bool = True
    CPUSet: bool = True


@fact
def engine_info(snapshot: Snapshot) -> EngineInfo:
    """Read `GET /info`."""
    record = snapshot.get("api/info")
    if not record.readable:
        raise EvidenceMissing("API", record.why or record.status)
    try:
        held = msgspec.json.decode(record.data, type=_Info)
    except UNDECODABLE as error:
        raise EvidenceMissing("API", f"/info: {error}") from error
    names = ("MemoryLimit", "PidsLimit", "CpuCfsQuota", "CPUShares", "CPUSet")
    cannot = tuple(name for name in names if not getattr(held, name))
    said = f"CgroupVersion {held.CgroupVersion}, CgroupDriver {held.CgroupDriver}"
    line = next((n for n, text in enumerate(record.text.split("\n"), 1) if '"CgroupVersion"' in text), 1)
    return EngineInfo(held.CgroupVersion, held.CgroupDriver, cannot, Citation(record.name, line, said, "docker info"))


class Hierarchies(Struct, frozen=True):
    """What is mounted on the host: `kind` is `v1`, `v2`, `hybrid` or empty; controllers of version 1 with the line."""

    kind: str
    controllers: dict[str, Citation]
    unified: Citation | None


@fact
def hierarchies(mounts: Mounts) -> Hierarchies:
    """Sort the mounts of cgroups; those of version 1 have their controllers among the options of the file system."""
    first: dict[str, Citation] = {}
    for one in mounts.all:
        for word in one.of_type if one.type == "cgroup" else ():
            if word not in {"rw", "ro", "xattr", "noprefix", "clone_children"} and "=" not in word:
                first.setdefault(word, one.cited)
    unified = next((one.cited for one in mounts.all if one.type == "cgroup2"), None)
    kind = "hybrid" if first and unified else "v1" if first else "v2" if unified else ""
    return Hierarchies(kind, first, unified)
