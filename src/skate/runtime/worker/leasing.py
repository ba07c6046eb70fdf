"""Carries out what ``leases.py`` decides: asks for workers, pushes tasks, gives them back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from skate.engine.base import ANYWHERE, Strategy, TaskOptions
from skate.exceptions import (
    RuntimeEnvSetupError,
    SkateError,
    TaskPlacementGroupRemovedError,
    TaskUnschedulableError,
)
from skate.runtime.wire.messages import (
    ENVIRONMENT_KIND,
    REMOVED_KIND,
    BeginLease,
    CancelLeaseRequest,
    DefineFunction,
    LeaseGranted,
    LeaseRefused,
    RecallLease,
    RequestLease,
    Retiring,
    Returned,
    ReturnLease,
    Steal,
    Unblocked,
)
from skate.runtime.worker.cells import STORED
from skate.runtime.worker.leases import (
    IDLE_SECONDS,
    MIN_TENURE_SECONDS,
    Lease,
    SchedulingKey,
    lease_limit,
    within_group,
)
from skate.runtime.worker.links import FLUSH_AT
from skate.runtime.worker.record import Record

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: Resources, environment, strategy, and whether the tasks may run again.
_Shape: TypeAlias = tuple[tuple[tuple[str, float], ...], bytes, Strategy | None, bool]

#: Seconds between two looks at a key that has work in flight.
WATCH_SECONDS = 0.01
#: Arguments of so many bytes on one node attract their task; moving fewer takes less time than a
#: worker that is busy longer.
ATTRACTING_BYTES = 1024 * 1024


class Leasing:
    """The leases of this process.  Every method is called with the core's lock held."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._keys: dict[_Shape, SchedulingKey] = {}
        #: Of tasks whose arguments are on one node.
        self._near: dict[tuple[SchedulingKey, bytes], SchedulingKey] = {}
        self._leases: dict[int, Lease] = {}
        self._requests: dict[int, SchedulingKey] = {}
        self._request_ids = itertools.count(1)
        #: Keys to look at when the current batch of messages has been handled.
        self._touched: set[SchedulingKey] = set()
        self._watched: set[SchedulingKey] = set()

    def key(self, options: TaskOptions) -> SchedulingKey:
        """Return the scheduling key of these options, and keep an eye on it from now on."""
        if options.strategy is None and self.core.captured is not None:
            return self._find(options, self.core.captured)
        key = options.scheduling_key
        if key is not None and key in self._watched:
            return key  # type: ignore[no-any-return]  # opaque to the layer that declares it
        key = options.scheduling_key = self._find(options, options.strategy)
        return key

    def _find(self, options: TaskOptions, strategy: Strategy | None) -> SchedulingKey:
        if strategy == ANYWHERE:
            strategy = None
        resources = options.resources
        environment = self.core.environments.of(options)
        # Of tasks that may not run again the daemon has to know: see ``MemoryGuard``.
        retriable = options.max_retries != 0
        shape = (tuple(sorted(resources.items())), environment, strategy, retriable)
        key = self._keys.get(shape)
        if key is None:
            if strategy is not None:
                strategy.check_fits(resources)
            limit = self._limit(resources, strategy)
            key = SchedulingKey(dict(resources), limit, environment, strategy, retriable)
            self._keys[shape] = key
        self.look_after(key)
        return key

    def look_after(self, key: SchedulingKey) -> None:
        """Keep an eye on a key from now on."""
        if key not in self._watched:
            self._watched.add(key)
            self.core.pump.call_later(WATCH_SECONDS, lambda: self._watch(key))

    def attract(self, record: Record) -> None:
        """A task in a cluster has its arguments: if they are large, it goes to their node.

        Its leases are asked for, and kept, apart from those of tasks without such arguments.
        """
        sizes: dict[bytes, int] = {}
        for cell in record.slot_cells:
            if cell.status == STORED:
                location = cell.location
                sizes[location.node_id] = sizes.get(location.node_id, 0) + location.size
        node_id, size = max(sizes.items(), key=lambda item: item[1], default=(b"", 0))
        key: SchedulingKey = record.home
        if size < ATTRACTING_BYTES or key.strategy is not None or key.argument_bytes is not None:
            return
        near = self._near.get((key, node_id))
        if near is None:
            near = SchedulingKey(key.resources, key.limit, key.environment, retriable=key.retriable)
            self._near[key, node_id] = near
        near.argument_bytes = sizes
        self.look_after(near)
        record.home = near

    def _limit(self, resources: dict[str, float], strategy: Strategy | None) -> int:
        in_group = strategy is not None and strategy.group_id
        total = within_group(strategy) if strategy and in_group else self.core.total_resources
        return lease_limit(resources, total)

    def limits_changed(self) -> None:
        """Nodes have come or gone: more leases can be had, or fewer."""
        for key in (*self._keys.values(), *self._near.values()):
            key.limit = self._limit(key.resources, key.strategy)
            if key.queue:
                self._touched.add(key)

    def forget_group(self, group_id: bytes) -> None:
        """The group has ended: nothing will be submitted to it that is not refused."""
        self._forget_keys(
            lambda key: key.strategy is not None and key.strategy.group_id == group_id
        )

    def _forget_keys(self, matches: Callable[[SchedulingKey], bool]) -> None:
        for shape, key in list(self._keys.items()):
            if matches(key):
                del self._keys[shape]

    def enqueue(self, record: Record) -> None:
        """Give a task to a worker if one has room, otherwise queue it."""
        key: SchedulingKey = record.home
        key.queue.append(record)
        assigned = key.assign()
        if assigned is None:
            if len(key.requests) < key.limit:
                self._request_leases(key)
            self.core.pump.nudge()
            return
        lease, record = assigned
        self._push(lease, record)
        peer = lease.peer
        if len(lease.in_flight) == 1 or peer.queued >= FLUSH_AT:
            self.core.links.flush_peer(peer)
        else:
            self.core.pump.nudge()

    def requeue(self, record: Record) -> None:
        """Queue a task again that ran, or was about to run, on a worker."""
        record.lease = None
        key: SchedulingKey = record.home
        key.queue.append(record)
        self._touched.add(key)
        self.look_after(key)

    def _push(self, lease: Lease, record: Record) -> None:
        """Queue a task for the lease's worker."""
        core = self.core
        peer = lease.peer
        if peer.connection is None:
            # Its death is about to be announced; the queue gets it back then.
            lease.in_flight[record.task_id] = record
            record.lease = lease
            return
        if lease.lease_id not in peer.leases_begun:
            peer.leases_begun.add(lease.lease_id)
            key = lease.key
            core.links.send(
                peer, BeginLease(lease.lease_id, key.resources, lease.gpu_ids, key.strategy)
            )
        code = record.code
        assert code is not None
        if code.code_id not in peer.functions:
            peer.functions.add(code.code_id)
            core.links.send(peer, DefineFunction(code.code_id, code.name, code.payload))
        if not lease.in_flight:
            lease.pushed_at = time.monotonic()
        lease.in_flight[record.task_id] = record
        record.lease = lease
        core.prepare(record, peer.process_id)
        core.links.send(peer, record.task)

    def _fill(self, key: SchedulingKey) -> None:
        """Push what there is room for; then ask for leases, or share backlogs."""
        while True:
            assigned = key.assign()
            if assigned is None:
                break
            self._push(*assigned)
        if key.queue:
            self._request_leases(key)
            return
        if key.requests:
            for request_id in list(key.requests):
                self._drop_request(key, request_id)
        for lease in key.idle_leases():
            if lease.wanted:
                self._return(lease)
        self._share(key, time.monotonic())

    def _share(self, key: SchedulingKey, now: float) -> None:
        if any(not lease.recalled for lease in key.idle_leases()):
            found = key.victim(now)
            if found is not None:
                lease, count = found
                lease.stealing = True
                self.core.links.send(lease.peer, Steal(count))

    def _request_leases(self, key: SchedulingKey) -> None:
        missing = key.missing()
        for _ in range(missing):
            self._request(key, key.queue[0])

    def _request(self, key: SchedulingKey, record: Record) -> None:
        request_id = next(self._request_ids)
        key.requests.add(request_id)
        self._requests[request_id] = key
        name = record.task.name or (record.code.name if record.code is not None else "")
        self.core.links.send_node(
            RequestLease(
                request_id,
                key.resources,
                record.task.depth,
                name,
                key.environment,
                key.strategy,
                key.retriable,
                key.argument_bytes,
            )
        )

    def withdrawn(self, home: object) -> None:
        """Locked.  A task was taken off a queue, maybe an actor's: nobody waits for its worker."""
        if not isinstance(home, SchedulingKey):
            return
        surplus = -home.missing()
        if surplus > 0:
            for request_id in sorted(home.requests)[-surplus:]:
                self._drop_request(home, request_id)
            self.core.pump.nudge()

    def _drop_request(self, key: SchedulingKey, request_id: int) -> None:
        key.requests.discard(request_id)
        del self._requests[request_id]
        self.core.links.send_node(CancelLeaseRequest(request_id))

    def on_lease_granted(self, message: LeaseGranted) -> None:
        """The daemon gives us a worker."""
        key = self._requests.pop(message.request_id, None)
        if key is None:
            self.core.links.send_node(ReturnLease(message.lease_id))
            return
        key.requests.discard(message.request_id)
        peer = self.core.links.peer(message.worker_id, message.worker_address)
        lease = Lease(message.lease_id, peer, key, time.monotonic())
        lease.gpu_ids = message.gpu_ids
        lease.pid = message.pid
        if peer.dead:
            # It died between the grant and our connecting, and its lease with it; or it cannot be
            # reached, and is ended for that.  Given back it would be granted again at once.
            self._touched.add(key)
            return
        self._leases[lease.lease_id] = lease
        key.leases.append(lease)
        self._touched.add(key)

    def on_lease_refused(self, message: LeaseRefused) -> None:
        """The daemon will never give us such a worker."""
        key = self._requests.pop(message.request_id, None)
        if key is None:
            return
        key.requests.discard(message.request_id)
        failure: type[SkateError] = TaskUnschedulableError
        if message.kind == REMOVED_KIND:
            failure = TaskPlacementGroupRemovedError
        elif message.kind == ENVIRONMENT_KIND:
            failure = RuntimeEnvSetupError
            # The others are about to be refused for the same reason, and what is submitted from
            # now on is to be tried again.
            for request_id in list(key.requests):
                self._drop_request(key, request_id)
        error = self.core.error(failure(message.reason))
        while key.queue:
            self.core.submitter.finish_failed(key.queue.popleft(), error)

    def on_recall(self, message: RecallLease) -> None:
        """Others wait for what a lease holds."""
        lease = self._leases.get(message.lease_id)
        if lease is None or lease.wanted:
            return
        lease.wanted = True
        if not lease.in_flight and not lease.key.queue:
            self._return(lease)
            return
        tenure = time.monotonic() - lease.granted_at
        if tenure < MIN_TENURE_SECONDS:
            self.core.pump.call_later(MIN_TENURE_SECONDS - tenure, lambda: self._drain(lease))
        else:
            self._drain(lease)

    def _drain(self, lease: Lease) -> None:
        if lease.lease_id not in self._leases:
            return
        if not lease.in_flight:
            self._return(lease)
            if lease.key.queue:
                self._touched.add(lease.key)
            return
        lease.recalled = True
        if len(lease.in_flight) > 1:
            lease.stealing = True
            self.core.links.send(lease.peer, Steal(len(lease.in_flight)))

    def _return(self, lease: Lease) -> None:
        self._forget(lease)
        self.core.links.send_node(ReturnLease(lease.lease_id))

    def _forget(self, lease: Lease) -> None:
        self._leases.pop(lease.lease_id, None)
        if lease in lease.key.leases:
            lease.key.leases.remove(lease)
        lease.peer.leases_begun.discard(lease.lease_id)

    def _watch(self, key: SchedulingKey) -> None:
        """Timer: return idle leases, help stuck pipelines, as long as there are any."""
        now = time.monotonic()
        if key.queue:
            self._touched.add(key)
        elif key.leases:
            for lease in key.idle_leases():
                if now - lease.idle_since >= IDLE_SECONDS:
                    self._return(lease)
            if key.lacks_helpers(now):
                for lease in key.leases:
                    if lease.in_flight:
                        self._request(key, next(iter(lease.in_flight.values())))
                        break
            self._share(key, now)
        if key.leases or key.queue or key.requests:
            busy = key.queue or any(lease.in_flight for lease in key.leases)
            delay = WATCH_SECONDS if busy else IDLE_SECONDS / 3
            self.core.pump.call_later(delay, lambda: self._watch(key))
        else:
            self._watched.discard(key)
            if key.strategy is not None and key.strategy.group_id:
                # Groups come and go, and nobody may tell this process of their end.
                self._forget_keys(lambda other: other is key)

    def run_touched(self) -> None:
        """Refill the pipelines of keys that got room, tasks or leases."""
        while self._touched:
            self._fill(self._touched.pop())

    def leave(self, lease: Lease, task_id: bytes) -> None:
        """A task is no longer at its worker."""
        in_flight = lease.in_flight
        in_flight.pop(task_id, None)
        now = time.monotonic()
        lease.pushed_at = now
        key = lease.key
        if key.queue:
            self._touched.add(key)
        if not in_flight:
            lease.idle_since = now
            if lease.recalled:
                self._return(lease)
            self._touched.add(key)

    def on_returned(self, peer: Peer, message: Returned) -> None:
        """A worker hands tasks back unstarted."""
        keys: dict[SchedulingKey, list[Record]] = {}
        for task_id in message.task_ids:
            record = self.core.submitter.pending.get(task_id)
            if record is None or record.lease is None:
                continue
            lease = record.lease
            self.leave(lease, task_id)
            record.lease = None
            if record.cancelled:
                # The Cancel has crossed it: nobody there has heard of the task any more.
                self.core.submitter.withdraw(record)
                continue
            keys.setdefault(lease.key, []).append(record)
        for key, records in keys.items():
            key.queue.extendleft(reversed(records))
            self._touched.add(key)
        for lease in self._of(peer):
            lease.stealing = False
            if message.blocked:
                lease.blocked = True
            self._touched.add(lease.key)

    def on_unblocked(self, peer: Peer, _message: Unblocked) -> None:
        """A worker has stopped waiting."""
        for lease in self._of(peer):
            lease.blocked = False
            lease.idle_since = time.monotonic()
            self._touched.add(lease.key)

    def on_retiring(self, peer: Peer, _message: Retiring) -> None:
        """A worker takes no further tasks."""
        for lease in self._of(peer):
            lease.wanted = lease.recalled = True
            if not lease.in_flight:
                self._return(lease)
            self._touched.add(lease.key)

    def _of(self, peer: Peer) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.peer is peer]

    def on_process_died(self, process_id: bytes) -> list[Record]:
        """Drop the leases on a dead worker; return its tasks, the one that ran (if any) first."""
        records: list[Record] = []
        for lease in [x for x in self._leases.values() if x.peer.process_id == process_id]:
            self._forget(lease)
            self._touched.add(lease.key)
            records += lease.in_flight.values()
            lease.in_flight.clear()
        return records
