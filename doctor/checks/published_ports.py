"""Published ports: is the port of the host to be had, is its address here, and does anybody in the container listen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doctor.facts.clock import Clock
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.daemon import Daemon
from doctor.facts.embedded_dns import InnerRules
from doctor.facts.name_files import EMBEDDED
from doctor.facts.proxies import Proxies
from doctor.facts.sockets import Listener, Sockets
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Unknown,
    Yield,
)
from doctor.registry import check

STARTING = 30.0
"""Seconds within which a container may still be on its way to listening."""

_BUSY = ("port is already allocated", "address already in use")


def overlap(one: str, other: str) -> bool:
    """Whether two addresses of published ports cannot be had at once; an empty one is any of IPv4."""
    first, second = one or "0.0.0.0", other or "0.0.0.0"  # noqa: S104 - nothing is bound
    if (":" in first) != (":" in second):
        return False
    return first == second or "0.0.0.0" in {first, second} or "::" in {first, second}  # noqa: S104 - as above


def spelled(port: Port) -> str:
    """Spell the host's side of a published port: 8080, 127.0.0.1:8080, 53/udp."""
    address = "" if port.host_ip in {"", "0.0.0.0", "::"} else f"{port.host_ip}:"  # noqa: S104 - nothing is bound
    if ":" in port.host_ip and address:
        address = f"[{port.host_ip}]:"
    return f"{address}{port.host}" + ("" if port.protocol == "tcp" else f"/{port.protocol}")


def leading(users: Iterable[Container], version: int = 0, *, outside: bool = False) -> tuple[str, ...]:
    """Name the published ports of containers, `8080 -> web1`, each once: of one version of IP, or of both (0).

    `outside` leaves out those that only this host reaches.
    """
    return tuple(
        dict.fromkeys(
            f"{port.host} -> {one.name}"
            for one in users
            for port in one.ports
            if version in {0, 6 if ":" in port.host_ip else 4}
            and not (outside and (port.host_ip.startswith("127.") or port.host_ip == "::1"))
        )
    )


@check(
    "NET037",
    Severity.ERROR,
    says=(
        "Bind for ADDRESS failed: port is already allocated",
        "failed to bind host port ... address already in use",
        "listen tcp4 ... bind: address already in use",
        "listen ... bind: address already in use",
        "Failed to bind: EADDRINUSE",
        "unexpected error (Failure EADDRINUSE)",
    ),
)
def port_taken(
    containers: Containers, sockets: Sockets, proxies: Proxies, options: Options, daemon: Daemon
) -> Iterator[Yield]:
    """A port that a container wants to publish is held by somebody else.

    ## What it is
    A port and address of the host can be listened on once. dockerd refuses to start a
    container whose published port is held by a process of the host or another container.
    ## What you see
    "address already in use" (a process holds it) or "port is already allocated" (Docker
    itself gave it away) when the container starts; then it stays down.
    ## By hand
    docker inspect NAME -f '{{.State.Error}} {{json .HostConfig.PortBindings}}'
    ss -ltnp
    ## Cure
    Decide who keeps the port: stop the other one, or publish another port by making the
    container anew. Then docker start NAME. Only a person can decide that.
    ## Looks like
    NET038 (a docker-proxy without its container holds it), NET059 (no such address here)
    ## Limits
    A stopped container is judged by why its last start failed, and only while the port is
    still held. Whose process it is, is not read: ss -ltnp as root says so.
    ## References
    bind(2), moby libnetwork/portallocator, libnetwork/drivers/bridge/port_mapping_linux.go
    """
    if daemon.rootless:
        yield NotApplicable("dockerd runs rootless: its ports are in a namespace of its own")
        return
    if sockets.missing:
        yield Unknown("host", f"listeners of the host: {sockets.missing}")
        return
    for container in containers.all:
        if not container.running and any(words in container.asked.error for words in _BUSY):
            yield from _kept_down(container, containers, sockets, proxies)
    if options.known("userland-proxy") and options.on("userland-proxy"):
        for container in containers.running:
            yield from _captured(container, sockets, proxies)


def _kept_down(container: Container, containers: Containers, sockets: Sockets, proxies: Proxies) -> Iterator[Finding]:
    for port in {spelled(port): port for port in container.asked.ports}.values():
        held = (
            _by_container(port, container, containers)
            or _by_proxy(port, container, proxies)
            or _by_process(port, container, sockets)
        )
        if held is not None:
            yield _taken(container, port, *held)


_Holder = tuple[str, Citation, tuple[Command | Note, ...]]
"""Who holds a port, where that can be read, and what to do about it."""


