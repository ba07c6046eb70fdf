"""The caller's side of tasks: submitting, replies, retries, cancelling."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from skate.engine.base import STREAMING, Code, TaskOptions
from skate.exceptions import (
    OutOfMemoryError,
    SerializationError,
    TaskCancelledError,
    TaskPlacementGroupRemovedError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from skate.generators import ObjectRefGenerator
from skate.ids import nth, owner_of
from skate.refs import ObjectRef
from skate.runtime.wire.connection import MAX_PAYLOAD
from skate.runtime.wire.messages import (
    OUT_OF_MEMORY_KIND,
    REMOVED_KIND,
    Cancel,
    CancelObject,
    Reply,
    ReplyValues,
    Task,
    TaskFailed,
    WorkerDied,
)
from skate.runtime.worker import memory
from skate.runtime.worker.arguments import pack
from skate.runtime.worker.cells import INLINE, BorrowedCell, Cell
from skate.runtime.worker.leases import FunctionStats
from skate.runtime.worker.record import NOTHING, Record
from skate.runtime.worker.streams import Stream

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

logger = logging.getLogger("skate")

#: A pickled function larger than this earns a warning: data belongs into ``put``.
LARGE_FUNCTION = 10 * 1024 * 1024

#: As ``TaskFailed.types`` would name it.
_TIMEOUT_TYPES = [f"{kind.__module__}.{kind.__qualname__}" for kind in TaskTimeoutError.__mro__]


class Submitter:
    """Submits tasks and follows them, and actor calls as well, to their end."""

    def __init__(self, core: Core) -> None:
        self.core = core
        #: Every call that has not finished.
        self.pending: dict[bytes, Record] = {}

    def submit(
        self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        """Start one call of a function; see ``Engine.submit_task``."""
        core = self.core
        stats = code.stats
        if stats is None:
            stats = self._first_use(code)
        if options.runtime_env is not None:
            core.environments.of(options)  # now, since packing files does not go with the lock
        data, slot_cells, nested = pack(core, args, kwargs)
        running = core.executing
        with core.lock:
            core.check_open()
            task_id, cells = core.new_cells(options.num_returns)
            task = Task(
                task_id,
                code.code_id,
                data,
                options.num_returns,
                NOTHING,
                NOTHING,
                running.chain if running is not None else NOTHING,
                running.depth + 1 if running is not None else 0,
                options.name,
                b"",
                "",
                0,
            )
            record = Record(task, cells)
            record.code = code
            record.stats = stats
            if running is not None:
                record.parent = running.task_id
            record.options = options
            record.retries = options.max_retries
            task.exact = options.max_retries == 0
            if options.timeout_s:
                record.terms().announce = True
            if options.max_calls:
                record.terms().max_calls = options.max_calls
            if options.num_returns < 0:
                stream = open_stream(core, record, options.generator_backpressure)
            record.home = core.leasing.key(options)
            self.pending[task_id] = record
            if slot_cells or nested:
                record.slot_cells = slot_cells
                record.nested = nested
                core.resolve_arguments(record, self._resolved)
            else:
                core.leasing.enqueue(record)
        core.pump.activity += 1
        if core.pump.interrupted:
            core.pump.safe_point()
        if options.num_returns == STREAMING:
            return [ObjectRefGenerator(stream)]
        return [ObjectRef(cell) for cell in cells]

    def _first_use(self, code: Code) -> FunctionStats:
        size = len(code.payload)
        if size > MAX_PAYLOAD:
            raise SerializationError(
                f"the function {code.name} is {size / 1e9:.1f} GB when pickled, because it refers"
                " to large data: pass that as an argument, or skate.put() it and pass the ref"
            )
        if size > LARGE_FUNCTION:
            logger.warning(
                "the function %s is %.0f MB when pickled, because it refers to large data; "
                "pass that as an argument, or skate.put() it and pass the ref",
                code.name,
                size / 1e6,
            )
        stats = code.stats = FunctionStats()
        return stats

    # ------------------------------------------------------------------ all below: locked

    def _resolved(self, record: Record) -> None:
        """All arguments have values, or one has failed."""
        if record.task_id not in self.pending:
            return
        if record.failed_argument is not None:
            self.finish_failed(record, record.failed_argument)
        else:
            if self.core.in_cluster:
                self.core.leasing.attract(record)
            self.core.leasing.enqueue(record)

    def answered(self, task_id: bytes, duration: int) -> Record | None:
        """A call has been answered; return its record if it was still awaited."""
        record = self.pending.pop(task_id, None)
        if record is None:
            return None
        lease = record.lease
        if lease is not None:
            record.stats.observe(duration * 1e-6)
            self.core.leasing.leave(lease, task_id)
        else:
            record.home.answered(record)
        if record.overdue is not None:
            # Whatever it says now comes too late.
            self.end_overdue(record)
            return None
        return record

    def end_overdue(self, record: Record) -> None:
        """A call that ran longer than it may has ended, and is no longer pending."""
        overdue, record.overdue = record.overdue, None
        assert overdue is not None
        wanted = record.options.retry_exceptions
        # True means: after whatever the task raises.  This is not raised by the task.
        if type(wanted) is tuple and _matches(wanted, _TIMEOUT_TYPES) and self._may_retry(record):
            self._retry(record)
        else:
            self.finish_failed(record, self.core.error(overdue.error(record)))

    def on_reply(self, _peer: Peer, message: Reply) -> None:
        """A call returned one small value."""
        record = self.answered(message.task_id, message.duration)
        if record is not None:
            cell = record.cells[0]
            cell.data = message.data
            self.core.pump.completions += 1
            cell.complete(INLINE)
            if self.core.lineages.running:
                self.core.lineages.ended(message.task_id)

    def on_reply_values(self, _peer: Peer, message: ReplyValues) -> None:
        """A call returned something else."""
        objects = self.core.objects
        record = self.answered(message.task_id, message.duration)
        if record is None:
            # Nobody wants the values: cells take them in and free them.
            for index, value in enumerate(message.values):
                objects.fill(Cell(nth(message.task_id, index), self.core.address), value)
            return
        origin = None
        if any(value.location is not None for value in message.values):
            origin = self.core.lineages.of(record)
        for cell, value in zip(record.cells, message.values, strict=False):
            objects.fill(cell, value, origin)

    def on_failed(self, _peer: Peer, message: TaskFailed) -> None:
        """A call raised."""
        record = self.answered(message.task_id, message.duration)
        if record is None:
            return
        again = not message.cancelled and _matches(record.options.retry_exceptions, message.types)
        if again and self._may_retry(record):
            self._retry(record)
        elif message.cancelled:
            self.finish_failed(record, message.error)
        else:
            # Whoever ran it has recorded it.
            self._fail(record, message.error, raised=True)

    def _may_retry(self, record: Record) -> bool:
        if record.task.actor_id:
            # Calls of actors count attempts, tasks count what is left.
            return bool(record.home.may_retry(record))
        return record.retries != 0

    def _retry(self, record: Record) -> None:
        record.task.attempt += 1
        self.pending[record.task_id] = record
        if record.task.actor_id:
            record.home.add(record)
            return
        assert record.retries is not None
        record.retries -= 1
        record.task.exact = True
        self.core.leasing.requeue(record)

    def resubmit(self, record: Record) -> None:
        """Send a finished call once more, because what it returned was lost."""
        self.pending[record.task_id] = record
        if record.task.actor_id:
            self.core.resolve_arguments(record, record.home.advance)
            record.home.add(record)
        else:
            self.core.leasing.look_after(record.home)
            self.core.resolve_arguments(record, self._resolved)

    def finish_failed(self, record: Record, error: bytes, crash: str = "") -> None:
        """End a call that has not run, or not to its end, without a value.

        ``crash`` says that, and how, its worker died.
        """
        self.core.events.lost(record, error)
        self._fail(record, error, crash)

    def _fail(self, record: Record, error: bytes, crash: str = "", raised: bool = False) -> None:
        self.pending.pop(record.task_id, None)
        if self.core.lineages.running:
            error = self.core.lineages.ended(record.task_id, crash) or error
        if record.stream is not None:
            record.stream.end(error, raised)
            return
        for cell in record.cells:
            self.core.objects.fail(cell, error)

    def on_process_died(self, death: WorkerDied) -> None:
        """Retry or fail what ran on a dead worker; what waited behind it is not to blame.

        Of tasks that may run twice the first one without an answer is taken for the one that ran:
        it may have finished, its answer being in the batch that was lost.
        """
        for index, record in enumerate(self.core.leasing.on_process_died(death.process_id)):
            if record.cancelled:
                self.finish_failed(record, self.core.error(cancelled_error(record)))
            elif death.kind == REMOVED_KIND:
                text = f"{record.name}() ran in a placement group that is gone: {death.cause}"
                self.finish_failed(record, self.core.error(TaskPlacementGroupRemovedError(text)))
            elif record.overdue is not None:
                self.pending.pop(record.task_id, None)
                self.end_overdue(record)
            elif index > 0:
                # Perhaps it is the one that kills workers: next time that will be known.
                record.task.exact = True
                self.core.leasing.requeue(record)
            elif death.kind == OUT_OF_MEMORY_KIND:
                self._out_of_memory(record, death)
            elif record.retries != 0:
                self._retry(record)
            else:
                text = f"the worker (pid {death.pid}) that ran {record.name}() died: {death.cause}."
                if death.log_path:
                    text += f" Its output: {death.log_path}."
                if record.task.attempt:
                    text += f" It was attempt {record.task.attempt + 1}."
                self.finish_failed(record, self.core.error(WorkerCrashedError(text)), text)

    def _out_of_memory(self, record: Record, death: WorkerDied) -> None:
        """The worker of a task was ended to save memory: try again later, if it may be."""
        record.memory_kills += 1
        seconds = memory.delay(record.memory_kills) if record.retries != 0 else None
        if seconds is None:
            times = f", the {record.memory_kills}th time" if record.memory_kills > 1 else ""
            text = f"the worker (pid {death.pid}) that ran {record.name}() was {death.cause}{times}"
            self.finish_failed(record, self.core.error(OutOfMemoryError(text)), text)
            return
        record.task.attempt += 1
        record.task.exact = True
        record.lease = None

        def again() -> None:
            if self.pending.get(record.task_id) is record:
                self.core.leasing.requeue(record)

        self.core.pump.call_later(seconds, again)

    def fail_all(self, error: bytes) -> None:
        """The session is over."""
        for record in list(self.pending.values()):
            self.finish_failed(record, error)

    def cancel_children(self, task_id: bytes, force: bool) -> None:
        """Locked.  Cancel what a task of this process has submitted."""
        for record in [r for r in self.pending.values() if r.parent == task_id]:
            self._cancel(record, force, True)

    def cancel(self, cell: Cell | Stream, force: bool, recursive: bool) -> None:
        """Stop the task that makes ``cell`` if it has not finished.

        Raises:
            ValueError: ``force`` for the call of an actor.
        """
        core = self.core
        with core.lock:
            if isinstance(cell, Stream):
                record = cell.record
            elif cell.status:
                return
            elif type(cell) is BorrowedCell:
                self._ask_owner_to_cancel(cell, force, recursive)
                return
            else:
                record = self.pending.get(cell.object_id) or next(
                    (found for found in self.pending.values() if cell in found.cells), None
                )
            if record is None:
                return
            if force and record.task.actor_id:
                raise ValueError(
                    f"force=True ends a process, and that of {record.name}() is an actor with a"
                    " state: cancel the call without force, or end the actor with skate.kill()"
                )
            self._cancel(record, force, recursive)
            core.links.flush()

    def _ask_owner_to_cancel(self, cell: BorrowedCell, force: bool, recursive: bool) -> None:
        core = self.core
        owner = owner_of(cell.object_id)
        if owner not in core.dead:
            peer = core.links.peer(owner, cell.owner_address)
            core.links.send(peer, CancelObject(cell.object_id, force, recursive))
            core.links.flush()

    def on_cancel_object(self, _peer: Peer, message: CancelObject) -> None:
        """A borrower cancels the task that makes an object of ours."""
        cell = self.core.ownership.known(message.object_id)
        if cell is None or cell.status:
            return
        for record in self.pending.values():
            if cell in record.cells:
                self._cancel(record, message.force, message.recursive)
                return

    def _cancel(self, record: Record, force: bool, recursive: bool) -> None:
        core = self.core
        # Of a task's children some may be calls of actors, which are not killed for it.
        force = force and not record.task.actor_id
        record.cancelled = True
        record.retries = 0
        peer = record.peer
        if peer is None:
            self.withdraw(record)
        else:
            core.links.send(peer, Cancel(record.task_id, force, recursive))
            core.pump.nudge()

    def withdraw(self, record: Record) -> None:
        """End a call that was not sent."""
        record.home.discard(record)
        self.core.leasing.withdrawn(record.home)
        self.finish_failed(record, self.core.error(cancelled_error(record)))


def open_stream(core: Core, record: Record, limit: int) -> Stream:
    """Locked.  Have the items of a call of a generator collected."""
    record.terms().stream_limit = limit
    stream = record.stream = Stream(core, record, limit)
    return stream


def cancelled_error(record: Record) -> TaskCancelledError:
    """Return what the refs of a cancelled call raise."""
    return TaskCancelledError(f"{record.name}() was cancelled")


def _matches(wanted: bool | tuple[str, ...], types: list[str]) -> bool:
    if isinstance(wanted, bool):
        return wanted
    return any(name in types for name in wanted)
