"""`doctor why`: what is wrong with one thing, from the walks that concern it and the causes of `doctor check`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from doctor import __version__
from doctor.amounts import plural
from doctor.assess import assess
from doctor.examine import Facts
from doctor.exits import CLEAN, FOUND, INCOMPLETE, UsageError
from doctor.model import Citation, Diagnosis, Effect, Note, Remedy, Result, Severity, Why
from doctor.packets.silence import DST_FROZEN
from doctor.promised import MOST, Promises
from doctor.reports.trace import SEES
from doctor.reports.words import shortened
from doctor.snapshot import EvidenceMissing
from doctor.subjects import Concern, Host, Subject, published, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doctor.facts.containers import Container
    from doctor.model import Looked, Promise, Report
    from doctor.registry import Registry
    from doctor.snapshot import Snapshot

SCHEMA = "1"
"""Version of the JSON of `doctor why`."""

ALL_PAIRS = 12
"""Containers of a network of which each is asked for each other; of more, each for the next."""

_OWN = frozenset(
    {"DOCKER_USER_DROP", "OTHER_BASE_CHAIN", "LOCAL_FIREWALL", "SRC_FIREWALL", "DST_FIREWALL"}
    | {"BRIDGE_FAMILY_DROP", "NETDEV_DROP", "ICC_DISABLED"}
)
"""Codes of rules that somebody wrote: only a finding that cites that very rule explains them."""

_CAUSES = {
    "FORWARDING_OFF_GLOBAL": ("NET034",),
    "FORWARDING_OFF_IFACE": ("NET013", "NET034"),
    "DST_NO_LISTENER": ("NET021", "NET026", "NET037", "NET038", "NET058"),
    "DST_LISTEN_ADDR": ("NET058", "NET037", "NET038"),
    DST_FROZEN: ("NSP015",),
    "VETH_DOWN": ("NET012",),
    "SRC_LINK_DOWN": ("NET012",),
    "BRIDGE_DOWN": ("NET009",),
    "BR_PORT_STATE": ("NET055",),
    "NEIGH_FAILED": ("NET009", "NET010", "NET012", "NET013", "NET026", "NET038", "NET056"),
    "NEIGH_WRONG_MAC": ("NET056",),
    "SRC_NO_ROUTE": ("NET012", "NET013", "NET014"),
    "NO_SOURCE": ("NET012", "NET013"),
    "ROUTE_NONE": ("NET009", "NET010", "NET054"),
    "ROUTE_BLACKHOLE": ("NET007", "NET054", "NET068"),
    "ROUTE_UNREACHABLE": ("NET007", "NET054", "NET068"),
    "ROUTE_PROHIBIT": ("NET007", "NET054", "NET068"),
    "RP_FILTER": ("NET007", "NET010", "NET054"),
    "FORWARD_POLICY": (
        "NET007",
        "NET008",
        "NET009",
        "NET020",
        "NET021",
        "NET022",
        "NET026",
        "NET035",
        "NET054",
        "NET059",
    ),
    "FORWARD_RULE": ("NET018", "NET020", "NET021", "NET022", "NET028", "NET033", "NET066"),
    "UNPUBLISHED_PORT": ("NET020", "NET021", "NET026", "NET040"),
    "MASQ_MISSING": ("NET021", "NET025", "NET062"),
    "REPLY_BYPASSES_HOST": ("NET021", "NET025", "NET056"),
    "REPLY_ASTRAY": ("NET007", "NET008", "NET054"),
}
"""By code of a walk: the checks whose finding is the cause of it."""

_ANSWERS = frozenset({"NET067"})
"""Checks of what becomes of answers: what stops the first packet is another thing, even if it is the same rule."""


def why(snapshot: Snapshot, registry: Registry, word: str, began: float | None = None) -> tuple[Why, int]:
    """Say what is wrong with what a word names. `began` is when the run began (time.perf_counter).

    Gives the answer and the exit code: 0 nothing, 1 a cause, 3 something that would have to be known is not. Raises
    UsageError.
    """
    began = time.perf_counter() if began is None else began
    facts = Facts(registry, snapshot)
    try:
        host = Host.of(facts)
    except EvidenceMissing as missing:
        raise UsageError(f"why: {missing}") from missing
    subject = resolve(word, host)
    report = assess(snapshot, registry, registry.checks.values(), began=began, facts=facts)
    promises = Promises(facts, report.host)
    looked = tuple(_look(subject, promises))
    works = all(held.kept is not False for one in looked for held in one.promises) and all(one.runs for one in looked)
    concerned = _Concerned(report, Concern(subject, host, works=works), looked)
    unknown = tuple(dict.fromkeys([*(text for one in looked for text in one.unknown), *_unjudged(report)]))
    if snapshot.damage:
        unknown = (*unknown, snapshot.damage)
    stopped = concerned.stopped()
    wrong = any(one.well is False for one in looked) or any(
        one.severity is Severity.ERROR for one in (*concerned.causes, *stopped)
    )
    well = False if wrong else None if unknown else True
    site = promises.site
    partial = site.host.program.partial if site is not None else 0
    made = Why(
        schema=SCHEMA,
        doctor=__version__,
        host=report.host,
        kind=subject.kind,
        subject=subject.shown,
        answer=_answer(subject, looked, concerned, well=well),
        well=well,
        containers=looked,
        diagnoses=concerned.causes,
        stopped=stopped,
        findings=concerned.findings,
        elsewhere=concerned.elsewhere(Severity.ERROR),
        warnings_elsewhere=concerned.elsewhere(Severity.WARNING),
        unknown=unknown,
        checks=report.counts.ran,
        walks=promises.walks,
        ms=round((time.perf_counter() - began) * 1000, 1),
        coverage=f"{site.host.program.rules - partial} of {site.host.program.rules} rules of this host are modelled whole"
        if site is not None and partial
        else "",
    )
    return made, FOUND if wrong else INCOMPLETE if unknown else CLEAN


def _unjudged(report: Report) -> Iterable[str]:
    reasons = [one.reason for one in report.outcomes if one.outcome in {Result.UNKNOWN, Result.ERROR}]
    for reason in dict.fromkeys(reasons):
        yield f"{plural(reasons.count(reason), 'check')}: {reason}"


def _look(subject: Subject, promises: Promises) -> Iterable[Looked]:
    """Look at each container, with the neighbours that are to be asked of the subject."""
    held = subject.containers
    for at, one in enumerate(held):
        if subject.kind == "port":
            yield promises.look(one, port=subject.port)
        elif subject.kind == "container":
            near = _near(one, promises.containers.running if not promises.missing else ())
            looked = promises.look(one, there=near[:MOST], back=near[:MOST])
            if len(near) > MOST:
                unknown = (*looked.unknown, f"{MOST} of its {len(near)} neighbours were asked")
                looked = _with_unknown(looked, unknown)
            yield looked
        elif subject.kind == "image":
            yield promises.look(one)
        else:
            mates = tuple(other for other in held if other.id != one.id)
            if len(mates) >= ALL_PAIRS:
                running = [other for other in held if other.running]
                place = running.index(one) if one in running else at
                mates = (running[(place + 1) % len(running)],) if running else ()
            yield promises.look(one, there=mates)


def _with_unknown(looked: Looked, unknown: tuple[str, ...]) -> Looked:
    return replace(looked, unknown=unknown, well=None if looked.well else looked.well)


def _near(one: Container, running: tuple[Container, ...]) -> tuple[Container, ...]:
    mine = {end.network_id for end in one.endpoints}
    return tuple(
        other for other in running if other.id != one.id and mine & {end.network_id for end in other.endpoints}
    )


class _Concerned:
    """The causes of a report that concern a subject, and what stops its packets beside."""

    def __init__(self, report: Report, concern: Concern, looked: tuple[Looked, ...]) -> None:
        self.report = report
        self.looked = looked
        by_id = {one.id: one for one in report.findings}
        held = [
            cause for cause in report.diagnoses if any(concern(by_id[one]) for one in (cause.root, *cause.consequences))
        ]
        # What is wrong with the subject itself comes before what is wrong with the host.
        self.roots = {cause.root for cause in held}
        held = [self.grave(cause) for cause in held]
        held.sort(key=lambda cause: (-cause.severity.rank, not concern.about(by_id[cause.root])))
        self.causes = tuple(held)
        shown = {one for cause in self.causes for one in (cause.root, *cause.consequences)}
        self.findings = tuple(
            one for one in report.findings if one.id in shown or (one.severity is Severity.INFO and concern.about(one))
        )

    def grave(self, cause: Diagnosis) -> Diagnosis:
        """Make a cause of a warning that stops what was asked for: of the host it may be meant, here it is the answer."""
        if cause.severity is Severity.WARNING and any(_explains(cause, one, held) for one, held in self.broken):
            return replace(cause, severity=Severity.ERROR)
        return cause

    def elsewhere(self, severity: Severity) -> int:
        """Count the causes of a severity that do not concern it."""
        return sum(one.severity is severity for one in self.report.diagnoses if one.root not in self.roots)

    @property
    def broken(self) -> list[tuple[Looked, Promise]]:
        """Every promise that is not kept."""
        return [(one, held) for one in self.looked for held in one.promises if held.broken]

    def stopped(self) -> tuple[Diagnosis, ...]:
        """Make a cause of each rule or fact that stops packets of the subject, and that no check has named."""
        found: dict[tuple[str, str], list[Promise]] = {}
        for one, held in self.broken:
            if not any(_explains(cause, one, held) for cause in self.causes):
                decided = held.trace.decided_by
                key = held.trace.code, decided.place if decided else f"{held.trace.why} {one.name}"
                found.setdefault(key, []).append(held)
        return tuple(_stop(held, self.notes(held)) for held in found.values())

    def notes(self, held: list[Promise]) -> Remedy | None:
        """Give the cure of a note of doctor check that is about the same: worth knowing there, the cause here."""
        codes = _CAUSES.get(held[0].trace.code, ())
        return next((one.remedy for one in self.findings if one.code in codes), None)


def _explains(cause: Diagnosis, one: Looked, held: Promise) -> bool:
    """Whether a cause explains why a promise is not kept."""
    trace = held.trace
    if cause.code in _ANSWERS and trace.verdict not in {"delivered", "leaves"}:
        return False
    cited = {(one.record, one.line) for one in cause.evidence if one.line}
    met = [step.cited for step in (*trace.steps, *trace.reply_steps) if trace.code not in _OWN or step.stage == "route"]
    if any(one is not None and (one.record, one.line) in cited for one in (trace.decided_by, *met)):
        return True  # the way itself goes by what the cause is about
    if cause.severity is not Severity.ERROR or trace.code in _OWN:
        return False
    if cause.code in _CAUSES.get(trace.code, ()):
        return True
    for effect in cause.hits:
        names = " ".join(effect.names).split(" ")
        if held.kind == "port" and f"{held.about} -> {one.name}" in effect.names:
            return True
        if held.kind != "port" and "reach nothing" in effect.text and (one.name in names or one.name in effect.text):
            return True
    return False


def _stop(held: list[Promise], cure: Remedy | None) -> Diagnosis:
    """Put what stops packets into the form of a cause."""
    trace = held[0].trace
    last = next((step for step in reversed(trace.steps) if step.text), None)
    decided = trace.decided_by or Citation("", 0, last.text if last else trace.code, last.space if last else "walk")
    flows = tuple(f"{one.trace.source} -> {words_of(one)} {_sees(one)}" for one in held)
    return Diagnosis(
        code=trace.code,
        severity=Severity.ERROR,
        title=trace.why or (last.text if last else trace.code),
        root="",
        consequences=(),
        hits=tuple(Effect(text) for text in shortened(flows)),
        works=(),
        evidence=(decided,),
        since=None,
        excluded=(),
        cure_after=(),
        remedy=trace.remedy or cure or Remedy("see the walk", (Note(f"each step: {again(held[0])}"),)),
    )


def words_of(held: Promise) -> str:
    """Give the target of a promise as a person writes it."""
    return held.trace.target.removesuffix("/tcp").removesuffix(" (icmp echo)")


def again(held: Promise) -> str:
    """Give the command that follows it step by step."""
    return f"doctor trace {held.trace.source} {words_of(held)}"


# The answer in one line


def _answer(subject: Subject, looked: tuple[Looked, ...], concerned: _Concerned, *, well: bool | None) -> str:
    if subject.kind == "port":
        said = "; ".join(_port(subject, one, look) for one, look in zip(subject.containers, looked, strict=True))
        return said + ("" if any(one.well is False for one in looked) else _causes(concerned))
    if subject.kind == "container":
        return f"{looked[0].name} {_one(looked[0], concerned, well=well)}"
    what = {"project": "Compose project", "network": "network", "image": "image"}[subject.kind]
    if not looked:
        tail = "no container is made of it" if subject.kind == "image" else "no container is on it"
        return f"{what} {subject.name}: {tail}" + _causes(concerned)
    wrong = [*_down(looked), *_broken(looked)]
    many = plural(len(looked), "container")
    if wrong:
        return f"{what} {subject.name}, {many}: {'; '.join(wrong)}"
    unwell = [one.name for one in looked if one.well is False]
    if unwell:
        return f"{what} {subject.name}, {many}: {_some(unwell)} not as it should be" + _causes(concerned)
    ended = sum(not one.runs for one in looked)
    said = "nothing wrong found" if well else "nothing wrong found as far as could be seen"
    more = f" ({ended} ended)" if ended else ""
    return f"{what} {subject.name}, {many}{more}" + (_causes(concerned).replace(";", ":", 1) or f": {said}")


def _down(looked: tuple[Looked, ...]) -> Iterable[str]:
    names = [one.name for one in looked if not one.runs and one.well is False]
    if names:
        yield f"{_some(names)} {'does' if len(names) == 1 else 'do'} not run"


def _broken(looked: tuple[Looked, ...]) -> Iterable[str]:
    """Say of several containers which promises are broken, each kind once."""
    broken = [(one, held) for one in looked for held in one.promises if held.broken]
    for where, met in (("from outside", False), ("from this host", True)):
        ports = [held for _, held in broken if held.kind == "port" and (held.trace.source == "host") is met]
        if ports:
            said = {_sees(held) for held in ports}
            numbers = _some(list(dict.fromkeys(held.about for held in ports)))
            yield f"{numbers} {said.pop() if len(said) == 1 else 'would not be reached'} {where}"
    outside = list(dict.fromkeys(one.name for one, held in broken if held.kind == "outside"))
    if outside:
        yield f"{_some(outside)} would reach nothing outside"
    asks = [one.name for one, held in broken if held.kind == "nameserver" and one.name not in outside]
    if asks:
        yield f"the nameserver of {_some(list(dict.fromkeys(asks)))} would not answer"
    pairs = list(dict.fromkeys(f"{held.trace.source} to {held.peer}" for _, held in broken if held.kind == "neighbour"))
    if pairs:
        yield f"no packets from {_some(pairs)}"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"  # noqa: PLR2004


def _causes(concerned: _Concerned | None) -> str:
    held = [one.title for one in concerned.causes if one.severity is Severity.ERROR] if concerned is not None else []
    if not held:
        return ""
    return f"; {held[0]}" + (f", and {plural(len(held) - 1, 'more cause')}" if len(held) > 1 else "")


def _port(subject: Subject, one: Container, look: Looked) -> str:
    number, _, protocol = subject.port.partition("/")
    held = next(port for port in published(one) if (port.host, port.protocol) == (int(number), protocol))
    address = next((end.address or end.address6 for end in one.endpoints if end.address or end.address6), "")
    target = f", {address}:{held.container}" if address else f", port {held.container}"
    head = f"{number}{'' if protocol == 'tcp' else '/' + protocol} -> {one.name}"
    if not look.runs:
        return f"{head}: it {look.state}"
    stands = look.remedy is not None and any(held.trace.code == DST_FROZEN for held in look.promises if held.broken)
    return f"{head}{target}: {_met(look)}" + (f"; it {look.state}" if stands else "")


def _met(look: Looked) -> str:
    """Say what a client of a published port meets, from outside and from this host."""
    ports = [one for one in look.promises if one.kind == "port"]
    out = next((one for one in ports if one.trace.source != "host"), None)
    here = next((one for one in ports if one.trace.source == "host"), None)
    if out is None and here is None:
        return "not known"
    if out is None and here is not None:
        return f"for this host only; a client here {_sees(here)}"
    who = "a client" if out is None or out.trace.source == "outside" else f"a client such as {out.trace.source}"
    said = f"{who} {_sees(out)}" if out is not None else ""
    if out is not None and here is not None and here.kept != out.kept:
        said += f"; from this host it {_sees(here)}"
    return said


def _sees(held: Promise) -> str:
    if held.kept is None:
        return "may or may not connect"
    said = SEES.get(held.trace.client_sees or "", held.trace.verdict)
    return said if held.kept or held.trace.client_sees != "connected" else "would connect, and then hear nothing more"


def _one(look: Looked, concerned: _Concerned, *, well: bool | None) -> str:
    """Say of one container what is wrong, the worst first."""
    broken = {one.trace.code for one in look.promises if one.broken}
    if not look.runs or (look.well is False and broken <= {DST_FROZEN}):
        return look.state
    wrong = _wrongs(look)
    if wrong:
        return f"runs; {'; '.join(wrong)}"
    if _causes(concerned):
        return f"{look.state.partition(',')[0]}{_causes(concerned)}"
    if well is None:
        return "runs; not all of what it needs could be looked at"
    kinds = {one.kind for one in look.promises if one.kept}
    parts = [
        word
        for kind, word in (
            ("port", "its ports"),
            ("outside", "the way out"),
            ("nameserver", "its nameserver"),
            ("neighbour", "its neighbours"),
        )
        if kind in kinds
    ]
    return f"runs; {', '.join(parts)}: nothing wrong found" if parts else "runs; nothing wrong found"


def _wrongs(look: Looked) -> list[str]:
    """Say which promises are broken, in a few words each."""
    found: dict[str, str] = {}
    for one in look.promises:
        if not one.broken:
            continue
        if one.kind == "port":
            where = "from this host" if one.trace.source == "host" else "from outside"
            found.setdefault(f"port {one.about}", f"{one.about} {_sees(one)} {where}")
        elif one.kind == "outside":
            found["outside"] = "it would reach nothing outside"
        elif one.kind == "nameserver":
            found["names"] = "its nameserver would not answer" if "outside" not in found else "nor its nameserver"
        else:
            found["neighbour"] = _neighbours(look)
    return list(found.values())


def _neighbours(look: Looked) -> str:
    asked = {(one.about, one.peer) for one in look.promises if one.kind == "neighbour"}
    bad = {(one.about, one.peer) for one in look.promises if one.kind == "neighbour" and one.broken}
    if len(asked) == len(bad) > 1:
        return f"no packets between it and its {len(asked)} neighbours"
    return f"no packets between it and {_some(sorted({peer for _, peer in bad}))}"
