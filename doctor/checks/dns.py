"""How names are resolved: by the host, by each container, and by dockerd for networks of the user."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.facts.config import ConfigFile, Options
from doctor.facts.containers import Container, Containers
from doctor.facts.daemon import Daemon, Starting
from doctor.facts.embedded_dns import InnerRules, Inside
from doctor.facts.name_files import DEFAULTS, EMBEDDED, STUB, NameFiles, Names
from doctor.facts.repairs import restart
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
from doctor.places import Places
from doctor.registry import check


def unread(names: Names) -> str:
    """Say why the files of containers are not known."""
    missing = names.resolv.missing
    return "store: the files of containers are root only" if "denied" in missing else f"store: {missing}"


def on_user_network(container: Container) -> bool:
    """Whether a container is on a network other than the default bridge, where dockerd answers names."""
    return any(end.network != "bridge" for end in container.endpoints)


def _fallen_back(container: Container, names: Names, files: NameFiles) -> bool:
    """Whether dockerd wrote its default servers because the host named none."""
    servers = set(names.resolv.servers)
    return bool(
        servers and servers <= DEFAULTS and not container.asked.dns and not servers & set(files.source.beyond)
    ) and not on_user_network(container)


@check(
    "NET042",
    Severity.WARNING,
    explains=("NET043",),
    says=(
        "No non-localhost DNS nameservers are left in resolv.conf",
        "Temporary failure in name resolution",
    ),
)
def host_names_no_reachable_resolver(
    files: NameFiles, containers: Containers, options: Options, daemon: Daemon
) -> Iterator[Yield]:
    """The host's resolv.conf names no server that a container could reach.

    ## What it is
    Containers on the default bridge get the host's nameservers. 127.0.0.1 (dnsmasq, unbound)
    is the container itself there, so dockerd leaves it out; when none remains it writes
    8.8.8.8 and 8.8.4.4. For 127.0.0.53 alone it reads the servers of systemd-resolved.
    ## What you see
    Names of your own network are unknown in containers; where 8.8.8.8 is blocked, every
    name is. The host itself resolves well. Networks of the user ask through dockerd.
    ## By hand
    cat /etc/resolv.conf
    docker exec NAME cat /etc/resolv.conf
    ## Cure
    Set dns in daemon.json to a server that containers reach (the resolver on docker0's
    address, or the company's), restart Docker, and make the containers anew.
    ## Looks like
    NET043 (one container's file), NET044 (dockerd's own DNS)
    ## Limits
    A note until a running container got the default servers. Whether they answer is not
    tried.
    ## References
    resolv.conf(5), moby libnetwork/resolvconf, systemd-resolved.service(8)
    """
    if files.host.missing and not files.host.absent:
        yield Unknown("/etc/resolv.conf", f"files: {files.host.path}: {files.host.missing}")
        return
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    if not options.known("dns"):
        yield Unknown("dns", options.unread)
        return
    if options.value("dns") or files.source.beyond:
        return
    hit = [
        one
        for one in containers.running
        if one.id in files.containers and _fallen_back(one, files.containers[one.id], files)
    ]
    evidence = [files.source.cited]
    if files.host.servers == (STUB,):
        evidence.append(files.behind_stub.cited)
    evidence += [files.containers[one.id].resolv.cited for one in hit[:3]]
    named = ", ".join(files.source.servers) or "none"
    where = f"{options.file['dns'].where}" if "dns" in options.file else "daemon.json"
    yield Finding(
        subject="resolv.conf",
        title="the host's resolv.conf names no server that a container could reach",
        message=f"{files.source.path} names {named}: containers on the default bridge are given 8.8.8.8 and 8.8.4.4",
        evidence=tuple(evidence),
        remedy=Remedy(
            "name a server that containers reach",
            (
                Note(
                    f'set "dns" in {where} to a server that answers containers (or mend {files.host.path}); after a'
                    " restart of Docker, containers of the default bridge have it once made anew or restarted"
                ),
            ),
        ),
        severity=Severity.WARNING if hit else Severity.INFO,
        hits=(
            Effect("ask Google's servers, not this host's:", tuple(one.name for one in hit))
            if hit
            else Effect("a container started on the default bridge would ask Google's servers, not this host's"),
        ),
        works=(Effect("names in containers on networks of the user: dockerd asks the host's server for them"),),
    )


@check(
    "NET043",
    Severity.ERROR,
    says=(
        "Temporary failure in name resolution",
        "lookup ... on 127.0.0.53:53",
    ),
)
def container_resolver_misplaced(
    files: NameFiles, containers: Containers, sockets: Sockets, options: Options | None, config: ConfigFile | None
) -> Iterator[Yield]:
    """A container's resolv.conf names the wrong servers for its network.

    ## What it is
    On a network of the user it has to name 127.0.0.11, where dockerd answers with the
    addresses of neighbours. On the default bridge it names the host's servers; 127.0.0.1
    is the container itself there, and 8.8.8.8 is what dockerd takes for want of any.
    ## What you see
    Names of neighbours are unknown, or every name is; addresses work.
    ## By hand
    docker exec NAME cat /etc/resolv.conf
    docker inspect NAME -f '{{.ResolvConfPath}} {{json .HostConfig.Dns}}'
    ## Cure
    Write the file in place (it is mounted: tee, not sed -i); nothing stops. What was given
    with --dns stays until the container is made anew.
    ## Looks like
    NET044 (127.0.0.11 is named and does not answer), NET042 (the host names none)
    ## Limits
    Without 127.0.0.11 a warning: it may be meant. A file mounted over it is not judged.
    ## References
    resolv.conf(5), moby libnetwork/internal/resolvconf
    """
    judged = False
    for container in containers.running:
        names = files.containers.get(container.id)
        if names is None or names.resolv.missing == "mounted" or names.resolv.absent:
            continue
        if names.resolv.missing:
            yield Unknown(container.name, unread(names))
            continue
        judged = True
        servers = names.resolv.servers
        if not container.endpoints:
            continue  # it was taken off every network: there is nobody to ask
        if on_user_network(container):
            if EMBEDDED not in servers:
                yield _without_embedded(container, names)
        elif servers and not names.resolv.beyond:
            yield from _own_loopback(container, names, sockets, options, config)
        elif _fallen_back(container, names, files):
            yield _default_servers(container, names, files)
    if not judged and not containers.running:
        yield NotApplicable("no container runs")


def _without_embedded(container: Container, names: Names) -> Finding:
    asks = ", ".join(names.resolv.servers) or "nobody"
    kept = [line for line in names.resolv.text.split("\n") if line.startswith("search ")]
    text = "\n".join([*kept, f"nameserver {EMBEDDED}", "options ndots:0", ""])
    networks = ", ".join(end.network for end in container.endpoints if end.network != "bridge")
    return Finding(
        subject=container.name,
        title=f"{container.name} asks {asks}, not Docker's DNS",
        message=f"{container.name} is on network {networks}, and its resolv.conf names {asks}, not {EMBEDDED}",
        evidence=(names.resolv.cited, container.cited),
        remedy=Remedy(
            "name Docker's DNS again, in place",
            (Command(("tee", names.resolv.path), stdin=text),),
            undo=(Command(("tee", names.resolv.path), stdin=names.resolv.text),)
            if "«" not in names.resolv.text
            else (),
            notes=("whoever wrote the file (a VPN or DHCP client inside?) may write it again",),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"names of other containers are unknown in {container.name}"),),
        works=(Effect("their addresses"),),
        excluded=(Excluded("NET044", f"the file does not name {EMBEDDED} at all"),),
    )


def _own_loopback(
    container: Container, names: Names, sockets: Sockets, options: Options | None, config: ConfigFile | None
) -> Iterator[Yield]:
    listeners = sockets.containers.get(container.id)
    if listeners is None:
        why = sockets.unread.get(container.id, "not read")
        yield Unknown(container.name, f"listeners: {why}")
        return
    if container.asked.own_kernel or any(_answers(one, container, names) for one in listeners):
        return
    asks = ", ".join(names.resolv.servers)
    given = bool(container.asked.dns)
    origin = None if given or options is None else options.origin("dns")
    if origin is not None and not {*origin.value.split(",")} & {*names.resolv.servers}:
        origin = None
    yield Finding(
        subject=container.name,
        title=f"{container.name} asks itself for names: {asks}",
        message=f"resolv.conf of {container.name} names {asks}, which is the container itself, and nothing there answers"
        " on port 53" + (f"; {origin.where} gives it to every container" if origin else ""),
        evidence=(names.resolv.cited, *((origin.cited,) if origin else ()), container.cited),
        remedy=Remedy(
            "name a server that it reaches",
            (
                Note(
                    f"make {container.engine_name} anew with another --dns"
                    if given
                    else f"write a server that {container.engine_name} reaches into {names.resolv.path}, in place (tee)"
                ),
            ),
            for_good=(config.change("dns", origin),) if origin and config else (),
            notes=("dockerd reads dns when it starts, and writes it into a container that is started after that",)
            if origin
            else (),
        ),
        hits=(Effect(f"{container.name} resolves no name"),),
        works=(Effect("addresses"),),
    )


def _answers(listener: Listener, container: Container, names: Names) -> bool:
    """Whether a socket may be what a server named 127.x.x.x is: one of its own, or dockerd's of an earlier network."""
    if listener.address == EMBEDDED:
        return EMBEDDED in names.resolv.servers and EMBEDDED not in container.asked.dns
    return listener.port == 53 and listener.protocol == "udp"  # noqa: PLR2004 - DNS


def _default_servers(container: Container, names: Names, files: NameFiles) -> Finding:
    host = ", ".join(files.source.beyond) or "none that it could reach"
    now = bool(files.source.beyond)
    return Finding(
        subject=container.name,
        title=f"{container.name} asks Google's servers, not this host's",
        message=f"resolv.conf of {container.name} names {', '.join(names.resolv.servers)}, which dockerd takes for want of"
        f" others; this host's names {host}",
        evidence=(names.resolv.cited, files.source.cited),
        remedy=restart(container, "dockerd writes the file from the host's anew")
        if now
        else Remedy(
            "first a server that containers reach",
            (Note(f"mend the host's resolv.conf or set dns (NET042), then docker restart {container.engine_name}"),),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"{container.name} knows no names of your own network; none at all where 8.8.8.8 is blocked"),),
    )


