"""A lab as the ground of a scenario, for a process that is in it: a fork of ours, in all namespaces of the lab's host."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from doctor.docker_api import ApiError, DockerApi
from doctor.labs.apart import ApartError, gather
from doctor.labs.ground import GroundError, Ran
from doctor.linux import spawn, syscalls
from doctor.model import Report
from doctor.runtime import control, hostfiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SERVICE = "docker"
SOCKET = "/run/docker.sock"
CHECK_SECONDS = 30.0
_LIMIT = 8 << 20
_STARTS = 10.0
_OK = 200


class Inside:
    """The lab that this process is in; see `doctor.labs.ground.Ground`."""

    def run(self, argv: Sequence[str], *, stdin: str = "", seconds: float = 30.0) -> Ran:
        """See `Ground.run`. What it leaves in the background without setsid(1) ends with it."""
        done = spawn.run(
            argv, deadline_seconds=seconds, limit_bytes=_LIMIT, stdin=stdin.encode(), env={"HOME": "/root"}
        )
        code = 124 if done.status == "timeout" else done.returncode
        return Ran(code if code >= 0 else 128 - code, _text(done.stdout), _text(done.stderr))

    def read(self, path: str) -> str | None:
        """See `Ground.read`."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, text: str) -> None:
        """See `Ground.write`."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")

    def ask(self, path: str) -> Any:
        """See `Ground.ask`."""
        api = DockerApi(f"unix://{SOCKET}")
        try:
            status, body = api.get(path, 3.0)
        except ApiError as error:
            raise GroundError(f"GET {path}: {error.why}") from error
        finally:
            api.close()
        if status != _OK:
            raise GroundError(f"GET {path}: HTTP {status}: {_text(body).strip()}")
        try:
            return json.loads(body)
        except ValueError:
            return _text(body)

    def answers(self) -> bool:
        """See `Ground.answers`."""
        api = DockerApi(f"unix://{SOCKET}")
        try:
            return api.get("/_ping", 2.0)[0] == _OK
        except ApiError:
            return False
        finally:
            api.close()

    def start_daemon(self, *, fails: bool) -> None:
        """See `Ground.start_daemon`."""
        answer = self._ask_holder({"do": "service", "name": SERVICE, "action": "start"})
        error = str(answer.get("error", ""))
        if error and not fails:
            raise GroundError(f"dockerd did not start: {error}")
        if fails and not error:
            raise GroundError("dockerd came up")

    def stop_daemon(self) -> None:
        """See `Ground.stop_daemon`."""
        answer = self._ask_holder({"do": "service", "name": SERVICE, "action": "stop"})
        if "error" in answer:
            raise GroundError(f"dockerd did not stop: {answer['error']}")

    def _ask_holder(self, question: dict[str, Any]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_STARTS)
            try:
                sock.connect(hostfiles.HOLDER)
                control.send(sock, question)
                return control.receive(sock)[0]
            except OSError as error:
                raise GroundError(f"the holder of the lab: {error}") from error

    def within(self, jobs: Mapping[str, Callable[[], bytes]], seconds: float) -> dict[str, bytes]:
        """See `Ground.within`."""
        listed = [(partial(_enter, self._network(where)), function) for where, function in jobs.items()]
        try:
            return dict(zip(jobs, gather(listed, seconds), strict=True))
        except ApartError as error:
            raise GroundError(str(error)) from error

    def _network(self, where: str) -> str:
        """Give the file of a network namespace; empty for the one that we are in."""
        if where == "host":
            return ""
        if where == "outside":
            return f"/proc/1/fd/{self._ask_holder({'do': 'about'})['outside']}"
        pid = self._pids.get(where, 0)
        try:
            self._pids[where] = pid = int(self.ask(f"/containers/{where}/json")["State"]["Pid"]) or pid
        except GroundError:
            if not pid:
                raise
        if not pid:
            raise GroundError(f"{where} does not run")
        return f"/proc/{pid}/ns/net"

    def __init__(self) -> None:
        """Know no container yet."""
        self._pids: dict[str, int] = {}

    def check(self, options: tuple[str, ...] = ()) -> Report:
        """See `Ground.check`. It runs in a fork: the threads that read a host are not to be ours."""
        try:
            said = gather([(lambda: None, partial(examined, options))], CHECK_SECONDS)[0]
        except ApartError as error:
            raise GroundError(f"doctor check: {error}") from error
        return msgspec.msgpack.decode(said, type=Report)


def examined(options: tuple[str, ...] = ()) -> bytes:
    """Do what `doctor check` does, on the host that this process is in; gives the report, encoded."""
    from doctor.assess import assess
    from doctor.collect import gather as collect
    from doctor.labs.labhost import LabHost
    from doctor.options import selection
    from doctor.places import find

    began = time.perf_counter()
    registry, checks = selection([], [], ())
    host = LabHost()
    snapshot, _ = collect(host, deadline=9.5, places=find(host, {}), probe="--probe" in options)
    if "--deep" in options:
        from doctor import deep
        from doctor.examine import Facts
        from doctor.options import deep as asked

        snapshot = deep.read(snapshot, Facts(registry, snapshot), asked(), None)
    return msgspec.msgpack.encode(assess(snapshot, registry, checks, (), began))


def _enter(path: str) -> None:
    if path:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(handle, syscalls.CLONE_NEWNET)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
