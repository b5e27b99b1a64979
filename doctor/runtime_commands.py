"""What `doctor runtime` does: a host of our own is brought up, entered and taken down; every other word is docker's there."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.exits import CLEAN, USAGE, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doctor.runtime.host import Lab, Spawned

DIALECTS = ("20.10", "26", "28", "29", "29-nftables")
_DEFAULT = "28"
_OWN = {"up", "down", "enter"}


def runtime(words: Sequence[str]) -> int:
    """Do what the words after `doctor runtime` say. Raises UsageError."""
    from doctor.runtime.host import LabError

    rest = list(words)
    name = _taken(rest, "--host")
    if not rest:
        raise UsageError("doctor runtime: what? up, enter, down, or a command of docker's: doctor runtime --help")
    verb, *arguments = rest
    try:
        if verb in _OWN:
            return {"up": _up, "down": _down, "enter": _enter}[verb](name, arguments)
        return _docker(name, rest)
    except LabError as error:
        raise UsageError(str(error)) from None


def _taken(words: list[str], option: str) -> str:
    """Take an option with a value off the front of the words; empty without."""
    if words and words[0].startswith(f"{option}="):
        return words.pop(0).partition("=")[2]
    if words and words[0] == option:
        if len(words) == 1:
            raise UsageError(f"doctor runtime: {option} needs a name")
        del words[0]
        return words.pop(0)
    return ""


# up


def _up(name: str, arguments: list[str]) -> int:
    dialect, file, limits = _DEFAULT, "", False
    while arguments:
        word = arguments[0]
        if word.startswith("--dialect"):
            dialect = _taken(arguments, "--dialect")
        elif word == "--limits":
            limits = bool(arguments.pop(0))
        elif word.startswith("-"):
            raise UsageError(f"doctor runtime up: no such option: {word}")
        elif file:
            raise UsageError(f"doctor runtime up: one FILE, not {file} and {word}")
        else:
            file = arguments.pop(0)
    if dialect not in DIALECTS:
        raise UsageError(f"--dialect {dialect}: is none of {', '.join(DIALECTS)}")
    lab = bring_up(name, dialect, _daemon_json(file), detach=True, limits=limits)
    sys.stdout.write(f"host {lab.name} is up: {_about(lab, dialect)}\n")
    return CLEAN


def _daemon_json(path: str) -> dict[str, str]:
    """Read the configuration that the host's daemon gets; nothing but what dockerd says of it is checked."""
    if not path:
        return {}
    try:
        return {"/etc/docker/daemon.json": Path(path).read_text(encoding="utf-8")}
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no text") from None


def bring_up(name: str, dialect: str, files: dict[str, str], *, detach: bool, limits: bool = False) -> Lab:
    """Bring up a host with a daemon. Raises LabError."""
    from doctor.runtime.daemon import cli
    from doctor.runtime.daemon.serve import Start
    from doctor.runtime.daemon.service import doctor, programs, service
    from doctor.runtime.host import Lab

    return Lab.up(
        name,
        services=[service(Start(dialect=dialect))],
        builtins={"doctor": doctor, "docker": cli.main},
        files={**programs(dialect), **files},
        detach=detach,
        groups=limits,
    )


def _about(lab: Lab, dialect: str) -> str:
    shown = json.loads(lab.run(("ip", "-j", "-4", "address", "show")).stdout or b"[]")
    found = {link.get("ifname", ""): link.get("addr_info") or [{}] for link in shown}
    name = "docker0" if "docker0" in found else "eth0"
    first = found.get(name, [{}])[0]
    address = f"{first.get('local', '?')}/{first.get('prefixlen', '?')}"
    if name == "docker0":
        return f"bridge docker0 {address}, rules as Docker {dialect} writes them"
    return f"{name} {address}, without a daemon"


# down, enter, and what is docker's


def _the_host(name: str) -> Lab:
    """Give the host that is meant: the one of this name, or the only one. Raises UsageError, LabError."""
    from doctor.runtime.host import Lab

    if name:
        return Lab.attach(name)
    up = Lab.names()
    if not up:
        raise UsageError("no host is up: doctor runtime up")
    # Broken hosts of `doctor lab` have names of their own: who names none means one that was brought up so.
    meant = [one for one in up if re.fullmatch(r"lab\d+", one)] or up
    if len(meant) > 1:
        raise UsageError(f"which host? {', '.join(meant)} are up: doctor runtime --host {meant[0]} ...")
    return Lab.attach(meant[0])


def _down(name: str, arguments: list[str]) -> int:
    if len(arguments) > 1 or (arguments and (name or arguments[0].startswith("-"))):
        raise UsageError("doctor runtime down [NAME]: one name")
    lab = _the_host(name or "".join(arguments))
    listed = lab.run(("sh", "-c", "cat /proc/[0-9]*/comm")).stdout.split()
    stopped = listed.count(b"containerd-shim")
    lab.down()
    containers = f"{stopped} container{'' if stopped == 1 else 's'} stopped, " if stopped else ""
    sys.stdout.write(f"host {lab.name} is gone: {containers}nothing left\n")
    return CLEAN


def _enter(name: str, arguments: list[str]) -> int:
    """Run a shell, or a command, in a host, or with --outside on the machine beside it."""
    outside = bool(arguments) and arguments[0] == "--outside"
    command = arguments[1:] if outside else arguments
    lab = _the_host(name)
    place = lab.outside if outside else lab
    if not command:
        shells = lab.run(("sh", "-c", "command -v bash || command -v sh")).stdout.decode().split()
        command = [shells[0] if shells else "sh", *(("--norc",) if shells and shells[0].endswith("bash") else ())]
    label = f"{lab.name}:outside" if outside else lab.name
    env = _environment() | {"PS1": f"{label}# "}
    return _attended(partial(place.spawn, command, env=env))


def _docker(name: str, words: list[str]) -> int:
    """Hand a command of docker's over to the host; `run` without a host gets one that lasts as long."""
    from doctor.runtime.host import Lab

    if not name and words[0] == "run" and not Lab.names():
        with bring_up("", _DEFAULT, {}, detach=False) as lab:
            return _attended(partial(lab.spawn, ["docker", *words], env=_environment(), builtin=True))
    lab = _the_host(name)
    return _attended(partial(lab.spawn, ["docker", *words], env=_environment(), builtin=True))


def _environment() -> dict[str, str]:
    from doctor.runtime.holder import ENVIRONMENT

    kept = {key: os.environ[key] for key in ("TERM", "LANG", "LC_ALL", "NO_COLOR", "COLUMNS") if key in os.environ}
    return ENVIRONMENT | kept


def _attended(spawn: Callable[..., Spawned]) -> int:
    """Run a program on this terminal, or on these descriptors; gives its exit code."""
    from doctor.runtime.relay import relay

    sys.stdout.flush()
    if all(os.isatty(number) for number in range(3)):
        program = spawn(tty=True)
        try:
            return relay(program)
        finally:
            program.close()
    program = spawn(stdin=0, stdout=1, stderr=2)
    try:
        return program.wait()
    except KeyboardInterrupt:
        import signal

        program.kill(signal.SIGINT)
        return program.wait(USAGE)
    finally:
        program.close()
