"""Whether a container knows and reaches itself: its lo, its hosts file, its name."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.checks.dns import unread
from doctor.facts.containers import Container, Containers
from doctor.facts.links import Namespaces
from doctor.facts.name_files import NameFiles, Names
from doctor.facts.processes import Processes
from doctor.model import (
    Citation,
    Command,
    Effect,
    Excluded,
    Finding,
    NotApplicable,
    Remedy,
    Severity,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check


@check("NET045", Severity.WARNING)
def container_unknown_to_itself(
    files: NameFiles, containers: Containers, processes: Processes, namespaces: Namespaces | None
) -> Iterator[Yield]:
    """A container does not reach or know itself: lo is down, or hosts or hostname is wrong.

    ## What it is
    dockerd writes the container's address and host name into its /etc/hosts, and the name
    into /etc/hostname; both are files on the host, mounted into it. Its own addresses, 127.0.0.1
    and the nameserver 127.0.0.11, are on its lo.
    ## What you see
    hostname -i fails or gives an old address; programs that look up their own name (Java,
    databases, clusters) wait, fail, or announce a wrong address. With lo down, health checks on
    localhost and, on networks of the user, every name: timeout.
    ## By hand
    docker exec NAME cat /etc/hosts /etc/hostname; nsenter -t PID -n ip -br link show lo
    docker inspect NAME -f '{{.HostsPath}} {{.Config.Hostname}} {{json .NetworkSettings.Networks}}'
    ## Cure
    Write the line in place with tee: sed -i makes another file, which the container does not
    see. Nothing stops. Set lo up in its namespace.
    ## Looks like
    NET041 (the alias of a link), NET012 (its link into the network is gone)
    ## Limits
    Files mounted over them, and containers that share another's network, are not judged.
    ## References
    hosts(5), moby libnetwork/etchosts, daemon/container_operations_unix.go
    """
    judged = False
    for container in containers.running:
        yield from _lo(container, processes, namespaces)
        names = files.containers.get(container.id)
        addresses = [end.address or end.address6 for end in container.endpoints if end.address or end.address6]
        if names is None or not addresses:
            continue
        if names.hosts is None:
            if names.resolv.missing and not names.resolv.absent and names.resolv.missing != "mounted":
                yield Unknown(container.name, unread(names))
            continue
        judged = True
        hostname = container.asked.hostname
        if not any(address in names.hosts for address in addresses):
            yield _not_in_hosts(container, names, addresses[0])
        if (
            hostname
            and names.hostname is not None
            and names.hostname.strip().partition(".")[0] != hostname.partition(".")[0]
        ):
            yield _other_hostname(container, names)
    if not judged and not containers.running:
        yield NotApplicable("no container runs")


def _lo(container: Container, processes: Processes, namespaces: Namespaces | None) -> Iterator[Finding]:
    """Judge the link by which a container reaches itself; whoever shares its namespace is told of by its owner."""
    process = processes.by_pid.get(container.pid)
    shared = container.network_mode == "host" or container.network_mode.startswith("container:")
    if namespaces is None or process is None or shared or container.asked.own_kernel:
        return
    space = namespaces.by_inode.get(process.net)
    lo = next((one for one in space.links if one.name == "lo"), None) if space is not None else None
    if lo is None or lo.up:
        return
    names = any(end.network not in {"bridge", "none"} for end in container.endpoints)
    yield Finding(
        subject=f"{container.name}:lo",
        scope=container.scope,
        title=f"lo of {container.name} is down: it does not reach itself",
        message=f"the link lo in the network namespace of {container.name} is down: nothing answers on 127.0.0.1"
        + (", and on 127.0.0.11, where it asks for names" if names else ""),
        evidence=(lo.cited, container.cited),
        remedy=Remedy(
            "set it up",
            (Command(("nsenter", "-t", str(container.pid), "-n", "ip", "link", "set", "lo", "up")),),
            undo=(Command(("nsenter", "-t", str(container.pid), "-n", "ip", "link", "set", "lo", "down")),),
        ),
        severity=Severity.ERROR,
        hits=(
            Effect(f"{container.name} reaches nothing on localhost: health checks, its own servers"),
            *((Effect(f"{container.name} resolves no name"),) if names else ()),
        ),
        works=(Effect(f"{container.name}, by its address"),) if container.endpoints else (),
        excluded=(Excluded("NET044", "the rules of its nameserver are not in the way"),) if names else (),
    )


def _not_in_hosts(container: Container, names: Names, address: str) -> Finding:
    hostname = container.asked.hostname or container.id[:12]
    stale = [line for line, _, called in names.entries() if hostname in called]
    lines = (names.hosts or "").split("\n")
    step: Step
    if stale and "«" not in (names.hosts or ""):
        lines[stale[0] - 1] = f"{address}\t{hostname}"
        step = Command(("tee", names.hosts_path), stdin="\n".join(lines))
    else:
        step = Command(("tee", "-a", names.hosts_path), stdin=f"{address}\t{hostname}\n")
    says = f"calls {hostname} {_address_of(names, stale[0])}" if stale else f"has no line for {hostname}"
    return Finding(
        subject=f"{container.name}:hosts",
        title=f"{container.name} does not know its own address",
        message=f"/etc/hosts of {container.name} {says}; its address is {address}",
        evidence=(names.cite(stale[0] if stale else 0), container.cited),
        remedy=Remedy("write the line, in place", (step,)),
        hits=(Effect(f"programs in {container.name} that look up their own name fail or use a wrong address"),),
    )


def _address_of(names: Names, line: int) -> str:
    return next((address for number, address, _ in names.entries() if number == line), "")


def _other_hostname(container: Container, names: Names) -> Finding:
    says = (names.hostname or "").strip() or "nothing"
    hostname = container.asked.hostname
    return Finding(
        subject=f"{container.name}:hostname",
        title=f"/etc/hostname of {container.name} says {says}",
        message=f"/etc/hostname of {container.name} says {says}; its host name is {hostname}",
        evidence=(
            Citation(names.hostname_record, 1, says, f"{names.hostname_path}:1"),
            container.cite(f"Hostname {hostname}"),
        ),
        remedy=Remedy("write it, in place", (Command(("tee", names.hostname_path), stdin=f"{hostname}\n"),)),
        hits=(Effect(f"programs in {container.name} that read /etc/hostname take it for another host"),),
    )
