"""Start a command, and leave: what goes wrong becomes one line and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from doctor import help as pages
from doctor.exits import CLEAN, FAULT, USAGE, Left, UsageError


def run() -> NoReturn:
    """Run the command line on sys.argv and leave; threads that hang in a system call are left behind."""
    gc.disable()  # a run is over before a cycle matters, and looking for some takes a tenth of it
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # text streams of the interpreter
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # whoever read us has seen enough
    os._exit(code)


def execute(arguments: list[str]) -> int:
    """Carry out one command line; gives its exit code. Nothing is raised: a fault of doctor is a line and a code, too."""
    text = pages.wanted(arguments)
    if text:
        sys.stdout.write(text)
        return CLEAN
    try:
        if arguments == [
            "check"
        ]:  # what is typed most has nothing to parse, and a parser is a tenth of a run to import
            from doctor import commands

            return commands.check()
        from doctor.cli import app

        app(arguments, prog_name="doctor", standalone_mode=True)
    except Left as left:
        return left.code
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
