"""Replays of scenarios in labs: many side by side, what each proved, and that nothing of it is left."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from doctor.labs.apart import ApartError, stream
from doctor.labs.replay import Failed, Stage, prove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from doctor.labs.scenario import Dialect, Need, Scenario


class Outcome(Struct, frozen=True):
    """What became of one replay: `what` says why it failed or was skipped, `rows` show it, `kept` names a lab that stays."""

    name: str
    dialect: str
    state: Literal["proved", "failed", "skipped"]
    what: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    kept: str = ""


def one_dialect(scenario: Scenario) -> Dialect:
    """Give the dialect that a scenario is replayed in when that is done once: always the same one."""
    return scenario.dialects[zlib.crc32(scenario.name.encode()) % len(scenario.dialects)]


def lacking(scenario: Scenario) -> str:
    """Say what this machine, or this user, lacks of what a scenario needs; empty for nothing."""
    if scenario.lab:
        return f"a live engine: {scenario.lab}"
    return next((why for need in scenario.needs if (why := _lacks(need))), "")


ROOT_ALONE = frozenset({"root", "iptables-legacy", "cgroups"})
"""What only a lab of root can have (docs/runtime.md, the table)."""


def _lacks(need: Need) -> str:
    match need:
        case "root":
            return "root" if os.geteuid() else ""
        case "iptables" | "nft" | "busybox":
            return "" if shutil.which(need, path="/usr/sbin:/usr/bin:/sbin:/bin") else need
        case "iptables-legacy":
            if not shutil.which(need, path="/usr/sbin:/usr/bin:/sbin:/bin"):
                return need
            # Its lock and the list of its tables are root's alone (xtables_lock, ip_tables_names).
            return "iptables-legacy as root" if os.geteuid() else ""
        case "bridge-filter":
            return "" if Path("/proc/sys/net/bridge").is_dir() else "br_netfilter"
        case "cgroups":
            return "control groups" if os.geteuid() else ""
    return ""


def replays(jobs: Sequence[tuple[Scenario, str]], width: int, *, keep: bool = False) -> Iterator[Outcome]:
    """Replay scenarios, each in a dialect, `width` of them at a time; give what became of each, in the order of their ends."""
    ready = [(scenario, dialect) for scenario, dialect in jobs if not lacking(scenario)]
    for scenario, dialect in jobs:
        if why := lacking(scenario):
            yield Outcome(scenario.name, dialect, "skipped", f"needs {why}")
    _import_all()
    functions: list[Callable[[], bytes]] = [partial(_encoded, scenario, dialect, keep) for scenario, dialect in ready]
    for number, said in stream(functions, width):
        scenario, dialect = ready[number]
        if isinstance(said, ApartError):
            yield Outcome(scenario.name, dialect, "failed", "the replay itself failed", (("said", str(said)),))
        else:
            yield msgspec.msgpack.decode(said, type=Outcome)


def _import_all() -> None:
    """Import what a lab needs, and judge a host that ships with doctor: what is read at the first time only is in each fork."""
    from doctor import bundle, collect, deep, examples, redact
    from doctor.assess import assess
    from doctor.labs import lab, labhost
    from doctor.options import selection

    del collect, deep, lab, labhost, redact
    registry, checks = selection([], [], ())
    assess(bundle.read(examples.path("rules-flushed")), registry, checks)


def _encoded(scenario: Scenario, dialect: str, keep: bool) -> bytes:  # noqa: FBT001 - of a partial
    return msgspec.msgpack.encode(replay(scenario, dialect, keep=keep))


def replay(scenario: Scenario, dialect: str, *, keep: bool = False) -> Outcome:
    """Prove a scenario in a lab, and that the lab is gone after that; with `keep` a failed one stays up."""
    from doctor.labs import lab

    began = time.monotonic()
    name = f"{scenario.name}-{dialect.replace('.', '')}-{os.getpid()}"

    def outcome(state: Literal["proved", "failed"], failed: Failed | None = None, kept: str = "") -> Outcome:
        what, rows = (failed.what, failed.rows) if failed else ("", ())
        return Outcome(scenario.name, dialect, state, what, rows, round(time.monotonic() - began, 2), kept)

    try:
        made = lab.up(scenario, dialect, name, detach=keep)
    except (lab.StartError, Failed) as error:
        return outcome("failed", Failed("the lab does not come up", ("said", str(error))))
    failure = None
    try:
        lab.played(made, scenario, _prove)
    except Failed as failed:
        failure = failed
    except lab.StartError as error:
        failure = Failed("the replay itself failed", ("said", str(error)))
    if failure and keep:
        return outcome("failed", failure, name)
    # Held open, or the next lab beside us could be given a namespace of the same number.
    with open(f"/proc/{made.pid}/ns/pid", "rb") as space:  # noqa: PTH123 - a descriptor
        made.down()
        left = _left(name, os.fstat(space.fileno()).st_ino)
    if left and not failure:
        failure = Failed("something is left behind", ("left", left))
    return outcome("failed" if failure else "proved", failure)


def _prove(stage: Stage) -> None:
    prove(stage.scenario, stage.ground)


def _left(name: str, space: int) -> str:
    """Name what is left of a lab: its socket, a process in its pid namespace, a mount of its root; empty for nothing."""
    from doctor.runtime.host import Lab

    if name in Lab.names():
        return "its control socket"
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - names
        try:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino == space:  # noqa: PTH116 - no path
                return f"process {pid}"
        except OSError:
            continue
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    return "a mount" if " - tmpfs lab " in mounts else ""
