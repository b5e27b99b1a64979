"""The rules of a container's own namespace that lead to the embedded DNS.

Containers that start together have the same ones: their sockets take the same two ports, each in its own namespace. So the
engine's program writes those of the first, while links are made, and they are copied into the others.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from doctor.engine.rules import native
from doctor.linux import nftcopy
from doctor.runtime import firewall, restore
from doctor.runtime.bridge import visiting
from doctor.runtime.restore import RestoreError

if TYPE_CHECKING:
    from types import TracebackType

    from doctor.runtime.model import World
    from doctor.runtime.restore import Running

_SECONDS = 5.0
_LOWEST, _EACH = 32768, 14000
"""Ports of TCP from the lowest on, and those of UDP behind them: where the kernel would take them from, too."""


class Alike:
    """The rules of the first of some containers, which the others are to have as well."""

    def __init__(self, world: World, namespace: int, home: int) -> None:
        """Start to write them in a namespace; both are descriptors. Raises OSError."""
        self.ports = _LOWEST + secrets.randbelow(_EACH), _LOWEST + _EACH + secrets.randbelow(_EACH)
        """Of TCP and UDP: where the sockets of all of them are to be."""
        self._first, self._home = namespace, home
        self._copy = b""
        self._running: Running | None = None
        with visiting(namespace, home), suppress(RestoreError):
            self._running = start(world, *self.ports)

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the program, whatever else went wrong."""
        self.finish(copy=False)

    def finish(self, *, copy: bool) -> None:
        """Wait until they are written, or refused; with `copy` they are read, to be copied."""
        running, self._running = self._running, None
        if running is None:
            return
        # Nothing to copy where iptables is the old one, or something else was there: each gets a program of its own.
        with suppress(OSError, RestoreError, nftcopy.ForeignError):
            restore.finish(running)
            if copy:
                with visiting(self._first, self._home):
                    self._copy = nftcopy.read(_SECONDS)

    def wrote(self, namespace: int) -> bool:
        """Whether it is the namespace in which the program wrote them."""
        return namespace == self._first

    def given(self, namespace: int) -> bool:
        """Whether a namespace, in which the thread is, has the rules now."""
        if self.wrote(namespace):
            return True
        if not self._copy:
            return False
        try:
            nftcopy.write(self._copy, _SECONDS)
        except OSError:
            return False
        return True


def start(world: World, tcp: int, udp: int, *, again: bool = False) -> Running:
    """Start to write the rules that lead to the embedded DNS, in the namespace that the thread is in. Raises RestoreError.

    `again`: they are there already, and lead to other ports.
    """
    if firewall.is_native(world):
        return restore.start(("nft", "-f", "-"), native.whole(native.resolver(tcp, udp)))
    return restore.start(("iptables-restore", *firewall.OPTIONS), rules(tcp, udp, again=again))


def rules(tcp: int, udp: int, *, again: bool = False) -> str:
    """Print those rules as input of iptables-restore; the chains are emptied where they are there.

    Source: moby `libnetwork/resolver_unix.go`; 20.10.24, 26.1.5 and 28.5.2 write the same.
    """
    lines = [
        "*nat",
        ":DOCKER_OUTPUT - [0:0]",
        ":DOCKER_POSTROUTING - [0:0]",
    ]
    if not again:
        lines += [
            "-I OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT",
            "-I POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING",
        ]
    for protocol, number in (("tcp", tcp), ("udp", udp)):
        match = f"-p {protocol} -m {protocol}"
        lines.append(
            f"-A DOCKER_OUTPUT -d 127.0.0.11/32 {match} --dport 53 -j DNAT --to-destination 127.0.0.11:{number}"
        )
    for protocol, number in (("tcp", tcp), ("udp", udp)):
        match = f"-p {protocol} -m {protocol}"
        lines.append(f"-A DOCKER_POSTROUTING -s 127.0.0.11/32 {match} --sport {number} -j SNAT --to-source :53")
    return "".join(f"{line}\n" for line in [*lines, "COMMIT"])
