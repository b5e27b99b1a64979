"""What a configuration that dockerd refuses means here: it is down because of it, or its next start will fail.

The severity is an error where dockerd does not run, and a warning while it runs on with what it read when it started.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.config import ConfigFile
from doctor.facts.daemon import Daemon, DaemonLog, LogLine
from doctor.facts.lifecycle import Lifecycle
from doctor.model import Citation, Effect, Note, Remedy, Severity, Since, Step
from doctor.registry import fact

_AS_EVER = "start dockerd as this host starts it; which containers that stops could not be read"


class NextStart(Struct, frozen=True):
    """The start that a fault of the configuration has made fail, or will. `fatal` is why the last one failed, if it did.

    `lifecycle` is None where nobody can say what a restart would stop: an edit of a file needs no such knowledge.
    """

    running: bool
    fatal: LogLine | None
    written: Since | None
    lifecycle: Lifecycle | None

    @property
    def severity(self) -> Severity:
        """How grave a fault is that dockerd does not start with."""
        return Severity.WARNING if self.running else Severity.ERROR

    @property
    def hits(self) -> tuple[Effect, ...]:
        """What such a fault does."""
        if self.running:
            return (Effect("the next start of dockerd fails: at the latest after the next boot or upgrade"),)
        return (Effect("dockerd does not start: no docker command works"),)

    @property
    def works(self) -> tuple[Effect, ...]:
        """What still works."""
        return (Effect("dockerd runs on with what it read when it started"),) if self.running else ()

    def cure(self, *edits: Step, what: str = "mend the file") -> Remedy:
        """Mend it; start dockerd where it is down."""
        if self.running:
            return Remedy(what, edits, notes=("do not restart Docker before that",))
        if self.lifecycle is None:
            return Remedy(
                f"{what}, then start dockerd", (*edits, Note(_AS_EVER)), risk="disruptive", restarts="dockerd"
            )
        return self.lifecycle.starting(f"{what}, then start dockerd", (*edits, *self.lifecycle.start))

    def mend(self, what: str, *edits: Step, in_force: bool) -> Remedy:
        """Mend what dockerd itself starts with: restart it where it runs with that, start it where it is down."""
        if in_force:
            return self.restart(f"{what}, then restart dockerd", *edits)
        return Remedy(what, edits) if self.running else self.cure(*edits, what=what)

    def restart(self, what: str, *steps: Step) -> Remedy:
        """Do the steps, then restart dockerd, with its price."""
        if self.lifecycle is None:
            return Remedy(what, (*steps, Note(_AS_EVER)), risk="disruptive", restarts="dockerd")
        return self.lifecycle.remedy(what, *steps)

    def words(self, *parts: str) -> tuple[Citation, ...]:
        """Cite the last start's reason for failing, where it has one of these words."""
        return (self.fatal.cited,) if self.fatal and any(part in self.fatal.text for part in parts) else ()


@fact
def next_start(daemon: Daemon, config: ConfigFile, log: DaemonLog, lifecycle: Lifecycle | None) -> NextStart:
    """Put together whether dockerd runs, why its last start failed, and when its file was written."""
    written = Since(latest=config.written, exact=True) if config.mtime else None
    return NextStart(bool(daemon.pid), log.fatal, written, lifecycle)
