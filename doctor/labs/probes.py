"""What really happens: a connection that is tried, a command that is run, a file, a process, a line in the log.

`doctor check` predicts; a probe measures, and knows nothing of checks. All flows of one source are tried side by side by one
process in its network namespace, without blocking; one that nothing came back for is tried once more.
"""

from __future__ import annotations

import errno
import json
import re
import select
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from doctor.labs.ground import Ground, GroundError, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from doctor.labs.scenario import Probe

OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"
"""The network outside and the host's own address there (RFC 5737), in labs as on the engines of the tests."""
OUTSIDE_PORT = 9000
"""Where somebody answers outside."""
SECONDS = 0.3
TRIES = 2
HANGS = 3.0
"""After how many seconds a command is said to hang."""
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_CLOSED = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETDOWN}


class Flow(NamedTuple):
    """One connection: to an address and port, by `tcp` or `udp`."""

    address: str
    port: int
    protocol: str = "tcp"


class _Try:
    """One connection on its way: connecting, then waiting for a first byte of the answer."""

    def __init__(self, flow: Flow) -> None:
        self.flow, self.fate = flow, ""
        family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
        kind = socket.SOCK_STREAM if flow.protocol == "tcp" else socket.SOCK_DGRAM
        self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self.asked = False
        code = self.socket.connect_ex((flow.address, flow.port))
        if code not in {0, errno.EINPROGRESS}:
            self._ends(code)

    def events(self) -> int:
        return select.POLLIN if self.asked else select.POLLOUT

    def go_on(self) -> None:
        """Do what the socket is ready for. A connection alone says little: docker-proxy accepts for whom nobody listens."""
        try:
            if not self.asked:
                code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._ends(code)
                    return
                self.socket.send(_REQUEST)
                self.asked = True
                return
            self.fate = "open" if self.socket.recv(1) else "refused"
        except BlockingIOError:
            return
        except OSError as error:
            self._ends(error.errno or 0)

    def _ends(self, code: int) -> None:
        self.fate = "refused" if code in _CLOSED else "unreachable" if code in _NO_WAY else "filtered"


def meet(flows: Sequence[Flow], seconds: float = SECONDS, tries: int = TRIES) -> list[str]:
    """Try connections from where this process is; give the fate of each."""
    fates = dict.fromkeys(flows, "filtered")
    for _ in range(tries):
        for flow, fate in _meet([one for one in fates if fates[one] == "filtered"], seconds).items():
            fates[flow] = fate
    return [fates[flow] for flow in flows]


def _meet(flows: Iterable[Flow], seconds: float) -> dict[Flow, str]:
    tried = [_Try(flow) for flow in flows]
    poller = select.poll()
    pending = {one.socket.fileno(): one for one in tried if not one.fate}
    for number, one in pending.items():
        poller.register(number, one.events())
    end = time.monotonic() + seconds
    while pending and (left := end - time.monotonic()) > 0:
        for number, _ in poller.poll(left * 1000):
            one = pending[number]
            one.go_on()
            if one.fate:
                poller.unregister(number)
                del pending[number]
            else:
                poller.modify(number, one.events())
    for one in tried:
        one.socket.close()
    return {one.flow: one.fate or "filtered" for one in tried}


def measure(
    probes: Sequence[Probe], ground: Ground, names: Names, log: str = "/var/log/docker.log", patience: float = 1.0
) -> list[str]:
    """Give what each probe measures now, as one of its kind's words; times are multiplied by `patience`. GroundError."""
    found: dict[int, str] = {}
    by_source: dict[str, list[int]] = {}
    for number, probe in enumerate(probes):
        if probe.target:
            by_source.setdefault(probe.source, []).append(number)
    jobs: dict[str, Callable[[], bytes]] = {}
    longest = SECONDS
    for source, numbers in by_source.items():
        flows = [_flow(probes[number].target, names) for number in numbers]
        seconds = patience * max([SECONDS, *(probes[number].seconds for number in numbers)])
        longest = max(longest, seconds)
        jobs[source] = partial(_said, flows, seconds)
    for source, said in (ground.within(jobs, TRIES * longest + 5) if jobs else {}).items():
        found |= dict(zip(by_source[source], json.loads(said), strict=True))
    for number, probe in enumerate(probes):
        if not probe.target:
            found[number] = _other(probe, ground, names, log, patience)
    return [found[number] for number in range(len(probes))]


def _said(flows: Sequence[Flow], seconds: float) -> bytes:
    return json.dumps(meet(flows, seconds)).encode()


def _flow(target: str, names: Names) -> Flow:
    target = names.fill(target)
    place, _, port = target.rpartition(":")
    number, _, protocol = port.partition("/")
    name, _, network = place.partition("@")
    if name == "host":
        place = HOST
    elif name == "outside":
        place = OUTSIDE
    elif not re.fullmatch(r"[\d.]+|\[[0-9a-f:]+\]", place):
        place = names.address(name, network)
        if not place:
            raise GroundError(f"{name} has no address")
    return Flow(place.strip("[]"), int(number), protocol or "tcp")


def _other(probe: Probe, ground: Ground, names: Names, log: str, patience: float) -> str:
    match probe.kind:
        case "run":
            return _command(probe, ground, names, patience)
        case "file":
            done = ground.run(("sh", "-c", f"ls -d {names.fill(probe.file)}"))
            return "gone" if done.code else "there"
        case "process":
            return _process(names.fill(probe.process), ground)
        case _:
            return _logged(probe, ground, log, patience)


def _command(probe: Probe, ground: Ground, names: Names, patience: float) -> str:
    seconds = patience * (probe.seconds or HANGS)
    done = ground.run(("sh", "-c", names.fill(probe.run)), seconds=seconds)
    if done.code == 124:  # noqa: PLR2004 - as timeout(1) says it
        return "hangs"
    if probe.says:
        return "works" if re.search(names.fill(probe.says), done.out + done.err) else "fails"
    return "fails" if done.code else "works"


def _process(pattern: str, ground: Ground) -> str:
    """Look for the first process whose command line matches; a zombie has none, so its name is looked at too."""
    script = (
        'for p in $(pgrep -f -- "$1"; pgrep -x -- "$1"); do s=$(sed "s/.*) \\(.\\).*/\\1/" /proc/$p/stat 2>/dev/null)'
        ' && [ "$p" != $$ ] && { echo "$s"; exit; }; done'
    )
    state = ground.run(("sh", "-c", script, "sh", pattern)).out.strip()
    return {"": "gone", "T": "stopped", "t": "stopped", "Z": "zombie"}.get(state, "runs")


def _logged(probe: Probe, ground: Ground, log: str, patience: float) -> str:
    """Make a request of the daemon, one that it answers and one that it refuses, and look at what it writes meanwhile."""
    before = ground.read(log) or ""
    for path in ("/_ping", "/containers/no-such-container/json"):
        try:
            ground.ask(path)
        except GroundError:
            continue
    end = time.monotonic() + patience * (probe.seconds or 0.3)
    while True:
        after = (ground.read(log) or "")[len(before) :]
        if re.search(probe.log, after):
            return "written"
        if time.monotonic() > end:
            return "silent"
        time.sleep(0.02)
