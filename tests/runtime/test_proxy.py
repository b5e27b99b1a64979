"""Our docker-proxy: what a connection does to it, seen from both of its ends."""

from __future__ import annotations

import selectors
import socket
import struct
import time

from doctor.runtime.proxy import _Streams

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for which a socket that is closed is reset (socket(7))."""


def test_both_ends_are_reset_in_one_round() -> None:
    """What the first of two events closed is not worked on by the second: the next client is served."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as program,
        selectors.DefaultSelector() as loop,
    ):
        listener.setblocking(False)  # noqa: FBT003 - its name
        _Streams(loop, listener, socket.AF_INET, program.getsockname())

        def rounds(seconds: float = 0.2) -> None:
            end = time.monotonic() + seconds
            while ready := loop.select(max(0.0, end - time.monotonic())):
                for key, events in ready:
                    key.data(events)

        client = socket.create_connection(listener.getsockname())
        rounds()
        behind, _ = program.accept()
        for one in (client, behind):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.close()
        rounds()
        with socket.create_connection(listener.getsockname()) as client:
            rounds()
            behind, _ = program.accept()
            with behind:
                behind.sendall(b"served")
                rounds()
                client.settimeout(5)
                assert client.recv(16) == b"served"
        assert len(loop.get_map()) <= 3
