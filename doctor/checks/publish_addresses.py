"""Ports that are published on an address: is it one of this host's?"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from doctor.checks.published_ports import spelled, start_error
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers, Port
from doctor.facts.daemon import Daemon
from doctor.facts.links import Links, Routes
from doctor.facts.networks import Network, Networks
from doctor.facts.sysctls import Sysctls
from doctor.model import Citation, Command, Effect, Excluded, Finding, NotApplicable, Note, Remedy, Severity, Yield
from doctor.registry import check

_NOT_HERE = "cannot assign requested address"


@check(
    "NET059",
    Severity.ERROR,
    says=(
        "bind: cannot assign requested address",
        "failed to bind host port ... cannot assign requested address",
    ),
)
def publish_address_not_here(
    containers: Containers,
    networks: Networks,
    links: Links,
    routes: Routes,
    sysctls: Sysctls,
    daemon: Daemon,
    options: Options | None,
) -> Iterator[Yield]:
    """A container, or a whole network, publishes ports on an address that this host does not have.

    ## What it is
    `-p ADDRESS:PORT:PORT` listens on one address of the host; `-p PORT:PORT` on that of the
    network, where it has one (`ip` of daemon.json for docker0). It has to be there when the
    container starts, and while it runs: a new lease or a moved virtual address takes it away.
    ## What you see
    "cannot assign requested address", and the container stays down; or it runs, and the
    port is reached by nobody.
    ## By hand
    ip -br address
    docker inspect NAME -f '{{.State.Error}} {{json .HostConfig.PortBindings}}'
    ## Cure
    Give the host the address back, or make the container anew with an address that it has; of
    `ip`: correct it, restart Docker. One that comes and goes: net.ipv4.ip_nonlocal_bind=1.
    ## Looks like
    NET037 (the port is taken), NET021 (the rules are gone)
    ## Limits
    With ip_nonlocal_bind on, an address that is elsewhere is meant to be: not judged.
    ## References
    bind(2), ip(7) ip_nonlocal_bind
    """
    if daemon.rootless:
        yield NotApplicable("dockerd runs rootless: its ports are in a namespace of its own")
        return
    bound = [(one, address) for one in networks.all if (address := one.option("host_binding_ipv4"))]
    if not containers.all and not bound:
        yield NotApplicable("no container is here")
    held = {address.partition("/")[0] for link in links.all for address in link.addresses}
    local = [route.dst for route in routes.all if route.type == "local"]
    for container in containers.all:
        failed = not container.running and _NOT_HERE in container.asked.error
        ports = container.ports if container.running else container.asked.ports if failed else ()
        for port in {spelled(port): port for port in ports}.values():
            address = port.host_ip
            if not address or address in held or _is_local(address, local):
                continue
            value = sysctls.values.get(f"ipv{6 if ':' in address else 4}/ip_nonlocal_bind")
            if container.running and value is not None and value.value == "1":
                continue
            yield _not_here(container, port, links, failed=failed)
    for network, address in bound:
        value = sysctls.values.get("ipv4/ip_nonlocal_bind")
        if address in held or _is_local(address, local) or (value is not None and value.value == "1"):
            continue
        users = [one for one in containers.all if any(end.network_id == network.id for end in one.endpoints)]
        if not any(port.host_ip == address for one in users for port in one.ports):  # else each has been told of
            yield _of_a_network(network, address, _without_address(containers, network), links, options)


def _without_address(containers: Containers, network: Network) -> tuple[Container, ...]:
    """Give those that did not start, and asked for a port on whatever address their network has."""
    names = {network.id, network.name, *(("default", "") if network.name == "bridge" else ())}
    return tuple(
        one
        for one in containers.all
        if not one.running
        and _NOT_HERE in one.asked.error
        and one.network_mode in names
        and any(not port.host_ip for port in one.asked.ports)
    )


def _is_local(address: str, local: list[str]) -> bool:
    try:
        wanted = ip_address(address)
        if wanted.is_loopback or wanted.is_unspecified:
            return True
        return any(wanted in ip_network(net, strict=False) for net in local if (":" in net) == (":" in address))
    except ValueError:
        return True  # what cannot be read is not judged


def _of_a_network(
    network: Network, address: str, down: tuple[Container, ...], links: Links, options: Options | None
) -> Finding:
    where = _addresses(links)
    origin = options.origin("ip") if options is not None and network.name == "bridge" else None
    again: tuple[Command, ...] = ()
    if down:
        again = (Command(("docker", "start", *(one.engine_name for one in down))),)
    change = (
        f"correct ip where it is set ({origin.where})" if origin is not None else "make the network anew without it"
    )
    return Finding(
        subject=f"network:{network.name}",
        title=f"network {network.name} publishes its ports on {address}: no address of this host",
        message=f"a port without an address of its own is published on {address} in network {network.name}, and no link"
        f" has that; this host has {where}",
        evidence=(
            *(start_error(one) for one in down[:2]),
            origin.cited if origin is not None else replace(network.cited, excerpt=f"host_binding_ipv4 {address}"),
            Citation(links.cited.record, 0, f"{len(links.all)} links, none with {address}", "links"),
        ),
        remedy=Remedy(
            "bring the address back, or correct it",
            (
                Note(
                    f"give this host {address} again (ip address add {address} dev DEVICE), or {change}"
                    + (" and restart Docker" if origin is not None else "")
                ),
                *again,
            ),
        ),
        severity=Severity.ERROR if down else Severity.WARNING,
        hits=(
            Effect(f"no container of network {network.name} starts that publishes a port without an address"),
            *((Effect("cannot be started", tuple(one.name for one in down)),) if down else ()),
        ),
        works=(Effect("containers that publish nothing"),),
        excluded=(Excluded("NET037", "it is not a port that is taken: the address is not here"),),
    )


def _addresses(links: Links) -> str:
    """Say which addresses this host has for others to reach it."""
    has = sorted(
        address.partition("/")[0]
        for link in links.all
        for address in link.addresses
        if link.kind != "bridge" and link.name != "lo" and not address.startswith("fe80:")
    )
    return ", ".join(has) or "no address"


def _not_here(container: Container, port: Port, links: Links, *, failed: bool) -> Finding:
    where = _addresses(links)
    if failed:
        fact = start_error(container)
        hit = f"{container.name} is down, and stays down"
    else:
        excerpt = f"{spelled(port)} -> {port.container}"
        fact = container.cite(excerpt)
        hit = f"nobody reaches {container.name} by {spelled(port)}; once stopped, it would not start again"
    again = f"; then docker start {container.engine_name}" if failed else ""
    return Finding(
        subject=f"{container.name}:{spelled(port)}",
        title=f"{container.name} publishes {spelled(port)}: no address of this host",
        message=f"{container.name} publishes {spelled(port)}, and no link has {port.host_ip}; this host has {where}",
        evidence=(fact, Citation(links.cited.record, 0, f"{len(links.all)} links, none with {port.host_ip}", "links")),
        remedy=Remedy(
            "bring the address back, or publish on another",
            (
                Note(
                    f"give this host {port.host_ip} again, or make {container.engine_name} anew with an address"
                    f" that it has ({where}){again}"
                ),
            ),
        ),
        hits=(Effect(hit),),
        excluded=(Excluded("NET037", "it is not the port that is taken: the address is not here"),),
    )
