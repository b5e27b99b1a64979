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

from doctor import __version__, client, sources
from doctor.docker_api import ApiError, DockerApi
from doctor.keeping import Keeper, shown, since
from doctor.lanes import Job, Lane, current, wait
from doctor.linux import cgroups
from doctor.linux.frames import Frame, frames
from doctor.places import Places, find
from doctor.reading import Reading
from doctor.snapshot import Meta, Record, Snapshot, tree_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from doctor.host import Host
    from doctor.redact import Redactor
    from doctor.snapshot import Status
    from doctor.sources import Source

PING_SECONDS = 2.0
BRACKET_SECONDS = 0.25
"""How long reading waits for the first list of containers: a daemon that hangs creates none meanwhile."""
BUSY_SECONDS = 3.0
"""How long a daemon is waited for that did not answer the first ping, and worked meanwhile."""
BUSY_TICKS = 10
"""Ticks of processor time (100 a second) during a ping from which on a daemon works: an idle or hung one uses 0 or 1."""
LAST_SECONDS = 1.0
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
        self.listed = threading.Event()
        self.api = DockerApi(places.address, PING_SECONDS, client.certificates(environ))
        self.stuck: set[str] = set()
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

    # The course of a run

    def run(self) -> None:
        """Fill `records`; returns when all is read or the deadline is near."""
        table = sources.SOURCES
        api, files, commands = self.lanes["api"], self.lanes["files"], self.lanes["commands"]
        store, survey = self.lanes["store"], self.lanes["survey"]
        store.add("store/listed", "the first list", 1.0, self._await_list)
        api.add("api/ping", "/_ping", PING_SECONDS, self._ask)
        for source in table:
            if source.kind == "command":
                commands.add(source.name, source.target, source.seconds, self._command(source))
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
        self.host.end()

    def _add(self, table: Sequence[Source]) -> None:
        """Read these, too, in a lane of their own: none of them can hold up what doctor itself reads."""
        lane = self.lanes["later"] = Lane("later", self._fault)
        for source in table:
            if source.kind == "command":
                lane.add(source.name, source.target, source.seconds, self._command(source))
            elif source.kind == "api":
                lane.add(source.name, source.target, source.seconds + PING_SECONDS, self._api_later(source))
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
        if self._answers():
            listed.add("api/containers-last", sources.LIST, LAST_SECONDS, self._last_list)
        for lane in (listed, last):
            lane.start(self.wake)
        self._wait(("last", "listed"), self.until)

    def _asked_for(self) -> None:
        """Do what takes time of its own and is done only when asked for, one after the other."""
        for name, record, target, seconds, work, until in (
            (
                "asking",
                "probe/nameservers",
                "nameservers",
                self.probe * ASK_SECONDS,
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

    def _fault(self, job: Job, error: Exception) -> None:
        why = f"fault in doctor itself: {type(error).__name__}: {error}"
        self.kept.put(Record(job.name, "file", job.target, "failed", why=why))

    # Processes and namespaces

    def _survey(self) -> None:
        """Have a process of its own read who runs and what is in each network namespace, and keep what it hands over."""
        folder = self.places.exec_root + "/netns"
        seconds = max(0.1, self.reading - 0.1 - time.monotonic())
        done = self.host.survey(folder, seconds, self._await_list)
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
            if name not in self.kept.records:
                self.kept.put(Record(name, "tree", target, status, why=why, ms=done.seconds * 1000))
        for entry in tree_entries(self.kept.records["netns/index"]):
            name = f"netns/{'host' if entry.content == 'host' else entry.path}/links"
            if name not in self.kept.records:
                self.kept.put(Record(name, "netns", shown(entry.content), status, why=why, ms=done.seconds * 1000))

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

    def _await_list(self) -> None:
        """Read nothing before the first list of containers: what is made meanwhile would be in neither list."""
        self.listed.wait(BRACKET_SECONDS)

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

    # Commands

    def _command(self, source: Source) -> Callable[[], None]:
        return lambda: self._run_command(source)

    def _run_command(self, source: Source) -> None:
        argv = tuple(source.target.split(" "))
        absent = [module for module in source.touches if not self.host.has_module(module)]
        if absent:
            why = f"would load kernel module {absent[0]}, which is not there: so no rules are in it"
            self.kept.put(Record(source.name, "command", source.target, "not-run", why=why))
            return
        if argv[0] in self.stuck:
            why = f"{argv[0]} did not end before"
            self.kept.put(Record(source.name, "command", source.target, "not-run", why=why))
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
            self.kept.put(Record(source.name, "command", source.target, status, why=why, ms=ms))
            return
        self.kept.keep(source.name, "command", source.target, done.stdout, source.scrub, status=status, why=why, ms=ms)

    # The daemon

    def _answers(self) -> bool:
        ping = self.kept.records.get("api/ping")
        return ping is not None and ping.status == "ok" and self.lanes["api"].done

    def _ask(self) -> None:
        """Ask whether the daemon is there, and then everything else; a daemon that did not answer is asked no more."""
        api = self.lanes["api"]
        if not self._is_there():
            self.listed.set()
            asked = (*sources.API, *sources.API_LATE)
            ping = self.kept.records["api/ping"]
            for name, target in (("api/containers", sources.LIST), *((one.name, one.target) for one in asked)):
                self.kept.put(Record(name, "api", target, ping.status, why=ping.why, errno=ping.errno))
            api.add("store/containers/", self.places.data_root + "/containers", 3.0, self.files.container_states)
            api.add("store/bind-sources", "what containers bind", 1.0, self.files.bind_sources)
            if self.places.binary:
                api.add("engine/version", sources.VERSION.target, 2.0, self._command(sources.VERSION))
            return
        self._get("api/containers", sources.LIST, 2.0, "inspect")
        self.listed.set()
        for source in sources.API:
            api.add(source.name, source.target, source.seconds, self._api(source))
        if self.places.binary:
            api.add("engine/version", sources.VERSION.target, 2.0, self._version_else)
        api.add("api/inspect/", "/containers/ID/json", 5.0, self._inspect)
        api.add("store/containers/", self.places.data_root + "/containers", 3.0, self.files.container_states)
        for source in sources.API_LATE:
            api.add(source.name, source.target, source.seconds, self._api(source))
        api.add("store/bind-sources", "what containers bind", 1.0, self.files.bind_sources)

    def _is_there(self) -> bool:
        """Ping the daemon. One that worked all the while is starved, not hung, and is asked once more, with patience."""
        before = self._worked()
        if self._get("api/ping", "/_ping", PING_SECONDS):
            return True
        if self.kept.records["api/ping"].status != "timeout" or self._worked() - before < BUSY_TICKS:
            return False
        job = current()
        if job is not None:
            job.begun, job.seconds = time.monotonic(), BUSY_SECONDS
        return self._get("api/ping", "/_ping", BUSY_SECONDS)

    def _worked(self) -> int:
        """Give the processor time of dockerd so far, in ticks (proc_pid_stat(5)); 0 when it cannot be read."""
        try:
            stat = self.host.read(f"/proc/{self.places.pid}/stat", 4096)[0]
            user, system = stat[stat.rindex(b")") :].split()[12:14]
            return int(user) + int(system)
        except (OSError, ValueError):
            return 0

    def _api(self, source: Source) -> Callable[[], None]:
        def ask() -> None:
            self._get(source.name, source.target, source.seconds, source.scrub)

        return ask

    def _api_later(self, source: Source) -> Callable[[], None]:
        def ask() -> None:
            self.listed.wait(PING_SECONDS)
            ping = self.kept.records.get("api/ping")
            if ping is not None and ping.status == "ok":
                self._get(source.name, source.target, source.seconds, source.scrub)
            else:
                status, why = (ping.status, ping.why) if ping else ("not-run", "the daemon has not answered yet")
                self.kept.put(Record(source.name, "api", source.target, status, why=why))

        return ask

    def _version_else(self) -> None:
        """Ask the program for its version where the daemon answers, and does not tell it."""
        told = self.kept.records.get("api/version")
        if told is None or told.status != "ok":
            self._run_command(sources.VERSION)

    def _get(self, name: str, path: str, seconds: float, scrub: str = "text") -> bool:
        start = time.perf_counter()
        seconds = max(0.05, min(seconds, self.until - time.monotonic()))
        try:
            status, body = self.api.get(path, seconds)
        except ApiError as error:
            why = self._whose() if error.status == "denied" and self.api.where.startswith("/") else error.why
            self.kept.put(Record(name, "api", path, error.status, why=why, errno=error.errno, ms=since(start)))
            return False
        ms = since(start)
        if status != 200:  # noqa: PLR2004 - HTTP
            self.kept.keep(name, "api", path, body, "text", status="failed", why=f"HTTP {status}", ms=ms)
            return False
        self.kept.keep(name, "api", path, body, scrub, ms=ms)
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
        listed = self.kept.records.get("api/containers")
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
            ping = self.kept.records.get(f"api/inspect/{container}")
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
    # First: without it nothing else in a bundle that was cut short could be read rightly.
    places = Record("engine/places", "kernel", "the running daemon", data=msgspec.json.encode(run.places))
    run.kept.records[places.name] = places
    records = {record.name: record for record in run.kept.redactor.finish(_in_order(run.kept.records), run.kept.ids)}
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
