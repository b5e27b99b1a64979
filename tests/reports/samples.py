"""Reports to print: the sessions of the design, large ones, and one in which every string is hostile.

Each builder makes a new report from nothing but literals, so that every renderer is tested against the same values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

from doctor.model import (
    SCHEMA,
    Citation,
    Command,
    Counts,
    Diagnosis,
    Edit,
    Effect,
    Excluded,
    Finding,
    HostInfo,
    Missing,
    Moment,
    Note,
    Outcome,
    Remedy,
    Removed,
    Report,
    Reported,
    Result,
    Severity,
    Since,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

DOCTOR = "1.0.0"

NAMES = {
    "CTR002": "unhealthy-container",
    "DMN009": "unbounded-container-logs",
    "DMN016": "daemon-does-not-answer",
    "LAY002": "short-link-gone",
    "LAY018": "orphaned-layer-directory",
    "LAY025": "container-without-its-layer",
    "NET021": "docker-chains-gone",
    "NET025": "masquerade-missing",
    "NET034": "forwarding-off",
    "NET065": "stale-resolv-conf",
    "SEC004": "socket-in-a-container",
    "STO007": "data-root-shares-root",
}
"""The codes that fire in some sample, and their names."""

CODES = (
    *(f"DMN{number:03}" for number in range(1, 31)),
    *(f"NET{number:03}" for number in range(1, 68)),
    "CTR002",
    "LAY002",
    "LAY018",
    "LAY025",
    *(f"NSP{number:03}" for number in range(1, 12)),
    "SEC001",
    "SEC002",
    "SEC003",
    "SEC004",
    "STO006",
    "STO007",
)
"""The 118 checks of every sample."""


def at(clock: str, day: int = 24) -> float:
    """Give a moment of November 2026, in UTC, as seconds since the epoch."""
    return datetime.fromisoformat(f"2026-11-{day:02}T{clock}").replace(tzinfo=UTC).timestamp()


def host(hostname: str, **changes: Any) -> HostInfo:
    """Make a host as in most sessions: Docker 28.5.2 that answers, iptables-nft, overlay2; read by root at 08:43."""
    usual = HostInfo(
        hostname=hostname,
        kernel="6.18.44",
        engine="28.5.2",
        engine_state="answers",
        firewall="iptables-nft",
        storage="overlay2",
        running=5,
        digest=sha256(hostname.encode()).hexdigest(),
        collected_at=at("08:43:00"),
        utc_offset=0,
        user="root",
    )
    return structs.replace(usual, **changes)


def reported(code: str, severity: Severity, finding: Finding, *, ignored: str = "") -> Reported:
    """Put a finding into a report, as `doctor.examine` does."""
    return Reported(
        id=sha256(f"{code}\0{finding.subject}".encode()).hexdigest()[:16],
        code=code,
        name=NAMES[code],
        severity=finding.severity or severity,
        subject=finding.subject,
        title=finding.title,
        message=finding.message,
        evidence=finding.evidence,
        remedy=finding.remedy,
        hits=finding.hits,
        works=finding.works,
        excluded=finding.excluded,
        since=finding.since,
        ignored=ignored,
    )


def cause(root: Reported, *, consequences: Sequence[str] = (), cure_after: Sequence[str] = ()) -> Diagnosis:
    """Make a diagnosis that says what its root finding says."""
    return Diagnosis(
        code=root.code,
        severity=root.severity,
        title=root.title,
        root=root.id,
        consequences=tuple(consequences),
        hits=root.hits,
        works=root.works,
        evidence=root.evidence,
        since=root.since,
        excluded=root.excluded,
        cure_after=tuple(cure_after),
        remedy=root.remedy,
    )


def report(
    host: HostInfo,
    findings: Sequence[Reported] = (),
    diagnoses: Sequence[Diagnosis] = (),
    *,
    unknown: Mapping[str, str] | None = None,
    missing: Sequence[Missing] = (),
    ms: float = 440.0,
    faults: Sequence[str] = (),
) -> Report:
    """Make a report of 118 checks: `unknown` gives the reason of each code that is, ten checks do not apply."""
    unknown = unknown or {}
    fired = {finding.code for finding in findings}
    spare = [code for code in CODES if code not in fired and code not in unknown]
    idle = set(spare[-10:]) if len(spare) > len(CODES) // 2 else set()
    outcomes = []
    for number, code in enumerate(CODES):
        if code in fired:
            result, reason = Result.FAIL, ""
        elif code in unknown:
            result, reason = Result.UNKNOWN, unknown[code]
        elif code in idle:
            result, reason = Result.NOT_APPLICABLE, "this host has no swarm"
        else:
            result, reason = Result.PASS, ""
        name = NAMES.get(code, f"{code[:3].lower()}-{code[3:]}")
        outcomes.append(Outcome(code, name, result, reason, 0.25 + number % 7 / 10))
    counted = [finding for finding in findings if not finding.ignored]
    roots = {diagnosis.root for diagnosis in diagnoses} | {i for cause in diagnoses for i in cause.consequences}
    severities = [finding.severity for finding in counted]
    return Report(
        schema=SCHEMA,
        doctor=DOCTOR,
        host=host,
        outcomes=tuple(outcomes),
        findings=tuple(findings),
        diagnoses=tuple(diagnoses),
        unsettled=(),
        missing=tuple(missing),
        removed=(Removed("environment", 5), Removed("label", 1), Removed("proxy password", 1)),
        counts=Counts(
            checks=len(CODES),
            ran=len(CODES) - len(unknown) - len(idle),
            causes=sum(diagnosis.severity is Severity.ERROR for diagnosis in diagnoses),
            errors=severities.count(Severity.ERROR),
            warnings=sum(f.severity is Severity.WARNING and f.id not in roots for f in counted),
            notes=severities.count(Severity.INFO),
            unknown=len(unknown),
            not_applicable=len(idle),
            broken=0,
            ignored=len(findings) - len(counted),
        ),
        ms=ms,
        faults=tuple(faults),
    )


def _notes() -> tuple[Reported, Reported]:
    """Two notes that a default install has."""
    return (
        reported(
            "DMN009",
            Severity.INFO,
            Finding(
                subject="log-opts",
                title="logs of containers grow without bound",
                message="json-file is the log driver of 5 containers and max-size is not set; they hold 1,204,224 bytes.",
                evidence=(
                    Citation("api/info", 1, '"LoggingDriver":"json-file"', "GET /info"),
                    Citation("engine/daemon.json", 0, "absent", "/etc/docker/daemon.json"),
                ),
                remedy=Remedy(
                    "Rotates the logs of containers made after it:",
                    steps=(Note('in /etc/docker/daemon.json set "log-opts": {"max-size": "10m", "max-file": "3"}'),),
                    restarts="dockerd",
                    risk="disruptive",
                    stops=("api", "cron", "db", "mail", "web1"),
                    stays_down=("api", "cron", "db", "mail", "web1"),
                ),
            ),
        ),
        reported(
            "SEC004",
            Severity.INFO,
            Finding(
                subject="cron",
                title="docker.sock is mounted in cron",
                message="/run/docker.sock is bind-mounted in cron: who is root in cron is root on this host.",
                evidence=(
                    Citation(
                        "api/containers/cron", 41, "/run/docker.sock:/run/docker.sock:rw", "cron HostConfig.Binds"
                    ),
                ),
                remedy=Remedy("Give cron a proxy that allows what it needs.", steps=(Note("no command does this"),)),
            ),
        ),
    )


def forwarding_off() -> Report:
    """Session a: one cause, with a picture, a diff and the moment it began."""
    root = reported(
        "NET034",
        Severity.ERROR,
        Finding(
            subject="ipv4",
            title="IPv4 forwarding is off",
            message="net.ipv4.ip_forward is 0 and 5 containers need it.",
            hits=(
                Effect(
                    "from outside, 3 published ports would time out", ("8080 -> web1", "8081 -> api", "2525 -> mail")
                ),
                Effect("5 containers would reach nothing outside", ("api", "cron", "db", "mail", "web1")),
            ),
            works=(Effect("these ports from this host"), Effect("containers of one network among themselves")),
            evidence=(
                Citation("files/proc/sys/net/ipv4/ip_forward", 1, "0", "/proc/sys/net/ipv4/ip_forward"),
                Citation("files/etc/sysctl.d/99-cis.conf", 3, "net.ipv4.ip_forward = 0", "/etc/sysctl.d/99-cis.conf:3"),
            ),
            since=Since(
                earliest=Moment(at("08:40:10"), "dockerd turned it on"),
                latest=Moment(
                    at("08:41:18"),
                    "99-cis.conf written",
                    Citation("files/etc/sysctl.d/99-cis.conf", 0, "", "/etc/sysctl.d/99-cis.conf"),
                ),
                exact=True,
            ),
            excluded=(
                Excluded("NET035", "policy DROP of FORWARD has met 0 packets"),
                Excluded("NET026", "all 4 published ports have their rules"),
            ),
            remedy=Remedy(
                "Turns forwarding on.",
                steps=(Command(("sysctl", "-w", "net.ipv4.ip_forward=1")),),
                lasts="until-boot",
                for_good=(Edit("/etc/sysctl.d/99-cis.conf", 3, "net.ipv4.ip_forward = 0", "net.ipv4.ip_forward = 1"),),
                undo=(Command(("sysctl", "-w", "net.ipv4.ip_forward=0")),),
                notes=("a restart of Docker heals too, but 5 containers stop and stay down",),
            ),
        ),
    )
    return report(host("us1"), (root, *_notes()), (cause(root),))


_LAYER = "be4ef0720b2648820ff8e3f1ba0ed2b24a5a702a92bede21c2ec5e24755d0da9"
_LINK = "JQHTNOE2VU75DZYKGPAE277A6H"


def _short_link_gone() -> Reported:
    return reported(
        "LAY002",
        Severity.ERROR,
        Finding(
            subject=_LAYER[:12],
            title=f"a layer's short link is gone: l/{_LINK}",
            message=f"overlay2/l has no entry {_LINK}, which layer {_LAYER[:12]} is named by in 2 images.",
            hits=(
                Effect(
                    "nothing made from these images can start, restart or be exec'd into",
                    ("busybox:lab (db)", "shop/web:1.4 (web1, api, batch)"),
                ),
            ),
            works=(Effect("web1, api and db still run: they were mounted before"),),
            evidence=(
                Citation("store/overlay2", 7, _LINK, f"overlay2/{_LAYER[:12]}.../link"),
                Citation("store/overlay2-l", 0, "has no entry of that name", "overlay2/l/"),
                Citation(
                    "store/overlay2", 9, "is there, 2,024,635 bytes as recorded", f"overlay2/{_LAYER[:12]}.../diff"
                ),
            ),
            excluded=(
                Excluded("LAY006", "the layer's content is there"),
                Excluded("LAY001", "its link file is whole"),
            ),
            remedy=Remedy(
                "Heals at once, no restart.",
                steps=(Command(("ln", "-s", f"../{_LAYER}/diff", f"/var/lib/docker/overlay2/l/{_LINK}")),),
            ),
        ),
    )


def _rules_flushed() -> Reported:
    return reported(
        "NET021",
        Severity.ERROR,
        Finding(
            subject="iptables",
            title="Docker's firewall rules were flushed",
            message="dockerd runs with iptables=true, and 0 of its 5 chains exist.",
            hits=(
                Effect("3 containers would reach nothing outside (their address is not masked)", ("web1", "db", "api")),
                Effect(
                    "starting a container with a published port fails",
                    ("iptables: No chain/target/match by that name.",),
                ),
                Effect("networks are open to each other: web1 (bridge) would reach db (shop)"),
            ),
            works=(
                Effect(
                    "8080 and 8081 still answer, through docker-proxy: web1 and api take every client "
                    "for 172.17.0.1 or 10.7.0.1"
                ),
            ),
            evidence=(
                Citation("net/iptables-nft", 0, "0 of Docker's 5 chains", "iptables-nft-save"),
                Citation("net/nft", 1, "table inet filter", "nft list ruleset"),
                Citation("files/etc/nftables.conf", 3, "flush ruleset", "/etc/nftables.conf:3"),
            ),
            since=Since(
                earliest=Moment(at("08:41:19"), "api started: its rules were written"),
                latest=Moment(
                    at("08:41:52"),
                    'first "No chain" in the log of dockerd',
                    Citation(
                        "engine/log",
                        812,
                        'level=error msg="iptables failed: No chain/target/match by that name."',
                        "log of dockerd:812",
                    ),
                ),
            ),
            excluded=(
                Excluded("NET017", "iptables is not switched off"),
                Excluded("NET031", "no legacy tables"),
            ),
            remedy=Remedy(
                "Puts back the 29 rules that Docker had written.",
                steps=(
                    Command(("sh", "-c", "doctor rules --missing | iptables-restore --noflush")),
                    Note(
                        "FORWARD has policy ACCEPT now: before Docker 28 unpublished ports are open to whoever "
                        "routes here. If it was DROP:"
                    ),
                    Command(("iptables", "-P", "FORWARD", "DROP")),
                ),
                lasts="until-boot",
                for_good=(Edit("/etc/nftables.conf", 3, "flush ruleset", "destroy table inet filter"),),
                notes=(
                    "rules of your own in DOCKER-USER do not come back",
                    (
                        "a restart of Docker heals too, but web1, db and api stop and stay down "
                        "(no restart policy, live-restore is off)"
                    ),
                ),
            ),
        ),
    )


def _masquerade_missing() -> Reported:
    return reported(
        "NET025",
        Severity.ERROR,
        Finding(
            subject="shop",
            title="containers of shop are not masked",
            message="nat POSTROUTING has no MASQUERADE for 10.7.0.0/24, and ip_masquerade of shop is true.",
            evidence=(Citation("net/iptables-nft", 0, "no nat table", "nat POSTROUTING"),),
            remedy=Remedy("Comes back with the rules of NET021.", steps=()),
        ),
    )


def two_causes() -> Report:
    """Session b: two independent causes whose cures have an order, one of them with a consequence."""
    link, rules, masquerade = _short_link_gone(), _rules_flushed(), _masquerade_missing()
    return report(
        host("us2", engine="26.1.5", running=3),
        (link, rules, masquerade, *_notes()),
        (cause(link), cause(rules, consequences=(masquerade.id,), cure_after=("LAY002",))),
        ms=460.0,
    )


def healthy() -> Report:
    """Session c: nothing found wrong, two notes."""
    return report(host("us1"), _notes(), ms=410.0)


def hung_daemon() -> Report:
    """Session d: a daemon that does not answer is a finding; what needs its API is unknown."""
    root = reported(
        "DMN016",
        Severity.ERROR,
        Finding(
            subject="dockerd",
            title="dockerd does not answer: a signal has stopped it",
            message="GET /_ping on /run/docker.sock was not answered within 2.0 s; process 19 is stopped.",
            hits=(Effect("every docker command hangs; no health checks, no restarts after a crash"),),
            works=(Effect("the 3 containers run, and their published ports answer", ("web1", "db", "api")),),
            evidence=(
                Citation("api/ping", 0, "accepts, GET /_ping unanswered after 2.0 s", "/run/docker.sock"),
                Citation("process/19/status", 3, "State:\tT (stopped)", "/proc/19/status"),
                Citation("process/19/tasks", 0, "all 13 threads are in T; containerd (pid 32) runs", "/proc/19/task"),
            ),
            excluded=(
                Excluded("DMN018", "docker.pid names this dockerd"),
                Excluded("STO009", "no thread waits for disk"),
            ),
            remedy=Remedy(
                "Lets it go on.",
                steps=(Command(("kill", "-CONT", "19")),),
                notes=("do not restart Docker for this: live-restore is off, 3 containers stop",),
            ),
        ),
    )
    silent = "API: /run/docker.sock accepts, and GET /_ping was not answered in 2.0 s"
    needs_api = [code for code in CODES if code not in NAMES][:11]
    return report(
        host("us4", engine_state="does not answer", running=-1),
        (root, _notes()[0]),
        (cause(root),),
        unknown=dict.fromkeys(needs_api, silent),
        missing=(
            Missing("api/info", "timeout", "no answer in 2.0 s", 2000.4),
            Missing("api/containers", "not-run", "the daemon did not answer _ping", 0.0),
            Missing("api/networks", "not-run", "the daemon did not answer _ping", 0.0),
        ),
        ms=2300.0,
    )


def not_root() -> Report:
    """Session f: read by nobody; most is unknown, and nothing that could be read is wrong."""
    reasons = (
        (44, "API: /run/docker.sock is root:docker 0660, you are neither"),
        (22, "firewall: iptables-save and nft need root"),
        (15, "store: /var/lib/docker is root only"),
    )
    codes = iter(CODES)
    return report(
        host(
            "us1",
            engine_state="unreadable",
            firewall="",
            storage="",
            running=-1,
            user="nobody",
            unreadable=("firewall", "store", "API"),
        ),
        unknown={next(codes): reason for number, reason in reasons for _ in range(number)},
        missing=(
            Missing("api/ping", "denied", "/run/docker.sock: permission denied", 0.1),
            Missing("net/iptables-nft", "denied", "iptables-nft-save: you must be root", 4.2),
            Missing("store/root", "denied", "/var/lib/docker: permission denied", 0.1),
        ),
        ms=200.0,
    )


def _numbered(number: int) -> Reported:
    """One of many small findings: each fifth a warning about a container, the others notes about a layer directory."""
    if number % 5 == 0:
        name = f"worker-{number:04}"
        return reported(
            "NET065",
            Severity.WARNING,
            Finding(
                subject=name,
                title=f"{name} asks a nameserver that the host has left",
                message=f"resolv.conf of {name} names 192.0.2.{number % 250 + 1}, the host's names 198.51.100.53.",
                evidence=(
                    Citation(
                        f"containers/{name}/resolv.conf",
                        1,
                        f"nameserver 192.0.2.{number % 250 + 1}",
                        f"{name} /etc/resolv.conf:1",
                    ),
                    Citation("files/etc/resolv.conf", 2, "nameserver 198.51.100.53", "/etc/resolv.conf:2"),
                ),
                remedy=Remedy(
                    "Starts it again with the present resolv.conf.",
                    steps=(Command(("docker", "restart", name)),),
                    risk="disruptive",
                    stops=(name,),
                ),
            ),
        )
    layer = sha256(str(number).encode()).hexdigest()
    return reported(
        "LAY018",
        Severity.INFO,
        Finding(
            subject=layer[:12],
            title=f"layer directory {layer[:12]} belongs to nothing",
            message=f"no image and no container owns overlay2/{layer[:12]}; it holds {number * 7919:,} bytes.",
            evidence=(Citation("store/overlay2", number, f"{layer}\td\t{number * 7919}", f"overlay2/{layer[:12]}..."),),
            remedy=Remedy("Frees the space.", steps=(Command(("rm", "-r", f"/var/lib/docker/overlay2/{layer}")),)),
        ),
    )


def many(number: int) -> Report:
    """Give session b's causes, and small findings up to `number` in all."""
    small = two_causes()
    return structs.replace(
        report(
            small.host,
            (*small.findings, *(_numbered(index) for index in range(number - len(small.findings)))),
            small.diagnoses,
        ),
        unsettled=("build-7f3 (stopped while evidence was collected)",),
    )


