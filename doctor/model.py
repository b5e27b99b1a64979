"""The frozen values that every layer speaks: citations, findings, cures, diagnoses and the report.

They are msgspec structs: decoding a report from hostile JSON validates it, and the report's JSON Schema is generated
from them (`doctor/reports/schema.py`). Nothing here does I/O or knows a clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

SCHEMA = "1"
"""Version of the JSON report; it grows only when a consumer of the old one would break."""


class Severity(StrEnum):
    """How much a finding matters: error = does not work now; warning = will bite; info = worth knowing."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """1 for info, 2 for warning, 3 for error: comparable, as the values are not."""
        return {"info": 1, "warning": 2, "error": 3}[self.value]


class Result(StrEnum):
    """What became of a check. Missing evidence is `unknown`, never a pass."""

    PASS = "pass"  # noqa: S105 - a result, not a password
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not-applicable"
    ERROR = "error"


class Citation(Struct, frozen=True):
    """Where in the snapshot a statement can be read.

    `record` is the record's name, `line` counts from 1 inside it (0: the record as a whole), `excerpt` is the text
    found there, and `place` is what a person calls it on the host: `/etc/sysctl.d/99-cis.conf:3`, `nat POSTROUTING 2`.
    """

    record: str
    line: int
    excerpt: str
    place: str


class Effect(Struct, frozen=True):
    """What a fault does, or what still works: a statement, and the names it is true of; reports may shorten these."""

    text: str
    names: tuple[str, ...] = ()


class Excluded(Struct, frozen=True):
    """A rival explanation and the fact that rules it out; `rival` is a code, empty in a diagnosis where it has no page."""

    rival: str
    fact: str


class Moment(Struct, frozen=True):
    """A point in time read from evidence: seconds since the epoch, what happened then, and where that is written."""

    at: float
    what: str
    evidence: Citation | None = None


class Since(Struct, frozen=True):
    """When a fault began: after `earliest` and not later than `latest`; `exact` when `latest` is the very moment."""

    earliest: Moment | None = None
    latest: Moment | None = None
    exact: bool = False


class Command(Struct, frozen=True, tag="command"):
    """A command as a person may run it on this host; `stdin` is given to it when not empty."""

    argv: tuple[str, ...]
    stdin: str = ""


class Edit(Struct, frozen=True, tag="edit"):
    """One line of a file: line number `line` (from 1) reads `old` and becomes `new` (None: the line goes)."""

    path: str
    line: int
    old: str
    new: str | None


class EditKey(Struct, frozen=True, tag="edit-key"):
    """One key of a JSON file, by JSON pointer (RFC 6901): set to the JSON text `value`, or removed when it is None."""

    path: str
    pointer: str
    value: str | None


class Note(Struct, frozen=True, tag="note"):
    """A step that only a person can do."""

    text: str


Step = Command | Edit | EditKey | Note
Risk = Literal["safe", "disruptive", "destructive"]


class Remedy(Struct, frozen=True):
    """A cure as data: reports print it, a lab executes it.

    `steps` heal now, `for_good` keep it healed over the next boot or reload, `undo` takes the steps back.
    `stops` names the containers that stop when the steps run, `stays_down` those of them that do not come back by
    themselves; a *safe* cure stops nothing. `notes` are single lines worth knowing before or instead (another way that
    heals too, and what that would stop).
    """

    summary: str
    steps: tuple[Step, ...]
    risk: Risk = "safe"
    stops: tuple[str, ...] = ()
    stays_down: tuple[str, ...] = ()
    lasts: Literal["until-boot", "for-good"] = "for-good"
    restarts: Literal["dockerd", "host"] | None = None
    for_good: tuple[Step, ...] = ()
    undo: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a cure that calls itself safe and stops a container."""
        if self.risk == "safe" and self.stops:
            msg = f"a safe cure stops nothing, this one stops {', '.join(self.stops)}"
            raise ValueError(msg)


