"""Which task goes to which leased worker, when to ask for more workers, what to take back.

Plain decisions, one ``SchedulingKey`` per set of resources: no sockets, no clock (callers pass
``now``, in seconds).  ``Submitter`` carries them out.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from skate.engine.base import Strategy

#: Work that one worker holds ahead, in seconds: enough to hide a round trip, little enough to
#: share.
PIPELINE_SECONDS = 0.003
#: Most tasks in one worker's pipeline.
MAX_DEPTH = 512
#: An idle lease goes back after this many seconds.
IDLE_SECONDS = 0.3
#: A recalled lease is kept this long before it is drained, so that callers do not thrash.
MIN_TENURE_SECONDS = 0.2
#: A pipeline whose oldest task was sent this many seconds ago is worth sharing.
STEAL_AFTER_SECONDS = 0.01


class FunctionStats:
    """How long calls of one function take, as an exponential average."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        #: None until the first call has returned.
        self.seconds: float | None = None

    def observe(self, seconds: float) -> None:
        """Count one finished call."""
        known = self.seconds
        self.seconds = seconds if known is None else known + 0.2 * (seconds - known)

    def depth(self) -> int:
        """How many of these tasks to keep at one worker; one while nothing is known."""
        known = self.seconds
        if known is None:
            return 1
        if known * MAX_DEPTH <= PIPELINE_SECONDS:
            return MAX_DEPTH
        return 1 + int(PIPELINE_SECONDS / known)


class Pending(Protocol):
    """What this module needs to know of a task."""

    task_id: bytes
    stats: FunctionStats


class Lease:
    """A worker we may push tasks to."""

    __slots__ = (
        "blocked",
        "gpu_ids",
        "granted_at",
        "idle_since",
        "in_flight",
        "key",
        "lease_id",
        "peer",
        "pid",
        "pushed_at",
        "recalled",
        "stealing",
        "wanted",
    )

    def __init__(self, lease_id: int, peer: Any, key: SchedulingKey, now: float) -> None:
        self.lease_id = lease_id
        self.peer = peer
        self.key = key
        self.pid = 0
        self.gpu_ids: list[int] = []
        self.granted_at = now
        self.idle_since = now
        #: Pushed and unanswered tasks by id, oldest first: the first is the one that runs.
        self.in_flight: dict[bytes, Any] = {}
        #: When the last task was pushed to an empty pipeline or the last reply came.
        self.pushed_at = now
        #: The daemon has recalled it: it goes back when it is idle ...
        self.wanted = False
        #: ... or, after its tenure, gets no further tasks.
        self.recalled = False
        #: Its worker waits in ``get``: nothing is pushed to it until it says otherwise.
        self.blocked = False
        #: A ``Steal`` is on its way.
        self.stealing = False


class SchedulingKey:
    """The tasks that need one set of resources in one place and environment, and their leases."""

    __slots__ = (
        "argument_bytes",
        "environment",
        "leases",
        "limit",
        "queue",
        "requests",
        "resources",
        "retriable",
        "strategy",
    )

    def __init__(
        self,
        resources: dict[str, float],
        limit: int,
        environment: bytes = b"",
        strategy: Strategy | None = None,
        retriable: bool = True,
    ) -> None:
        self.resources = resources
        #: Names the runtime environment.
        self.environment = environment
        self.strategy = strategy
        #: Bytes of the large arguments of one of the tasks, by node; None if there are none.
        self.argument_bytes: dict[bytes, int] | None = None
        #: Whether the tasks may run more than once.
        self.retriable = retriable
        #: How many such leases the cluster could grant at once, at most.
        self.limit = limit
        self.queue: deque[Any] = deque()
        self.leases: list[Lease] = []
        #: Ids of lease requests that the daemon has not answered.
        self.requests: set[int] = set()

    def assign(self) -> tuple[Lease, Any] | None:
        """Take the next task off the queue and return it with the lease to push it to, or None.

        The emptiest pipeline comes first, so that two workers start before either gets a second
        task.
        """
        queue = self.queue
        if not queue:
            return None
        best = None
        load = 1 << 30
        for lease in self.leases:
            count = len(lease.in_flight)
            if count < load and not lease.blocked and not lease.recalled:
                best, load = lease, count
        if best is None or load >= queue[0].stats.depth():
            return None
        return best, queue.popleft()

    def discard(self, task: Any) -> None:
        """Take a task off the queue if it is there."""
        if task in self.queue:
            self.queue.remove(task)

    def peer_of(self, task: Any) -> Any:
        """Return where a task runs that has no lease: nowhere (actors answer otherwise)."""

    def missing(self) -> int:
        """How many more leases to ask for now (negative: so many requests too many)."""
        usable = sum(1 for lease in self.leases if not lease.blocked and not lease.recalled)
        wanted = min(len(self.queue), self.limit - usable)
        return max(wanted, 0) - len(self.requests)

    def lacks_helpers(self, now: float) -> bool:
        """Whether pipelines thought to be short have stood for long: another worker would help."""
        usable = 0
        stuck = False
        for lease in self.leases:
            if lease.blocked or lease.recalled:
                continue
            usable += 1
            if not lease.in_flight:
                return False
            if len(lease.in_flight) > 1 and now - lease.pushed_at > STEAL_AFTER_SECONDS:
                stuck = True
        return stuck and usable < self.limit and not self.requests

    def victim(self, now: float) -> tuple[Lease, int] | None:
        """Return a lease with a backlog worth sharing with an idle one, and how much to take."""
        if self.queue:
            return None
        best = None
        load = 1
        for lease in self.leases:
            count = len(lease.in_flight)
            if lease.stealing or lease.blocked or count <= load:
                continue
            first = next(iter(lease.in_flight.values()))
            seconds = first.stats.seconds
            remaining = count * seconds if seconds is not None else 0.0
            if remaining > PIPELINE_SECONDS / 2 or now - lease.pushed_at > STEAL_AFTER_SECONDS:
                best, load = lease, count
        if best is None:
            return None
        return best, load // 2

    def idle_leases(self) -> list[Lease]:
        """Leases whose worker has nothing to do."""
        return [lease for lease in self.leases if not lease.in_flight and not lease.blocked]


def lease_limit(needed: dict[str, float], total: dict[str, float]) -> int:
    """Return how many such leases a cluster with ``total`` could grant; at least 1."""
    limit = 1 << 20
    for name, amount in needed.items():
        if amount > 0:
            limit = min(limit, int(total.get(name, 0.0) / amount + 1e-6))
    if limit == 1 << 20:
        # Tasks that need nothing: as many as there are CPUs keep them busy.
        limit = max(int(total.get("CPU", 1.0)), 1)
    return max(limit, 1)


def within_group(strategy: Strategy) -> dict[str, float]:
    """Return what the bundles have together that a strategy names."""
    chosen = strategy.bundles
    if strategy.bundle >= 0:
        chosen = chosen[strategy.bundle : strategy.bundle + 1]
    total: dict[str, float] = {}
    for bundle in chosen:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    return total
