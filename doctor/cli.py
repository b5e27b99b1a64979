"""The command line: arguments in, exit code out. What a command does is in `commands`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from doctor import commands
from doctor import help as pages
from doctor.exits import CLEAN

app = typer.Typer(
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    help="What is wrong with this Docker host, why, and what to do.",
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
    sample: Annotated[str, typer.Option("--sample")] = "",
    deep: Annotated[bool, typer.Option("--deep")] = False,  # noqa: FBT002
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,  # noqa: FBT002
    colour: Annotated[str, typer.Option("--color", "--colour")] = "auto",
) -> None:
    """Check the whole host, or a bundle."""
    code = commands.check(
        bundle,
        only=only or (),
        skip=skip or (),
        ignore=ignore or (),
        fail_on=fail_on,
        style=style,
        output=output or (),
        deadline=deadline,
        example=example,
        probe=probe,
        sample=sample,
        deep=deep,
        verbose=verbose,
        quiet=quiet,
        colour=colour,
    )
    raise typer.Exit(code)


@app.command()
def collect(
    output: Annotated[str, typer.Option("--output", "-o")] = "",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    probe: Annotated[bool, typer.Option("--probe")] = False,  # noqa: FBT002
    sample: Annotated[str, typer.Option("--sample")] = "",
    deep: Annotated[bool, typer.Option("--deep")] = False,  # noqa: FBT002
) -> None:
    """Collect evidence, redacted, into one file."""
    raise typer.Exit(commands.collect(output, deadline=deadline, probe=probe, sample=sample, deep=deep))


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
    code = commands.rules(
        bundle, expected=expected, missing=missing, extra=extra, ipv6=ipv6, deadline=deadline, example=example
    )
    raise typer.Exit(code)


@app.command()
def reach(
    source: Annotated[str, typer.Argument(metavar="[FROM]")] = "",
    target: Annotated[str, typer.Option("--to")] = "",
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
) -> None:
    """Say who reaches whom."""
    code = commands.reach(
        source, target=target, bundle=bundle, style=style, deadline=deadline, example=example, verbose=verbose
    )
    raise typer.Exit(code)


@app.command()
def trace(
    source: Annotated[str, typer.Argument(metavar="FROM")],
    target: Annotated[str, typer.Argument(metavar="TO")],
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
    probe: Annotated[bool, typer.Option("--probe")] = False,  # noqa: FBT002
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
) -> None:
    """Follow one packet, and its answer."""
    code = commands.trace(
        source, target, bundle=bundle, style=style, deadline=deadline, example=example, probe=probe, verbose=verbose
    )
    raise typer.Exit(code)


@app.command()
def why(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT")],
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
    colour: Annotated[str, typer.Option("--color", "--colour")] = "auto",
) -> None:
    """Say what is wrong with one thing, and nothing else."""
    code = commands.why(
        subject, bundle=bundle, style=style, deadline=deadline, example=example, verbose=verbose, colour=colour
    )
    raise typer.Exit(code)


# What follows the word is docker's, and none of our business.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
)
def runtime(words: Annotated[list[str] | None, typer.Argument(metavar="WORD...")] = None) -> None:
    """Bring up a host of our own, with words as docker's."""
    from doctor.runtime_commands import runtime as run

    raise typer.Exit(run(words or ()))


@app.command(context_settings={"ignore_unknown_options": True})
def explain(subject: Annotated[list[str] | None, typer.Argument(metavar="[CODE|NAME|AREA|ERROR]")] = None) -> None:
    """Print the page of a code, the list of an area, or what an error message means, offline."""
    raise typer.Exit(commands.explain(subject or ()))


lab = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=False)
app.add_typer(lab, name="lab", help="Broken hosts to learn on, no Docker needed.")


@lab.command(name="list")
def _lab_list(area: Annotated[str, typer.Argument(metavar="[AREA]")] = "") -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.listing(area))


@lab.command(name="run")
def _lab_run(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    dialect: Annotated[str, typer.Option("--dialect")] = "",
) -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.run(name, dialect))


@lab.command(name="enter")
def _lab_enter(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.enter(name))


def _lab_word(which: str) -> None:
    def say(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
        from doctor.labs import commands as labs

        raise typer.Exit(labs.word(name, which))

    lab.command(name=which)(say)


for _word in ("hint", "check", "solve"):
    _lab_word(_word)


@lab.command(name="replay")
def _lab_replay(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    every: Annotated[bool, typer.Option("--all")] = False,  # noqa: FBT002
    dialect: Annotated[str, typer.Option("--dialect")] = "",
    keep: Annotated[bool, typer.Option("--keep")] = False,  # noqa: FBT002
    jobs: Annotated[int, typer.Option("--jobs", min=0)] = 0,
) -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.replay(names or (), every=every, dialect=dialect, keep=keep, jobs=jobs))


@lab.command(name="lint")
def _lab_lint(files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...")] = None) -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.lint(files or ()))


@lab.command(name="new")
def _lab_new(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    from doctor.labs import commands as labs

    raise typer.Exit(labs.new(name))


layers = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=False)
app.add_typer(layers, name="layers", help="Layers: which there are, and whether they are what was pulled.")


@layers.callback(invoke_without_command=True)
def _layers(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(pages.LAYERS)


@layers.command("list")
def layers_list(
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
) -> None:
    """List the layers, and who stands on each."""
    raise typer.Exit(commands.layers_list(bundle=bundle, style=style, deadline=deadline, example=example))


@layers.command("explain")
def layers_explain(
    layer: Annotated[str, typer.Argument(metavar="LAYER")],
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
) -> None:
    """Say what one layer is."""
    raise typer.Exit(commands.layers_explain(layer, bundle=bundle, style=style, deadline=deadline, example=example))


@layers.command("verify")
def layers_verify(
    what: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE|CONTAINER|ARCHIVE]")] = None,
    deep: Annotated[bool, typer.Option("--deep")] = False,  # noqa: FBT002
    jobs: Annotated[int, typer.Option("--jobs")] = 0,
    budget: Annotated[str, typer.Option("--budget")] = "",
    seed: Annotated[str, typer.Option("--seed")] = "",
    resume: Annotated[str, typer.Option("--resume")] = "",
    source: Annotated[str, typer.Option("--from")] = "",
    full_speed: Annotated[bool, typer.Option("--full-speed")] = False,  # noqa: FBT002
    bundle: Annotated[str, typer.Option("--bundle")] = "",
    style: Annotated[str, typer.Option("--format")] = "text",
    deadline: Annotated[str, typer.Option("--deadline")] = "10s",
    example: Annotated[str, typer.Option("--example")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v")] = False,  # noqa: FBT002
    colour: Annotated[str, typer.Option("--color", "--colour")] = "auto",
) -> None:
    """Say whether layers are what was pulled."""
    code = commands.layers_verify(
        what or (),
        deep=deep,
        jobs=jobs,
        budget=budget,
        seed=seed,
        resume=resume,
        source=source,
        full_speed=full_speed,
        bundle=bundle,
        style=style,
        deadline=deadline,
        example=example,
        verbose=verbose,
        colour=colour,
    )
    raise typer.Exit(code)
