"""The process that verifies layers: reads one `Work` a line, and answers with lines of a record, then an empty one.

Between them, `+N` says that N bytes more were read. It has low priority for processor and disk unless told otherwise.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from importlib import import_module

import msgspec
from msgspec import Struct

from doctor.layers.model import VERIFIERS, Checked, Damage, Line, Stopped, Unread, Work
from doctor.linux.syscalls import be_idle

_TELL = 1 << 25
"""Bytes after which progress is told."""
_FILES = 8192
_NICE = 10
_BUDGET = "the budget was used up"
_encoder = msgspec.json.Encoder()


class Order(Struct):
    """One line of the input: the work, until when it may take (time.monotonic, 0: for ever), whether to stand back."""

    work: Work
    until: float = 0.0
    gently: bool = True


_decoder = msgspec.json.Decoder(Order)


class _Teller:
    """Writes what is told to standard output."""

    def __init__(self, work: Work, until: float) -> None:
        self.work = work
        self.until = until
        self.bytes = 0

    def damage(self, one: Damage) -> None:
        """See `model.Teller`."""
        say(one)

    def unread(self, path: str, why: str) -> None:
        """See `model.Teller`."""
        say(Unread(self.work.id, path, why))

    def read(self, count: int) -> None:
        """See `model.Teller`."""
        self.bytes += count
        if self.bytes >= _TELL:
            self.flush()
        if self.until and time.monotonic() > self.until:
            raise Stopped

    def flush(self) -> None:
        """Tell how much was read since the last time."""
        if self.bytes:
            _write(b"+%d\n" % self.bytes)
            self.bytes = 0


def say(line: Line) -> None:
    """Write one value as a line."""
    _write(_encoder.encode(line) + b"\n")


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def one(order: Order) -> Checked:
    """Verify one layer; whatever happens, something can be said of it."""
    work = order.work
    teller = _Teller(work, order.until)
    unknown = Checked(work.store, work.id, "unknown", work.digest, bytes=work.bytes, root=work.root)
    if order.until and time.monotonic() > order.until:
        return msgspec.structs.replace(unknown, state="skipped", why=_BUDGET)
    try:
        checked: Checked = import_module(VERIFIERS[work.store]).verify(work, teller)
    except Stopped:
        checked = msgspec.structs.replace(unknown, state="skipped", why=_BUDGET)
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else error.strerror
        checked = msgspec.structs.replace(unknown, why=f"{error.filename or work.root}: {why}", unread=1)
    except MemoryError:
        checked = msgspec.structs.replace(unknown, why="not enough memory", unread=1)
    teller.flush()
    return checked


def main() -> None:
    """Answer lines until there are no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, _FILES), hard) if hard > 0 else soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gentle = False
    for line in sys.stdin.buffer:
        order = _decoder.decode(line)
        if order.gently and not gentle:
            gentle = True
            os.nice(_NICE)
            be_idle()
        say(one(order))
        _write(b"\n")
