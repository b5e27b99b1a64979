"""What the daemon is asked: whether it is there, which containers it has (first, and again last), and each one's inspect."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from doctor import sources
from doctor.docker_api import ApiError, DockerApi
from doctor.keeping import since
from doctor.lanes import current
from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.keeping import Keeper
    from doctor.lanes import Lane
    from doctor.programs import Programs
    from doctor.reading import Reading
    from doctor.sources import Source

PING_SECONDS = 2.0
BRACKET_SECONDS = 0.25
"""How long reading waits for the first list of containers: a daemon that hangs creates none meanwhile."""
BUSY_SECONDS = 3.0
"""How long a daemon is waited for that did not answer the first ping, and worked meanwhile."""
BUSY_TICKS = 10
"""Ticks of processor time (100 a second) during a ping from which on a daemon works: an idle or hung one uses 0 or 1."""
LAST_SECONDS = 1.0
LATE = (0.4, 0.8)
"""Seconds by which dockerd may learn late that a process has ended: what it says is asked for once more after each."""


class Inquiry:
    """All requests to one daemon: jobs of one lane. A daemon that does not answer the first is asked no more."""

    def __init__(self, lane: Lane, kept: Keeper, files: Reading, programs: Programs, certificates: str) -> None:
        """Ask nothing yet; `certificates` is the directory of the client's, where the daemon wants TLS."""
        self.lane = lane
        self.kept = kept
        self.files = files
        self.places = files.places
        self.host = files.host
        self.programs = programs
        self.until = files.until
        self.api = DockerApi(self.places.address, PING_SECONDS, certificates)
        self.listed = threading.Event()
        """Set when the first list of containers is there, or will not come."""

    def await_list(self) -> None:
        """Wait a moment for the first list of containers: what is read before it, and made meanwhile, would be in neither."""
        self.listed.wait(BRACKET_SECONDS)

    @property
    def answered(self) -> bool:
        """Whether it answered, and everything was asked."""
        ping = self.kept.records.get("api/ping")
        return ping is not None and ping.status == "ok" and self.lane.done

    def ask(self) -> None:
        """Ask whether the daemon is there, and then everything else; a daemon that did not answer is asked no more."""
        api = self.lane
        if not self._is_there():
            self.listed.set()
            asked = (*sources.API, *sources.API_LATE)
            ping = self.kept.records["api/ping"]
            for name, target in (("api/containers", sources.LIST), *((one.name, one.target) for one in asked)):
                self.kept.put(Record(name, "api", target, ping.status, why=ping.why, errno=ping.errno))
            api.add("store/containers/", self.places.data_root + "/containers", 3.0, self.files.container_states)
            api.add("store/bind-sources", "what containers bind", 1.0, self.files.bind_sources)
            if self.places.binary:
                api.add("engine/version", sources.VERSION.target, 2.0, self.programs.work(sources.VERSION))
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

    def later(self, source: Source) -> Callable[[], None]:
        """Give the work that asks for a source of a plugin's, once the daemon has answered a ping."""

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
            self.programs.run(sources.VERSION)

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

    def last_list(self) -> None:
        """Ask for the list of containers again: what differs came or went meanwhile.

        Of a process that has just ended dockerd hears by containerd, and on a busy host that takes a while: a container that
        runs for dockerd, and whose process was not seen, may be such a one.
        """
        self._get("api/containers-last", sources.LIST, LAST_SECONDS, "inspect")
        for pause in LATE:
            if time.monotonic() + pause + LAST_SECONDS > self.until or not self._bereft():
                return
            job = current()
            if job is not None:
                job.begun = time.monotonic() + pause
            time.sleep(pause)
            if job is not None and job.abandoned:
                return
            self._get("api/containers-last", sources.LIST, LAST_SECONDS, "inspect")

    def _bereft(self) -> bool:
        """Whether a container runs for dockerd whose process was not there when processes were read."""
        listed, processes = (self.kept.records.get(name) for name in ("api/containers-last", "proc/processes"))
        if not self.places.pid or listed is None or processes is None or not processes.readable:
            return False
        pids = set(_LIVES.findall(processes.text))
        for identity in _ids(listed.data, "running"):
            record = self.kept.records.get(f"api/inspect/{identity}")
            try:
                state = msgspec.json.decode(record.data, type=_Inspected).State if record is not None else _State()
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            if state.Running and str(state.Pid) not in pids:
                return True
        return False


_LIVES = re.compile(r"^(\d+)/stat\tf\t[\d.]+\t[^\n]*\) [^ZX] ", re.MULTILINE)
"""A process in the scan of /proc that is neither a zombie nor dead (proc_pid_stat(5))."""


class _Listed(msgspec.Struct):
    Id: str = ""
    State: str = ""


class _State(msgspec.Struct):
    Running: bool = False
    Pid: int = 0


class _Inspected(msgspec.Struct):
    State: _State = msgspec.field(default_factory=_State)


def _ids(data: bytes, state: str = "") -> list[str]:
    """Give the ids in a list of containers: of all, or of those in a state."""
    try:
        held = msgspec.json.decode(data, type=list[_Listed])
        return [one.Id for one in held if one.Id.isalnum() and state in {"", one.State}]
    except msgspec.MsgspecError:
        return []
