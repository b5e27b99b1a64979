"""The process that bears the name dockerd: reads its configuration, sets everything up, and serves until it is told to end."""

from __future__ import annotations

import gc
import grp
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from doctor.runtime.daemon import containerd
from doctor.runtime.daemon.api import Api
from doctor.runtime.daemon.config import ConfigError, config_path, refused, reloaded, settings
from doctor.runtime.daemon.engine import Engine
from doctor.runtime.daemon.fault import Fault
from doctor.runtime.daemon.lasting import restore, stop_all
from doctor.runtime.daemon.log import Log, stamp
from doctor.runtime.daemon.loop import READ, Loop
from doctor.runtime.daemon.places import SOCKET
from doctor.runtime.daemon.running import Running
from doctor.runtime.model import ContainerSpec, NetworkSpec
from doctor.runtime.network import NetworkError

if TYPE_CHECKING:
    from doctor.runtime.model import Settings


class Start(Struct, frozen=True):
    """What a daemon is started with: its command line, what it says it is, and what it makes as soon as it is up."""

    argv: tuple[str, ...] = ("/usr/sbin/dockerd", "-p", "/var/run/docker.pid")
    dialect: str = "28"
    version: str = ""
    networks: tuple[NetworkSpec, ...] = ()
    containers: tuple[ContainerSpec, ...] = ()


