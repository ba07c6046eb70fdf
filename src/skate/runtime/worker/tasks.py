"""The caller's side of tasks: arguments, pushing to leased workers, replies and retries."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from skate.engine.base import Code, TaskOptions
from skate.exceptions import (
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from skate.refs import ObjectRef
from skate.runtime.wire.messages import (
    BeginLease,
    Cancel,
    CancelLeaseRequest,
    DefineFunction,
    LeaseGranted,
    LeaseRefused,
    RecallLease,
    Reply,
    ReplyValues,
    RequestLease,
    Returned,
    ReturnLease,
    Steal,
    Task,
    TaskFailed,
    Unblocked,
)
from skate.runtime.worker.cells import FAILED, INLINE, Cell
from skate.runtime.worker.leases import (
    IDLE_SECONDS,
    MIN_TENURE_SECONDS,
    FunctionStats,
    Lease,
    SchedulingKey,
    lease_limit,
)
from skate.runtime.worker.links import FLUSH_AT
from skate.runtime.worker.objects import INLINE_MAX
from skate.serialization import Slot, serialize, serialize_arguments

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

logger = logging.getLogger("skate")

#: A pickled function larger than this earns a warning: data belongs into ``put``.
LARGE_FUNCTION = 10 * 1024 * 1024
#: Seconds between two looks at a key that has work in flight.
WATCH_SECONDS = 0.01


class Record:
    """A task or actor call that this process has submitted and that has not finished."""

    __slots__ = (
        "cancelled",
        "cells",
        "code",
        "failed_argument",
        "home",
        "kept",
        "lease",
        "nested",
        "on_resolved",
        "options",
        "retries",
        "slot_cells",
        "stats",
        "task",
        "task_id",
        "waiting",
    )

    def __init__(self, task: Task, cells: list[Cell]) -> None:
        self.task = task
        self.task_id = task.task_id
        self.cells = cells
        self.code: Code | None = None
        self.stats: FunctionStats = _UNKNOWN
        self.options: Any = None
        self.retries = 0
        #: Cells of top-level refs, in the order of their slots.
        self.slot_cells: list[Any] = []
        #: Cells of refs inside the arguments.
        self.nested: list[Any] = []
        #: Arguments that are not ready.
        self.waiting = 0
        #: The serialized exception of an argument that failed.
        self.failed_argument: bytes | None = None
        self.on_resolved: Any = None
        #: The scheduling key, or the actor that it goes to.
        self.home: Any = None
        self.lease: Lease | None = None
        #: What else has to live until the reply: the actor's cell.
        self.kept: Any = None
        self.cancelled = False

    def on_ready(self, cell: Cell) -> None:
        """Locked.  An argument has got its value."""
        if cell.status == FAILED and self.failed_argument is None:
            self.failed_argument = cell.data
        self.waiting -= 1
        if self.waiting == 0 or self.failed_argument is not None:
            resolved, self.on_resolved = self.on_resolved, None
            if resolved is not None:
                resolved(self)


_UNKNOWN = FunctionStats()


class Arguments:
    """Serialized arguments of one call."""

    __slots__ = ("data", "nested", "slot_cells")

    def __init__(self, data: bytes, slot_cells: list[Any], nested: list[Any]) -> None:
        self.data = data
        self.slot_cells = slot_cells
        self.nested = nested


def pack(core: Core, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Serialize arguments: top-level refs become slots, and so do values too large to send."""
    cells: list[Any] = []
    for value in args:
        if type(value) is ObjectRef:
            break
    else:
        for value in kwargs.values():
            if type(value) is ObjectRef:
                break
        else:
            serialized = serialize_arguments(args, kwargs)
            if serialized.size <= INLINE_MAX:
                nested = [ref._cell for ref in serialized.refs] if serialized.refs else cells
                return Arguments(serialized.to_bytes(), cells, nested)
            return _pack_large(core, args, kwargs)

    def slot(value: Any) -> Any:
        if type(value) is not ObjectRef:
            return value
        cells.append(value._cell)
        return Slot(len(cells) - 1)

    args = tuple([slot(value) for value in args])
    kwargs = {name: slot(value) for name, value in kwargs.items()}
    serialized = serialize_arguments(args, kwargs)
    if serialized.size > INLINE_MAX:
        return _pack_large(core, args, kwargs, cells)
    return Arguments(serialized.to_bytes(), cells, [ref._cell for ref in serialized.refs])


