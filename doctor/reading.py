"""Read files and directories of a host into records, as the table of sources says, and what has no row of its own."""

from __future__ import annotations

import re
import time
from errno import ENOENT, ENOTDIR
from stat import S_ISDIR, S_ISLNK, S_ISREG, S_ISSOCK
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor import sources
from doctor.keeping import shown, since
from doctor.lanes import current
from doctor.lines import tree_line
from doctor.linux.frames import frames, why_of
from doctor.linux.trees import Wanted
from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.host import Host
    from doctor.keeping import Keeper
    from doctor.places import Places
    from doctor.snapshot import Status
    from doctor.sources import Source

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_CERTIFICATES = 1 << 18
"""Bytes of a file of certificates that are read: a bundle of all public authorities has as many."""
_DEEP = 16
_BOUND_PATHS = 2000
_REMAPPED = re.compile(r"\d+\.\d+")
_IMAGES = ("image/overlay2/repositories.json?",)
CONTAINERD = ("/var/lib/containerd",)
"""Where a containerd of its own keeps everything, unless told otherwise."""
ENOUGH, _LOOK = 4, 1.0
"""Where a quarter is free nobody looks for deleted files; the seconds that it may take where less is."""
MANY = 400
"""Entries of a directory from which on a process of its own reads it: starting one costs 15 ms."""


