"""A terminal, or pipes, and a container: bytes carried between both until the container's side ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doctor.runtime.daemon.cli.client import Answer

_HEAD = 8
_CHUNK = 1 << 16
_ERRORS = 2


def carry(answer: Answer, *, terminal: bool, stdin: bool) -> None:
    """Carry input and output until the daemon ends the stream."""
    reading = [0] if stdin else []
    held = bytearray()
    while True:
        asked: list[int] = [answer.socket.fileno(), *reading]
        ready = asked[:1] if answer.buffered else select.select(asked, [], [])[0]
        if 0 in ready:
            data = os.read(0, _CHUNK)
            if data:
                with suppress(OSError):
                    answer.socket.sendall(data)
            else:
                reading = []
                with suppress(OSError):
                    answer.socket.shutdown(socket.SHUT_WR)
        if answer.socket.fileno() in ready:
            data = answer.raw()
            if not data:
                return
            if terminal:
                _write(1, data)
            else:
                held += data
                unframe(held)


def unframe(held: bytearray) -> None:
    """Write frames that are whole to standard output or error, and take them off."""
    while len(held) >= _HEAD:
        size = int.from_bytes(held[4:_HEAD], "big")
        if len(held) < _HEAD + size:
            return
        _write(2 if held[0] == _ERRORS else 1, bytes(held[_HEAD : _HEAD + size]))
        del held[: _HEAD + size]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def raw_terminal(resize: Callable[[int, int], object]) -> Iterator[None]:
    """Hand every key to the container, and tell it the size of the terminal, now and when that changes."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)

    def tell(*_: object) -> None:
        with suppress(Exception):  # the container may not have begun, or have ended
            size = os.get_terminal_size(0)
            resize(size.lines, size.columns)

    old = signal.signal(signal.SIGWINCH, tell)
    tty.setraw(0)
    tell()
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, old)
