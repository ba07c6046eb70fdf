"""What this process has done lately: a ring of calls and waits, handed to the daemon now and then.

One tuple per task is all that the hot path pays.  The background thread encodes them once a second,
so a process that is killed takes the last second with it and no more.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from skate.exceptions import TaskError
from skate.runtime.wire.state import EventsFlushed
from skate.serialization import deserialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.invoke import Running
    from skate.runtime.worker.record import Record

#: Events between two flushes; of more the oldest are dropped.  Tasks that come faster than this per
#: second take microseconds each, and nobody reads a million of them.
RING = 10_000
#: Seconds between two flushes.
FLUSH_SECONDS = 1.0
#: Shorter waits are not recorded: they are round trips, not waits.
MIN_WAIT_SECONDS = 0.001
#: Characters of an error's message that are kept.
MAX_MESSAGE = 500

#: With so many events in the ring, calls that have not run are no longer added.
MOST_LOST = 1_000

_encoder = msgspec.msgpack.Encoder()


class Events:
    """The ring.  Its tuples have the shape of ``wire.state.Event``."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.ring: deque[tuple[Any, ...]] = deque(maxlen=RING)
        #: Tasks that have run here, and those of them that raised, since the process started.
        self.finished = 0
        self.failed = 0
        #: Events other than tasks so far, and all events at the last flush.
        self._others = 0
        self._flushed = 0
        #: ``finished`` and ``failed`` at the last flush.
        self._told = (0, 0)
        self._scheduled = False

    def add(self, event: tuple[Any, ...]) -> None:
        """Append an event."""
        self.ring.append(event)
        self._others += 1
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        core = self.core
        with core.lock:
            if not self._scheduled:
                self._scheduled = True
                core.pump.call_later(FLUSH_SECONDS, self.flush)

    def ran(self, running: Running, ended: float, error_type: str, error_message: str) -> None:
        """A call has run to its end, which may be an exception."""
        task = running.task
        self.finished += 1
        if error_type:
            self.failed += 1
        self.ring.append(
            (
                "task",
                running.name,
                running.started,
                ended,
                task.task_id,
                task.attempt,
                task.actor_id,
                running.thread,
                error_type,
                error_message,
            )
        )
        if not self._scheduled:
            self._schedule()

    def waited(self, started: float, task_id: bytes, name: str, thread: int) -> None:
        """A thread has waited in ``get`` or ``wait`` since ``started`` (``perf_counter``)."""
        ended = time.perf_counter()
        if ended - started >= MIN_WAIT_SECONDS:
            self.add(("wait", name, started, ended, task_id, 0, b"", thread, "", ""))

    def lost(self, record: Record, error: bytes) -> None:
        """A call of ours has failed without having been run to its end; ``error`` is pickled."""
        task = record.task
        if len(self.ring) >= MOST_LOST:
            # The end of a session may fail a hundred thousand calls at once.
            return
        try:
            described = describe_error(deserialize(error))
        except Exception:
            described = ("SkateError", "(it cannot be read here)")
        now = time.perf_counter()
        self.add(
            (
                "lost",
                record.name,
                record.since,
                now,
                task.task_id,
                task.attempt,
                task.actor_id,
                0,
                *described,
            )
        )

    def flush(self) -> None:
        """Locked.  Hand everything to the daemon."""
        self._scheduled = False
        ring = self.ring
        events: list[tuple[Any, ...]] = []
        try:
            while True:
                events.append(ring.popleft())
        except IndexError:
            pass
        if not events:
            return
        count, before = self._others + self.finished, self._flushed
        self._flushed = count
        dropped = max(count - before - len(events), 0)
        clock = time.time() - time.perf_counter()
        batch = (self.core.process_id, os.getpid(), clock, dropped, events)
        finished, failed = self._told
        self._told = (self.finished, self.failed)
        self.core.links.send_node(
            EventsFlushed(
                _encoder.encode(batch),
                len(events),
                self._told[0] - finished,
                self._told[1] - failed,
            )
        )


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return the type and the message of what a task has raised, the user's class if there is one.

    The message is cut, and the class of an exception may do anything when asked for it.
    """
    cause = error.cause if isinstance(error, TaskError) and error.cause is not None else error
    try:
        message = str(cause)[:MAX_MESSAGE]
    except BaseException:  # as in ``Invoker.reply_error``
        message = "(its message cannot be shown)"
    return type(cause).__name__, message