def sixty() -> Report:
    """Sixty findings: a large report of a real host."""
    return many(60)


def five_thousand() -> Report:
    """Five thousand findings: more than anyone reads, and still a file to attach."""
    return many(5000)


SPICE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)><svg/onload='alert(3)'>",
    "]]></script></style></template></title></textarea></pre><!--",
    "\x1b[31mred\x1b[0m\x1b]8;;http://evil.example\x07",
    "annex\u202egnp.exe\u2066\u200b\u00ad\ufeff",
    "nul\x00del\x7fc1\x9bend\u2028\u2029\ufffe",
    "lone\udc9bsurrogate\ud800",
    "{{ 7 * 7 }}{% raw %}{# gone #}${7*7}",
    "' onmouseover='alert(4)' style='background:url(http://evil.example)",
    "javascript:alert(5)",
    "&lt;b&gt;&amp;&#x3c;script&#x3e;",
    "two\nlines\r\nFAIL  NET000  forged\n\n",
    "=cmd|' /C calc'!A0",
    "```\n# fence\n@everyone",
    "caf\u00e9 \u65e5\u672c \u05e2\u05d1\u05e8\u05d9\u05ea",
    "$(touch /tmp/owned)`id`;rm -rf ~ '\"\\",
    "",
)
"""Strings that a hostile host may put into names, labels, rules and lines."""

