"""Whom the docker command asks."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from doctor.checks.api_exposure import place
from doctor.facts.client import Client, Way
from doctor.facts.config import Options, Origin
from doctor.facts.daemon import Daemon
from doctor.facts.links import Links
from doctor.model import Command, Effect, Finding, NotApplicable, Note, Remedy, Severity, Step, Unknown, Yield
from doctor.places import CALLER, in_run
from doctor.registry import check


@check(
    "DMN030",
    Severity.WARNING,
    says=(
        "Cannot connect to the Docker daemon at tcp://ADDRESS. Is the docker daemon running?",
        'current context "NAME" is not found on the file system, please check your config file at PATH',
        'context "NAME" does not exist',
    ),
)
def docker_asks_another_daemon(client: Client, daemon: Daemon, options: Options, links: Links) -> Iterator[Yield]:
    """The docker command asks another daemon than this host's.

    ## What it is
    docker takes the first of DOCKER_HOST, DOCKER_CONTEXT and the context that `docker context
    use` has set. Any of them may lead to another machine, or to the rootless daemon of a
    user, while dockerd runs here. With none of them it asks at /var/run/docker.sock, and a
    dockerd whose hosts are tcp:// alone does not listen there.
    ## What you see
    Containers that run are not in `docker ps`, images that were pulled are gone; or "Cannot
    connect to the Docker daemon at ..." while dockerd is well.
    ## By hand
    env | grep DOCKER_
    docker context ls
    ## Cure
    unset DOCKER_HOST, or `docker context use default`. Nothing stops. A socket that is not among
    hosts has to be added, and dockerd started again.
    ## Looks like
    DMN016 (dockerd does not answer), DMN017 (its socket may not be used)
    ## Limits
    Only the shell that ran doctor is known, and under sudo the context of who called it: sudo
    takes DOCKER_HOST away. -H of a single command and aliases are not seen, nor whose a name is.
    ## References
    docker(1), docker-context(1), docker/cli cli/command/cli.go
    """
    if not client.asked:
        yield NotApplicable("nobody looked where the docker command goes")
        return
    if not daemon.pid:
        yield NotApplicable("dockerd does not run")
        return
    for way in client.ways:
        if not _leads_here(way, daemon, options, links):
            yield _elsewhere(way, daemon)
    origin = options.origin("hosts")
    if not client.ways and origin is not None and not _heard(daemon, options):
        yield _unheard(daemon, origin)
    for why in client.unread:
        yield Unknown("the docker command", why)


def _heard(daemon: Daemon, options: Options) -> bool:
    """Whether it listens on any socket of this host's: then on the usual one, or DMN017 says what is wrong with it."""
    return any(one.startswith(("unix://", "fd://")) for one in (daemon.address, *options.value("hosts").split(",")))


def _unheard(daemon: Daemon, origin: Origin) -> Finding:
    return Finding(
        subject="docker.sock",
        title=f"dockerd listens on {daemon.address} alone, and docker asks at /var/run/docker.sock",
        message=f"dockerd listens on {daemon.address} and on no socket of this host's: docker commands without -H fail",
        evidence=(origin.cited,),
        remedy=Remedy(
            "let dockerd have its socket again",
            (
                Note(
                    f"add unix:///var/run/docker.sock to hosts ({origin.where}), and restart Docker when that is"
                    " convenient"
                ),
            ),
            notes=(f"for one command: docker -H {daemon.address} ps",),
        ),
        hits=(Effect("docker commands here, and whatever else looks for the socket (CI, monitoring), find no daemon"),),
        works=(Effect(f"who asks at {daemon.address}"),),
    )


def _leads_here(way: Way, daemon: Daemon, options: Options, links: Links) -> bool:
    own = {daemon.address, *options.value("hosts").split(",")}
    if way.socket:
        return way.socket in {in_run(one.removeprefix("unix://")) for one in own}
    if not way.address.startswith("tcp://"):
        return False
    host, port = place(way.address)
    if port not in {place(one)[1] for one in own if one.startswith("tcp://")}:
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return True  # a name, and nothing says whose: with the port of this dockerd it may well be this host's
    here = {held for link in links.all for held in link.bare}
    return address.is_loopback or address.is_unspecified or str(address) in here


def _elsewhere(way: Way, daemon: Daemon) -> Finding:
    who = " of who called sudo" if way.whose == CALLER else ""
    led = f"{way.by}{who}" if not way.context else f"the context {way.context}{who}"
    if not way.address:
        title, message = f"docker has no context {way.context}", f"{led} is not there: every docker command fails"
        hits = "every docker command fails"
    elif way.why:
        title = f"docker asks at {way.address}, where nobody is"
        message, hits = f"{led} leads docker to {way.address}: {way.why}", "every docker command fails"
    else:
        title = f"docker asks another daemon: {way.address}"
        message = f"{led} leads docker to {way.address}, and dockerd here listens on {daemon.socket}"
        hits = f"docker ps and every other command show, and change, what is at {way.address}"
    return Finding(
        subject=f"{way.by}{who}" if not way.context else f"context {way.context}{who}",
        title=title,
        message=message,
        evidence=way.cited,
        remedy=_back(way, daemon),
        hits=(Effect(hits),),
        works=(Effect("the containers of this host run, and dockerd answers whoever asks it"),)
        if daemon.answers
        else (),
    )


def _back(way: Way, daemon: Daemon) -> Remedy:
    once = f"for one command: docker -H {daemon.address} ps"
    if way.by != "context":
        files = "/etc/environment /etc/profile.d/* ~/.profile ~/.bashrc"
        return Remedy(
            "let docker ask this host",
            (Note(f"unset {way.by}"),),
            lasts="until-boot",
            for_good=(Note(f"take it out of where it is set: grep -s {way.by} {files}"),),
            notes=(once,),
        )
    step: Step = Command(("docker", "context", "use", "default"))
    if way.whose == CALLER:
        step = Note("as who called sudo: docker context use default")
    return Remedy("let docker ask this host", (step,), notes=(once,))
