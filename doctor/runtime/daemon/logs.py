"""What containers have printed: the json-file log, read, cut, and followed (moby daemon/logger/jsonfilelog)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.runtime.daemon.clock import seconds

if TYPE_CHECKING:
    from doctor.runtime.daemon.engine import Engine
    from doctor.runtime.daemon.http import Connection, Request
    from doctor.runtime.model import Container

POLL = 0.1
"""Seconds between two looks at a log that is followed."""
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: int, data: bytes) -> bytes:
    """Put a piece of a stream into a frame of the multiplexed stream: one byte stream, four of length."""
    return struct.pack(">BxxxI", stream, len(data)) + data


class Follower:
    """One reading of one log, for one client."""

    def __init__(self, engine: Engine, one: Container, request: Request, to: Connection) -> None:
        """Take what the request wants."""
        self.engine = engine
        self.identity = one.id
        self.tty = one.spec.tty
        self.wanted = {name for name in ("stdout", "stderr") if request.on(name)}
        self.stamps = request.on("timestamps")
        self.follow = request.on("follow")
        self.tail = request.query.get("tail", "all")
        self.since = _time(request.query.get("since"))
        self.until = _time(request.query.get("until"))
        self.to = to
        self.path = Path(engine.root, "containers", one.id, f"{one.id}-json.log")
        self.at = 0
        self.rest = b""

    def begin(self) -> None:
        """Send what is there, and go on while the container runs where it is to be followed."""
        held = self._read()
        if self.tail.isdecimal():
            count = int(self.tail)
            held = held[len(held) - count :] if count < len(held) else held
        kind = "raw" if self.tty or self.engine.release < (23, 0) else "multiplexed"
        self.to.stream(f"application/vnd.docker.{kind}-stream")
        self._send(held)
        if not self.follow:
            self.to.end()
            return
        self._later()

    def _later(self) -> None:
        self.engine.loop.later(POLL, self._more)

    def _more(self) -> None:
        if self.to.closed:
            return
        one = self.engine.world.containers.get(self.identity)
        runs = one is not None and one.state in {"running", "restarting", "paused"}
        self._send(self._read())
        if runs:
            self._later()
        else:
            self.to.end()

    def _read(self) -> list[dict[str, Any]]:
        """Give the whole lines that are new; a line that is no JSON is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.at)
                data = self.rest + file.read()
                self.at = file.tell()
        except OSError:
            return []
        *lines, self.rest = data.split(b"\n")
        found = []
        for line in lines:
            try:
                held = json.loads(line)
                if isinstance(held, dict) and held.get("stream") in self.wanted and self._in_time(held["time"]):
                    found.append(held)
            except (ValueError, KeyError, AttributeError):
                continue
        return found

    def _in_time(self, text: str) -> bool:
        at = seconds(text)
        return self.since <= at and (not self.until or at <= self.until)

    def _send(self, held: list[dict[str, Any]]) -> None:
        parts = []
        for one in held:
            text = (f"{one['time']} " if self.stamps else "") + str(one["log"])
            data = text.encode("utf-8", "surrogateescape")
            parts.append(data if self.tty else frame(_STREAMS[one["stream"]], data))
        self.to.chunk(b"".join(parts))


def _time(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return float(text)
    except ValueError:
        return seconds(text)
