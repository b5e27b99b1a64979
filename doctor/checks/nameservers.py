"""Whether nameservers answer those who ask them: the host, each container, and dockerd for containers."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from msgspec import Struct

from doctor.facts.asked import Answer, Asked
from doctor.facts.containers import Container, Containers
from doctor.facts.links import Links
from doctor.facts.name_files import EMBEDDED, NameFiles, ResolvConf
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

_WAY = ("NET008", "NET009", "NET010", "NET012", "NET013", "NET014", "NET021", "NET024", "NET034", "NET044", "NET054")
"""What cuts a container's way to a server: where one of these is found, no answer is what follows from it."""

PORT = 53

_Key = tuple[str, str]
"""Namespace and server."""


class _Asker(Struct, frozen=True):
    """Who asks: a container, or the host (None); `keys` are the servers in their order and from where they are asked."""

    container: Container | None
    keys: tuple[_Key, ...]


def _keys(resolv: ResolvConf, space: str, asked: Asked) -> tuple[_Key, ...]:
    found: list[_Key] = []
    for server in resolv.servers:
        if server != EMBEDDED:
            found.append((space, server))
        elif resolv.behind is not None:
            found += ((asked.host if theirs else space, one) for one, theirs in resolv.behind)
        else:
            found += (key for key in asked.answers if key[0] == space and key[1] != EMBEDDED)
    return tuple(key for key in dict.fromkeys(found) if key in asked.answers)


def _lost(answer: Answer | None) -> bool:
    return answer is not None and answer.judged and answer.outcome != "answered"


def _fails(key: _Key, asked: Asked) -> bool:
    return _lost(asked.answers[key].get("udp"))


def _denies(key: _Key, asked: Asked) -> bool:
    """Whether a server refuses to answer there what it answers this host."""
    here, host = asked.answers[key].get("udp"), asked.answers.get((asked.host, key[1]), {}).get("udp")
    return (
        here is not None
        and host is not None
        and (here.outcome, host.outcome) == ("answered", "answered")
        and here.detail == "REFUSED" != host.detail
    )


@check(
    "NET064",
    Severity.ERROR,
    says=("lookup ... i/o timeout", ";; connection timed out; no servers could be reached"),
)
def nameserver_does_not_answer(
    asked: Asked, files: NameFiles, containers: Containers, sockets: Sockets, links: Links
) -> Iterator[Yield]:
    """A nameserver does not answer who asks it.

    ## What it is
    With --probe each nameserver is asked one question, by UDP and by TCP, from where it is
    asked: the host, each container's network namespace, dockerd (127.0.0.11). One that is
    silent costs five seconds a name; without another one no name is resolved.
    ## What you see
    "Temporary failure in name resolution" after 5 or 10 seconds; addresses work.
    ## By hand
    docker exec NAME cat /etc/resolv.conf
    docker exec NAME nslookup localhost SERVER
    ## Cure
    Let the question through where a firewall drops it (INPUT, if the server is this host
    itself); else start the server, or name another (dns in daemon.json, --dns).
    ## Looks like
    NET043 (the wrong server is named), NET044 (the way to 127.0.0.11), NET034 (forwarding)
    ## Limits
    Nothing is asked without --probe. One datagram each: silence to UDP alone is a warning
    where nobody else bears it out. A note: no answer to TCP, or one before it answers. Of
    more than 64 pairs of container and server, each network asks each server first.
    ## References
    resolv.conf(5), RFC 6303 (the name that is asked for), RFC 7766 (DNS over TCP)
    """
    if not asked.tried:
        yield NotApplicable("not asked: only --probe sends anything")
        return
    if asked.left_out:
        yield Unknown("others", f"nameservers: {asked.left_out}")
    if any(one.outcome == "denied" for held in asked.answers.values() for one in held.values()):
        yield Unknown("containers", "nameservers: the network namespaces of containers may not be entered")
    # A stub and the servers behind it: the host needs one of each.
    lists = dict.fromkeys((files.host.servers, files.source.servers))
    mine = ((tuple((asked.host, server) for server in servers)) for servers in lists)
    askers = [_Asker(None, tuple(key for key in keys if key in asked.answers)) for keys in mine]
    for one in containers.running:
        names, space = files.containers.get(one.id), sockets.space.get(one.id)
        if names is not None and space is not None and not one.asked.own_kernel:
            askers.append(_Asker(one, _keys(names.resolv, space, asked)))
            udp = asked.answers.get((space, EMBEDDED), {}).get("udp")
            if EMBEDDED in names.resolv.servers and udp is not None and _lost(udp):
                yield _engine(one, udp, asked)
    if not asked.answers:
        yield NotApplicable("neither this host nor a container names a nameserver")
        return
    for server in dict.fromkeys(server for _, server in asked.answers if server != EMBEDDED):
        yield from _Server(server, asked, askers, _heard(server, links, sockets)).judge(files)


