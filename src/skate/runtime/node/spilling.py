"""Moves objects between memory and disk, by threads."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence

from skate.runtime.node.background import Background
from skate.runtime.node.loop import Loop
from skate.runtime.store.entries import Entry, Segment, SpillFile
from skate.runtime.store.header import header
from skate.runtime.store.server import Outgoing, SegmentTable
from skate.runtime.store.spill import Record, SpillError, SpillStorage

logger = logging.getLogger(__name__)

#: Small objects are put together into files of about this size: few files, few requests to a
#: remote storage, and few objects that keep a file when the others are freed.
FILE_BYTES = 64 * 1024 * 1024
#: How many files are written, and how many objects read, at the same time.
WRITERS = 2
READERS = 4
#: After a failure nothing is written for so many seconds.
PAUSE_SECONDS = 1.0
#: How long to wait for running work at the end, in seconds.
CLOSE_SECONDS = 2.0


class Spiller:
    """The disk side of a node's objects."""

    def __init__(
        self,
        loop: Loop,
        table: SegmentTable,
        storage: SpillStorage,
        send: Callable[[Outgoing], None],
    ) -> None:
        self._loop = loop
        self._table = table
        self._storage = storage
        self._send = send
        self._writers = Background(loop, WRITERS, "spill")
        self._readers = Background(loop, READERS, "restore")
        self._numbers = itertools.count(1)
        table.on_file_unused = self._delete
        #: Why the last attempt to write failed, and until when not to try again.
        self.failure = ""
        self._paused_until = 0.0
        #: Called when objects have been moved: "spill" or "restore", since when (``perf_counter``),
        #: and what.
        self.on_moved: Callable[[str, float, str], None] = lambda kind, started, what: None
        #: Totals, for statistics: bytes and seconds of threads.
        self.spilled_bytes = 0
        self.restored_bytes = 0

    @property
    def is_paused(self) -> bool:
        """Whether writing has just failed."""
        return self._loop.now() < self._paused_until

    # ------------------------------------------------------------------ out

    def spill(self, entries: Sequence[Entry]) -> None:
        """Write objects for which ``begin_copy`` has succeeded."""
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            batch.append(entry)
            size += entry.size
            if size >= FILE_BYTES:
                self._write(batch)
                batch, size = [], 0
        if batch:
            self._write(batch)

    def _write(self, entries: list[Entry]) -> None:
        name = f"{next(self._numbers):08d}"
        descriptors: dict[Segment, int] = {}
        records: list[Record] = []
        for entry in entries:
            segment = entry.segment
            assert segment is not None
            if segment not in descriptors:
                # The segment's own is closed when the session ends, whatever a thread is doing.
                descriptors[segment] = os.dup(segment.fd)
            record = Record(entry.object_id, entry.size, descriptors[segment], entry.offset)
            records.append(record)

        def work() -> None:
            try:
                self._storage.write(name, records)
            finally:
                for fd in descriptors.values():
                    os.close(fd)

        started = time.perf_counter()
        self._writers.submit(
            work, lambda _, error: self._written(name, entries, records, started, error)
        )

    def _written(
        self,
        name: str,
        entries: list[Entry],
        records: list[Record],
        started: float,
        error: Exception | None,
    ) -> None:
        if error is not None:
            if not self.is_paused:
                logger.warning("objects cannot be spilled: %s", error)
            self.failure = str(error)
            self._paused_until = self._loop.now() + PAUSE_SECONDS
            for entry in entries:
                self._send(self._table.end_copy(entry, None, 0))
            return
        self.failure = ""
        file = SpillFile(name)
        # Ours, until all are entered: the first may be freed before the last.
        file.objects = 1
        position = 0
        for entry, record in zip(entries, records, strict=True):
            self.spilled_bytes += record.length
            self._send(self._table.end_copy(entry, file, position))
            position += record.length
        file.objects -= 1
        if not file.objects:
            self._delete(file)
        self.on_moved("spill", started, f"{position} bytes of {len(records)} objects")

    def _delete(self, file: SpillFile) -> None:
        self._writers.submit(lambda: self._storage.delete(file.name), _ignore)

    # ------------------------------------------------------------------ in

    def restore(
        self, entry: Entry, segment: Segment, offset: int, done: Callable[[str], None]
    ) -> None:
        """Read an object to a place in memory; ``done`` gets "" or why it cannot be read."""
        file = entry.file
        assert file is not None
        # Should it be freed meanwhile, the file has to stay until it is read.
        file.objects += 1
        fd = os.dup(segment.fd)
        record = Record(entry.object_id, entry.size, fd, offset)
        position = entry.position
        started = time.perf_counter()

        def work() -> None:
            try:
                self._storage.read(file.name, position, record)
                # Last, as every writer does: only complete objects have a header.
                os.pwrite(fd, header(record.object_id, record.size), offset)
            finally:
                os.close(fd)

        def finished(_: None, error: Exception | None) -> None:
            file.objects -= 1
            if not file.objects:
                self._delete(file)
            if error is None:
                self.restored_bytes += record.length
                self.on_moved("restore", started, f"object {record.object_id.hex()}")
            elif not isinstance(error, SpillError):
                logger.error("could not read a spill file", exc_info=error)
            done("" if error is None else str(error))

        self._readers.submit(work, finished)

    def close(self) -> None:
        """Delete all files: the session ends."""
        self._storage.closing = True
        self._writers.close(CLOSE_SECONDS)
        self._readers.close(CLOSE_SECONDS)
        self._storage.close()


def _ignore(_result: None, _error: Exception | None) -> None:
    """Nothing depends on it."""
