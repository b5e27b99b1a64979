"""The Engine API: what is read, and what the command `docker` needs to make containers and networks (moby api/swagger.yaml).

A row of the tables below is a path and what answers it. An answer that has to wait (wait, stop, attach, logs that are
followed) keeps its connection, and is finished by whoever calls back.
"""

from __future__ import annotations

import re
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon import objects, system
from doctor.runtime.daemon.commands import Commands
from doctor.runtime.daemon.events import line, wanted
from doctor.runtime.daemon.execs import Execs
from doctor.runtime.daemon.fault import Fault, bad, broken, not_found
from doctor.runtime.daemon.filters import chosen, read_filters
from doctor.runtime.daemon.http import Server
from doctor.runtime.daemon.logs import Follower
from doctor.runtime.daemon.streams import Attachments
from doctor.runtime.daemon.top import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Connection, Request

_VERSIONED = re.compile(r"/v(\d+)\.(\d+)(/.*)")


_ROUTES = tuple(
    (method, re.compile(pattern), answer)
    for method, pattern, answer in (
        ("GET|HEAD", "/_ping", "_ping"),
        ("GET", "/version", "_version"),
        ("GET", "/info", "_info"),
        ("GET", "/containers/json", "_containers"),
        ("GET", "/containers/(.+)/json", "_container"),
        ("GET", "/containers/(.+)/logs", "_logs"),
        ("GET", "/containers/(.+)/top", "_top"),
        ("GET", "/networks", "_networks"),
        ("GET", "/networks/(.+)", "_network"),
        ("GET", "/images/json", "_images"),
        ("GET", "/images/(.+)/json", "_image"),
        ("GET", "/images/(.+)/history", "_history"),
        ("GET", "/volumes", "_volumes"),
        ("GET", "/volumes/(.+)", "_volume"),
        ("GET", "/system/df", "_usage"),
        ("GET", "/events", "_events"),
        ("GET", "/exec/(.+)/json", "execs.inspect"),
        ("POST", "/containers/create", "commands.create"),
        ("POST", "/containers/(.+)/start", "commands.start"),
        ("POST", "/containers/(.+)/stop", "commands.stop"),
        ("POST", "/containers/(.+)/restart", "commands.restart"),
        ("POST", "/containers/(.+)/kill", "commands.kill"),
        ("POST", "/containers/(.+)/wait", "commands.wait"),
        ("POST", "/containers/(.+)/rename", "commands.rename"),
        ("POST", "/containers/(.+)/attach", "attachments.attach"),
        ("POST", "/containers/(.+)/resize", "attachments.resize"),
        ("POST", "/containers/(.+)/exec", "execs.create"),
        ("POST", "/exec/(.+)/start", "execs.start"),
        ("POST", "/exec/(.+)/resize", "execs.resize"),
        ("DELETE", "/containers/(.+)", "commands.remove"),
        ("POST", "/networks/create", "commands.create_network"),
        ("POST", "/networks/(.+)/connect", "commands.connect"),
        ("POST", "/networks/(.+)/disconnect", "commands.disconnect"),
        ("DELETE", "/networks/(.+)", "commands.remove_network"),
        ("POST", "/volumes/create", "commands.create_volume"),
        ("DELETE", "/volumes/(.+)", "commands.remove_volume"),
        ("POST", "/images/create", "_pull"),
        ("POST", "/images/(.+)/tag", "commands.tag"),
        ("DELETE", "/images/(.+)", "commands.untag"),
    )
)
"""Method, path, and which of the parts of an `Api` answers: they are compiled once, and not by each daemon."""


