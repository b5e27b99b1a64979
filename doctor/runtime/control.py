"""What the holder of a lab is asked, and how: one JSON object a message on a SOCK_SEQPACKET socket, descriptors beside it.

    {"do": "spawn", "argv": [...], "env": {}, "cwd": "/", "where": "host" | "outside", "tty": false}  and 0, 1, 2
    {"do": "builtin", ...}            the same: a function that the holder has, by argv[0]
        -> {"pid": 7}                 with the master of a terminal where one was asked for; later {"exit": 0}
    {"do": "kill", "signal": 15}      what this connection started, and its process group
    {"do": "service", "name": "docker", "action": "start" | "stop" | "restart" | "reload" | "status"}
    {"do": "about"}                   -> {"name": ..., "pid": ..., "outside": ..., "services": {...}}
    {"do": "detach"}, {"do": "down"}

An answer with "error" is the last one. A connection that ends takes along what it started.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 1 << 18
"""Bytes of a message: arguments and an environment."""

_DESCRIPTORS = 8
_CREDENTIALS = 12
_PREFIX = "doctor-lab"


def address(name: str, uid: int) -> str:
    """Give the abstract address of a lab's control socket (unix(7)): it is gone with the last who holds it."""
    return f"\0{_PREFIX}-{uid}-{name}"


def names(uid: int) -> list[str]:
    """List the labs of a user that run, by name, from the sockets of this network namespace."""
    start = f"@{_PREFIX}-{uid}-"
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no import for one name
        found = {line.rsplit(" ", 1)[-1].strip() for line in file}
    return sorted(name.removeprefix(start) for name in found if name.startswith(start))


def listen(place: str) -> socket.socket:
    """Listen at an abstract address, or at a path. Raises OSError: EADDRINUSE where it is taken."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.bind(place)
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock


def peer(sock: socket.socket) -> int:
    """Give the uid of who is at the other end, as this process sees it: who connected, or who listened (unix(7))."""
    return array.array("i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS))[1]


def is_owner(sock: socket.socket) -> bool:
    """Whether who is at the other end is root as this process sees it: root, or the user whose namespace this is."""
    return peer(sock) == 0


def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message; descriptors stay open here. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([json.dumps(message, separators=(",", ":")).encode()], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, limit: int = LIMIT) -> tuple[dict[str, Any], list[int]]:
    """Wait for a message of at most `limit` bytes; gives it, and the descriptors that came with it.

    An empty one: the other end is closed. Raises OSError, and ValueError for what is no message.
    """
    room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    try:
        try:
            data, extra, flags, _ = sock.recvmsg(limit, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The other end closed without reading all of ours. The kernel says so once, and before it hands over what was
            # said until then (net/core/datagram.c): its last words, mostly.
            data, extra, flags, _ = sock.recvmsg(limit, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return {}, []
    handles = array.array("i")
    for level, kind, body in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            handles.frombytes(body[: len(body) - len(body) % handles.itemsize])
    if not data:
        return {}, list(handles)
    try:
        message = json.loads(data)
        whole = isinstance(message, dict) and not flags & socket.MSG_TRUNC
    except ValueError:
        whole = False
    if not whole:
        for handle in handles:
            os.close(handle)
        raise ValueError("no message of this protocol")
    return message, list(handles)
