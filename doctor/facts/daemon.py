"""The daemon: does it run, does it answer, which version is it, who starts it, and what were its last words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.facts import UNDECODABLE
from doctor.facts.clock import Clock, epoch
from doctor.facts.containers import ON_ITS_WAY
from doctor.facts.processes import Process, Processes
from doctor.model import Citation, Moment, Since
from doctor.places import Places, in_run
from doctor.registry import fact
from doctor.snapshot import EvidenceMissing, Snapshot, need

if TYPE_CHECKING:
    from collections.abc import Iterator


_RELEASE = re.compile(r"(\d+)\.(\d+)")

RELEASES = {
    "1.40": "19.03",
    "1.41": "20.10",
    "1.42": "23.0",
    "1.43": "24.0",
    "1.44": "25.0",
    "1.45": "26.1",
    "1.46": "27.1",
    "1.47": "27.5",
    "1.48": "28.0.4",
    "1.49": "28.1",
    "1.50": "28.2",
    "1.51": "28.5",
    "1.52": "29.0",
}
"""The newest version of the API that an engine speaks, and the last release that has it (matrix of the API's manual)."""


class Daemon(Struct, frozen=True):
    """dockerd. `pid` 0: it does not run.

    `answer` is what the API said to `_ping`: `ok`, `timeout`, `absent` (no socket), `denied`, `failed` (refused, or an
    HTTP error); `why` is that in words. `unanswered` are the requests behind it that waited in vain. `supervisor` is who
    starts it: `systemd`, `init script`, `hand` (a person, or something we do not know), or empty when there is neither a
    process nor a way to start one. `threads` are the states of
    its threads. `api` is the newest version of the API that it speaks.
    """

    pid: int
    argv: tuple[str, ...]
    state: str
    threads: str
    waits: tuple[str, ...]
    started: float
    line: int
    answer: str
    why: str
    version: str
    address: str
    supervisor: str
    containerd: int
    unanswered: tuple[Citation, ...] = ()
    api: str = ""

    @property
    def release(self) -> str:
        """The release whose engine it is: its version, where that is one, else what its API says (`28.5`); empty: unknown.

        An engine that somebody built calls itself `dev`, `library-import` or `28.x-custom`.
        """
        return self.version if _RELEASE.match(self.version) else RELEASES.get(self.api, "")

    @property
    def generation(self) -> tuple[int, int]:
        """Major and minor version; (0, 0) when unknown."""
        match = _RELEASE.match(self.release)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def cite(self, excerpt: str, file: str) -> Citation:
        """Cite what the process table has of it, as a file of /proc/PID."""
        return Citation("proc/processes", self.line, excerpt, f"/proc/{self.pid}/{file}")

    @property
    def socket(self) -> str:
        """The path of the socket that it listens on, or its address where that is none (`tcp://...`)."""
        return in_run(self.address.removeprefix("unix://"))

    @property
    def rootless(self) -> bool:
        """Whether it runs without root: files, ports and proxies are its user's."""
        return "--rootless" in self.argv or self.address.startswith("unix:///run/user/")

    @property
    def answers(self) -> bool:
        """Whether the API answered."""
        return self.answer == "ok"


@fact
def places(snapshot: Snapshot) -> Places:
    """Read where the collector found the daemon."""
    record = need(snapshot, "engine/places", "daemon")
    try:
        return msgspec.json.decode(record.data, type=Places)
    except UNDECODABLE as error:
        raise EvidenceMissing("daemon", f"engine/places: {error}") from error


class _Version(Struct):
    Version: str = ""
    ApiVersion: str = ""


@fact
def daemon(snapshot: Snapshot, places: Places, processes: Processes) -> Daemon:
    """Join the process table, the answer to `_ping` and what starts the daemon here."""
    process = processes.by_pid.get(places.pid)
    if process is None:
        running = processes.named("dockerd")
        process = running[0] if running and places.pid else None
    ping = snapshot.get("api/ping")
    told = _told(snapshot)
    engines = processes.named("containerd")
    children = [one.pid for one in engines if process and one.parent == process.pid] or [one.pid for one in engines]
    return Daemon(
        pid=process.pid if process else 0,
        argv=(process.argv or places.argv) if process else (),
        state=process.state if process else "",
        threads=process.threads if process else "",
        waits=process.waits if process else (),
        started=process.started if process else 0.0,
        line=process.line if process else 0,
        answer=ping.status,
        why=ping.why,
        version=_version(snapshot, told),
        address=places.address,
        supervisor=_supervisor(snapshot, process),
        containerd=children[0] if children else 0,
        unanswered=tuple(_unanswered(snapshot)) if ping.status == "ok" else (),
        api=told.ApiVersion,
    )


_ASKED = ("api/containers", "api/version", "api/info", "api/networks")
"""What dockerd answers from memory, and containerd at once: images and volumes may take their time on a slow disk."""

_IN_VAIN = 1500.0
"""Milliseconds from which on a request has waited in vain: towards the deadline some are given less."""


class _Listed(Struct):
    Id: str = ""
    State: str = ""
    Created: int = 0


_YOUNG = 5.0
"""Seconds after its creation in which a container may still be about to be started, on a busy host."""


def _unanswered(snapshot: Snapshot) -> Iterator[Citation]:
    for name in (*_ASKED, *(one.name for one in snapshot.under("api/inspect/"))):
        record = snapshot.get(name)
        if record.status != "timeout" or record.ms < _IN_VAIN:
            continue
        if name.startswith("api/inspect/") and _changing(snapshot, name.removeprefix("api/inspect/")):
            continue
        # A path with an id in it is wider than a page, and twelve characters of an id are what docker prints.
        path = re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1", record.target)
        yield Citation(name, 0, record.why.removeprefix(f"GET {record.target} "), f"GET {path}")


def _changing(snapshot: Snapshot, identity: str) -> bool:
    """Whether a container was being started or removed: its lock is held meanwhile, and who inspects it waits.

    On a busy host that takes seconds (20.10, four containers made at a time); it is no hang.
    """
    last = _listed(snapshot, "api/containers-last")
    if last is None:
        return False
    after = last.get(identity)
    before = (_listed(snapshot, "api/containers") or {}).get(identity)
    if after is None or (before is not None and before.State != after.State) or after.State in ON_ITS_WAY:
        return True
    return snapshot.meta.collected_at - after.Created < _YOUNG


def _listed(snapshot: Snapshot, name: str) -> dict[str, _Listed] | None:
    """Read a list of containers; None where it was not had."""
    record = snapshot.get(name)
    if record.status != "ok":
        return None
    try:
        return {one.Id: one for one in msgspec.json.decode(record.data, type=list[_Listed])}
    except UNDECODABLE:
        return None


def _told(snapshot: Snapshot) -> _Version:
    try:
        return msgspec.json.decode(snapshot.get("api/version").data, type=_Version)
    except UNDECODABLE:
        return _Version()


def _version(snapshot: Snapshot, told: _Version) -> str:
    """Read the version from the API, else from `dockerd --version`; empty when neither can be had."""
    named = told.Version
    if not named:
        match = re.search(r"version ([^\s,]+),", snapshot.get("engine/version").text)
        named = match[1] if match else ""
    return named.partition("+")[0]


def _supervisor(snapshot: Snapshot, process: Process | None) -> str:
    if process is not None and "docker.service" in process.cgroup:
        return "systemd"
    if snapshot.get("host/init").text.strip() == "systemd":
        return "systemd"
    script = snapshot.get("engine/init-script").readable
    if process is None:
        return "init script" if script else ""
    return "init script" if script and snapshot.get("engine/init-pid").text.strip() == str(process.pid) else "hand"


_FATAL = (
    "unable to configure the Docker daemon",
    "failed to start daemon",
    "failed to load listener",
    "unable to parse logging level",  # 20.10
    "invalid TLS configuration",
    "failed to create API server",  # 20.10
    "Status: unknown flag",
    "Status: unknown shorthand flag",
    "Status: invalid argument",
    "Unable to get the full path to root",
    "Error during uid lookup",
    "Error during gid lookup",
    "Error during groupname lookup",
    "failed to start cluster component",
    'Error during "',
    "chmod /",
    "panic: runtime error",
    "fatal error: ",
)
"""The beginnings of what dockerd writes last when it does not start; not all of it has a level."""


class LogLine(Struct, frozen=True):
    """A line of the daemon's log: when (seconds since the epoch, 0 when it does not say), level, text, citation."""

    at: float
    level: str
    text: str
    cited: Citation


class DaemonLog(Struct, frozen=True):
    """The daemon's last words, oldest first."""

    lines: tuple[LogLine, ...]

    def first(self, words: str, after: float = 0.0) -> LogLine | None:
        """Give the first line after a time that contains the words."""
        return next((line for line in self.lines if line.at >= after and words in line.text), None)

    @property
    def failed(self) -> Since | None:
        """When the last start failed; None when it did not, or does not say when."""
        fatal = self.fatal
        return Since(latest=Moment(fatal.at, "its last start failed", fatal.cited)) if fatal and fatal.at else None

    @property
    def fatal(self) -> LogLine | None:
        """The last reason that a start gave for failing, unless a later start succeeded."""
        found = None
        for line in self.lines:
            if "Daemon has completed initialization" in line.text or "API listen on" in line.text:
                found = None
            elif any(words in line.text for words in _FATAL) or line.level in {"fatal", "panic"}:
                found = line
        return found


_TEXT = re.compile(r'time="([^"]+)" level=(\w+) msg="((?:[^"\\]|\\.)*)"(.*)')
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


class _JsonLine(Struct):
    """A line of a dockerd with log-format json."""

    level: str
    msg: str
    time: str = ""


def _json_line(raw: str) -> _JsonLine | None:
    try:
        return msgspec.json.decode(raw, type=_JsonLine)
    except UNDECODABLE:
        return None


@fact
def daemon_log(snapshot: Snapshot) -> DaemonLog:
    """Read the journal where there is one, else the log file; a line that is no log line keeps its text."""
    # journalctl is there on hosts without a journal too, and says `-- No entries --`.
    entries = any(line and not line.startswith("-- ") for line in snapshot.get("engine/journal").text.split("\n"))
    name = "engine/journal" if entries else "engine/log"
    record = snapshot.get(name)
    if not record.readable:
        return DaemonLog(())
    lines = []
    at = 0.0
    for number, raw in enumerate(record.text.split("\n"), 1):
        if not raw.strip():
            continue
        match = _TEXT.search(raw)
        said = _json_line(raw) if match is None and raw.lstrip().startswith("{") else None
        if said is not None:
            at = epoch(said.time) or at
            text, level = said.msg, said.level
        elif match:
            at = epoch(match[1]) or at
            text = match[3].replace('\\"', '"') + match[4]
            level = match[2]
        else:
            stamp = _ISO.match(raw)
            at = (epoch(raw.partition(" ")[0]) if stamp else 0.0) or at
            text, level = raw.strip(), ""
        place = f"{record.target}:{number}" if name == "engine/log" else f"journal of docker.service:{number}"
        lines.append(LogLine(at, level, text, Citation(name, number, text, place)))
    return DaemonLog(tuple(lines))


_YOUNG = 10.0
"""Seconds within which a dockerd that has not said that it serves may still be on its way to that."""

_AT_ONCE = 100.0
"""Milliseconds within which a dockerd answers that serves already; one that does not lets whoever asks wait."""


class Starting(Struct, frozen=True):
    """Whether dockerd was still starting while evidence was taken: its socket and rules come last. `why` says so in words."""

    why: str = ""


@fact
def starting(snapshot: Snapshot, daemon: Daemon, log: DaemonLog, processes: Processes, clock: Clock) -> Starting:
    """Compare its start with its own word that it serves; where nothing of its log is known, it had a moment."""
    if not daemon.pid or not daemon.started:
        return Starting()
    if daemon.pid in processes.restarted:
        return Starting("dockerd ended, or was started anew, while evidence was taken")
    age = clock.collected_at - daemon.started
    own = [line for line in log.lines if line.at >= daemon.started - 1]
    asked = [line for line in own if "Processing signal" in line.text]
    if asked and 0 <= clock.collected_at - asked[-1].at < _YOUNG and own.index(asked[-1]) > _last_served(own):
        return Starting("dockerd was told to end a moment ago, and has not ended yet")
    # It serves its API last (moby cmd/dockerd/daemon.go): an answer at once was there before anything was read. At a log
    # level above info it does not say so.
    at_once = daemon.answers and snapshot.get("api/ping").ms < _AT_ONCE
    silent = not any(line.level in {"info", "debug"} for line in own)
    if at_once or age > _YOUNG or _last_served(own) >= 0 or (silent and age > _YOUNG / 5):
        return Starting()
    return Starting(f"dockerd started {max(age, 0):.0f} s ago, and has not said that it serves")


def _last_served(lines: list[LogLine]) -> int:
    """Give the place of the last line by which dockerd says that it serves; -1 where there is none."""
    return max((at for at, line in enumerate(lines) if "API listen on" in line.text), default=-1)
