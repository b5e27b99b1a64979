"""The first process of a lab: it holds the namespaces, reaps, and runs what it is asked to. When it ends, all of it ends.

One thread and one loop. It never waits for a child: what takes time is another process. The kernel kills every process of
a pid namespace with its first, and what they held (mounts, links, rules) goes with them (pid_namespaces(7)).
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import selectors
import signal
import sys
import termios
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from doctor.linux import privileges, spawn
from doctor.linux.syscalls import CLONE_NEWNET, setns
from doctor.runtime import control, hostfiles
from doctor.runtime.process import default_signals, own_streams, set_title

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

ENVIRONMENT = {"PATH": spawn.PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}

FAULT = 70
"""The exit code of a function that raised (EX_SOFTWARE of sysexits.h)."""

_CANNOT, _ABSENT = 126, 127
_LINE = 1 << 16


class Service(NamedTuple):
    """A daemon of the host: `main` is called in a child of the holder, with a descriptor for one line of JSON.

    The line is `{"ok": true}` once it serves, or `{"error": "its own words"}`. `again` is called instead when it is started
    another time. `output` is where what it prints goes, `pidfile` what its supervisor writes.
    """

    name: str
    argv: tuple[str, ...]
    main: Callable[[int], object]
    again: Callable[[int], object] | None = None
    output: str = ""
    pidfile: str = ""


class _Running:
    """A service, and who waits for it to start or to end."""

    def __init__(self, service: Service) -> None:
        """Know it; it does not run yet."""
        self.service = service
        self.pid = 0
        self.begun = False
        self.ready = -1
        self.starts: list[Callable[[str], None]] = []
        self.ends: list[Callable[[], None]] = []


class Holder:
    """The loop. `lifeline` is the socket of who brought the lab up: its end is the lab's, until it detaches."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        lifeline: socket.socket,
        services: Sequence[Service],
        builtins: Mapping[str, Callable[[list[str]], int]],
        outside: int,
    ) -> None:
        """Listen. `outside` is the descriptor that holds the network beside the host's."""
        self._name, self._lifeline, self._outside = name, lifeline, outside
        self._builtins = builtins
        self._pid = 0
        self._services = {one.name: _Running(one) for one in services}
        self._children: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        inner = control.listen(hostfiles.HOLDER)
        os.chmod(hostfiles.HOLDER, 0o600)  # noqa: PTH101 - no import for one name
        for listening in (listener, inner):
            listening.setblocking(False)  # noqa: FBT003 - the name says it
            self._watch(listening, partial(self._accept, listening))
        self._watch(lifeline, self._lifeline_said)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._watch(reading, lambda: self._reap(reading))

    def _watch(self, source: socket.socket | int, then: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, then)

    def run(self) -> NoReturn:
        """Start the services, say when all of them serve, and go on until told to end."""
        waiting = set(self._services)

        def started(name: str, error: str) -> None:
            waiting.discard(name)
            if error:
                control.send(self._lifeline, {"error": error})
                os._exit(1)
            if not waiting:
                control.send(self._lifeline, self._about() | {"ok": True})

        for name in self._services:
            self._start(name, partial(started, name))
        if not waiting:
            control.send(self._lifeline, self._about() | {"ok": True})
        gc.freeze()  # what was made until here stays: children share its pages
        while True:
            for key, _ in self._selector.select():
                if key.fileobj in self._selector.get_map():
                    key.data()

    # Whoever asks

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        if not control.is_owner(client):
            client.close()
            return
        self._watch(client, lambda: self._asked(client))

    def _lifeline_said(self) -> None:
        message, _ = control.receive(self._lifeline)
        if message.get("do") == "detach":
            self._selector.unregister(self._lifeline)
            self._lifeline.close()
        elif "pid" in message:
            self._pid = int(message["pid"])
        else:
            os._exit(0)

    def _asked(self, client: socket.socket) -> None:
        handles: list[int] = []
        try:
            message, handles = control.receive(client)
            if not message:
                self._gone(client)
                return
            self._answer(client, message, handles)
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = str(error) if not isinstance(error, KeyError) else f"the question lacks {error}"
            self._tell(client, {"error": said, "code": 125})
        finally:
            for handle in handles:
                os.close(handle)

    def _answer(self, client: socket.socket, message: dict[str, Any], handles: list[int]) -> None:
        verb = message["do"]
        if verb in {"spawn", "builtin"}:
            self._run(client, message, handles)
        elif verb == "kill":
            self._kill(client, int(message["signal"]))
        elif verb == "service":
            self._service(client, str(message["name"]), str(message["action"]))
        elif verb == "about":
            self._tell(client, self._about())
        elif verb == "down":
            os._exit(0)
        else:
            raise ValueError(f"unknown question {verb}")

    def _about(self) -> dict[str, Any]:
        services = {name: one.pid for name, one in self._services.items()}
        return {"name": self._name, "pid": self._pid, "outside": self._outside, "services": services}

    def _tell(self, client: socket.socket, answer: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        with suppress(OSError):  # it has gone: its end is read next
            control.send(client, answer, descriptors)

    def _gone(self, client: socket.socket) -> None:
        self._kill(client, signal.SIGHUP)
        self._kill(client, signal.SIGKILL)
        for pid in [pid for pid, one in self._children.items() if one is client]:
            del self._children[pid]
        self._selector.unregister(client)
        client.close()

    def _kill(self, client: socket.socket, number: int) -> None:
        for pid, one in self._children.items():
            if one is client:
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)

    # Children

    def _run(self, client: socket.socket, message: dict[str, Any], handles: list[int]) -> None:
        argv = [str(one) for one in message["argv"]]
        function = self._builtins.get(argv[0]) if message["do"] == "builtin" else None
        if message["do"] == "builtin" and function is None:
            raise ValueError(f"{argv[0]}: no program of this host")
        master = -1
        if message.get("tty"):
            master, slave = os.openpty()
            handles.append(slave)
            stdio = (slave, slave, slave)
        else:
            stdio = (handles[0], handles[1], handles[2])
        env = {str(key): str(value) for key, value in (message.get("env") or ENVIRONMENT).items()}
        pid = os.fork()
        if pid == 0:
            self._child(
                lambda: _become(argv, env, str(message.get("cwd", "/")), function), message, stdio, terminal=master >= 0
            )
        self._children[pid] = client
        self._tell(client, {"pid": pid}, [master] if master >= 0 else [])
        if master >= 0:
            os.close(master)

    def _child(
        self, then: Callable[[], int], message: dict[str, Any], stdio: tuple[int, int, int], *, terminal: bool
    ) -> NoReturn:
        """Be a child: its own session, its own descriptors, what it was asked for; the rest of the holder is forgotten."""
        code = FAULT
        try:
            signal.set_wakeup_fd(-1)
            default_signals()
            os.setsid()
            for number, handle in enumerate(stdio):
                os.dup2(handle, number)
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if message.get("where") == "outside":
                setns(self._outside, CLONE_NEWNET)
            os.closerange(3, 1 << 16)
            code = then()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        except BaseException as error:  # noqa: BLE001 - a child of the holder leaves here, whatever happened
            with suppress(OSError):
                os.write(2, f"{message['argv'][0]}: {error}\n".encode(errors="replace"))
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self, reading: int) -> None:
        with suppress(BlockingIOError):
            os.read(reading, _LINE)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            client = self._children.pop(pid, None)
            if client is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell(client, {"exit": code if code >= 0 else 128 - code})
            for one in self._services.values():
                if one.pid == pid:
                    self._ended(one)

    # Services

    def _start(self, name: str, then: Callable[[str], None]) -> None:
        one = self._services[name]
        if one.pid:
            then("")
            return
        service = one.service
        reading, writing = os.pipe2(os.O_CLOEXEC)
        output = service.output or f"/var/log/{name}.log"
        pid = os.fork()
        if pid == 0:
            main = service.again if one.begun and service.again is not None else service.main
            self._serve(service, main, writing, output)
        os.close(writing)
        one.pid, one.begun, one.ready = pid, True, reading
        one.starts.append(then)
        if service.pidfile:
            with suppress(OSError), open(service.pidfile, "w", encoding="utf-8") as file:  # noqa: PTH123 - no import for one name
                file.write(f"{pid}\n")
        self._watch(reading, lambda: self._is_ready(one))

    def _serve(self, service: Service, main: Callable[[int], object], ready: int, output: str) -> NoReturn:
        empty = os.open(os.devnull, os.O_RDONLY)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

        def then() -> int:
            set_title(os.path.basename(service.argv[0]), service.argv)  # noqa: PTH119 - no import for one name
            own_streams()
            os.environ.clear()
            os.environ.update(ENVIRONMENT)
            # The line comes on 3: whatever else this process held is closed.
            left = main(3)
            return left if isinstance(left, int) else 0

        os.dup2(ready, 100)
        code = FAULT
        try:
            signal.set_wakeup_fd(-1)
            default_signals()
            os.setsid()
            for number, handle in enumerate((empty, log, log)):
                os.dup2(handle, number)
            os.dup2(100, 3)
            os.closerange(4, 1 << 16)
            os.chdir("/")
            code = then()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        except BaseException:  # noqa: BLE001 - as above
            import traceback

            text = traceback.format_exc()
            with suppress(OSError):
                os.write(2, text.encode(errors="replace"))
                os.write(3, json.dumps({"error": text.strip().splitlines()[-1]}).encode())
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _is_ready(self, one: _Running) -> None:
        line = os.read(one.ready, _LINE)
        self._selector.unregister(one.ready)
        os.close(one.ready)
        one.ready = -1
        error = f"{one.service.name} ended before it served"
        if line:
            try:
                said = json.loads(line)
                error = str(said.get("error", ""))
            except (ValueError, AttributeError):
                error = line.decode("utf-8", "replace").strip()
        starts, one.starts = one.starts, []
        for then in starts:
            then(error)

    def _ended(self, one: _Running) -> None:
        one.pid = 0
        ends, one.ends = one.ends, []
        for then in ends:
            then()

    def _service(self, client: socket.socket, name: str, action: str) -> None:
        one = self._services.get(name)
        if one is None:
            raise ValueError(f"{name}: no service of this host")

        def started(error: str) -> None:
            self._tell(client, {"error": error, "code": 1} if error else {"pid": one.pid, "exit": 0})

        def start() -> None:
            self._start(name, started)

        if action == "status":
            text = f"{name} is running ({one.pid})" if one.pid else f"{name} is not running"
            self._tell(client, {"say": text, "pid": one.pid, "exit": 0 if one.pid else 3})
        elif action == "start":
            start()
        elif action in {"stop", "restart"}:
            then = start if action == "restart" else lambda: self._tell(client, {"pid": 0, "exit": 0})
            if not one.pid:
                then()
                return
            one.ends.append(then)
            os.kill(one.pid, signal.SIGTERM)
            if one.service.pidfile:
                with suppress(OSError):
                    os.unlink(one.service.pidfile)  # noqa: PTH108 - no import for one name
        elif action == "reload" and one.pid:
            os.kill(one.pid, signal.SIGHUP)
            self._tell(client, {"pid": one.pid, "exit": 0})
        else:
            raise ValueError(f"{name}: cannot {action}")


def _become(argv: list[str], env: dict[str, str], cwd: str, function: Callable[[list[str]], int] | None) -> int:
    os.chdir(cwd)
    if function is not None:
        own_streams()
        os.environ.clear()
        os.environ.update(env)
        set_title(os.path.basename(argv[0]), argv)  # noqa: PTH119 - no import for one name
        return function(argv[1:])
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606 - that is what was asked for
    except FileNotFoundError:
        os.write(2, f"{argv[0]}: command not found\n".encode(errors="replace"))
        return _ABSENT
    except OSError as error:
        os.write(2, f"{argv[0]}: {(error.strerror or '').lower()}\n".encode(errors="replace"))
        return _CANNOT


MACHINES = privileges.bits(
    (
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_BOOT",
        "SYS_TIME",
        "SYSLOG",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "AUDIT_CONTROL",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "SYS_PACCT",
    )
)
"""Capabilities that reach the machine from any namespace: a lab of root has none of them."""
