"""A nameserver for the tests: answers every question with NXDOMAIN, or does not, as a test says."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.enginehost import EngineHost

NXDOMAIN, REFUSED = 3, 5
How = Literal["answers", "silent", "denies", "udp-only", "away"]


class Nameserver:
    """Serves port 53 of one address of a host's, or of the network outside, by UDP and TCP, until that host is down.

    `how` it behaves: `denies` says REFUSED to everybody but this host, `away` has its ports closed, `udp-only` that of TCP.
    """

    def __init__(self, host: EngineHost, place: str, ip: str) -> None:
        """Serve at once."""
        self.host, self.place, self.ip = host, place, ip
        self._sockets: list[socket.socket] = []
        self.how: How = "answers"
        self.now("answers")
        threading.Thread(target=self._serve, daemon=True).start()

    def now(self, how: How) -> None:
        """Behave otherwise from now on."""
        self.how = how
        held, self._sockets = self._sockets, self._open(how)
        for one in held:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # a thread that waits for it holds it open
            one.close()

    def _open(self, how: How) -> list[socket.socket]:
        kinds = {"away": (), "udp-only": (socket.SOCK_DGRAM,)}.get(how, (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        made = []
        for kind in kinds:
            sock = self.host.open_socket(self.place, socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((self.ip, 53))
            if kind == socket.SOCK_STREAM:
                sock.listen(16)
            made.append(sock)
        return made

    def _serve(self) -> None:
        while self.host.state.exists():
            with contextlib.suppress(OSError, ValueError):  # closed meanwhile
                for sock in select.select(self._sockets, [], [], 0.1)[0]:
                    self._take(sock)
        for sock in self._sockets:
            sock.close()

    def _take(self, sock: socket.socket) -> None:
        if sock.type == socket.SOCK_DGRAM:
            data, peer = sock.recvfrom(512)
            if data and self.how != "silent":  # nothing comes from a socket that was shut down
                sock.sendto(self._answer(data, peer[0]), peer)
            return
        client, peer = sock.accept()
        if self.how == "silent":
            threading.Timer(3, client.close).start()
            return
        with client:
            client.settimeout(1)
            data = client.recv(512)[2:]
            answer = self._answer(data, peer[0])
            client.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes, peer: str) -> bytes:
        code = REFUSED if self.how == "denies" and peer != self.ip else NXDOMAIN
        return data[:2] + (0x8180 | code).to_bytes(2, "big") + data[4:6] + bytes(6) + data[12:]
