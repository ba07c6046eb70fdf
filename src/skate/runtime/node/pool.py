"""How many workers to have: which are idle, how many to fork, which to retire.

Plain decisions: times are passed in, in seconds.  Workers of different runtime environments never
stand in for each other; the environment ``b""`` is that of workers with nothing special.
"""

from __future__ import annotations

import os

#: Workers forked when the session starts; more only if there is work for them.
PRESTART = 4
#: Workers that start at the same time: more would only make the first one late.
STARTING_LIMIT = max(4 * (os.cpu_count() or 1), 8)
#: An idle worker beyond those that are kept ends after this many seconds.
IDLE_SECONDS = 5.0
#: An idle worker of an environment that was used once ends after this many seconds, ...
RARE_SECONDS = 2.0
#: ... of one that was used more often as many times later, but at the latest after this many.
FREQUENT_SECONDS = 30.0
#: A worker that has not registered by then has failed, in seconds.
START_SECONDS = 60.0
#: Workers that may fail to start in a row before those who wait for one are told.
MAX_FAILURES = 3


class _Kind:
    """The workers of one environment."""

    __slots__ = ("failures", "idle", "starting", "uses")

    def __init__(self) -> None:
        #: Since when each idle worker is idle, the warmest last.
        self.idle: dict[bytes, float] = {}
        #: How many start.
        self.starting = 0
        self.failures = 0
        #: How often one was taken.
        self.uses = 0


class Pool:
    """Workers that start and workers that wait for work."""

    def __init__(self, num_cpus: int, prestart: bool = True) -> None:
        """``prestart``: start some workers before there is work for them."""
        self._keep = max(num_cpus, 1)
        self._prestart = min(self._keep, PRESTART) if prestart else 0
        #: When each starting worker was forked.
        self.starting: dict[bytes, float] = {}
        self._plain = _Kind()
        self._kinds: dict[bytes, _Kind] = {b"": self._plain}
        #: The environments of the workers that have one.
        self._environments: dict[bytes, bytes] = {}

    @property
    def idle_count(self) -> int:
        """Workers that wait for work."""
        return sum(len(kind.idle) for kind in self._kinds.values())

    def idle_workers(self) -> list[bytes]:
        """Return the workers that wait for work."""
        return [worker_id for kind in self._kinds.values() for worker_id in kind.idle]

    def _kind_of(self, worker_id: bytes) -> _Kind:
        return self._kinds[self._environments.get(worker_id, b"")]

    def to_fork(self, demand: int, environment: bytes = b"") -> int:
        """Return how many workers to fork now, if ``demand`` requests could be granted."""
        kind = self._kinds.get(environment)
        have = len(kind.idle) + kind.starting if kind is not None else 0
        missing = max(demand, 0 if environment else self._prestart) - have
        return max(min(missing, STARTING_LIMIT - len(self.starting)), 0)

    def forked(self, worker_id: bytes, now: float, environment: bytes = b"") -> None:
        """A worker starts, or (again) its process exists now."""
        if worker_id not in self.starting:
            if environment:
                self._environments[worker_id] = environment
            self._kinds.setdefault(environment, _Kind()).starting += 1
        self.starting[worker_id] = now

    def registered(self, worker_id: bytes, now: float) -> None:
        """A worker is ready."""
        kind = self._kind_of(worker_id)
        if self.starting.pop(worker_id, None) is not None:
            kind.starting -= 1
        kind.failures = 0
        # Not more than at the start of the session: afterwards the idle ones are enough.
        self._prestart = 0
        # At the cold end: one that has run something before is the better choice.
        kind.idle = {worker_id: now, **kind.idle}

    def take(self, environment: bytes = b"") -> bytes | None:
        """Return an idle worker, which is no longer idle then."""
        kind = self._kinds.get(environment)
        if kind is None or not kind.idle:
            return None
        kind.uses += 1
        return kind.idle.popitem()[0]

    def put_back(self, worker_id: bytes, now: float) -> None:
        """A worker has nothing to do any more."""
        self._kind_of(worker_id).idle[worker_id] = now

    def remove(self, worker_id: bytes) -> None:
        """A worker must not be taken any more."""
        self._kind_of(worker_id).idle.pop(worker_id, None)

    def ended(self, worker_id: bytes) -> bool:
        """A worker is gone; return whether too many in a row failed to start."""
        kind = self._kind_of(worker_id)
        kind.idle.pop(worker_id, None)
        environment = self._environments.pop(worker_id, b"")
        if self.starting.pop(worker_id, None) is None:
            return False
        kind.starting -= 1
        return self.failed(environment)

    def failed(self, environment: bytes = b"") -> bool:
        """A worker could not be started; return whether too many in a row could not."""
        kind = self._kinds.setdefault(environment, _Kind())
        kind.failures += 1
        if kind.failures < MAX_FAILURES:
            return False
        kind.failures = 0
        self._prestart = 0
        return True

    def forget(self, environment: bytes) -> None:
        """There is no worker of this environment, and nobody who wants one."""
        if environment:
            self._kinds.pop(environment, None)

    def needs_time(self) -> bool:
        """Whether there is something to look at as time goes by."""
        if self.starting or len(self._plain.idle) > self._keep:
            return True
        return len(self._kinds) > 1 and self.idle_count > len(self._plain.idle)

    def overdue(self, now: float) -> list[bytes]:
        """Workers that take too long to start."""
        return [w for w, since in self.starting.items() if now - since > START_SECONDS]

    def surplus(self, now: float) -> list[bytes]:
        """Take the workers to retire out of the pool and return them."""
        # The coldest come first.
        excess = max(len(self._plain.idle) - self._keep, 0)
        old = _older(self._plain, now - IDLE_SECONDS)[:excess]
        for worker_id in old:
            del self._plain.idle[worker_id]
        for environment, kind in self._kinds.items():
            if environment and kind.idle:
                seconds = min(RARE_SECONDS * max(kind.uses, 1), FREQUENT_SECONDS)
                for worker_id in _older(kind, now - seconds):
                    del kind.idle[worker_id]
                    old.append(worker_id)
        return old


def _older(kind: _Kind, moment: float) -> list[bytes]:
    return [worker_id for worker_id, since in kind.idle.items() if since < moment]
