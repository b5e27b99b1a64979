"""A scenario as a lab: a host of ours with its daemon and containers, healthy until its faults are made.

The runtime is imported, and the checks, before a lab is brought up: the lab is a fork, so that nothing is imported in it.
"""

from __future__ import annotations

import os
import select
import socket
import traceback
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from doctor.labs import population, shell, words
from doctor.labs.ground import GroundError
from doctor.labs.inside import Inside
from doctor.labs.probes import OUTSIDE_PORT
from doctor.labs.replay import Failed, Stage
from doctor.linux import syscalls
from doctor.runtime.host import Lab, LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.labs.scenario import Scenario
    from doctor.runtime.model import ContainerSpec

_OUTSIDE = "doctor-lab-outside"
_ANSWER = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\noutside\n"


class StartError(Exception):
    """A lab could not be brought up: what failed, and what to do."""


def up(scenario: Scenario, dialect: str, name: str = "", *, detach: bool = False) -> Lab:
    """Bring up the host of a scenario, its daemon and its containers; nothing is broken yet. Raises StartError."""
    from doctor.runtime.daemon import service
    from doctor.runtime.daemon.cli import main as docker
    from doctor.runtime.daemon.serve import Start

    running = tuple(one for one in population.containers(scenario) if _at_once(scenario, one))
    start = Start(
        argv=(*service.ARGV, *scenario.flags),
        dialect=dialect,
        networks=population.networks(scenario),
        containers=running,
    )
    builtins: dict[str, Callable[[list[str]], int]] = {"docker": docker, "doctor": service.doctor, _OUTSIDE: _outside}
    builtins |= words.within(scenario)
    try:
        lab = Lab.up(
            name,
            services=(service.service(start),),
            builtins=builtins,
            files={**service.programs(dialect), **_files(scenario)} | {shell.START: shell.start_file(scenario.name)},
            hostname=name or scenario.name,
            detach=detach,
            groups="cgroups" in scenario.needs,
        )
    except LabError as error:
        raise StartError(str(error)) from error
    try:
        lab.outside.run((_OUTSIDE,), builtin=True)
        _run(lab, partial(_populate, scenario))
    except BaseException:
        lab.down()
        raise
    return lab


def _files(scenario: Scenario) -> dict[str, str]:
    import json

    held = dict(scenario.files)
    if scenario.daemon:
        held["/etc/docker/daemon.json"] = json.dumps(scenario.daemon, indent=2) + "\n"
    return held


def _at_once(scenario: Scenario, one: ContainerSpec) -> bool:
    """Whether a container can be started side by side with others: it runs, and needs no other one that does."""
    return scenario.container[one.name].state == "running" and not one.links and not one.network_mode


def _populate(scenario: Scenario) -> None:
    """Make the other containers, by the words that somebody would type."""
    ground = Inside()
    for spec in population.containers(scenario):
        if _at_once(scenario, spec):
            continue
        state = scenario.container[spec.name].state
        verb = {"created": ["create"], "exited": ["run"], "running": ["run", "-d"]}[state]
        done = ground.run(("docker", *verb, *population.run_words(spec)))
        if done.code:
            raise StartError(f"{spec.name}: {done.err.strip()}")


def _outside(_: list[str]) -> int:
    """Serve whoever calls the machine beside the host, for as long as the lab lives: a process that is the holder's."""
    listener = socket.create_server(("", OUTSIDE_PORT), backlog=128)
    # The socket stays where it was made; the process comes back, for on no host the network outside can be seen.
    with open("/proc/1/ns/net", "rb") as own:  # noqa: PTH123 - a descriptor
        syscalls.setns(own.fileno(), syscalls.CLONE_NEWNET)
    ready, begun = os.pipe()
    if os.fork():
        os.close(begun)
        os.read(ready, 1)
        return 0
    os.setsid()  # who asked for it goes, and would take along what is in its session
    empty = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(empty, handle)
    os.close(begun)
    while True:
        client, _ = listener.accept()
        with client:
            try:
                if select.select([client], [], [], 1.0)[0] and client.recv(4096):
                    client.sendall(_ANSWER)
            except OSError:
                continue


class _Said(Struct):
    """What a part of a scenario that was played in a fork has to say: nothing where all went well."""

    kind: str = ""
    what: str = ""
    rows: tuple[tuple[str, str], ...] = ()


def played(lab: Lab, scenario: Scenario, part: Callable[[Stage], None]) -> None:
    """Play a part of a scenario in a lab, in a fork that is inside. Raises Failed, StartError."""
    _run(lab, lambda: part(Stage.of(scenario, Inside())))


def _run(lab: Lab, function: Callable[[], None]) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = lab.fork(partial(_tell, function, writer))
    os.close(writer)
    parts = []
    while data := os.read(reader, 1 << 16):
        parts.append(data)
    os.close(reader)
    os.waitpid(pid, 0)
    try:
        said = msgspec.json.decode(b"".join(parts), type=_Said)
    except msgspec.DecodeError as error:
        raise StartError("what played the scenario in the lab was killed") from error
    if said.kind == "failed":
        raise Failed(said.what, *said.rows)
    if said.kind:
        raise StartError(said.what)


def _tell(function: Callable[[], None], writer: int) -> int:
    said = _Said()
    try:
        function()
    except Failed as failed:
        said = _Said("failed", failed.what, failed.rows)
    except (GroundError, StartError) as error:
        said = _Said("error", str(error))
    except Exception as error:  # noqa: BLE001 - the caller tells of it: this is the last place of a fork
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = _Said("error", f"{type(error).__name__} at {last.filename}:{last.lineno}: {error}")
    data = msgspec.json.encode(said)
    while data:
        data = data[os.write(writer, data) :]
    return 0