def _heard(server: str, links: Links, sockets: Sockets) -> Listener | None:
    """Give the socket of this host that questions to a server come to; None when the server is another host."""
    if not any(server in link.bare for link in links.all):
        return None
    found = (one for one in sockets.host if (one.protocol, one.port) == ("udp", PORT) and one.takes(server))
    return next(found, None)


def _engine(one: Container, udp: Answer, asked: Asked) -> Finding:
    return Finding(
        subject=f"{one.name}:{EMBEDDED}",
        scope=one.scope,
        title=f"Docker's DNS does not answer {one.name}",
        message=f"{EMBEDDED} was asked from {one.name} for {one.name}'s own address: {_word(udp, asked)}",
        evidence=(udp.cited, one.cited),
        remedy=Remedy(
            "let it through inside, or start the container again",
            (
                Note(
                    f"look who drops it inside: nsenter -t {one.pid} -n iptables-save; else docker restart"
                    f" {one.engine_name}: dockerd listens there anew"
                ),
            ),
        ),
        hits=(Effect(f"{one.name} resolves no name, neither of its neighbours nor any other"),),
        works=(Effect("addresses"),),
        because=("NET044", "NET043", "DMN016"),
    )


def _word(answer: Answer, asked: Asked) -> str:
    return {
        "answered": f"answered in {answer.ms:.1f} ms",
        "silent": f"no answer in {asked.waited}",
        "refused": "nobody listens (refused)",
        "no-route": "no way there",
        "blocked": "a rule of its own blocks it",
        "closed": "hung up",
    }.get(answer.outcome, answer.outcome)


