"""What the processes of a session have done lately, kept for when they are gone.

Batches stay as the processes have encoded them: keeping one costs a copy of some bytes.
"""

from __future__ import annotations

import os
import time
from collections import deque

import msgspec

from skate.runtime.wire.state import Event, EventBatch, EventsFlushed

#: Bytes of batches that are kept; an event takes about 90, ...
KEPT_BYTES = 4 * 1024 * 1024
#: ... and a batch so many more in memory: actors that live for a moment leave one event in each.
BATCH_BYTES = 100

_encoder = msgspec.msgpack.Encoder()


class KeptEvents:
    """A bounded queue of event batches, the oldest forgotten first."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._batches: deque[EventsFlushed] = deque()
        self._size = 0
        #: Events kept now.
        self.count = 0
        #: Tasks that have ended in the session, and those of them that raised.
        self.finished = 0
        self.failed = 0

    def add(self, message: EventsFlushed) -> None:
        """Keep a batch."""
        self._batches.append(message)
        self._size += len(message.batch) + BATCH_BYTES
        self.count += message.count
        self.finished += message.finished
        self.failed += message.failed
        while self._size > self._limit and self._batches:
            oldest = self._batches.popleft()
            self._size -= len(oldest.batch) + BATCH_BYTES
            self.count -= oldest.count

    def note(self, node_id: bytes, kind: str, name: str, started: float) -> None:
        """Keep something that the daemon itself has done since ``started`` (``perf_counter``)."""
        now = time.perf_counter()
        event = Event(kind, name, started, now, b"", 0, b"", 0, "", "")
        batch = EventBatch(node_id, os.getpid(), time.time() - now, 0, [event])
        self.add(EventsFlushed(_encoder.encode(batch), 1))

    def newest(self, limit: int, tasks_only: bool = False) -> bytes:
        """Return the newest batches with at least ``limit`` events, as a MessagePack array.

        ``tasks_only``: with so many tasks that have run; waits, and what the daemon has done, do
        not count.
        """
        chosen: list[msgspec.Raw] = []
        count = 0
        for message in reversed(self._batches):
            if count >= limit:
                break
            chosen.append(msgspec.Raw(message.batch))
            # Of more tasks than events the oldest were dropped.
            count += min(message.finished, message.count) if tasks_only else message.count
        chosen.reverse()
        return _encoder.encode(chosen)
