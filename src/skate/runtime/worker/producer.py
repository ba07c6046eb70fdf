"""The worker's side of generators: send what they yield, wait while the consumer lags behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skate.ids import nth
from skate.runtime.wire.calls import StreamDropped, StreamItems, StreamTaken, StreamValues, Terms
from skate.runtime.worker.objects import INLINE_MAX
from skate.runtime.worker.pump import Waiter
from skate.serialization import Serialized, serialize

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task, Value
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer

#: An item waits so many seconds for others before it is sent ...
ITEM_DELAY = 0.001
#: ... and so many bytes of items are sent at once.
BATCH_BYTES = 256 * 1024

_NO_TERMS = Terms()


class Producer:
    """One running generator call."""

    __slots__ = (
        "_batch",
        "_batch_bytes",
        "_core",
        "_limit",
        "_peer",
        "_sent_at",
        "_skip",
        "_taken",
        "_task_id",
        "count",
        "dropped",
        "waiter",
    )

    def __init__(self, core: Core, task: Task, peer: Peer) -> None:
        terms = task.terms or _NO_TERMS
        self._core = core
        self._peer = peer
        self._task_id = task.task_id
        #: The owner has these from an earlier attempt.
        self._skip = terms.received
        self._taken = terms.taken
        self._limit = terms.stream_limit
        #: Items made so far.
        self.count = 0
        #: Nobody takes further items.
        self.dropped = False
        #: The last message as long as it has not left: further items are added to it.
        self._batch: StreamItems | None = None
        self._batch_bytes = 0
        self._sent_at = 0.0
        #: What to call when ``is_full`` may have changed.
        self.waiter: Any = None

    def is_full(self) -> bool:
        """Whether the generator has to wait for its consumer."""
        return bool(self._limit) and self.count - self._taken >= self._limit and not self.dropped

    def send(self, item: Any) -> None:
        """Send one item to the caller, soon.

        Raises:
            SerializationError: it cannot be pickled.
            ObjectStoreFullError: it is large and there is no room.
        """
        large = self._send_small(item)
        if large is not None:
            self._send_value(self._core.objects.value_of(*self._described(large)))
        self._sent()

    async def send_on_loop(self, item: Any) -> None:
        """Do the same on an event loop, which goes on while there is no room."""
        large = self._send_small(item)
        if large is not None:
            self._send_value(await self._core.objects.value_on_loop(*self._described(large)))
        self._sent()

    def _described(self, serialized: Serialized) -> tuple[Serialized, bytes, bytes, str]:
        """Return the arguments of ``Objects.value_of`` for the next item."""
        running = self._core.executing
        name = running.name if running is not None else ""
        return serialized, nth(self._task_id, 1 + self.count), self._peer.process_id, name

    def _send_value(self, value: Value) -> None:
        with self._core.lock:
            self._core.links.send(self._peer, StreamValues(self._task_id, self.count, [value]))
        self.count += 1

    def _sent(self) -> None:
        """An item was sent, or is about to be: have it leave in time."""
        core, pump = self._core, self._core.pump
        if self.count <= self._skip:
            return
        now = time.perf_counter()
        if pump.interrupted and threading.get_ident() == pump.main:
            pump.handle_interrupts()
        if (
            now - self._sent_at > ITEM_DELAY
            or self._batch_bytes > BATCH_BYTES
            or (self._limit and self.is_full())
        ):
            self._sent_at = now
            with core.lock:
                core.links.flush()
            # The background thread thinks that a busy main thread looks by itself.
            core.poll()
        else:
            # The background thread flushes at its next look; if it sleeps in epoll, it is woken.
            pump.activity += 1
            pump.nudge()

    def _send_small(self, item: Any) -> Serialized | None:
        """Send an item, or leave it out if the owner has it; return it if it is large."""
        core, peer, index = self._core, self._peer, self.count
        if index < self._skip:
            self.count = index + 1
            return None
        serialized = serialize(item)
        if serialized.refs or serialized.size > INLINE_MAX:
            return serialized
        data = serialized.to_bytes()
        self.count = index + 1
        with core.lock:
            connection = peer.connection
            if connection is None:
                self.dropped = True
                return None
            batch = self._batch
            if batch is not None and connection.out and connection.out[-1] is batch:
                batch.items.append(data)
                self._batch_bytes += len(data)
                return None
            self._batch = StreamItems(self._task_id, index, [data])
            self._batch_bytes = len(data)
            core.links.send(peer, self._batch)
        return None

    # ------------------------------------------------------------------ messages (locked)

    def on_taken(self, count: int) -> None:
        """The consumer has taken so many items in total."""
        self._taken = max(self._taken, count)
        self._wake()

    def on_dropped(self) -> None:
        """Nobody takes further items."""
        self.dropped = True
        self._wake()

    def _wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.on_ready()


class Producers:
    """The generators that run in this process."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._by_task: dict[bytes, tuple[Producer, bytes]] = {}
        #: Generators that are about to start, and whose consumers are gone already.
        self._dropped_early: set[bytes] = set()

    def begin(self, task: Task, peer: Peer) -> Producer:
        """A generator starts."""
        producer = Producer(self.core, task, peer)
        with self.core.lock:
            self._by_task[task.task_id] = (producer, peer.process_id)
            if task.task_id in self._dropped_early:
                self._dropped_early.discard(task.task_id)
                producer.dropped = True
        return producer

    def end(self, task: Task) -> None:
        """A generator has ended."""
        with self.core.lock:
            self._by_task.pop(task.task_id, None)

    def run(self, task: Task, peer: Peer, items: Any, name: str) -> int:
        """Send all items of a generator and return how many there are.

        Raises:
            ValueError: ``items`` is no iterator.
        """
        iterator = as_iterator(items, name)
        producer = self.begin(task, peer)
        try:
            for item in iterator:
                producer.send(item)
                if producer.is_full():
                    self._wait(producer)
                if producer.dropped:
                    close(iterator)
                    break
        except KeyboardInterrupt:
            # If that was outside of the generator, between two items, it has to end all the same.
            close(iterator)
            raise
        finally:
            self.end(task)
        return producer.count

    def _wait(self, producer: Producer) -> None:
        while True:
            waiter = Waiter(1)
            with self.core.lock:
                if not producer.is_full():
                    return
                producer.waiter = waiter
            self.core.block(waiter)

    # ------------------------------------------------------------------ messages (locked)

    def on_taken(self, _peer: Peer, message: StreamTaken) -> None:
        """A consumer has taken items."""
        found = self._by_task.get(message.task_id)
        if found is not None:
            found[0].on_taken(message.count)

    def on_dropped(self, message: StreamDropped) -> bool:
        """A consumer is gone; return whether its generator runs here."""
        found = self._by_task.get(message.task_id)
        if found is not None:
            found[0].on_dropped()
        return found is not None

    def drop_early(self, task_id: bytes) -> None:
        """The consumer of a generator that is about to start is gone."""
        self._dropped_early.add(task_id)

    def on_process_died(self, process_id: bytes) -> None:
        """Nobody takes what a dead process has asked for."""
        for producer, caller in list(self._by_task.values()):
            if caller == process_id:
                producer.on_dropped()


def as_iterator(items: Any, name: str) -> Iterator[Any]:
    """Return what a call with ``num_returns="streaming"`` has returned, if it can be iterated.

    Raises:
        ValueError: it is no iterator.
    """
    if not hasattr(items, "__next__"):
        raise ValueError(
            f"{name} was called for its items (num_returns='streaming' or 'dynamic') but returned"
            f" {type(items).__name__}, not a generator"
        )
    iterator: Iterator[Any] = items
    return iterator


def close(iterator: Iterator[Any]) -> None:
    """End a generator at its ``yield``: what it has in ``finally`` runs."""
    closer = getattr(iterator, "close", None)
    if closer is not None:
        closer()
