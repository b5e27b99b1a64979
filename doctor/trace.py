"""`doctor trace`: what would happen to one packet, in words, from a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from doctor import __version__
from doctor.examine import Facts
from doctor.exits import CLEAN, FOUND, INCOMPLETE, UsageError
from doctor.facts.containers import Containers
from doctor.facts.engine_rules import EngineRules
from doctor.facts.networks import Networks
from doctor.facts.processes import Processes
from doctor.facts.proxies import Proxies
from doctor.linux.spawn import Completed
from doctor.model import Citation, Command, Note, Remedy, Trace, TraceStep, Tried
from doctor.packets.asked import Asked, NotKnown, asked
from doctor.packets.build import SITE
from doctor.packets.flow import OUTSIDE, TCP, UDP, End, Step
from doctor.packets.packet import spell
from doctor.packets.silence import DST_FROZEN, silent
from doctor.packets.site import HOST, Site
from doctor.packets.walk import Result, follow
from doctor.snapshot import EvidenceMissing, tree_entries

if TYPE_CHECKING:
    from doctor.facts.containers import Container
    from doctor.packets.full_size import Large
    from doctor.packets.walk import Walk
    from doctor.registry import Registry
    from doctor.snapshot import Snapshot

SCHEMA = "1"
"""Version of the JSON of a trace."""

_MEANT = {"RAW_DIRECT_ACCESS", "RAW_REMOTE_LOOPBACK", "ISOLATION", "INTERNAL_NET", "UNPUBLISHED_PORT", "ICC_DISABLED"}
"""Codes of rules that an engine writes to keep packets out."""


PROBE_SECONDS = 2.0
"""How long a real connection is waited for."""

Knock = Callable[[tuple[str, str], str, int, str, float], Completed]
"""Tries one connection: `host.Host.knock`."""


def trace(
    snapshot: Snapshot, registry: Registry, source: str, target: str, knock: Knock | None = None, at: float = 0.0
) -> tuple[Trace, int]:
    """Follow one packet; `knock` also tries it, at `at` (seconds since the epoch), and beats the model.

    Gives the trace and the exit code: 0 works, 1 does not, 3 depends. Raises UsageError.
    """
    facts = Facts(registry, snapshot)
    try:
        site: Site = facts.get(SITE)
        containers: Containers = facts.get(Containers)
        processes: Processes = facts.get(Processes)
    except EvidenceMissing as missing:
        raise UsageError(f"trace: {missing}") from missing
    try:
        question = asked(source, target, site, containers, processes)
    except NotKnown as error:
        raise UsageError(f"trace: {error}") from error
    result = follow(site, question.flow, large=True)
    made = told(site, facts, question, result)
    code = INCOMPLETE if made.works is None else CLEAN if made.works else FOUND
    if knock is None:
        return made, code
    tried = _tried(snapshot, question, made, knock, at)
    if question.flow.protocol == TCP and not (tried.sees == "connected" and tried.agrees):
        # A connect says nothing of what follows it: where the model agrees with it, the model knows more.
        code = CLEAN if tried.sees == "connected" else FOUND
    return structs.replace(made, tried=tried), code


def _tried(snapshot: Snapshot, question: Asked, made: Trace, knock: Knock, at: float) -> Tried:
    """Try the connection from where it would start. Raises UsageError."""
    flow = question.flow
    protocol = {TCP: "tcp", UDP: "udp"}.get(flow.protocol, "")
    if flow.source == OUTSIDE or not protocol or flow.src is not None:
        what = "a ping" if not protocol else f"what comes from {question.source}"
        raise UsageError(f"trace: {what} cannot be tried from this host")
    places = {entry.path: entry.content for entry in tree_entries(snapshot.get("netns/index"))}
    place = places.get(flow.source, "")
    path = HOST if flow.source == HOST else f"/proc/{place}/ns/net" if place.isdigit() else place
    where = (path, "0" if flow.source == HOST else flow.source)
    done = knock(where, spell(flow.dst, flow.version), flow.dport, protocol, PROBE_SECONDS)
    word, _, taken = done.stdout.decode("utf-8", "replace").strip().rpartition(" ")
    if done.status != "ok" or not word or word.startswith(("failed", "denied", "gone")):
        raise UsageError(f"trace: it could not be tried: {word or done.status}")
    agrees: bool | None = None
    if made.client_sees is not None and not (protocol == "udp" and word in {"timeout", "answered"}):
        agrees = word == made.client_sees or (word == "connected" and made.client_sees == "reset")
        agrees = agrees or (word == "timeout" and made.client_sees == "unreachable")  # ARP asks for three seconds
    return Tried(at, word, float(taken), agrees)


def told(site: Site, facts: Facts, question: Asked, result: Result) -> Trace:
    """Put a walk into words."""
    walk, end = result.walk, result.walk.decider
    works = bool(result.works) or result.works is None
    cited = end.step.cited if end.step is not None and not works else None
    meant = not works and _meant(end, question, facts)
    why, remedy = ("", None) if works else _why(end, question, meant=meant)
    large = _large(walk) if result.works is not None else ()
    lost = next((one for one in large if not one.told), None)
    if lost is not None and not works:
        why, remedy = _hole(lost), _smaller(lost, question.flow.version)
    inner = walk.proxied.steps if walk.proxied is not None else ()
    made = Trace(
        schema=SCHEMA,
        doctor=__version__,
        source=question.source,
        target=question.target,
        works=result.works,
        verdict=walk.end.outcome,
        reply_verdict=walk.reply.outcome if walk.reply is not None else "",
        client_sees=result.sees,
        code="" if works else end.code,
        decided_by=cited,
        by_design=meant,
        why=why,
        depends_on=result.question.text if result.question else "",
        notes=question.notes,
        full_size="; ".join(_size(one) for one in large),
        steps=tuple(_shown((*walk.steps, *inner))),
        reply_steps=tuple(_shown(walk.reply_steps)),
        remedy=remedy,
        coverage=_coverage(site),
    )
    return _unanswered(made, facts, question, result)


def _unanswered(made: Trace, facts: Facts, question: Asked, result: Result) -> Trace:
    """Say of a flow that arrives that nobody answers, where who should stands still."""
    held = silent(result, question.flow, facts.get(Containers), facts.get(Processes), facts.get(Proxies))
    if held is None:
        return made
    opens = question.flow.protocol == TCP
    why = held.why + (": the kernel opens connections for it, and nobody answers" if opens else ": nobody answers")
    return structs.replace(
        made,
        works=False,
        client_sees=made.client_sees if opens else "timeout",
        code=DST_FROZEN,
        decided_by=held.cited,
        why=why,
        remedy=held.remedy,
    )


def _large(walk: Walk) -> tuple[Large, ...]:
    """Give where packets of full size do not fit, on the connection of a docker-proxy too."""
    return (*walk.large, *(walk.proxied.large if walk.proxied is not None else ()))


def _size(one: Large) -> str:
    """Say what becomes of packets of full size."""
    text = one.end.step.text if one.end.step is not None else ""
    whose = "answers" if one.back else "packets"
    told = "the sender is told, and sends smaller ones" if one.told else "nobody is told"
    if one.single:
        told = "one by one they are lost, and nobody is told; what TCP sends in one piece passes (NET015)"
    if one.stopped is not None:
        told = f"the error that says so ends{_place(one.stopped)}"
    return f"{whose} of full size: {text}; {told}"


def _place(end: End) -> str:
    if end.step is None:
        return ""
    where = f" at {end.step.cited.place} ({end.step.text})" if end.step.cited is not None else f": {end.step.text}"
    return where + f" of {end.step.space}" if end.step.space != HOST else where


def _hole(one: Large) -> str:
    what = "answers" if one.back else "packets"
    return (
        f"it connects, and small {what} arrive; larger ones than {one.takes} bytes are lost, and their sender is not told"
        " to send smaller ones: what is large hangs"
    )


def _smaller(one: Large, version: int) -> Remedy:
    """Let both ends announce smaller segments."""
    program = "iptables" if version == 4 else "ip6tables"  # noqa: PLR2004 - IPv4
    rule = ("FORWARD", "-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu")
    notes = (f"or let ICMP pass{_place(one.stopped)}",) if one.stopped is not None else ()
    return Remedy(
        "let both ends announce no more than the way takes",
        (Command((program, "-t", "mangle", "-A", *rule)),),
        undo=(Command((program, "-t", "mangle", "-D", *rule)),),
        notes=notes,
    )


def _coverage(site: Site) -> str:
    program = site.host.program
    if not program.partial:
        return ""
    return f"{program.rules - program.partial} of {program.rules} rules of this host are modelled whole"


def _shown(steps: tuple[Step, ...]) -> list[TraceStep]:
    """Fold the jumps of a table into the path of what they led to; jumps that led to nothing are left out."""
    found: list[TraceStep] = []
    path: list[tuple[str, str]] = []  # chain that was jumped to, and from where
    for step in steps:
        place = step.cited.place if step.cited else ""
        while path and path[-1][0] != _chain(place):
            path.pop()
        if step.effect.startswith("jump "):
            path.append((step.effect.removeprefix("jump "), _short(place, first=not path)))
            continue
        if path:
            place = " > ".join([*(where for _, where in path), _short(place, first=False)])
        found.append(TraceStep(step.space, step.stage, place, step.text, step.effect, step.cited))
    return found


def _chain(place: str) -> str:
    """Give the chain of a place such as `filter FORWARD 2`."""
    words = place.split(" ")
    return words[-2] if len(words) > 1 and words[-1].isdecimal() else words[-1]


def _short(place: str, *, first: bool) -> str:
    return place if first else " ".join(place.split(" ")[-2:])


def _meant(end: End, question: Asked, facts: Facts) -> bool:
    """Whether Docker meant it: the rule that decided is one that it writes, or a network has no way out on purpose."""
    if end.code == "SRC_NO_ROUTE" and question.client is not None:
        return _internal(question.client, facts)
    if end.code not in _MEANT or end.step is None or end.step.cited is None:
        return False
    try:
        written: EngineRules = facts.get(EngineRules)
    except EvidenceMissing:
        return True
    if not written.families:
        return True
    texts = {rule.text for one in written.families for rules in one.expected.chains.values() for rule in rules}
    return end.step.cited.excerpt in texts


def _internal(client: Container, facts: Facts) -> bool:
    try:
        networks: Networks = facts.get(Networks)
    except EvidenceMissing:
        return False
    inner = {one.id for one in networks.all if one.internal}
    return bool(client.endpoints) and all(end.network_id in inner for end in client.endpoints)


_WHY = {
    "RAW_DIRECT_ACCESS": "from 28 on Docker drops what comes to a container's address by another way than its bridge",
    "RAW_REMOTE_LOOPBACK": "a port published on the loopback address is for this host alone",
    "ISOLATION": "networks are isolated from each other",
    "INTERNAL_NET": "the network is internal: nothing goes in or out",
    "UNPUBLISHED_PORT": "the port is not published, and Docker drops what comes to it from elsewhere",
    "ICC_DISABLED": "containers of this network may not talk to each other (icc is off)",
    "DOCKER_USER_DROP": "a rule of somebody else in DOCKER-USER stops it",
    "FORWARD_POLICY": "no rule takes it, and the policy of FORWARD is drop",
    "FORWARD_RULE": "a rule stops it",
    "OTHER_BASE_CHAIN": "a table beside Docker's stops it: an accept elsewhere does not overrule that",
    "LOCAL_FIREWALL": "the host's own firewall stops it",
    "DST_FIREWALL": "a rule inside the container that it goes to stops it",
    "SRC_FIREWALL": "a rule inside the container that it comes from stops it",
    "FORWARDING_OFF_GLOBAL": "the host does not forward packets",
    "FORWARDING_OFF_IFACE": "the host does not forward what comes in by that link",
    "RP_FILTER": "the kernel takes no packet whose sender it would answer by another link",
    "MARTIAN_LOCALNET": "the kernel takes no loopback address from a network",
    "DST_NO_LISTENER": "nobody listens there",
    "DST_LISTEN_ADDR": "what listens there does so on another address",
    "DST_BACKLOG_FULL": "what listens there takes no connection, and as many wait as may: the kernel drops who comes",
    "NEIGH_FAILED": "nobody has that address",
    "REPLY_BYPASSES_HOST": "the answer goes past the host, whose NAT would have to undo what it did",
    "BR_NO_HAIRPIN": "a bridge sends nothing back by the port that it came from, unless its hairpin is on",
    "BR_PORT_ISOLATED": "both ports of the bridge are isolated",
    "SRC_NO_ROUTE": "its namespace has no route there",
    "ROUTE_NONE": "the host has no route there: see ip route",
    "MTU_DF": "a link on the way takes no packets of full size, and their sender is not told",
    "NO_UPLINK": "the host has no route to the outside, so it could not answer: see ip route",
}


def _why(end: End, question: Asked, *, meant: bool) -> tuple[str, Remedy | None]:
    """Say why, and what would make it work."""
    why = _WHY.get(end.code, "")
    walked = end.step
    if end.code == "DST_NO_LISTENER" and end.space == HOST:
        why = "nothing on the host listens there" + (
            ", and no rule leads to the container"
            if question.server is not None
            else f", and no container publishes {question.flow.dport}"
        )
    remedy = None
    client, server = question.client, question.server
    if meant and client is not None and server is not None and end.code != "ICC_DISABLED":
        nets = [end_.network for end_ in server.endpoints if end_.network not in {"bridge", "host", "none"}]
        if nets:
            remedy = Remedy(
                "put both in one network"
                + ("" if question.notes and " is known " in question.notes[0] else "; names are known there"),
                (Command(("docker", "network", "connect", nets[0], client.engine_name)),),
                undo=(Command(("docker", "network", "disconnect", nets[0], client.engine_name)),),
            )
    elif end.code == "FORWARDING_OFF_GLOBAL":
        remedy = Remedy("let the host forward", (Command(("sysctl", "-w", "net.ipv4.ip_forward=1")),))
    elif end.code == "DST_LISTEN_ADDR" and end.space != HOST:
        remedy = Remedy("in the application", (Note("let it listen on 0.0.0.0, or on the container's address"),))
    elif not meant and walked is not None and walked.cited is not None:
        remedy = _without(walked.cited)
    return why, remedy


def _without(cited: Citation) -> Remedy | None:
    """Take the rule away that decided, where it is one of iptables."""
    words = cited.place.split(" ")
    if not cited.record.startswith("net/ip") or not words[-1].isdecimal():
        return None
    program = "ip6tables" if cited.record.startswith("net/ip6") else "iptables"
    table, chain = words[-3], words[-2]
    return Remedy(
        "if that rule is not meant",
        (Command((program, "-t", table, "-D", chain, *_argv(cited.excerpt))),),
        undo=(Command((program, "-t", table, "-I", chain, words[-1], *_argv(cited.excerpt))),),
    )


def _argv(text: str) -> list[str]:
    import shlex

    return shlex.split(text)
