"""Carry out the table of sources on a host: raw evidence into a Snapshot, in one pass, bounded as a whole.

Lanes run side by side, each a short queue of jobs on a daemon thread: what is asked of the daemon, what is read from
files, what is run, and what processes of their own read: the trees of the store, and who runs and what is in every
network namespace (`doctor.linux.survey`). One deadline holds for all. A job that does not come back costs its lane
nothing but a new thread: its record says `timeout`, and the lane goes on.

A snapshot is not atomic. The list of containers is the first thing asked and the last; what differs is unsettled
(`doctor.facts.settled`), and so is what the directory of sandboxes no longer holds at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from errno import EACCES, ENOENT, ENOTDIR, EPERM
from hashlib import sha256
from stat import S_ISDIR, S_ISLNK, S_ISREG, S_ISSOCK
from typing import TYPE_CHECKING

import msgspec

from doctor import __version__, sources
from doctor.docker_api import ApiError, DockerApi
from doctor.host import Host, NotRegularError
from doctor.lanes import Job, Lane, current
from doctor.lines import tree_line
from doctor.linux.frames import Frame, frames
from doctor.linux.trees import CUT, sandboxes
from doctor.places import Places, find, here
from doctor.redact import Redactor
from doctor.snapshot import Kind, Meta, Record, Snapshot, Status, tree_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.sources import Source

PING_SECONDS = 2.0
BRACKET_SECONDS = 0.25
"""How long reading waits for the first list of containers: a daemon that hangs creates none meanwhile."""
LAST_SECONDS = 1.0
MANY = 400
"""Entries of a directory from which on a process of its own reads it: starting one costs 15 ms."""


class Collector:
    """One run over one host."""

    def __init__(self, host: Host, places: Places, extra: Iterable[Source], until: float) -> None:
        """Prepare the lanes; nothing is read before `run`."""
        self.host = host
        self.places = places
        self.until = until
        self.extra = tuple(extra)
        self.records: dict[str, Record] = {}
        self.redactor = Redactor()
        self.wake = threading.Condition()
        self.listed = threading.Event()
        self.api = DockerApi(places.address, PING_SECONDS)
        self.stuck: set[str] = set()
        self.ids: set[str] = set()
        """Records that hold nothing but what the engine made up: no secret is looked for in them."""
        self.began = time.monotonic()
        # What was there at the beginning is looked at once more: without that, nothing that changed could be told.
        self.reading = until - min(LAST_SECONDS / 2, (until - self.began) / 5)
        """When everything but the last look has to be done."""
        self.progress: Callable[[int, float], None] | None = None
        self.lanes = {
            "api": Lane("api"),
            "files": Lane("files"),
            "commands": Lane("commands"),
            "store": Lane("store"),
            "survey": Lane("survey"),
        }

    # The course of a run

    def run(self) -> None:
        """Fill `records`; returns when all is read or the deadline is near."""
        table = (*sources.SOURCES, *self.extra)
        for lane in self.lanes.values():
            lane.fault = self._fault
        api, files, commands = self.lanes["api"], self.lanes["files"], self.lanes["commands"]
        store, survey = self.lanes["store"], self.lanes["survey"]
        store.add("store/listed", "the first list", 1.0, self._await_list)
        api.add("api/ping", "/_ping", PING_SECONDS, self._ask)
        for source in table:
            if source.kind == "command":
                commands.add(source.name, source.target, source.seconds, self._command(source))
        early = [one for one in table if one.kind in {"file", "tail", "list", "tree"} and one.area != "store"]
        for source in early:
            files.add(source.name, self._target(source), source.seconds, self._read(source))
        files.add(sources.KERNEL_LOG.name, sources.KERNEL_LOG.target, 1.0, self._kernel_log)
        files.add("engine/paths", "paths of the configuration", 1.0, self._paths)
        survey.add("proc/processes", "/proc", self.reading - self.began, self._survey)
        for source in table:
            if source.kind == "tree" and source.area == "store":
                store.add(source.name, self._target(source), source.seconds + 1.5, self._read(source))
            elif (
                source.kind in {"file", "tail", "list"} and source.area == "store" and source is not sources.STORE_LAST
            ):
                files.add(source.name, self._target(source), source.seconds, self._read(source))
        store.add(sources.STORE_LAST.name, self._target(sources.STORE_LAST), 1.0, self._read(sources.STORE_LAST))
        files.add("store/containers/names", self.places.data_root + "/containers", 3.0, self._container_files)
        files.add("store/space", self.places.data_root, 1.0, self._space)
        files.add("store/logs", self.places.data_root + "/containers", 1.0, self._logs)
        first = tuple(self.lanes)
        for lane in (survey, api, files, commands, store):
            lane.start(self.wake)
        self._wait(first, self.reading)
        last = Lane("last")
        self.lanes["last"] = last
        last.add("run/netns-last", self.places.exec_root + "/netns", 0.5, self._sandboxes_last)
        last.add("proc/last", "/proc", LAST_SECONDS, self._processes_last)
        if self._answers():
            last.add("api/containers-last", sources.LIST, LAST_SECONDS, self._last_list)
        last.start(self.wake)
        self._wait(("last",), self.until)
        self._account()
        self.host.end()

    def _wait(self, names: tuple[str, ...], until: float) -> None:
        """Wait until these lanes are done; give up single jobs at their bound, everything at a time."""
        while True:
            now = time.monotonic()
            lanes = [self.lanes[name] for name in names]
            if all(lane.done or not lane.started for lane in lanes) or now >= until:
                return
            nearest = until
            for lane in lanes:
                for serial, job in list(lane.busy.items()):
                    over = job.begun + job.seconds + 0.5
                    if now >= over:
                        job.abandoned = True
                        lane.busy.pop(serial, None)
                        waited = (now - job.begun) * 1000
                        self._put(
                            Record(
                                job.name,
                                "file",
                                job.target,
                                "timeout",
                                why=f"did not end in {waited / 1000:.1f} s",
                                ms=waited,
                            )
                        )
                        lane.another(self.wake)
                    else:
                        nearest = min(nearest, over)
            if self.progress:
                self.progress(len(self.records), now - self.began)
            with self.wake:
                self.wake.wait(max(0.001, min(nearest - now, 0.05)))

    def _account(self) -> None:
        """Say of everything that was begun and did not end, or was not begun, that it is missing and why."""
        now = time.monotonic()
        for lane in self.lanes.values():
            for job in list(lane.busy.values()):
                job.abandoned = True
                ms = (now - job.begun) * 1000
                why = f"did not end in {ms / 1000:.1f} s, when the deadline came"
                self.records.setdefault(job.name, Record(job.name, "file", job.target, "timeout", why=why, ms=ms))
            for job in list(lane.jobs):
                why = "the deadline came before its turn"
                self.records.setdefault(job.name, Record(job.name, "file", job.target, "not-run", why=why))

    # Records

    def _fault(self, job: Job, error: Exception) -> None:
        why = f"fault in doctor itself: {type(error).__name__}: {error}"
        self._put(Record(job.name, "file", job.target, "failed", why=why))

    def _put(self, record: Record) -> None:
        self.records[record.name] = record

    def _keep(self, name: str, kind: Kind, target: str, data: bytes, how: str, **about: object) -> None:
        """Scrub evidence and keep it, unless the job that brought it was given up meanwhile."""
        job = current()
        if job is not None and job.abandoned:
            return
        digest = sha256(data).hexdigest()
        if how == "ids":
            self.ids.add(name)
            how = "none"
        clean, redactions = (data, 0) if how == "none" else self.redactor.scrub(data, how)
        self._put(
            Record(
                name,
                kind,
                _text(target),
                data=clean,
                size=len(data),
                sha256=digest,
                redactions=redactions,
                **about,  # type: ignore[arg-type]  # keyword arguments of Record
            )
        )

    def _failed(self, name: str, kind: Kind, target: str, error: OSError, ms: float) -> None:
        self._put(Record(name, kind, _text(target), _status(error), why=_why(error), errno=error.errno or 0, ms=ms))

    def _target(self, source: Source) -> str:
        target = source.target
        if "{" in target:
            for name, value in self.places.names.items():
                target = target.replace("{" + name + "}", value)
        return target

    # Files

    def _read(self, source: Source) -> Callable[[], None]:
        target = self._target(source)
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
            self._failed(name, "file", path, error, _since(start))
            return
        cut = len(data) >= source.limit and about.st_size > source.limit and source.kind != "tail"
        if source.keep:
            data = b"\n".join(line for line in data.split(b"\n") if _wanted(line, source.keep)) + b"\n"
        self._keep(
            name,
            "file",
            path,
            data,
            source.scrub,
            ms=_since(start),
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
                self._failed(source.name, "file", pattern, error, 0.0)
            return
        prefix = source.name.rpartition("/")[0] if "*" in source.name else source.name.rstrip("/")
        for name in names:
            if name.startswith(start) and name.endswith(end) and len(name) >= len(start) + len(end):
                self._file(source, f"{prefix}/{_text(name)}", f"{folder}/{name}")

    def _list(self, source: Source, path: str) -> None:
        start = time.perf_counter()
        try:
            names = self.host.listdir(path)
        except OSError as error:
            self._failed(source.name, "tree", path, error, _since(start))
            return
        lines = []
        for name in names:
            if source is sources.STORE_LAST:  # 3,000 names, of which only the names are wanted
                lines.append(tree_line(_text(name), "?", 0.0))
                continue
            try:
                about = self.host.lstat(f"{path}/{name}")
            except OSError:
                continue
            lines.append(tree_line(_text(name), _letter(about.st_mode), about.st_mtime, str(about.st_size)))
        self._keep(source.name, "tree", path, "".join(lines).encode(), source.scrub, ms=_since(start))

    def _tree(self, source: Source, root: str) -> None:
        start = time.perf_counter()
        members = () if source.members[0].startswith("@") else source.members
        try:
            # overlay2's short links, `l`, are a record of their own.
            names = [name for name in self.host.listdir(root) if name != "l" or not members]
            if len(names) >= MANY:
                self._big_tree(source, root)
                return
            if source.skip:
                names = [name for name in names if not name.startswith(source.skip)]
            text, cut = self.host.tree(root, names, members or source.members, source.limit)
        except OSError as error:
            self._failed(source.name, "tree", root, error, _since(start))
            return
        self._keep(
            source.name,
            "tree",
            root,
            text.encode("utf-8", "surrogateescape"),
            source.scrub,
            ms=_since(start),
            status="truncated" if cut else "ok",
            why=f"larger than {source.limit:,} bytes" if cut else "",
        )

    def _big_tree(self, source: Source, root: str) -> None:
        """Have a process of its own read a tree of many entries: it does not wait for this one's turn."""
        seconds = max(0.05, min(source.seconds + 1, self.until - time.monotonic()))
        done = self.host.big_tree(root, source.members, seconds, source.limit)
        cut = done.status == "truncated" or (done.status == "ok" and done.returncode == CUT)
        status: Status = "truncated" if cut else done.status
        if done.status == "ok" and done.returncode not in {0, CUT}:
            status = "failed"
        why = "" if status == "ok" else f"larger than {source.limit:,} bytes" if cut else f"reading it ended: {status}"
        self._keep(source.name, "tree", root, done.stdout, source.scrub, status=status, why=why, ms=done.seconds * 1000)

    def _container_files(self) -> None:
        """Read what the engine wrote for the containers themselves: names and nameservers."""
        self._files_of_containers(sources.CONTAINER_FILES, lambda _: True)

    def _container_states(self) -> None:
        """Read from the disk what the daemon did not tell: of all when it is silent, and of those it does not list."""
        self._files_of_containers(sources.CONTAINER_STATE, lambda one: not self._told(one))

    def _told(self, container: str) -> bool:
        record = self.records.get(f"api/inspect/{container}")
        return record is not None and record.status == "ok"

    def _files_of_containers(self, files: tuple[tuple[str, str], ...], wanted: Callable[[str], bool]) -> None:
        folder = f"{self.places.data_root}/containers"
        try:
            ids = self.host.listdir(folder)
        except OSError as error:
            self._failed("store/containers/", "file", folder, error, 0.0)
            return
        for container in ids:
            if not container.isalnum() or not wanted(container):
                continue  # no container's directory has such a name
            for name, scrub in files:
                source = sources.Source(
                    name=f"store/containers/{container}/{name}", kind="file", target="", scrub=scrub, area="store"
                )
                self._file(source, source.name, f"{folder}/{container}/{name}")

    def _space(self) -> None:
        """Ask how large the file system of the data root is, and how much of it is free, in bytes and inodes."""
        root = self.places.data_root
        try:
            room = self.host.space(root)
        except OSError as error:
            self._failed("store/space", "file", root, error, 0.0)
            return
        text = "".join(f"{name} {number}\n" for name, number in room.items())
        self._keep("store/space", "file", root, text.encode(), "none")

    def _logs(self) -> None:
        """Ask how large the json log of each container is; where one is gone, what dockerd still holds open of it."""
        folder = f"{self.places.data_root}/containers"
        start = time.perf_counter()
        try:
            ids = [name for name in self.host.listdir(folder) if name.isalnum()]
            text, _ = self.host.tree(folder, [f"{one}/{one}-json.log" for one in ids], ("@?",), 8 << 20)
        except OSError as error:
            self._failed("store/logs", "tree", folder, error, _since(start))
            return
        self._keep("store/logs", "tree", folder, text.encode("utf-8", "surrogateescape"), "none", ms=_since(start))
        # dockerd of 200 containers holds 1,500 files open: only a log that is not there is worth looking for.
        if self.places.pid and "\t-\t" in text:
            self._deleted_logs(f"/proc/{self.places.pid}/fd")

    def _deleted_logs(self, folder: str) -> None:
        start = time.perf_counter()
        lines = []
        try:
            numbers = self.host.listdir(folder)
        except OSError as error:
            self._failed("engine/deleted-logs", "tree", folder, error, _since(start))
            return
        for number in numbers:
            try:
                held = self.host.readlink(f"{folder}/{number}")
                if held.endswith("-json.log (deleted)"):
                    size = self.host.stat(f"{folder}/{number}").st_size
                    lines.append(tree_line(number, "f", 0.0, f"{size} {_text(held)}"))
            except OSError:
                continue  # it was closed meanwhile
        self._keep("engine/deleted-logs", "tree", folder, "".join(lines).encode(), "none", ms=_since(start))

    def _kernel_log(self) -> None:
        source = sources.KERNEL_LOG
        start = time.perf_counter()
        try:
            data = self.host.kernel_log()
        except OSError as error:
            self._failed(source.name, "kernel", source.target, error, _since(start))
            return
        kept = b"\n".join(line for line in data.split(b"\n") if _wanted(line, source.keep))[-source.limit :]
        self._keep(source.name, "kernel", source.target, kept, source.scrub, ms=_since(start))

    def _paths(self) -> None:
        """Look at what the configuration names: its type, mode, owner, group and size, links followed."""
        start = time.perf_counter()
        lines = []
        for path in self.places.paths:
            try:
                about = self.host.stat(path)
            except OSError as error:
                lines.append(tree_line(_text(path), "-" if error.errno == ENOENT else "!", 0.0, _why(error)))
                continue
            letter = "s" if S_ISSOCK(about.st_mode) else _letter(about.st_mode)
            link = " link" if S_ISLNK(self.host.lstat(path).st_mode) else ""
            rights = f"{about.st_mode & 0o7777:04o} {about.st_uid} {about.st_gid} {about.st_size}{link}"
            lines.append(tree_line(_text(path), letter, about.st_mtime, rights))
        data = "".join(lines).encode()
        self._keep("engine/paths", "tree", "paths of the configuration", data, "tree", ms=_since(start))

    # Processes and namespaces

    def _survey(self) -> None:
        """Have a process of its own read who runs and what is in each network namespace, and keep what it hands over."""
        self._await_list()
        folder = self.places.exec_root + "/netns"
        seconds = max(0.1, self.reading - 0.1 - time.monotonic())
        done = self.host.survey(folder, seconds)
        status: Status = "failed" if done.status == "ok" else done.status
        why = {
            "timeout": f"did not end in {seconds:.1f} s",
            "failed": f"the process that reads it ended: exit {done.returncode}",
        }.get(status, f"the process that reads it: {status}")
        for frame in frames(done.stdout):
            self._take(frame)
        asked = (
            ("run/netns", folder),
            ("proc/processes", "/proc"),
            ("netns/index", "/proc/*/ns/net"),
            ("cgroup/containers", "/sys/fs/cgroup"),
            ("proc/signals", "/proc"),
        )
        for name, target in asked:
            if name not in self.records:
                self._put(Record(name, "tree", target, status, why=why, ms=done.seconds * 1000))
        for entry in tree_entries(self.records["netns/index"]):
            name = f"netns/{'host' if entry.content == 'host' else entry.path}/links"
            if name not in self.records:
                self._put(Record(name, "netns", _text(entry.content), status, why=why, ms=done.seconds * 1000))

    def _take(self, frame: Frame) -> None:
        kind: Kind = frame.kind  # type: ignore[assignment]  # a survey names kinds and status of records
        status: Status = frame.status  # type: ignore[assignment]
        if not frame.data and status != "ok":
            target = _text(frame.target)
            self._put(Record(frame.name, kind, target, status, why=frame.why, errno=frame.errno, ms=frame.ms))
            return
        how = "processes" if frame.name == "proc/processes" else "text" if frame.name.endswith("tables") else "none"
        self._keep(frame.name, kind, frame.target, frame.data, how, status=status, why=frame.why, ms=frame.ms)

    def _processes_last(self) -> None:
        """Look once more at the processes that matter: a pid that is gone, or is another process now, is unsettled."""
        start = time.perf_counter()
        first = self.records.get("proc/processes")
        lines = ""
        if first is not None:
            pids = {line.split("/", 1)[0] for line in first.text.split("\n") if "/cmdline\t" in line}
            lines = self.host.tree("/proc", sorted(pids, key=int), ("stat",), 8 << 20)[0]
        self._keep("proc/last", "tree", "/proc", lines.encode("utf-8", "surrogateescape"), "none", ms=_since(start))

    def _await_list(self) -> None:
        """Read nothing before the first list of containers: what is made meanwhile would be in neither list."""
        self.listed.wait(BRACKET_SECONDS)

    def _sandboxes_last(self) -> None:
        """List the sandbox files once more: one that has gone was being removed."""
        folder = self.places.exec_root + "/netns"
        start = time.perf_counter()
        try:
            text = sandboxes(folder)
        except OSError as error:
            self._failed("run/netns-last", "tree", folder, error, _since(start))
            return
        data = text.encode("utf-8", "surrogateescape")
        self._keep("run/netns-last", "tree", folder, data, "none", ms=_since(start))

    # Commands

    def _command(self, source: Source) -> Callable[[], None]:
        return lambda: self._run_command(source)

    def _run_command(self, source: Source) -> None:
        argv = tuple(source.target.split(" "))
        absent = [module for module in source.touches if not self.host.has_module(module)]
        if absent:
            why = f"would load kernel module {absent[0]}, which is not there: so no rules are in it"
            self._put(Record(source.name, "command", source.target, "not-run", why=why))
            return
        if argv[0] in self.stuck:
            why = f"{argv[0]} did not end before"
            self._put(Record(source.name, "command", source.target, "not-run", why=why))
            return
        seconds = max(0.05, min(source.seconds, self.until - time.monotonic()))
        done = self.host.run(argv, seconds, source.limit)
        ms = done.seconds * 1000
        if done.status == "timeout":
            self.stuck.add(argv[0])
        status: Status = done.status
        why = ""
        if status == "ok" and done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
            status = "denied" if "ermission denied" in last or "not permitted" in last else "failed"
            why = f"exit {done.returncode}: {last[:300]}"
        elif status != "ok":
            why = {
                "timeout": f"{argv[0]} did not end in {seconds:.1f} s",
                "truncated": f"more than {source.limit:,} bytes",
                "absent": f"{argv[0]} is not installed",
                "denied": f"{argv[0]} may not be run",
            }.get(status, status)
        if status in {"absent", "denied"}:
            self._put(Record(source.name, "command", source.target, status, why=why, ms=ms))
            return
        self._keep(source.name, "command", source.target, done.stdout, source.scrub, status=status, why=why, ms=ms)

    # The daemon

    def _answers(self) -> bool:
        ping = self.records.get("api/ping")
        return ping is not None and ping.status == "ok" and not (lane := self.lanes["api"]).busy and not lane.jobs

    def _ask(self) -> None:
        """Ask whether the daemon is there, and then everything else; a daemon that did not answer is asked no more."""
        api = self.lanes["api"]
        if not self._get("api/ping", "/_ping", PING_SECONDS):
            self.listed.set()
            asked = (*sources.API, *sources.API_LATE, *(one for one in self.extra if one.kind == "api"))
            ping = self.records["api/ping"]
            for name, target in (("api/containers", sources.LIST), *((one.name, one.target) for one in asked)):
                self._put(Record(name, "api", target, ping.status, why=ping.why, errno=ping.errno))
            api.add("store/containers/", self.places.data_root + "/containers", 3.0, self._container_states)
            if self.places.binary:
                api.add("engine/version", sources.VERSION.target, 2.0, self._command(sources.VERSION))
            return
        self._get("api/containers", sources.LIST, 2.0, "inspect")
        self.listed.set()
        for source in sources.API:
            api.add(source.name, source.target, source.seconds, self._api(source))
        api.add("api/inspect/", "/containers/ID/json", 5.0, self._inspect)
        api.add("store/containers/", self.places.data_root + "/containers", 3.0, self._container_states)
        for source in (*sources.API_LATE, *(one for one in self.extra if one.kind == "api")):
            api.add(source.name, source.target, source.seconds, self._api(source))

    def _api(self, source: Source) -> Callable[[], None]:
        def ask() -> None:
            self._get(source.name, source.target, source.seconds, source.scrub)

        return ask

    def _get(self, name: str, path: str, seconds: float, scrub: str = "text") -> bool:
        start = time.perf_counter()
        seconds = max(0.05, min(seconds, self.until - time.monotonic()))
        try:
            status, body = self.api.get(path, seconds)
        except ApiError as error:
            known: Status = error.status  # type: ignore[assignment]  # ApiError names a Status
            why = self._whose() if known == "denied" else error.why
            self._put(Record(name, "api", path, known, why=why, errno=error.errno, ms=_since(start)))
            return False
        ms = _since(start)
        if status != 200:  # noqa: PLR2004 - HTTP
            self._keep(name, "api", path, body, "text", status="failed", why=f"HTTP {status}", ms=ms)
            return False
        self._keep(name, "api", path, body, scrub, ms=ms)
        return True

    def _whose(self) -> str:
        """Say whose the socket is that we may not open, and that we are not."""
        import grp
        import pwd

        path = self.api.where
        try:
            about = self.host.stat(path)
            owner, group = pwd.getpwuid(about.st_uid).pw_name, grp.getgrgid(about.st_gid).gr_name
        except (OSError, KeyError):
            return f"{path}: permission denied"
        return f"{path} is {owner}:{group} {about.st_mode & 0o7777:04o}, you are neither"

    def _inspect(self) -> None:
        listed = self.records.get("api/containers")
        ids = _ids(listed.data) if listed is not None else []
        for container in ids:
            if not container.isalnum():
                continue  # no container's directory has such a name
            if time.monotonic() > self.until:
                return
            # The job is one, its requests are many: each renews the bound.
            job = current()
            if job is not None:
                if job.abandoned:
                    return
                job.begun = time.monotonic()
            self._get(f"api/inspect/{container}", f"/containers/{container}/json", 2.0, "inspect")
            ping = self.records.get(f"api/inspect/{container}")
            if ping is not None and ping.status == "timeout":
                return

    def _last_list(self) -> None:
        self._get("api/containers-last", sources.LIST, LAST_SECONDS, "inspect")


