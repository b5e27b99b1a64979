"""Listening sockets of the calling thread's namespace, a line each in the words of `ss -Htulne`.

Asking loads inet_diag, tcp_diag and udp_diag where they are modules: the caller sees to it that they are there.
Source: sock_diag(7), kernel `include/uapi/linux/inet_diag.h`.
"""

from __future__ import annotations

import socket
import struct

from doctor.linux.netlink import NETLINK_SOCK_DIAG, Netlink

_BY_FAMILY = 20
_LISTEN, _ALL = 1 << 10, 0xFFFFFFFF
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "[::]"}  # noqa: S104 - what ss prints


def listeners(timeout: float) -> bytes:
    """Give TCP sockets that listen and UDP sockets that are bound. Raises OSError."""
    lines = []
    with Netlink(NETLINK_SOCK_DIAG, timeout) as asked:
        for name, protocol, states in (("udp", socket.IPPROTO_UDP, _ALL), ("tcp", socket.IPPROTO_TCP, _LISTEN)):
            for family in (socket.AF_INET, socket.AF_INET6):
                body = struct.pack("=BBBBI48x", family, protocol, 0, 0, states)
                lines += [_line(name, payload) for _, payload in asked.dump(_BY_FAMILY, body) if len(payload) >= 72]  # noqa: PLR2004 - struct inet_diag_msg
    return "".join(lines).encode()


def _line(name: str, payload: bytes) -> str:
    family = payload[0]
    here, there = struct.unpack_from(">HH", payload, 4)
    size = 4 if family == socket.AF_INET else 16
    local = socket.inet_ntop(family, payload[8 : 8 + size])
    remote = socket.inet_ntop(family, payload[24 : 24 + size])
    index, low, high = struct.unpack_from("=III", payload, 40)
    _, received, sent, uid, inode = struct.unpack_from("=IIIII", payload, 52)
    state = "LISTEN" if name == "tcp" else "ESTAB" if there else "UNCONN"
    device = f"%{index}" if index else ""
    shown = f"[{local}]{device}" if family == socket.AF_INET6 else local + device
    peer = f"{f'[{remote}]' if family == socket.AF_INET6 else remote}:{there or '*'}"
    owner = f" uid:{uid}" if uid else ""
    return f"{name} {state} {received} {sent} {shown}:{here} {peer}{owner} ino:{inode} sk:{high << 32 | low:x}\n"
