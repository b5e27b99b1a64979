"""How many files dockerd may hold open, how many it does, and whether its log says that it wanted more.

Parses `engine/limits` (proc_pid_limits(5)) and `engine/open-files`::

    Max open files            1024                 524288               files
    45
"""

from __future__ import annotations

import re

from msgspec import Struct

from doctor.facts.daemon import Daemon, DaemonLog, LogLine
from doctor.model import Citation
from doctor.registry import fact
from doctor.snapshot import Snapshot

WORDS = "too many open files"
"""EMFILE, as every program says it."""

USUAL = 1048576
"""What packages of Docker set (LimitNOFILE, ulimit -n)."""

SPARE = 2
"""Files that may have been closed while they were counted."""

_LIMIT = re.compile(r"^Max open files +(\d+|unlimited) +(\d+|unlimited)", re.MULTILINE)


class OpenFiles(Struct, frozen=True):
    """The limit in force and what is above it; -1: none, or not known. `held` is -1 where nobody counted.

    `said` is the last line of the log, since dockerd was started, that tells of the limit.
    """

    soft: int
    hard: int
    held: int
    said: LogLine | None
    cited: tuple[Citation, ...]

    @property
    def reached(self) -> bool:
        """Whether dockerd has as many as it may: as counted, else by its log, which may tell of an hour ago."""
        if self.soft >= 0 <= self.held:
            return self.held + SPARE >= self.soft
        return self.said is not None

    @property
    def near(self) -> bool:
        """Whether few are left: what dockerd starts needs some of its own."""
        return 0 <= self.soft <= self.held * 10 // 9

    @property
    def room(self) -> int:
        """A limit with which it goes on: what it may raise its own to, or what packages set."""
        return self.hard if self.hard > self.soft else max(USUAL, 2 * self.soft)


@fact
def open_files(snapshot: Snapshot, daemon: Daemon, log: DaemonLog) -> OpenFiles:
    """Read both records; of a dockerd that does not run nothing is known."""
    limits, counted = snapshot.get("engine/limits"), snapshot.get("engine/open-files")
    match = _LIMIT.search(limits.text) if daemon.pid and limits.readable else None
    soft, hard = (int(one) if one.isdecimal() else -1 for one in match.groups()) if match else (-1, -1)
    number = counted.text.strip()
    held = int(number) if counted.readable and number.isascii() and number.isdecimal() else -1
    cited = []
    if match:
        line = limits.text.count("\n", 0, match.start()) + 1
        cited.append(Citation(limits.name, line, f"Max open files: {match[1]}, at most {match[2]}", limits.target))
    if held >= 0:
        cited.append(Citation(counted.name, 1, f"{held} files are open", counted.target))
    lines = (one for one in reversed(log.lines) if WORDS in one.text and one.at >= daemon.started)
    return OpenFiles(soft, hard, held, next(lines, None) if daemon.pid else None, tuple(cited))
