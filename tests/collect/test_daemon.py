"""A daemon that is late: one that works all the while is waited for, one that does nothing is not."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from doctor import collect, inquiry
from tests.collect.test_sources import NOWHERE, FakeHost

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 0.4


class LateDaemon(threading.Thread):
    """A socket whose first request is never answered, and every later one with OK."""

    def __init__(self, path: str, *, works: bool) -> None:
        """Listen; `works`: use a processor while the first request waits, as a starved daemon does."""
        super().__init__(daemon=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        self.works = works
        self.asked = 0

    def run(self) -> None:
        """Answer until the socket is closed."""
        first, _ = self.server.accept()
        self.asked += 1
        first.recv(4096)
        first.settimeout(0)
        while self.works and not _closed(first):
            pass
        while True:
            one, _ = self.server.accept()
            self.asked += 1
            one.recv(4096)
            one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
            one.close()


def _closed(asker: socket.socket) -> bool:
    """Whether who asked has gone; others may have the processors, so no time says how long that takes."""
    try:
        return not asker.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("works", [True, False])
def test_a_starved_daemon_is_asked_once_more(*, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor time that it used during the ping tells a starved daemon from one that hangs."""
    monkeypatch.setattr(inquiry, "PING_SECONDS", FIRST)
    monkeypatch.setattr(inquiry, "BUSY_TICKS", 1)  # others may have the processors while this runs
    path = str(tmp_path / "docker.sock")
    daemon = LateDaemon(path, works=works)
    daemon.start()
    places = replace(NOWHERE, address=f"unix://{path}", pid=os.getpid())
    host = FakeHost(set())
    with subprocess.Popen(["sleep", "60"]) as idle:
        if not works:  # this process itself is busy with reading: let the daemon be one that sleeps
            places = replace(places, pid=idle.pid)
        found = collect.collect(host, places=places, deadline=5.0).records["api/ping"]
        idle.kill()
    assert found.status == ("ok" if works else "timeout")
    assert (daemon.asked > 1) is works