class Finding(Struct, frozen=True):
    """A symptom, as a check yields it.

    `subject` is unique among the findings of one check (`daemon.json:hosts`, a container, a layer). `title` says what
    is wrong in a few words, `message` the same with the measured values in one sentence. `severity` None means the
    check's own.
    """

    subject: str
    title: str
    message: str
    evidence: tuple[Citation, ...]
    remedy: Remedy
    severity: Severity | None = None
    hits: tuple[Effect, ...] = ()
    works: tuple[Effect, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    since: Since | None = None
    scope: str = ""
    """What it is about (a network), where a finding explains others of the same scope only; empty: of any."""
    because: tuple[str, ...] = ()
    """Codes of which any finding would be the cause of this one: an engine's error says what stood in the way."""
    likely: str = ""
    """What did it, most likely, by its pattern: a guess, and said as one."""
    by_hand: str = ""
    """How to see the same without doctor."""


class Unknown(Struct, frozen=True):
    """This one subject cannot be judged, and why; the others still are."""

    subject: str
    missing: str


class NotApplicable(Struct, frozen=True):
    """This host has nothing for this check to judge. Yielded alone."""

    why: str


Yield = Finding | Unknown | NotApplicable


class Outcome(Struct, frozen=True):
    """What became of one check on this snapshot, in how many milliseconds; `reason` for all but pass and fail."""

    code: str
    name: str
    outcome: Result
    reason: str
    ms: float


class Reported(Struct, frozen=True):
    """A finding in a report: as the check yielded it, with its code, name, severity and stable id.

    `id` is a fingerprint of code and subject: equal between runs and hosts' bundles, so that reports can be compared.
    """

    id: str
    code: str
    name: str
    severity: Severity
    subject: str
    title: str
    message: str
    evidence: tuple[Citation, ...]
    remedy: Remedy
    hits: tuple[Effect, ...]
    works: tuple[Effect, ...]
    excluded: tuple[Excluded, ...]
    since: Since | None
    scope: str = ""
    because: tuple[str, ...] = ()
    likely: str = ""
    by_hand: str = ""
    ignored: str = ""
    """The reason an `--ignore` gave; an ignored finding is listed, and counts for nothing."""


class Ignore(Struct, frozen=True):
    """A finding that the user accepts: its code, its subject (empty: any), why, and until when (epoch, 0: for ever)."""

    code: str
    subject: str
    reason: str
    until: float = 0.0

    def covers(self, finding: Reported, at: float) -> bool:
        """Whether it takes this finding out, at the time of the snapshot."""
        if self.until and at >= self.until:
            return False
        return finding.code == self.code and self.subject in {"", finding.subject}


class Diagnosis(Struct, frozen=True):
    """A cause. `root` and `consequences` are ids of findings; `cure_after` are codes whose cures come first."""

    code: str
    severity: Severity
    title: str
    root: str
    consequences: tuple[str, ...]
    hits: tuple[Effect, ...]
    works: tuple[Effect, ...]
    evidence: tuple[Citation, ...]
    since: Since | None
    excluded: tuple[Excluded, ...]
    cure_after: tuple[str, ...]
    remedy: Remedy
    likely: str = ""
    by_hand: str = ""


class HostInfo(Struct, frozen=True):
    """The host in one line: what the first line of every report says.

    Empty strings are what could not be known. `engine_state` is `answers`, `does not answer`, `not running`,
    `unreadable` or `absent`; `running` counts running containers (-1: not known); `utc_offset` is in seconds;
    `collected_at` is in seconds since the epoch; `unreadable` names areas of evidence that this user may not read.
    """

    hostname: str
    kernel: str
    engine: str
    engine_state: str
    firewall: str
    storage: str
    running: int
    digest: str
    collected_at: float
    utc_offset: int
    user: str
    unreadable: tuple[str, ...] = ()


class Counts(Struct, frozen=True):
    """The last line of a report as numbers; `ran` counts the checks that came to a pass or fail."""

    checks: int
    ran: int
    causes: int
    errors: int
    warnings: int
    notes: int
    unknown: int
    not_applicable: int
    broken: int
    ignored: int


class Missing(Struct, frozen=True):
    """Evidence that could not be had: the record, its status, why, and how long was waited for it in milliseconds."""

    record: str
    status: str
    why: str
    ms: float


class Removed(Struct, frozen=True):
    """Secrets taken out on the way in: how many of one kind (`environment`, `label`, `proxy password`, ...)."""

    kind: str
    count: int


class Report(Struct, frozen=True):
    """Everything that every format prints. The JSON format is this struct, and a contract.

    A bundle's report equals its host's but for every `ms`, `collected_at` and `doctor`. `ms` is the whole run's.
    """

    schema: str
    doctor: str
    host: HostInfo
    outcomes: tuple[Outcome, ...]
    findings: tuple[Reported, ...]
    diagnoses: tuple[Diagnosis, ...]
    unsettled: tuple[str, ...]
    missing: tuple[Missing, ...]
    removed: tuple[Removed, ...]
    counts: Counts
    ms: float
    faults: tuple[str, ...] = ()
    """Faults of doctor itself, one line each (a check that raised, a plugin that does not load)."""


class TraceStep(Struct, frozen=True):
    """One step of a packet's way: in which namespace, at which stage (`route`, `nat`, `veth`, ...), where, and what came of it.

    `text` is the rule, route or link as the host has it, `place` where it stands, `effect` what it did (`drop`, `accept`,
    `to 172.17.0.2:80`), empty where it did nothing but lead on.
    """

    space: str
    stage: str
    place: str
    text: str
    effect: str
    cited: Citation | None = None


class Tried(Struct, frozen=True):
    """What a real connection met: when (seconds since the epoch), what the client saw, after how many seconds.

    `agrees` says whether the model had said so, null where it could not be compared.
    """

    at: float
    sees: str
    seconds: float
    agrees: bool | None


class Trace(Struct, frozen=True):
    """What would happen to one packet, and to its answer. The JSON of `doctor trace` is this struct, and a contract.

    `works` is null where it depends on `depends_on`. `verdict` and `reply_verdict` say where each ended: `delivered`,
    `refused`, `dropped`, `rejected`, `no-route`, `unreachable`, `leaves`, `unknown`; empty for no answer. `client_sees` is
    `connected`, `timeout`, `refused`, `no-route`, `unreachable` or `reset`, null where it depends. `code` names why it does
    not work (`docs/packet-path.md`), `decided_by` is the rule or fact that decided, `by_design` says that Docker meant it.
    """

    schema: str
    doctor: str
    source: str
    target: str
    works: bool | None
    verdict: str
    reply_verdict: str
    client_sees: str | None
    code: str
    decided_by: Citation | None
    by_design: bool
    why: str
    depends_on: str
    notes: tuple[str, ...]
    steps: tuple[TraceStep, ...]
    reply_steps: tuple[TraceStep, ...]
    remedy: Remedy | None = None
    coverage: str = ""
    """How much of the host's rules is modelled, where it is not all of them."""
    tried: Tried | None = None
    """What `--probe` met; it beats the model."""
    full_size: str = ""
    """What becomes of packets of full size, where a link on the way does not take them; empty where all fit."""


class ReachEnd(Struct, frozen=True):
    """A container of the matrix: its networks (the first is where it is listed), its addresses, who shares its namespace."""

    name: str
    networks: tuple[str, ...]
    addresses: tuple[str, ...]
    shared_by: tuple[str, ...] = ()


class ReachFlow(Struct, frozen=True):
    """One flow that was judged: from a container, `host` or `outside` to a port of a container, or to `outside`.

    `answer` is `yes`, `refused` (it arrives, nobody listens) or the letter of a reason. `port` is 0 for a ping.
    `promised` says that Docker promises it: one network whose containers may talk to each other, or the way out of a
    network that is not internal.
    """

    source: str
    target: str
    network: str
    address: str
    port: int
    protocol: str
    promised: bool
    answer: str


class ReachPort(Struct, frozen=True):
    """A published port, and who reaches it: an answer for `outside` (`-`: it is for this host alone) and for the host.

    `containers` counts the answers of all other containers; `itself` is that of the container that publishes it.
    """

    container: str
    address: str
    port: int
    protocol: str
    inner: int
    promised: bool
    outside: str
    host: str
    itself: str
    containers: dict[str, int]


class ReachReason(Struct, frozen=True):
    """Why something is not reached. `kind`: `design` (Docker meant it), `broken` (a promise of Docker's), `denied`, `depends`.

    `code` is one of docs/packet-path.md, `places` are all rules that did it, `cited` is one of them, `question` what it
    depends on. `source` and `target` are an example as `doctor trace` takes it, `flows` counts what it denies.
    """

    letter: str
    kind: str
    code: str
    why: str
    places: tuple[str, ...]
    cited: Citation | None
    question: str
    source: str
    target: str
    flows: int


class Reach(Struct, frozen=True):
    """Who reaches whom. The JSON of `doctor reach` is this struct, and a contract ([schema](reach.schema.json)).

    `asked` are the words FROM and --to, empty for all. `unread` says what could not be known at all; `notes` what is left
    out and why. `broken` and `depends` count flows and ports.
    """

    schema: str
    doctor: str
    host: str
    asked: tuple[str, str]
    ends: tuple[ReachEnd, ...]
    flows: tuple[ReachFlow, ...]
    ports: tuple[ReachPort, ...]
    reasons: tuple[ReachReason, ...]
    notes: tuple[str, ...]
    unread: tuple[str, ...]
    broken: int
    depends: int
    coverage: str = ""
    """How much of the host's rules is modelled, where it is not all of them."""


class Promise(Struct, frozen=True):
    """One thing that is expected of a container, as one packet and its answer.

    `kind` is `port` (a published port), `outside` (the way out), `nameserver` or `neighbour`; `about` is the port, the
    nameserver or the network, `peer` the container at the other end, empty for none. `kept` is whether the packet is
    answered, null where that depends; one that is not `wanted` is told and counts for nothing: Docker or its user meant it
    so, or another one does the same. Of one that is kept the trace has no steps.
    """

    kind: str
    about: str
    peer: str
    kept: bool | None
    wanted: bool
    trace: Trace

    @property
    def broken(self) -> bool:
        """Whether it is wanted and not kept."""
        return self.wanted and self.kept is False


class Looked(Struct, frozen=True):
    """One container that was looked at: whether it runs, its state in words, what is expected of it.

    `well` is false where it does not run as it should, or a promise is broken, null where that is not known. `notes` are
    sentences on what was not asked, and why that is no fault; `unknown` those on what could not be.
    """

    name: str
    image: str
    networks: tuple[str, ...]
    runs: bool
    state: str
    well: bool | None
    promises: tuple[Promise, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    remedy: Remedy | None = None
    """What to do about a container that does not run, where no finding says more."""


class Why(Struct, frozen=True):
    """What is wrong with one thing. The JSON of `doctor why` is this struct, and a contract ([schema](why.schema.json)).

    `kind` is `container`, `project`, `port`, `network` or `image`; `answer` one line; `well` is false where a cause was
    found, null where something that would have to be known is not. `diagnoses` are the causes of `doctor check` that concern
    it, with their `findings`; a warning that stops what was asked for is an error there. `stopped` says in the same form what
    stops its packets where no check does: `code` is one of docs/packet-path.md, `root` is empty. `elsewhere` counts the
    causes and `warnings_elsewhere` the warnings that do not concern it, `unknown` says what could not be judged.
    """

    schema: str
    doctor: str
    host: HostInfo
    kind: str
    subject: str
    answer: str
    well: bool | None
    containers: tuple[Looked, ...]
    diagnoses: tuple[Diagnosis, ...]
    stopped: tuple[Diagnosis, ...]
    findings: tuple[Reported, ...]
    elsewhere: int
    warnings_elsewhere: int
    unknown: tuple[str, ...]
    checks: int
    walks: int
    ms: float
    coverage: str = ""
    """How much of the host's rules is modelled, where it is not all of them."""