LONG = "A" * 5_000_000 + "<b>" + "B" * 5_000_000
"""A line of 10 MB."""

_WORDS_OF_OURS = {"risk", "lasts", "restarts", "schema"}

_Value = TypeVar("_Value")


def spoilt(value: _Value, spice: Iterator[str]) -> _Value:
    """Give the value with every string in it replaced that is not one of our own closed sets of words."""
    if isinstance(value, Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__ if name not in _WORDS_OF_OURS}
        return structs.replace(value, **{name: spoilt(field, spice) for name, field in fields.items()})
    if isinstance(value, tuple):
        return tuple(spoilt(item, spice) for item in value)  # type: ignore[return-value]
    if isinstance(value, str) and not isinstance(value, Enum):
        return next(spice)  # type: ignore[return-value]
    return value


def hostile(turn: int = 0, long: str = LONG) -> Report:
    """Give session b with a bad string in every place, a line of 10 MB, and times that no clock has.

    Reports of different turns have the strings in other places; a shorter line makes for a quicker test.
    """
    bad = spoilt(
        structs.replace(
            two_causes(),
            missing=hung_daemon().missing,
            unsettled=("x", "y"),
            faults=("x", "y"),
        ),
        (SPICE[number % len(SPICE)] for number in count(turn)),
    )
    line = Citation("engine/log", 2**62, long, "log of dockerd")
    never = Since(earliest=Moment(-1e300, "before time", line), latest=Moment(1e300, "after time"))
    first = structs.replace(bad.diagnoses[0], since=never, evidence=(line, *bad.diagnoses[0].evidence))
    return structs.replace(
        bad,
        host=structs.replace(bad.host, utc_offset=10**9, collected_at=-1e18, running=10**12),
        diagnoses=(first, *bad.diagnoses[1:]),
    )


SAMPLES: dict[str, Callable[[], Report]] = {
    "forwarding-off": forwarding_off,
    "two-causes": two_causes,
    "healthy": healthy,
    "hung-daemon": hung_daemon,
    "not-root": not_root,
    "sixty": sixty,
    "five-thousand": five_thousand,
    "hostile": hostile,
}
"""Every sample by name."""