class Reading:
    """Reads one host, until a time (time.monotonic)."""

    def __init__(self, host: Host, places: Places, kept: Keeper, until: float) -> None:
        """Read nothing yet."""
        self.host = host
        self.places = places
        self.kept = kept
        self.until = until

    def target(self, source: Source) -> str:
        """Give what a source names on this host."""
        target = source.target
        if "{" in target:
            for name, value in self.places.names.items():
                target = target.replace("{" + name + "}", value)
        return target

    def read(self, source: Source) -> Callable[[], None]:
        """Give the work that reads a file, a tree or a list."""
        target = self.target(source)
        if source.kind == "tree":
            return lambda: self._tree(source, target)
        if source.kind == "list":
            return lambda: self._list(source, target)
        if "*" in target:
            return lambda: self._glob(source, target)
        return lambda: self._file(source, source.name, target)

    def _file(self, source: Source, name: str, path: str) -> None:
        start = time.perf_counter()
        try:
            read = self.host.tail if source.kind == "tail" else self.host.read
            data, about = read(path, source.limit)
        except OSError as error:
            self.kept.failed(name, "file", path, error, since(start))
            return
        cut = len(data) >= source.limit and about.st_size > source.limit and source.kind != "tail"
        if source.keep:
            data = b"\n".join(line for line in data.split(b"\n") if _wanted(line, source.keep)) + b"\n"
        self.kept.keep(
            name,
            "file",
            path,
            data,
            source.scrub,
            ms=since(start),
            mtime=about.st_mtime,
            status="truncated" if cut else "ok",
            why=f"larger than {source.limit:,} bytes" if cut else "",
        )

    def _glob(self, source: Source, pattern: str) -> None:
        folder, _, match = pattern.rpartition("/")
        start, _, end = match.partition("*")
        try:
            names = self.host.listdir(folder)
        except OSError as error:
            if error.errno not in {ENOENT, ENOTDIR}:
                self.kept.failed(source.name, "file", pattern, error, 0.0)
            return
        prefix = source.name.rpartition("/")[0] if "*" in source.name else source.name.rstrip("/")
        for name in names:
            if name.startswith(start) and name.endswith(end) and len(name) >= len(start) + len(end):
                self._file(source, f"{prefix}/{shown(name)}", f"{folder}/{name}")

    def _list(self, source: Source, path: str) -> None:
        start = time.perf_counter()
        try:
            names = self.host.listdir(path)
        except OSError as error:
            self.kept.failed(source.name, "tree", path, error, since(start))
            return
        lines = []
        for name in names:
            if source.scrub == "ids":  # of 3,000 names only the names are wanted
                lines.append(tree_line(shown(name), "?", 0.0))
                continue
            try:
                about = self.host.lstat(f"{path}/{name}")
            except OSError:
                continue
            lines.append(tree_line(shown(name), _letter(about.st_mode), about.st_mtime, str(about.st_size)))
        self.kept.keep(source.name, "tree", path, "".join(lines).encode(), source.scrub, ms=since(start))

    def _tree(self, source: Source, root: str) -> None:
        if source.name in self.kept.records:
            return  # it came with one before it
        start = time.perf_counter()
        members = () if source.members[0].startswith("@") else source.members
        try:
            # overlay2's short links, `l`, are a record of their own.
            names = [name for name in self.host.listdir(root) if name != "l" or not members]
            if len(names) >= MANY:
                self._big_trees(source)
                return
            if source.skip:
                names = [name for name in names if not name.startswith(source.skip)]
            text, cut = self.host.tree(root, names, members or source.members, source.limit)
        except OSError as error:
            self.kept.failed(source.name, "tree", root, error, since(start))
            return
        self.kept.keep(
            source.name,
            "tree",
            root,
            text.encode("utf-8", "surrogateescape"),
            source.scrub,
            ms=since(start),
            status="truncated" if cut else "ok",
            why=f"larger than {source.limit:,} bytes" if cut else "",
        )

    def _big_trees(self, first: Source) -> None:
        """Have a process of its own read a tree of many entries: it does not wait for this one's turn.

        It reads all up to the last such tree of the store, in the order of the table: one process starts, not four.
        """
        table = [one for one in sources.STORE if one.kind == "tree"]
        wanted = table[table.index(first) :] if first in table else [first]
        while len(wanted) > 1 and not self._many(wanted[-1]):
            wanted.pop()
        seconds = max(0.05, min(sum(one.seconds for one in wanted) + 1, self.until - time.monotonic()))
        job = current()
        if job is not None:
            job.seconds = seconds
        done = self.host.big_trees([Wanted(self.target(one), one.members, one.limit) for one in wanted], seconds)
        for source, frame in zip(wanted, frames(done.stdout), strict=False):
            name, target, status, ms = source.name, frame.target, frame.status, frame.ms
            if status in {"ok", "truncated"}:
                why = f"larger than {source.limit:,} bytes" if status == "truncated" else ""
                self.kept.keep(name, "tree", target, frame.data, source.scrub, status=status, why=why, ms=ms)
            else:
                self.kept.put(Record(name, "tree", shown(target), status, why=frame.why, errno=frame.errno, ms=ms))
        if first.name not in self.kept.records:
            became: Status = "failed" if done.status == "ok" else done.status
            why = f"the process that reads it ended: {done.status}"
            self.kept.missing(first.name, "tree", self.target(first), became, why, done.seconds * 1000)

    def _many(self, source: Source) -> bool:
        try:
            return len(self.host.listdir(self.target(source))) >= MANY
        except OSError:
            return False

    def kernel_log(self) -> None:
        """Read the kernel's log, and keep what concerns containers."""
        source = sources.KERNEL_LOG
        start = time.perf_counter()
        try:
            data = self.host.kernel_log()
        except OSError as error:
            self.kept.failed(source.name, "kernel", source.target, error, since(start))
            return
        kept = b"\n".join(line for line in data.split(b"\n") if _wanted(line, source.keep))[-source.limit :]
        self.kept.keep(source.name, "kernel", source.target, kept, source.scrub, ms=since(start))

    def paths(self) -> None:
        """Look at what the configuration names: its type, mode, owner, group and size, links followed."""
        self._look_at("engine/paths", "paths of the configuration", self.places.paths)
        key = self.places.tls.get("tlskey", "")
        if key:  # who may read it, is said by the directories that lead to it as well
            parts = key.split("/")[1:-1][:_DEEP]
            above = tuple("/" + "/".join(parts[:many]) for many in range(1, len(parts) + 1))
            self._look_at("engine/key-folders", f"what {key} is in", above)

    def certificates(self) -> None:
        """Read the certificates that dockerd shows and takes: those blocks of the files, and nothing else of them."""
        for option in ("tlscert", "tlscacert"):
            path = self.places.tls.get(option, "")
            if not path:
                continue
            name, start = f"engine/certificates/{option}", time.perf_counter()
            try:
                data, about = self.host.read(path, _CERTIFICATES)
            except OSError as error:
                self.kept.failed(name, "file", path, error, since(start))
                continue
            held = b"\n".join(_CERTIFICATE.findall(data)) + b"\n"
            self.kept.keep(name, "file", path, held, "none", ms=since(start), mtime=about.st_mtime)

    def _look_at(self, name: str, target: str, paths: tuple[str, ...]) -> None:
        start = time.perf_counter()
        lines = []
        for path in paths:
            try:
                about = self.host.stat(path)
            except OSError as error:
                lines.append(tree_line(shown(path), "-" if error.errno == ENOENT else "!", 0.0, why_of(error)))
                continue
            letter = "s" if S_ISSOCK(about.st_mode) else _letter(about.st_mode)
            link = " link" if S_ISLNK(self.host.lstat(path).st_mode) else ""
            rights = f"{about.st_mode & 0o7777:04o} {about.st_uid} {about.st_gid} {about.st_size}{link}"
            lines.append(tree_line(shown(path), letter, about.st_mtime, rights))
        data = "".join(lines).encode()
        self.kept.keep(name, "tree", target, data, "tree", ms=since(start))

    def space(self) -> None:
        """Ask how large the file system of the data root is, and how much of it is free, in bytes and inodes."""
        root = self.places.data_root
        try:
            room = self.host.space(root)
        except OSError as error:
            self.kept.failed("store/space", "file", root, error, 0.0)
            return
        text = "".join(f"{name} {number}\n" for name, number in room.items())
        self.kept.keep("store/space", "file", root, text.encode(), "none")

    def deleted_files(self) -> None:
        """Look for deleted files that are still open, where room is short: it takes a look at every open file."""
        root, name, start = self.places.data_root, "store/deleted-files", time.perf_counter()
        try:
            room = self.host.space(root)
            if room["free"] * ENOUGH >= room["size"]:
                self.kept.missing(name, "tree", "/proc", "absent", "there is room", since(start))
                return
            mounts = self.host.read(f"/proc/{self.places.pid or 'self'}/mountinfo", 8 << 20)[0]
            text, whole = self.host.deleted_files(root, mounts.decode("utf-8", "replace"), time.monotonic() + _LOOK)
        except OSError as error:
            self.kept.failed(name, "tree", "/proc", error, since(start))
            return
        data = text.encode("utf-8", "surrogateescape")
        status: Status = "ok" if whole else "truncated"
        why = "" if whole else "not every process was looked at"
        self.kept.keep(name, "tree", "/proc", data, "tree", status=status, why=why, ms=since(start))

    def logs(self) -> None:
        """Ask how large the json log of each container is; where one is gone, what dockerd still holds open of it."""
        folder = f"{self.places.data_root}/containers"
        start = time.perf_counter()
        try:
            ids = [name for name in self.host.listdir(folder) if name.isalnum()]
            text, _ = self.host.tree(folder, [f"{one}/{one}-json.log" for one in ids], ("@?",), 8 << 20)
        except OSError as error:
            self.kept.failed("store/logs", "tree", folder, error, since(start))
            return
        self.kept.keep("store/logs", "tree", folder, text.encode("utf-8", "surrogateescape"), "none", ms=since(start))
        # dockerd of 200 containers holds 1,500 files open: only a log that is not there is worth looking for.
        if self.places.pid and "\t-\t" in text:
            self._deleted_logs(f"/proc/{self.places.pid}/fd")

    def _deleted_logs(self, folder: str) -> None:
        start = time.perf_counter()
        lines = []
        try:
            numbers = self.host.listdir(folder)
        except OSError as error:
            self.kept.failed("engine/deleted-logs", "tree", folder, error, since(start))
            return
        for number in numbers:
            try:
                held = self.host.readlink(f"{folder}/{number}")
                if held.endswith("-json.log (deleted)"):
                    size = self.host.stat(f"{folder}/{number}").st_size
                    lines.append(tree_line(number, "f", 0.0, f"{size} {shown(held)}"))
            except OSError:
                continue  # it was closed meanwhile
        self.kept.keep("engine/deleted-logs", "tree", folder, "".join(lines).encode(), "none", ms=since(start))

    def containerd(self) -> None:
        """Read containerd's image store where there is one: dockerd's own containerd has it below the data root."""
        from doctor.layers.containerd_model import SNAPSHOTTER

        name, start = "store/containerd", time.perf_counter()
        for root in (f"{self.places.data_root}/containerd/daemon", *CONTAINERD):
            try:
                if not self.host.listdir(f"{root}/{SNAPSHOTTER}/snapshots"):
                    continue  # what is there has never unpacked an image
                data = self.host.containerd(root)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.kept.failed(name, "file", root, error, since(start))
                return
            self.kept.keep(name, "file", root, data, "none", ms=since(start))
            return
        self.kept.missing(name, "file", CONTAINERD[0], "absent", "no image was ever unpacked there", since(start))

    def bind_sources(self) -> None:
        """Look at the paths of the host that containers and volumes bind: whether they are there, and of what type."""
        found: dict[str, None] = {}
        for record in list(self.kept.records.values()):
            told = record.name.startswith(("api/inspect/", "store/containers/")) and b'"bind"' in record.data
            if told or (record.name == "api/volumes" and b'"device"' in record.data):
                found |= dict.fromkeys(_bound(record.data))
        self._look_at("store/bind-sources", "what containers bind", tuple(found)[:_BOUND_PATHS])

    def other_roots(self) -> None:
        """Look for images in the other data root: with userns-remap dockerd keeps all in DATA_ROOT/UID.GID."""
        root = self.places.data_root
        above, _, name = root.rpartition("/")
        base = above if _REMAPPED.fullmatch(name) else root
        start = time.perf_counter()
        try:
            names = [one for one in self.host.listdir(base) if _REMAPPED.fullmatch(one)]
            if base != root:
                names.append(".")
            text, _ = self.host.tree(base, names, _IMAGES, 1 << 20)
        except OSError as error:
            self.kept.failed("store/other-roots", "tree", base, error, since(start))
            return
        data = text.encode("utf-8", "surrogateescape")
        self.kept.keep("store/other-roots", "tree", base, data, "none", ms=since(start))

    def mounts_last(self) -> None:
        """List once more where containers' layers are mounted: docker cp and docker export do that for a moment."""
        first = [self.kept.records.get(name) for name in ("engine/mounts", "host/mounts")]
        if not any(record is not None and b" - overlay " in record.data for record in first):
            return
        path, start = f"/proc/{self.places.pid or 'self'}/mountinfo", time.perf_counter()
        try:
            text = self.host.read(path, 8 << 20)[0].decode("utf-8", "replace")
        except OSError as error:
            self.kept.failed("engine/mounts-last", "tree", path, error, since(start))
            return
        points = "".join(f"{line.split(' ', 5)[4]}\n" for line in text.split("\n") if " - overlay " in line)
        self.kept.keep("engine/mounts-last", "tree", path, points.encode(), "tree", ms=since(start))

    def open_files(self) -> None:
        """Count what dockerd holds open: at its limit it can take no connection, and start nothing."""
        folder = f"/proc/{self.places.pid}/fd"
        start = time.perf_counter()
        try:
            number = len(self.host.listdir(folder))
        except OSError as error:
            self.kept.failed("engine/open-files", "file", folder, error, since(start))
            return
        self.kept.keep("engine/open-files", "file", folder, f"{number}\n".encode(), "none", ms=since(start))

    def container_files(self) -> None:
        """Read what the engine wrote for the containers themselves: names and nameservers."""
        self._files_of_containers(sources.CONTAINER_FILES, lambda _: True)

    def container_states(self) -> None:
        """Read from the disk what the daemon did not tell: of all when it is silent, and of those it does not list."""
        self._files_of_containers(sources.CONTAINER_STATE, lambda one: not self._told(one))

    def _told(self, container: str) -> bool:
        record = self.kept.records.get(f"api/inspect/{container}")
        return record is not None and record.status == "ok"

    def _files_of_containers(self, files: tuple[tuple[str, str], ...], wanted: Callable[[str], bool]) -> None:
        folder = f"{self.places.data_root}/containers"
        try:
            ids = self.host.listdir(folder)
        except OSError as error:
            self.kept.failed("store/containers/", "file", folder, error, 0.0)
            return
        for container in ids:
            if not container.isalnum() or not wanted(container):
                continue  # no container's directory has such a name
            for name, scrub in files:
                source = sources.Source(
                    name=f"store/containers/{container}/{name}", kind="file", target="", scrub=scrub, area="store"
                )
                self._file(source, source.name, f"{folder}/{container}/{name}")


class _Mount(Struct):
    Type: str = ""
    Source: str = ""


class _Volume(Struct):
    Options: dict[str, str] | None = None


class _Mounted(Struct):
    """What the API and config.v2.json say of mounts, and the API of volumes."""

    Mounts: list[_Mount] | None = None
    MountPoints: dict[str, _Mount | None] | None = None
    Volumes: list[_Volume] | None = None


def _bound(data: bytes) -> list[str]:
    try:
        told = msgspec.json.decode(data, type=_Mounted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    mounts = [*(told.Mounts or ()), *(told.MountPoints or {}).values()]
    paths = [one.Source for one in mounts if one is not None and one.Type == "bind"]
    paths += [(one.Options or {}).get("device", "") for one in told.Volumes or ()]
    return [path for path in paths if path.startswith("/")]


def _wanted(line: bytes, words: tuple[str, ...]) -> bool:
    lower = line.lower()
    return any(word.encode() in lower for word in words)


def _letter(mode: int) -> str:
    return "d" if S_ISDIR(mode) else "l" if S_ISLNK(mode) else "f" if S_ISREG(mode) else "o"
