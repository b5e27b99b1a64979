"""What a person asks about, and which findings concern it: a container, a Compose project, a port, a network, an image."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from doctor.exits import UsageError
from doctor.facts.containers import Container, Containers
from doctor.facts.images import Images
from doctor.facts.networks import Networks
from doctor.model import Severity
from doctor.reports.words import safe, shortened
from doctor.snapshot import EvidenceMissing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.examine import Facts
    from doctor.facts.containers import Port
    from doctor.model import Reported

Kind = Literal["container", "project", "port", "network", "image"]
KINDS: tuple[Kind, ...] = ("container", "project", "network", "image")
"""What a name may be, in the order in which they are tried."""

PORTS = 65535
_SHORT = 4
"""Characters of an id that are enough, as long as they are of one only."""


class Subject(Struct, frozen=True):
    """What was asked about: its kind and name, its containers, and the names of its networks and images.

    `port` is the port of the host and its protocol (`9090/tcp`) where that was asked for, else empty.
    """

    kind: Kind
    name: str
    containers: tuple[Container, ...]
    networks: frozenset[str]
    images: frozenset[str]
    port: str = ""

    @property
    def shown(self) -> str:
        """What to call it: `:9090`, `:53/udp`, `web`."""
        return f":{self.port.removesuffix('/tcp')}" if self.port else self.name


class Host(Struct, frozen=True):
    """Everything here that has a name: containers, networks (name and id), images (names and id)."""

    containers: tuple[Container, ...]
    networks: tuple[tuple[str, str], ...]
    images: tuple[tuple[tuple[str, ...], str], ...]

    @classmethod
    def of(cls, facts: Facts) -> Host:
        """Collect the names; those of networks and images as far as they can be read. Raises EvidenceMissing."""
        found: Containers = facts.get(Containers)
        every = (*found.all, *found.changing)
        networks = {end.network: end.network_id for one in every for end in one.endpoints}
        images: dict[str, set[str]] = {}
        for one in every:
            images.setdefault(one.image_id, set()).add(one.image)
        try:
            known: Networks = facts.get(Networks)
            networks |= {one.name: one.id for one in known.all}
        except EvidenceMissing:
            pass
        try:
            held: Images = facts.get(Images)
            for image in held.all:
                images.setdefault(image.id, set()).update(image.shown)
        except EvidenceMissing:
            pass
        return cls(
            tuple(sorted(every, key=lambda one: one.name)),
            tuple(sorted(networks.items())),
            tuple(sorted((tuple(sorted(names)), identity) for identity, names in images.items())),
        )

    @property
    def names(self) -> list[str]:
        """Every name that may be asked for."""
        found = [one.name for one in self.containers] + [one.engine_name for one in self.containers]
        found += sorted({one.project for one in self.containers if one.project})
        found += [name for name, _ in self.networks] + [name for names, _ in self.images for name in names]
        return list(dict.fromkeys(found))


def resolve(word: str, host: Host) -> Subject:
    """Find what a word names. Raises UsageError for what is nothing here, or more than one thing."""
    if not word:
        raise UsageError("why: what is it called? a container, a project, a network, an image or :PORT")
    if word.startswith(":"):
        return _port(word, host)
    kind, _, name = word.partition(":")
    kinds: tuple[Kind, ...] = tuple(one for one in KINDS if one == kind)
    if not kinds or not name:
        kinds, name = KINDS, word
    for ways in (_called, _meant):
        found = [subject for one in kinds for subject in ways(one, name, host)]
        if len(found) > 1:  # an image lends its name to containers and networks: whoever means it can say so
            found = [one for one in found if one.kind != "image"] or found
        if len(found) == 1:
            return found[0]
        if found:
            what = " and ".join(f"the {one.kind} {safe(one.name)}" for one in found[:4])
            say = " or ".join(f"{one.kind}:{safe(one.name)}" for one in found[:4])
            raise UsageError(f"why: {safe(name)} is {what}. Which one? {say}")
    raise UsageError(f"why: {_unknown(name, kinds, host)}")


def _unknown(name: str, kinds: tuple[Kind, ...], host: Host) -> str:
    what = kinds[0] if len(kinds) == 1 else "container, project, network or image"
    text = f"no {what} here is called {safe(name)}"
    near = get_close_matches(name, host.names, 3, 0.5)
    if near:
        return f"{text}. Did you mean {' or '.join(map(safe, near))}?"
    if name.isdecimal():
        return f"{text}. A port is asked for as :{name}"
    return f"{text}; containers: {' '.join(map(safe, shortened([one.name for one in host.containers]))) or 'none'}"


def _of(kind: Kind, name: str, containers: Iterable[Container], images: Iterable[str] = (), port: str = "") -> Subject:
    held = tuple(containers)
    networks = frozenset(end.network for one in held for end in one.endpoints)
    return Subject(
        kind,
        name,
        held,
        frozenset({name}) if kind == "network" else networks,
        frozenset(images) if kind == "image" else frozenset(one.image for one in held),
        port,
    )


def _network(name: str, host: Host) -> Subject:
    return _of("network", name, (one for one in host.containers if any(end.network == name for end in one.endpoints)))


def _image(names: tuple[str, ...], identity: str, host: Host) -> Subject:
    made = [one for one in host.containers if one.image_id == identity or one.image in names]
    return _of("image", names[0] if names else identity[7:19], made, (*names, identity[7:19]))


def _called(kind: Kind, name: str, host: Host) -> list[Subject]:
    """Give what has this very name, or id."""
    if kind == "container":
        held = [one for one in host.containers if name in {one.name, one.engine_name, one.id}]
        return [_of(kind, one.name, (one,)) for one in held]
    if kind == "project":
        members = [one for one in host.containers if one.project == name]
        return [_of(kind, name, members)] if members else []
    if kind == "network":
        return [_network(one, host) for one, identity in host.networks if name in {one, identity}]
    wanted = {name, f"{name}:latest", f"sha256:{name}"}
    return [_image(names, identity, host) for names, identity in host.images if wanted & {*names, identity}]


def _meant(kind: Kind, name: str, host: Host) -> list[Subject]:
    """Give what a shorter word names: a service of Compose, the beginning of an id."""
    if kind == "container":
        held = [one for one in host.containers if one.name.rpartition("/")[2] == name]
        held = held or [one for one in host.containers if _begins(name, one.id)]
        return [_of(kind, one.name, (one,)) for one in held]
    if kind == "network":
        return [_network(one, host) for one, identity in host.networks if _begins(name, identity)]
    if kind == "image":
        return [
            _image(names, identity, host)
            for names, identity in host.images
            if _begins(name.removeprefix("sha256:"), identity.removeprefix("sha256:"))
        ]
    return []


def _begins(name: str, identity: str) -> bool:
    return len(name) >= _SHORT and re.fullmatch(r"[0-9a-f]+", name) is not None and identity.startswith(name)


def published(one: Container) -> tuple[Port, ...]:
    """Give the ports of the host that lead to a container, or would, if it ran."""
    return one.ports if one.running else tuple(port for port in one.asked.ports if port.host)


def _port(word: str, host: Host) -> Subject:
    text, slash, protocol = word[1:].partition("/")
    if (
        not text.isdecimal()
        or not 0 < int(text) <= PORTS
        or protocol not in ({"tcp", "udp", "sctp"} if slash else {""})
    ):
        raise UsageError(f"why: {safe(word)} is no port, such as :8080 or :53/udp")
    every = [(one, port) for one in host.containers for port in published(one)]
    wanted = [pair for pair in every if pair[1].host == int(text) and protocol in {"", pair[1].protocol}]
    if not protocol and any(port.protocol == "tcp" for _, port in wanted):
        wanted = [pair for pair in wanted if pair[1].protocol == "tcp"]
    if not wanted:
        served = [one for one in host.containers if one.network_mode == "host" and one.running]
        there = sorted({port.host for _, port in every}, key=lambda one: (abs(one - int(text)), one))
        said = "; published: " + " ".join(f":{one}" for one in there[:5]) if there else "; none is published here"
        if served:
            said += (
                f"; in the network of the host, which publishes nothing: {' '.join(safe(one.name) for one in served)}"
            )
        raise UsageError(f"why: no container publishes {safe(word)}{said}")
    run = [pair for pair in wanted if pair[0].running] or wanted
    number = f"{text}/{run[0][1].protocol}"
    found = {one.id: one for one, port in run if port.protocol == run[0][1].protocol}
    return _of("port", f":{number}", found.values(), port=number)


# What concerns it

_WORD = re.compile(r"[^\s,;()\"'<>|]+")


def _tokens(*texts: str) -> set[str]:
    return {token for text in texts for word in _WORD.findall(text) for token in (word, word.rstrip(":."))}


class Concern:
    """Tells which findings concern a subject: those that name it, its networks, and what the host as a whole suffers."""

    def __init__(self, subject: Subject, host: Host, *, works: bool = False) -> None:
        """Keep the names of the subject and of everything else here. `works`: of a port, its clients are served."""
        self.subject = subject
        self.works = works
        self.mine = _named(subject.containers)
        self.everyone = _named(host.containers)
        held = {port.host for one in subject.containers for port in published(one)}
        self.ports = {subject.port.partition("/")[0]} if subject.port else set(map(str, held))
        self.networks = [name for name, _ in host.networks]
        self.images = {name for names, identity in host.images for name in (*names, identity[7:19])}

    def __call__(self, finding: Reported) -> bool:
        """Whether a finding concerns it."""
        head = finding.subject.partition(":")[0]
        names = _tokens(finding.subject, *(name for one in finding.hits for name in one.names))
        names |= {head, finding.scope.removeprefix("container ")}
        prose = " ".join((finding.title, *(one.text for one in finding.hits)))
        loose = names | _tokens(prose)
        if not loose & self.everyone and self.ports & set(re.findall(r"\bport (?:\S+:)?(\d+)\b", prose)):
            return True
        told = {name for name in self.networks if name in names or _tells(prose, name)}
        if self.subject.port and (self.works or finding.severity is not Severity.ERROR):
            # Where else the container gets to, or what will bite it, is another question than this port.
            number = self.subject.port.partition("/")[0]
            if loose & self.mine and number in re.findall(r"\d+", " ".join((prose, *names))):
                return True
            if finding.severity is not Severity.ERROR:
                return False
            return head in self.mine or self._whole(finding, loose, told)
        if loose & self.mine or names & self.subject.images:
            return True
        if told & self.subject.networks:
            return head not in self.everyone
        return self._whole(finding, loose, told)

    def _whole(self, finding: Reported, loose: set[str], told: set[str]) -> bool:
        """Whether it is the host as a whole that does not work; who can get in is another question."""
        others = loose & (self.everyone | self.images) or told
        return finding.severity is Severity.ERROR and not finding.code.startswith("SEC") and not others

    def about(self, finding: Reported) -> bool:
        """Whether a finding has the subject itself, or one of its containers, as its subject."""
        head = finding.subject.partition(":")[0]
        return head in self.mine or finding.subject in {self.subject.name, *self.subject.images}


def _named(containers: Iterable[Container]) -> set[str]:
    return {name for one in containers for name in (one.name, one.engine_name, one.id, one.id[:12])}


def _tells(prose: str, network: str) -> bool:
    """Whether a sentence speaks of a network: `network shop`, `of shop`; a name alone may be any word."""
    return re.search(rf"\b(?:networks?|of|on) {re.escape(network)}(?![\w-])", prose) is not None