def _pack_large(
    core: Core, args: tuple[Any, ...], kwargs: dict[str, Any], cells: list[Any] | None = None
) -> Arguments:
    cells = [] if cells is None else cells

    def slot(value: Any) -> Any:
        if type(value) is Slot:
            return value
        serialized = serialize(value)
        if serialized.size <= INLINE_MAX:
            return value
        cells.append(core.objects.new_cell(serialized))
        return Slot(len(cells) - 1)

    args = tuple([slot(value) for value in args])
    kwargs = {name: slot(value) for name, value in kwargs.items()}
    serialized = serialize_arguments(args, kwargs)
    return Arguments(serialized.to_bytes(), cells, [ref._cell for ref in serialized.refs])


class Submitter:
    """Submits tasks and follows them to their end."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.pending: dict[bytes, Record] = {}
        self._keys: dict[tuple[tuple[str, float], ...], SchedulingKey] = {}
        self._stats: dict[Code, FunctionStats] = {}
        self._leases: dict[int, Lease] = {}
        self._requests: dict[int, SchedulingKey] = {}
        self._request_ids = itertools.count(1)
        #: Keys to look at when the current batch of messages has been handled.
        self._touched: set[SchedulingKey] = set()
        self._watched: set[SchedulingKey] = set()

    # ------------------------------------------------------------------ submitting

    def submit(
        self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef[Any]]:
        """Start one call of a function."""
        core = self.core
        stats = self._stats.get(code)
        if stats is None:
            stats = self._first_use(code)
        arguments = pack(core, args, kwargs)
        running = core.executing
        with core.lock:
            task_id, cells = core.new_cells(options.num_returns)
            task = Task(
                task_id,
                code.code_id,
                arguments.data,
                options.num_returns,
                [],
                [],
                running.chain if running is not None else [],
                running.depth + 1 if running is not None else 0,
                options.name,
                b"",
                "",
                0,
            )
            record = Record(task, cells)
            record.code = code
            record.stats = stats
            record.options = options
            record.retries = options.max_retries
            key = options.scheduling_key
            if key is None or key not in self._watched:
                key = self._key(options)
            record.home = key
            self.pending[task_id] = record
            if arguments.slot_cells or arguments.nested:
                record.slot_cells = arguments.slot_cells
                record.nested = arguments.nested
                core.resolve_arguments(record, self._enqueue)
            else:
                self._enqueue(record)
        core.pump.activity += 1
        if core.pump.interrupted is not None:
            core.pump.raise_interrupt()
        return [ObjectRef(cell) for cell in cells]

    def _first_use(self, code: Code) -> FunctionStats:
        size = len(code.payload)
        if size > LARGE_FUNCTION:
            logger.warning(
                "the function %s is %.0f MB when pickled, because it refers to large data; "
                "pass that as an argument, or skate.put() it and pass the ref",
                code.name,
                size / 1e6,
            )
        stats = self._stats[code] = FunctionStats()
        return stats

    def _key(self, options: TaskOptions) -> SchedulingKey:
        shape = tuple(sorted(options.resources.items()))
        key = self._keys.get(shape)
        if key is None:
            limit = lease_limit(options.resources, self.core.total_resources)
            key = self._keys[shape] = SchedulingKey(dict(options.resources), limit)
        options.scheduling_key = key
        if key not in self._watched:
            self._watched.add(key)
            self.core.pump.call_later(WATCH_SECONDS, lambda: self._watch(key))
        return key

    def _enqueue(self, record: Record) -> None:
        """Locked.  All arguments are there: to a worker if one has room, otherwise to the queue."""
        if record.task_id not in self.pending:
            return
        if record.failed_argument is not None:
            self._finish_failed(record, record.failed_argument)
            return
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
        if len(lease.in_flight) == 1 or len(peer.connection.out) >= FLUSH_AT:
            self.core.links.flush_peer(peer)
        else:
            self.core.pump.nudge()

    def _push(self, lease: Lease, record: Record) -> None:
        """Locked.  Queue a task for the lease's worker."""
        core = self.core
        peer = lease.peer
        if peer.connection is None:
            # Its death is about to be announced; the queue gets it back then.
            lease.in_flight[record.task_id] = record
            record.lease = lease
            return
        if lease.lease_id not in peer.leases_begun:
            peer.leases_begun.add(lease.lease_id)
            core.links.send(peer, BeginLease(lease.lease_id, lease.key.resources, lease.gpu_ids))
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
        """Locked.  Push what there is room for; then ask for leases, or share backlogs."""
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
        self.core.links.send_node(RequestLease(request_id, key.resources, record.task.depth, name))

    def _drop_request(self, key: SchedulingKey, request_id: int) -> None:
        key.requests.discard(request_id)
        del self._requests[request_id]
        self.core.links.send_node(CancelLeaseRequest(request_id))

    # ------------------------------------------------------------------ leases (locked)

    def on_lease_granted(self, message: LeaseGranted) -> None:
        """Locked.  The daemon gives us a worker."""
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
            # It died between the grant and our connecting; its end is announced to everybody.
            self.core.links.send_node(ReturnLease(message.lease_id))
            self._touched.add(key)
            return
        self._leases[lease.lease_id] = lease
        key.leases.append(lease)
        self._touched.add(key)

    def on_lease_refused(self, message: LeaseRefused) -> None:
        """Locked.  The daemon will never give us such a worker."""
        key = self._requests.pop(message.request_id, None)
        if key is None:
            return
        key.requests.discard(message.request_id)
        error = self.core.error(TaskUnschedulableError(message.reason))
        while key.queue:
            self._finish_failed(key.queue.popleft(), error)

    def on_recall(self, message: RecallLease) -> None:
        """Locked.  Others wait for what a lease holds."""
        lease = self._leases.get(message.lease_id)
        if lease is None or lease.recalled:
            return
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
        """Timer, locked: return idle leases, help stuck pipelines, as long as there are any."""
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

    def run_touched(self) -> None:
        """Locked.  Refill the pipelines of keys that got room, tasks or leases."""
        while self._touched:
            self._fill(self._touched.pop())

    # ------------------------------------------------------------------ replies (locked)

    def _take(self, task_id: bytes, duration: int) -> Record | None:
        """Locked.  A task has answered: remove it from its pipeline."""
        record = self.pending.pop(task_id, None)
        if record is None:
            return None
        lease = record.lease
        if lease is not None:
            record.stats.observe(duration * 1e-6)
            self._leave(lease, task_id)
        else:
            record.home.answered(record)
        return record

    def _leave(self, lease: Lease, task_id: bytes) -> None:
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

    def on_reply(self, _peer: Peer, message: Reply) -> None:
        """Locked.  A task returned one small value."""
        record = self._take(message.task_id, message.duration)
        if record is not None:
            cell = record.cells[0]
            cell.data = message.data
            self.core.pump.completions += 1
            cell.complete(INLINE)

    def on_reply_values(self, _peer: Peer, message: ReplyValues) -> None:
        """Locked.  A task returned something else."""
        objects = self.core.objects
        record = self._take(message.task_id, message.duration)
        if record is None:
            for value in message.values:
                objects.accept_all(value.refs)
            return
        for cell, value in zip(record.cells, message.values, strict=False):
            objects.fill(cell, value)

    def on_failed(self, _peer: Peer, message: TaskFailed) -> None:
        """Locked.  A task raised."""
        record = self._take(message.task_id, message.duration)
        if record is None:
            return
        if (
            not message.cancelled
            and record.retries != 0
            and _matches(record.options.retry_exceptions, message.types)
        ):
            self._retry(record)
            return
        self._finish_failed(record, message.error)

    def on_returned(self, peer: Peer, message: Returned) -> None:
        """Locked.  A worker hands tasks back unstarted."""
        keys: dict[SchedulingKey, list[Record]] = {}
        for task_id in message.task_ids:
            record = self.pending.get(task_id)
            if record is None or record.lease is None:
                continue
            lease = record.lease
            self._leave(lease, task_id)
            record.lease = None
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
        """Locked.  A worker has stopped waiting."""
        for lease in self._of(peer):
            lease.blocked = False
            lease.idle_since = time.monotonic()
            self._touched.add(lease.key)

    def _of(self, peer: Peer) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.peer is peer]

    def _retry(self, record: Record) -> None:
        record.retries -= 1
        record.lease = None
        record.task.attempt += 1
        self.pending[record.task_id] = record
        record.home.queue.append(record)
        self._touched.add(record.home)

    def _finish_failed(self, record: Record, error: bytes) -> None:
        """Locked.  The end of a task without a value."""
        self.pending.pop(record.task_id, None)
        for cell in record.cells:
            self.core.objects.fail(cell, error)

    def on_process_died(self, process_id: bytes, pid: int, cause: str, log_path: str) -> None:
        """Locked.  Retry or fail what ran on a dead worker; what waited there is not to blame."""
        for lease in [x for x in self._leases.values() if x.peer.process_id == process_id]:
            self._forget(lease)
            self._touched.add(lease.key)
            records = list(lease.in_flight.values())
            lease.in_flight.clear()
            for index, record in enumerate(records):
                record.lease = None
                if record.cancelled:
                    self._finish_failed(record, self.core.error(_cancelled(record)))
                elif index > 0:
                    lease.key.queue.append(record)
                elif record.retries != 0:
                    self._retry(record)
                else:
                    code = record.code
                    name = record.task.name or (code.name if code is not None else "?")
                    text = f"the worker (pid {pid}) that ran {name}() died: {cause}."
                    if log_path:
                        text += f" Its output: {log_path}."
                    if record.options.max_retries:
                        text += f" Retried {record.options.max_retries} time(s)."
                    self._finish_failed(record, self.core.error(WorkerCrashedError(text)))

    def fail_all(self, error: bytes) -> None:
        """Locked.  The session is over."""
        for record in list(self.pending.values()):
            self._finish_failed(record, error)

    # ------------------------------------------------------------------ cancelling

    def cancel(self, cell: Cell, force: bool) -> None:
        """Stop the task that makes ``cell`` if it has not finished."""
        core = self.core
        with core.lock:
            if cell.status:
                return
            record = self.pending.get(cell.object_id) or next(
                (found for found in self.pending.values() if cell in found.cells), None
            )
            if record is None:
                return
            record.cancelled = True
            record.retries = 0
            lease = record.lease
            peer = lease.peer if lease is not None else record.home.peer_of(record)
            if peer is None:
                record.home.discard(record)
                self._finish_failed(record, core.error(_cancelled(record)))
                return
            core.links.send(peer, Cancel(record.task_id, force))
            core.links.flush_peer(peer)


def _cancelled(record: Record) -> TaskCancelledError:
    name = record.task.name or (record.code.name if record.code is not None else record.task.method)
    return TaskCancelledError(f"{name}() was cancelled")


def _matches(wanted: bool | tuple[type[BaseException], ...], types: list[str]) -> bool:
    if isinstance(wanted, bool):
        return wanted
    return any(f"{t.__module__}.{t.__qualname__}" in types for t in wanted)