class _Listed(msgspec.Struct):
    Id: str = ""


def _ids(data: bytes) -> list[str]:
    try:
        return [one.Id for one in msgspec.json.decode(data, type=list[_Listed]) if one.Id.isalnum()]
    except msgspec.MsgspecError:
        return []


def _wanted(line: bytes, words: tuple[str, ...]) -> bool:
    lower = line.lower()
    return any(word.encode() in lower for word in words)


def _text(name: str) -> str:
    """Give a name of the file system as text that every format can hold: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _letter(mode: int) -> str:
    return "d" if S_ISDIR(mode) else "l" if S_ISLNK(mode) else "f" if S_ISREG(mode) else "o"


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


def _status(error: OSError) -> Status:
    if error.errno in {ENOENT, ENOTDIR}:
        return "absent"
    if error.errno in {EACCES, EPERM}:
        return "denied"
    return "failed"


def _why(error: OSError) -> str:
    if isinstance(error, NotRegularError) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno).lower()


def collect(
    host: Host,
    *,
    deadline: float = 10.0,
    extra: Iterable[Source] = (),
    places: Places | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Snapshot:
    """Read all evidence of a host within `deadline` seconds. Changes nothing; raises nothing for what it finds."""
    return gather(host, deadline=deadline, extra=extra, places=places, progress=progress)[0]


def gather(
    host: Host,
    *,
    deadline: float = 10.0,
    extra: Iterable[Source] = (),
    places: Places | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Snapshot, Redactor]:
    """Do as `collect`, and give who scrubbed the evidence too: it knows what must not stand in anything written of it."""
    began = time.monotonic()
    wall = time.time()
    found = places or find(host, here())
    run = Collector(host, found, extra, began + deadline)
    run.progress = progress
    # Lanes make many short system calls, each of which gives the interpreter away: a thread that parses meanwhile would
    # keep it for 5 ms each time (measured: a fifth of the whole run).
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        run.run()
    finally:
        sys.setswitchinterval(interval)
    if progress:
        progress(len(run.records), -1.0)
    return _snapshot(run, wall, time.monotonic() - began), run.redactor


def _snapshot(run: Collector, wall: float, seconds: float) -> Snapshot:
    uname = os.uname()
    local = time.localtime(wall)
    uid = os.geteuid()
    # First: without it nothing else in a bundle that was cut short could be read rightly.
    places = Record("engine/places", "kernel", "the running daemon", data=msgspec.json.encode(run.places))
    run.records[places.name] = places
    records = {record.name: record for record in run.redactor.finish(_in_order(run.records), run.ids)}
    meta = Meta(
        doctor=__version__,
        hostname=uname.nodename,
        kernel=uname.release,
        machine=uname.machine,
        collected_at=wall,
        utc_offset=local.tm_gmtoff,
        uid=uid,
        user=_user(uid),
        seconds=seconds,
    )
    return Snapshot(meta, records, dict(run.redactor.removed))


def _in_order(records: dict[str, Record]) -> list[Record]:
    """Give the records in the order of the table, so that secrets are numbered alike in every run."""
    place = {source.name: number for number, source in enumerate(sources.SOURCES, 1)} | {"engine/places": 0}
    return sorted(records.values(), key=lambda record: (place.get(record.name, len(place)), record.name))


def _user(uid: int) -> str:
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
