"""One thread, many things to wait for: files that become readable, and times that come."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call that is to be made at a time; `cancel` keeps it from being made."""

    def __init__(self, call: Callable[[], None]) -> None:
        """Keep the call."""
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Make no call any more."""
        self.call = None


class Loop:
    """Calls back whoever waits. A callback may watch and unwatch anything, itself included.

    One that raises does not end the loop: `failed` is told.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        """Wait for nothing yet."""
        self._failed = failed
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._running = True

    def watch(self, descriptor: int, events: int, call: Callable[[int], None]) -> None:
        """Call with the events that a file is ready for; watching it again changes what for."""
        try:
            self._selector.modify(descriptor, events, call)
        except KeyError:
            self._selector.register(descriptor, events, call)

    def unwatch(self, descriptor: int) -> None:
        """Wait for a file no more; one that is not watched does not matter."""
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError):
            return

    def later(self, delay: float, call: Callable[[], None]) -> Timer:
        """Call once, `delay` seconds from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._count), timer))
        return timer

    def stop(self) -> None:
        """Let `run` return after the present callbacks."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        while self._running:
            self.once()

    def once(self, most: float = 60.0) -> None:
        """Wait at most so long for one round, and call whoever is due."""
        now = time.monotonic()
        while self._timers and (self._timers[0][2].call is None or self._timers[0][0] <= now):
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                self._call(call)
        wait = min(most, self._timers[0][0] - time.monotonic()) if self._timers else most
        for key, events in self._selector.select(max(0.0, wait)):
            if self._selector.get_map().get(key.fd) is key:  # an earlier callback may have taken it away
                self._call(partial(key.data, events))

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not take the others along
            self._failed(error)
