"""Lanes: queues of jobs on daemon threads, each job bounded, none of which can hold up the others.

A job that does not come back costs its lane nothing but a new thread; what it brings after it was given up is not kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self.fault: Callable[[Job, Exception], None] | None = None


class Lane:
    """A queue of jobs and the threads that empty it."""

    def __init__(self, name: str, threads: int = 1) -> None:
        """Make an idle lane; `start` lets it run."""
        self.name = name
        self.threads = threads
        self.jobs: deque[Job] = deque()
        self.busy: dict[int, Job] = {}
        self.fault: Callable[[Job, Exception], None] | None = None
        self.started = False
        self._serial = 0

    def add(self, name: str, target: str, seconds: float, work: Callable[[], None]) -> None:
        """Queue a job."""
        job = Job(name, target, seconds, work)
        job.fault = self.fault
        self.jobs.append(job)

    def start(self, wake: threading.Condition) -> None:
        """Start the lane's threads."""
        self.started = True
        for _ in range(self.threads):
            self.another(wake)

    def another(self, wake: threading.Condition) -> None:
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
            self.busy[serial] = job
            _working.job = job
            try:
                job.work()
            except Exception as error:  # noqa: BLE001 - one source's fault must not cost the others
                if job.fault is not None:
                    job.fault(job, error)
            if job.abandoned:
                return  # another thread has this one's place
            self.busy.pop(serial, None)
        with wake:
            wake.notify_all()

    @property
    def done(self) -> bool:
        """Whether nothing is queued or running."""
        return self.started and not self.jobs and not self.busy


_working = threading.local()


def current() -> Job | None:
    """Give the job that the calling thread works on; None on a thread that is no lane's."""
    job: Job | None = getattr(_working, "job", None)
    return job
