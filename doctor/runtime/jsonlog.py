r"""The log of a container as the engine's `json-file` driver writes it: a line of JSON for each line of output.

{"log":"it works\n","stream":"stdout","time":"2026-11-30T09:26:25.123456789Z"}
"""

from __future__ import annotations

import json
import os
import time

_LONGEST = 16384
"""Bytes of output in one line of the log; what is longer is more than one, and only the last ends in a newline."""

_ESCAPED = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""What Go's encoder escapes beside what JSON asks for."""


def timestamp(nanoseconds: int) -> str:
    """Write a time as Go does: RFC 3339 in UTC, without zeros at its end.

    >>> timestamp(1_500_000_000_120_000_000)
    '2017-07-14T02:40:00.12Z'
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


class JsonLog:
    """A log that is appended to."""

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError."""
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._rest = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        """Take what a container has printed; whole lines are written at once. Raises OSError."""
        text = self._rest[stream] + data
        lines = text.split(b"\n")
        self._rest[stream] = lines.pop()
        whole = [part for line in lines for part in _parts(line + b"\n")]
        while len(self._rest[stream]) >= _LONGEST:
            whole.append(self._rest[stream][:_LONGEST])
            self._rest[stream] = self._rest[stream][_LONGEST:]
        self._append(stream, whole)

    def close(self) -> None:
        """Write what was not ended by a newline, and close it. Raises OSError."""
        for stream, rest in self._rest.items():
            self._append(stream, [rest] if rest else [])
        os.close(self._handle)

    def _append(self, stream: str, lines: list[bytes]) -> None:
        if not lines:
            return
        now = timestamp(time.time_ns())
        text = "".join(f'{{"log":{_quoted(line)},"stream":"{stream}","time":"{now}"}}\n' for line in lines)
        os.write(self._handle, text.encode("utf-8"))


def _parts(line: bytes) -> list[bytes]:
    return [line[at : at + _LONGEST] for at in range(0, len(line), _LONGEST)]


def _quoted(line: bytes) -> str:
    return json.dumps(line.decode("utf-8", "replace"), ensure_ascii=False).translate(_ESCAPED)
