"""Faults of the daemon's configuration, of processes and of namespaces; and whatever else, as a script."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

from doctor.labs.faults.base import Fault, Place, Undo
from doctor.labs.faults.files import put_back
from doctor.labs.ground import GroundError, sh


class Daemon(Fault, frozen=True, kw_only=True):
    """daemon.json gets another text (`text`) or other values (`set`).

    `then`: `nothing`; `reload` (SIGHUP); `restart`; `fails`: it is restarted, and refuses to start.
    """

    text: str = ""
    set: dict[str, Any] | None = None
    then: Literal["nothing", "reload", "restart", "fails"] = "nothing"
    path: str = "/etc/docker/daemon.json"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        stops = self.then in {"restart", "fails"}
        if stops:
            at.ground.stop_daemon()
        back: Undo = []
        if self.text or self.set is not None:
            back = put_back(at, self.path)
            at.ground.write(self.path, self.text or json.dumps(self.set, indent=2) + "\n")
        if stops:
            at.ground.start_daemon(fails=self.then == "fails")
            return [lambda: at.ground.start_daemon(fails=False), *back, at.ground.stop_daemon]
        if self.then == "reload":
            reload = f"kill -HUP {at.names.fill('{dockerd}')}; sleep 0.3"
            at.sh(reload)
            return [lambda: sh(at.ground, reload), *back]
        return back


_PROCESSES = {
    "dockerd": "echo {dockerd}",
    "containerd": "pgrep -x containerd",
    "shim": "echo {{shim:{}}}",
    "main": "echo {{pid:{}}}",
    "proxy": "pgrep -f 'docker-prox[y].*-host-port {} '",
}
"""Whom a signal may be sent to: `dockerd`, `containerd`, `shim:CTR`, `main:CTR` (its first process), `proxy:PORT`."""


class ProcessSignal(Fault, frozen=True, kw_only=True):
    """A signal for processes of the engine; after KILL they are gone."""

    process: str
    signal: Literal["KILL", "STOP", "CONT", "TERM", "HUP", "SEGV"] = "KILL"

    def make(self, at: Place) -> Undo:
        """See `Fault.make`. A process that was killed is not brought back."""
        pids = at.sh(self._find()).split()
        if not pids or "0" in pids:
            raise GroundError(f"no such process: {self.process}")
        at.sh(f"kill -{self.signal} {' '.join(pids)}")
        if self.signal == "KILL":
            gone = " || ".join(f"[ -e /proc/{pid}/exe ]" for pid in pids)
            at.sh(f"i=0; while {gone}; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.01; done")
        return [at.later(f"kill -CONT {' '.join(pids)}")] if self.signal == "STOP" else []

    def _find(self) -> str:
        word, _, rest = self.process.partition(":")
        if word not in _PROCESSES:
            raise GroundError(f"no such process: {self.process}; there are {', '.join(_PROCESSES)}")
        return _PROCESSES[word].format(rest) if "{{" in _PROCESSES[word] or word == "proxy" else _PROCESSES[word]

    def texts(self) -> list[str]:
        """See `Fault.texts`."""
        word, _, rest = self.process.partition(":")
        return [f"{{pid:{rest}}}"] if word in {"shim", "main"} else []


class NetnsLeak(Fault, frozen=True, kw_only=True):
    """A network namespace that nobody lives in stays mounted on a file in /run/docker/netns, as after a crash."""

    name: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        path = f"/run/docker/netns/{self.name}"
        at.sh(
            f"touch {path}; unshare -n mount --bind /proc/self/ns/net {path} 2>/dev/null || "
            f"{{ ip netns add leak; mount --bind /run/netns/leak {path}; ip netns del leak; }}"
        )
        return [at.later(f"umount {path}; rm {path}")]


class Unmount(Fault, frozen=True, kw_only=True):
    """`umount PATH`."""

    path: str

    def make(self, at: Place) -> Undo:
        """See `Fault.make`. It is not mounted again."""
        at.sh(f"umount {self.path}")
        return []


class Run(Fault, frozen=True, kw_only=True):
    """A shell script for which there is no word; `undo` takes it back. `may_fail`: that is what is to be seen."""

    run: str
    undo: str = ""
    may_fail: bool = False
    seconds: float = 30.0

    def make(self, at: Place) -> Undo:
        """See `Fault.make`."""
        script = at.names.fill(self.run)
        if self.may_fail:
            at.ground.run(("sh", "-ec", script), seconds=self.seconds)
        else:
            at.sh(script, seconds=self.seconds)
        return [at.later(self.undo)] if self.undo else []


class Wait(Fault, frozen=True, kw_only=True):
    """Until a command succeeds, `seconds` at most: an engine hears of some things a moment later."""

    until: str
    seconds: float = 10.0

    def make(self, at: Place) -> Undo:
        """See `Fault.make`. Raises GroundError when the time is up."""
        script = at.names.fill(self.until)
        end = time.monotonic() + self.seconds
        while at.ground.run(("sh", "-c", script)).code:
            if time.monotonic() > end:
                raise GroundError(f"after {self.seconds:g} s still not: {script}")
            time.sleep(0.05)
        return []