@check(
    "NET044",
    Severity.ERROR,
    says=(
        "Temporary failure in name resolution",
        "lookup ... on 127.0.0.11:53: ... connection refused",
    ),
)
def embedded_dns_cut_off(
    files: NameFiles,
    containers: Containers,
    sockets: Sockets,
    inner: InnerRules,
    daemon: Daemon,
    options: Options,
    places: Places,
    starting: Starting,
) -> Iterator[Yield]:
    """A container's way to Docker's DNS is cut: the rules for 127.0.0.11 inside it are gone.

    ## What it is
    dockerd listens inside the container's network namespace on two high ports of 127.0.0.11;
    rules of nat in there lead port 53 to them. A flush inside (VPN, an entrypoint with
    iptables -F) or dockerd losing its sockets cuts the way.
    ## What you see
    In this container every name fails at once (refused) or after seconds; addresses work.
    ## By hand
    docker inspect NAME -f '{{.State.Pid}}'
    nsenter -t PID -n iptables-save -t nat
    nsenter -t PID -n ss -lntu src 127.0.0.11
    ## Cure
    Put the rules back inside; nothing stops. Sockets gone: restart the container.
    ## Looks like
    NET043 (resolv.conf does not name 127.0.0.11), DMN016 (dockerd is down: nobody answers)
    ## Limits
    With iptables-legacy or the nftables back end of 29 the rules inside are not read. Whether
    the servers behind dockerd answer is not tried.
    ## References
    moby libnetwork/resolver.go and resolver_unix.go
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run: it answers nowhere")
        return
    if starting.why:
        yield Unknown("dockerd", starting.why)
        return
    if places.iptables == "iptables-legacy" or options.value("firewall-backend") == "nftables":
        yield NotApplicable("the rules inside containers are not iptables-nft's, and not read")
        return
    judged = False
    for container in containers.running:
        names = files.containers.get(container.id)
        if names is None or EMBEDDED not in names.resolv.servers or container.asked.own_kernel:
            continue
        if not on_user_network(container) and EMBEDDED in container.asked.dns:
            continue  # given by hand on the default bridge, where dockerd never answers: NET043
        space = sockets.space.get(container.id, "")
        rules, listeners = inner.of(space), sockets.containers.get(container.id)
        if rules is None or listeners is None:
            why = inner.unread.get(space) or sockets.unread.get(container.id) or "not read"
            yield Unknown(container.name, f"network namespaces: {why}")
            continue
        judged = True
        heard = {(one.protocol, one.port) for one in listeners if one.address == EMBEDDED}
        if rules.jump and all((protocol, rules.ports.get(protocol)) in heard for protocol in ("tcp", "udp")):
            continue
        yield _cut_off(container, rules, dict(heard), space)
    if not judged:
        yield NotApplicable("no container asks Docker's DNS")


def _cut_off(container: Container, rules: Inside, ports: dict[str, int], space: str) -> Finding:
    listens = ", ".join(f"{protocol} {port}" for protocol, port in sorted(ports.items())) or "nothing"
    socket = Citation(f"netns/{space}/listeners", 0, f"{EMBEDDED}: {listens}", f"listeners of {container.engine_name}")
    if {"udp", "tcp"} <= set(ports):
        what = "no rule leads 127.0.0.11:53 to them"
        remedy = Remedy(
            "put the rules back, inside",
            (
                Command(
                    ("nsenter", "-t", str(container.pid), "-n", "iptables-restore", "--noflush"),
                    stdin=_rules(ports, jump=rules.jump),
                ),
            ),
            lasts="until-boot",
            notes=("who flushed them inside the container may do so again",),
        )
    else:
        what = "dockerd listens there no more"
        remedy = restart(container, "dockerd makes sockets and rules anew")
    return Finding(
        subject=container.name,
        title=f"{container.name} is cut off from Docker's DNS",
        message=f"in {container.name} dockerd's DNS has {listens}, and {what}",
        evidence=(rules.cited, socket, container.cited),
        remedy=remedy,
        hits=(Effect(f"{container.name} resolves no name, neither of its neighbours nor any other"),),
        works=(Effect("addresses"),),
        excluded=(Excluded("NET043", f"resolv.conf names {EMBEDDED}"),),
    )


def _rules(ports: dict[str, int], *, jump: bool) -> str:
    """Give what iptables-restore reads: both chains as dockerd fills them, and the ways there where they are missing.

    A chain that is named is emptied first, so nothing stands twice.
    """
    lines = ["*nat", ":DOCKER_OUTPUT - [0:0]", ":DOCKER_POSTROUTING - [0:0]"]
    if not jump:
        lines.append("-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT")
        lines.append("-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING")
    for protocol in ("tcp", "udp"):
        to = f"127.0.0.11:{ports[protocol]}"
        start = f"127.0.0.11/32 -p {protocol} -m {protocol}"
        lines.append(f"-A DOCKER_OUTPUT -d {start} --dport 53 -j DNAT --to-destination {to}")
        lines.append(f"-A DOCKER_POSTROUTING -s {start} --sport {ports[protocol]} -j SNAT --to-source :53")
    return "\n".join([*lines, "COMMIT", ""])
