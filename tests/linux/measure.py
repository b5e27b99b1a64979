"""Time the reading of many namespaces from one thread: `python -m tests.linux.measure [N]`, as root.

Printed are milliseconds for all of them: of the wall clock, and of this thread's processor time, which other work on the
machine disturbs less. The floor is the kernel's own: the same questions, answers thrown away.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import ExitStack
from struct import pack
from typing import TYPE_CHECKING

from doctor.linux import namespaces, nfnetlink, rtnetlink, sock_diag
from doctor.linux.routes import read_route, read_rule
from tests.linux.spaces import Space, space

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 10
QUESTIONS = ((18, rtnetlink._LINKS), (22, bytes(8)), (26, bytes(12)), (30, bytes(12)), (34, bytes(12)))


def floor() -> None:
    """Ask what `read` asks, and look only for the end of each answer."""
    buffer = bytearray(1 << 16)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asked:
        for kind, body in QUESTIONS:
            asked.send(pack("=IHHII", 16 + len(body), kind, 0x301, 1, 0) + body)
            ended = False
            while not ended:
                size, at = asked.recv_into(buffer), 0
                while at < size:
                    ended = buffer[at + 4] == 3
                    at += int.from_bytes(buffer[at : at + 4], sys.byteorder) + 3 & ~3


def read() -> None:
    """Read links, addresses, routes, rules and neighbours."""
    with rtnetlink.Route(timeout=1) as route:
        route.links()
        route.routes()
        route.rules()
        route.neighbours()


def measure(spaces: list[Space]) -> None:
    """Print the best round of each."""
    work: dict[str, Callable[[], object]] = {
        "enter": lambda: None,
        "floor": floor,
        "rtnetlink": read,
        "listeners": lambda: sock_diag.listeners(timeout=1),
        "nft tables": lambda: nfnetlink.tables(timeout=1),
    }
    for name, function in work.items():
        rounds = []
        for _ in range(ROUNDS):
            read_route.cache_clear()
            read_rule.cache_clear()
            wall, cpu = time.perf_counter(), time.thread_time()
            for one in spaces:
                namespaces.enter(one.path)
                function()
            rounds.append((time.perf_counter() - wall, time.thread_time() - cpu))
        wall, cpu = (min(column) * 1000 for column in zip(*rounds, strict=True))
        sys.stdout.write(f"{name:12} {wall:6.1f} ms wall {cpu:6.1f} ms processor\n")


def main() -> None:
    """Make the namespaces, a veth each into a common one, and measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with ExitStack() as stack:
        hub = stack.enter_context(space())
        spaces = [stack.enter_context(space()) for _ in range(count)]
        for number, one in enumerate(spaces):
            net = f"10.{number >> 8}.{number & 255}"
            hub.ip(f"link add v{number} type veth peer name eth0 netns {one.path}", f"link set v{number} up")
            one.ip("link set eth0 up", f"addr add {net}.2/24 brd + dev eth0", f"route add default via {net}.1")
        time.sleep(2)  # the kernel gives link-local addresses
        thread = threading.Thread(target=measure, args=(spaces,))
        thread.start()
        thread.join()


if __name__ == "__main__":
    main()
