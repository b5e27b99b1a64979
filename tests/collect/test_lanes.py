"""Lanes: what does not come back is given up, and costs no other job its turn."""

from __future__ import annotations

import threading
import time

import pytest

from doctor import lanes
from doctor.lanes import Job, Lane, current, wait


def no_fault(job: Job, error: Exception) -> None:
    """No job of these tests raises, but where one is meant to."""
    pytest.fail(f"{job.name}: {error}")


def run(lane: Lane, seconds: float = 5.0) -> tuple[list[tuple[str, float]], float]:
    """Run a lane; give what was given up, and how long it took."""
    given: list[tuple[str, float]] = []
    wake = threading.Condition()
    start = time.monotonic()
    lane.start(wake)
    wait([lane], start + seconds, wake, lambda job, waited: given.append((job.name, waited)))
    return given, time.monotonic() - start


def test_jobs_are_done_in_their_order() -> None:
    """One thread, one after the other; a job that adds another is waited for with it."""
    done: list[str] = []
    lane = Lane("one", no_fault)

    def first() -> None:
        done.append("first")
        lane.add("third", "", 1, lambda: done.append("third"))

    lane.add("first", "", 1, first)
    lane.add("second", "", 1, lambda: done.append("second"))
    given, took = run(lane)
    assert done == ["first", "second", "third"]
    assert not given
    assert took < 2
    assert lane.done


def test_a_job_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its bound; the next one has its turn, and what the first brings later is known to come too late."""
    monkeypatch.setattr(lanes, "GRACE", 0.1)
    release, seen = threading.Event(), threading.Event()
    late: list[bool] = []
    lane = Lane("one", no_fault)

    def hangs() -> None:
        release.wait(20)
        job = current()
        late.append(job is not None and job.abandoned)
        seen.set()

    lane.add("hangs", "", 0.1, hangs)
    lane.add("next", "", 1, lambda: late.append(False))
    given, took = run(lane)
    assert [name for name, _ in given] == ["hangs"]
    assert given[0][1] >= 0.2
    assert took < 4
    assert late == [False]
    release.set()
    assert seen.wait(5)
    assert late == [False, True]


def test_a_job_that_raises_is_told() -> None:
    """Its lane goes on."""
    told: list[str] = []
    lane = Lane("one", lambda job, error: told.append(f"{job.name}: {error}"))

    def bad() -> None:
        raise ValueError("no number")

    lane.add("bad", "", 1, bad)
    lane.add("good", "", 1, lambda: told.append("good"))
    assert run(lane)[0] == []
    assert told == ["bad: no number", "good"]


def test_waiting_ends_at_its_time() -> None:
    """Nothing is given up by it: whoever waited says what is missing."""
    release = threading.Event()
    lane = Lane("one", no_fault)
    lane.add("hangs", "", 60, lambda: release.wait(20) and None)
    given, took = run(lane, 0.3)
    assert not given
    assert 0.25 < took < 3
    assert not lane.done
    assert [job.name for job in lane.give_up(lambda _: True)] == ["hangs"]
    assert lane.done
    release.set()
