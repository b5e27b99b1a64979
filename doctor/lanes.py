"""Lanes: queues of jobs on daemon threads, each job bounded, none of which can hold up the others.

A job that does not come back costs its lane nothing but a new thread; what it brings after it was given up is not kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRACE = 0.5
"""Seconds that a job may take over its own bound: what it waits for has that bound, too, and says why it ended."""
_LOOK = 0.05
"""Seconds between two looks at lanes that say nothing."""


class Job:
    """One unit of work of a lane: the record it makes (or the first of them), its bound, whether it was given up."""

    def __init__(self, name: str, target: str, seconds: float, work: Callable[[], None]) -> None:
        """Keep what is needed to say afterwards what was missing."""
        self.name = name
        self.target = target
        self.seconds = seconds
        self.work = work
        self.begun = 0.0
        self.abandoned = False


_working = threading.local()


def current() -> Job | None:
    """Give the job that the calling thread works on; None on a thread that is no lane's."""
    job: Job | None = getattr(_working, "job", None)
    return job


class Lane:
    """A queue of jobs and the thread that empties it; `fault` is told of a job that raises."""

    def __init__(self, name: str, fault: Callable[[Job, Exception], None]) -> None:
        """Make an idle lane; `start` lets it run."""
        self.name = name
        self.fault = fault
        self.jobs: deque[Job] = deque()
        self.busy: dict[int, Job] = {}
        self.started = False
        self._open: set[Job] = set()
        self._serial = 0

    def add(self, name: str, target: str, seconds: float, work: Callable[[], None]) -> None:
        """Queue a job."""
        job = Job(name, target, seconds, work)
        self._open.add(job)
        self.jobs.append(job)

    def start(self, wake: threading.Condition) -> None:
        """Start the lane's thread, where there are jobs; `wake` is notified when one has nothing left to do."""
        self.started = True
        if self.jobs:
            self._another(wake)

    def _another(self, wake: threading.Condition) -> None:
        """Start one thread: at first, and in the place of one that does not come back."""
        self._serial += 1
        threading.Thread(target=self._run, args=(self._serial, wake), name=self.name, daemon=True).start()

    def _run(self, serial: int, wake: threading.Condition) -> None:
        while True:
            try:
                job = self.jobs.popleft()
            except IndexError:
                break
            job.begun = time.monotonic()
            self.busy[serial] = _working.job = job
            try:
                job.work()
            except Exception as error:  # noqa: BLE001 - one job's fault must not cost the others
                if not job.abandoned:
                    self.fault(job, error)
            self._open.discard(job)
            if job.abandoned:
                return  # another thread has this one's place
            self.busy.pop(serial, None)
        with wake:
            wake.notify_all()

    def give_up(self, overdue: Callable[[Job], bool]) -> list[Job]:
        """Give up the jobs that are overdue; what they bring from now on is not kept."""
        given = []
        for serial, job in list(self.busy.items()):
            if overdue(job):
                job.abandoned = True
                self.busy.pop(serial, None)
                self._open.discard(job)
                given.append(job)
        return given

    def replace(self, many: int, wake: threading.Condition) -> None:
        """Start threads in the place of so many that do not come back."""
        for _ in range(many):
            self._another(wake)

    @property
    def done(self) -> bool:
        """Whether nothing is queued or running."""
        return not self._open


def wait(
    lanes: Sequence[Lane],
    until: float,
    wake: threading.Condition,
    given_up: Callable[[Job, float], None],
    look: Callable[[], None] | None = None,
) -> None:
    """Wait until these lanes are done, at most until a time (time.monotonic).

    A job that is over its bound is given up (`given_up` is told it, and how many seconds it took), and its lane goes on
    with the next. `look` is called each time.
    """
    while True:
        now = time.monotonic()
        if now >= until or all(lane.done for lane in lanes):
            return
        for lane in lanes:
            over = lane.give_up(lambda job: now >= job.begun + job.seconds + GRACE)  # noqa: B023 - called here and now
            for job in over:
                given_up(job, now - job.begun)
            lane.replace(len(over), wake)
        if look:
            look()
        with wake:
            wake.wait(max(0.001, min(until - now, _LOOK)))
