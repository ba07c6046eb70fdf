"""The lease policy as a state machine: no task lost or run twice, no lease overfilled."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from skate.runtime.worker.leases import FunctionStats, Lease, SchedulingKey

_numbers = count()


@dataclass(eq=False)
class Task:
    stats: FunctionStats
    task_id: bytes = field(default_factory=lambda: next(_numbers).to_bytes(16, "big"))


class Policy(RuleBasedStateMachine):
    """A caller with one scheduling key, its daemon and its workers, reduced to what they say."""

    @initialize(limit=st.integers(1, 4))
    def start(self, limit: int) -> None:
        self.key = SchedulingKey({"CPU": 1.0}, limit)
        self.now = 0.0
        self.tasks: dict[bytes, Task] = {}
        self.finished: set[bytes] = set()
        self.stats = [FunctionStats() for _ in range(3)]
        self.request_ids = count(1)
        self.lease_ids = count(1)

    def _fill(self) -> None:
        while (assigned := self.key.assign()) is not None:
            lease, task = assigned
            assert not lease.blocked
            assert not lease.recalled
            assert len(lease.in_flight) < task.stats.depth()
            others = [x for x in self.key.leases if not x.blocked and not x.recalled]
            assert len(lease.in_flight) == min(len(x.in_flight) for x in others)
            if not lease.in_flight:
                lease.pushed_at = self.now
            lease.in_flight[task.task_id] = task
        usable = [x for x in self.key.leases if not x.blocked and not x.recalled]
        for _ in range(self.key.missing()):
            assert len(usable) + len(self.key.requests) < self.key.limit
            self.key.requests.add(next(self.request_ids))
        if not self.key.queue:
            self.key.requests.clear()

    def _lease(self, number: int) -> Lease | None:
        leases = self.key.leases
        return leases[number % len(leases)] if leases else None

    @rule(which=st.integers(0, 2), many=st.integers(1, 20))
    def submit(self, which: int, many: int) -> None:
        for _ in range(many):
            task = Task(self.stats[which])
            self.tasks[task.task_id] = task
            self.key.queue.append(task)
        self._fill()

    @rule()
    def grant(self) -> None:
        if self.key.requests:
            self.key.requests.pop()
            self.key.leases.append(Lease(next(self.lease_ids), None, self.key, self.now))
            self._fill()

    @rule(number=st.integers(0, 9), seconds=st.floats(1e-6, 0.1))
    def reply(self, number: int, seconds: float) -> None:
        lease = self._lease(number)
        if lease is None or not lease.in_flight:
            return
        task_id = next(iter(lease.in_flight))
        lease.in_flight.pop(task_id).stats.observe(seconds)
        assert task_id not in self.finished
        self.finished.add(task_id)
        lease.pushed_at = lease.idle_since = self.now
        if lease.recalled and not lease.in_flight:
            self.key.leases.remove(lease)
        self._fill()

    @rule(number=st.integers(0, 9))
    def block(self, number: int) -> None:
        lease = self._lease(number)
        if lease is not None and lease.in_flight and not lease.blocked:
            lease.blocked = True
            self._take_back(lease, len(lease.in_flight) - 1)
            self._fill()

    @rule(number=st.integers(0, 9))
    def unblock(self, number: int) -> None:
        lease = self._lease(number)
        if lease is not None:
            lease.blocked = False
            self._fill()

    @rule(number=st.integers(0, 9))
    def recall(self, number: int) -> None:
        lease = self._lease(number)
        if lease is None:
            return
        lease.recalled = True
        if lease.in_flight:
            self._take_back(lease, len(lease.in_flight) - 1)
        else:
            self.key.leases.remove(lease)
        self._fill()

    @rule(number=st.integers(0, 9))
    def worker_dies(self, number: int) -> None:
        lease = self._lease(number)
        if lease is not None:
            self.key.leases.remove(lease)
            self._take_back(lease, len(lease.in_flight))
            self._fill()

    @rule(seconds=st.floats(0.001, 0.5))
    def share(self, seconds: float) -> None:
        self.now += seconds
        found = self.key.victim(self.now)
        if found is not None:
            lease, many = found
            assert not lease.blocked
            assert 1 <= many < len(lease.in_flight)  # the one that runs stays
            self._take_back(lease, many)
            self._fill()

    def _take_back(self, lease: Lease, many: int) -> None:
        taken: list[Any] = [lease.in_flight.popitem()[1] for _ in range(many)]
        self.key.queue.extendleft(taken)

    @invariant()
    def no_task_is_lost_or_in_two_places(self) -> None:
        if not hasattr(self, "key"):
            return
        places = [task.task_id for task in self.key.queue]
        for lease in self.key.leases:
            places += lease.in_flight
        places += self.finished
        assert sorted(places) == sorted(self.tasks)

    @invariant()
    def whoever_waits_has_asked(self) -> None:
        if not hasattr(self, "key"):
            return
        usable = [x for x in self.key.leases if not x.blocked and not x.recalled]
        if self.key.queue and len(usable) < self.key.limit:
            assert self.key.requests


Policy.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestPolicy = Policy.TestCase