def _by_container(port: Port, container: Container, containers: Containers) -> _Holder | None:
    for other in containers.running:
        for held in other.ports:
            if (held.host, held.protocol) == (port.host, port.protocol) and overlap(held.host_ip, port.host_ip):
                decide = f"decide: stop {other.engine_name}, or make {container.engine_name} anew with another port"
                fact = other.cite(f"{spelled(held)} -> {held.container}")
                return f"container {other.name} publishes it", fact, (Note(decide),)
    return None


def _by_proxy(port: Port, container: Container, proxies: Proxies) -> _Holder | None:
    for proxy in proxies.on(port.protocol, port.host):
        if overlap(proxy.host_ip, port.host_ip):
            steps = (Command(("kill", str(proxy.pid))), Command(("docker", "start", container.engine_name)))
            return f"docker-proxy (pid {proxy.pid}) holds it for no container", proxy.cited, steps
    return None


def _by_process(port: Port, container: Container, sockets: Sockets) -> _Holder | None:
    listener = _listener(port, sockets)
    if listener is None:
        return None
    decide = f"decide: stop that process and start {container.engine_name}, or publish another port"
    who = f"a process of the host (uid {listener.uid}) listens on {listener.address}:{listener.port}"
    return who, listener.cited, (_whose(port), Note(decide))


def _whose(port: Port) -> Command:
    """Ask whose socket it is."""
    return Command(("ss", "-Hlnp", f"--{port.protocol}", f"sport = :{port.host}"))


def _listener(port: Port, sockets: Sockets) -> Listener | None:
    return next(
        (
            one
            for one in sockets.host
            if (one.port, one.protocol) == (port.host, port.protocol) and one.overlaps(port.host_ip)
        ),
        None,
    )


def start_error(container: Container) -> Citation:
    """Cite why a container's last start failed, without what wraps the reason."""
    said = container.asked.error
    reason = said.rpartition("): ")[2] or said
    return container.cite(reason, f"State.Error of {container.engine_name}")


def _taken(container: Container, port: Port, who: str, fact: Citation, steps: tuple[Command | Note, ...]) -> Finding:
    return Finding(
        subject=f"{container.name}:{spelled(port)}",
        title=f"{container.name} does not start: port {spelled(port)} is taken",
        message=f"{container.name} wants port {spelled(port)}, and {who}",
        evidence=(start_error(container), fact),
        remedy=Remedy("decide who keeps the port", steps),
        hits=(Effect(f"{container.name} is down, and stays down"),),
        excluded=(Excluded("NET059", f"the address is one of this host's: {port.host_ip or 'any'}"),),
    )


def _captured(container: Container, sockets: Sockets, proxies: Proxies) -> Iterator[Finding]:
    """A running container's port is listened on by a process that is no docker-proxy: it got in while none was there."""
    seen: set[str] = set()
    for port in container.ports:
        listener = captor(port, sockets, proxies)
        if listener is None or spelled(port) in seen:
            continue
        seen.add(spelled(port))
        yield Finding(
            subject=f"{container.name}:{spelled(port)}",
            title=f"port {spelled(port)} of {container.name} is held by another process",
            message=f"{container.name} publishes {spelled(port)}, and a process of the host (uid {listener.uid}), no"
            f" docker-proxy, listens on {listener.address}:{listener.port}",
            evidence=(listener.cited, container.cited),
            remedy=Remedy(
                "find that process and end it, then restart the container",
                (
                    _whose(port),
                    Note(f"stop that process; then docker restart {container.engine_name} makes the docker-proxy anew"),
                ),
            ),
            hits=(
                Effect(f"from this host, {port.host} is that process, not {container.name}; it will not start again"),
            ),
            works=(Effect(f"from outside, as long as the rules lead to {container.name}"),),
        )


def captor(port: Port, sockets: Sockets, proxies: Proxies) -> Listener | None:
    """Give the socket that stands where the docker-proxy of a running container's port should be, if there is one.

    Where any docker-proxy holds the port there is none: one of another container, or of none, is NET038's question.
    """
    return None if proxies.on(port.protocol, port.host) else _listener(port, sockets)


