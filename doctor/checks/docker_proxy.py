"""The docker-proxy of each published port: there where it should be, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from doctor.checks.published_ports import captor, overlap, spelled
from doctor.facts.clock import Clock
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.daemon import Daemon, Starting
from doctor.facts.proxies import Proxies, Proxy
from doctor.facts.repairs import restart
from doctor.facts.sockets import Sockets
from doctor.model import Citation, Command, Effect, Excluded, Finding, NotApplicable, Remedy, Severity, Unknown, Yield
from doctor.registry import check

_ANEW = "dockerd makes its proxies anew"
YOUNG = 1.0
"""Seconds: a proxy that started later may belong to a container that came and went between the lists."""


@check(
    "NET038",
    Severity.ERROR,
    explains=("NET037",),
    says=(
        "Bind for ADDRESS failed: port is already allocated",
        "failed to bind host port ... address already in use",
        "listen ... bind: address already in use",
    ),
)
def docker_proxy_astray(
    containers: Containers,
    proxies: Proxies,
    sockets: Sockets,
    options: Options,
    daemon: Daemon,
    clock: Clock,
    starting: Starting,
) -> Iterator[Yield]:
    """A docker-proxy has no container, or a published port has no docker-proxy.

    ## What it is
    dockerd starts one docker-proxy for each published port and address (userland-proxy).
    One that outlives its container holds the port; one that died leaves the port without
    a listener for who does not come by the rules: this host, and containers by its address.
    ## What you see
    "port is already allocated" or "address already in use" for a port that nobody
    publishes. Or: from outside the port works, curl 127.0.0.1:PORT on the host is refused.
    ## By hand
    ps -o pid,ppid,args -C docker-proxy
    docker ps --format '{{.Names}} {{.Ports}}'
    ## Cure
    Left over: kill it by its pid, nothing stops. Missing: restart the container, which
    makes it anew.
    ## Looks like
    NET037 (another process or container holds the port), NET058 (nobody listens inside)
    ## Limits
    Left over is a warning until a container fails for it. One younger than a second, and all
    with rootless dockerd or while containers come and go, are not judged.
    ## References
    moby cmd/docker-proxy, libnetwork/portmapper
    """
    if daemon.rootless:
        yield NotApplicable("dockerd runs rootless: its proxies are in a namespace of its own")
        return
    if starting.why or not containers.complete:
        yield Unknown("docker-proxy", starting.why or "API: a container could not be read")
        return
    if containers.unsettled:
        yield NotApplicable("containers came or went meanwhile, and their proxies with them")
        return
    publishers = _publishers(containers)
    for proxy in proxies.all:
        owners = publishers.get((proxy.protocol, proxy.host, proxy.container), [])
        if not owners and proxy.started > clock.collected_at - YOUNG:
            continue  # its container is being started, or removed, between two looks
        if not owners:
            yield _left(proxy, containers)
        elif not any(_leads(proxy, one) for one in owners):
            yield _stale(proxy, owners[0])
    if not options.known("userland-proxy"):
        yield Unknown("userland-proxy", options.unread)
        return
    if not daemon.pid or not options.on("userland-proxy"):
        return
    for container in containers.running:
        missing = [port for port in container.ports if port.protocol != "sctp" and _lacks(port, proxies)]
        captured = {(port.host, port.protocol) for port in missing if captor(port, sockets, proxies)}
        missing = [port for port in missing if (port.host, port.protocol) not in captured]  # NET037 says so
        if missing and not proxies.unread:
            yield _missing(container, missing, daemon)


def _publishers(containers: Containers) -> dict[tuple[str, int, int], list[Container]]:
    """Give the containers that publish a port: protocol, the host's number, their own number.

    A stopped container lists no ports; one that does is on its way, and its proxy is not left over.
    """
    found: dict[tuple[str, int, int], list[Container]] = {}
    for one in containers.all:
        for key in {(port.protocol, port.host, port.container) for port in one.ports}:
            found.setdefault(key, []).append(one)
    return found


def _lacks(port: Port, proxies: Proxies) -> bool:
    """Whether no docker-proxy holds a port for it; two ports of a container share one of the host on other addresses."""
    return not any(
        one.container == port.container and overlap(one.host_ip, port.host_ip)
        for one in proxies.on(port.protocol, port.host)
    )


def _leads(proxy: Proxy, container: Container) -> bool:
    """Whether a proxy connects to its container; an address that belongs to no network we know may well be the one.

    Ports of a container on an overlay network are published by docker_gwbridge, whose endpoints inspect does not show.
    """
    known = [(end.address, end.prefix) for end in container.endpoints if end.address]
    known += [(end.address6, 64) for end in container.endpoints if end.address6]
    if not known or any(address == proxy.container_ip for address, _ in known):
        return True
    try:
        target = ip_address(proxy.container_ip)
        nets = [ip_network(f"{address}/{prefix}", strict=False) for address, prefix in known]
    except ValueError:
        return True
    return not any(target in net for net in nets if net.version == target.version)


def _subject(proxy: Proxy) -> str:
    address = f"[{proxy.host_ip}]" if ":" in proxy.host_ip else proxy.host_ip or "any"
    return f"docker-proxy:{address}:{proxy.host}" + ("" if proxy.protocol == "tcp" else f"/{proxy.protocol}")


def _left(proxy: Proxy, containers: Containers) -> Finding:
    name = f"{proxy.host}" + ("" if proxy.protocol == "tcp" else f"/{proxy.protocol}")
    kept = [
        one
        for one in containers.all
        if not one.running
        and one.asked.error
        and any(
            (port.host, port.protocol) == (proxy.host, proxy.protocol) and overlap(port.host_ip, proxy.host_ip)
            for port in one.asked.ports
        )
    ]
    parent = "its dockerd is gone" if proxy.parent == 1 else f"its parent is {proxy.parent}"
    return Finding(
        subject=_subject(proxy),
        title=f"a docker-proxy without a container holds port {name}",
        message=f"docker-proxy (pid {proxy.pid}, {parent}) holds port {name} for {proxy.container_ip}:{proxy.container},"
        " and no running container publishes it",
        evidence=(
            proxy.cited,
            Citation(
                "api/containers" if containers.source == "API" else "proc/processes",
                0,
                f"no running container publishes {name}",
                "containers",
            ),
        ),
        remedy=Remedy(
            "end it",
            (
                Command(("kill", str(proxy.pid))),
                *(Command(("docker", "start", one.engine_name)) for one in kept),
            ),
        ),
        severity=Severity.ERROR if kept else Severity.WARNING,
        hits=(
            Effect(
                f"{', '.join(one.name for one in kept)} does not start"
                if kept
                else f"a container that publishes {name} would not start"
            ),
        ),
        excluded=(Excluded("NET037", "it is a docker-proxy, no other process"),),
    )


def _stale(proxy: Proxy, owner: Container) -> Finding:
    now = next((end.address for end in owner.endpoints if end.address), "no address")
    return Finding(
        subject=_subject(proxy),
        title=f"the docker-proxy of {owner.name} leads to {proxy.container_ip}, where nobody is",
        message=f"docker-proxy (pid {proxy.pid}) leads port {proxy.host} to {proxy.container_ip}; {owner.name} has {now}",
        evidence=(proxy.cited, owner.cited),
        remedy=restart(owner, _ANEW),
        hits=(Effect(f"from this host, 127.0.0.1:{proxy.host} does not reach {owner.name}"),),
    )


def _missing(container: Container, ports: list[Port], daemon: Daemon) -> Finding:
    names = ", ".join(dict.fromkeys(spelled(port) for port in ports))
    return Finding(
        subject=container.name,
        title=f"no docker-proxy runs for port {names} of {container.name}",
        message=f"{container.name} publishes {names}, userland-proxy is on, and no docker-proxy listens there",
        evidence=(
            Citation("proc/processes", daemon.line, f"no docker-proxy for {names}", "processes"),
            container.cited,
        ),
        remedy=restart(container, _ANEW),
        hits=(
            Effect(f"on this host, 127.0.0.1:{ports[0].host} is refused; so is its own address from other networks"),
        ),
        works=(Effect("from outside, as long as the rules of nat are there"),),
        excluded=(Excluded("NET037", "nobody else listens on it"),),
    )
