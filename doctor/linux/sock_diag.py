"""Who listens in a network namespace: TCP in LISTEN and UDP without a peer, in the words of `ss -Htulne`.

Three dumps of sock_diag(7); a line a socket, single spaces, sorted:

    tcp LISTEN 0 128 127.0.0.1:2024 0.0.0.0:* uid:33 ino:1684 sk:12fe
    udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:* ino:1720 sk:2003 v6only:1

Asking loads the modules inet_diag, tcp_diag and udp_diag where they are not there yet: whoever calls looks first.
"""

from __future__ import annotations

import socket
from struct import Struct, pack

from doctor.linux import netlink
from doctor.linux.attributes import address
from doctor.linux.netlink import head, values

_GETSOCK, _BY_FAMILY = 18, 20
_LISTEN, _CLOSE = 1 << 10, 1 << 7
_QUESTIONS = (
    # The older question leaves the family open; it knows TCP alone (linux/net/ipv4/inet_diag.c, inet_diag_dump_compat).
    ("tcp LISTEN", _GETSOCK, pack("=52xII", _LISTEN, 0)),
    ("udp UNCONN", _BY_FAMILY, pack("=BBBBI48x", socket.AF_INET, socket.IPPROTO_UDP, 0, 0, _CLOSE)),
    ("udp UNCONN", _BY_FAMILY, pack("=BBBBI48x", socket.AF_INET6, socket.IPPROTO_UDP, 0, 0, _CLOSE)),
)
"""How a line begins, and the dumps that give it: each walks through tables of the whole kernel, so they are few."""

_V6ONLY = 11
_ANY = "0.0.0.0"  # noqa: S104 - nothing is bound

# family, state, source port, source, index, cookie low and high, received, sent, uid, inode
_MESSAGE = Struct("=BBxx2s2x16s16xIII4xIIII")


def listeners(timeout: float) -> bytes:
    """Give the listening sockets of the calling thread's namespace. Raises OSError, within `timeout` seconds each."""
    found = []
    with netlink.Socket(netlink.SOCK_DIAG, timeout) as diag:
        for start, kind, request in _QUESTIONS:
            answer = diag.dump(kind, request, f"SOCK_DIAG {start}")
            found += [(start, *read_socket(payload, start)) for payload in answer]
    return "".join(f"{line}\n" for _, _, line in sorted(found)).encode()


def read_socket(payload: bytes, start: str) -> tuple[int, str]:
    """Decode one struct inet_diag_msg: its port, and its line. Raises MalformedError."""
    family, _, port, source, index, low, high, received, sent, uid, inode = head(_MESSAGE, payload)
    six = family == socket.AF_INET6
    extra = values(payload, _MESSAGE.size)
    only = extra.get(_V6ONLY)
    wild = six and only is not None and not any(only)
    local = _spell(source, six=six, wild=wild)
    zone = f"%{_device(index)}" if index else ""
    peer = "*" if wild else "[::]" if six else _ANY
    number = int.from_bytes(port, "big")
    parts = [start, str(received), str(sent), f"{local}{zone}:{number}", f"{peer}:*"]
    if uid:
        parts.append(f"uid:{uid}")
    parts += [f"ino:{inode}", f"sk:{high << 32 | low:x}"]
    if only is not None:
        parts.append(f"v6only:{1 if any(only) else 0}")
    return number, " ".join(parts)


def _spell(source: bytes, *, six: bool, wild: bool) -> str:
    """Spell a local address; `*` listens on every address of both families."""
    if not six:
        return address(source[:4])
    return "*" if wild and not any(source) else f"[{address(source)}]"


def _device(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"if{index}"
