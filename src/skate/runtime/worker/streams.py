"""The caller's side of generators: items as they arrive, in order, until they are taken.

The ids of items follow the id of the call, so that an item that is made a second time, after a
crash, is the same object: the worker is told how many have arrived and leaves these out.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from skate.engine.base import DYNAMIC
from skate.exceptions import GetTimeoutError
from skate.generators import DynamicObjectRefGenerator
from skate.ids import nth
from skate.refs import ObjectRef
from skate.runtime.wire.calls import (
    StreamDropped,
    StreamEnded,
    StreamItems,
    StreamTaken,
    StreamValues,
    Terms,
)
from skate.runtime.worker.arrivals import wait_for_next
from skate.runtime.worker.cells import FAILED, INLINE, Cell
from skate.runtime.worker.remade import EVERYTHING, RemadeStream
from skate.serialization import serialize

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Value
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.lineage import Lineage
    from skate.runtime.worker.links import Peer
    from skate.runtime.worker.record import Record

#: Ids that one generator may use for its items.
IDS_PER_STREAM = 1 << 32
_NONE = serialize(None).to_bytes()


class Stream:
    """The items of one call.  What it holds is changed with the core's lock held."""

    __slots__ = (
        "_acknowledged",
        "_completed",
        "_core",
        "_dynamic",
        "_full_since",
        "_items",
        "_limit",
        "_lineage",
        "_lost",
        "_waited",
        "_watched",
        "dropped",
        "ended",
        "listeners",
        "received",
        "record",
        "status",
        "taken",
        "task_id",
    )

    def __init__(self, core: Core, record: Record, limit: int) -> None:
        self._core = core
        #: None once the call has ended.
        self.record: Record | None = record
        self._completed = record.cells[0]
        self._dynamic = record.task.num_returns == DYNAMIC
        self._limit = limit
        self.task_id = record.task_id
        #: Serialized values without refs, or cells.
        self._items: deque[bytes | Cell] = deque()
        #: What it takes to make stored items again, if there are any.
        self._lineage: Lineage | None = None
        #: Items that were lost while the generator still runs.
        self._lost: list[Cell] = []
        self.received = 0
        self.taken = 0
        self._acknowledged = 0
        #: Seconds that the generator has waited for the consumer, and since when it does now.
        self._waited = 0.0
        self._full_since = 0.0
        self.ended = False
        #: Somebody has asked for ``completed()``.
        self._watched = False
        #: The iterator is gone.
        self.dropped = False
        #: 1 while ``take`` would not wait.
        self.status = 0
        #: What to call when that becomes so.
        self.listeners: list[Any] = []

    @property
    def object_id(self) -> bytes:
        """The id of the call."""
        return self.task_id

    # ------------------------------------------------------------------ the consumer

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Wait for the next item and return its ref; None at the end; see ``generators.Stream``."""
        core = self._core
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with core.lock:
                if self.status:
                    return self._next()
            if not wait_for_next(core, self, deadline):
                raise GetTimeoutError(
                    f"item {self.taken} of {self.task_id.hex()} was not there after {timeout} s"
                )

    async def take_soon(self) -> ObjectRef[Any] | None:
        """Do the same in an event loop."""
        while True:
            with self._core.lock:
                if self.status:
                    return self._next()
            await self._core.awaiting.stream(self)

    def _next(self) -> ObjectRef[Any] | None:
        items = self._items
        if not items:
            return None
        item = items.popleft()
        self.taken += 1
        if type(item) is bytes:
            cell = Cell(nth(self.task_id, self.taken), self._core.address)
            cell.data = item
            cell.status = INLINE
        else:
            cell = item  # type: ignore[assignment]  # mypy does not narrow by ``type() is``
        if not items and not self.ended:
            self.status = 0
        if self._limit:
            self._acknowledge()
        return ObjectRef(cell)

    def _acknowledge(self) -> None:
        """Tell a generator that may wait for it what was taken: not each, but always the last."""
        if self.ended:
            return
        if self.taken - self._acknowledged >= max(1, self._limit // 2) or not self._items:
            self._acknowledged = self.taken
            self._go_on()
            self._tell(StreamTaken(self.task_id, self.taken))

    def _go_on(self) -> None:
        """The generator is about to have room."""
        if self._full_since:
            self._waited += time.monotonic() - self._full_since
            self._full_since = 0.0

    def waited(self, now: float) -> float:
        """How many seconds the generator has waited for its consumer, in this attempt."""
        return self._waited + (now - self._full_since if self._full_since else 0.0)

    def _tell(self, message: object) -> None:
        record = self.record
        peer = None if record is None else record.peer
        if peer is not None:
            self._core.links.send(peer, message)
            self._core.pump.nudge()

    def completed(self) -> ObjectRef[None]:
        """Return a ref that is ready when the generator has ended."""
        self._watched = True
        return ObjectRef(self._completed)

    def is_finished(self) -> bool:
        """Whether all items have been taken and no more will come."""
        return self.ended and not self._items

    def drop(self) -> None:
        """The iterator is gone.  Safe in finalizers."""
        self._core.finalized.add(("stream", self))

    # ------------------------------------------------------------------ below: locked

    def on_dropped(self) -> None:
        """The iterator is gone: end the call, unless somebody waits for its end."""
        self.dropped = True
        self._items.clear()
        record = self.record
        if record is None:
            return
        if self._watched:
            self._limit = 0
            self._go_on()
            self._tell(StreamTaken(self.task_id, EVERYTHING))
        elif record.peer is None:
            self._core.submitter.withdraw(record)
        else:
            self._tell(StreamDropped(self.task_id))

    def resume(self, terms: Terms) -> None:
        """The call is about to be sent, perhaps once more."""
        terms.received = self.received
        terms.taken = EVERYTHING if self.dropped else self.taken
        self._acknowledged = self.taken
        self._waited = self._full_since = 0.0

    def on_items(self, message: StreamItems) -> None:
        """Small values have arrived."""
        items = message.items
        skip = self.received - message.first
        if skip > 0:
            items = items[skip:]
        self.received += len(items)
        if not self.dropped:
            self._items.extend(items)
            self._changed()

    def on_values(self, message: StreamValues) -> None:
        """Other values have arrived."""
        core = self._core
        for index, value in enumerate(message.values, message.first):
            cell = Cell(nth(self.task_id, 1 + index), core.address)
            # One that we have, or that nobody wants, is freed with its cell.
            core.objects.fill(cell, value, self._origin(value))
            if index < self.received:
                continue
            self.received += 1
            if not self.dropped:
                self._items.append(cell)
        self._changed()

    def _origin(self, value: Value) -> Lineage | None:
        if value.location is not None and self._lineage is None:
            assert self.record is not None
            self._lineage = self._core.lineages.of(self.record)
        return self._lineage

    def lose(self, cell: Cell) -> None:
        """An item was lost: it is made again when the generator has ended."""
        self._lost.append(cell)

    def end(self, error: bytes | None, raised: bool = False) -> None:
        """The call has ended; ``raised``: by an exception of the generator itself."""
        if self.ended:
            return
        core = self._core
        self.ended = True
        record, self.record = self.record, None
        if self._lineage is not None and self._lineage.record is not None and record is not None:
            self._lineage.record.retries = record.retries
            self._lineage.record.task.attempt = record.task.attempt
        lost, self._lost = self._lost, []
        for cell in lost:
            core.lineages.remake(cell, self._lineage, "it was lost while its generator ran")
        if error is not None and (raised or not self._dynamic):
            cell = Cell(nth(self.task_id, 1 + self.received), core.address)
            cell.data = error
            cell.status = FAILED
            self._items.append(cell)
        completed = self._completed
        if self._dynamic and (raised or error is None):
            self._complete_dynamic(completed)
        elif error is not None:
            core.objects.fail(completed, error)
        elif not completed.status:
            completed.data = _NONE
            core.objects.complete(completed, INLINE)
        self._changed()

    def _complete_dynamic(self, completed: Cell) -> None:
        """The call's only result is the list of the refs of its items."""
        refs: list[ObjectRef[Any]] = []
        while self._items:
            ref = self._next()
            assert ref is not None
            refs.append(ref)
        # Nothing of the user's is pickled here, so this may be done with the lock held.
        completed.data = serialize(DynamicObjectRefGenerator(refs)).to_bytes()
        completed.contained = [ref._cell for ref in refs]
        for cell in completed.contained:
            self._core.ownership.know(cell)
        self._core.objects.complete(completed, INLINE)

    def _changed(self) -> None:
        if not self._items and not self.ended:
            return
        if (
            self._limit
            and not self._full_since
            and self.received - self._acknowledged >= self._limit
        ):
            self._full_since = time.monotonic()
        self.status = 1
        pump = self._core.pump
        pump.completions += 1
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener.on_ready(self)
        # Only if another thread pumps: what it waits for may be this.
        pump.nudge()


class Streams:
    """Hands messages about generators to their streams.  All of this runs with the lock held."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def _find(self, task_id: bytes) -> Stream | RemadeStream | None:
        record = self.core.submitter.pending.get(task_id)
        return None if record is None else record.stream

    def on_items(self, _peer: Peer, message: StreamItems) -> None:
        """A generator has yielded small values."""
        stream = self._find(message.task_id)
        if stream is not None:
            stream.on_items(message)

    def on_values(self, _peer: Peer, message: StreamValues) -> None:
        """A generator has yielded other values."""
        stream = self._find(message.task_id)
        if stream is not None:
            stream.on_values(message)
            return
        for value in message.values:
            self.core.ownership.accept_all(value.refs)

    def on_ended(self, _peer: Peer, message: StreamEnded) -> None:
        """A generator has returned."""
        record = self.core.submitter.answered(message.task_id, message.duration)
        if record is None or record.stream is None:
            return
        if isinstance(record.stream, RemadeStream):
            record.stream.total = message.count
        record.stream.end(None)
