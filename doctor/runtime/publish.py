"""Published ports of containers: which are taken, who serves them, and how they are given back.

Source: moby `libnetwork/drivers/bridge/port_mapping_linux.go` (29: below `daemon/`).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor.runtime import ports, proxy
from doctor.runtime.allocation import NEW_MACS, NetworkError, release
from doctor.runtime.bridge import OPTION
from doctor.runtime.firewall import on, ways_out
from doctor.runtime.model import Bound, Publish
from doctor.runtime.names import exposed
from doctor.runtime.ports import Held, PortAllocator, PortError

if TYPE_CHECKING:
    from doctor.runtime.model import Container, Endpoint, World

_ALL = "0.0.0.0"  # noqa: S104 - what the engine binds to


class Publisher:
    """The published ports of one daemon. Proxies are started when the network of their container is."""

    def __init__(self, world: World, path: str) -> None:
        """Start with none; `path` is what the command line of a proxy says that it is."""
        self._world, self._path = world, path
        self._classic = release(world.settings) < NEW_MACS
        self._allocator = PortAllocator(classic=self._classic)
        self._held: dict[str, list[Held]] = {}
        self._waiting: list[tuple[str, Held]] = []

    @property
    def proxied(self) -> bool:
        """Whether docker-proxy serves published ports, beside the rules."""
        return on(self._world.settings.values, "userland-proxy", default=True)

    def publish(self, container: Container) -> Container:
        """Take the container's published ports. Raises NetworkError."""
        way4, way6 = ways_out(self._world, container)
        way = way4 or way6
        wanted = list(container.spec.publish)
        if container.spec.publish_all:
            asked = {(one.port, one.protocol) for one in wanted}
            wanted += [
                Publish(number, protocol) for number, protocol in exposed(container) if (number, protocol) not in asked
            ]
        if way is None or not wanted:
            return container
        held = self._held.setdefault(container.id, [])
        bound: list[Bound] = []
        for one in ports.ordered(wanted, classic=self._classic):
            try:
                bound += self._bind(one, way4, way6, held)
            except PortError as error:
                words = f"driver failed programming external connectivity on endpoint {container.spec.name} ({way.id}): {error}"
                raise NetworkError(words) from error
        container = replace(container, ports=tuple(bound))
        self._world.containers[container.id] = container
        if self.proxied:
            self._waiting += [(container.id, one) for one in held if one.holder is not None]
        return container

    def _bind(self, wanted: Publish, way4: Endpoint | None, way6: Endpoint | None, held: list[Held]) -> list[Bound]:
        """Take one published port, of each address that it is published on."""
        found = []
        free: list[str] = []
        for address in self._addresses(wanted, way4 or way6):
            way = way6 if ":" in address and way6 is not None else way4
            if way is None or (":" in address and not way.address6 and not self.proxied):
                continue
            if self._routed(way, address):
                found.append(Bound(wanted.port, wanted.protocol, address, 0))
            else:
                free.append(address)
        if free:
            target = next((way.address for way in (way4, way6) if way is not None), "")
            taken = self._allocator.publish(wanted, tuple(free), target)
            held += taken
            found += [Bound(one.port, one.protocol, one.address, one.number) for one in taken]
        return found

    def _addresses(self, wanted: Publish, way: Endpoint | None) -> tuple[str, ...]:
        if wanted.host_ip:
            return (wanted.host_ip,)
        network = self._world.networks[way.network_id] if way else None
        told = network.spec.options.get(OPTION + "host_binding_ipv4", "") if network else ""
        told = told or str(self._world.settings.values.get("ip") or _ALL)
        if told != _ALL:
            return (told,)
        return (_ALL, "::") if ports.has_ipv6() else (_ALL,)

    def _routed(self, way: Endpoint, address: str) -> bool:
        """Whether addresses are routed to the container, so that no port of the host is needed."""
        options = self._world.networks[way.network_id].spec.options
        return options.get(OPTION + ("gateway_mode_ipv6" if ":" in address else "gateway_mode_ipv4")) == "routed"

    def unpublish(self, container_id: str) -> None:
        """Give a container's ports back, and end its proxies."""
        self._waiting = [one for one in self._waiting if one[0] != container_id]
        container = self._world.containers.get(container_id)
        for one in container.ports if container else ():
            if one.proxy:
                _end(one.proxy)
        self._allocator.release(self._held.pop(container_id, []))

    def restore(self, container: Container) -> None:
        """Take a running container's ports over from an earlier run of the daemon; one that cannot be held is left to it."""
        held = [Held(one.port, one.protocol, one.host_ip, one.host_port) for one in container.ports if one.host_port]
        for one in held:
            self._allocator.restore(one.address, one.protocol, one.number)
            with suppress(OSError):
                one.holder = ports.bind(one.protocol, one.address, one.number)
        self._held[container.id] = held
        if self.proxied:
            self._waiting += [(container.id, one) for one in held if one.holder is not None]

    def close(self) -> None:
        """Give everything back."""
        for container_id in list(self._held):
            self.unpublish(container_id)

    def start_proxies(self) -> None:
        """Fork the proxies that were waited with; what they serve is theirs from then on. Raises OSError."""
        wanted, self._waiting = self._waiting, []
        for container_id, held in wanted:
            self._start_proxy(container_id, held)

    def _start_proxy(self, container_id: str, held: Held) -> None:
        container = self._world.containers[container_id]
        way4, way6 = ways_out(self._world, container)
        target = (
            way6.address6 if way6 is not None and ":" in held.address else (way4.address if way4 is not None else "")
        )
        if held.holder is None or not target:
            return
        one = proxy.Proxied(held.protocol, held.address, held.number, target, held.port, held.holder.fileno())
        pid = proxy.start(one, proxy.command_line(one, self._path, classic=self._classic))
        held.close()
        bound = tuple(
            replace(port, proxy=pid)
            if (port.port, port.protocol, port.host_ip, port.host_port)
            == (held.port, held.protocol, held.address, held.number)
            else port
            for port in container.ports
        )
        self._world.containers[container_id] = replace(container, ports=bound)


def _end(pid: int) -> None:
    """End a child and reap it."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
