"""A person's terminal and a program in a lab that has one of its own: bytes to and fro, and the size of the window."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.runtime.host import Spawned

_CHUNK = 1 << 14


def relay(program: Spawned) -> int:
    """Carry until the program ends; gives its exit code. The terminal is put back as it was, whatever happens."""
    before = termios.tcgetattr(0)
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def resized(*_: object) -> None:
        with suppress(OSError):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(program.master, termios.TIOCSWINSZ, size)

    handler = signal.signal(signal.SIGWINCH, resized)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        resized()
        tty.setraw(0)
        return _carry(program, reading)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGWINCH, handler)
        os.close(reading)
        os.close(writing)


def _carry(program: Spawned, woken: int) -> int:
    listened = [0, program.master, woken, program.fileno()]
    ended = False
    while True:
        ready = select.select(listened, [], [], 0 if ended else None)[0]
        if woken in ready:
            os.read(woken, _CHUNK)
        if program.master in ready:
            try:
                data = os.read(program.master, _CHUNK)
            except OSError:  # EIO: the last who had it open has gone
                data = b""
            if data:
                os.write(1, data)
                continue
            listened.remove(program.master)
        if ended:
            return program.wait()
        if 0 in ready:
            data = os.read(0, _CHUNK)
            if data:
                os.write(program.master, data)
            else:
                listened.remove(0)
        if program.fileno() in ready:
            listened = [one for one in listened if one == program.master]
            ended = True
            if not listened:
                return program.wait()
