"""Whether what can be read here is of the host on which dockerd runs.

Its socket reaches further than its host: into a container that binds it, over ssh(1), out of Docker Desktop's machine into a
WSL distribution. Processes, links, rules and files that are read there are of another host, and are no evidence against
this engine: what cannot be shown to be its own is not kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.places import find_running, in_run
from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doctor.host import Host
    from doctor.places import Places
    from doctor.snapshot import Snapshot

OWN = ("engine/places", "engine/client", "engine/vantage")
"""Records that are of doctor itself, and of whoever runs it."""

_ONE_OF_MANY = re.compile(r"netns/\d|store/(?:containers|images)/|api/inspect/")
"""Records of one container, image or namespace: of another host's there is nothing to say."""

_NETWORK = ("net/", "netns/", "files/proc/sys/net/", "files/proc/net/")
_PROCESSES = ("proc/", "cgroup/", "netns/", "run/netns")
_LARGEST = 1 << 20
_ALL = "it is not of the host that dockerd runs on"


class Vantage(Struct, frozen=True):
    """Why what was read is not the engine's, empty where it is: its processes, its network; `whole`: nothing of it is."""

    processes: str = ""
    network: str = ""
    whole: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether anything is not the engine's."""
        return bool(self.processes or self.network or self.whole)

    def why_not(self, name: str) -> str:
        """Say why a record is no evidence; empty where it is. What the API says is of the engine wherever that is."""
        if name in OWN or name.startswith("api/"):
            return ""
        if self.whole:
            return _ALL
        if self.processes and name.startswith(_PROCESSES) and not name.startswith("netns/host/"):
            return self.processes
        return self.network if name.startswith(_NETWORK) else ""


def look(host: Host, places: Places, records: Mapping[str, Record]) -> Vantage:
    """Compare where we are with where dockerd is, once all has been read: one that started meanwhile is here."""
    ping = records.get("api/ping")
    socket = in_run(places.address.removeprefix("unix://"))
    pid = places.pid
    if not pid and ping is not None and ping.status == "ok":
        if _podman(records):
            return Vantage(whole=f"what answers at {socket} is podman, which is not examined")
        pid = find_running(host)
        if not pid and (hidden := _hidden(host)):
            return Vantage(processes=hidden)
        if not pid:
            why = f"what answers at {socket} is no process here: run doctor on the host of dockerd, and in no container"
            return Vantage(whole=why)
    if not pid:
        return Vantage()
    if _contained(host) and not _may_look(host, pid):
        why = f"doctor is in a container, and may not look at dockerd (pid {pid}): run it on the host of dockerd"
        return Vantage(whole=why)
    if path := _other_files(host, pid, places):
        why = f"dockerd (pid {pid}) has another {path} than is read here: run doctor on its host, and in no container"
        return Vantage(whole=why)
    return Vantage(network=_other_network(host, pid))


def applied(found: Vantage, records: Mapping[str, Record]) -> dict[str, Record]:
    """Give the records without what is not the engine's: what every host has is said to be missing, the rest goes."""
    kept = {}
    for name, record in records.items():
        why = found.why_not(name)
        if not why:
            kept[name] = record
        elif not _ONE_OF_MANY.match(name):
            kept[name] = Record(name, record.kind, record.target, "not-run", why=why)
    kept["engine/vantage"] = Record("engine/vantage", "kernel", "where doctor runs", data=msgspec.json.encode(found))
    return kept


def whole(snapshot: Snapshot) -> str:
    """Say why nothing of a snapshot is the engine's; empty where something is."""
    record = snapshot.records.get("engine/vantage")
    if record is None:
        return ""
    try:
        return msgspec.json.decode(record.data, type=Vantage).whole
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _podman(records: Mapping[str, Record]) -> bool:
    """Whether the API says that it is podman's, which speaks Docker's."""
    told = records.get("api/version")
    return told is not None and told.status == "ok" and b'"Podman Engine"' in told.data


def _hidden(host: Host) -> str:
    """Say that /proc hides the processes of others, where it does (proc(5), hidepid)."""
    try:
        mounts = host.read("/proc/self/mountinfo", _LARGEST)[0].decode("utf-8", "replace")
    except OSError:
        return ""
    for line in mounts.split("\n"):
        place, _, rest = line.partition(" - ")
        fields = rest.split(" ")
        if place.split(" ")[4:5] == ["/proc"] and fields[0] == "proc":
            options = dict(one.partition("=")[::2] for one in fields[-1].split(","))
            if options.get("hidepid", "0") not in {"0", "off"}:
                return "/proc hides the processes of others (it is mounted with hidepid)"
    return ""


def _contained(host: Host) -> bool:
    """Whether we are in a container of Docker's or podman's, by the file that each puts there."""
    for mark in ("/.dockerenv", "/run/.containerenv"):
        try:
            host.lstat(mark)
        except OSError:
            continue
        return True
    return False


def _may_look(host: Host, pid: int) -> bool:
    """Whether the root of a process may be seen: in a container root may not, but for a privileged one (ptrace(2))."""
    try:
        host.readlink(f"/proc/{pid}/root")
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _other_network(host: Host, pid: int) -> str:
    """Say that dockerd is in another network namespace than we are. A rootless one has a namespace of its own, and is here."""
    try:
        ours, its = (
            tuple(host.readlink(f"/proc/{one}/ns/{kind}") for kind in ("net", "user")) for one in ("self", str(pid))
        )
    except OSError:
        return ""  # without the right to look, believe
    if ours[0] == its[0] or ours[1] != its[1]:
        return ""
    return f"dockerd (pid {pid}) is in another network namespace: nsenter -t {pid} -n doctor check sees its own"


def _other_files(host: Host, pid: int, places: Places) -> str:
    """Give a path of dockerd's that is another file here, where its root is another one; empty where all are its own."""
    root = f"/proc/{pid}/root"
    if _same(host, root, "/") is not False:
        return ""
    for path in (places.data_root, places.config_file, places.pidfile):
        if _same(host, root + path, path) is False:
            return path
    return ""


def _same(host: Host, its: str, ours: str) -> bool | None:
    """Whether two paths lead to one file; None where it is not known, or dockerd has none."""
    try:
        there = host.stat(its)
    except OSError:
        return None
    try:
        here = host.stat(ours)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
