"""The daemon's event loop: descriptors and timers, one thread."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int: ...


class Timer:
    """A call in the future."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        """Do not call."""
        self.function = None


class Loop:
    """Calls handlers when descriptors are ready and when timers are due."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        #: Called after each round of handlers, before the loop waits again.
        self.after_round: Callable[[], None] = lambda: None
        #: Makes ``run`` return.
        self.stopped = False

    @staticmethod
    def now() -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def add(self, source: HasFileno | int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` whenever the source is readable."""
        self._selector.register(source, READ, handler)

    def want_write(self, source: HasFileno | int, wanted: bool) -> None:
        """Report writability as well, or no longer."""
        key = self._selector.get_key(source)
        events = READ | WRITE if wanted else READ
        if key.events != events:
            self._selector.modify(source, events, key.data)

    def remove(self, source: HasFileno | int) -> None:
        """Forget a source; call before its descriptor is closed."""
        self._selector.unregister(source)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call ``function`` in so many seconds."""
        timer = Timer(function)
        heapq.heappush(self._timers, (self.now() + seconds, next(self._numbers), timer))
        return timer

    def run(self) -> None:
        """Handle events until ``stopped``."""
        while not self.stopped:
            self.after_round()
            timeout = None
            if self._timers:
                timeout = max(self._timers[0][0] - self.now(), 0.0)
            for key, events in self._selector.select(timeout):
                # A handler before may have removed it, and its number may have a new owner.
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:
                    key.data(events)
            self._run_timers()

    def _run_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now():
            _, _, timer = heapq.heappop(timers)
            if timer.function is not None:
                timer.function()

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()
