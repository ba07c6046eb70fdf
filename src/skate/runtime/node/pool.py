"""How many workers to have: which are idle, how many to fork, which to retire.

Plain decisions: times are passed in, in seconds.
"""

from __future__ import annotations

import os

#: Workers forked when the session starts; more only if there is work for them.
PRESTART = 4
#: Workers that start at the same time: more would only make the first one late.
STARTING_LIMIT = max(4 * (os.cpu_count() or 1), 8)
#: An idle worker beyond those that are kept ends after this many seconds.
IDLE_SECONDS = 5.0
#: A worker that has not registered by then has failed, in seconds.
START_SECONDS = 60.0
#: Workers that may fail to start in a row before those who wait for one are told.
MAX_FAILURES = 3


class Pool:
    """Workers that start and workers that wait for work."""

    def __init__(self, num_cpus: int) -> None:
        self._keep = max(num_cpus, 1)
        self._prestart = min(self._keep, PRESTART)
        #: When each starting worker was forked.
        self.starting: dict[bytes, float] = {}
        #: Since when each idle worker is idle, the warmest last.
        self._idle: dict[bytes, float] = {}
        self._failures = 0

    @property
    def idle_count(self) -> int:
        """Workers that wait for work."""
        return len(self._idle)

    def to_fork(self, demand: int) -> int:
        """Return how many workers to fork now, if ``demand`` requests could be granted."""
        missing = max(demand, self._prestart) - len(self._idle) - len(self.starting)
        return max(min(missing, STARTING_LIMIT - len(self.starting)), 0)

    def forked(self, worker_id: bytes, now: float) -> None:
        """A worker starts."""
        self.starting[worker_id] = now

    def registered(self, worker_id: bytes, now: float) -> None:
        """A worker is ready."""
        self.starting.pop(worker_id, None)
        self._failures = 0
        # Not more than at the start of the session: afterwards the idle ones are enough.
        self._prestart = 0
        # At the cold end: one that has run something before is the better choice.
        self._idle = {worker_id: now, **self._idle}

    def take(self) -> bytes | None:
        """Return an idle worker, which is no longer idle then."""
        return self._idle.popitem()[0] if self._idle else None

    def put_back(self, worker_id: bytes, now: float) -> None:
        """A worker has nothing to do any more."""
        self._idle[worker_id] = now

    def remove(self, worker_id: bytes) -> None:
        """A worker must not be taken any more."""
        self._idle.pop(worker_id, None)

    def ended(self, worker_id: bytes) -> bool:
        """A worker is gone; return whether too many in a row failed to start."""
        self._idle.pop(worker_id, None)
        return self.starting.pop(worker_id, None) is not None and self.failed()

    def failed(self) -> bool:
        """A worker could not be started; return whether too many in a row could not."""
        self._failures += 1
        if self._failures < MAX_FAILURES:
            return False
        self._failures = 0
        self._prestart = 0
        return True

    def needs_time(self) -> bool:
        """Whether there is something to look at as time goes by."""
        return bool(self.starting) or len(self._idle) > self._keep

    def overdue(self, now: float) -> list[bytes]:
        """Workers that take too long to start."""
        return [w for w, since in self.starting.items() if now - since > START_SECONDS]

    def surplus(self, now: float) -> list[bytes]:
        """Take the workers to retire out of the pool and return them."""
        excess = len(self._idle) - self._keep
        if excess <= 0:
            return []
        # The coldest come first.
        old = [w for w, since in self._idle.items() if now - since > IDLE_SECONDS][:excess]
        for worker_id in old:
            del self._idle[worker_id]
        return old