class _Server:
    """One server, and what became of the questions to it."""

    def __init__(self, server: str, asked: Asked, askers: list[_Asker], heard: Listener | None) -> None:
        self.server, self.asked, self.heard = server, asked, heard
        self.here = {key: held for key, held in asked.answers.items() if key[1] == server}
        self.host = self.here.get((asked.host, server), {}).get("udp")
        self.askers = [one for one in askers if any(key in self.here for key in one.keys)]

    def judge(self, files: NameFiles) -> Iterator[Finding]:
        """Say what is wrong with it."""
        failing = {key for key in self.here if _fails(key, self.asked) and self._matters(key)}
        if failing:
            yield self._finding(failing, files, "")
        denying = {key for key in self.here if _denies(key, self.asked)}
        if denying:
            yield self._finding(denying, files, "denies")
        without = {
            key: held["tcp"]
            for key, held in self.here.items()
            if key not in failing and _lost(held.get("tcp")) and not _lost(held.get("udp"))
        }
        if without:
            yield self._udp_only(without)

    def _matters(self, key: _Key) -> bool:
        """Whether no answer costs anything: a server that there is no way to is passed over at once for the next one."""
        udp = self.asked.answers[key]["udp"]
        if udp.outcome != "no-route":
            return True
        return any(key in one.keys and self._without(one) for one in self.askers)

    def _without(self, one: _Asker) -> bool:
        """Whether no server at all answers it."""
        return all(_fails(key, self.asked) or _denies(key, self.asked) for key in one.keys)

    def _borne_out(self, keys: set[_Key]) -> bool:
        """Whether more than one lost datagram says that it does not answer."""
        return len(keys) > 1 or any(
            held["udp"].outcome != "silent" or _lost(held.get("tcp")) for key, held in self.here.items() if key in keys
        )

    def _finding(self, keys: set[_Key], files: NameFiles, how: str) -> Finding:
        hit = [one for one in self.askers if keys & set(one.keys)]
        lost = [one for one in hit if self._without(one)]
        spare = [one for one in hit if one not in lost and self._answered_before(one, keys)]
        slow = [one for one in hit if one not in lost and one not in spare]
        named = [one.container.name for one in hit if one.container is not None]
        from_host = any(key[0] == self.asked.host for key in keys)
        whom = ", ".join([*(["this host"] if from_host or not named else []), *named[:5]])
        if len(named) > 5:  # noqa: PLR2004 - the rest is in hits
            whom += f" and {len(named) - 5} more"
        first = self.here[min(keys)]
        said = "REFUSED" if how else _word(first["udp"], self.asked)
        tcp = first.get("tcp")
        over = f", by TCP: {_word(tcp, self.asked)}" if tcp is not None and not how else ""
        up = self.host is not None and not _lost(self.host)
        does = "refuses" if how else "does not answer"
        evidence: list[Citation] = []
        for key in sorted(keys)[:3]:
            evidence += (self._cited(key, held) for held in self.here[key].values())
        if up and self.host is not None:
            evidence.append(self.host.cited)
        elif self.heard is not None and not from_host:
            evidence.append(self.heard.cited)
        grave = bool(lost) and (bool(how) or self._borne_out(keys))
        scopes = {one.container.scope if one.container else "" for one in hit}
        return Finding(
            subject=self.server + (f":{how}" if how else ""),
            scope=scopes.pop() if len(scopes) == 1 else "",
            title=f"nameserver {self.server} {does} {whom}",
            message=f"{self.server} was asked by UDP from where {whom} asks: {said}{over}",
            evidence=tuple(evidence),
            remedy=self._remedy(hit, keys, files, how),
            severity=Severity.ERROR if grave else Severity.WARNING if lost or slow else Severity.INFO,
            hits=tuple(self._effects(lost, slow, spare)),
            works=(Effect("addresses"),),
            excluded=(Excluded("", f"{self.server} answers this host in {self.host.ms:.1f} ms: it is up"),)
            if up and self.host is not None
            else (),
            because=_WAY if not from_host else ("NET008",),
        )

    def _cited(self, key: _Key, held: Answer) -> Citation:
        """Cite an answer, by the name of who asks."""
        cited = held.cited
        names = [one.container.name for one in self.askers if one.container is not None and key in one.keys]
        if key[0] == self.asked.host or not names:
            return cited
        return Citation(cited.record, cited.line, cited.excerpt, f"asked from {names[0]}")

    def _answered_before(self, one: _Asker, keys: set[_Key]) -> bool:
        """Whether another server, which is asked first, answers: then this one is asked only when that one is gone."""
        for key in one.keys:
            if key in keys:
                return False
            if not _fails(key, self.asked) and not _denies(key, self.asked):
                return True
        return False

    @staticmethod
    def _effects(lost: list[_Asker], slow: list[_Asker], spare: list[_Asker]) -> Iterator[Effect]:
        for many, text in (
            (lost, "no name of the outside is resolved"),
            (slow, "a name takes seconds, until another server is asked"),
            (spare, "no name is resolved once the servers before it are gone,"),
        ):
            names = tuple(one.container.name for one in many if one.container is not None)
            if names:
                yield Effect(f"{text} in", names)
            if len(names) < len(many):
                yield Effect(f"{text} on this host, for dockerd too")

    def _remedy(self, hit: list[_Asker], keys: set[_Key], files: NameFiles, how: str) -> Remedy:
        inside = [one.container for one in hit if one.container is not None]
        if how:
            return Remedy(
                f"let {self.server} answer containers",
                (
                    Note(
                        f"allow the containers' addresses where {self.server} is configured (allow-query, access-control)"
                    ),
                ),
            )
        here = any(key[0] == self.asked.host for key in keys)
        if not here and (self.heard is not None or (self.host is not None and not _lost(self.host))):
            nets = dict.fromkeys(
                str(ip_network(f"{end.address}/{end.prefix}", strict=False))
                for one in inside
                for end in one.endpoints
                if end.address and end.prefix
            )
            if self.heard is not None and ":" not in self.server and nets:
                rules = [
                    ("-s", net, "-d", self.server, "-p", protocol, "--dport", "53", "-j", "ACCEPT")
                    for net in nets
                    for protocol in ("udp", "tcp")
                ]
                return Remedy(
                    f"let questions of containers in: {self.server} is this host, so they pass INPUT",
                    tuple(Command(("iptables", "-I", "INPUT", *rule)) for rule in rules),
                    lasts="until-boot",
                    undo=tuple(Command(("iptables", "-D", "INPUT", *rule)) for rule in rules),
                    notes=("for good, where the rules of this host's firewall are kept (ufw, firewalld, a script)",),
                )
            return Remedy(
                "let questions of containers through",
                (
                    Note(
                        f"find who drops packets to {self.server} port 53: iptables -nvL FORWARD, DOCKER-USER, then beyond"
                        " this host; or name a server that containers reach (dns in daemon.json, --dns)"
                    ),
                ),
            )
        where = next(
            (cited.place for name, cited in files.host.named() if name == self.server), "dns in daemon.json, --dns"
        )
        return Remedy(
            "start it, or name another",
            (Note(f"see to it that {self.server} answers, or name another server: {where}"),),
            notes=("containers of the default bridge have another one once restarted",) if inside else (),
        )

    def _udp_only(self, without: dict[_Key, Answer]) -> Finding:
        key = min(without)
        tcp, udp = without[key], self.here[key].get("udp")
        names = [one.container.name for one in self.askers if one.container and set(one.keys) & set(without)]
        return Finding(
            subject=f"{self.server}:tcp",
            title=f"nameserver {self.server} answers by UDP only",
            message=f"{self.server} was asked by TCP: {_word(tcp, self.asked)}; by UDP it answers",
            evidence=(tcp.cited, *((udp.cited,) if udp is not None else ())),
            remedy=Remedy(
                "let it answer by TCP",
                (Note(f"open TCP port 53 of {self.server}, or name a server that has it"),),
            ),
            severity=Severity.INFO,
            hits=(Effect("answers that are too large for a datagram are not had (long TXT, DNSSEC)", tuple(names)),),
            works=(Effect("all other names"),),
        )
