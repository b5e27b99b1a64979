"""Commands that only read: run once each, within bounds, and what they print becomes a record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from doctor.snapshot import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from doctor.host import Host
    from doctor.keeping import Keeper
    from doctor.snapshot import Status
    from doctor.sources import Source


class Programs:
    """Runs commands on one host, until a time (time.monotonic)."""

    def __init__(self, host: Host, kept: Keeper, until: float) -> None:
        """Run nothing yet."""
        self.host = host
        self.kept = kept
        self.until = until
        self.stuck: set[str] = set()
        """Programs that did not end within their bound: they are not run again."""

    def work(self, source: Source) -> Callable[[], None]:
        """Give the work that runs the command of a source."""
        return lambda: self.run(source)

    def run(self, source: Source) -> None:
        """Run it, unless that would load a kernel module, or the program hung before; keep what it prints, or why not."""
        argv = tuple(source.target.split(" "))
        absent = [module for module in source.touches if not self.host.has_module(module)]
        if absent:
            why = f"would load kernel module {absent[0]}, which is not there: so no rules are in it"
            self.kept.put(Record(source.name, "command", source.target, "not-run", why=why))
            return
        if argv[0] in self.stuck:
            why = f"{argv[0]} did not end before"
            self.kept.put(Record(source.name, "command", source.target, "not-run", why=why))
            return
        seconds = max(0.05, min(source.seconds, self.until - time.monotonic()))
        done = self.host.run(argv, seconds, source.limit)
        ms = done.seconds * 1000
        if done.status == "timeout":
            self.stuck.add(argv[0])
        status: Status = done.status
        why = ""
        if status == "ok" and done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
            status = "denied" if "ermission denied" in last or "not permitted" in last else "failed"
            why = f"exit {done.returncode}: {last[:300]}"
        elif status != "ok":
            why = {
                "timeout": f"{argv[0]} did not end in {seconds:.1f} s",
                "truncated": f"more than {source.limit:,} bytes",
                "absent": f"{argv[0]} is not installed",
                "denied": f"{argv[0]} may not be run",
            }.get(status, status)
        if status in {"absent", "denied"}:
            self.kept.put(Record(source.name, "command", source.target, status, why=why, ms=ms))
            return
        self.kept.keep(source.name, "command", source.target, done.stdout, source.scrub, status=status, why=why, ms=ms)
