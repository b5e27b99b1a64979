"""Messages of a lab's holder: what was said is heard, also of one that has ended meanwhile."""

from __future__ import annotations

import socket

from doctor.runtime import control


def test_last_words_are_heard() -> None:
    """Whoever ends with a message unread makes the kernel say so first: what it had said before is not lost by that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        control.send(ours, {"pid": 7})
        control.send(theirs, {"error": "no space left on device"})
        theirs.close()
        assert control.receive(ours) == ({"error": "no space left on device"}, [])
        assert control.receive(ours) == ({}, [])


def test_an_end_without_words_is_an_end() -> None:
    """The same where nothing had been said."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        control.send(ours, {"pid": 7})
        theirs.close()
        assert control.receive(ours) == ({}, [])
