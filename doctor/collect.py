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
from typing import TYPE_CHECKING

import msgspec

from doctor import __version__, client, sources, vantage
from doctor.host import ASK_STARTS
from doctor.inquiry import LAST_SECONDS, PING_SECONDS, Inquiry
from doctor.keeping import Keeper, shown, since
from doctor.lanes import Job, Lane, wait
from doctor.linux import cgroups
from doctor.linux.frames import Frame, frames
from doctor.places import Places, find
from doctor.programs import Programs
from doctor.reading import Reading
from doctor.snapshot import Meta, Record, Snapshot, tree_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from doctor.host import Host
    from doctor.redact import Redactor
    from doctor.snapshot import Status
    from doctor.sources import Source

ASK_SECONDS = 2.0
"""How long a nameserver has to answer; a resolver waits five (resolv.conf(5)), and a recursive one has this at hand."""


class Collector:
    """One run over one host."""

    def __init__(
        self,
        host: Host,
        places: Places,
        later: Callable[[], Iterable[Source]],
        until: float,
        environ: Mapping[str, str],
    ) -> None:
        """Prepare the lanes; nothing is read before `run`. `later` and `environ`: see `gather`."""
        self.host = host
        self.places = places
        self.until = until
        self.later = later
        self.kept = Keeper()
        self.files = Reading(host, places, self.kept, until)
        self.environ = environ
        self.wake = threading.Condition()
        self.programs = Programs(host, self.kept, until)
        self.began = time.monotonic()
        # What was there at the beginning is looked at once more: without that, nothing that changed could be told.
        self.reading = until - min(LAST_SECONDS / 2, (until - self.began) / 5)
        """When everything but the last look has to be done."""
        self.progress: Callable[[int, float], None] | None = None
        self.probe = False
        """Whether nameservers are asked: the only thing that is ever sent."""
        self.sample = 0.0
        """Seconds between two readings of counters; 0: they are read once."""
        self.lanes = {name: Lane(name, self._fault) for name in ("api", "files", "commands", "store", "survey")}
        certificates = client.certificates(environ)
        self.inquiry = Inquiry(self.lanes["api"], self.kept, self.files, self.programs, certificates)

    # The course of a run

    def run(self) -> None:
        """Fill `records`; returns when all is read or the deadline is near."""
        # First: without it nothing else in a bundle that was cut short could be read rightly.
        data = msgspec.json.encode(self.places)
        self.kept.put(Record("engine/places", "kernel", "the running daemon", data=data))
        table = sources.SOURCES
        api, files, commands = self.lanes["api"], self.lanes["files"], self.lanes["commands"]
        store, survey = self.lanes["store"], self.lanes["survey"]
        store.add("store/listed", "the first list", 1.0, self.inquiry.await_list)
        api.add("api/ping", "/_ping", PING_SECONDS, self.inquiry.ask)
        for source in table:
            if source.kind == "command":
                commands.add(source.name, source.target, source.seconds, self.programs.work(source))
        early = [one for one in table if one.kind in {"file", "tail", "list", "tree"} and one.area != "store"]
        for source in early:
            files.add(source.name, self.files.target(source), source.seconds, self.files.read(source))
        files.add(sources.KERNEL_LOG.name, sources.KERNEL_LOG.target, 1.0, self.files.kernel_log)
        if self.places.pid:
            files.add("engine/open-files", f"/proc/{self.places.pid}/fd", 1.0, self.files.open_files)
        files.add("engine/paths", "paths of the configuration", 1.0, self.files.paths)
        if self.places.tls:
            files.add("engine/certificates/", "certificates of dockerd", 1.0, self.files.certificates)
        survey.add("proc/processes", "/proc", self.reading - self.began, self._survey)
        for source in table:
            if source.kind == "tree" and source.area == "store":
                store.add(source.name, self.files.target(source), source.seconds + 1.5, self.files.read(source))
            elif (
                source.kind in {"file", "tail", "list"} and source.area == "store" and source is not sources.STORE_LAST
            ):
                files.add(source.name, self.files.target(source), source.seconds, self.files.read(source))
        store.add(
            sources.STORE_LAST.name, self.files.target(sources.STORE_LAST), 1.0, self.files.read(sources.STORE_LAST)
        )
        files.add("store/containers/names", self.places.data_root + "/containers", 3.0, self.files.container_files)
        files.add("store/space", self.places.data_root, 1.0, self.files.space)
        files.add("store/deleted-files", "/proc", 2.0, self.files.deleted_files)
        files.add("store/containerd", self.places.data_root + "/containerd", 2.0, self.files.containerd)
        files.add("store/other-roots", self.places.data_root, 1.0, self.files.other_roots)
        files.add("engine/client", "the docker command of who runs this", 1.0, self._client)
        files.add("store/logs", self.places.data_root + "/containers", 1.0, self.files.logs)
        for lane in (survey, api, files, commands, store):
            lane.start(self.wake)
        first = tuple(self.lanes)
        self._add(tuple(self.later()))
        self._wait((*first, "later"), self.reading - self.sample)
        self._asked_for()
        self._look_again()
        self._account()
        self._elsewhere()
        self.host.end()

    def _add(self, table: Sequence[Source]) -> None:
        """Read these, too, in a lane of their own: none of them can hold up what doctor itself reads."""
        lane = self.lanes["later"] = Lane("later", self._fault)
        for source in table:
            if source.kind == "command":
                lane.add(source.name, source.target, source.seconds, self.programs.work(source))
            elif source.kind == "api":
                lane.add(source.name, source.target, source.seconds + PING_SECONDS, self.inquiry.later(source))
            else:
                lane.add(source.name, self.files.target(source), source.seconds, self.files.read(source))
        lane.start(self.wake)

    def _look_again(self) -> None:
        """Look once more at what tells what came and went; dockerd makes its list while /proc is read."""
        last, listed = Lane("last", self._fault), Lane("listed", self._fault)
        self.lanes |= {"last": last, "listed": listed}
        last.add("run/netns-last", self.places.exec_root + "/netns", 0.5, self._sandboxes_last)
        last.add("proc/last", "/proc", LAST_SECONDS, self._processes_last)
        last.add("engine/mounts-last", "mountinfo", 0.5, self.files.mounts_last)
        if self.inquiry.answered:
            listed.add("api/containers-last", sources.LIST, LAST_SECONDS, self.inquiry.last_list)
        first = _in_order(self.kept.records)
        for lane in (listed, last):
            lane.start(self.wake)
        self.kept.finish_ahead(first)
        self._wait(("last", "listed"), self.until)

    def _asked_for(self) -> None:
        """Do what takes time of its own and is done only when asked for, one after the other."""
        for name, record, target, seconds, work, until in (
            (
                "asking",
                "probe/nameservers",
                "nameservers",
                self.probe * (ASK_SECONDS + ASK_STARTS),
                self._ask_nameservers,
                self.sample,
            ),
            ("sampling", "sample/seconds", cgroups.ROOT, self.sample, self._read_twice, 0.0),
        ):
            if seconds:
                self.lanes[name] = Lane(name, self._fault)
                self.lanes[name].add(record, target, seconds + 1.0, work)
                self.lanes[name].start(self.wake)
                self._wait((name,), self.reading - until)

    def _wait(self, names: tuple[str, ...], until: float) -> None:
        """Wait until these lanes are done; give up single jobs at their bound, everything at a time."""
        wait([self.lanes[name] for name in names], until, self.wake, self._given_up, self._look)

    def _given_up(self, job: Job, waited: float) -> None:
        why = f"did not end in {waited:.1f} s"
        self.kept.put(Record(job.name, "file", job.target, "timeout", why=why, ms=waited * 1000))

    def _look(self) -> None:
        if self.progress:
            self.progress(len(self.kept.records), time.monotonic() - self.began)

    def _account(self) -> None:
        """Say of everything that was begun and did not end, or was not begun, that it is missing and why."""
        now = time.monotonic()
        for lane in self.lanes.values():
            for job in lane.give_up(lambda _: True):
                ms = (now - job.begun) * 1000
                why = f"did not end in {ms / 1000:.1f} s, when the deadline came"
                self.kept.records.setdefault(job.name, Record(job.name, "file", job.target, "timeout", why=why, ms=ms))
            for job in list(lane.jobs):
                why = "the deadline came before its turn"
                self.kept.records.setdefault(job.name, Record(job.name, "file", job.target, "not-run", why=why))

    def _elsewhere(self) -> None:
        """Keep nothing of another host than the engine's: doctor may run in a container, and be let speak to dockerd."""
        found = vantage.look(self.host, self.places, self.kept.records)
        if found.elsewhere:
            self.kept.records = vantage.applied(found, self.kept.records)

    def _fault(self, job: Job, error: Exception) -> None:
        why = f"fault in doctor itself: {type(error).__name__}: {error}"
        self.kept.put(Record(job.name, "file", job.target, "failed", why=why))

    # Processes and namespaces

    def _survey(self) -> None:
        """Have a process of its own read who runs and what is in each network namespace, and keep what it hands over."""
        folder = self.places.exec_root + "/netns"
        seconds = max(0.1, self.reading - 0.1 - time.monotonic())
        done = self.host.survey(folder, seconds, self.inquiry.await_list)
        status: Status = "failed" if done.status == "ok" else done.status
        why = {
            "timeout": f"did not end in {seconds:.1f} s",
            "failed": f"the process that reads it ended: exit {done.returncode}",
        }.get(status, f"the process that reads it: {status}")
        for frame in frames(done.stdout):
            self._take(frame)
        for name, target in self._surveyed():
            if name not in self.kept.records:
                self.kept.put(Record(name, "tree", target, status, why=why, ms=done.seconds * 1000))
        for entry in tree_entries(self.kept.records["netns/index"]):
            name = f"netns/{'host' if entry.content == 'host' else entry.path}/links"
            if name not in self.kept.records:
                self.kept.put(Record(name, "netns", shown(entry.content), status, why=why, ms=done.seconds * 1000))

    def _surveyed(self) -> tuple[tuple[str, str], ...]:
        """Give the records that the survey brings on every host, and their targets."""
        return (
            ("run/netns", self.places.exec_root + "/netns"),
            ("proc/processes", "/proc"),
            ("netns/index", "/proc/*/ns/net"),
            ("cgroup/containers", cgroups.ROOT),
            ("proc/signals", "/proc"),
        )

    def _take(self, frame: Frame) -> None:
        if not frame.data and frame.status != "ok":
            about = (frame.name, frame.kind, shown(frame.target), frame.status)
            self.kept.put(Record(*about, why=frame.why, errno=frame.errno, ms=frame.ms))
            return
        how = "processes" if frame.name == "proc/processes" else "text" if frame.name.endswith("tables") else "none"
        self.kept.keep(
            frame.name, frame.kind, frame.target, frame.data, how, status=frame.status, why=frame.why, ms=frame.ms
        )

    def _processes_last(self) -> None:
        """Look once more at the processes that matter: a pid that is gone, or is another process now, is unsettled."""
        start = time.perf_counter()
        first = self.kept.records.get("proc/processes")
        lines = ""
        if first is not None:
            pids = {line.split("/", 1)[0] for line in first.text.split("\n") if "/cmdline\t" in line}
            lines = self.host.tree("/proc", sorted(pids, key=int), ("stat",), 8 << 20)[0]
        self.kept.keep("proc/last", "tree", "/proc", lines.encode("utf-8", "surrogateescape"), "none", ms=since(start))

    def _ask_nameservers(self) -> None:
        """Have a process of its own ask every nameserver from where it is asked, all at the same time."""
        from doctor.asking import questions

        wanted, more = questions(self.kept.records, self.places.argv)
        seconds = min(ASK_SECONDS, self.reading - self.sample - 0.3 - time.monotonic())
        if seconds < ASK_SECONDS / 2:
            why = f"{max(0.0, seconds):.1f} s of the deadline were left, too few to wait for answers"
            self.kept.missing("probe/nameservers", "netns", "nameservers", "not-run", why)
            return
        done = self.host.ask(wanted, seconds)
        status: Status = "failed" if done.status == "ok" and done.returncode else done.status
        why = "" if status == "ok" else f"the process that asks them: {status}"
        if status == "ok" and more:
            status, why = "truncated", f"{more} pairs of network and server were not asked"
        target = f"nameservers, {seconds:.1f} s"
        ms = done.seconds * 1000
        self.kept.keep("probe/nameservers", "netns", target, done.stdout, "text", status=status, why=why, ms=ms)

    def _read_twice(self) -> None:
        """Read the counters of control groups, and again after a while: what moves meanwhile is what happens now."""
        begun = time.monotonic()
        self._counters("first")
        time.sleep(max(0.0, begun + self.sample - time.monotonic()))
        took = time.monotonic() - begun
        self._counters("second")
        self.kept.keep("sample/seconds", "kernel", "between two readings", f"{took:.2f}\n".encode(), "none")

    def _client(self) -> None:
        """Read where the docker command of whoever runs this goes."""
        start = time.perf_counter()
        data = client.read(self.host, self.environ).encode("utf-8", "surrogateescape")
        self.kept.keep("engine/client", "tree", "the docker command of who runs this", data, "text", ms=since(start))

    def _counters(self, which: str) -> None:
        name, start = f"sample/{which}/cgroups", time.perf_counter()
        processes = self.kept.records.get("proc/processes")
        try:
            text = self.host.groups(processes.text if processes is not None else "")
        except OSError as error:
            self.kept.failed(name, "tree", cgroups.ROOT, error, since(start))
            return
        self.kept.keep(name, "tree", cgroups.ROOT, text.encode("utf-8", "surrogateescape"), "none", ms=since(start))

    def _sandboxes_last(self) -> None:
        """List the sandbox files once more: one that has gone was being removed."""
        folder = self.places.exec_root + "/netns"
        start = time.perf_counter()
        try:
            text = self.host.sandboxes(folder)
        except OSError as error:
            self.kept.failed("run/netns-last", "tree", folder, error, since(start))
            return
        data = text.encode("utf-8", "surrogateescape")
        self.kept.keep("run/netns-last", "tree", folder, data, "none", ms=since(start))


