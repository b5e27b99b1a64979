"""The daemon's network controller, as libnetwork is the engine's.

Networks and containers of a World get links, addresses, rules, published ports and names.

It acts in the network namespace of the calling process, the host's, and visits those of containers. One thread. What it
makes it writes into the World: networks, and of containers their endpoints and ports.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from doctor.engine.rules import Family
from doctor.runtime import bridge, firewall, prepare, resolvers
from doctor.runtime.allocation import (
    NEW_MACS,
    NEW_WORDS,
    NetworkError,
    attachments,
    find,
    gateways,
    make_endpoint,
    make_network,
    names_of,
    release,
    unplugged,
)
from doctor.runtime.bridge import MTU, Plugged, Wire
from doctor.runtime.dns import EmbeddedDns
from doctor.runtime.firewall import Firewall, Joined, on
from doctor.runtime.lookup import served
from doctor.runtime.model import Attachment, Container, Endpoint, Network, NetworkSpec, World
from doctor.runtime.names import Upstream, upstreams
from doctor.runtime.process import small
from doctor.runtime.publish import Publisher
from doctor.runtime.resolvers import Alike
from doctor.runtime.restore import RestoreError, Running, finish_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doctor.engine.rules import Site

__all__ = ["NetworkController", "NetworkError"]

_OPEN = os.O_RDONLY | os.O_CLOEXEC


class _Late(Struct):
    """What a batch does at its end."""

    plugged: dict[str, Plugged]
    resolvers: dict[str, int]
    links: list[str]
    drops: list[Family] = []
    rules: bool = False
    networks: int = 0
    start: bool = False


class NetworkController:
    """The networks of one daemon."""

    def __init__(
        self,
        world: World,
        *,
        proxy: str = "/usr/bin/docker-proxy",
        resolv: str = "/etc/resolv.conf",
    ) -> None:
        """Start with nothing made. `resolv` is the host's resolv.conf, whose servers the embedded DNS asks."""
        self._world, self._resolv = world, resolv
        self._home = os.open("/proc/thread-self/ns/net", _OPEN)
        self._classic = release(world.settings) < NEW_MACS
        self._order: list[tuple[str, str]] = []
        self._publisher = Publisher(world, proxy)
        self._firewall = Firewall(world)
        self._dns = EmbeddedDns(world, self._home, silent=release(world.settings) < NEW_WORDS)
        self._late = _Late({}, {}, [])
        self._depth = 0

    # The daemon's loop

    def fileno(self) -> int:
        """Give the descriptor that is readable when the embedded DNS has work."""
        return self._dns.fileno()

    def work(self) -> None:
        """Let the embedded DNS work, without waiting."""
        self._dns.work()

    def timeout(self) -> float | None:
        """Give the seconds after which it wants to work in any case; None: it waits for nobody."""
        return self._dns.timeout()

    # Start and stop

    def start(self, default_id: str = "", created: str = "", *, more: bool = False) -> None:
        """Bring up what a start of dockerd brings up: sysctls, bridges, all rules in one restore a family.

        Containers that run already (live-restore) get their rules, ports and names again. `default_id` is the id of the
        network `bridge`, which is made anew at each start. `more`: networks and containers follow at once, and rules are
        loaded with those of the first containers, or by `finish`. Raises NetworkError.
        """
        drops = prepare.forward(self._world)
        prepare.default_network(self._world, default_id, created)
        made = [one for one in self._world.networks.values() if one.spec.driver == "bridge"]
        try:
            prepare.readdress(self._world)
            bridge.make(made, classic=self._classic)
        except OSError as error:
            raise NetworkError(f"Failed to program bridge: {error.filename}: {error.strerror}") from error
        for one in made:
            prepare.bridge_sysctls(self._world, one)
        running = [one for one in self._world.containers.values() if any(end.address for end in one.endpoints)]
        for container in sorted(running, key=lambda one: (one.started, one.spec.name)):
            self._restore(container)
        self._late.drops += drops
        self._late.start = True
        if not more:
            self.finish()

    def finish(self) -> None:
        """Do what was put off at the start, unless it is done. Raises NetworkError."""
        if self._late.start:
            self._finish()

    def stop(self) -> None:
        """End what is served from here: names and proxies. Links and rules stay, as the engine leaves them."""
        self._dns.close_all()
        self._publisher.close()
        os.close(self._home)

    def _restore(self, container: Container) -> None:
        """Take a running container over from an earlier run of the daemon."""
        self._order += [(container.id, end.network_id) for end in container.endpoints if end.address or end.address6]
        self._publisher.restore(container)
        if served(self._world, container) and container.sandbox:
            with suppress(OSError):
                namespace = os.open(container.sandbox, _OPEN)
                try:
                    finish_all(self._serve(container, namespace))
                finally:
                    os.close(namespace)

    # Networks

    def create_network(self, spec: NetworkSpec, identity: str, created: str) -> Network:
        """Make a network: its subnets, its bridge, its rules. Raises NetworkError."""
        made = make_network(self._world, spec, identity, created, bridge.routes())
        self._world.networks[made.id] = made
        if spec.driver != "bridge":
            return made
        try:
            if spec.ipv6:
                self._late.drops += prepare.forward(self._world)
            bridge.make([made], classic=self._classic)
            prepare.bridge_sysctls(self._world, made)
        except NetworkError:
            del self._world.networks[made.id]
            raise
        except OSError as error:
            del self._world.networks[made.id]
            raise NetworkError(f"Failed to program {error.filename}: {error.strerror}") from error
        self._late.rules = True
        self._late.networks += 1
        self._flush()
        return made

    def remove_network(self, identity: str) -> None:
        """Take a network away. Raises NetworkError while containers are in it."""
        network = self._world.networks[identity]
        active = [
            (one, end)
            for one in self._world.containers.values()
            for end in one.endpoints
            if end.network_id == identity and (end.address or end.address6)
        ]
        if active:
            if self._classic:
                raise NetworkError(f"network {network.spec.name} id {identity} has active endpoints")
            listed = ", ".join(f'name:"{one.spec.name}" id:"{end.id[:12]}"' for one, end in active)
            raise NetworkError(f"network {network.spec.name} has active endpoints ({listed})")
        del self._world.networks[identity]
        if network.bridge:
            self._late.links.append(network.bridge)
            self._late.rules = True
            self._flush()

    # Containers

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Put off what the kernel is told until the end: links of all in a few datagrams, all rules in one restore.

        Addresses, ports and the World are right at once. Raises NetworkError at its end.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._flush()

    def join(self, container_id: str, namespace: int | None) -> Container:
        """Give a container its networks; `namespace` is a descriptor of its network namespace, None where it has no own.

        Raises NetworkError, with nothing of it left.
        """
        container = self._world.containers[container_id]
        mode = container.spec.network_mode
        if mode == "host" or mode.startswith("container:") or namespace is None:
            return container
        if mode == "none":
            silent = release(self._world.settings) < NEW_WORDS
            self._late.plugged[container_id] = Plugged(os.dup(namespace), silent=silent)
            self._flush()
            return container
        try:
            container = self._allocate(container)
            container = self._publisher.publish(container)
        except NetworkError as error:
            self.leave(container_id)
            words = str(error)
            apart = self._classic or words.startswith("invalid config")
            raise NetworkError(words if apart else f"failed to set up container networking: {words}") from error
        wires = tuple(self._wire(end) for end in container.endpoints)
        silent = release(self._world.settings) < NEW_WORDS
        self._late.plugged[container_id] = Plugged(
            os.dup(namespace), wires, gateways(self._world, container), silent=silent
        )
        if served(self._world, container):
            self._late.resolvers[container_id] = namespace
        self._late.rules = True
        try:
            self._flush()
        except NetworkError:
            self.leave(container_id)
            raise
        return self._world.containers[container_id]

    def leave(self, container_id: str) -> Container:
        """Take a container out of its networks: it stopped, or could not start. Its endpoints keep their networks."""
        container = self._world.containers[container_id]
        self._forget_late(container_id)
        self._dns.close(container_id)
        self._publisher.unpublish(container_id)
        self._order = [one for one in self._order if one[0] != container_id]
        self._late.links += [end.veth for end in container.endpoints if end.veth]
        self._late.rules = self._late.rules or bool(container.endpoints)
        left = replace(container, endpoints=tuple(unplugged(end) for end in container.endpoints), ports=())
        self._world.containers[container_id] = left
        with suppress(NetworkError):
            self._flush()
        return left

    def connect(self, container_id: str, wanted: Attachment, namespace: int | None) -> Container:
        """Put a container into one more network; `namespace` None: it does not run. Raises NetworkError."""
        container = self._world.containers[container_id]
        network = find(self._world, wanted.network)
        if any(end.network_id == network.id for end in container.endpoints if end.address or namespace is None):
            raise NetworkError(
                f"endpoint with name {container.spec.name} already exists in network {network.spec.name}"
            )
        spec = replace(container.spec, networks=(*attachments(container), wanted))
        if namespace is None:
            end = Endpoint(network.id, "", names=names_of(container, wanted, release(self._world.settings)))
            self._world.containers[container_id] = replace(container, spec=spec, endpoints=(*container.endpoints, end))
            return self._world.containers[container_id]
        before = gateways(self._world, container)
        end = make_endpoint(self._world, container, network, wanted)
        container = replace(container, spec=spec, endpoints=(*container.endpoints, end))
        self._world.containers[container_id] = container
        self._order.append((container_id, network.id))
        new = not self._dns.has(container_id) and served(self._world, container)
        silent = bool(end.address6) and release(self._world.settings) < NEW_WORDS
        self._late.plugged[container_id] = Plugged(os.dup(namespace), (self._wire(end),), silent=silent)
        if new:
            self._late.resolvers[container_id] = namespace
        self._rewired(container_id, namespace, before)
        return self._world.containers[container_id]

    def disconnect(self, container_id: str, network_id: str, namespace: int | None) -> Container:
        """Take a container out of one network. Raises NetworkError."""
        container = self._world.containers[container_id]
        gone = next((end for end in container.endpoints if end.network_id == network_id), None)
        network = self._world.networks.get(network_id)
        if gone is None or network is None:
            raise NetworkError(f"container {container_id} is not connected to network {network_id}")
        kept = tuple(one for one in attachments(container) if find(self._world, one.network).id != network_id)
        before = gateways(self._world, container)
        container = replace(
            container,
            spec=replace(container.spec, networks=kept),
            endpoints=tuple(end for end in container.endpoints if end is not gone),
        )
        self._world.containers[container_id] = container
        self._order = [one for one in self._order if one != (container_id, network_id)]
        if gone.veth:
            self._late.links.append(gone.veth)
        if namespace is not None:
            self._rewired(container_id, namespace, before)
        return self._world.containers[container_id]

    def _rewired(self, container_id: str, namespace: int, before: tuple[str, ...]) -> None:
        """Let rules, ports and the default route follow a change of a running container's networks."""
        container = self._world.containers[container_id]
        after = gateways(self._world, container)
        if before != after and container.ports:
            self._publisher.unpublish(container_id)
            self._publisher.publish(container)
        self._late.rules = True
        self._flush()
        if before != after:
            with suppress(OSError):
                bridge.reroute(namespace, self._home, before, after)
        if self._dns.has(container_id):
            self._dns.change(container_id, self._upstreams(container), forwards=self._forwards(container))

    # Steps of joining

    def _allocate(self, container: Container) -> Container:
        """Give a container its endpoints, and note them. Raises NetworkError."""
        container = replace(container, endpoints=(), ports=())
        for wanted in attachments(container):
            network = find(self._world, wanted.network)
            end = make_endpoint(self._world, container, network, wanted)
            container = replace(container, endpoints=(*container.endpoints, end))
            self._world.containers[container.id] = container
            self._order.append((container.id, network.id))
        return container

    def _wire(self, end: Endpoint) -> Wire:
        network = self._world.networks[end.network_id]
        return Wire(
            end,
            network.bridge,
            mtu=int(network.spec.options.get(MTU) or self._world.settings.values.get("mtu") or 0),
            ipv6=bool(end.address6),
            hairpin=not on(self._world.settings.values, "userland-proxy", default=True),
        )

    def _forget_late(self, container_id: str) -> None:
        plugged = self._late.plugged.pop(container_id, None)
        if plugged is not None:
            os.close(plugged.namespace)
        self._late.resolvers.pop(container_id, None)

    # What is put off

    def _site(self) -> Site:
        return firewall.site(self._world, self._joined())

    def _joined(self) -> list[Joined]:
        found = []
        for container_id, network_id in self._order:
            container = self._world.containers.get(container_id)
            ends = container.endpoints if container else ()
            found += [(container, end) for end in ends if container and end.network_id == network_id]
        return found

    def _flush(self) -> None:
        """Do what was put off, unless a batch is open, or containers follow a start at once. Raises NetworkError."""
        if not self._depth and (self._late.plugged or not self._late.start):
            self._finish()

    def _finish(self) -> None:
        late, self._late = self._late, _Late({}, {}, [])
        try:
            if late.links:
                bridge.remove(late.links)
            if late.start:
                self._firewall.start(self._site(), late.drops)
            elif late.rules:
                self._firewall.update(self._site())
            self._plug(late)  # while rules are loaded
            self._publisher.start_proxies()
            self._firewall.wait()
            if not late.start:
                self._firewall.drop(late.drops)
            if late.networks:
                self._firewall.raise_jumps()
        except RestoreError as error:
            said = firewall.refused(
                self._world, error, late.plugged, proxy=self._publisher.proxied, classic=self._classic
            )
            raise NetworkError(said) from error
        except OSError as error:
            raise NetworkError(f"failed to set up sandbox: {error.filename or ''}: {error.strerror}") from error
        finally:
            for one in late.plugged.values():
                os.close(one.namespace)
            with suppress(RestoreError):
                self._firewall.wait()

    def _plug(self, late: _Late) -> None:
        """Give containers their links, and those that the embedded DNS serves their resolver. Raises OSError."""
        spaces = {one: late.plugged[one].namespace for one in late.resolvers}
        if not spaces:
            if late.plugged:
                bridge.plug(list(late.plugged.values()), self._home)
            return
        with Alike(self._world, next(iter(spaces.values())), self._home) as alike:
            bridge.plug(list(late.plugged.values()), self._home)
            alike.finish(copy=len(spaces) > 1)
            each = [self._serve(self._world.containers[one], held, alike) for one, held in spaces.items()]
            with suppress(RestoreError):  # names fail then, and connections do not
                finish_all([one for some in each for one in some])

    def _serve(self, container: Container, namespace: int, alike: Alike | None = None) -> list[Running]:
        """Open a container's embedded DNS; gives the program that writes the rules that lead to it, unless they are there.

        Without `alike` they are written anew: they lead to other ports. Raises OSError, RestoreError.
        """
        asked = self._upstreams(container)
        options = container.spec.dns_options or tuple(self._world.settings.values.get("dns-opts") or ())
        ndots = any(one.startswith("ndots:") and one != "ndots:0" for one in options)
        wanted = alike.ports if alike is not None else (0, 0)
        with bridge.visiting(namespace, self._home):
            ports = self._dns.open(
                container.id, namespace, asked, ndots=ndots, forwards=self._forwards(container), ports=wanted
            )
            if alike is not None and ports == alike.ports and alike.given(namespace):
                return []
            return [resolvers.start(self._world, *ports, again=alike is None or alike.wrote(namespace))]

    def _upstreams(self, container: Container) -> list[Upstream]:
        try:
            text = small(self._resolv)
        except OSError:
            text = ""
        return upstreams(self._world, container, text)

    def _forwards(self, container: Container) -> bool:
        """Whether names that are not known are asked of others: since 25 not where every network is internal."""
        if release(self._world.settings) < NEW_WORDS:
            return True
        ends = [
            self._world.networks[end.network_id]
            for end in container.endpoints
            if end.network_id in self._world.networks
        ]
        return any(not one.spec.internal for one in ends)