class Api:
    """Answers requests with what the engine knows and does."""

    def __init__(self, engine: Engine) -> None:
        """Answer for one engine."""
        self.engine = engine
        self.attachments = Attachments(engine)
        self.execs = Execs(engine)
        self.commands = Commands(engine)
        self.server = Server(engine.loop, self.handle, self._headers())
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Request, Connection, str], None]]] = [
            (method, pattern, attrgetter(answer)(self)) for method, pattern, answer in _ROUTES
        ]

    def _headers(self) -> dict[str, str]:
        made = self.engine.generation
        return {
            "Api-Version": made.api,
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Docker/{made.version} (linux)",
        }

    # Dispatch

    def handle(self, request: Request, to: Connection) -> None:
        """Answer one request; what goes wrong is an answer, too."""
        match = _VERSIONED.fullmatch(request.path)
        try:
            if match:
                self._in_time((int(match[1]), int(match[2])))
                request.path = match[3]
            self._debug(request)
            self._route(request, to)
        except Fault as fault:
            self._refuse(request, to, fault)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(request, to, bad(f"invalid JSON: {error}"))
        except OSError as error:
            self._refuse(request, to, broken(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")))

    def _in_time(self, asked: tuple[int, int]) -> None:
        made = self.engine.generation
        text = f"{asked[0]}.{asked[1]}"
        if asked > _pair(made.api):
            raise bad(f"client version {text} is too new. Maximum supported API version is {made.api}")
        if asked < _pair(made.least):
            raise bad(
                f"client version {text} is too old. Minimum supported API version is {made.least},"
                " please upgrade your client to a newer version"
            )

    def _debug(self, request: Request) -> None:
        if self.engine.release < (28, 0):
            self.engine.daemon_log.debug(f"Calling {request.method} {request.target}")
            return
        self.engine.daemon_log.debug(
            f"handling {request.method} request", method=request.method, module="api", request_url=request.target
        )

    def _route(self, request: Request, to: Connection) -> None:
        for methods, pattern, answer in self._routes:
            match = pattern.fullmatch(request.path)
            if match and request.method in methods.split("|"):
                answer(request, to, match[1] if match.groups() else "")
                return
        raise not_found("page not found")

    def _refuse(self, request: Request, to: Connection, fault: Fault) -> None:
        if fault.status >= 500:  # noqa: PLR2004 - server errors are logged (moby api/server/server.go)
            self.engine.daemon_log.error(
                f"Handler for {request.method} {request.target} returned error: {fault.message}"
            )
        if to.raw is None and not to.chunked:
            to.fault(fault.status, fault.message)
        else:
            to.finish()

    # The daemon

    def _ping(self, request: Request, to: Connection, _: str) -> None:
        newer = {"Builder-Version": "2", "Swarm": "inactive"} if self.engine.release >= (23, 0) else {}
        head = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", **newer}
        to.answer(200, b"" if request.method == "HEAD" else b"OK", "text/plain; charset=utf-8", head)

    def _version(self, _: Request, to: Connection, __: str) -> None:
        to.json(system.version(self.engine.generation))

    def _info(self, _: Request, to: Connection, __: str) -> None:
        engine = self.engine
        to.json(system.info(engine.world, engine.generation, engine.identity, len(engine.events.listeners)))

    def _events(self, request: Request, to: Connection, _: str) -> None:
        filters = read_filters(request)
        since, until = _when(request.query.get("since")), _when(request.query.get("until"))
        to.stream()
        now = time.time()
        if since is not None:
            for event in self.engine.events.between(since, until or now):
                if wanted(event, filters):
                    to.chunk(line(event))
        if until is not None and until <= now:
            to.end()
            return

        def tell(event: dict[str, Any]) -> None:
            if wanted(event, filters):
                to.chunk(line(event))

        def stop() -> None:
            if tell in self.engine.events.listeners:
                self.engine.events.listeners.remove(tell)

        self.engine.events.listeners.append(tell)
        to.gone.append(stop)
        if until is not None:
            self.engine.loop.later(until - now, lambda: (stop(), to.end())[0])  # type: ignore[func-returns-value]

    # Containers

    def _containers(self, request: Request, to: Connection, _: str) -> None:
        engine = self.engine
        filters = read_filters(request)
        every = sorted(engine.world.containers.values(), key=lambda one: one.created, reverse=True)
        listed = chosen(engine, every, filters, running=not request.on("all") and "status" not in filters)
        limit = int(request.query.get("limit") or 0)
        now = time.time()
        found = [engine.views.listed(one, now, size=request.on("size")) for one in listed]
        to.json(found[:limit] if limit > 0 else found)

    def _container(self, request: Request, to: Connection, name: str) -> None:
        del request
        to.json(self.engine.views.inspect(self.engine.container(name)))

    def _logs(self, request: Request, to: Connection, name: str) -> None:
        one = self.engine.container(name)
        if not request.on("stdout") and not request.on("stderr"):
            raise bad("Bad parameters: you must choose at least one stream")
        if one.spec.log_driver != "json-file":
            raise Fault(501, "configured logging driver does not support reading")
        Follower(self.engine, one, request, to).begin()

    def _top(self, request: Request, to: Connection, name: str) -> None:
        one = self.engine.container(name)
        if one.state != "running":
            raise Fault(409, f"{'Container' if self.engine.release < (25, 0) else 'container'} {one.id} is not running")
        to.json(processes(one, request.query.get("ps_args") or "-ef"))

    # Other objects

    def _networks(self, request: Request, to: Connection, _: str) -> None:
        world = self.engine.world
        filters = read_filters(request)
        found = []
        for one in world.networks.values():
            named = filters.get("name")
            known = filters.get("id")
            if (named and not any(text in one.spec.name for text in named)) or (
                known and not any(one.id.startswith(text) for text in known)
            ):
                continue
            if filters.get("driver") and one.spec.driver not in filters["driver"]:
                continue
            found.append(objects.network(world, one, self.engine.generation, whole=False))
        to.json(found)

    def _network(self, _: Request, to: Connection, name: str) -> None:
        one = self.engine.find_network(name)
        to.json(objects.network(self.engine.world, one, self.engine.generation, whole=True))

    def _images(self, _: Request, to: Connection, __: str) -> None:
        world = self.engine.world
        every = sorted(world.images.values(), key=lambda one: one.created, reverse=True)
        to.json([objects.image_listed(world, one, self.engine.generation) for one in every])

    def _image(self, _: Request, to: Connection, name: str) -> None:
        to.json(objects.image_inspect(self.engine.image(name), self.engine.generation, self.engine.root))

    def _history(self, _: Request, to: Connection, name: str) -> None:
        to.json(objects.image_history(self.engine.image(name)))

    def _volumes(self, _: Request, to: Connection, __: str) -> None:
        to.json({"Volumes": objects.volumes(self.engine.root), "Warnings": None})

    def _volume(self, _: Request, to: Connection, name: str) -> None:
        if "/" in name or name.startswith("."):
            raise not_found(f"get {name}: no such volume")
        try:
            to.json(objects.volume(self.engine.root, name))
        except FileNotFoundError:
            raise not_found(f"get {name}: no such volume") from None

    def _usage(self, _: Request, to: Connection, __: str) -> None:
        engine = self.engine
        now = time.time()
        every = sorted(engine.world.containers.values(), key=lambda one: one.created, reverse=True)
        listed = [engine.views.listed(one, now, size=True) for one in every]
        held = objects.volumes(engine.root)
        to.json(objects.disk_usage(engine.world, listed, held, engine.generation))

    def _pull(self, request: Request, to: Connection, _: str) -> None:
        """Say that there is no registry: a host of ours has no network but its own."""
        del to
        name = request.query.get("fromImage", "")
        raise broken(f'Get "https://registry-1.docker.io/v2/": no registry can be reached from here: {name}')


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _when(text: str | None) -> float | None:
    """Read a time of a request: seconds since the epoch, or RFC 3339; None where there is none."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        from doctor.runtime.daemon.clock import seconds

        found = seconds(text)
        if not found:
            raise bad(f'failed to parse value as time or duration: "{text}"') from None
        return found