def serve(start: Start, ready: int) -> NoReturn:
    """Be the daemon; never returns.

    One line of JSON goes to `ready`: `{"ok": true}` once the API answers and everything of `start` runs, or
    `{"error": words}`. Standard error is the log.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that goes while it is answered is an error of one send
    # The collector writes into all that it looks at, and each page that is written is copied: here, and in every shim.
    gc.freeze()
    gc.disable()
    try:
        told = _configured(start)
        daemon = Daemon(told, start)
        daemon.begin(start)
    except ConfigError as error:
        _fail(ready, error.text, error.code)
    except (Fault, NetworkError, OSError) as error:
        _fail(ready, f"failed to start daemon: {_words(error)}", 1)
    _tell(ready, {"ok": True})
    gc.freeze()
    gc.enable()
    daemon.loop.run()
    os._exit(0)


def _configured(start: Start) -> Settings:
    path = config_path(start.argv[1:])
    told = settings(start.argv[1:], _text(path), start.dialect, start.version)
    why = refused(told)
    if why:
        raise ConfigError(f"failed to start daemon: {why}")
    return told


def _text(path: str) -> str | None:
    """Read daemon.json; None where there is none. Raises ConfigError where it cannot be read."""
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ConfigError(f"unable to configure the Docker daemon with file {path}: open {path}: {words}") from error


def _words(error: Exception) -> str:
    if isinstance(error, NetworkError):
        return f"Error initializing network controller: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}: {error.strerror.lower()}".lstrip(": ")
    return str(error)


def _tell(ready: int, message: dict[str, object]) -> None:
    with suppress(OSError):
        os.write(ready, json.dumps(message).encode() + b"\n")
        os.close(ready)


def _fail(ready: int, text: str, code: int) -> NoReturn:
    os.write(2, text.encode("utf-8", "surrogateescape") + b"\n")
    _tell(ready, {"error": text})
    os._exit(code)


class Daemon:
    """One daemon that runs."""

    def __init__(self, told: Settings, start: Start) -> None:
        """Make its parts. Raises OSError."""
        values = told.values
        self.daemon_log = Log(2, values["log-level"], values.get("log-format", "text"), debug=values["debug"])
        self.daemon_log.info("Starting up")
        self.loop = Loop(self._fault)
        self._pidfile(values["pidfile"])
        self.engine = Engine(told, self.loop, self.daemon_log)
        self.running = Running(self.engine)
        self.engine.running = self.running
        self.api = Api(self.engine)
        self.config_file = config_path(start.argv[1:])
        self.ending = False

    def begin(self, start: Start) -> None:
        """Set up networks and containers, and answer. Raises ConfigError, NetworkError, OSError."""
        engine, told_to = self.engine, self.daemon_log
        listeners = self._listen()
        told_to.info("libcontainerd: started new containerd process", pid=str(containerd.start(engine.run)))
        told_to.info("Loading containers: start.")
        engine.load()
        restarted = restore(self.running)
        made = [engine.create(spec).id for spec in start.containers]
        if restarted:
            self._networks(start, more=False)
            faults = self.running.start_many([*restarted, *made])
        else:  # a first start, whose failure is the lab's end: links and rules are made while shims make containers
            faults = self.running.start_many(made, partial(self._networks, start, more=bool(start.networks or made)))
        for identity, fault in faults.items():
            told_to.error("failed to start container", container=identity, error=fault.message)
        engine.network.finish()
        wrong = next((fault for identity, fault in faults.items() if identity in made), None)
        if wrong is not None:
            raise wrong
        told_to.info("Loading containers: done.")
        generation = engine.generation
        fields = {"commit": generation.commit, "version": generation.version}
        fields |= {"graphdriver": "overlay2"} if engine.release < (25, 0) else {"storage_driver": "overlay2"}
        told_to.info("Docker daemon", **fields)
        told_to.info("Daemon has completed initialization")
        self._signals()
        for listener, address in listeners:
            self.api.server.listen(listener)
            told_to.info(f"API listen on {address}")

    def _networks(self, start: Start, *, more: bool) -> None:
        """Set up the networks; `more`: containers follow. Raises NetworkError, OSError, Fault."""
        engine = self.engine
        engine.network.start(created=stamp(), more=more)
        engine.state.save_networks(engine.world.networks)
        self._names()
        for spec in start.networks:
            engine.create_network(spec)

    def _pidfile(self, path: str) -> None:
        """Write the pid file. Raises ConfigError where another daemon has it."""
        try:
            held = int(Path(path).read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            held = 0
        if held and held != os.getpid() and os.path.exists(f"/proc/{held}"):  # noqa: PTH110 - no import for one name
            again = "failed to start daemon, ensure docker is not running or delete" if held else ""
            raise ConfigError(f"{again} {path}: process with PID {held} is still running")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(str(os.getpid()), encoding="ascii")

    def _listen(self) -> list[tuple[socket.socket, str]]:
        """Listen on every address of `hosts`. Raises ConfigError, OSError."""
        values = self.engine.settings.values
        found = []
        for host in values["hosts"] or [f"unix:///var{SOCKET}"]:
            kind, _, address = host.partition("://")
            if kind == "fd":
                address = f"/var{SOCKET}"
            if kind == "tcp":
                name, _, port = address.rpartition(":")
                listener = socket.create_server((name, int(port or 2375)), family=socket.AF_INET)
                found.append((listener, address))
                continue
            found.append((self._listen_unix(address, values["group"]), address))
        return found

    def _listen_unix(self, address: str, group: str) -> socket.socket:
        path = Path(address.replace("/var/run/", "/run/", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        listener.bind(os.fspath(path))
        os.umask(before)
        listener.listen(128)
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            if group != "docker":
                raise ConfigError(f"failed to load listeners: group {group} not found") from None
            self.daemon_log.warning(f"could not change group {address} to docker: group docker not found")
            gid = -1
        with suppress(OSError):  # a user namespace of one id knows no group but one
            os.chown(path, 0, gid)
        path.chmod(0o660)
        return listener

    def _names(self) -> None:
        """Let the embedded DNS answer from this loop."""
        network = self.engine.network
        if network.fileno() >= 0:
            self.loop.watch(network.fileno(), READ, lambda _: self._work())

    def _work(self) -> None:
        network = self.engine.network
        network.work()
        wait = network.timeout()
        if wait is not None:
            self.loop.later(wait, self._work)

    def _fault(self, error: Exception) -> None:
        """Write down what went wrong in us, and go on."""
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.name}:{last.lineno}"
        self.daemon_log.error("fault in the daemon itself", error=f"{type(error).__name__}: {error}", at=where)
        self.daemon_log.debug("".join(traceback.format_exception(error)))

    # Signals

    def _signals(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.loop.watch(reading, READ, lambda _: self._signalled(os.read(reading, 256)))

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._reload()
            elif not self.ending:
                self.ending = True
                name = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}.get(signal.Signals(number), "quit")
                self.daemon_log.info(f"Processing signal '{name}'")
                self._shut_down()

    @staticmethod
    def _reap() -> None:
        """Let go of children that have ended: a containerd, proxies that were killed."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _reload(self) -> None:
        engine, told_to = self.engine, self.daemon_log
        old = engine.release < (23, 0)
        if old:
            told_to.info(f"Got signal to reload configuration, reloading from: {self.config_file}")
        else:
            told_to.info("Got signal to reload configuration", config_file=self.config_file)
        try:
            told = reloaded(engine.settings, _text(self.config_file), self.config_file)
        except ConfigError as error:
            if old:
                told_to.error(error.text)
            else:
                told_to.error("Error reloading configuration", error=error.text)
            return
        engine.world.settings = told
        told_to.debug_on = told.values["debug"]
        kept = {key: value for key, value in told.values.items() if value not in ("", [], {}, 0, None)}
        shown = json.dumps(kept, separators=(",", ":"))
        if old:
            told_to.info(f"Reloaded configuration: {shown}")
        else:
            told_to.info("Reloaded configuration", config=shown)
        engine.events.daemon("reload", name=os.uname().nodename)

    def _shut_down(self) -> None:
        if self.engine.settings.values["live-restore"]:
            self._end()
            return
        self.loop.later(float(self.engine.settings.values["shutdown-timeout"]), self._end)
        stop_all(self.running, self._end)

    def _end(self) -> None:
        with suppress(NetworkError, OSError):
            self.engine.network.stop()
        containerd.stop(self.engine.run)
        self.daemon_log.info("Daemon shutdown complete")
        for host in self.engine.settings.values["hosts"] or [f"unix:///var{SOCKET}"]:
            if host.startswith(("unix://", "fd://")):
                address = host.partition("://")[2] or f"/var{SOCKET}"
                with suppress(OSError):
                    Path(address.replace("/var/run/", "/run/", 1)).unlink()
        with suppress(OSError):
            Path(self.engine.settings.values["pidfile"]).unlink()
        sys.stderr.flush()
        os._exit(0)
