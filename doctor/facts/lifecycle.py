"""How dockerd is started and restarted on this host, as commands that run here, and what a restart would cost.

Facts behind it, measured on 20.10.24, 26.1.5 and 28.5.2: a restart stops every container unless live-restore is on, and
those without a restart policy stay down.
"""

from __future__ import annotations

from msgspec import Struct

from doctor.facts.config import Options
from doctor.facts.containers import Containers
from doctor.facts.daemon import Daemon
from doctor.model import Command, Note, Remedy, Step
from doctor.registry import fact


class Lifecycle(Struct, frozen=True):
    """Steps to start and to restart dockerd, what a restart stops, and which of those stay down.

    `survives` is true when containers run on through a restart (live-restore).
    """

    start: tuple[Step, ...]
    restart: tuple[Step, ...]
    stops: tuple[str, ...]
    stays_down: tuple[str, ...]
    survives: bool

    def price(self) -> str:
        """Say in one line what a restart would stop; empty when nothing runs."""
        if not self.stops:
            return ""
        many = f"{len(self.stops)} containers stop" if len(self.stops) > 1 else f"{self.stops[0]} stops"
        if not self.stays_down:
            return f"{many} and come back" if len(self.stops) > 1 else f"{many} and comes back"
        if len(self.stays_down) == len(self.stops):
            return f"{many} and stay down" if len(self.stops) > 1 else f"{many} and stays down"
        return f"{many}, {len(self.stays_down)} of them stay down"

    def also(self) -> tuple[str, ...]:
        """The note that a restart heals too, with its price."""
        price = self.price()
        return (f"a restart of Docker heals too, but {price}",) if price else ("a restart of Docker heals too",)

    def starting(self, summary: str, steps: tuple[Step, ...]) -> Remedy:
        """Make the cure whose steps start a dockerd that is down.

        Without live-restore it ends the containers that outlived the one before: measured on all three engines.
        """
        return Remedy(
            summary,
            steps,
            risk="disruptive" if self.stops else "safe",
            stops=self.stops,
            stays_down=self.stays_down,
            restarts="dockerd",
        )

    def remedy(self, summary: str, *first: Step, notes: tuple[str, ...] = ()) -> Remedy:
        """Make the cure that restarts dockerd after the given steps."""
        return Remedy(
            summary,
            (*first, *self.restart),
            risk="disruptive" if self.stops else "safe",
            stops=self.stops,
            stays_down=self.stays_down,
            restarts="dockerd",
            notes=notes,
        )


def _by_hand(daemon: Daemon) -> tuple[Step, ...]:
    return (
        Command(("kill", str(daemon.pid))),
        Note("then start dockerd again as it was started: " + " ".join(daemon.argv)),
    )


@fact
def lifecycle(daemon: Daemon, options: Options, containers: Containers) -> Lifecycle:
    """Choose the words by who starts the daemon here."""
    start: tuple[Step, ...]
    if daemon.supervisor == "systemd":
        start = (Command(("systemctl", "reset-failed", "docker.service")), Command(("systemctl", "start", "docker")))
        restart: tuple[Step, ...] = (Command(("systemctl", "restart", "docker")),)
    elif daemon.supervisor == "init script":
        start, restart = (Command(("service", "docker", "start")),), (Command(("service", "docker", "restart")),)
    elif daemon.pid:
        restart = _by_hand(daemon)
        start = restart[1:]
    else:
        start = restart = (Note("start dockerd as this host starts it"),)
    survives = options.on("live-restore")
    stops = () if survives else tuple(one.name for one in containers.running)
    stays = () if survives else tuple(one.name for one in containers.running if one.stays_down)
    return Lifecycle(start, restart, stops, stays, survives)
