"""Who on this host can do what the engine can: its group, its socket in containers, containers without walls."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.amounts import plural
from doctor.checks.published_ports import spelled
from doctor.facts.config import Options
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon
from doctor.facts.groups import DockerGroup
from doctor.facts.name_files import is_loopback
from doctor.model import (
    Command,
    Effect,
    Finding,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Yield,
)
from doctor.places import in_run
from doctor.registry import check

STRONG = {
    "ALL": "every capability",
    "SYS_ADMIN": "mounts, namespaces, and much else of the kernel",
    "SYS_MODULE": "code of its own in the kernel",
    "SYS_RAWIO": "ports and memory of the machine",
    "SYS_PTRACE": "the memory of processes it can see",
    "DAC_READ_SEARCH": "every file of the host's disks",
}
"""Capabilities that lead out of a container, and what they give."""

SOCKETS = ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")


def _wide(container: Container) -> str:
    """Say by what a stranger may come to a container; empty when nothing of it is published."""
    ports = list(dict.fromkeys(spelled(port) for port in container.ports if not is_loopback(port.host_ip)))
    return f"port {', '.join(ports)} of it is open to the network" if ports else ""


@check("SEC003", Severity.INFO)
def docker_group_is_root(group: DockerGroup) -> Iterator[Yield]:
    """Members of the group docker are root.

    ## What it is
    The group may open the socket, and who may ask the API can mount the host's disk into a
    container and change every file. There is no password, and no line in a log of sudo.
    ## What you see
    Nothing: it is how Docker is meant to be used without sudo.
    ## By hand
    getent group docker
    ## Cure
    Take out who need not be root: gpasswd -d USER docker; sessions that are open keep the
    group until they end. Rootless Docker needs no such group.
    ## Looks like
    SEC004 (the socket in a container)
    ## Limits
    Members by /etc/group: not who has it as primary group, nor members from LDAP.
    ## References
    group(5), docs.docker.com/engine/install/linux-postinstall
    """
    if group.gid < 0 and not group.members:
        yield NotApplicable("there is no group docker in /etc/group")
        return
    if not group.members:
        return
    many = len(group.members) > 1
    yield Finding(
        subject="docker",
        title=f"{', '.join(group.members)} can become root: {'members' if many else 'member'} of group docker",
        message=f"the group docker has {plural(len(group.members), 'member')}: {', '.join(group.members)}",
        evidence=(group.cited,),
        remedy=Remedy(
            "take out who need not be root",
            tuple(Command(("gpasswd", "-d", one, "docker")) for one in group.members),
            undo=tuple(Command(("gpasswd", "-a", one, "docker")) for one in group.members),
            notes=("sessions that are open keep the group until they end",),
        ),
        hits=(Effect("root by the API, without a password:", group.members),),
    )


@check("SEC004", Severity.INFO)
def engine_socket_in_container(containers: Containers, daemon: Daemon) -> Iterator[Yield]:
    """The engine's socket is mounted into a container.

    ## What it is
    A container that can open docker.sock or containerd.sock can start others with the
    host's disk mounted: it is root on the host. Mounting it read-only changes nothing.
    ## What you see
    Nothing. Dashboards, proxies and CI runners ask for it.
    ## By hand
    docker inspect NAME -f '{{json .Mounts}}'
    ## Cure
    Make the container anew without the mount, or give it a proxy that lets through only the
    GETs it needs.
    ## Looks like
    SEC005 (privileged), SEC001 (the API on TCP)
    ## Limits
    A note; a warning where a port of the container is open to the network. A socket inside
    a mounted directory counts. Whether the process in there may open it, is not tried.
    ## References
    docs.docker.com/engine/security
    """
    wanted = {*SOCKETS, daemon.socket}
    for container in containers.running:
        for source, inside in container.asked.binds:
            path = in_run(source)
            found = sorted(one for one in wanted if one == path or (path != "/" and one.startswith(path + "/")))
            if found or path == "/":
                yield _socket_inside(container, source, inside, "" if path in found or path == "/" else found[0])
                break
    if not containers.running:
        yield NotApplicable("no container runs")


def _socket_inside(container: Container, source: str, inside: str, within: str) -> Finding:
    wide = _wide(container)
    what = f"{source}, with {within} in it," if within else source
    reason = f", and {wide}" if wide else ""
    mount = container.cite(f"{source} -> {inside}", f"mounts of {container.engine_name}")
    return Finding(
        subject=container.name,
        title=f"{container.name} has the engine's socket: it is root on this host",
        message=f"{container.name} has {what} mounted at {inside}{reason}",
        evidence=(mount, container.cited),
        remedy=Remedy(
            "make it anew without the mount, or with a proxy that lets only GETs through",
            (
                Note(
                    f"make {container.engine_name} anew without -v {source}:{inside}, or behind a proxy for the socket"
                ),
            ),
        ),
        severity=Severity.WARNING if wide else Severity.INFO,
        hits=(Effect(f"whoever takes over {container.name} has this host" + (f": {wide}" if wide else "")),),
    )


@check("SEC005", Severity.INFO)
def container_without_walls(containers: Containers, options: Options) -> Iterator[Yield]:
    """A container is privileged, or has a capability that leads out of it.

    ## What it is
    privileged gives every capability and every device. SYS_ADMIN, SYS_MODULE, SYS_RAWIO,
    SYS_PTRACE and DAC_READ_SEARCH each lead out of a container by known ways.
    ## What you see
    Nothing. Docker in Docker, VPNs, monitoring and hardware ask for it.
    ## By hand
    docker inspect NAME -f '{{.HostConfig.Privileged}} {{json .HostConfig.CapAdd}}'
    ## Cure
    Make the container anew with what it needs and no more: --device for one device,
    --cap-add for one capability (NET_ADMIN is enough for most VPNs).
    ## Looks like
    SEC004 (the engine's socket inside)
    ## Limits
    A note; a warning where a port of the container is open to the network. With
    userns-remap, capabilities are not the host's: then only privileged is told.
    ## References
    capabilities(7), moby oci/caps
    """
    remapped = options.known("userns-remap") and bool(options.value("userns-remap"))
    for container in containers.running:
        asked = container.asked
        added = [one.removeprefix("CAP_") for one in asked.capabilities]
        strong = [] if remapped else [one for one in added if one in STRONG]
        if asked.privileged or strong:
            yield _unwalled(container, strong)
    if not containers.running:
        yield NotApplicable("no container runs")


def _unwalled(container: Container, strong: list[str]) -> Finding:
    wide = _wide(container)
    has = "is privileged" if container.asked.privileged else f"has {', '.join(strong)}"
    gives = "every capability and device" if container.asked.privileged else "; ".join(STRONG[one] for one in strong)
    words = "Privileged true" if container.asked.privileged else f"CapAdd {', '.join(strong)}"
    cited = container.cite(words, f"HostConfig of {container.engine_name}")
    return Finding(
        subject=container.name,
        title=f"{container.name} {has}: it leads out to this host",
        message=f"{container.name} {has} ({gives})" + (f", and {wide}" if wide else ""),
        evidence=(cited, container.cited),
        remedy=Remedy(
            "make it anew with what it needs and no more",
            (Note(f"make {container.engine_name} anew without it: --device and --cap-add for what it needs"),),
        ),
        severity=Severity.WARNING if wide else Severity.INFO,
        hits=(Effect(f"whoever is root in {container.name} has this host" + (f": {wide}" if wide else "")),),
    )