def collect(
    host: Host,
    *,
    deadline: float = 10.0,
    later: Callable[[], Iterable[Source]] = tuple,
    places: Places | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[int, float], None] | None = None,
    probe: bool = False,
    sample: float = 0.0,
) -> Snapshot:
    """Read all evidence of a host within `deadline` seconds. Changes nothing; raises nothing for what it finds.

    With `probe` the nameservers of the host and of its containers are asked one question each; else nothing is sent.
    With `sample` counters are read twice, so many seconds apart; those are not of the deadline's.
    """
    return gather(
        host,
        deadline=deadline,
        later=later,
        places=places,
        environ=environ,
        progress=progress,
        probe=probe,
        sample=sample,
    )[0]


def gather(
    host: Host,
    *,
    deadline: float = 10.0,
    later: Callable[[], Iterable[Source]] = tuple,
    places: Places | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[int, float], None] | None = None,
    probe: bool = False,
    sample: float = 0.0,
) -> tuple[Snapshot, Redactor]:
    """Do as `collect`, and give who scrubbed the evidence too: it knows what must not stand in anything written of it.

    `later` is called on this thread while the first readings go on; what it gives is read as well. Importing the checks
    there costs a run nothing but what the cores have left. `environ` is what `client.here` gives, of whoever asks; without
    it nobody's docker command is looked at.
    """
    began = time.monotonic()
    wall = time.time()
    environ = environ or {}
    found = places or find(host, environ)
    run = Collector(host, found, later, began + deadline + sample, environ)
    run.sample = sample
    run.progress = progress
    run.probe = probe
    # Lanes make many short system calls, each of which gives the interpreter away: a thread that parses meanwhile would
    # keep it for 5 ms each time (measured: a fifth of the whole run).
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        run.run()
    finally:
        sys.setswitchinterval(interval)
    if progress:
        progress(len(run.kept.records), -1.0)
    return _snapshot(run, wall, time.monotonic() - began), run.kept.redactor


def _snapshot(run: Collector, wall: float, seconds: float) -> Snapshot:
    uname = os.uname()
    local = time.localtime(wall)
    uid = os.geteuid()
    records = run.kept.finished(_in_order(run.kept.records))
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
    return Snapshot(meta, records, dict(run.kept.redactor.removed))


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
