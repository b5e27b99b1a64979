"""What each command does, in order; its exit code. What takes time to import is imported where it is used."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from doctor.exits import CLEAN, FAULT, FOUND, INCOMPLETE, USAGE, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doctor.evidence import Evidence
    from doctor.examine import Facts
    from doctor.model import HostInfo, Report
    from doctor.reports.text import Style
    from doctor.rules import Wanted


def check(
    bundle: str = "",
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    ignore: Sequence[str] = (),
    fail_on: str = "error",
    style: str = "",
    output: Sequence[str] = (),
    deadline: str = "10s",
    example: str = "",
    probe: bool = False,
    sample: str = "",
    deep: bool = False,
    verbose: bool = False,
    quiet: bool = False,
    colour: str = "auto",
) -> int:
    """Check the whole host, or a bundle."""
    began = time.perf_counter()
    from doctor import evidence, options

    severity = options.severity(fail_on)
    wanted = options.formats(style, list(output))
    ignores, expired = options.ignores(list(ignore))
    selected = (list(only), list(skip), ignores)
    if any(selected):
        options.selection(*selected)  # a word that names no check ends the run before anything is read
    for line in expired:
        sys.stderr.write(f"doctor: {line}\n")
    if example == "list":
        from doctor.examples import listing

        sys.stdout.write(listing())
        return CLEAN
    found = evidence.take(
        bundle,
        example,
        options.registry,
        options.duration(deadline),
        probe=probe,
        sample=options.sample(sample),
        deep=options.deep() if deep else None,
        anywhere=not deep,
    )
    from doctor.assess import assess

    registry, checks = options.selection(*selected)
    report = assess(found.snapshot, registry, checks, ignores, began)
    from doctor.reports.text import Style

    shown = Style(
        width=options.width(),
        colour=options.colour(colour),
        verbose=verbose,
        quiet=quiet,
        source=found.source,
    )
    return _deliver(report, shown, wanted, severity.rank, found)


def _deliver(report: Report, style: Style, wanted: list[tuple[str, str]], least: int, found: Evidence) -> int:
    """Write every report asked for; give the exit code."""
    from doctor import writing

    failed = writing.reports(report, style, wanted, found.leaks)
    damage = found.snapshot.damage
    if damage:
        sys.stderr.write(f"doctor: {damage}\n")
    if failed:
        return USAGE
    if any(one.severity.rank >= least and not one.ignored for one in report.findings):
        return FOUND
    if report.counts.broken or report.faults:
        return FAULT
    if report.counts.unknown or damage or report.host.engine_state == "absent":
        return INCOMPLETE
    return CLEAN


def collect(
    output: str = "", *, deadline: str = "10s", probe: bool = False, sample: str = "", deep: bool = False
) -> int:
    """Collect evidence, redacted, into one file."""
    from doctor import evidence, options, writing
    from doctor.vantage import whole

    if not output:
        raise UsageError("collect: where to? doctor collect -o HOST.tar.gz")
    seconds = options.duration(deadline)
    content = options.deep() if deep else None
    found = evidence.take(
        "", "", options.registry, seconds, probe=probe, sample=options.sample(sample), deep=content, anywhere=not deep
    )
    code = writing.bundle(found.snapshot, output, found.leaks)
    if why := whole(found.snapshot):
        sys.stderr.write(f"doctor: {why}\n")
        return code or INCOMPLETE
    return code


def rules(
    bundle: str = "",
    *,
    expected: bool = False,
    missing: bool = False,
    extra: bool = False,
    ipv6: bool = False,
    deadline: str = "10s",
    example: str = "",
) -> int:
    """Print the firewall rules that Docker would write here."""
    from doctor import evidence, options
    from doctor.rules import rules as text

    if expected + missing + extra > 1:
        raise UsageError("rules: one of --expected, --missing and --extra")
    snapshot = evidence.take(bundle, example, options.registry, options.duration(deadline)).snapshot
    registry = options.registry()
    wanted: Wanted = "missing" if missing else "extra" if extra else "expected"
    lines, said, code = text(snapshot, registry, wanted, "ip6" if ipv6 else "ip")
    sys.stdout.write(lines)
    if said:
        sys.stderr.write(f"doctor: {said}\n")
    return code


def reach(
    source: str = "",
    *,
    target: str = "",
    bundle: str = "",
    style: str = "text",
    deadline: str = "10s",
    example: str = "",
    verbose: bool = False,
) -> int:
    """Say who reaches whom."""
    from doctor import evidence, options
    from doctor.reach import reach as judge
    from doctor.reports.reach import as_json, as_text
    from doctor.snapshot import EvidenceMissing

    if style not in {"text", "json", "html"}:
        raise UsageError(f"reach: --format {style}: text, json or html")
    snapshot = evidence.take(bundle, example, options.registry, options.duration(deadline)).snapshot
    registry = options.registry()
    try:
        found, code = judge(snapshot, registry, source, target)
    except EvidenceMissing as missing:
        sys.stderr.write(f"doctor: reach: {missing}\n")
        return INCOMPLETE
    if style == "html":
        from doctor.reports.reach_page import render

        render(found, sys.stdout)
        return code
    sys.stdout.write(as_json(found) if style == "json" else as_text(found, options.width(), verbose=verbose))
    return code


def trace(
    source: str,
    target: str,
    *,
    bundle: str = "",
    style: str = "text",
    deadline: str = "10s",
    example: str = "",
    probe: bool = False,
    verbose: bool = False,
) -> int:
    """Follow one packet, and its answer."""
    from doctor import evidence, options
    from doctor.reports.trace import as_json, as_text
    from doctor.trace import trace as follow

    if style not in {"text", "json"}:
        raise UsageError(f"trace: --format {style}: text or json")
    snapshot = evidence.take(bundle, example, options.registry, options.duration(deadline)).snapshot
    registry = options.registry()
    knock = None
    if probe:
        if bundle or example:
            raise UsageError("trace: --probe tries it on this host, not in a bundle")
        from doctor.host import LocalHost

        knock = LocalHost().knock
    found, code = follow(snapshot, registry, source, target, knock, time.time())
    sys.stdout.write(as_json(found) if style == "json" else as_text(found, options.width(), verbose=verbose))
    return code


def why(
    subject: str,
    *,
    bundle: str = "",
    style: str = "text",
    deadline: str = "10s",
    example: str = "",
    verbose: bool = False,
    colour: str = "auto",
) -> int:
    """Say what is wrong with one thing, and nothing else."""
    began = time.perf_counter()
    from doctor import evidence, options
    from doctor.reports.text import Style
    from doctor.reports.why import as_json, as_text
    from doctor.why import why as ask

    if style not in {"text", "json"}:
        raise UsageError(f"why: --format {style}: text or json")
    found = evidence.take(bundle, example, options.registry, options.duration(deadline))
    registry = options.registry()
    answer, code = ask(found.snapshot, registry, subject, began)
    shown = Style(options.width(), options.colour(colour), verbose=verbose, source=found.source)
    sys.stdout.write(as_json(answer) if style == "json" else as_text(answer, shown))
    if found.snapshot.damage:
        sys.stderr.write(f"doctor: {found.snapshot.damage}\n")
    return code


def explain(subject: Sequence[str] = ()) -> int:
    """Print the page of a code, the list of an area, or what an error message means, offline."""
    from doctor.explain import explain as text

    sys.stdout.write(text(" ".join(subject)))
    return CLEAN


def layers_list(*, bundle: str = "", style: str = "text", deadline: str = "10s", example: str = "") -> int:
    """List the layers of this host, and who stands on each."""
    facts, host = _layer_facts(bundle, style, deadline, example)
    from doctor import layering
    from doctor.reports.layers import as_json, listing

    found = layering.listed(facts, host)
    sys.stdout.write(as_json(found) if style == "json" else listing(found))
    return CLEAN


def layers_explain(
    layer: str, *, bundle: str = "", style: str = "text", deadline: str = "10s", example: str = ""
) -> int:
    """Say what one layer is: where it lies, what it stands on, who stands on it."""
    facts, host = _layer_facts(bundle, style, deadline, example)
    from doctor import layering
    from doctor.reports import layers

    rows, places = layering.chosen(facts, layer)
    sys.stdout.write(layers.as_json(rows[0]) if style == "json" else layers.layer(rows, places, host))
    return CLEAN


def _layer_facts(bundle: str, style: str, deadline: str, example: str) -> tuple[Facts, HostInfo]:
    """Give the facts of the evidence, and the host in a line. Raises UsageError, and Left for what cannot be known."""
    from doctor import evidence, options
    from doctor.assess import assess
    from doctor.examine import Facts
    from doctor.exits import Left
    from doctor.facts.store import LayerDb, Overlay
    from doctor.layering import rows
    from doctor.snapshot import EvidenceMissing

    if style not in {"text", "json"}:
        raise UsageError(f"layers: --format {style}: text or json")
    snapshot = evidence.take(bundle, example, options.registry, options.duration(deadline)).snapshot
    registry = options.registry()
    facts = Facts(registry, snapshot)
    try:
        overlay: Overlay = facts.get(Overlay)
        facts.get(LayerDb)
    except EvidenceMissing as missing:
        sys.stderr.write(f"doctor: layers: {missing}\n")
        raise Left(INCOMPLETE) from missing
    if overlay.unused and not rows(facts):
        sys.stderr.write(f"doctor: layers: {overlay.unused}\n")
    return facts, assess(snapshot, registry, (), facts=facts).host


def layers_verify(
    what: Sequence[str] = (),
    *,
    deep: bool = False,
    jobs: int = 0,
    budget: str = "",
    seed: str = "",
    resume: str = "",
    source: str = "",
    full_speed: bool = False,
    bundle: str = "",
    style: str = "text",
    deadline: str = "10s",
    example: str = "",
    verbose: bool = False,
    colour: str = "auto",
) -> int:
    """Say whether layers are what was pulled; with `deep`, of every byte."""
    began = time.perf_counter()
    from doctor import evidence, layering, options
    from doctor.deep import podman_here
    from doctor.reports.layers import LayerStyle, as_json, verification

    if style not in {"text", "json"}:
        raise UsageError(f"layers: --format {style}: text or json")
    if (budget or seed or resume or jobs or source) and not deep:
        raise UsageError("layers: --jobs, --budget, --seed, --resume and --from are of --deep")
    files = [one for one in what if layering.is_file(one)]
    names = tuple(one for one in what if one not in files)
    wanted = options.deep(names, jobs, budget, seed, resume, gently=not full_speed)
    value, report = None, None
    if names or not files:
        read = wanted if deep and not (bundle or example) else None
        snapshot = evidence.take(
            bundle, example, options.registry, options.duration(deadline), deep=read, alone=bool(read) and podman_here()
        ).snapshot
        value, report, facts = layering.judged(snapshot, options.registry(), names, deep=deep, began=began)
        if source:
            value = layering.from_archive(value, facts, source)
    if files or value is None:
        value = layering.with_archives(
            value, layering.archives(files, wanted), options.registry(), deep=deep, began=began
        )
    shown = LayerStyle(options.width(), options.colour(colour), verbose, tuple(what))
    sys.stdout.write(as_json(value) if style == "json" else verification(value, shown))
    return layering.code(value, report)
