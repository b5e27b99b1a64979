"""The command line: arguments in, exit code out. No logic; what takes time to import is imported where it is used."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from doctor import help as pages
from doctor.exits import CLEAN, FAULT, FOUND, INCOMPLETE, USAGE, UsageError

if TYPE_CHECKING:
    from doctor.evidence import Evidence
    from doctor.model import Report
    from doctor.reports.text import Style
    from doctor.rules import Wanted

app = typer.Typer(
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    help="What is wrong with this Docker host, why, and what to do.",
)


def run() -> NoReturn:
    """Run the command line on sys.argv and leave; threads that hang in a system call are left behind."""
    gc.disable()  # a run is over before a cycle matters, and looking for some takes a tenth of it
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # text streams of the interpreter
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # whoever read us has seen enough
    os._exit(code)


def _run(arguments: list[str]) -> int:
    text = pages.wanted(arguments)
    if text:
        sys.stdout.write(text)
        return CLEAN
    try:
        app(arguments, prog_name="doctor", standalone_mode=True)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else CLEAN
    except UsageError as error:
        sys.stderr.write(f"doctor: {error}\n")
        return USAGE
    except BrokenPipeError:
        return CLEAN
    except KeyboardInterrupt:
        sys.stderr.write("doctor: interrupted\n")
        return 130
    except Exception as error:  # noqa: BLE001 - a traceback is no message; this is the outermost place
        sys.stderr.write(_fault(error))
        return FAULT
    return CLEAN


def _fault(error: Exception) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - no import for one name
    if os.environ.get("DOCTOR_TRACEBACK"):
        return "".join(traceback.format_exception(error))
    return (
        f"doctor: fault in doctor itself: {type(error).__name__} at {place}: {error}\n"
        "  Please send this line, and what `DOCTOR_TRACEBACK=1 doctor ...` prints.\n"
    )


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    if version:
        from doctor import __version__

        sys.stdout.write(f"doctor {__version__}\n")
        raise typer.Exit(CLEAN)
    if context.invoked_subcommand is None:
        sys.stdout.write(pages.TOP)


@app.command()
def check(
    bundle: Annotated[str, typer.Argument(metavar="[BUNDLE|-]")] = "",
    only: Annotated[list[str] | None, typer.Option("--only")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip")] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore")] = None,
    fail_on: Annotated[str, typer.Option("--fail-on")] = "error",
    style: Annotated[str, typer.Option("--format")] = "",
    output: Annotated[list[str] | None, typer.Option("--output", "-o")] = None,
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
    probe: Annotated[bool, typer.Option("--probe")] = False,  # noqa: FBT002
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,  # noqa: FBT002
    colour: Annotated[str, typer.Option("--color", "--colour")] = "auto",
) -> None:
    """Check the whole host, or a bundle."""
    began = time.perf_counter()
    from doctor import evidence, options

    severity = options.severity(fail_on)
    wanted = options.formats(style, output or [])
    ignores, expired = options.ignores(ignore or [])
    registry, checks = options.selection(only or [], skip or [], ignores)
    for line in expired:
        sys.stderr.write(f"doctor: {line}\n")
    if example == "list":
        from doctor.examples import listing

        sys.stdout.write(listing())
        raise typer.Exit(CLEAN)
    seconds = options.duration(deadline)
    found = evidence.take(bundle, example, registry, seconds, probe=probe)
    snapshot = found.snapshot
    from doctor.assess import assess

    report = assess(snapshot, registry, checks, ignores, began)
    from doctor.reports.text import Style

    shown = Style(
        width=options.width(),
        colour=options.colour(colour),
        verbose=verbose,
        quiet=quiet,
        source=found.source,
    )
    raise typer.Exit(_deliver(report, shown, wanted, severity.rank, found))


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


@app.command()
def collect(
    output: Annotated[str, typer.Option("--output", "-o")] = "",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    probe: Annotated[bool, typer.Option("--probe")] = False,  # noqa: FBT002
) -> None:
    """Collect evidence, redacted, into one file."""
    from doctor import evidence, options, writing

    if not output:
        raise UsageError("collect: where to? doctor collect -o HOST.tar.gz")
    seconds = options.duration(deadline)
    registry = options.registry()
    found = evidence.take("", "", registry, seconds, probe=probe)
    raise typer.Exit(writing.bundle(found.snapshot, output, found.leaks))


@app.command()
def rules(
    bundle: Annotated[str, typer.Argument(metavar="[BUNDLE|-]")] = "",
    expected: Annotated[bool, typer.Option("--expected")] = False,  # noqa: FBT002
    missing: Annotated[bool, typer.Option("--missing")] = False,  # noqa: FBT002
    extra: Annotated[bool, typer.Option("--extra")] = False,  # noqa: FBT002
    ipv6: Annotated[bool, typer.Option("--ipv6")] = False,  # noqa: FBT002
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
) -> None:
    """Print the firewall rules that Docker would write here."""
    from doctor import evidence, options
    from doctor.rules import rules as text

    if expected + missing + extra > 1:
        raise UsageError("rules: one of --expected, --missing and --extra")
    registry = options.registry()
    snapshot = evidence.take(bundle, example, registry, options.duration(deadline)).snapshot
    wanted: Wanted = "missing" if missing else "extra" if extra else "expected"
    lines, said, code = text(snapshot, registry, wanted, "ip6" if ipv6 else "ip")
    sys.stdout.write(lines)
    if said:
        sys.stderr.write(f"doctor: {said}\n")
    raise typer.Exit(code)


@app.command(context_settings={"ignore_unknown_options": True})
def explain(subject: Annotated[list[str] | None, typer.Argument(metavar="[CODE|NAME|AREA|ERROR]")] = None) -> None:
    """Print the page of a code, the list of an area, or what an error message means, offline."""
    from doctor.explain import explain as text

    sys.stdout.write(text(" ".join(subject or [])))
