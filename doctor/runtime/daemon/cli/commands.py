"""Which command a command line is, how its failures are told, and its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from doctor.runtime.daemon.cli import containers, networks, pages, reading
from doctor.runtime.daemon.cli.client import Client, Refused, Unreachable
from doctor.runtime.daemon.cli.flags import REFUSED, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_NOT_FOUND, _NOT_RUN = 127, 126
_KNOWN_GROUPS = frozenset({"container", "image", "network", "volume", "system"})
COMMANDS = containers.COMMANDS | reading.COMMANDS | networks.COMMANDS
_ALIASES = {
    "image ls": "images",
    "image list": "images",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "system info": "info",
    "system events": "events",
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    **{
        f"container {name}": name
        for name in (
            *("attach", "create", "exec", "kill", "logs", "port", "rename", "restart", "rm", "run", "start", "stop"),
            *("top", "wait"),
        )
    },
}


def main(argv: list[str]) -> int:
    """Run a command line (without the program's name); gives the exit code."""
    words = list(argv)
    while words and words[0] in {"-D", "--debug"}:
        words.pop(0)
    if not words or words[0] in {"help", "--help", "-h"}:
        sys.stdout.write(pages.TOP)
        return 0
    if words[0] in {"--version", "-v"}:
        words = ["version"]
    name = words.pop(0)
    if name in _KNOWN_GROUPS:
        if not words or words[0] == "--help":
            sys.stdout.write(pages.group(name))
            return 0
        name = f"{name} {words.pop(0)}"
    command = COMMANDS.get(_ALIASES.get(name, name))
    if command is None:
        sys.stderr.write(f"docker: '{name}' is not a docker command of a lab.\nSee 'docker --help'\n")
        return 1
    return _run(_ALIASES.get(name, name), command, words)


def _run(name: str, command: Callable[[Client, list[str]], int], words: list[str]) -> int:
    prefix = "docker: " if name in {"run", "create"} else ""
    try:
        if words[:1] == ["--help"]:
            sys.stdout.write(pages.usage(name))
            return 0
        return command(Client(), words)
    except UsageError as error:
        more = f"\n\nUsage:  docker {pages.line(name)}\n\nRun 'docker {name} --help' for more information\n"
        sys.stderr.write(f"{prefix if name == 'run' else ''}{error}{more}")
        return REFUSED
    except Unreachable as error:
        sys.stderr.write(f"{prefix}{error}\n")
        return REFUSED if prefix else 1
    except Refused as error:
        sys.stderr.write(f"{prefix}Error response from daemon: {error.message}\n")
        if prefix:
            sys.stderr.write(f"\nRun 'docker {name} --help' for more information\n")
        return _refusal(error.message) if prefix else 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def _refusal(message: str) -> int:
    """Give the exit code of `docker run` for what kept the container from starting."""
    if "executable file not found" in message or "no such file or directory" in message:
        return _NOT_FOUND
    return _NOT_RUN if "permission denied" in message or "is a directory" in message else REFUSED