@check(
    "NET058",
    Severity.ERROR,
    says=(
        "Failed to connect to ... port ...: Connection refused",
        "Connection reset by peer",
        "Empty reply from server",
    ),
)
def nobody_listens(containers: Containers, sockets: Sockets, inner: InnerRules, clock: Clock) -> Iterator[Yield]:
    """Nobody in the container listens where its published port leads.

    ## What it is
    A published port leads to one address and port of the container. The application has to
    listen there: on every address (0.0.0.0, ::), or on that one; 127.0.0.1 is not enough.
    ## What you see
    The port is refused from outside, and from this host connects and is reset (docker-proxy
    accepts first). Inside the container everything seems to work.
    ## By hand
    docker inspect NAME -f '{{.State.Pid}} {{json .NetworkSettings.Ports}}'
    nsenter -t PID -n ss -ltn
    ## Cure
    In the application: let it listen on 0.0.0.0, or publish the port that it listens on.
    Nothing on the host helps.
    ## Looks like
    NET021 (the rules are gone), NET038 (the docker-proxy is missing)
    ## Limits
    Listening on the wrong address is an error; on another port only, a warning; nothing at
    all is a note, but for the first 30 s. Not judged: rules inside, other runtimes.
    ## References
    ip(7), moby libnetwork/drivers/bridge/port_mapping_linux.go
    """
    judged = False
    for container in containers.running:
        targets = _targets(container)
        if not targets or container.asked.own_kernel:
            continue
        if container.id in sockets.unread:
            yield Unknown(container.name, f"listeners: {sockets.unread[container.id]}")
            continue
        listeners = sockets.containers.get(container.id)
        rules = inner.of(sockets.space.get(container.id, ""))
        if listeners is None or (rules is not None and rules.foreign):
            continue  # what its own rules do to a packet is not known here
        judged = True
        yield from _deaf(container, targets, listeners, clock)
    if not judged and not containers.running:
        yield NotApplicable("no container runs")


def _targets(container: Container) -> list[Port]:
    """Give one published port for each port of the container."""
    found: dict[tuple[int, str], Port] = {}
    for port in container.ports:
        found.setdefault((port.container, port.protocol), port)
    return [port for port in found.values() if port.protocol in {"tcp", "udp"}]


def _deaf(
    container: Container, targets: list[Port], listeners: tuple[Listener, ...], clock: Clock
) -> Iterator[Finding]:
    addresses = [end.address for end in container.endpoints if end.address]
    addresses += [end.address6 for end in container.endpoints if end.address6]
    if not addresses:
        return
    idle: list[Port] = []
    heard = False
    for port in targets:
        near = [one for one in listeners if (one.port, one.protocol) == (port.container, port.protocol)]
        if any(one.takes(address) for one in near for address in addresses):
            heard = True
        elif near:
            yield _wrong_address(container, port, near, addresses[0])
        elif port.protocol == "tcp":
            idle.append(port)
    if clock.collected_at - container.started < STARTING:
        return
    others = sorted({one.port for one in listeners if one.protocol == "tcp" and not one.loopback})
    for port in idle:
        yield _idle(container, port, [] if heard else others, listeners)


def _wrong_address(container: Container, port: Port, near: list[Listener], target: str) -> Finding:
    there = ", ".join(f"{one.address}:{one.port}" for one in near)
    return Finding(
        subject=f"{container.name}:{port.container}/{port.protocol}",
        title=f"{container.name} listens on {there} only; published is {target}:{port.container}",
        message=f"{spelled(port)} leads to {target}:{port.container} of {container.name}, which listens on {there} only",
        evidence=(*(one.cited for one in near), container.cited),
        remedy=Remedy(
            "in the application; nothing on the host helps",
            (
                Note(
                    f"let the application in {container.engine_name} listen on 0.0.0.0:{port.container}, not on {there}"
                ),
            ),
        ),
        hits=(Effect(f"{spelled(port)}: refused from outside; from this host it connects and is reset"),),
        works=(Effect(f"connections from inside of {container.name}"),),
    )


def _idle(container: Container, port: Port, others: list[int], listeners: tuple[Listener, ...]) -> Finding:
    tcp = sorted({one.port for one in listeners if one.protocol == "tcp" and one.address != EMBEDDED})
    there = ", ".join(map(str, tcp)) or "no port"
    record = listeners[0].cited.record if listeners else container.cited.record
    words = Citation(record, 0, f"listens on {there}", f"listeners of {container.engine_name}")
    published = spelled(port)
    note = (
        f"publish a port that it listens on: -p {port.host}:{others[0]}, by making {container.engine_name} anew"
        if others
        else f"see why nothing in {container.engine_name} listens on {port.container}: docker logs {container.engine_name}"
    )
    return Finding(
        subject=f"{container.name}:{port.container}/{port.protocol}",
        title=f"nothing in {container.name} listens on {port.container}, which {published} leads to",
        message=f"{published} leads to port {port.container} of {container.name}, which listens on {there}",
        evidence=(words, container.cited),
        remedy=Remedy("publish the port that it listens on, or let it listen", (Note(note),)),
        severity=Severity.WARNING if others else Severity.INFO,
        hits=(Effect(f"{published}: refused from outside; from this host it connects and is reset"),),
    )
