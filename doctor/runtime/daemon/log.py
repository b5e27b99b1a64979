"""The daemon's own log, as logrus writes it into a file: one line a message, levels that filter, text or JSON.

    time="2026-11-30T08:55:15.650475201Z" level=info msg="Loading containers: start."

Source: logrus `text_formatter.go` as dockerd sets it up (moby cmd/dockerd/daemon.go: times with nanoseconds, no colours).
"""

from __future__ import annotations

import json
import os
import re
import time

_ORDER = ("panic", "fatal", "error", "warning", "info", "debug", "trace")
_PLAIN = re.compile(r"[A-Za-z0-9\-._/@^+]+")


def stamp(nanoseconds: int | None = None) -> str:
    """Give a time as RFC 3339 with nanoseconds, in UTC; now, where none is given."""
    now = time.time_ns() if nanoseconds is None else nanoseconds
    seconds, rest = divmod(now, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def quoted(value: str) -> str:
    r"""Quote a value of a line as logrus does: only where it holds more than letters, digits and -._/@^+.

    >>> quoted("module"), quoted("API listen on x"), quoted("")
    ('module', '"API listen on x"', '""')
    """
    if _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


class Log:
    """Where the daemon writes what it does. `level` is a name that daemon.json takes; `debug` lets everything through."""

    def __init__(self, descriptor: int = 2, level: str = "info", style: str = "text", *, debug: bool = False) -> None:
        """Write to an open file; an empty level is `info`."""
        self.descriptor = descriptor
        self.style = style or "text"
        self.level = level
        self.debug_on = debug

    @property
    def least(self) -> int:
        """The place in the order of levels up to which lines are written."""
        if self.debug_on:
            return _ORDER.index("debug")
        name = self.level.lower() or "info"
        return _ORDER.index("warning" if name == "warn" else name)

    def debug(self, message: str, **fields: str) -> None:
        """Say what a developer wants to know."""
        self.write("debug", message, fields)

    def info(self, message: str, **fields: str) -> None:
        """Say what happened."""
        self.write("info", message, fields)

    def warning(self, message: str, **fields: str) -> None:
        """Say what may go wrong."""
        self.write("warning", message, fields)

    def error(self, message: str, **fields: str) -> None:
        """Say what went wrong."""
        self.write("error", message, fields)

    def fatal(self, message: str, **fields: str) -> None:
        """Say what ends the daemon; whoever calls this ends it."""
        self.write("fatal", message, fields)

    def write(self, level: str, message: str, fields: dict[str, str]) -> None:
        """Write one line, unless the level is filtered; fields are sorted by name. A full disk loses the line."""
        if _ORDER.index(level) > self.least:
            return
        now = stamp()
        named = {key.replace("_", "-"): value for key, value in sorted(fields.items())}
        if self.style == "json":
            line = json.dumps({**named, "level": level, "msg": message, "time": now}, separators=(",", ":"))
        else:
            rest = "".join(f" {key}={quoted(value)}" for key, value in named.items())
            line = f'time="{now}" level={level} msg={quoted(message)}{rest}'
        try:
            os.write(self.descriptor, line.encode("utf-8", "surrogateescape") + b"\n")
        except OSError:
            return
