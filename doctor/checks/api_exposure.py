"""Who on the network can do what the engine can: its API by TCP, with and without certificates, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

from doctor.facts.certificates import Certificate, Certificates
from doctor.facts.clock import Clock
from doctor.facts.config import ConfigFile, Options, Origin
from doctor.facts.daemon import Daemon
from doctor.facts.groups import DockerGroup
from doctor.facts.lifecycle import Lifecycle
from doctor.facts.name_files import is_loopback
from doctor.facts.paths import Paths, Seen
from doctor.facts.rules import Firewall
from doctor.facts.sockets import Listener, Sockets
from doctor.model import (
    Citation,
    Command,
    EditKey,
    Effect,
    Finding,
    Moment,
    NotApplicable,
    Note,
    Remedy,
    Severity,
    Since,
    Step,
    Unknown,
    Yield,
)
from doctor.registry import check


@check("SEC001", Severity.ERROR)
def api_open(
    options: Options,
    config: ConfigFile,
    daemon: Daemon,
    sockets: Sockets,
    lifecycle: Lifecycle,
    firewall: Firewall | None,
) -> Iterator[Yield]:
    """The Docker API is open on TCP, without client certificates.

    ## What it is
    Whoever can ask the API can start a container with the host's disk mounted: it is root.
    On TCP only tlsverify asks who comes; without it everybody who reaches the port is let in.
    ## What you see
    Nothing, until containers run that nobody started (coin miners scan for port 2375).
    dockerd warns in its log: "API is accessible ... without encryption".
    ## By hand
    curl http://127.0.0.1:2375/version
    ss -ltn
    ## Cure
    Take the tcp:// address out of hosts and restart Docker; reach it over SSH instead
    (docker -H ssh://HOST). Or tlsverify with certificates of your own.
    ## Looks like
    DMN003 (hosts stands in the file and on the command line)
    ## Limits
    On loopback a warning: every user and process of this host is root. With INPUT closed
    and no rule for the port, too. Firewalls beyond this host are not known.
    ## References
    moby daemon/listeners, docs.docker.com/engine/security/protect-access
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    if options.on("tlsverify"):
        return
    for value, origin in _addresses(options):
        listener = _heard(value, sockets)
        if listener is not None or sockets.missing:
            yield _open(value, origin, listener, options, config, lifecycle, firewall)
    if not options.known("hosts"):
        yield Unknown("hosts", options.unread)


def _addresses(options: Options) -> list[tuple[str, Origin]]:
    """Give each address of TCP that dockerd was told to listen on, and what told it last."""
    found = {one.value: one for one in options.flags.get("hosts", ())}
    if "hosts" in options.file:
        found |= dict.fromkeys(options.file["hosts"].value.split(","), options.file["hosts"])
    return [(value, origin) for value, origin in found.items() if value.startswith("tcp://")]


def place(value: str) -> tuple[str, int]:
    """Give address and port of `tcp://ADDRESS:PORT`; dockerd's defaults are 127.0.0.1 and 2375."""
    rest = value.removeprefix("tcp://").partition("/")[0]
    host, _, port = rest.rpartition(":") if rest.rpartition(":")[2].isdecimal() else (rest, "", "2375")
    host = host.strip("[]")
    return {"": "0.0.0.0" if rest else "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host), int(port)  # noqa: S104


def _heard(value: str, sockets: Sockets) -> Listener | None:
    port = place(value)[1]
    return next((one for one in sockets.host if (one.protocol, one.port) == ("tcp", port)), None)


def _shut(port: int, firewall: Firewall | None) -> Citation | None:
    """Give what shows that INPUT takes nothing which no rule lets in, and that no rule names the port."""
    for tables in firewall.of("ip") if firewall is not None else ():
        chain = tables.chain("filter", "INPUT")
        if chain is None or chain.policy != "DROP":
            continue
        for (table, _), held in tables.chains.items():
            for rule in held.rules if table == "filter" else ():
                words = rule.text.split(" ")
                ports = [after for word, after in pairwise(words) if word in {"--dport", "--dports"}]
                if rule.target == "ACCEPT" and any(str(port) in one or ":" in one for one in ports):
                    return None
        if any(rule.text == "-j ACCEPT" for rule in chain.rules):
            return None
        return chain.cited
    return None


def _open(
    value: str,
    origin: Origin,
    listener: Listener | None,
    options: Options,
    config: ConfigFile,
    lifecycle: Lifecycle,
    firewall: Firewall | None,
) -> Finding:
    address, port = place(value)
    local = is_loopback(address)
    closed = None if local else _shut(port, firewall)
    secret = "with TLS and no client certificates" if options.on("tls") else "without TLS"
    who = (
        "every user and process of this host is root"
        if local
        else "whoever gets past INPUT, whose policy is DROP, is root on this host"
        if closed
        else "whoever reaches it is root on this host"
    )
    evidence = [origin.cited]
    if listener is not None:
        evidence.append(listener.cited)
    if closed is not None:
        evidence.append(closed)
    return Finding(
        subject=value,
        title=f"the Docker API listens on {address}:{port} {secret}",
        message=f"{origin.where} sets {value}, tlsverify is off: {who}",
        evidence=tuple(evidence),
        remedy=lifecycle.remedy(
            "close it: the socket in the file system remains",
            _without(origin, config),
            notes=("over the network: docker -H ssh://HOST needs no open port",),
        ),
        severity=Severity.WARNING if local or closed else Severity.ERROR,
        hits=(Effect(who),),
    )


def _without(origin: Origin, config: ConfigFile) -> Step:
    if origin.source != "daemon.json":
        return config.change("hosts", origin)
    left = [one for one in origin.value.split(",") if not one.startswith("tcp://")]
    return EditKey(config.path, "/hosts", json.dumps(left) if left else None)


SOON = 30 * 86400.0
_OTHERS, _GROUP, _PASS = 0o004, 0o040, 0o001
_SAYS = {
    "tlscert": ("clients that verify it refuse to talk to this daemon", "the certificate that dockerd shows"),
    "tlscacert": ("dockerd lets no client in by TCP", "every authority whose clients dockerd takes"),
}
"""What follows when the certificates of an option hold no more, and what they are."""


@check(
    "SEC002",
    Severity.ERROR,
    says=(
        "x509: certificate has expired or is not yet valid",
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
        "remote error: tls: bad certificate",
        "remote error: tls: expired certificate",
    ),
)
def tls_files_unfit(
    options: Options,
    certificates: Certificates,
    paths: Paths,
    daemon: Daemon,
    group: DockerGroup | None,
    clock: Clock,
    lifecycle: Lifecycle,
) -> Iterator[Yield]:
    """The certificates of dockerd's API hold no more, or others may read its key.

    ## What it is
    On TCP dockerd shows tlscert, whose key is tlskey, and takes the clients of tlscacert. All
    hold until a date that nobody watches; who has the key can pose as this daemon.
    ## What you see
    "x509: certificate has expired or is not yet valid", "remote error: tls: bad certificate".
    The socket in the file system goes on working.
    ## By hand
    openssl x509 -in /etc/docker/server-cert.pem -noout -subject -dates
    stat -c '%a %U:%G %n' /etc/docker/server-key.pem
    ## Cure
    Issue new ones into the same files, then restart Docker: it reads them at its start only.
    chmod 0400 for the key: nothing stops.
    ## Looks like
    SEC001 (nobody is asked for a certificate), SEC009 (others may write these files)
    ## Limits
    The files are judged, not what a dockerd that is older than they are still has loaded. Of
    many authorities one that holds is enough. Default files in a home directory: not read.
    ## References
    docs.docker.com/engine/security/protect-access, RFC 5280
    """
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    if not options.known("hosts"):
        yield Unknown("hosts", options.unread)
        return
    if not (options.on("tls") or options.on("tlsverify")) or not _addresses(options):
        yield NotApplicable("dockerd does not listen on TCP with TLS")
        return
    for option, why in certificates.unread.items():
        if option == "tlscert" or options.on("tlsverify"):
            yield Unknown(option, f"files: {why}")
    for option, held in certificates.by_option.items():
        if held and (option == "tlscert" or options.on("tlsverify")):
            # The first is dockerd's own; of authorities the one that holds longest.
            judged = (
                held[0]
                if option == "tlscert"
                else max(held, key=lambda one: (one.begins <= clock.collected_at, one.ends))
            )
            yield from _in_time(option, judged, options, clock, lifecycle)
    key = paths.get(options.value("tlskey")) if options.value("tlskey") else None
    if key is not None and key.hidden:
        yield Unknown("tlskey", f"files: {key.path}: {key.why}")
    elif key is not None and key.type == "f":
        yield from _readable(key, paths, group)


def _in_time(option: str, one: Certificate, options: Options, clock: Clock, lifecycle: Lifecycle) -> Iterator[Finding]:
    now, path = clock.collected_at, options.value(option)
    early = one.begins > now
    if one.ends - now >= SOON and not early:
        return
    over = one.ends <= now
    when = "holds not yet" if early else f"has held until {one.until}" if over else f"holds until {one.until}"
    effect, what = _SAYS[option]
    origin = options.origin(option)
    yield Finding(
        subject=option,
        title=f"{what} {when}",
        message=f"{path} ({option}), {one.name or 'without a common name'}, {when}",
        evidence=(one.cited, *((origin.cited,) if origin is not None else ())),
        remedy=lifecycle.remedy(
            "issue it anew, then let dockerd read it",
            Note(f"issue a new certificate into {path}, by the same authority and for the same names"),
            notes=("certificates of an authority that is new must be given to every client as well",)
            if option == "tlscacert"
            else (),
        ),
        severity=Severity.ERROR if over or early else Severity.WARNING,
        hits=(Effect(effect if over or early else f"from then on {effect}"),),
        works=(Effect("the API by its socket in the file system"),),
        since=Since(latest=Moment(one.ends, f"{path} expired", one.cited), exact=True) if over else None,
    )


def _readable(key: Seen, paths: Paths, group: DockerGroup | None) -> Iterator[Finding]:
    """Judge who may read the private key: by its own rights, and by those of the directories that lead to it."""
    trusted = {0, *({group.gid} if group is not None else ())}
    if key.mode & _OTHERS and all(one.mode & _PASS for one in paths.folders):
        who, to = "every user and process of this host", "o-rwx"
    elif (
        key.mode & _GROUP
        and key.gid not in trusted
        and all(one.mode & _PASS or (one.gid == key.gid and one.mode & _PASS << 3) for one in paths.folders)
    ):
        who, to = f"group {key.gid}", "g-rwx"
    else:
        return
    yield Finding(
        subject="tlskey",
        title=f"others may read the key of dockerd's certificate: {key.path}, mode {key.mode:04o}",
        message=f"{key.path} has mode {key.mode:04o} and belongs to {key.uid}:{key.gid}: {who} may read it",
        evidence=(key.cited, *(one.cited for one in paths.folders[-1:])),
        remedy=Remedy(
            "take the right away",
            (Command(("chmod", to, key.path)),),
            undo=(Command(("chmod", f"{key.mode:04o}", key.path)),),
            notes=("who may have read it still has it: a new key and certificate close that, too",),
        ),
        severity=Severity.WARNING,
        hits=(Effect(f"{who} can pose as this daemon to its clients"),),
    )
